//! Real processes under the built binary: what people complain about in other supervisors, each complaint a test.
//!
//! The programs are small shell scripts. They run in a directory of their own, tell through files in it how far they are,
//! and wait for files in it, so that no test guesses a time. Who runs there is asked of the system, not of the exporter.
//!
//! With `RESTART_EXPORTER_AS_PID_1` set the exporter is process 1 of a PID namespace of its own; `pid_one` runs all tests
//! so.

mod backoff;
mod cannot_run;
mod causes;
mod environment;
mod examples;
mod give_up;
mod last_output;
mod leftovers;
mod orphans;
mod pass_on;
mod pid_one;
mod readiness;
mod reasons;
mod signals;
mod stopping;
mod usage;

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::world::{Foreign, get, until};

const BINARY: &str = env!("CARGO_BIN_EXE_restart_exporter");

/// Set by `pid_one` for the tests that it runs.
const AS_PID_1: &str = "RESTART_EXPORTER_AS_PID_1";

/// Starts the exporter: its standard output goes to a file, and its number as the system knows it stands in another.
const LAUNCH: &str = "cd \"$1\"; shift; echo $$ > launched; exec \"$@\" > stdout";

/// A running `restart_exporter` with a file of its own, in a directory of its own.
pub(crate) struct Tree {
    process: Option<Foreign>,
    address: SocketAddr,
    directory: TempDir,
    /// The number of the process that was launched: the exporter, or `unshare` above it.
    launched: i32,
}

/// `[[supervisor]]` with this name and these keys.
fn supervisor(name: &str, keys: &str) -> String {
    format!("[[supervisor]]\nname = \"{name}\"\n{keys}\n")
}

/// A child that runs a script, with these keys. `DIR` is the directory of the tree, where the script runs.
fn child(id: &str, script: &str, keys: &str) -> String {
    assert!(!script.contains("'''"));
    // Most rules do not depend on waits.
    let backoff = if keys.contains("backoff") { "" } else { "backoff = \"none\"" };
    format!(
        "[[supervisor.child]]\nid = \"{id}\"\ncommand = [\"sh\", \"-c\", '''{script}''']\ncwd = \"DIR\"\n{backoff}\n{keys}\n"
    )
}

/// A supervisor named `a` that bears a lot, with these children.
fn patient(children: &[String]) -> String {
    supervisor("a", "max_restarts = 1000000\nmax_seconds = 3600") + &children.concat()
}

// === impl Tree ===

impl Tree {
    /// Starts the exporter with a file of this text (`DIR` in it is the tree's directory); returns when it listens.
    async fn start(text: &str) -> Self {
        Self::start_with(text, |_| ()).await
    }

    /// The same, with a directory that was prepared before.
    async fn start_with(text: &str, prepare: impl FnOnce(&Path)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        prepare(directory.path());
        Self::launch(directory, text, &[], std::env::var_os(AS_PID_1).is_some()).await
    }

    /// Starts as `start_with`, and returns when all children have started, whatever became of them since.
    async fn ready(text: &str) -> Self {
        let tree = Self::start(text).await;
        tree.is_ready().await;
        tree
    }

    /// Starts the exporter below these words of a command line, as process 1 or not.
    async fn launch(directory: TempDir, text: &str, before: &[&str], as_pid_1: bool) -> Self {
        let (mut process, launched) = Self::spawn(&directory, text, before, &[], as_pid_1).await;
        let address = process.address().await;
        Self { process: Some(process), address, directory, launched }
    }

    async fn spawn(directory: &TempDir, text: &str, before: &[&str], flags: &[&str], as_pid_1: bool) -> (Foreign, i32) {
        // A child may run as another user.
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        let path = directory.path().to_str().unwrap();
        let file = directory.path().join("tree.toml");
        std::fs::write(&file, text.replace("DIR", path)).unwrap();
        let unshare: &[&str] =
            if as_pid_1 { &["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"] } else { &[] };
        let run = [BINARY, "run", file.to_str().unwrap(), "--web.listen-address=127.0.0.1:0"];
        let arguments = [&["-c", LAUNCH, "launch", path], before, unshare, &run, flags].concat();
        let process = Foreign::start("sh", &arguments);
        let launched = directory.path().join("launched");
        let launched = until("launched", async || std::fs::read_to_string(&launched).ok()?.trim().parse().ok()).await;
        (process, launched)
    }

    /// Runs a file to its end, which it must come to by itself. Returns how it ended, all it logged, and the directory.
    async fn run_to_end(text: &str) -> (ExitStatus, Vec<String>, TempDir) {
        let directory = tempfile::tempdir().unwrap();
        let flags = ["--exit.on-give-up=always"];
        let (process, _) = Self::spawn(&directory, text, &[], &flags, std::env::var_os(AS_PID_1).is_some()).await;
        let (status, log) = process.ended().await;
        assert_eq!(running_in(directory.path()), [""; 0]);
        (status, log, directory)
    }

