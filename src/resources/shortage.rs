//! What the system may be short of when something new is asked for, and how often it was.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::io::Errno;

/// What there was too little of. Waiting helps; it is not the fault of who asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shortage {
    /// Of this process, or of the whole system.
    FileDescriptors,
    /// Processes and threads, of the user, the cgroup or the whole system.
    Processes,
    /// Memory.
    Memory,
}

/// How often each was met, by the discriminant. Of the whole process, as the cause is.
static MET: [AtomicU64; Shortage::ALL.len()] = [const { AtomicU64::new(0) }; Shortage::ALL.len()];

impl Shortage {
    /// Every shortage, in the order of the discriminants.
    pub(crate) const ALL: &'static [Shortage] = &[Shortage::FileDescriptors, Shortage::Processes, Shortage::Memory];

    /// What an error of the system says there is too little of; none for all other errors.
    pub(crate) fn of(error: &io::Error) -> Option<Self> {
        match Errno::from_io_error(error)? {
            Errno::MFILE | Errno::NFILE => Some(Shortage::FileDescriptors),
            Errno::AGAIN => Some(Shortage::Processes),
            Errno::NOMEM => Some(Shortage::Memory),
            _ => None,
        }
    }

    /// The name of the limit.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Shortage::FileDescriptors => "file_descriptors",
            Shortage::Processes => "processes",
            Shortage::Memory => "memory",
        }
    }

    /// What helps.
    pub(crate) const fn advice(self) -> &'static str {
        match self {
            Shortage::FileDescriptors => "raise the limit of open files (ulimit -n, LimitNOFILE=, fs.file-max)",
            Shortage::Processes => "raise the limit of processes (ulimit -u, TasksMax=, pids.max of the cgroup)",
            Shortage::Memory => "free memory, or raise the limit of the cgroup (MemoryMax=, memory.max)",
        }
    }

    /// Counts that it was met.
    pub(crate) fn count(self) {
        MET[self as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How often it was met.
    pub(crate) fn counted(self) -> u64 {
        MET[self as usize].load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Only what passes by itself is a shortage: a program that is missing stays missing.
    #[test]
    fn an_error_says_what_there_is_too_little_of() {
        let table = [
            (Errno::MFILE, Some(Shortage::FileDescriptors)),
            (Errno::NFILE, Some(Shortage::FileDescriptors)),
            (Errno::AGAIN, Some(Shortage::Processes)),
            (Errno::NOMEM, Some(Shortage::Memory)),
            (Errno::NOENT, None),
            (Errno::ACCESS, None),
            (Errno::NOEXEC, None),
        ];
        for (errno, shortage) in table {
            assert_eq!(Shortage::of(&errno.into()), shortage, "{errno}");
        }
        for (index, shortage) in Shortage::ALL.iter().enumerate() {
            assert_eq!(*shortage as usize, index);
        }
    }
}
