//! How the page writes what it shows: texts of strangers, times. Pure.

use std::fmt::{self, Write};

use askama::filters::Escaper;

use crate::{text, wire};

/// Longest text in a line of the page, in characters; what is longer is cut with an ellipsis.
const MAX_TEXT: usize = 300;

/// The escaper of all templates: every text shows as the text it is. Beside the characters of HTML, those that no reader sees
/// are written out, except line ends and tabs, which are space in HTML.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Visible;

impl Escaper for Visible {
    fn write_escaped_str<W: Write>(&self, mut dest: W, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some(place) = rest.find(is_special) {
            let (plain, special) = rest.split_at(place);
            dest.write_str(plain)?;
            let mut characters = special.chars();
            if let Some(character) = characters.next() {
                self.write_special(&mut dest, character)?;
            }
            rest = characters.as_str();
        }
        dest.write_str(rest)
    }
}

impl Visible {
    fn write_special<W: Write>(&self, dest: &mut W, character: char) -> fmt::Result {
        match character {
            '<' => dest.write_str("&lt;"),
            '>' => dest.write_str("&gt;"),
            '&' => dest.write_str("&amp;"),
            '"' => dest.write_str("&quot;"),
            '\'' => dest.write_str("&#39;"),
            unseen => write!(dest, "{}", unseen.escape_default()),
        }
    }
}

fn is_special(character: char) -> bool {
    match character {
        '<' | '>' | '&' | '"' | '\'' => true,
        '\n' | '\t' => false,
        other => text::is_unseen(other),
    }
}

/// A text in one line, cut if it is long.
pub(super) fn line(text: &str) -> String {
    let mut line: String =
        text.chars().take(MAX_TEXT).map(|c| if matches!(c, '\n' | '\t') { ' ' } else { c }).collect();
    if text.chars().nth(MAX_TEXT).is_some() {
        line.push('…');
    }
    line
}

/// A duration as a person says it: `0.41 s`, `12 s`, `4 min`, `3 h 20 min`, `2 d 3 h`. The script of the page says the same.
pub(super) fn duration(millis: u64) -> String {
    let (seconds, minutes, hours) = (millis / 1000, millis / 60_000, millis / 3_600_000);
    match seconds {
        0 if millis < 10 => format!("{millis} ms"),
        0..10 => format!("{}.{:02} s", seconds, millis % 1000 / 10),
        10..60 => format!("{seconds} s"),
        60..3600 => format!("{minutes} min"),
        3600..86_400 => format!("{hours} h {} min", minutes % 60),
        _ => format!("{} d {} h", hours / 24, hours % 24),
    }
}

/// The time of day, with the date if that is another than now's.
pub(super) fn clock(at: u64, now: u64) -> String {
    let (time, today) = (wire::rfc3339(at), wire::rfc3339(now));
    let (date, of_day) = (time.get(..10).unwrap_or_default(), time.get(11..19).unwrap_or_default());
    if today.starts_with(date) { of_day.to_owned() } else { format!("{date} {of_day}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn visible(text: &str) -> String {
        let mut shown = String::new();
        Visible.write_escaped_str(&mut shown, text).unwrap();
        shown
    }

    // Whatever a child is called, writes or dies of, the page shows it and does not do it.
    #[test]
    fn a_text_shows_as_the_text_it_is() {
        for (text, shown) in [
            ("payments/worker-3", "payments/worker-3"),
            ("<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"),
            ("\" onload='x' &amp;", "&quot; onload=&#39;x&#39; &amp;amp;"),
            ("\u{1b}[31mred\0", "\\u{1b}[31mred\\u{0}"),
            ("evil\u{202e}gnp.exe", "evil\\u{202e}gnp.exe"),
            ("zero\u{200b}width\u{feff}", "zero\\u{200b}width\\u{feff}"),
            ("Grüße 日本 🦀", "Grüße 日本 🦀"),
            ("two\nlines\tand a tab", "two\nlines\tand a tab"),
        ] {
            assert_eq!(visible(text), shown);
        }
    }

    #[test]
    fn a_duration_reads_as_a_person_says_it() {
        for (millis, text) in [
            (0, "0 ms"),
            (9, "9 ms"),
            (410, "0.41 s"),
            (9_999, "9.99 s"),
            (12_400, "12 s"),
            (60_000, "1 min"),
            (3_599_999, "59 min"),
            (12_000_000, "3 h 20 min"),
            (183_600_000, "2 d 3 h"),
        ] {
            assert_eq!(duration(millis), text);
        }
    }

    #[test]
    fn a_time_of_another_day_has_its_date() {
        let now = 1_700_000_000_123;
        assert_eq!(clock(now - 1000, now), "22:13:19");
        assert_eq!(clock(now - 86_400_000, now), "2023-11-13 22:13:20");
    }

    #[test]
    fn a_long_text_is_cut() {
        let cut = line(&"ä".repeat(1000));
        assert_eq!((cut.chars().count(), cut.ends_with('…')), (301, true));
        assert_eq!(line("one\ntwo"), "one two");
    }
}
