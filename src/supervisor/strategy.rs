//! Which children one failure concerns. Pure.

use std::ops::Bound;

use crate::event::Strategy;

/// The children to stop (in reverse) and start (in order) when `failed` is restarted, as bounds over keys in start
/// order (OTP: `supervisor:restart/2`).
pub(super) fn group<K: Copy>(strategy: Strategy, failed: K) -> (Bound<K>, Bound<K>) {
    match strategy {
        Strategy::OneForOne | Strategy::Dynamic => (Bound::Included(failed), Bound::Included(failed)),
        Strategy::RestForOne => (Bound::Included(failed), Bound::Unbounded),
        Strategy::OneForAll => (Bound::Unbounded, Bound::Unbounded),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ops::RangeBounds;

    // One row for each strategy: of five children the third failed.
    #[test]
    fn a_failure_concerns_the_children_its_strategy_names() {
        let table = [
            (Strategy::OneForOne, vec![3]),
            (Strategy::Dynamic, vec![3]),
            (Strategy::RestForOne, vec![3, 4, 5]),
            (Strategy::OneForAll, vec![1, 2, 3, 4, 5]),
        ];
        for (strategy, expected) in table {
            let bounds = group(strategy, 3);
            let concerned: Vec<i32> = (1..=5).filter(|key| bounds.contains(key)).collect();
            assert_eq!(concerned, expected, "{strategy}");
        }
    }
}
