//! The words: one_for_all never has two generations alive.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use restart_exporter::supervisor::{ChildSpec, Ready, Shutdown, StopToken, Strategy, Supervisor};
use tokio::sync::Notify;
use tokio::time::sleep;

use crate::support::supervise;

/// Who is alive, and which run of it. A start while anybody of an older run lives is a meeting of two generations.
#[derive(Clone, Default)]
struct World(Arc<Mutex<WorldState>>);

#[derive(Default)]
struct WorldState {
    alive: BTreeMap<&'static str, usize>,
    runs: BTreeMap<&'static str, usize>,
    meetings: Vec<String>,
    crash: Arc<Notify>,
}

impl World {
    /// A child that takes its time to stop. The one named `crashing` fails when the world says so.
    fn child(&self, name: &'static str) -> ChildSpec {
        let world = self.clone();
        ChildSpec::ready_task(name, move |stop, ready| world.clone().live(name, stop, ready))
    }

    async fn live(self, name: &'static str, stop: StopToken, ready: Ready) -> Result<(), &'static str> {
        let _life = self.enter(name);
        ready.ok();
        let crash = self.0.lock().crash.clone();
        let crashed = async {
            match name {
                "crashing" => crash.notified().await,
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stop.stopped() => {
                sleep(Duration::from_millis(100)).await;
                Ok(())
            }
            () = crashed => Err("crash"),
        }
    }

    fn enter(&self, name: &'static str) -> Leave {
        let mut world = self.0.lock();
        let run = world.runs.entry(name).or_insert(0);
        *run += 1;
        let run = *run;
        if let Some((other, older)) = world.alive.iter().find(|(_, other)| **other < run) {
            let meeting = format!("run {run} of {name} met run {older} of {other}");
            world.meetings.push(meeting);
        }
        world.alive.insert(name, run);
        Leave(self.clone(), name)
    }

    fn crash(&self) {
        self.0.lock().crash.notify_one();
    }
}

struct Leave(World, &'static str);

impl Drop for Leave {
    fn drop(&mut self) {
        self.0.0.lock().alive.remove(self.1);
    }
}

/// Crashes a child `rounds` times; each time, all children of the tree have to be gone before any is started again.
async fn check_generations(world: &World, top: Supervisor, rounds: usize) {
    let top = top.strategy(Strategy::OneForAll).max_restarts(u32::MAX);
    let (top, log) = supervise(top).await;
    for round in 1..=rounds {
        world.crash();
        log.nth(round, "restart top/last").await;
    }
    {
        let state = world.0.lock();
        assert_eq!(state.meetings, Vec::<String>::new());
        assert!(state.runs.values().all(|runs| *runs == rounds + 1), "{:?}", state.runs);
    }
    top.shutdown().await;
    assert!(world.0.lock().alive.is_empty());
}

// Children take their time to stop, one only goes when it is killed, and one is killed at once.
#[tokio::test(start_paused = true)]
async fn one_for_all_never_has_two_generations_alive() {
    let world = World::default();
    let top = Supervisor::new("top")
        .child(world.child("first"))
        .child(world.child("late").shutdown(Shutdown::Timeout(Duration::from_millis(50))))
        .child(world.child("crashing"))
        .child(world.child("killed").shutdown(Shutdown::BrutalKill))
        .child(world.child("last"));
    check_generations(&world, top, 50).await;
}

// The same where the children are supervisors with children of their own, even if one of those has to be killed with
// all below it.
#[tokio::test(start_paused = true)]
async fn one_for_all_never_has_two_generations_alive_with_supervisors_below() {
    let world = World::default();
    let deep = Supervisor::new("deep").child(world.child("deep-1")).child(world.child("deep-2"));
    let below = |name| Supervisor::new(name).max_restarts(0);
    // The last to be stopped, so that nothing but its own end lies between the death far below and the next start.
    let killed = ["4", "3", "2", "killed"].into_iter().fold(world.child("doomed"), |inner, name| {
        ChildSpec::supervisor(below(name).child(inner)).shutdown(Shutdown::BrutalKill)
    });
    let top = Supervisor::new("top")
        .child(world.child("crashing"))
        .child(killed)
        .child(world.child("first"))
        .child(ChildSpec::supervisor(below("below").child(world.child("inner")).child(ChildSpec::supervisor(deep))))
        .child(
            ChildSpec::supervisor(below("late").child(world.child("slow")))
                .shutdown(Shutdown::Timeout(Duration::from_millis(50))),
        )
        .child(ChildSpec::supervisor(below("last").child(world.child("youngest"))));
    check_generations(&world, top, 20).await;
}
