//! Whether a SIGKILL was the kernel's, for memory. Exit status 137 alone proves nothing: only the kernel's own counter does.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use once_cell::sync::Lazy;

/// The counter of our own cgroup, which our processes share.
static OURS: Lazy<Option<OomCounter>> = Lazy::new(|| OomCounter::find(Path::new("/")));

/// Begins to watch; kills before the first call are not seen.
pub(super) fn watch() {
    Lazy::force(&OURS);
}

/// Was a process of ours, killed just now by a SIGKILL that we did not send, killed for memory?
pub(super) fn killed() -> bool {
    OURS.as_ref().is_some_and(OomCounter::claim)
}

/// `oom_kill` of one cgroup.
#[derive(Debug)]
struct OomCounter {
    file: PathBuf,
    /// Kills that have been accounted for. Each kill explains one death: two deaths need two kills.
    claimed: AtomicU64,
}

impl OomCounter {
    /// Finds the cgroup of this process: version 2, else the memory controller of version 1.
    fn find(root: &Path) -> Option<Self> {
        let groups = fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
        let mounted = root.join("sys/fs/cgroup");
        let v1 = groups.lines().find_map(|line| {
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            let is_memory = controllers.split(',').any(|controller| controller == "memory");
            is_memory.then(|| mounted.join("memory").join(path.trim_start_matches('/')).join("memory.oom_control"))
        });
        let v2 = groups.lines().find_map(|line| {
            let path = line.strip_prefix("0::")?;
            Some(mounted.join(path.trim_start_matches('/')).join("memory.events"))
        });
        // Inside a container the path is often that of the host, while the mount shows the container's own group at its
        // root.
        let at_root = [mounted.join("memory.events"), mounted.join("memory/memory.oom_control")];
        v1.into_iter().chain(v2).chain(at_root).find_map(|file| {
            let claimed = AtomicU64::new(read(&file)?);
            Some(Self { file, claimed })
        })
    }

    fn claim(&self) -> bool {
        let Some(kills) = read(&self.file) else { return false };
        let next = |claimed| (kills > claimed).then_some(claimed + 1);
        self.claimed.fetch_update(Ordering::AcqRel, Ordering::Acquire, next).is_ok()
    }
}

fn read(file: &Path) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn system(cgroup: &str, file: &str, kills: &str) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("proc/self/cgroup", cgroup);
        write(file, kills);
        root
    }

    // Only a counter that moved makes a SIGKILL an `oom`, and each kill explains one death.
    #[test]
    fn each_kill_that_the_kernel_counted_explains_one_death() {
        let systems = [
            ("0::/app\n", "sys/fs/cgroup/app/memory.events", "low 0\noom_kill "),
            ("4:memory:/app\n0::/\n", "sys/fs/cgroup/memory/app/memory.oom_control", "under_oom 0\noom_kill "),
            ("0::/host/path\n", "sys/fs/cgroup/memory.events", "oom 1\noom_kill "),
        ];
        for (cgroup, file, text) in systems {
            let root = system(cgroup, file, &format!("{text}7\n"));
            let counter = OomCounter::find(root.path()).unwrap();
            assert!(!counter.claim(), "{file}");
            fs::write(root.path().join(file), format!("{text}9\n")).unwrap();
            assert_eq!([counter.claim(), counter.claim(), counter.claim()], [true, true, false], "{file}");
        }
    }

    #[test]
    fn without_a_counter_nothing_is_proved() {
        let root = system("0::/app\n", "sys/fs/cgroup/app/memory.current", "1\n");
        assert!(OomCounter::find(root.path()).is_none());
    }
}
