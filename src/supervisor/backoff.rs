//! How long a child that fails again and again waits before its next start. Pure: the random number is an argument.

use std::time::Duration;

use thiserror::Error;

/// Longest wait that can be configured: a day.
pub const MAX_BACKOFF: Duration = Duration::from_secs(24 * 3600);

/// Failures in a row beyond which waits are taken to grow no more, where it is asked how many fit into a window.
const MAX_ROW: usize = 64;

/// Failures that are counted out, where it is asked how many fit into a window: more are as good as no limit.
const MAX_FAILURES: u32 = 10_000;

/// Waits that grow with each failure in a row, up to a limit, and begin anew after a run that was stable.
///
/// The wait before restart number `n` in a row is `initial × factor^(n - 1)`, at most `max`, then spread by `jitter` to
/// both sides. Waits do not replace the intensity window: each restart is counted there as well.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    /// The wait before the first restart.
    pub initial: Duration,
    /// The longest wait, before jitter.
    pub max: Duration,
    /// By how much each wait is longer than the one before; 1 to 100.
    pub factor: f64,
    /// The share of a wait by which it is made longer or shorter at random, so that children which failed together do
    /// not come back together; 0 to 1.
    pub jitter: f64,
    /// A run of at least this length was stable: the next failure is the first in a row.
    pub reset_after: Duration,
}

/// A rule that a [`Backoff`] breaks.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum BackoffError {
    /// `factor` is out of range.
    #[error("backoff.factor must be a number from 1 to 100")]
    Factor,
    /// `jitter` is out of range.
    #[error("backoff.jitter must be a number from 0 to 1")]
    Jitter,
    /// `max` is less than `initial`.
    #[error("backoff.max must not be less than backoff.initial")]
    Order,
    /// `max` is more than [`MAX_BACKOFF`].
    #[error("backoff.max must not be more than a day")]
    TooLong,
}

impl Default for Backoff {
    /// From 100 ms doubling to a minute, spread by a tenth, reset after 10 s.
    fn default() -> Self {
        Self {
            initial: Duration::from_millis(100),
            max: Duration::from_secs(60),
            factor: 2.0,
            jitter: 0.1,
            reset_after: Duration::from_secs(10),
        }
    }
}

impl Backoff {
    /// What suits an OS process: from 1 s doubling to 30 s, spread by a tenth, reset after 10 s. Most programs need longer to
    /// start than a task, and a supervisor that gives up within a second helps nobody.
    pub const OF_PROCESSES: Self = Self {
        initial: Duration::from_secs(1),
        max: Duration::from_secs(30),
        factor: 2.0,
        jitter: 0.1,
        reset_after: Duration::from_secs(10),
    };

    /// The most failures that a child with this backoff can have within a window; if that is more than `enough`, one more
    /// than `enough`.
    pub(super) fn most_failures(&self, window: Duration, enough: u32) -> u32 {
        let shortest_wait = |row: usize| self.delay(row.min(MAX_ROW) as u32, 0.0);
        // The earliest moment of the latest failure, if it is the first, second, … in a row: either way to go on is tried. A
        // next run that fails at once is one more in a row; one that lasts `reset_after` begins a new row.
        let mut earliest = vec![Duration::ZERO];
        for failures in 1..=enough.min(MAX_FAILURES) {
            let started = earliest.iter().enumerate().map(|(row, time)| time.saturating_add(shortest_wait(row + 1)));
            let mut next: Vec<Duration> = started.collect();
            let anew = next.iter().min().map_or(Duration::MAX, |start| start.saturating_add(self.reset_after));
            next.insert(0, anew);
            if next.len() > MAX_ROW
                && let Some(longest) = next.pop()
                && let Some(last) = next.last_mut()
            {
                *last = (*last).min(longest);
            }
            if next.iter().all(|time| *time > window) {
                return failures;
            }
            earliest = next;
        }
        enough.saturating_add(1)
    }

