//! Reloads of the built binary: what a person saw going wrong once (`faults`), orders beside them (`orders`), and random
//! files against a model (`model`).
//!
//! Children are `sleep`s in a directory of their own. Which of them run is asked of the system, not of the exporter.

mod faults;
mod model;
mod orders;

use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use crate::world::{Ended, Response, Running, run_to_end, until};

/// A running `restart_exporter` whose file can be changed, in a directory of its own.
struct Site {
    exporter: Running,
    directory: TempDir,
}

/// A `sleep` that runs in the directory: its process, and its arguments.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Sleep {
    arguments: String,
    pid: u32,
}

/// `[[supervisor]]` with this name and these keys.
fn supervisor(name: &str, keys: &str) -> String {
    format!("[[supervisor]]\nname = \"{name}\"\n{keys}\n")
}

/// A child with this command, as TOML has it, and these keys. `DIR` is the directory of the site, where it runs.
fn child(id: &str, command: &str, keys: &str) -> String {
    format!("[[supervisor.child]]\nid = \"{id}\"\ncommand = {command}\ncwd = \"DIR\"\n{keys}\n")
}

/// A child that sleeps for so long: its argument is its mark.
fn sleeper(id: &str, seconds: u32) -> String {
    child(id, &format!("[\"sleep\", \"{seconds}\"]"), "")
}

/// A backoff after which nothing happens by itself in a test.
const SLOW: &str = "backoff = { initial = \"1h\", max = \"1h\", jitter = 0 }";

// === impl Site ===

impl Site {
    /// Runs a file with this text (`DIR` in it is the site's directory); returns when it listens.
    async fn start(text: &str) -> Self {
        Self::start_with(text, |_| ()).await
    }

    /// The same, with a directory that was prepared before.
    async fn start_with(text: &str, prepare: impl FnOnce(&Path)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        prepare(directory.path());
        let text = text.replace("DIR", directory.path().to_str().unwrap());
        let exporter = Running::file_with(directory.path(), &text, &["--web.enable-admin-api"]).await;
        Self { exporter, directory }
    }

    /// The same as `start`, and returns when `/-/ready` says so.
    async fn ready(text: &str) -> Self {
        let site = Self::start(text).await;
        site.is_ready().await;
        site
    }

    async fn is_ready(&self) {
        until("ready", async || (self.exporter.get("/-/ready").await.status == 200).then_some(())).await;
    }

    /// A path in the directory.
    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Replaces the file.
    fn write(&self, text: &str) {
        let text = text.replace("DIR", self.directory.path().to_str().unwrap());
        std::fs::write(self.path("tree.toml"), text).unwrap();
    }

    /// `POST /-/reload`.
    async fn reload(&self) -> Response {
        self.exporter.post("/-/reload").await
    }

    /// A command of the binary that asks this exporter. It has to answer in time.
    fn ask(&self, arguments: &[&str]) -> Ended {
        let url = format!("--url=http://{}", self.exporter.address);
        let end = arguments.iter().position(|argument| *argument == "--").unwrap_or(arguments.len());
        let (before, after) = arguments.split_at(end);
        run_to_end(&[before, &[&url, "--timeout=60s"], after].concat())
    }

    /// Exit status and output of `status`.
    fn status(&self) -> (i32, String) {
        let ended = self.ask(&["status"]);
        (ended.status.code().expect("ended by itself"), ended.stdout)
    }

    /// Checks that all is well, whoever is asked.
    async fn is_well(&self) {
        let (code, said) = self.status();
        let ready = self.exporter.get("/-/ready").await;
        assert_eq!((code, ready.status), (0, 200), "{said}{}", ready.body);
    }

    /// Checks that all are told that this is in trouble.
    async fn is_in_trouble(&self, name: &str) {
        let (code, said) = self.status();
        let ready = self.exporter.get("/-/ready").await;
        assert_eq!((code, ready.status), (1, 503), "{said}{}", ready.body);
        assert!(said.contains(name) && ready.body.contains(name), "{said}{}", ready.body);
    }

    /// A supervisor by its full name; null if there is none.
    async fn supervisor(&self, name: &str) -> Value {
        let all = self.exporter.data("/api/v1/supervisors").await;
        find(&all, "name", name)
    }

    /// A child, `SUPERVISOR/CHILD`; null if there is none.
    async fn child(&self, name: &str) -> Value {
        let (supervisor, id) = name.rsplit_once('/').unwrap();
        find(&self.supervisor(supervisor).await["children"], "id", id)
    }

    /// Waits until a child is in this state.
    async fn child_is(&self, name: &str, state: &str) -> Value {
        until(&format!("{name} is {state}"), async || {
            Some(self.child(name).await).filter(|child| child["state"] == state)
        })
        .await
    }

    /// The text of `/metrics`.
    async fn metrics(&self) -> String {
        self.exporter.get("/metrics").await.body
    }

    /// The `sleep`s that run in the directory.
    fn sleeps(&self) -> Vec<Sleep> {
        sleeps_in(self.directory.path())
    }

    /// The processes of the `sleep`s with these arguments.
    fn pids(&self, arguments: &str) -> Vec<u32> {
        self.sleeps().into_iter().filter(|sleep| sleep.arguments == arguments).map(|sleep| sleep.pid).collect()
    }

    /// The process of the one `sleep` with these arguments.
    fn pid(&self, arguments: &str) -> u32 {
        let pids = self.pids(arguments);
        assert_eq!(pids.len(), 1, "{arguments}: {:?}", self.sleeps());
        pids[0]
    }
}

fn find(all: &Value, key: &str, name: &str) -> Value {
    all.as_array().and_then(|all| all.iter().find(|each| each[key] == name)).cloned().unwrap_or_default()
}

fn sleeps_in(directory: &Path) -> Vec<Sleep> {
    let directory = directory.canonicalize().unwrap();
    let mut sleeps = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // Zombies have no directory any more.
        while std::fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd == directory) {
            let Ok(command) = std::fs::read_to_string(entry.path().join("cmdline")) else { break };
            // For a moment a program that has just been exchanged for another has no arguments.
            if command.is_empty() {
                std::thread::yield_now();
                continue;
            }
            if let Some(("sleep", arguments)) = command.trim_end_matches('\0').split_once('\0') {
                sleeps.push(Sleep { arguments: arguments.replace('\0', " "), pid });
            }
            break;
        }
    }
    sleeps.sort();
    sleeps
}
