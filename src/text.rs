//! Text from outside: names, reasons, output, marks, paths, the words of peers. Which of its characters are written out
//! wherever it is read, and how. Pure.
//!
//! This is the only such rule: the log, `/metrics`, JSON, the page, probes, commands and errors all use it.
//!
//! | function | for | U+202E becomes |
//! |---|---|---|
//! | [`one_line`], [`lines`] | people | `\u{202e}` |
//! | [`label`] | label values, which tell series apart | `\u{202e}` |
//! | [`json`], [`json_escape`] | JSON and logfmt, where the escape is part of the syntax | `\u202e` |

use std::borrow::Cow;

/// Is this a character that no reader sees, or that changes how those around it are shown?
///
/// - control characters: C0, U+007F and C1, which a terminal obeys
/// - U+2028 and U+2029, which end a line for some readers
/// - `Default_Ignorable_Code_Point` of Unicode 17.0, `DerivedCoreProperties.txt`: what has no width (U+200B to U+200F, U+00AD,
///   U+2060, …), what turns the order around (U+202A to U+202E, U+2066 to U+2069), tag characters (from U+E0000)
/// - U+FFF9 to U+FFFB, which hide an annotation
///
/// The joiner of emoji, U+200D, is one of them: it also hides in names. Combining marks are not, nor are U+00A0 and the
/// variation selectors U+180B to U+180D, U+180F and U+FE00 to U+FE0F, which choose between two looks of one character.
pub const fn is_unseen(character: char) -> bool {
    // Most characters are one of these, so they are passed over first.
    if matches!(character, ' '..='~') {
        return false;
    }
    matches!(character,
        '\0'..='\x1f' | '\x7f'..='\u{9f}' | '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}'
        | '\u{17b5}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{3164}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}'
        | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// A text as one line for people: every [unseen](is_unseen) character is written out, line ends and tabs as `\n`, `\r` and
/// `\t`, all others as `\u{202e}`. Applied twice it does the same as once.
pub fn one_line(text: &str) -> Cow<'_, str> {
    written_out(text, is_unseen, |character, out| out.extend(character.escape_default()))
}

/// As [`one_line`], but `\n` and tabs stay what they are.
pub fn lines(text: &str) -> Cow<'_, str> {
    let is_unsafe = |character| is_unseen(character) && !matches!(character, '\n' | '\t');
    written_out(text, is_unsafe, |character, out| out.extend(character.escape_default()))
}

/// A text as the value of a label: every [unseen](is_unseen) character is written out as `\u{202e}`.
///
/// Two texts never become one value: a backslash that only looks like the beginning of such an escape, because `u{` follows
/// it, is written out as well, as `\u{5c}`. All other backslashes stay.
pub fn label(text: &str) -> Cow<'_, str> {
    if is_graphic(text) && !text.contains(r"\u{") {
        return text.into();
    }
    let mut value = String::with_capacity(text.len() + 8);
    for (place, character) in text.char_indices() {
        if is_unseen(character) || text[place..].starts_with(r"\u{") {
            value.extend(character.escape_unicode());
        } else {
            value.push(character);
        }
    }
    value.into()
}

/// JSON text in which every [unseen](is_unseen) character of a string is written as JSON's own escape: it means exactly the
/// same, and can be shown. Between the values line ends and tabs stay, and a `\r` becomes a space.
pub fn json(text: &str) -> Cow<'_, str> {
    let is_unsafe = |character| is_unseen(character) && !matches!(character, '\n' | '\t');
    written_out(text, is_unsafe, |character, out| match character {
        // A string has none, so that this is space between values.
        '\r' => out.push(' '),
        unseen => out.push_str(&json_escape(unseen)),
    })
}

/// A character as JSON writes it out in a string: `\u202e`, beyond U+FFFF two of these.
pub fn json_escape(character: char) -> String {
    character.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect()
}

/// Nothing but ASCII that is seen, as almost all text is?
fn is_graphic(text: &str) -> bool {
    // A block is looked at as a whole: without an end in the middle the compiler compares many bytes at once.
    let block_is_graphic =
        |block: &[u8]| block.iter().fold(true, |is_graphic, byte| is_graphic & matches!(byte, b' '..=b'~'));
    text.as_bytes().chunks(64).all(block_is_graphic)
}

