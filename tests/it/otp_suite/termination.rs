//! Groups `normal_termination`, `shutdown_termination` and `abnormal_termination`, and how a tree ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use restart_exporter::event::{Detail, ExitReason, Payload, SupervisorExit};
use restart_exporter::supervisor::{ChildSpec, ControlError, Restart, Shutdown, StartError, Strategy, Supervisor};
use tokio::time::Instant;
use tracing::{Level, Metadata, Subscriber, span};

use crate::support::{Kid, children, counts, logged, nested, supervise};

/// What becomes of a child after its end.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Restarted,
    /// Down, with its spec kept; under a dynamic supervisor nothing is kept.
    Kept,
    Gone,
}

fn normal() -> Vec<ExitReason> {
    vec![ExitReason::Normal]
}

fn shutdown() -> Vec<ExitReason> {
    vec![ExitReason::Shutdown(None), ExitReason::Shutdown(Some(Detail::new("done")))]
}

fn abnormal() -> Vec<ExitReason> {
    let crash = ExitReason::error("crash");
    vec![crash, ExitReason::Killed, ExitReason::Exit(1), ExitReason::Signal(11), ExitReason::Oom, ExitReason::Timeout]
}

/// Ends a child of this restart type for each reason, under every strategy, and looks what became of it.
async fn check(restart: Restart, reasons: Vec<ExitReason>, fate: Fate) {
    for strategy in Strategy::ALL {
        for reason in &reasons {
            let kid = Kid::new("child");
            let (top, log) = supervise(Supervisor::new("top").strategy(*strategy)).await;
            top.start_child(kid.spec().restart(restart)).await.unwrap();
            kid.exit(reason.clone());
            log.first("terminate top/child").await;
            let expected = match fate {
                Fate::Restarted => ("child+", 2),
                Fate::Kept if *strategy != Strategy::Dynamic => ("child-", 1),
                Fate::Kept | Fate::Gone => ("", 1),
            };
            assert_eq!((children(&top).await.as_str(), kid.starts()), expected, "{strategy} {restart} {reason}");
            assert!(!top.is_ended());
        }
    }
}

// Permanent and normal: restarted.
#[tokio::test(start_paused = true)]
async fn permanent_normal() {
    check(Restart::Permanent, normal(), Fate::Restarted).await;
}

// Transient and normal: not restarted, the spec is kept.
#[tokio::test(start_paused = true)]
async fn transient_normal() {
    check(Restart::Transient, normal(), Fate::Kept).await;
}

// Temporary and normal: gone.
#[tokio::test(start_paused = true)]
async fn temporary_normal() {
    check(Restart::Temporary, normal(), Fate::Gone).await;
}

// Permanent and shutdown, with and without words: restarted.
#[tokio::test(start_paused = true)]
async fn permanent_shutdown() {
    check(Restart::Permanent, shutdown(), Fate::Restarted).await;
}

// Transient and shutdown: not restarted, the spec is kept.
#[tokio::test(start_paused = true)]
async fn transient_shutdown() {
    check(Restart::Transient, shutdown(), Fate::Kept).await;
}

// Temporary and shutdown: gone.
#[tokio::test(start_paused = true)]
async fn temporary_shutdown() {
    check(Restart::Temporary, shutdown(), Fate::Gone).await;
}

// Permanent and any other reason: restarted.
#[tokio::test(start_paused = true)]
async fn permanent_abnormal() {
    check(Restart::Permanent, abnormal(), Fate::Restarted).await;
}

// Transient and any other reason: restarted.
#[tokio::test(start_paused = true)]
async fn transient_abnormal() {
    check(Restart::Transient, abnormal(), Fate::Restarted).await;
}

// Temporary and any other reason: gone.
#[tokio::test(start_paused = true)]
async fn temporary_abnormal() {
    check(Restart::Temporary, abnormal(), Fate::Gone).await;
}

