//! How the program ends: on a signal, when a supervisor gives up, when all are done. Nothing may be left behind.

use restart_exporter::event::{EventKind, Payload, SupervisorExit};
use restart_exporter::prelude::*;
use restart_exporter::{Error, Exporter, OnGiveUp};
use rustix::process::Signal;

use crate::world::{Events, Running, is_alive, soon, until};

const TWO_TREES: &str = r#"
    [[supervisor]]
    name = "first"
    [[supervisor.child]]
    id = "polite"
    command = ["sleep", "600"]
    [[supervisor.child]]
    id = "stubborn"
    command = ["sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"]
    shutdown = "200ms"

    [[supervisor]]
    name = "second"
    strategy = "one_for_all"
    [[supervisor.child]]
    id = "interrupted"
    command = ["sleep", "600"]
    stop_signal = "SIGINT"
    [[supervisor.child]]
    id = "killed"
    command = ["sleep", "600"]
    shutdown = "brutal_kill"
"#;

// SIGTERM and SIGINT end the program in order: exit status 0, and no child outlives it, however stubborn.
#[tokio::test]
async fn a_signal_ends_the_program_and_all_its_children() {
    for (signal, name) in [(Signal::TERM, "SIGTERM"), (Signal::INT, "SIGINT")] {
        let directory = tempfile::tempdir().unwrap();
        let exporter = Running::file(directory.path(), TWO_TREES).await;
        let pids = exporter.pids().await;
        assert_eq!(pids.len(), 4, "{pids:?}");
        assert!(pids.iter().all(|(_, pid)| is_alive(*pid)), "{pids:?}");
        exporter.signal(signal);
        let (status, log) = exporter.ended().await;
        assert_eq!(status.code(), Some(0), "{name}: {log:#?}");
        assert!(log.iter().any(|line| line.contains(&format!("msg=stopping signal={name}"))), "{log:#?}");
        for (id, pid) in pids {
            assert!(!is_alive(pid), "{id} outlived {name}");
        }
    }
}

// A signal that comes while children are still being started ends those that have, as at any other time: they are told,
// and may take their shutdown time.
#[tokio::test]
async fn a_signal_in_the_middle_of_the_start_stops_what_has_started() {
    const MARK: &str = "RESTART_EXPORTER_TEST_START";
    let directory = tempfile::tempdir().unwrap();
    let (mark, said) = (directory.path().display().to_string(), directory.path().join("said"));
    let first = "[[supervisor]]\nname = \"large\"\n[[supervisor.child]]\nid = \"store\"\n\
                 command = [\"sh\", \"-c\", \"trap 'echo bye >>said; exit' TERM; echo ready >>said; while :; do sleep 0.05; done\"]\n";
    let first = format!("{first}cwd = {mark:?}\nenv = {{ {MARK} = {mark:?} }}\n");
    let child = |number| {
        format!(
            "[[supervisor.child]]\nid = \"c{number}\"\ncommand = [\"sleep\", \"600\"]\nenv = {{ {MARK} = {mark:?} }}\n"
        )
    };
    let children: String = (0..2000).map(child).collect();
    let exporter = Running::file_unready(directory.path(), &(first + &children)).await;
    let has_said = |word: &str| std::fs::read_to_string(&said).is_ok_and(|said| said.contains(word));
    until("the store is ready", async || has_said("ready").then_some(())).await;
    let ready = exporter.get("/-/ready").await.status;
    exporter.signal(Signal::TERM);
    let (status, log) = exporter.ended().await;
    assert_eq!(status.code(), Some(0), "{log:#?}");
    assert_eq!(ready, 503, "it was not in the middle: let it start more");
    assert!(has_said("bye"), "the store was killed instead of told");

    let variable = format!("{MARK}={mark}");
    // The kernel may still be at work on those that were killed with the program.
    until("the end of all children", async || (!lives_with(&variable)).then_some(())).await;
}

