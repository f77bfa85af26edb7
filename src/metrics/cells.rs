//! The numbers themselves: relaxed atomics, because each stands alone and a scrape is a sample of all of them anyway.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A count that only grows.
#[derive(Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub(super) fn inc(&self) {
        self.add(1);
    }

    pub(super) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One counter for each value of a closed label set.
pub(super) struct Counters<const N: usize>([AtomicU64; N]);

impl<const N: usize> Counters<N> {
    /// Adds one at `index`; returns the count before.
    pub(super) fn inc(&self, index: usize) -> u64 {
        self.add(index, 1)
    }

    pub(super) fn add(&self, index: usize, count: u64) -> u64 {
        self.0[index].fetch_add(count, Ordering::Relaxed)
    }

    pub(super) fn get(&self) -> [u64; N] {
        std::array::from_fn(|index| self.0[index].load(Ordering::Relaxed))
    }
}

impl<const N: usize> Default for Counters<N> {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

/// A number that comes and goes.
pub(super) struct Gauge(AtomicU64);

impl Gauge {
    const UNKNOWN: u64 = u64::MAX;

    pub(super) fn set(&self, value: Option<u64>) {
        let value = value.unwrap_or(Self::UNKNOWN);
        // A store takes the memory away from other cores, which may be scraped at the same time.
        if self.0.load(Ordering::Relaxed) != value {
            self.0.store(value, Ordering::Relaxed);
        }
    }

    /// None if it is not known.
    pub(super) fn get(&self) -> Option<u64> {
        Some(self.0.load(Ordering::Relaxed)).filter(|value| *value != Self::UNKNOWN)
    }
}

impl Default for Gauge {
    fn default() -> Self {
        Self(AtomicU64::new(Self::UNKNOWN))
    }
}

/// Durations by bucket. `CELLS` is one more than there are bounds: the last cell is what lies beyond all of them.
pub(super) struct Histogram<const CELLS: usize> {
    /// Upper bounds in seconds, ascending, inclusive.
    bounds: &'static [f64],
    cells: Counters<CELLS>,
    /// Seconds, as the bits of an `f64`: integer nanoseconds would overflow after 584 years of lifetimes, which a
    /// supervisor of many short connections reaches.
    sum: AtomicU64,
}

impl<const CELLS: usize> Histogram<CELLS> {
    pub(super) fn new(bounds: &'static [f64]) -> Self {
        debug_assert_eq!(bounds.len() + 1, CELLS);
        Self { bounds, cells: Counters::default(), sum: AtomicU64::new(0f64.to_bits()) }
    }

    pub(super) fn observe(&self, value: Duration) {
        let seconds = value.as_secs_f64();
        self.cells.inc(self.bounds.partition_point(|bound| *bound < seconds));
        let add = |bits| Some((f64::from_bits(bits) + seconds).to_bits());
        // The closure never declines, so neither does the update.
        let _ = self.sum.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }

    /// Cumulative counts, the last one being the count of all, and the sum in seconds.
    pub(super) fn get(&self) -> ([u64; CELLS], f64) {
        let mut counts = self.cells.get();
        for index in 1..CELLS {
            counts[index] += counts[index - 1];
        }
        (counts, f64::from_bits(self.sum.load(Ordering::Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Prometheus: `le` is inclusive, buckets are cumulative, `+Inf` holds everything.
    #[test]
    fn a_value_on_a_bound_belongs_to_its_bucket() {
        let histogram = Histogram::<3>::new(&[0.1, 1.0]);
        for millis in [0, 100, 101, 1000, 1001] {
            histogram.observe(Duration::from_millis(millis));
        }
        let (counts, sum) = histogram.get();
        assert_eq!(counts, [2, 4, 5]);
        assert!((sum - 2.202).abs() < 1e-9);
    }
}
