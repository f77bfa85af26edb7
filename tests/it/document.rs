//! The design document: its scenario without its sleep, and every place where we deviate from it on purpose.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use restart_exporter::Exporter;
use restart_exporter::analytics::{Analytics, AnalyticsConfig, Fact, HistoryEntry, HistoryFilter};
use restart_exporter::control::Error;
use restart_exporter::event::{
    ChildRef, ChildType, Event, EventKind, ExitReason, Payload, Pid, RestartCause, SupervisorEvent, SupervisorRef,
};
use restart_exporter::prelude::*;
use restart_exporter::supervisor::ChildState;
use restart_exporter::telemetry::now;
use rustix::process::{Pid as OsPid, Signal, kill_process};
use tokio::sync::Semaphore;
use tokio::time::advance;

use crate::world::{Events, crasher};

const TEN_SECONDS: Duration = Duration::from_secs(10);

fn history(exporter: &Exporter, supervisor: &str) -> Vec<HistoryEntry> {
    exporter.control().restart_history(supervisor, &HistoryFilter::default()).unwrap().events
}

async fn only_pid(supervisor: &SupervisorHandle) -> Pid {
    match supervisor.which_children().await.unwrap()[..] {
        [ref child] => match child.state {
            ChildState::Running(pid) => pid,
            state => panic!("{state:?}"),
        },
        ref children => panic!("{children:?}"),
    }
}

/// A generous supervisor of one child that fails once for each permit.
async fn fragile(exporter: &Exporter, crashes: &Arc<Semaphore>) -> SupervisorHandle {
    let supervisor = Supervisor::new("fragile").max_restarts(1000).max_seconds(3600).child(crasher("crasher", crashes));
    exporter.supervise(supervisor).await.unwrap()
}

// === The scenario ===

// Section 4, "tracks restart events via telemetry": kill a child; its history has the death of that very pid and the
// restart, the failure rate of ten seconds counts it. Where the document sleeps for 50 ms we wait for the restart.
#[tokio::test]
async fn a_killed_child_is_in_the_history_and_in_the_failure_rate() {
    let exporter = Exporter::builder().build().unwrap();
    let mut events = Events::of(exporter.telemetry());
    let initial = exporter.control().supervisor_analytics();
    assert_eq!((initial.total_supervisors, initial.total_restarts), (0, 0));
    let demo = Supervisor::new("telemetry_test").child(ChildSpec::process("counter", "sleep", ["600"]));
    let demo = exporter.supervise(demo).await.unwrap();

    let killed = only_pid(&demo).await;
    let Pid::Process(number) = killed else { panic!("{killed} is no process") };
    kill_process(OsPid::from_raw(i32::try_from(number).unwrap()).unwrap(), Signal::KILL).unwrap();
    events.restarts(1).await;

    let history = history(&exporter, "telemetry_test");
    assert_eq!(history.len(), 2);
    let Fact::Restarted { child_pid, previous_pid, cause, .. } = history[0].event.fact else { panic!("{history:?}") };
    assert_eq!((previous_pid, cause), (Some(killed), RestartCause::Failure));
    assert_eq!(child_pid, Some(only_pid(&demo).await));
    let Fact::Terminated { child_pid, ref reason, shutdown, .. } = history[1].event.fact else { panic!("{history:?}") };
    assert_eq!((child_pid, reason, shutdown), (Some(killed), &ExitReason::Killed, false));

    let rate = exporter.control().failure_rate("telemetry_test", TEN_SECONDS).unwrap();
    assert_eq!((rate.restarts, rate.failures, rate.rate, rate.window), (1, 1, 0.1, TEN_SECONDS));
    assert!(rate.complete);
    let stats = exporter.control().supervisor_analytics();
    assert_eq!((stats.total_supervisors, stats.total_restarts), (1, 1));
    let of_demo = &stats.supervisor_stats[0];
    assert_eq!(&*of_demo.supervisor.supervisor, "telemetry_test");
    assert_eq!((of_demo.id, of_demo.total_restarts, of_demo.recent_restarts), (Some(demo.reference().id), 1, 1));
    assert_eq!(of_demo.last_restart, Some(history[0].event.timestamp));
    demo.shutdown().await;
}

