//! What a run used, as the kernel tells it.

use serde_json::Value;

use super::{Tree, child, patient};

fn used(death: &Value) -> (u64, u64) {
    let number = |key: &str| death["usage"][key].as_u64().unwrap_or_else(|| panic!("no {key} in {death}"));
    (number("peak_memory_bytes") >> 20, number("cpu_ms"))
}

// Peak memory and processor time of the run that died, with those of what it started and waited for; a run that did
// little does not inherit from its siblings.
#[tokio::test]
async fn a_death_says_what_its_run_used() {
    let keys = "restart = \"temporary\"";
    let memory = "perl -e '$size = 50_000_000; $all = \"x\" x $size; exit 1'; exit 1";
    let tree = Tree::ready(&patient(&[
        child("memory", memory, keys),
        // Most of its time is its own: asking for the time is work of the kernel, much of it on some machines.
        child(
            "cpu",
            "exec perl -e 'do { $n++ for 1..10000; ($user, $system) = times } while $user + $system < 0.3; exit 1'",
            keys,
        ),
        child("little", "exit 1", keys),
    ]))
    .await;
    let (memory, cpu, little) = (tree.death("memory").await, tree.death("cpu").await, tree.death("little").await);
    assert!((48..=120).contains(&used(&memory).0), "{memory}");
    assert!((300..=1000).contains(&used(&cpu).1), "{cpu}");
    assert!(used(&cpu).0 < 40, "{cpu}");
    assert!(used(&little).0 < 40 && used(&little).1 < 200, "{little}");
    tree.stops_well().await;
}
