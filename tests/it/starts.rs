//! Starts that take time or fail, on paused time: what a failed one means, who waits for whom, what a supervisor does
//! meanwhile, and what an operator can ask of a child in each state.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use restart_exporter::event::{ExitReason, Payload, Phase, SupervisorEvent, SupervisorExit};
use restart_exporter::supervisor::{
    Backoff, Changes, ChildSpec, ChildState, ControlError, Ready, Restart, Shutdown, StartError, StartErrorPolicy,
    StopToken, Strategy, Supervisor, SupervisorHandle,
};
use tokio::time::{Instant, sleep};

use crate::support::{Kid, Log, children, logged, nested, reason, supervise};

const RETRY: StartErrorPolicy = StartErrorPolicy::Retry;

/// Waits this long after each failure.
fn waits(seconds: u64) -> Backoff {
    let wait = Duration::from_secs(seconds);
    Backoff { initial: wait, max: wait, factor: 1.0, jitter: 0.0, reset_after: Duration::from_secs(3600) }
}

/// A child that has no `ready`: its start ends when it is spawned.
fn plain(id: &str) -> ChildSpec {
    ChildSpec::task(id, |stop| async move { stop.stopped().await })
}

/// A child that keeps its `Ready` until the test lets it say the word.
#[derive(Clone, Default)]
struct Slow(Arc<Mutex<Vec<Ready>>>);

impl Slow {
    fn spec(&self, id: &str) -> ChildSpec {
        let slow = self.clone();
        ChildSpec::ready_task(id, move |stop: StopToken, ready| {
            slow.0.lock().push(ready);
            async move { stop.stopped().await }
        })
    }

    /// Starts that wait for the word, and those that were given up.
    fn starts(&self) -> usize {
        self.0.lock().len()
    }

    /// Says it for the latest start. False if nobody waits for it.
    fn ready(&self) -> bool {
        self.0.lock().pop().unwrap().ok()
    }
}

/// Begins to start a supervisor, and waits until this is said of it.
async fn begin(
    supervisor: Supervisor,
    words: &str,
) -> (tokio::task::JoinHandle<Result<SupervisorHandle, StartError>>, Log) {
    let (telemetry, log) = logged();
    let started = tokio::spawn(async move { supervisor.start(&telemetry).await });
    log.first(words).await;
    (started, log)
}

// === start_error ===

// Under `fail`, OTP's rule and the default of the library, a child that cannot start takes the start back; those before it
// are stopped, those after it never start.
#[tokio::test(start_paused = true)]
async fn under_fail_the_start_of_the_supervisor_fails() {
    let kids = ["a", "bad", "c"].map(Kid::new);
    kids[1].fail_starts(1);
    let (telemetry, log) = logged();
    let top = kids.iter().fold(Supervisor::new("top"), |top, kid| top.child(kid.spec()));
    let error = top.start(&telemetry).await.unwrap_err();
    assert_eq!(error, StartError::Child { child: "bad".into(), reason: ExitReason::error("does not start") });
    assert_eq!((kids[0].live(), kids[1].attempts(), kids[2].attempts()), (0, 1, 0));
    assert_eq!(log.lines().last().unwrap(), "end top error");
}

// Under `retry` it is a death: an error with a decision, charged to the budget, tried again after the backoff. Children
// before it keep running.
#[tokio::test(start_paused = true)]
async fn under_retry_a_failed_start_is_a_death() {
    let kids = ["a", "bad"].map(Kid::new);
    kids[1].fail_starts(2);
    let bad = kids[1].spec().start_error(RETRY).backoff(waits(10));
    let top = Supervisor::new("top").max_restarts(2).max_seconds(60).child(kids[0].spec()).child(bad);
    let begun = Instant::now();
    let (top, log) = supervise(top).await;
    assert_eq!(begun.elapsed(), Duration::from_secs(20));
    let expected = [
        "init top",
        "start top/a",
        "start_error top/bad #1 -> restart",
        "start_error top/bad #2 -> restart",
        "restart top/bad failure",
    ];
    assert_eq!(log.lines(), expected);
    assert_eq!((kids[0].starts(), kids[0].live()), (1, 1));
    // Both were charged: the next failure is one too many.
    kids[1].crash();
    assert!(matches!(top.wait().await, SupervisorExit::MaxIntensity(_)));
}

