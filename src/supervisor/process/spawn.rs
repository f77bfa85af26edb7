//! Starting processes, and learning how they ended.
//!
//! Processes are started by one thread that lives as long as we do. They ask the kernel to be killed when their parent
//! dies, and the kernel means the *thread* that started them: a worker of the runtime may end long before the program.

use std::collections::HashSet;
use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{ChildStderr, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use nix::libc;
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use once_cell::sync::Lazy;
use parking_lot::{Mutex, MutexGuard};
use rustix::process::{
    Pid, PidfdFlags, Resource, Signal, chdir, getpid, getppid, kill_process_group, pidfd_open,
    set_parent_process_death_signal, setrlimit, test_kill_process_group, umask,
};
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;

use super::Credentials;
use crate::event::Usage;
use crate::resources;

/// A program as the kernel takes it, whole before the fork: between fork and exec nothing may be allocated.
pub(super) struct Launch {
    pub(super) path: CString,
    pub(super) arguments: Words,
    /// `NAME=value` each.
    pub(super) variables: Words,
    /// Where it runs, and from where a relative path of the program is meant.
    pub(super) cwd: Option<CString>,
    pub(super) credentials: Option<Credentials>,
    pub(super) umask: Option<u32>,
    /// Whether its output is read.
    pub(super) stdout: bool,
    pub(super) stderr: bool,
}

/// A list of words as C has it.
pub(super) struct Words {
    /// What the pointers point to.
    _words: Vec<CString>,
    pointers: Vec<*const libc::c_char>,
}

// SAFETY: the pointers point into memory that the same value owns and never changes.
#[allow(unsafe_code)]
unsafe impl Send for Words {}
// SAFETY: as above.
#[allow(unsafe_code)]
unsafe impl Sync for Words {}

/// Why a process was not started.
#[derive(Debug)]
pub(super) enum Failed {
    /// It could not enter its directory.
    Directory(io::Error),
    /// The kernel did not take the program.
    Exec(io::Error),
    /// Anything before.
    Other(io::Error),
}

/// A process that was started, and leads a process group of its own.
///
/// Dropped before it was reaped (the runtime shuts down), it kills the group.
pub(super) struct Process {
    pub(super) pid: Pid,
    pidfd: Arc<AsyncFd<OwnedFd>>,
    pub(super) stdout: Option<ChildStdout>,
    pub(super) stderr: Option<ChildStderr>,
    started: Started,
}

/// What must not be lost of a process before it is reaped.
struct Started {
    pid: Pid,
    /// Memory of the forked image of ours that the kernel counts as the process's own, in KiB.
    forked_kib: Option<u64>,
    reaped: bool,
}

/// What the thread that starts processes gives back.
struct Born {
    started: Started,
    pidfd: OwnedFd,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
}

type Job = (Launch, oneshot::Sender<Result<Born, Failed>>);

/// The thread that starts processes, once there was room for it.
static SPAWNER: Mutex<Option<mpsc::Sender<Job>>> = Mutex::new(None);

/// Processes that are ours to reap, and whether there may be more. Held while one is started, so that its end cannot be
/// taken for an orphan's.
static OURS: Lazy<Mutex<Ours>> = Lazy::new(Mutex::default);

#[derive(Default)]
pub(super) struct Ours {
    processes: HashSet<Pid>,
    closed: bool,
}

/// While it is held, no process is started.
pub(super) fn ours() -> MutexGuard<'static, Ours> {
    OURS.lock()
}

impl Ours {
    /// Is this process ours to reap?
    pub(super) fn has(&self, pid: i32) -> bool {
        Pid::from_raw(pid).is_some_and(|pid| self.processes.contains(&pid))
    }
}

