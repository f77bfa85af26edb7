//! The text format 0.0.4.

use super::families::{Family, Kind};
use super::labels::Labels;
use super::sink::{Number, Sink};

/// The value of `Content-Type` for the text format.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The parts of a family's lines that are the same for all rows, put together once a family.
#[derive(Default)]
pub(super) struct Text {
    family: Option<&'static Family>,
    /// The header is written with the first sample, so that a family without samples leaves no trace.
    is_header_due: bool,
    /// `name{`, for a histogram `name_bucket{`.
    head: Vec<u8>,
    /// `,label="value"} ` for each value of a closed set or each bucket.
    tails: Vec<Vec<u8>>,
}

/// Appends lines to a buffer.
pub(super) struct TextSink<'a> {
    pub(super) text: &'a mut Text,
    pub(super) out: &'a mut Vec<u8>,
}

// === impl Text ===

impl Text {
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
                push_float(&mut value, *bound);
                tail(&value);
            }
        }
    }
}

// === impl TextSink ===

impl TextSink<'_> {
    fn write_header(&mut self) {
        let Some(family) = self.text.family else { return };
        if !std::mem::take(&mut self.text.is_header_due) {
            return;
        }
        let help = family.help.replace('\\', "\\\\").replace('\n', "\\n");
        for part in ["# HELP ", family.name, " ", &help, "\n# TYPE ", family.name, " ", family.kind.as_str(), "\n"] {
            self.out.extend_from_slice(part.as_bytes());
        }
    }

    /// One line for each tail. Head and labels are the same on all of them: copied together from the line before.
    fn write_lines(&mut self, labels: Labels<'_>, counts: &[u64]) {
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
            out.push(b'\n');
        }
    }

    fn write_line(&mut self, suffix: &str, labels: Labels<'_>, value: Number) {
        self.write_header();
        let Some(family) = self.text.family else { return };
        let out = &mut *self.out;
        out.extend_from_slice(family.name.as_bytes());
        out.extend_from_slice(suffix.as_bytes());
        if !labels.is_empty() {
            out.push(b'{');
            out.extend_from_slice(labels.base);
            out.extend_from_slice(labels.rest);
            out.push(b'}');
        }
        out.push(b' ');
        match value {
            Number::Int(value) => push_int(out, value),
            Number::Float(value) => push_float(out, value),
        }
        out.push(b'\n');
    }
}

impl Sink for TextSink<'_> {
    fn family(&mut self, family: &'static Family) {
        self.text.begin(family);
    }

    fn sample(&mut self, labels: Labels<'_>, value: Number) {
        self.write_line("", labels, value);
    }

    fn each(&mut self, labels: Labels<'_>, counts: &[u64]) {
        self.write_lines(labels, counts);
    }

    fn histogram(&mut self, labels: Labels<'_>, counts: &[u64], sum: f64) {
        self.write_lines(labels, counts);
        self.write_line("_sum", labels, Number::Float(sum));
        self.write_line("_count", labels, Number::Int(counts.last().copied().unwrap_or_default()));
    }
}

fn push_int(out: &mut Vec<u8>, value: u64) {
    // Most counts of most supervisors are small.
    match u8::try_from(value) {
        Ok(digit @ 0..=9) => out.push(b'0' + digit),
        _ => out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes()),
    }
}

/// As Prometheus writes numbers: `1`, not `1.0`; `+Inf`, `-Inf`, `NaN`.
fn push_float(out: &mut Vec<u8>, value: f64) {
    // Up to here every whole number is exact; most are 0 or a time in seconds.
    const EXACT: f64 = (1u64 << 53) as f64;
    if value.trunc() == value && (0.0..EXACT).contains(&value) {
        push_int(out, value as u64);
    } else if value.is_finite() {
        let mut buffer = ryu::Buffer::new();
        let text = buffer.format_finite(value);
        out.extend_from_slice(text.strip_suffix(".0").unwrap_or(text).as_bytes());
    } else if value.is_nan() {
        out.extend_from_slice(b"NaN");
    } else {
        out.extend_from_slice(if value > 0.0 { b"+Inf" } else { b"-Inf" });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Text format: a float is what Go's ParseFloat reads; Prometheus itself writes `+Inf`, and whole numbers without `.0`.
    #[test]
    fn floats_are_written_in_the_form_of_prometheus() {
        let cases = [
            (0.0, "0"),
            (1.0, "1"),
            (0.1, "0.1"),
            (86_400.0, "86400"),
            (1_731_234_567.125, "1731234567.125"),
            (1e300, "1e300"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
            (f64::NAN, "NaN"),
        ];
        for (value, expected) in cases {
            let mut out = Vec::new();
            push_float(&mut out, value);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }

    // Counts are written in full.
    #[test]
    fn integers_are_written_in_full() {
        for value in [0, 9, 10, 255, 256, u64::MAX] {
            let mut out = Vec::new();
            push_int(&mut out, value);
            assert_eq!(String::from_utf8(out).unwrap(), value.to_string());
        }
    }
}