/// Counts log records of level info and above.
struct CountRecords(Arc<AtomicUsize>);

impl Subscriber for CountRecords {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::INFO
    }

    fn new_span(&self, _span: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _span: &span::Id, _values: &span::Record<'_>) {}

    fn record_follows_from(&self, _span: &span::Id, _follows: &span::Id) {}

    fn event(&self, _event: &tracing::Event<'_>) {
        self.0.fetch_add(1, SeqCst);
    }

    fn enter(&self, _span: &span::Id) {}

    fn exit(&self, _span: &span::Id) {}
}

// A child that start_child adds is no news for the log at level info; the event `start` is said once all the same.
#[tokio::test(start_paused = true)]
async fn external_start_no_progress_log() {
    let records = Arc::new(AtomicUsize::new(0));
    let _guard = tracing::subscriber::set_default(CountRecords(records.clone()));
    let (top, log) = supervise(Supervisor::new("top")).await;
    top.start_child(Kid::new("child").spec()).await.unwrap();
    top.shutdown().await;
    assert_eq!((records.load(SeqCst), log.count("start top/child")), (0, 1));
}

// The error of a child far below reaches the start of the tree with its cause. Adapted: OTP looks at the exit of an
// application, here at the error of the top supervisor's start.
#[tokio::test(start_paused = true)]
async fn faulty_application_shutdown() {
    let kid = Kid::new("worker");
    kid.fail_starts(1);
    let below = Supervisor::new("below").child(kid.spec());
    let top = Supervisor::new("top").child(Kid::new("first").spec()).child(ChildSpec::supervisor(below));
    let (telemetry, log) = logged();
    let StartError::Child { child, reason } = top.start(&telemetry).await.unwrap_err() else { panic!("of the child") };
    assert_eq!(&*child, "below");
    assert_eq!(reason.to_string(), r#"error: failed to start child "worker": error: does not start"#);
    let expected = [
        "start_error top/below/worker #1",
        "end top/below error",
        "start_error top/below #1",
        "terminate top/first shutdown ordered -> leave",
        "end top error",
    ];
    assert_eq!(log.since(3), expected);
}

// A child cannot hang terminate_child by getting rid of what binds it to its supervisor. Adapted: OTP's child removes
// its link; here it drops its stop token, and listens to nobody.
#[tokio::test(start_paused = true)]
async fn child_unlink() {
    let spec = ChildSpec::task("child", |stop| async move {
        drop(stop);
        std::future::pending::<()>().await;
    });
    let (top, log) = supervise(Supervisor::new("top").child(spec)).await;
    let begin = Instant::now();
    top.terminate_child("child").await.unwrap();
    assert_eq!(begin.elapsed(), Duration::from_secs(5));
    assert_eq!(log.count("terminate top/child timeout ordered -> leave"), 1);
}

// Supervisors below supervisors: starts, counts and ends on every level, and a failure that one level cannot mend goes
// on to the next.
#[tokio::test(start_paused = true)]
async fn tree() {
    let kids = ["a", "b", "c", "d"].map(Kid::new);
    let left = Supervisor::new("left").max_restarts(1).child(kids[0].spec()).child(kids[1].spec());
    let right = Supervisor::new("right").strategy(Strategy::OneForAll).max_restarts(0).child(kids[2].spec());
    let top = Supervisor::new("top")
        .strategy(Strategy::OneForAll)
        .max_restarts(1)
        .child(kids[3].spec())
        .child(ChildSpec::supervisor(left))
        .child(ChildSpec::supervisor(right));
    let (top, log) = supervise(top).await;
    assert_eq!(counts(&top).await, (3, 3, 2, 1));
    let (left, right) = (nested(&top, "left").await, nested(&top, "right").await);
    assert_eq!((counts(&left).await, counts(&right).await), ((2, 2, 0, 2), (1, 1, 0, 1)));
    assert_eq!(&*left.reference().name, "top/left");
    for (name, above) in [("top", None), ("top/left", Some("top")), ("top/right", Some("top"))] {
        let init = log.first(&format!("init {name}")).await;
        let Payload::SupervisorInit { parent, .. } = init.payload else { panic!("{init:?}") };
        assert_eq!(parent.as_deref(), above);
    }

    // The left one mends the failure itself.
    kids[0].crash();
    log.first("restart top/left/a failure").await;
    assert_eq!(kids.each_ref().map(Kid::starts), [2, 1, 1, 1]);

    // The right one cannot; the top one starts everything again, and each supervisor has a clean window.
    kids[2].crash();
    log.first("restart top/right failure").await;
    assert_eq!(log.count("end top/right max_intensity"), 1);
    assert!(left.is_ended() && right.is_ended());
    assert_eq!(kids.each_ref().map(Kid::starts), [3, 2, 2, 2]);
    assert_eq!(children(&nested(&top, "left").await).await, "a+ b+");

    // The second time is one too many for the top one.
    kids[2].crash();
    assert!(matches!(top.wait().await, SupervisorExit::MaxIntensity(_)));
    assert!(kids.iter().all(|kid| kid.live() == 0 && kid.most_live() == 1));
}

// What a supervisor that gave up is to its parent: `shutdown`. A permanent one is restarted and costs one restart, a
// transient one is left, a temporary one forgotten.
#[tokio::test(start_paused = true)]
async fn a_supervisor_that_gave_up_ended_with_shutdown_for_its_parent() {
    for (restart, expected) in
        [(Restart::Permanent, "below+"), (Restart::Transient, "below-"), (Restart::Temporary, "")]
    {
        let kid = Kid::new("child");
        let below = ChildSpec::supervisor(Supervisor::new("below").max_restarts(0).child(kid.spec())).restart(restart);
        let (top, log) = supervise(Supervisor::new("top").child(below)).await;
        kid.crash();
        log.first("terminate top/below shutdown").await;
        assert_eq!(children(&top).await, expected, "{restart}");
    }
}

// A child that is a supervisor and is stopped through its own handle ended normally: a permanent one comes back.
#[tokio::test(start_paused = true)]
async fn a_permanent_supervisor_that_was_stopped_by_its_handle_comes_back() {
    let below = ChildSpec::supervisor(Supervisor::new("below").child(Kid::new("child").spec()));
    let (top, log) = supervise(Supervisor::new("top").child(below)).await;
    let first = nested(&top, "below").await;
    assert_eq!(first.shutdown().await, SupervisorExit::Normal);
    log.first("terminate top/below normal -> restart").await;
    let second = nested(&top, "below").await;
    assert_ne!(first.reference().id, second.reference().id);
    assert_eq!(first.reference().name, second.reference().name);
    assert_eq!(first.count_children().await.unwrap_err(), ControlError::NotRunning);
}

// A temporary sibling is stopped with the others by one_for_all and rest_for_one, and not started again; one_for_one
// leaves it alone.
#[tokio::test(start_paused = true)]
async fn temporary_bystander() {
    let table = [
        (Strategy::OneForOne, "a+ bystander+", "terminate top/a error -> restart"),
        (Strategy::OneForAll, "a+", "terminate top/bystander shutdown ordered -> forget"),
        (Strategy::RestForOne, "a+", "terminate top/bystander shutdown ordered -> forget"),
    ];
    for (strategy, expected, last_end) in table {
        let (kid, bystander) = (Kid::new("a"), Kid::new("bystander"));
        let top = Supervisor::new("top").strategy(strategy);
        let (top, log) = supervise(top.child(kid.spec()).child(bystander.spec().restart(Restart::Temporary))).await;
        kid.crash();
        log.first("restart top/a failure").await;
        assert_eq!(children(&top).await, expected, "{strategy}");
        assert_eq!(log.lines()[log.len() - 2], last_end, "{strategy}");
    }
}

// Children start as listed; rest_for_one stops those after the failed one in reverse and starts them in order; in the
// end all are stopped in reverse.
#[tokio::test(start_paused = true)]
async fn order_of_children() {
    let kids = ["a", "b", "c", "d"].map(Kid::new);
    let top = Supervisor::new("top").strategy(Strategy::RestForOne);
    let specs = kids.iter().map(|kid| kid.spec().shutdown(Shutdown::Timeout(Duration::from_secs(1))));
    let (top, log) = supervise(specs.fold(top, Supervisor::child)).await;
    kids[1].crash();
    log.first("restart top/d").await;
    top.shutdown().await;
    let expected = [
        "init top",
        "start top/a",
        "start top/b",
        "start top/c",
        "start top/d",
        "terminate top/b error -> restart",
        "terminate top/d shutdown ordered -> restart",
        "terminate top/c shutdown ordered -> restart",
        "restart top/b failure",
        "restart top/c sibling",
        "restart top/d sibling",
        "terminate top/d shutdown ordered -> leave",
        "terminate top/c shutdown ordered -> leave",
        "terminate top/b shutdown ordered -> leave",
        "terminate top/a shutdown ordered -> leave",
        "end top normal",
    ];
    assert_eq!(log.lines(), expected);
}

/// A temporary child that holds `argument`, and ends as it is told.
fn holding(argument: &Arc<()>, kid: &Kid) -> ChildSpec {
    let (argument, spec) = (argument.clone(), kid.spec());
    let below = Supervisor::from_fn(kid.id(), move || {
        let _held = &argument;
        Ok::<_, String>(Some(Supervisor::new("below").max_restarts(0).child(spec.clone())))
    });
    ChildSpec::supervisor(below).restart(Restart::Temporary)
}

// What temporary children were started with does not outlive them. Adapted: OTP measures memory; here the argument
// itself tells who holds it.
#[tokio::test(start_paused = true)]
async fn do_not_save_start_parameters_for_temporary_children() {
    for strategy in Strategy::ALL {
        let argument = Arc::new(());
        let (top, log) = supervise(Supervisor::new("top").strategy(*strategy)).await;
        let kids: Vec<Kid> = (0..10).map(|n| Kid::new(&n.to_string())).collect();
        for kid in &kids {
            top.start_child(holding(&argument, kid)).await.unwrap();
        }
        assert!(Arc::strong_count(&argument) > 10);
        for kid in &kids {
            kid.crash();
            log.first(&format!("terminate top/{} shutdown -> forget", kid.id())).await;
        }
        assert_eq!(counts(&top).await, (0, 0, 0, 0), "{strategy}");
        assert_eq!(Arc::strong_count(&argument), 1, "{strategy}");
    }
}

// The spec of a temporary child is gone after any kind of end, under every strategy.
#[tokio::test(start_paused = true)]
async fn do_not_save_child_specs_for_temporary_children() {
    for strategy in Strategy::ALL {
        for end in [Some(ExitReason::Normal), Some(ExitReason::Shutdown(None)), Some(ExitReason::error("crash")), None]
        {
            let kid = Kid::new("child");
            let (top, log) = supervise(Supervisor::new("top").strategy(*strategy)).await;
            let pid = top.start_child(kid.spec().restart(Restart::Temporary)).await.unwrap().pid.unwrap();
            match end {
                Some(reason) => kid.exit(reason),
                None if *strategy == Strategy::Dynamic => top.terminate_child(pid).await.unwrap(),
                None => top.terminate_child("child").await.unwrap(),
            }
            log.first("terminate top/child").await;
            assert_eq!(counts(&top).await, (0, 0, 0, 0), "{strategy}");
            assert_eq!(top.get_childspec("child").await.unwrap_err(), ControlError::NotFound);
            // So the id is free again.
            assert!(top.start_child(kid.spec()).await.is_ok());
        }
    }
}
