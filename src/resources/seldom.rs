//! Lines of the log that must not be many, whatever strangers do.

use std::io;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::Shortage;

/// Shortest time between two lines.
pub(crate) const LINE_PAUSE: Duration = Duration::from_secs(1);

/// Something that may happen again and again, of which the log has at most one line a second.
#[derive(Default)]
pub(crate) struct Seldom {
    told: Option<Instant>,
    untold: u64,
}

static ACCEPT_FAILURES: Mutex<Seldom> = Mutex::new(Seldom { told: None, untold: 0 });

/// Notes that a connection could not be accepted. If the log should have a line about it: how many failed since the last
/// line.
pub(crate) fn accept_failed(error: &io::Error) -> Option<u64> {
    if let Some(shortage) = Shortage::of(error) {
        shortage.count();
    }
    ACCEPT_FAILURES.lock().one_more(Instant::now())
}

impl Seldom {
    /// It happened once more. If it should be told: how often it happened since the last line without being told.
    pub(crate) fn one_more(&mut self, now: Instant) -> Option<u64> {
        if self.told.is_some_and(|told| now.saturating_duration_since(told) < LINE_PAUSE) {
            self.untold += 1;
            return None;
        }
        self.told = Some(now);
        Some(std::mem::take(&mut self.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // A log must not grow with what a stranger sends: one line a second, which says how many are missing.
    #[tokio::test(start_paused = true)]
    async fn the_log_tells_one_a_second() {
        let mut seldom = Seldom::default();
        let told: Vec<_> = (0..5).map(|_| seldom.one_more(Instant::now())).collect();
        assert_eq!(told, [Some(0), None, None, None, None]);
        tokio::time::advance(LINE_PAUSE).await;
        assert_eq!(seldom.one_more(Instant::now()), Some(4));
        tokio::time::advance(LINE_PAUSE).await;
        assert_eq!(seldom.one_more(Instant::now()), Some(0));
    }
}
