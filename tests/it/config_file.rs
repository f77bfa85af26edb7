//! The TOML file from outside: `check-config`, and what `run` makes of a file that is right or wrong.

use std::path::Path;

use rustix::process::Signal;

use crate::world::{Ended, Running, run_to_end, sample, until};

/// A tree with every key, over two supervisors.
const EVERY_KEY: &str = r#"
[[supervisor]]
name = "payments"
strategy = "rest_for_one"
max_restarts = 10
max_seconds = 60
auto_shutdown = "all_significant"

[[supervisor.child]]
id = "store"
command = ["sleep", "600.0625"]
cwd = "/"
env = { WORD = "s3cret" }
restart = "transient"
shutdown = "1s 500ms"
stop_signal = "SIGINT"
significant = true

[[supervisor.child]]
id = "api"
command = ["sleep", "601"]
shutdown = "brutal_kill"
backoff = { initial = "1s", max = "5m", factor = 3, jitter = 0.5, reset_after = "1m" }

[[supervisor]]
name = "web"
"#;

fn check(directory: &Path, text: &str) -> (String, Ended) {
    let file = directory.join("tree.toml").display().to_string();
    std::fs::write(&file, text).unwrap();
    let ended = run_to_end(&["check-config", &file]);
    (file, ended)
}

// A file that is right: exit status 0, and how many supervisors and children it has. A nested supervisor is a supervisor,
// not a child.
#[test]
fn a_right_file_is_checked_without_a_complaint() {
    let directory = tempfile::tempdir().unwrap();
    let one = "[[supervisor]]\nname = \"a\"\n[[supervisor.child]]\nid = \"c\"\ncommand = [\"sh\"]\n";
    let below = "[[supervisor]]\nname = \"b\"\nparent = \"a\"\n[[supervisor]]\nname = \"c-1\"\nparent = \"b\"\n";
    let table = [
        (EVERY_KEY.to_owned(), "2 supervisors, 2 children"),
        (one.to_owned(), "1 supervisor, 1 child"),
        ("[[supervisor]]\nname = \"a\"\n".to_owned(), "1 supervisor, 0 children"),
        (one.to_owned() + below, "3 supervisors, 1 child"),
    ];
    for (text, counted) in table {
        let (file, ended) = check(directory.path(), &text);
        assert_eq!((ended.status.code(), ended.stdout.as_str()), (Some(0), ""), "{}", ended.stderr);
        assert_eq!(ended.stderr.lines().next(), Some(&*format!("{file}: {counted}, no errors")));
    }
}

// A budget that can never be used up is said to be so, in one sentence for each supervisor: one child waits 1 s, 2 s and 4 s,
// which is longer than a window of 5 s has room for.
#[test]
fn a_budget_that_can_never_run_out_is_said_to_be_so() {
    let directory = tempfile::tempdir().unwrap();
    let tree = |budget: &str, backoff: &str| {
        format!(
            "[[supervisor]]\nname = \"a\"\n{budget}\n[[supervisor.child]]\nid = \"c\"\ncommand = [\"sh\"]\n{backoff}\n"
        )
    };
    let table = [
        (tree("", ""), true),
        (tree("max_restarts = 2", ""), false),
        (tree("max_seconds = 60", ""), false),
        (tree("", "backoff = \"none\""), false),
        (tree("", "backoff = { initial = \"100ms\" }"), false),
        (tree("", "restart = \"temporary\""), false),
        (tree("", "") + "[[supervisor.child]]\nid = \"d\"\ncommand = [\"sh\"]\n", false),
    ];
    for (text, never) in table {
        let (file, ended) = check(directory.path(), &text);
        let sentence = "a never gives up: its children's backoffs are too long to use up its restart budget";
        assert_eq!(ended.stderr.lines().nth(1), never.then_some(&*format!("{file}: {sentence}")), "{text}");
    }
}

