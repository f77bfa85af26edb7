//! Times as people read them: absolute and relative. Pure.

use restart_exporter::wire;

const SECOND: u64 = 1000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// A duration in milliseconds, in its two greatest units.
pub(super) fn lasting(ms: u64) -> String {
    let two = |ms: u64, unit: u64, name: &str, lesser: u64, lesser_name: &str| match ms % unit / lesser {
        0 => format!("{}{name}", ms / unit),
        rest => format!("{}{name} {rest}{lesser_name}", ms / unit),
    };
    match ms {
        0..SECOND => format!("{ms}ms"),
        SECOND..10_000 => format!("{}.{}s", ms / SECOND, ms % SECOND / 100),
        10_000..MINUTE => format!("{}s", ms / SECOND),
        MINUTE..HOUR => two(ms, MINUTE, "m", SECOND, "s"),
        HOUR..DAY => two(ms, HOUR, "h", MINUTE, "m"),
        _ => two(ms, DAY, "d", HOUR, "h"),
    }
}

/// How long ago a time was, in whole seconds.
pub(super) fn ago(timestamp: u64, now: u64) -> String {
    match now.saturating_sub(timestamp) {
        0..SECOND => "just now".into(),
        ms @ SECOND..MINUTE => format!("{}s ago", ms / SECOND),
        ms => format!("{} ago", lasting(ms)),
    }
}

/// A time of day in UTC, with its day: `2026-11-25 03:07:29Z`.
pub(super) fn clock(timestamp: u64) -> String {
    let text = wire::rfc3339(timestamp / SECOND * SECOND);
    text.replace('T', " ").replace(".000Z", "Z")
}

/// The same without the day if that is today's.
pub(super) fn short_clock(timestamp: u64, now: u64) -> String {
    let text = clock(timestamp);
    match text.split_once(' ') {
        Some((_, time)) if timestamp / DAY == now / DAY => time.to_owned(),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_two_units_and_clocks_a_day_if_needed() {
        let table = [
            (0, "0ms"),
            (410, "410ms"),
            (1_250, "1.2s"),
            (59_999, "59s"),
            (60_000, "1m"),
            (22 * MINUTE + 5 * SECOND, "22m 5s"),
            (3 * DAY + 4 * HOUR, "3d 4h"),
            (41 * DAY, "41d"),
        ];
        for (ms, expected) in table {
            assert_eq!(lasting(ms), expected);
        }
        assert_eq!(
            (ago(5_000, 5_900), ago(5_000, 17_000), ago(9, 5)),
            ("just now".into(), "12s ago".into(), "just now".into())
        );
        let time = 1_700_000_000_123;
        assert_eq!(clock(time), "2023-11-14 22:13:20Z");
        assert_eq!(short_clock(time, time + HOUR), "22:13:20Z");
        assert_eq!(short_clock(time, time + DAY), "2023-11-14 22:13:20Z");
    }
}
