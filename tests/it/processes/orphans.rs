//! Nothing is left of processes that ended: no zombie, no descriptor.

use std::fs;

use super::{Tree, patient};
use crate::world::until;

/// How many run at a time.
const CHILDREN: usize = 20;

/// Processes that have ended and were not reaped by the exporter.
fn zombies_of(exporter: i32) -> usize {
    let processes =
        fs::read_dir("/proc").unwrap().filter_map(|entry| fs::read_to_string(entry.ok()?.path().join("stat")).ok());
    let stats = processes.filter_map(|stat| Some(stat.rsplit_once(") ")?.1.to_owned()));
    stats.filter(|stat| stat.starts_with(&format!("Z {exporter} "))).count()
}

fn descriptors_of(exporter: i32) -> usize {
    fs::read_dir(format!("/proc/{exporter}/fd")).unwrap().count()
}

// 10,000 spawns leave no zombie and no descriptor: while children go on ending and starting, there are never more than
// the few of those that are about to be reaped.
#[tokio::test]
async fn ten_thousand_spawns_leave_no_zombie_and_no_descriptor() {
    let children: Vec<_> = (0..CHILDREN)
        .map(|n| {
            format!("[[supervisor.child]]\nid = \"c{n}\"\ncommand = [\"true\"]\noutput = \"off\"\nbackoff = \"none\"\n")
        })
        .collect();
    let tree = Tree::ready(&patient(&children)).await;
    let exporter = tree.pid();
    until("10,000 spawns", async || {
        let stats = tree.data("/api/v1/stats").await;
        let spawned = stats["total_restarts"].as_u64()? + CHILDREN as u64;
        let (zombies, descriptors) = (zombies_of(exporter), descriptors_of(exporter));
        assert!(zombies <= CHILDREN, "{zombies} zombies after {spawned} spawns");
        // A pipe and a pidfd each, twice while one is handed over, and what the exporter has for itself.
        assert!(descriptors <= 5 * CHILDREN + 40, "{descriptors} descriptors after {spawned} spawns");
        (spawned >= 10_000).then_some(())
    })
    .await;
    tree.stops_well().await;
}

// A process whose own parent has ended is adopted by the exporter, be it process 1 or not, and reaped when it ends: it
// stays no zombie.
#[tokio::test]
async fn orphans_are_adopted_and_reaped() {
    let orphan = "while read _ _ _ parent _ < /proc/$$/stat; read name < /proc/$parent/comm; [ $name = sh -o $name = setsid ]; do sleep 0.01; done; echo $name >> parents; \
                  while [ ! -e go ]; do sleep 0.02; done; echo gone >> gone";
    // The subshell that starts it ends at once; the orphan ends up in no group of ours.
    let script = format!("for n in 1 2 3 4 5 6 7 8 9 10; do (setsid sh -c '{orphan}' &); done; exec sleep 600");
    let tree = Tree::ready(&patient(&[super::child("c", &script, "")])).await;
    let parents =
        until("all have a parent", async || tree.read("parents").filter(|all| all.lines().count() == 10)).await;
    assert!(parents.lines().all(|name| name == "restart_exporte"), "{parents}");
    tree.touch("go");
    until("all have gone", async || tree.read("gone").filter(|all| all.lines().count() == 10)).await;
    until("none is a zombie", async || (zombies_of(tree.pid()) == 0).then_some(())).await;
    assert_eq!(tree.child("c").await["restarts"], 0);
    tree.stops_well().await;
}
