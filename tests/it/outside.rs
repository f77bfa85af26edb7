//! Text from outside, in every output: what no reader sees is written out, and everything else stays.
//!
//! One corpus for all: [`UNSEEN`] and [`SEEN`].

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use restart_exporter::event::{
    Action, ChildRef, ChildType, Decision, Event, ExitReason, NodeEvent, NodePayload, Payload, Pid, Restart,
    SupervisorEvent, SupervisorRef,
};
use restart_exporter::metrics::Format;
use restart_exporter::telemetry::now;
use restart_exporter::{Exporter, text};

use crate::world::{BINARY, Sse, exchange, get, listening, run_to_end, soon};

/// What no reader sees, or what changes how the rest is shown: C0, DEL, C1, soft hyphen, joiners, what has no width, what
/// turns the order around, line separators, tags, and blanks that count as letters. No NUL: no argument has one.
const UNSEEN: &str = "\u{1}\u{7}\t\n\r\u{1b}[2J\u{7f}\u{80}\u{85}\u{9b}\u{9f}\u{ad}\u{34f}\u{61c}\u{115f}\u{180e}\u{200b}\u{200c}\
                      \u{200d}\u{200e}\u{200f}\u{2028}\u{2029}\u{202a}\u{202e}\u{2060}\u{2063}\u{2066}\u{2069}\u{3164}\u{feff}\
                      \u{fff9}\u{e0001}\u{e0041}\u{e007f}\u{e0100}";

/// What people write: other scripts, combining marks, a space that does not break, an emoji with its variation selector.
const SEEN: &str = "Grüße 日本 नमस्ते e\u{301} a\u{a0}b ❤\u{fe0f}";

/// A text of both, with an end, so that a cut would show.
fn corpus() -> String {
    format!("{SEEN}{UNSEEN}end")
}

/// The characters of [`UNSEEN`] that are unseen, told without the rule that is tested.
fn unseen() -> impl Iterator<Item = char> {
    UNSEEN.chars().filter(|character| !matches!(character, '[' | '2' | 'J'))
}

/// The corpus with each unseen character replaced.
fn replaced(replace: impl Fn(char) -> String) -> String {
    unseen().fold(corpus(), |text, character| text.replace(character, &replace(character)))
}

/// As people read it.
fn written_out() -> String {
    replaced(|character| match character {
        '\t' => r"\t".into(),
        '\n' => r"\n".into(),
        '\r' => r"\r".into(),
        other => format!("\\u{{{:x}}}", u32::from(other)),
    })
}

/// As the value of a label.
fn label() -> String {
    replaced(|character| format!("\\u{{{:x}}}", u32::from(character)))
}

/// Fails if there is anything unseen in an output, but for its own lines.
fn assert_safe(what: &str, output: &str) {
    let found: Vec<_> = unseen().filter(|unseen| *unseen != '\n' && output.contains(*unseen)).collect();
    assert!(found.is_empty(), "{what} lets {found:x?} through: {:?}", output.get(..500).unwrap_or(output));
}

fn assert_shows(what: &str, output: &str, part: &str) {
    assert_safe(what, output);
    assert!(output.contains(part), "{what}: {}\n  lacks {part}", output.get(..5000).unwrap_or(output));
}

/// A supervisor that is called, and whose child is called, dies and writes, as the corpus says; once here and once on a node.
async fn exporter() -> (Exporter, std::net::SocketAddr) {
    let (exporter, address) = listening(Exporter::builder().admin_api(true)).await;
    for node in [None, Some(corpus().into())] {
        if let Some(name) = &node {
            let up = NodeEvent { node: Some(Arc::clone(name)), time: now(), payload: NodePayload::Up };
            exporter.telemetry().execute(&Event::Node(up));
        }
        let supervisor = Arc::new(SupervisorRef::new(Pid::Task(7), corpus(), node));
        let (id, restart) = (Arc::<str>::from(corpus()), Some(Restart::Permanent));
        let child = ChildRef { label: id.clone(), id, child_type: ChildType::Worker, restart, dynamic: false };
        let (child, second) = (Arc::new(child), Duration::from_secs(1));
        let begin = Payload::SupervisorInit {
            strategy: None,
            max_restarts: Some(3),
            max_seconds: Some(5),
            parent: Some(corpus().into()),
            found: false,
        };
        let start = Payload::ChildStart { child: child.clone(), child_pid: Some(Pid::Task(1)), duration: Some(second) };
        let death = Payload::ChildTerminate {
            child,
            child_pid: Some(Pid::Task(1)),
            reason: ExitReason::error(corpus()),
            shutdown: false,
            lifetime: Some(second),
            decision: Decision { action: Action::Restart, delay: second, restarts_left: Some(2) },
            last_output: Some([format!("error: {}", corpus()).into_boxed_str()].into()),
            usage: None,
        };
        for payload in [begin, start, death] {
            let event = SupervisorEvent { supervisor: supervisor.clone(), time: now(), payload };
            exporter.telemetry().execute(&Event::Supervisor(event));
        }
    }
    exporter.app().set_ready(true);
    (exporter, address)
}

