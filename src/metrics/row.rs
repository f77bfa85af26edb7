//! One row for each supervisor: its label text, its cells and its children.
//!
//! An own table instead of the `*Vec` types of the crate `prometheus`, because those find a series by a hash of its label
//! values put together without a separator, and so merge `("sup1", "2")` with `("sup", "12")`.

use std::collections::HashMap;
use std::mem::size_of;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime};

use arc_swap::{ArcSwap, Guard};
use foldhash::fast::RandomState;
use parking_lot::{Mutex, RwLock};

use super::cells::{Counter, Counters, Gauge, Histogram};
use super::exposition::{Exemplar, SeriesCount, Sink};
use super::families::{DOWNTIME_BUCKETS, FAMILIES, LIFETIME_BUCKETS, START_BUCKETS};
use super::family::Samples;
use super::labels::{InlineText, Labels, label_text, push_label, push_more_label};
use super::limits::{Limit, Limits};
use crate::analytics::registry::{Name, OTHER};
use crate::analytics::{ChildState, Record};
use crate::event::{ReasonClass, RestartCause, Strategy, SupervisorExitClass, unix_millis};

/// Deaths of the history that are looked at for exemplars.
const DEATHS_FOR_EXEMPLARS: usize = 100;

/// Longest value of a label that a node can send, in bytes, with each of its characters escaped; the name of a node.
const ESCAPED_NAME: usize = 2 * 255;
const ESCAPED_NODE: usize = 2 * 1020;

/// Most bytes of a row, beside its children: itself, its labels, and those of its information, which names its parent too.
pub(super) const SUPERVISOR_BYTES: usize =
    size_of::<SupervisorRow>() + 2 * (ESCAPED_NAME + ESCAPED_NODE) + ESCAPED_NAME + 512;

/// Most bytes of a child's row: itself, its text, and its places, all in memory that grows by doubling.
pub(super) const CHILD_BYTES: usize =
    2 * (size_of::<ChildRow>() + ESCAPED_NAME + 16 + 4 + size_of::<(Arc<str>, u32)>());

/// The cells of one supervisor name.
// In the order of declaration: what every family begins with stands together, in one place of memory.
#[repr(C)]
pub(super) struct SupervisorRow {
    /// `supervisor="…"` and, on a node, `node="…"`.
    labels: InlineText<94>,
    /// When its counters stood at 0 first, in Unix milliseconds.
    created: u64,
    /// Is this the row of all supervisors beyond the limit?
    is_other: bool,
    /// Unix milliseconds.
    pub(super) start_time: Gauge,
    pub(super) max_restarts: Gauge,
    pub(super) max_seconds: Gauge,
    pub(super) observed: Observed,
    /// Held while `observed` is written.
    observing: Mutex<()>,
    pub(super) saturated: Counter,
    pub(super) terminations: Counters<{ SupervisorExitClass::ALL.len() }>,
    /// The class of the newest end, as its discriminant; unknown before the first.
    pub(super) last_exit: Gauge,
    pub(super) start_attempts: Counter,
    pub(super) start_errors: Counter,
    pub(super) child_terminations: Counters<{ ReasonClass::ALL.len() }>,
    pub(super) lifetime: Histogram<{ LIFETIME_BUCKETS.len() + 1 }>,
    pub(super) downtime: Histogram<{ DOWNTIME_BUCKETS.len() + 1 }>,
    pub(super) start_duration: Histogram<{ START_BUCKETS.len() + 1 }>,
    children: RwLock<Children>,
    incarnation: ArcSwap<Incarnation>,
    max_children: usize,
    limits: Arc<Limits>,
}

/// What belongs to the newest incarnation.
#[derive(Default)]
pub(super) struct Incarnation {
    /// None where analytics does not tell the supervisor apart: the state of many would be shown as that of one.
    pub(super) record: Option<Arc<Record>>,
    /// The labels of `supervisor_info`; none as long as no init was seen.
    pub(super) info: Option<Box<str>>,
}

