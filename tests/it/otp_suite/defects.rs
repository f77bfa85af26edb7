//! Defects that other supervisors had, each as a sentence that says how it is here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use restart_exporter::event::{EventKind, ExitReason, Payload, ReasonClass, SupervisorExit};
use restart_exporter::supervisor::{ChildSpec, Restart, Shutdown, Strategy, Supervisor};
use restart_exporter::telemetry::Telemetry;
use tokio::time::{Instant, sleep};

use crate::support::{Kid, Log, OnStop, children, line, logged, reason, supervise};

// === Nothing is lost ===

// The words: a child that panics at once, a thousand times, is never lost. It is not even polled before its
// supervisor knows it, and the thousand-and-first panic is one too many.
#[tokio::test(start_paused = true)]
async fn a_child_that_panics_at_once_a_thousand_times_is_never_lost() {
    for strategy in [Strategy::OneForOne, Strategy::OneForAll, Strategy::RestForOne, Strategy::Dynamic] {
        let runs = Arc::new(AtomicUsize::new(0));
        let count = runs.clone();
        let panicking = ChildSpec::task("child", move |_stop| {
            count.fetch_add(1, SeqCst);
            std::panic::resume_unwind(Box::new("at once"));
            #[allow(unreachable_code, reason = "gives the closure its type")]
            async {}
        });
        let (top, log) = supervise(Supervisor::new("top").strategy(strategy).max_restarts(1000)).await;
        top.start_child(panicking).await.unwrap();
        assert!(matches!(top.wait().await, SupervisorExit::MaxIntensity(_)), "{strategy}");
        assert_eq!(runs.load(SeqCst), 1001, "{strategy}");
        assert_eq!(log.count("restart top/child failure"), 1000, "{strategy}");
        assert_eq!(log.count("terminate top/child panic -> restart"), 1000, "{strategy}");
        assert_eq!(log.count("terminate top/child panic -> give_up"), 1, "{strategy}");
    }
}

// Deaths that come while the supervisor waits for something else (a slow start) are handled afterwards, each once.
#[tokio::test(start_paused = true)]
async fn deaths_during_a_slow_start_are_not_lost() {
    let kids: Vec<Kid> = (0..10).map(|n| Kid::new(&n.to_string())).collect();
    let top = kids.iter().fold(Supervisor::new("top").max_restarts(100), |top, kid| top.child(kid.spec()));
    let (top, log) = supervise(top).await;
    let slow = ChildSpec::ready_task("slow", |stop, ready| async move {
        sleep(Duration::from_secs(3)).await;
        ready.ok();
        stop.stopped().await;
    });
    let (started, ()) = tokio::join!(top.start_child(slow), async {
        sleep(Duration::from_secs(1)).await;
        kids.iter().for_each(Kid::crash);
    });
    started.unwrap();
    for kid in &kids {
        log.first(&format!("restart top/{} failure", kid.id())).await;
    }
    assert!(kids.iter().all(|kid| kid.starts() == 2 && kid.most_live() == 1));
    assert_eq!(log.count("terminate"), 10);
}

// A death before the order to stop is its own: the supervisor did not order it, whatever its strategy.
#[tokio::test(start_paused = true)]
async fn a_death_before_the_order_to_stop_was_not_ordered() {
    for strategy in Strategy::ALL {
        let (top, log) = supervise(Supervisor::new("top").strategy(*strategy)).await;
        let kids: Vec<Kid> = (0..50).map(|n| Kid::new(&n.to_string())).collect();
        for kid in &kids {
            top.start_child(kid.spec().restart(Restart::Temporary)).await.unwrap();
        }
        // They end before the supervisor gets its turn; how many of these ends it sees before the order, is chance.
        kids.iter().for_each(Kid::panic);
        top.shutdown().await;
        for kid in &kids {
            let end = line(&log.first(&format!("terminate top/{}", kid.id())).await);
            assert!(end.ends_with(" panic -> forget"), "{strategy}: {end}");
        }
    }
}