// A start that fails again and again uses up the budget while the supervisor still starts: it gives up, and the caller
// learns why.
#[tokio::test(start_paused = true)]
async fn a_supervisor_can_give_up_while_it_starts() {
    let kids = ["a", "bad", "c"].map(Kid::new);
    kids[1].fail_starts(usize::MAX);
    let bad = kids[1].spec().start_error(RETRY).backoff(waits(1));
    let top =
        Supervisor::new("top").max_restarts(3).max_seconds(60).child(kids[0].spec()).child(bad).child(kids[2].spec());
    let (telemetry, log) = logged();
    let error = top.start(&telemetry).await.unwrap_err();
    let StartError::GaveUp(detail) = &error else { panic!("{error}") };
    assert_eq!(&**detail, "more than 3 restarts in 60 s; last child \"bad\": error: does not start");
    assert_eq!((kids[1].attempts(), kids[2].attempts(), kids[0].live()), (4, 0, 0));
    assert_eq!(log.lines().last().unwrap(), "end top max_intensity");
}

// The same below another supervisor, which counts it as a failed start of its own child.
#[tokio::test(start_paused = true)]
async fn a_supervisor_below_that_gives_up_while_it_starts_has_failed_to_start() {
    for (policy, expected) in [(StartErrorPolicy::Fail, false), (RETRY, true)] {
        let bad = Kid::new("bad");
        bad.fail_starts(2);
        let below = Supervisor::new("below").max_restarts(1).child(bad.spec().start_error(RETRY));
        let top = Supervisor::new("top").child(ChildSpec::supervisor(below).start_error(policy));
        let (telemetry, log) = logged();
        let started = top.start(&telemetry).await;
        assert_eq!(started.is_ok(), expected, "{log:#?}", log = log.lines());
        let line = if expected { "start_error top/below #1 -> restart" } else { "start_error top/below #1" };
        assert_eq!(log.count(line), 1, "{:#?}", log.lines());
        assert_eq!(log.count("end top/below max_intensity"), 1);
        if let Ok(top) = started {
            // Nobody waited for it, because it has no `ready`.
            log.first("restart top/below failure").await;
            assert_eq!(children(&top).await, "below+");
        }
    }
}

// === Who waits for whom ===

// Children after a failing one start at once if it has no `ready`.
#[tokio::test(start_paused = true)]
async fn nobody_waits_for_a_child_without_ready() {
    // A program that is not there has a failing start, and no `ready`.
    let absent =
        ChildSpec::process("absent", "/no/such/program", [] as [&str; 0]).start_error(RETRY).backoff(waits(3600));
    let begun = Instant::now();
    let (top, log) = supervise(Supervisor::new("top").child(plain("a")).child(absent).child(plain("c"))).await;
    assert!(begun.elapsed() < Duration::from_secs(3600));
    assert_eq!(children(&top).await, "a+ absent~ c+");
    assert_eq!(log.count("start_error top/absent #1 -> restart"), 1);
    top.shutdown().await;
}

// They wait if it has one, however often it fails, and start when it is ready. What they wait for is said.
#[tokio::test(start_paused = true)]
async fn children_wait_for_one_that_is_to_get_ready() {
    let (bad, later) = (Kid::new("bad"), Kid::new("later"));
    bad.fail_starts(3);
    let top = Supervisor::new("top")
        .max_restarts(10)
        .child(bad.spec().start_error(RETRY).backoff(waits(5)))
        .child(later.spec());
    let (started, log) = begin(top, "start_error top/bad #3 -> restart").await;
    assert_eq!((later.attempts(), started.is_finished()), (0, false));
    let top = started.await.unwrap().unwrap();
    assert_eq!(children(&top).await, "bad+ later+");
    assert_eq!(log.since(4), ["restart top/bad failure", "start top/later"]);
}

