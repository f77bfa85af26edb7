//! Groups `sup_start` and `sup_start_map`: what a start and its failure leave behind.

use std::time::Duration;

use restart_exporter::event::{ExitReason, Pid};
use restart_exporter::supervisor::{
    ChildSpec, ChildType, ControlError, MAX_ID_BYTES, Restart, Shutdown, SpecError, StartError, Strategy, Supervisor,
};

use crate::support::{Kid, children, counts, logged, supervise};

/// Starts a supervisor that must not start, and gives its error and what it said.
async fn start_error(supervisor: Supervisor) -> (StartError, Vec<String>) {
    let (telemetry, log) = logged();
    let error = supervisor.start(&telemetry).await.unwrap_err();
    (error, log.lines())
}

// A supervisor without children starts and stops without complaint.
#[tokio::test(start_paused = true)]
async fn sup_start_normal() {
    let (top, log) = supervise(Supervisor::new("top")).await;
    assert_eq!(counts(&top).await, (0, 0, 0, 0));
    top.shutdown().await;
    assert_eq!(log.lines(), ["init top", "end top normal"]);
}

// An init callback that answers `ignore` makes the start answer so, and nothing has run.
#[tokio::test(start_paused = true)]
async fn sup_start_ignore_init() {
    let ignored = Supervisor::from_fn("top", || Ok::<_, String>(None));
    assert_eq!(start_error(ignored.clone()).await, (StartError::Ignored, Vec::new()));
    // Below another supervisor it is a child that chose to be ignored.
    let (above, log) = supervise(Supervisor::new("above").child(ChildSpec::supervisor(ignored))).await;
    assert_eq!(log.lines(), ["init above", "ignore above/top"]);
    assert_eq!(children(&above).await, "top-");
}

// A permanent child that ignores its start is kept without a pid, and counts as a spec but not as active.
#[tokio::test(start_paused = true)]
async fn sup_start_ignore_child() {
    let (top, _log) = supervise(Supervisor::new("top")).await;
    let (ignoring, plain) = (Kid::new("ignoring"), Kid::new("plain"));
    ignoring.ignore_starts(1);
    assert_eq!(top.start_child(ignoring.spec()).await.unwrap().pid, None);
    assert!(top.start_child(plain.spec()).await.unwrap().pid.is_some());
    assert_eq!(children(&top).await, "ignoring- plain+");
    assert_eq!(counts(&top).await, (2, 1, 0, 2));
}

// A temporary child of the supervisor's own list that ignores its start is not kept.
#[tokio::test(start_paused = true)]
async fn sup_start_ignore_temporary_child() {
    let (ignoring, plain) = (Kid::new("ignoring"), Kid::new("plain"));
    ignoring.ignore_starts(1);
    let top = Supervisor::new("top").child(ignoring.spec().restart(Restart::Temporary)).child(plain.spec());
    let (top, _log) = supervise(top).await;
    assert_eq!(children(&top).await, "plain+");
    assert_eq!(counts(&top).await, (1, 1, 0, 1));
}

/// Starts a child that ignores its start and a plain one through the API.
async fn ignore_through_start_child(strategy: Strategy, restart: Restart) {
    let (top, log) = supervise(Supervisor::new("top").strategy(strategy)).await;
    let (ignoring, plain) = (Kid::new("ignoring"), Kid::new("plain"));
    ignoring.ignore_starts(1);
    assert_eq!(top.start_child(ignoring.spec().restart(restart)).await.unwrap().pid, None);
    assert!(top.start_child(plain.spec().restart(restart)).await.unwrap().pid.is_some());
    assert_eq!(children(&top).await, "plain+");
    assert_eq!(counts(&top).await, (1, 1, 0, 1));
    top.shutdown().await;
    assert_eq!(log.count("end top normal"), 1);
}

// The same for a temporary child that start_child adds.
#[tokio::test(start_paused = true)]
async fn sup_start_ignore_temporary_child_start_child() {
    ignore_through_start_child(Strategy::OneForOne, Restart::Temporary).await;
}

// The same under a dynamic supervisor.
#[tokio::test(start_paused = true)]
async fn sup_start_ignore_temporary_child_start_child_simple() {
    ignore_through_start_child(Strategy::Dynamic, Restart::Temporary).await;
}

