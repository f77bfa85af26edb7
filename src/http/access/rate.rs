//! How many requests are let in: a token bucket, kept as the time at which it is full again.

use std::time::{Duration, Instant};

/// A limit of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rate {
    /// Time for each request in the long run; more than zero.
    pub(super) interval: Duration,
    /// How many may come at once; at least 1.
    pub(super) burst: u32,
}

/// What has been used of a [`Rate`].
#[derive(Default)]
pub(super) struct Bucket {
    /// When nothing of what was taken is missing any more.
    full_at: Option<Instant>,
}

impl Bucket {
    /// Takes room for one request; if there is none, says how long until there is.
    pub(super) fn take(&mut self, rate: Rate, now: Instant) -> Result<(), Duration> {
        let full_at = self.full_at.map_or(now, |full_at| full_at.max(now));
        let missing = (full_at - now).saturating_add(rate.interval);
        let wait = missing.saturating_sub(rate.interval.saturating_mul(rate.burst));
        if wait > Duration::ZERO {
            return Err(wait);
        }
        // A time that no clock reaches is as good as now.
        self.full_at = now.checked_add(missing);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::monotonic_now;

    // A burst at once, then one request an interval; what is not used is saved up to the burst and no further.
    #[test]
    fn a_burst_passes_and_then_one_request_an_interval() {
        let rate = Rate { interval: Duration::from_secs(1), burst: 3 };
        let start = monotonic_now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut bucket = Bucket::default();
        for _ in 0..3 {
            assert_eq!(bucket.take(rate, at(0)), Ok(()));
        }
        assert_eq!(bucket.take(rate, at(0)), Err(Duration::from_secs(1)));
        assert_eq!(bucket.take(rate, at(400)), Err(Duration::from_millis(600)));
        assert_eq!(bucket.take(rate, at(1000)), Ok(()));
        assert_eq!(bucket.take(rate, at(1000)), Err(Duration::from_secs(1)));
        for _ in 0..3 {
            assert_eq!(bucket.take(rate, at(100_000)), Ok(()));
        }
        assert!(bucket.take(rate, at(100_000)).is_err());
    }

    // A rate that changes counts from then on, and no number is too large.
    #[test]
    fn a_rate_may_change_and_be_extreme() {
        let start = monotonic_now();
        let mut bucket = Bucket::default();
        let slow = Rate { interval: Duration::from_secs(3600), burst: 1 };
        assert_eq!((bucket.take(slow, start), bucket.take(slow, start).is_err()), (Ok(()), true));
        for interval in [Duration::from_secs(3600), Duration::MAX] {
            assert_eq!(bucket.take(Rate { interval, burst: u32::MAX }, start), Ok(()));
        }
    }
}