// A supervisor below whose child is not ready is waited for as well, but not one that waits for nobody.
#[tokio::test(start_paused = true)]
async fn a_supervisor_below_is_waited_for_until_its_children_are_ready() {
    let (slow, later) = (Slow::default(), Kid::new("later"));
    let absent =
        ChildSpec::process("absent", "/no/such/program", [] as [&str; 0]).start_error(RETRY).backoff(waits(3600));
    let first = ChildSpec::supervisor(Supervisor::new("first").child(absent));
    let second = ChildSpec::supervisor(Supervisor::new("second").child(slow.spec("slow")));
    let top = Supervisor::new("top").child(first).child(second).child(later.spec());
    let (started, log) = begin(top, "start top/first").await;
    while slow.starts() == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!((later.attempts(), started.is_finished()), (0, false));
    assert!(slow.ready());
    let top = started.await.unwrap().unwrap();
    assert_eq!(children(&top).await, "first+ second+ later+");
    assert_eq!(log.lines().last().unwrap(), "start top/later");
    top.shutdown().await;
}

// A `Ready` that is dropped without a word is a failed start at once, although the task goes on; the task is ended.
#[tokio::test(start_paused = true)]
async fn a_dropped_ready_is_a_failed_start_at_once() {
    let ends = Arc::new(Mutex::new(0));
    struct Counts(Arc<Mutex<usize>>);
    impl Drop for Counts {
        fn drop(&mut self) {
            *self.0.lock() += 1;
        }
    }
    let counts = ends.clone();
    let careless = ChildSpec::ready_task("careless", move |_stop, ready| {
        let counts = Counts(counts.clone());
        async move {
            drop(ready);
            let _counts = counts;
            std::future::pending::<()>().await;
        }
    });
    let begun = Instant::now();
    let (telemetry, log) = logged();
    let error = Supervisor::new("top").child(careless.clone()).start(&telemetry).await.unwrap_err();
    assert_eq!(error.to_string(), "failed to start child \"careless\": error: dropped before it was ready");
    assert_eq!((begun.elapsed(), *ends.lock()), (Duration::ZERO, 1));
    assert_eq!(log.lines(), ["init top", "start_error top/careless #1", "end top error"]);

    // The same where it is added, and where it is tried again.
    let (top, log) = supervise(Supervisor::new("top").max_restarts(1)).await;
    let error = top.start_child(careless.clone()).await.unwrap_err();
    assert_eq!(error, ControlError::StartFailed(ExitReason::error("dropped before it was ready")));
    assert_eq!(children(&top).await, "");
    let error = top.reconfigure(vec![careless.start_error(RETRY)]).await;
    assert_eq!(log.count("start_error top/careless #1 -> restart"), 1, "{:#?}", log.lines());
    // What is in the answer is the first attempt, or that the budget was used up meanwhile.
    assert!(
        matches!(&error, Ok(Changes { failed, .. }) if failed.len() == 1) || error == Err(ControlError::NotRunning),
        "{error:?}"
    );
    assert!(matches!(top.wait().await, SupervisorExit::MaxIntensity(_)));
}

// === What goes on meanwhile ===

// A child that dies while another is being started is restarted at once, and requests are answered.
#[tokio::test(start_paused = true)]
async fn a_death_does_not_wait_for_the_start_of_another() {
    let (kid, slow, later) = (Kid::new("kid"), Slow::default(), Kid::new("later"));
    let (top, log) = supervise(Supervisor::new("top").max_restarts(10).child(kid.spec())).await;
    let adding = tokio::spawn({
        let (top, spec) = (top.clone(), slow.spec("slow"));
        async move { top.start_child(spec).await }
    });
    while slow.starts() == 0 {
        tokio::task::yield_now().await;
    }
    let begun = Instant::now();
    for crash in 1..=3 {
        kid.crash();
        log.nth(crash, "restart top/kid failure").await;
    }
    assert_eq!(begun.elapsed(), Duration::ZERO);
    assert_eq!(children(&top).await, "kid+ slow~");
    top.start_child(later.spec()).await.unwrap();
    assert_eq!(children(&top).await, "kid+ slow~ later+");
    assert!(!adding.is_finished());
    assert!(slow.ready());
    assert!(adding.await.unwrap().unwrap().pid.is_some());
    assert_eq!(children(&top).await, "kid+ slow+ later+");
}