/// Starts a process.
pub(super) async fn spawn(launch: Launch) -> Result<Process, Failed> {
    let gone = || Failed::Other(io::Error::other("the thread that starts processes has gone"));
    let (reply, started) = oneshot::channel();
    spawner()?.send((launch, reply)).map_err(|_| gone())?;
    let Born { started, pidfd, stdout, stderr } = started.await.map_err(|_| gone())??;
    // SAFETY: an `OwnedFd` gives the same open descriptor until it is dropped, which `AsyncFd` does after it has
    // deregistered.
    #[allow(unsafe_code)]
    let pidfd = unsafe { AsyncFd::register(pidfd) }.map_err(io::Error::from)?;
    Ok(Process { pid: started.pid, pidfd: Arc::new(pidfd), stdout, stderr, started })
}

fn spawner() -> io::Result<mpsc::Sender<Job>> {
    let mut spawner = SPAWNER.lock();
    if let Some(jobs) = &*spawner {
        return Ok(jobs.clone());
    }
    let (jobs, queue) = mpsc::channel::<Job>();
    std::thread::Builder::new().name("spawner".into()).spawn(move || {
        for (launch, reply) in queue {
            // If nobody waits any more, the process is dropped, and so killed.
            let _ = reply.send(start(launch));
        }
    })?;
    Ok(spawner.insert(jobs).clone())
}

fn start(launch: Launch) -> Result<Born, Failed> {
    let mut command = Command::new(OsStr::from_bytes(launch.path.as_bytes()));
    let pipe = |wanted| if wanted { Stdio::piped() } else { Stdio::null() };
    command.stdin(Stdio::null()).stdout(pipe(launch.stdout)).stderr(pipe(launch.stderr)).process_group(0);
    if let Some(Credentials { uid, gid }) = launch.credentials {
        command.uid(uid).gid(gid);
    }
    // Held until the process runs: a program must not run only to be killed because nothing is left to watch it with.
    let spare = pidfd_open(getpid(), PidfdFlags::NONBLOCK).map_err(io::Error::from)?;
    // SAFETY: between fork and exec only calls that are safe after a fork may be made. `become_program` makes bare system
    // calls; an error is passed on as a number, without allocation. There is no safe way to die with one's parent: without
    // it a `kill -9` of the supervisor leaves its children running.
    #[allow(unsafe_code)]
    unsafe {
        let (parent, open_files) = (getpid(), resources::open_files_of_children());
        command.pre_exec(move || become_program(&launch, parent, open_files));
    }
    let mut ours = OURS.lock();
    if ours.closed {
        return Err(Failed::Other(io::Error::other("all processes are being ended")));
    }
    forked_image().store(0, Ordering::Relaxed);
    let mut child = command.spawn().map_err(Failed::from_child)?;
    let pid =
        i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or(io::Error::from(io::ErrorKind::InvalidData))?;
    ours.processes.insert(pid);
    let forked_kib = Some(forked_image().load(Ordering::Relaxed)).filter(|kib| *kib > 0);
    let started = Started { pid, forked_kib, reaped: false };
    drop(spare);
    let pidfd = pidfd_open(pid, PidfdFlags::NONBLOCK).map_err(io::Error::from)?;
    Ok(Born { started, pidfd, stdout: child.stdout.take(), stderr: child.stderr.take() })
}

/// Between fork and exec: what is set up in the child, and last the program itself. Returns only if that fails.
fn become_program(launch: &Launch, parent: Pid, open_files: Option<rustix::process::Rlimit>) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // The parent may have died before that was asked for.
    if getppid() != Some(parent) {
        return Err(io::Error::from(rustix::io::Errno::PIPE));
    }
    if let Some(cwd) = &launch.cwd {
        chdir(cwd.as_c_str()).map_err(|errno| at(DIRECTORY, errno))?;
    }
    if let Some(mask) = launch.umask {
        umask(rustix::fs::Mode::from_raw_mode(mask));
    }
    if let Some(limits) = open_files {
        setrlimit(Resource::Nofile, limits)?;
    }
    // Whoever started us may have some signals ignored or blocked, as a shell does for its background jobs. Our children
    // would be deaf to the signal that asks them to stop.
    for signal in 1..=HIGHEST_SIGNAL {
        // Not through the C library, which keeps some for itself. Two cannot be changed: an error is no news.
        // SAFETY: an action of zeros is the default one, which is no handler that could break an invariant of this process;
        // the kernel reads no more than what is there.
        #[allow(unsafe_code)]
        unsafe {
            let (default, no_old) = ([0_u64; 4], std::ptr::null::<u64>());
            libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), no_old, size_of::<u64>());
        }
    }
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
    // Once for nothing, so that all code which runs from here on is resident, and is counted.
    note_forked_image();
    exec(c"", launch);
    note_forked_image();
    exec(&launch.path, launch);
    Err(at(EXEC, rustix::io::Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(rustix::io::Errno::INVAL)))
}

