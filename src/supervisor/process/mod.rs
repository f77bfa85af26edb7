//! An OS process as a child: started in a process group of its own, stopped by a signal to the group, its last words kept.

mod cannot_run;
mod last_output;
mod launch;
mod leftovers;
mod oom;
mod orphans;
mod output;
mod ready;
mod spawn;

use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustix::process::Signal;
use thiserror::Error;
use tokio::time::sleep;

pub use last_output::{LastOutputLimits, MAX_LINE_BYTES};
pub use leftovers::{end_leftovers, kill_all_processes};
pub use orphans::reap_orphans;
pub use output::{PassOn, flush_output};
pub use ready::{Probing, Readiness};

use crate::event::{ExitReason, Pid};
use crate::resources::Alive;
use crate::supervisor::child::{Exit, StopToken};
use crate::supervisor::difference::differing;
use crate::supervisor::notice::Notice;
use crate::supervisor::starts::{Answer, Known, Voice};
use output::{Output, Stream};
use spawn::Process;

/// How often is looked whether all of a group that was told to stop have gone.
const GROUP_POLL: Duration = Duration::from_millis(50);

/// A program to run: what it is, as whom and where it runs, how it stops, and what becomes of its output.
///
/// By default no shell is involved; the program inherits our environment, reads nothing from standard input, and leads a
/// process group of its own, so that signals reach what it starts as well. What is left of the group when the program has
/// ended by itself is killed. It is killed when we die, however we die.
#[derive(Clone, PartialEq)]
pub struct Program {
    pub(super) program: String,
    args: Vec<String>,
    cwd: Option<PathBuf>,
    env: Vec<(String, String)>,
    env_clear: bool,
    env_inherit: Vec<String>,
    credentials: Option<Credentials>,
    umask: Option<u32>,
    stop_signal: StopSignal,
    ok_exit_codes: Vec<i32>,
    readiness: Readiness,
    pass_on: PassOn,
    last_output: LastOutputLimits,
    keep_stdout: bool,
    /// Run by us to ask something: nothing of what it writes is read.
    is_probe: bool,
}

/// As whom a program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// The user's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
}

/// The signal that asks a process to stop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StopSignal {
    /// SIGTERM, the default.
    #[default]
    Term,
    /// SIGINT.
    Int,
    /// SIGHUP.
    Hup,
    /// SIGQUIT.
    Quit,
    /// SIGUSR1.
    Usr1,
    /// SIGUSR2.
    Usr2,
}

/// A word that names no [`StopSignal`].
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("unknown stop signal {0:?}: one of SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2")]
pub struct UnknownSignal(String);

// === impl Program ===

impl Program {
    /// A program by its path, or by its name to be found in `PATH`.
    pub fn new(program: impl Into<String>) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            cwd: None,
            env: Vec::new(),
            env_clear: false,
            env_inherit: Vec::new(),
            credentials: None,
            umask: None,
            stop_signal: StopSignal::default(),
            ok_exit_codes: Vec::new(),
            readiness: Readiness::default(),
            pass_on: PassOn::default(),
            last_output: LastOutputLimits::default(),
            keep_stdout: false,
            is_probe: false,
        }
    }

    /// A line for `/bin/sh -c`.
    pub fn shell(line: impl Into<String>) -> Self {
        Self::new("/bin/sh").args(["-c".to_owned(), line.into()])
    }

    /// Adds arguments.
    pub fn args(mut self, args: impl IntoIterator<Item: Into<String>>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Runs the program in this directory.
    pub fn cwd(mut self, cwd: impl Into<PathBuf>) -> Self {
        self.cwd = Some(cwd.into());
        self
    }

    /// Sets a variable of the program's environment.
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Inherits only these variables of our environment instead of all.
    pub fn env_clear(mut self, inherit: impl IntoIterator<Item: Into<String>>) -> Self {
        self.env_clear = true;
        self.env_inherit = inherit.into_iter().map(Into::into).collect();
        self
    }

    /// Runs the program as this user and group, without supplementary groups. Only root can.
    pub fn credentials(mut self, credentials: Credentials) -> Self {
        self.credentials = Some(credentials);
        self
    }

    /// The program's file mode creation mask; ours without it.
    pub fn umask(mut self, umask: u32) -> Self {
        self.umask = Some(umask & 0o777);
        self
    }

    /// Asks the program to stop by this signal.
    pub fn stop_signal(mut self, signal: StopSignal) -> Self {
        self.stop_signal = signal;
        self
    }

    /// Exit codes that count as a normal end, besides 0.
    pub fn ok_exit_codes(mut self, codes: impl IntoIterator<Item = i32>) -> Self {
        self.ok_exit_codes = codes.into_iter().collect();
        self
    }

    /// What ends the start.
    pub fn readiness(mut self, readiness: Readiness) -> Self {
        self.readiness = readiness;
        self
    }

    /// How the output is passed on to ours; line by line with the child's id in front by default.
    pub fn pass_on(mut self, pass_on: PassOn) -> Self {
        self.pass_on = pass_on;
        self
    }

    /// How much of standard error is kept for the death record.
    pub fn last_output(mut self, limits: LastOutputLimits) -> Self {
        self.last_output = limits;
        self
    }

    /// Keeps standard output for the death record as well.
    pub fn keep_stdout(mut self, keep: bool) -> Self {
        self.keep_stdout = keep;
        self
    }

    /// The program's path or name, as it was given.
    pub fn name(&self) -> &str {
        &self.program
    }

    /// Is what it writes to this stream kept for its death record?
    fn keeps(&self, stream: Stream) -> bool {
        stream == Stream::Stderr || self.keep_stdout
    }

    /// The keys of the file in which the programs differ, and which need no new process.
    pub(super) fn changed_in_place(&self, other: &Program) -> Vec<&'static str> {
        differing([
            ("stop_signal", self.stop_signal != other.stop_signal),
            ("ok_exit_codes", self.ok_exit_codes != other.ok_exit_codes),
            ("last_output", (self.last_output, self.keep_stdout) != (other.last_output, other.keep_stdout)),
            ("ready", self.readiness != other.readiness),
        ])
    }

    /// The keys of the file in which the programs differ, and which need a new process.
    pub(super) fn changed_for_good(&self, other: &Program) -> Vec<&'static str> {
        differing([
            ("command", (&self.program, &self.args) != (&other.program, &other.args)),
            ("cwd", self.cwd != other.cwd),
            ("env", self.env != other.env),
            ("env_clear", self.env_clear != other.env_clear),
            ("env_inherit", self.env_inherit != other.env_inherit),
            ("user", self.credentials != other.credentials),
            ("umask", self.umask != other.umask),
            ("output", self.pass_on != other.pass_on),
        ])
    }

    /// What ends the start.
    pub(super) fn readiness_of(&self) -> &Readiness {
        &self.readiness
    }

    /// A command that is run to ask something.
    pub(super) fn probe(program: &str, args: &[String]) -> Self {
        let probe = Self::new(program).args(args).pass_on(PassOn::Off);
        Self { is_probe: true, ..probe }
    }
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Arguments and environment may hold secrets.
        f.debug_struct("Program").field("program", &self.program).finish_non_exhaustive()
    }
}