// The same while the supervisor itself still starts.
#[tokio::test(start_paused = true)]
async fn a_death_during_the_start_of_the_supervisor_is_restarted_at_once() {
    let (kid, slow, last) = (Kid::new("kid"), Slow::default(), Kid::new("last"));
    let top = Supervisor::new("top").max_restarts(10).child(kid.spec()).child(slow.spec("slow")).child(last.spec());
    let (started, log) = begin(top, "start top/kid").await;
    for crash in 1..=2 {
        kid.crash();
        log.nth(crash, "restart top/kid failure").await;
    }
    assert_eq!((last.attempts(), started.is_finished()), (0, false));
    assert!(slow.ready());
    started.await.unwrap().unwrap();
    assert_eq!(log.since(6), ["start top/slow", "start top/last"]);
}

// Under one_for_all and rest_for_one a death stops a sibling that is being started as well. It never ran, so it is started
// for the first time when its turn comes again; what had not had its turn just waits on.
#[tokio::test(start_paused = true)]
async fn a_group_restart_begins_a_start_again() {
    for strategy in [Strategy::OneForAll, Strategy::RestForOne] {
        let (kid, slow, last) = (Kid::new("kid"), Slow::default(), Kid::new("last"));
        let top = Supervisor::new("top").strategy(strategy);
        let (started, log) =
            begin(top.child(kid.spec()).child(slow.spec("slow")).child(last.spec()), "start top/kid").await;
        while slow.starts() == 0 {
            tokio::task::yield_now().await;
        }
        kid.crash();
        log.first("restart top/kid failure").await;
        while slow.starts() < 2 {
            tokio::task::yield_now().await;
        }
        assert_eq!(last.attempts(), 0);
        assert!(slow.ready());
        let top = started.await.unwrap().unwrap();
        assert!(!slow.ready(), "nobody waits for the word of a start that was given up");
        assert_eq!(children(&top).await, "kid+ slow+ last+");
        let expected =
            ["terminate top/kid error -> restart", "restart top/kid failure", "start top/slow", "start top/last"];
        assert_eq!(log.since(2), expected, "{strategy}");
    }
}

// One failure is one restart of each sibling, also where the failed child waits: those before it need not wait for it.
#[tokio::test(start_paused = true)]
async fn a_group_is_restarted_once_after_a_backoff() {
    let kids = ["first", "kid", "last"].map(Kid::new);
    let top = Supervisor::new("top").strategy(Strategy::OneForAll);
    let top = kids.iter().fold(top, |top, kid| top.child(kid.spec().backoff(waits(10))));
    let (top, log) = supervise(top).await;
    kids[1].crash();
    log.first("restart top/last sibling").await;
    assert_eq!(children(&top).await, "first+ kid+ last+");
    assert_eq!(kids.each_ref().map(Kid::starts), [2, 2, 2]);
}

// Nobody waits who ordered a stop: a start that is on its way is given up, and nothing is said of a run that never was.
#[tokio::test(start_paused = true)]
async fn a_starting_child_can_be_stopped() {
    let (slow, later) = (Slow::default(), Kid::new("later"));
    let (top, log) = supervise(Supervisor::new("top")).await;
    let adding = tokio::spawn({
        let (top, spec) = (top.clone(), slow.spec("slow"));
        async move { top.start_child(spec).await }
    });
    while slow.starts() == 0 {
        tokio::task::yield_now().await;
    }
    top.terminate_child("slow").await.unwrap();
    assert_eq!(adding.await.unwrap().unwrap_err(), ControlError::Interrupted);
    assert_eq!(children(&top).await, "slow-");
    assert_eq!(log.since(1), ["stop top/slow"]);
    assert!(!slow.ready(), "nobody waits for it any more");
    // The one behind it in the line goes on.
    let changes = tokio::spawn({
        let (top, specs) = (top.clone(), vec![slow.spec("other"), later.spec()]);
        async move { top.reconfigure(specs).await }
    });
    while slow.starts() == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(later.attempts(), 0);
    top.terminate_child("other").await.unwrap();
    let changes = changes.await.unwrap().unwrap();
    assert_eq!((changes.added.len(), changes.is_complete()), (2, true), "{changes:?}");
    assert_eq!(children(&top).await, "other- later+");
}

