//! The formats of the exposition, read by parsers that are not ours, and the headers that choose between them.

use std::io::{ErrorKind, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use restart_exporter::Exporter;
use restart_exporter::analytics::{Analytics, AnalyticsConfig};
use restart_exporter::event::{ChildRef, ChildType, Event, Payload, Pid, Restart, SupervisorEvent, SupervisorRef};
use restart_exporter::http::MAX_CONNECTIONS;
use restart_exporter::metrics::{Format, Metrics, MetricsConfig};
use restart_exporter::telemetry::{Telemetry, now};
use restart_exporter::text;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::world::{Running, exchange, get, listening, sample, soon};

/// Reads an exposition with the parsers of PyPI's `prometheus_client`, and prints its samples in one order and form.
const PARSE: &str = r"
import json, sys
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as text
samples = []
for family in {'text': text, 'openmetrics': openmetrics}[sys.argv[1]](sys.stdin.buffer.read().decode()):
    for sample in family.samples:
        labels = {name: str(float(value)) if name == 'le' else value for name, value in sample.labels.items()}
        samples.append([sample.name, sorted(labels.items()), float(sample.value)])
print(json.dumps(sorted(samples)))
";

/// Where `tests/run` puts the package.
const PACKAGES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/python");

fn parsed(parser: &str, exposition: &[u8]) -> Vec<Value> {
    let mut command = Command::new("python3");
    command.args(["-c", PARSE, parser]).env("PYTHONPATH", PACKAGES);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut python = command.spawn().unwrap_or_else(|error| panic!("python3 cannot be run, install it: {error}"));
    // One that ends before it has read all has said why.
    let _ = python.stdin.take().unwrap().write_all(exposition);
    let output = python.wait_with_output().unwrap();
    assert!(output.status.success(), "{parser}: refused, or prometheus_client is not in {PACKAGES}: see tests/run");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Metrics of a supervisor for each name, whose one child is named in reverse.
fn metrics_of(names: &[String]) -> Metrics {
    let telemetry = Telemetry::new();
    let analytics = Analytics::new(AnalyticsConfig::default());
    let config = MetricsConfig { openmetrics_created: true, exemplars: true, ..MetricsConfig::default() };
    let metrics = Metrics::new(config, &telemetry, &analytics);
    analytics.attach(&telemetry).unwrap();
    metrics.attach().unwrap();
    for (name, number) in names.iter().zip(0..) {
        let supervisor = Arc::new(SupervisorRef::new(Pid::Task(number), name.as_str(), None));
        let label: Arc<str> = name.chars().rev().collect::<String>().into();
        let (child_type, restart) = (ChildType::Worker, Some(Restart::Permanent));
        let child = Arc::new(ChildRef { id: label.clone(), label, child_type, restart, dynamic: false });
        let init = Payload::SupervisorInit {
            strategy: None,
            max_restarts: Some(number as u32),
            max_seconds: Some(5),
            parent: Some(name.as_str().into()),
            found: false,
        };
        let start =
            Payload::ChildStart { child, child_pid: Some(Pid::Task(number)), duration: Some(Duration::from_millis(3)) };
        for payload in [init, start] {
            let event = SupervisorEvent { supervisor: supervisor.clone(), time: now(), payload };
            telemetry.execute(&Event::Supervisor(event));
        }
    }
    metrics
}

/// Names of all sorts of characters, quotes, backslashes and line feeds among them.
fn odd_names(count: usize) -> Vec<String> {
    let mut runner = TestRunner::deterministic();
    let name = "[\\\\\"\n=,{}#' a-c\u{e9}\u{202e}\u{1f600}\u{2028}]{1,12}";
    let mut names: Vec<String> = (0..count).map(|_| name.new_tree(&mut runner).unwrap().current()).collect();
    names.sort();
    names.dedup();
    names
}

// Two formats, two parsers of another house, any label text: they read back what was counted, and the same of both.
#[test]
fn any_label_text_is_read_back_equal_from_text_and_from_openmetrics() {
    let names = odd_names(200);
    let metrics = metrics_of(&names);
    // What moves between two expositions, and what only one format has.
    let is_kept = |sample: &&Value| {
        let name = sample[0].as_str().unwrap();
        !name.starts_with("process_") && !name.contains("_scrape_duration_") && !name.ends_with("_created")
    };
    let [text, openmetrics] = [("text", Format::Text), ("openmetrics", Format::OpenMetrics)].map(|(parser, format)| {
        let samples = parsed(parser, &metrics.encode(format));
        samples.iter().filter(is_kept).cloned().collect::<Vec<_>>()
    });
    assert_eq!(text, openmetrics);
    let read: Vec<_> = text.iter().filter(|sample| sample[0] == "supervisor_up").collect();
    let mut read: Vec<_> = read.iter().map(|sample| sample[1][0][1].as_str().unwrap()).collect();
    read.sort_unstable();
    // What no reader sees is written out, and no two names become one.
    let mut shown: Vec<_> = names.iter().map(|name| text::label(name)).collect();
    shown.sort_unstable();
    assert_eq!(read, shown);
    let created = parsed("openmetrics", &metrics.encode(Format::OpenMetrics));
    assert!(created.iter().any(|sample| sample[0] == "supervisor_child_restarts_created"));
}

// The headers choose; who says nothing gets the text format as it is, and caches are told on what the answer depends.
#[tokio::test]
async fn headers_choose_the_format() {
    let exporter = Running::start(&["run"]).await;
    let ask = async |headers: &str| {
        let request =
            format!("GET /metrics HTTP/1.1\r\nHost: {}\r\n{headers}Connection: close\r\n\r\n", exporter.address);
        exchange(exporter.address, &request).await.unwrap()
    };
    let text = ask("").await;
    assert_eq!(text.header("content-type"), Some(Format::Text.content_type()));
    assert_eq!((text.header("content-encoding"), text.header("vary")), (None, Some("Accept, Accept-Encoding")));
    let openmetrics = ask("Accept: application/openmetrics-text;version=1.0.0\r\n").await;
    assert_eq!(openmetrics.header("content-type"), Some(Format::OpenMetrics.content_type()));
    assert!(openmetrics.body.ends_with("\n# EOF\n"));
    assert_eq!(ask("Accept: image/png\r\nAccept-Encoding: gzip;q=0\r\n").await.status, 200);
}

// gzip gives the same exposition, large or small; curl undoes it.
#[test]
fn gzip_is_the_same_exposition() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let exporter = runtime.block_on(Running::start(&["run"]));
    let fetch = |arguments: &[&str]| {
        let url = format!("http://{}/metrics", exporter.address);
        let output = Command::new("curl").args(["-sS", &url]).args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    let names = |body: &[u8]| -> Vec<String> {
        let text = String::from_utf8(body.to_vec()).unwrap();
        text.lines().map(|line| line.rsplit_once(' ').unwrap().0.to_owned()).collect()
    };
    // The first one has no duration of the one before.
    fetch(&[]);
    let (plain, packed) = (fetch(&[]), fetch(&["-H", "Accept-Encoding: gzip"]));
    assert!(packed.starts_with(&[0x1f, 0x8b]) && packed.len() < plain.len() / 2);
    assert_eq!(names(&fetch(&["--compressed"])), names(&plain));
}

// A scrape counts while it is built. One that waits for its reader gives its place to the next, and so keeps no other out.
#[tokio::test]
async fn a_scrape_that_nobody_reads_gives_its_place_to_the_next() {
    let (exporter, address) = listening(Exporter::builder().max_requests(1).max_supervisors(10_000)).await;
    // More text than the sockets between hold, so that a scrape does not end by itself.
    for number in 0..6000 {
        let supervisor = Arc::new(SupervisorRef::new(Pid::Task(number), format!("supervisor-{number}"), None));
        let payload = Payload::SupervisorInit {
            strategy: None,
            max_restarts: Some(1),
            max_seconds: Some(5),
            parent: None,
            found: false,
        };
        exporter.telemetry().execute(&Event::Supervisor(SupervisorEvent { supervisor, time: now(), payload }));
    }
    let mut unread = Vec::new();
    for _ in 0..3 {
        let mut slow = TcpStream::connect(address).await.unwrap();
        slow.write_all(format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\n\r\n").as_bytes()).await.unwrap();
        slow.read_exact(&mut [0; 12]).await.unwrap();
        unread.push(slow);
    }
    assert_eq!(get(address, "/metrics").await.status, 200);
    assert_eq!(get(address, "/-/healthy").await.status, 200);
}

// Who sits idle keeps nobody out: when all connections are taken, the one on which nothing has moved for longest is closed
// for the next client, and counted.
#[tokio::test]
async fn idle_connections_keep_no_scraper_out() {
    let exporter = Running::start(&["run"]).await;
    let mut idle = Vec::new();
    for _ in 0..MAX_CONNECTIONS {
        idle.push(TcpStream::connect(exporter.address).await.unwrap());
    }
    let text = exporter.get("/metrics").await.body;
    let closed = sample(&text, r#"restart_exporter_limit_reached_total{limit="http_connections"}"#);
    assert_eq!(closed, Some(1.0));
    assert_eq!(soon("the end of the oldest", idle[0].read_u8()).await.unwrap_err().kind(), ErrorKind::UnexpectedEof);
}
