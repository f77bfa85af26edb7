//! What children write arrives on our own standard output and error as well.

use super::{Tree, child, patient};

const SCRIPT: &str = "echo to stdout; printf 'no newline'; echo to stderr >&2; exit 1";

fn tree(output: &str) -> String {
    patient(&[child("c", SCRIPT, &format!("restart = \"temporary\"\n{output}"))])
}

/// Runs the child to its end; what arrived on standard output, and the lines on standard error that are not the log's.
async fn passed(output: &str) -> (Vec<u8>, Vec<String>) {
    let mut tree = Tree::ready(&tree(output)).await;
    tree.death("c").await;
    tree.signal(rustix::process::Signal::TERM);
    let (status, mut log) = tree.ended().await;
    assert_eq!(status.code(), Some(0));
    log.retain(|line| !line.starts_with("ts="));
    (std::fs::read(tree.path("stdout")).unwrap(), log)
}

// By default each line has the child's name in front, also the last one, which has no end.
#[tokio::test]
async fn lines_are_passed_on_with_the_childs_name() {
    for output in ["", "output = \"prefixed\""] {
        let (stdout, stderr) = passed(output).await;
        assert_eq!(String::from_utf8(stdout).unwrap(), "c | to stdout\nc | no newline\n");
        assert_eq!(stderr, ["c | to stderr"]);
    }
}

// Raw output is passed on byte for byte.
#[tokio::test]
async fn raw_output_is_passed_on_as_it_is() {
    let (stdout, stderr) = passed("output = \"raw\"").await;
    assert_eq!(String::from_utf8(stdout).unwrap(), "to stdout\nno newline");
    assert_eq!(stderr, ["to stderr"]);
}

// Output that is off goes nowhere; what it says of deaths is the log's own.
#[tokio::test]
async fn output_that_is_off_is_not_passed_on() {
    let (stdout, stderr) = passed("output = \"off\"").await;
    assert_eq!((stdout, stderr), (Vec::new(), Vec::new()));
}

// Any bytes are passed on as they are, behind the name too.
#[tokio::test]
async fn any_bytes_are_passed_on() {
    for (output, expected) in [("raw", &b"\xff\xfe\0\n"[..]), ("prefixed", b"c | \xff\xfe\0\n")] {
        let script = r"printf '\377\376\000\n'; exit 1";
        let keys = format!("restart = \"temporary\"\noutput = \"{output}\"");
        let mut tree = Tree::ready(&patient(&[child("c", script, &keys)])).await;
        tree.death("c").await;
        tree.signal(rustix::process::Signal::TERM);
        tree.ended().await;
        assert_eq!(std::fs::read(tree.path("stdout")).unwrap(), expected, "{output}");
    }
}

// 1 MiB without a newline arrives whole, whoever reads it.
#[tokio::test]
async fn a_long_line_is_passed_on_whole() {
    let script = r"head -c 1048576 /dev/zero | tr '\0' x; exit 1";
    let mut tree = Tree::ready(&patient(&[child("c", script, "restart = \"temporary\"")])).await;
    tree.death("c").await;
    tree.signal(rustix::process::Signal::TERM);
    tree.ended().await;
    let passed = std::fs::read_to_string(tree.path("stdout")).unwrap();
    assert_eq!(passed.matches('x').count(), 1024 * 1024);
    assert!(passed.lines().all(|line| line.starts_with("c | ")));
}

// Lines of children that write at the same time do not mix.
#[tokio::test]
async fn lines_of_different_children_do_not_mix() {
    let script = |letter: &str| {
        format!(
            "i=0; while [ $i -lt 200 ]; do i=$((i + 1)); printf '{letter}{letter}'; echo '{letter}{letter}'; done; exit 1"
        )
    };
    let keys = "restart = \"temporary\"";
    let children = ["k", "m", "n"].map(|letter| child(letter, &script(letter), keys));
    let mut tree = Tree::ready(&patient(&children)).await;
    for id in ["k", "m", "n"] {
        tree.death(id).await;
    }
    tree.signal(rustix::process::Signal::TERM);
    tree.ended().await;
    let passed = std::fs::read_to_string(tree.path("stdout")).unwrap();
    for id in ["k", "m", "n"] {
        let line = format!("{id} | {}", id.repeat(4));
        assert_eq!(passed.lines().filter(|other| **other == line).count(), 200, "{id}");
    }
    assert_eq!(passed.lines().count(), 600);
}
