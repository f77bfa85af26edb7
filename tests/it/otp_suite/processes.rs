//! OS processes as children. Real time, because a process does not follow a paused clock; the tests wait for events, and
//! for the words and the end of file on a pipe that all processes of a group hold open.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use restart_exporter::event::{ExitReason, Pid};
use restart_exporter::supervisor::{
    ChildSpec, ChildState, ControlError, Program, Restart, Shutdown, StartError, StopSignal, Strategy, Supervisor,
};
use tempfile::TempDir;
use tokio::task::spawn_blocking;

use crate::support::{logged, reason, supervise};

/// A pipe with a name. What a process writes into it arrives here, and its end does when the last one has gone.
struct Pipe {
    directory: TempDir,
}

impl Pipe {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let pipe = Self { directory };
        assert!(Command::new("mkfifo").arg(pipe.path()).status().unwrap().success());
        pipe
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("pipe")
    }

    /// A shell script that has the pipe open as file 9, as all that it starts.
    fn script(&self, script: &str) -> Program {
        let path = self.path().to_str().unwrap().to_owned();
        Program::new("sh").args(["-c", &format!("exec 9> \"$PIPE\"; {script}")]).env("PIPE", path)
    }

    /// Waits for the first line.
    async fn line(&self) -> (String, BufReader<File>) {
        let path = self.path();
        let read = move || {
            let mut reader = BufReader::new(File::open(path).unwrap());
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            (line, reader)
        };
        spawn_blocking(read).await.unwrap()
    }
}

/// Waits until every process that held the pipe has gone.
async fn all_gone(mut reader: BufReader<File>) {
    spawn_blocking(move || reader.read_to_string(&mut String::new())).await.unwrap().unwrap();
}

fn sh(script: &str) -> Program {
    Program::new("sh").args(["-c", script])
}

// The exit code or signal of a process is its reason, and decides as any other reason does.
#[tokio::test]
async fn a_process_ends_with_its_exit_code_or_signal() {
    let table = [
        ("exit 0", ExitReason::Normal, "leave"),
        ("exit 3", ExitReason::Exit(3), "restart"),
        ("kill -9 $$", ExitReason::Killed, "restart"),
        ("kill -TERM $$", ExitReason::Signal(15), "restart"),
    ];
    for (script, expected, action) in table {
        let spec = ChildSpec::program("process", sh(script)).restart(Restart::Transient);
        let (top, log) = supervise(Supervisor::new("top").child(spec)).await;
        let end = log.first("terminate top/process").await;
        assert_eq!(reason(&end), expected, "{script}");
        let class = expected.class();
        assert_eq!(log.count(&format!("terminate top/process {class} -> {action}")).min(1), 1, "{script}");
        top.shutdown().await;
    }
}

// The pid of a process is the system's.
#[tokio::test]
async fn a_process_is_known_by_the_systems_pid() {
    let pipe = Pipe::new();
    let spec = ChildSpec::program("process", pipe.script("echo $$ >&9; exec sleep 100"));
    let (top, _log) = supervise(Supervisor::new("top").child(spec)).await;
    let (line, reader) = pipe.line().await;
    let pid = Pid::Process(line.trim().parse().unwrap());
    assert_eq!(top.which_children().await.unwrap()[0].state, ChildState::Running(pid));
    top.shutdown().await;
    all_gone(reader).await;
}

// A process that goes by the signal that asked it to did as it was told; one that has its own answer keeps its code. The
// rest of its group (background jobs of a shell ignore SIGINT) has the shutdown time as well, and if it has to be killed
// then, the child ran out of time.
#[tokio::test]
async fn a_process_is_asked_by_its_stop_signal() {
    let pipes = [Pipe::new(), Pipe::new(), Pipe::new()];
    let obeying = pipes[0].script("echo ready >&9; exec sleep 100");
    let saving = pipes[1].script("trap 'exit 0' INT; echo ready >&9; sleep 100 & wait").stop_signal(StopSignal::Int);
    let failing = pipes[2].script("trap 'exit 7' USR1; echo ready >&9; sleep 100 & wait").stop_signal(StopSignal::Usr1);
    let top = [("obeying", obeying), ("saving", saving), ("failing", failing)].into_iter().fold(
        Supervisor::new("top"),
        |top, (id, program)| {
            top.child(ChildSpec::program(id, program).shutdown(Shutdown::Timeout(Duration::from_millis(200))))
        },
    );
    let (top, log) = supervise(top).await;
    let mut readers = Vec::new();
    for pipe in &pipes {
        readers.push(pipe.line().await.1);
    }
    top.shutdown().await;
    let expected = [
        "terminate top/failing error ordered -> leave",
        "terminate top/saving timeout ordered -> leave",
        "terminate top/obeying shutdown ordered -> leave",
        "end top normal",
    ];
    assert_eq!(log.since(4), expected);
    assert_eq!(reason(&log.first("terminate top/failing").await), ExitReason::Exit(7));
    for reader in readers {
        all_gone(reader).await;
    }
}

