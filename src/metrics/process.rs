//! What the kernel says about this process. A value that cannot be read is absent, never 0.

use once_cell::sync::Lazy;
use rustix::process::{Resource, getrlimit};

/// Opened once: to look it up anew costs a scrape as much as to read it. None without `/proc`.
static MYSELF: Lazy<Option<procfs::process::Process>> = Lazy::new(|| procfs::process::Process::myself().ok());

/// One reading of `/proc/self`.
#[derive(Default)]
pub(super) struct Process {
    pub(super) cpu_seconds: Option<f64>,
    pub(super) open_fds: Option<u64>,
    /// Absent too if there is no limit.
    pub(super) max_fds: Option<u64>,
    pub(super) virtual_memory_bytes: Option<u64>,
    pub(super) resident_memory_bytes: Option<u64>,
    /// Unix time.
    pub(super) start_time_seconds: Option<f64>,
    pub(super) threads: Option<u64>,
}

impl Process {
    pub(super) fn read() -> Self {
        let max_fds = getrlimit(Resource::Nofile).current;
        let Some(process) = &*MYSELF else { return Self { max_fds, ..Self::default() } };
        let files = Self { open_fds: process.fd_count().ok().map(|count| count as u64), max_fds, ..Self::default() };
        let Ok(stat) = process.stat() else { return files };
        let seconds = |ticks: u64| ticks as f64 / procfs::ticks_per_second() as f64;
        Self {
            cpu_seconds: Some(seconds(stat.utime + stat.stime)),
            virtual_memory_bytes: Some(stat.vsize),
            resident_memory_bytes: Some(stat.rss * procfs::page_size()),
            start_time_seconds: procfs::boot_time_secs().ok().map(|boot| boot as f64 + seconds(stat.starttime)),
            threads: u64::try_from(stat.num_threads).ok(),
            ..files
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::SystemTime;

    // The values are those of this process: it has files and threads, and did not start in the future.
    #[test]
    fn the_process_sees_itself() {
        let process = Process::read();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
        assert!(process.open_fds.unwrap() >= 3 && process.threads.unwrap() >= 1);
        assert!(process.resident_memory_bytes.unwrap() <= process.virtual_memory_bytes.unwrap());
        assert!((now - 86_400.0..now + 1.0).contains(&process.start_time_seconds.unwrap()));
    }
}
