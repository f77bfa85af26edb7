//! What children leave behind: processes that went on after the run that started them, in sessions of their own.
//!
//! When the process between ends, the kernel gives them to the nearest subreaper, which this process is once it reaps
//! orphans: then all of them are below it.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use once_cell::sync::OnceCell;
use rustix::process::{Pid, Signal, getpid, kill_process};
use tokio::time::{Instant, sleep};

use super::spawn;

/// Time from SIGTERM to SIGKILL.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long SIGKILL is repeated: what does not go then waits in the kernel, perhaps for ever.
const KILL_TIME: Duration = Duration::from_secs(2);

/// How often is looked what is left.
const POLL: Duration = Duration::from_millis(20);

/// One process in all its life: its number, and when it began.
type Life = (i32, u64);

/// Those that were below this process before it started any.
static BEFORE: OnceCell<HashSet<Life>> = OnceCell::new();

/// Remembers what is below this process already: a shell that becomes this program may have started something before, such
/// as the reader of its output. That is not ours to end.
pub(super) fn note_those_before() {
    let _ = BEFORE.set(below(&HashSet::new()));
}

/// Ends all processes below this one: SIGTERM, and two seconds later SIGKILL. Returns when none is left, and how many there
/// were; says so in the log. Processes that were below this one when it began to [reap orphans](super::reap_orphans) are
/// left alone; before that, all are.
///
/// For the end of programs whose only other child processes are those of supervisors of this crate, and after these
/// supervisors have ended.
pub async fn end_leftovers() -> usize {
    let (mut told, mut killed) = (HashSet::new(), HashSet::new());
    let start = Instant::now();
    loop {
        let left = leftovers();
        let late = start.elapsed();
        if left.is_empty() || late >= PATIENCE + KILL_TIME {
            let count = told.len().max(killed.len());
            if !left.is_empty() {
                tracing::error!(left = left.len(), "processes that children left behind cannot be killed");
            } else if count > 0 {
                tracing::warn!(count, killed = killed.len(), "ended processes that children left behind");
            }
            return count;
        }
        if late < PATIENCE {
            let news: Vec<_> = left.into_iter().filter(|life| told.insert(*life)).collect();
            signal(&news, Signal::TERM);
        } else {
            signal(&left, Signal::KILL);
            told.extend(&left);
            killed.extend(left);
        }
        sleep(POLL).await;
    }
}

/// Kills all that supervisors of this crate have started, each with its group, and all processes below this one. From now
/// on no supervisor starts a process. Returns when none is left, and after two seconds in any case.
///
/// For programs whose only other child processes are those of supervisors of this crate, and which end at once after it.
pub async fn kill_all_processes() {
    let start = Instant::now();
    loop {
        spawn::close_and_kill();
        let left = leftovers();
        if left.is_empty() || start.elapsed() >= KILL_TIME {
            return;
        }
        signal(&left, Signal::KILL);
        sleep(POLL).await;
    }
}

fn signal(lives: &[Life], signal: Signal) {
    for life in lives {
        // Looked at once more: the number may be somebody else's by now.
        if began(life.0) == Some(life.1)
            && let Some(pid) = Pid::from_raw(life.0)
        {
            let _ = kill_process(pid, signal);
        }
    }
}

fn leftovers() -> Vec<Life> {
    // Without it nobody knows what was here before, and what is left behind does not come to us.
    BEFORE.get().map_or_else(Vec::new, |before| below(before).into_iter().collect())
}

/// All that live below this process, but for these and what is below them.
fn below(except: &HashSet<Life>) -> HashSet<Life> {
    let Ok(processes) = procfs::process::all_processes() else { return HashSet::new() };
    let mut children: HashMap<i32, Vec<(Life, bool)>> = HashMap::new();
    for stat in processes.filter_map(|process| process.ok()?.stat().ok()) {
        let lives = !matches!(stat.state, 'Z' | 'X');
        children.entry(stat.ppid).or_default().push(((stat.pid, stat.starttime), lives));
    }
    let (mut found, mut parents) = (HashSet::new(), vec![getpid().as_raw_nonzero().get()]);
    while let Some(parent) = parents.pop() {
        for (life, lives) in children.remove(&parent).into_iter().flatten().filter(|(life, _)| !except.contains(life)) {
            parents.push(life.0);
            if lives {
                found.insert(life);
            }
        }
    }
    found
}

fn began(pid: i32) -> Option<u64> {
    procfs::process::Process::new(pid).ok()?.stat().ok().map(|stat| stat.starttime)
}
