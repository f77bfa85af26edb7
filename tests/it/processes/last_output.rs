//! The last words of the run that died, whatever it wrote.

use super::{Tree, child, lines, patient};
use crate::world::until;

const TEMPORARY: &str = "restart = \"temporary\"\noutput = \"off\"";

// People's complaint: the output of the dead run is overwritten by that of the new one. The record has that of the run
// that died, never that of the next one, which writes while the record is read.
#[tokio::test]
async fn the_stderr_of_the_dead_run_is_the_one_shown() {
    let script = r#"
        if [ -e second ]; then
            echo "second run: all is well" >&2; echo up > up; exec sleep 600
        fi
        touch second
        echo "first run: begins" >&2; echo "first run: error: bind: address in use" >&2; exit 3"#;
    let tree = Tree::ready(&patient(&[child("c", script, "output = \"off\"")])).await;
    tree.file("up").await;
    let death = tree.death("c").await;
    assert_eq!(lines(&death), ["first run: begins", "first run: error: bind: address in use"]);
    assert_eq!(tree.child("c").await["last_death"]["last_output"], death["last_output"]);
    tree.stops_well().await;
}

// Runs that follow one another as fast as they can, each with its number in each line: no record has two numbers in it.
#[tokio::test]
async fn the_words_of_two_runs_are_never_mixed() {
    let script = r#"
        read n < n; n=$((n + 1)); echo $n > n
        [ $n -gt 60 ] && exec sleep 600
        for line in 1 2 3 4 5; do echo "$n" >&2; done; exit 1"#;
    let text = patient(&[child("c", script, "output = \"off\"")]);
    let tree = Tree::start_with(&text, |directory| std::fs::write(directory.join("n"), "0\n").unwrap()).await;
    until("the last run", async || (tree.child("c").await["restarts"] == 60).then_some(())).await;
    let history = tree.data("/api/v1/history?supervisor=a&event=terminated&limit=32").await;
    for (back, death) in history["events"].as_array().unwrap().iter().enumerate() {
        assert_eq!(lines(death), vec![(60 - back).to_string(); 5]);
    }
    tree.stops_well().await;
}

// Any bytes: NUL, invalid UTF-8, and no newline at the end.
#[tokio::test]
async fn any_bytes_become_last_words() {
    let script = r"printf 'a\000b\n\377\376!\nno newline' >&2; exit 1";
    let tree = Tree::ready(&patient(&[child("c", script, TEMPORARY)])).await;
    assert_eq!(lines(&tree.death("c").await), ["a\0b", "\u{fffd}\u{fffd}!", "no newline"]);
    tree.stops_well().await;
}

// By default 20 lines, or as many as the file says; the oldest go first.
#[tokio::test]
async fn as_many_lines_are_kept_as_the_file_says() {
    let script = "i=0; while [ $i -lt 100 ]; do i=$((i + 1)); echo line $i >&2; done; exit 1";
    let tree = Tree::ready(&patient(&[
        child("default", script, TEMPORARY),
        child("two", script, &format!("{TEMPORARY}\nlast_output = {{ lines = 2 }}")),
        child("bytes", script, &format!("{TEMPORARY}\nlast_output = {{ bytes = 20 }}")),
        child("none", script, &format!("{TEMPORARY}\nlast_output = {{ lines = 0 }}")),
    ]))
    .await;
    let death = tree.death("default").await;
    assert_eq!((lines(&death).len(), lines(&death)[0], lines(&death)[19]), (20, "line 81", "line 100"));
    assert_eq!(lines(&tree.death("two").await), ["line 99", "line 100"]);
    assert_eq!(lines(&tree.death("bytes").await), ["line 99", "line 100"]);
    assert_eq!(tree.death("none").await["last_output"].as_array().map_or(0, Vec::len), 0);
    tree.stops_well().await;
}

