//! The formats that are lines: Prometheus' text format 0.0.4, and OpenMetrics 1.0.0.
//!
//! They differ in the header of a family, in what may stand after a sample and in what ends an exposition. Series are
//! the same in both: Prometheus 2 tells `le="1"` and `le="1.0"` apart and asks for both formats in turn, so bounds have
//! the form that OpenMetrics demands everywhere.

use super::super::family::{Family, Kind};
use super::super::labels::{InlineText, Labels};
use super::numbers::{bound_text, push_float, push_int, push_millis, push_time};
use super::sink::{EXEMPLAR_LABEL, Exemplar, Number, Sink};

/// The parts of a family's lines that are the same for all rows, put together once a family.
pub(super) struct Text {
    dialect: Dialect,
    family: Option<&'static Family>,
    /// The header is written with the first sample, so that a family without samples leaves no trace.
    is_header_due: bool,
    /// `name{`, for a histogram `name_bucket{`.
    head: Vec<u8>,
    /// `name_sum{`, for a histogram only.
    sum: Vec<u8>,
    /// `name_count{`, likewise.
    count: Vec<u8>,
    /// `name_created{`, where that is shown.
    created: Vec<u8>,
    /// `,label="value"} ` for each value of a closed set or each bucket.
    tails: Vec<InlineText<40>>,
}

enum Dialect {
    Plain,
    OpenMetrics {
        /// When the exporter itself began, in Unix milliseconds, if `_created` is shown.
        created: Option<u64>,
    },
}

/// Appends lines to a buffer.
pub(super) struct TextSink<'a> {
    pub(super) text: &'a mut Text,
    pub(super) out: &'a mut Vec<u8>,
}

// === impl Text ===

impl Text {
    /// Prometheus' text format 0.0.4.
    pub(super) fn plain() -> Self {
        Self::new(Dialect::Plain)
    }

    /// OpenMetrics; with a time, in Unix milliseconds, when the exporter itself began, also `_created`.
    pub(super) fn open_metrics(created: Option<u64>) -> Self {
        Self::new(Dialect::OpenMetrics { created })
    }

    fn new(dialect: Dialect) -> Self {
        Self {
            dialect,
            family: None,
            is_header_due: false,
            head: Vec::new(),
            sum: Vec::new(),
            count: Vec::new(),
            created: Vec::new(),
            tails: Vec::new(),
        }
    }

    /// What stands after the last family.
    pub(super) fn end(&self, out: &mut Vec<u8>) {
        if matches!(self.dialect, Dialect::OpenMetrics { .. }) {
            out.extend_from_slice(b"# EOF\n");
        }
    }

    fn begin(&mut self, family: &'static Family) {
        let (label, suffix) = match family.kind {
            Kind::Histogram => ("le", "_bucket"),
            Kind::Counter | Kind::Gauge => (family.labels.last().copied().unwrap_or_default(), ""),
        };
        self.family = Some(family);
        self.is_header_due = true;
        let head = |name: &str, suffix: &str| [name, suffix, "{"].concat().into_bytes();
        self.head = head(family.name, suffix);
        self.created = head(family.base_name(), "_created");
        self.tails.clear();
        // Where it is the only label, there is nothing that the comma could follow.
        let comma = if family.labels == [label] { "" } else { "," };
        let mut tail = |value: &str| self.tails.push([comma, label, "=\"", value, "\"} "].concat().into());
        family.values.iter().for_each(|value| tail(value));
        if family.kind == Kind::Histogram {
            self.sum = head(family.name, "_sum");
            self.count = head(family.name, "_count");
            family.buckets.iter().chain(&[f64::INFINITY]).for_each(|bound| tail(&bound_text(*bound)));
        }
    }

    fn header(&self, family: &Family) -> String {
        let (kind, help) = (family.kind.as_str(), family.help.replace('\\', "\\\\").replace('\n', "\\n"));
        match self.dialect {
            Dialect::Plain => {
                let name = family.name;
                format!("# HELP {name} {help}\n# TYPE {name} {kind}\n")
            }
            Dialect::OpenMetrics { .. } => {
                let (name, help) = (family.base_name(), help.replace('"', "\\\""));
                let unit = family.unit().map(|unit| format!("# UNIT {name} {unit}\n")).unwrap_or_default();
                format!("# TYPE {name} {kind}\n{unit}# HELP {name} {help}\n")
            }
        }
    }

