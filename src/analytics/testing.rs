//! Events for the tests of this module: a supervisor's story, told with milliseconds since its beginning.

use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use crate::event::{
    Action, ChildRef, ChildType, Decision, ExitReason, Payload, Pid, Restart, RestartCause, Strategy, SupervisorEvent,
    SupervisorExit, SupervisorRef, Timestamp,
};

/// The system's clock when a story begins.
pub(super) const BEGIN_MS: u64 = 1_700_000_000_000;

/// One incarnation of a supervisor that tells what happens to it.
pub(super) struct Story {
    pub(super) supervisor: Arc<SupervisorRef>,
    pub(super) begin: Instant,
}

impl Story {
    pub(super) fn of(name: &str, begin: Instant) -> Self {
        Self { supervisor: Arc::new(SupervisorRef::new(Pid::Task(0), name, None)), begin }
    }

    pub(super) fn next_incarnation(&self) -> Self {
        Self::of(&self.supervisor.name, self.begin)
    }

    pub(super) fn time(&self, ms: u64) -> Instant {
        self.begin + Duration::from_millis(ms)
    }

    pub(super) fn at(&self, ms: u64, payload: Payload) -> SupervisorEvent {
        let system = UNIX_EPOCH + Duration::from_millis(BEGIN_MS + ms);
        let time = Timestamp { monotonic: self.time(ms), system };
        SupervisorEvent { supervisor: self.supervisor.clone(), time, payload }
    }
}

pub(super) fn child(id: &str, restart: Restart) -> Arc<ChildRef> {
    let (child_type, restart) = (ChildType::Worker, Some(restart));
    Arc::new(ChildRef { id: id.into(), label: id.into(), child_type, restart, dynamic: false })
}

pub(super) fn dynamic(label: &str, restart: Restart) -> Arc<ChildRef> {
    let (child_type, restart) = (ChildType::Worker, Some(restart));
    Arc::new(ChildRef { id: "undefined".into(), label: label.into(), child_type, restart, dynamic: true })
}

pub(super) fn pid(number: u64) -> Pid {
    Pid::Task(number)
}

pub(super) fn init(max_restarts: u32, max_seconds: u32) -> Payload {
    let (max_restarts, max_seconds) = (Some(max_restarts), Some(max_seconds));
    Payload::SupervisorInit {
        strategy: Some(Strategy::OneForOne),
        max_restarts,
        max_seconds,
        parent: None,
        found: false,
    }
}

pub(super) fn started(child: &Arc<ChildRef>, number: u64) -> Payload {
    Payload::ChildStart { child: child.clone(), child_pid: Some(pid(number)), duration: Some(Duration::ZERO) }
}

/// A death that nobody ordered, 100 ms after the start.
pub(super) fn died(child: &Arc<ChildRef>, number: u64, reason: ExitReason, action: Action) -> Payload {
    Payload::ChildTerminate {
        child: child.clone(),
        child_pid: Some(pid(number)),
        reason,
        shutdown: false,
        lifetime: Some(Duration::from_millis(100)),
        decision: Decision { action, delay: Duration::ZERO, restarts_left: Some(2) },
        last_output: None,
        usage: None,
    }
}

/// The same end as of [`died`], but on the supervisor's order.
pub(super) fn ordered(payload: Payload) -> Payload {
    match payload {
        Payload::ChildTerminate { child, child_pid, reason, lifetime, decision, last_output, usage, .. } => {
            Payload::ChildTerminate { child, child_pid, reason, shutdown: true, lifetime, decision, last_output, usage }
        }
        other => other,
    }
}

pub(super) fn restarted(child: &Arc<ChildRef>, number: u64, previous: u64) -> Payload {
    Payload::ChildRestart {
        child: child.clone(),
        child_pid: Some(pid(number)),
        previous_pid: Some(pid(previous)),
        cause: RestartCause::Failure,
        downtime: Some(Duration::from_millis(5)),
        duration: Some(Duration::ZERO),
    }
}

/// A failed start; the supervisor waits `delay_ms` before it does what it decided, if it is the one that decides.
pub(super) fn start_failed(child: &Arc<ChildRef>, action: Option<Action>, delay_ms: u64) -> Payload {
    let delay = Duration::from_millis(delay_ms);
    Payload::ChildStartError {
        child: child.clone(),
        reason: ExitReason::Exit(1),
        attempt: 1,
        duration: Some(Duration::ZERO),
        decision: action.map(|action| Decision { action, delay, restarts_left: Some(1) }),
        last_output: None,
    }
}

pub(super) fn stopped(child: &Arc<ChildRef>, deleted: bool) -> Payload {
    Payload::ChildStop { child: child.clone(), deleted }
}

pub(super) fn ended(reason: SupervisorExit) -> Payload {
    Payload::SupervisorTerminate { reason, lifetime: Some(Duration::from_secs(1)) }
}
