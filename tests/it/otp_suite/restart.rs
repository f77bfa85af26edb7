//! Groups `restart_one_for_one`, `restart_one_for_all`, `restart_simple_one_for_one`, `restart_rest_for_one`, and
//! `multiple_restarts`: whom a failure concerns, and when it is one too many.

use std::sync::Arc;
use std::time::Duration;

use restart_exporter::event::{Pid, SupervisorExit};
use restart_exporter::supervisor::{ChildSpec, ChildState, Restart, Shutdown, Strategy, Supervisor, SupervisorHandle};
use tokio::time::{Instant, advance};

use crate::support::{Kid, Log, OnStop, children, supervise};

/// A supervisor of these children that allows two restarts an hour, whatever its strategy.
async fn start(strategy: Strategy, kids: &[Kid]) -> (SupervisorHandle, Log) {
    let top = Supervisor::new("top").strategy(strategy).max_restarts(2).max_seconds(3600);
    if strategy != Strategy::Dynamic {
        return supervise(kids.iter().fold(top, |top, kid| top.child(kid.spec()))).await;
    }
    let (top, log) = supervise(top).await;
    for kid in kids {
        top.start_child(kid.spec()).await.unwrap();
    }
    (top, log)
}

/// Pids of the running children, in start order.
async fn pids(top: &SupervisorHandle) -> Vec<Pid> {
    let children = top.which_children().await.unwrap();
    let running = children.iter().rev().filter_map(|child| match child.state {
        ChildState::Running(pid) => Some(pid),
        ChildState::Starting | ChildState::Restarting | ChildState::Stopped => None,
    });
    running.collect()
}

/// The supervisor gave up because of this child, and nothing of it lives any more.
async fn assert_gave_up(top: &SupervisorHandle, log: &Log, kids: &[Kid], culprit: &str) {
    let SupervisorExit::MaxIntensity(detail) = top.wait().await else { panic!("{:?}", top.wait().await) };
    assert!(detail.contains("more than 2 restarts in 3600 s"), "{detail}");
    assert!(detail.contains(&format!("{culprit:?}")), "{detail}");
    assert_eq!(log.lines().last().unwrap(), "end top max_intensity");
    assert!(kids.iter().all(|kid| kid.live() == 0 && kid.most_live() == 1));
}

/// Crashes the second of three children until its supervisor gives up; `replaced` says whose pids change with it.
async fn check_restart(strategy: Strategy, replaced: [bool; 3]) {
    let kids = ["a", "b", "c"].map(Kid::new);
    let (top, log) = start(strategy, &kids).await;
    for crash in 1..=2 {
        let before = pids(&top).await;
        kids[1].crash();
        log.nth(crash, "restart top/b failure").await;
        let after = pids(&top).await;
        let changed: Vec<bool> = before.iter().zip(&after).map(|(before, after)| before != after).collect();
        assert_eq!(changed, replaced, "{strategy}");
        assert!(kids.iter().all(|kid| kid.live() == 1 && kid.most_live() == 1), "{strategy}");
    }
    kids[1].crash();
    assert_gave_up(&top, &log, &kids, "b").await;
    let starts = replaced.map(|replaced| if replaced { 3 } else { 1 });
    assert_eq!(kids.each_ref().map(Kid::starts), starts, "{strategy}");
    assert_eq!(log.count("terminate top/b error -> give_up"), 1);
}

/// The first child cannot be started again: its supervisor gives up after as many attempts as it allows.
async fn check_escalation(strategy: Strategy) {
    let kids = ["a", "b"].map(Kid::new);
    let (top, log) = start(strategy, &kids).await;
    kids[0].fail_starts(usize::MAX);
    kids[0].crash();
    assert_gave_up(&top, &log, &kids, "a").await;
    assert_eq!(kids[0].attempts(), 1 + 2, "{strategy}");
    assert_eq!((log.count("start_error top/a #1 -> restart"), log.count("start_error top/a #2 -> give_up")), (1, 1));
}

// === one_for_one ===

// Only the crashed child is replaced; with one crash more than the limit the supervisor ends.
#[tokio::test(start_paused = true)]
async fn one_for_one() {
    check_restart(Strategy::OneForOne, [false, true, false]).await;
}

// A restart that keeps failing ends the supervisor and the sibling.
#[tokio::test(start_paused = true)]
async fn one_for_one_escalation() {
    check_escalation(Strategy::OneForOne).await;
}

