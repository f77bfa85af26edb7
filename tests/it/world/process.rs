//! Programs that the tests run: our own binary, and others beside it.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc as blocking;
use std::thread;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::sync::mpsc;

use super::{DEADLINE, Response, get, soon};

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_restart_exporter");

/// Another program in the background, ended when dropped. Its standard error can be followed.
pub(crate) struct Foreign {
    child: Child,
    log: mpsc::UnboundedReceiver<String>,
    seen: Vec<String>,
}

/// A running `restart_exporter`, ended when dropped.
pub(crate) struct Running {
    process: Foreign,
    /// Where it listens.
    pub(crate) address: SocketAddr,
}

/// A program that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs `restart_exporter` with these arguments to its end.
pub(crate) fn run_to_end(arguments: &[&str]) -> Ended {
    let output = Command::new(BINARY).args(arguments).stdin(Stdio::null()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).expect("output in UTF-8");
    Ended { status: output.status, stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// Does a process with this number exist, be it a zombie?
pub(crate) fn is_alive(pid: u64) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

// === impl Foreign ===

impl Foreign {
    /// Its number.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Starts a program; panics and says so if it is not installed.
    pub(crate) fn start(program: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{program} cannot be run, install it: {error}"));
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (sender, log) = mpsc::unbounded_channel();
        // Reads to the end whether or not anybody listens, so that the program never waits for a reader.
        thread::spawn(move || stderr.lines().map_while(Result::ok).for_each(|line| drop(sender.send(line))));
        Self { child, log, seen: Vec::new() }
    }

    /// The next line of standard error that holds this text.
    pub(crate) async fn line_with(&mut self, text: &str) -> String {
        let line = async {
            while let Some(line) = self.log.recv().await {
                self.seen.push(line);
                if let Some(line) = self.seen.last().filter(|line| line.contains(text)) {
                    return Some(line.clone());
                }
            }
            None
        };
        let line = soon(&format!("a line with {text:?}"), line).await;
        line.unwrap_or_else(|| panic!("ended without a line with {text:?}:\n{}", self.seen.join("\n")))
    }

    /// The TCP address in the line that says where the program listens, as those of Prometheus' family do.
    pub(crate) async fn address(&mut self) -> SocketAddr {
        let line = self.line_with("msg=\"Listening on\" address=127.").await;
        let address = line.split_once("address=").expect("an address").1;
        address.split(' ').next().and_then(|address| address.parse().ok()).expect("an address with a port")
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).unwrap();
    }

    /// Waits for the end; returns how it ended and all lines of standard error.
    pub(crate) async fn ended(mut self) -> (ExitStatus, Vec<String>) {
        let lines = async {
            while let Some(line) = self.log.recv().await {
                self.seen.push(line);
            }
        };
        soon("the end of the program's log", lines).await;
        // Standard error was closed, so the end is near; whoever holds it open longer fails above.
        let status = self.child.wait().unwrap();
        (status, std::mem::take(&mut self.seen))
    }
}

impl Drop for Foreign {
    /// Asks first: a supervisor that is killed leaves its children behind.
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        let pid = Pid::from_child(&self.child);
        let _ = kill_process(pid, Signal::TERM);
        let (ended, waits) = blocking::channel::<()>();
        let killer = thread::spawn(move || {
            if waits.recv_timeout(DEADLINE) == Err(blocking::RecvTimeoutError::Timeout) {
                let _ = kill_process(pid, Signal::KILL);
            }
        });
        let _ = self.child.wait();
        drop(ended);
        let _ = killer.join();
    }
}

// === impl Running ===

impl Running {
    /// Starts `restart_exporter` with these arguments on a port of its own, and returns when it listens.
    pub(crate) async fn start(arguments: &[&str]) -> Self {
        Self::start_below(&[], arguments).await
    }

    /// The same, below these words of a command line, which must become the exporter.
    pub(crate) async fn start_below(before: &[&str], arguments: &[&str]) -> Self {
        let mut arguments = [before, &[BINARY], arguments, &["--web.listen-address=127.0.0.1:0"]].concat();
        // Nodes are heard where a test asks for them; all of one machine would want the same port.
        if !arguments.iter().any(|argument| argument.starts_with("--beam.listen-address")) {
            arguments.push("--beam.listen-address=");
        }
        let mut process = Foreign::start(arguments[0], &arguments[1..]);
        let address = process.address().await;
        Self { process, address }
    }

    /// Runs a file with this text, and returns when all children have started.
    pub(crate) async fn file(directory: &Path, text: &str) -> Self {
        let running = Self::file_unready(directory, text).await;
        super::until("ready", async || super::has_started(&running.get("/-/ready").await).then_some(())).await;
        running
    }

    /// Runs a file with this text, and returns when the endpoint listens.
    pub(crate) async fn file_unready(directory: &Path, text: &str) -> Self {
        Self::file_with(directory, text, &[]).await
    }

    /// Runs a file with this text and more arguments, and returns when the endpoint listens.
    pub(crate) async fn file_with(directory: &Path, text: &str, arguments: &[&str]) -> Self {
        let path = directory.join("tree.toml");
        std::fs::write(&path, text).unwrap();
        Self::start(&[&["run", path.to_str().unwrap()], arguments].concat()).await
    }

    /// `POST` of a path.
    pub(crate) async fn post(&self, path: &str) -> Response {
        super::http::request(self.address, "POST", path).await.unwrap()
    }

    /// Waits for a line of its log, or of what its children write to standard error, with this text in it.
    pub(crate) async fn line_with(&mut self, text: &str) -> String {
        self.process.line_with(text).await
    }

    /// Its own process.
    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// `GET` of a path.
    pub(crate) async fn get(&self, path: &str) -> Response {
        get(self.address, path).await
    }

    /// `data` of a question to the API.
    pub(crate) async fn data(&self, path: &str) -> Value {
        self.get(path).await.data()
    }

    /// The numbers of the processes that run as children, by id, in the order of the file.
    pub(crate) async fn pids(&self) -> Vec<(String, u64)> {
        let supervisors = self.data("/api/v1/supervisors").await;
        let children =
            supervisors.as_array().into_iter().flatten().flat_map(|each| each["children"].as_array()).flatten();
        let pid = |child: &Value| Some((child["id"].as_str()?.to_owned(), child["pid"].as_str()?.parse().ok()?));
        children.filter_map(pid).collect()
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Waits for its end; returns how it ended and all it logged.
    pub(crate) async fn ended(self) -> (ExitStatus, Vec<String>) {
        self.process.ended().await
    }
}
