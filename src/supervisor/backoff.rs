//! How long a child that fails again and again waits before its next start. Pure: the random number is an argument.

use std::time::Duration;

use thiserror::Error;

/// Longest wait that can be configured: a day.
pub const MAX_BACKOFF: Duration = Duration::from_secs(24 * 3600);

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
