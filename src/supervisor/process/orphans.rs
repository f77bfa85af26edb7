//! Orphans: processes whose own parents ended before them.

use std::io;
use std::time::Duration;

use nix::sys::wait::{Id, WaitPidFlag, waitid};
use rustix::process::{getpid, set_child_subreaper};

use super::{leftovers, spawn};

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
    leftovers::note_those_before();
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
    let ours = spawn::ours();
    let ended = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG;
    let pid = waitid(Id::All, ended | WaitPidFlag::WNOWAIT).ok()?.pid()?;
    if ours.has(pid.as_raw()) {
        return Some(true);
    }
    let _ = waitid(Id::Pid(pid), ended);
    Some(false)
}
