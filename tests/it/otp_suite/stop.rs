//! Group `sup_stop`: how the end of a supervisor reaches its children.

use std::time::Duration;

use restart_exporter::event::{Detail, ExitReason, SupervisorExit};
use restart_exporter::supervisor::{ChildSpec, Restart, Shutdown, Strategy, Supervisor};
use tokio::time::Instant;

use crate::support::{Kid, OnStop, reason, supervise};

const SECOND: Duration = Duration::from_secs(1);
const TWO_DAYS: Duration = Duration::from_secs(2 * 24 * 3600);

/// Stops a supervisor with these children and compares each one's reason; gives the time it took.
async fn check_stop(strategy: Strategy, kids: &[(Kid, Restart, Shutdown, ExitReason)]) -> Duration {
    let top = Supervisor::new("top").strategy(strategy);
    let specs = || kids.iter().map(|(kid, restart, shutdown, _)| kid.spec().restart(*restart).shutdown(*shutdown));
    let (top, log) = if strategy == Strategy::Dynamic {
        let (top, log) = supervise(top).await;
        for spec in specs() {
            top.start_child(spec).await.unwrap();
        }
        (top, log)
    } else {
        supervise(specs().fold(top, Supervisor::child)).await
    };
    let begin = Instant::now();
    assert_eq!(top.shutdown().await, SupervisorExit::Normal);
    let took = begin.elapsed();
    for (kid, restart, _, expected) in kids {
        let end = log.first(&format!("terminate top/{}", kid.id())).await;
        assert_eq!(reason(&end), *expected, "{} ({restart})", kid.id());
        assert_eq!((kid.starts(), kid.live()), (1, 0));
    }
    assert_eq!(log.lines().last().unwrap(), "end top normal");
    took
}

// With shutdown infinity a worker and a supervisor may take as long as they need.
#[tokio::test(start_paused = true)]
async fn sup_stop_infinity() {
    let worker = Kid::with("worker", OnStop::After(TWO_DAYS));
    let inner = Kid::with("inner", OnStop::After(TWO_DAYS));
    let below = Supervisor::new("below").child(inner.spec().shutdown(Shutdown::Infinity));
    let top = Supervisor::new("top")
        .child(worker.spec().shutdown(Shutdown::Infinity))
        .child(ChildSpec::supervisor(below).shutdown(Shutdown::Infinity));
    let (top, log) = supervise(top).await;
    let begin = Instant::now();
    top.shutdown().await;
    assert_eq!(begin.elapsed(), 2 * TWO_DAYS);
    let expected = [
        "terminate top/below/inner shutdown ordered -> leave",
        "end top/below shutdown",
        "terminate top/below shutdown ordered -> leave",
        "terminate top/worker shutdown ordered -> leave",
        "end top normal",
    ];
    assert_eq!(log.since(5), expected);
}

/// One child that stops when it is told and one that does not.
fn in_time_and_late(name: &str, restart: Restart) -> [(Kid, Restart, Shutdown, ExitReason); 2] {
    let timeout = Shutdown::Timeout(SECOND);
    let [quick, stubborn] = ["quick", "stubborn"].map(|kind| format!("{kind}-{name}"));
    [
        (Kid::new(&quick), restart, timeout, ExitReason::Shutdown(None)),
        (Kid::with(&stubborn, OnStop::Ignore), restart, timeout, ExitReason::Timeout),
    ]
}

// A child that stops in time ends with shutdown; one that does not is killed when its time is over, and not before.
#[tokio::test(start_paused = true)]
async fn sup_stop_timeout() {
    let took = check_stop(Strategy::OneForOne, &in_time_and_late("1", Restart::Permanent)).await;
    assert_eq!(took, SECOND);
}

