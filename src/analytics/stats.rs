//! Totals that never forget, and how many restarts and failures fell into a window.

use std::time::Duration;

use super::ring::Ring;

/// Seconds with events whose counts are kept for windows that reach past the stamps: an hour of unbroken storm.
pub const MAX_SECONDS_COUNTED: usize = 3600;

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// How much failed in the time just past.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FailureRate {
    /// Restarts in the window, whatever their cause.
    pub restarts: u64,
    /// Restarts per second.
    pub rate: f64,
    /// Failures in the window: what OTP writes an error report for.
    pub failures: u64,
    /// Length of the window, which ends now and includes both of its ends.
    pub window: Duration,
    /// True if both counts are exact; else they are the most that can be proven.
    pub complete: bool,
}

/// What one supervisor counted.
///
/// Three records of the same events, each coarser and longer than the one before: the stamps of the newest, counts by
/// the second, and the totals.
#[derive(Debug)]
pub(super) struct Stats {
    restarts: Ring<u64>,
    failures: Ring<u64>,
    /// Kept beside the rings: they forget, a total must not.
    totals: Totals,
    /// Seconds that had events, oldest first, each with the totals at its end.
    seconds: Ring<(u64, Totals)>,
    /// The last second that was dropped from `seconds`.
    dropped: Option<(u64, Totals)>,
    last_restart: Option<u64>,
}

/// How many of each ever happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) restarts: u64,
    pub(super) failures: u64,
}

/// What is certain about a count: it is at least `min` and at most `max`.
struct Bounds {
    min: u64,
    max: u64,
}

// === impl Stats ===

impl Stats {
    /// Nothing counted; stamps of the newest `capacity` restarts and as many failures will be kept.
    pub(super) fn new(capacity: usize) -> Self {
        Self::with_limits(capacity, MAX_SECONDS_COUNTED)
    }

    fn with_limits(capacity: usize, seconds: usize) -> Self {
        Self {
            restarts: Ring::new(capacity),
            failures: Ring::new(capacity),
            totals: Totals::default(),
            seconds: Ring::new(seconds),
            dropped: None,
            last_restart: None,
        }
    }

    /// Counts restarts. `at` is in monotonic nanoseconds and never less than the one before, `timestamp` is for showing.
    pub(super) fn restarted(&mut self, count: u64, at: u64, timestamp: u64) {
        stamp(&mut self.restarts, count, at);
        self.totals.restarts += count;
        self.last_restart = Some(timestamp);
        self.count_second(at);
    }

    /// Counts failures, with the same `at` as [`restarted`](Self::restarted).
    pub(super) fn failed(&mut self, count: u64, at: u64) {
        stamp(&mut self.failures, count, at);
        self.totals.failures += count;
        self.count_second(at);
    }

    /// Everything ever counted.
    pub(super) fn totals(&self) -> Totals {
        self.totals
    }

    /// When the last restart was, in milliseconds since the Unix epoch.
    pub(super) fn last_restart(&self) -> Option<u64> {
        self.last_restart
    }

    /// What fell into the `window` that ends `now` (monotonic nanoseconds).
    pub(super) fn failure_rate(&self, window: Duration, now: u64) -> FailureRate {
        let nanos = window.as_nanos().try_into().unwrap_or(u64::MAX);
        let (restarts, failures) = match now.checked_sub(nanos) {
            Some(from) => (
                self.count(from, &self.restarts, |totals| totals.restarts),
                self.count(from, &self.failures, |totals| totals.failures),
            ),
            // The window began before anything was counted.
            None => (Bounds::exactly(self.totals.restarts), Bounds::exactly(self.totals.failures)),
        };
        let rate = if window.is_zero() { 0.0 } else { restarts.min as f64 / window.as_secs_f64() };
        let complete = restarts.min == restarts.max && failures.min == failures.max;
        FailureRate { restarts: restarts.min, rate, failures: failures.min, window, complete }
    }

    fn count(&self, from: u64, stamps: &Ring<u64>, count_of: impl Fn(Totals) -> u64) -> Bounds {
        let inside = stamps.count_from(from) as u64;
        // A stamp before the window proves that everything pushed out of the ring was before it too.
        if stamps.evicted() == 0 || stamps.items().front().is_some_and(|&oldest| oldest < from) {
            return Bounds::exactly(inside);
        }
        let total = count_of(self.totals);
        // The second that the window begins in is inside at most as a whole and at least not at all.
        let (begins_in, whole_from) = (from / NANOS_PER_SECOND, from.div_ceil(NANOS_PER_SECOND));
        let fewest_before = self.totals_before(begins_in).unwrap_or_default();
        let most_before = self.totals_before(whole_from).or(self.dropped.map(|(_, totals)| totals)).unwrap_or_default();
        Bounds { min: inside.max(total - count_of(most_before)), max: total - count_of(fewest_before) }
    }

    /// The totals when `second` began; none if that is too long ago to know.
    fn totals_before(&self, second: u64) -> Option<Totals> {
        let seconds = self.seconds.items();
        let earlier = seconds.partition_point(|&(counted, _)| counted < second);
        match (earlier.checked_sub(1), self.dropped) {
            (Some(index), _) => Some(seconds[index].1),
            (None, None) => Some(Totals::default()),
            (None, Some((dropped, totals))) => (dropped < second).then_some(totals),
        }
    }

