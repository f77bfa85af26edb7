use std::time::Duration;

use super::super::testing::child;
use super::*;
use crate::event::Restart;

fn death(history: &History, child_id: &str) -> HistoryEvent {
    let decision = Decision { action: Action::Restart, delay: Duration::ZERO, restarts_left: None };
    let fact = Fact::Terminated {
        child_pid: Some(Pid::Task(1)),
        reason: ExitReason::Killed,
        shutdown: false,
        lifetime_ms: Some(Duration::ZERO).into(),
        decision: decision.into(),
    };
    let child = Some(child(child_id, Restart::Permanent));
    HistoryEvent { id: history.next_id(), at: 0, timestamp: 0, child, fact }
}

fn restart(history: &History, child_id: &str) -> HistoryEvent {
    let fact = Fact::Restarted {
        child_pid: Some(Pid::Task(2)),
        previous_pid: None,
        cause: RestartCause::Failure,
        downtime_ms: None,
    };
    HistoryEvent { fact, ..death(history, child_id) }
}

fn ids(history: &History, filter: HistoryFilter) -> Vec<u64> {
    history.query(&filter).map(|event| event.id).collect()
}

fn output(line: &str) -> Remains {
    Remains { last_output: Some(Arc::new([line.into()])), usage: None }
}

// Newest first; ids run from 1 without gaps; total and evicted count what the ring forgot.
#[test]
fn a_full_ring_keeps_the_newest_and_counts_the_rest() {
    for capacity in [0, 1, 3] {
        let mut history = History::new(capacity);
        assert!(ids(&history, HistoryFilter::default()).is_empty());
        for _ in 0..5 {
            history.push(death(&history, "a"), Remains::default());
        }
        let expected: Vec<u64> = (1..=5).rev().take(capacity).collect();
        assert_eq!(ids(&history, HistoryFilter::default()), expected);
        assert_eq!((history.len(), history.total(), history.evicted()), (capacity, 5, 5 - capacity as u64));
    }
}

// Filters combine, and the limit counts what passed the others.
#[test]
fn a_query_filters_by_child_type_and_id_before_it_limits() {
    let mut history = History::new(10);
    for child in ["a", "b", "a", "b"] {
        history.push(death(&history, child), Remains::default());
        history.push(restart(&history, child), Remains::default());
    }
    let child = Some("a".to_owned());
    assert_eq!(ids(&history, HistoryFilter { child: child.clone(), ..Default::default() }), [6, 5, 2, 1]);
    let event = Some(EventType::Terminated);
    assert_eq!(ids(&history, HistoryFilter { child: child.clone(), event, ..Default::default() }), [5, 1]);
    assert_eq!(ids(&history, HistoryFilter { child, event, limit: Some(1), after: None }), [5]);
    assert_eq!(ids(&history, HistoryFilter { after: Some(6), ..Default::default() }), [8, 7]);
    assert!(ids(&history, HistoryFilter { limit: Some(0), ..Default::default() }).is_empty());
}

// Output can be large, so only that of the newest deaths is kept.
#[test]
fn last_words_are_kept_for_the_newest_deaths_only() {
    let mut history = History::new(1000);
    for id in 1..=40u64 {
        history.push(death(&history, "a"), output(&id.to_string()));
    }
    assert_eq!(history.last_words(40 - LAST_WORDS_KEPT as u64), None);
    assert_eq!(history.last_words(40 - LAST_WORDS_KEPT as u64 + 1), Some(&output("9")));
    assert_eq!(history.last_words(40), Some(&output("40")));
    assert_eq!(history.last_words(41), None);
}

// The document: recent_restarts looks at the newest ten events.
#[test]
fn recent_restarts_counts_restarts_among_the_newest_ten_events() {
    let mut history = History::new(3);
    for _ in 0..20 {
        history.push(restart(&history, "a"), Remains::default());
    }
    assert_eq!(history.recent_restarts(), 10);
    for _ in 0..4 {
        history.push(death(&history, "a"), Remains::default());
    }
    assert_eq!(history.recent_restarts(), 6);
}

// A decision is kept in 12 bytes; what does not fit saturates, and unknown stays unknown.
#[test]
fn a_verdict_saturates_and_keeps_unknown_apart() {
    let verdict = |delay, restarts_left| Verdict::from(Decision { action: Action::Restart, delay, restarts_left });
    assert_eq!(verdict(Duration::from_secs(1), None).restarts_left(), None);
    assert_eq!(verdict(Duration::ZERO, Some(0)).restarts_left(), Some(0));
    assert_eq!(verdict(Duration::ZERO, Some(u32::MAX)).restarts_left(), Some(u32::MAX - 1));
    assert_eq!(verdict(Duration::MAX, None).delay_ms, u32::MAX);
}
