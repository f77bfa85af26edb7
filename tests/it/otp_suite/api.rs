//! The API on a quiet supervisor: `child_adm`, `child_specs`, `sup_flags` and their neighbours.

use std::sync::Arc;
use std::time::Duration;

use restart_exporter::event::{ExitReason, Pid};
use restart_exporter::supervisor::{
    AutoShutdown, ChildSpec, ChildState, ControlError, Program, Restart, Shutdown, SpecError, Started, Strategy,
    Supervisor,
};

use crate::support::{Kid, children, counts, supervise};

fn pid(started: Result<Started, ControlError>) -> Pid {
    started.unwrap().pid.unwrap()
}

fn refused<T: std::fmt::Debug>(answer: Result<T, ControlError>) -> ControlError {
    answer.unwrap_err()
}

// Every call and every error of it on a static supervisor, and on one that is gone.
#[tokio::test(start_paused = true)]
async fn child_adm() {
    let kid = Kid::new("child");
    let (top, log) = supervise(Supervisor::new("top")).await;
    assert_eq!(counts(&top).await, (0, 0, 0, 0));

    let first = pid(top.start_child(kid.spec()).await);
    assert_eq!(top.which_children().await.unwrap()[0].state, ChildState::Running(first));
    assert_eq!(counts(&top).await, (1, 1, 0, 1));
    assert_eq!(refused(top.start_child(kid.spec()).await), ControlError::AlreadyStarted(first));
    assert_eq!(refused(top.restart_child("child").await), ControlError::Running);
    assert_eq!(refused(top.delete_child("child").await), ControlError::Running);

    top.terminate_child("child").await.unwrap();
    top.terminate_child("child").await.unwrap();
    assert_eq!(counts(&top).await, (1, 0, 0, 1));
    assert_eq!(refused(top.start_child(kid.spec()).await), ControlError::AlreadyPresent);

    assert_ne!(pid(top.restart_child("child").await), first);
    assert_eq!(counts(&top).await, (1, 1, 0, 1));
    top.terminate_child("child").await.unwrap();
    top.delete_child("child").await.unwrap();
    assert_eq!(counts(&top).await, (0, 0, 0, 0));
    for id in ["child", "stranger"] {
        assert_eq!(refused(top.terminate_child(id).await), ControlError::NotFound);
        assert_eq!(refused(top.restart_child(id).await), ControlError::NotFound);
        assert_eq!(refused(top.delete_child(id).await), ControlError::NotFound);
    }
    assert_eq!(refused(top.terminate_child(first).await), ControlError::NotFound);
    let expected = [
        "start top/child",
        "terminate top/child shutdown ordered -> leave",
        "restart top/child requested",
        "terminate top/child shutdown ordered -> leave",
        "delete top/child",
    ];
    assert_eq!(log.since(1), expected);

    top.shutdown().await;
    assert!(top.is_ended());
    assert_eq!(refused(top.start_child(kid.spec()).await), ControlError::NotRunning);
    assert_eq!(refused(top.terminate_child("child").await), ControlError::NotRunning);
    assert_eq!(refused(top.restart_child("child").await), ControlError::NotRunning);
    assert_eq!(refused(top.delete_child("child").await), ControlError::NotRunning);
    assert_eq!(refused(top.get_childspec("child").await), ControlError::NotRunning);
    assert_eq!(refused(top.which_children().await), ControlError::NotRunning);
    assert_eq!(refused(top.count_children().await), ControlError::NotRunning);
}

// Under a dynamic supervisor children are meant by pid only; an id makes no sense, a pid of the past or of a stranger is
// not found.
#[tokio::test(start_paused = true)]
async fn child_adm_simple() {
    let kids = ["a", "a"].map(Kid::new);
    let (top, _log) = supervise(Supervisor::new("top").strategy(Strategy::Dynamic)).await;
    let first = pid(top.start_child(kids[0].spec()).await);
    let second = pid(top.start_child(kids[1].spec()).await);
    assert_ne!(first, second);
    assert_eq!(children(&top).await, "a+ a+");
    assert_eq!(counts(&top).await, (2, 2, 0, 2));

    assert_eq!(refused(top.terminate_child("a").await), ControlError::Dynamic);
    assert_eq!(refused(top.restart_child("a").await), ControlError::Dynamic);
    assert_eq!(refused(top.delete_child("a").await), ControlError::Dynamic);
    assert_eq!(refused(top.restart_child(first).await), ControlError::Dynamic);
    assert_eq!(refused(top.delete_child(first).await), ControlError::Dynamic);

    top.terminate_child(first).await.unwrap();
    assert_eq!((kids[0].live(), kids[1].live()), (0, 1));
    assert_eq!(counts(&top).await, (1, 1, 0, 1));
    let (other, _log) = supervise(Supervisor::new("other").strategy(Strategy::Dynamic)).await;
    let stranger = pid(other.start_child(Kid::new("a").spec()).await);
    assert_eq!(refused(top.terminate_child(first).await), ControlError::NotFound);
    assert_eq!(refused(top.terminate_child(stranger).await), ControlError::NotFound);
    assert_eq!(counts(&other).await, (1, 1, 0, 1));
}

