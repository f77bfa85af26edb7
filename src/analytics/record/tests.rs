use std::time::Duration;

use super::super::testing::*;
use super::*;
use crate::event::{Detail, Panic, RestartCause, Strategy, SupervisorExit};
use crate::telemetry::monotonic_now;

const ALL: HistoryFilter = HistoryFilter { child: None, event: None, limit: None, after: None };

fn record(capacity: usize) -> (Record, Story) {
    let begin = monotonic_now();
    let name = Name { supervisor: "workers".into(), node: None };
    (Record::new(name, begin, capacity, &Room::new(0)), Story::of("workers", begin))
}

fn tell(record: &Record, story: &Story, events: impl IntoIterator<Item = (u64, Payload)>) {
    for (ms, payload) in events {
        record.apply(&story.at(ms, payload));
    }
}

fn facts(record: &Record) -> Vec<&'static str> {
    record.history(&ALL).events.iter().map(|entry| entry.event.event_type().as_str()).collect()
}

fn boom() -> ExitReason {
    ExitReason::Panic(Arc::new(Panic { message: Detail::new("boom"), location: None }))
}

// The history holds what concerns restarts; first starts, ordered stops and inits do not enter.
#[test]
fn only_what_concerns_restarts_enters_the_history() {
    let (record, story) = record(10);
    let (a, done) = (child("a", Restart::Transient), child("done", Restart::Temporary));
    tell(
        &record,
        &story,
        [
            (0, init(3, 5)),
            (1, started(&a, 1)),
            (2, died(&a, 1, boom(), Action::Restart)),
            (3, start_failed(&a, Some(Action::Restart), 0)),
            (4, restarted(&a, 2, 1)),
            (5, ordered(died(&a, 2, ExitReason::Shutdown(None), Action::Leave))),
            (6, stopped(&a, false)),
            (7, restarted(&a, 3, 2)),
            (8, died(&a, 3, ExitReason::Normal, Action::Leave)),
            (9, started(&done, 4)),
            (10, died(&done, 4, ExitReason::Normal, Action::Forget)),
            (11, ended(SupervisorExit::Normal)),
        ],
    );
    let expected = ["supervisor_terminated", "terminated", "restarted", "restarted", "start_error", "terminated"];
    assert_eq!(facts(&record), expected);
}

// What an operator reads of a death: reason, lifetime, decision, what is left of the window, last words, both times.
#[test]
fn a_death_is_recorded_with_all_that_is_known() {
    let (record, story) = record(10);
    let a = child("a", Restart::Permanent);
    let output: Arc<[Box<str>]> = Arc::new(["first".into(), "last".into()]);
    let mut death = died(&a, 1, boom(), Action::Restart);
    if let Payload::ChildTerminate { last_output, decision, .. } = &mut death {
        *last_output = Some(output.clone());
        decision.delay = Duration::from_millis(250);
    }
    tell(&record, &story, [(7, death)]);
    let page = record.history(&ALL);
    assert_eq!((page.capacity, page.total, page.evicted, page.events.len()), (10, 1, 0, 1));
    let HistoryEntry { event, remains: Remains { last_output, .. } } = &page.events[0];
    assert_eq!((event.id, event.at, event.timestamp), (1, 7_000_000, BEGIN_MS + 7));
    assert_eq!((event.child.as_ref(), last_output.as_ref()), (Some(&a), Some(&output)));
    let Fact::Terminated { child_pid, reason, shutdown, lifetime_ms, decision } = &event.fact else {
        panic!("a death: {event:?}");
    };
    assert_eq!((*child_pid, reason, *shutdown, lifetime_ms.get()), (Some(pid(1)), &boom(), false, Some(100)));
    assert_eq!((decision.action, decision.delay_ms, decision.restarts_left()), (Action::Restart, 250, Some(2)));
}

// OTP reports every end of a permanent child, every abnormal end and every failed start; ordered stops are no failure.
#[test]
fn failures_are_what_otp_reports() {
    let foreign = || {
        let known = child("a", Restart::Permanent);
        Arc::new(ChildRef { restart: None, ..(*known).clone() })
    };
    let (permanent, transient) = (child("a", Restart::Permanent), child("a", Restart::Transient));
    let table = [
        (died(&permanent, 1, ExitReason::Normal, Action::Restart), 1),
        (died(&foreign(), 1, ExitReason::Normal, Action::Restart), 1),
        (died(&transient, 1, ExitReason::Shutdown(None), Action::Leave), 0),
        (died(&transient, 1, boom(), Action::Restart), 1),
        (died(&child("a", Restart::Temporary), 1, boom(), Action::Forget), 1),
        (ordered(died(&permanent, 1, ExitReason::Timeout, Action::Leave)), 0),
        (start_failed(&transient, None, 0), 1),
        (restarted(&transient, 2, 1), 0),
    ];
    for (payload, expected) in table {
        let (record, story) = record(10);
        let text = format!("{payload:?}");
        let added = record.apply(&story.at(0, payload));
        assert_eq!(added.failures, expected, "{text}");
        assert_eq!(record.stats().total_failures, expected);
    }
}