fn query(name: &str, value: &str) -> String {
    form_urlencoded::Serializer::new(String::new()).append_pair(name, value).finish()
}

// The rule itself knows the whole corpus.
#[test]
fn the_corpus_is_written_out_and_the_rest_stays() {
    assert!(unseen().all(text::is_unseen) && !SEEN.contains(text::is_unseen));
    assert_eq!(text::one_line(&corpus()), written_out());
    assert_eq!(text::label(&corpus()), label());
}

// `/metrics`, in all formats: names are written out, and two names stay two series.
#[tokio::test]
async fn label_values_are_written_out() {
    let (exporter, address) = exporter().await;
    // A supervisor whose name is what is written for the other one.
    let twin = SupervisorRef::new(Pid::Task(8), label(), None);
    let begin =
        Payload::SupervisorInit { strategy: None, max_restarts: None, max_seconds: None, parent: None, found: false };
    let begin = SupervisorEvent { supervisor: Arc::new(twin), time: now(), payload: begin };
    exporter.telemetry().execute(&Event::Supervisor(begin));
    let shown = label().replace('\\', r"\\");
    for accept in ["text/plain", "application/openmetrics-text; version=1.0.0"] {
        let ask = format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nAccept: {accept}\r\nConnection: close\r\n\r\n");
        let body = exchange(address, &ask).await.unwrap().body;
        for series in [
            format!("supervisor_up{{supervisor=\"{shown}\"}}"),
            format!("supervisor_up{{supervisor=\"{shown}\",node=\"{shown}\"}}"),
            format!("supervisor_info{{supervisor=\"{shown}\",parent=\"{shown}\"}}"),
            format!("supervisor_child_restarts_total{{supervisor=\"{shown}\",child=\"{shown}\",cause=\"failure\"}}"),
            format!("restart_exporter_node_up{{node=\"{shown}\"}}"),
        ] {
            assert_shows(accept, &body, &series);
            assert_eq!(body.matches(&series).count(), 1, "{series}");
        }
        assert_eq!(body.matches("\nsupervisor_up{").count(), 3, "the twin is a series of its own");
    }
    let protobuf = String::from_utf8_lossy(&exporter.metrics().encode(Format::Protobuf)).into_owned();
    assert!(protobuf.contains(&label()));
    let wide = unseen().filter(|character| !character.is_ascii());
    assert_eq!(wide.filter(|character| protobuf.contains(*character)).count(), 0);
    exporter.shutdown().await;
}

// The page, what probes read, and errors of the API.
#[tokio::test]
async fn the_page_and_probes_show_it_written_out() {
    let (exporter, address) = exporter().await;
    let supervisor = query("supervisor", &corpus());
    // A browser shows line ends and tabs as a space, and the page makes one of them.
    let name = written_out().replace(r"\t", " ").replace(r"\n", " ");
    for path in ["/".to_owned(), format!("/?{supervisor}"), format!("/?{supervisor}&raw"), "/?show=all".into()] {
        assert_shows(&path, &get(address, &path).await.body.replace('\t', " "), &name);
    }
    let missing = get(address, &format!("/?{}", query("supervisor", &format!("no {}", corpus())))).await;
    assert_shows("a page that is not there", &missing.body, &name);
    let ready = get(address, "/-/ready").await.body;
    assert_shows("/-/ready", &ready, &format!("{0}/{0} is ", written_out()));
    let error = get(address, &format!("/api/v1/history?{}", query("supervisor", &format!("no {}", corpus())))).await;
    let error = error.json()["error"].as_str().unwrap().to_owned();
    assert_safe("the error of an unknown name", &error.replace('\t', ""));
    exporter.shutdown().await;
}

