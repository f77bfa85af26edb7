use std::sync::Arc;

use super::super::testing::child;
use super::*;
use crate::analytics::Fact;
use crate::event::{ChildRef, ExitReason, Restart};

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;

fn at(second: u64) -> u64 {
    second * 1_000_000_000
}

fn event(child: &Arc<ChildRef>, second: u64) -> HistoryEvent {
    let fact = Fact::StartError { reason: ExitReason::Exit(1), attempt: 1, decision: None };
    HistoryEvent { id: second + 1, at: at(second), timestamp: 1000 * second, child: Some(child.clone()), fact }
}

/// A child that died at these seconds, each time after a run of one second.
fn deaths(seconds: impl IntoIterator<Item = u64>) -> Deaths {
    let child = child("a", Restart::Permanent);
    let mut deaths = Deaths::new(&event(&child, 0), 0);
    for second in seconds {
        deaths.last = event(&child, second);
        deaths.ran(Duration::from_secs(1));
        deaths.count();
    }
    deaths
}

fn is_looping(seconds: impl IntoIterator<Item = u64>, now: u64) -> bool {
    deaths(seconds).looping(at(now), Duration::ZERO).is_some()
}

// Fast loops of many deaths in minutes and slow ones of six in a day are loops; a few restarts and a healthy child are not.
#[test]
fn fast_and_slow_loops_are_told_from_single_deaths() {
    let every = |gap: u64, count: u64| (0..count).map(move |number| number * gap);
    let table = [
        ("two restarts in half a minute, then healthy", is_looping(every(30, 2), 31), false),
        ("five in ten minutes", is_looping(every(60, 5), 300), false),
        ("six in ten minutes", is_looping(every(120, 6), 600), true),
        ("a death each second", is_looping(every(1, 1000), 1000), true),
        ("one each half hour", is_looping(every(HOUR / 2, 24), 12 * HOUR), true),
        ("six in a day, at one pace", is_looping(every(4 * HOUR, 6), 21 * HOUR), true),
        ("six in more than a day", is_looping(every(5 * HOUR, 6), 25 * HOUR), false),
        ("attempts five minutes apart, as a long backoff makes them", is_looping(every(300, 6), 1501), true),
    ];
    for (story, is, expected) in table {
        assert_eq!(is, expected, "{story}");
    }
}

// What was mended must not stay in trouble for a day: a loop ends when the pace is broken.
#[test]
fn a_loop_is_over_soon_after_it_was_mended() {
    let every = |gap: u64, count: u64| (0..count).map(move |number| number * gap);
    assert!(is_looping(every(1, 200), 199 + 9 * MINUTE));
    assert!(!is_looping(every(1, 200), 199 + 10 * MINUTE));
    assert!(is_looping(every(HOUR / 2, 24), 23 * HOUR / 2 + HOUR));
    assert!(!is_looping(every(HOUR / 2, 24), 23 * HOUR / 2 + HOUR + 1));
    assert!(!is_looping(every(4 * HOUR, 6), 20 * HOUR + 6 * HOUR));
}

// "Since when, how often, was it up in between": counted from the first death that made the loop, however many follow.
#[test]
fn a_loop_tells_since_when_how_often_and_how_long_up() {
    let one = deaths([0, 3 * HOUR].into_iter().chain((0..214).map(|number| 10 * HOUR + 5 * number)));
    let last = 10 * HOUR + 5 * 213;
    let looping = one.looping(at(last + 4), Duration::from_secs(2)).expect("in a loop");
    // The two of long ago do not belong to it.
    assert_eq!((looping.since, looping.deaths), (1000 * 10 * HOUR, 214));
    assert_eq!((looping.lasting, looping.up), (Duration::from_secs(5 * 213 + 4), Duration::from_secs(213 + 2)));
    // A second loop begins anew.
    let two = deaths((0..50).chain((0..6).map(|number| 5 * HOUR + number)));
    let looping = two.looping(at(5 * HOUR + 6), Duration::ZERO).expect("in a loop");
    assert_eq!((looping.since, looping.deaths), (1000 * 5 * HOUR, 6));
}

// Deaths of the hour are counted to the minute and those of the day to the hour, in memory that does not grow with them.
#[test]
fn deaths_of_the_hour_and_of_the_day_are_counted_in_bounded_memory() {
    let mut tally = Tally::default();
    let mut all = Vec::new();
    for second in (0..3 * 24 * HOUR).step_by(7) {
        tally.count(at(second), 1);
        all.push(second);
        assert!(tally.minutes.len() <= 61 && tally.hours.len() <= 25);
    }
    for later in [0, 10 * MINUTE, HOUR, 5 * HOUR, 25 * HOUR] {
        let now = all.last().unwrap() + later;
        let counted = |window: u64| all.iter().filter(|second| **second + window >= now).count() as u64;
        assert!(tally.last_hour(at(now)).abs_diff(counted(HOUR)) <= MINUTE / 7 + 1, "{later}");
        assert!(tally.last_day(at(now)).abs_diff(counted(24 * HOUR)) <= HOUR / 14 + MINUTE / 7 + 1, "{later}");
    }
    assert_eq!(deaths([0, 10, 2 * HOUR]).last_hour(at(2 * HOUR + 1)), 1);
    assert_eq!(deaths([0, 10, 2 * HOUR]).last_day(at(2 * HOUR + 1)), 3);
}

// What a child that never died costs nothing, and one that died once costs little.
#[test]
fn deaths_take_little_memory() {
    assert!(size_of::<Deaths>() <= 320, "{}", size_of::<Deaths>());
}

// The order of trouble is the order of the words, and a stopped child is no trouble of its supervisor.
#[test]
fn a_supervisor_is_as_well_as_its_worst_child() {
    assert!(Health::ALL.is_sorted());
    let worst = |children: &[Health]| Health::of_supervisor(children.iter().copied());
    assert_eq!(worst(&[]), Health::Ok);
    assert_eq!(worst(&[Health::Ok, Health::Stopped]), Health::Ok);
    assert_eq!(worst(&[Health::Ok, Health::Recovered, Health::Looping, Health::Restarting]), Health::Looping);
}
