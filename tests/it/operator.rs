//! What an operator does to a running program: restart, terminate, reload, signal; and who may.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::world::{Running, is_alive};
use crate::world::{exchange, request_unix};
use crate::world::{sample, until};

const TREE: &str = r#"
    [[supervisor]]
    name = "top"
    strategy = "rest_for_one"
    [[supervisor.child]]
    id = "a"
    command = ["sleep", "1000"]
    [[supervisor.child]]
    id = "b"
    command = ["sleep", "2000"]

    [[supervisor]]
    name = "below"
    parent = "top"
    [[supervisor.child]]
    id = "c"
    command = ["sleep", "3000"]
"#;

fn pid(pids: &[(String, u64)], id: &str) -> u64 {
    pids.iter().find(|(child, _)| child == id).unwrap().1
}

async fn state(exporter: &Running, supervisor: &str, child: &str) -> Value {
    let supervisors = exporter.data("/api/v1/supervisors").await;
    let supervisor = supervisors.as_array().unwrap().iter().find(|each| each["name"] == supervisor).unwrap();
    let child = supervisor["children"].as_array().unwrap().iter().find(|each| each["id"] == child).unwrap();
    child["state"].clone()
}

// === Who may ===

// Closed by default: over TCP nothing can be changed, and nothing is.
#[tokio::test]
async fn over_tcp_the_admin_api_is_off_unless_enabled() {
    let directory = tempfile::tempdir().unwrap();
    let exporter = Running::file(directory.path(), TREE).await;
    let before = exporter.pids().await;
    for path in [
        "/api/v1/terminate_child?supervisor=top&child=a",
        "/api/v1/restart_child?supervisor=top&child=a",
        "/api/v1/marks?text=x",
        "/-/reload",
    ] {
        let answer = exporter.post(path).await;
        assert_eq!((answer.status, &answer.json()["errorType"]), (403, &json!("forbidden")), "{path}");
    }
    assert_eq!(exporter.pids().await, before);
}

// Whoever can open the socket may use the admin API; nobody but its owner can.
#[tokio::test]
async fn over_a_unix_socket_the_admin_api_is_on() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("socket");
    let listen = format!("--web.listen-address=unix:{}", socket.display());
    let exporter = Running::file_with(directory.path(), TREE, &[&listen]).await;
    until("the socket", async || socket.exists().then_some(())).await;
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    until("ready", async || (request_unix(&socket, "GET", "/-/ready").await.ok()?.status == 200).then_some(())).await;

    let old = pid(&exporter.pids().await, "a");
    let stopped = request_unix(&socket, "POST", "/api/v1/terminate_child?supervisor=top&child=a").await.unwrap();
    assert_eq!(stopped.data(), json!({}));
    assert!(!is_alive(old));
    assert_eq!(state(&exporter, "top", "a").await, "stopped");
    let started = request_unix(&socket, "POST", "/api/v1/restart_child?supervisor=top&child=a").await.unwrap().data();
    assert_eq!(started["child_pid"], json!(pid(&exporter.pids().await, "a").to_string()));

    exporter.signal(Signal::TERM);
    exporter.ended().await;
    assert!(!socket.exists(), "the socket was left behind");
}

// Never cross-site: a page elsewhere must not reach the API through its visitor's browser.
#[tokio::test]
async fn pages_of_other_sites_change_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let exporter = Running::file_with(directory.path(), TREE, &["--web.enable-admin-api"]).await;
    let post = |headers: &str| {
        let address = exporter.address;
        let message = format!(
            "POST /api/v1/terminate_child?supervisor=top&child=b HTTP/1.1\r\nHost: {address}\r\n{headers}Connection: close\r\n\r\n"
        );
        async move { exchange(address, &message).await.unwrap().status }
    };
    until("ready", async || (exporter.get("/-/ready").await.status == 200).then_some(())).await;
    assert_eq!(post("Origin: https://evil.example\r\n").await, 403);
    assert_eq!(post("Sec-Fetch-Site: cross-site\r\n").await, 403);
    assert_eq!(state(&exporter, "top", "b").await, "running");
    assert_eq!(post(&format!("Origin: http://{}\r\n", exporter.address)).await, 200);
    assert_eq!(state(&exporter, "top", "b").await, "stopped");
}

