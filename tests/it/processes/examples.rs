//! The files in `examples/` do what they say.

use super::{Tree, named};
use crate::world::{run_to_end, until};

fn example(name: &str) -> (String, String) {
    let path = format!("{}/examples/{name}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap();
    (path, text)
}

// Both are right.
#[test]
fn the_examples_are_right_files() {
    for name in ["container.toml", "host.toml"] {
        let (path, _) = example(name);
        let ended = run_to_end(&["check-config", &path]);
        assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
        assert!(ended.stderr.ends_with(", no errors\n"), "{}", ended.stderr);
    }
}

// The container: without passwords of its own it is not open to anyone, because the file does not load.
#[test]
fn the_container_asks_for_passwords() {
    let (path, text) = example("container.web.yml");
    let refused = |path: &str| {
        let ended = run_to_end(&["run", &format!("--web.config.file={path}"), "--web.listen-address=192.0.2.1:1"]);
        assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
        ended.stderr
    };
    assert!(refused(&path).contains("container.web.yml:10:10: basic_auth_users.admin: "), "{}", refused(&path));
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("web.yml").display().to_string();
    std::fs::write(&file, text.replace("REPLACE", &bcrypt::hash("word", 4).unwrap())).unwrap();
    let said = refused(&file);
    assert!(said.contains("192.0.2.1") && !said.contains("basic_auth_users"), "{said}");
}

// The container: the web server gets ready, then the helper starts; SIGTERM ends both, and the container with status 0.
#[tokio::test]
async fn the_container_gets_ready_and_ends_well() {
    let mut tree = Tree::ready(&example("container.toml").1).await;
    let app = tree.supervisor("app").await;
    let states = ["web", "reloader"].map(|id| named(&app["children"], "id", id)["state"].clone());
    assert_eq!(states, ["running", "running"]);
    tree.stops().await;
    // The mark of the example has one path: where the tests run in two namespaces at once, the other may have set it.
    let said = tree.read("stdout").unwrap();
    assert!(said.starts_with("web | web: opening the database\n"), "{said}");
}

// The host: all groups are up below their parent, the store runs as its user, the backup is done; SIGTERM ends all, and
// the store is told by the signal that it saves on.
#[tokio::test]
async fn the_host_gets_ready_and_ends_well() {
    let mut tree = Tree::ready(&example("host.toml").1).await;
    let backup = until("the backup is done", async || {
        let backup = named(&tree.supervisor("host/nightly").await["children"], "id", "backup");
        (backup["state"] == "stopped").then_some(backup)
    })
    .await;
    assert_eq!((&backup["restarts"], &backup["last_death"]["reason"]["class"]), (&0.into(), &"normal".into()));
    for (name, parent) in
        [("host", serde_json::Value::Null), ("host/shop", "host".into()), ("host/nightly", "host".into())]
    {
        let supervisor = tree.supervisor(name).await;
        assert_eq!((&supervisor["up"], &supervisor["parent"]), (&true.into(), &parent), "{supervisor}");
    }
    let shop = tree.supervisor("host/shop").await;
    let states = ["store", "worker-1", "worker-2"].map(|id| named(&shop["children"], "id", id)["state"].clone());
    assert_eq!(states, ["running", "running", "running"]);
    tree.stops().await;
    let written = tree.read("stdout").unwrap();
    assert!(written.contains("store | store: open\n") && written.contains("store | store: saved\n"), "{written}");
}
