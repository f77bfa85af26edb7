//! What went wrong in an earlier build, each fault as a person would reproduce it, and what happens now.

use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::Path;

use rustix::process::Signal;
use serde_json::json;

use super::{SLOW, Site, child, sleeper, supervisor};
use crate::world::{is_alive, sample, until};

// A reload that changes settings and in which one child cannot start touches nobody else. The answer names the child,
// the child stays wanted, and everybody who is asked says that it is in trouble.
#[tokio::test]
async fn a_child_that_cannot_start_at_a_reload_takes_nobody_along() {
    let file = |restarts: u32, api: &str| {
        supervisor("app", &format!("max_restarts = {restarts}"))
            + &sleeper("db", 38001)
            + &child("api", api, "ready = { stable_after = \"300ms\" }")
    };
    let site = Site::ready(&file(3, "[\"sleep\", \"38002\"]")).await;
    let db = site.pid("38001");
    site.write(&file(1000, "[\"sh\", \"-c\", \"exit 4\"]"));
    let answer = site.reload().await;
    let body = answer.json();
    assert_eq!(
        (answer.status, &body["status"], &body["errorType"]),
        (422, &json!("error"), &json!("execution")),
        "{body}"
    );
    assert!(body["error"].as_str().unwrap().contains("app/api did not start: error: exit code 4"), "{body}");
    let done = &body["data"];
    assert_eq!((&done["changed"], &done["updated"]), (&json!(["app/api"]), &json!(["app"])), "{body}");
    assert_eq!(done["failed"][0]["name"], "app/api", "{body}");
    assert_eq!(site.exporter.get("/-/healthy").await.status, 200);
    site.is_in_trouble("app/api").await;
    assert_eq!((site.pid("38001"), site.pids("38002").len()), (db, 0));
    let metrics = site.metrics().await;
    let children = |state| sample(&metrics, &format!("supervisor_children{{supervisor=\"app\",state=\"{state}\"}}"));
    assert_eq!(sample(&metrics, "supervisor_up{supervisor=\"app\"}"), Some(1.0));
    assert_eq!(children("running"), Some(1.0));
    assert_eq!(children("restarting").unwrap() + children("starting").unwrap(), 1.0, "{metrics}");
    // It is tried again and again; when the file is right, all is well.
    until("another attempt", async || (site.child("app/api").await["deaths_hour"].as_u64()? >= 2).then_some(())).await;
    site.write(&file(1000, "[\"sleep\", \"38002\"]"));
    assert_eq!(site.reload().await.data()["changed"], json!(["app/api"]));
    site.is_well().await;
    assert_eq!(site.pid("38001"), db);
}

// The same when the budget has no room for it: the supervisor gives up, and the answer of the reload says so.
#[tokio::test]
async fn a_supervisor_that_gives_up_on_a_reload_is_in_its_answer() {
    let other = supervisor("other", "") + &sleeper("x", 38003);
    let file = |more: &str| supervisor("app", "max_restarts = 0") + &sleeper("db", 38001) + more + &other;
    let site = Site::start_with(&file(""), no_interpreter).await;
    site.is_ready().await;
    let x = site.pid("38003");
    // Nobody learns what would have become of the one after it.
    site.write(&file(&(child("api", "[\"DIR/app\"]", "") + &sleeper("later", 38005))));
    let answer = site.reload().await;
    let body = answer.json();
    assert_eq!((answer.status, &body["errorType"]), (422, &json!("execution")), "{body}");
    assert!(body["error"].as_str().unwrap().contains("/no/such"), "{body}");
    site.is_in_trouble("app").await;
    assert_eq!((site.pids("38001").len(), site.pid("38003")), (0, x));
    // When the cause is gone, the next reload starts it again, with the same file.
    mend(&site, 38004);
    assert_eq!(site.reload().await.data()["changed"], json!(["app"]));
    until("the program", async || (site.pids("38004").len() == 1).then_some(())).await;
    site.is_well().await;
    assert_eq!((site.pids("38001").len(), site.pid("38003")), (1, x));
}

