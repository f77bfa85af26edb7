//! The command line: what it takes, what it refuses, what it says, and its exit status.

use std::collections::BTreeMap;
use std::net::TcpListener;

use rustix::process::Signal;
use serde_json::Value;

use crate::world::{Ended, Running, get, is_alive, run_to_end};

/// The flags that are a contract with users' scripts.
const FLAGS: &[&str] = &[
    "--web.listen-address",
    "--web.config.file",
    "--web.systemd-socket",
    "--web.telemetry-path",
    "--history.capacity",
    "--series.retention",
    "--series.max-supervisors",
    "--series.max-children",
    "--series.max-children-per-supervisor",
    "--log.level",
    "--log.format",
];

fn code(ended: &Ended) -> i32 {
    ended.status.code().expect("ended by itself")
}

/// A line of logfmt by key.
fn logfmt(line: &str) -> BTreeMap<String, String> {
    let (mut fields, mut rest) = (BTreeMap::new(), line);
    while !rest.is_empty() {
        let (key, value) = rest.split_once('=').unwrap_or_else(|| panic!("no value at {rest:?} in {line:?}"));
        assert!(key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'), "{key:?} in {line:?}");
        let length = match value.strip_prefix('"') {
            // Up to the first quote that no backslash stands before.
            Some(quoted) => {
                let mut escaped = false;
                let end = quoted.find(|c| {
                    let ends = c == '"' && !escaped;
                    escaped = c == '\\' && !escaped;
                    ends
                });
                end.unwrap_or_else(|| panic!("no closing quote in {line:?}")) + 2
            }
            None => value.find(' ').unwrap_or(value.len()),
        };
        let text = value[..length].trim_matches('"').to_owned();
        assert_eq!(fields.insert(key.to_owned(), text), None, "{key} twice in {line:?}");
        rest = &value[length..];
        rest = if rest.is_empty() { rest } else { rest.strip_prefix(' ').expect("a space between fields") };
    }
    fields
}

// === Help and version ===

// --version says what was built from what, on standard output, in the form of the Prometheus project's programs.
#[test]
fn version_says_what_was_built_from_what() {
    for flag in ["--version", "-V"] {
        let ended = run_to_end(&[flag]);
        assert_eq!((code(&ended), ended.stderr.as_str()), (0, ""));
        let (first, rest) = ended.stdout.split_once('\n').unwrap();
        let begin = concat!("restart_exporter, version ", env!("CARGO_PKG_VERSION"), " (branch: ");
        assert!(first.starts_with(begin) && first.contains(", revision: ") && first.ends_with(')'), "{first}");
        let lines: Vec<_> = rest.lines().map(|line| line.split_once(':').unwrap()).collect();
        let names: Vec<_> = lines.iter().map(|(name, _)| name.strip_prefix("  ").unwrap()).collect();
        let known = ["build user", "build date", "rust version", "platform", "tags"];
        assert!(names.ends_with(&["rust version", "platform", "tags"]), "{rest}");
        assert!(names.iter().all(|name| known.contains(name)), "{rest}");
        assert!(lines.iter().all(|(_, value)| value.starts_with("  ") && !value.contains("unknown")), "{rest}");
        assert!(rest.contains("platform:         linux/"), "{rest}");
    }
}

// Every command knows its version, and it is that of the program.
#[test]
fn every_command_has_the_version_of_the_program() {
    let version = run_to_end(&["--version"]).stdout;
    let commands: Vec<String> = commands();
    assert!(commands.len() >= 10, "{commands:?}");
    for command in &commands {
        for flag in ["--version", "-V"] {
            let ended = run_to_end(&[command, flag]);
            assert_eq!((code(&ended), &ended.stdout, ended.stderr.as_str()), (0, &version, ""), "{command} {flag}");
        }
    }
}

/// The commands that the help lists.
fn commands() -> Vec<String> {
    let help = run_to_end(&["--help"]).stdout;
    let (_, list) = help.split_once("Commands:\n").unwrap();
    let names = list.lines().take_while(|line| !line.is_empty()).filter(|line| !line.starts_with("   "));
    names.map(|line| line.split_whitespace().next().unwrap().to_owned()).filter(|name| name != "help").collect()
}

// Every flag of the contract is in the help of both commands that serve.
#[test]
fn help_lists_every_flag() {
    for command in ["run", "demo"] {
        let ended = run_to_end(&[command, "--help"]);
        assert_eq!(code(&ended), 0);
        for flag in FLAGS {
            let lines = ended.stdout.lines().filter(|line| line.split_whitespace().any(|word| word == *flag));
            assert_eq!(lines.count(), 1, "{flag} in {}", ended.stdout);
        }
    }
    let general = run_to_end(&["--help"]).stdout;
    for command in ["run", "demo", "check-config"] {
        assert!(general.contains(command), "{general}");
    }
}

// What cannot be understood is exit status 2 with what is wrong and where help is on standard error; nothing is begun.
#[test]
fn what_is_not_understood_is_exit_status_2() {
    let table: &[&[&str]] = &[
        &[],
        &["no-such-command"],
        &["run", "--no-such-flag"],
        &["run", "--web.listen-address=nowhere"],
        &["run", "--web.listen-address=::1:8469"],
        &["run", "--beam.listen-address=http://localhost:8470"],
        &["run", "--web.telemetry-path=metrics"],
        &["run", "--web.telemetry-path=/"],
        &["run", "--web.systemd-socket=yes"],
        &["run", "--history.capacity=0"],
        &["run", "--history.capacity=1000001"],
        &["run", "--series.retention=soon"],
        &["run", "--series.max-children=-1"],
        &["run", "--log.level=loud"],
        &["run", "--log.format=xml"],
        &["run", "one.toml", "two.toml"],
        &["check-config"],
    ];
    for arguments in table {
        let ended = run_to_end(arguments);
        assert_eq!(code(&ended), 2, "{arguments:?}: {}", ended.stderr);
        assert!(ended.stderr.contains("--help"), "{arguments:?}: {}", ended.stderr);
        assert_eq!(ended.stdout, "", "{arguments:?}");
        if let Some(wrong) = arguments.iter().find_map(|argument| argument.strip_prefix("--")?.split('=').next()) {
            assert!(ended.stderr.contains(wrong), "{arguments:?}: {}", ended.stderr);
        }
    }
}

// === Serving ===

// An address that is taken is an error that names it, before any child is started.
#[test]
fn an_address_that_is_taken_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let directory = tempfile::tempdir().unwrap();
    let (file, mark) = (directory.path().join("tree.toml"), directory.path().join("started"));
    let tree = format!(
        "[[supervisor]]\nname = \"a\"\n[[supervisor.child]]\nid = \"c\"\ncommand = [\"touch\", {:?}]\n",
        mark.to_str().unwrap()
    );
    std::fs::write(&file, tree).unwrap();
    let flag = format!("--web.listen-address={address}");
    let ended = run_to_end(&["run", file.to_str().unwrap(), &flag]);
    assert_eq!(code(&ended), 1, "{}", ended.stderr);
    let line = logfmt(ended.stderr.lines().last().unwrap());
    assert_eq!(line["level"], "error");
    assert!(line["err"].contains(&format!("cannot listen on {address}")), "{line:?}");
    assert!(!mark.exists(), "a child was started");
}