// A supervisor that is told to stop while it starts stops, and says so to who waits for its start.
#[tokio::test(start_paused = true)]
async fn a_starting_supervisor_can_be_stopped() {
    let (slow, kid) = (Slow::default(), Kid::new("kid"));
    let below = Supervisor::new("below").child(kid.spec()).child(slow.spec("slow"));
    let (top, log) = supervise(Supervisor::new("top")).await;
    let adding = tokio::spawn({
        let top = top.clone();
        async move { top.start_child(ChildSpec::supervisor(below)).await }
    });
    log.first("start top/below/kid").await;
    // It can be asked already.
    assert_eq!(children(&nested(&top, "below").await).await, "kid+ slow~");
    top.terminate_child("below").await.unwrap();
    assert_eq!(adding.await.unwrap().unwrap_err(), ControlError::Interrupted);
    assert_eq!(kid.live(), 0);
    assert_eq!(log.lines().iter().filter(|line| line.starts_with("end top/below")).count(), 1);
    // Who does not wait any more for the start of a top one leaves nothing behind.
    let starts = slow.starts();
    let (started, log) =
        begin(Supervisor::new("other").child(kid.spec()).child(slow.spec("slow")), "start other/kid").await;
    while slow.starts() == starts {
        tokio::task::yield_now().await;
    }
    started.abort();
    log.first("end other").await;
    assert_eq!(kid.live(), 0);
}

// === restart, in every state ===

/// A supervisor with a child that can be told everything, and a sibling that no order concerns.
async fn operated(spec: ChildSpec) -> (SupervisorHandle, Log, Kid) {
    let sibling = Kid::new("sibling");
    let top = Supervisor::new("top").strategy(Strategy::OneForAll).max_restarts(5).max_seconds(3600);
    let (top, log) = supervise(top.child(spec).child(sibling.spec())).await;
    (top, log, sibling)
}

// A child that runs is stopped and started, and its siblings are left alone whatever the strategy.
#[tokio::test(start_paused = true)]
async fn restart_of_a_running_child() {
    let kid = Kid::new("kid");
    let (top, log, sibling) = operated(kid.spec()).await;
    let skip = log.len();
    for _ in 0..20 {
        assert!(top.restart("kid").await.unwrap().pid.is_some());
    }
    assert_eq!((kid.starts(), kid.most_live(), sibling.starts()), (21, 1, 1));
    assert_eq!(log.since(skip)[..2], ["terminate top/kid shutdown ordered -> restart", "restart top/kid requested"]);
    // `start` leaves it alone.
    let ChildState::Running(pid) = top.which_children().await.unwrap()[1].state else { panic!("it runs") };
    assert_eq!(top.start("kid").await.unwrap().pid, Some(pid));
    assert_eq!(kid.starts(), 21);
}

// One that waits for its restart is started now, and its backoff begins anew.
#[tokio::test(start_paused = true)]
async fn restart_of_a_child_in_backoff() {
    for anew in [true, false] {
        let kid = Kid::new("kid");
        let backoff =
            Backoff { initial: Duration::from_secs(10), factor: 10.0, max: Duration::from_secs(3600), ..waits(10) };
        let top = Supervisor::new("top").max_restarts(9).max_seconds(7200);
        let (top, log) = supervise(top.child(kid.spec().backoff(backoff))).await;
        let delay = async |nth: usize| match log.nth(nth, "terminate top/kid error").await.payload {
            Payload::ChildTerminate { decision, .. } => decision.delay.as_secs(),
            other => panic!("{other:?}"),
        };
        kid.crash();
        assert_eq!(delay(1).await, 10);
        log.first("restart top/kid failure").await;
        kid.crash();
        assert_eq!(delay(2).await, 100);
        let begun = Instant::now();
        if anew { top.restart("kid").await } else { top.start("kid").await }.unwrap();
        assert_eq!((begun.elapsed(), kid.live()), (Duration::ZERO, 1));
        assert_eq!(log.lines().last().unwrap(), "restart top/kid requested");
        kid.crash();
        assert_eq!(delay(3).await, 10);
        // The wait that was cancelled does not come due any more.
        sleep(Duration::from_secs(3600)).await;
        assert_eq!((kid.starts(), kid.most_live(), kid.live()), (4, 1, 1));
    }
}

