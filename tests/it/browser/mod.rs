//! The live page in a real browser.

mod chromium;
mod commands;
mod history;
mod hostile;
mod nodes;
mod scale;

use std::sync::Arc;
use std::time::Duration;

use restart_exporter::Exporter;
use restart_exporter::prelude::*;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::world::{Events, Running, crasher, exchange, get, listening, request_unix};
use chromium::Browser;

/// A supervisor whose child `mailer` has died as often as makes a loop, and dies again for each permit.
async fn looping() -> (Exporter, String, Arc<Semaphore>) {
    looping_with(Exporter::builder()).await
}

async fn looping_with(builder: restart_exporter::ExporterBuilder) -> (Exporter, String, Arc<Semaphore>) {
    let (exporter, address) = listening(builder).await;
    let crashes = Arc::new(Semaphore::new(0));
    let mut events = Events::of(exporter.telemetry());
    exporter.supervise(workers("workers", &crashes)).await.unwrap();
    crashes.add_permits(6);
    events.restarts(6).await;
    (exporter, format!("http://{address}/"), crashes)
}

fn workers(name: &str, crashes: &Arc<Semaphore>) -> Supervisor {
    let healthy = ChildSpec::task("healthy", |stop| async move { stop.stopped().await });
    Supervisor::new(name).max_restarts(100).child(crasher("mailer", crashes)).child(healthy)
}

const DEATHS: &str = "tr.child .day";

// Three in the morning: all questions are answered on the first screen, in the order in which they are asked, on a desk
// and on a phone.
#[tokio::test]
async fn the_looping_child_is_on_the_first_screen() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("socket");
    let demo = Running::start(&["demo", &format!("--web.listen-address=unix:{}", socket.display())]).await;
    assert_eq!(request_unix(&socket, "POST", "/api/v1/marks?text=deploy+v1.8.2").await.unwrap().status, 200);
    let url = format!("http://{}/", demo.address);
    let mut browser = Browser::start(1280, 720).await;
    browser.open(&url).await;
    // Six deaths make a loop, and the quickest child of the demo dies every 3 seconds.
    browser.wait_for("!!document.querySelector('#lead.looping')").await;
    for (width, height) in [(1280, 720), (390, 844)] {
        browser.resize(width, height).await;
        assert!(browser.is_on_screen("#lead").await, "not all of it at {width}x{height}");
        let fits = browser.eval("document.documentElement.scrollWidth <= innerWidth").await;
        assert_eq!(fits, true, "wider than the window at {width}x{height}");
        let words = browser.eval("[...document.querySelectorAll('#lead dt')].map((e) => e.innerText)").await;
        assert_eq!(words, json!(["since", "before", "why", "up", "who else", "budget", "next", "type"]));
        let lead = browser.text("#lead").await;
        for part in [
            "heartbeat",
            "mark “deploy v1.8.2”",
            "upstream closed the connection",
            "of 1000 restarts left",
            "restart_exporter why",
        ] {
            assert!(lead.contains(part), "{part:?} is not in {lead:?}");
        }
    }
    if std::env::var_os("UPDATE_SCREENSHOTS").is_some() {
        pictures(&mut browser, &url).await;
    }
}

// The first question about a loop: what did somebody change just before? A mark says so, and a restart that was asked for.
#[tokio::test]
async fn what_changed_just_before_is_on_the_first_screen() {
    let (exporter, address) = listening(Exporter::builder()).await;
    let mut events = Events::of(exporter.telemetry());
    let (marked, asked) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    exporter.supervise(workers("marked", &marked)).await.unwrap();
    let asked_for = exporter.supervise(workers("asked", &asked)).await.unwrap();
    drop(exporter.telemetry().mark("deploy 1.2.3".parse().unwrap()));
    marked.add_permits(6);
    events.restarts(6).await;
    asked_for.terminate_child("healthy").await.unwrap();
    asked_for.restart_child("healthy").await.unwrap();
    events.restarts(1).await;
    asked.add_permits(6);
    events.restarts(6).await;
    // What comes after the first death is not what it began with.
    drop(exporter.telemetry().mark("deploy 1.2.4".parse().unwrap()));
    let mut browser = Browser::start(1280, 720).await;
    for (supervisor, change) in [("marked", "mark “deploy 1.2.3”"), ("asked", "healthy was restarted on request")] {
        browser.open(&format!("http://{address}/?filter={supervisor}")).await;
        for (width, height) in [(1280, 720), (390, 844)] {
            browser.resize(width, height).await;
            assert!(browser.is_on_screen("#lead").await, "not all of it at {width}x{height}");
            let said = browser.eval("document.querySelector('#lead dl').children[1].innerText").await;
            let said = said.as_str().unwrap().replace('\n', " ");
            assert!(said.starts_with(&format!("before {change}")), "{said}");
            assert!(said.ends_with("s before the first death"), "{said}");
        }
    }
    exporter.shutdown().await;
}