// The same under a dynamic supervisor, whose children share the time.
#[tokio::test(start_paused = true)]
async fn sup_stop_timeout_dynamic() {
    let kids: Vec<_> = (0..10).flat_map(|n| in_time_and_late(&n.to_string(), Restart::Permanent)).collect();
    assert_eq!(check_stop(Strategy::Dynamic, &kids).await, SECOND);
}

// A child with brutal_kill is not told and ends killed; the other one is told.
#[tokio::test(start_paused = true)]
async fn sup_stop_brutal_kill() {
    let told = (Kid::new("told"), Restart::Permanent, Shutdown::Timeout(SECOND), ExitReason::Shutdown(None));
    let killed = (Kid::new("killed"), Restart::Permanent, Shutdown::BrutalKill, ExitReason::Killed);
    assert_eq!(check_stop(Strategy::OneForOne, &[told, killed]).await, Duration::ZERO);
}

// Ten children with brutal_kill under a dynamic supervisor.
#[tokio::test(start_paused = true)]
async fn sup_stop_brutal_kill_dynamic() {
    let killed = |n: usize| {
        (Kid::with(&format!("kid-{n}"), OnStop::Ignore), Restart::Temporary, Shutdown::BrutalKill, ExitReason::Killed)
    };
    let kids: Vec<_> = (0..10).map(killed).collect();
    assert_eq!(check_stop(Strategy::Dynamic, &kids).await, Duration::ZERO);
}

/// Children of every restart type that answer the order to stop by an end of their own. A plain return after the order
/// is what was ordered.
fn ending_their_own_way() -> Vec<(Kid, Restart, Shutdown, ExitReason)> {
    let ends = [
        (ExitReason::Normal, ExitReason::Shutdown(None)),
        (ExitReason::Shutdown(None), ExitReason::Shutdown(None)),
        (ExitReason::Shutdown(Some(Detail::new("saved"))), ExitReason::Shutdown(Some(Detail::new("saved")))),
        (ExitReason::error("disk full"), ExitReason::error("disk full")),
        (ExitReason::Killed, ExitReason::Timeout),
    ];
    let mut kids = Vec::new();
    for restart in Restart::ALL {
        for (exit, expected) in &ends {
            // A kid that "is killed" is one that has to be.
            let on_stop = match exit {
                ExitReason::Killed => OnStop::Ignore,
                exit => OnStop::Exit(exit.clone()),
            };
            let kid = Kid::with(&format!("{restart}-{}", kids.len()), on_stop);
            kids.push((kid, *restart, Shutdown::Timeout(SECOND), expected.clone()));
        }
    }
    kids
}

// Children of every restart type end with every reason just when they are told to stop: none hangs the stop, none is
// restarted, each reason is kept.
#[tokio::test(start_paused = true)]
async fn sup_stop_non_shutdown_exit_dynamic() {
    assert_eq!(check_stop(Strategy::Dynamic, &ending_their_own_way()).await, SECOND);
}

// The same under a static supervisor; and when the children end by themselves while the order is on its way, the stop
// comes to its end too, whoever is seen first.
#[tokio::test(start_paused = true)]
async fn sup_stop_race() {
    assert_eq!(check_stop(Strategy::OneForOne, &ending_their_own_way()).await, 3 * SECOND);
    for strategy in Strategy::ALL {
        let (top, log) = supervise(Supervisor::new("top").strategy(*strategy).max_restarts(1000)).await;
        let kids = ending_their_own_way();
        for (kid, restart, shutdown, _) in &kids {
            top.start_child(kid.spec().restart(*restart).shutdown(*shutdown)).await.unwrap();
        }
        for (kid, ..) in &kids {
            kid.panic();
        }
        assert_eq!(top.shutdown().await, SupervisorExit::Normal);
        assert!(kids.iter().all(|(kid, ..)| kid.live() == 0 && kid.most_live() == 1), "{strategy}");
        let (starts, restarts) = (log.count("start"), log.count("restart"));
        assert_eq!(log.count("terminate"), starts + restarts, "{strategy}");
    }
}
