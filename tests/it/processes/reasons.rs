//! What the reason of a death says, and what it must not claim.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{Tree, child, patient, supervisor};
use crate::world::{run_to_end, sample, until};

// The kernel's wait status is the reason: an exit code, a signal, SIGKILL. SIGKILL alone does not prove that memory was
// short, and exit code 137 is an exit code.
#[tokio::test]
async fn the_reason_is_what_the_kernel_says() {
    let table = [
        ("code", "exit 3", "", "error", "3"),
        ("shell", "exit 137", "", "error", "137"),
        ("asked", "kill -TERM $$", "", "signal", "15"),
        ("broken", "kill -SEGV $$", "", "signal", "11"),
        ("killed", "kill -KILL $$", "", "killed", ""),
        ("other", "exit 76", "ok_exit_codes = [75]", "error", "76"),
    ];
    let children = table.map(|(id, script, keys, ..)| {
        child(id, &format!("ulimit -c 0; {script}"), &format!("restart = \"temporary\"\n{keys}"))
    });
    let tree = Tree::ready(&patient(&children)).await;
    for (id, _, _, class, detail) in table {
        let death = tree.death(id).await;
        assert_eq!(death["reason"]["class"], class, "{id}: {death}");
        let said = death["reason"]["detail"].as_str().unwrap_or_default();
        assert!(said.contains(detail), "{id}: {detail} is not in {death}");
        assert_eq!((&death["shutdown"], &death["decision"]["action"]), (&false.into(), &"forget".into()), "{id}");
    }
    tree.stops_well().await;
}

// `ok_exit_codes` are normal ends: a transient child stays down after them, and after no other.
#[tokio::test]
async fn an_exit_code_that_is_ok_is_a_normal_end() {
    let script = |code: u8| format!("[ -e {code} ] && exec sleep 600; touch {code}; exit {code}");
    let keys = "restart = \"transient\"\nok_exit_codes = [0, 75]";
    let tree = Tree::ready(&patient(&[child("ok", &script(75), keys), child("not", &script(76), keys)])).await;
    let death = tree.death("ok").await;
    assert_eq!((&death["reason"]["class"], &death["decision"]["action"]), (&"normal".into(), &"leave".into()));
    until("the other is restarted", async || (tree.child("not").await["restarts"] == 1).then_some(())).await;
    let ok = tree.child("ok").await;
    assert_eq!((&ok["state"], &ok["restarts"]), (&"stopped".into(), &0.into()));
    tree.stops_well().await;
}

// Who is told to stop and goes, by the signal or with 128 + signal, has shut down; who fails meanwhile has failed; who
// stays is killed and has run out of time. None of it is a failure of its supervisor: the history has the crash alone.
#[tokio::test]
async fn an_ordered_stop_has_a_reason_of_its_own() {
    const QUICK: &str = "shutdown = \"100ms\"";
    const DEAF: &str = "trap \"\" TERM; touch deaf; while :; do sleep 0.05; done";
    let table = [
        ("obeys", ":", "", "shutdown"),
        ("shell", "trap 'exit 143' TERM", "", "shutdown"),
        ("clean", "trap 'exit 0' TERM", "", "shutdown"),
        ("fails", "trap 'exit 7' TERM", "", "error"),
        ("seven", "trap 'exit 7' TERM", "ok_exit_codes = [7]", "shutdown"),
        ("stays", "trap '' TERM", QUICK, "timeout"),
        // What it started stays, and has to be killed.
        (
            "rest",
            &format!("sh -c '{DEAF}' & trap 'exit 0' TERM; while [ ! -e deaf ]; do sleep 0.01; done"),
            QUICK,
            "timeout",
        ),
        ("brutal", ":", "shutdown = \"brutal_kill\"", "killed"),
    ];
    let mut text = supervisor("a", "strategy = \"one_for_all\"");
    for (id, trap, keys, _) in table {
        text += &child(id, &format!("{trap}; echo up > {id}; while :; do sleep 0.05; done"), keys);
    }
    let files = table.map(|(id, ..)| format!("while [ ! -s {id} ]; do sleep 0.01; done; "));
    let script = format!("[ -e again ] && exec sleep 600; {} touch again; exit 1", files.concat());
    let tree = Tree::ready(&(text + &child("crashes", &script, ""))).await;
    until("the group runs again", async || {
        let all = tree.supervisor("a").await;
        let again =
            all["children"].as_array()?.iter().all(|child| child["restarts"] == 1 && child["state"] == "running");
        again.then_some(())
    })
    .await;
    let metrics = tree.metrics().await;
    for reason in ["normal", "shutdown", "error", "timeout", "killed", "signal"] {
        let series = format!("supervisor_child_terminations_total{{supervisor=\"a\",reason=\"{reason}\"}}");
        let expected = table.iter().filter(|row| row.3 == reason).count() + usize::from(reason == "error");
        assert_eq!(sample(&metrics, &series), Some(expected as f64), "{reason}");
    }
    let history = tree.data("/api/v1/history?supervisor=a&event=terminated").await;
    let events = history["events"].as_array().unwrap();
    assert_eq!(events.iter().map(|event| &event["child_id"]).collect::<Vec<_>>(), ["crashes"]);
    tree.stops_well().await;
}