/// Not the standard library's way to run a program: that hands whatever the kernel does not take to a shell.
#[inline(never)]
fn exec(path: &CStr, launch: &Launch) {
    // SAFETY: all three are valid C strings, and lists of such that end with a null pointer.
    #[allow(unsafe_code)]
    unsafe {
        libc::execve(path.as_ptr(), launch.arguments.pointers.as_ptr(), launch.variables.pointers.as_ptr());
    }
}

const HIGHEST_SIGNAL: libc::c_int = 64;

/// What is added to the number of an error in the child, so that the parent knows where it was. The standard library passes
/// the number on as it is.
const DIRECTORY: i32 = 1 << 16;
const EXEC: i32 = 1 << 17;

fn at(place: i32, errno: rustix::io::Errno) -> io::Error {
    io::Error::from_raw_os_error(errno.raw_os_error() | place)
}

// === impl Words ===

impl Words {
    pub(super) fn new(words: Vec<CString>) -> Self {
        let pointers = words.iter().map(|word| word.as_ptr()).chain([std::ptr::null()]).collect();
        Self { _words: words, pointers }
    }
}

// === impl Failed ===

impl Failed {
    fn from_child(error: io::Error) -> Self {
        let without = |number: i32| io::Error::from_raw_os_error(number & !(DIRECTORY | EXEC));
        match error.raw_os_error() {
            Some(number) if number & DIRECTORY != 0 => Failed::Directory(without(number)),
            Some(number) if number & EXEC != 0 => Failed::Exec(without(number)),
            _ => Failed::Other(error),
        }
    }

    pub(super) fn error(&self) -> &io::Error {
        match self {
            Failed::Directory(error) | Failed::Exec(error) | Failed::Other(error) => error,
        }
    }
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Failed::Other(error)
    }
}

// === impl Process ===

impl Process {
    /// A future that returns when the process has ended; it can be dropped and asked for again.
    pub(super) fn ended(&self) -> impl Future<Output = io::Result<()>> + Send + use<> {
        let pidfd = self.pidfd.clone();
        async move { pidfd.readable().await.map(drop) }
    }

    /// Sends a signal to all of the group.
    pub(super) fn signal(&self, signal: Signal) {
        signal_group(self.pid, signal);
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
        let (pid, status, used) = wait4(self.pid)?;
        if pid == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.started.reaped = true;
        OURS.lock().processes.remove(&self.pid);
        let cpu = duration(used.ru_utime) + duration(used.ru_stime);
        let peak_kib = u64::try_from(used.ru_maxrss).unwrap_or_default();
        let peak_memory_bytes = self.started.forked_kib.and_then(|forked| own_peak(peak_kib, forked));
        Ok((status, Usage { peak_memory_bytes, cpu }))
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if self.reaped {
            return;
        }
        signal_group(self.pid, Signal::KILL);
        // A killed process ends soon, but not at once, and nobody is left to wait for it but a thread.
        let pid = self.pid;
        let reap = move || {
            let _ = waitid(Id::Pid(nix::unistd::Pid::from_raw(pid.as_raw_nonzero().get())), WaitPidFlag::WEXITED);
            OURS.lock().processes.remove(&pid);
        };
        drop(std::thread::Builder::new().name("reaper".into()).spawn(reap));
    }
}

