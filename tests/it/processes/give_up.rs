//! When a supervisor gives up, and what follows.

use rustix::process::Signal;

use super::{Tree, child, supervisor};
use crate::world::until;

// People's complaint: the give-up counts attempts in a row, so a program whose start succeeds is restarted for ever. Here
// it is restarts per time: with 3 in 60 s the 4th death ends it, though each start succeeded. The exit status is not 0,
// and the last line of the log names child, reason and limit.
#[tokio::test]
async fn a_budget_of_3_in_60_s_gives_up_at_the_4th_death() {
    let script = "echo spawned >> spawned; echo error: no database >&2; exit 13";
    let text = supervisor("payments", "max_restarts = 3\nmax_seconds = 60") + &child("api", script, "");
    let (status, log, directory) = Tree::run_to_end(&text).await;
    assert_eq!(status.code(), Some(1), "{log:#?}");
    assert_eq!(std::fs::read_to_string(directory.path().join("spawned")).unwrap().lines().count(), 4);
    let last = log.iter().rfind(|line| line.starts_with("ts=")).unwrap();
    for part in ["level=error", "payments", "\\\"api\\\"", "exit code 13", "more than 3 restarts in 60 s"] {
        assert!(last.contains(part), "{part} is not in {last}");
    }
    // The line stands at the end: nothing may follow that hides it.
    assert_eq!(log.last(), Some(last));
}

// A backoff does not widen the budget: each restart is counted.
#[tokio::test]
async fn restarts_after_a_backoff_are_counted_as_well() {
    let keys = "backoff = { initial = \"10ms\", max = \"20ms\" }";
    let (status, log, _) = Tree::run_to_end(&(supervisor("a", "max_restarts = 2") + &child("c", "exit 1", keys))).await;
    assert_eq!(status.code(), Some(1));
    assert_eq!(log.iter().filter(|line| line.contains("msg=\"child terminated\"")).count(), 3, "{log:#?}");
}

// Other children of a supervisor that gives up are stopped in reverse order, and so are other supervisors.
#[tokio::test]
async fn what_else_runs_is_stopped_in_reverse_order() {
    let waits = |id: &str| {
        child(id, &format!("trap 'echo {id} >> order; exit 0' TERM; echo up > {id}; while :; do sleep 0.05; done"), "")
    };
    let all = ["other", "one", "two"].map(|id| format!("while [ ! -s {id} ]; do sleep 0.01; done; "));
    let dies = child("dies", &(all.concat() + "exit 1"), "");
    let text = supervisor("elder", "") + &waits("other") + &supervisor("a", "max_restarts = 0");
    let (status, log, directory) = Tree::run_to_end(&(text + &waits("one") + &waits("two") + &dies)).await;
    assert_eq!(status.code(), Some(1), "{log:#?}");
    assert_eq!(std::fs::read_to_string(directory.path().join("order")).unwrap(), "two\none\nother\n");
}

// A supervisor below another that gives up is a child that died: the parent decides by its own strategy who is started
// again with it, and the binary goes on.
#[tokio::test]
async fn the_parent_of_a_supervisor_that_gives_up_decides_by_its_own_strategy() {
    let table = [("one_for_one", [1, 2, 1]), ("rest_for_one", [1, 2, 2]), ("one_for_all", [2, 2, 2])];
    for (strategy, starts) in table {
        let dies = "echo up >> all; case $(grep -c up all) in 1|2) exit 1;; *) echo up >> sub; exec sleep 600;; esac";
        let counts = |id: &str| child(id, &format!("echo up >> {id}; exec sleep 600"), "");
        let text = supervisor("top", &format!("strategy = \"{strategy}\""))
            + &counts("first")
            + &supervisor("sub", "parent = \"top\"\nmax_restarts = 1")
            + &child("dies", dies, "")
            + &supervisor("later", "parent = \"top\"")
            + &counts("last");
        let tree = Tree::start(&text).await;
        tree.file("sub").await;
        let expected = [("first", starts[0]), ("last", starts[2])];
        until("all that is started again", async || {
            let fits = |(file, starts): &(&str, usize)| tree.read(file).is_some_and(|up| up.lines().count() == *starts);
            expected.iter().all(fits).then_some(())
        })
        .await;
        tree.is_ready().await;
        let history = tree.data("/api/v1/history?supervisor=top&event=terminated").await;
        let events = history["events"].as_array().unwrap();
        assert_eq!(events.iter().map(|event| &event["child_id"]).collect::<Vec<_>>(), ["sub"], "{history}");
        let gave_up = tree.data("/api/v1/history?supervisor=top/sub&event=supervisor_terminated").await;
        assert_eq!(gave_up["events"][0]["reason"]["class"], "max_intensity", "{gave_up}");
        assert_eq!(tree.supervisor("top/sub").await["up"], true);
        for (file, starts) in expected {
            assert_eq!(tree.read(file).unwrap().lines().count(), starts, "{strategy}: {file}");
        }
        tree.stops_well().await;
    }
}

// When the top gives up because the one below it did again and again, the binary ends with a status that is not 0.
#[tokio::test]
async fn a_top_that_gives_up_after_those_below_it_ends_the_binary() {
    let text = supervisor("top", "max_restarts = 1")
        + &supervisor("sub", "parent = \"top\"\nmax_restarts = 1")
        + &child("dies", "exit 1", "");
    let (status, log, _) = Tree::run_to_end(&text).await;
    assert_eq!(status.code(), Some(1), "{log:#?}");
    assert_eq!(log.iter().filter(|line| line.contains("supervisor gave up")).count(), 3, "{log:#?}");
    assert_eq!(log.iter().filter(|line| line.contains("child=dies")).count(), 4, "{log:#?}");
}

// Giving up may take long as well, when the others do not stop: a signal is heard meanwhile, and a second one hurries.
#[tokio::test]
async fn a_second_signal_hurries_a_supervisor_that_gives_up() {
    let directory = tempfile::tempdir().unwrap();
    let stubborn = child("slow", "trap '' TERM; echo up > up; while :; do sleep 0.05; done", "shutdown = \"1h\"");
    let dies = child("dies", "while [ ! -s up ]; do sleep 0.01; done; exit 1", "");
    let text = supervisor("elder", "") + &stubborn + &supervisor("a", "max_restarts = 0") + &dies;
    let (mut process, launched) = Tree::spawn(&directory, &text, &[], &["--exit.on-give-up=always"], false).await;
    let address = process.address().await;
    process.line_with("supervisor gave up").await;
    let mut tree = Tree { process: Some(process), address, directory, launched };
    tree.signal(Signal::TERM);
    tree.log_has("msg=stopping").await;
    tree.signal(Signal::TERM);
    let (status, log) = tree.ended().await;
    assert_eq!(status.code(), Some(1), "{log:#?}");
    assert!(log.iter().any(|line| line.contains("SIGTERM again: stopping at once")), "{log:#?}");
    assert_eq!(tree.running(), [""; 0]);
}
