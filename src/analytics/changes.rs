//! What somebody changed just before something began to die: the first thing that is asked of a loop. Pure.

use std::collections::VecDeque;
use std::time::Duration;

use super::history::{Fact, HistoryEvent};
use crate::event::RestartCause;

/// What happened longer before a loop began is not said to be just before it: a deploy that kills does so within minutes.
pub const JUST_BEFORE: Duration = Duration::from_secs(15 * 60);

/// The newest of these events, sorted oldest first, that is a change and happened [`JUST_BEFORE`] the moment `at`, in
/// monotonic nanoseconds.
pub(super) fn newest_before(events: &VecDeque<HistoryEvent>, at: u64) -> Option<&HistoryEvent> {
    let from = at.saturating_sub(JUST_BEFORE.as_nanos() as u64);
    let before = events.partition_point(|event| event.at < at);
    events.range(..before).rev().take_while(|event| event.at >= from).find(|event| is_change(event))
}

/// Did somebody want it? A mark says so, and a restart that was asked for, which a reload does as well.
fn is_change(event: &HistoryEvent) -> bool {
    matches!(event.fact, Fact::Mark { .. } | Fact::Restarted { cause: RestartCause::Requested, .. })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn event(second: u64, fact: Fact) -> HistoryEvent {
        HistoryEvent { id: second, at: second * SECOND, timestamp: 1000 * second, child: None, fact }
    }

    fn mark(second: u64) -> HistoryEvent {
        event(second, Fact::Mark { text: "deploy".parse().expect("a mark") })
    }

    fn restart(second: u64, cause: RestartCause) -> HistoryEvent {
        event(second, Fact::Restarted { child_pid: None, previous_pid: None, cause, downtime_ms: None })
    }

    // The newest change before the first death counts: not one that came with it or after it, not one of long ago, and no
    // restart that nobody asked for.
    #[test]
    fn only_the_newest_change_shortly_before_counts() {
        let bound = JUST_BEFORE.as_secs();
        let events: VecDeque<_> = [
            mark(10),
            restart(20, RestartCause::Requested),
            restart(30, RestartCause::Failure),
            restart(31, RestartCause::Sibling),
            mark(5000),
        ]
        .into();
        let newest = |second: u64| newest_before(&events, second * SECOND).map(|event| event.id);
        for (second, expected) in [
            (10, None),
            (11, Some(10)),
            (20, Some(10)),
            (40, Some(20)),
            (20 + bound, Some(20)),
            (21 + bound, None),
            (5000, None),
            (5001, Some(5000)),
        ] {
            assert_eq!(newest(second), expected, "before second {second}");
        }
    }
}