    /// When the series began, if that is shown.
    fn created(&self, labels: Labels<'_>) -> Option<u64> {
        let family = self.family.filter(|family| family.kind != Kind::Gauge);
        match self.dialect {
            Dialect::OpenMetrics { created: Some(of_exporter) } if family.is_some() => {
                Some(labels.created.unwrap_or(of_exporter))
            }
            _ => None,
        }
    }
}

// === impl TextSink ===

impl TextSink<'_> {
    fn write_header(&mut self) {
        let Some(family) = self.text.family else { return };
        if std::mem::take(&mut self.text.is_header_due) {
            self.out.extend_from_slice(self.text.header(family).as_bytes());
        }
    }

    fn write_created(&mut self, labels: Labels<'_>) {
        if let Some(created) = self.text.created(labels) {
            push_series(self.out, &self.text.created, labels);
            push_time(self.out, created);
            self.out.push(b'\n');
        }
    }
}

impl Sink for TextSink<'_> {
    fn family(&mut self, family: &'static Family) {
        self.text.begin(family);
    }

    fn sample(&mut self, labels: Labels<'_>, value: Number) {
        self.write_header();
        push_line(self.out, &self.text.head, labels, value);
        self.write_created(labels);
    }

    fn each(&mut self, labels: Labels<'_>, counts: &[u64]) {
        self.write_header();
        let text = &*self.text;
        let Some(created) = text.created(labels) else {
            return push_lines(self.out, text, labels, counts, |_, _, _| ());
        };
        push_lines(self.out, text, labels, counts, |_, tail, out| {
            out.push(b'\n');
            push_labels(out, &text.created, labels);
            out.extend_from_slice(tail);
            push_time(out, created);
        });
    }

    fn histogram(&mut self, labels: Labels<'_>, counts: &[u64], sum: f64, exemplars: &[Option<Exemplar>]) {
        self.write_header();
        if exemplars.is_empty() {
            push_lines(self.out, self.text, labels, counts, |_, _, _| ());
        } else {
            push_lines(self.out, self.text, labels, counts, |index, _, out| {
                if let Some(exemplar) = exemplars.get(index).and_then(Option::as_ref) {
                    push_exemplar(out, exemplar);
                }
            });
        }
        push_line(self.out, &self.text.sum, labels, Number::Float(sum));
        push_line(self.out, &self.text.count, labels, Number::Int(counts.last().copied().unwrap_or_default()));
        self.write_created(labels);
    }
}

fn push_labels(out: &mut Vec<u8>, head: &[u8], labels: Labels<'_>) {
    out.extend_from_slice(head);
    out.extend_from_slice(labels.base);
    out.extend_from_slice(labels.rest);
}

/// A series and the space after it. `head` ends with the bracket, which only stands where there are labels.
fn push_series(out: &mut Vec<u8>, head: &[u8], labels: Labels<'_>) {
    push_labels(out, head, labels);
    if labels.is_empty() {
        out.pop();
        out.push(b' ');
    } else {
        out.extend_from_slice(b"} ");
    }
}

fn push_line(out: &mut Vec<u8>, head: &[u8], labels: Labels<'_>, value: Number) {
    push_series(out, head, labels);
    match value {
        Number::Int(value) => push_int(out, value),
        Number::Float(value) => push_float(out, value),
        Number::Time(millis) => push_millis(out, millis),
    }
    out.push(b'\n');
}

/// One line for each tail. Head and labels are the same on all of them: copied together from the first.
fn push_lines(
    out: &mut Vec<u8>,
    text: &Text,
    labels: Labels<'_>,
    counts: &[u64],
    mut after: impl FnMut(usize, &[u8], &mut Vec<u8>),
) {
    let start = out.len();
    push_labels(out, &text.head, labels);
    let common = start..out.len();
    for (index, (tail, count)) in text.tails.iter().zip(counts).enumerate() {
        if index > 0 {
            out.extend_from_within(common.clone());
        }
        tail.push_to(out);
        push_int(out, *count);
        after(index, tail.as_bytes(), out);
        out.push(b'\n');
    }
}

fn push_exemplar(out: &mut Vec<u8>, exemplar: &Exemplar) {
    for part in [" # {", EXEMPLAR_LABEL, "=\""] {
        out.extend_from_slice(part.as_bytes());
    }
    push_int(out, exemplar.event_id);
    out.extend_from_slice(b"\"} ");
    push_float(out, exemplar.seconds);
    out.push(b' ');
    push_time(out, exemplar.timestamp);
}
