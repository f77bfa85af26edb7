//! What a run used, as the kernel tells it.

use serde_json::Value;

use super::{Tree, child, patient};

/// Peak memory in MiB if it is known, and processor time in milliseconds.
fn used(death: &Value) -> (Option<u64>, u64) {
    let usage = &death["usage"];
    let peak = usage["peak_memory_bytes"].as_u64();
    assert!(peak.is_some() || usage["peak_memory_bytes"].is_null(), "{death}");
    (peak.map(|bytes| bytes >> 20), usage["cpu_ms"].as_u64().unwrap_or_else(|| panic!("no processor time in {death}")))
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
    assert!(used(&memory).0.is_some_and(|peak| (48..=120).contains(&peak)), "{memory}");
    assert!((300..=1000).contains(&used(&cpu).1), "{cpu}");
    assert!(used(&cpu).0.is_none_or(|peak| peak < 40), "{cpu}");
    assert!(used(&little).1 < 200, "{little}");
    tree.stops_well().await;
}

// The kernel counts what the forked image of the exporter had as the program's own. That is never told: a peak is the
// program's, as it could read it about itself, or unknown.
#[tokio::test]
async fn a_peak_is_the_programs_own_or_unknown() {
    let exact = "exec perl -e '\
        $size = 40_000_000; $all = \"x\" x $size; undef $all; \
        open(F, \"/proc/self/status\"); while (<F>) { print STDERR $1, \"\\n\" if /VmHWM:\\s+(\\d+)/ } exit 1'";
    let keys = "restart = \"temporary\"";
    let tree = Tree::ready(&patient(&[child("small", "exit 1", keys), child("exact", exact, keys)])).await;
    let exact = tree.death("exact").await;
    let own: u64 = super::lines(&exact)[0].parse().unwrap();
    let told = exact["usage"]["peak_memory_bytes"].as_u64().unwrap() / 1024;
    assert!(told.abs_diff(own) < 2048, "{told} KiB told, {own} KiB were");
    // A shell has about 2 MiB.
    let small = tree.death("small").await;
    assert!(used(&small).0.is_none_or(|peak| peak < 5), "{small}");
    tree.stops_well().await;
}
