//! Numbers as text.

/// Appends a count in full.
pub(super) fn push_int(out: &mut Vec<u8>, value: u64) {
    // Most counts of most supervisors are small.
    match u8::try_from(value) {
        Ok(digit @ 0..=9) => out.push(b'0' + digit),
        _ => out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes()),
    }
}

/// Appends a number as Prometheus writes it: `1`, not `1.0`; `+Inf`, `-Inf`, `NaN`.
pub(super) fn push_float(out: &mut Vec<u8>, value: f64) {
    // Up to here every whole number is exact; most are 0 or a time in seconds.
    const EXACT: f64 = (1u64 << 53) as f64;
    if value.trunc() == value && (0.0..EXACT).contains(&value) {
        push_int(out, value as u64);
    } else if value.is_finite() {
        let mut buffer = zmij::Buffer::new();
        let text = buffer.format_finite(value);
        out.extend_from_slice(text.strip_suffix(".0").unwrap_or(text).as_bytes());
    } else if value.is_nan() {
        out.extend_from_slice(b"NaN");
    } else {
        out.extend_from_slice(if value > 0.0 { b"+Inf" } else { b"-Inf" });
    }
}

/// Appends milliseconds as seconds, in the form that [`push_float`] has for that number.
pub(super) fn push_millis(out: &mut Vec<u8>, millis: u64) {
    push_time(out, millis);
    let superfluous = match millis {
        _ if millis.is_multiple_of(1000) => 4,
        _ if millis.is_multiple_of(100) => 2,
        _ if millis.is_multiple_of(10) => 1,
        _ => 0,
    };
    out.truncate(out.len() - superfluous);
}

/// The upper bound of a bucket in the canonical form of OpenMetrics: `1.0`, `0.001`, `+Inf`.
pub(super) fn bound_text(bound: f64) -> String {
    if bound == f64::INFINITY { "+Inf".into() } else { zmij::Buffer::new().format(bound).to_owned() }
}

/// Appends Unix milliseconds as seconds with three decimals.
pub(super) fn push_time(out: &mut Vec<u8>, millis: u64) {
    push_int(out, millis / 1000);
    let rest = (millis % 1000) as u16;
    out.extend_from_slice(&[b'.', digit(rest / 100), digit(rest / 10 % 10), digit(rest % 10)]);
}

fn digit(value: u16) -> u8 {
    b'0' + value as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    // Text format: a float is what Go's ParseFloat reads; Prometheus itself writes `+Inf`, and whole numbers without `.0`.
    #[test]
    fn floats_are_written_in_the_form_of_prometheus() {
        let cases = [
            (0.0, "0"),
            (1.0, "1"),
            (0.1, "0.1"),
            (86_400.0, "86400"),
            (1_731_234_567.125, "1731234567.125"),
            (1e300, "1e+300"),
            (1e-7, "1e-7"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
            (f64::NAN, "NaN"),
        ];
        for (value, expected) in cases {
            assert_eq!(written(|out| push_float(out, value)), expected);
        }
    }

    // OpenMetrics, "Considerations: Canonical Numbers": bounds have a decimal point.
    #[test]
    fn bounds_are_written_in_the_canonical_form() {
        for (bound, expected) in [(1.0, "1.0"), (0.001, "0.001"), (86_400.0, "86400.0"), (f64::INFINITY, "+Inf")] {
            assert_eq!(bound_text(bound), expected);
        }
    }

    proptest! {
        // One number has one spelling, whatever it is made from.
        #[test]
        fn a_time_is_written_like_the_float_of_the_same_value(millis in 0..1u64 << 50) {
            for millis in [millis, millis / 10 * 10, millis / 100 * 100, millis / 1000 * 1000] {
                let (time, float) = (written(|out| push_millis(out, millis)), written(|out| push_float(out, millis as f64 / 1e3)));
                prop_assert_eq!(time, float);
            }
        }
    }

    // Counts are written in full.
    #[test]
    fn integers_are_written_in_full() {
        for value in [0, 9, 10, 255, 256, u64::MAX] {
            assert_eq!(written(|out| push_int(out, value)), value.to_string());
        }
    }

    // OpenMetrics: timestamps are Unix seconds.
    #[test]
    fn times_are_written_in_seconds() {
        for (millis, expected) in [(0, "0.000"), (1_700_000_000_042, "1700000000.042"), (1_999, "1.999")] {
            assert_eq!(written(|out| push_time(out, millis)), expected);
        }
    }
}
