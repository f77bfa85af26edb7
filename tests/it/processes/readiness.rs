//! What ends the start of a child, and what the next child waits for.

use std::net::TcpListener;

use super::{Tree, child, lines, patient};
use crate::world::until;

/// A child that notes whether the one before it had got ready.
fn follower() -> String {
    child("next", "if [ -e works ]; then echo yes > next; else echo no > next; fi; exec sleep 600", "")
}

/// A port where nothing listens yet.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Starts a child with this readiness that waits until it is told to get ready, and checks that the next one waits too.
async fn check_gate(script: &str, ready: &str) {
    let script = format!("echo up > up; while [ ! -e go ]; do sleep 0.02; done; {script}");
    let tree = Tree::start(&patient(&[child("first", &script, ready), follower()])).await;
    tree.file("up").await;
    assert_eq!(crate::world::get(tree.address, "/-/ready").await.status, 503);
    assert_eq!(tree.child("next").await["state"], "waiting");
    tree.touch("go");
    assert_eq!(tree.file("next").await, "yes\n", "{ready}");
    tree.is_ready().await;
    assert_eq!(tree.child("first").await["state"], "running");
    tree.stops_well().await;
}

// A command that ends with 0.
#[tokio::test]
async fn a_probe_command_gates_the_next_start() {
    let ready = "ready = { exec = [\"test\", \"-e\", \"DIR/works\"], interval = \"10ms\" }";
    check_gate("touch works; exec sleep 600", ready).await;
}

// An address that accepts a connection.
#[tokio::test]
async fn a_tcp_port_gates_the_next_start() {
    let port = free_port();
    let listen = format!(
        "exec perl -MIO::Socket::INET -e '\
         open(F, \">works\"); close F; \
         $server = IO::Socket::INET->new(Listen => 5, LocalAddr => \"127.0.0.1:{port}\", ReuseAddr => 1) or die $!; \
         while ($server->accept) {{ }}'"
    );
    check_gate(&listen, &format!("ready = {{ tcp = \"127.0.0.1:{port}\", interval = \"10ms\" }}")).await;
}

// A URL that answers with success: not one that answers 503, as a program does that is still busy with its start.
#[tokio::test]
async fn a_url_gates_the_next_start() {
    let port = free_port();
    let serve = format!(
        "exec perl -MIO::Socket::INET -e '\
         $server = IO::Socket::INET->new(Listen => 5, LocalAddr => \"127.0.0.1:{port}\", ReuseAddr => 1) or die $!; \
         while ($client = $server->accept) {{ \
           $head = \"\"; while (<$client>) {{ $head .= $_; last if /^\\r\\n$/; }} \
           $n++; if ($n > 3 && $head =~ m,^GET /health HTTP/1.1\\r\\n,) {{ open(F, \">works\"); close F; $status = \"200 OK\"; }} \
           else {{ $status = \"503 Busy\"; }} \
           print $client \"HTTP/1.1 $status\\r\\nContent-Length: 0\\r\\nConnection: close\\r\\n\\r\\n\"; close $client; \
         }}'"
    );
    check_gate(&serve, &format!("ready = {{ http = \"http://127.0.0.1:{port}/health\", interval = \"10ms\" }}")).await;
}

// A time for which it has been running.
#[tokio::test]
async fn a_time_of_running_gates_the_next_start() {
    let stamp = |id: &str| format!("echo $(date +%s%N) > {id}; exec sleep 600");
    let keys = "ready = { stable_after = \"300ms\" }";
    let tree = Tree::ready(&patient(&[child("first", &stamp("first"), keys), child("next", &stamp("next"), "")])).await;
    let time = async |id: &str| tree.file(id).await.trim().parse::<u64>().unwrap();
    let passed = (time("next").await - time("first").await) / 1_000_000;
    // The first may have looked at its clock some milliseconds after its time began.
    assert!(passed >= 250, "{passed} ms");
    tree.stops_well().await;
}

// A child that dies before it is ready has failed to start: at the start of all that ends it, with the child's name, its
// reason and what it said.
#[tokio::test]
async fn a_child_that_dies_before_it_is_ready_ends_the_start() {
    for ready in ["stable_after = \"1h\"", "exec = [\"false\"]"] {
        let keys = format!("ready = {{ {ready} }}\nstart_error = \"fail\"");
        let text = patient(&[
            child("first", "exec sleep 600", ""),
            child("c", "echo 'error: no licence' >&2; exit 9", &keys),
            child("later", "touch later", ""),
        ]);
        let (status, log, directory) = Tree::run_to_end(&text).await;
        assert_eq!(status.code(), Some(1), "{log:#?}");
        assert!(log.iter().any(|line| line == "c | error: no licence"), "{log:#?}");
        let last = log.last().unwrap();
        for part in ["level=error", "\\\"c\\\"", "exit code 9"] {
            assert!(last.contains(part), "{part} is not in {last}");
        }
        assert!(!directory.path().join("later").exists());
    }
}

// The same when it is restarted: each attempt is a start error with the last words of that attempt, and counts.
#[tokio::test]
async fn a_restart_that_dies_before_it_is_ready_is_a_start_error_with_its_last_words() {
    let script = r#"
        echo spawned >> spawned
        case $(wc -l < spawned) in
            1) touch works; while [ ! -e go ]; do sleep 0.02; done; rm works; exit 1;;
            2|3) echo "error: attempt $(wc -l < spawned)" >&2; exit 9;;
            *) touch works; echo up > up; exec sleep 600;;
        esac"#;
    let keys = "ready = { exec = [\"test\", \"-e\", \"DIR/works\"], interval = \"10ms\" }\noutput = \"off\"";
    let tree = Tree::ready(&patient(&[child("c", script, keys)])).await;
    tree.touch("go");
    tree.file("up").await;
    until("it runs", async || (tree.child("c").await["state"] == "running").then_some(())).await;
    let history = tree.data("/api/v1/history?supervisor=a&event=start_error").await;
    let [second, first] = &history["events"].as_array().unwrap()[..] else { panic!("{history}") };
    for (error, words) in [(first, "error: attempt 2"), (second, "error: attempt 3")] {
        assert!(error["reason"]["detail"].as_str().unwrap().contains('9'), "{error}");
        assert_eq!(lines(error), [words]);
    }
    let restarted = tree.data("/api/v1/history?supervisor=a&event=restarted").await;
    assert_eq!(restarted["events"].as_array().unwrap().len(), 1, "{restarted}");
    tree.stops_well().await;
}

// A child that does not get ready in time is killed, and its start has failed with what the last probe said.
#[tokio::test]
async fn a_child_that_is_not_ready_in_time_is_killed() {
    let port = free_port();
    let probes = [format!("tcp = \"127.0.0.1:{port}\""), format!("http = \"http://127.0.0.1:{port}/\"")];
    for probe in probes {
        let keys = format!("ready = {{ {probe}, interval = \"10ms\", timeout = \"200ms\" }}\nstart_error = \"fail\"");
        let (status, log, _) = Tree::run_to_end(&patient(&[child("c", "trap '' TERM; sleep 600", &keys)])).await;
        assert_eq!(status.code(), Some(1), "{log:#?}");
        let last = log.last().unwrap();
        for part in ["not ready within 200ms", "refused", "\\\"c\\\""] {
            assert!(last.contains(part), "{part} is not in {last}");
        }
    }
}
