//! Supervisors of one name, here and on an Erlang node.

use restart_exporter::supervisor::Supervisor;

use super::{code, deaths, exporter, run, script};
use crate::nodes::sockets::looping_node;

// What has one name in two places is not guessed: each command says where it lives, and takes the place.
#[tokio::test]
async fn the_node_tells_supervisors_of_one_name_apart() {
    let (exporter, _, url) = exporter().await;
    let beam = exporter.listen_for_nodes("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let _nodes = (looping_node(beam, "app@one", "on one").await, looping_node(beam, "app@two", "on two").await);
    for wanted in ["sup", "sup/a", "a"] {
        let ended = run(&["why", wanted, &url]).await;
        let name = if wanted == "sup" { "sup" } else { "sup/a" };
        let expected = format!(
            "restart_exporter: \"{wanted}\" may be {name} on app@one, {name} on app@two: which? --node tells those of nodes apart\n"
        );
        assert_eq!((code(&ended), ended.stderr), (2, expected));
    }
    let ended = run(&["history", "sup", &url]).await;
    assert!(ended.stdout.contains("on one") && ended.stdout.ends_with("\n(of sup on app@one)\n"), "{}", ended.stdout);
    exporter.supervise(Supervisor::new("sup").max_restarts(9).child(script("a", "exit 3"))).await.unwrap();
    deaths(&exporter, "sup", "a", 1).await;

    // Without a node it is the one here.
    for wanted in ["sup/a", "a"] {
        let ended = run(&["why", wanted, &url]).await;
        assert_eq!((code(&ended), ended.stderr.as_str()), (0, ""));
        assert!(ended.stdout.contains("1× ended with exit code 3"), "{}", ended.stdout);
    }
    let ended = run(&["why", "a", "--node=app@two", &url]).await;
    assert_eq!((code(&ended), ended.stderr.as_str()), (0, ""));
    assert!(ended.stdout.starts_with("sup/a on app@two  LOOPING"), "{}", ended.stdout);
    assert!(ended.stdout.contains("6× ended with an error: on two"), "{}", ended.stdout);
    let next = format!("  do           restart_exporter history {url} --node=app@two sup\n");
    assert!(ended.stdout.ends_with(&next), "{}", ended.stdout);
    let ended = run(&["why", "a", "--node=app@three", &url]).await;
    assert_eq!((code(&ended), ended.stdout.as_str()), (2, ""));

    let history = async |arguments: &[&str]| run(&[&["history", "sup", &url], arguments].concat()).await;
    let here = history(&[]).await.stdout;
    assert!(here.contains("exit code 3") && !here.contains("(of "), "{here}");
    let ended = history(&["--node=app@one"]).await;
    assert!(ended.stdout.contains("×6") && ended.stdout.contains("on one"), "{}", ended.stdout);
    let ended = history(&["--node=app@three"]).await;
    assert_eq!((code(&ended), ended.stdout.as_str()), (2, ""));

    let status = run(&["status", &url]).await.stdout;
    for name in ["sup/a", "sup/a on app@one", "sup/a on app@two"] {
        assert!(status.lines().any(|line| line.contains(&format!("  {name}  "))), "{name} is not in\n{status}");
    }
    exporter.shutdown().await;
}