// A child that needs something for itself alone moves to a supervisor that stands earlier in the file: it is stopped there
// before it is started here, and runs once.
#[tokio::test]
async fn a_child_that_moves_runs_once() {
    let server = child(
        "srv",
        "[\"flock\", \"-n\", \"DIR/lock\", \"sleep\", \"31003\"]",
        &format!("{SLOW}\nready = {{ stable_after = \"200ms\" }}"),
    );
    let below = |parent: &str| supervisor("below", &format!("parent = \"{parent}\""));
    let (first, second) =
        (supervisor("first", "") + &sleeper("k1", 31001), supervisor("second", "") + &sleeper("k2", 31002));
    let in_second = format!("{first}{second}{server}");
    let in_first = format!("{first}{server}{second}");
    let below_second = format!("{first}{second}{}{server}", below("second"));
    let below_first = format!("{first}{second}{}{server}", below("first"));
    let site = Site::ready(&in_second).await;
    let kept = [site.pid("31001"), site.pid("31002")];
    let moves = [
        (&in_first, "first/srv", "second/srv"),
        (&in_second, "second/srv", "first/srv"),
        (&below_second, "second/below", "second/srv"),
        (&below_first, "first/below", "second/below"),
        (&in_first, "first/srv", "first/below"),
    ];
    for (file, to, from) in moves {
        let old = site.pid("31003");
        site.write(file);
        let done = site.reload().await.data();
        assert_eq!((&done["added"], &done["removed"]), (&json!([to]), &json!([from])), "{done}");
        assert_ne!(site.pid("31003"), old);
        assert!(!is_alive(old.into()));
        assert_eq!([site.pid("31001"), site.pid("31002")], kept);
        site.is_well().await;
        let (again, pid) = (site.reload().await.data(), site.pid("31003"));
        assert_eq!(again, json!({"added":[],"removed":[],"changed":[],"updated":[],"failed":[],"waiting":[]}));
        assert_eq!(site.pid("31003"), pid);
    }
}

/// A program whose interpreter is missing: it can be found, and not be run.
fn no_interpreter(directory: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let program = directory.join("broken");
    std::fs::write(&program, "#!/no/such\n").unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    symlink("broken", directory.join("app")).unwrap();
}

/// Gives that program its interpreter. It then becomes a `sleep`.
fn mend(site: &Site, seconds: u32) {
    use std::os::unix::fs::PermissionsExt;
    let program = site.path("works");
    std::fs::write(&program, format!("#!/bin/sh\nexec sleep {seconds}\n")).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    symlink("works", site.path("next")).unwrap();
    std::fs::rename(site.path("next"), site.path("app")).unwrap();
}

// A new child that cannot start at a reload stays wanted: the next reload tries it again although the file has not changed.
#[tokio::test]
async fn a_reload_tries_again_what_did_not_start() {
    let file = supervisor("g", "max_restarts = 1000") + &sleeper("a", 34001);
    let site = Site::start_with(&file, no_interpreter).await;
    site.is_ready().await;
    let a = site.pid("34001");
    site.write(&(file + &child("b", "[\"DIR/app\"]", SLOW)));
    for attempt in 1..=3 {
        let answer = site.reload().await;
        let body = answer.json();
        assert_eq!((answer.status, &body["errorType"]), (422, &json!("execution")), "{body}");
        let said = body["error"].as_str().unwrap();
        assert!(said.contains("g/b did not start") && said.contains("/no/such"), "{body}");
        let list = if attempt == 1 { "added" } else { "changed" };
        assert_eq!(body["data"][list], json!(["g/b"]), "{body}");
        let b = site.child("g/b").await;
        assert_eq!((&b["state"], &b["deaths_hour"]), (&json!("restarting"), &json!(attempt)), "{b}");
        site.is_in_trouble("g/b").await;
        assert_eq!(sample(&site.metrics().await, "restart_exporter_config_last_reload_successful"), Some(0.0));
    }
    mend(&site, 34003);
    assert_eq!(site.reload().await.data()["changed"], json!(["g/b"]));
    until("the program", async || (site.pids("34003").len() == 1).then_some(())).await;
    site.is_well().await;
    assert_eq!(sample(&site.metrics().await, "restart_exporter_config_last_reload_successful"), Some(1.0));
    // Nothing is left to be done.
    let b = site.pid("34003");
    assert_eq!(site.reload().await.data()["changed"], json!([]));
    assert_eq!((site.pid("34001"), site.pid("34003")), (a, b));
}

// Such a child can also be started by hand, without a reload.
#[tokio::test]
async fn what_did_not_start_at_a_reload_can_be_started_by_hand() {
    let file = supervisor("g", "max_restarts = 1000") + &sleeper("a", 34001);
    let site = Site::start_with(&file, no_interpreter).await;
    site.is_ready().await;
    site.write(&(file + &child("b", "[\"DIR/app\"]", SLOW)));
    assert_eq!(site.reload().await.status, 422);
    let refused = site.exporter.post("/api/v1/restart_child?supervisor=g&child=b").await;
    assert_eq!((refused.status, &refused.json()["errorType"]), (422, &json!("execution")), "{}", refused.body);
    mend(&site, 34003);
    let started = site.exporter.post("/api/v1/restart_child?supervisor=g&child=b").await.data();
    until("the program", async || (site.pids("34003").len() == 1).then_some(())).await;
    assert_eq!(started["child_pid"], site.pid("34003").to_string());
    site.is_well().await;
}

