//! From a [`Program`] to what the kernel is given: where it is, its arguments and variables. And its start, which waits
//! while the system is short of something.

use std::collections::BTreeMap;
use std::ffi::{CString, NulError, OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::sleep;

use super::spawn::{self, Failed, Launch, Process, Words};
use super::{PassOn, Program, cannot_run};
use crate::event::ExitReason;
use crate::resources::Shortage;
use crate::supervisor::child::StopToken;
use crate::supervisor::notice::Notice;

/// Where programs are looked for if there is no `PATH`, as execvp has it.
const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// How long a start that met a shortage pauses before it is tried again; twice as long each time.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Starts the program, and waits while the system is short of something: that is no failure of the program.
///
/// # Errors
/// Why it does not run: it cannot, or it was told to stop meanwhile.
pub(super) async fn start(program: &Program, id: &str, stop: &StopToken, kill: &Notice) -> Result<Process, ExitReason> {
    let (mut pause, mut told) = (FIRST_PAUSE, false);
    loop {
        let failed = match once(program).await {
            Ok(process) => return Ok(process),
            Err(failed) => failed,
        };
        let Some(shortage) = Shortage::of(failed.error()) else { return Err(cannot_run::reason(program, &failed)) };
        shortage.count();
        if !told {
            told = true;
            let (limit, error) = (shortage.as_str(), failed.error());
            tracing::warn!(child = id, limit, err = %error, "a process waits to be started: {}", shortage.advice());
        }
        tokio::select! {
            biased;
            () = kill.given() => return Err(ExitReason::Killed),
            () = stop.stopped() => return Err(ExitReason::Shutdown(None)),
            () = sleep(pause) => pause = (2 * pause).min(LONGEST_PAUSE),
        }
    }
}

/// Starts the program, or does not.
pub(super) async fn once(program: &Program) -> Result<Process, Failed> {
    spawn::spawn(program.launch()?).await
}

impl Program {
    /// Where the program is found: its path if it has a slash in it, else the first match in its `PATH`. None if there is
    /// no executable file.
    pub fn find(&self) -> Option<PathBuf> {
        self.path().map(|path| self.in_directory(&path))
    }

    /// The same, as it is meant in the directory where the program runs.
    fn path(&self) -> Option<PathBuf> {
        let is_there = |path: &PathBuf| cannot_run::is_executable(&self.in_directory(path));
        if self.program.contains('/') {
            return Some(PathBuf::from(&self.program)).filter(is_there);
        }
        std::env::split_paths(&self.search_path()).map(|folder| folder.join(&self.program)).find(is_there)
    }

    pub(super) fn in_directory(&self, path: &Path) -> PathBuf {
        self.cwd.as_deref().unwrap_or(Path::new(".")).join(path)
    }

    /// The `PATH` of the program itself.
    pub(super) fn search_path(&self) -> OsString {
        let own = self.env.iter().rev().find(|(name, _)| name == "PATH").map(|(_, value)| value.into());
        let inherits = !self.env_clear || self.env_inherit.iter().any(|name| name == "PATH");
        own.or_else(|| std::env::var_os("PATH").filter(|_| inherits)).unwrap_or_else(|| DEFAULT_PATH.into())
    }

    fn variables(&self) -> BTreeMap<OsString, OsString> {
        let mut variables: BTreeMap<OsString, OsString> = if self.env_clear {
            self.env_inherit.iter().filter_map(|name| Some((name.into(), std::env::var_os(name)?))).collect()
        } else {
            std::env::vars_os().collect()
        };
        variables.retain(|name, _| !is_meant_for_us(name));
        variables.extend(self.env.iter().map(|(name, value)| (name.into(), value.into())));
        variables
    }

    fn launch(&self) -> Result<Launch, Failed> {
        let path = self.path().ok_or_else(|| Failed::Exec(io::ErrorKind::NotFound.into()))?;
        let arguments = [&self.program].into_iter().chain(&self.args);
        let arguments: Result<Vec<_>, _> = arguments.map(|word| text(word.as_bytes().to_vec())).collect();
        let variables = self
            .variables()
            .into_iter()
            .map(|(name, value)| text([name.into_vec(), b"=".to_vec(), value.into_vec()].concat()));
        let variables: Result<Vec<_>, _> = variables.collect();
        let cwd = self.cwd.as_ref().map(|cwd| text(cwd.as_os_str().as_bytes().to_vec()));
        Ok(Launch {
            path: text(path.into_os_string().into_vec())?,
            arguments: Words::new(arguments?),
            variables: Words::new(variables?),
            cwd: cwd.transpose()?,
            credentials: self.credentials,
            umask: self.umask,
            stdout: self.pass_on != PassOn::Off || self.keep_stdout,
            stderr: !self.is_probe,
        })
    }
}

/// Variables by which whoever started us speaks to us alone: a child that took them for its own would tell systemd that we
/// are ready, or take sockets that it does not have. And what configures us may be secret.
fn is_meant_for_us(name: &OsStr) -> bool {
    let name = name.as_bytes();
    name == b"NOTIFY_SOCKET" || name.starts_with(b"LISTEN_") || name.starts_with(b"RESTART_EXPORTER_")
}

fn text(bytes: Vec<u8>) -> Result<CString, Failed> {
    CString::new(bytes).map_err(|error: NulError| Failed::Other(error.into()))
}