    fn count_second(&mut self, at: u64) {
        let second = at / NANOS_PER_SECOND;
        match self.seconds.newest_mut() {
            Some((newest, totals)) if *newest == second => *totals = self.totals,
            _ => self.dropped = self.seconds.push((second, self.totals)).or(self.dropped),
        }
    }
}

/// More than the ring holds would only push each other out.
fn stamp(ring: &mut Ring<u64>, count: u64, at: u64) {
    for _ in 0..count.min(ring.limit() as u64 + 1) {
        ring.push(at);
    }
}

// === impl Bounds ===

impl Bounds {
    fn exactly(count: u64) -> Self {
        Self { min: count, max: count }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(ms: u64) -> u64 {
        ms * 1_000_000
    }

    fn restarts_at(capacity: usize, stamps_ms: &[u64]) -> Stats {
        let mut stats = Stats::new(capacity);
        for &ms in stamps_ms {
            stats.restarted(1, at(ms), ms);
        }
        stats
    }

    // The document: restarts, rate per second, window; both ends of the window belong to it.
    #[test]
    fn a_rate_counts_what_is_not_older_than_the_window() {
        let mut stats = restarts_at(10, &[1000, 2000, 3000]);
        stats.failed(1, at(3000));
        let rate = stats.failure_rate(2 * SECOND, at(4000));
        let expected = FailureRate { restarts: 2, rate: 1.0, failures: 1, window: 2 * SECOND, complete: true };
        assert_eq!(rate, expected);
        assert_eq!(stats.failure_rate(SECOND, at(5000)).restarts, 0);
        assert_eq!(stats.last_restart(), Some(3000));
    }

    // No window, however odd, divides by zero or overflows.
    #[test]
    fn the_empty_and_the_endless_window_have_a_rate() {
        let stats = restarts_at(10, &[1000]);
        let rate = stats.failure_rate(Duration::ZERO, at(1000));
        assert_eq!((rate.restarts, rate.rate, rate.complete), (1, 0.0, true));
        let rate = stats.failure_rate(Duration::MAX, at(1000));
        assert_eq!((rate.restarts, rate.complete), (1, true));
    }

    // A window past the ring is exact by the second; inside a second that had events, it says that it is not.
    #[test]
    fn a_window_past_the_ring_is_exact_on_the_edge_of_a_second_and_marked_within() {
        let stats = restarts_at(1, &[1100, 1200, 2100, 2200, 2300]);
        let counted = |now_ms| {
            let rate = stats.failure_rate(2 * SECOND, at(now_ms));
            (rate.restarts, rate.complete)
        };
        assert_eq!(counted(2500), (5, true), "0.5 s: nothing had happened before");
        assert_eq!(counted(3000), (5, true), "1.0 s: the edge");
        assert_eq!(counted(3150), (3, false), "1.15 s: one or both of the first second");
        assert_eq!(counted(4000), (3, true), "2.0 s: the edge");
        assert_eq!(counted(4250), (1, false), "2.25 s: only the stamp of the last is kept");
    }

    // A total is not what the ring still holds.
    #[test]
    fn totals_stay_exact_when_the_rings_forget() {
        let mut stats = Stats::new(0);
        for ms in 0..5000 {
            stats.restarted(1, at(ms), ms);
            stats.failed(1, at(ms));
        }
        assert_eq!(stats.totals(), Totals { restarts: 5000, failures: 5000 });
        assert_eq!(stats.failure_rate(2 * SECOND, at(5000)).restarts, 2000);
    }

    proptest! {
        // Against every event ever: equal when marked complete, never more when not.
        #[test]
        fn a_rate_is_exact_or_marked_as_too_low(
            capacity in 0usize..12,
            seconds in 0usize..8,
            events in prop::collection::vec((0u64..1500, any::<bool>()), 0..80),
            window_ms in 0u64..40_000,
            whole_seconds: bool,
            later_ms in 0u64..3000,
        ) {
            let mut stats = Stats::with_limits(capacity, seconds);
            let (mut model, mut now_ms) = (Vec::new(), 0);
            for (gap_ms, is_restart) in events {
                // Gaps of zero, of less than a second and of more.
                now_ms += gap_ms.saturating_sub(300);
                if is_restart {
                    stats.restarted(1, at(now_ms), now_ms);
                } else {
                    stats.failed(1, at(now_ms));
                }
                model.push((now_ms, is_restart));
            }
            now_ms += later_ms;
            if whole_seconds {
                now_ms = now_ms.next_multiple_of(1000);
            }
            let window_ms = if whole_seconds { window_ms / 1000 * 1000 } else { window_ms };
            let rate = stats.failure_rate(Duration::from_millis(window_ms), at(now_ms));
            let count = |wanted| model.iter().filter(|&&(ms, is)| is == wanted && ms + window_ms >= now_ms).count() as u64;
            let (restarts, failures) = (count(true), count(false));
            if rate.complete {
                prop_assert_eq!((rate.restarts, rate.failures), (restarts, failures));
            } else {
                prop_assert!(rate.restarts <= restarts && rate.failures <= failures);
            }
        }
    }
}
