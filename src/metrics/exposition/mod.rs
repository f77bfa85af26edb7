//! The exposition: one walk over the families ([`walk`]), written by one of several writers ([`sink`]), in pieces.

mod collector;
mod numbers;
mod protobuf;
mod sink;
mod text;
mod walk;

use std::time::Duration;

use super::Metrics;
use crate::telemetry;
use protobuf::{Protobuf, ProtobufSink};
use text::{Text, TextSink};
use walk::Walk;

pub(super) use collector::FamilyCollector;
pub(super) use sink::{Exemplar, SeriesCount, Sink};
pub(super) use walk::Scrape;

/// A piece ends after the first row that fills it to this many bytes: large enough that a write to a socket costs little
/// beside it, small enough to stay in a cache, and with its last row and what HTTP adds below the 64 KiB that the kernel
/// sends as one segment. A few bytes more would be a second segment, and half as much work again for the kernel.
pub const PIECE_BYTES: usize = 60 * 1024;

/// A format of the exposition. All show the same series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus' text format 0.0.4.
    Text,
    /// OpenMetrics 1.0.0, as text.
    OpenMetrics,
    /// Messages `io.prometheus.client.MetricFamily`, each after its length.
    Protobuf,
}

/// One exposition, built piece by piece, so that its size is no matter of memory.
///
/// Between two pieces no lock is held: a slow reader keeps nobody waiting. Which supervisors are shown is fixed at the
/// start; what analytics says of each is that of the moment its first line is written, a count that of the moment its own
/// line is.
pub struct Exposition {
    walk: Walk,
    writer: Writer,
    is_done: bool,
    took: Duration,
}

enum Writer {
    Text(Text),
    Protobuf(Protobuf),
}

// === impl Format ===

impl Format {
    /// Every format.
    pub const ALL: &'static [Format] = &[Format::Text, Format::OpenMetrics, Format::Protobuf];

    /// The value of `Content-Type`.
    pub const fn content_type(self) -> &'static str {
        match self {
            Format::Text => "text/plain; version=0.0.4; charset=utf-8",
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Format::Protobuf => {
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
            }
        }
    }
}

// === impl Exposition ===

impl Exposition {
    pub(super) fn new(metrics: Metrics, format: Format) -> Self {
        let created = metrics.recorder().created;
        let writer = match format {
            Format::Text => Writer::Text(Text::plain()),
            Format::OpenMetrics => {
                Writer::Text(Text::open_metrics(metrics.config().openmetrics_created.then_some(created)))
            }
            Format::Protobuf => Writer::Protobuf(Protobuf::new(created)),
        };
        // The plain text has no place for them.
        let exemplars = metrics.config().exemplars && format != Format::Text;
        let walk = Walk::new(metrics, |_| true).with_exemplars(exemplars);
        Self { walk, writer, is_done: false, took: Duration::ZERO }
    }

    /// Replaces what is in `buf` by the next piece, whole lines or messages of about [`PIECE_BYTES`]; false, and an empty
    /// `buf`, after the last. A message begins with its length, so a family of that format comes in one piece, however
    /// large.
    pub fn next_piece(&mut self, buf: &mut Vec<u8>) -> bool {
        buf.clear();
        if self.is_done {
            return false;
        }
        let started = telemetry::monotonic_now();
        while !self.is_done && (buf.len() < PIECE_BYTES || self.writer.is_in_message()) {
            self.is_done = !self.writer.step(&mut self.walk, buf);
        }
        self.took += telemetry::monotonic_now().duration_since(started);
        if self.is_done {
            self.walk.scrape().own().scraped(self.took);
        }
        !buf.is_empty()
    }
}

// === impl Writer ===

impl Writer {
    /// Writes one row of one family, or what stands after the last; false after that.
    fn step(&mut self, walk: &mut Walk, out: &mut Vec<u8>) -> bool {
        match self {
            Writer::Text(text) => {
                let has_more = walk.step(&mut TextSink { text, out });
                if !has_more {
                    text.end(out);
                }
                has_more
            }
            Writer::Protobuf(protobuf) => {
                let has_more = walk.step(&mut ProtobufSink { protobuf, out });
                if walk.is_between_families() {
                    protobuf.end_family(out);
                }
                has_more
            }
        }
    }

    /// Has a message begun that cannot be cut?
    fn is_in_message(&self) -> bool {
        match self {
            Writer::Text(_) => false,
            Writer::Protobuf(protobuf) => protobuf.is_in_family(),
        }
    }
}