// A whole new supervisor below another is part of the answer: what did not start in it is named.
#[tokio::test]
async fn a_failure_in_a_new_supervisor_is_in_the_answer() {
    let file = supervisor("top", "max_restarts = 1000") + &sleeper("a", 34001);
    for (name, path) in [("below", "top/below"), ("other", "other")] {
        let site = Site::start_with(&file, no_interpreter).await;
        site.is_ready().await;
        let parent = if name == "below" { "parent = \"top\"" } else { "" };
        let leaf = supervisor("leaf", &format!("parent = \"{name}\"")) + &child("c", "[\"DIR/app\"]", SLOW);
        site.write(&(file.clone() + &supervisor(name, parent) + &sleeper("b", 34002) + &leaf));
        let answer = site.reload().await;
        let body = answer.json();
        assert_eq!((answer.status, &body["errorType"]), (422, &json!("execution")), "{path}: {body}");
        assert_eq!(body["data"]["added"], json!([path]), "{body}");
        assert_eq!(body["data"]["failed"][0]["name"], format!("{path}/leaf/c"), "{body}");
        site.is_in_trouble(&format!("{path}/leaf/c")).await;
        assert_eq!(site.pids("34002").len(), 1);
    }
}

// Numbers are taken over in place: no child is touched, and the window keeps what was charged.
#[tokio::test]
async fn a_budget_changes_in_place() {
    let file = |keys: &str, more: &str| {
        supervisor("payments", keys)
            + &child("db", "[\"sleep\", \"32001\"]", &format!("backoff = \"none\"\n{more}"))
            + &sleeper("api", 32002)
    };
    let site = Site::ready(&file("max_restarts = 3\nmax_seconds = 3600", "")).await;
    let killed = site.pid("32001");
    rustix::process::kill_process(rustix::process::Pid::from_raw(killed as i32).unwrap(), Signal::KILL).unwrap();
    until("the restart", async || (site.child("payments/db").await["restarts"] == 1).then_some(())).await;
    let pids = [site.pid("32001"), site.pid("32002")];
    site.write(&file("max_restarts = 10\nmax_seconds = 3600", ""));
    let done = site.reload().await.data();
    assert_eq!((&done["updated"], &done["changed"]), (&json!(["payments"]), &json!([])), "{done}");
    let shown = site.supervisor("payments").await;
    assert_eq!((&shown["max_restarts"], &shown["restarts_left"]), (&json!(10), &json!(9)), "{shown}");
    // So are those of a child.
    let more = "shutdown = \"7s\"\nok_exit_codes = [3]\nlast_output = { lines = 3 }\nrestart = \"transient\"";
    site.write(&file("max_restarts = 10\nmax_seconds = 7200", more));
    let done = site.reload().await.data();
    assert_eq!((&done["updated"], &done["changed"]), (&json!(["payments", "payments/db"]), &json!([])), "{done}");
    assert_eq!([site.pid("32001"), site.pid("32002")], pids);
    let shown = site.supervisor("payments").await;
    assert_eq!((&shown["max_seconds"], &shown["restarts_left"]), (&json!(7200), &json!(9)), "{shown}");
    assert_eq!(shown["children"][0]["restart"], "transient", "{shown}");
    let metrics = site.metrics().await;
    let window = sample(&metrics, "supervisor_restart_intensity_window_seconds{supervisor=\"payments\"}");
    assert_eq!(window, Some(7200.0));
    site.is_well().await;
}