// Section 3, `to_pid/1`: a supervisor is meant by its name or by its pid, and an unknown one is an error.
#[tokio::test]
async fn control_knows_a_supervisor_by_name_and_by_id_and_no_other() {
    let exporter = Exporter::builder().build().unwrap();
    let mut events = Events::of(exporter.telemetry());
    let crashes = Arc::new(Semaphore::new(1));
    let fragile = fragile(&exporter, &crashes).await;
    events.restarts(1).await;

    let (control, id) = (exporter.control(), fragile.reference().id.to_string());
    let all = HistoryFilter::default();
    assert_eq!(control.restart_history("fragile", &all).unwrap(), control.restart_history(&id, &all).unwrap());
    assert_eq!(control.failure_rate(&id, TEN_SECONDS).unwrap().restarts, 1);
    assert_eq!(control.causes(&id, None).unwrap(), control.causes("fragile", None).unwrap());
    let unknown = Error::NotFound { name: "nobody".into(), nearest: vec!["fragile".into(), "fragile/crasher".into()] };
    assert_eq!(
        unknown.to_string(),
        "not_found: nothing is named \"nobody\"; the nearest names are fragile, fragile/crasher"
    );
    assert_eq!(control.restart_history("nobody", &all).unwrap_err(), unknown);
    assert_eq!(control.failure_rate("nobody", TEN_SECONDS).unwrap_err(), unknown);
    assert_eq!(control.causes("nobody", None).unwrap_err(), unknown);
    assert_eq!(control.restart("nobody", None).await.unwrap_err(), unknown);
    assert_eq!(control.stop("nobody", None).await.unwrap_err(), unknown);
}

// === The deviations, in the order of the table ===

// The document counted the death and the restart of one crash as two restarts.
#[tokio::test]
async fn one_crash_counts_as_one_restart() {
    let exporter = Exporter::builder().build().unwrap();
    let mut events = Events::of(exporter.telemetry());
    let crashes = Arc::new(Semaphore::new(1));
    fragile(&exporter, &crashes).await;
    events.restarts(1).await;
    let stats = exporter.analytics().all_supervisor_stats();
    assert_eq!((stats.total_restarts, stats.total_failures), (1, 1));
    assert_eq!((stats.supervisor_stats[0].total_restarts, stats.supervisor_stats[0].recent_restarts), (1, 1));
    let rate = exporter.control().failure_rate("fragile", TEN_SECONDS).unwrap();
    assert_eq!((rate.restarts, rate.failures), (1, 1));
    assert_eq!(history(&exporter, "fragile").len(), 2, "both are in the history");
}

// The document's total of a supervisor was the length of its list, which froze at 1000.
#[tokio::test]
async fn totals_go_on_when_the_history_is_full() {
    let exporter = Exporter::builder().history_capacity(10).build().unwrap();
    let mut events = Events::of(exporter.telemetry());
    let crashes = Arc::new(Semaphore::new(25));
    fragile(&exporter, &crashes).await;
    events.restarts(25).await;
    let page = exporter.control().restart_history("fragile", &HistoryFilter::default()).unwrap();
    assert_eq!((page.capacity, page.events.len(), page.total, page.evicted), (10, 10, 50, 40));
    let ids: Vec<_> = page.events.iter().map(|entry| entry.event.id).collect();
    assert_eq!(ids, (41..=50).rev().collect::<Vec<_>>(), "the newest are kept, newest first");
    let stats = exporter.analytics().all_supervisor_stats();
    assert_eq!((stats.total_restarts, stats.supervisor_stats[0].total_restarts), (25, 25));
    assert_eq!(stats.supervisor_stats[0].recent_restarts, 5, "of the newest ten events five are restarts");
}