// A file that is wrong: exit status 1, and one line with file, line, column and key, as compilers write it.
#[test]
fn a_wrong_file_is_refused_with_file_line_column_and_key() {
    let directory = tempfile::tempdir().unwrap();
    let changed = |from: &str, to: &str| {
        assert!(EVERY_KEY.contains(from), "{from}");
        EVERY_KEY.replacen(from, to, 1)
    };
    let table = [
        (changed("strategy =", "stratgy ="), "4:1: payments: stratgy: "),
        (changed("\"rest_for_one\"", "\"one_for_none\""), "4:12: payments: strategy: "),
        (changed("max_restarts = 10", "max_restarts = -1"), "5:16: payments: max_restarts: "),
        (changed("max_restarts = 10", "max_restarts = \"ten\""), "5:16: payments: max_restarts: "),
        (changed("cwd = \"/\"", "cwd = 1"), "12:7: payments/store: cwd: "),
        (changed("env = { WORD = \"s3cret\" }", "env = { WORD = 1 }"), "13:16: payments/store: env.WORD: "),
        (changed("\"1s 500ms\"", "\"now\""), "15:12: payments/store: shutdown: "),
        (changed("\"SIGINT\"", "\"SIGKILL\""), "16:15: payments/store: stop_signal: "),
        (changed("id = \"api\"", "id = \"store\""), "20:6: payments/store: id: "),
        (changed("command = [\"sleep\", \"601\"]", "command = \"sleep 601\""), "21:11: payments/api: command: "),
        (changed("command = [\"sleep\", \"601\"]\n", ""), "payments/api: "),
        (changed("name = \"web\"", "name = \"payments\""), "26:8: payments: name: "),
        (changed("name = \"web\"", "name = \"web"), "26:"),
        (changed("initial = \"1s\"", "first = \"1s\""), "23:13: payments/api: backoff.first: "),
        (changed("factor = 3", "factor = \"3\""), "payments/api: backoff.factor: "),
        (changed("factor = 3", "factor = 0.5"), "23:50: payments/api: backoff.factor: "),
        (changed("max = \"5m\"", "max = \"later\""), "payments/api: backoff.max: "),
        (changed("max = \"5m\"", "max = \"500ms\""), "23:35: payments/api: backoff.max: "),
    ];
    for (text, place) in table {
        let (file, ended) = check(directory.path(), &text);
        assert_eq!((ended.status.code(), ended.stdout.as_str()), (Some(1), ""), "{place}");
        let line = ended.stderr.lines().next().unwrap_or_default();
        let (before, after) = line.split_once(&format!("{file}:")).unwrap_or_else(|| panic!("{file} is not in {line}"));
        assert_eq!(before, "restart_exporter: ", "{line}");
        assert!(after.contains(place), "{place:?} is not in {line}");
        let mut position = after.split(':').take(2);
        assert!(position.all(|number| number.parse::<usize>().is_ok_and(|number| number > 0)), "{line}");
    }
}

// A file without a supervisor has nothing to run: both commands refuse it, as a reload does.
#[test]
fn a_file_without_a_supervisor_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let (file, ended) = check(directory.path(), "# nothing yet\n");
    let said = format!("{file}: no supervisor in the file; at least one `[[supervisor]]` is needed");
    assert_eq!((ended.status.code(), ended.stderr), (Some(1), format!("restart_exporter: {said}\n")));
    let ended = run_to_end(&["run", &file, "--web.listen-address=127.0.0.1:0"]);
    assert!(ended.status.code() == Some(1) && ended.stderr.contains(&said), "{}", ended.stderr);
}

// A file that is no text is told where it stops being one.
#[test]
fn a_file_that_is_not_utf_8_says_where() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("tree.toml");
    std::fs::write(&file, b"[[supervisor]]\nname = \"caf\xe9\"\n").unwrap();
    let ended = run_to_end(&["check-config", file.to_str().unwrap()]);
    let said =
        format!("restart_exporter: {}:2:12: the byte 0xe9 is not UTF-8; save the file as UTF-8\n", file.display());
    assert_eq!((ended.status.code(), ended.stderr), (Some(1), said));
}

// A file that cannot be read is named with the reason, by both commands alike.
#[test]
fn a_file_that_is_absent_is_named() {
    for command in ["check-config", "run"] {
        let ended = run_to_end(&[command, "no/such/tree.toml"]);
        assert_eq!(ended.status.code(), Some(1));
        assert!(ended.stderr.contains("no/such/tree.toml: No such file"), "{}", ended.stderr);
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    let ended = run_to_end(&["run", path]);
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.stderr.contains(&format!("{path}: ")), "{}", ended.stderr);
}

// A file that is wrong at its end starts nothing of its beginning, and nothing listens.
#[test]
fn run_with_a_wrong_file_starts_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (file, mark) = (directory.path().join("tree.toml"), directory.path().join("started"));
    let text = format!(
        "[[supervisor]]\nname = \"a\"\n[[supervisor.child]]\nid = \"c\"\ncommand = [\"touch\", {:?}]\n\
         [[supervisor]]\nname = \"b\"\nmax_second = 1\n",
        mark.to_str().unwrap()
    );
    std::fs::write(&file, text).unwrap();
    let ended = run_to_end(&["run", file.to_str().unwrap(), "--web.listen-address=127.0.0.1:0"]);
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.stderr.contains("tree.toml:8:1: b: max_second: unknown field"), "{}", ended.stderr);
    assert!(!ended.stderr.contains("Listening"), "{}", ended.stderr);
    assert!(!mark.exists(), "a child was started");
}

