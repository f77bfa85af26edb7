//! Group `significant`: which ends of which children end their supervisor (OTP 24 and later).

use restart_exporter::event::{ExitReason, SupervisorExit};
use restart_exporter::supervisor::{
    AutoShutdown, ChildSpec, Restart, SpecError, Strategy, Supervisor, SupervisorHandle,
};

use crate::support::{Kid, Log, children, supervise};

const STATIC: [Strategy; 3] = [Strategy::OneForOne, Strategy::OneForAll, Strategy::RestForOne];

fn top(strategy: Strategy, auto_shutdown: AutoShutdown) -> Supervisor {
    Supervisor::new("top").strategy(strategy).auto_shutdown(auto_shutdown)
}

fn significant(kid: &Kid, restart: Restart) -> ChildSpec {
    kid.spec().restart(restart).significant(true)
}

/// The supervisor shut itself down because of what was last said.
async fn assert_shut_down(top: &SupervisorHandle, log: &Log, cause: &str) {
    assert_eq!(top.wait().await, SupervisorExit::Shutdown);
    assert_eq!(log.count(&format!("{cause} -> auto_shutdown")), 1, "{:#?}", log.lines());
    assert_eq!(log.lines().last().unwrap(), "end top shutdown");
}

/// Ends children that are not significant in every way, under every strategy and mode; their supervisor lives on.
async fn check_nonsignificant(restart: Restart, reasons: &[ExitReason]) {
    for strategy in STATIC {
        for auto_shutdown in AutoShutdown::ALL {
            let kid = Kid::new("child");
            let (top, log) = supervise(top(strategy, *auto_shutdown)).await;
            for reason in reasons {
                let _ = top.delete_child("child").await;
                top.start_child(kid.spec().restart(restart)).await.unwrap();
                kid.exit(reason.clone());
                log.first(&format!("terminate top/child {}", reason.class())).await;
                assert!(!children(&top).await.contains('+'), "{strategy} {auto_shutdown} {reason}");
            }
            let _ = top.delete_child("child").await;
            top.start_child(kid.spec().restart(restart)).await.unwrap();
            top.terminate_child("child").await.unwrap();
            assert!(!top.is_ended());
        }
    }
}

// A temporary child that is not significant never ends its supervisor.
#[tokio::test(start_paused = true)]
async fn nonsignificant_temporary() {
    let crash = ExitReason::error("crash");
    check_nonsignificant(Restart::Temporary, &[ExitReason::Normal, ExitReason::Shutdown(None), crash]).await;
}

// Nor does a transient one.
#[tokio::test(start_paused = true)]
async fn nonsignificant_transient() {
    check_nonsignificant(Restart::Transient, &[ExitReason::Normal, ExitReason::Shutdown(None)]).await;
}

/// Two significant children: an ordered end of one triggers nothing; the end of another triggers at once with
/// any_significant, and only as the last one with all_significant.
async fn check_significant(restart: Restart, reason: ExitReason) {
    for strategy in STATIC {
        let class = reason.class();
        for auto_shutdown in [AutoShutdown::AnySignificant, AutoShutdown::AllSignificant] {
            let kids = ["ordered", "a", "b"].map(Kid::new);
            let plain = Kid::new("plain");
            let top = kids.iter().fold(top(strategy, auto_shutdown), |top, kid| top.child(significant(kid, restart)));
            let (top, log) = supervise(top.child(plain.spec())).await;
            top.terminate_child("ordered").await.unwrap();
            assert!(!top.is_ended());
            kids[1].exit(reason.clone());
            let last = if auto_shutdown == AutoShutdown::AllSignificant {
                let fate = if restart == Restart::Temporary { "forget" } else { "leave" };
                log.first(&format!("terminate top/a {class} -> {fate}")).await;
                assert!(children(&top).await.ends_with("b+ plain+"), "{strategy}");
                kids[2].exit(reason.clone());
                "b"
            } else {
                "a"
            };
            assert_shut_down(&top, &log, &format!("terminate top/{last} {class}")).await;
            assert_eq!(plain.live(), 0);
        }
    }
}

// A significant temporary child: every end of its own triggers, be it normal, a crash or a kill; terminate_child does
// not.
#[tokio::test(start_paused = true)]
async fn significant_temporary() {
    for reason in [ExitReason::Normal, ExitReason::Shutdown(None), ExitReason::error("crash"), ExitReason::Killed] {
        check_significant(Restart::Temporary, reason).await;
    }
}

