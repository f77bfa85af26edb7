//! Children that fail again and again: how often they are tried, and what is shown meanwhile.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::{Tree, child, patient};
use crate::world::{sample, until};

fn delays(events: &serde_json::Value) -> Vec<u64> {
    let events = events["events"].as_array().unwrap().iter().rev();
    events.filter_map(|event| event["decision"]["delay_ms"].as_u64()).collect()
}

// The delay grows by the factor up to the limit, is spread by the jitter within its share, and each spawn is counted.
#[tokio::test]
async fn delays_grow_to_the_limit_and_are_spread_within_their_share() {
    let script = r#"
        echo spawned >> spawned
        [ $(wc -l < spawned) -gt 13 ] && exec sleep 600
        exit 1"#;
    let keys = "backoff = { initial = \"20ms\", max = \"80ms\", factor = 2, jitter = 0.5, reset_after = \"1h\" }";
    let tree = Tree::ready(&patient(&[child("c", script, keys)])).await;
    until("the last run", async || (tree.child("c").await["restarts"] == 13).then_some(())).await;
    let delays = delays(&tree.data("/api/v1/history?supervisor=a&event=terminated").await);
    assert_eq!(delays.len(), 13);
    let ranges = [10..=30, 20..=60].into_iter().chain(std::iter::repeat(40..=120));
    for (delay, range) in delays.iter().zip(ranges) {
        assert!(range.contains(delay), "{delay} is not in {range:?}: {delays:?}");
    }
    assert!(delays[2..].iter().any(|delay| *delay != delays[2]), "no jitter: {delays:?}");
    let metrics = tree.metrics().await;
    assert_eq!(sample(&metrics, "supervisor_child_start_attempts_total{supervisor=\"a\"}"), Some(14.0), "{metrics}");
    assert_eq!(tree.read("spawned").unwrap().lines().count(), 14);
    tree.stops_well().await;
}

// A run that lasted was stable: the next failure waits the initial time again.
#[tokio::test]
async fn a_stable_run_begins_the_delays_anew() {
    let script = r#"
        echo spawned >> spawned
        case $(wc -l < spawned) in 1) exit 1;; 2) sleep 0.4; exit 1;; *) exec sleep 600;; esac"#;
    let keys = "backoff = { initial = \"10ms\", max = \"1h\", factor = 100, jitter = 0, reset_after = \"200ms\" }";
    let tree = Tree::ready(&patient(&[child("c", script, keys)])).await;
    until("the last run", async || (tree.child("c").await["restarts"] == 2).then_some(())).await;
    assert_eq!(delays(&tree.data("/api/v1/history?supervisor=a&event=terminated").await), [10, 10]);
    tree.stops_well().await;
}

/// A program that removes itself when it runs.
fn vanishing(directory: &Path) {
    let program = directory.join("program");
    std::fs::write(&program, "#!/bin/sh\nrm \"$0\"\nexit 1\n").unwrap();
    std::fs::set_permissions(program, std::fs::Permissions::from_mode(0o755)).unwrap();
}

// A program that has disappeared never spins: at most one attempt for each step of the backoff, each a start error that
// names it. Its sibling is not concerned.
#[tokio::test]
async fn a_program_that_disappears_is_tried_once_for_each_step() {
    let text = patient(&[
        child("sibling", "exec sleep 600", ""),
        "[[supervisor.child]]\nid = \"c\"\ncommand = [\"DIR/program\"]\n\
         backoff = { initial = \"20ms\", max = \"100ms\", jitter = 0.2 }\n"
            .into(),
    ]);
    let tree = Tree::start_with(&text, vanishing).await;
    tree.is_ready().await;
    let sibling = tree.child("sibling").await["pid"].clone();
    let history = until("six attempts", async || {
        let history = tree.data("/api/v1/history?supervisor=a&child=c").await;
        let attempts =
            history["events"].as_array()?.iter().filter(|event| event["event_type"] == "start_error").count();
        (attempts >= 6).then_some(history)
    })
    .await;
    let events = history["events"].as_array().unwrap();
    for pair in events.windows(2) {
        let [later, earlier] = pair else { unreachable!() };
        assert_eq!(later["event_type"], "start_error");
        assert!(later["reason"]["detail"].as_str().unwrap().contains("/program"), "{later}");
        let passed = later["timestamp"].as_u64().unwrap() - earlier["timestamp"].as_u64().unwrap();
        let delay = earlier["decision"]["delay_ms"].as_u64().unwrap();
        assert!(delay >= 16 && passed + 2 >= delay, "after {passed} ms instead of {delay}: {history}");
    }
    assert_eq!(events.last().unwrap()["event_type"], "terminated");
    let last = tree.child("c").await;
    assert_eq!((&last["state"], &last["pid"]), (&"restarting".into(), &serde_json::Value::Null), "{last}");
    assert_eq!(tree.child("sibling").await["pid"], sibling);
    tree.stops_well().await;
}

// While a child waits, one sees that it does and for how long; the end does not wait for it.
#[tokio::test]
async fn a_child_that_waits_says_when_it_is_tried_next() {
    let keys = "backoff = { initial = \"5m\", max = \"1h\", jitter = 0.1 }";
    let tree = Tree::ready(&patient(&[child("c", "exit 1", keys)])).await;
    let waiting = until("the child waits", async || {
        Some(tree.child("c").await).filter(|child| child["state"] == "restarting" && !child["next_try_ms"].is_null())
    })
    .await;
    let next = waiting["next_try_ms"].as_u64().unwrap();
    let delay = waiting["last_death"]["decision"]["delay_ms"].as_u64().unwrap();
    assert!((270_000..=330_000).contains(&delay), "{waiting}");
    assert!((delay - 60_000..=delay).contains(&next), "{waiting}");
    assert_eq!(waiting["pid"], serde_json::Value::Null);
    tree.stops_well().await;
}
