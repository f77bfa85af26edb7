//! The vocabulary: every word that supervisors, the bus, the history, the metrics and the HTTP API share.
//!
//! Plain data over `std`; nothing here acts. The words are OTP's and Elixir's, so that an Erlang reader is at home:
//!
//! | event name | [`EventKind`] | OTP's report |
//! |---|---|---|
//! | `[supervisor, init]` | [`SupervisorInit`](EventKind::SupervisorInit) | – |
//! | `[supervisor, child, start]` | [`ChildStart`](EventKind::ChildStart) | `progress` |
//! | `[supervisor, child, start_error]` | [`ChildStartError`](EventKind::ChildStartError) | `start_error` |
//! | `[supervisor, child, terminate]` | [`ChildTerminate`](EventKind::ChildTerminate) | `child_terminated`, `shutdown_error` |
//! | `[supervisor, child, restart]` | [`ChildRestart`](EventKind::ChildRestart) | `progress` after `child_terminated` |
//! | `[supervisor, child, stop]` | [`ChildStop`](EventKind::ChildStop) | – |
//! | `[supervisor, child, phase]` | [`ChildPhase`](EventKind::ChildPhase) | – |
//! | `[supervisor, child, aggregate]` | [`ChildAggregate`](EventKind::ChildAggregate) | many of the above, counted in the node |
//! | `[supervisor, config]` | [`SupervisorConfig`](EventKind::SupervisorConfig) | – |
//! | `[supervisor, terminate]` | [`SupervisorTerminate`](EventKind::SupervisorTerminate) | `shutdown` (when it gave up) |
//! | `[mark]` | [`Mark`](EventKind::Mark) | – |
//! | `[node, up \| down \| report \| limit]` | [`NodeUp`](EventKind::NodeUp), [`NodeDown`](EventKind::NodeDown), [`NodeReport`](EventKind::NodeReport), [`NodeLimit`](EventKind::NodeLimit) | – |
//! | `[telemetry, handler, failure]` | [`HandlerFailure`](EventKind::HandlerFailure) | as hex `telemetry` |
//! | `[telemetry, span, start \| stop \| exception]` | [`SpanStart`](EventKind::SpanStart), [`SpanStop`](EventKind::SpanStop), [`SpanException`](EventKind::SpanException) | as `telemetry:span/3` |

mod mark;
mod node;
mod reason;
mod who;
mod words;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

pub use mark::{InvalidMark, MAX_MARK_BYTES, Mark, MarkText};
pub use node::{NodeCounts, NodeEvent, NodePayload};
pub use reason::{Detail, ExitReason, MAX_DETAIL_BYTES, Panic, SupervisorExit};
pub use who::{ChildRef, InvalidPid, Pid, SupervisorRef};
pub use words::{
    Action, AutoShutdown, ChildType, NodeLimit, ReasonClass, Restart, RestartCause, Strategy, SupervisorExitClass,
    counted,
};

// === Names of events ===

/// What can be announced on the bus: a closed set, so that dispatch is an array index and a consumer's `match` is
/// checked by the compiler.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum EventKind {
    /// A supervisor begins to start its children, or was found running.
    SupervisorInit,
    /// A child started for the first time, or chose to be ignored.
    ChildStart,
    /// An attempt to start a child failed.
    ChildStartError,
    /// A running child ended, by itself or on order.
    ChildTerminate,
    /// A child runs again.
    ChildRestart,
    /// A child that was not running will not be started again: its pending restart was cancelled, or its spec deleted.
    ChildStop,
    /// A child waits for its turn to start, is being started, or is being stopped.
    ChildPhase,
    /// Things happened to children of which only the number is known.
    ChildAggregate,
    /// The settings of a running supervisor changed, or say more than its init did.
    SupervisorConfig,
    /// A supervisor ended; all its children have ended before.
    SupervisorTerminate,
    /// A handler panicked and was detached.
    HandlerFailure,
    /// A span of [`Telemetry::span`](crate::telemetry::Telemetry::span) began.
    SpanStart,
    /// A span ended by returning.
    SpanStop,
    /// A span ended by a panic.
    SpanException,
    /// Somebody noted something, such as a deploy.
    Mark,
    /// An Erlang node is heard.
    NodeUp,
    /// An Erlang node is not heard any more.
    NodeDown,
    /// What arrived from an Erlang node, and what did not.
    NodeReport,
    /// A limit of the listener for nodes was reached.
    NodeLimit,
}