// One that is being started is started again; who had asked for the first start is told so.
#[tokio::test(start_paused = true)]
async fn restart_of_a_starting_child() {
    let slow = Slow::default();
    let (top, _log) = supervise(Supervisor::new("top")).await;
    let ask = |anew: bool| {
        let top = top.clone();
        tokio::spawn(async move { if anew { top.restart("slow").await } else { top.start("slow").await } })
    };
    let adding = tokio::spawn({
        let (top, spec) = (top.clone(), slow.spec("slow"));
        async move { top.start_child(spec).await }
    });
    while slow.starts() == 0 {
        tokio::task::yield_now().await;
    }
    // `start` has nothing to do.
    assert!(ask(false).await.unwrap().is_ok());
    let restarting = ask(true);
    assert_eq!(adding.await.unwrap().unwrap_err(), ControlError::Interrupted);
    while slow.starts() < 2 {
        tokio::task::yield_now().await;
    }
    assert!(slow.ready());
    assert!(restarting.await.unwrap().unwrap().pid.is_some());
    assert_eq!(children(&top).await, "slow+");
}

// One that waits for its turn is started at once; the others go on waiting.
#[tokio::test(start_paused = true)]
async fn restart_of_a_waiting_child() {
    let (slow, kid, last) = (Slow::default(), Kid::new("kid"), Kid::new("last"));
    let (top, log) = supervise(Supervisor::new("top")).await;
    let changes = tokio::spawn({
        let (top, specs) = (top.clone(), vec![slow.spec("slow"), kid.spec(), last.spec()]);
        async move { top.reconfigure(specs).await }
    });
    while slow.starts() == 0 {
        tokio::task::yield_now().await;
    }
    top.restart("kid").await.unwrap();
    assert_eq!(children(&top).await, "slow~ kid+ last-");
    assert!(!changes.is_finished());
    assert!(slow.ready());
    changes.await.unwrap().unwrap();
    assert_eq!(children(&top).await, "slow+ kid+ last+");
    assert_eq!((kid.starts(), last.starts(), log.count("restart top/kid requested")), (1, 1, 1));
}

// One that was stopped, or is done for good, is started. A temporary child that is done has left the list, and is found
// all the same.
#[tokio::test(start_paused = true)]
async fn restart_of_a_child_that_is_down_for_good() {
    for restart in [Restart::Permanent, Restart::Transient, Restart::Temporary] {
        let kid = Kid::new("kid");
        let spec = kid.spec().restart(restart);
        let (top, log, other) = operated(spec.clone()).await;
        let sibling = top.get_childspec("sibling").await.unwrap();
        top.terminate_child("kid").await.unwrap();
        assert!(top.restart("kid").await.unwrap().pid.is_some(), "{restart}");
        assert_eq!(kid.live(), 1);
        if restart != Restart::Permanent {
            kid.exit(ExitReason::Normal);
            log.first("terminate top/kid normal").await;
            assert!(top.start("kid").await.unwrap().pid.is_some(), "{restart}");
            kid.exit(ExitReason::Normal);
            log.nth(2, "terminate top/kid normal").await;
            // It is done, and a reload that changes nothing does not run it again.
            assert!(top.reconfigure(vec![spec.clone(), sibling.clone()]).await.unwrap().is_empty(), "{restart}");
            assert_eq!(kid.live(), 0);
            top.restart("kid").await.unwrap();
        }
        assert_eq!((kid.live(), kid.most_live(), other.starts()), (1, 1, 1), "{restart}");
        assert_eq!(log.count("restart top/kid failure"), 0);
    }
}

