//! Whom an event is about: supervisors, children, runs.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::words::{ChildType, Restart};

/// A supervisor: its stable name, and one incarnation of it.
///
/// History, totals and metrics follow the name, so that a supervisor which itself restarts keeps its past.
#[derive(Debug)]
pub struct SupervisorRef {
    key: u64,
    /// This incarnation.
    pub id: Pid,
    /// A stable path: the parent's name, a slash, the child id.
    pub name: Arc<str>,
    /// The Erlang node it lives on; none in this process.
    pub node: Option<Arc<str>>,
}

impl SupervisorRef {
    /// Names one incarnation of a supervisor. Call it once for each: consumers tell incarnations apart by
    /// [`key`](Self::key).
    pub fn new(id: Pid, name: impl Into<Arc<str>>, node: Option<Arc<str>>) -> Self {
        static NEXT_KEY: AtomicU64 = AtomicU64::new(0);
        Self { key: NEXT_KEY.fetch_add(1, Ordering::Relaxed), id, name: name.into(), node }
    }

    /// A number no other incarnation in this process has: finds a consumer's state without hashing a name.
    pub fn key(&self) -> u64 {
        self.key
    }
}

/// A child as its supervisor knows it; the same for all its runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildRef {
    /// The id of the spec, unique among siblings unless the supervisor is dynamic.
    pub id: Arc<str>,
    /// The value of the `child` label: the id for static children, the spec's kind or `_dynamic` for dynamic ones.
    pub label: Arc<str>,
    /// A worker or a supervisor.
    pub child_type: ChildType,
    /// When the child is restarted; none if the supervisor uses a type of its own (foreign supervisors on a node).
    pub restart: Option<Restart>,
    /// Was it started under a dynamic supervisor? Then its spec goes with it.
    pub dynamic: bool,
}

impl ChildRef {
    /// Does the spec outlive a run that is not restarted? As in OTP not for temporary and not for dynamic children.
    pub fn is_kept(&self) -> bool {
        !self.dynamic && self.restart != Some(Restart::Temporary)
    }
}

/// One run of a child, or one incarnation of a supervisor. Never a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Pid {
    /// A tokio task or a supervisor in this process; numbers are not used twice.
    Task(u64),
    /// A process of the operating system.
    Process(u32),
    /// A process on an Erlang node, `<0.id.serial>`.
    Beam {
        /// The middle number.
        id: u32,
        /// The last number.
        serial: u32,
    },
}

impl FromStr for Pid {
    type Err = InvalidPid;

    /// Reads what [`Display`](fmt::Display) writes.
    fn from_str(text: &str) -> Result<Self, InvalidPid> {
        let number = |text: &str| text.parse::<u32>().ok();
        let task = || text.strip_prefix("task-")?.parse().ok().map(Pid::Task);
        let beam = || {
            let (id, serial) = text.strip_prefix("<0.")?.strip_suffix('>')?.split_once('.')?;
            Some(Pid::Beam { id: number(id)?, serial: number(serial)? })
        };
        task().or_else(|| number(text).map(Pid::Process)).or_else(beam).ok_or(InvalidPid)
    }
}

/// A text that names no [`Pid`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidPid;

impl fmt::Display for InvalidPid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no pid: `task-1`, `4242` or `<0.123.0>`")
    }
}

impl std::error::Error for InvalidPid {}

impl fmt::Display for Pid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pid::Task(number) => write!(f, "task-{number}"),
            Pid::Process(pid) => write!(f, "{pid}"),
            Pid::Beam { id, serial } => write!(f, "<0.{id}.{serial}>"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_is_read_as_it_is_written() {
        for pid in [Pid::Task(7), Pid::Process(4242), Pid::Beam { id: 123, serial: 4 }] {
            assert_eq!(pid.to_string().parse(), Ok(pid));
        }
        for text in ["", "task-", "-1", "<1.2.3>", "worker"] {
            assert_eq!(text.parse::<Pid>(), Err(InvalidPid), "{text}");
        }
    }
}
