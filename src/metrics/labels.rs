//! Label text: rendered and escaped once, when a row is born, and only copied after that.

use std::borrow::Cow;

use crate::text;

/// The labels of a series as text, in two parts that follow one another, so that the children of a supervisor need not
/// each repeat its labels; and since when the series counts. Default is no label.
#[derive(Clone, Copy, Default)]
pub(super) struct Labels<'a> {
    /// What the series of a row have in common.
    pub(super) base: &'a [u8],
    /// More, with a comma before it; or empty.
    pub(super) rest: &'a [u8],
    /// When a counter or histogram with these labels stood at 0 first, in Unix milliseconds; none if that was when the
    /// exporter itself began.
    pub(super) created: Option<u64>,
}

impl<'a> From<&'a str> for Labels<'a> {
    fn from(base: &'a str) -> Self {
        Self { base: base.as_bytes(), ..Self::default() }
    }
}

impl<'a> Labels<'a> {
    /// True if there is no label at all.
    pub(super) fn is_empty(self) -> bool {
        self.base.is_empty()
    }

    /// Reads back names and raw values, for writers that need them.
    pub(super) fn pairs(self) -> impl Iterator<Item = (&'a str, Cow<'a, str>)> {
        [self.base, self.rest].into_iter().flat_map(|text| label_pairs(str::from_utf8(text).unwrap_or_default()))
    }
}

impl<const SHORT: usize> InlineText<SHORT> {
    pub(super) fn as_bytes(&self) -> &[u8] {
        match self {
            InlineText::Short { len, bytes } => &bytes[..usize::from(*len)],
            InlineText::Long(text) => text.as_bytes(),
        }
    }

    /// Appends the text.
    pub(super) fn push_to(&self, out: &mut Vec<u8>) {
        match self {
            // Too much is copied and taken back: a copy whose size the compiler knows is a few instructions, any other is a
            // call.
            InlineText::Short { len, bytes } => {
                let end = out.len() + usize::from(*len);
                out.extend_from_slice(bytes);
                out.truncate(end);
            }
            InlineText::Long(text) => out.extend_from_slice(text.as_bytes()),
        }
    }
}

impl<const SHORT: usize> From<String> for InlineText<SHORT> {
    fn from(text: String) -> Self {
        let mut bytes = [0; SHORT];
        match bytes.get_mut(..text.len()) {
            Some(start) => {
                start.copy_from_slice(text.as_bytes());
                InlineText::Short { len: text.len() as u8, bytes }
            }
            None => InlineText::Long(text.into()),
        }
    }
}

/// Text that stands in its owner if it is short, up to `SHORT` bytes and 255: a scrape of many rows waits for memory more
/// than for anything else, and text elsewhere is one more wait.
pub(super) enum InlineText<const SHORT: usize> {
    /// The first `len` bytes.
    Short { len: u8, bytes: [u8; SHORT] },
    /// What is longer.
    Long(Box<str>),
}

/// Appends `name="value"`, after a comma if there is text before it. Only the value is escaped: names are ours. What no
/// reader sees of it is written out, line ends among it, so that they need no escape of the format.
pub(super) fn push_label(text: &mut String, name: &str, value: &str) {
    if !text.is_empty() {
        text.push(',');
    }
    push_first(text, name, value);
}

/// Appends `,name="value"`, wherever it stands.
pub(super) fn push_more_label(text: &mut String, name: &str, value: &str) {
    text.push(',');
    push_first(text, name, value);
}

fn push_first(text: &mut String, name: &str, value: &str) {
    text.push_str(name);
    text.push_str("=\"");
    for character in text::label(value).chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            other => text.push(other),
        }
    }
    text.push('"');
}

/// The text of several labels.
pub(super) fn label_text(labels: &[(&str, &str)]) -> String {
    let mut text = String::new();
    for (name, value) in labels {
        push_label(&mut text, name, value);
    }
    text
}

fn label_pairs(text: &str) -> impl Iterator<Item = (&str, Cow<'_, str>)> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let (name, after) = rest.strip_prefix(',').unwrap_or(rest).split_once("=\"")?;
        let end = closing_quote(after)?;
        rest = &after[end + 1..];
        Some((name, unescape(&after[..end])))
    })
}

fn closing_quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.bytes().position(|byte| {
        let closes = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        closes
    })
}

fn unescape(text: &str) -> Cow<'_, str> {
    if !text.contains('\\') {
        return Cow::Borrowed(text);
    }
    let mut raw = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => raw.extend(characters.next()),
            other => raw.push(other),
        }
    }
    Cow::Owned(raw)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    // Text format 0.0.4: backslash and quote are escaped in a label value. A line feed would be, but is written out before.
    #[test]
    fn a_label_value_is_escaped() {
        let text = label_text(&[("a", "x\\y\"z\nä"), ("b", "")]);
        assert_eq!(text, "a=\"x\\\\y\\\"z\\\\u{a}ä\",b=\"\"");
    }

    proptest! {
        // Whatever a name holds, it comes back as it is shown.
        #[test]
        fn label_text_reads_back_as_it_was_written(values in proptest::collection::vec("[\\\\\"\nn=,{}aé]{0,8}", 0..4)) {
            let labels: Vec<_> = values.iter().map(|value| ("name", value.as_str())).collect();
            let text = label_text(&labels);
            let read: Vec<_> = Labels::from(text.as_str()).pairs().map(|(name, value)| (name, value.into_owned())).collect();
            let expected: Vec<_> = labels.iter().map(|(name, value)| (*name, text::label(value).into_owned())).collect();
            prop_assert_eq!(read, expected);
        }
    }
}
