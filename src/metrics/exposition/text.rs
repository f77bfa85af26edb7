//! The formats that are lines: Prometheus' text format 0.0.4, and OpenMetrics 1.0.0.
//!
//! They differ in the header of a family, in what may stand after a sample and in what ends an exposition. Series are
//! the same in both: Prometheus 2 tells `le="1"` and `le="1.0"` apart and asks for both formats in turn, so bounds have
//! the form that OpenMetrics demands everywhere.

use once_cell::sync::Lazy;

use super::super::families::FAMILIES;
use super::super::family::{Family, Kind};
use super::super::labels::{InlineText, Labels};
use super::numbers::{bound_text, push_float, push_int, push_millis, push_time};
use super::sink::{EXEMPLAR_LABEL, Exemplar, Number, Sink};

/// Writes lines.
pub(super) struct Text {
    dialect: &'static Dialect,
    /// When the exporter itself began, in Unix milliseconds, if `_created` is shown.
    created: Option<u64>,
    family: Option<&'static FamilyText>,
    /// The header is written with the first sample, so that a family without samples leaves no trace.
    is_header_due: bool,
}

/// A format that is lines.
struct Dialect {
    /// In the order of the table.
    families: Vec<FamilyText>,
    /// What stands after the last family.
    end: &'static [u8],
}

/// The parts of a family's lines that are the same for all rows and all scrapes.
struct FamilyText {
    family: &'static Family,
    header: String,
    /// `name{`, for a histogram `name_bucket{`.
    head: String,
    /// `name_sum{`, for a histogram only.
    sum: String,
    /// `name_count{`, likewise.
    count: String,
    /// `name_created{`
    created: String,
    /// `,label="value"} ` for each value of a closed set or each bucket; no comma where it is the only label.
    tails: Vec<InlineText<40>>,
}

/// Prometheus' text format 0.0.4.
static PLAIN: Lazy<Dialect> = Lazy::new(|| Dialect::new(plain_header, b""));

/// OpenMetrics 1.0.0.
static OPEN_METRICS: Lazy<Dialect> = Lazy::new(|| Dialect::new(open_metrics_header, b"# EOF\n"));

/// Appends lines to a buffer.
pub(super) struct TextSink<'a> {
    pub(super) text: &'a mut Text,
    pub(super) out: &'a mut Vec<u8>,
}

// === impl Text ===

impl Text {
    /// Prometheus' text format 0.0.4.
    pub(super) fn plain() -> Self {
        Self { dialect: &PLAIN, created: None, family: None, is_header_due: false }
    }

    /// OpenMetrics; with a time, in Unix milliseconds, when the exporter itself began, also `_created`.
    pub(super) fn open_metrics(created: Option<u64>) -> Self {
        Self { dialect: &OPEN_METRICS, created, family: None, is_header_due: false }
    }

    /// What stands after the last family.
    pub(super) fn end(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.dialect.end);
    }

    fn begin(&mut self, family: &'static Family) {
        self.family = self.dialect.families.iter().find(|text| std::ptr::eq(text.family, family));
        self.is_header_due = true;
    }

    /// The texts of the family of the next sample, whose header is written now if that was not done.
    fn family(&mut self, out: &mut Vec<u8>) -> Option<&'static FamilyText> {
        let text = self.family?;
        if std::mem::take(&mut self.is_header_due) {
            out.extend_from_slice(text.header.as_bytes());
        }
        Some(text)
    }

    /// When the series began, if that is shown.
    fn created(&self, family: &Family, labels: Labels<'_>) -> Option<u64> {
        let of_exporter = self.created.filter(|_| family.kind != Kind::Gauge)?;
        Some(labels.created.unwrap_or(of_exporter))
    }
}

// === impl Dialect ===

impl Dialect {
    fn new(header: fn(&Family) -> String, end: &'static [u8]) -> Self {
        let families = FAMILIES.iter().map(|family| FamilyText::new(family, header(family))).collect();
        Self { families, end }
    }
}

