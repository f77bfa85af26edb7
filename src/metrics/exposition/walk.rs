//! One walk over the families: where the samples of every format come from.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use super::super::Metrics;
use super::super::families::FAMILIES;
use super::super::family::{Family, Samples};
use super::super::labels::label_text;
use super::super::limits::Limit;
use super::super::nodes::NodeRows;
use super::super::own::{self, Own};
use super::super::process::Process;
use super::super::row::{RowView, SupervisorRow};
use super::sink::Sink;
use crate::analytics::registry::Row;
use crate::telemetry::{self, MAX_FAILED_HANDLERS};

/// Rows that a walk looks ahead. A walk over 25,000 supervisors waits for memory most of its time; this many rows are
/// waited for together.
const ROWS_AHEAD: usize = 16;

/// Where a walk over families and rows stands.
pub(super) struct Walk {
    scrape: Scrape,
    families: fn(&Family) -> bool,
    family: usize,
    /// 0 when no row of the family has been written.
    row: usize,
}

/// What samples are taken from.
pub(in super::super) struct Scrape {
    metrics: Metrics,
    rows: Arc<Vec<Row<SupervisorRow>>>,
    other: Option<Arc<SupervisorRow>>,
    now: Instant,
    exemplars: bool,
    process: OnceLock<Process>,
}

// === impl Walk ===

impl Walk {
    /// Begins a walk over the families that `families` selects. Forgets what ended long enough ago first, so that all
    /// series of a supervisor go between the same two scrapes.
    pub(super) fn new(metrics: Metrics, families: fn(&Family) -> bool) -> Self {
        let now = telemetry::monotonic_now();
        let registry = &metrics.recorder().registry;
        drop(registry.expire(now));
        metrics.recorder().own.expire_nodes(now, metrics.config().retention);
        let (rows, other) = (registry.rows(), registry.other());
        let scrape = Scrape { metrics, rows, other, now, exemplars: false, process: OnceLock::new() };
        Self { scrape, families, family: 0, row: 0 }
    }

    /// Whether histograms show exemplars; at first they do not.
    pub(super) fn with_exemplars(mut self, exemplars: bool) -> Self {
        self.scrape.exemplars = exemplars;
        self
    }

    pub(super) fn scrape(&self) -> &Scrape {
        &self.scrape
    }

    /// Is a family complete, and no other begun?
    pub(super) fn is_between_families(&self) -> bool {
        self.row == 0
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
            Some(row) => Some(RowView { row: &row.state, up: row.is_up(), exemplars: self.exemplars }),
            None => self.other.as_deref().map(|row| RowView { row, up: false, exemplars: self.exemplars }),
        }
    }

    pub(in super::super) fn own(&self) -> &Own {
        &self.metrics.recorder().own
    }

    /// How often each limit was reached. One of them is that of analytics, which knows nothing of metrics.
    pub(in super::super) fn limits_reached(&self) -> [u64; Limit::ALL.len()] {
        let recorder = self.metrics.recorder();
        let mut counts = recorder.own.limits.counts();
        counts[Limit::NodeListed as usize] = recorder.analytics.not_listed();
        counts
    }

    pub(in super::super) fn nodes(&self) -> &NodeRows {
        &self.own().nodes
    }

    /// Read once a walk, and only if it comes to that.
    pub(in super::super) fn process(&self) -> &Process {
        self.process.get_or_init(Process::read)
    }

    pub(in super::super) fn history_capacity(&self) -> usize {
        self.metrics.recorder().analytics.history_capacity()
    }

    /// Supervisors and children, as in the labels of that name.
    pub(in super::super) fn label_values(&self) -> [u64; 2] {
        let recorder = self.metrics.recorder();
        [recorder.registry.len() as u64, recorder.own.limits.children() as u64]
    }

    /// The limits of [`label_values`](Self::label_values).
    pub(in super::super) fn label_value_limits(&self) -> [u64; 2] {
        let config = self.metrics.config();
        [config.max_supervisors as u64, config.max_children as u64]
    }

    /// Attached and detached.
    pub(in super::super) fn handlers_by_state(&self) -> [u64; 2] {
        let telemetry = self.metrics.telemetry();
        let detached = telemetry.handler_failures().iter().filter(|handler| handler.detached).count();
        [telemetry.attached_handlers() as u64, detached as u64]
    }

    /// Failures by handler: those that failed, and from 0 those that are attached.
    pub(in super::super) fn each_handler(&self, mut show: impl FnMut(&str, u64)) {
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

    pub(in super::super) fn build_labels(&self) -> String {
        own::build_labels()
    }
}
