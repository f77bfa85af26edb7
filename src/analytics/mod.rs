//! The analytics server: every supervisor event, kept, bounded, and ready to be asked about.
//!
//! [`Analytics`] attaches to a [`Telemetry`] bus and keeps one [`Record`] for each supervisor name: a ring of the newest
//! events, a digest of the causes of death, exact totals, and a view of the children. The questions are those of the
//! `AnalyticsServer` that this crate goes back to; where the answers differ, they do on purpose:
//!
//! | the original | here |
//! |---|---|
//! | a death and the restart after it both count as a restart | `restarts` counts restarts, `failures` what failed |
//! | a supervisor's total is the length of its list, at most 1000 | totals stand beside the ring and never forget |
//! | a rate over more than the list is silently too low | exact from counts by the second, or marked as not `complete` |
//! | an ordered stop is recognised by a setting of the child | by who ordered it |
//! | state for each pid, for ever | for each name, until some time after its last incarnation ended |
//! | windows in system time | in monotonic time; system time is only shown |
//! | attaching twice fails | attaching the same server again is no error |
//!
//! Events are taken in where they happen: a question after an event sees the event.

mod answers;
mod causes;
mod changes;
mod children;
mod fingerprint;
mod health;
mod history;
mod marks;
mod memory;
mod record;
pub mod registry;
mod ring;
mod stats;
mod stories;
#[cfg(test)]
mod testing;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use thiserror::Error;

pub use self::answers::{CausesPage, HistoryPage, Levels, SupervisorConfig, SupervisorStats, SupervisorView};
pub use self::causes::{Cause, MAX_CAUSES};
pub use self::changes::JUST_BEFORE;
pub use self::children::{
    ChildCounts, ChildProgress, ChildState, ChildView, MAX_LISTED_DYNAMIC, MAX_LISTED_OF_NODES, MINUTES_COUNTED,
};
pub use self::fingerprint::error_line;
pub use self::health::{Health, LOOP_DEATHS, LOOP_WINDOW, Looping, SLOW_LOOP_PACE, SLOW_LOOP_RECENT, SLOW_LOOP_WINDOW};
pub use self::history::{
    EventType, Fact, HistoryEntry, HistoryEvent, HistoryFilter, LAST_WORDS_KEPT, Lifetime, Output, RECENT_EVENTS,
    Remains, Verdict,
};
pub use self::marks::MAX_MARKS;
use self::marks::Marks;
pub use self::record::{INTENSITY_STAMPS_UNKNOWN, MAX_INTENSITY_STAMPS, Record};
use self::registry::{Kept, Registry};
pub use self::stats::{FailureRate, MAX_SECONDS_COUNTED};
pub use self::stories::{Part, Story, Telling, Told, stories};
use crate::event::{Event, EventKind, NodeEvent, NodePayload, Payload, SupervisorEvent, SupervisorRef, Timestamp};
use crate::resources::Room;
use crate::telemetry::{AttachError, Handler, Telemetry, monotonic_now};

/// The id of the handler that [`Analytics::attach`] attaches.
pub const HANDLER_ID: &str = "analytics";

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnalyticsConfig {
    /// Most events in the history of one supervisor name. With 0 only totals, causes and the view are kept.
    pub history_capacity: usize,
    /// How long a name is remembered after its last incarnation ended.
    pub retention: Duration,
    /// Most names kept apart; all beyond share [`OTHER`](registry::OTHER).
    pub max_supervisors: usize,
}

/// No supervisor has this name, or it ended longer ago than the retention.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("not_found: no supervisor has the name {0:?}")]
pub struct NotFound(pub String);

/// The answer of [`Analytics::all_supervisor_stats`].
#[derive(Clone, Debug, PartialEq)]
pub struct AllStats {
    /// Supervisor names that are remembered, those that share [`OTHER`](registry::OTHER) included while they live.
    pub total_supervisors: usize,
    /// Restarts of all supervisors ever, those forgotten included.
    pub total_restarts: u64,
    /// Failures of all supervisors ever, those forgotten included.
    pub total_failures: u64,
    /// Time since the analytics server was created.
    pub uptime: Duration,
    /// Each name, sorted; at the end [`OTHER`](registry::OTHER), if the limit was ever reached.
    pub supervisor_stats: Vec<SupervisorStats>,
}

/// The analytics server. Clones share what is kept.
#[derive(Clone)]
pub struct Analytics {
    shared: Arc<Shared>,
    /// The node that names are looked for on; none for everywhere.
    node: Option<Arc<str>>,
}

struct Shared {
    epoch: Instant,
    history_capacity: usize,
    records: Registry<Record>,
    kept: Kept,
    /// Beside the records: a mark belongs to all of them.
    marks: Mutex<Marks>,
    /// Nodes that are not heard, and since when. Those that stay silent are forgotten with their supervisors.
    silent: Mutex<HashMap<Arc<str>, Timestamp>>,
    retention: Duration,
    /// Places of static children of nodes that are listed.
    of_nodes: Room,
    /// Kept beside the records: a record is forgotten with its supervisor, a total must not be.
    total_restarts: AtomicU64,
    total_failures: AtomicU64,
}

