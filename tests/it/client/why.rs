//! `why` explains each way to die.

use std::os::unix::fs::PermissionsExt;

use restart_exporter::event::counted;
use restart_exporter::supervisor::{Backoff, ChildSpec, Program, Restart, Strategy, Supervisor};

use super::{code, deaths, exporter, once, run, run_with, script, timeless};

/// The lines of `why` up to the first that only a person needs.
async fn why(child: &str, url: &str) -> String {
    let ended = run(&["why", child, url]).await;
    assert_eq!((code(&ended), ended.stderr.as_str()), (0, ""));
    timeless(&ended.stdout).replace(url, "--url=HERE")
}

// Exit code, signal, SIGKILL, panic, error: what happened, when, what it said last, what is left, what comes next.
#[tokio::test]
async fn each_way_to_end_is_told_with_last_words_and_what_comes_next() {
    let (exporter, _, url) = exporter().await;
    let tree = Supervisor::new("top")
        .max_restarts(100)
        .max_seconds(3600)
        .child(script("exits", "echo starting >&2; echo 'bind: address in use' >&2; exit 3"))
        .child(script("signal", "kill -USR1 $$"))
        .child(script("killed", "kill -KILL $$"))
        .child(
            ChildSpec::task("panics", |_| async {
                if true {
                    panic!("boom")
                }
            })
            .backoff(once()),
        )
        .child(ChildSpec::task("errs", |_| async { Err::<(), _>("SMTP 421") }).backoff(once()))
        .child(script("same", "echo 'bind: address in use' >&2; exit 3"));
    exporter.supervise(tree).await.unwrap();
    for child in ["exits", "signal", "killed", "panics", "errs", "same"] {
        deaths(&exporter, "top", child, 1).await;
    }
    let expected = "top/exits RESTARTING 1 death in the last hour, 1 in the last day
  budget 94 of 100 restarts left within T; top never gives up: the backoffs are too long to use them up
  next tried again in T
  why 1× ended with exit code 3
                  bind: address in use
                  at CLOCK (T ago), after T
                  then restarts after T, N more allowed
  last words of the run that died T ago after T
    starting
    bind: address in use
  same cause top/same (1× ever)
  do restart_exporter history --url=HERE top";
    let mut told = why("exits", &url).await;
    for left in 94..100 {
        told = told.replace(&format!("{left} more allowed"), "N more allowed");
    }
    assert_eq!(told, expected);
    for (child, words) in [
        ("signal", "1× ended by signal 10 (SIGUSR1)"),
        ("killed", "1× killed by SIGKILL (not by the OOM killer, as far as the kernel reports)"),
        ("panics", "1× panicked: boom at tests/it/client/why.rs:"),
        ("top/errs", "1× ended with an error: SMTP 421"),
    ] {
        let told = why(child, &url).await;
        assert!(told.contains(words), "{child}:\n{told}");
    }
    exporter.shutdown().await;
}

// Who else dies of the same is told, though temporary children are forgotten with their deaths: here and on the page.
#[tokio::test]
async fn children_that_are_gone_died_of_the_same_too() {
    let (exporter, address, url) = exporter().await;
    let fails = |id| ChildSpec::task(id, |_| async { Err::<(), _>("no disk") });
    let pool = exporter.supervise(Supervisor::new("pool").strategy(Strategy::Dynamic)).await.unwrap();
    pool.start_child(fails("job-1").restart(Restart::Temporary).kind("job")).await.unwrap();
    exporter.supervise(Supervisor::new("top").max_restarts(9).child(fails("api").backoff(once()))).await.unwrap();
    deaths(&exporter, "top", "api", 1).await;
    crate::world::until("the job", async || {
        exporter.control().causes("pool", None).is_ok_and(|page| !page.causes.is_empty()).then_some(())
    })
    .await;
    assert!(why("api", &url).await.contains("\n  same cause pool/job (1× ever)\n"));
    assert!(why("pool/job", &url).await.contains("\n  same cause top/api (1× ever)\n"));
    let page = crate::world::get(address, "/").await.body;
    assert!(page.contains("<a href=\"?supervisor=pool&amp;child=job\">pool/job</a>"), "{page}");
    let wrong = crate::world::get(address, "/api/v1/same_causes?reason=xyz").await;
    assert_eq!((wrong.status, wrong.json()["errorType"].as_str()), (400, Some("bad_data")), "{}", wrong.body);
    exporter.shutdown().await;
}