// A dynamic supervisor takes no more children than it may have; one that ended makes room (Elixir's max_children).
#[tokio::test(start_paused = true)]
async fn a_full_dynamic_supervisor_refuses_a_child() {
    let (top, _log) = supervise(Supervisor::new("top").strategy(Strategy::Dynamic).max_children(1)).await;
    let first = pid(top.start_child(Kid::new("a").spec()).await);
    assert_eq!(refused(top.start_child(Kid::new("b").spec()).await), ControlError::MaxChildren(1));
    top.terminate_child(first).await.unwrap();
    assert!(top.start_child(Kid::new("b").spec()).await.is_ok());
}

// The list of children begins with the last one, and a restart does not change a child's place.
#[tokio::test(start_paused = true)]
async fn which_children_lists_the_last_started_first() {
    let kids = ["a", "b", "c"].map(Kid::new);
    let (top, log) = supervise(kids.iter().fold(Supervisor::new("top"), |top, kid| top.child(kid.spec()))).await;
    kids[1].crash();
    log.first("restart top/b").await;
    let ids: Vec<_> = top.which_children().await.unwrap().into_iter().map(|child| child.id.to_string()).collect();
    assert_eq!(ids, ["c", "b", "a"]);
}

// What a child gives its starter is returned by start_child and by restart_child; a restart by the supervisor works as
// well, and nobody asks for it there.
#[tokio::test(start_paused = true)]
async fn extra_return() {
    let crash = Arc::new(tokio::sync::Notify::new());
    let crashes = crash.clone();
    let spec = ChildSpec::ready_task("child", move |stop, ready| {
        let crashes = crashes.clone();
        async move {
            ready.ok_with("extra");
            tokio::select! {
                () = crashes.notified() => Err("crash"),
                () = stop.stopped() => Ok(()),
            }
        }
    });
    let (top, log) = supervise(Supervisor::new("top")).await;
    let info = |started: Started| *started.info.unwrap().downcast_ref::<&str>().unwrap();
    assert_eq!(info(top.start_child(spec).await.unwrap()), "extra");
    top.terminate_child("child").await.unwrap();
    assert_eq!(info(top.restart_child("child").await.unwrap()), "extra");
    crash.notify_one();
    log.first("restart top/child failure").await;
    assert_eq!(children(&top).await, "child+");
}

// Every valid spec is accepted. Adapted: an invalid restart type, shutdown, child type or module does not compile, so
// OTP's invalid tuples are the invalid ids of `sup_start_map_faulty_specs`.
#[tokio::test(start_paused = true)]
async fn child_specs() {
    let (top, _log) = supervise(Supervisor::new("top")).await;
    let shutdowns = [Shutdown::BrutalKill, Shutdown::Infinity, Shutdown::Timeout(Duration::ZERO)];
    let mut started = 0;
    for restart in Restart::ALL {
        for shutdown in shutdowns.into_iter().chain([Shutdown::Timeout(Duration::MAX)]) {
            let id = format!("child-{started}");
            let starts = [
                Kid::new(&format!("{id}-announced")).spec(),
                ChildSpec::task(format!("{id}-task"), |stop| async move { stop.stopped().await }),
                ChildSpec::supervisor(Supervisor::new(format!("{id}-supervisor"))),
            ];
            for spec in starts {
                top.start_child(spec.restart(*restart).shutdown(shutdown)).await.unwrap();
                started += 1;
            }
        }
    }
    let supervisors = started / 3;
    assert_eq!(counts(&top).await, (started, started, supervisors, started - supervisors));
    top.shutdown().await;
}

// Significant children go with transient and temporary, and only under a supervisor that shuts down for them: the whole
// matrix. Adapted as `child_specs`.
#[tokio::test(start_paused = true)]
async fn child_specs_map() {
    for auto_shutdown in AutoShutdown::ALL {
        let (top, _log) = supervise(Supervisor::new("top").auto_shutdown(*auto_shutdown)).await;
        for restart in Restart::ALL {
            for significant in [false, true] {
                let spec = Kid::new(&format!("{restart}-{significant}")).spec();
                let spec = spec.restart(*restart).significant(significant);
                let id = spec.id.clone();
                let expected = match (significant, auto_shutdown, restart) {
                    (false, ..) => Ok(()),
                    (true, AutoShutdown::Never, _) => Err(SpecError::SignificantNever(id)),
                    (true, _, Restart::Permanent) => Err(SpecError::SignificantPermanent(id)),
                    (true, ..) => Ok(()),
                };
                let at_start = Supervisor::new("other").auto_shutdown(*auto_shutdown).child(spec.clone());
                assert_eq!(at_start.check(), expected, "{auto_shutdown} {restart}");
                let answer = top.start_child(spec).await.map(drop);
                assert_eq!(answer, expected.map_err(ControlError::Spec), "{auto_shutdown} {restart}");
            }
        }
    }
}

