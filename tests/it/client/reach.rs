//! How the commands reach an exporter, and what they say when they do not.

use std::net::TcpListener;

use rustix::process::Signal;

use super::{code, run, run_with};
use crate::web_config::site::{PASSWORD, Site, certificates, tls, users};
use crate::world::{Running, until};

// Exit status 2 and one line that names what was not reached, whatever is wrong.
#[tokio::test]
async fn who_cannot_be_reached_is_said_in_one_line() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = format!("--url=http://{}", silent.local_addr().unwrap());
    let table: [(&[&str], &str); 6] = [
        (&["--url=http://127.0.0.1:1"], "cannot reach http://127.0.0.1:1: "),
        (&["--url=unix:/does/not/exist"], "cannot reach unix:/does/not/exist: there is no such socket"),
        (&[&silent, "--timeout=200ms"], "no answer within 200ms"),
        (&["--url=http://a:b@c"], "use --user"),
        (&["--url=https://127.0.0.1:1", "--ca-file=/dev/null"], "--ca-file /dev/null: no certificate in it"),
        (&["--user=ada"], "no password for user \"ada\""),
    ];
    for (arguments, words) in table {
        let ended = run(&[&["status"], arguments].concat()).await;
        assert_eq!((code(&ended), ended.stdout.as_str()), (2, ""), "{arguments:?}");
        assert!(ended.stderr.contains(words), "{arguments:?}: {}", ended.stderr);
    }
}

// TLS with a certificate that signed itself, and a user: as with curl, closed until both are given; nothing secret is said.
#[tokio::test]
async fn https_and_users_are_as_with_curl() {
    let site = Site::start(&(tls("") + &users())).await;
    let url = format!("--url=https://{}", site.exporter.address);
    let ca = format!("--ca-file={}/server.crt", certificates().display());
    let other = format!("--ca-file={}/other.crt", certificates().display());
    let user = format!("--user=ada:{PASSWORD}");
    let table: [(&[&str], i32, &str); 6] = [
        (&[&ca, &user], 0, ""),
        (&["--insecure", &user], 0, ""),
        (&[&user], 2, "certificate"),
        (&[&other, &user], 2, "certificate"),
        (&[&ca], 2, "needs --user"),
        (&[&ca, "--user=ada:wrong secret"], 2, "does not know this user and password"),
    ];
    for (arguments, expected, words) in table {
        let ended = run(&[&["status", &url], arguments].concat()).await;
        assert_eq!(code(&ended), expected, "{arguments:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(words) && !ended.stderr.contains("secret"), "{arguments:?}: {}", ended.stderr);
    }
    // Where neither the list of processes nor a shell's history shows it.
    let ended = run_with(&["status", &url, &ca, "--user=ada"], &[("RESTART_EXPORTER_PASSWORD", PASSWORD)]).await;
    assert_eq!((code(&ended), ended.stdout.as_str()), (0, "no supervisors\n"), "{}", ended.stderr);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("{PASSWORD}\n")).unwrap();
    let file = format!("--password-file={}", file.path().display());
    assert_eq!(code(&run(&["status", &url, &ca, "--user=ada", &file]).await), 0);
}

// A socket and the environment; a child that a reload changed was restarted on request, and nothing of that is trouble.
#[tokio::test]
async fn a_unix_socket_is_reached_and_a_reload_is_no_trouble() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("socket");
    let tree = |seconds: u32| {
        format!(
            "[[supervisor]]\nname = \"top\"\n[[supervisor.child]]\nid = \"a\"\ncommand = [\"sleep\", \"{seconds}\"]\n"
        )
    };
    let listen = format!("--web.listen-address=unix:{}", socket.display());
    let exporter = Running::file_with(directory.path(), &tree(1000), &[&listen]).await;
    let environment = [("RESTART_EXPORTER_URL", format!("unix:{}", socket.display()))];
    let environment = environment.each_ref().map(|(name, value)| (*name, value.as_str()));
    until("the tree", async || {
        let ended = run_with(&["status"], &environment).await;
        (code(&ended) == 0 && ended.stdout.contains("top (1 child)")).then_some(())
    })
    .await;

    std::fs::write(directory.path().join("tree.toml"), tree(2000)).unwrap();
    exporter.signal(Signal::HUP);
    until("the reload", async || {
        let told = run_with(&["history", "top"], &environment).await.stdout;
        told.contains("a  restarted on request").then_some(())
    })
    .await;
    let ended = run_with(&["why", "a"], &environment).await;
    assert!(ended.stdout.contains("a  OK  0 deaths") && ended.stdout.contains("on request"), "{}", ended.stdout);
    assert_eq!(code(&run_with(&["status"], &environment).await), 0);
}