// A child that ended is forgotten by everything: a supervisor that has seen two thousand lists those that run.
#[tokio::test(start_paused = true)]
async fn an_ended_child_is_not_kept() {
    let top = Supervisor::new("top").strategy(Strategy::Dynamic).start(&Telemetry::new()).await.unwrap();
    for _ in 0..2_000 {
        top.start_child(ChildSpec::task("child", |_stop| async {}).restart(Restart::Temporary)).await.unwrap();
    }
    while top.count_children().await.unwrap().specs > 0 {}
    assert!(top.which_children().await.unwrap().is_empty());
}

// === What is said ===

// A panic keeps its message and its place, wherever in the child's code it came: in the call, in the future, and while
// the future was dropped. A message made at run time is a different type of payload than a fixed one.
#[tokio::test(start_paused = true)]
async fn a_panic_keeps_its_message_and_its_place() {
    struct PanicsOnDrop;
    impl Drop for PanicsOnDrop {
        fn drop(&mut self) {
            panic!("while dropped");
        }
    }
    let number = 7;
    let in_future = ChildSpec::task("future", move |_stop| async move {
        tokio::task::yield_now().await;
        assert_eq!(number, 8, "the number");
    });
    let in_call = ChildSpec::task("call", |_stop| -> std::future::Ready<()> { panic!("in the call") });
    let no_text = ChildSpec::task("no-text", |_stop| async {
        std::panic::panic_any(7_u8);
        #[allow(unreachable_code, reason = "gives the block its type")]
        ()
    });
    let on_drop = ChildSpec::task("drop", |_stop| async {
        let _bomb = PanicsOnDrop;
        std::future::pending::<()>().await;
    });
    let (top, log) = supervise(Supervisor::new("top")).await;
    for spec in [in_future, in_call, no_text, on_drop.shutdown(Shutdown::BrutalKill)] {
        top.start_child(spec.restart(Restart::Temporary)).await.unwrap();
    }
    tokio::task::yield_now().await;
    top.terminate_child("drop").await.unwrap();
    let table = [("future", "the number", true), ("call", "in the call", true), ("no-text", "Box<dyn Any>", true)];
    for (id, message, located) in table.into_iter().chain([("drop", "while dropped", false)]) {
        let ExitReason::Panic(panic) = reason(&log.first(&format!("terminate top/{id}")).await) else { panic!("{id}") };
        assert!(panic.message.contains(message), "{panic:?}");
        let location = panic.location.as_deref().unwrap_or("");
        assert_eq!(location.starts_with("tests/it/otp_suite/defects.rs:"), located, "{panic:?}");
    }
}

// The place of a panic that a child caught itself is not taken for the place of a later one that brings none.
#[tokio::test(start_paused = true)]
async fn a_panic_never_has_the_place_of_another() {
    let (top, log) = supervise(Supervisor::new("top")).await;
    let catching = ChildSpec::task("catching", |_stop| async {
        let _ = std::panic::catch_unwind(|| panic!("caught by the child"));
    });
    // What a child does that awaits a task of its own and passes on its panic.
    let resuming = ChildSpec::task("resuming", |_stop| async {
        std::panic::resume_unwind(Box::new("brought along"));
        #[allow(unreachable_code, reason = "gives the block its type")]
        ()
    });
    top.start_child(catching.restart(Restart::Temporary)).await.unwrap();
    log.first("terminate top/catching normal").await;
    top.start_child(resuming.restart(Restart::Temporary)).await.unwrap();
    let ExitReason::Panic(panic) = reason(&log.first("terminate top/resuming").await) else { panic!("it panicked") };
    assert_eq!((&*panic.message, &panic.location), ("brought along", &None));
}

// All events of one supervisor stand in the order in which things happened: init first, its end last, and for each
// child start, end and restart in turn.
#[tokio::test(start_paused = true)]
async fn the_events_of_a_supervisor_are_in_order() {
    let kids = ["a", "b", "c"].map(Kid::new);
    let top = Supervisor::new("top").strategy(Strategy::RestForOne).max_restarts(100);
    let (top, log) = supervise(kids.iter().fold(top, |top, kid| top.child(kid.spec()))).await;
    for round in 0..30 {
        kids[round % 3].crash();
        tokio::task::yield_now().await;
        let _ = top.terminate_child(kids[(round + 1) % 3].id()).await;
        let _ = top.restart_child(kids[(round + 1) % 3].id()).await;
    }
    top.shutdown().await;
    check_order(&log);
}

