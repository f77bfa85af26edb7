//! Supervisors of one name, here and on two Erlang nodes.

use std::sync::Arc;

use restart_exporter::Exporter;
use restart_exporter::prelude::*;
use serde_json::json;
use tokio::sync::Semaphore;

use super::Browser;
use crate::nodes::sockets::looping_node;
use crate::world::{Events, crasher, listening};

// Each is shown by itself, says where it lives, and leads to its own; an order can be given only to the one that is ours.
#[tokio::test]
async fn supervisors_of_one_name_are_told_apart() {
    let (exporter, address) = listening(Exporter::builder().admin_api(true)).await;
    let beam = exporter.listen_for_nodes("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let _nodes =
        (looping_node(beam, "app@one", "died on one").await, looping_node(beam, "app@two", "died on two").await);
    let (mut events, crashes) = (Events::of(exporter.telemetry()), Arc::new(Semaphore::new(6)));
    exporter.supervise(Supervisor::new("sup").max_restarts(100).child(crasher("a", &crashes))).await.unwrap();
    events.restarts(6).await;

    let url = format!("http://{address}/");
    let mut browser = Browser::start(1280, 720).await;
    browser.open(&url).await;
    browser.wait_for("document.getElementById('live').className === 'live on'").await;
    let tree = browser
        .eval("[...document.querySelectorAll('tr.supervisor .names > span:nth-child(2)')].map((e) => e.innerText)")
        .await;
    assert_eq!(tree, json!(["sup", "sup on app@one", "sup on app@two"]));
    // Since when those run that were found running nobody knows.
    let up = browser.eval("[...document.querySelectorAll('tr.supervisor .up')].map((e) => e.innerText)").await;
    assert_eq!((&up[1], &up[2]), (&"up".into(), &"up".into()), "{up}");
    assert!(up[0].as_str().unwrap().ends_with(" s"), "{up}");
    let whys = "[...document.querySelectorAll('tr.child .why .reason')].map((e) => e.innerText)";
    assert_eq!(browser.eval(whys).await, json!(["SMTP 421", "died on one", "died on two"]));
    assert_eq!(browser.eval("document.querySelectorAll('tr.child .act').length").await, 2);

    crashes.add_permits(1);
    browser.wait_for("document.querySelector('tr.child .day').innerText === '7'").await;
    let deaths = browser.eval("[...document.querySelectorAll('tr.child .day')].map((e) => e.innerText)").await;
    assert_eq!(deaths, json!(["7", "6", "6"]));

    let links = browser.eval("[...document.querySelectorAll('tr.child th a')].map((e) => e.href)").await;
    for (place, (node, why)) in
        [("", "SMTP 421"), ("app@one", "died on one"), ("app@two", "died on two")].into_iter().enumerate()
    {
        browser.open(links[place].as_str().unwrap()).await;
        assert_eq!(browser.text("#lead .reason").await, why);
        assert_eq!(browser.text("table.causes .reason").await, why);
        assert_eq!(browser.text("table.history .reason").await, why);
        assert_eq!(browser.text("h1 .node").await, if node.is_empty() { "".into() } else { format!("on {node}") });
        let said = browser.eval("document.querySelectorAll('.tree tbody').length").await;
        assert_eq!(said, 1);
        let json = browser
            .eval("fetch([...document.querySelectorAll('a.json')].find((a) => a.href.includes('/causes')).href).then((a) => a.text())")
            .await;
        assert!(json.as_str().unwrap().contains(why), "{json}");
    }
    exporter.shutdown().await;
}
