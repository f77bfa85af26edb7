//! The node's clock on ours. Pure.

use std::time::Duration;

use crate::beam::report::Moment;
use crate::event::Timestamp;

/// A node's clock that went on by more or less than ours is followed; what is below is the time of transport.
const CLOCK_STEP: Duration = Duration::from_secs(1);

/// A moment on the node's clock and on ours.
#[derive(Clone, Copy, Debug)]
pub(super) struct Anchor {
    node_us: i64,
    at: Timestamp,
}

// === impl Anchor ===

impl Anchor {
    pub(super) fn new(node_us: i64, at: Timestamp) -> Self {
        Self { node_us, at }
    }

    /// A time of the node's clock on ours: never later than now, and never earlier than our clocks reach.
    pub(super) fn moment(&self, node_us: i64, now: Timestamp) -> Moment {
        let ahead = i128::from(node_us) - i128::from(self.node_us);
        let distance = Duration::from_micros(u64::try_from(ahead.unsigned_abs()).unwrap_or(u64::MAX));
        let monotonic = if ahead < 0 {
            self.at.monotonic.checked_sub(distance).unwrap_or(self.at.monotonic)
        } else {
            self.at.monotonic.checked_add(distance).map_or(now.monotonic, |at| at.min(now.monotonic))
        };
        let age = now.monotonic.saturating_duration_since(monotonic);
        let system = now.system.checked_sub(age).unwrap_or(now.system);
        Moment { node_us, at: Timestamp { monotonic, system }, heard: now.monotonic }
    }

    /// The node says its time again.
    pub(super) fn follow(&mut self, node_us: i64, now: Timestamp) {
        let passed = now.monotonic.saturating_duration_since(self.at.monotonic).as_micros();
        let said = i128::from(node_us) - i128::from(self.node_us);
        let step = said.saturating_sub_unsigned(passed).unsigned_abs();
        if step > CLOCK_STEP.as_micros() {
            *self = Self { node_us, at: now };
        }
    }
}