// === Out of memory ===

/// A memory cgroup with a limit of its own, removed when dropped.
struct MemoryCgroup {
    folder: PathBuf,
    /// The file that says how many processes were killed.
    counter: PathBuf,
}

impl MemoryCgroup {
    fn create(name: &str, limit: u64) -> Self {
        let v1 = Path::new("/sys/fs/cgroup/memory");
        let (root, limits, counter) = if v1.exists() {
            (v1, "memory.limit_in_bytes", "memory.oom_control")
        } else {
            let root = Path::new("/sys/fs/cgroup");
            // It may be on already.
            let _ = std::fs::write(root.join("cgroup.subtree_control"), "+memory");
            (root, "memory.max", "memory.events")
        };
        let folder = root.join(name);
        let created =
            std::fs::create_dir(&folder).and_then(|()| std::fs::write(folder.join(limits), limit.to_string()));
        created.unwrap_or_else(|error| {
            panic!("this test needs root and a memory cgroup, which cannot be made: {}: {error}", folder.display())
        });
        // Where there is swap, the limit must not be evaded into it.
        let _ = std::fs::write(folder.join("memory.swap.max"), "0");
        let counter = folder.join(counter);
        Self { folder, counter }
    }

    fn kills(&self) -> u64 {
        let text = std::fs::read_to_string(&self.counter).unwrap();
        text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.parse().ok()).unwrap()
    }
}

impl Drop for MemoryCgroup {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.folder);
    }
}

fn class(death: &Value) -> &Value {
    &death["reason"]["class"]
}

// `oom` where the kernel's own counter moved, `killed` for a SIGKILL beside it, before and after; and `why` says so.
#[tokio::test]
async fn oom_is_said_only_where_the_kernel_counted_it() {
    let directory = tempfile::tempdir().unwrap();
    let name = directory.path().file_name().unwrap().to_str().unwrap();
    let cgroup = MemoryCgroup::create(&format!("restart_exporter{name}"), 96 << 20);
    let wait = |file: &str| format!("while [ ! -e {file} ]; do sleep 0.02; done; ");
    let eats = wait("eat") + "exec perl -e 'push @all, \"x\" x 1_000_000 while 1'";
    let keys = "restart = \"temporary\"";
    let text = patient(&[
        child("before", "kill -KILL $$", keys),
        child("eats", &eats, keys),
        child("after", &(wait("die") + "kill -KILL $$"), keys),
    ]);
    let procs = cgroup.folder.join("cgroup.procs").display().to_string();
    let join = ["sh", "-c", "echo $$ > \"$0\" && exec \"$@\"", &procs];
    let tree = Tree::launch(directory, &text, &join, std::env::var_os(super::AS_PID_1).is_some()).await;
    assert_eq!(class(&tree.death("before").await), "killed");
    tree.touch("eat");
    let death = tree.death("eats").await;
    assert_eq!((cgroup.kills(), class(&death)), (1, &json!("oom")), "{death}");
    let peak = death["usage"]["peak_memory_bytes"].as_u64().unwrap();
    assert!((40 << 20..=120 << 20).contains(&peak), "{death}");
    let why = run_to_end(&["why", "eats", &format!("--url=http://{}", tree.address)]);
    let said = "1× out of memory (the cgroup's oom_kill counter increased); it had ";
    assert!(why.status.success() && why.stdout.contains(said), "{why:?}");
    tree.touch("die");
    assert_eq!(class(&tree.death("after").await), "killed");
    tree.stops_well().await;
}
