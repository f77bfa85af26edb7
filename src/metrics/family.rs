//! What a metric family is; which there are stands in [`families`](super::families).

use super::exposition::{Scrape, Sink};
use super::row::{RowView, SupervisorRow};

/// The type of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts observations by bucket.
    Histogram,
}

impl Kind {
    /// The word after `# TYPE`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}

/// A metric: its name, its shape, and where its samples come from.
pub struct Family {
    /// The full name, for a counter with `_total`.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// One sentence for people.
    pub help: &'static str,
    /// Names of the labels, without `node` (on every series of a supervisor of a node) and `le`.
    pub labels: &'static [&'static str],
    /// All values of the last label where they are a closed set; else empty.
    pub values: &'static [&'static str],
    /// Upper bounds of a histogram in seconds, ascending, without `+Inf`; else empty.
    pub buckets: &'static [f64],
    pub(super) samples: Samples,
}

/// Where samples come from.
pub(super) enum Samples {
    /// From each row of the table of supervisors.
    Supervisor(fn(&RowView<'_>, &mut dyn Sink)),
    /// From the exporter itself.
    Exporter(fn(&Scrape, &mut dyn Sink)),
}

// === impl Family ===

impl Family {
    /// The name of the family in OpenMetrics, where `_total` belongs to the samples of a counter alone.
    pub(super) fn base_name(&self) -> &'static str {
        match self.kind {
            Kind::Counter => self.name.strip_suffix("_total").unwrap_or(self.name),
            Kind::Gauge | Kind::Histogram => self.name,
        }
    }

    /// The unit that its name ends with, if that is a base unit of Prometheus.
    pub(super) fn unit(&self) -> Option<&'static str> {
        let last = self.base_name().rsplit('_').next();
        last.filter(|word| ["seconds", "bytes"].contains(word))
    }

    /// The row of everything beyond the limit has counters only: a gauge of many supervisors would be of nobody.
    pub(super) fn applies_to(&self, row: &SupervisorRow) -> bool {
        !row.is_other() || self.kind != Kind::Gauge
    }

    pub(super) const fn by(mut self, labels: &'static [&'static str]) -> Self {
        self.labels = labels;
        self
    }

    pub(super) const fn by_closed(mut self, labels: &'static [&'static str], values: &'static [&'static str]) -> Self {
        self.labels = labels;
        self.values = values;
        self
    }
}

const fn family(name: &'static str, kind: Kind, help: &'static str, samples: Samples) -> Family {
    Family { name, kind, help, labels: &[], values: &[], buckets: &[], samples }
}

pub(super) const fn counter(name: &'static str, help: &'static str, samples: Samples) -> Family {
    family(name, Kind::Counter, help, samples)
}

pub(super) const fn gauge(name: &'static str, help: &'static str, samples: Samples) -> Family {
    family(name, Kind::Gauge, help, samples)
}

pub(super) const fn histogram(
    name: &'static str,
    help: &'static str,
    buckets: &'static [f64],
    samples: Samples,
) -> Family {
    let mut family = family(name, Kind::Histogram, help, samples);
    family.buckets = buckets;
    family
}
