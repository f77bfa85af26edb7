//! The formats that are lines: Prometheus' text format 0.0.4, and OpenMetrics 1.0.0.
//!
//! They differ in the header of a family, in what may stand after a sample and in what ends an exposition. Series are
//! the same in both: Prometheus 2 tells `le="1"` and `le="1.0"` apart and asks for both formats in turn, so bounds have
//! the form that OpenMetrics demands everywhere.

use super::super::family::{Family, Kind};
use super::super::labels::Labels;
use super::numbers::{push_bound, push_float, push_int, push_time};
use super::sink::{EXEMPLAR_LABEL, Exemplar, Number, Sink};

/// The parts of a family's lines that are the same for all rows, put together once a family.
pub(super) struct Text {
    dialect: Dialect,
    family: Option<&'static Family>,
    /// The header is written with the first sample, so that a family without samples leaves no trace.
    is_header_due: bool,
    /// `name{`, for a histogram `name_bucket{`.
    head: Vec<u8>,
    /// `,label="value"} ` for each value of a closed set or each bucket.
    tails: Vec<Vec<u8>>,
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
        Self { dialect, family: None, is_header_due: false, head: Vec::new(), tails: Vec::new() }
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
        self.head = [family.name, suffix, "{"].concat().into_bytes();
        self.tails.clear();
        let mut tail = |value: &[u8]| self.tails.push([b",", label.as_bytes(), b"=\"", value, b"\"} "].concat());
        family.values.iter().for_each(|value| tail(value.as_bytes()));
        if family.kind == Kind::Histogram {
            for bound in family.buckets.iter().chain(&[f64::INFINITY]) {
                let mut value = Vec::new();
                push_bound(&mut value, *bound);
                tail(&value);
            }
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

    /// One line for each tail. Head and labels are the same on all of them: copied together from the line before.
    fn write_lines(&mut self, labels: Labels<'_>, counts: &[u64], mut after: impl FnMut(usize, &[u8], &mut Vec<u8>)) {
        self.write_header();
        let out = &mut *self.out;
        let start = out.len();
        out.extend_from_slice(&self.text.head);
        out.extend_from_slice(labels.base);
        out.extend_from_slice(labels.rest);
        let common = start..out.len();
        // Without labels there is nothing that the comma could follow.
        let skip = usize::from(labels.is_empty());
        for (index, (tail, count)) in self.text.tails.iter().zip(counts).enumerate() {
            if index > 0 {
                out.extend_from_within(common.clone());
            }
            out.extend_from_slice(&tail[skip..]);
            push_int(out, *count);
            after(index, &tail[skip..], out);
            out.push(b'\n');
        }
    }

    fn write_line(&mut self, suffix: &str, labels: Labels<'_>, value: Number) {
        self.write_header();
        let Some(family) = self.text.family else { return };
        let out = &mut *self.out;
        push_series(out, [family.name, suffix], labels);
        out.push(b' ');
        match value {
            Number::Int(value) => push_int(out, value),
            Number::Float(value) => push_float(out, value),
        }
        out.push(b'\n');
    }

    fn write_created(&mut self, labels: Labels<'_>) {
        let (Some(family), Some(created)) = (self.text.family, self.text.created(labels)) else { return };
        push_series(self.out, [family.base_name(), "_created"], labels);
        self.out.push(b' ');
        push_time(self.out, created);
        self.out.push(b'\n');
    }
}

impl Sink for TextSink<'_> {
    fn family(&mut self, family: &'static Family) {
        self.text.begin(family);
    }

    fn sample(&mut self, labels: Labels<'_>, value: Number) {
        self.write_line("", labels, value);
        self.write_created(labels);
    }

    fn each(&mut self, labels: Labels<'_>, counts: &[u64]) {
        let (Some(family), Some(created)) = (self.text.family, self.text.created(labels)) else {
            return self.write_lines(labels, counts, |_, _, _| ());
        };
        self.write_lines(labels, counts, |_, tail, out| {
            out.push(b'\n');
            out.extend_from_slice(family.base_name().as_bytes());
            out.extend_from_slice(b"_created{");
            out.extend_from_slice(labels.base);
            out.extend_from_slice(labels.rest);
            out.extend_from_slice(tail);
            push_time(out, created);
        });
    }

    fn histogram(&mut self, labels: Labels<'_>, counts: &[u64], sum: f64, exemplars: &[Option<Exemplar>]) {
        if exemplars.is_empty() {
            self.write_lines(labels, counts, |_, _, _| ());
        } else {
            self.write_lines(labels, counts, |index, _, out| {
                if let Some(exemplar) = exemplars.get(index).and_then(Option::as_ref) {
                    push_exemplar(out, exemplar);
                }
            });
        }
        self.write_line("_sum", labels, Number::Float(sum));
        self.write_line("_count", labels, Number::Int(counts.last().copied().unwrap_or_default()));
        self.write_created(labels);
    }
}

fn push_series(out: &mut Vec<u8>, name: [&str; 2], labels: Labels<'_>) {
    name.iter().for_each(|part| out.extend_from_slice(part.as_bytes()));
    if !labels.is_empty() {
        out.push(b'{');
        out.extend_from_slice(labels.base);
        out.extend_from_slice(labels.rest);
        out.push(b'}');
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
