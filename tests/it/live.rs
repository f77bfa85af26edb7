//! `/api/v1/events`: every event once, to every viewer that reads, whatever the others do.

use std::sync::Arc;
use std::time::Duration;

use restart_exporter::http::MAX_VIEWERS;
use restart_exporter::prelude::*;
use restart_exporter::telemetry::now;
use restart_exporter::{Error, Exporter};
use tokio::sync::Semaphore;

use crate::world::{
    Events, Sse, SseEvent, crasher, exchange, get, listening, raise_open_files, request, sample, soon, until,
};
use tree::Tree;

#[allow(dead_code, reason = "the benches tell more")]
#[path = "../../benches/support/events.rs"]
pub(crate) mod tree;

const EVENTS: &str = "/api/v1/events";

async fn workers(exporter: &Exporter, crashes: &Arc<Semaphore>) -> Result<SupervisorHandle, Error> {
    exporter.supervise(Supervisor::new("workers").max_restarts(10_000).child(crasher("mailer", crashes))).await
}

/// `terminated mailer`, …
fn words(events: &[SseEvent]) -> Vec<String> {
    let word = |event: &SseEvent| {
        let child = event.data["child_id"].as_str().map(|child| format!(" {child}")).unwrap_or_default();
        format!("{}{child}", event.data["event_type"].as_str().unwrap_or(&event.event))
    };
    events.iter().map(word).collect()
}

fn numbers(events: &[SseEvent]) -> Vec<u64> {
    events.iter().map(|event| event.id.split_once('-').unwrap().1.parse().unwrap()).collect()
}

// Each event once, in the order in which it happened, with the id by which a viewer that comes again goes on.
#[tokio::test]
async fn a_viewer_is_told_every_event_once_and_resumes_where_it_was() {
    let (exporter, address) = listening(Exporter::builder()).await;
    let crashes = Arc::new(Semaphore::new(0));
    let mut viewer = Sse::open(address, EVENTS, "").await;
    workers(&exporter, &crashes).await.unwrap();
    let begin = viewer.take(2).await;
    assert_eq!(words(&begin), ["supervisor_started", "started mailer"]);
    crashes.add_permits(1);
    let crash = viewer.take(2).await;
    assert_eq!(words(&crash), ["terminated mailer", "restarted mailer"]);
    assert_eq!((numbers(&begin), numbers(&crash)), (vec![1, 2], vec![3, 4]));
    assert_eq!(crash[0].data["reason"]["detail"], "SMTP 421");
    assert_eq!(crash[0].data["id"], 3);
    drop(exporter.telemetry().mark("deploy api v1.8.2".parse().unwrap()));
    let mark = viewer.take(1).await.remove(0);
    assert_eq!((&mark.data["event_type"], &mark.data["text"]), (&"mark".into(), &"deploy api v1.8.2".into()));
    drop(viewer);

    let mut heard = Events::of(exporter.telemetry());
    crashes.add_permits(1);
    heard.restarts(1).await;
    // A browser tells what it saw by a header, and its address stays that of the first time.
    let header = format!("Last-Event-ID: {}\r\n", crash[0].id);
    let again = Sse::open(address, &format!("{EVENTS}?after={}", begin[0].id), &header).await.take(4).await;
    assert_eq!(
        (words(&again).join(", "), numbers(&again)),
        ("restarted mailer, mark, terminated mailer, restarted mailer".into(), vec![4, 5, 6, 7])
    );
    assert_eq!(again[0], crash[1]);
    let after = Sse::open(address, &format!("{EVENTS}?after={}", begin[0].id), "").await.take(6).await;
    assert_eq!(numbers(&after), [2, 3, 4, 5, 6, 7]);
    exporter.shutdown().await;
}

// Who comes without an id is told what happens from now on, and at once from where on that is.
#[tokio::test]
async fn a_new_viewer_begins_with_now() {
    let (exporter, address) = listening(Exporter::builder()).await;
    let crashes = Arc::new(Semaphore::new(0));
    workers(&exporter, &crashes).await.unwrap();
    let mut viewer = Sse::open(address, EVENTS, "").await;
    assert!(viewer.last_id.ends_with("-2"), "{}", viewer.last_id);
    crashes.add_permits(1);
    assert_eq!(numbers(&viewer.take(1).await), [3]);
    let head = request(address, "HEAD", EVENTS).await.unwrap();
    assert_eq!((head.status, head.header("content-type"), &*head.body), (200, Some("text/event-stream"), ""));
    let wrong = get(address, "/api/v1/events?after=yesterday").await;
    assert_eq!((wrong.status, wrong.json()["errorType"].as_str()), (400, Some("bad_data")), "{}", wrong.body);
    exporter.shutdown().await;
}