// "What changed just before?": a deploy is noted in the history of every supervisor; what cannot be noted is said.
#[tokio::test]
async fn a_mark_stands_in_every_history() {
    let directory = tempfile::tempdir().unwrap();
    let exporter = Running::file_with(directory.path(), TREE, &["--web.enable-admin-api"]).await;
    until("ready", async || (exporter.get("/-/ready").await.status == 200).then_some(())).await;
    let marked = exporter.post("/api/v1/marks?text=deploy+api+v1.8.2").await.data();
    assert_eq!(marked["text"], "deploy api v1.8.2");
    for supervisor in ["top", "top/below"] {
        let history = exporter.data(&format!("/api/v1/history?supervisor={supervisor}")).await;
        let mark = &history["events"][0];
        let shown = (&mark["event_type"], &mark["text"], &mark["timestamp"], &mark["supervisor_name"]);
        assert_eq!(shown, (&json!("mark"), &marked["text"], &marked["timestamp"], &Value::Null));
        assert_eq!(history["total"], 0);
    }
    for (text, part) in [("", "empty"), ("%20", "empty"), ("a%0Ab", "one line"), (&"x".repeat(257), "257 bytes")] {
        let answer = exporter.post(&format!("/api/v1/marks?text={text}")).await;
        assert_eq!((answer.status, &answer.json()["errorType"]), (400, &json!("bad_data")), "{text}");
        assert!(answer.json()["error"].as_str().unwrap().contains(part), "{}", answer.json());
    }
    assert_eq!(exporter.get("/api/v1/marks").await.status, 405);
}

// What is not there is not found, with the names that come near it; a question that says too little is wrong.
#[tokio::test]
async fn an_order_for_what_is_not_there_names_what_is_near() {
    let directory = tempfile::tempdir().unwrap();
    let exporter = Running::file_with(directory.path(), TREE, &["--web.enable-admin-api"]).await;
    until("ready", async || (exporter.get("/-/ready").await.status == 200).then_some(())).await;
    let table = [
        ("restart?supervisor=top&child=z", 404, "not_found", "nothing is named \"top/z\"; the nearest names are top/"),
        ("restart?supervisor=tob", 404, "not_found", "top"),
        ("restart_child?supervisor=nobody&child=a", 404, "not_found", "nobody/a"),
        ("stop?supervisor=top/belov", 404, "not_found", "top/below"),
        ("start?child=a", 400, "bad_data", "supervisor"),
        ("terminate_child?child=a", 400, "bad_data", "supervisor"),
    ];
    for (path, status, error_type, part) in table {
        let answer = exporter.post(&format!("/api/v1/{path}")).await;
        let error = answer.json();
        assert_eq!((answer.status, error["errorType"].as_str()), (status, Some(error_type)), "{path}: {error}");
        assert!(error["error"].as_str().unwrap().contains(part), "{path}: {error}");
    }
}

// Never two live copies of a child: fifty requests at once to start or to restart it leave one.
#[tokio::test]
async fn fifty_requests_at_once_leave_one_copy() {
    let directory = tempfile::tempdir().unwrap();
    let exporter = Running::file_with(directory.path(), TREE, &["--web.enable-admin-api"]).await;
    until("ready", async || (exporter.get("/-/ready").await.status == 200).then_some(())).await;
    exporter.post("/api/v1/stop?supervisor=top&child=a").await.data();
    // A restart that another one overtakes is refused: what it started is gone.
    for (order, allowed) in [("start", &[200][..]), ("restart", &[200, 409])] {
        let path = format!("/api/v1/{order}?supervisor=top&child=a");
        let many = async || {
            let mut codes = Vec::new();
            for _ in 0..25 {
                codes.push(exporter.post(&path).await.status);
            }
            codes
        };
        let (left, right) = tokio::join!(many(), many());
        let answers: Vec<_> = left.into_iter().chain(right).collect();
        assert!(answers.iter().all(|status| allowed.contains(status)), "{order}: {answers:?}");
        assert_eq!(copies(&exporter, "1000"), 1, "{order}");
    }
}

