//! What the suites share: a log of what supervisors said, and children that do as the test tells them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use restart_exporter::event::{Event, EventKind, ExitReason, Payload, SupervisorEvent};
use restart_exporter::supervisor::{ChildSpec, ChildState, Ready, StopToken, Supervisor, SupervisorHandle};
use restart_exporter::telemetry::Telemetry;
use tokio::sync::{Mutex, mpsc, watch};

/// Longest wait for an event. On paused time it passes at once when nothing can happen any more.
const PATIENCE: Duration = Duration::from_secs(20);

/// Starts a supervisor on a bus of its own, with a log of all its events.
pub(crate) async fn supervise(supervisor: Supervisor) -> (SupervisorHandle, Log) {
    let (telemetry, log) = logged();
    (supervisor.start(&telemetry).await.unwrap(), log)
}

/// A bus and the log of what is said on it.
pub(crate) fn logged() -> (Telemetry, Log) {
    let telemetry = Telemetry::new();
    let log = Log::attach(&telemetry);
    (telemetry, log)
}

/// The children in start order: `a+` runs, `a-` is stopped, `a~` waits for its restart or is being started.
pub(crate) async fn children(supervisor: &SupervisorHandle) -> String {
    let mut children = supervisor.which_children().await.unwrap();
    children.reverse();
    let shown = children.iter().map(|child| match child.state {
        ChildState::Running(_) => format!("{}+", child.id),
        ChildState::Stopped => format!("{}-", child.id),
        ChildState::Restarting | ChildState::Starting => format!("{}~", child.id),
    });
    shown.collect::<Vec<_>>().join(" ")
}

/// Specs, active, supervisors and workers.
pub(crate) async fn counts(supervisor: &SupervisorHandle) -> (usize, usize, usize, usize) {
    let count = supervisor.count_children().await.unwrap();
    (count.specs, count.active, count.supervisors, count.workers)
}

/// The running child supervisor with this id.
pub(crate) async fn nested(supervisor: &SupervisorHandle, id: &str) -> SupervisorHandle {
    let children = supervisor.which_children().await.unwrap();
    children.into_iter().find(|child| &*child.id == id).unwrap().supervisor.unwrap()
}

// === The log ===

/// All events of the supervisors on a bus, in order, each also as a line (see [`line`]). What children are about to do, and
/// settings, are left out: OTP has no reports of them.
#[derive(Clone)]
pub(crate) struct Log {
    events: watch::Receiver<Vec<SupervisorEvent>>,
}

impl Log {
    pub(crate) fn attach(telemetry: &Telemetry) -> Self {
        let (sender, events) = watch::channel(Vec::new());
        let record = move |event: &Event| {
            if let Event::Supervisor(event) = event
                && !matches!(event.payload, Payload::ChildPhase { .. } | Payload::SupervisorConfig { .. })
            {
                sender.send_modify(|events| events.push(event.clone()));
            }
        };
        telemetry.attach_many("test-log", &EventKind::SUPERVISOR, record).unwrap();
        Self { events }
    }

    /// Waits for the `nth` event (from 1) whose line begins with these words.
    pub(crate) async fn nth(&self, nth: usize, words: &str) -> SupervisorEvent {
        let mut events = self.events.clone();
        let found = events.wait_for(|events| events.iter().filter(|event| begins(event, words)).count() >= nth);
        let Ok(events) = tokio::time::timeout(PATIENCE, found).await else {
            panic!("no event {nth} of {words:?} in {:#?}", self.lines())
        };
        events.unwrap().iter().filter(|event| begins(event, words)).nth(nth - 1).unwrap().clone()
    }

    /// Waits for the first event whose line begins with these words.
    pub(crate) async fn first(&self, words: &str) -> SupervisorEvent {
        self.nth(1, words).await
    }

    /// How many lines begin with these words by now.
    pub(crate) fn count(&self, words: &str) -> usize {
        self.events.borrow().iter().filter(|event| begins(event, words)).count()
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.events.borrow().iter().map(line).collect()
    }

