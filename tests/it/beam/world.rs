//! A node that does what it is told, and an exporter that hears of it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::world::{DEADLINE, Running, run_to_end, soon, until};

/// Longest time until a history is complete: that of a dynamic child takes a second.
const PATIENCE: Duration = Duration::from_secs(10);

/// The agent and the fixtures, compiled: once for all tests.
pub(super) fn code() -> &'static Path {
    static CODE: OnceLock<PathBuf> = OnceLock::new();
    CODE.get_or_init(|| {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let (fresh, directory) = (tempfile::tempdir_in(target).unwrap(), target.join("beam"));
        fs::create_dir_all(&directory).unwrap();
        let agent = fresh.path().join("restart_agent.erl");
        fs::write(&agent, run_to_end(&["beam-agent"]).stdout).unwrap();
        let mut compiler = Command::new("erlc");
        compiler.args(["-W", "-Werror", "-o"]).arg(fresh.path()).arg(agent);
        compiler.args(["driver.erl", "tree.erl", "crowd.erl", "telemetry.erl"].map(fixture));
        let output = compiler.output().unwrap_or_else(|error| panic!("erlc cannot be run, install Erlang: {error}"));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        // Whole files only: other runs of the tests may read them.
        for file in fs::read_dir(fresh.path()).unwrap() {
            let file = file.unwrap();
            fs::rename(file.path(), directory.join(file.file_name())).unwrap();
        }
        directory
    })
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/fixtures/beam").join(name)
}

/// How a node is started.
pub(super) struct NodeBuilder {
    command: Command,
    language: Language,
}

/// A running node. It ends with its standard input, and so with the test.
pub(super) struct Node {
    process: Child,
    language: Language,
    input: Option<ChildStdin>,
    output: mpsc::UnboundedReceiver<String>,
    /// What it wrote that was no answer.
    pub(super) printed: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Language {
    Erlang,
    Elixir,
}

/// A `restart_exporter` without supervised children that listens for nodes on a Unix socket.
pub(super) struct Exporter {
    pub(super) running: Running,
    directory: TempDir,
    address: String,
}

/// The samples of a metrics page.
pub(super) struct Metrics(Vec<(String, BTreeMap<String, String>, f64)>);

/// A port that was free a moment ago.
fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

// === impl NodeBuilder ===

impl NodeBuilder {
    /// A node without Elixir.
    pub(super) fn erlang() -> Self {
        let mut command = Command::new("erl");
        // Also a node with a name needs no daemon and no port.
        command.args(["-noshell", "-start_epmd", "false", "-dist_listen", "false"]);
        command.arg("-pa").arg(code());
        Self { command, language: Language::Erlang }
    }

    /// A node with Elixir.
    pub(super) fn elixir() -> Self {
        let mut command = Command::new("elixir");
        command.arg("-pa").arg(code()).arg(fixture("driver.exs"));
        Self { command, language: Language::Elixir }
    }

    /// More arguments of the program.
    pub(super) fn args(mut self, arguments: &[&str]) -> Self {
        self.command.args(arguments);
        self
    }

    /// A variable of the environment.
    pub(super) fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// Starts it.
    pub(super) fn start(mut self) -> Node {
        let program = self.command.get_program().to_owned();
        if self.language == Language::Erlang {
            // The driver does not return, so it comes last.
            self.command.args(["-s", "driver", "main"]);
        }
        self.command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process =
            self.command.spawn().unwrap_or_else(|error| panic!("{program:?} cannot be run, install it: {error}"));
        let stdout = BufReader::new(process.stdout.take().unwrap());
        let (sender, output) = mpsc::unbounded_channel();
        thread::spawn(move || stdout.lines().map_while(Result::ok).for_each(|line| drop(sender.send(line))));
        Node { input: process.stdin.take(), process, language: self.language, output, printed: Vec::new() }
    }
}

// === impl Node ===

impl Node {
    /// Evaluates a line, and returns the value as the language writes it.
    pub(super) async fn ask(&mut self, line: &str) -> String {
        self.tell(line);
        self.answer().await
    }

