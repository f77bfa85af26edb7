//! What happened to the children of one supervisor: the newest events, in a ring.
//!
//! The history holds what concerns restarts: deaths that nobody ordered, restarts, failed starts, the supervisor's own
//! end. Which event enters is decided in [`record`](super::record); here it is kept and found again.

use std::sync::Arc;
use std::time::Duration;

use super::changes::newest_before;
use super::ring::Ring;
use crate::event::{
    Action, Aggregated, ChildRef, Decision, ExitReason, MarkText, Pid, RestartCause, SupervisorExit, Usage,
};

/// Deaths of one supervisor whose last output is kept: output is the one part of an event that can be large.
pub const LAST_WORDS_KEPT: usize = 32;

/// How many of the newest events [`recent_restarts`](super::SupervisorStats::recent_restarts) looks at.
pub const RECENT_EVENTS: u32 = 10;

/// The last lines a run wrote, oldest first.
pub type Output = Arc<[Box<str>]>;

/// What is left of a run beside its reason.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Remains {
    /// What it wrote last; none if it was not captured or is not kept any more.
    pub last_output: Option<Output>,
    /// What it used; none if that is not known or not kept any more.
    pub usage: Option<Usage>,
}

/// One event of a supervisor's history; at most 96 bytes, shared texts not counted.
#[derive(Clone, Debug, PartialEq)]
pub struct HistoryEvent {
    /// Running number within the supervisor's name, from 1, without gaps; of a [`Fact::Mark`] among marks.
    pub id: u64,
    /// When, in monotonic nanoseconds since the store was created.
    pub at: u64,
    /// When, in milliseconds since the Unix epoch; for showing only.
    pub timestamp: u64,
    /// Whose event it is; none for the supervisor's own end and for marks.
    pub child: Option<Arc<ChildRef>>,
    /// What happened.
    pub fact: Fact,
}

const _: () = assert!(size_of::<HistoryEvent>() <= 96, "a thousand events must fit into 96 KB");

/// What a [`HistoryEvent`] says.
#[derive(Clone, Debug, PartialEq)]
pub enum Fact {
    /// A child ended.
    Terminated {
        /// The run that ended; none if unknown.
        child_pid: Option<Pid>,
        /// How it ended.
        reason: ExitReason,
        /// Did the supervisor order it?
        shutdown: bool,
        /// Milliseconds from ready to the end.
        lifetime_ms: Lifetime,
        /// What becomes of the child.
        decision: Verdict,
    },
    /// A child runs again.
    Restarted {
        /// The new run; none if unknown.
        child_pid: Option<Pid>,
        /// The run before; none if the child never ran.
        previous_pid: Option<Pid>,
        /// Whose failure or wish it was.
        cause: RestartCause,
        /// Milliseconds from the end of the run before until the new one was ready; none without a run before.
        downtime_ms: Option<u64>,
    },
    /// An attempt to start a child failed.
    StartError {
        /// Why.
        reason: ExitReason,
        /// 1 for the first failed attempt since the child last ran.
        attempt: u32,
        /// What the supervisor decided; none where the caller of `start_child` decides.
        decision: Option<Verdict>,
    },
    /// Deaths, failed starts or restarts of which only the number is known.
    Aggregated {
        /// What happened.
        of: Aggregated,
        /// How often.
        count: u64,
    },
    /// The supervisor ended.
    SupervisorTerminated {
        /// Why.
        reason: SupervisorExit,
        /// Milliseconds since its init began.
        lifetime_ms: Lifetime,
    },
    /// Somebody noted something. It belongs to no supervisor, and stands in the history of each.
    Mark {
        /// What.
        text: MarkText,
    },
}

/// Milliseconds that may be unknown, in 8 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime(u64);

/// A [`Decision`] in 12 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What happens to the child.
    pub action: Action,
    /// Milliseconds the supervisor waits before; delays beyond 49 days read as `u32::MAX`.
    pub delay_ms: u32,
    restarts_left: u32,
}