// A line of 1 MiB is cut with a mark; what follows it is whole, the death is told with all it said, and the memory of the
// supervisor does not grow with such lines.
#[tokio::test]
async fn a_line_of_1_mib_is_cut_with_a_mark() {
    let script = r#"
        read n < n; n=$((n + 1)); echo $n > n
        [ $n -gt 20 ] && exec sleep 600
        head -c 1048576 /dev/zero | tr '\0' x >&2; echo >&2; echo "error: too long" >&2; exit 1"#;
    let text = patient(&[child("c", script, "output = \"off\"")]);
    let tree = Tree::start_with(&text, |directory| std::fs::write(directory.join("n"), "0\n").unwrap()).await;
    until("the second death", async || (tree.child("c").await["restarts"].as_u64()? > 2).then_some(())).await;
    let before = resident_kib(&tree);
    until("the last run", async || (tree.child("c").await["restarts"] == 20).then_some(())).await;
    let grown = resident_kib(&tree).saturating_sub(before);
    assert!(grown < 8 * 1024, "{grown} KiB more for 18 lines of 1 MiB");
    let death = tree.death("c").await;
    let [long, next] = lines(&death)[..] else { panic!("{death}") };
    assert_eq!((long, next), (&*format!("{}… [cut]", "x".repeat(4096)), "error: too long"));
    tree.stops_well().await;
}

fn resident_kib(tree: &Tree) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", tree.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

// Standard output is kept only where it is asked for.
#[tokio::test]
async fn standard_output_is_kept_only_if_asked_for() {
    let script = "echo to stdout; echo to stderr >&2; exit 1";
    for output in ["off", "prefixed"] {
        let keys = format!("restart = \"temporary\"\noutput = \"{output}\"");
        let tree = Tree::ready(&patient(&[
            child("not", script, &keys),
            child("asked", script, &format!("{keys}\nlast_output = {{ stdout = true }}")),
        ]))
        .await;
        assert_eq!(lines(&tree.death("not").await), ["to stderr"]);
        let death = tree.death("asked").await;
        let mut both = lines(&death);
        // Two pipes have no common order.
        both.sort_unstable();
        assert_eq!(both, ["to stderr", "to stdout"]);
        tree.stops_well().await;
    }
}

// A child that closes its standard error early goes on living, and what it said before is kept until it dies.
#[tokio::test]
async fn a_child_may_close_its_standard_error_early() {
    let script =
        "echo last words >&2; exec 2>&- >&-; echo closed > closed; while [ ! -e go ]; do sleep 0.02; done; exit 4";
    let tree = Tree::ready(&patient(&[child("c", script, TEMPORARY)])).await;
    tree.file("closed").await;
    assert_eq!(tree.child("c").await["state"], "running");
    tree.touch("go");
    assert_eq!(lines(&tree.death("c").await), ["last words"]);
    tree.stops_well().await;
}

// A grandchild in a session of its own keeps the pipe open: the death of the child is told at once all the same, and what
// the grandchild writes later belongs to nobody's record.
#[tokio::test]
async fn a_grandchild_that_keeps_the_pipe_open_does_not_delay_the_death() {
    let script = r#"
        if [ -e second ]; then echo up > up; exec sleep 600; fi
        touch second
        setsid sh -c 'echo here > grandchild; while [ ! -e go ]; do sleep 0.02; done; echo later >&2; echo wrote > wrote' &
        while [ ! -e grandchild ]; do sleep 0.01; done
        echo "error: dies" >&2; exit 5"#;
    let tree = Tree::ready(&patient(&[child("c", script, "output = \"off\"")])).await;
    tree.file("up").await;
    let death = tree.death("c").await;
    assert_eq!(lines(&death), ["error: dies"]);
    assert!(tree.running().iter().any(|program| program.contains("later")), "{:?}", tree.running());
    tree.touch("go");
    until("the grandchild has gone", async || {
        (!tree.running().iter().any(|program| program.contains("later"))).then_some(())
    })
    .await;
    assert_eq!(tree.death("c").await["last_output"], death["last_output"]);
    tree.stops_well().await;
}