/// No child starts while it runs, none ends while it does not, and times never go back.
fn check_order(log: &Log) {
    let events = log.events();
    assert!(events.is_sorted_by_key(|event| event.time.monotonic));
    assert!(matches!(events.first().unwrap().payload, Payload::SupervisorInit { .. }));
    assert!(matches!(events.last().unwrap().payload, Payload::SupervisorTerminate { .. }));
    let mut running = BTreeMap::new();
    for event in &events {
        match &event.payload {
            Payload::ChildStart { child, child_pid: Some(pid), .. } => {
                assert_eq!(running.insert(child.id.clone(), *pid), None);
            }
            Payload::ChildRestart { child, child_pid, previous_pid, .. } => {
                assert_eq!(running.insert(child.id.clone(), child_pid.unwrap()), None);
                assert_ne!(child_pid, previous_pid);
            }
            Payload::ChildTerminate { child, child_pid, .. } => {
                assert_eq!(running.remove(&child.id), *child_pid);
            }
            _ => {}
        }
    }
    assert!(running.is_empty());
}

// The words: a telemetry handler that panics on each event changes nothing for supervisors. Attached anew on
// every event it has, it fails a hundred times.
#[tokio::test(start_paused = true)]
async fn a_telemetry_handler_that_panics_on_each_event_changes_nothing_for_supervisors() {
    async fn run(telemetry: &Telemetry, log: &Log) -> Vec<String> {
        let kids = ["a", "b"].map(Kid::new);
        let top = Supervisor::new("top").strategy(Strategy::OneForAll).max_restarts(5);
        let top = kids.iter().fold(top, |top, kid| top.child(kid.spec())).start(telemetry).await.unwrap();
        for crash in 1..=5 {
            kids[crash % 2].panic();
            log.nth(crash, "restart top/b").await;
            kids[1 - crash % 2].fail_starts(0);
        }
        kids[0].panic();
        assert!(matches!(top.wait().await, SupervisorExit::MaxIntensity(_)));
        log.lines()
    }
    let (quiet, log) = logged();
    let all = Arc::new(AtomicUsize::new(0));
    let count = all.clone();
    let counting = move |_: &restart_exporter::event::Event| _ = count.fetch_add(1, SeqCst);
    quiet.attach_many("counting", &EventKind::SUPERVISOR, counting).unwrap();
    let expected = run(&quiet, &log).await;

    let (telemetry, log) = logged();
    attach_failing(&telemetry);
    assert_eq!(run(&telemetry, &log).await, expected);
    let failures = telemetry.handler_failures();
    assert_eq!(failures.len(), 1);
    assert_eq!(failures[0].failures, all.load(SeqCst) as u64);
}

/// Attaches a handler that comes back each time it has failed.
fn attach_failing(telemetry: &Telemetry) {
    let fail = |_: &restart_exporter::event::Event| panic!("handler fails");
    telemetry.attach_many("failing", &EventKind::SUPERVISOR, fail).unwrap();
    let bus = telemetry.clone();
    let again = move |_: &restart_exporter::event::Event| {
        bus.attach_many("failing", &EventKind::SUPERVISOR, fail).unwrap();
    };
    telemetry.attach("again", EventKind::HandlerFailure, again).unwrap();
}

// === Stopping ===

// A supervisor that is killed by its parent kills what it holds at once; neither it nor its children had time that
// could have been over, and none of them ended in good order.
#[tokio::test(start_paused = true)]
async fn a_killed_supervisor_and_its_children_say_killed() {
    for strategy in Strategy::ALL {
        let kid = Kid::with("child", OnStop::Ignore);
        let spec = kid.spec();
        let below = Supervisor::new("below").strategy(*strategy);
        let below = if *strategy == Strategy::Dynamic { below } else { below.child(spec.clone()) };
        let below = ChildSpec::supervisor(below).shutdown(Shutdown::BrutalKill);
        let (top, log) = supervise(Supervisor::new("top").child(below)).await;
        if *strategy == Strategy::Dynamic {
            crate::support::nested(&top, "below").await.start_child(spec).await.unwrap();
        }
        let begin = Instant::now();
        top.terminate_child("below").await.unwrap();
        assert_eq!(begin.elapsed(), Duration::ZERO);
        let child = log.first("terminate top/below/child").await;
        assert_eq!(reason(&child).class(), ReasonClass::Killed, "{strategy}");
        let end = log.first("end top/below").await;
        let Payload::SupervisorTerminate { reason: end, .. } = end.payload else { panic!("{end:?}") };
        assert!(matches!(end, SupervisorExit::Error(_)), "{strategy} {end}");
        assert_eq!(reason(&log.first("terminate top/below killed ordered").await), ExitReason::Killed);
        assert_eq!(kid.live(), 0);
    }
}

