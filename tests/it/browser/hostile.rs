//! Children that are called, write and die as an attacker would like them to.

use restart_exporter::Exporter;
use restart_exporter::prelude::*;

use super::Browser;
use crate::world::{Events, listening};
use restart_exporter::event::EventKind;

// Names, reasons and last words are text on the page, whatever stands in them and however much of it.
#[tokio::test]
async fn what_a_hostile_child_says_is_text() {
    const NAME: &str = "\"'><script>document.title='owned'<img src=x onerror=document.title='owned'>\u{202e}";
    const REASON: &str = "</span><svg onload=document.title='owned'>\u{1b}[31m\u{2066}";
    let (exporter, address) = listening(Exporter::builder()).await;
    let mut events = Events::of(exporter.telemetry());
    let task = ChildSpec::task(NAME, |_stop| async { Err(format!("{REASON}{}", "x".repeat(1024 * 1024))) });
    let noise = "printf '</pre><script>document.title=1</script>\\033[2J\\a\\n' >&2; head -c 1048576 /dev/zero | tr '\\0' '<' >&2; exit 1";
    let process = ChildSpec::process("noisy", "sh", ["-c", noise]);
    let supervisor = Supervisor::new(NAME)
        .max_restarts(0)
        .child(task.restart(Restart::Temporary))
        .child(process.restart(Restart::Temporary));
    exporter.supervise(supervisor).await.unwrap();
    for _ in 0..2 {
        events.next(EventKind::ChildTerminate).await;
    }
    let mut browser = Browser::start(1280, 720).await;
    let query: String = form_urlencoded::byte_serialize(NAME.as_bytes()).collect();
    for page in [String::new(), "?show=all".into(), format!("?supervisor={query}"), format!("?filter={query}")] {
        browser.open(&format!("http://{address}/{page}")).await;
        browser.wait_for("document.getElementById('live').className === 'live on'").await;
        let foreign = browser
            .eval("document.querySelectorAll('main script, main img, main [onload], main [onerror]').length")
            .await;
        assert_eq!(foreign, 0, "{page}");
        assert_ne!(browser.eval("document.title").await, "owned", "{page}");
        let fits = browser.eval("document.documentElement.scrollWidth <= innerWidth").await;
        assert_eq!(fits, true, "{page} is wider than the window");
    }
    browser.open(&format!("http://{address}/?supervisor={query}")).await;
    let shown = browser.eval("document.querySelector('main').textContent").await;
    let shown = shown.as_str().unwrap();
    for part in [
        "\"'><script>document.title='owned'<img src=x",
        "\\u{202e}",
        "</span><svg onload",
        "\\u{1b}[31m\\u{2066}",
        "</pre>",
    ] {
        assert!(shown.contains(part), "{part:?} does not show");
    }
    assert!(!shown.contains(['\u{202e}', '\u{1b}', '\u{7}', '\u{2066}']));
    exporter.shutdown().await;
}