// A program that is gone: the death and the failed start are two causes.
#[tokio::test]
async fn a_failed_start_is_told() {
    let (exporter, _, url) = exporter().await;
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("once");
    std::fs::write(&program, "#!/bin/sh\nrm \"$0\"\nexit 1\n").unwrap();
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    let soon = Backoff { initial: std::time::Duration::from_millis(300), factor: 100.0, ..once() };
    let child = ChildSpec::program("once", Program::new(program.display().to_string())).backoff(soon);
    exporter.supervise(Supervisor::new("top").max_restarts(9).max_seconds(3600).child(child)).await.unwrap();
    deaths(&exporter, "top", "once", 2).await;
    let told = why("once", &url).await;
    assert!(
        told.contains("1× did not start: ended with an error: ") && told.contains("once\": no such file"),
        "{told}"
    );
    assert!(told.contains("1× ended with exit code 1"), "{told}");
    exporter.shutdown().await;
}

// One restart too many: who did it, which limit, and that nobody will help.
#[tokio::test]
async fn a_supervisor_that_gave_up_is_told_of_itself_and_of_its_child() {
    let (exporter, _, url) = exporter().await;
    let top = Supervisor::new("top").max_restarts(2).child(ChildSpec::task("worker", |_| async { Err::<(), _>("no") }));
    exporter.supervise(top).await.unwrap().wait().await;
    let rest = "  next top is down until an operator starts it
  supervisor gave up: more than 2 restarts in 5 s; last child \"worker\": error: no
  why 3× ended with an error: no
                  first CLOCK, last CLOCK (T ago), the last after T
                  then its supervisor gives up";
    let expected = format!(
        "top/worker GAVE UP 3 deaths in the last hour, 3 in the last day\n{rest}\n  do restart_exporter start --url=HERE top\n               restart_exporter history --url=HERE top"
    );
    assert_eq!(why("worker", &url).await, expected);
    let expected = format!(
        "top GAVE UP\n{rest}\n  do restart_exporter start --url=HERE top\n               restart_exporter why --url=HERE top/worker"
    );
    assert_eq!(why("top", &url).await, expected);
    // Where the exporter is stands in a command only if it was said in one.
    let environment = [("RESTART_EXPORTER_URL", url.trim_start_matches("--url="))];
    let told = run_with(&["why", "worker"], &environment).await.stdout;
    assert!(
        told.ends_with("  do           restart_exporter start top\n               restart_exporter history top\n"),
        "{told}"
    );
    exporter.shutdown().await;
}

// Those above may have given up as well: then nobody is left to decide.
#[tokio::test]
async fn nobody_decides_who_gave_up_too() {
    let (exporter, _, url) = exporter().await;
    let below =
        Supervisor::new("below").max_restarts(0).child(ChildSpec::task("worker", |_| async { Err::<(), _>("no") }));
    let below = ChildSpec::supervisor(below).backoff(once());
    let top = |name| Supervisor::new(name).child(below.clone());
    let waits = exporter.supervise(top("waits").max_restarts(9)).await.unwrap();
    exporter.supervise(top("gone").max_restarts(0)).await.unwrap().wait().await;
    deaths(&exporter, "waits", "below", 1).await;
    let told = why("waits/below/worker", &url).await;
    assert!(told.contains("next waits/below is down; what becomes of it is for waits above to decide\n"), "{told}");
    let told = why("gone/below/worker", &url).await;
    assert!(
        told.contains("next gone/below is down, as all above it are, until an operator starts its top supervisor\n"),
        "{told}"
    );
    drop(waits);
    exporter.shutdown().await;
}