// === impl FamilyText ===

impl FamilyText {
    fn new(family: &'static Family, header: String) -> Self {
        let (label, suffix, others) = match (family.kind, family.labels) {
            (Kind::Histogram, labels) => ("le", "_bucket", labels),
            (Kind::Counter | Kind::Gauge, [others @ .., last]) => (*last, "", others),
            (Kind::Counter | Kind::Gauge, []) => ("", "", &[][..]),
        };
        let head = |name: &str, suffix: &str| [name, suffix, "{"].concat();
        let comma = if others.is_empty() { "" } else { "," };
        let tail = |value: &str| [comma, label, "=\"", value, "\"} "].concat().into();
        let tails = match family.kind {
            Kind::Histogram => {
                family.buckets.iter().chain(&[f64::INFINITY]).map(|bound| tail(&bound_text(*bound))).collect()
            }
            Kind::Counter | Kind::Gauge => family.values.iter().map(|value| tail(value)).collect(),
        };
        Self {
            family,
            header,
            head: head(family.name, suffix),
            sum: head(family.name, "_sum"),
            count: head(family.name, "_count"),
            created: head(family.base_name(), "_created"),
            tails,
        }
    }
}

fn plain_header(family: &Family) -> String {
    let (name, kind, help) = (family.name, family.kind.as_str(), help(family));
    format!("# HELP {name} {help}\n# TYPE {name} {kind}\n")
}

fn open_metrics_header(family: &Family) -> String {
    let (name, kind, help) = (family.base_name(), family.kind.as_str(), help(family).replace('"', "\\\""));
    let unit = family.unit().map(|unit| format!("# UNIT {name} {unit}\n")).unwrap_or_default();
    format!("# TYPE {name} {kind}\n{unit}# HELP {name} {help}\n")
}

fn help(family: &Family) -> String {
    family.help.replace('\\', "\\\\").replace('\n', "\\n")
}

// === impl TextSink ===

impl TextSink<'_> {
    fn write_created(&mut self, text: &FamilyText, labels: Labels<'_>) {
        if let Some(created) = self.text.created(text.family, labels) {
            push_series(self.out, &text.created, labels);
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
        let Some(text) = self.text.family(self.out) else { return };
        push_line(self.out, &text.head, labels, value);
        self.write_created(text, labels);
    }

    fn each(&mut self, labels: Labels<'_>, counts: &[u64]) {
        let Some(text) = self.text.family(self.out) else { return };
        let Some(created) = self.text.created(text.family, labels) else {
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
        let Some(text) = self.text.family(self.out) else { return };
        if exemplars.is_empty() {
            push_lines(self.out, text, labels, counts, |_, _, _| ());
        } else {
            push_lines(self.out, text, labels, counts, |index, _, out| {
                if let Some(exemplar) = exemplars.get(index).and_then(Option::as_ref) {
                    push_exemplar(out, exemplar);
                }
            });
        }
        push_line(self.out, &text.sum, labels, Number::Float(sum));
        push_line(self.out, &text.count, labels, Number::Int(counts.last().copied().unwrap_or_default()));
        self.write_created(text, labels);
    }
}

fn push_labels(out: &mut Vec<u8>, head: &str, labels: Labels<'_>) {
    out.extend_from_slice(head.as_bytes());
    out.extend_from_slice(labels.base);
    out.extend_from_slice(labels.rest);
}

/// A series and the space after it. `head` ends with the bracket, which only stands where there are labels.
fn push_series(out: &mut Vec<u8>, head: &str, labels: Labels<'_>) {
    push_labels(out, head, labels);
    if labels.is_empty() {
        out.pop();
        out.push(b' ');
    } else {
        out.extend_from_slice(b"} ");
    }
}

fn push_line(out: &mut Vec<u8>, head: &str, labels: Labels<'_>, value: Number) {
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
    text: &FamilyText,
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