// === impl AnalyticsConfig ===

impl Default for AnalyticsConfig {
    fn default() -> Self {
        Self { history_capacity: 1000, retention: Duration::from_secs(15 * 60), max_supervisors: 1000 }
    }
}

// === impl Analytics ===

impl Analytics {
    /// An empty store, whose uptime begins now.
    pub fn new(config: AnalyticsConfig) -> Self {
        let kept = Kept::default();
        let shared = Shared {
            epoch: monotonic_now(),
            history_capacity: config.history_capacity,
            records: Registry::new(config.max_supervisors, config.retention, kept.clone()),
            kept,
            marks: Mutex::default(),
            silent: Mutex::default(),
            retention: config.retention,
            of_nodes: Room::new(MAX_LISTED_OF_NODES),
            total_restarts: AtomicU64::new(0),
            total_failures: AtomicU64::new(0),
        };
        Self { shared: Arc::new(shared), node: None }
    }

    /// Takes in all supervisor events and marks of a bus from now on, under [`HANDLER_ID`]. Attaching again changes nothing.
    ///
    /// # Errors
    /// [`AttachError`] if another analytics server is attached to the bus.
    pub fn attach(&self, telemetry: &Telemetry) -> Result<(), AttachError> {
        let kinds = [&EventKind::SUPERVISOR[..], &[EventKind::Mark, EventKind::NodeUp, EventKind::NodeDown]].concat();
        telemetry.attach_shared(HANDLER_ID, &kinds, self.shared.clone())
    }

    /// The record of a supervisor's name, made if the name is new; `now` only decides which ended names are forgotten.
    pub fn record(&self, supervisor: &SupervisorRef, now: Instant) -> Arc<Record> {
        self.shared.record(supervisor, now)
    }

    /// Most events in the history of one supervisor name.
    pub fn history_capacity(&self) -> usize {
        self.shared.history_capacity
    }

    /// The record of a supervisor's name, if it is remembered.
    pub fn find(&self, name: &str) -> Option<Arc<Record>> {
        self.shared.records.expire(monotonic_now());
        self.shared.records.find(name, self.node.as_deref())
    }

    /// The node that names are looked for on; none for everywhere.
    pub fn node(&self) -> Option<&str> {
        self.node.as_deref()
    }

    /// The same, but names are looked for on this Erlang node alone. Without a node a name of this process goes before one of
    /// a node.
    pub fn on(&self, node: Option<&str>) -> Self {
        Self { shared: self.shared.clone(), node: node.map(Into::into) }
    }

    /// The events of a supervisor that the filter wants, newest first, and between them the marks.
    ///
    /// # Errors
    /// [`NotFound`] if the name is not remembered.
    pub fn restart_history(&self, name: &str, filter: &HistoryFilter) -> Result<HistoryPage, NotFound> {
        let mut page = self.get(name)?.history(filter);
        self.shared.marks.lock().join(&mut page.events, filter);
        Ok(page)
    }

    /// What somebody changed within [`JUST_BEFORE`] before the moment `at` (of [`HistoryEvent::at`]): the newest mark, or restart
    /// on request among the children of this supervisor, as far as its history reaches.
    ///
    /// # Errors
    /// [`NotFound`] if the name is not remembered.
    pub fn change_before(&self, name: &str, at: u64) -> Result<Option<HistoryEvent>, NotFound> {
        let restart = self.get(name)?.change_before(at);
        let mark = self.shared.marks.lock().change_before(at);
        Ok(restart.into_iter().chain(mark).max_by_key(|change| change.at))
    }

    /// How often a supervisor restarted children in the `window` that ends now.
    ///
    /// # Errors
    /// [`NotFound`] if the name is not remembered.
    pub fn failure_rate(&self, name: &str, window: Duration) -> Result<FailureRate, NotFound> {
        Ok(self.get(name)?.failure_rate(window, monotonic_now()))
    }

    /// What children of a supervisor died of, most frequent first; with a child's label or id only its own causes.
    ///
    /// # Errors
    /// [`NotFound`] if the name is not remembered.
    pub fn causes(&self, name: &str, child: Option<&str>) -> Result<CausesPage, NotFound> {
        Ok(self.get(name)?.causes(child))
    }

    /// Who died of one [`reason_fingerprint`](Cause::reason_fingerprint) within the [`SLOW_LOOP_WINDOW`] just past, in all
    /// supervisors, most frequent first: also children that are forgotten since, as temporary ones are.
    pub fn died_of(&self, reason: u64) -> Vec<(registry::Name, Cause)> {
        let (now, records) = (monotonic_now(), &self.shared.records);
        let of_record = |record: &Arc<Record>| {
            let causes = record.causes_of(reason, SLOW_LOOP_WINDOW, now);
            causes.into_iter().map(|cause| (record.name().clone(), cause)).collect::<Vec<_>>()
        };
        let rows = records.rows();
        let mut died: Vec<_> = rows.iter().map(|row| &row.state).chain(&records.other()).flat_map(of_record).collect();
        died.sort_by_key(|(_, cause)| std::cmp::Reverse(cause.count));
        died
    }