// === one_for_all ===

// All children are replaced; with one crash more than the limit the supervisor ends.
#[tokio::test(start_paused = true)]
async fn one_for_all() {
    check_restart(Strategy::OneForAll, [true, true, true]).await;
}

// A sibling whose restart keeps failing ends the supervisor.
#[tokio::test(start_paused = true)]
async fn one_for_all_escalation() {
    check_escalation(Strategy::OneForAll).await;
    let kids = ["a", "b"].map(Kid::new);
    let (top, log) = start(Strategy::OneForAll, &kids).await;
    kids[1].fail_starts(usize::MAX);
    kids[0].crash();
    assert_gave_up(&top, &log, &kids, "b").await;
}

// The crashed child is started again, but then its sibling fails to start: the first one is stopped once more, and the
// next round starts both.
#[tokio::test(start_paused = true)]
async fn one_for_all_other_child_fails_restart() {
    let kids = ["a", "b"].map(Kid::new);
    let (top, log) = start(Strategy::OneForAll, &kids).await;
    kids[1].fail_starts(1);
    kids[0].crash();
    log.first("restart top/b").await;
    let expected = [
        "terminate top/a error -> restart",
        "terminate top/b shutdown ordered -> restart",
        "restart top/a failure",
        "start_error top/b #1 -> restart",
        "terminate top/a shutdown ordered -> restart",
        "restart top/a sibling",
        "restart top/b sibling",
    ];
    assert_eq!(log.since(3), expected);
    assert_eq!(children(&top).await, "a+ b+");
}

// === dynamic (simple_one_for_one) ===

// The crashed child is replaced, the others are kept; the limit ends the supervisor.
#[tokio::test(start_paused = true)]
async fn simple_one_for_one() {
    check_restart(Strategy::Dynamic, [false, true, false]).await;
}

// Children stop at the same time: the whole stop takes as long as the slowest of them.
#[tokio::test(start_paused = true)]
async fn simple_one_for_one_shutdown() {
    let (top, _log) = supervise(Supervisor::new("top").strategy(Strategy::Dynamic)).await;
    for ms in [1000, 200, 500] {
        let kid = Kid::with("child", OnStop::After(Duration::from_millis(ms)));
        top.start_child(kid.spec().shutdown(Shutdown::Timeout(Duration::from_secs(3)))).await.unwrap();
    }
    let begin = Instant::now();
    top.shutdown().await;
    assert_eq!(begin.elapsed(), Duration::from_secs(1));
}

// A child that gave its starter something is restarted as any other.
#[tokio::test(start_paused = true)]
async fn simple_one_for_one_extra() {
    let (top, log) = supervise(Supervisor::new("top").strategy(Strategy::Dynamic)).await;
    let crash = Arc::new(tokio::sync::Notify::new());
    let crashes = crash.clone();
    let spec = ChildSpec::ready_task("child", move |_stop, ready| {
        let crash = crashes.clone();
        async move {
            ready.ok_with("extra");
            crash.notified().await;
            Err::<(), _>("crash")
        }
    });
    let started = top.start_child(spec).await.unwrap();
    assert!(started.info.unwrap().is::<&str>());
    crash.notify_one();
    log.first("restart top/child failure").await;
    assert_ne!(pids(&top).await, [started.pid.unwrap()]);
}

// A restart that keeps failing ends the supervisor with all its children.
#[tokio::test(start_paused = true)]
async fn simple_one_for_one_escalation() {
    check_escalation(Strategy::Dynamic).await;
}

// What a temporary child was started with goes with it, and a failed start leaves the others' alone. Adapted: OTP drops
// the arguments of a temporary child at its start; here they are captured by its start function, which lives as long as
// the child.
#[tokio::test(start_paused = true)]
async fn simple_one_for_one_corruption() {
    let (top, log) = supervise(Supervisor::new("top").strategy(Strategy::Dynamic)).await;
    let argument = Arc::new("argument");
    let (kept, failing) = (Kid::new("kept"), Kid::new("failing"));
    failing.fail_starts(1);
    top.start_child(kept.spec()).await.unwrap();
    let spec = |kid: Kid| {
        let argument = argument.clone();
        let inner = kid.spec();
        // A supervisor's init holds the argument as a start function holds its arguments.
        let holder = Supervisor::from_fn(kid.id(), move || {
            assert_eq!(*argument, "argument");
            Ok::<_, String>(Some(Supervisor::new("holder").child(inner.clone())))
        });
        ChildSpec::supervisor(holder).restart(Restart::Temporary)
    };
    top.start_child(spec(failing.clone())).await.unwrap_err();
    assert_eq!(Arc::strong_count(&argument), 1);
    let pid = top.start_child(spec(failing)).await.unwrap().pid.unwrap();
    assert!(Arc::strong_count(&argument) > 1);
    top.terminate_child(pid).await.unwrap();
    assert_eq!(Arc::strong_count(&argument), 1);
    kept.crash();
    log.first("restart top/kept failure").await;
    assert_eq!(kept.live(), 1);
}

