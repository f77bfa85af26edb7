//! Starting processes, and learning how they ended.
//!
//! Processes are started by one thread that lives as long as we do. They ask the kernel to be killed when their parent
//! dies, and the kernel means the *thread* that started them: a worker of the runtime may end long before the program.

use std::collections::HashSet;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{ChildStderr, ChildStdout, Command, ExitStatus};
use std::sync::mpsc;
use std::time::Duration;

use nix::libc;
use nix::sys::signal::SigHandler;
use nix::sys::signal::Signal::{SIGHUP, SIGINT, SIGPIPE, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use once_cell::sync::Lazy;
use parking_lot::Mutex;
use rustix::process::{
    Pid, PidfdFlags, Signal, getpid, getppid, kill_process_group, pidfd_open, set_child_subreaper,
    set_parent_process_death_signal, test_kill_process_group, umask,
};
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;

use crate::event::Usage;

/// A process that was started, and leads a process group of its own.
///
/// Dropped before it was reaped (the runtime shuts down), it kills the group.
pub(super) struct Process {
    pub(super) pid: Pid,
    pidfd: Option<OwnedFd>,
    pub(super) stdout: Option<ChildStdout>,
    pub(super) stderr: Option<ChildStderr>,
    reaped: bool,
}

type Job = (Command, Option<u32>, oneshot::Sender<io::Result<Process>>);

static SPAWNER: Lazy<io::Result<mpsc::Sender<Job>>> = Lazy::new(|| {
    let (jobs, queue) = mpsc::channel::<Job>();
    std::thread::Builder::new().name("spawner".into()).spawn(move || {
        for (command, umask, reply) in queue {
            // If nobody waits any more, the process is dropped, and so killed.
            let _ = reply.send(start(command, umask));
        }
    })?;
    Ok(jobs)
});

/// Processes that are ours to reap. Held while one is started, so that its end cannot be taken for an orphan's.
static OURS: Lazy<Mutex<HashSet<Pid>>> = Lazy::new(Mutex::default);

/// Starts a process; `umask` is its file mode creation mask, ours without it.
pub(super) async fn spawn(command: Command, umask: Option<u32>) -> io::Result<Process> {
    let gone = || io::Error::other("the thread that starts processes has gone");
    let spawner = SPAWNER.as_ref().map_err(|error| io::Error::new(error.kind(), error.to_string()))?;
    let (reply, started) = oneshot::channel();
    spawner.send((command, umask, reply)).map_err(|_| gone())?;
    started.await.map_err(|_| gone())?
}

fn start(mut command: Command, mask: Option<u32>) -> io::Result<Process> {
    let parent = getpid();
    command.process_group(0);
    let prepare = move || {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // The parent may have died before that was asked for.
        if getppid() != Some(parent) {
            return Err(io::Error::from(io::ErrorKind::BrokenPipe));
        }
        if let Some(mask) = mask {
            umask(rustix::fs::Mode::from_raw_mode(mask));
        }
        // A shell starts its background jobs with some signals ignored. If we are one, our children would ignore the
        // signal that asks them to stop.
        for signal in [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGPIPE] {
            // SAFETY: the default action is no handler that could break an invariant of this process.
            #[allow(unsafe_code)]
            unsafe {
                nix::sys::signal::signal(signal, SigHandler::SigDfl)?;
            }
        }
        Ok(())
    };
    // SAFETY: between fork and exec only calls that are safe after a fork may be made. These are bare system calls; an
    // error is passed on as a number, without allocation. There is no safe way to die with one's parent: without it a
    // `kill -9` of the supervisor leaves its children running.
    #[allow(unsafe_code)]
    unsafe {
        command.pre_exec(prepare);
    }
    let mut ours = OURS.lock();
    let mut child = command.spawn()?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidData)?;
    ours.insert(pid);
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let mut process = Process { pid, pidfd: None, stdout, stderr, reaped: false };
    process.pidfd = Some(pidfd_open(pid, PidfdFlags::NONBLOCK)?);
    Ok(process)
}

// === impl Process ===

impl Process {
    /// A future that returns when the process has ended; it can be dropped and asked for again.
    pub(super) fn ended(&mut self) -> io::Result<impl Future<Output = io::Result<()>> + Send + use<>> {
        let pidfd = self.pidfd.as_ref().ok_or(io::ErrorKind::NotFound)?.try_clone()?;
        // SAFETY: an `OwnedFd` gives the same open descriptor until it is dropped, which `AsyncFd` does after it has
        // deregistered.
        #[allow(unsafe_code)]
        let pidfd = unsafe { AsyncFd::register(pidfd)? };
        Ok(async move { pidfd.readable().await.map(drop) })
    }