// === impl StopSignal ===

impl StopSignal {
    fn signal(self) -> Signal {
        match self {
            StopSignal::Term => Signal::TERM,
            StopSignal::Int => Signal::INT,
            StopSignal::Hup => Signal::HUP,
            StopSignal::Quit => Signal::QUIT,
            StopSignal::Usr1 => Signal::USR1,
            StopSignal::Usr2 => Signal::USR2,
        }
    }
}

impl FromStr for StopSignal {
    type Err = UnknownSignal;

    fn from_str(word: &str) -> Result<Self, UnknownSignal> {
        match word.strip_prefix("SIG").unwrap_or(word) {
            "TERM" => Ok(StopSignal::Term),
            "INT" => Ok(StopSignal::Int),
            "HUP" => Ok(StopSignal::Hup),
            "QUIT" => Ok(StopSignal::Quit),
            "USR1" => Ok(StopSignal::Usr1),
            "USR2" => Ok(StopSignal::Usr2),
            _ => Err(UnknownSignal(word.into())),
        }
    }
}

// === One run ===

/// The program of a process that runs, as it is now: a reload changes what does not concern the start.
pub(super) type Live = Arc<ArcSwap<Program>>;

/// Runs the program to its end. The stop token sends the stop signal, the kill token SIGKILL; both to the whole group.
pub(super) async fn run(live: Live, id: Arc<str>, stop: StopToken, kill: Notice, voice: Voice) -> Exit {
    oom::watch();
    let _alive = Alive::one_more();
    let program = live.load_full();
    let mut process = match launch::start(&program, &id, &stop, &kill).await {
        Ok(process) => process,
        Err(reason) => return reason.into(),
    };
    let output = listen(&live, &id, &mut process);
    let end = supervise(&live, &mut process, &stop, &kill, voice).await;
    // Read only now: while the process lives, its output is not complete, and a grandchild may hold the pipe for ever.
    let last_output = Some(output.finish().await);
    match end {
        Ok(end) => Exit { reason: end.reason, last_output, usage: Some(end.usage) },
        Err(error) => {
            let reason = ExitReason::error(format_args!("cannot wait for process {}: {error}", process.pid));
            Exit { reason, last_output, usage: None }
        }
    }
}

struct End {
    reason: ExitReason,
    usage: crate::event::Usage,
}