/// Does any process have this in its environment?
fn lives_with(variable: &str) -> bool {
    let has_it = |process: std::fs::DirEntry| {
        // Processes come and go, and those of others cannot be read.
        let environment = std::fs::read(process.path().join("environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|each| each == variable.as_bytes())
    };
    std::fs::read_dir("/proc").unwrap().flatten().any(has_it)
}

// A caller who stops waiting for a start leaves no half-started tree, even if a child never says that it is ready.
#[tokio::test]
async fn a_start_that_is_given_up_is_undone() {
    let exporter = Exporter::builder().build().unwrap();
    let mut events = Events::of(exporter.telemetry());
    let stuck = Supervisor::new("stuck")
        .child(ChildSpec::task("elder", |stop| async move { stop.stopped().await }))
        .child(ChildSpec::ready_task("never", |stop, ready| async move {
            stop.stopped().await;
            drop(ready);
        }));
    tokio::select! {
        biased;
        _ = exporter.supervise(stuck) => panic!("a child that is never ready has started"),
        started = events.next(EventKind::ChildStart) => drop(started),
    }
    let end = events.next(EventKind::SupervisorTerminate).await;
    assert!(matches!(end.payload, Payload::SupervisorTerminate { reason: SupervisorExit::Shutdown, .. }), "{end:?}");
    soon("the end", exporter.serve(std::future::ready(()))).await.unwrap();
}

// A top supervisor that gives up ends the program with a failure, and the last line says who, which child, why, and how
// many restarts were allowed.
#[tokio::test]
async fn a_top_supervisor_that_gives_up_ends_the_program_with_a_failure() {
    let directory = tempfile::tempdir().unwrap();
    let text = r#"
        [[supervisor]]
        name = "bystander"
        [[supervisor.child]]
        id = "idle"
        command = ["sleep", "600"]

        [[supervisor]]
        name = "doomed"
        max_restarts = 2
        max_seconds = 60
        [[supervisor.child]]
        id = "crasher"
        command = ["sh", "-c", "exit 3"]
        backoff = "none"
    "#;
    let exporter = Running::file_with(directory.path(), text, &["--exit.on-give-up=always"]).await;
    let (status, log) = exporter.ended().await;
    assert_eq!(status.code(), Some(1), "{log:#?}");
    let last = log.last().unwrap();
    for part in ["level=error", "doomed", "crasher", "exit code 3", "more than 2 restarts in 60 s", "max_intensity"] {
        assert!(last.contains(part), "{part:?} is not in {last}");
    }
}

// When all top supervisors have ended as they should, the program is done, and that is no failure.
#[tokio::test]
async fn supervisors_that_are_done_end_the_program_without_a_failure() {
    let directory = tempfile::tempdir().unwrap();
    let tree = |name: &str, seconds: &str| {
        format!(
            "[[supervisor]]\nname = \"{name}\"\nauto_shutdown = \"any_significant\"\n\
             [[supervisor.child]]\nid = \"idle\"\ncommand = [\"sleep\", \"600\"]\n\
             [[supervisor.child]]\nid = \"job\"\ncommand = [\"sleep\", \"{seconds}\"]\nrestart = \"transient\"\n\
             significant = true\n"
        )
    };
    let exporter = Running::file_unready(directory.path(), &(tree("quick", "0") + &tree("slow", "0.3"))).await;
    let (status, log) = exporter.ended().await;
    assert_eq!(status.code(), Some(0), "{log:#?}");
    assert!(log.iter().all(|line| !line.contains("level=error")), "{log:#?}");
}

// The same in a program of one's own: serve returns the error, and stops the other supervisors first.
#[tokio::test]
async fn serve_returns_who_gave_up_and_stops_the_others() {
    let exporter = Exporter::builder().on_give_up(OnGiveUp::Always).build().unwrap();
    let healthy = Supervisor::new("healthy").child(ChildSpec::task("idle", |stop| async move { stop.stopped().await }));
    let healthy = exporter.supervise(healthy).await.unwrap();
    let doomed =
        Supervisor::new("doomed").max_restarts(0).child(ChildSpec::task("crasher", |_| async { Err("SMTP 421") }));
    exporter.supervise(doomed).await.unwrap();
    let error = soon("the end", exporter.serve(std::future::pending::<()>())).await.unwrap_err();
    let Error::GaveUp { ref name, ref exit } = error else { panic!("{error}") };
    assert_eq!((name.as_str(), matches!(exit, SupervisorExit::MaxIntensity(_))), ("doomed", true));
    assert!(
        error.to_string().contains("more than 0 restarts in 5 s; last child \"crasher\": error: SMTP 421"),
        "{error}"
    );
    assert!(healthy.is_ended());
    assert_eq!(soon("the exit", healthy.wait()).await, SupervisorExit::Normal);
}