/// The type of a [`HistoryEvent`], as a query names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventType {
    /// [`Fact::Terminated`], spelled `terminated`.
    Terminated,
    /// [`Fact::Restarted`], spelled `restarted`.
    Restarted,
    /// [`Fact::StartError`], spelled `start_error`.
    StartError,
    /// [`Fact::Aggregated`], spelled `aggregated`.
    Aggregated,
    /// [`Fact::SupervisorTerminated`], spelled `supervisor_terminated`.
    SupervisorTerminated,
    /// [`Fact::Mark`], spelled `mark`.
    Mark,
}

/// Which events a query wants; the default wants all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HistoryFilter {
    /// Only events of children with this id or label (dynamic children of one kind share a label), and no marks.
    pub child: Option<String>,
    /// Only events of this type.
    pub event: Option<EventType>,
    /// At most so many, the newest.
    pub limit: Option<usize>,
    /// Only events with a greater [`id`](HistoryEvent::id), and no marks, which have ids of their own.
    pub after: Option<u64>,
}

/// An event as a query answers it.
#[derive(Clone, Debug, PartialEq)]
pub struct HistoryEntry {
    /// The event.
    pub event: HistoryEvent,
    /// What is left of the run that died.
    pub remains: Remains,
}

/// The ring of one supervisor, with the last words of the newest deaths beside it.
#[derive(Debug)]
pub(super) struct History {
    events: Ring<HistoryEvent>,
    last_words: Ring<(u64, Remains)>,
    /// Bit n: was the event n places before the newest a restart?
    recent_restarts: u16,
}

// === impl HistoryEvent ===

impl HistoryEvent {
    /// The type a query finds the event by.
    pub fn event_type(&self) -> EventType {
        match self.fact {
            Fact::Terminated { .. } => EventType::Terminated,
            Fact::Restarted { .. } => EventType::Restarted,
            Fact::StartError { .. } => EventType::StartError,
            Fact::Aggregated { .. } => EventType::Aggregated,
            Fact::SupervisorTerminated { .. } => EventType::SupervisorTerminated,
            Fact::Mark { .. } => EventType::Mark,
        }
    }

    /// Why a child ended or did not start; none for other events.
    pub fn reason(&self) -> Option<&ExitReason> {
        match &self.fact {
            Fact::Terminated { reason, .. } | Fact::StartError { reason, .. } => Some(reason),
            Fact::Restarted { .. }
            | Fact::Aggregated { .. }
            | Fact::SupervisorTerminated { .. }
            | Fact::Mark { .. } => None,
        }
    }

    /// How the supervisor ended; none for other events.
    pub fn supervisor_exit(&self) -> Option<&SupervisorExit> {
        match &self.fact {
            Fact::SupervisorTerminated { reason, .. } => Some(reason),
            _ => None,
        }
    }

    /// Becomes a copy of `newer`. What the two share already is left alone, because in a crash loop counting
    /// references up and down again would be most of the cost.
    pub(super) fn overwrite(&mut self, newer: &HistoryEvent) {
        let same_child = match (&self.child, &newer.child) {
            (Some(child), Some(newer)) => Arc::ptr_eq(child, newer),
            (child, newer) => child.is_none() && newer.is_none(),
        };
        match (&mut self.fact, &newer.fact) {
            (
                Fact::Terminated { child_pid, reason, shutdown, lifetime_ms, decision },
                Fact::Terminated {
                    child_pid: new_pid,
                    reason: new_reason,
                    shutdown: new_shutdown,
                    lifetime_ms: new_lifetime_ms,
                    decision: new_decision,
                },
            ) if same_child && reason == new_reason => {
                (self.id, self.at, self.timestamp) = (newer.id, newer.at, newer.timestamp);
                (*child_pid, *shutdown, *lifetime_ms, *decision) =
                    (*new_pid, *new_shutdown, *new_lifetime_ms, *new_decision);
            }
            _ => *self = newer.clone(),
        }
    }

    fn is_of(&self, child: &str) -> bool {
        self.child.as_ref().is_some_and(|of| &*of.id == child || &*of.label == child)
    }
}

// === impl Lifetime ===

impl Lifetime {
    const UNKNOWN: u64 = u64::MAX;

    /// The milliseconds, cut off; none if unknown.
    pub fn get(self) -> Option<u64> {
        (self.0 != Self::UNKNOWN).then_some(self.0)
    }
}

