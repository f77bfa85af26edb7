//! The sliding window that tells a crash from a crash loop. Pure: time is an argument.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How finely the intensity window measures time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Resolution {
    /// Real time. A restart counts until it is longer ago than the window, to the millisecond.
    #[default]
    Milliseconds,
    /// As OTP does it: the clock is read in whole seconds, so a restart counts for between `max_seconds` and
    /// `max_seconds + 1` seconds, depending on where in a second it fell (`supervisor:add_restart/1`).
    WholeSeconds,
}

/// Restarts inside the window: `max_restarts` are allowed, the next one is refused.
///
/// Memory is bounded by `max_restarts` and by the ticks in the window, whichever is less.
#[derive(Debug)]
pub(crate) struct Intensity {
    max_restarts: u32,
    window_ticks: u64,
    tick: Duration,
    epoch: Instant,
    /// Restarts by tick, oldest first. Counted and not listed, so that a generous limit costs no memory a restart.
    restarts: VecDeque<(u64, u32)>,
    used: u32,
}

impl Intensity {
    /// An empty window. Ticks are counted from `epoch`, which must not be later than any time passed afterwards.
    pub(crate) fn new(max_restarts: u32, window: Duration, resolution: Resolution, epoch: Instant) -> Self {
        let tick = match resolution {
            Resolution::Milliseconds => Duration::from_millis(1),
            Resolution::WholeSeconds => Duration::from_secs(1),
        };
        let window_ticks = ticks(window, tick);
        Self { max_restarts, window_ticks, tick, epoch, restarts: VecDeque::new(), used: 0 }
    }

    /// An empty window for limits that somebody else says, however great: restarts are counted by the millisecond, or by
    /// this part of the window if the limit is greater than `parts`. A restart counts for up to one part longer then.
    pub(crate) fn in_parts(max_restarts: u32, window: Duration, parts: u32, epoch: Instant) -> Self {
        let exact = Self::new(max_restarts, window, Resolution::Milliseconds, epoch);
        if max_restarts <= parts {
            return exact;
        }
        let tick = exact.tick.max(window / parts);
        Self { tick, window_ticks: ticks(window, tick), ..exact }
    }

    /// Counts one restart. False if it is one too many: the supervisor must give up.
    pub(crate) fn admit(&mut self, now: Instant) -> bool {
        let now = self.slide(now);
        if self.used >= self.max_restarts {
            return false;
        }
        self.used += 1;
        match self.restarts.back_mut() {
            Some((tick, count)) if *tick == now => *count += 1,
            _ => self.restarts.push_back((now, 1)),
        }
        true
    }

    /// Restarts that the window would still allow.
    pub(crate) fn left(&mut self, now: Instant) -> u32 {
        self.slide(now);
        self.max_restarts.saturating_sub(self.used)
    }

    /// Takes over other limits. What the window holds stays in it, so that a reload is no fresh budget.
    pub(crate) fn set_limits(&mut self, max_restarts: u32, window: Duration) {
        (self.max_restarts, self.window_ticks) = (max_restarts, ticks(window, self.tick));
    }

    /// Drops what is older than the window; an entry exactly as old as the window still counts, as in OTP.
    fn slide(&mut self, now: Instant) -> u64 {
        let now = ticks(now.duration_since(self.epoch), self.tick);
        while let Some(&(tick, count)) = self.restarts.front() {
            if now - tick <= self.window_ticks {
                break;
            }
            self.used -= count;
            self.restarts.pop_front();
        }
        now
    }
}

fn ticks(duration: Duration, tick: Duration) -> u64 {
    (duration.as_nanos() / tick.as_nanos()) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(5);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn window(max_restarts: u32) -> (Intensity, Instant) {
        let start = crate::telemetry::monotonic_now();
        (Intensity::new(max_restarts, WINDOW, Resolution::Milliseconds, start), start)
    }

    // The failing restart is number max_restarts + 1 inside the window.
    #[test]
    fn one_restart_more_than_allowed_is_refused() {
        let (mut intensity, start) = window(3);
        assert!((0..3).all(|_| intensity.admit(start)));
        assert_eq!(intensity.left(start), 0);
        assert!(!intensity.admit(start));
    }

    // A node may say any limit: what it costs follows from the parts, and a part is all that it is wrong by.
    #[test]
    fn a_window_in_parts_takes_no_more_memory_than_parts() {
        let start = crate::telemetry::monotonic_now();
        let window = Duration::from_secs(u32::MAX.into());
        let mut intensity = Intensity::in_parts(u32::MAX, window, 100, start);
        for day in 0..100_000 {
            assert!(intensity.admit(start + Duration::from_secs(day * 86_400)));
            assert!(intensity.restarts.len() <= 101);
        }
        let mut intensity = Intensity::in_parts(200, WINDOW, 100, start);
        assert!((0..200).all(|_| intensity.admit(start)) && !intensity.admit(start + WINDOW));
        assert!(intensity.admit(start + WINDOW + ms(100)));
    }

    // Intensity 0 never restarts.
    #[test]
    fn a_limit_of_zero_refuses_the_first() {
        let (mut intensity, start) = window(0);
        assert!(!intensity.admit(start));
    }

    // Real time: a restart counts while it is not longer ago than the window, and not a millisecond more.
    #[test]
    fn a_restart_leaves_the_window_to_the_millisecond() {
        let (mut intensity, start) = window(1);
        assert!(intensity.admit(start + ms(900)));
        assert!(!intensity.admit(start + ms(900) + WINDOW));
        assert!(intensity.admit(start + ms(901) + WINDOW));
    }

    // Not consecutive failures: a long healthy run does not help if the window is full, and is not needed if it is not.
    #[test]
    fn the_window_slides() {
        let (mut intensity, start) = window(2);
        assert!(intensity.admit(start));
        assert!(intensity.admit(start + ms(3000)));
        assert!(!intensity.admit(start + ms(4000)));
        assert!(intensity.admit(start + ms(5001)));
        assert!(!intensity.admit(start + ms(5002)));
        assert_eq!(intensity.left(start + ms(8001)), 1);
    }

    // OTP with intensity 1 and period 1: a second crash B ms after a first one A ms into a second.
    // The table was printed by OTP 23, 25, 27 and 29.
    #[test]
    fn whole_seconds_decide_as_otp_does() {
        let start = crate::telemetry::monotonic_now();
        let table = [
            (100, 1000, false),
            (100, 1700, false),
            (500, 1400, false),
            (500, 1650, true),
            (850, 1000, false),
            (850, 1300, true),
        ];
        for (first, second, alive) in table {
            let mut intensity = Intensity::new(1, Duration::from_secs(1), Resolution::WholeSeconds, start);
            assert!(intensity.admit(start + ms(first)));
            assert_eq!(intensity.admit(start + ms(first + second)), alive, "{first} ms and {second} ms later");
        }
        // In real time only a distance beyond the second passes, wherever the second begins.
        let mut real = Intensity::new(1, Duration::from_secs(1), Resolution::Milliseconds, start);
        assert!(real.admit(start + ms(500)));
        assert!(real.admit(start + ms(500 + 1400)));
    }

    // A generous limit must not cost memory for each restart.
    #[test]
    fn memory_is_bounded_by_the_ticks_of_the_window() {
        let (mut intensity, start) = window(u32::MAX);
        for second in 0..20 {
            for _ in 0..10_000 {
                assert!(intensity.admit(start + ms(second * 1000)));
            }
        }
        assert_eq!(intensity.restarts.len(), 6);
        assert_eq!(u32::MAX - intensity.left(start + ms(19_000)), 60_000);
    }
}
