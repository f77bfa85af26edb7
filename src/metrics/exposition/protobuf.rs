//! The protobuf format: messages `io.prometheus.client.MetricFamily`, each after its length.
//!
//! A writer of the few messages that are needed, after `metrics.proto` of prometheus/client_model: the same walk that
//! writes text writes these, with no tree of objects between.

use super::super::family::{Family, Kind};
use super::super::labels::Labels;
use super::sink::{EXEMPLAR_LABEL, Exemplar, Number, Sink};

/// Numbers of fields, by message.
mod field {
    pub(super) const FAMILY_NAME: u8 = 1;
    pub(super) const FAMILY_HELP: u8 = 2;
    pub(super) const FAMILY_TYPE: u8 = 3;
    pub(super) const FAMILY_METRIC: u8 = 4;
    pub(super) const FAMILY_UNIT: u8 = 5;
    pub(super) const METRIC_LABEL: u8 = 1;
    pub(super) const METRIC_GAUGE: u8 = 2;
    pub(super) const METRIC_COUNTER: u8 = 3;
    pub(super) const METRIC_HISTOGRAM: u8 = 7;
    pub(super) const LABEL_NAME: u8 = 1;
    pub(super) const LABEL_VALUE: u8 = 2;
    /// In a gauge and in a counter.
    pub(super) const VALUE: u8 = 1;
    pub(super) const COUNTER_CREATED: u8 = 3;
    pub(super) const HISTOGRAM_COUNT: u8 = 1;
    pub(super) const HISTOGRAM_SUM: u8 = 2;
    pub(super) const HISTOGRAM_BUCKET: u8 = 3;
    pub(super) const HISTOGRAM_CREATED: u8 = 15;
    pub(super) const BUCKET_COUNT: u8 = 1;
    pub(super) const BUCKET_BOUND: u8 = 2;
    pub(super) const BUCKET_EXEMPLAR: u8 = 3;
    pub(super) const EXEMPLAR_LABEL: u8 = 1;
    pub(super) const EXEMPLAR_VALUE: u8 = 2;
    pub(super) const EXEMPLAR_TIMESTAMP: u8 = 3;
    pub(super) const TIMESTAMP_SECONDS: u8 = 1;
    pub(super) const TIMESTAMP_NANOS: u8 = 2;
}

/// Bytes left free for the length of a family: what 4 GiB need.
const FAMILY_LENGTH_ROOM: usize = 5;

/// The family that is being written, and what all its messages have in common.
pub(super) struct Protobuf {
    /// When the exporter itself began, in Unix milliseconds.
    created: u64,
    family: Option<&'static Family>,
    /// Where the length of the family stands; none as long as it has no sample.
    start: Option<usize>,
    /// The labels of the row, as fields of `Metric`.
    labels: Vec<u8>,
    /// The last label for each value of a closed set, likewise.
    tails: Vec<Vec<u8>>,
}

/// Appends messages to a buffer, which must be the same until a family has ended.
pub(super) struct ProtobufSink<'a> {
    pub(super) protobuf: &'a mut Protobuf,
    pub(super) out: &'a mut Vec<u8>,
}

// === impl Protobuf ===

impl Protobuf {
    /// `created` is when the exporter itself began, in Unix milliseconds.
    pub(super) fn new(created: u64) -> Self {
        Self { created, family: None, start: None, labels: Vec::new(), tails: Vec::new() }
    }

    /// Has a family begun whose length is not known yet?
    pub(super) fn is_in_family(&self) -> bool {
        self.start.is_some()
    }

    /// Writes the length of the family that has begun, if one has.
    pub(super) fn end_family(&mut self, out: &mut Vec<u8>) {
        if let Some(start) = self.start.take() {
            close(out, start, FAMILY_LENGTH_ROOM);
        }
    }

    fn begin(&mut self, family: &'static Family) {
        self.family = Some(family);
        let label = family.labels.last().copied().unwrap_or_default();
        let tail = |value: &&str| {
            let mut tail = Vec::new();
            push_label(&mut tail, field::METRIC_LABEL, label, value);
            tail
        };
        self.tails = family.values.iter().map(tail).collect();
    }
}

// === impl ProtobufSink ===