// Under a dynamic supervisor a permanent child that ignores is not kept either, and the supervisor stops without error.
#[tokio::test(start_paused = true)]
async fn sup_start_ignore_permanent_child_start_child_simple() {
    ignore_through_start_child(Strategy::Dynamic, Restart::Permanent).await;
}

// A child that ignores its restart by restart_child stays as it was, and no restart is counted.
#[tokio::test(start_paused = true)]
async fn a_child_may_ignore_restart_child() {
    let kid = Kid::new("child");
    let (top, log) = supervise(Supervisor::new("top").max_restarts(1).child(kid.spec())).await;
    top.terminate_child("child").await.unwrap();
    kid.ignore_starts(5);
    for _ in 0..5 {
        assert_eq!(top.restart_child("child").await.unwrap().pid, None);
        assert_eq!(children(&top).await, "child-");
    }
    top.restart_child("child").await.unwrap();
    kid.crash();
    log.first("restart top/child failure").await;
}

// What init must not return comes back as the start's error. Adapted: the types leave an error and a broken spec; OTP
// tests any other term.
#[tokio::test(start_paused = true)]
async fn sup_start_error_return() {
    let failing = Supervisor::from_fn("top", || Err("no configuration"));
    let error = StartError::Init(ExitReason::error("no configuration"));
    assert_eq!(start_error(failing).await, (error, Vec::new()));
    let broken = Supervisor::from_fn("top", || Ok::<_, String>(Some(Supervisor::new("top").max_seconds(0))));
    let error = StartError::Spec(SpecError::InvalidPeriod("top".into()));
    assert_eq!(start_error(broken).await, (error, Vec::new()));
}

// A crash of init is an error for the caller and for nobody else.
#[tokio::test(start_paused = true)]
async fn sup_start_fail() {
    let crashing = Supervisor::from_fn("top", || -> Result<_, String> { panic!("init crashes") });
    let (error, lines) = start_error(crashing).await;
    assert!(
        matches!(&error, StartError::Init(ExitReason::Panic(panic)) if &*panic.message == "init crashes"),
        "{error}"
    );
    assert_eq!(lines, Vec::<String>::new());
}

