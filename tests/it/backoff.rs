//! Backoff on paused time: how long a child waits, what waits along with it, and what ends the wait.

use std::time::Duration;

use restart_exporter::event::{Payload, SupervisorEvent};
use restart_exporter::supervisor::{Backoff, ChildSpec, ControlError, Strategy, Supervisor};
use tokio::time::Instant;

use crate::support::{Kid, children, supervise};

/// 1 s, 2 s, 4 s, then 5 s; without jitter, so that waits can be compared.
const BACKOFF: Backoff = Backoff {
    initial: Duration::from_secs(1),
    max: Duration::from_secs(5),
    factor: 2.0,
    jitter: 0.0,
    reset_after: Duration::from_secs(30),
};

fn generous(strategy: Strategy) -> Supervisor {
    Supervisor::new("top").strategy(strategy).max_restarts(100)
}

fn downtime(event: &SupervisorEvent) -> u64 {
    match &event.payload {
        Payload::ChildRestart { downtime: Some(downtime), .. } => downtime.as_secs(),
        other => panic!("no downtime in {other:?}"),
    }
}

fn delay(event: &SupervisorEvent) -> u64 {
    match &event.payload {
        Payload::ChildTerminate { decision, .. } => decision.delay.as_secs(),
        Payload::ChildStartError { decision: Some(decision), .. } => decision.delay.as_secs(),
        other => panic!("no decision in {other:?}"),
    }
}

// Each failure in a row waits longer, up to the limit; the decision says how long, and the restart that it was so.
#[tokio::test(start_paused = true)]
async fn waits_grow_up_to_the_limit_and_are_announced() {
    let kid = Kid::new("a");
    let (_top, log) = supervise(generous(Strategy::OneForOne).child(kid.spec().backoff(BACKOFF))).await;
    for (nth, expected) in [1, 2, 4, 5, 5].into_iter().enumerate() {
        kid.crash();
        assert_eq!(delay(&log.nth(nth + 1, "terminate top/a").await), expected);
        assert_eq!(downtime(&log.nth(nth + 1, "restart top/a").await), expected);
    }
}

// A run that lasted was stable: what failed before it does not count any more.
#[tokio::test(start_paused = true)]
async fn a_stable_run_begins_the_waits_anew() {
    let kid = Kid::new("a");
    let (_top, log) = supervise(generous(Strategy::OneForOne).child(kid.spec().backoff(BACKOFF))).await;
    for nth in 1..=3 {
        kid.crash();
        log.nth(nth, "restart top/a").await;
    }
    tokio::time::advance(BACKOFF.reset_after).await;
    kid.crash();
    assert_eq!(delay(&log.nth(4, "terminate top/a").await), 1);
}

// A start that fails waits like a death, so that a missing binary never spins.
#[tokio::test(start_paused = true)]
async fn failed_starts_wait_too() {
    let kid = Kid::new("a");
    let (_top, log) = supervise(generous(Strategy::OneForOne).child(kid.spec().backoff(BACKOFF))).await;
    let begin = Instant::now();
    kid.fail_starts(3);
    kid.crash();
    log.first("restart top/a").await;
    let waits: Vec<_> = [1, 2, 3].map(|nth| log.nth(nth, "start_error top/a")).into_iter().collect();
    for (error, expected) in waits.into_iter().zip([2, 4, 5]) {
        assert_eq!(delay(&error.await), expected);
    }
    assert_eq!(begin.elapsed().as_secs(), 1 + 2 + 4 + 5);
    assert_eq!(kid.attempts(), 1 + 4);
}

// Terminating a child during its backoff keeps it dead; meanwhile it is `restarting`, and requests are answered.
#[tokio::test(start_paused = true)]
async fn a_child_terminated_during_its_backoff_stays_dead() {
    let kid = Kid::new("a");
    let (top, log) = supervise(generous(Strategy::OneForOne).child(kid.spec().backoff(BACKOFF))).await;
    kid.crash();
    log.first("terminate top/a").await;
    assert_eq!(children(&top).await, "a~");
    assert_eq!(top.restart_child("a").await.unwrap_err(), ControlError::Restarting);
    top.terminate_child("a").await.unwrap();
    tokio::time::sleep(BACKOFF.max * 10).await;
    assert_eq!(children(&top).await, "a-");
    assert_eq!(kid.starts(), 1);
}

// A wait that was cancelled must not cut the next one short.
#[tokio::test(start_paused = true)]
async fn a_cancelled_wait_does_not_shorten_the_next() {
    let kid = Kid::new("a");
    let (top, log) = supervise(generous(Strategy::OneForOne).child(kid.spec().backoff(BACKOFF))).await;
    kid.crash();
    log.first("terminate top/a").await;
    top.terminate_child("a").await.unwrap();
    top.restart_child("a").await.unwrap();
    kid.crash();
    assert_eq!(downtime(&log.nth(2, "restart top/a").await), 2);
}

// What the strategy stops along with a failed child waits for it, and starts after it.
#[tokio::test(start_paused = true)]
async fn siblings_that_were_stopped_wait_along() {
    let kids = ["a", "b", "c"].map(Kid::new);
    let specs = kids.iter().map(|kid| kid.spec().backoff(BACKOFF));
    let (top, log) = supervise(specs.fold(generous(Strategy::RestForOne), Supervisor::child)).await;
    let before = log.len();
    kids[1].crash();
    log.first("terminate top/c").await;
    assert_eq!(children(&top).await, "a+ b~ c-");
    log.first("restart top/c").await;
    let expected = [
        "terminate top/b error -> restart",
        "terminate top/c shutdown ordered -> restart",
        "restart top/b failure",
        "restart top/c sibling",
    ];
    assert_eq!(log.since(before), expected);
}

// The window stays OTP's: restarts per time, however long each of them waits.
#[tokio::test(start_paused = true)]
async fn the_intensity_window_counts_restarts_that_waited() {
    let kid = Kid::new("a");
    let top = Supervisor::new("top").max_restarts(3).max_seconds(60);
    let (top, log) = supervise(top.child(kid.spec().backoff(BACKOFF))).await;
    for nth in 1..=3 {
        kid.crash();
        log.nth(nth, "restart top/a").await;
    }
    kid.crash();
    assert_eq!(top.wait().await.class().as_str(), "max_intensity");
    assert_eq!(log.count("restart top/a"), 3);
}

// A supervisor that is told to stop does not wait for those that wait.
#[tokio::test(start_paused = true)]
async fn a_backoff_does_not_delay_a_stop() {
    let kid = Kid::new("a");
    let (top, log) = supervise(generous(Strategy::OneForOne).child(kid.spec().backoff(BACKOFF))).await;
    kid.crash();
    log.first("terminate top/a").await;
    let begin = Instant::now();
    top.shutdown().await;
    assert!(begin.elapsed() < BACKOFF.initial);
}

// A backoff out of range is refused by its name.
#[tokio::test]
async fn a_backoff_out_of_range_is_refused() {
    let spec = ChildSpec::task("a", |_stop| async {}).backoff(Backoff { factor: 0.5, ..BACKOFF });
    let error = Supervisor::new("top").child(spec).check().unwrap_err();
    assert_eq!(error.to_string(), "child \"a\": backoff.factor must be a number from 1 to 100");
}