// While a child is waited for, everybody who is asked says what for, for how long and how long it may take, and which
// children wait behind it. A reload is taken meanwhile, and mends a wrong probe.
#[tokio::test]
async fn a_start_is_seen_and_can_be_mended() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let file = |probe: &str| {
        supervisor("g", "")
            + &sleeper("first", 7771)
            + &child("stuck", "[\"sleep\", \"7772\"]", &format!("ready = {{ {probe}, timeout = \"5m\" }}"))
            + &sleeper("third", 7773)
    };
    let probe = format!("tcp = \"127.0.0.1:{port}\"");
    let site = Site::start(&file(&probe)).await;
    site.child_is("g/stuck", "starting").await;
    let awaited = format!("tcp 127.0.0.1:{port}");
    let shown = until("the progress", async || {
        Some(site.child("g/stuck").await).filter(|child| child["progress"]["elapsed_ms"].as_u64() >= Some(1000))
    })
    .await;
    let progress = &shown["progress"];
    assert_eq!((&progress["waits_for"], &progress["limit_ms"]), (&json!(awaited), &json!(300_000)), "{shown}");
    assert_eq!((&shown["pid"], &shown["health"]), (&json!(null), &json!("starting")), "{shown}");
    let third = site.child("g/third").await;
    assert_eq!((&third["state"], &third["progress"]["waits_for"]), (&json!("waiting"), &json!("stuck")), "{third}");
    assert_eq!(site.child("g/first").await["state"], "running");
    site.is_in_trouble("g/stuck").await;
    let said = site.status().1;
    assert!(said.contains(&awaited) && said.contains("5m") && said.contains("g/third"), "{said}");
    let why = site.ask(&["why", "g/stuck"]);
    assert!(why.status.success() && why.stdout.contains(&awaited), "{}{}", why.stdout, why.stderr);
    let page = site.exporter.get("/").await.body;
    assert!(page.contains(&awaited) && page.contains("third"), "{page}");
    let metrics = site.metrics().await;
    for (state, count) in [("waiting", 1.0), ("starting", 1.0), ("running", 1.0), ("restarting", 0.0), ("stopped", 0.0)]
    {
        let series = format!("supervisor_children{{supervisor=\"g\",state=\"{state}\"}}");
        assert_eq!(sample(&metrics, &series), Some(count), "{series}");
    }
    assert_eq!((site.pids("7771").len(), site.pids("7773").len()), (1, 0));

    // The same file: there is nothing to be done.
    let first = site.pid("7771");
    assert_eq!(site.reload().await.data()["changed"], json!([]));
    site.child_is("g/stuck", "starting").await;
    site.write(&file("exec = [\"true\"], interval = \"10ms\""));
    let done = site.reload().await.data();
    assert_eq!(done["changed"], json!(["g/stuck"]), "{done}");
    site.is_ready().await;
    assert_eq!((site.pid("7771"), site.pids("7772").len(), site.pids("7773").len()), (first, 1, 1));
    site.is_well().await;
}

// A supervisor that gave up and is then taken out of the file, or gets another name, is no trouble any more: nobody wants
// it. So is one below another.
#[tokio::test]
async fn a_supervisor_that_gave_up_and_is_not_wanted_any_more_is_no_trouble() {
    let file = |top: &str, below: &str, command: &str| {
        supervisor(top, "max_restarts = 0")
            + &sleeper("x", 39001)
            + &supervisor(below, &format!("parent = \"{top}\"\nmax_restarts = 0"))
            + &child("c", command, "")
            + &supervisor("other", "")
            + &sleeper("y", 39002)
    };
    let site = Site::start(&file("a", "b", "[\"false\"]")).await;
    until("a gave up", async || (site.supervisor("a").await["health"] == "gave_up").then_some(())).await;
    site.is_in_trouble("a").await;
    for (top, below) in [("a", "c"), ("d", "c")] {
        site.write(&file(top, below, "[\"sleep\", \"39003\"]"));
        assert_eq!(site.reload().await.status, 200);
        site.is_well().await;
        assert_eq!(site.sleeps().len(), 3);
    }
    // How it ended is still known.
    let why = site.ask(&["why", "a/b"]);
    assert!(why.status.success() && why.stdout.contains("gave up"), "{}{}", why.stdout, why.stderr);
    // One that comes back and gives up again is trouble again.
    site.write(&file("a", "b", "[\"false\"]"));
    let _ = site.reload().await;
    until("a gave up again", async || (site.supervisor("a").await["health"] == "gave_up").then_some(())).await;
    site.is_in_trouble("a").await;
}

/// A child that does not hear SIGTERM.
fn deaf(id: &str, shutdown: &str) -> String {
    let script = format!("trap '' TERM; echo up > {id}; while :; do sleep 0.05; done");
    child(id, &format!("[\"sh\", \"-c\", {script:?}]"), &format!("shutdown = \"{shutdown}\""))
}