// The flag is repeatable: each address answers.
#[tokio::test]
async fn several_addresses_are_all_served() {
    let exporter = Running::start(&["run", "--web.listen-address=[::1]:0"]).await;
    assert_eq!(exporter.get("/-/healthy").await.status, 200);
    exporter.signal(Signal::TERM);
    let (status, log) = exporter.ended().await;
    assert_eq!(status.code(), Some(0));
    let addresses: Vec<_> = log.iter().map(|line| logfmt(line)).filter(|line| line["msg"] == "Listening on").collect();
    assert_eq!(addresses.len(), 2, "{log:?}");
    let tls: Vec<_> = log.iter().map(|line| logfmt(line)).filter(|line| line["msg"] == "TLS is disabled.").collect();
    assert!(tls.len() == 2 && tls.iter().all(|line| line["http2"] == "false"), "{log:?}");
    assert_eq!((&tls[0]["address"], &tls[1]["address"]), (&addresses[0]["address"], &addresses[1]["address"]));
    assert!(addresses[0]["address"].starts_with("[::1]:") && addresses[1]["address"].starts_with("127.0.0.1:"));
}

/// The addresses that the log says are listened on, in order.
fn listened_on(log: &[String]) -> Vec<std::net::SocketAddr> {
    let lines = log.iter().filter(|line| line.contains("msg=\"Listening on\"")).map(|line| logfmt(line));
    lines.map(|line| line["address"].parse().unwrap()).collect()
}

