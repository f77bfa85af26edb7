//! As whom, where and with which variables a child runs.

use super::{Tree, child, patient};

const ONCE: &str = "restart = \"temporary\"";

/// Runs a script to its end with these keys; what it wrote to the file `out`.
async fn output(script: &str, keys: &str) -> String {
    let tree = Tree::ready(&patient(&[child("c", &format!("{script}; exit 1"), &format!("{ONCE}\n{keys}"))])).await;
    tree.death("c").await;
    let output = tree.read("out").unwrap_or_else(|| panic!("{keys} wrote nothing"));
    tree.stops_well().await;
    output
}

// Started by root, a child may be another user: with the groups of that user's own, and no others of root's. (These need
// to be run as root.)
#[tokio::test]
async fn a_child_runs_as_its_user_and_group() {
    let script = "echo $(id -u) $(id -g) $(id -G) > out";
    assert_eq!(output(script, "user = \"nobody\"").await, "65534 65534 65534\n");
    assert_eq!(output(script, "user = \"65534\"").await, "65534 65534 65534\n");
    assert_eq!(output(script, "user = \"nobody\"\ngroup = \"daemon\"").await, "65534 1 1\n");
    assert_eq!(output(script, "group = \"daemon\"").await, "0 1 1\n");
}

// As another user a child dies with the exporter all the same: the kernel forgets the wish when credentials change, unless
// it is made after.
#[tokio::test]
async fn a_child_of_another_user_does_not_survive_kill_9_of_the_exporter() {
    let mut tree =
        Tree::ready(&patient(&[child("c", "trap '' TERM HUP; echo up > up; exec sleep 600", "user = \"nobody\"")]))
            .await;
    tree.file("up").await;
    tree.signal(rustix::process::Signal::KILL);
    tree.nothing_runs().await;
    tree.ended().await;
}

// The file mode creation mask is the child's own.
#[tokio::test]
async fn a_child_has_its_umask() {
    let script = "touch file; mkdir folder; echo $(stat -c %a file folder) > out";
    assert_eq!(output(script, "umask = \"027\"").await, "640 750\n");
    assert_eq!(output(script, "umask = \"0077\"").await, "600 700\n");
}

// By default all variables are inherited, and those of the file are added or win.
#[tokio::test]
async fn a_child_inherits_our_variables_and_has_its_own() {
    let home = std::env::var("HOME").unwrap();
    let script = "echo \"$HOME|$GREETING|$LANG\" > out";
    let keys = "env = { GREETING = \"hello world\", LANG = \"X\" }";
    assert_eq!(output(script, keys).await, format!("{home}|hello world|X\n"));
}

// What whoever started us says to us alone is not inherited, by name neither; nor by a probe. The file can set it.
#[tokio::test]
async fn what_is_meant_for_the_exporter_is_not_inherited() {
    let ours =
        ["NOTIFY_SOCKET=/none", "LISTEN_PID=1", "LISTEN_FDS=0", "LISTEN_FDNAMES=x", "RESTART_EXPORTER_PASSWORD=s3cret"];
    let before = [&["env", "KEPT=1"], &ours[..]].concat();
    let seen = "env | grep -E '^(NOTIFY|LISTEN|RESTART_EXPORTER|KEPT)' | sort | tr '\\n' ' '";
    let ready = format!(
        "ready = {{ exec = [\"sh\", \"-c\", \"{} > DIR/probe\"], interval = \"10ms\" }}",
        seen.replace('\\', "\\\\")
    );
    let inherits = "env_clear = true\nenv_inherit = [\"PATH\", \"KEPT\", \"NOTIFY_SOCKET\", \"LISTEN_FDS\"]";
    let waits = |file: &str| format!("{seen} > {file}; exec sleep 600");
    let text = patient(&[
        child("all", &waits("all"), &ready),
        child("some", &waits("some"), inherits),
        child("own", &waits("own"), "env = { LISTEN_FDS = \"7\" }"),
    ]);
    let as_pid_1 = std::env::var_os(super::AS_PID_1).is_some();
    let tree = Tree::launch(tempfile::tempdir().unwrap(), &text, &before, as_pid_1).await;
    tree.is_ready().await;
    for (file, expected) in
        [("all", "KEPT=1 "), ("probe", "KEPT=1 "), ("some", "KEPT=1 "), ("own", "KEPT=1 LISTEN_FDS=7 ")]
    {
        let written = async || tree.read(file).filter(|text| text.ends_with(' '));
        assert_eq!(crate::world::until(file, written).await, expected, "{file}");
    }
    tree.stops_well().await;
}

