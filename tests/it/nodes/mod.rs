//! Erlang nodes: what agents say becomes what every supervisor tells. The agent here is a stand-in that writes the same
//! frames; real ones are tested with real nodes.

#[path = "../../../benches/support/agent.rs"]
mod agent;
mod hostile;
mod limits;
mod reports;
pub(crate) mod sockets;
mod streams;

use std::time::Duration;

use restart_exporter::analytics::{Analytics, AnalyticsConfig};
use restart_exporter::beam::NodeLimits;
use restart_exporter::beam::message::{self, Message};
use restart_exporter::beam::session::{Nodes, Refusal, Welcomed};
use restart_exporter::event::{Event, NodePayload, Timestamp};
use restart_exporter::metrics::{Metrics, MetricsConfig};
use restart_exporter::telemetry::{Telemetry, now};

use crate::support::line;
use crate::world::sample;
use agent::{HELLO_US, Report, Sup, Who};

/// The session alone, with history and metrics behind it, and time in the hands of the test.
struct Session {
    nodes: Nodes,
    telemetry: Telemetry,
    analytics: Analytics,
    metrics: Metrics,
    start: Timestamp,
    /// Milliseconds since the start, on the node as well as here.
    ms: u64,
    seq: u64,
    welcomed: Option<Welcomed>,
    connection: u64,
    lines: Vec<String>,
    told: Vec<NodePayload>,
}

impl Session {
    /// Nobody has connected.
    fn with_limits(limits: NodeLimits) -> Self {
        let (telemetry, analytics) = (Telemetry::new(), Analytics::new(AnalyticsConfig::default()));
        let metrics = Metrics::new(MetricsConfig::default(), &telemetry, &analytics);
        analytics.attach(&telemetry).unwrap();
        metrics.attach().unwrap();
        Self {
            nodes: Nodes::new(limits),
            telemetry,
            analytics,
            metrics,
            start: now(),
            ms: 0,
            seq: 1,
            welcomed: None,
            connection: 0,
            lines: Vec::new(),
            told: Vec::new(),
        }
    }

    /// A node is connected, and has said these supervisors.
    fn with(supervisors: &[Sup<'_>]) -> Self {
        let mut session = Self::with_limits(NodeLimits::new(Duration::from_secs(900)));
        session.connect(&Who::default()).unwrap();
        supervisors.iter().for_each(|sup| session.says(&agent::sup(sup)).unwrap());
        session.lines.clear();
        session
    }

    fn now(&self) -> Timestamp {
        let passed = Duration::from_millis(self.ms);
        Timestamp { monotonic: self.start.monotonic + passed, system: self.start.system + passed }
    }

    fn node_us(&self) -> i64 {
        HELLO_US + self.ms as i64 * 1000
    }

    fn connect(&mut self, who: &Who<'_>) -> Result<u64, Refusal> {
        let frame = agent::hello(who);
        let Message::Hello(hello) = message::read(&frame[4..]).unwrap() else { panic!("no hello") };
        self.connection += 1;
        let (now, connection) = (self.now(), self.connection);
        let (telemetry, lines, told) = (&self.telemetry, &mut self.lines, &mut self.told);
        let welcomed = self.nodes.hello(&hello, connection, now, &mut |event| hear(telemetry, lines, told, event))?;
        let resume_after = welcomed.resume_after;
        self.welcomed = Some(welcomed);
        Ok(resume_after)
    }

    fn says(&mut self, frame: &[u8]) -> Result<(), Refusal> {
        let (now, connection) = (self.now(), self.connection);
        let (telemetry, lines, told) = (&self.telemetry, &mut self.lines, &mut self.told);
        let mut node = self.welcomed.as_ref().unwrap().node.lock();
        let message = message::read(&frame[4..])?;
        node.message(message, connection, now, &mut |event| hear(telemetry, lines, told, event))
    }

    /// The node reports this, now.
    fn reports(&mut self, reports: &[Report<'_>]) {
        let frame = agent::events(self.seq, self.node_us(), reports);
        self.seq += reports.len() as u64;
        self.says(&frame).unwrap();
    }

    /// Is the agent asked to say all supervisors again?
    fn wants_snapshot(&mut self) -> bool {
        let now = self.now();
        self.welcomed.as_ref().unwrap().node.lock().wants_snapshot(now)
    }

    fn passes(&mut self, ms: u64) {
        self.ms += ms;
        let (now, telemetry, lines, told) = (self.now(), &self.telemetry, &mut self.lines, &mut self.told);
        self.nodes.tick(now, &mut |event| hear(telemetry, lines, told, event));
    }

    /// What supervisors told since this was asked last.
    fn lines(&mut self) -> Vec<String> {
        std::mem::take(&mut self.lines)
    }

    /// The sum of all samples of a metric whose labels hold these pairs.
    fn sum(&self, metric: &str, pairs: &[&str]) -> f64 {
        let text = self.metrics.render();
        let series = text.lines().filter(|line| {
            line.strip_prefix(metric).is_some_and(|rest| rest.starts_with(['{', ' ']))
                && pairs.iter().all(|pair| line.contains(pair))
        });
        series.map(|line| sample(&text, line.rsplit_once(' ').unwrap().0).unwrap()).sum()
    }
}

fn hear(telemetry: &Telemetry, lines: &mut Vec<String>, told: &mut Vec<NodePayload>, event: &Event) {
    telemetry.execute(event);
    match event {
        Event::Supervisor(event) => lines.push(line(event)),
        Event::Node(event) => told.push(event.payload.clone()),
        _ => {}
    }
}