// A supervisor can be stopped while one of its children takes for ever to start, and then nothing is left of either.
#[tokio::test(start_paused = true)]
async fn a_supervisor_can_be_stopped_during_a_start_that_does_not_end() {
    let never = Kid::new("never");
    let inner = never.clone();
    let spec = ChildSpec::ready_task("never", move |_stop, ready| {
        let alive = inner.clone();
        async move {
            let _ready = ready;
            alive.crash();
            std::future::pending::<()>().await;
        }
    });
    let (top, log) = supervise(Supervisor::new("top").child(Kid::new("other").spec())).await;
    let handle = top.clone();
    let starting = tokio::spawn(async move { handle.start_child(spec).await });
    sleep(Duration::from_secs(1)).await;
    assert_eq!(top.shutdown().await, SupervisorExit::Normal);
    assert!(starting.await.unwrap().is_err());
    assert_eq!(log.since(2), ["terminate top/other shutdown ordered -> leave", "end top normal"]);
}

// A caller who stops waiting for the start of a supervisor leaves no half-started tree.
#[tokio::test(start_paused = true)]
async fn a_caller_who_stops_waiting_leaves_no_half_started_tree() {
    let kid = Kid::new("first");
    let never = ChildSpec::ready_task("never", |_stop, ready| async move {
        let _ready = ready;
        std::future::pending::<()>().await;
    });
    let (telemetry, log) = logged();
    let start = Supervisor::new("top").child(kid.spec()).child(never).start(&telemetry);
    assert!(tokio::time::timeout(Duration::from_secs(1), start).await.is_err());
    log.first("end top shutdown").await;
    assert_eq!(kid.live(), 0);
}

// Requests through the handle are never counted as restarts: fifty of them under a limit of none.
#[tokio::test(start_paused = true)]
async fn requests_are_not_counted_as_restarts() {
    let kid = Kid::new("child");
    let (top, _log) = supervise(Supervisor::new("top").max_restarts(0).child(kid.spec())).await;
    for _ in 0..50 {
        top.terminate_child("child").await.unwrap();
        top.restart_child("child").await.unwrap();
    }
    assert_eq!(children(&top).await, "child+");
    kid.crash();
    assert!(matches!(top.wait().await, SupervisorExit::MaxIntensity(_)));
}

// One failure is one restart, however many siblings it takes along.
#[tokio::test(start_paused = true)]
async fn a_failure_counts_once_and_not_once_for_each_sibling() {
    let kids = ["a", "b", "c", "d", "e"].map(Kid::new);
    let top = Supervisor::new("top").strategy(Strategy::OneForAll).max_restarts(2);
    let (top, log) = supervise(kids.iter().fold(top, |top, kid| top.child(kid.spec()))).await;
    for round in 1..=2 {
        kids[2].crash();
        log.nth(round, "restart top/e").await;
    }
    assert_eq!(children(&top).await, "a+ b+ c+ d+ e+");
}

// A runtime that ends around its supervisors still lets each say that it and its children are gone.
#[test]
fn a_runtime_that_ends_says_who_was_killed() {
    let (telemetry, log) = logged();
    let kid = Kid::new("child");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let below = ChildSpec::supervisor(Supervisor::new("below").child(kid.spec()));
    let top = runtime.block_on(Supervisor::new("top").child(below).start(&telemetry)).unwrap();
    drop(runtime);
    assert!(top.is_ended());
    assert_eq!(kid.live(), 0);
    assert_eq!((log.count("start"), log.count("terminate"), log.count("end")), (2, 2, 2), "{:#?}", log.lines());
    assert_eq!((log.count("end top error"), log.count("end top/below error")), (1, 1));
}