// Numbers begin anew with an exporter, so what a viewer saw of the one before says nothing of this one's: it is told so, and
// told everything.
#[tokio::test]
async fn an_id_of_the_exporter_before_is_recognised() {
    let (exporter, address) = listening(Exporter::builder()).await;
    workers(&exporter, &Arc::new(Semaphore::new(0))).await.unwrap();
    for id in ["1700000000000-1", "1700000000000-999", "nonsense"] {
        let told = Sse::open(address, EVENTS, &format!("Last-Event-ID: {id}\r\n")).await.take(3).await;
        assert_eq!(words(&told), ["reset", "supervisor_started", "started mailer"], "{id}");
        assert!(told[0].data["start"].as_u64().is_some_and(|start| start > 1_700_000_000_000), "{told:?}");
    }
    exporter.shutdown().await;
}

// The end of the exporter is the end of the stream, at once: a stream has no end of its own to wait for.
#[tokio::test]
async fn streams_end_with_the_exporter() {
    let (exporter, address) = listening(Exporter::builder()).await;
    workers(&exporter, &Arc::new(Semaphore::new(0))).await.unwrap();
    let mut viewer = Sse::open(address, EVENTS, "").await;
    let started = tokio::time::Instant::now();
    exporter.shutdown().await;
    let end = viewer.take(2).await;
    assert_eq!(words(&end), ["terminated mailer", "supervisor_terminated"]);
    assert_eq!(soon("the end", viewer.next()).await, None);
    assert!(started.elapsed() < restart_exporter::http::DRAIN_TIMEOUT, "it took {:?}", started.elapsed());
}