// A child whose restart answers `ignore` is dropped, and the supervisor lives on.
#[tokio::test(start_paused = true)]
async fn simple_one_for_one_restart_ignore() {
    let kids = ["a", "b"].map(Kid::new);
    let (top, log) = start(Strategy::Dynamic, &kids).await;
    kids[0].ignore_starts(1);
    kids[0].crash();
    log.first("delete top/a").await;
    assert_eq!(children(&top).await, "b+");
}

// === rest_for_one ===

// The crashed child and those after it are replaced, the one before it is kept; the limit ends the supervisor.
#[tokio::test(start_paused = true)]
async fn rest_for_one() {
    check_restart(Strategy::RestForOne, [false, true, true]).await;
}

// A restart that keeps failing ends the supervisor.
#[tokio::test(start_paused = true)]
async fn rest_for_one_escalation() {
    check_escalation(Strategy::RestForOne).await;
}

// The crashed child is started again, but then the one after it fails to start: only that one is tried again, and the
// first is kept.
#[tokio::test(start_paused = true)]
async fn rest_for_one_other_child_fails_restart() {
    let kids = ["a", "b", "c"].map(Kid::new);
    let (top, log) = start(Strategy::RestForOne, &kids).await;
    kids[1].fail_starts(1);
    kids[0].crash();
    log.first("restart top/c").await;
    let expected = [
        "terminate top/a error -> restart",
        "terminate top/c shutdown ordered -> restart",
        "terminate top/b shutdown ordered -> restart",
        "restart top/a failure",
        "start_error top/b #1 -> restart",
        "restart top/b sibling",
        "restart top/c sibling",
    ];
    assert_eq!(log.since(4), expected);
    assert_eq!(kids.each_ref().map(Kid::starts), [2, 2, 2]);
    assert_eq!(children(&top).await, "a+ b+ c+");
}

// === The window ===

// One restart a second is allowed, and a crash every 2.1 seconds never is one too many.
#[tokio::test(start_paused = true)]
async fn multiple_restarts() {
    let kid = Kid::new("child");
    let top = Supervisor::new("top").max_restarts(1).max_seconds(1).child(kid.spec());
    let (_top, log) = supervise(top).await;
    for crash in 1..=4 {
        kid.crash();
        log.nth(crash, "restart top/child failure").await;
        advance(Duration::from_millis(2100)).await;
    }
    kid.crash();
    log.nth(5, "restart top/child failure").await;
    kid.crash();
    log.first("end top max_intensity").await;
}

// The window is no count of consecutive failures: a child that ran well between its crashes has not made them undone,
// and one that crashed all the time has not used up more than it may if the crashes were far apart.
#[tokio::test(start_paused = true)]
async fn the_limit_is_a_window_and_not_consecutive_failures() {
    let kids = ["a", "b"].map(Kid::new);
    let top = Supervisor::new("top").max_restarts(2).max_seconds(10);
    let (top, log) = supervise(kids.iter().fold(top, |top, kid| top.child(kid.spec()))).await;
    // Ten crashes of one child without a healthy moment longer than six seconds: never three within ten seconds.
    for crash in 1..=10 {
        kids[0].crash();
        log.nth(crash, "restart top/a failure").await;
        advance(Duration::from_secs(6)).await;
    }
    // Three crashes within ten seconds, of different children, each after seconds of good health.
    kids[1].crash();
    log.first("restart top/b failure").await;
    advance(Duration::from_secs(3)).await;
    kids[0].crash();
    assert!(matches!(top.wait().await, SupervisorExit::MaxIntensity(_)), "{:#?}", log.lines());
}