// A child that is not ready in time is a supervisor that cannot start: exit status 1, and who it was. What had started
// before is stopped in order, not killed.
#[test]
fn a_child_that_never_gets_ready_ends_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("tree.toml");
    let text = "[[supervisor]]\nname = \"elder\"\n[[supervisor.child]]\nid = \"idle\"\ncommand = [\"sleep\", \"600\"]\n\
                [[supervisor]]\nname = \"a\"\n[[supervisor.child]]\nid = \"c\"\ncommand = [\"sleep\", \"600\"]\n\
                ready = { exec = [\"false\"], interval = \"10ms\", timeout = \"100ms\" }\nstart_error = \"fail\"\n";
    std::fs::write(&file, text).unwrap();
    let arguments = ["run", file.to_str().unwrap(), "--web.listen-address=127.0.0.1:0", "--exit.on-give-up=always"];
    let ended = run_to_end(&arguments);
    assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
    let last = ended.stderr.lines().last().unwrap();
    for part in ["level=error", "not ready within 100ms", "exit status: 1", "\\\"a\\\"", "\\\"c\\\""] {
        assert!(last.contains(part), "{part} is not in {last}");
    }
    let in_order = "msg=\"supervisor ended\" supervisor=elder reason=normal";
    assert!(ended.stderr.contains(in_order), "{}", ended.stderr);
}

// A child with a backoff waits before it comes back, and says so: in the decision, and in when it will be tried next.
#[tokio::test]
async fn a_backoff_of_the_file_delays_the_restart() {
    let directory = tempfile::tempdir().unwrap();
    let text = "[[supervisor]]\nname = \"a\"\n[[supervisor.child]]\nid = \"c\"\ncommand = [\"false\"]\n\
                backoff = { initial = \"10m\", max = \"1h\", jitter = 0 }\n";
    let exporter = Running::file(directory.path(), text).await;
    let child = until("the child is waiting", async || {
        let child = exporter.data("/api/v1/supervisors").await[0]["children"][0].take();
        (child["state"] == "restarting").then_some(child)
    })
    .await;
    assert!(child["next_try_ms"].as_u64().is_some_and(|ms| (500_000..=600_000).contains(&ms)), "{child}");
    let decision = &child["last_death"]["decision"];
    assert_eq!((&decision["action"], &decision["delay_ms"]), (&"restart".into(), &600_000.into()), "{child}");
    let text = exporter.get("/metrics").await.body;
    assert_eq!(sample(&text, "supervisor_children{supervisor=\"a\",state=\"restarting\"}"), Some(1.0));
    // A wait of ten minutes does not delay the end.
    exporter.signal(Signal::TERM);
    assert_eq!(exporter.ended().await.0.code(), Some(0));
}

// What the file says is what runs: strategy, limits, argument vector, directory, environment.
#[tokio::test]
async fn a_running_tree_is_that_of_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let exporter = Running::file(directory.path(), EVERY_KEY).await;
    let supervisors = exporter.data("/api/v1/supervisors").await;
    let [payments, web] = &supervisors.as_array().unwrap()[..] else { panic!("{supervisors}") };
    assert_eq!((&payments["name"], &payments["strategy"]), (&"payments".into(), &"rest_for_one".into()));
    assert_eq!((&payments["max_restarts"], &payments["max_seconds"]), (&10.into(), &60.into()));
    assert_eq!((&web["name"], &web["max_restarts"], &web["max_seconds"]), (&"web".into(), &3.into(), &5.into()));
    assert_eq!((&web["strategy"], &web["children"]), (&"one_for_one".into(), &serde_json::json!([])));
    let children = payments["children"].as_array().unwrap();
    let shown: Vec<_> =
        children.iter().map(|child| [&child["id"], &child["restart"], &child["state"], &child["type"]]).collect();
    assert_eq!(shown, [["store", "transient", "running", "worker"], ["api", "permanent", "running", "worker"]]);

    let store = exporter.pids().await[0].1;
    let of = |what: &str| std::fs::read(format!("/proc/{store}/{what}")).unwrap();
    assert_eq!(of("cmdline"), b"sleep\x00600.0625\x00");
    assert_eq!(std::fs::read_link(format!("/proc/{store}/cwd")).unwrap(), Path::new("/"));
    assert!(of("environ").split(|byte| *byte == 0).any(|variable| variable == b"WORD=s3cret"));
    // Secrets stay where they are: neither arguments nor environment are shown.
    for path in ["/api/v1/supervisors", "/metrics", "/"] {
        let body = exporter.get(path).await.body;
        assert!(!body.contains("s3cret") && !body.contains("600.0625"), "{path}: {body}");
    }
}