// A slow stop says who is waited for, and each kill after a timeout has a line and counts as one. What is asked meanwhile is
// that the child is stopping, not that all is well.
#[tokio::test]
async fn a_slow_stop_says_who_is_waited_for_and_who_is_killed() {
    // Of the second only the rest of its group has to be killed.
    let script = "(trap '' TERM; while :; do sleep 0.05; done) & echo up > rest; trap 'exit 0' TERM; while :; do sleep 0.05; done";
    let rest = child("rest", &format!("[\"sh\", \"-c\", {script:?}]"), "shutdown = \"1500ms\"");
    let file = supervisor("g", "") + &sleeper("last", 8001) + &deaf("one", "1500ms") + &rest + &deaf("two", "3s");
    let mut site = Site::ready(&file).await;
    for id in ["one", "rest", "two"] {
        until("it is deaf", async || site.path(id).exists().then_some(())).await;
    }
    site.exporter.signal(Signal::TERM);
    let line = site.exporter.line_with("waiting for a child to stop").await;
    assert!(line.contains("supervisor=g child=two killed_in="), "{line}");
    let two = site.child("g/two").await;
    assert_eq!((&two["state"], &two["progress"]["limit_ms"]), (&json!("stopping"), &json!(3000)), "{two}");
    let (_, said) = site.status();
    assert!(said.to_lowercase().contains("stopping"), "{said}");
    assert_eq!(site.exporter.get("/-/ready").await.status, 503);
    let mut killed = Vec::new();
    for id in ["two", "rest", "one"] {
        killed.push(site.exporter.line_with("and is killed").await);
        assert!(killed.last().unwrap().contains(&format!("child={id}")), "{killed:?}");
        if id == "rest" {
            let timeouts = "supervisor_child_terminations_total{supervisor=\"g\",reason=\"timeout\"}";
            // Its line stands in the log before the supervisor has counted it.
            until("two timeouts", async || (sample(&site.metrics().await, timeouts) == Some(2.0)).then_some(())).await;
        }
    }
    let (status, log) = site.exporter.ended().await;
    assert_eq!(status.code(), Some(0), "{log:#?}");
    let waits: Vec<_> = log.iter().filter(|line| line.contains("waiting for a child to stop")).collect();
    assert!(waits.len() == 3 && !waits.iter().any(|line| line.contains("child=last")), "{waits:#?}");
}

// A process that has left its group with `setsid` is ended by an ordered stop as well.
#[tokio::test]
async fn an_ordered_stop_ends_a_session_leaver() {
    let script = "setsid sleep 37001 & exec sleep 37002";
    let site = Site::ready(&(supervisor("g", "") + &child("a", &format!("[\"sh\", \"-c\", {script:?}]"), ""))).await;
    until("both", async || (site.sleeps().len() == 2).then_some(())).await;
    site.exporter.signal(Signal::TERM);
    let (status, log) = site.exporter.ended().await;
    assert_eq!((status.code(), super::sleeps_in(site.directory.path())), (Some(0), Vec::new()), "{log:#?}");
}

// A file without a supervisor may be half of a write: it is an error, and nothing is stopped.
#[tokio::test]
async fn an_empty_file_stops_nothing() {
    let site = Site::ready(&(supervisor("g", "") + &sleeper("a", 40001))).await;
    let a = site.pid("40001");
    for text in ["", "\n", "# nothing\n"] {
        site.write(text);
        let answer = site.reload().await;
        let body = answer.json();
        assert_eq!((answer.status, &body["errorType"]), (422, &json!("bad_data")), "{body}");
        assert!(body["error"].as_str().unwrap().contains("no supervisor"), "{body}");
        let plan = site.ask(&["reload", "--dry-run"]);
        assert_eq!(plan.status.code(), Some(2), "{}", plan.stdout);
        assert_eq!(site.pid("40001"), a);
        site.is_well().await;
        assert_eq!(sample(&site.metrics().await, "restart_exporter_config_last_reload_successful"), Some(0.0));
    }
}

// A file that is never read to its end keeps nobody waiting but those who asked for the reload: scrapes, signals and the
// end go on.
#[tokio::test]
async fn a_file_that_cannot_be_read_stops_nothing_else() {
    let site = Site::ready(&(supervisor("a", "") + &sleeper("x", 87001))).await;
    let file = site.path("tree.toml");
    std::fs::remove_file(&file).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&file).status().unwrap().success());
    for _ in 0..8 {
        site.exporter.signal(Signal::HUP);
        assert!(site.metrics().await.contains("supervisor_up{supervisor=\"a\"} 1"));
    }
    site.exporter.signal(Signal::TERM);
    let (status, log) = site.exporter.ended().await;
    assert_eq!(status.code(), Some(0), "{log:#?}");
}