impl EventKind {
    /// Every kind, in the order of the discriminants.
    pub const ALL: [EventKind; 19] = [
        EventKind::SupervisorInit,
        EventKind::ChildStart,
        EventKind::ChildStartError,
        EventKind::ChildTerminate,
        EventKind::ChildRestart,
        EventKind::ChildStop,
        EventKind::ChildPhase,
        EventKind::ChildAggregate,
        EventKind::SupervisorConfig,
        EventKind::SupervisorTerminate,
        EventKind::HandlerFailure,
        EventKind::SpanStart,
        EventKind::SpanStop,
        EventKind::SpanException,
        EventKind::Mark,
        EventKind::NodeUp,
        EventKind::NodeDown,
        EventKind::NodeReport,
        EventKind::NodeLimit,
    ];

    /// The kinds that a supervisor emits; the first [`EventKind::SUPERVISOR`]`.len()` of [`EventKind::ALL`].
    pub const SUPERVISOR: [EventKind; 10] = [
        EventKind::SupervisorInit,
        EventKind::ChildStart,
        EventKind::ChildStartError,
        EventKind::ChildTerminate,
        EventKind::ChildRestart,
        EventKind::ChildStop,
        EventKind::ChildPhase,
        EventKind::ChildAggregate,
        EventKind::SupervisorConfig,
        EventKind::SupervisorTerminate,
    ];

    /// The event's name as `:telemetry` writes it, a list of atoms.
    pub const fn name(self) -> &'static [&'static str] {
        match self {
            EventKind::SupervisorInit => &["supervisor", "init"],
            EventKind::ChildStart => &["supervisor", "child", "start"],
            EventKind::ChildStartError => &["supervisor", "child", "start_error"],
            EventKind::ChildTerminate => &["supervisor", "child", "terminate"],
            EventKind::ChildRestart => &["supervisor", "child", "restart"],
            EventKind::ChildStop => &["supervisor", "child", "stop"],
            EventKind::ChildPhase => &["supervisor", "child", "phase"],
            EventKind::ChildAggregate => &["supervisor", "child", "aggregate"],
            EventKind::SupervisorConfig => &["supervisor", "config"],
            EventKind::SupervisorTerminate => &["supervisor", "terminate"],
            EventKind::HandlerFailure => &["telemetry", "handler", "failure"],
            EventKind::SpanStart => &["telemetry", "span", "start"],
            EventKind::SpanStop => &["telemetry", "span", "stop"],
            EventKind::SpanException => &["telemetry", "span", "exception"],
            EventKind::Mark => &["mark"],
            EventKind::NodeUp => &["node", "up"],
            EventKind::NodeDown => &["node", "down"],
            EventKind::NodeReport => &["node", "report"],
            EventKind::NodeLimit => &["node", "limit"],
        }
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}]", self.name().join(", "))
    }
}

// === Events ===

/// The two clocks, read together where an event happens.
///
/// Every window and duration comes from `monotonic`; `system` is only for showing to people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timestamp {
    /// For arithmetic: never goes back.
    pub monotonic: Instant,
    /// For people: may be stepped by an administrator or NTP.
    pub system: SystemTime,
}

impl Timestamp {
    /// [`unix_millis`] of the system's time.
    pub fn unix_millis(&self) -> u64 {
        unix_millis(self.system)
    }
}