// `:PORT` is every address of this host, as with other programs of Prometheus' family; the URL that the log names works.
#[tokio::test]
async fn a_port_alone_is_every_address() {
    let mut exporter = Running::start(&["run", "--web.listen-address=:0"]).await;
    let url = logfmt(&exporter.line_with("msg=\"open the page\"").await)["url"].clone();
    let port: u16 = url.strip_prefix("http://localhost:").unwrap().strip_suffix('/').unwrap().parse().unwrap();
    assert_eq!(get(([127, 0, 0, 1], port).into(), "/-/healthy").await.status, 200);
    let has_ipv6 = TcpListener::bind("[::1]:0").is_ok();
    if has_ipv6 {
        assert_eq!(get((std::net::Ipv6Addr::LOCALHOST, port).into(), "/-/healthy").await.status, 200);
    }
    exporter.signal(Signal::TERM);
    let (status, log) = exporter.ended().await;
    assert_eq!(status.code(), Some(0), "{log:?}");
    let all = if has_ipv6 { "[::]" } else { "0.0.0.0" };
    assert_eq!(listened_on(&log)[0].to_string(), format!("{all}:{port}"));
}

// A host name is each address that it resolves to; one that has none of ours is an error that names it.
#[tokio::test]
async fn a_host_name_is_its_addresses() {
    let mut exporter = Running::start(&["run", "--web.listen-address=localhost:0"]).await;
    let url = logfmt(&exporter.line_with("msg=\"open the page\"").await)["url"].clone();
    assert!(url.starts_with("http://localhost:"), "{url}");
    exporter.signal(Signal::TERM);
    let log = exporter.ended().await.1;
    let addresses = listened_on(&log);
    assert!(addresses.len() >= 2 && addresses.iter().all(|address| address.ip().is_loopback()), "{log:?}");
    assert!(url.ends_with(&format!(":{}/", addresses[0].port())), "{url} {log:?}");
    for (address, part) in [
        ("no-such-host.invalid:8469", "cannot listen on no-such-host.invalid:8469: the host name cannot be resolved: "),
        (
            "192.0.2.1:8469",
            "cannot listen on 192.0.2.1:8469: this host does not have that address; `:PORT` listens on ",
        ),
    ] {
        let ended = run_to_end(&["run", &format!("--web.listen-address={address}")]);
        assert_eq!(code(&ended), 1, "{}", ended.stderr);
        let line = logfmt(ended.stderr.lines().last().unwrap());
        assert!(line["err"].contains(part), "{line:?}");
    }
}

// Without a file there is nothing to supervise, and the endpoint serves until it is told to stop.
#[tokio::test]
async fn without_a_file_only_the_endpoint_runs() {
    let exporter = Running::start(&["run", "--web.telemetry-path=/probe"]).await;
    let stats = exporter.data("/api/v1/stats").await;
    assert_eq!((&stats["total_supervisors"], &stats["supervisor_stats"]), (&0.into(), &serde_json::json!([])));
    assert_eq!(exporter.get("/probe").await.status, 200);
    exporter.signal(Signal::INT);
    assert_eq!(exporter.ended().await.0.code(), Some(0));
}