// With `env_clear` it has only what the file says, and what is inherited by name.
#[tokio::test]
async fn a_child_may_have_a_clear_environment() {
    // The shell adds these by itself.
    let script = "env | sed 's/=.*//' | grep -v -e PWD -e SHLVL -e '^_$' | sort | tr '\\n' ' ' > out";
    assert_eq!(output(script, "env_clear = true").await, "");
    let keys = "env_clear = true\nenv_inherit = [\"HOME\", \"NO_SUCH_VARIABLE\"]\nenv = { A = \"1\" }";
    assert_eq!(output(script, keys).await, "A HOME ");
}

// A working directory, and nothing on standard input.
#[tokio::test]
async fn a_child_runs_in_its_directory_with_nothing_to_read() {
    let text = patient(&[format!(
        "[[supervisor.child]]\nid = \"c\"\ncommand = [\"sh\", \"-c\", \"pwd > out; cat >> out; exit 1\"]\n\
         cwd = \"DIR/sub\"\n{ONCE}\n"
    )]);
    let tree = Tree::start_with(&text, |directory| std::fs::create_dir(directory.join("sub")).unwrap()).await;
    tree.death("c").await;
    assert_eq!(tree.read("sub/out").unwrap(), format!("{}\n", tree.path("sub").display()));
    tree.stops_well().await;
}

// A directory that disappears is named, not the program, although the system has one error for both.
#[tokio::test]
async fn a_directory_that_disappears_is_named() {
    let text = patient(&["[[supervisor.child]]\nid = \"c\"\ncommand = [\"sh\", \"-c\", \"rmdir ../sub; exit 1\"]\n\
                          cwd = \"DIR/sub\"\nbackoff = { initial = \"20ms\", max = \"1h\", factor = 100 }\n"
        .into()]);
    let tree = Tree::start_with(&text, |directory| std::fs::create_dir(directory.join("sub")).unwrap()).await;
    tree.is_ready().await;
    let error = crate::world::until("a start error", async || {
        tree.data("/api/v1/history?supervisor=a&event=start_error").await["events"].get(0).cloned()
    })
    .await;
    let detail = error["reason"]["detail"].as_str().unwrap();
    assert!(detail.contains(&format!("{}: no such directory", tree.path("sub").display())), "{error}");
    tree.stops_well().await;
}

// Without a shell, arguments are what they are; with `shell = true` the command is a line for it.
#[tokio::test]
async fn a_shell_runs_only_where_it_is_asked_for() {
    let text = patient(&[
        format!("[[supervisor.child]]\nid = \"plain\"\ncommand = [\"touch\", \"DIR/$HOME *\"]\n{ONCE}\n"),
        format!(
            "[[supervisor.child]]\nid = \"shell\"\nshell = true\n\
             command = \"echo $((1 + 1)) | cat > DIR/out && exit 1\"\n{ONCE}\n"
        ),
    ]);
    let tree = Tree::ready(&text).await;
    crate::world::until("the file", async || tree.path("$HOME *").exists().then_some(())).await;
    tree.death("shell").await;
    assert_eq!(tree.read("out").unwrap(), "2\n");
    tree.stops_well().await;
}
