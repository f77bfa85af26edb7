use super::super::testing::{child, dynamic, pid};
use super::*;
use crate::analytics::{Fact, Remains};
use crate::event::{ExitReason, Restart};
use ChildState::{Failed, Restarting, Running, Stopped};

fn states(children: &Children) -> Vec<(String, Option<Pid>, ChildState)> {
    let entry_of = |event: &HistoryEvent| HistoryEntry { event: event.clone(), remains: Remains::default() };
    let view = children.view(0, entry_of);
    let counted = |state| view.iter().filter(|child| child.state == state).count() as u64;
    let counts = ChildState::ALL.map(|state| (state, counted(state) + children.unlisted.get(state)));
    let counts = ChildCounts::from(counts);
    assert_eq!(children.counts(), counts, "the counts agree with the list");
    view.into_iter().map(|child| (child.child.label.to_string(), child.pid, child.state)).collect()
}

/// The end of a run that is no matter of the history.
fn end(action: Action, next_try: Option<u64>) -> End<'static> {
    End { action, next_try, lifetime: Some(Duration::ZERO), death: None }
}

/// A failure at this many seconds since the beginning.
fn failure(child: &Arc<ChildRef>, second: u64) -> HistoryEvent {
    let (at, timestamp) = (second * 1_000_000_000, second * 1000);
    let fact = Fact::StartError { reason: ExitReason::Exit(1), attempt: 1, decision: None };
    HistoryEvent { id: 1 + second, at, timestamp, child: Some(child.clone()), fact }
}

fn death(event: &HistoryEvent) -> Death<'_> {
    Death { event, reason_fingerprint: 7, is_failure: true }
}

fn view(children: &Children, second: u64) -> Vec<ChildView> {
    children.view(second * 1_000_000_000, |event| HistoryEntry { event: event.clone(), remains: Remains::default() })
}

fn one(label: &str, run: Option<u64>, state: ChildState) -> Vec<(String, Option<Pid>, ChildState)> {
    vec![(label.to_owned(), run.map(pid), state)]
}

// What the supervisor decided about a death is the state of the child.
#[test]
fn a_decision_moves_a_static_child() {
    let table = [
        (Restart::Permanent, Action::Restart, Some(Restarting)),
        (Restart::Transient, Action::Leave, Some(Stopped)),
        (Restart::Temporary, Action::Leave, None),
        (Restart::Temporary, Action::Forget, None),
        (Restart::Permanent, Action::GiveUp, Some(Failed)),
        (Restart::Transient, Action::AutoShutdown, Some(Stopped)),
    ];
    for (restart, action, expected) in table {
        let (mut children, a) = (Children::default(), child("a", restart));
        children.started(&a, Some(pid(1)), 0);
        assert_eq!(states(&children), one("a", Some(1), Running));
        children.ended(&a, Some(pid(1)), end(action, None));
        let expected = expected.map_or(vec![], |state| one("a", None, state));
        assert_eq!(states(&children), expected, "{restart} {action}");
    }
}

// The life of a static child: restarts are counted, waiting has an end, an order stops it, a deletion removes it.
#[test]
fn a_static_child_runs_waits_runs_again_stops_and_goes() {
    let (mut children, a) = (Children::default(), child("a", Restart::Permanent));
    let entry_of = |event: &HistoryEvent| HistoryEntry { event: event.clone(), remains: Remains::default() };
    children.started(&a, Some(pid(1)), 0);
    children.ended(&a, Some(pid(1)), end(Action::Restart, Some(700)));
    assert_eq!(children.view(500, entry_of)[0].next_try, Some(Duration::from_nanos(200)));
    children.start_failed(&a, Some(Action::Restart), Some(900), death(&failure(&a, 0)));
    assert_eq!(children.view(1000, entry_of)[0].next_try, Some(Duration::ZERO));
    children.restarted(&a, Some(pid(2)), Some(pid(1)), 1000);
    let view = children.view(1500, entry_of);
    assert_eq!((view[0].restarts, view[0].next_try, view[0].uptime), (1, None, Some(Duration::from_nanos(500))));
    children.ended(&a, Some(pid(2)), end(Action::Leave, None));
    assert_eq!(states(&children), one("a", None, Stopped));
    children.restarted(&a, Some(pid(3)), Some(pid(2)), 2000);
    children.ended(&a, Some(pid(3)), end(Action::Restart, Some(9000)));
    children.stopped(&a, false);
    assert_eq!(states(&children), one("a", None, Stopped));
    children.stopped(&a, true);
    assert_eq!(states(&children), []);
}