// The limits are what the flags say.
#[tokio::test]
async fn the_limits_are_those_of_the_flags() {
    let limits = ["--history.capacity=7", "--series.max-supervisors=5", "--series.max-children=6"];
    let exporter = Running::start(&[["run"].as_slice(), &limits].concat()).await;
    let text = exporter.get("/metrics").await.body;
    for line in [
        "supervisor_history_capacity_events 7",
        "restart_exporter_label_value_limit{label=\"supervisor\"} 5",
        "restart_exporter_label_value_limit{label=\"child\"} 6",
    ] {
        assert!(text.lines().any(|other| other == line), "{line}");
    }
}

// === The log ===

// logfmt and JSON with the keys of Prometheus' own programs; whatever a child says, a line stays a line.
#[tokio::test]
async fn each_line_of_the_log_can_be_parsed() {
    let directory = tempfile::tempdir().unwrap();
    let tree = r#"
        [[supervisor]]
        name = "say \"x=1\" {y}"
        max_restarts = 1
        max_seconds = 60
        [[supervisor.child]]
        id = "a b\\c"
        command = ["false"]
        backoff = "none"
    "#;
    let file = directory.path().join("tree.toml");
    std::fs::write(&file, tree).unwrap();
    for format in ["logfmt", "json"] {
        let arguments = [
            "run",
            file.to_str().unwrap(),
            &format!("--log.format={format}"),
            "--web.listen-address=127.0.0.1:0",
            "--exit.on-give-up=always",
        ];
        let ended = run_to_end(&arguments);
        assert_eq!(code(&ended), 1, "{}", ended.stderr);
        let lines: Vec<BTreeMap<String, String>> = match format {
            // What `why` says of the end stands between the lines.
            "logfmt" => ended.stderr.lines().filter(|line| line.starts_with("ts=")).map(logfmt).collect(),
            _ => ended.stderr.lines().map(|line| serde_json::from_str(line).expect(line)).collect(),
        };
        assert!(lines.len() >= 2, "{}", ended.stderr);
        for line in &lines {
            assert!(["debug", "info", "warn", "error"].contains(&line["level"].as_str()), "{line:?}");
            assert!(line["ts"].ends_with('Z') && line["ts"].contains('T') && !line["msg"].is_empty(), "{line:?}");
        }
        assert_eq!(lines[0]["msg"], "restart_exporter started");
        let last = &lines[lines.len() - 1];
        assert!(last["level"] == "error" && last["err"].contains("more than 1 restart in 60 s"), "{last:?}");
    }
}

// The log begins with what runs: version, file, how much of it, and how to look at it.
#[tokio::test]
async fn the_log_begins_with_what_runs_and_where_to_look() {
    let directory = tempfile::tempdir().unwrap();
    let tree = "[[supervisor]]\nname = \"top\"\n[[supervisor.child]]\nid = \"a\"\ncommand = [\"sleep\", \"600\"]\n\
                [[supervisor]]\nname = \"below\"\nparent = \"top\"\n[[supervisor.child]]\nid = \"b\"\n\
                command = [\"sleep\", \"600\"]\n";
    let socket = format!("unix:{}/socket", directory.path().display());
    let exporter = Running::file_with(directory.path(), tree, &[&format!("--web.listen-address={socket}")]).await;
    let address = exporter.address;
    exporter.signal(Signal::TERM);
    let log = exporter.ended().await.1;
    let lines: Vec<_> = log.iter().map(|line| logfmt(line)).collect();
    let fields = |keys: [&str; 5]| keys.map(|key| lines[0][key].clone());
    let file = directory.path().join("tree.toml").display().to_string();
    assert_eq!(
        fields(["msg", "version", "file", "supervisors", "children"]),
        ["restart_exporter started", env!("CARGO_PKG_VERSION"), &file, "2", "2"]
    );
    let urls: Vec<_> =
        lines.iter().filter(|line| line.contains_key("url")).map(|line| (&*line["msg"], &*line["url"])).collect();
    let page = format!("http://{address}/");
    assert_eq!(urls, [("commands reach this socket with --url", &*socket), ("open the page", &*page)]);

    for (arguments, supervisors, children) in [(["run"], "0", "0"), (["demo"], "6", "12")] {
        let exporter = Running::start(&arguments).await;
        exporter.signal(Signal::TERM);
        let line = logfmt(&exporter.ended().await.1[0]);
        assert_eq!((&*line["msg"], line.get("file")), ("restart_exporter started", None));
        assert_eq!((&*line["supervisors"], &*line["children"]), (supervisors, children), "{line:?}");
    }
}

