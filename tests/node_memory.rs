//! What one node can take of the memory, whatever it sends, is what the README says.
//!
//! The node here sends as much as it may of everything at once: supervisors, children, texts, events, incarnations. Time is
//! an argument of the session, so a storm of many minutes takes seconds.

#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "../benches/support/agent.rs"]
mod agent;

use std::time::Duration;

use restart_exporter::Exporter;
use restart_exporter::analytics::AnalyticsConfig;
use restart_exporter::beam::message::{self, Message};
use restart_exporter::beam::session::{Nodes, Welcomed};
use restart_exporter::beam::{MAX_CHILDREN, MAX_SUPERVISORS, NodeLimits};
use restart_exporter::event::{NodeLimit, Timestamp};
use restart_exporter::http::LIVE_BYTES;
use restart_exporter::metrics::MetricsConfig;
use restart_exporter::telemetry::now;

use agent::{Child, HELLO_US, Report, Row, Sup, Who};

/// Supervisors kept apart: fewer than by default, because each history takes the same and filling one takes time.
const KEPT_APART: usize = 15;

/// A node that sends whatever it likes.
struct Node {
    exporter: Exporter,
    nodes: Nodes,
    welcomed: Option<Welcomed>,
    connection: u64,
    seq: u64,
    time: Timestamp,
    node_us: i64,
    number: u64,
}

impl Node {
    fn new() -> Self {
        let exporter = Exporter::builder().max_supervisors(KEPT_APART).build().unwrap();
        let retention = MetricsConfig::default().retention;
        Self {
            exporter,
            nodes: Nodes::new(NodeLimits::new(retention)),
            welcomed: None,
            connection: 0,
            seq: 1,
            time: now(),
            node_us: HELLO_US,
            number: 0,
        }
    }

    fn connect(&mut self, incarnation: &[u8]) {
        let long = self.text(300);
        let labels = vec![(&*long, &*long); 40];
        let frame = agent::hello(&Who { incarnation, host: "host", labels: &labels, ..Who::default() });
        let Ok(Message::Hello(hello)) = message::read(&frame[4..]) else { panic!("no hello") };
        self.connection += 1;
        let telemetry = self.exporter.telemetry();
        let welcomed =
            self.nodes.hello(&hello, self.connection, self.time, &mut |event| telemetry.execute(event)).unwrap();
        (self.seq, self.welcomed) = (welcomed.resume_after + 1, Some(welcomed));
    }

    fn says(&mut self, frame: &[u8]) {
        let telemetry = self.exporter.telemetry();
        let mut node = self.welcomed.as_ref().unwrap().node.lock();
        let message = message::read(&frame[4..]).unwrap();
        node.message(message, self.connection, self.time, &mut |event| telemetry.execute(event)).unwrap();
    }

