//! What the commands write to: a terminal, a pipe, a pipe that nobody reads.

use std::fs::File;
use std::io::Read;
use std::process::{Command, Stdio};

use restart_exporter::telemetry::now;
use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use super::{code, exporter, run, run_with};
use crate::live::tree::Tree;
use crate::world::BINARY;

/// A supervisor with more of a history than a pipe holds.
async fn storm() -> (restart_exporter::Exporter, String) {
    let (exporter, _, url) = exporter().await;
    let tree = Tree::new("storm", 4);
    tree.start(exporter.telemetry(), now());
    for number in 0..1000 {
        tree.crash(number, now()).iter().for_each(|event| exporter.telemetry().execute(event));
    }
    (exporter, url)
}

/// Runs a command whose standard output, and if so its standard error as well, is closed at the other end.
async fn unread(arguments: &[&str], hears_nothing: bool) -> (Option<i32>, String) {
    let closed = || Stdio::from(std::io::pipe().unwrap().1);
    let mut command = Command::new(BINARY);
    command.args(arguments).stdin(Stdio::null()).stdout(closed());
    command.stderr(if hears_nothing { closed() } else { Stdio::piped() });
    let output =
        tokio::task::spawn_blocking(move || command.spawn().unwrap().wait_with_output().unwrap()).await.unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

// `| head -1`: whoever closed the output has what he wanted. The exit status is what it would have been, and nothing is said.
#[tokio::test]
async fn a_closed_pipe_is_no_error() {
    let (exporter, url) = storm().await;
    let table: [(&[&str], i32); 10] = [
        (&["status", &url], 1),
        (&["status", "--all", "--json", &url], 1),
        (&["why", "storm", &url], 0),
        (&["history", "storm", "--raw", "--limit=1000", &url], 0),
        (&["history", "storm", "--json", &url], 0),
        (&["mark", "deploy", &url], 0),
        (&["man"], 0),
        (&["completions", "bash"], 0),
        (&["beam-agent"], 0),
        (&["--version"], 0),
    ];
    for (arguments, expected) in table {
        for hears_nothing in [false, true] {
            let ended = unread(arguments, hears_nothing).await;
            assert_eq!(ended, (Some(expected), String::new()), "{arguments:?}");
        }
    }
    // What went wrong cannot be told either, but for the exit status.
    for arguments in [&["why", "nobody", &url][..], &["status", "--url=http://127.0.0.1:1"]] {
        assert_eq!(unread(arguments, true).await.0, Some(2), "{arguments:?}");
    }
    // A reader that goes in the middle.
    let line = format!("'{BINARY}' history storm --raw --limit=1000 '{url}' | head -1; echo \"${{PIPESTATUS[0]}}\"");
    let mut shell = Command::new("bash");
    shell.args(["-c", &line]);
    let output = tokio::task::spawn_blocking(move || shell.output().unwrap()).await.unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(told.lines().count() == 2 && told.ends_with("\n0\n"), "{told}");
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
    exporter.shutdown().await;
}

// What could not be written was not said: a script must not take it for done.
#[tokio::test]
async fn a_full_disk_is_an_error() {
    let (exporter, url) = storm().await;
    for arguments in [["status", &url].as_slice(), &["why", "storm", &url], &["history", "storm", "--json", &url]] {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let mut command = Command::new(BINARY);
        command.args(arguments).stdin(Stdio::null()).stdout(full);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(stderr.starts_with("restart_exporter: standard output: No space left"), "{stderr}");
    }
    exporter.shutdown().await;
}

/// What a command writes to a terminal, line ends as in a file.
async fn on_terminal(arguments: &[&str], environment: &[(&str, &str)]) -> String {
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&terminal).unwrap();
    unlockpt(&terminal).unwrap();
    let name = ptsname(&terminal, Vec::new()).unwrap();
    let screen = rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
    let mut command = Command::new(BINARY);
    command.args(arguments).env_remove("NO_COLOR").env("TERM", "xterm").envs(environment.iter().copied());
    command.stdin(Stdio::null()).stdout(screen);
    let read = move || {
        let mut process = command.spawn().unwrap();
        // It holds the terminal open, which else has no end.
        drop(command);
        let mut text = Vec::new();
        // The end of a terminal is an error.
        let _ = File::from(terminal).read_to_end(&mut text);
        process.wait().unwrap();
        String::from_utf8(text).unwrap().replace("\r\n", "\n")
    };
    tokio::task::spawn_blocking(read).await.unwrap()
}

// A person sees colours unless he forbade them; a file and a pipe have none; and the words are the same.
#[tokio::test]
async fn only_a_terminal_gets_colours() {
    let (exporter, url) = storm().await;
    for arguments in [["why", "storm/child-0", &url], ["status", "--all", &url]] {
        let colourful = on_terminal(&arguments, &[]).await;
        assert!(colourful.contains("\u{1b}[31;1mLOOPING\u{1b}[0m"), "{colourful:?}");
        // An empty variable forbids nothing.
        assert!(on_terminal(&arguments, &[("NO_COLOR", "")]).await.contains("\u{1b}["));
        for forbidden in [("NO_COLOR", "1"), ("TERM", "dumb")] {
            let plain = on_terminal(&arguments, &[forbidden]).await;
            assert!(plain.contains("LOOPING") && !plain.contains('\u{1b}'), "{forbidden:?}: {plain:?}");
        }
        let piped = run_with(&arguments, &[("TERM", "xterm")]).await;
        assert!(piped.stdout.contains("LOOPING") && !piped.stdout.contains('\u{1b}'), "{:?}", piped.stdout);
    }
    let head = |text: &str| text.lines().next().unwrap_or_default().to_owned();
    let colourful = head(&on_terminal(&["status", &url], &[]).await);
    let plain = run(&["status", &url]).await;
    let words = colourful.split('\u{1b}').map(|part| part.split_once('m').map_or(part, |(_, words)| words));
    assert_eq!((words.collect::<String>(), code(&plain)), (head(&plain.stdout), 1));
    exporter.shutdown().await;
}