    /// Returns when all children have started.
    async fn is_ready(&self) {
        until("ready", async || crate::world::has_started(&get(self.address, "/-/ready").await).then_some(())).await;
    }

    /// `data` of a question to the API.
    async fn data(&self, path: &str) -> Value {
        get(self.address, path).await.data()
    }

    /// The text of `/metrics`.
    async fn metrics(&self) -> String {
        get(self.address, "/metrics").await.body
    }

    /// The state of a supervisor; null while there is none.
    async fn supervisor(&self, name: &str) -> Value {
        let all = self.data("/api/v1/supervisors").await;
        named(&all, "name", name)
    }

    /// The state of a child of the supervisor `a`; null while there is none.
    async fn child(&self, id: &str) -> Value {
        named(&self.supervisor("a").await["children"], "id", id)
    }

    /// Waits for the last death of a child of the supervisor `a` that nobody ordered.
    async fn death(&self, id: &str) -> Value {
        let path = format!("/api/v1/history?supervisor=a&child={id}&event=terminated&limit=1");
        until(&format!("the death of {id}"), async || {
            let history = get(self.address, &path).await;
            if history.status == 200 { history.data()["events"].get(0).cloned() } else { None }
        })
        .await
    }

    /// A path in the tree's directory.
    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// What a file in the directory holds, if it is there.
    fn read(&self, name: &str) -> Option<String> {
        std::fs::read_to_string(self.path(name)).ok()
    }

    /// Waits until a file in the directory holds a whole line, and returns all it holds.
    async fn file(&self, name: &str) -> String {
        until(&format!("a line in {name}"), async || self.read(name).filter(|text| text.ends_with('\n'))).await
    }

    /// Creates an empty file in the directory, for which a script waits.
    fn touch(&self, name: &str) {
        std::fs::write(self.path(name), "").unwrap();
    }

    /// The programs that run in the tree's directory, each with its arguments; zombies do not run.
    fn running(&self) -> Vec<String> {
        running_in(self.directory.path())
    }

    /// Waits until nothing runs in the tree's directory.
    async fn nothing_runs(&self) {
        until("nothing runs", async || self.running().is_empty().then_some(())).await;
    }

    /// The number of the exporter as we see it.
    fn pid(&self) -> i32 {
        let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.launched));
        let name = std::fs::read_to_string(format!("/proc/{}/comm", self.launched)).unwrap_or_default();
        let below = children.ok().and_then(|children| children.split(' ').next()?.parse().ok());
        if name.trim() == "unshare" { below.unwrap_or(self.launched) } else { self.launched }
    }

    /// Sends a signal to the exporter.
    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.pid()).unwrap(), signal).unwrap();
    }

    /// Waits for a line of the log with this text in it.
    async fn log_has(&mut self, text: &str) {
        self.process.as_mut().unwrap().line_with(text).await;
    }

    /// Waits for the exporter's end; returns how it ended and all it logged. The directory stays.
    async fn ended(&mut self) -> (ExitStatus, Vec<String>) {
        self.process.take().unwrap().ended().await
    }

    /// Stops the exporter as a service manager does, and checks that it ends well.
    async fn stops_well(mut self) {
        self.stops().await;
    }

    /// The same, for tests that look at what is left then.
    async fn stops(&mut self) {
        self.signal(Signal::TERM);
        let (status, log) = self.ended().await;
        assert_eq!(status.code(), Some(0), "{log:#?}");
        assert_eq!(self.running(), [""; 0]);
    }
}

impl Drop for Tree {
    /// `unshare` does not pass the signal on that a [`Foreign`] is ended with.
    fn drop(&mut self) {
        if self.process.is_some()
            && let Some(pid) = Pid::from_raw(self.pid())
        {
            let _ = kill_process(pid, Signal::TERM);
        }
    }
}

/// The programs that run in a directory or below it, each with its arguments.
fn running_in(directory: &Path) -> Vec<String> {
    let directory = directory.canonicalize().unwrap();
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(|entry| Some(entry.ok()?.path()));
    let here = processes.filter(|process| {
        // Zombies have no directory any more, and no arguments.
        std::fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd.starts_with(&directory))
    });
    let arguments = here.filter_map(|process| std::fs::read_to_string(process.join("cmdline")).ok());
    let arguments = arguments.map(|arguments| arguments.trim_end_matches('\0').replace('\0', " "));
    arguments.filter(|arguments| !arguments.is_empty() && !is_the_exporter(arguments)).collect()
}

/// The exporter runs there as well.
fn is_the_exporter(arguments: &str) -> bool {
    arguments.contains(BINARY)
}

fn named(all: &Value, key: &str, name: &str) -> Value {
    all.as_array().and_then(|all| all.iter().find(|each| each[key] == name)).cloned().unwrap_or_default()
}

/// The last lines of a death.
fn lines(death: &Value) -> Vec<&str> {
    death["last_output"]
        .as_array()
        .unwrap_or_else(|| panic!("no output: {death}"))
        .iter()
        .filter_map(Value::as_str)
        .collect()
}