// Totals are kept beside the ring: the ring forgets, a total must not.
#[test]
fn totals_stay_exact_after_eviction() {
    for capacity in [0, 1, 10] {
        let (record, story) = record(capacity);
        let a = child("a", Restart::Permanent);
        for ms in 0..5000 {
            tell(&record, &story, [(ms, died(&a, ms, boom(), Action::Restart)), (ms, restarted(&a, ms + 1, ms))]);
        }
        let stats = record.stats();
        assert_eq!((stats.total_restarts, stats.total_failures, stats.recent_restarts), (5000, 5000, 5));
        assert_eq!(stats.last_restart, Some(BEGIN_MS + 4999));
        let levels = record.levels(story.time(0));
        assert_eq!((levels.history_events, levels.evicted_events), (capacity as u64, 10_000 - capacity as u64));
        assert_eq!(record.causes(None).causes[0].count, 5000);
        let rate = record.failure_rate(Duration::from_secs(1), story.time(5000));
        assert_eq!((rate.restarts, rate.failures, rate.complete), (1000, 1000, true));
    }
}

// The window counts failures that were answered by a restart, as the supervisor's own intensity does.
#[test]
fn the_intensity_window_slides() {
    let (record, story) = record(10);
    let a = child("a", Restart::Permanent);
    assert_eq!(record.levels(story.time(0)).restarts_in_window, None, "unknown before the init");
    tell(
        &record,
        &story,
        [
            (0, init(2, 5)),
            (1000, died(&a, 1, boom(), Action::Restart)),
            (2000, start_failed(&a, Some(Action::Restart), 0)),
            (2001, restarted(&a, 2, 1)),
            (2500, ordered(died(&a, 2, ExitReason::Shutdown(None), Action::Restart))),
            (3000, died(&a, 3, boom(), Action::GiveUp)),
        ],
    );
    let used = |ms| record.levels(story.time(ms)).restarts_in_window;
    assert_eq!([used(3000), used(6000), used(6001), used(7001)], [Some(2), Some(2), Some(1), Some(0)]);
    let next = story.next_incarnation();
    tell(&record, &next, [(3500, init(2, 5))]);
    assert_eq!(used(3500), Some(0), "the next incarnation begins with an empty window");
}

// A supervisor as the page shows it, from init to end.
#[test]
fn the_view_follows_the_supervisor() {
    let (record, story) = record(10);
    let (a, d) = (child("a", Restart::Permanent), dynamic("job", Restart::Transient));
    tell(&record, &story, [(100, init(3, 5)), (200, started(&a, 1)), (300, started(&d, 2))]);
    tell(&record, &story, [(400, died(&d, 2, boom(), Action::Restart))]);
    let view = record.view(story.time(500));
    assert_eq!((view.up, view.uptime, view.restarts_in_window), (true, Some(Duration::from_millis(400)), Some(1)));
    let strategy = Some(Strategy::OneForOne);
    let config = SupervisorConfig {
        strategy,
        max_restarts: Some(3),
        max_seconds: Some(5),
        parent: None,
        budget_can_run_out: Some(true),
    };
    assert_eq!((record.config(), view.config), (Some(config.clone()), Some(config)));
    assert_eq!(view.children.iter().map(|child| child.state.as_str()).collect::<Vec<_>>(), ["running", "restarting"]);
    assert_eq!(view.children[0].uptime, Some(Duration::from_millis(300)));
    assert_eq!(view.children[1].last_death.as_ref().map(|death| death.event.id), Some(1));
    tell(&record, &story, [(600, ended(SupervisorExit::Shutdown))]);
    let view = record.view(story.time(700));
    assert_eq!((view.up, view.uptime), (false, None));
    assert_eq!(record.levels(story.time(0)).children, ChildCounts::from([(ChildState::Stopped, 1)]));
}

// In a noisy family the quiet child's last death and its last words stay readable.
#[test]
fn a_last_death_and_its_words_outlive_the_ring() {
    let (record, story) = record(40);
    let (quiet, noisy) = (child("quiet", Restart::Permanent), child("noisy", Restart::Permanent));
    let output: Arc<[Box<str>]> = Arc::new(["famous last words".into()]);
    let with_output = |mut death: Payload| {
        if let Payload::ChildTerminate { last_output, .. } = &mut death {
            *last_output = Some(output.clone());
        }
        death
    };
    tell(&record, &story, [(0, with_output(died(&quiet, 1, ExitReason::Oom, Action::Restart)))]);
    for ms in 1..100 {
        tell(&record, &story, [(ms, with_output(died(&noisy, ms, boom(), Action::Restart)))]);
    }
    let view = record.view(story.time(100));
    let death = view.children[0].last_death.as_ref().expect("the quiet child died");
    assert_eq!((death.event.id, death.event.reason()), (1, Some(&ExitReason::Oom)));
    assert_eq!(death.remains.last_output, Some(output));
    assert_eq!(view.children[1].last_death.as_ref().map(|death| death.event.id), Some(100));
}