/// Starts a process that ignores the stop signal, with one more below it, and terminates it.
async fn check_killed(shutdown: Shutdown, expected: ExitReason) {
    let pipe = Pipe::new();
    let stubborn = pipe.script("trap '' TERM; sleep 100 & echo ready >&9; wait");
    let (top, log) =
        supervise(Supervisor::new("top").child(ChildSpec::program("stubborn", stubborn).shutdown(shutdown))).await;
    let (_, reader) = pipe.line().await;
    top.terminate_child("stubborn").await.unwrap();
    assert_eq!(reason(&log.first("terminate top/stubborn").await), expected);
    all_gone(reader).await;
}

// A process that does not go in its time is killed, with its whole group, and its reason is the timeout.
#[tokio::test]
async fn a_process_that_does_not_stop_in_time_is_killed_with_its_group() {
    check_killed(Shutdown::Timeout(Duration::from_millis(50)), ExitReason::Timeout).await;
}

// When a process has ended, by itself or because it was asked, nothing of its group lives on beside the next run.
#[tokio::test]
async fn a_process_that_ends_takes_its_group_with_it() {
    let pipe = Pipe::new();
    let script = "trap '' TERM INT; sleep 100 & echo ready >&9; exit 1";
    let spec = ChildSpec::program("process", pipe.script(script)).restart(Restart::Temporary);
    let (_top, log) = supervise(Supervisor::new("top").child(spec)).await;
    let (_, reader) = pipe.line().await;
    log.first("terminate top/process error -> forget").await;
    all_gone(reader).await;
}

// With brutal_kill nobody is asked.
#[tokio::test]
async fn a_process_with_brutal_kill_is_killed_with_its_group() {
    check_killed(Shutdown::BrutalKill, ExitReason::Killed).await;
}

// A program that is missing or may not be run is an error of the start that names it.
#[tokio::test]
async fn a_missing_program_is_a_start_error_that_names_it() {
    let missing = || ChildSpec::process("process", "/nonexistent/program", ["argument"]);
    let (telemetry, log) = logged();
    let error = Supervisor::new("top").child(missing()).start(&telemetry).await.unwrap_err();
    assert!(matches!(&error, StartError::Child { child, .. } if &**child == "process"));
    assert!(error.to_string().contains("/nonexistent/program"), "{error}");
    assert_eq!(log.since(1), ["start_error top/process #1", "end top error"]);

    let (top, _log) = supervise(Supervisor::new("top")).await;
    let error = top.start_child(missing()).await.unwrap_err();
    assert!(matches!(&error, ControlError::StartFailed(_)));
    let not_executable = ChildSpec::process("process", "/etc/passwd", [""; 0]);
    let error = top.start_child(not_executable).await.unwrap_err();
    assert!(error.to_string().contains("/etc/passwd"), "{error}");
    let nowhere = ChildSpec::program("process", sh("exit 0").cwd("/nonexistent"));
    assert!(top.start_child(nowhere).await.is_err());
}

// A program runs in the directory and with the environment it was given.
#[tokio::test]
async fn a_process_has_its_directory_and_environment() {
    let pipe = Pipe::new();
    let home = pipe.directory.path().canonicalize().unwrap();
    let program = pipe.script("echo \"$GREETING $(pwd -P)\" >&9").cwd(&home).env("GREETING", "hello");
    let spec = ChildSpec::program("process", program).restart(Restart::Temporary);
    let (_top, log) = supervise(Supervisor::new("top").child(spec)).await;
    assert_eq!(pipe.line().await.0, format!("hello {}\n", home.display()));
    log.first("terminate top/process normal -> forget").await;
}

// one_for_all with processes: the next generation starts when the last process of the old one has gone, even if it had
// to be killed. Each process takes a directory as its lock; one that finds it taken has met another.
#[tokio::test]
async fn one_for_all_never_has_two_generations_of_processes_alive() {
    let pipe = Pipe::new();
    let home = pipe.directory.path().to_owned();
    let lock = |name: &str, then: &str| {
        // The lock goes with the process; who is killed leaves it to the next one, which checks that it is dead.
        let script =
            format!("if [ -e {name} ] && kill -0 $(cat {name}) 2>&-; then touch met; fi; echo $$ > {name}; {then}");
        ChildSpec::program(name.to_owned(), sh(&script).cwd(&home))
            .shutdown(Shutdown::Timeout(Duration::from_millis(20)))
            .backoff(None)
    };
    let top = Supervisor::new("top")
        .strategy(Strategy::OneForAll)
        .max_restarts(4)
        .child(lock("stubborn", "trap '' TERM; while :; do sleep 100; done"))
        .child(lock("obeying", "exec sleep 100"))
        .child(lock("crashing", "exit 1"));
    let (top, log) = supervise(top).await;
    top.wait().await;
    assert_eq!(log.count("terminate top/crashing error -> restart"), 4);
    assert_eq!(log.count("restart"), 3 * 4);
    assert!(!pipe.directory.path().join("met").exists());
}