// OTP: a spec whose child answered `ignore` is kept, unless it is temporary or dynamic.
#[test]
fn an_ignored_child_is_stopped_if_its_spec_is_kept() {
    let mut children = Children::default();
    children.started(&child("a", Restart::Permanent), None, 0);
    children.started(&child("b", Restart::Temporary), None, 0);
    children.started(&dynamic("c", Restart::Permanent), None, 0);
    assert_eq!(states(&children), one("a", None, Stopped));
}

// A start that nobody promised to repeat leaves no child behind, and a known one down.
#[test]
fn a_failed_start_without_a_decision_lists_nobody_new() {
    let (mut children, a) = (Children::default(), child("a", Restart::Permanent));
    children.start_failed(&a, None, None, death(&failure(&a, 0)));
    children.start_failed(&dynamic("d", Restart::Permanent), None, None, death(&failure(&a, 0)));
    assert_eq!(states(&children), []);
    children.started(&a, Some(pid(1)), 0);
    children.ended(&a, Some(pid(1)), end(Action::Restart, None));
    children.start_failed(&a, None, None, death(&failure(&a, 0)));
    assert_eq!(states(&children), one("a", None, Failed));
}

// A dynamic child is known by its run, and goes on under the next one.
#[test]
fn a_dynamic_child_is_followed_from_run_to_run() {
    let (mut children, worker) = (Children::default(), dynamic("worker", Restart::Permanent));
    children.started(&worker, Some(pid(1)), 0);
    children.started(&worker, Some(pid(2)), 0);
    children.ended(&worker, Some(pid(1)), end(Action::Restart, None));
    children.start_failed(&worker, Some(Action::Restart), Some(5), death(&failure(&worker, 0)));
    children.restarted(&worker, Some(pid(3)), Some(pid(1)), 0);
    let running = |number| ("worker".to_owned(), Some(pid(number)), Running);
    assert_eq!(states(&children), [running(3), running(2)]);
    children.ended(&worker, Some(pid(2)), end(Action::Leave, None));
    children.ended(&worker, Some(pid(3)), end(Action::Restart, None));
    children.stopped(&worker, false);
    assert_eq!(states(&children), []);
}

// The list is bounded, the counts are exact.
#[test]
fn dynamic_children_beyond_the_limit_are_counted() {
    let (mut children, worker) = (Children::default(), dynamic("worker", Restart::Permanent));
    let all = MAX_LISTED_DYNAMIC as u64 + 100;
    for number in 0..all {
        children.started(&worker, Some(pid(number)), 0);
    }
    assert_eq!(states(&children).len(), MAX_LISTED_DYNAMIC);
    assert_eq!(children.counts().get(Running), all);
    for number in 0..all {
        children.ended(&worker, Some(pid(number)), end(Action::Restart, None));
    }
    assert_eq!(children.counts(), ChildCounts::from([(Restarting, all)]));
    for number in (0..all).rev() {
        children.restarted(&worker, Some(pid(all + number)), Some(pid(number)), 0);
    }
    assert_eq!(children.counts(), ChildCounts::from([(Running, all)]));
    for number in 0..all {
        children.ended(&worker, Some(pid(all + number)), end(Action::Forget, None));
    }
    assert_eq!(states(&children), []);
    assert_eq!(children.counts(), ChildCounts::default());
}

// With its supervisor a static child is down and a dynamic one is gone; the next incarnation begins anew.
#[test]
fn the_end_of_the_supervisor_stops_all_and_init_clears() {
    let mut children = Children::default();
    children.started(&child("a", Restart::Permanent), Some(pid(1)), 0);
    children.started(&dynamic("d", Restart::Permanent), Some(pid(2)), 0);
    children.all_ended();
    assert_eq!(states(&children), one("a", None, Stopped));
    children.clear();
    assert_eq!(states(&children), []);
}