/// What analytics said when a scrape last asked.
#[derive(Default)]
pub(super) struct Observed {
    pub(super) restarts_used: Gauge,
    /// Children by state, in the order of [`ChildState::ALL`].
    pub(super) children: [Gauge; ChildState::ALL.len()],
    pub(super) history_events: Gauge,
    pub(super) evicted_events: Gauge,
}

/// The cells of one child label.
pub(super) struct ChildRow {
    /// Shared with the child's spec.
    label: Arc<str>,
    /// Where in [`Children::text`] its own label stands.
    text: Range<u32>,
    /// When its counters stood at 0 first, in Unix milliseconds.
    created: u64,
    pub(super) restarts: Counters<{ RestartCause::ALL.len() }>,
    /// Unix milliseconds, 0 if never.
    last_restart: AtomicU64,
}

/// The children of a row: in one piece, as is their text, because a scrape of many supervisors waits for memory more than
/// for anything else.
#[derive(Default)]
struct Children {
    rows: Vec<ChildRow>,
    by_label: HashMap<Arc<str>, u32, RandomState>,
    /// Indices of `rows`, sorted by label when one is added and not at each scrape.
    sorted: Vec<u32>,
    /// All children beyond the limits.
    other: Option<Box<ChildRow>>,
    /// `,child="…"` of all.
    text: String,
}

/// A row as a scrape sees it.
pub(super) struct RowView<'a> {
    pub(super) row: &'a SupervisorRow,
    pub(super) up: bool,
    /// Are exemplars shown?
    pub(super) exemplars: bool,
}

// === impl SupervisorRow ===

impl SupervisorRow {
    pub(super) fn new(name: &Name, created: SystemTime, max_children: usize, limits: Arc<Limits>) -> Self {
        let mut labels = label_text(&[("supervisor", &name.supervisor)]);
        if let Some(node) = &name.node {
            push_label(&mut labels, "node", node);
        }
        let is_other = name.is_other();
        Self {
            labels: labels.into(),
            created: unix_millis(created),
            is_other,
            start_time: Gauge::default(),
            max_restarts: Gauge::default(),
            max_seconds: Gauge::default(),
            observed: Observed::default(),
            observing: Mutex::default(),
            saturated: Counter::default(),
            terminations: Counters::default(),
            last_exit: Gauge::default(),
            start_attempts: Counter::default(),
            start_errors: Counter::default(),
            child_terminations: Counters::default(),
            lifetime: Histogram::new(&LIFETIME_BUCKETS),
            downtime: Histogram::new(&DOWNTIME_BUCKETS),
            start_duration: Histogram::new(&START_BUCKETS),
            children: RwLock::default(),
            incarnation: ArcSwap::default(),
            // Children of supervisors that are not told apart are not either.
            max_children: if is_other { 0 } else { max_children },
            limits,
        }
    }

    pub(super) fn is_other(&self) -> bool {
        self.is_other
    }

    /// Replaces what is known of the newest incarnation.
    pub(super) fn set_incarnation(&self, incarnation: Incarnation) {
        self.incarnation.store(Arc::new(incarnation));
    }

    pub(super) fn set_start_time(&self, time: SystemTime) {
        self.start_time.set(Some(unix_millis(time)));
    }

    /// Asks analytics, once a scrape: its records have locks, and lie elsewhere in memory.
    pub(super) fn observe(&self, now: Instant) {
        // Of two scrapes at once the slower must not put back what it read earlier: a counter would fall.
        let _observing = self.observing.lock();
        let seen = &self.observed;
        let incarnation = self.incarnation.load();
        let record = incarnation.record.as_deref();
        let levels = record.map(|record| record.levels(now));
        // A node reports no clean end and no start of a dynamic child: how many children it has is not known from events.
        let is_local = record.is_some_and(|record| record.name().node.is_none());
        let children = levels.filter(|_| is_local).map(|levels| levels.children);
        seen.restarts_used.set(levels.and_then(|levels| levels.restarts_in_window).map(u64::from));
        for (gauge, state) in seen.children.iter().zip(ChildState::ALL) {
            gauge.set(children.map(|children| children.get(state)));
        }
        seen.history_events.set(levels.map(|levels| levels.history_events));
        seen.evicted_events.set(levels.map(|levels| levels.evicted_events));
    }

