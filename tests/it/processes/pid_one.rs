//! The exporter as process 1, as the entrypoint of a container is.

use std::process::Command;

use rustix::process::Signal;

use super::{AS_PID_1, Tree, child, patient, supervisor};
use crate::world::until;

// Process 1 has no default for signals, and nobody above it: deaths are counted all the same, and SIGTERM ends it well.
#[tokio::test]
async fn as_process_1_deaths_are_counted_and_sigterm_ends_it_well() {
    let script =
        "echo spawned >> spawned; echo pid $$ of $PPID > who; [ $(wc -l < spawned) -gt 5 ] && exec sleep 600; exit 1";
    let directory = tempfile::tempdir().unwrap();
    let mut tree = Tree::launch(directory, &patient(&[child("c", script, "")]), &[], true).await;
    until("the last run", async || (tree.child("c").await["restarts"] == 5).then_some(())).await;
    assert!(tree.file("who").await.ends_with(" of 1\n"), "{:?}", tree.read("who"));
    let causes = tree.data("/api/v1/causes?supervisor=a").await;
    assert_eq!(causes["causes"][0]["count"], 5, "{causes}");
    tree.signal(Signal::TERM);
    let (status, log) = tree.ended().await;
    assert_eq!(status.code(), Some(0), "{log:#?}");
    assert_eq!(tree.running(), [""; 0]);
}

// An entrypoint that gives up ends its container, with a status that is not 0 and the explanation where `docker logs`
// shows it.
#[tokio::test]
async fn as_process_1_giving_up_ends_the_container_with_the_explanation() {
    let directory = tempfile::tempdir().unwrap();
    let text = supervisor("shop", "max_restarts = 1")
        + &child("till", "echo error: no database >&2; exit 13", "backoff = \"none\"");
    let mut tree = Tree::launch(directory, &text, &[], true).await;
    let (status, log) = tree.ended().await;
    assert_eq!(status.code(), Some(1), "{log:#?}");
    let said = log.join("\n");
    for part in ["shop", "till", "exit code 13", "error: no database", "more than 1 restart in 5 s"] {
        assert!(said.contains(part), "{part} is not in {said}");
    }
}

// All that is promised of processes holds for process 1 too: the same tests, in namespaces of their own.
#[test]
fn the_same_tests_pass_as_process_1() {
    let mut tests = Command::new(std::env::current_exe().unwrap());
    // The one that spawns most says nothing new here.
    let skipped = ["otp_suite::", "pid_one::", "ten_thousand", "1655"].iter().flat_map(|name| ["--skip", name]);
    tests.arg("processes::").args(skipped).env(AS_PID_1, "1");
    let output = tests.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    let passed = said.lines().find_map(|line| line.strip_prefix("test result: ok. ")?.split(' ').next()?.parse().ok());
    assert!(passed.is_some_and(|passed: usize| passed > 40), "{said}");
}
