//! A program that cannot run: the reason says what to mend.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::{Tree, patient};
use crate::world::until;

/// Why the second run of a child `DIR/bin/prog` does not start, after its first run has changed itself by this script.
/// `keys` are those of the child.
async fn second_start(keys: &str, change: &str) -> String {
    let backoff = "backoff = { initial = \"20ms\", max = \"1h\", factor = 100 }";
    let text = patient(&[format!("[[supervisor.child]]\nid = \"c\"\n{keys}\n{backoff}\n")]);
    let program = |directory: &Path| {
        let bin = directory.join("bin");
        std::fs::create_dir(&bin).unwrap();
        let script = format!("#!/bin/sh\ncd {} || exit 9\n{change}\nexit 1\n", bin.display());
        std::fs::write(bin.join("prog"), script).unwrap();
        std::fs::set_permissions(bin.join("prog"), std::fs::Permissions::from_mode(0o755)).unwrap();
        // It may run as another user, who changes what is its own.
        for path in [&bin, &bin.join("prog")] {
            std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
        }
    };
    let tree = Tree::start_with(&text, program).await;
    tree.is_ready().await;
    let error = until("a start error", async || {
        let history = tree.data("/api/v1/history?supervisor=a&event=start_error").await;
        Some(history["events"].get(0)?["reason"]["detail"].as_str()?.to_owned())
    })
    .await;
    tree.stops_well().await;
    error
}

const NOBODY: u32 = 65534;

const BY_PATH: &str = "command = [\"DIR/bin/prog\"]";

// What the kernel cannot run is never handed to a shell, which would run a text as a script.
#[tokio::test]
async fn a_file_that_is_no_program_is_called_that_and_not_run() {
    let change = "printf 'touch ran\\n' > new; chmod 755 new; mv new prog";
    for (keys, name) in
        [(BY_PATH, "bin/prog\""), ("command = [\"prog\"]\nenv = { PATH = \"DIR/bin:/bin\" }", "\"prog\"")]
    {
        let error = second_start(keys, change).await;
        assert!(error.contains(&format!("{name}: Exec format error: neither a program for this processor")), "{error}");
    }
    // A program for another processor: this header says so.
    let foreign = "head -c 64 /proc/self/exe > new; printf '\\377\\377' | dd of=new bs=1 seek=18 conv=notrunc 2> /dev/null; \
                   chmod 755 new; mv new prog";
    let error = second_start(BY_PATH, foreign).await;
    assert!(error.contains("Exec format error"), "{error}");
}

// The kernel says "no such file" of a file that is there: what is missing is its interpreter.
#[tokio::test]
async fn a_missing_interpreter_is_named() {
    let script = "printf '#!/usr/bin/python9 -u\\n' > new; chmod 755 new; mv new prog";
    let error = second_start(BY_PATH, script).await;
    assert!(error.ends_with(": interpreter /usr/bin/python9 not found"), "{error}");
    let windows = "printf '#!/bin/sh\\r\\n' > new; chmod 755 new; mv new prog";
    let error = second_start(BY_PATH, windows).await;
    assert!(error.ends_with(": interpreter /bin/sh\\r not found"), "{error}");
    // A dynamic program whose loader is not there: the name in its header is as long as before.
    let program = "LC_ALL=C sed 's,/lib64/ld-linux,/lib65/ld-linux,; s,/lib/ld-linux,/lib/lx-linux,' /bin/cat > new; \
                   chmod 755 new; mv new prog";
    let error = second_start(BY_PATH, program).await;
    assert!(error.contains(": interpreter /lib") && error.ends_with(" not found"), "{error}");
}

// A missing program, one that is not executable, and a directory each have their own words.
#[tokio::test]
async fn a_missing_program_and_a_forbidden_one_are_told_apart() {
    let by_name = "command = [\"prog\"]\nenv = { PATH = \"DIR/bin:/bin\" }";
    let as_nobody = "command = [\"DIR/bin/prog\"]\ncwd = \"DIR/bin\"\nuser = \"nobody\"";
    let table: [(&str, &str, &[&str]); 7] = [
        (BY_PATH, "rm prog", &["bin/prog\": no such file"]),
        (BY_PATH, "chmod 644 prog", &["bin/prog\": permission denied: it is not executable"]),
        (BY_PATH, "rm prog; mkdir prog", &["bin/prog\": it is a directory"]),
        (by_name, "rm prog", &["\"prog\": not found in PATH ", "/bin:/bin"]),
        (by_name, "chmod 644 prog", &["\"prog\": permission denied: ", "/bin/prog is not executable"]),
        (as_nobody, "chmod 655 prog", &["bin/prog\": permission denied: its user may not execute it"]),
        (as_nobody, "chmod 677 .", &["/bin: permission denied: its user may not enter it"]),
    ];
    for (keys, change, said) in table {
        let error = second_start(keys, change).await;
        assert!(said.iter().all(|part| error.contains(part)), "{change}: {error}");
    }
}

// A probe is started in the same way: a script without `#!` is not handed to a shell, and the reason is told.
#[tokio::test]
async fn a_probe_that_cannot_run_is_explained() {
    let ready = "ready = { exec = [\"DIR/probe\"], interval = \"10ms\", timeout = \"300ms\" }";
    let text = super::supervisor("a", "max_restarts = 0") + &super::child("c", "exec sleep 600", ready);
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("probe"), "exit 0\n").unwrap();
    std::fs::set_permissions(directory.path().join("probe"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let flags = ["--exit.on-give-up=always"];
    let (mut process, _) =
        Tree::spawn(&directory, &text, &[], &flags, std::env::var_os(super::AS_PID_1).is_some()).await;
    let line = process.line_with("not ready within").await;
    assert!(line.contains("Exec format error"), "{line}");
    process.ended().await;
}