// A loop that takes its supervisor along must not look new each time: what died before is remembered by id, for as long
// as the id comes back.
#[test]
fn deaths_of_a_static_child_outlive_its_supervisors_incarnation() {
    let (mut children, a, b) = (Children::default(), child("a", Restart::Permanent), child("b", Restart::Permanent));
    for second in 0..6 {
        children.clear();
        children.started(&a, Some(pid(second)), second);
        children.started(&b, Some(pid(100 + second)), second);
        let event = failure(&a, second);
        let end =
            End { action: Action::GiveUp, next_try: None, lifetime: Some(Duration::ZERO), death: Some(death(&event)) };
        children.ended(&a, Some(pid(second)), end);
        assert_eq!(view(&children, second)[0].health, Health::GaveUp);
        children.all_ended();
        assert_eq!(
            view(&children, second).iter().map(|v| v.health).collect::<Vec<_>>(),
            [Health::GaveUp, Health::Stopped]
        );
    }
    children.clear();
    children.clear();
    children.started(&a, Some(pid(7)), 6_000_000_000);
    let view = view(&children, 7);
    assert_eq!((view[0].health, view[0].deaths_day, view[0].restarts), (Health::Looping, 6, 0));
    assert_eq!(view[0].last_death.as_ref().map(|death| death.event.id), Some(6));
    let looping = view[0].looping.expect("in a loop");
    assert_eq!((looping.since, looping.deaths, looping.up), (0, 6, Duration::from_secs(1)));
}

// A page must tell who wants help from who was told to go.
#[test]
fn health_tells_a_failure_from_a_wish() {
    let table = [
        (Restart::Permanent, Action::Restart, true, Health::Restarting),
        (Restart::Transient, Action::AutoShutdown, true, Health::Failed),
        (Restart::Permanent, Action::GiveUp, true, Health::GaveUp),
        (Restart::Transient, Action::Leave, false, Health::Stopped),
    ];
    for (restart, action, is_failure, expected) in table {
        let (mut children, a) = (Children::default(), child("a", restart));
        children.started(&a, Some(pid(1)), 0);
        assert_eq!(view(&children, 0)[0].health, Health::Ok);
        let event = failure(&a, 1);
        let death = Death { is_failure, ..death(&event) };
        children.ended(&a, Some(pid(1)), End { death: Some(death), ..end(action, None) });
        assert_eq!(view(&children, 1)[0].health, expected, "{restart} {action}");
        children.restarted(&a, Some(pid(2)), Some(pid(1)), 2);
        let up = if is_failure { Health::Recovered } else { Health::Ok };
        assert_eq!(view(&children, 3)[0].health, up, "{restart} {action}");
        children.ended(&a, Some(pid(2)), end(Action::Leave, None));
        let ordered = view(&children, 4).first().map(|child| child.health);
        assert_eq!(ordered, Some(Health::Stopped), "{restart} {action}");
    }
}

// Children of nodes share one room. Those beyond are counted in their states, and a place is free again when a child is gone.
#[test]
fn children_of_nodes_are_listed_while_there_is_room() {
    let room = Room::new(1);
    let (mut one, mut two) = (Children::new(Some(room.clone())), Children::new(Some(room.clone())));
    let (a, b) = (child("a", Restart::Permanent), child("b", Restart::Permanent));
    one.started(&a, Some(pid(1)), 0);
    two.started(&b, Some(pid(2)), 0);
    assert_eq!((states(&one).len(), states(&two).len(), room.refused()), (1, 0, 1));
    two.ended(&b, Some(pid(2)), end(Action::Restart, None));
    assert_eq!(two.counts(), ChildCounts::from([(Restarting, 1)]));
    two.restarted(&b, Some(pid(3)), Some(pid(2)), 0);
    assert_eq!(two.counts(), ChildCounts::from([(Running, 1)]));

    // The deaths of an incarnation that is over need the place for as long as they are kept.
    one.start_failed(&a, Some(Action::Restart), None, death(&failure(&a, 0)));
    one.clear();
    assert!(room.take().is_none());
    one.started(&a, Some(pid(4)), 0);
    assert_eq!(view(&one, 0)[0].deaths_day, 1);
    one.stopped(&a, true);
    drop(one);
    assert!(room.take().is_some());
}