/// Milliseconds since the Unix epoch; 0 before it.
pub fn unix_millis(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// One thing that happened, as handlers receive it.
#[derive(Clone, Debug)]
pub enum Event {
    /// From inside a supervisor.
    Supervisor(SupervisorEvent),
    /// From the bus itself: a handler panicked and was detached.
    HandlerFailure(HandlerFailure),
    /// From a measured piece of work.
    Span(Span),
    /// From a person, or a program that deploys.
    Mark(Mark),
    /// From the listener for Erlang nodes.
    Node(NodeEvent),
}

impl Event {
    /// Under which name the event is dispatched.
    pub fn kind(&self) -> EventKind {
        match self {
            Event::Supervisor(event) => event.payload.kind(),
            Event::HandlerFailure(_) => EventKind::HandlerFailure,
            Event::Node(event) => event.payload.kind(),
            Event::Span(span) => match span.phase {
                SpanPhase::Start => EventKind::SpanStart,
                SpanPhase::Stop { .. } => EventKind::SpanStop,
                SpanPhase::Exception { .. } => EventKind::SpanException,
            },
            Event::Mark(_) => EventKind::Mark,
        }
    }
}

/// An event of one supervisor. All events of one supervisor come from one author, in the order in which they happened.
#[derive(Clone, Debug)]
pub struct SupervisorEvent {
    /// Whose event it is.
    pub supervisor: Arc<SupervisorRef>,
    /// When it happened.
    pub time: Timestamp,
    /// What happened: measurements and metadata.
    pub payload: Payload,
}

/// What a [`SupervisorEvent`] says. `None` is "unknown" or "there is none", never zero.
#[derive(Clone, Debug)]
pub enum Payload {
    /// `[supervisor, init]`
    SupervisorInit {
        /// How the failure of one child concerns its siblings.
        strategy: Option<Strategy>,
        /// Restarts allowed within `max_seconds`.
        max_restarts: Option<u32>,
        /// Length of the intensity window in seconds.
        max_seconds: Option<u32>,
        /// Name of the supervisor above, none for a top one.
        parent: Option<Arc<str>>,
        /// Was it found running, so that nobody knows since when? Such a supervisor may announce itself again when more
        /// of it is known.
        found: bool,
    },
    /// `[supervisor, child, start]`
    ChildStart {
        /// Which child.
        child: Arc<ChildRef>,
        /// The running child; none if its start function answered `ignore`.
        child_pid: Option<Pid>,
        /// Time the start took, until the child was ready; none if unknown.
        duration: Option<Duration>,
    },
    /// `[supervisor, child, start_error]`
    ChildStartError {
        /// Which child.
        child: Arc<ChildRef>,
        /// Why it did not start.
        reason: ExitReason,
        /// 1 for the first failed attempt since the child last ran.
        attempt: u32,
        /// Time the failed attempt took; none if unknown.
        duration: Option<Duration>,
        /// What the supervisor decided; none where the caller of `start_child` decides.
        decision: Option<Decision>,
        /// Last lines the attempt wrote, oldest first; none where output is not captured.
        last_output: Option<Arc<[Box<str>]>>,
    },
    /// `[supervisor, child, terminate]`
    ChildTerminate {
        /// Which child.
        child: Arc<ChildRef>,
        /// The run that ended; none if unknown.
        child_pid: Option<Pid>,
        /// How it ended.
        reason: ExitReason,
        /// Did the supervisor order it?
        shutdown: bool,
        /// Time from ready to the end; none if nobody saw the start.
        lifetime: Option<Duration>,
        /// What becomes of the child.
        decision: Decision,
        /// Last lines the run wrote, oldest first; none where output is not captured.
        last_output: Option<Arc<[Box<str>]>>,
        /// What the run used; none where it is not known.
        usage: Option<Usage>,
    },
    /// `[supervisor, child, restart]`
    ChildRestart {
        /// Which child.
        child: Arc<ChildRef>,
        /// The new run; none if unknown.
        child_pid: Option<Pid>,
        /// The run before, none if the child never ran.
        previous_pid: Option<Pid>,
        /// Whose failure or wish it was.
        cause: RestartCause,
        /// Time from the end of the run before until the new one was ready; none if there was no run before, or if it is
        /// unknown.
        downtime: Option<Duration>,
        /// Time the start took, until the child was ready; none if unknown.
        duration: Option<Duration>,
    },
    /// `[supervisor, child, stop]`
    ChildStop {
        /// Which child.
        child: Arc<ChildRef>,
        /// Is its spec gone too (`delete_child`)?
        deleted: bool,
    },
    /// `[supervisor, child, phase]`
    ChildPhase {
        /// Which child.
        child: Arc<ChildRef>,
        /// The run that is being stopped; none otherwise, because a run that is being started has no name yet.
        child_pid: Option<Pid>,
        /// What it is about to do.
        phase: Phase,
    },
    /// `[supervisor, child, aggregate]`: a node that was too busy to tell them one by one.
    ChildAggregate {
        /// Which child; none if that is not known either.
        child: Option<Arc<ChildRef>>,
        /// What happened.
        of: Aggregated,
        /// How often.
        count: u64,
    },
    /// `[supervisor, config]`
    SupervisorConfig {
        /// How the failure of one child concerns its siblings.
        strategy: Strategy,
        /// Restarts allowed within `max_seconds`.
        max_restarts: u32,
        /// Length of the intensity window in seconds.
        max_seconds: u32,
        /// Name of the supervisor above, none for a top one.
        parent: Option<Arc<str>>,
        /// Whether the children can fail often enough to use up the budget. With backoffs that are long compared to the
        /// window they cannot, and the supervisor never gives up.
        budget_can_run_out: bool,
        /// All children there are, in start order.
        children: Arc<[Arc<ChildRef>]>,
    },
    /// `[supervisor, terminate]`
    SupervisorTerminate {
        /// Why.
        reason: SupervisorExit,
        /// Time since its init began; none if nobody saw it.
        lifetime: Option<Duration>,
    },
}

impl Payload {
    /// The kind of event this payload belongs to.
    pub fn kind(&self) -> EventKind {
        match self {
            Payload::SupervisorInit { .. } => EventKind::SupervisorInit,
            Payload::ChildStart { .. } => EventKind::ChildStart,
            Payload::ChildStartError { .. } => EventKind::ChildStartError,
            Payload::ChildTerminate { .. } => EventKind::ChildTerminate,
            Payload::ChildRestart { .. } => EventKind::ChildRestart,
            Payload::ChildStop { .. } => EventKind::ChildStop,
            Payload::ChildPhase { .. } => EventKind::ChildPhase,
            Payload::ChildAggregate { .. } => EventKind::ChildAggregate,
            Payload::SupervisorConfig { .. } => EventKind::SupervisorConfig,
            Payload::SupervisorTerminate { .. } => EventKind::SupervisorTerminate,
        }
    }
}

/// What a child is about to do, and how long that may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It is started when the children before it have started.
    Waiting,
    /// It is being started.
    Starting {
        /// What has to happen before it counts as started, such as `tcp 127.0.0.1:5432`; none if only the start itself.
        waits_for: Option<Arc<str>>,
        /// Longest time this may take; none if there is no limit.
        limit: Option<Duration>,
    },
    /// It was told to stop.
    Stopping {
        /// Time after which it is killed; none if it may take as long as it needs.
        limit: Option<Duration>,
    },
}

