//! What every writer of an exposition is: the receiver of one walk over the families.

use super::super::family::Family;
use super::super::labels::Labels;

/// Receives families in the order of the table, and the samples of each between its begin and the next one's.
///
/// Labels come as text, rendered and escaped by [`labels`](super::super::labels).
pub(in super::super) trait Sink {
    /// The samples that follow belong to this family. There may be none.
    fn family(&mut self, family: &'static Family);

    /// One sample of a counter or gauge.
    fn sample(&mut self, labels: Labels<'_>, value: Number);

    /// One sample for each of the family's [`values`](Family::values), in their order.
    fn each(&mut self, labels: Labels<'_>, counts: &[u64]);

    /// A histogram: the counts are cumulative, one for each bound and one for `+Inf`; the sum is in seconds. Exemplars
    /// are one for each count, or none at all.
    fn histogram(&mut self, labels: Labels<'_>, counts: &[u64], sum: f64, exemplars: &[Option<Exemplar>]);

    /// One sample of a whole number.
    fn int(&mut self, labels: Labels<'_>, value: u64) {
        self.sample(labels, Number::Int(value));
    }

    /// One sample of a fraction.
    fn float(&mut self, labels: Labels<'_>, value: f64) {
        self.sample(labels, Number::Float(value));
    }

    /// One sample of a time, in Unix milliseconds; shown in seconds.
    fn time(&mut self, labels: Labels<'_>, millis: u64) {
        self.sample(labels, Number::Time(millis));
    }
}

/// The value of a sample.
#[derive(Clone, Copy)]
pub(in super::super) enum Number {
    Int(u64),
    Float(f64),
    /// Seconds, given in milliseconds: many samples are times, and integers are written in a third of the time of a float.
    Time(u64),
}

impl From<Number> for f64 {
    fn from(number: Number) -> Self {
        match number {
            Number::Int(value) => value as f64,
            Number::Float(value) => value,
            Number::Time(millis) => millis as f64 / 1e3,
        }
    }
}

/// One observation of a bucket, and where to read more about it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in super::super) struct Exemplar {
    /// The event's number in the history of the supervisor.
    pub(in super::super) event_id: u64,
    /// What was observed.
    pub(in super::super) seconds: f64,
    /// When, in Unix milliseconds.
    pub(in super::super) timestamp: u64,
}

/// The one label of an exemplar.
pub(super) const EXEMPLAR_LABEL: &str = "event_id";

/// Counts samples as series and writes nothing.
#[derive(Default)]
pub(in super::super) struct SeriesCount(pub(in super::super) u64);

impl Sink for SeriesCount {
    fn family(&mut self, _: &'static Family) {}

    fn sample(&mut self, _: Labels<'_>, _: Number) {
        self.0 += 1;
    }

    fn each(&mut self, _: Labels<'_>, counts: &[u64]) {
        self.0 += counts.len() as u64;
    }

    fn histogram(&mut self, _: Labels<'_>, counts: &[u64], _: f64, _: &[Option<Exemplar>]) {
        // The buckets, `_sum` and `_count`.
        self.0 += counts.len() as u64 + 2;
    }
}