/// Running children of the exporter with this argument.
fn copies(exporter: &Running, argument: &str) -> usize {
    let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", exporter.pid())).unwrap_or_default();
    let threads = std::fs::read_dir(format!("/proc/{}/task", exporter.pid())).unwrap();
    let all: Vec<String> = threads
        .filter_map(|thread| std::fs::read_to_string(thread.ok()?.path().join("children")).ok())
        .chain([children])
        .flat_map(|list| list.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
        .collect::<std::collections::BTreeSet<_>>()
        .into_iter()
        .collect();
    let command = |pid: &String| std::fs::read(Path::new("/proc").join(pid).join("cmdline")).unwrap_or_default();
    all.iter().filter(|pid| command(pid).split(|byte| *byte == 0).any(|word| word == argument.as_bytes())).count()
}

// === Reload ===

// Only what changed is touched, in the right place of the order, and none of it is a failure.
#[tokio::test]
async fn a_reload_touches_only_what_changed() {
    let directory = tempfile::tempdir().unwrap();
    let mut exporter = Running::file(directory.path(), TREE).await;
    let before = exporter.pids().await;
    let changed = TREE.replace("2000", "2001").replace(
        "    [[supervisor]]\n    name = \"below\"",
        "    [[supervisor.child]]\n    id = \"d\"\n    command = [\"sleep\", \"4000\"]\n\n    [[supervisor]]\n    name = \"below\"",
    );
    let more = format!(
        "{changed}\n[[supervisor]]\nname = \"new\"\n[[supervisor.child]]\nid = \"e\"\ncommand = [\"sleep\", \"5000\"]\n"
    );
    std::fs::write(directory.path().join("tree.toml"), more).unwrap();
    exporter.signal(Signal::HUP);
    let line = exporter.line_with("msg=reloaded").await;
    for part in ["top/d", "new", "changed=\"[\\\"top/b\\\"]\""] {
        assert!(line.contains(part), "{part} is not in {line}");
    }
    let after = exporter.pids().await;
    assert_eq!((pid(&after, "a"), pid(&after, "c")), (pid(&before, "a"), pid(&before, "c")), "untouched");
    assert_ne!(pid(&after, "b"), pid(&before, "b"));
    assert!(!is_alive(pid(&before, "b")));
    pid(&after, "d");
    pid(&after, "e");
    let stats = exporter.data("/api/v1/stats").await;
    assert_eq!(stats["total_failures"], 0, "{stats}");
    let metrics = exporter.get("/metrics").await.body;
    let requested = r#"supervisor_child_restarts_total{supervisor="top",child="b",cause="requested"}"#;
    assert_eq!(sample(&metrics, requested), Some(1.0));

    // What is gone from the file is stopped, a whole supervisor with all below it.
    std::fs::write(directory.path().join("tree.toml"), "[[supervisor]]\nname = \"new\"\n").unwrap();
    exporter.signal(Signal::HUP);
    exporter.line_with("removed=\"[\\\"top\\\", \\\"new/e\\\"]\"").await;
    assert!(after.iter().all(|(_, pid)| !is_alive(*pid)), "{after:?}");
    assert_eq!(exporter.get("/-/ready").await.status, 200, "the program goes on");
}

// A reload that is asked for while the children still start is done when they have, and ends nothing.
#[tokio::test]
async fn a_reload_is_not_lost_while_children_start() {
    let directory = tempfile::tempdir().unwrap();
    let go = directory.path().join("go");
    let slow = format!(
        "[[supervisor]]\nname = \"top\"\n[[supervisor.child]]\nid = \"slow\"\ncommand = [\"sleep\", \"1000\"]\n\
         ready = {{ exec = [\"test\", \"-e\", \"{}\"], interval = \"10ms\" }}\n",
        go.display()
    );
    let mut exporter = Running::file_unready(directory.path(), &slow).await;
    until("the start", async || (exporter.data("/api/v1/supervisors").await[0]["name"] == "top").then_some(())).await;
    std::fs::write(directory.path().join("tree.toml"), slow.replace("1000", "2000")).unwrap();
    exporter.signal(Signal::HUP);
    std::fs::write(go, "").unwrap();
    exporter.line_with("changed=\"[\\\"top/slow\\\"]\"").await;
}

// A broken file changes nothing and says why.
#[tokio::test]
async fn a_broken_file_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let exporter = Running::file_with(directory.path(), TREE, &["--web.enable-admin-api"]).await;
    until("ready", async || (exporter.get("/-/ready").await.status == 200).then_some(())).await;
    let before = exporter.pids().await;
    std::fs::write(directory.path().join("tree.toml"), TREE.replace("command", "comand")).unwrap();
    let answer = exporter.post("/-/reload").await;
    let error = answer.json();
    assert_eq!((answer.status, error["errorType"].as_str()), (422, Some("bad_data")), "{error}");
    assert!(error["error"].as_str().unwrap().contains("tree.toml:7:5: top/a: comand: unknown field"), "{error}");
    // Neither does one that was emptied by mistake.
    std::fs::write(directory.path().join("tree.toml"), "").unwrap();
    let answer = exporter.post("/-/reload").await;
    assert!(answer.status == 422 && answer.body.contains("no supervisor in the file"), "{}", answer.body);
    assert_eq!(exporter.pids().await, before);
}

