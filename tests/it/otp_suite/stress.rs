//! Several threads, and everything at once: children crash, panic and return while others terminate, restart and delete
//! them. Whatever the order, no child ever has two runs alive, and every start has one end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use restart_exporter::event::{ExitReason, Payload, SupervisorExit};
use restart_exporter::supervisor::{ChildSpec, ChildState, Restart, Shutdown, Strategy, Supervisor, SupervisorHandle};

use crate::support::{Kid, Log, OnStop, supervise};

const STEPS: usize = 300;
const DRIVERS: u64 = 3;

/// Numbers that look random and are the same in each run (xorshift).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % sides as u64) as usize
    }
}

/// Children of every sort: obedient, slow, stubborn, failing to stop, killed at once.
fn kids() -> Vec<(Kid, Restart, Shutdown)> {
    let soon = Shutdown::Timeout(Duration::from_millis(1));
    let late = Shutdown::Timeout(Duration::from_secs(5));
    vec![
        (Kid::new("plain"), Restart::Permanent, late),
        (Kid::with("slow", OnStop::After(Duration::from_millis(1))), Restart::Transient, late),
        (Kid::with("stubborn", OnStop::Ignore), Restart::Permanent, soon),
        (Kid::with("failing", OnStop::Exit(ExitReason::error("stop"))), Restart::Transient, Shutdown::Infinity),
        (Kid::new("killed"), Restart::Permanent, Shutdown::BrutalKill),
        (Kid::new("temporary"), Restart::Temporary, late),
    ]
}

fn spec((kid, restart, shutdown): &(Kid, Restart, Shutdown)) -> ChildSpec {
    kid.spec().restart(*restart).shutdown(*shutdown)
}

/// Does something to a child, and asks for nothing but that an answer comes.
async fn disturb(top: &SupervisorHandle, child: &(Kid, Restart, Shutdown), dice: &mut Dice) {
    let (kid, ..) = child;
    match dice.roll(9) {
        0 => kid.crash(),
        1 => kid.panic(),
        2 => kid.exit(ExitReason::Normal),
        3 => kid.fail_starts(dice.roll(3)),
        4 => drop(top.terminate_child(kid.id()).await),
        5 => drop(top.restart_child(kid.id()).await),
        6 => drop(top.delete_child(kid.id()).await),
        7 => drop(top.which_children().await),
        _ => drop(top.start_child(spec(child)).await),
    }
}

/// Every start of a child has one end, in turn, as the children themselves counted.
fn check_log(log: &Log, kids: &[(Kid, Restart, Shutdown)]) {
    let (mut starts, mut running) = (BTreeMap::new(), BTreeMap::new());
    for event in log.events() {
        let name = event.supervisor.name.clone();
        match event.payload {
            Payload::ChildStart { child, child_pid: Some(child_pid), .. }
            | Payload::ChildRestart { child, child_pid: Some(child_pid), .. } => {
                *starts.entry(child.id.to_string()).or_insert(0) += 1;
                assert_eq!(running.insert((name, child.id.clone()), child_pid), None, "{}", child.id);
            }
            Payload::ChildTerminate { child, child_pid, .. } => {
                assert_eq!(running.remove(&(name, child.id.clone())), child_pid, "{}", child.id);
            }
            _ => {}
        }
    }
    assert!(running.is_empty(), "{running:?}");
    for (kid, ..) in kids {
        assert_eq!((kid.live(), kid.most_live().min(1)), (0, kid.most_live()), "{}", kid.id());
        assert_eq!(kid.starts(), starts.get(kid.id()).copied().unwrap_or(0), "{}", kid.id());
    }
}

async fn check_static(strategy: Strategy) {
    let kids = Arc::new(kids());
    let top = Supervisor::new("top").strategy(strategy).max_restarts(u32::MAX);
    // One below that gives up quickly, and so dies and lives as a child does.
    let inner = (Kid::new("inner"), Restart::Permanent, Shutdown::BrutalKill);
    let below = Supervisor::new("below").max_restarts(2).max_seconds(1).child(spec(&inner));
    let top = kids.iter().map(spec).fold(top.child(ChildSpec::supervisor(below)), Supervisor::child);
    let (top, log) = supervise(top).await;
    let drivers = (1..=DRIVERS).map(|seed| {
        let (top, kids, inner) = (top.clone(), kids.clone(), inner.0.clone());
        tokio::spawn(async move {
            let mut dice = Dice(seed * 0x9E37_79B9);
            for _ in 0..STEPS {
                disturb(&top, &kids[dice.roll(kids.len())], &mut dice).await;
                if dice.roll(20) == 0 {
                    inner.crash();
                }
            }
        })
    });
    for driver in drivers.collect::<Vec<_>>() {
        driver.await.unwrap();
    }
    kids.iter().for_each(|(kid, ..)| kid.fail_starts(0));
    assert_eq!(top.shutdown().await, SupervisorExit::Normal);
    let mut all = kids.to_vec();
    all.push(inner);
    check_log(&log, &all);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_for_one_under_stress() {
    check_static(Strategy::OneForOne).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_for_all_under_stress() {
    check_static(Strategy::OneForAll).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rest_for_one_under_stress() {
    check_static(Strategy::RestForOne).await;
}

// Each driver starts its own children, disturbs them, and terminates whatever it finds by pid.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dynamic_under_stress() {
    let top = Supervisor::new("top").strategy(Strategy::Dynamic).max_restarts(u32::MAX);
    let (top, log) = supervise(top).await;
    let drivers = (1..=DRIVERS).map(|seed| {
        let top = top.clone();
        tokio::spawn(async move {
            let (mut dice, mut mine) = (Dice(seed * 0x9E37_79B9), Vec::new());
            for step in 0..STEPS {
                let restart = Restart::ALL[dice.roll(3)];
                let child = (Kid::new(&format!("{seed}-{step}")), restart, Shutdown::Timeout(Duration::from_secs(5)));
                top.start_child(spec(&child)).await.unwrap();
                mine.push(child);
                let (kid, ..) = &mine[dice.roll(mine.len())];
                match dice.roll(4) {
                    0 => kid.crash(),
                    1 => kid.panic(),
                    2 => kid.fail_starts(2),
                    _ => {
                        let children = top.which_children().await.unwrap();
                        let ChildState::Running(pid) = children[dice.roll(children.len())].state else { continue };
                        // Another may have been faster.
                        drop(top.terminate_child(pid).await);
                    }
                }
            }
            mine
        })
    });
    let mut all = Vec::new();
    for driver in drivers.collect::<Vec<_>>() {
        all.extend(driver.await.unwrap());
    }
    assert_eq!(top.shutdown().await, SupervisorExit::Normal);
    check_log(&log, &all);
    assert_eq!(all.len(), STEPS * DRIVERS as usize);
}