    fn reports(&mut self, reports: &[Report<'_>]) {
        let frame = agent::events(self.seq, self.node_us, reports);
        self.seq += reports.len() as u64;
        self.says(&frame);
    }

    fn passes(&mut self, time: Duration) {
        self.time = Timestamp { monotonic: self.time.monotonic + time, system: self.time.system + time };
        self.node_us += time.as_micros() as i64;
    }

    /// A text of this length that no other is like.
    fn text(&mut self, length: usize) -> String {
        self.number += 1;
        format!("{}-{}", self.number, "x".repeat(length))
    }

    fn supervisor(&mut self, key: i64, pid: i64, behaviour: &'static str) {
        let (name, pid) = (format!("{key}{}", "s".repeat(300)), format!("<0.{pid}.0>"));
        let (intensity, period) = (u32::MAX.into(), u32::MAX.into());
        self.says(&agent::sup(&Sup { key, pid: &pid, name: &name, behaviour, intensity, period, ..Sup::default() }));
    }
}

fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

/// What one node can take, of its own and of what all supervisors share, in bytes.
fn most_bytes(max_supervisors: usize) -> (usize, usize) {
    let analytics = AnalyticsConfig { max_supervisors, ..AnalyticsConfig::default() };
    let metrics = MetricsConfig { max_supervisors, ..MetricsConfig::default() };
    let own = NodeLimits::new(metrics.retention).most_bytes_per_node();
    (own, analytics.most_bytes() + metrics.most_bytes() + LIVE_BYTES)
}

fn megabytes(bytes: usize) -> usize {
    bytes.div_ceil(1_000_000)
}

// The only test of its binary, because memory is that of a process.
#[test]
fn a_node_that_sends_as_much_as_it_may_stays_below_what_the_readme_says() {
    let (own, shared) = most_bytes(MetricsConfig::default().max_supervisors);
    let said =
        [format!("at most {} MB of its own", megabytes(own)), format!("at most {} MB together", megabytes(shared))];
    let readme = include_str!("../README.md").split_whitespace().collect::<Vec<_>>().join(" ");
    said.iter().for_each(|said| assert!(readme.contains(said), "the README must say: {said}"));

    let mut node = Node::new();
    let before = resident();
    let begin = now().monotonic;
    let grown = |what: &str| {
        let grown = resident().saturating_sub(before);
        eprintln!("{what}: {} MB after {:?}", grown / 1_000_000, begin.elapsed());
        grown
    };
    let limits = |node: &Node| node.exporter.metrics().render();

    // Texts that fill their frame.
    node.connect(b"one");
    node.supervisor(0, 1_000_000, "supervisor");
    let mfa = "m".repeat(1_000_000);
    for number in 0..1000 {
        let (id, child) = (number.to_string(), Child { mfa: &mfa, ..Child::default() });
        node.reports(&[Report { child: Child { id: &id, ..child }, ..Report { sup: 0, ..Report::default() } }]);
    }
    let of_texts = grown("1,000 children with texts of 1 MB");
    assert!(of_texts < 50_000_000, "{of_texts}");

    // A supervisor that ends and comes back.
    for number in 0..5000 {
        let (key, pid) = (1_000_000 + number, format!("<0.{number}.7>"));
        node.says(&agent::sup(&Sup { key, pid: &pid, name: "again", ..Sup::default() }));
        node.says(&agent::down(node.seq, node.node_us, key, "shutdown"));
        node.seq += 1;
    }
    grown("5,000 ends of one supervisor");

    // Incarnations that say ever new supervisors, and never that these are all.
    for (number, incarnation) in [b"two", b"six"].into_iter().enumerate() {
        node.connect(incarnation);
        for key in 0..MAX_SUPERVISORS as i64 {
            let behaviour = if key % 100 == 99 { "dynamic" } else { "supervisor" };
            node.supervisor(key, key + (number * MAX_SUPERVISORS) as i64, behaviour);
        }
    }
    grown("supervisors of two incarnations");

    // Histories full of children and reasons that are never the same.
    for sup in 0..KEPT_APART as i64 {
        for _ in 0..20 {
            let texts: Vec<_> = (0..50).map(|_| (node.text(300), node.text(1100))).collect();
            let reports = texts.iter().map(|(id, detail)| {
                let child = Child { id, mfa: detail, restart: "temporary", ..Child::default() };
                Report { sup, child, detail, ..Report::default() }
            });
            node.reports(&reports.collect::<Vec<_>>());
        }
    }
    grown("15,000 deaths, no two alike");

    // Children beyond the limit, of many supervisors, with deaths in many minutes.
    for chunk in 0..(MAX_CHILDREN as i64 + 500) / 50 {
        let texts: Vec<_> = (0..50).map(|_| (node.text(300), node.text(300))).collect();
        for minute in 0..if chunk % 20 == 0 { 10 } else { 1 } {
            let reports = texts.iter().map(|(id, mfa)| {
                let child = Child { id, mfa, ..Child::default() };
                let detail = if minute == 0 { mfa.as_str() } else { "again" };
                Report { sup: chunk % KEPT_APART as i64, child, detail, ..Report::default() }
            });
            node.reports(&reports.collect::<Vec<_>>());
            node.passes(Duration::from_secs(6));
        }
    }
    grown("20,500 children");

    // Dynamic children that are awaited.
    for sup in (99..MAX_SUPERVISORS as i64).step_by(100).take(20) {
        let pids: Vec<_> = (0..1000).map(|pid| format!("<0.{pid}.9>")).collect();
        let reports = pids.iter().map(|pid| Report { sup, kind: "start_error", pid: Some(pid), ..Report::default() });
        node.reports(&reports.collect::<Vec<_>>());
    }
    grown("20,000 awaited restarts");

    // Five minutes of storm.
    for _ in 0..300 {
        let child = Child { id: "storm", ..Child::default() };
        let row = |sup| Row { sup, kind: "start_error", class: "exit", count: 5, child };
        node.says(&agent::sums(node.seq, node.node_us, &(0..KEPT_APART as i64).map(row).collect::<Vec<_>>()));
        node.seq += 1;
        node.passes(Duration::from_secs(1));
    }
    let all = grown("five minutes of storm");

    let (own, shared) = most_bytes(KEPT_APART);
    eprintln!(
        "{} MB of its own and {} MB together are said for {KEPT_APART} supervisors",
        megabytes(own),
        megabytes(shared)
    );
    assert!(all < own + shared, "{all} bytes, {own} and {shared} are said");
    let reached = limits(&node);
    let reached = |limit: &NodeLimit| {
        let series = format!("restart_exporter_limit_reached_total{{limit=\"{limit}\"}} ");
        !reached.contains(&format!("{series}0\n")) && reached.contains(&series)
    };
    use NodeLimit::{Awaited, Children, Supervisors, TextBytes, TextLength};
    for limit in [Supervisors, Children, Awaited, TextLength, TextBytes] {
        assert!(reached(&limit), "{limit} was not reached");
    }
}