// One whose start fails: the error is the answer. Under `retry` it is tried again, under `fail` it stays down; either way it
// can be asked for again.
#[tokio::test(start_paused = true)]
async fn restart_of_a_child_that_cannot_start() {
    let failed = ControlError::StartFailed(ExitReason::error("does not start"));
    for policy in [RETRY, StartErrorPolicy::Fail] {
        let kid = Kid::new("kid");
        let (top, log, sibling) = operated(kid.spec().start_error(policy).backoff(waits(10))).await;
        kid.fail_starts(2);
        assert_eq!(top.restart("kid").await.unwrap_err(), failed);
        let expected = if policy == RETRY { "kid~ sibling+" } else { "kid- sibling+" };
        assert_eq!(children(&top).await, expected);
        assert_eq!(top.restart("kid").await.unwrap_err(), failed);
        if policy == RETRY {
            let begun = Instant::now();
            // The supervisor's own attempt: nobody asked for this one.
            log.first("restart top/kid failure").await;
            assert_eq!(begun.elapsed(), Duration::from_secs(10));
        } else {
            sleep(Duration::from_secs(3600)).await;
            assert_eq!(children(&top).await, "kid- sibling+");
            assert!(top.start("kid").await.unwrap().pid.is_some());
        }
        assert_eq!((children(&top).await.as_str(), sibling.starts()), ("kid+ sibling+", 1));
        assert_eq!(kid.attempts(), 4);
    }
}

// What does not exist is not found, and a dynamic child has no id by which it could be started anew.
#[tokio::test(start_paused = true)]
async fn restart_of_what_is_not_there() {
    let (top, _log) = supervise(Supervisor::new("top").child(Kid::new("kid").spec())).await;
    assert_eq!(top.restart("nobody").await.unwrap_err(), ControlError::NotFound);
    assert_eq!(top.start("nobody").await.unwrap_err(), ControlError::NotFound);
    top.shutdown().await;
    assert_eq!(top.restart("kid").await.unwrap_err(), ControlError::NotRunning);
    let (top, _log) = supervise(Supervisor::new("top").strategy(Strategy::Dynamic)).await;
    let pid = top.start_child(Kid::new("kid").spec()).await.unwrap().pid.unwrap();
    assert_eq!(top.restart("kid").await.unwrap_err(), ControlError::Dynamic);
    assert_eq!(top.restart(pid).await.unwrap_err(), ControlError::Dynamic);
    assert_eq!(children(&top).await, "kid+");
}

// An order for a supervisor below that waits for a child of its own is answered when it waits: that child is tried again,
// and may be for ever.
#[tokio::test(start_paused = true)]
async fn restart_of_a_supervisor_whose_child_fails() {
    let bad = Kid::new("bad");
    let below = Supervisor::new("below").max_restarts(1000).child(bad.spec().start_error(RETRY).backoff(waits(10)));
    let (top, log) = supervise(Supervisor::new("top").child(ChildSpec::supervisor(below))).await;
    bad.fail_starts(2);
    for _ in 0..2 {
        let begun = Instant::now();
        assert!(top.restart("below").await.unwrap().pid.is_some());
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }
    assert_eq!(children(&top).await, "below~");
    // It is the order that brings it up in the end.
    let event = log.first("restart top/below requested").await;
    assert!(matches!(event.payload, Payload::ChildRestart { .. }));
    assert_eq!(children(&top).await, "below+");
}

// === Numbers that change in place ===

/// The restarts left in the decision of an event.
fn left(event: &SupervisorEvent) -> u64 {
    match &event.payload {
        Payload::ChildTerminate { decision, .. } => decision.restarts_left.unwrap().into(),
        other => panic!("no decision in {other:?}"),
    }
}