impl From<Option<Duration>> for Lifetime {
    fn from(lifetime: Option<Duration>) -> Self {
        let millis = |lifetime: Duration| u64::try_from(lifetime.as_millis()).unwrap_or(Self::UNKNOWN);
        Self(lifetime.map_or(Self::UNKNOWN, millis))
    }
}

// === impl Verdict ===

impl Verdict {
    const UNKNOWN: u32 = u32::MAX;

    /// Restarts that the window still allowed after this decision; none if unknown.
    pub fn restarts_left(&self) -> Option<u32> {
        (self.restarts_left != Self::UNKNOWN).then_some(self.restarts_left)
    }
}

impl From<Decision> for Verdict {
    fn from(decision: Decision) -> Self {
        Self {
            action: decision.action,
            delay_ms: decision.delay.as_millis().try_into().unwrap_or(u32::MAX),
            restarts_left: decision.restarts_left.map_or(Self::UNKNOWN, |left| left.min(Self::UNKNOWN - 1)),
        }
    }
}

// === impl EventType ===

impl EventType {
    /// Every type.
    pub const ALL: [EventType; 6] = [
        EventType::Terminated,
        EventType::Restarted,
        EventType::StartError,
        EventType::Aggregated,
        EventType::SupervisorTerminated,
        EventType::Mark,
    ];

    /// The spelling used in JSON and queries.
    pub const fn as_str(self) -> &'static str {
        match self {
            EventType::Terminated => "terminated",
            EventType::Restarted => "restarted",
            EventType::StartError => "start_error",
            EventType::Aggregated => "aggregated",
            EventType::SupervisorTerminated => "supervisor_terminated",
            EventType::Mark => "mark",
        }
    }
}

// === impl History ===

impl History {
    pub(super) fn new(capacity: usize) -> Self {
        let last_words = Ring::new(LAST_WORDS_KEPT.min(capacity));
        Self { events: Ring::new(capacity), last_words, recent_restarts: 0 }
    }

    /// The id that the next event must have.
    pub(super) fn next_id(&self) -> u64 {
        self.events.total() + 1
    }

    /// Keeps the newest event, whose id is [`next_id`](Self::next_id).
    pub(super) fn push(&mut self, event: HistoryEvent, remains: Remains) {
        let is_restart = matches!(event.fact, Fact::Restarted { .. });
        self.recent_restarts = (self.recent_restarts << 1 | u16::from(is_restart)) & ((1 << RECENT_EVENTS) - 1);
        if remains != Remains::default() {
            self.last_words.push((event.id, remains));
        }
        self.events.push(event);
    }

    /// Most events kept.
    pub(super) fn capacity(&self) -> usize {
        self.events.limit()
    }

    /// Events kept.
    pub(super) fn len(&self) -> usize {
        self.events.items().len()
    }

    /// Events that ever happened.
    pub(super) fn total(&self) -> u64 {
        self.events.total()
    }

    /// Events pushed out of the ring.
    pub(super) fn evicted(&self) -> u64 {
        self.events.evicted()
    }

    /// Restarts among the newest [`RECENT_EVENTS`] events.
    pub(super) fn recent_restarts(&self) -> u32 {
        self.recent_restarts.count_ones()
    }

    /// What is left of the run of this death, if it is kept.
    pub(super) fn last_words(&self, id: u64) -> Option<&Remains> {
        let kept = self.last_words.items();
        kept.binary_search_by_key(&id, |(id, _)| *id).ok().map(|index| &kept[index].1)
    }

    /// The newest restart that was asked for just before the moment `at`, in monotonic nanoseconds.
    pub(super) fn change_before(&self, at: u64) -> Option<HistoryEvent> {
        newest_before(self.events.items(), at).cloned()
    }

    /// The events that the filter wants, newest first.
    pub(super) fn query<'a>(&'a self, filter: &'a HistoryFilter) -> impl Iterator<Item = &'a HistoryEvent> {
        let after = filter.after.unwrap_or(0);
        self.events
            .items()
            .iter()
            .rev()
            .take_while(move |event| event.id > after)
            .filter(|event| filter.event.is_none_or(|wanted| event.event_type() == wanted))
            .filter(|event| filter.child.as_deref().is_none_or(|child| event.is_of(child)))
            .take(filter.limit.unwrap_or(usize::MAX))
    }
}

#[cfg(test)]
mod tests;