// === Signals ===

// A second signal does not wait for a stubborn child; the child goes all the same.
#[tokio::test]
async fn a_second_signal_ends_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let tree = "[[supervisor]]\nname = \"top\"\n[[supervisor.child]]\nid = \"stubborn\"\nshutdown = \"infinity\"\n\
                command = [\"sh\", \"-c\", \"trap '' TERM; echo trapped >&2; while :; do sleep 1; done\"]\n";
    let mut exporter = Running::file(directory.path(), tree).await;
    exporter.line_with("trapped").await;
    let child = pid(&exporter.pids().await, "stubborn");
    exporter.signal(Signal::TERM);
    exporter.line_with("msg=stopping").await;
    exporter.signal(Signal::TERM);
    let (status, log) = exporter.ended().await;
    assert_eq!(status.code(), Some(1), "{log:?}");
    until("the child to go", async || (!is_alive(child)).then_some(())).await;
}

// The last scrape must still see that a supervisor gave up: the endpoint stays for the exit delay.
#[tokio::test]
async fn the_endpoint_stays_up_for_the_exit_delay() {
    let directory = tempfile::tempdir().unwrap();
    let tree = "[[supervisor]]\nname = \"top\"\nmax_restarts = 1\n[[supervisor.child]]\nid = \"c\"\ncommand = [\"false\"]\nbackoff = \"none\"\n";
    let mut exporter =
        Running::file_with(directory.path(), tree, &["--exit.delay=1h", "--exit.on-give-up=always"]).await;
    exporter.line_with("supervisor gave up").await;
    let metrics = exporter.get("/metrics").await.body;
    let gave_up = r#"supervisor_terminations_total{supervisor="top",reason="max_intensity"}"#;
    assert_eq!(sample(&metrics, gave_up), Some(1.0));
    until("not ready", async || (exporter.get("/-/ready").await.status == 503).then_some(())).await;
    // A signal ends the wait, and the failure stays the outcome.
    exporter.signal(Signal::TERM);
    let (status, log) = exporter.ended().await;
    assert_eq!(status.code(), Some(1), "{log:?}");
    let last = log.last().unwrap();
    for part in ["level=error", "max_intensity", "more than 1 restart in 5 s", "\\\"c\\\"", "exit code 1"] {
        assert!(last.contains(part), "{part} is not in {last}");
    }
}

// Orphans of the children become ours, and none stays a zombie.
#[tokio::test]
async fn orphans_are_reaped() {
    let directory = tempfile::tempdir().unwrap();
    let orphan = directory.path().join("orphan");
    // In a session of its own, so that it outlives the group of its parent.
    let script = format!("setsid sh -c 'echo $$ > {0}.new; mv {0}.new {0}; sleep 0.2' & sleep 1000", orphan.display());
    let tree = format!(
        "[[supervisor]]\nname = \"top\"\n[[supervisor.child]]\nid = \"c\"\ncommand = [\"sh\", \"-c\", {script:?}]\nrestart = \"temporary\"\n"
    );
    let exporter = Running::file(directory.path(), &tree).await;
    let number: u64 = until("the orphan", async || std::fs::read_to_string(&orphan).ok()?.trim().parse().ok()).await;
    let parent = pid(&exporter.pids().await, "c");
    rustix::process::kill_process(rustix::process::Pid::from_raw(parent as i32).unwrap(), Signal::KILL).unwrap();
    // Gone for good: a zombie would still be in /proc.
    until("the orphan to be reaped", async || (!Path::new(&format!("/proc/{number}")).exists()).then_some(())).await;
    assert_eq!(exporter.get("/-/healthy").await.status, 200);
}
