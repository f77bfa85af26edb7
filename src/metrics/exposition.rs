//! One walk over the families, and the pieces of text it is cut into.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use super::Metrics;
use super::families::{FAMILIES, Family, Samples};
use super::labels::label_text;
use super::own::{self, Own};
use super::process::Process;
use super::row::{RowView, SupervisorRow};
use super::sink::Sink;
use super::text::{Text, TextSink};
use crate::analytics::registry::Row;
use crate::telemetry::{self, MAX_FAILED_HANDLERS};

/// A piece ends after the first row that fills it to this many bytes: large enough that a write to a socket costs little
/// beside it, small enough to stay in a cache.
pub const PIECE_BYTES: usize = 64 * 1024;

/// Rows that a walk looks ahead. A walk over 25,000 supervisors waits for memory most of its time; this many rows are
/// waited for together.
const ROWS_AHEAD: usize = 16;

/// One exposition in the text format, built piece by piece, so that its size is no matter of memory.
///
/// Between two pieces no lock is held: a slow reader keeps nobody waiting. Which supervisors are shown is fixed at the
/// start; what analytics says of each is that of the moment its first line is written, a count that of the moment its own
/// line is.
pub struct Exposition {
    walk: Walk,
    text: Text,
    took: Duration,
}

/// Where a walk over families and rows stands.
pub(super) struct Walk {
    scrape: Scrape,
    families: fn(&Family) -> bool,
    family: usize,
    row: usize,
}

/// What samples are taken from.
pub(super) struct Scrape {
    metrics: Metrics,
    rows: Arc<Vec<Row<SupervisorRow>>>,
    other: Option<Arc<SupervisorRow>>,
    now: Instant,
    process: OnceLock<Process>,
}

// === impl Exposition ===

impl Exposition {
    pub(super) fn new(metrics: Metrics) -> Self {
        Self { walk: Walk::new(metrics, |_| true), text: Text::default(), took: Duration::ZERO }
    }

    /// Replaces what is in `buf` by the next piece, whole lines of about [`PIECE_BYTES`]; false, and an empty `buf`,
    /// after the last.
    pub fn next_piece(&mut self, buf: &mut Vec<u8>) -> bool {
        buf.clear();
        let started = telemetry::monotonic_now();
        let mut has_more = true;
        while has_more && buf.len() < PIECE_BYTES {
            has_more = self.walk.step(&mut TextSink { text: &mut self.text, out: buf });
        }
        self.took += telemetry::monotonic_now().duration_since(started);
        if !has_more && !buf.is_empty() {
            self.walk.scrape.own().scraped(self.took);
        }
        !buf.is_empty()
    }
}

// === impl Walk ===

impl Walk {
    /// Begins a walk over the families that `families` selects. Forgets what ended long enough ago first, so that all
    /// series of a supervisor go between the same two scrapes.
    pub(super) fn new(metrics: Metrics, families: fn(&Family) -> bool) -> Self {
        let now = telemetry::monotonic_now();
        let registry = &metrics.recorder().registry;
        drop(registry.expire(now));
        let (rows, other) = (registry.rows(), registry.other());
        let scrape = Scrape { metrics, rows, other, now, process: OnceLock::new() };
        Self { scrape, families, family: 0, row: 0 }
    }

    /// Writes one row of one family; false when there is nothing left to write.
    pub(super) fn step(&mut self, out: &mut dyn Sink) -> bool {
        let Some(family) = FAMILIES.get(self.family) else { return false };
        if self.row == 0 {
            if !(self.families)(family) {
                self.family += 1;
                return true;
            }
            out.family(family);
        }
        let is_last = match family.samples {
            Samples::Exporter(samples) => {
                samples(&self.scrape, out);
                true
            }
            Samples::Supervisor(samples) => {
                if self.row.is_multiple_of(ROWS_AHEAD) {
                    self.look_ahead();
                }
                if let Some(view) = self.scrape.view(self.row).filter(|view| family.applies_to(view.row)) {
                    samples(&view, out);
                }
                self.row >= self.scrape.rows.len()
            }
        };
        if is_last {
            (self.family, self.row) = (self.family + 1, 0);
        } else {
            self.row += 1;
        }
        true
    }

    /// Prepares the next rows: their memory, and, while the first family of the table is walked, what all later ones show
    /// of analytics.
    fn look_ahead(&self) {
        let ahead = || self.scrape.rows.iter().skip(self.row).take(ROWS_AHEAD).map(|row| &row.state);
        std::hint::black_box(ahead().fold(0, |sum, row| sum ^ row.touch()));
        if self.family == 0 {
            ahead().for_each(|row| row.observe(self.scrape.now));
        }
    }

    /// Walks to the end.
    pub(super) fn run(mut self, out: &mut dyn Sink) {
        while self.step(out) {}
    }
}

// === impl Scrape ===

impl Scrape {
    /// The row at `index`; after the rows that are told apart comes the one of all others.
    fn view(&self, index: usize) -> Option<RowView<'_>> {
        match self.rows.get(index) {
            Some(row) => Some(RowView { row: &row.state, up: row.is_up() }),
            None => self.other.as_deref().map(|row| RowView { row, up: false }),
        }
    }

    pub(super) fn own(&self) -> &Own {
        &self.metrics.recorder().own
    }

    /// Read once a walk, and only if it comes to that.
    pub(super) fn process(&self) -> &Process {
        self.process.get_or_init(Process::read)
    }

    pub(super) fn history_capacity(&self) -> usize {
        self.metrics.recorder().analytics.history_capacity()
    }

    /// Supervisors and children, as in the labels of that name.
    pub(super) fn label_values(&self) -> [u64; 2] {
        let recorder = self.metrics.recorder();
        [recorder.registry.len() as u64, recorder.own.limits.children() as u64]
    }

    /// The limits of [`label_values`](Self::label_values).
    pub(super) fn label_value_limits(&self) -> [u64; 2] {
        let config = self.metrics.config();
        [config.max_supervisors as u64, config.max_children as u64]
    }

    /// Attached and detached.
    pub(super) fn handlers_by_state(&self) -> [u64; 2] {
        let telemetry = self.metrics.telemetry();
        let detached = telemetry.handler_failures().iter().filter(|handler| handler.detached).count();
        [telemetry.attached_handlers() as u64, detached as u64]
    }

    /// Failures by handler: those that failed, and from 0 those that are attached.
    pub(super) fn each_handler(&self, mut show: impl FnMut(&str, u64)) {
        let telemetry = self.metrics.telemetry();
        let failed = telemetry.handler_failures();
        let mut handlers = BTreeMap::new();
        // When the bus has stopped telling handlers apart, a 0 might be one of those it counts together.
        if failed.len() < MAX_FAILED_HANDLERS {
            let attached = telemetry.list_handlers(&[]).into_iter().map(|handler| (handler.id, 0));
            handlers.extend(attached.take(MAX_FAILED_HANDLERS));
        }
        handlers.extend(failed.into_iter().map(|handler| (handler.id, handler.failures)));
        for (id, failures) in handlers {
            show(&label_text(&[("handler", &id)]), failures);
        }
    }

    pub(super) fn build_labels(&self) -> String {
        own::build_labels()
    }
}