/// What is counted together in a [`Payload::ChildAggregate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aggregated {
    /// Children started.
    Started,
    /// Attempts to start a child failed.
    StartErrors,
    /// Children ended.
    Terminated {
        /// How.
        class: ReasonClass,
        /// Did the supervisor order it?
        shutdown: bool,
        /// When such children are restarted; none if unknown.
        restart: Option<Restart>,
    },
    /// Children run again.
    Restarted {
        /// Whose failure or wish it was.
        cause: RestartCause,
    },
}

/// `[telemetry, handler, failure]`: a handler panicked, is detached from all its events, and harmed nobody.
#[derive(Clone, Debug)]
pub struct HandlerFailure {
    /// When.
    pub time: Timestamp,
    /// The handler that failed.
    pub handler_id: Arc<str>,
    /// The event it failed on.
    pub event_name: EventKind,
    /// What the panic said.
    pub reason: Detail,
}

/// `[telemetry, span, …]`: a measured piece of work, after `telemetry:span/3`.
#[derive(Clone, Debug)]
pub struct Span {
    /// What is measured.
    pub name: &'static str,
    /// The same number in the start and in the end of one span, unique in the process.
    pub context: u64,
    /// When this phase was reached.
    pub time: Timestamp,
    /// Where the span stands.
    pub phase: SpanPhase,
}

/// The phases of a [`Span`].
#[derive(Clone, Debug)]
pub enum SpanPhase {
    /// The work begins.
    Start,
    /// The work returned.
    Stop {
        /// Time since the start.
        duration: Duration,
    },
    /// The work panicked; the panic goes on to the caller.
    Exception {
        /// Time since the start.
        duration: Duration,
        /// What the panic said.
        reason: Detail,
    },
}

/// What a process used in its life, as the kernel counts it for itself and those of its own children that it waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Most memory it had resident at once. None if that was so little that the kernel's number is still that of the process
    /// which started it.
    pub peak_memory_bytes: Option<u64>,
    /// Processor time, user and system.
    pub cpu: Duration,
}

/// What the supervisor decided about a child that ended, and how much room is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What happens to the child.
    pub action: Action,
    /// How long the supervisor waits before it does so.
    pub delay: Duration,
    /// Restarts that the window still allows after this decision; none if unknown (a node whose limits are unknown), or if
    /// the window was not asked (an ordered stop, or a sibling that is restarted along with the child that failed).
    pub restarts_left: Option<u32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    // Dispatch indexes by the discriminant, so ALL must list the kinds in that order.
    #[test]
    fn all_kinds_stand_in_the_order_of_their_discriminants() {
        for (index, kind) in EventKind::ALL.iter().enumerate() {
            assert_eq!(*kind as usize, index);
        }
        assert_eq!(EventKind::ALL[..EventKind::SUPERVISOR.len()], EventKind::SUPERVISOR);
    }
}