// A significant transient child: a crash restarts it, a normal end triggers; one that waits for its restart counts as
// one that runs.
#[tokio::test(start_paused = true)]
async fn significant_transient() {
    for reason in [ExitReason::Normal, ExitReason::Shutdown(None)] {
        check_significant(Restart::Transient, reason).await;
    }
    for auto_shutdown in [AutoShutdown::AnySignificant, AutoShutdown::AllSignificant] {
        let kids = ["a", "b"].map(Kid::new);
        let top = top(Strategy::OneForOne, auto_shutdown).max_restarts(u32::MAX);
        let (top, log) =
            supervise(kids.iter().fold(top, |top, kid| top.child(significant(kid, Restart::Transient)))).await;
        kids[0].crash();
        log.first("restart top/a failure").await;
        kids[0].fail_starts(usize::MAX);
        kids[0].crash();
        log.first("start_error top/a #1").await;
        kids[1].exit(ExitReason::Normal);
        log.first("terminate top/b normal").await;
        if auto_shutdown == AutoShutdown::AllSignificant {
            assert_eq!(children(&top).await, "a~ b-");
            kids[0].fail_starts(0);
            log.nth(2, "restart top/a failure").await;
            kids[0].exit(ExitReason::Normal);
        }
        assert_eq!(top.wait().await, SupervisorExit::Shutdown, "{auto_shutdown}");
    }
}

// A dynamic supervisor takes neither auto_shutdown nor significant children. Adapted: OTP refuses the flag alone.
#[tokio::test(start_paused = true)]
async fn significant_simple() {
    for auto_shutdown in [AutoShutdown::AnySignificant, AutoShutdown::AllSignificant] {
        let refused = top(Strategy::Dynamic, auto_shutdown).check();
        assert_eq!(refused, Err(SpecError::DynamicAutoShutdown("top".into())));
    }
    let (top, _log) = supervise(top(Strategy::Dynamic, AutoShutdown::Never)).await;
    assert!(top.start_child(significant(&Kid::new("child"), Restart::Temporary)).await.is_err());
}

// A significant child that is stopped because of a sibling's restart triggers nothing, under every strategy.
#[tokio::test(start_paused = true)]
async fn significant_bystander() {
    let table = [
        (Strategy::OneForOne, Restart::Temporary, "crashing+ bystander+"),
        (Strategy::OneForOne, Restart::Transient, "crashing+ bystander+"),
        (Strategy::OneForAll, Restart::Temporary, "crashing+"),
        (Strategy::OneForAll, Restart::Transient, "crashing+ bystander+"),
        (Strategy::RestForOne, Restart::Temporary, "crashing+"),
        (Strategy::RestForOne, Restart::Transient, "crashing+ bystander+"),
    ];
    for (strategy, restart, expected) in table {
        for auto_shutdown in [AutoShutdown::AnySignificant, AutoShutdown::AllSignificant] {
            let (crashing, bystander) = (Kid::new("crashing"), Kid::new("bystander"));
            let top = top(strategy, auto_shutdown).child(crashing.spec()).child(significant(&bystander, restart));
            let (top, log) = supervise(top).await;
            crashing.crash();
            log.first("restart top/crashing failure").await;
            assert_eq!(children(&top).await, expected, "{strategy} {auto_shutdown} {restart}");
        }
    }
}

// A supervisor that shuts itself down takes the one above with it if it is significant there, and so on up the tree; it
// stops where it is not.
#[tokio::test(start_paused = true)]
async fn significant_escalation() {
    for is_significant in [true, false] {
        let kid = Kid::new("worker");
        let inner = Supervisor::new("inner").auto_shutdown(AutoShutdown::AnySignificant);
        let inner = ChildSpec::supervisor(inner.child(significant(&kid, Restart::Transient)));
        let middle = Supervisor::new("middle").auto_shutdown(AutoShutdown::AnySignificant);
        let middle = middle.child(inner.restart(Restart::Transient).significant(is_significant));
        let middle = ChildSpec::supervisor(middle).restart(Restart::Temporary).significant(true);
        let (top, log) = supervise(top(Strategy::OneForOne, AutoShutdown::AnySignificant).child(middle)).await;
        kid.exit(ExitReason::Normal);
        log.first("end top/middle/inner shutdown").await;
        if is_significant {
            assert_shut_down(&top, &log, "terminate top/middle shutdown").await;
        } else {
            log.first("terminate top/middle/inner shutdown -> leave").await;
            assert_eq!(children(&top).await, "middle+");
        }
    }
}