// JSON is exact, so that programs find what they ask for, and its text can be shown all the same.
#[tokio::test]
async fn json_is_exact_and_can_be_shown() {
    let (exporter, address) = exporter().await;
    let supervisors = get(address, "/api/v1/supervisors").await;
    assert_safe("/api/v1/supervisors", &supervisors.body);
    assert_eq!(supervisors.data()[0]["name"], corpus());
    let history = get(address, &format!("/api/v1/history?{}", query("supervisor", &corpus()))).await;
    assert_safe("/api/v1/history", &history.body);
    assert_eq!(history.data()["events"][0]["reason"]["detail"], corpus());

    let mut live = Sse::open(address, "/api/v1/events?after=0-0", "").await;
    let death = loop {
        let block = soon("a death", live.block()).await.unwrap();
        assert_safe("an event", &block);
        let data = block.lines().find_map(|line| line.strip_prefix("data: ")).unwrap_or("null");
        let event: serde_json::Value = serde_json::from_str(data).unwrap();
        if event["event_type"] == "terminated" {
            break event;
        }
    };
    assert_eq!((&death["child_id"], &death["supervisor_name"]), (&corpus().into(), &corpus().into()));
    exporter.shutdown().await;
}

// The commands: what they print for people and as JSON, and what they complain about.
#[tokio::test]
async fn the_commands_print_it_written_out() {
    let (exporter, address) = exporter().await;
    let url = format!("--url=http://{address}");
    let child = format!("{0}/{0}", corpus());
    let table: [(&[&str], bool); 8] = [
        (&["status", "--all", &url], false),
        (&["why", &child, &url], true),
        (&["why", &corpus(), &url], true),
        (&["history", &corpus(), &url], true),
        (&["history", "--raw", &corpus(), &url], true),
        (&["why", &child, "--json", &url], false),
        (&["status", "--json", &url], false),
        (&["history", &corpus(), "--json", &url], false),
    ];
    for (arguments, is_whole) in table {
        let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let ended = ran(&arguments).await;
        assert_eq!(ended.stderr, "", "{arguments:?}");
        let what = arguments[..2].join(" ");
        let part = if is_whole { written_out() } else { "Grüße 日本".into() };
        assert_shows(&what, &ended.stdout, &part);
    }
    let nowhere = format!("no {}", corpus());
    let table: [&[&str]; 6] = [
        &["why", &nowhere, &url],
        &["status", &nowhere, &url],
        &["history", &nowhere, &url],
        &["restart", &nowhere, &url],
        &["status", "--url", &corpus()],
        &[&corpus()],
    ];
    for arguments in table {
        let ended = ran(&arguments.iter().map(|argument| (*argument).to_owned()).collect::<Vec<_>>()).await;
        assert_eq!((ended.status.code(), &*ended.stdout), (Some(2), ""), "{arguments:?}");
        // A complaint about the command line keeps the lines and tabs of its text.
        assert_safe(&format!("the complaint of {arguments:?}"), &ended.stderr.replace('\t', " "));
        assert!(ended.stderr.contains("Grüße"), "{}", ended.stderr);
    }
    exporter.shutdown().await;
}

async fn ran(arguments: &[String]) -> crate::world::Ended {
    let arguments = arguments.to_vec();
    let run = move || run_to_end(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    tokio::task::spawn_blocking(run).await.unwrap()
}

// `tail`, for people and as JSON.
#[tokio::test]
async fn tail_prints_it_written_out() {
    let (exporter, address) = exporter().await;
    for json in [None, Some("--json")] {
        let url = format!("--url=http://{address}");
        let mut command = tokio::process::Command::new(BINARY);
        command.args(["tail", &url]).args(json).stdout(std::process::Stdio::piped()).kill_on_drop(true);
        let mut tail = command.spawn().unwrap();
        let mut lines = tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(tail.stdout.take().unwrap()));
        let death = exporter.telemetry();
        let line = async {
            loop {
                // Until the command is connected nobody hears it.
                kill_again(death);
                let wait = Duration::from_millis(200);
                if let Ok(line) = tokio::time::timeout(wait, lines.next_line()).await {
                    return line.unwrap().unwrap();
                }
            }
        };
        let line = soon("a line", line).await;
        match json {
            None => assert_shows("tail", &line, &written_out()),
            Some(_) => assert_shows("tail --json", &line, SEEN),
        }
    }
    exporter.shutdown().await;
}