impl ProtobufSink<'_> {
    /// Before the first sample of a family, its header: one without samples leaves no trace.
    fn begin_metrics(&mut self, labels: Labels<'_>) -> Option<&'static Family> {
        let family = self.protobuf.family?;
        if self.protobuf.start.is_none() {
            self.protobuf.start = Some(self.out.len());
            self.out.extend_from_slice(&[0; FAMILY_LENGTH_ROOM]);
            push_text(self.out, field::FAMILY_NAME, family.name);
            push_text(self.out, field::FAMILY_HELP, family.help);
            let kind = match family.kind {
                Kind::Counter => 0,
                Kind::Gauge => 1,
                Kind::Histogram => 4,
            };
            push_uint(self.out, field::FAMILY_TYPE, kind);
            if let Some(unit) = family.unit() {
                push_text(self.out, field::FAMILY_UNIT, unit);
            }
        }
        self.protobuf.labels.clear();
        for (name, value) in labels.pairs() {
            push_label(&mut self.protobuf.labels, field::METRIC_LABEL, name, &value);
        }
        Some(family)
    }

    fn push_metric(&mut self, tail: Option<usize>, value: impl FnOnce(&mut Vec<u8>)) {
        let Protobuf { labels, tails, .. } = &*self.protobuf;
        push_message(self.out, field::FAMILY_METRIC, |out| {
            out.extend_from_slice(labels);
            out.extend_from_slice(tail.map(|index| tails[index].as_slice()).unwrap_or_default());
            value(out);
        });
    }

    fn push_value(&mut self, kind: Kind, labels: Labels<'_>, tail: Option<usize>, value: f64) {
        let created = labels.created.unwrap_or(self.protobuf.created);
        self.push_metric(tail, |out| match kind {
            Kind::Counter => push_message(out, field::METRIC_COUNTER, |out| {
                push_double(out, field::VALUE, value);
                push_timestamp(out, field::COUNTER_CREATED, created);
            }),
            Kind::Gauge | Kind::Histogram => {
                push_message(out, field::METRIC_GAUGE, |out| push_double(out, field::VALUE, value));
            }
        });
    }
}

impl Sink for ProtobufSink<'_> {
    fn family(&mut self, family: &'static Family) {
        self.protobuf.begin(family);
    }

    fn sample(&mut self, labels: Labels<'_>, value: Number) {
        let Some(family) = self.begin_metrics(labels) else { return };
        self.push_value(family.kind, labels, None, value.into());
    }

    fn each(&mut self, labels: Labels<'_>, counts: &[u64]) {
        let Some(family) = self.begin_metrics(labels) else { return };
        for (index, count) in counts.iter().enumerate().take(family.values.len()) {
            self.push_value(family.kind, labels, Some(index), *count as f64);
        }
    }

    fn histogram(&mut self, labels: Labels<'_>, counts: &[u64], sum: f64, exemplars: &[Option<Exemplar>]) {
        let Some(family) = self.begin_metrics(labels) else { return };
        let created = labels.created.unwrap_or(self.protobuf.created);
        let bounds = family.buckets.iter().chain(&[f64::INFINITY]);
        self.push_metric(None, |out| {
            push_message(out, field::METRIC_HISTOGRAM, |out| {
                push_uint(out, field::HISTOGRAM_COUNT, counts.last().copied().unwrap_or_default());
                push_double(out, field::HISTOGRAM_SUM, sum);
                for (index, (bound, count)) in bounds.zip(counts).enumerate() {
                    push_message(out, field::HISTOGRAM_BUCKET, |out| {
                        push_uint(out, field::BUCKET_COUNT, *count);
                        push_double(out, field::BUCKET_BOUND, *bound);
                        if let Some(exemplar) = exemplars.get(index).and_then(Option::as_ref) {
                            push_message(out, field::BUCKET_EXEMPLAR, |out| push_exemplar(out, exemplar));
                        }
                    });
                }
                push_timestamp(out, field::HISTOGRAM_CREATED, created);
            });
        });
    }
}

fn push_exemplar(out: &mut Vec<u8>, exemplar: &Exemplar) {
    let id = itoa::Buffer::new().format(exemplar.event_id).to_owned();
    push_label(out, field::EXEMPLAR_LABEL, EXEMPLAR_LABEL, &id);
    push_double(out, field::EXEMPLAR_VALUE, exemplar.seconds);
    push_timestamp(out, field::EXEMPLAR_TIMESTAMP, exemplar.timestamp);
}

