//! What every writer of an exposition is: the receiver of one walk over the families.

use super::families::Family;
use super::labels::Labels;

/// Receives families in the order of the table, and the samples of each between its begin and the next one's.
///
/// Labels come as text, rendered and escaped by [`labels`](super::labels).
pub(super) trait Sink {
    /// The samples that follow belong to this family. There may be none.
    fn family(&mut self, family: &'static Family);

    /// One sample of a counter or gauge.
    fn sample(&mut self, labels: Labels<'_>, value: Number);

    /// One sample for each of the family's [`values`](Family::values), in their order.
    fn each(&mut self, labels: Labels<'_>, counts: &[u64]);

    /// A histogram: the counts are cumulative, one for each bound and one for `+Inf`; the sum is in seconds.
    fn histogram(&mut self, labels: Labels<'_>, counts: &[u64], sum: f64);

    /// One sample of a whole number.
    fn int(&mut self, labels: Labels<'_>, value: u64) {
        self.sample(labels, Number::Int(value));
    }

    /// One sample of a fraction.
    fn float(&mut self, labels: Labels<'_>, value: f64) {
        self.sample(labels, Number::Float(value));
    }
}

/// The value of a sample.
#[derive(Clone, Copy)]
pub(super) enum Number {
    Int(u64),
    Float(f64),
}

/// Counts samples as series and writes nothing.
#[derive(Default)]
pub(super) struct SeriesCount(pub(super) u64);

impl Sink for SeriesCount {
    fn family(&mut self, _: &'static Family) {}

    fn sample(&mut self, _: Labels<'_>, _: Number) {
        self.0 += 1;
    }

    fn each(&mut self, _: Labels<'_>, counts: &[u64]) {
        self.0 += counts.len() as u64;
    }

    fn histogram(&mut self, _: Labels<'_>, counts: &[u64], _: f64) {
        // The buckets, `_sum` and `_count`.
        self.0 += counts.len() as u64 + 2;
    }
}