    /// Deaths in each of the last [`MINUTES_COUNTED`] minutes, the present one last; with a child's id only its own.
    ///
    /// # Errors
    /// [`NotFound`] if the name is not remembered.
    pub fn deaths_by_minute(&self, name: &str, child: Option<&str>) -> Result<Vec<u32>, NotFound> {
        Ok(self.get(name)?.deaths_by_minute(child, monotonic_now()))
    }

    /// Totals of all supervisors and of each.
    pub fn all_supervisor_stats(&self) -> AllStats {
        let (now, records) = (monotonic_now(), &self.shared.records);
        records.expire(now);
        let rows = records.rows();
        AllStats {
            total_supervisors: rows.len() + records.overflowed(),
            total_restarts: self.shared.total_restarts.load(Ordering::Relaxed),
            total_failures: self.shared.total_failures.load(Ordering::Relaxed),
            uptime: now.saturating_duration_since(self.shared.epoch),
            supervisor_stats: rows.iter().map(|row| &row.state).chain(&records.other()).map(|r| r.stats()).collect(),
        }
    }

    /// All supervisors that are remembered with their children, sorted by name, without those that share
    /// [`OTHER`](registry::OTHER).
    pub fn supervisors(&self) -> Vec<SupervisorView> {
        let now = monotonic_now();
        self.shared.records.expire(now);
        let silent = self.shared.silent.lock().clone();
        let view = |record: &Record| {
            let mut view = record.view(now);
            if let Some(since) = view.supervisor.node.as_ref().and_then(|node| silent.get(node)) {
                view.fell_silent(since.unix_millis());
            }
            view
        };
        self.shared.records.rows().iter().map(|row| view(&row.state)).collect()
    }

    /// Supervisors that live and share [`OTHER`](registry::OTHER), because there are more than are kept apart.
    pub fn overflowed(&self) -> usize {
        self.shared.records.overflowed()
    }

    /// Keeps these supervisors of this process, by full name, in sight also after they have ended, instead of those of the
    /// last call. Of one that is among them no more, or that somebody `stopped` after it had failed, nobody minds how it
    /// ended.
    pub fn keep(&self, names: BTreeSet<Arc<str>>, stopped: &BTreeSet<Arc<str>>) {
        let before = self.shared.kept.set(names);
        for row in self.shared.records.rows().iter().filter(|row| row.name.node.is_none()) {
            if self.shared.kept.has(&row.name) {
                row.state.dismiss(stopped.contains(&*row.name.supervisor));
            } else if before.contains(&*row.name.supervisor) {
                row.state.dismiss(true);
            }
        }
    }

    /// Times that a static child of a node was counted and not listed, because [`MAX_LISTED_OF_NODES`] are.
    pub fn not_listed(&self) -> u64 {
        self.shared.of_nodes.refused()
    }

    /// The supervisors that are kept in sight; shared.
    pub fn kept(&self) -> Kept {
        self.shared.kept.clone()
    }

    fn get(&self, name: &str) -> Result<Arc<Record>, NotFound> {
        self.find(name).ok_or_else(|| NotFound(name.to_owned()))
    }
}

// === impl Shared ===

impl Shared {
    fn record(&self, supervisor: &SupervisorRef, now: Instant) -> Arc<Record> {
        let (epoch, capacity) = (self.epoch, self.history_capacity);
        self.records.get_or_insert(supervisor, now, |name| Record::new(name.clone(), epoch, capacity, &self.of_nodes))
    }

    fn apply(&self, event: &SupervisorEvent) {
        let (epoch, capacity) = (self.epoch, self.history_capacity);
        let make = |name: &registry::Name| Record::new(name.clone(), epoch, capacity, &self.of_nodes);
        let added = self.records.with(&event.supervisor, event.time.monotonic, make, |record| record.apply(event));
        if added.restarts > 0 {
            self.total_restarts.fetch_add(added.restarts, Ordering::Relaxed);
        }
        if added.failures > 0 {
            self.total_failures.fetch_add(added.failures, Ordering::Relaxed);
        }
        if matches!(event.payload, Payload::SupervisorTerminate { .. }) {
            self.records.ended(&event.supervisor, event.time.monotonic);
        }
    }

    fn heard(&self, event: &NodeEvent) {
        let Some(node) = &event.node else { return };
        let mut silent = self.silent.lock();
        match event.payload {
            NodePayload::Up => drop(silent.remove(node)),
            NodePayload::Down => {
                let now = event.time.monotonic;
                silent.retain(|_, since| now.saturating_duration_since(since.monotonic) <= self.retention);
                silent.insert(node.clone(), event.time);
            }
            NodePayload::Report(_) | NodePayload::Limit(_) => {}
        }
    }
}

impl Handler for Shared {
    fn handle(&self, event: &Event) {
        match event {
            Event::Supervisor(event) => self.apply(event),
            Event::Mark(mark) => self.marks.lock().push(mark, self.epoch),
            Event::Node(event) => self.heard(event),
            Event::HandlerFailure(_) | Event::Span(_) => {}
        }
    }
}

#[cfg(test)]
mod tests;