/// Makes the pictures of the README anew: `UPDATE_SCREENSHOTS=1 cargo test --test it the_looping_child`.
async fn pictures(browser: &mut Browser, url: &str) {
    use base64::Engine;
    // So that the spark lines have something to show.
    tokio::time::sleep(Duration::from_secs(100)).await;
    let detail = format!("{url}?supervisor=demo_one_for_one&child=exits");
    for (name, address, width, height, scheme) in [
        ("desktop", url, 1280, 720, "light"),
        ("dark", url, 1280, 720, "dark"),
        ("detail", &detail, 1280, 900, "light"),
        ("phone", url, 390, 844, "light"),
    ] {
        browser.resize(width, height).await;
        let media = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        browser.call("Emulation.setEmulatedMedia", media).await;
        browser.open(address).await;
        browser.wait_for("document.getElementById('live').className === 'live on'").await;
        let picture = base64::engine::general_purpose::STANDARD.decode(browser.screenshot().await).unwrap();
        assert!(picture.len() < 200_000, "{name}: {} bytes", picture.len());
        std::fs::write(format!("{}/docs/page-{name}.png", env!("CARGO_MANIFEST_DIR")), picture).unwrap();
    }
}

// What happens is on the page within a second, without a reload, and what a person has unfolded stays so.
#[tokio::test]
async fn a_new_death_appears_within_a_second() {
    let (exporter, url, crashes) = looping().await;
    let mut browser = Browser::start(1280, 720).await;
    browser.open(&url).await;
    browser.wait_for("document.getElementById('live').className === 'live on'").await;
    assert_eq!(browser.text(DEATHS).await, "6");
    browser.eval("window.loaded = 1").await;
    // The machine may have much else to do: the quickest counts.
    let mut quickest = Duration::MAX;
    for deaths in 7..12 {
        let begun = Instant::now();
        crashes.add_permits(1);
        browser.wait_for(&format!("document.querySelector('{DEATHS}').innerText === '{deaths}'")).await;
        quickest = quickest.min(begun.elapsed());
    }
    assert!(quickest < Duration::from_secs(1), "a death appeared after {quickest:?} at the earliest");
    assert_eq!(browser.eval("window.loaded").await, 1, "the page was loaded again");
    exporter.shutdown().await;
}

// Without a script the page is the same as of when it was loaded, and its links and its filter work.
#[tokio::test]
async fn the_page_works_without_a_script() {
    let (exporter, url, _crashes) = looping().await;
    let mut browser = Browser::start(1280, 720).await;
    browser.call("Emulation.setScriptExecutionDisabled", json!({"value": true})).await;
    browser.open(&url).await;
    let page = browser.text("body").await;
    for part in ["mailer", "SMTP 421", "6 deaths", "reload to see more"] {
        assert!(page.contains(part), "{part:?} is not in {page}");
    }
    let href = browser.eval("document.querySelector('tr.child a').href").await;
    browser.open(href.as_str().unwrap()).await;
    assert!(browser.text("main").await.contains("History"));
    browser.open(&format!("{url}?filter=health")).await;
    assert_eq!(browser.text("tr.child a").await, "healthy");
    exporter.shutdown().await;
}

// All of it by keyboard: the filter, the links, the way back; and where one is stands in the address.
#[tokio::test]
async fn the_page_works_by_keyboard_alone() {
    let (exporter, url, crashes) = looping().await;
    let mut browser = Browser::start(1280, 720).await;
    browser.open(&url).await;
    browser.press("/").await;
    for key in ["h", "e", "a"] {
        browser.press(key).await;
    }
    browser
        .wait_for("location.search === '?filter=hea' && document.querySelector('tr.child a').innerText === 'healthy'")
        .await;
    // What happens meanwhile takes the focus from nobody.
    crashes.add_permits(1);
    browser.wait_for("document.querySelector('tr.supervisor .day').innerText === '7'").await;
    assert_eq!(browser.eval("document.activeElement.id").await, "filter");
    for _ in 0..20 {
        browser.press("Tab").await;
        if browser.eval("document.activeElement.innerText === 'healthy'").await == true {
            break;
        }
    }
    browser.press("Enter").await;
    browser
        .wait_for("location.search === '?supervisor=workers&child=healthy' && !!document.querySelector('nav.path')")
        .await;
    browser.eval("history.back()").await;
    browser.wait_for("location.search === '?filter=hea' && !document.querySelector('nav.path')").await;
    browser.press("/").await;
    browser.press("Escape").await;
    browser.wait_for("location.search === '' && document.querySelector('tr.child a').innerText === 'mailer'").await;
    exporter.shutdown().await;
}