// Viewers have a limit of their own, below that of connections, so that a scrape finds one. Who leaves makes room.
#[tokio::test]
async fn a_viewer_too_many_is_refused_and_counted() {
    let (exporter, address) = listening(Exporter::builder()).await;
    raise_open_files();
    let mut viewers = Vec::new();
    for _ in 0..MAX_VIEWERS {
        viewers.push(Sse::open(address, EVENTS, "").await);
    }
    let refused = get(address, EVENTS).await;
    assert_eq!(refused.status, 503, "{}", refused.body);
    let metrics = get(address, "/metrics").await.body;
    assert_eq!(sample(&metrics, "restart_exporter_live_viewers"), Some(MAX_VIEWERS as f64));
    assert_eq!(sample(&metrics, r#"restart_exporter_limit_reached_total{limit="live_viewers"}"#), Some(1.0));
    drop(viewers.pop());
    until("room for one more", async || {
        let viewers = sample(&exporter.metrics().render(), "restart_exporter_live_viewers");
        (viewers == Some(MAX_VIEWERS as f64 - 1.0)).then_some(())
    })
    .await;
    viewers.push(Sse::open(address, EVENTS, "").await);
    drop(viewers);
    exporter.shutdown().await;
}

// What programs wrote is for those on this machine, not for whom a proxy on it passes on, and not for a page of another site
// that reaches it by a name of its own.
#[tokio::test]
async fn the_last_output_is_shown_on_this_machine_alone() {
    let (exporter, address) = listening(Exporter::builder()).await;
    let talker = ChildSpec::process("talker", "sh", ["-c", "echo the password is 1234 >&2; exit 3"]);
    let mut here = Sse::open(address, EVENTS, "").await;
    let mut forwarded = Sse::open(address, EVENTS, "X-Forwarded-For: 192.0.2.1\r\n").await;
    exporter.supervise(Supervisor::new("talkers").child(talker.restart(Restart::Temporary))).await.unwrap();
    let (shown, hidden) = (here.take(3).await.remove(2), forwarded.take(3).await.remove(2));
    assert_eq!(shown.data["last_output"][0], "the password is 1234");
    assert_eq!(
        (&hidden.data["last_output"], &hidden.data["reason"]),
        (&serde_json::Value::Null, &shown.data["reason"])
    );
    let history = "/api/v1/history?supervisor=talkers";
    let ask = async |host: &str, header: &str| {
        let request = format!("GET {history} HTTP/1.1\r\nHost: {host}\r\n{header}Connection: close\r\n\r\n");
        exchange(address, &request).await.unwrap().body.contains("1234")
    };
    assert!(ask("127.0.0.1", "").await);
    assert!(!ask("127.0.0.1", "Forwarded: for=192.0.2.1\r\n").await);
    assert!(!ask("evil.example", "").await);
    exporter.shutdown().await;
}

// Silence is no reason to close: the stream says every 15 seconds that it is there.
#[tokio::test(start_paused = true)]
async fn an_idle_stream_stays_open() {
    let (exporter, address) = listening(Exporter::builder()).await;
    let crashes = Arc::new(Semaphore::new(0));
    workers(&exporter, &crashes).await.unwrap();
    let mut viewer = Sse::open(address, EVENTS, "").await;
    let silence = tokio::time::timeout(Duration::from_secs(600), viewer.next());
    assert!(silence.await.is_err(), "closed, or an event out of nothing");
    crashes.add_permits(1);
    assert_eq!(words(&viewer.take(2).await), ["terminated mailer", "restarted mailer"]);
    exporter.shutdown().await;
}

// A viewer is only a place in what all share: those that do not read cost the others nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn viewers_that_do_not_read_keep_nobody_waiting() {
    const EVENTS_TOLD: u64 = 10_000;
    raise_open_files();
    let (exporter, address) = listening(Exporter::builder()).await;
    let mut silent = Vec::new();
    for _ in 0..50 {
        silent.push(Sse::open(address, EVENTS, "").await);
    }
    let mut reading = tokio::task::JoinSet::new();
    for _ in 0..250 {
        let mut viewer = Sse::open(address, EVENTS, "").await;
        reading.spawn(async move { viewer.take_ids(EVENTS_TOLD as usize).await });
    }
    let tree = Tree::new("storm", 4);
    tree.start(exporter.telemetry(), now());
    for number in 0..EVENTS_TOLD / 2 {
        tree.crash(number, now()).iter().for_each(|event| exporter.telemetry().execute(event));
    }
    while let Some(ids) = soon("all events", reading.join_next()).await {
        let mut numbers = 1..;
        let is_next = |id: &String| id.ends_with(&format!("-{}", numbers.next().unwrap()));
        assert!(ids.unwrap().iter().all(is_next), "not every event once and in order");
    }
    drop(silent);
    exporter.shutdown().await;
}

// What is made ready for a viewer and not read is a bounded piece; after 30 seconds the viewer is cut off. When it comes
// again, after more than is kept, it is told how many events it missed.
#[tokio::test(start_paused = true)]
async fn a_viewer_that_does_not_read_is_cut_off_and_told_what_it_missed() {
    let (exporter, address) = listening(Exporter::builder()).await;
    let tree = Tree::new("storm", 4);
    tree.start(exporter.telemetry(), now());
    let viewer = Sse::open(address, EVENTS, "").await;
    let mut told = 0;
    let cut = |metrics: &str| sample(metrics, r#"restart_exporter_limit_reached_total{limit="http_slow_reader"}"#);
    let mut every_second = tokio::time::interval(Duration::from_secs(1));
    let start = tokio::time::Instant::now();
    while cut(&exporter.metrics().render()) != Some(1.0) {
        every_second.tick().await;
        for _ in 0..1000 {
            tree.crash(told, now()).iter().for_each(|event| exporter.telemetry().execute(event));
            told += 1;
        }
        assert!(start.elapsed() < Duration::from_secs(120), "still there after {:?}", start.elapsed());
    }
    let seen = viewer.last_id.clone();
    drop(viewer);
    let again = Sse::open(address, EVENTS, &format!("Last-Event-ID: {seen}\r\n")).await.take(2).await;
    assert_eq!(again[0].event, "missed", "{again:?}");
    let missed = again[0].data["missed"].as_u64().unwrap();
    let before: u64 = seen.split_once('-').unwrap().1.parse().unwrap();
    assert_eq!(numbers(&again), [before + missed, before + missed + 1]);
    let metrics = exporter.metrics().render();
    assert_eq!(sample(&metrics, "restart_exporter_live_events_missed_total"), Some(missed as f64));
    exporter.shutdown().await;
}
