//! What a record answers: plain values, taken at the moment of the question.

use std::sync::Arc;
use std::time::Duration;

use super::causes::Cause;
use super::children::{ChildCounts, ChildView};
use super::health::Health;
use super::history::HistoryEntry;
use super::registry::Name;
use crate::event::{Pid, Strategy};

/// What a supervisor announced at its init. `None` is "unknown", for `parent` also "there is none".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SupervisorConfig {
    /// How the failure of one child concerns its siblings.
    pub strategy: Option<Strategy>,
    /// Restarts allowed within `max_seconds`.
    pub max_restarts: Option<u32>,
    /// Length of the intensity window in seconds.
    pub max_seconds: Option<u32>,
    /// Name of the supervisor above.
    pub parent: Option<Arc<str>>,
    /// Whether the children can fail often enough to use up the budget; none if unknown.
    pub budget_can_run_out: Option<bool>,
}

/// The answer to a question for a history.
#[derive(Clone, Debug, PartialEq)]
pub struct HistoryPage {
    /// Whose history.
    pub supervisor: Name,
    /// Most events kept.
    pub capacity: usize,
    /// Events that ever entered the history.
    pub total: u64,
    /// Events that left it again because newer ones came.
    pub evicted: u64,
    /// The events that the filter wants, newest first.
    pub events: Vec<HistoryEntry>,
}

/// The answer to a question for causes.
#[derive(Clone, Debug, PartialEq)]
pub struct CausesPage {
    /// Whose causes.
    pub supervisor: Name,
    /// Most frequent first.
    pub causes: Vec<Cause>,
}

/// What a scrape asks of a supervisor, all of one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Levels {
    /// Children by state, exact however many there are; all 0 for the record of [`OTHER`](super::registry::OTHER), which has no
    /// children.
    pub children: ChildCounts,
    /// Restarts after a failure that the intensity window holds; none if the window is unknown.
    pub restarts_in_window: Option<u32>,
    /// Events in the history.
    pub history_events: u64,
    /// Events pushed out of the history.
    pub evicted_events: u64,
}

/// One supervisor in the statistics of all.
#[derive(Clone, Debug, PartialEq)]
pub struct SupervisorStats {
    /// Which.
    pub supervisor: Name,
    /// Its newest incarnation; none for [`OTHER`](super::registry::OTHER).
    pub id: Option<Pid>,
    /// Restarts ever, whatever their cause.
    pub total_restarts: u64,
    /// Failures ever: what OTP writes an error report for.
    pub total_failures: u64,
    /// Restarts among the newest [`RECENT_EVENTS`](super::RECENT_EVENTS) events of its history.
    pub recent_restarts: u32,
    /// The last restart, in milliseconds since the Unix epoch.
    pub last_restart: Option<u64>,
}

/// One supervisor at the moment of a question.
#[derive(Clone, Debug, PartialEq)]
pub struct SupervisorView {
    /// Which.
    pub supervisor: Name,
    /// Its newest incarnation.
    pub id: Option<Pid>,
    /// Does that incarnation live?
    pub up: bool,
    /// Time since that incarnation's init; none if it ended or its init was not seen.
    pub uptime: Option<Duration>,
    /// What it announced at its init; none if that was not seen.
    pub config: Option<SupervisorConfig>,
    /// Restarts inside the intensity window; none if the window is unknown.
    pub restarts_in_window: Option<u32>,
    /// Restarts that the window still allows, after which one more stops the supervisor; none if that is unknown.
    pub restarts_left: Option<u32>,
    /// How it fares: gave up, failed or stopped if it is down, silent if its node is, else what its worst child does.
    pub health: Health,
    /// Since when its node is silent, in milliseconds since the Unix epoch; none if it is heard, or lives in this process.
    pub silent_since: Option<u64>,
    /// Restarts ever, whatever their cause.
    pub total_restarts: u64,
    /// Failures ever: what OTP writes an error report for.
    pub total_failures: u64,
    /// The last end of an incarnation; none if none ended.
    pub last_end: Option<HistoryEntry>,
    /// Children by state, those not listed included.
    pub child_counts: ChildCounts,
    /// Its children, at most [`MAX_LISTED_DYNAMIC`](super::MAX_LISTED_DYNAMIC) dynamic ones.
    pub children: Vec<ChildView>,
}

// === impl SupervisorView ===

impl SupervisorView {
    /// Its node is not heard since this moment, in milliseconds since the Unix epoch: what may have changed is unknown.
    pub(super) fn fell_silent(&mut self, since: u64) {
        self.silent_since = Some(since);
        if !self.up {
            return;
        }
        (self.health, self.uptime) = (Health::Silent, None);
        (self.restarts_in_window, self.restarts_left) = (None, None);
        for child in &mut self.children {
            (child.health, child.uptime, child.next_try, child.looping) = (Health::Silent, None, None, None);
        }
    }
}