// A connection that is lost is shown, and comes back by itself: the page then shows the new exporter.
#[tokio::test]
async fn the_page_comes_back_with_the_exporter() {
    let (exporter, url, _crashes) = looping().await;
    let address = url.trim_start_matches("http://").trim_end_matches('/').to_owned();
    let mut browser = Browser::start(1280, 720).await;
    browser.open(&url).await;
    browser.wait_for("document.getElementById('live').className === 'live on'").await;
    exporter.shutdown().await;
    browser.wait_for("document.getElementById('live').innerText.startsWith('connection lost')").await;
    let exporter = Exporter::builder().build().unwrap();
    let healthy = ChildSpec::task("successor", |stop| async move { stop.stopped().await });
    exporter.supervise(Supervisor::new("second").child(healthy)).await.unwrap();
    exporter.listen(address).await.unwrap();
    browser.wait_for("document.getElementById('main').innerText.includes('second')").await;
    browser.wait_for("document.getElementById('live').className === 'live on'").await;
    assert!(!browser.text("main").await.contains("mailer"));
    exporter.shutdown().await;
}

// Only with the admin API there is a button, it asks before it acts, and another site's page cannot press it.
#[tokio::test]
async fn orders_are_given_where_the_admin_api_is_on() {
    let (closed, url, _crashes) = looping().await;
    assert!(!get(url[7..url.len() - 1].parse().unwrap(), "/").await.body.contains("<form method=\"post\""));
    closed.shutdown().await;

    let (exporter, url, _crashes) = looping_with(Exporter::builder().admin_api(true)).await;
    let address = url[7..url.len() - 1].parse().unwrap();
    let mut browser = Browser::start(1280, 720).await;
    browser.open(&url).await;
    let verbs = "[...document.querySelectorAll('tr.child summary')].map((summary) => summary.innerText)";
    assert_eq!(browser.eval(verbs).await, serde_json::json!(["restart…", "stop…"]));
    browser.eval("document.querySelectorAll('tr.child summary')[1].focus()").await;
    browser.press("Enter").await;
    browser.wait_for("document.querySelectorAll('tr.child details')[1].open").await;
    assert_eq!(browser.text("tr.child details[open] button").await, "stop mailer now");
    browser.press("Tab").await;
    browser.press("Enter").await;
    browser.open(&format!("{url}?supervisor=workers&child=mailer")).await;
    browser.wait_for("document.querySelector('tr.child .badge').innerText === 'stopped'").await;
    browser.eval("document.querySelector('tr.child summary').click()").await;
    assert_eq!(browser.text("tr.child button").await, "start mailer now");
    browser.eval("document.querySelector('tr.child button').click()").await;
    browser.wait_for("document.querySelector('tr.child .badge').innerText !== 'stopped'").await;

    let order = "/api/v1/stop?supervisor=workers&child=mailer";
    let foreign = format!(
        "POST {order} HTTP/1.1\r\nHost: {address}\r\nOrigin: https://evil.example\r\nConnection: close\r\n\r\n"
    );
    assert_eq!(exchange(address, &foreign).await.unwrap().status, 403);
    exporter.shutdown().await;
}

// A supervisor that gave up has no budget left, however long ago its restarts were, and its children take no orders: it is
// started as a whole.
#[tokio::test]
async fn a_supervisor_that_gave_up_can_only_be_started() {
    let (exporter, address) = listening(Exporter::builder().admin_api(true)).await;
    let child = ChildSpec::task("worker", |_stop| async { Err("no disk") });
    exporter.supervise(Supervisor::new("top").max_restarts(2).child(child)).await.unwrap().wait().await;
    for path in ["/", "/?supervisor=top"] {
        let page = get(address, path).await.body;
        assert!(page.contains("Nothing: top gave up"), "{page}");
        assert!(!page.contains("restarts left"), "{page}");
        let orders: Vec<_> =
            page.match_indices("<form method=\"post\" action=\"").map(|(at, _)| &page[at..at + 70]).collect();
        assert_eq!(orders.len(), 1, "{orders:?}");
        assert!(orders[0].contains("api/v1/start?supervisor=top\""), "{orders:?}");
    }
    exporter.shutdown().await;
}

// Nothing is fetched from elsewhere and nothing stands inline: the policy says so, and the page obeys it.
#[tokio::test]
async fn the_page_obeys_a_strict_policy() {
    let (exporter, url, _crashes) = looping().await;
    let page = get(url[7..url.len() - 1].parse().unwrap(), "/?supervisor=workers").await;
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    for forbidden in ["style=", "onclick", "<style", "http://", "https://", "src=\"//"] {
        let found = page.body.find(forbidden).map(|at| &page.body[at.saturating_sub(60)..at + 40]);
        // What can be typed names the address.
        assert!(found.is_none_or(|found| found.contains("--url")), "{forbidden} in {found:?}");
    }
    exporter.shutdown().await;
}
