//! A restart that fails again and again: the supervisor tries on, and serves every request meanwhile.

use restart_exporter::event::{ExitReason, SupervisorExit};
use restart_exporter::supervisor::{ChildState, ControlError, Strategy, Supervisor, SupervisorHandle};

use crate::support::{Kid, Log, children, counts, supervise};

/// A supervisor whose limit no test reaches, with children that it could not start again if they crashed now.
async fn start(strategy: Strategy, kids: &[Kid]) -> (SupervisorHandle, Log) {
    let top = Supervisor::new("top").strategy(strategy).max_restarts(u32::MAX).max_seconds(1);
    let (top, log) = supervise(top).await;
    for kid in kids {
        top.start_child(kid.spec()).await.unwrap();
        kid.fail_starts(usize::MAX);
    }
    (top, log)
}

/// The loop runs: after this, at least one more attempt has failed.
async fn wait_for_a_failed_attempt(log: &Log, kid: &Kid) {
    let words = format!("start_error top/{}", kid.id());
    log.nth(log.count(&words) + 1, &words).await;
}

/// Waits for what the children do: while one of them is being started, requests are answered.
async fn becomes(top: &SupervisorHandle, expected: &str) {
    let mut shown = children(top).await;
    for _ in 0..1000 {
        if shown == expected {
            return;
        }
        tokio::task::yield_now().await;
        shown = children(top).await;
    }
    assert_eq!(shown, expected);
}

/// Asks for everything while the first child is in its loop, then ends the loop.
async fn check_requests(top: &SupervisorHandle, log: &Log, kid: &Kid) {
    wait_for_a_failed_attempt(log, kid).await;
    assert_eq!(top.start_child(kid.spec()).await.unwrap_err(), ControlError::AlreadyPresent);
    assert_eq!(top.restart_child(kid.id()).await.unwrap_err(), ControlError::Restarting);
    assert_eq!(top.delete_child(kid.id()).await.unwrap_err(), ControlError::Restarting);
    wait_for_a_failed_attempt(log, kid).await;
    top.terminate_child(kid.id()).await.unwrap();
}

// While the restart of a child fails in a loop its id is taken and it counts as restarting; terminate_child ends the
// loop, and so does the supervisor's own end.
#[tokio::test(start_paused = true)]
async fn hanging_restart_loop() {
    let kid = Kid::new("a");
    let (top, log) = start(Strategy::OneForOne, std::slice::from_ref(&kid)).await;
    kid.crash();
    wait_for_a_failed_attempt(&log, &kid).await;
    assert_eq!(children(&top).await, "a~");
    check_requests(&top, &log, &kid).await;
    assert_eq!(children(&top).await, "a-");
    let error = ControlError::StartFailed(ExitReason::error("does not start"));
    assert_eq!(top.restart_child("a").await.unwrap_err(), error);

    kid.fail_starts(0);
    top.restart_child("a").await.unwrap();
    kid.fail_starts(usize::MAX);
    kid.crash();
    wait_for_a_failed_attempt(&log, &kid).await;
    assert_eq!(top.shutdown().await, SupervisorExit::Normal);
    assert_eq!(log.lines().last().unwrap(), "end top normal");
}

// Under rest_for_one the children after the failing one are down meanwhile; a terminate_child of one of them changes
// nothing, one of the failing child ends the loop for all of them.
#[tokio::test(start_paused = true)]
async fn hanging_restart_loop_rest_for_one() {
    let kids = ["a", "b", "c"].map(Kid::new);
    let (top, log) = start(Strategy::RestForOne, &kids).await;
    kids[1].crash();
    wait_for_a_failed_attempt(&log, &kids[1]).await;
    becomes(&top, "a+ b~ c-").await;
    assert_eq!(counts(&top).await, (3, 1, 0, 3));
    top.terminate_child("c").await.unwrap();
    assert_eq!(top.start_child(kids[2].spec()).await.unwrap_err(), ControlError::AlreadyPresent);
    check_requests(&top, &log, &kids[1]).await;
    becomes(&top, "a+ b- c-").await;
    for kid in &kids[1..] {
        kid.fail_starts(0);
        top.restart_child(kid.id()).await.unwrap();
    }
    assert_eq!(kids.each_ref().map(Kid::starts), [1, 2, 2]);

    kids[1].fail_starts(usize::MAX);
    kids[1].crash();
    wait_for_a_failed_attempt(&log, &kids[1]).await;
    assert_eq!(top.shutdown().await, SupervisorExit::Normal);
    assert!(kids.iter().all(|kid| kid.live() == 0));
}