// What ends the program before it has begun is a line of the log as well, in the form that was asked for.
#[test]
fn an_error_at_the_start_is_logged_in_the_same_form() {
    for arguments in
        [["run", "no/such.toml"], ["run", "--web.config.file=no/such.yml"], ["run", "--web.systemd-socket"]]
    {
        let ended = run_to_end(&[&arguments[..], &["--log.format=json", "--web.listen-address=127.0.0.1:0"]].concat());
        assert_eq!(code(&ended), 1, "{}", ended.stderr);
        let lines: Vec<_> = ended.stderr.lines().collect();
        assert_eq!(lines.len(), 1, "{}", ended.stderr);
        let line: BTreeMap<String, String> = serde_json::from_str(lines[0]).expect(lines[0]);
        let keys: Vec<_> = line.keys().map(String::as_str).collect();
        assert_eq!(keys, ["err", "level", "msg", "ts"], "{line:?}");
        assert!(line["err"].starts_with("no"), "{line:?}");
    }
}

// Only what is at least as important as asked for is logged.
#[tokio::test]
async fn the_log_level_leaves_out_what_is_less() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("tree.toml");
    let text =
        "[[supervisor]]\nname = \"a\"\n[[supervisor.child]]\nid = \"c\"\ncommand = [\"false\"]\nbackoff = \"none\"\n";
    std::fs::write(&file, text).unwrap();
    let arguments = ["run", file.to_str().unwrap(), "--log.level=error", "--exit.on-give-up=always"];
    let ended = run_to_end(&[&arguments[..], &["--web.listen-address=127.0.0.1:0"]].concat());
    assert_eq!(code(&ended), 1);
    let mut lines = ended.stderr.lines().filter(|line| line.starts_with("ts=")).peekable();
    assert!(lines.peek().is_some() && lines.all(|line| logfmt(line)["level"] == "error"), "{}", ended.stderr);
}

// What a child writes goes where ours goes, so that a container's log has both.
#[tokio::test]
async fn what_a_child_writes_is_passed_on_with_its_name() {
    let directory = tempfile::tempdir().unwrap();
    let tree = "[[supervisor]]\nname = \"a\"\nauto_shutdown = \"any_significant\"\n[[supervisor.child]]\nid = \"c\"\n\
                command = [\"sh\", \"-c\", \"echo these are my last words >&2\"]\nrestart = \"temporary\"\nsignificant = true\n";
    let exporter = Running::file_unready(directory.path(), tree).await;
    let (status, log) = exporter.ended().await;
    assert_eq!(status.code(), Some(0), "{log:?}");
    assert!(log.iter().any(|line| line == "c | these are my last words"), "{log:?}");
}

// The children of the demo are real, and go with it.
#[tokio::test]
async fn the_demo_ends_with_its_children() {
    let exporter = Running::start(&["demo"]).await;
    let pids = crate::world::until("three processes", async || {
        let pids = exporter.pids().await;
        (pids.len() >= 3).then_some(pids)
    })
    .await;
    let names: Value = exporter.data("/api/v1/stats").await["supervisor_stats"].take();
    assert!(
        names.as_array().unwrap().iter().all(|each| each["supervisor_name"].as_str().unwrap().starts_with("demo_"))
    );
    exporter.signal(Signal::TERM);
    let (status, log) = exporter.ended().await;
    assert_eq!(status.code(), Some(0), "{log:?}");
    assert!(pids.iter().all(|(_, pid)| !is_alive(*pid)), "{pids:?}");
}