// The window keeps its entries when the budget changes: below another supervisor, whose reconfiguration takes the settings
// along.
#[tokio::test(start_paused = true)]
async fn the_window_keeps_its_entries_when_the_budget_changes() {
    let kid = Kid::new("kid");
    let below = |max: u32, seconds: u32| {
        vec![ChildSpec::supervisor(Supervisor::new("below").max_restarts(max).max_seconds(seconds).child(kid.spec()))]
    };
    let (top, log) = supervise(Supervisor::new("top")).await;
    top.reconfigure(below(5, 60)).await.unwrap();
    let spec = kid.spec();
    let below = |max: u32, seconds: u32| {
        vec![ChildSpec::supervisor(Supervisor::new("below").max_restarts(max).max_seconds(seconds).child(spec.clone()))]
    };
    top.reconfigure(below(5, 60)).await.unwrap();
    let handle = nested(&top, "below").await;
    let crash = async |nth: usize| {
        kid.crash();
        let event = log.nth(nth, "terminate top/below/kid error").await;
        log.nth(nth, "restart top/below/kid failure").await;
        left(&event)
    };
    assert_eq!((crash(1).await, crash(2).await), (4, 3));
    let changes = top.reconfigure(below(10, 60)).await.unwrap();
    let expected = Changes { updated: vec!["top/below".into()], ..Changes::default() };
    assert_eq!(changes, expected);
    assert_eq!(crash(3).await, 7);
    // A longer window, in which the older ones stay longer.
    top.reconfigure(below(10, 3600)).await.unwrap();
    sleep(Duration::from_secs(100)).await;
    assert_eq!(crash(4).await, 6);
    // A shorter one, which they have left by now.
    top.reconfigure(below(10, 50)).await.unwrap();
    assert_eq!(crash(5).await, 8);
    // Fewer than were used are no reason to give up: the next failure is.
    top.reconfigure(below(1, 50)).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    assert_eq!((children(&handle).await.as_str(), kid.live()), ("kid+", 1));
    kid.crash();
    assert!(matches!(handle.wait().await, SupervisorExit::MaxIntensity(_)));
}

// Shutdown, backoff and restart type of a child change under its run.
#[tokio::test(start_paused = true)]
async fn settings_of_a_child_change_under_its_run() {
    let kid = Kid::with("kid", crate::support::OnStop::Ignore);
    let spec = kid.spec();
    let (top, log) = supervise(Supervisor::new("top").child(spec.clone())).await;
    let new = spec
        .clone()
        .shutdown(Shutdown::Timeout(Duration::from_secs(40)))
        .backoff(waits(15))
        .restart(Restart::Transient);
    let changes = top.reconfigure(vec![new.clone()]).await.unwrap();
    assert_eq!(changes, Changes { updated: vec!["top/kid".into()], ..Changes::default() });
    assert_eq!(kid.starts(), 1);
    let begun = Instant::now();
    kid.crash();
    log.first("restart top/kid failure").await;
    assert_eq!(begun.elapsed(), Duration::from_secs(15));
    kid.exit(ExitReason::Normal);
    log.first("terminate top/kid normal -> leave").await;
    top.restart("kid").await.unwrap();
    let begun = Instant::now();
    top.terminate_child("kid").await.unwrap();
    assert_eq!(begun.elapsed(), Duration::from_secs(40));
    assert_eq!(reason(&log.first("terminate top/kid timeout").await), ExitReason::Timeout);
}

// === What is said ===

// Each child that waits, is started or is stopped says so once, with what it waits for and how long that may take.
#[tokio::test(start_paused = true)]
async fn phases_are_said() {
    use restart_exporter::event::{Event, EventKind};
    let (telemetry, log) = logged();
    let phases: Arc<Mutex<Vec<String>>> = Arc::default();
    let told = phases.clone();
    let tell = move |event: &Event| {
        if let Event::Supervisor(SupervisorEvent { payload: Payload::ChildPhase { child, phase, .. }, .. }) = event {
            let phase = match phase {
                Phase::Waiting => "waiting".into(),
                Phase::Starting { waits_for, limit } => format!("starting {waits_for:?} {limit:?}"),
                Phase::Stopping { limit } => format!("stopping {limit:?}"),
            };
            told.lock().push(format!("{} {phase}", child.id));
        }
    };
    telemetry.attach("phases", EventKind::ChildPhase, tell).unwrap();
    let slow = Slow::default();
    let top = Supervisor::new("top").child(slow.spec("slow")).child(plain("plain").shutdown(Shutdown::Infinity));
    let started = tokio::spawn(async move { top.start(&telemetry).await });
    while slow.starts() == 0 {
        tokio::task::yield_now().await;
    }
    assert!(slow.ready());
    let top = started.await.unwrap().unwrap();
    top.shutdown().await;
    log.first("end top").await;
    let expected = [
        "slow starting Some(\"its task to say that it is ready\") None",
        "plain waiting",
        "plain stopping None",
        "slow stopping Some(5s)",
    ];
    assert_eq!(*phases.lock(), expected);
}
