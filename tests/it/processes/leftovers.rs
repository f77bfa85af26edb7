//! What is left behind when the exporter ends: nothing, whatever its children did to get away.

use std::process::{Command, Stdio};

use rustix::process::Signal;

use super::{AS_PID_1, Tree, child, patient};
use crate::world::is_alive;

/// A script whose process goes on in a session of its own after the script was stopped; it ignores these signals.
fn leaver(id: &str, ignored: &str) -> String {
    let below = format!("trap \"\" {ignored}; echo up > {id}; while :; do sleep 0.05; done; : left by {id}");
    format!("setsid sh -c '{below}' & while [ ! -s {id} ]; do sleep 0.01; done; echo up > {id}.leader; exec sleep 600")
}

// Who left the group is told to stop when all supervisors have ended, and killed if it does not; the log says how many.
#[tokio::test]
async fn an_ordered_stop_ends_who_left_the_group() {
    let children = [child("soft", &leaver("soft", "USR1"), ""), child("hard", &leaver("hard", "TERM INT HUP"), "")];
    let mut tree = Tree::ready(&patient(&children)).await;
    for id in ["soft", "hard", "soft.leader", "hard.leader"] {
        tree.file(id).await;
    }
    tree.signal(Signal::TERM);
    let (status, log) = tree.ended().await;
    assert_eq!(tree.running(), [""; 0]);
    assert_eq!(status.code(), Some(0), "{log:#?}");
    let lines: Vec<_> = log.iter().filter(|line| line.contains("ended processes that children left behind")).collect();
    assert!(lines.len() == 1 && lines[0].contains("count=") && !lines[0].contains("killed=0"), "{log:#?}");
}

// The same when a supervisor gives up and the exporter ends with it.
#[tokio::test]
async fn the_end_of_a_supervisor_that_gives_up_leaves_nothing() {
    let script = "setsid sleep 600 & [ -e again ] && exit 1; touch again; exit 1";
    let text = super::supervisor("a", "max_restarts = 1") + &child("c", script, "");
    let (status, log, _directory) = Tree::run_to_end(&text).await;
    assert_eq!(status.code(), Some(1), "{log:#?}");
}

// A second signal kills everything at once: who never stops, with its group, and who left it.
#[tokio::test]
async fn a_second_signal_leaves_nothing() {
    for second in [Signal::TERM, Signal::INT] {
        let deaf = "trap '' TERM; sh -c 'trap \"\" TERM; while :; do sleep 0.05; done' & echo up > deaf; \
                    while :; do sleep 0.05; done";
        let children = [
            child("deaf", deaf, "shutdown = \"infinity\""),
            child("hard", &leaver("hard", "TERM INT HUP"), "shutdown = \"infinity\""),
        ];
        let mut tree = Tree::ready(&patient(&children)).await;
        tree.file("deaf").await;
        tree.file("hard.leader").await;
        tree.signal(Signal::TERM);
        tree.log_has("stopping").await;
        tree.signal(second);
        let (status, log) = tree.ended().await;
        assert_eq!(tree.running(), [""; 0]);
        assert_eq!(status.code(), Some(1), "{log:#?}");
    }
}

// What was there before the exporter is not its own: a shell that becomes the exporter may have started the reader of its
// log. (As process 1 it is the first.)
#[tokio::test]
async fn who_was_there_before_is_left_alone() {
    if std::env::var_os(AS_PID_1).is_some() {
        return;
    }
    // In another directory, so that it does not count as left.
    let before = "(cd / && exec sleep 37003 > /dev/null 2>&1) & echo $! > before; exec \"$@\"";
    let text = patient(&[child("c", "exec sleep 600", "")]);
    let mut tree = Tree::launch(tempfile::tempdir().unwrap(), &text, &["sh", "-c", before, "sh"], false).await;
    tree.is_ready().await;
    tree.stops().await;
    let pid = tree.read("before").unwrap().trim().to_owned();
    assert!(is_alive(pid.parse().unwrap()), "it was ended");
    let killed = Command::new("kill").arg(&pid).stderr(Stdio::null()).status().unwrap();
    assert!(killed.success(), "it had ended");
}