fn push_label(out: &mut Vec<u8>, field: u8, name: &str, value: &str) {
    push_message(out, field, |out| {
        push_text(out, field::LABEL_NAME, name);
        push_text(out, field::LABEL_VALUE, value);
    });
}

fn push_timestamp(out: &mut Vec<u8>, field: u8, millis: u64) {
    push_message(out, field, |out| {
        push_uint(out, field::TIMESTAMP_SECONDS, millis / 1000);
        push_uint(out, field::TIMESTAMP_NANOS, millis % 1000 * 1_000_000);
    });
}

// === The encoding: a key of number and wire type, then the value ===

const VARINT: u8 = 0;
const FIXED_64: u8 = 1;
const LENGTH_DELIMITED: u8 = 2;

fn push_key(out: &mut Vec<u8>, field: u8, wire_type: u8) {
    out.push(field << 3 | wire_type);
}

fn push_uint(out: &mut Vec<u8>, field: u8, value: u64) {
    push_key(out, field, VARINT);
    push_varint(out, value);
}

fn push_double(out: &mut Vec<u8>, field: u8, value: f64) {
    push_key(out, field, FIXED_64);
    out.extend_from_slice(&value.to_le_bytes());
}

fn push_text(out: &mut Vec<u8>, field: u8, text: &str) {
    push_key(out, field, LENGTH_DELIMITED);
    push_varint(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

/// A message within a message. Room for a length below 128 is left, and more made if it takes more.
fn push_message(out: &mut Vec<u8>, field: u8, write: impl FnOnce(&mut Vec<u8>)) {
    push_key(out, field, LENGTH_DELIMITED);
    let start = out.len();
    out.push(0);
    write(out);
    close(out, start, 1);
}

/// Writes at `start` the length of all that stands after it and its room, and closes or widens the room to what the
/// length takes.
fn close(out: &mut Vec<u8>, start: usize, room: usize) {
    let (length, width) = varint((out.len() - start - room) as u64);
    if width == room {
        out[start..start + room].copy_from_slice(&length[..width]);
    } else {
        out.splice(start..start + room, length[..width].iter().copied());
    }
}

fn push_varint(out: &mut Vec<u8>, value: u64) {
    if value < 0x80 {
        out.push(value as u8);
    } else {
        let (bytes, width) = varint(value);
        out.extend_from_slice(&bytes[..width]);
    }
}

/// Seven bits a byte, the lowest first; all but the last byte have the highest bit set.
fn varint(mut value: u64) -> ([u8; 10], usize) {
    let (mut bytes, mut width) = ([0; 10], 0);
    while value >= 0x80 {
        bytes[width] = value as u8 | 0x80;
        value >>= 7;
        width += 1;
    }
    bytes[width] = value as u8;
    (bytes, width + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Protocol Buffers, "Encoding": 150 is 96 01; a length that takes more room than was left moves what follows it.
    #[test]
    fn lengths_take_the_bytes_they_need() {
        let encoded = |value| {
            let mut out = Vec::new();
            push_varint(&mut out, value);
            out
        };
        assert_eq!((encoded(0), encoded(127), encoded(150)), (vec![0], vec![127], vec![0x96, 1]));
        assert_eq!(encoded(u64::MAX).len(), 10);
        for length in [0, 127, 128, 16_384] {
            let mut out = vec![9];
            push_message(&mut out, 4, |out| out.extend(std::iter::repeat_n(7, length)));
            let head = [vec![9, 4 << 3 | 2], encoded(length as u64)].concat();
            assert!(out.starts_with(&head) && out[head.len()..].iter().all(|byte| *byte == 7));
            assert_eq!(out.len(), head.len() + length);
            let mut out = vec![9];
            out.extend(std::iter::repeat_n(0, FAMILY_LENGTH_ROOM));
            out.extend(std::iter::repeat_n(7, length));
            close(&mut out, 1, FAMILY_LENGTH_ROOM);
            assert_eq!(out, [vec![9], encoded(length as u64), vec![7; length]].concat());
        }
    }
}