    /// Reads something that stands where every family begins. Read for many rows in a row, with nothing that depends on
    /// it, the memory of all of them is waited for at the same time.
    pub(super) fn touch(&self) -> u8 {
        self.labels.as_bytes().first().copied().unwrap_or_default()
    }

    /// The labels of `supervisor_info`. What is unknown has no label, which Prometheus takes for an empty one.
    pub(super) fn info_labels(&self, strategy: Option<Strategy>, parent: Option<&str>) -> Box<str> {
        let mut text = String::from_utf8_lossy(self.labels.as_bytes()).into_owned();
        if let Some(strategy) = strategy {
            push_label(&mut text, "strategy", strategy.as_str());
        }
        if let Some(parent) = parent {
            push_label(&mut text, "parent", parent);
        }
        text.into()
    }

    /// Calls `act` with the row of a child, which is born here, at 0, if the label is new. Beyond the limits all children
    /// share one row. `now` is the time of the event.
    pub(super) fn with_child(&self, label: &Arc<str>, now: SystemTime, act: impl FnOnce(&ChildRow)) {
        let children = self.children.read();
        if let Some(child) = children.find(label) {
            return act(child);
        }
        if let Some(other) = children.other.as_ref().filter(|_| !self.has_room(&children, label)) {
            self.overflowed();
            return act(other);
        }
        drop(children);
        self.with_new_child(label, now, act);
    }

    /// Calls `act` with the row that all children share that are not told apart.
    pub(super) fn with_other_children(&self, now: SystemTime, act: impl FnOnce(&ChildRow)) {
        act(self.children.write().other(now));
    }

    fn with_new_child(&self, label: &Arc<str>, now: SystemTime, act: impl FnOnce(&ChildRow)) {
        let children = &mut *self.children.write();
        // Two threads may have raced here.
        if let Some(child) = children.find(label) {
            return act(child);
        }
        if self.has_room(children, label) && self.limits.take_child() {
            return act(children.add(label, now));
        }
        self.overflowed();
        act(children.other(now));
    }

    fn has_room(&self, children: &Children, label: &str) -> bool {
        // A child that is really called so must not become a second series of the same name.
        label != OTHER && children.rows.len() < self.max_children && self.limits.has_room_for_child()
    }

    fn overflowed(&self) {
        if !self.is_other {
            self.limits.reached(Limit::SeriesChildren);
        }
    }
}

/// A row gives back what it took from the limits wherever it is removed: at a scrape, or while another is added.
impl Drop for SupervisorRow {
    fn drop(&mut self) {
        let view = RowView { row: self, up: false, exemplars: false };
        let mut series = SeriesCount::default();
        for family in FAMILIES.iter().filter(|family| family.applies_to(self)) {
            if let Samples::Supervisor(samples) = family.samples {
                samples(&view, &mut series);
            }
        }
        self.limits.expired_series.add(series.0);
        self.limits.give_back_children(self.children.get_mut().rows.len());
    }
}

// === impl Children ===

impl Children {
    fn find(&self, label: &str) -> Option<&ChildRow> {
        self.by_label.get(label).map(|index| &self.rows[*index as usize])
    }

    fn add(&mut self, label: &Arc<str>, now: SystemTime) -> &ChildRow {
        let index = self.rows.len();
        let place = self.sorted.partition_point(|other| self.rows[*other as usize].label < *label);
        self.sorted.insert(place, index as u32);
        self.by_label.insert(label.clone(), index as u32);
        self.rows.push(ChildRow::new(label.clone(), now, &mut self.text));
        &self.rows[index]
    }

    fn other(&mut self, now: SystemTime) -> &ChildRow {
        let text = &mut self.text;
        self.other.get_or_insert_with(|| Box::new(ChildRow::new(OTHER.into(), now, text)))
    }

