//! Supervisors that tell of crashes without having any child: what a bus carries in a storm.

use std::sync::Arc;
use std::time::Duration;

use restart_exporter::event::{
    Action, ChildRef, ChildType, Decision, Event, ExitReason, Payload, Pid, Restart, RestartCause, Strategy,
    SupervisorEvent, SupervisorRef, Timestamp,
};
use restart_exporter::telemetry::Telemetry;

const LIFETIME: Duration = Duration::from_millis(250);
const DOWNTIME: Duration = Duration::from_micros(40);
const START: Duration = Duration::from_micros(5);

/// One supervisor and its static children.
pub(crate) struct Tree {
    pub(crate) supervisor: Arc<SupervisorRef>,
    pub(crate) children: Vec<Arc<ChildRef>>,
}

impl Tree {
    pub(crate) fn new(name: &str, children: usize) -> Self {
        let child = |number| {
            let id: Arc<str> = format!("child-{number}").into();
            let restart = Some(Restart::Permanent);
            Arc::new(ChildRef { id: id.clone(), label: id, child_type: ChildType::Worker, restart, dynamic: false })
        };
        let supervisor = Arc::new(SupervisorRef::new(Pid::Task(0), name, None));
        Self { supervisor, children: (0..children).map(child).collect() }
    }

    /// Several, with names of one length: the `*Vec` types of `prometheus` merge label sets that read alike without the
    /// commas.
    pub(crate) fn forest(supervisors: usize, children: usize) -> Vec<Self> {
        (0..supervisors).map(|number| Self::new(&format!("supervisor-{number:05}"), children)).collect()
    }

    /// Tells of the init and the first start of all children.
    pub(crate) fn start(&self, telemetry: &Telemetry, time: Timestamp) {
        let init = Payload::SupervisorInit {
            strategy: Some(Strategy::OneForOne),
            max_restarts: Some(1000),
            max_seconds: Some(5),
            parent: None,
            found: false,
        };
        telemetry.execute(&self.event(time, init));
        for child in &self.children {
            let start =
                Payload::ChildStart { child: child.clone(), child_pid: Some(Pid::Task(1)), duration: Some(START) };
            telemetry.execute(&self.event(time, start));
        }
    }

    /// The death of a child and the restart after it.
    pub(crate) fn crash(&self, number: u64, time: Timestamp) -> [Event; 2] {
        let child = &self.children[number as usize % self.children.len()];
        let death = Payload::ChildTerminate {
            child: child.clone(),
            child_pid: Some(Pid::Task(number)),
            reason: ExitReason::error("connection refused (os error 111)"),
            shutdown: false,
            lifetime: Some(LIFETIME),
            decision: Decision { action: Action::Restart, delay: Duration::ZERO, restarts_left: Some(999) },
            last_output: None,
            usage: None,
        };
        let restart = Payload::ChildRestart {
            child: child.clone(),
            child_pid: Some(Pid::Task(number + 1)),
            previous_pid: Some(Pid::Task(number)),
            cause: RestartCause::Failure,
            downtime: Some(DOWNTIME),
            duration: Some(START),
        };
        [self.event(time, death), self.event(time, restart)]
    }

    fn event(&self, time: Timestamp, payload: Payload) -> Event {
        Event::Supervisor(SupervisorEvent { supervisor: self.supervisor.clone(), time, payload })
    }
}

/// Crashes of all trees in turn, `rounds` of each, at one moment.
pub(crate) fn storm(trees: &[Tree], rounds: u64, time: Timestamp) -> Vec<Event> {
    (0..rounds).flat_map(|round| trees.iter().flat_map(move |tree| tree.crash(round, time))).collect()
}

/// The moment `after` another.
pub(crate) fn later(time: Timestamp, after: Duration) -> Timestamp {
    Timestamp { monotonic: time.monotonic + after, system: time.system + after }
}
