//! The metrics: every supervisor event counted, and shown to Prometheus.
//!
//! [`families`](FAMILIES) is the table of all metrics. Events become numbers in `recorder`, numbers become samples in one
//! walk over that table, and samples become one of the [`Format`]s or the structs of the crate `prometheus` (`exposition`).
//! Whatever a scrape needs that is costly is done when a supervisor or child is first seen: rendering and
//! escaping its labels, and sorting.
//!
//! Rules that hold for all families:
//!
//! - Every closed label set of a counter stands at 0 from the first event of its supervisor or child, so that
//!   `increase()` sees the first restart.
//! - A value that is not known is absent, never 0.
//! - No label holds a pid. Labels have limits; what is beyond them is counted under `_other`, which has no gauges.
//! - The series of a supervisor stay for [`MetricsConfig::retention`] after its end, then all go in one scrape. Those of
//!   a child stay as long as those of its supervisor.

mod cells;
mod exposition;
mod families;
mod family;
mod labels;
mod limits;
mod nodes;
mod own;
mod process;
mod recorder;
mod row;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use prometheus::core::Collector;

use crate::analytics::Analytics;
use crate::telemetry::{AttachError, Telemetry};

pub use exposition::{Exposition, Format, PIECE_BYTES};
pub use families::FAMILIES;
pub use family::{Family, Kind};
pub use limits::Limit;
pub use own::DropCause;
pub use recorder::HANDLER_ID;

use recorder::Recorder;

/// Bounds of the metrics, and what they show. `max_supervisors` and `retention` should be those of analytics, where some
/// gauges come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricsConfig {
    /// Most values of the label `supervisor`; all beyond share `_other`.
    pub max_supervisors: usize,
    /// Most children told apart in all; all beyond share the `_other` of their supervisor.
    pub max_children: usize,
    /// Most children told apart under one supervisor; all beyond share its `_other`.
    pub max_children_per_supervisor: usize,
    /// How long the series of a supervisor stay after its end: longer than the longest window of an alert.
    pub retention: Duration,
    /// Whether OpenMetrics shows `_created` beside counters and histograms. Prometheus keeps each as one more series
    /// unless its feature `created-timestamp-zero-ingestion` is on. In protobuf these times are always there, at no cost.
    pub openmetrics_created: bool,
    /// Whether the buckets of lifetimes show the newest death that lies in them as an exemplar, in OpenMetrics and in
    /// protobuf.
    pub exemplars: bool,
}

/// The metrics of one exporter. Clones share them.
#[derive(Clone)]
pub struct Metrics {
    telemetry: Telemetry,
    recorder: Arc<Recorder>,
}

/// An HTTP request that is being answered; counted until dropped.
pub struct RequestInFlight(Arc<Recorder>);

// === impl MetricsConfig ===

impl Default for MetricsConfig {
    fn default() -> Self {
        Self {
            max_supervisors: 1000,
            max_children: 10_000,
            max_children_per_supervisor: 50,
            retention: Duration::from_secs(15 * 60),
            openmetrics_created: false,
            exemplars: false,
        }
    }
}

impl MetricsConfig {
    /// Most bytes of memory that the rows of all supervisors and children take, whatever nodes send.
    pub fn most_bytes(&self) -> usize {
        (self.max_supervisors + 1) * row::SUPERVISOR_BYTES + self.max_children * row::CHILD_BYTES
    }
}

// === impl Metrics ===

impl Metrics {
    /// Metrics of the events of `telemetry`, which begin to count with [`attach`](Self::attach). The state of children,
    /// windows and histories is read from `analytics` at each scrape.
    pub fn new(config: MetricsConfig, telemetry: &Telemetry, analytics: &Analytics) -> Self {
        Self { telemetry: telemetry.clone(), recorder: Arc::new(Recorder::new(config, analytics.clone())) }
    }

    /// Begins to count; does nothing if these metrics are attached already.
    ///
    /// # Errors
    /// [`AttachError`] if another handler of the bus has the id [`HANDLER_ID`].
    pub fn attach(&self) -> Result<(), AttachError> {
        self.telemetry.attach_shared(HANDLER_ID, &recorder::KINDS, self.recorder.clone())
    }

    /// Begins an exposition, which is built while it is sent.
    pub fn exposition(&self, format: Format) -> Exposition {
        Exposition::new(self.clone(), format)
    }

    /// A whole exposition at once in the text format, for tests and small programs.
    pub fn render(&self) -> String {
        String::from_utf8_lossy(&self.encode(Format::Text)).into_owned()
    }

    /// A whole exposition at once.
    pub fn encode(&self, format: Format) -> Vec<u8> {
        let (mut exposition, mut piece, mut whole) = (self.exposition(format), Vec::new(), Vec::new());
        while exposition.next_piece(&mut piece) {
            whole.extend_from_slice(&piece);
        }
        whole
    }

    /// The same metrics for a host's own `prometheus::Registry`, without `process_*`, which belong to the host.
    pub fn collector(&self) -> impl Collector + use<> {
        exposition::FamilyCollector::new(self.clone())
    }

    /// Makes the series of these HTTP handlers (route names) stand at 0 before their first request.
    pub fn http_handlers(&self, handlers: &[&'static str]) {
        handlers.iter().for_each(|handler| self.recorder.own.know_handler(handler));
    }

    /// Counts an HTTP request that was answered by a handler (a route name, never a raw path) with a status code.
    pub fn http_request(&self, handler: &'static str, code: u16) {
        self.recorder.own.request(handler, code);
    }

    /// Counts an HTTP request as being answered until the guard is dropped.
    #[must_use = "the request counts as answered when the guard is dropped"]
    pub fn http_request_in_flight(&self) -> RequestInFlight {
        self.recorder.own.request_begins();
        RequestInFlight(self.recorder.clone())
    }

    /// Counts a viewer of live events as there.
    pub fn live_viewer_came(&self) {
        self.recorder.own.live_viewers.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a viewer of live events as gone.
    pub fn live_viewer_left(&self) {
        self.recorder.own.live_viewers.fetch_sub(1, Ordering::Relaxed);
    }

    /// Counts events that a viewer was not told of because it was too slow.
    pub fn live_events_missed(&self, count: u64) {
        self.recorder.own.live_events_missed.add(count);
    }

    /// Counts that a limit was reached.
    pub fn limit_reached(&self, limit: Limit) {
        self.recorder.own.limits.reached(limit);
    }

    /// Counts events that will never be processed.
    pub fn events_dropped(&self, cause: DropCause, count: u64) {
        self.recorder.own.dropped.add(cause as usize, count);
    }

    /// Records an attempt to load the configuration file, the first load included, and when it was made.
    ///
    /// An attempt is successful if the file was valid and was applied completely. A failed attempt keeps the time of the
    /// last successful one; if there was none, that time is absent. Without any call both metrics are absent.
    pub fn config_reloaded(&self, successful: bool, time: SystemTime) {
        self.recorder.own.config_reloaded(successful, time);
    }

    /// The bounds in use.
    pub fn config(&self) -> &MetricsConfig {
        &self.recorder.config
    }

    pub(crate) fn telemetry(&self) -> &Telemetry {
        &self.telemetry
    }

    fn recorder(&self) -> &Recorder {
        &self.recorder
    }
}

// === impl RequestInFlight ===

impl Drop for RequestInFlight {
    fn drop(&mut self) {
        self.0.own.request_ends();
    }
}
