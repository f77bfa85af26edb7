//! What the page tells to be typed does what it says.

use std::path::Path;
use std::process::{Command, Stdio};

use restart_exporter::Exporter;
use restart_exporter::prelude::*;

use super::Browser;
use crate::nodes::sockets::looping_node;
use crate::world::{BINARY, Events, listening};
use restart_exporter::event::EventKind;

/// Names as an attacker, or a person in a hurry, may choose them.
const NAMES: [&str; 6] = [
    // On the node there is one as well.
    "sup",
    "plain",
    "it's; touch owned $(touch owned) `touch owned` \"quoted\" \\",
    "--json",
    "~ two  words * ? [a] {b,c} !1 #",
    "evil\u{202e}name",
];

// Whatever a child, its supervisor and its node are called: typed as it stands there, each command is one of this program,
// and it tells of that child.
#[tokio::test]
async fn each_command_on_the_page_can_be_typed() {
    let (exporter, address) = listening(Exporter::builder()).await;
    let beam = exporter.listen_for_nodes("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let _node = looping_node(beam, "app@one", "died on the node").await;
    let mut events = Events::of(exporter.telemetry());
    for name in NAMES {
        let child = ChildSpec::task(name, |_stop| async { Err("died here") }).restart(Restart::Transient);
        exporter.supervise(Supervisor::new(name).max_restarts(0).child(child)).await.unwrap();
        events.next(EventKind::SupervisorTerminate).await;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut browser = Browser::start(1280, 720).await;
    let shown =
        NAMES.map(|name| (name, None, "died here")).into_iter().chain([("sup", Some("app@one"), "died on the node")]);
    for (name, node, reason) in shown {
        let node = node.map(|node| ("node", node));
        let query = form_urlencoded::Serializer::new(String::new())
            .extend_pairs([("supervisor", name)].into_iter().chain(node))
            .finish();
        browser.open(&format!("http://{address}/?{query}")).await;
        let commands =
            browser.eval("[...document.querySelectorAll('[data-copy]')].map((command) => command.innerText)").await;
        let commands = commands.as_array().unwrap();
        assert_eq!(commands.len(), if node.is_none() { 3 } else { 2 }, "{name:?}");
        for command in commands {
            let command = command.as_str().unwrap();
            // An order needs the admin API, and its target is checked elsewhere.
            if command.starts_with("restart_exporter start ") {
                let (status, _, err) = typed(command, folder.path()).await;
                assert!(status == Some(2) && err.contains("admin API"), "{command}: {err}");
                continue;
            }
            let (status, out, err) = typed(command, folder.path()).await;
            assert_eq!((status, err.as_str()), (Some(0), ""), "{command}");
            assert!(out.contains(reason), "{command}:\n{out}");
        }
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "a name was carried out");
    exporter.shutdown().await;
}

/// Types a line into a shell that knows our binary, in this folder.
async fn typed(line: &str, folder: &Path) -> (Option<i32>, String, String) {
    let path = format!("{}:{}", Path::new(BINARY).parent().unwrap().display(), std::env::var("PATH").unwrap());
    let mut shell = Command::new("bash");
    shell
        .args(["-c", line])
        .current_dir(folder)
        .env("PATH", path)
        .env_remove("RESTART_EXPORTER_URL")
        .stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || shell.output().unwrap()).await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}