    /// Evaluates a line; its [`answer`](Self::answer) is still to be read.
    pub(super) fn tell(&mut self, line: &str) {
        assert!(!line.contains('\n'), "one line at a time");
        let input = self.input.as_mut().unwrap();
        writeln!(input, "{line}").unwrap();
        input.flush().unwrap();
    }

    /// The value of the line that was told.
    pub(super) async fn answer(&mut self) -> String {
        let answer = async {
            while let Some(line) = self.output.recv().await {
                match line.strip_prefix("=> ") {
                    Some(answer) => return answer.to_owned(),
                    None => self.printed.push(line),
                }
            }
            panic!("the node ended:\n{}", self.printed.join("\n"));
        };
        soon("an answer of the node", answer).await
    }

    /// Evaluates a line that must have this value.
    pub(super) async fn check(&mut self, line: &str, value: &str) {
        assert_eq!(self.ask(line).await, value, "{line}");
    }

    /// Starts the agent by hand, and waits until it is connected.
    pub(super) async fn watch(&mut self, exporter: &Exporter) {
        let address = exporter.address();
        let started = match self.language {
            Language::Erlang => self.ask(&format!("restart_agent:start([{{address, \"{address}\"}}]).")).await,
            Language::Elixir => self.ask(&format!(":restart_agent.start(address: \"{address}\")")).await,
        };
        assert!(started.starts_with("{ok,") || started.starts_with("{:ok,"), "{started}");
        self.status("connection", "live").await;
    }

    /// Waits until a part of the agent's status has this value.
    pub(super) async fn status(&mut self, key: &str, value: &str) {
        let is = async || {
            let status = self.status_now(key).await;
            (status == value).then_some(())
        };
        until(&format!("{key} {value} in the agent's status"), is).await;
    }

    /// A part of the agent's status.
    pub(super) async fn status_now(&mut self, key: &str) -> String {
        let status = match self.language {
            Language::Erlang => self.ask(&format!("(catch maps:get({key}, restart_agent:status())).")).await,
            Language::Elixir => {
                self.ask(&format!("(try do :restart_agent.status()[:{key}] catch _, _ -> :none end)")).await
            }
        };
        status.trim_start_matches(':').to_owned()
    }

    /// Ends it as a crash of its host would.
    pub(super) fn kill(mut self) {
        self.process.kill().unwrap();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

// === impl Exporter ===

impl Exporter {
    /// Starts it.
    pub(super) async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let address = format!("unix:{}", directory.path().join("nodes").to_str().unwrap());
        let running = Self::run(&address, &[]).await;
        Self { running, directory, address }
    }

    /// Starts one that listens over TCP, and wants a token.
    pub(super) async fn start_tcp(token: &Path) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let address = free_address().to_string();
        let running = Self::run(&address, &[&format!("--beam.token-file={}", token.to_str().unwrap())]).await;
        Self { running, directory, address }
    }

    /// Starts the next one in the place of one that was ended.
    pub(super) async fn again(self) -> Self {
        let Self { running, directory, address } = self;
        running.signal(Signal::TERM);
        let (status, log) = running.ended().await;
        assert!(status.success(), "{}", log.join("\n"));
        let running = Self::run(&address, &[]).await;
        Self { running, directory, address }
    }

    async fn run(address: &str, arguments: &[&str]) -> Running {
        Running::start(&[&["run", &format!("--beam.listen-address={address}")], arguments].concat()).await
    }

    /// Where agents dial.
    pub(super) fn address(&self) -> String {
        self.address.clone()
    }

    /// What it says on its metrics page.
    pub(super) async fn metrics(&self) -> Metrics {
        Metrics::parse(&self.running.get("/metrics").await.body)
    }