// The document's rate over a window that reached past its list was silently too low, in the storm that matters.
#[tokio::test(start_paused = true)]
async fn a_rate_beyond_the_history_is_exact_or_says_that_it_is_not() {
    let exporter = Exporter::builder().history_capacity(10).build().unwrap();
    let mut events = Events::of(exporter.telemetry());
    let crashes = Arc::new(Semaphore::new(0));
    fragile(&exporter, &crashes).await;
    for pause in [0, 10_500] {
        advance(Duration::from_millis(pause)).await;
        crashes.add_permits(25);
        events.restarts(25).await;
    }
    advance(Duration::from_millis(1_500)).await;
    let rate = |ms| exporter.control().failure_rate("fragile", Duration::from_millis(ms)).unwrap();

    let since_ever = rate(3_600_000);
    assert_eq!((since_ever.restarts, since_ever.failures, since_ever.complete), (50, 50, true));
    let second_storm = rate(5_000);
    assert_eq!((second_storm.restarts, second_storm.rate, second_storm.complete), (25, 5.0, true));
    let after_it = rate(500);
    assert_eq!((after_it.restarts, after_it.complete), (0, true));
    let cut = rate(1_500);
    assert!(cut.restarts <= 25, "more than happened: {cut:?}");
    assert!(cut.restarts == 25 || !cut.complete, "too low, and does not say so: {cut:?}");
}

// The document compared a setting of the child (its `shutdown`) with a reason; what matters is who ordered the end.
#[tokio::test]
async fn an_ordered_stop_is_no_failure_and_a_crash_is_one_whatever_the_shutdown_setting() {
    let exporter = Exporter::builder().build().unwrap();
    let mut events = Events::of(exporter.telemetry());
    let crashes = Arc::new(Semaphore::new(0));
    let tree = [Shutdown::BrutalKill, Shutdown::Infinity, Shutdown::Timeout(TEN_SECONDS)]
        .into_iter()
        .enumerate()
        .fold(Supervisor::new("tree").max_restarts(10), |tree, (index, shutdown)| {
            tree.child(crasher(&format!("child-{index}"), &crashes).shutdown(shutdown))
        });
    exporter.supervise(tree).await.unwrap();

    for child in ["child-0", "child-1", "child-2"] {
        exporter.control().stop("tree", Some(child)).await.unwrap();
    }
    assert_eq!(history(&exporter, "tree"), []);
    assert_eq!(exporter.control().failure_rate("tree", TEN_SECONDS).unwrap().failures, 0);

    for child in ["child-0", "child-1", "child-2"] {
        exporter.control().start("tree", Some(child)).await.unwrap();
        crashes.add_permits(1);
        events.restarts(2).await;
        exporter.control().stop("tree", Some(child)).await.unwrap();
    }
    let rate = exporter.control().failure_rate("tree", TEN_SECONDS).unwrap();
    assert_eq!((rate.restarts, rate.failures), (6, 3), "three were asked for by an operator");
    let deaths = history(&exporter, "tree").into_iter().filter_map(|entry| match entry.event.fact {
        Fact::Terminated { shutdown, .. } => Some(shutdown),
        _ => None,
    });
    assert_eq!(deaths.collect::<Vec<_>>(), [false; 3]);
}

// The document kept state for each pid; ours follows the name, so that a supervisor that itself restarts has its past.
#[tokio::test]
async fn a_supervisor_that_comes_back_has_its_past() {
    let exporter = Exporter::builder().build().unwrap();
    let mut events = Events::of(exporter.telemetry());
    let crashes = Arc::new(Semaphore::new(1));
    let first = fragile(&exporter, &crashes).await;
    events.restarts(1).await;
    first.shutdown().await;
    crashes.add_permits(1);
    let second = fragile(&exporter, &crashes).await;
    events.restarts(1).await;
    assert_ne!(first.reference().id, second.reference().id);
    let stats = exporter.analytics().all_supervisor_stats();
    assert_eq!((stats.total_supervisors, stats.total_restarts), (1, 2));
    assert_eq!(stats.supervisor_stats[0].id, Some(second.reference().id));
    assert_eq!(history(&exporter, "fragile").len(), 5, "two deaths, two restarts, the end of the first");
    let gone = exporter.control().failure_rate(&first.reference().id.to_string(), TEN_SECONDS);
    assert!(matches!(gone, Err(Error::NotFound { .. })), "an id is that of the newest incarnation: {gone:?}");
}