// What dynamic children die of is known of all of a kind together, and said of those: also of one that never died itself.
#[tokio::test]
async fn causes_of_a_dynamic_child_are_those_of_its_kind() {
    let (exporter, _, url) = exporter().await;
    let pool = exporter.supervise(Supervisor::new("pool").strategy(Strategy::Dynamic).max_restarts(9)).await.unwrap();
    let well = ChildSpec::task("job-1", |stop| async move { stop.stopped().await }).kind("job");
    pool.start_child(well).await.unwrap();
    for id in ["job-2", "job-3"] {
        pool.start_child(ChildSpec::task(id, |_| async { Err::<(), _>("no disk") }).kind("job").backoff(once()))
            .await
            .unwrap();
        deaths(&exporter, "pool", id, 1).await;
    }
    for (child, deaths) in [("job-1", 0), ("job-2", 1), ("job-3", 1)] {
        let told = why(child, &url).await;
        assert!(told.contains(&format!("{} in the last hour", counted(deaths, "death", "deaths"))), "{told}");
        assert!(
            told.contains("\n  why of all job together:\n") && told.contains(" 2× ended with an error: no disk\n"),
            "{told}"
        );
        assert!(!told.contains("same cause") && !told.contains("nothing died"), "{told}");
    }
    let told = why("pool/job", &url).await;
    assert!(told.starts_with("pool/job is what 3 children have in common\n"), "{told}");
    exporter.shutdown().await;
}

// Restarts that were no failure of the child: its sibling's, and those that somebody asked for; and a mark just before.
#[tokio::test]
async fn siblings_and_requests_are_told_from_failures() {
    let (exporter, _, url) = exporter().await;
    let waits = |id| ChildSpec::task(id, |stop| async move { stop.stopped().await });
    let (fail, failing) = tokio::sync::watch::channel(false);
    let fails = ChildSpec::task("fails", move |_| {
        let mut failing = failing.clone();
        async move {
            failing.mark_unchanged();
            drop(failing.changed().await);
            Err::<(), _>("upstream is gone")
        }
    });
    let top = Supervisor::new("top").strategy(Strategy::OneForAll).max_restarts(9).max_seconds(3600);
    let top = exporter.supervise(top.child(fails).child(waits("reader"))).await.unwrap();
    assert_eq!(code(&run(&["mark", "deploy v2", &url]).await), 0);
    fail.send_replace(true);
    deaths(&exporter, "top", "fails", 1).await;
    crate::world::until("the reader", async || {
        let restarts = exporter.control().supervisors()[0].children[1].restarts;
        (restarts == 1).then_some(())
    })
    .await;
    top.terminate_child("reader").await.unwrap();
    top.restart_child("reader").await.unwrap();
    let expected = "top/reader OK 0 deaths in the last hour, 0 in the last day
  budget 8 of 9 restarts left within T; when they are used up, the next death makes top give up
  next nothing: it runs, for T now
  why nothing died
  restarted 1× because a sibling failed, last CLOCK (T ago)
  restarted 1× on request, last CLOCK (T ago)
  do restart_exporter history --url=HERE top";
    assert_eq!(why("reader", &url).await, expected);
    let told = why("fails", &url).await;
    assert!(told.contains("  mark CLOCK deploy v2 (T before it began)"), "{told}");
    exporter.shutdown().await;
}

// A name that several have is not guessed; one that nobody has is said; a child that is gone is known by its deaths.
#[tokio::test]
async fn a_child_is_found_by_name_or_path_and_never_guessed() {
    let (exporter, _, url) = exporter().await;
    for name in ["one", "other"] {
        exporter.supervise(Supervisor::new(name).max_restarts(9).child(script("api", "exit 1"))).await.unwrap();
        deaths(&exporter, name, "api", 1).await;
    }
    let ended = run(&["why", "api", &url]).await;
    assert_eq!(
        (code(&ended), ended.stderr.as_str()),
        (2, "restart_exporter: \"api\" may be one/api, other/api: which?\n")
    );
    assert!(why("other/api", &url).await.starts_with("other/api RESTARTING"));
    let ended = run(&["why", "nobody", &url]).await;
    assert_eq!((code(&ended), ended.stderr.contains("no child matches \"nobody\"")), (2, true), "{}", ended.stderr);
    exporter.shutdown().await;
}