    /// The lines after the first `skip`, to be compared with what should have happened since.
    pub(crate) fn since(&self, skip: usize) -> Vec<String> {
        self.lines().split_off(skip)
    }

    pub(crate) fn len(&self) -> usize {
        self.events.borrow().len()
    }

    pub(crate) fn events(&self) -> Vec<SupervisorEvent> {
        self.events.borrow().clone()
    }
}

fn begins(event: &SupervisorEvent, words: &str) -> bool {
    line(event).strip_prefix(words).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
}

/// An event in one line: `start top/a`, `terminate top/a panic -> restart`, `terminate top/a shutdown ordered -> leave`,
/// `restart top/a failure`, `start_error top/a #1 -> restart`, `stop top/a`, `end top max_intensity`.
pub(crate) fn line(event: &SupervisorEvent) -> String {
    let name = &event.supervisor.name;
    match &event.payload {
        Payload::SupervisorInit { .. } => format!("init {name}"),
        Payload::ChildStart { child, child_pid: Some(_), .. } => format!("start {name}/{}", child.id),
        Payload::ChildStart { child, child_pid: None, .. } => format!("ignore {name}/{}", child.id),
        Payload::ChildStartError { child, attempt, decision: Some(decision), .. } => {
            format!("start_error {name}/{} #{attempt} -> {}", child.id, decision.action)
        }
        Payload::ChildStartError { child, attempt, decision: None, .. } => {
            format!("start_error {name}/{} #{attempt}", child.id)
        }
        Payload::ChildTerminate { child, reason, shutdown, decision, .. } => {
            let ordered = if *shutdown { " ordered" } else { "" };
            format!("terminate {name}/{} {}{ordered} -> {}", child.id, reason.class(), decision.action)
        }
        Payload::ChildRestart { child, cause, .. } => format!("restart {name}/{} {cause}", child.id),
        Payload::ChildStop { child, deleted: false } => format!("stop {name}/{}", child.id),
        Payload::ChildStop { child, deleted: true } => format!("delete {name}/{}", child.id),
        Payload::ChildPhase { child, phase, .. } => format!("{phase:?} {name}/{}", child.id),
        Payload::SupervisorConfig { .. } => format!("config {name}"),
        Payload::ChildAggregate { of, count, .. } => format!("{count} of {of:?} {name}"),
        Payload::SupervisorTerminate { reason, .. } => format!("end {name} {}", reason.class()),
    }
}

/// The reason of a `terminate` or `start_error` event.
pub(crate) fn reason(event: &SupervisorEvent) -> ExitReason {
    match &event.payload {
        Payload::ChildTerminate { reason, .. } | Payload::ChildStartError { reason, .. } => reason.clone(),
        other => panic!("no reason in {other:?}"),
    }
}

// === A child on command ===

/// A child that ends when and as it is told, fails or refuses to start as it is told, and counts its own lives.
#[derive(Clone)]
pub(crate) struct Kid(Arc<KidState>);

/// What a kid does when its supervisor tells it to stop.
#[derive(Clone, Debug)]
pub(crate) enum OnStop {
    /// Ends.
    Obey,
    /// Goes on.
    Ignore,
    /// Ends this long after.
    After(Duration),
    /// Ends for a reason of its own.
    Exit(ExitReason),
}

enum Order {
    Exit(ExitReason),
    Panic,
}

struct KidState {
    id: String,
    on_stop: OnStop,
    orders: mpsc::UnboundedSender<Order>,
    inbox: Mutex<mpsc::UnboundedReceiver<Order>>,
    /// Starts that fail before one succeeds.
    failing: AtomicUsize,
    /// Starts that are ignored, after the failing ones.
    ignoring: AtomicUsize,
    attempts: AtomicUsize,
    starts: AtomicUsize,
    live: AtomicUsize,
    most_live: AtomicUsize,
}