fn written_out(text: &str, is_unsafe: impl Fn(char) -> bool, write: impl Fn(char, &mut String)) -> Cow<'_, str> {
    if is_graphic(text) || !text.chars().any(&is_unsafe) {
        return text.into();
    }
    let mut safe = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        if is_unsafe(character) { write(character, &mut safe) } else { safe.push(character) }
    }
    safe.into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    // Whatever a text has in it, what no reader sees is written out, and everything else stays.
    #[test]
    fn what_no_reader_sees_is_written_out() {
        let table = [
            ("payments/worker-3", "payments/worker-3"),
            ("Grüße 日本 🦀 e\u{301} a\u{a0}b ❤\u{fe0f} नमस्ते", "Grüße 日本 🦀 e\u{301} a\u{a0}b ❤\u{fe0f} नमस्ते"),
            ("\x1b[2Jgone\r\n\t\x07\x7f", r"\u{1b}[2Jgone\r\n\t\u{7}\u{7f}"),
            ("a\u{85}b\u{9b}c", r"a\u{85}b\u{9b}c"),
            ("evil\u{202e}gnp.exe\u{2066}", r"evil\u{202e}gnp.exe\u{2066}"),
            ("ze\u{200b}ro\u{feff}\u{2060}so\u{ad}ft", r"ze\u{200b}ro\u{feff}\u{2060}so\u{ad}ft"),
            ("tag\u{e0041}vs\u{e0100}", r"tag\u{e0041}vs\u{e0100}"),
            ("line\u{2028}end", r"line\u{2028}end"),
            (r"C:\users \u{1b}", r"C:\users \u{1b}"),
        ];
        for (text, expected) in table {
            assert_eq!(one_line(text), expected);
            assert_eq!(lines(text).replace('\n', r"\n").replace('\t', r"\t"), expected);
        }
        assert_eq!(lines("two\nlines\tand a tab"), "two\nlines\tand a tab");
    }

    // One way to write each of them in a label, and a backslash of the name itself is told apart.
    #[test]
    fn a_label_value_tells_what_was_written_out_from_what_was_written() {
        let table = [
            ("plain", "plain"),
            (r"C:\users", r"C:\users"),
            ("a\u{202e}\n", r"a\u{202e}\u{a}"),
            (r"a\u{202e}", r"a\u{5c}u{202e}"),
            ("\\\u{ad}", r"\\u{ad}"),
        ];
        for (text, expected) in table {
            assert_eq!(label(text), expected);
        }
    }

    #[test]
    fn json_means_the_same_after_it_was_made_safe() {
        let text = "{\n\t\"a\u{202e}\u{9b}\u{e0041}\": \"日本\",\r\n\"b\": 1}";
        let safe = json(text);
        assert_eq!(safe, "{\n\t\"a\\u202e\\u009b\\udb40\\udc41\": \"日本\", \n\"b\": 1}");
        let read = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(read(text), read(&safe));
    }

    /// What [`label`] made of a text, read back.
    fn read_back(value: &str) -> String {
        let mut text = String::new();
        let mut rest = value;
        while let Some((before, after)) = rest.split_once(r"\u{") {
            let (digits, after) = after.split_once('}').unwrap();
            text.push_str(before);
            text.extend(char::from_u32(u32::from_str_radix(digits, 16).unwrap()));
            rest = after;
        }
        text + rest
    }

    proptest! {
        // Two names are never one series.
        #[test]
        fn a_label_value_can_be_read_back(text in r"[\\u\{\}25cea\u{202e}\u{ad}\n]{0,12}") {
            prop_assert_eq!(read_back(&label(&text)), text);
        }

        #[test]
        fn nothing_unseen_is_left_of_any_text(text in any::<String>()) {
            let quoted = serde_json::to_string(&text).unwrap();
            for safe in [one_line(&text), label(&text), json(&quoted)] {
                prop_assert!(!safe.contains(is_unseen), "{:?}", safe);
            }
            let once = one_line(&text);
            prop_assert_eq!(one_line(&once), &*once);
            prop_assert_eq!(serde_json::from_str::<String>(&json(&quoted)).unwrap(), text);
        }
    }
}