fn signal_group(pid: Pid, signal: Signal) {
    // The only error that can be met is that all have gone, which is what was wanted.
    let _ = kill_process_group(pid, signal);
}

/// Starts no process from now on, and kills the group of each that was started.
pub(super) fn close_and_kill() {
    let mut ours = OURS.lock();
    ours.closed = true;
    ours.processes.iter().for_each(|pid| signal_group(*pid, Signal::KILL));
}

/// `wait4` without blocking: pid 0 if the process has not ended.
fn wait4(pid: Pid) -> io::Result<(i32, ExitStatus, libc::rusage)> {
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
    Ok((result, ExitStatus::from_raw(status), usage))
}

fn duration(time: libc::timeval) -> Duration {
    let seconds = Duration::from_secs(u64::try_from(time.tv_sec).unwrap_or_default());
    seconds + Duration::from_micros(u64::try_from(time.tv_usec).unwrap_or_default())
}

// === Peak memory ===

/// What the kernel's count of resident pages may be off, and what exec may still add, in KiB.
const COUNT_MARGIN_KIB: u64 = 2048;

/// The most memory that the program itself had: what the kernel says, if that is more than what the forked image of ours
/// had. It keeps the greater of the two over exec, so a smaller program's own is not known.
fn own_peak(peak_kib: u64, forked_kib: u64) -> Option<u64> {
    (peak_kib > forked_kib + COUNT_MARGIN_KIB).then_some(peak_kib * 1024)
}

/// Where a child leaves what it has resident before it becomes the program: memory that parent and child share. Processes
/// are started one after the other, so one is enough.
fn forked_image() -> &'static AtomicU64 {
    static SHARED: Lazy<Option<&'static AtomicU64>> = Lazy::new(|| {
        let (length, access) = (size_of::<AtomicU64>(), libc::PROT_READ | libc::PROT_WRITE);
        // SAFETY: a new mapping touches no memory that is in use. It is never unmapped, it begins at a page, and all bits
        // zero is a valid `AtomicU64`.
        #[allow(unsafe_code)]
        unsafe {
            let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
            let page = libc::mmap(std::ptr::null_mut(), length, access, flags, -1, 0);
            (page != libc::MAP_FAILED).then(|| &*page.cast())
        }
    });
    /// Shared with nobody: then no peak is known.
    static NOWHERE: AtomicU64 = AtomicU64::new(0);
    SHARED.unwrap_or(&NOWHERE)
}

/// In the child: leaves what it has resident.
fn note_forked_image() {
    // SAFETY: all bits zero is a valid `rusage`, and the pointer is valid for the call.
    #[allow(unsafe_code)]
    let (result, usage) = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        (libc::getrusage(libc::RUSAGE_SELF, &mut usage), usage)
    };
    if result == 0 {
        forked_image().store(u64::try_from(usage.ru_maxrss).unwrap_or_default(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // The kernel's peak is that of the program only if it is more than what was forked; else it is unknown, not 0.
    #[test]
    fn a_peak_below_the_forked_image_is_unknown() {
        assert_eq!(own_peak(2_000, 30_000), None);
        assert_eq!(own_peak(31_000, 30_000), None);
        assert_eq!(own_peak(50_000, 30_000), Some(50_000 * 1024));
    }

    // An error in the child says where it was, and is the kernel's own again.
    #[test]
    fn an_error_in_the_child_says_where_it_was() {
        let passed = |place| Failed::from_child(at(place, rustix::io::Errno::NOENT));
        let failed = [passed(DIRECTORY), passed(EXEC), passed(0)];
        assert!(matches!(failed, [Failed::Directory(_), Failed::Exec(_), Failed::Other(_)]), "{failed:?}");
        for failed in failed {
            assert_eq!(failed.error().kind(), io::ErrorKind::NotFound);
        }
    }
}