/// The ways in which a start can fail: an error, a panic, and an end without a word.
fn failing_children() -> [(ChildSpec, &'static str); 3] {
    [
        (ChildSpec::ready_task("child", |_stop, _ready| async { Err::<(), _>("no") }), "error: no"),
        (
            ChildSpec::ready_task("child", |_stop, _ready| async {
                panic!("boom");
                #[allow(unreachable_code, reason = "gives the block its type")]
                ()
            }),
            "panic: boom",
        ),
        (ChildSpec::ready_task("child", |_stop, _ready| async {}), "error: ended before it was ready"),
    ]
}

async fn start_child_returns_error(strategy: Strategy) {
    let (top, log) = supervise(Supervisor::new("top").strategy(strategy)).await;
    for (spec, expected) in failing_children() {
        let error = top.start_child(spec).await.unwrap_err();
        let ControlError::StartFailed(reason) = error else { panic!("{error}") };
        assert!(reason.to_string().starts_with(expected), "{reason}");
        assert_eq!(counts(&top).await, (0, 0, 0, 0), "{expected}");
    }
    assert_eq!(log.count("start_error top/child #1"), 3);
}

// The error of a child's start comes back to the caller of start_child, and nothing is kept of the child.
#[tokio::test(start_paused = true)]
async fn sup_start_child_returns_error() {
    start_child_returns_error(Strategy::OneForOne).await;
}

// The same under a dynamic supervisor.
#[tokio::test(start_paused = true)]
async fn sup_start_child_returns_error_simple() {
    start_child_returns_error(Strategy::Dynamic).await;
}

// The error of restart_child comes back to its caller; the child stays stopped, and can be restarted later.
#[tokio::test(start_paused = true)]
async fn sup_start_restart_child_returns_error() {
    let kid = Kid::new("child");
    let (top, log) = supervise(Supervisor::new("top").child(kid.spec())).await;
    top.terminate_child("child").await.unwrap();
    kid.fail_starts(1);
    let error = ControlError::StartFailed(ExitReason::error("does not start"));
    assert_eq!(top.restart_child("child").await.unwrap_err(), error);
    assert_eq!(children(&top).await, "child-");
    assert!(top.restart_child("child").await.unwrap().pid.is_some());
    assert_eq!(log.since(3), ["start_error top/child #1", "restart top/child requested"]);
}

// A child that fails at init: the error names it, those before it are stopped in reverse, those after it never start.
#[tokio::test(start_paused = true)]
async fn a_child_that_fails_at_init_takes_the_start_back() {
    let kids = ["a", "b", "bad", "never"].map(Kid::new);
    kids[2].fail_starts(1);
    let top = kids.iter().fold(Supervisor::new("top"), |top, kid| top.child(kid.spec()));
    let (error, lines) = start_error(top).await;
    let expected = StartError::Child { child: "bad".into(), reason: ExitReason::error("does not start") };
    assert_eq!(error, expected);
    let expected = [
        "init top",
        "start top/a",
        "start top/b",
        "start_error top/bad #1",
        "terminate top/b shutdown ordered -> leave",
        "terminate top/a shutdown ordered -> leave",
        "end top error",
    ];
    assert_eq!(lines, expected);
    assert_eq!(kids[3].attempts(), 0);
}

// === sup_start_map ===

// The defaults of a spec can be read back; an unknown id is not found.
#[tokio::test(start_paused = true)]
async fn sup_start_map() {
    let (worker, below) = (Kid::new("worker"), Supervisor::new("below"));
    let (top, _log) = supervise(Supervisor::new("top").child(worker.spec()).child(ChildSpec::supervisor(below))).await;
    let seconds = |seconds| Shutdown::Timeout(Duration::from_secs(seconds));
    let defaults = [("worker", ChildType::Worker, seconds(5)), ("below", ChildType::Supervisor, Shutdown::Infinity)];
    for (id, child_type, shutdown) in defaults {
        let spec = top.get_childspec(id).await.unwrap();
        assert_eq!(&*spec.id, id);
        assert_eq!((spec.restart, spec.child_type), (Restart::Permanent, child_type));
        assert_eq!((spec.shutdown, spec.significant), (shutdown, false));
    }
    assert_eq!(top.get_childspec("stranger").await.unwrap_err(), ControlError::NotFound);
}

// The same under a dynamic supervisor, by pid; a stranger's pid is not found.
#[tokio::test(start_paused = true)]
async fn sup_start_map_simple() {
    let (top, _log) = supervise(Supervisor::new("top").strategy(Strategy::Dynamic)).await;
    let pid = top.start_child(Kid::new("worker").spec()).await.unwrap().pid.unwrap();
    let spec = top.get_childspec(pid).await.unwrap();
    assert_eq!((&*spec.id, spec.restart, spec.significant), ("worker", Restart::Permanent, false));
    assert_eq!(top.get_childspec(Pid::Process(1)).await.unwrap_err(), ControlError::NotFound);
    assert_eq!(top.get_childspec("worker").await.unwrap_err(), ControlError::NotFound);
}

// A faulty spec is refused with the rule it breaks. Adapted: the types leave ids, kinds and commands to be wrong; a
// missing id or start and unknown keys do not compile.
#[tokio::test(start_paused = true)]
async fn sup_start_map_faulty_specs() {
    let (top, log) = supervise(Supervisor::new("top")).await;
    let long = "x".repeat(MAX_ID_BYTES + 1);
    let ids = ["", "a/b", "line\nbreak", long.as_str()];
    let invalid = |id: &str| SpecError::InvalidId(id[..id.len().min(MAX_ID_BYTES)].into());
    let mut faulty: Vec<_> = ids.map(|id| (Kid::new(id).spec(), invalid(id))).into();
    faulty.push((Kid::new("child").spec().kind("a/b"), invalid("a/b")));
    faulty.push((ChildSpec::process("child", "", ["argument"]), SpecError::EmptyCommand("child".into())));
    for (spec, error) in faulty {
        let at_start = Supervisor::new("other").child(spec.clone());
        assert_eq!(start_error(at_start).await, (StartError::Spec(error.clone()), Vec::new()));
        assert_eq!(top.start_child(spec).await.unwrap_err(), ControlError::Spec(error));
    }
    assert_eq!(log.lines(), ["init top"]);
    let longest = "x".repeat(MAX_ID_BYTES);
    assert!(top.start_child(Kid::new(&longest).spec()).await.is_ok());
}
