//! The history on the page: equal deaths in a row are told once, and each can be seen.

use restart_exporter::Exporter;

use super::{Browser, looping, looping_with};

const TIMES: &str = "table.history a[title]";

// A loop is one line that counts on while it is looked at; each death of it is a click away, and the way back as well.
#[tokio::test]
async fn equal_deaths_are_one_line_and_each_can_be_seen() {
    let (exporter, url, crashes) = looping().await;
    let mut browser = Browser::start(1280, 720).await;
    browser.open(&format!("{url}?supervisor=workers")).await;
    browser.wait_for("document.getElementById('live').className === 'live on'").await;
    assert_eq!(browser.text(TIMES).await, "6×");
    assert_eq!(browser.eval("document.querySelectorAll('table.history tbody tr').length").await, 1);
    let row = browser.text("table.history tbody tr").await;
    for part in ["mailer died", "SMTP 421", "first ", "restart", "up again after"] {
        assert!(row.contains(part), "{part:?} is not in {row:?}");
    }
    browser.eval("document.querySelector('table.history tbody tr').same = true").await;
    crashes.add_permits(1);
    browser.wait_for(&format!("document.querySelector('{TIMES}').innerText === '7×'")).await;
    assert_eq!(browser.eval("document.querySelector('table.history tbody tr').same").await, true, "another line");

    // A mark parts what was before it from what came after it.
    drop(exporter.telemetry().mark("deploy 1.2.3".parse().unwrap()));
    crashes.add_permits(1);
    browser.wait_for("document.querySelectorAll('table.history tbody tr').length === 3").await;
    let rows = browser.eval("[...document.querySelectorAll('table.history .what')].map((e) => e.innerText)").await;
    assert_eq!(rows, serde_json::json!(["mailer died", "mark", "mailer died 7×"]));
    let same = browser.eval("document.querySelector('table.history tbody tr:last-child').same").await;
    assert_eq!(same, true, "another line");

    browser.eval(&format!("document.querySelector('{TIMES}').click()")).await;
    browser.wait_for("document.querySelectorAll('table.history tbody tr').length === 16").await;
    assert_eq!(browser.eval("location.search").await, "?supervisor=workers&child=mailer&raw=");
    browser
        .eval("[...document.querySelectorAll('h2 a')].find((a) => a.innerText === 'equal ones together').click()")
        .await;
    browser.wait_for("document.querySelectorAll('table.history tbody tr').length === 1").await;
    assert_eq!(browser.text(TIMES).await, "8×");
    exporter.shutdown().await;
}

// The oldest events leave as new ones come: what is left of the loop is still that line, and says that there were more.
#[tokio::test]
async fn a_line_stays_while_older_events_leave() {
    let (exporter, url, crashes) = looping_with(Exporter::builder().history_capacity(8)).await;
    let mut browser = Browser::start(1280, 720).await;
    browser.open(&format!("{url}?supervisor=workers")).await;
    browser.wait_for("document.getElementById('live').className === 'live on'").await;
    browser.eval("document.querySelector('table.history tbody tr').same = true").await;
    crashes.add_permits(3);
    browser.wait_for("document.querySelector('tr.supervisor .day').innerText === '9'").await;
    assert_eq!(browser.text(TIMES).await, "≥ 4×");
    assert_eq!(browser.eval("document.querySelector('table.history tbody tr').same").await, true, "another line");
    exporter.shutdown().await;
}
