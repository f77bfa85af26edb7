//! Events of an Erlang node into the exporter, over loopback TCP in batches of 100, with history and metrics attached: at
//! least 1 M events/s.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

#[path = "support/agent.rs"]
mod agent;
mod support;

use std::net::SocketAddr;

use restart_exporter::Exporter;
use restart_exporter::beam::frame::Reader;
use restart_exporter::telemetry::monotonic_now;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use agent::{Child, HELLO_US, Report, Sup, Who};
use support::{Target, is_bench};

const SUPERVISORS: i64 = 8;
const CHILDREN: [&str; 4] = ["mailer", "poller", "parser", "writer"];
const BATCH: u64 = 100;

/// Crashes and restarts of all children in turn, as frames in one piece.
fn storm(first: u64, count: u64) -> Vec<u8> {
    let mut frames = Vec::new();
    for begin in (first..first + count).step_by(BATCH as usize) {
        let report = |number: u64| {
            let turn = number / 2;
            let child = CHILDREN[(turn / SUPERVISORS as u64 % CHILDREN.len() as u64) as usize];
            let report = Report {
                sup: turn as i64 % SUPERVISORS + 1,
                child: Child { id: child, ..Child::default() },
                detail: "{badmatch,{error,econnrefused}} in mailer:deliver/2 (mailer.erl:42)",
                ..Report::default()
            };
            match number % 2 {
                0 => Report { pid: Some("<0.4242.0>"), class: "error", ..report },
                _ => Report { kind: "started", class: "normal", detail: "", pid: Some("<0.4243.0>"), ..report },
            }
        };
        let reports: Vec<_> = (begin..begin + BATCH).map(report).collect();
        // A second a thousand events: a window that is never full, as in life.
        frames.extend(agent::events(begin + 1, HELLO_US + begin as i64 * 1000, &reports));
    }
    frames
}

async fn connect(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(&agent::hello(&Who::default())).await.unwrap();
    for key in 1..=SUPERVISORS {
        let (pid, name) = (format!("<0.{key}.0>"), format!("supervisor_{key}"));
        let sup = Sup { key, pid: &pid, name: &name, intensity: 1000, ..Sup::default() };
        stream.write_all(&agent::sup(&sup)).await.unwrap();
    }
    stream
}

/// Reads until this number is acknowledged.
async fn acknowledged(reader: &mut (impl AsyncReadExt + Unpin), last: u64) {
    loop {
        let mut frame = vec![0; reader.read_u32().await.unwrap() as usize];
        reader.read_exact(&mut frame).await.unwrap();
        let mut words = Reader::new(&frame).unwrap();
        words.tuple(2).unwrap();
        if words.atom() == Ok("ack") && words.natural() == Ok(last) {
            return;
        }
    }
}

/// Events a second of each turn.
async fn turns(turns: u64, events: u64) -> Vec<f64> {
    let exporter = Exporter::builder().build().unwrap();
    let address = exporter.listen_for_nodes("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let (mut reader, mut writer) = connect(address).await.into_split();
    let mut figures = Vec::new();
    for turn in 0..turns {
        let (frames, last) = (storm(turn * events, events), (turn + 1) * events);
        let start = monotonic_now();
        let sent = async { writer.write_all(&frames).await.unwrap() };
        tokio::join!(sent, acknowledged(&mut reader, last));
        figures.push(events as f64 / (monotonic_now() - start).as_secs_f64());
    }
    let counted = exporter.metrics().render();
    let total = format!("restart_exporter_node_events_total{{node=\"app@host\"}} {}", turns * events);
    assert!(counted.contains(&total), "an event was lost");
    exporter.shutdown().await;
    figures
}

fn main() {
    let (count, events) = if is_bench() { (30, 100_000) } else { (2, 1000) };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut figures = runtime.block_on(turns(count, events));
    figures.sort_unstable_by(f64::total_cmp);
    // As elsewhere the quiet tenth: other work on the machine only ever takes away.
    let best = figures[figures.len() * 9 / 10];
    let what = format!("events/s of a node over loopback in batches of {BATCH}, history + metrics");
    support::verdict(&what, best / 1e6, " M", Target::AtLeast(1.0));
}