// Under one_for_all everything is down while one of the children fails to start; terminating it ends the loop.
#[tokio::test(start_paused = true)]
async fn hanging_restart_loop_one_for_all() {
    let kids = ["a", "b", "c"].map(Kid::new);
    let (top, log) = start(Strategy::OneForAll, &kids).await;
    kids[0].fail_starts(0);
    kids[2].crash();
    wait_for_a_failed_attempt(&log, &kids[1]).await;
    // Its elder is started in each round, and stopped again in the next one.
    becomes(&top, "a+ b~ c-").await;
    check_requests(&top, &log, &kids[1]).await;
    becomes(&top, "a+ b- c-").await;
    assert_eq!(kids[2].starts(), 1);
    assert!(kids[0].most_live() == 1);
    top.shutdown().await;
    assert_eq!(log.count("start") + log.count("restart"), log.count("terminate"));
}

// Under a dynamic supervisor the child keeps its old pid while it is in the loop, and can be terminated by it.
#[tokio::test(start_paused = true)]
async fn hanging_restart_loop_simple() {
    let (kid, other) = (Kid::new("a"), Kid::new("b"));
    let (top, log) = start(Strategy::Dynamic, std::slice::from_ref(&kid)).await;
    let ChildState::Running(pid) = top.which_children().await.unwrap()[0].state else { panic!("it runs") };
    kid.crash();
    wait_for_a_failed_attempt(&log, &kid).await;
    assert_eq!(children(&top).await, "a~");
    assert_eq!(top.restart_child(pid).await.unwrap_err(), ControlError::Dynamic);
    assert_eq!(top.delete_child(pid).await.unwrap_err(), ControlError::Dynamic);
    top.start_child(other.spec()).await.unwrap();
    wait_for_a_failed_attempt(&log, &kid).await;
    top.terminate_child(pid).await.unwrap();
    assert_eq!(children(&top).await, "b+");
    assert_eq!(log.count("delete top/a"), 1);

    other.fail_starts(usize::MAX);
    other.crash();
    wait_for_a_failed_attempt(&log, &other).await;
    assert_eq!(top.shutdown().await, SupervisorExit::Normal);
}

// Children in a failing restart are counted as specs but not as active, until they run again.
#[tokio::test(start_paused = true)]
async fn count_restarting_children() {
    for strategy in [Strategy::OneForOne, Strategy::Dynamic] {
        let kids: Vec<Kid> = (0..4).map(|n| Kid::new(&n.to_string())).collect();
        let (top, log) = start(strategy, &kids).await;
        assert_eq!(counts(&top).await, (4, 4, 0, 4), "{strategy}");
        for (failing, kid) in (1..).zip(&kids) {
            kid.crash();
            wait_for_a_failed_attempt(&log, kid).await;
            assert_eq!(counts(&top).await, (4, 4 - failing, 0, 4), "{strategy}");
        }
        for kid in &kids {
            kid.fail_starts(0);
            log.first(&format!("restart top/{} failure", kid.id())).await;
        }
        assert_eq!(counts(&top).await, (4, 4, 0, 4), "{strategy}");
    }
}

// The words: terminating a child that is in a failing restart keeps it dead. Even if its start would succeed
// now, and even if a sibling fails afterwards, unless the sibling's strategy includes it.
#[tokio::test(start_paused = true)]
async fn terminating_a_child_that_is_in_a_failing_restart_keeps_it_dead() {
    for strategy in [Strategy::OneForOne, Strategy::RestForOne] {
        let kids = ["elder", "sibling", "failing"].map(Kid::new);
        let (top, log) = start(strategy, &kids).await;
        kids.iter().for_each(|kid| kid.fail_starts(0));
        kids[2].fail_starts(usize::MAX);
        kids[2].crash();
        wait_for_a_failed_attempt(&log, &kids[2]).await;
        top.terminate_child("failing").await.unwrap();
        kids[2].fail_starts(0);
        let attempts = kids[2].attempts();
        for _ in 0..100 {
            assert_eq!(children(&top).await, "elder+ sibling+ failing-", "{strategy}");
        }
        assert_eq!((kids[2].attempts(), kids[2].starts()), (attempts, 1), "{strategy}");
        assert_eq!(log.count("stop top/failing"), 1, "{strategy}");

        // The next failure of a sibling starts it again only where OTP does: with all that come after the failed one.
        kids[1].crash();
        log.first("restart top/sibling failure").await;
        let included = strategy == Strategy::RestForOne;
        let expected = if included { "elder+ sibling+ failing+" } else { "elder+ sibling+ failing-" };
        assert_eq!(children(&top).await, expected, "{strategy}");
    }
}