async fn supervise(
    live: &Live,
    process: &mut Process,
    stop: &StopToken,
    kill: &Notice,
    mut voice: Voice,
) -> std::io::Result<End> {
    let readiness = live.load().readiness.clone();
    let mut ended = std::pin::pin!(process.ended());
    let mut reached = std::pin::pin!(readiness.reached());
    voice.known(Known::Pid(Pid::Process(process.pid.as_raw_nonzero().get().unsigned_abs())));
    // At once, not when the loop comes to it: a program that dies as soon as it runs has died, and did start.
    let mut is_ready = readiness == Readiness::None && voice.answer(Answer::default());
    let (mut told, mut killed, mut not_ready) = (None, false, None);
    loop {
        tokio::select! {
            biased;
            result = &mut ended => break result?,
            () = kill.given(), if !killed => {
                killed = true;
                process.signal(Signal::KILL);
            }
            () = stop.stopped(), if told.is_none() => {
                let signal = live.load().stop_signal;
                told = Some(signal);
                process.signal(signal.signal());
            }
            reached = &mut reached, if !is_ready => {
                is_ready = true;
                match reached {
                    Ok(()) => {
                        voice.answer(Answer::default());
                    }
                    Err(reason) => {
                        not_ready = Some(reason);
                        process.signal(Signal::KILL);
                        ended.as_mut().await?;
                        break;
                    }
                }
            },
        }
    }
    if told.is_none() && !killed {
        // What it started must not live on beside the next run. Before it is reaped, while its pid is surely its own.
        process.signal(Signal::KILL);
    }
    let (status, usage) = process.reap()?;
    // The others of the group were told to stop as well, and have the same time for it.
    let mut rest_killed = false;
    if told.is_some() && !killed {
        let rest_goes = async {
            while process.has_group().await {
                sleep(GROUP_POLL).await;
            }
        };
        tokio::select! {
            biased;
            () = rest_goes => {}
            () = kill.given() => {
                rest_killed = true;
                process.signal(Signal::KILL);
            }
        }
    }
    let reason = match (not_ready, exit_reason(status, told, &live.load().ok_exit_codes)) {
        (Some(not_ready), _) => not_ready,
        (None, ExitReason::Killed) if !killed && oom::killed() => ExitReason::Oom,
        // Not all of it did as it was told.
        (None, ExitReason::Shutdown(_)) if rest_killed => ExitReason::Killed,
        (None, reason) => reason,
    };
    Ok(End { reason, usage })
}

/// Reads what the process writes.
fn listen(live: &Live, id: &Arc<str>, process: &mut Process) -> Output {
    let program = live.load_full();
    let mut output = Output::new(live.clone());
    let (stdout, stderr) = (process.stdout.take(), process.stderr.take());
    let stdout = stdout.map(|pipe| output.read(pipe, Stream::Stdout, program.pass_on, id));
    let stderr = stderr.map(|pipe| output.read(pipe, Stream::Stderr, program.pass_on, id));
    for error in [stdout, stderr].into_iter().flatten().filter_map(Result::err) {
        tracing::warn!(child = &**id, err = %error, "cannot read the output of a process");
    }
    output
}

/// What a wait status says. A process that was asked to stop and went by that very signal did as it was told; shells and
/// some runtimes say the same with exit code 128 + signal.
fn exit_reason(status: ExitStatus, asked: Option<StopSignal>, ok_exit_codes: &[i32]) -> ExitReason {
    let asked_for = |signal: i32| asked.is_some_and(|asked| asked.signal().as_raw() == signal);
    match (status.code(), status.signal()) {
        (Some(code), _) if code == 0 || ok_exit_codes.contains(&code) => match asked {
            Some(_) => ExitReason::Shutdown(None),
            None => ExitReason::Normal,
        },
        (Some(code), _) if asked_for(code - 128) => ExitReason::Shutdown(None),
        (Some(code), _) => ExitReason::Exit(code),
        (None, Some(signal)) if signal == Signal::KILL.as_raw() => ExitReason::Killed,
        (None, Some(signal)) if asked_for(signal) => ExitReason::Shutdown(None),
        (None, signal) => ExitReason::Signal(signal.unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Wait statuses as wait(2) encodes them: the exit code in the second byte, a signal in the first.
    #[test]
    fn a_wait_status_says_how_the_process_ended() {
        let asked = Some(StopSignal::Term);
        let table = [
            (0, None, ExitReason::Normal),
            (0, asked, ExitReason::Shutdown(None)),
            (2 << 8, None, ExitReason::Exit(2)),
            (2 << 8, asked, ExitReason::Exit(2)),
            (3 << 8, None, ExitReason::Normal),
            (143 << 8, None, ExitReason::Exit(143)),
            (143 << 8, asked, ExitReason::Shutdown(None)),
            (9, None, ExitReason::Killed),
            (9, asked, ExitReason::Killed),
            (15, None, ExitReason::Signal(15)),
            (15, asked, ExitReason::Shutdown(None)),
            (11, asked, ExitReason::Signal(11)),
        ];
        for (raw, asked, reason) in table {
            assert_eq!(exit_reason(ExitStatus::from_raw(raw), asked, &[3]), reason, "status {raw}, asked {asked:?}");
        }
    }

    #[test]
    fn a_stop_signal_is_named_with_or_without_sig() {
        assert_eq!("SIGINT".parse(), Ok(StopSignal::Int));
        assert_eq!("USR1".parse(), Ok(StopSignal::Usr1));
        assert!("SIGKILL".parse::<StopSignal>().is_err());
    }
}