// Every broken flag is refused, every valid one is taken. Adapted: most of OTP's broken flags do not compile.
#[tokio::test(start_paused = true)]
async fn sup_flags() {
    let top = || Supervisor::new("top");
    let name = || "top".into();
    let dynamic = || top().strategy(Strategy::Dynamic);
    let kid = Kid::new("child");
    let broken = [
        (Supervisor::new(""), SpecError::InvalidId("".into())),
        (Supervisor::new("a/b"), SpecError::InvalidId("a/b".into())),
        (top().max_seconds(0), SpecError::InvalidPeriod(name())),
        (dynamic().auto_shutdown(AutoShutdown::AnySignificant), SpecError::DynamicAutoShutdown(name())),
        (dynamic().child(kid.spec()), SpecError::DynamicChildren(name())),
        (top().max_children(1), SpecError::MaxChildren(name())),
        (top().child(kid.spec()).child(kid.spec()), SpecError::DuplicateChild("child".into())),
    ];
    for (supervisor, error) in broken {
        assert_eq!(supervisor.check(), Err(error.clone()));
        // The rule holds anywhere in a tree, and nothing of the tree starts.
        let above = Supervisor::new("above").child(kid.spec()).child(ChildSpec::supervisor(supervisor));
        assert_eq!(above.check(), Err(error));
    }
    assert_eq!(kid.attempts(), 0);
    for strategy in Strategy::ALL {
        for (max_restarts, max_seconds) in [(0, 1), (1, u32::MAX), (u32::MAX, 1)] {
            let valid = top().strategy(*strategy).max_restarts(max_restarts).max_seconds(max_seconds);
            let (valid, _log) = supervise(valid).await;
            valid.shutdown().await;
        }
    }
}

/// Starts this many children, counts them, ends them, and counts again.
async fn count_dynamic(number: usize, spec: impl Fn(usize) -> ChildSpec, supervisors: bool) {
    let (top, _log) = supervise(Supervisor::new("top").strategy(Strategy::Dynamic)).await;
    let expected = |n: usize| if supervisors { (n, n, n, 0) } else { (n, n, 0, n) };
    for half in [0, number / 2] {
        for n in 0..number / 2 {
            top.start_child(spec(half + n).restart(Restart::Temporary)).await.unwrap();
        }
        assert_eq!(counts(&top).await, expected(half + number / 2));
    }
    for child in top.which_children().await.unwrap() {
        let ChildState::Running(pid) = child.state else { panic!("{child:?}") };
        top.terminate_child(pid).await.unwrap();
    }
    assert_eq!(counts(&top).await, (0, 0, 0, 0));
}

// A thousand, two thousand and no temporary children under a dynamic supervisor.
#[tokio::test(start_paused = true)]
async fn count_children() {
    let child = |n| ChildSpec::task(format!("{n}"), |stop| async move { stop.stopped().await });
    count_dynamic(2000, child, false).await;
}

// The same where the children are supervisors.
#[tokio::test(start_paused = true)]
async fn count_children_supervisor() {
    count_dynamic(200, |n| ChildSpec::supervisor(Supervisor::new(format!("{n}"))), true).await;
}

// A start that finds the child running elsewhere passes this on bare, and nothing is kept.
#[tokio::test(start_paused = true)]
async fn already_started_outside_supervisor() {
    let elsewhere = Pid::Process(4711);
    for strategy in Strategy::ALL {
        let (top, log) = supervise(Supervisor::new("top").strategy(*strategy)).await;
        let spec = ChildSpec::ready_task("child", move |_stop, ready| async move { ready.already_started(elsewhere) });
        assert_eq!(refused(top.start_child(spec).await), ControlError::AlreadyStarted(elsewhere));
        assert_eq!(counts(&top).await, (0, 0, 0, 0));
        assert_eq!(log.since(1), ["start_error top/child #1"]);
    }
}

// Neither spec nor command shows its arguments or environment when it is printed: they may hold secrets.
#[test]
fn a_spec_prints_no_secret() {
    let program = Program::new("redis").args(["--password", "hunter2"]).env("TOKEN", "hunter3");
    let shown = format!("{:?} {program:?}", ChildSpec::program("redis", program.clone()));
    assert!(shown.contains("redis") && !shown.contains("hunter"), "{shown}");
}

// A reason that no spec has is answered as it is: the caller of start_child learns the error's own words.
#[tokio::test(start_paused = true)]
async fn an_error_says_what_went_wrong() {
    let kid = Kid::new("child");
    kid.fail_starts(1);
    let (top, _log) = supervise(Supervisor::new("top")).await;
    let error = refused(top.start_child(kid.spec()).await);
    assert_eq!(error, ControlError::StartFailed(ExitReason::error("does not start")));
    assert_eq!(error.to_string(), "start_error: error: does not start");
}