    fn sorted(&self) -> impl Iterator<Item = &ChildRow> {
        self.sorted.iter().map(|index| &self.rows[*index as usize])
    }

    fn labels<'a>(&'a self, base: &'a [u8], child: &ChildRow) -> Labels<'a> {
        let rest = &self.text.as_bytes()[child.text.start as usize..child.text.end as usize];
        Labels { base, rest, created: Some(child.created) }
    }
}

// === impl ChildRow ===

impl ChildRow {
    fn new(label: Arc<str>, created: SystemTime, text: &mut String) -> Self {
        let start = text.len() as u32;
        push_more_label(text, "child", &label);
        Self {
            label,
            text: start..text.len() as u32,
            created: unix_millis(created),
            restarts: Counters::default(),
            last_restart: AtomicU64::new(0),
        }
    }

    /// Notes an automatic restart. The latest wins, also if the clock was stepped back between two.
    pub(super) fn restarted_at(&self, time: SystemTime) {
        self.last_restart.store(unix_millis(time), Ordering::Relaxed);
    }

    /// Unix milliseconds, 0 if never.
    pub(super) fn last_restart(&self) -> u64 {
        self.last_restart.load(Ordering::Relaxed)
    }
}

// === impl RowView ===

impl RowView<'_> {
    pub(super) fn labels(&self) -> Labels<'_> {
        Labels { base: self.row.labels.as_bytes(), rest: &[], created: Some(self.row.created) }
    }

    pub(super) fn incarnation(&self) -> Guard<Arc<Incarnation>> {
        self.row.incarnation.load()
    }

    /// For each bucket of lifetimes that holds any, the newest death of the history that lies in it; nothing if exemplars
    /// are not shown. The history is asked, so that an exemplar never points to an event that is gone.
    pub(super) fn lifetime_exemplars(&self, counts: &[u64]) -> Vec<Option<Exemplar>> {
        let incarnation = self.incarnation();
        let Some(record) = incarnation.record.as_deref().filter(|_| self.exemplars) else { return Vec::new() };
        let mut exemplars = vec![None; counts.len()];
        record.each_newest_death(DEATHS_FOR_EXEMPLARS, |death, lifetime_ms| {
            let seconds = lifetime_ms as f64 / 1e3;
            let bucket = LIFETIME_BUCKETS.partition_point(|bound| *bound < seconds);
            let below = bucket.checked_sub(1).map_or(0, |below| counts[below]);
            // Milliseconds are cut off: one that seems to lie on a bound may have been counted above it.
            if exemplars[bucket].is_none() && counts[bucket] > below {
                exemplars[bucket] = Some(Exemplar { event_id: death.id, seconds, timestamp: death.timestamp });
            }
        });
        exemplars
    }

    /// A sample of what may not be known.
    pub(super) fn if_known(&self, gauge: &Gauge, out: &mut dyn Sink) {
        if let Some(value) = gauge.get() {
            out.int(self.labels(), value);
        }
    }

    /// 1 at the class of the newest end, 0 at all others; none while the supervisor runs.
    pub(super) fn down_reason(&self) -> Option<[u64; SupervisorExitClass::ALL.len()]> {
        let last = self.row.last_exit.get().filter(|_| !self.up)?;
        Some(std::array::from_fn(|class| u64::from(class as u64 == last)))
    }

    /// The children that are told apart, sorted by label.
    pub(super) fn each_child(&self, mut show: impl FnMut(Labels<'_>, &ChildRow)) {
        let children = self.row.children.read();
        children.sorted().for_each(|child| show(children.labels(self.row.labels.as_bytes(), child), child));
    }

    /// The children that are told apart, then the row of all others. Only for counters: a gauge of many is of nobody.
    pub(super) fn each_child_and_other(&self, mut show: impl FnMut(Labels<'_>, &ChildRow)) {
        let children = self.row.children.read();
        let all = children.sorted().chain(children.other.as_deref());
        all.for_each(|child| show(children.labels(self.row.labels.as_bytes(), child), child));
    }
}