    /// Sends a signal to all of the group.
    pub(super) fn signal(&self, signal: Signal) {
        // The only error that can be met is that all have gone, which is what was wanted.
        let _ = kill_process_group(self.pid, signal);
    }

    /// Does anything of the group live? The kernel counts zombies as well, and some are never reaped (a container whose
    /// process 1 is no init): those are looked at one by one.
    pub(super) async fn has_group(&self) -> bool {
        if test_kill_process_group(self.pid).is_err() {
            return false;
        }
        let group = self.pid.as_raw_nonzero().get();
        tokio::task::spawn_blocking(move || {
            let Ok(mut processes) = procfs::process::all_processes() else { return true };
            processes.any(|process| {
                let stat = process.and_then(|process| process.stat());
                stat.is_ok_and(|stat| stat.pgrp == group && stat.state != 'Z')
            })
        })
        .await
        .unwrap_or(false)
    }

    /// Takes the status of the process, which must have ended, and what it used.
    pub(super) fn reap(&mut self) -> io::Result<(ExitStatus, Usage)> {
        let (pid, status, usage) = wait4(self.pid)?;
        if pid == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.reaped = true;
        OURS.lock().remove(&self.pid);
        Ok((status, usage))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.reaped {
            return;
        }
        self.signal(Signal::KILL);
        // A killed process ends soon, but not at once, and nobody is left to wait for it but a thread.
        let pid = self.pid;
        let reap = move || {
            let _ = waitid(Id::Pid(nix_pid(pid)), WaitPidFlag::WEXITED);
            OURS.lock().remove(&pid);
        };
        drop(std::thread::Builder::new().name("reaper".into()).spawn(reap));
    }
}

/// `wait4` without blocking: pid 0 if the process has not ended.
fn wait4(pid: Pid) -> io::Result<(i32, ExitStatus, Usage)> {
    let mut status = 0;
    // SAFETY: all bits zero is a valid `rusage`, and both pointers are valid for the call. No safe wrapper gives the
    // resource usage of one child, which the kernel keeps only until it is reaped.
    #[allow(unsafe_code)]
    let (result, usage) = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        (libc::wait4(pid.as_raw_nonzero().get(), &mut status, libc::WNOHANG, &mut usage), usage)
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    let cpu = duration(usage.ru_utime) + duration(usage.ru_stime);
    let peak_memory_bytes = u64::try_from(usage.ru_maxrss).unwrap_or_default() * 1024;
    Ok((result, ExitStatus::from_raw(status), Usage { peak_memory_bytes, cpu }))
}

fn duration(time: libc::timeval) -> Duration {
    let seconds = Duration::from_secs(u64::try_from(time.tv_sec).unwrap_or_default());
    seconds + Duration::from_micros(u64::try_from(time.tv_usec).unwrap_or_default())
}

/// How long the orphan reaper lets the owner of a process that has just ended take its status.
const OWNER_GRACE: Duration = Duration::from_millis(10);

/// Reaps orphans for ever: processes whose own parents ended before them, which the kernel gives to process 1, or to the
/// nearest subreaper above them. This process is made one; without reaping they would stay zombies.
///
/// For programs whose only other child processes are those of supervisors of this crate: it takes the status of any
/// process that is not one of those.
///
/// # Errors
/// If the signal handler cannot be installed, or the kernel refuses the role.
pub fn reap_orphans() -> io::Result<impl Future<Output = ()> + Send> {
    set_child_subreaper(Some(getpid()))?;
    let mut ends = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::child())?;
    Ok(async move {
        loop {
            while let Some(is_ours) = reap_one_orphan() {
                if is_ours {
                    tokio::time::sleep(OWNER_GRACE).await;
                }
            }
            if ends.recv().await.is_none() {
                return;
            }
        }
    })
}

/// Looks at one process that ended, and reaps it unless it is ours; none if there is no such process.
fn reap_one_orphan() -> Option<bool> {
    let ours = OURS.lock();
    let ended = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG;
    let pid = waitid(Id::All, ended | WaitPidFlag::WNOWAIT).ok()?.pid()?;
    if Pid::from_raw(pid.as_raw()).is_some_and(|pid| ours.contains(&pid)) {
        return Some(true);
    }
    let _ = waitid(Id::Pid(pid), ended);
    Some(false)
}

fn nix_pid(pid: Pid) -> nix::unistd::Pid {
    nix::unistd::Pid::from_raw(pid.as_raw_nonzero().get())
}