    /// Checks the ranges of the fields.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn check(&self) -> Result<(), BackoffError> {
        if !(1.0..=100.0).contains(&self.factor) {
            return Err(BackoffError::Factor);
        }
        if !(0.0..=1.0).contains(&self.jitter) {
            return Err(BackoffError::Jitter);
        }
        if self.max < self.initial {
            return Err(BackoffError::Order);
        }
        if self.max > MAX_BACKOFF {
            return Err(BackoffError::TooLong);
        }
        Ok(())
    }

    /// The wait before the restart that follows `failures` failures in a row, at least 1; `random` is from 0 to 1.
    pub(super) fn delay(&self, failures: u32, random: f64) -> Duration {
        let exponent = i32::try_from(failures.saturating_sub(1)).unwrap_or(i32::MAX);
        let grown = self.initial.as_secs_f64() * self.factor.powi(exponent);
        // An overflow is infinite, and `min` of a NaN (0 × infinity) is the other one: both stay within the limit.
        let capped = grown.min(self.max.as_secs_f64());
        let spread = 1.0 + self.jitter * (2.0 * random - 1.0);
        let millis = (capped * spread * 1e3).round();
        if self.initial.is_zero() { Duration::ZERO } else { Duration::from_millis(millis as u64) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVEN: f64 = 0.5;

    // People's complaint: a backoff without a limit. Here it grows to `max`, whatever the number of failures.
    #[test]
    fn waits_grow_up_to_the_limit() {
        let backoff = Backoff { jitter: 0.0, max: Duration::from_secs(1), ..Backoff::default() };
        let waits: Vec<_> = (1..=6).map(|failures| backoff.delay(failures, EVEN).as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1000, 1000]);
        assert_eq!(backoff.delay(u32::MAX, EVEN), Duration::from_secs(1));
    }

    #[test]
    fn jitter_spreads_to_both_sides() {
        let backoff = Backoff { jitter: 0.5, ..Backoff::default() };
        assert_eq!(backoff.delay(1, 0.0), Duration::from_millis(50));
        assert_eq!(backoff.delay(1, EVEN), Duration::from_millis(100));
        assert_eq!(backoff.delay(1, 1.0), Duration::from_millis(150));
    }

    #[test]
    fn an_initial_wait_of_zero_stays_zero() {
        let backoff = Backoff { initial: Duration::ZERO, ..Backoff::default() };
        assert_eq!(backoff.delay(u32::MAX, 1.0), Duration::ZERO);
    }

    // When the window is over before the waits let one too many in, the budget never runs out.
    #[test]
    fn the_most_failures_within_a_window_follow_from_the_shortest_waits() {
        let processes = Backoff::OF_PROCESSES;
        let even = Backoff { jitter: 0.0, ..processes };
        let table = [
            // 0 s, 1 s, 3 s; the next would be at 7 s.
            (even, 5, 10, 3),
            (even, 7, 10, 4),
            // At 0, 0.9 and 2.7 s at best.
            (processes, 2, 10, 2),
            (processes, 3, 10, 3),
            // A run of 10 s now and then makes the waits short again: 0, 1, 3, then at 17, 18 and 20 s is quicker than 0, 1,
            // 3, 7, 15 and 31 s.
            (even, 19, 10, 5),
            (even, 20, 10, 6),
            (even, 3600, 5, 6),
            (Backoff { initial: Duration::ZERO, ..even }, 1, 1000, 1001),
        ];
        for (backoff, seconds, enough, failures) in table {
            assert_eq!(
                backoff.most_failures(Duration::from_secs(seconds), enough),
                failures,
                "{seconds} s, {backoff:?}"
            );
        }
    }

    #[test]
    fn ranges_are_checked() {
        let fine = Backoff::default();
        let table = [
            (fine, Ok(())),
            (Backoff { factor: 0.9, ..fine }, Err(BackoffError::Factor)),
            (Backoff { factor: f64::NAN, ..fine }, Err(BackoffError::Factor)),
            (Backoff { jitter: 1.1, ..fine }, Err(BackoffError::Jitter)),
            (Backoff { max: Duration::from_millis(99), ..fine }, Err(BackoffError::Order)),
            (Backoff { max: MAX_BACKOFF + Duration::from_secs(1), ..fine }, Err(BackoffError::TooLong)),
        ];
        for (backoff, expected) in table {
            assert_eq!(backoff.check(), expected, "{backoff:?}");
        }
    }
}