// The document's state grew for ever; ours goes some time after the supervisor's end, from history and metrics together.
#[tokio::test(start_paused = true)]
async fn an_ended_supervisor_is_forgotten_after_the_retention() {
    let exporter = Exporter::builder().retention(Duration::from_secs(60)).build().unwrap();
    let mut events = Events::of(exporter.telemetry());
    let crashes = Arc::new(Semaphore::new(1));
    let ended = fragile(&exporter, &crashes).await;
    events.restarts(1).await;
    ended.shutdown().await;

    advance(Duration::from_secs(59)).await;
    assert_eq!(history(&exporter, "fragile").len(), 3);
    assert!(exporter.metrics().render().contains("supervisor=\"fragile\""));
    advance(Duration::from_secs(1)).await;
    let all = HistoryFilter::default();
    assert!(matches!(exporter.control().restart_history("fragile", &all), Err(Error::NotFound { .. })));
    assert!(!exporter.metrics().render().contains("supervisor=\"fragile\""));
    let stats = exporter.analytics().all_supervisor_stats();
    assert_eq!((stats.total_supervisors, stats.supervisor_stats.len()), (0, 0));
    assert_eq!(stats.total_restarts, 1, "what happened stays counted");
}

// A restarted AnalyticsServer of the document crashed on `already_exists`.
#[tokio::test]
async fn attaching_again_is_no_error_and_counts_nothing_twice() {
    let telemetry = Telemetry::new();
    let exporter = Exporter::builder().telemetry(&telemetry).build().unwrap();
    exporter.analytics().attach(&telemetry).unwrap();
    exporter.metrics().attach().unwrap();
    let mut events = Events::of(&telemetry);
    let crashes = Arc::new(Semaphore::new(1));
    fragile(&exporter, &crashes).await;
    events.restarts(1).await;
    assert_eq!(exporter.analytics().all_supervisor_stats().total_restarts, 1);
    let another = Analytics::new(AnalyticsConfig::default());
    let refused = another.attach(&telemetry).unwrap_err().to_string();
    assert!(refused.starts_with("already_exists"), "{refused}");
}

// The document's windows were in system time, and a step of the clock bent them.
#[tokio::test]
async fn a_step_of_the_system_clock_bends_no_window() {
    let exporter = Exporter::builder().build().unwrap();
    let supervisor = Arc::new(SupervisorRef::new(Pid::Task(1), "stepped", None));
    let child = ChildRef {
        id: "child".into(),
        label: "child".into(),
        child_type: ChildType::Worker,
        restart: Some(Restart::Permanent),
        dynamic: false,
    };
    let child = Arc::new(child);
    let year = Duration::from_secs(365 * 24 * 3600);
    let clocks = [SystemTime::now(), SystemTime::now() - year, SystemTime::now() + year, SystemTime::UNIX_EPOCH];
    for (run, system) in (2..).zip(clocks) {
        let mut time = now();
        time.system = system;
        let payload = Payload::ChildRestart {
            child: child.clone(),
            child_pid: Some(Pid::Task(run)),
            previous_pid: Some(Pid::Task(run - 1)),
            cause: RestartCause::Failure,
            downtime: Some(Duration::ZERO),
            duration: Some(Duration::ZERO),
        };
        assert_eq!(payload.kind(), EventKind::ChildRestart);
        let event = SupervisorEvent { supervisor: supervisor.clone(), time, payload };
        exporter.telemetry().execute(&Event::Supervisor(event));
    }
    let rate = exporter.control().failure_rate("stepped", TEN_SECONDS).unwrap();
    assert_eq!((rate.restarts, rate.complete), (4, true));
    let shown: Vec<_> = history(&exporter, "stepped").iter().map(|entry| entry.event.timestamp).collect();
    assert_eq!((shown.len(), shown[0]), (4, 0), "shown is what the clock said, newest event first");
}
