//! Do viewers slow the supervisors down? 300 viewers of live events, 50 of whom never read, and 10,000 events.
//!
//! Prints what an event costs the supervisor that tells it, with and without viewers: the median of the bursts, because whoever
//! is interrupted in one by all those readers on the same machine has not been slowed by the exporter. And what the viewers cost
//! in memory.
//! Fails if one of those that read did not get every event once and in order.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench prints, and may end by a panic")]

#[allow(dead_code, reason = "the other benches tell more")]
#[path = "support/events.rs"]
mod events;

use std::net::SocketAddr;
use std::time::Duration;

use restart_exporter::Exporter;
use restart_exporter::analytics::{Analytics, AnalyticsConfig};
use restart_exporter::event::Event;
use restart_exporter::http::LIVE_BYTES;
use restart_exporter::metrics::{Metrics, MetricsConfig};
use restart_exporter::telemetry::{Telemetry, monotonic_now, now};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use events::{Tree, storm};

const VIEWERS: usize = 300;
const SILENT: usize = 50;
const EVENTS: usize = 10_000;
/// Told together, every so often: 10,000 events a second.
const BURST: usize = 100;
const PAUSE: Duration = Duration::from_millis(10);

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let trees = Tree::forest(10, 10);
    let bare = Telemetry::new();
    let analytics = Analytics::new(AnalyticsConfig::default());
    let metrics = Metrics::new(MetricsConfig::default(), &bare, &analytics);
    analytics.attach(&bare).unwrap();
    metrics.attach().unwrap();
    trees.iter().for_each(|tree| tree.start(&bare, now()));
    let without = tell(&bare, &trees).await;

    let exporter = Exporter::builder().build().unwrap();
    let address = exporter.listen("127.0.0.1:0").await.unwrap();
    trees.iter().for_each(|tree| tree.start(exporter.telemetry(), now()));
    let alone = tell(exporter.telemetry(), &trees).await;

    let mut silent = Vec::new();
    for _ in 0..SILENT {
        silent.push(view(address).await);
    }
    let mut reading = tokio::task::JoinSet::new();
    for _ in SILENT..VIEWERS {
        let (viewer, last) = view(address).await;
        reading.spawn(read(viewer, last));
    }
    let before = resident();
    let begun = monotonic_now();
    let watched = tell(exporter.telemetry(), &trees).await;
    while let Some(read) = reading.join_next().await {
        read.unwrap();
    }
    let (delivered, after) = (monotonic_now() - begun, resident());
    let nanos = |burst: Duration| burst.as_nanos() / BURST as u128;
    println!("history and metrics alone          {:>6} ns an event", nanos(without));
    println!("with live events, nobody looks     {:>6} ns an event", nanos(alone));
    println!("{VIEWERS} viewers, {SILENT} of them not reading {:>6} ns an event", nanos(watched));
    println!("viewers : nobody                   {:>6.2}", watched.as_secs_f64() / alone.as_secs_f64());
    println!("all {} readers had all {EVENTS} events after {delivered:.2?}", VIEWERS - SILENT);
    let kept = LIVE_BYTES / (1024 * 1024);
    println!(
        "memory of server and viewers: {before} MiB before, {after} MiB after; at most {kept} MiB of events are kept"
    );
    drop(silent);
    exporter.shutdown().await;
}

/// Tells all events in bursts; returns the time that a burst took, as half of them did or less.
async fn tell(telemetry: &Telemetry, trees: &[Tree]) -> Duration {
    let mut pause = tokio::time::interval(PAUSE);
    let mut took = Vec::new();
    for _ in 0..EVENTS / BURST {
        pause.tick().await;
        let events: Vec<Event> = storm(trees, (BURST / trees.len() / 2) as u64, now());
        let begun = monotonic_now();
        events.iter().for_each(|event| telemetry.execute(event));
        took.push(monotonic_now() - begun);
    }
    took.sort_unstable();
    took[took.len() / 2]
}

/// A viewer that has read the head of the answer and the greeting, and the number after which it begins.
async fn view(address: SocketAddr) -> (BufReader<TcpStream>, u64) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /api/v1/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").await.unwrap();
    let mut viewer = BufReader::new(stream);
    let mut line = String::new();
    while !line.starts_with("id: ") {
        line.clear();
        assert_ne!(viewer.read_line(&mut line).await.unwrap(), 0, "closed");
    }
    let last = number(line.strip_prefix("id: ").unwrap());
    (viewer, last)
}

/// Reads all events after that with the number `last`. Their numbers are not kept: they would be most of the memory.
async fn read(mut viewer: BufReader<TcpStream>, last: u64) {
    let (mut next, mut line) = (last + 1, String::new());
    while next <= last + EVENTS as u64 {
        line.clear();
        assert_ne!(viewer.read_line(&mut line).await.unwrap(), 0, "closed before event {next}");
        if let Some(id) = line.strip_prefix("id: ") {
            assert_eq!(number(id), next, "not every event once, in order");
            next += 1;
        }
    }
}

fn number(id: &str) -> u64 {
    id.trim_end().split_once('-').unwrap().1.parse().unwrap()
}

/// Memory of this process in MiB.
fn resident() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096 / (1024 * 1024)
}