// The name keeps its past; what a replaced incarnation still says is recorded, and changes nothing that is shown.
#[test]
fn a_replaced_incarnation_does_not_touch_the_view_of_the_next() {
    let (record, old) = record(10);
    let a = child("a", Restart::Permanent);
    let new = old.next_incarnation();
    tell(&record, &old, [(0, init(3, 5)), (1, started(&a, 1))]);
    tell(&record, &new, [(2, init(3, 5)), (3, started(&a, 2))]);
    tell(&record, &old, [(4, died(&a, 1, boom(), Action::GiveUp)), (5, ended(SupervisorExit::Normal))]);
    let view = record.view(old.time(6));
    assert!(view.up);
    assert_eq!((view.children[0].pid, view.children[0].state.as_str()), (Some(pid(2)), "running"));
    assert_eq!(facts(&record), ["supervisor_terminated", "terminated"]);
}

// The record of everything beyond the limit has a history and totals, and no children that would make no sense together.
#[test]
fn the_shared_record_has_no_view() {
    let begin = monotonic_now();
    let record = Record::new(Name { supervisor: OTHER.into(), node: None }, begin, 10, &Room::new(0));
    let a = child("a", Restart::Permanent);
    for name in ["x", "y"] {
        let story = Story::of(name, begin);
        tell(&record, &story, [(0, init(3, 5)), (1, started(&a, 1)), (2, died(&a, 1, boom(), Action::Restart))]);
    }
    assert_eq!(record.stats().total_failures, 2);
    let view = record.view(begin);
    assert_eq!((view.id, view.config, view.children.len()), (None, None, 0));
    assert_eq!(record.levels(begin).children, ChildCounts::default());
}

// Two authors may disagree a little about the time; windows need times that do not go back.
#[test]
fn time_within_a_record_never_goes_back() {
    let (record, story) = record(10);
    let a = child("a", Restart::Permanent);
    tell(&record, &story, [(500, restarted(&a, 1, 0)), (300, restarted(&a, 2, 1))]);
    let page = record.history(&ALL);
    assert_eq!(page.events.iter().map(|entry| entry.event.at).collect::<Vec<_>>(), [500_000_000; 2]);
    assert!(page.events.iter().all(|entry| matches!(
        entry.event.fact,
        Fact::Restarted { cause: RestartCause::Failure, downtime_ms: Some(5), .. }
    )));
    assert_eq!(record.failure_rate(Duration::from_millis(100), story.time(550)).restarts, 2);
}

// The words of a supervisor: its worst child's while it is up, its own end's when it is down; with what is left of the budget.
#[test]
fn a_supervisor_tells_how_it_fares_and_what_is_left() {
    let (record, story) = record(10);
    let (a, b) = (child("a", Restart::Permanent), child("b", Restart::Permanent));
    let fares = |ms: u64| {
        let view = record.view(story.time(ms));
        (view.health, view.restarts_left)
    };
    tell(&record, &story, [(0, init(3, 5)), (1, started(&a, 1)), (2, started(&b, 2))]);
    assert_eq!(fares(3), (Health::Ok, Some(3)));
    tell(&record, &story, [(10, died(&a, 1, boom(), Action::Restart))]);
    assert_eq!(fares(11), (Health::Restarting, Some(2)));
    tell(&record, &story, [(12, restarted(&a, 3, 1))]);
    assert_eq!(fares(13), (Health::Recovered, Some(2)));
    let give_up = SupervisorExit::MaxIntensity(Detail::new("too many"));
    tell(&record, &story, [(20, died(&a, 3, boom(), Action::GiveUp)), (21, ended(give_up))]);
    let view = record.view(story.time(22));
    assert_eq!((view.health, view.total_failures, view.total_restarts), (Health::GaveUp, 2, 1));
    assert_eq!(view.children.iter().map(|child| child.health).collect::<Vec<_>>(), [Health::GaveUp, Health::Stopped]);
    assert_eq!(view.last_end.map(|end| end.event.event_type()), Some(EventType::SupervisorTerminated));
    let next = story.next_incarnation();
    tell(&record, &next, [(30, init(3, 5)), (31, ended(SupervisorExit::Normal))]);
    assert_eq!(record.view(story.time(32)).health, Health::Stopped);
}