fn kill_again(telemetry: &restart_exporter::telemetry::Telemetry) {
    let supervisor = Arc::new(SupervisorRef::new(Pid::Task(9), corpus(), None));
    let (id, restart) = (Arc::<str>::from(corpus()), Some(Restart::Permanent));
    let child = ChildRef { label: id.clone(), id, child_type: ChildType::Worker, restart, dynamic: false };
    let decision = Decision { action: Action::Restart, delay: Duration::ZERO, restarts_left: None };
    let payload = Payload::ChildStartError {
        child: Arc::new(child),
        reason: ExitReason::error(corpus()),
        attempt: 1,
        duration: Some(Duration::ZERO),
        last_output: None,
        decision: Some(decision),
    };
    telemetry.execute(&Event::Supervisor(SupervisorEvent { supervisor, time: now(), payload }));
}

/// A string of TOML.
fn toml(text: &str) -> String {
    let escaped: String = text.chars().map(|character| format!("\\U{:08X}", u32::from(character))).collect();
    format!("\"{escaped}\"")
}

/// What the log says of a child in a directory that is not there.
fn log_line(directory: &Path, format: &str) -> String {
    let file = directory.join("tree.toml");
    let cwd = toml(&format!("/nowhere/{}", corpus()));
    let text = format!(
        "[[supervisor]]\nname = \"a\"\n[[supervisor.child]]\nid = \"c\"\ncommand = [\"sleep\", \"1\"]\ncwd = {cwd}\n"
    );
    std::fs::write(&file, text).unwrap();
    let [file, format] = [file.display().to_string(), format!("--log.format={format}")];
    let listen = ["--web.listen-address=127.0.0.1:0", "--beam.listen-address="];
    let ended = run_to_end(&[&["run", &*file, &*format], &listen[..]].concat());
    ended.stderr.lines().last().unwrap().to_owned()
}

// Both forms of the log: a line is a line, and the value is exact behind the escapes of its syntax.
#[test]
fn log_lines_have_it_escaped() {
    let directory = tempfile::tempdir().unwrap();
    let logfmt = log_line(directory.path(), "logfmt");
    assert_safe("logfmt", &logfmt);
    let quoted = logfmt.split_once(" err=").unwrap().1;
    let mut values = serde_json::Deserializer::from_str(quoted).into_iter::<String>();
    let error = values.next().unwrap().unwrap();
    assert!(error.contains(&corpus()), "{error:?}");
    let json = log_line(directory.path(), "json");
    assert_safe("JSON", &json);
    let line: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(line["err"], error);
}

// Names in the file are for people, so that one they cannot see is an error with its place; whatever else is in a file can
// be shown in errors.
#[test]
fn a_name_with_something_unseen_is_refused_with_its_place() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join(corpus());
    let said = |text: &str| {
        std::fs::write(&file, text).unwrap();
        let ended = run_to_end(&["check-config", file.to_str().unwrap()]);
        assert_safe("check-config", &ended.stderr);
        (ended.status.code(), ended.stderr)
    };
    for character in unseen() {
        let name = toml(&format!("a{character}b"));
        let word = format!("U+{:04X} in the name is invisible", u32::from(character));
        let (code, error) = said(&format!("[[supervisor]]\nname = {name}\n"));
        assert!(code == Some(1) && error.contains(&format!(":2:8: supervisor[0]: name: {word}")), "{error}");
        let child = format!("[[supervisor]]\nname = \"s\"\n[[supervisor.child]]\nid = {name}\ncommand = [\"true\"]\n");
        let (code, error) = said(&child);
        assert!(code == Some(1) && error.contains(&format!(":4:6: s/child[0]: id: {word}")), "{error}");
    }
    let (code, right) = said(&format!("[[supervisor]]\nname = {}\n", toml(SEEN)));
    assert!(code == Some(0) && right.contains(&written_out()), "{right}");
    for (wrong, shown) in [
        (format!("[[supervisor]]\nname = \"s\"\n{} = 1\n", toml(&corpus())), written_out()),
        (format!("[[supervisor]]\nname = \"s\"\nstrategy = {}\n", toml(&corpus())), "Grüße".into()),
        (format!("[[supervisor]]\nname = \"s\"\nparent = {}\n", toml(&corpus())), "Grüße".into()),
    ] {
        let (code, error) = said(&wrong);
        assert!(code == Some(1) && error.contains(&shown), "{error}");
    }
    let absent = run_to_end(&["check-config", &format!("no/{}", corpus())]);
    assert_shows("an absent file", &absent.stderr, &written_out());
}
