//! A tree whose children really crash, at different rhythms, for ever: something to look at before anything of one's own
//! is supervised.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use restart_exporter::Error;
use restart_exporter::prelude::*;
use restart_exporter::supervisor::ControlError;
use tokio::sync::SetOnce;
use tokio::time::{interval, sleep};

/// Allows every restart that the rhythms below can make, so that no supervisor of the demo gives up.
const GENEROUS: u32 = 1_000;

/// What a child of the demo may die of.
#[derive(Debug, thiserror::Error)]
enum DemoError {
    #[error("SMTP 421: service not available, closing transmission channel")]
    Smtp,
    #[error("upstream closed the connection after {0} bytes")]
    Upstream(usize),
}

/// The supervisors of the demo.
pub(crate) struct Demo {
    /// In start order.
    pub(crate) supervisors: Vec<Supervisor>,
    /// The dynamic supervisor once it runs, which the scheduler waits for.
    dynamic: Arc<SetOnce<SupervisorHandle>>,
}

/// The name of the supervisor that the scheduler adds jobs to.
const DYNAMIC: &str = "demo_dynamic";

impl Demo {
    pub(crate) fn new() -> Self {
        let dynamic = Arc::new(SetOnce::new());
        let scheduled = dynamic.clone();
        let scheduler = ChildSpec::task("scheduler", move |stop| schedule(stop, scheduled.clone()));
        let supervisors = vec![
            one_for_one(),
            one_for_all(),
            rest_for_one(),
            Supervisor::new(DYNAMIC).strategy(Strategy::Dynamic).max_restarts(GENEROUS).max_children(20),
            Supervisor::new("demo_scheduler").child(scheduler),
        ];
        Self { supervisors, dynamic }
    }

    /// Starts the supervisors.
    pub(crate) async fn supervise(self, exporter: &Exporter) -> Result<(), Error> {
        for supervisor in self.supervisors {
            let is_dynamic = supervisor.name() == DYNAMIC;
            let handle = exporter.supervise(supervisor).await?;
            if is_dynamic {
                // There is one of that name.
                drop(self.dynamic.set(handle));
            }
        }
        Ok(())
    }
}

/// Independent children: a panic, an error, a process that exits, one that is killed, and one that is well.
fn one_for_one() -> Supervisor {
    Supervisor::new("demo_one_for_one")
        .max_restarts(GENEROUS)
        .child(ChildSpec::task("healthy", |stop| async move { stop.stopped().await }))
        .child(ChildSpec::task("mailer", |stop| after(stop, 7, || Err(DemoError::Smtp))))
        .child(ChildSpec::task("parser", |stop| {
            after(stop, 11, || {
                let empty: [u8; 0] = [];
                let length = empty.iter().map(|byte| usize::from(*byte)).max();
                assert!(length.is_some(), "attempt to parse an empty message");
                Ok(())
            })
        }))
        .child(ChildSpec::process("exits", "sh", ["-c", "sleep 5; echo 'bind: address already in use' >&2; exit 1"]))
        .child(ChildSpec::process("killed", "sh", ["-c", "sleep 13; kill -KILL $$"]).restart(Restart::Transient))
}

/// Children that depend on each other: one failure restarts all.
fn one_for_all() -> Supervisor {
    Supervisor::new("demo_one_for_all")
        .strategy(Strategy::OneForAll)
        .max_restarts(GENEROUS)
        .child(ChildSpec::task("connection", |stop| after(stop, 17, || Err(DemoError::Upstream(4096)))))
        .child(ChildSpec::task("reader", |stop| async move { stop.stopped().await }))
        .child(ChildSpec::process("writer", "sleep", ["86400"]))
}

/// A chain: who fails takes those after it along.
fn rest_for_one() -> Supervisor {
    let session = Supervisor::new("session")
        .max_restarts(GENEROUS)
        .child(ChildSpec::task("heartbeat", |stop| after(stop, 3, || Err(DemoError::Upstream(0)))));
    Supervisor::new("demo_rest_for_one")
        .strategy(Strategy::RestForOne)
        .max_restarts(GENEROUS)
        .child(ChildSpec::task("store", |stop| async move { stop.stopped().await }))
        .child(ChildSpec::task("cache", |stop| after(stop, 19, || Ok(()))))
        .child(ChildSpec::supervisor(session))
}

/// Adds a job to the dynamic supervisor every second. Each works for a while, and some fail; a failed one is restarted
/// until it succeeds.
async fn schedule(stop: StopToken, dynamic: Arc<SetOnce<SupervisorHandle>>) -> Result<(), ControlError> {
    let dynamic = tokio::select! {
        () = stop.stopped() => return Ok(()),
        dynamic = dynamic.wait() => dynamic,
    };
    let mut every_second = interval(Duration::from_secs(1));
    for number in 0_u64.. {
        tokio::select! {
            () = stop.stopped() => break,
            _ = every_second.tick() => {}
        }
        let runs = AtomicU64::new(0);
        let job = ChildSpec::task(format!("job-{number}"), move |stop| {
            let fails = number % 5 == 4 && runs.fetch_add(1, Ordering::Relaxed) == 0;
            after(stop, 2 + number % 4, move || if fails { Err(DemoError::Smtp) } else { Ok(()) })
        });
        match dynamic.start_child(job.restart(Restart::Transient).kind("job")).await {
            Ok(_) | Err(ControlError::MaxChildren(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Works for some seconds, then ends as `end` says; earlier if told to stop.
async fn after(stop: StopToken, seconds: u64, end: impl FnOnce() -> Result<(), DemoError>) -> Result<(), DemoError> {
    tokio::select! {
        () = stop.stopped() => Ok(()),
        () = sleep(Duration::from_secs(seconds)) => end(),
    }
}
