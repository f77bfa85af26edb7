//! What whoever starts the exporter did to signals reaches neither the exporter nor its children.

use super::{AS_PID_1, Tree, child, patient};

/// Blocks and ignores signals, as some launchers do by mistake, then becomes the exporter.
const DEAF: &str = "use POSIX; \
    sigprocmask(SIG_BLOCK, POSIX::SigSet->new(SIGTERM, SIGINT, SIGHUP, SIGCHLD, SIGUSR1, 40)); \
    $SIG{$_} = 'IGNORE' for qw(WINCH CONT TSTP TTIN TTOU URG ALRM VTALRM PIPE USR2); exec @ARGV";

// Blocked signals would make the exporter deaf to SIGTERM, and to the deaths of its children; ignored ones go through exec
// and fork to every program.
#[tokio::test]
async fn blocked_and_ignored_signals_reach_nobody() {
    let script = "echo $(grep -E 'SigBlk|SigIgn' /proc/self/status) > masks; exec sleep 600";
    let dies = "[ -e again ] && exec sleep 600; touch again; exit 1";
    let text = patient(&[child("c", script, ""), child("dies", dies, "")]);
    let as_pid_1 = std::env::var_os(AS_PID_1).is_some();
    let tree = Tree::launch(tempfile::tempdir().unwrap(), &text, &["perl", "-e", DEAF], as_pid_1).await;
    let none = "0000000000000000";
    assert_eq!(tree.file("masks").await, format!("SigBlk: {none} SigIgn: {none}\n"));
    crate::world::until("a restart", async || (tree.child("dies").await["restarts"] == 1).then_some(())).await;
    // It hears SIGTERM.
    tree.stops_well().await;
}