impl Kid {
    pub(crate) fn new(id: &str) -> Self {
        Self::with(id, OnStop::Obey)
    }

    pub(crate) fn with(id: &str, on_stop: OnStop) -> Self {
        let (orders, inbox) = mpsc::unbounded_channel();
        Self(Arc::new(KidState {
            id: id.into(),
            on_stop,
            orders,
            inbox: Mutex::new(inbox),
            failing: AtomicUsize::new(0),
            ignoring: AtomicUsize::new(0),
            attempts: AtomicUsize::new(0),
            starts: AtomicUsize::new(0),
            live: AtomicUsize::new(0),
            most_live: AtomicUsize::new(0),
        }))
    }

    /// A spec of this child; its start ends when it has said that it is ready.
    pub(crate) fn spec(&self) -> ChildSpec {
        let kid = self.clone();
        ChildSpec::ready_task(&*self.0.id, move |stop, ready| kid.clone().run(stop, ready))
    }

    pub(crate) fn id(&self) -> &str {
        &self.0.id
    }

    /// Ends the run for this reason.
    pub(crate) fn exit(&self, reason: ExitReason) {
        self.0.orders.send(Order::Exit(reason)).unwrap();
    }

    pub(crate) fn crash(&self) {
        self.exit(ExitReason::error("crash"));
    }

    pub(crate) fn panic(&self) {
        self.0.orders.send(Order::Panic).unwrap();
    }

    /// Lets the next starts fail.
    pub(crate) fn fail_starts(&self, starts: usize) {
        self.0.failing.store(starts, SeqCst);
    }

    /// Lets the next starts say `ignore`.
    pub(crate) fn ignore_starts(&self, starts: usize) {
        self.0.ignoring.store(starts, SeqCst);
    }

    /// Calls of the start function, whatever came of them.
    pub(crate) fn attempts(&self) -> usize {
        self.0.attempts.load(SeqCst)
    }

    /// Starts that succeeded.
    pub(crate) fn starts(&self) -> usize {
        self.0.starts.load(SeqCst)
    }

    /// Runs that live now.
    pub(crate) fn live(&self) -> usize {
        self.0.live.load(SeqCst)
    }

    /// Most runs that ever lived at the same time.
    pub(crate) fn most_live(&self) -> usize {
        self.0.most_live.load(SeqCst)
    }

    async fn run(self, stop: StopToken, ready: Ready) -> ExitReason {
        self.0.attempts.fetch_add(1, SeqCst);
        if self.0.failing.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok() {
            return ExitReason::error("does not start");
        }
        if self.0.ignoring.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok() {
            ready.ignore();
            return ExitReason::Normal;
        }
        let _life = Life::begin(&self.0);
        if ready.ok() {
            self.0.starts.fetch_add(1, SeqCst);
        }
        let ordered = async {
            match self.0.inbox.lock().await.recv().await {
                Some(Order::Exit(reason)) => reason,
                Some(Order::Panic) => panic!("{} panics", self.0.id),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            reason = ordered => reason,
            reason = self.told_to_stop(stop) => reason,
        }
    }

    async fn told_to_stop(&self, stop: StopToken) -> ExitReason {
        stop.stopped().await;
        match &self.0.on_stop {
            OnStop::Obey => ExitReason::Normal,
            OnStop::Ignore => std::future::pending().await,
            OnStop::After(delay) => {
                tokio::time::sleep(*delay).await;
                ExitReason::Normal
            }
            OnStop::Exit(reason) => reason.clone(),
        }
    }
}

/// Counts a run for as long as its task exists, however it ends.
struct Life(Arc<KidState>);

impl Life {
    fn begin(kid: &Arc<KidState>) -> Self {
        let live = kid.live.fetch_add(1, SeqCst) + 1;
        kid.most_live.fetch_max(live, SeqCst);
        Self(kid.clone())
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        self.0.live.fetch_sub(1, SeqCst);
    }
}