    /// Waits until a sum over series is reached, and holds that it is not passed.
    pub(super) async fn counts(&self, name: &str, labels: &[(&str, &str)], expected: f64) {
        let mut last = 0.0;
        let is = async || {
            last = self.metrics().await.sum(name, labels);
            assert!(last <= expected, "{name} {labels:?}: {last} of {expected}");
            (last >= expected).then_some(())
        };
        if timeout(DEADLINE / 2, until("the count", is)).await.is_err() {
            panic!("{name} {labels:?}: is {last}, wanted {expected}");
        }
    }

    /// Waits until the strategies of these supervisors are known, that is, until the agent has asked them.
    pub(super) async fn knows(&self, names: &[&str]) {
        let known = async || {
            let supervisors = self.running.data("/api/v1/supervisors").await;
            let is_known = |name: &&str| {
                let mut all = supervisors.as_array().unwrap().iter();
                all.any(|supervisor| supervisor["name"] == **name && !supervisor["strategy"].is_null())
            };
            names.iter().all(is_known).then_some(())
        };
        until(&format!("{names:?} known"), known).await;
    }

    /// A supervisor as the API has it.
    pub(super) async fn supervisor(&self, name: &str) -> Value {
        let supervisors = self.running.data("/api/v1/supervisors").await;
        let found = supervisors.as_array().unwrap().iter().find(|supervisor| supervisor["name"] == name);
        found.unwrap_or_else(|| panic!("no {name} in {supervisors}")).clone()
    }

    /// The history of a supervisor, oldest first, an event a line: `terminated a killed`, `restarted a failure`.
    pub(super) async fn history(&self, supervisor: &str) -> Vec<String> {
        let answer = self.running.get(&format!("/api/v1/history?supervisor={supervisor}")).await;
        if answer.status == 404 {
            return Vec::new();
        }
        answer.data()["events"].as_array().unwrap().iter().rev().map(line).collect()
    }

    /// Waits until the history of a supervisor is this one; shows it if it never is.
    pub(super) async fn history_is(&self, supervisor: &str, expected: &[&str]) {
        let mut last = Vec::new();
        let wait = until("the history", async || {
            last = self.history(supervisor).await;
            (last == expected).then_some(())
        });
        if timeout(PATIENCE, wait).await.is_err() {
            panic!("history of {supervisor}:\n  is     {last:?}\n  wanted {expected:?}");
        }
    }
}

fn line(event: &Value) -> String {
    let word = |value: &Value| value.as_str().map(str::to_owned);
    let last = word(&event["cause"]).or_else(|| word(&event["reason"]["class"]));
    let ordered = (event["shutdown"] == true).then(|| "ordered".to_owned());
    let words = [word(&event["event_type"]), word(&event["child_id"]), last, ordered];
    words.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

// === impl Metrics ===

impl Metrics {
    fn parse(page: &str) -> Self {
        let sample = |line: &str| {
            let (series, value) = line.rsplit_once(' ')?;
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            let pair = |pair: &str| {
                let (name, value) = pair.split_once("=\"")?;
                Some((name.trim_start_matches(',').to_owned(), value.to_owned()))
            };
            let labels = labels.trim_end_matches('}').split_inclusive('"').collect::<Vec<_>>();
            // name=" value": two pieces a label, for labels without quotes in them.
            let labels = labels.chunks(2).filter_map(|both| pair(both.concat().strip_suffix('"')?)).collect();
            Some((name.to_owned(), labels, value.parse().ok()?))
        };
        Self(page.lines().filter(|line| !line.starts_with('#')).filter_map(sample).collect())
    }

    /// The sum of all series of this name with these labels; 0 without any.
    pub(super) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let has = |of: &BTreeMap<String, String>| {
            labels.iter().all(|(name, value)| of.get(*name).is_some_and(|is| is == value))
        };
        self.0.iter().filter(|(other, of, _)| other == name && has(of)).map(|(_, _, value)| value).sum()
    }
}
