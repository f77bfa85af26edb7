//! Tests of the metrics as a whole: events in, exposition out.

mod collector;
mod exposition;
mod formats;
mod rules;
mod table;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::{Metrics, MetricsConfig};
use crate::analytics::{Analytics, AnalyticsConfig};
use crate::event::{
    Action, ChildRef, ChildType, Decision, Event, ExitReason, Payload, Pid, Restart, RestartCause, Strategy,
    SupervisorEvent, SupervisorExit, SupervisorRef, Timestamp,
};
use crate::telemetry::{self, Telemetry};

/// Metrics, what they read from, and the bus between them.
struct World {
    telemetry: Telemetry,
    metrics: Metrics,
}

impl World {
    fn new(config: MetricsConfig) -> Self {
        let (telemetry, analytics) = (Telemetry::new(), Analytics::new(AnalyticsConfig::default()));
        analytics.attach(&telemetry).unwrap();
        let metrics = Metrics::new(config, &telemetry, &analytics);
        metrics.attach().unwrap();
        Self { telemetry, metrics }
    }

    fn supervisor(&self, name: &str) -> Emitter {
        self.emitter(SupervisorRef::new(Pid::Task(0), name, None))
    }

    fn emitter(&self, supervisor: SupervisorRef) -> Emitter {
        Emitter { telemetry: self.telemetry.clone(), supervisor: Arc::new(supervisor) }
    }

    /// The value on the line of a series; none if there is no such line.
    fn value(&self, series: &str) -> Option<f64> {
        value_in(&self.metrics.render(), series)
    }

    /// The lines of all series of a metric that begin like this.
    fn lines(&self, prefix: &str) -> Vec<String> {
        self.metrics.render().lines().filter(|line| line.starts_with(prefix)).map(str::to_owned).collect()
    }
}

fn value_in(text: &str, series: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

/// One incarnation of a supervisor, telling what happens to it. System time stands still at Unix second 1,700,000,000.
struct Emitter {
    telemetry: Telemetry,
    supervisor: Arc<SupervisorRef>,
}

impl Emitter {
    fn emit(&self, payload: Payload) {
        let time = Timestamp { monotonic: telemetry::monotonic_now(), system: unix(1_700_000_000) };
        self.telemetry.execute(&Event::Supervisor(SupervisorEvent {
            supervisor: self.supervisor.clone(),
            time,
            payload,
        }));
    }

    fn init(&self) {
        self.init_under(None);
    }

    fn init_under(&self, parent: Option<&str>) {
        self.emit(Payload::SupervisorInit {
            strategy: Some(Strategy::OneForOne),
            max_restarts: Some(3),
            max_seconds: Some(5),
            parent: parent.map(Into::into),
            found: false,
        });
    }

    fn start(&self, child: &str) {
        let duration = Duration::from_millis(2);
        self.emit(Payload::ChildStart {
            child: child_ref(child),
            child_pid: Some(Pid::Task(1)),
            duration: Some(duration),
        });
    }

    fn start_error(&self, child: &str, decision: Option<Decision>) {
        let (reason, duration) = (ExitReason::error("no"), Duration::from_millis(1));
        self.emit(Payload::ChildStartError {
            child: child_ref(child),
            reason,
            attempt: 1,
            duration: Some(duration),
            decision,
            last_output: None,
        });
    }

    fn terminate(&self, child: &str, reason: ExitReason, restarts_left: u32) {
        self.emit(Payload::ChildTerminate {
            child: child_ref(child),
            child_pid: Some(Pid::Task(1)),
            reason,
            shutdown: false,
            lifetime: Some(Duration::from_millis(1500)),
            decision: restart(restarts_left),
            last_output: None,
            usage: None,
        });
    }

    fn restart(&self, child: &str, cause: RestartCause) {
        self.emit(Payload::ChildRestart {
            child: child_ref(child),
            child_pid: Some(Pid::Task(2)),
            previous_pid: Some(Pid::Task(1)),
            cause,
            downtime: Some(Duration::from_millis(4)),
            duration: Some(Duration::from_millis(3)),
        });
    }

    fn end(&self, reason: SupervisorExit) {
        self.emit(Payload::SupervisorTerminate { reason, lifetime: Some(Duration::from_secs(60)) });
    }
}

fn child_ref(label: &str) -> Arc<ChildRef> {
    Arc::new(ChildRef {
        id: label.into(),
        label: label.into(),
        child_type: ChildType::Worker,
        restart: Some(Restart::Permanent),
        dynamic: false,
    })
}

fn restart(restarts_left: u32) -> Decision {
    Decision { action: Action::Restart, delay: Duration::ZERO, restarts_left: Some(restarts_left) }
}

fn unix(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

/// A little of everything: three supervisors, one of them on a node, one with a name that needs escapes.
fn scripted(world: &World) {
    let shop = world.supervisor("shop");
    shop.init();
    shop.start("mailer");
    shop.start("cart");
    shop.terminate("mailer", ExitReason::Exit(3), 2);
    shop.restart("mailer", RestartCause::Failure);
    shop.terminate("mailer", ExitReason::Killed, 0);
    shop.start_error("mailer", Some(restart(0)));
    let workers = world.supervisor("shop/\"work\\ers\"\n");
    workers.init_under(Some("shop"));
    workers.start("_dynamic");
    workers.terminate("_dynamic", ExitReason::Normal, 3);
    workers.end(SupervisorExit::Shutdown);
    let pool =
        world.emitter(SupervisorRef::new(Pid::Beam { id: 123, serial: 0 }, "Elixir.Pool", Some("app@host".into())));
    pool.start("{Worker,1}");
    pool.terminate("{Worker,1}", ExitReason::Shutdown(None), 3);
    pool.restart("{Worker,1}", RestartCause::Requested);
    world.metrics.config_reloaded(true, unix(1_700_000_000));
}
