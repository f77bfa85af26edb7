//! How children stop: asked first, as a group, in reverse order; and never left behind.

use rustix::process::Signal;

use super::{Tree, child, patient, supervisor};
use crate::world::until;

/// A script that goes on until it is told otherwise.
fn waits(traps: &str, id: &str) -> String {
    format!("{traps}; echo up > {id}; while :; do sleep 0.05; done")
}

// The stop signal goes to the whole group: what a child started is told as well, and has the time to say goodbye.
#[tokio::test]
async fn the_stop_signal_reaches_the_whole_group() {
    for signal in ["TERM", "INT", "HUP", "QUIT", "USR1", "USR2"] {
        let below =
            format!("trap \"echo below >> told; exit 0\" {signal}; echo up > below; while :; do sleep 0.05; done");
        let script = format!(
            "trap 'echo leader >> told; wait; exit 0' {signal}; sh -c '{below}' & echo up > leader; while :; do wait; done"
        );
        let keys = format!("stop_signal = \"SIG{signal}\"");
        // A shell starts its background jobs deaf to some signals; perl's system does not.
        let perl = below.replace("\"", "\\\"");
        let script = if signal == "INT" || signal == "QUIT" {
            format!(
                "trap 'echo leader >> told; exit 0' {signal}; echo up > leader; \
                 perl -e '$SIG{{{signal}}} = \"DEFAULT\"; system(\"{perl}\")'; wait"
            )
        } else {
            script
        };
        let mut tree = Tree::ready(&patient(&[child("c", &script, &keys)])).await;
        tree.file("leader").await;
        tree.file("below").await;
        tree.stops().await;
        let told = tree.read("told").unwrap();
        let mut told: Vec<_> = told.lines().collect();
        told.sort_unstable();
        assert_eq!(told, ["below", "leader"], "{signal}");
    }
}

// Who does not go in the shutdown time is killed, with all of its group.
#[tokio::test]
async fn who_does_not_go_in_time_is_killed_with_its_group() {
    let script = waits("trap '' TERM; sh -c 'while :; do sleep 0.05; done' & :", "c");
    let tree = Tree::ready(&patient(&[child("c", &script, "shutdown = \"100ms\"")])).await;
    tree.file("c").await;
    assert!(tree.running().len() >= 2, "{:?}", tree.running());
    tree.stops_well().await;
}

// SIGTERM and SIGINT stop all, the last started first, over all supervisors; each waits for the one before it.
#[tokio::test]
async fn children_stop_in_reverse_order() {
    for signal in [Signal::TERM, Signal::INT] {
        let slow = |id: &str| child(id, &waits(&format!("trap 'sleep 0.1; echo {id} >> order; exit 0' TERM"), id), "");
        let text = supervisor("a", "")
            + &slow("one")
            + &slow("two")
            + &supervisor("below", "parent = \"a\"")
            + &slow("three")
            + &supervisor("b", "")
            + &slow("four");
        let mut tree = Tree::ready(&text).await;
        for id in ["one", "two", "three", "four"] {
            tree.file(id).await;
        }
        tree.signal(signal);
        let (status, log) = tree.ended().await;
        assert_eq!(status.code(), Some(0), "{log:#?}");
        assert_eq!(tree.read("order").unwrap(), "four\nthree\ntwo\none\n");
        assert_eq!(tree.running(), [""; 0]);
    }
}

// A child that starts another program and dies takes it along: there are never two copies of what it started.
#[tokio::test]
async fn a_child_that_forks_and_exits_leaves_no_second_copy() {
    let script = r#"
        read n < n; n=$((n + 1)); echo $n > n
        sh -c 'trap "" TERM INT HUP; while :; do sleep 0.05; done; : copy' &
        [ $n -gt 20 ] && wait
        exit 1"#;
    let text = patient(&[child("c", script, "")]);
    let tree = Tree::start_with(&text, |directory| std::fs::write(directory.join("n"), "0\n").unwrap()).await;
    until("the last run", async || (tree.child("c").await["restarts"] == 20).then_some(())).await;
    let copies =
        || tree.running().iter().filter(|program| program.contains("copy") && !program.contains("read n")).count();
    until("one copy", async || (copies() == 1).then_some(())).await;
    tree.stops_well().await;
}

// A child that dies with a second one of its name alive would be two: each run checks that the one before has gone.
#[tokio::test]
async fn a_run_never_meets_the_one_before() {
    let script = r#"
        if [ -e pid ] && kill -0 $(cat pid) 2> /dev/null; then echo met >> met; fi
        read n < n; n=$((n + 1)); echo $n > n; echo $$ > pid
        [ $n -gt 30 ] && exec sleep 600
        exit 1"#;
    let text = patient(&[child("c", script, "")]);
    let tree = Tree::start_with(&text, |directory| std::fs::write(directory.join("n"), "0\n").unwrap()).await;
    until("the last run", async || (tree.child("c").await["restarts"] == 30).then_some(())).await;
    assert_eq!(tree.read("met"), None);
    tree.stops_well().await;
}

// `kill -9` of the exporter leaves no child, whatever signals it ignores and whether it had just been started.
#[tokio::test]
async fn kill_9_of_the_exporter_leaves_no_child() {
    let script = "trap '' TERM INT HUP; echo up >> up; exec sleep 600";
    let crashes = "exec sleep 0.05";
    let children: Vec<_> = (0..10).map(|n| child(&format!("c{n}"), script, "")).collect();
    let text = patient(&[children.concat(), child("crashes", crashes, "")]);
    let mut tree = Tree::ready(&text).await;
    until("all run", async || tree.read("up").filter(|up| up.lines().count() == 10)).await;
    assert!(tree.running().len() >= 10, "{:?}", tree.running());
    tree.signal(Signal::KILL);
    tree.nothing_runs().await;
    tree.ended().await;
    tree.nothing_runs().await;
}

// A signal that comes while children are being started ends those that run, and starts no more.
#[tokio::test]
async fn a_signal_during_the_start_ends_what_has_started() {
    let text = patient(&[
        child("first", &waits("trap 'echo stopped > stopped; exit 0' TERM", "first"), ""),
        child("never", &waits(":", "never"), "ready = { exec = [\"false\"], interval = \"10ms\", timeout = \"10m\" }"),
        child("later", "touch later; exec sleep 600", ""),
    ]);
    let mut tree = Tree::start(&text).await;
    tree.file("never").await;
    tree.signal(Signal::TERM);
    let (status, log) = tree.ended().await;
    assert_eq!(status.code(), Some(0), "{log:#?}");
    assert_eq!((tree.read("stopped").as_deref(), tree.read("later")), (Some("stopped\n"), None));
    assert_eq!(tree.running(), [""; 0]);
}
