//! Texts from the wire. Whatever a peer sends, a text of a message is no longer than its type says. Pure.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;

use crate::beam::frame::{FrameError, Reader};

/// A text of at most `MOST` bytes. What a peer sends beyond them is cut off at a character.
///
/// Only [`read`](super::read) makes texts, so no message holds one that is not cut. Bytes that are not UTF-8 are
/// replaced, because a text that nobody can read is no reason to lose an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text<'a, const MOST: usize> {
    text: Cow<'a, str>,
    is_cut: bool,
}

// === impl Text ===

impl<'a, const MOST: usize> Text<'a, MOST> {
    /// Longest character of UTF-8, in bytes.
    const CHARACTER: usize = 4;

    /// Reads a binary as text.
    ///
    /// # Errors
    /// If no binary begins here.
    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, FrameError> {
        reader.binary().map(Self::new)
    }

    fn new(bytes: &'a [u8]) -> Self {
        // One character beyond the limit shows where the last one within it ends. Replacing never makes a text shorter.
        let begin = &bytes[..bytes.len().min(MOST + Self::CHARACTER)];
        let text = String::from_utf8_lossy(begin);
        if text.len() <= MOST && begin.len() == bytes.len() {
            return Self { text, is_cut: false };
        }
        let end = text.floor_char_boundary(MOST);
        let text = match text {
            Cow::Borrowed(text) => Cow::Borrowed(&text[..end]),
            Cow::Owned(text) => Cow::Owned(text[..end].to_owned()),
        };
        Self { text, is_cut: true }
    }

    /// Did the peer send more than is kept?
    pub fn is_cut(&self) -> bool {
        self.is_cut
    }
}

impl<const MOST: usize> Deref for Text<'_, MOST> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.text
    }
}

impl<const MOST: usize> fmt::Display for Text<'_, MOST> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cut(bytes: &[u8]) -> (String, bool) {
        let text = Text::<8>::new(bytes);
        (text.to_string(), text.is_cut())
    }

    // A text keeps whole characters up to its limit, and says whether there was more.
    #[test]
    fn a_text_is_cut_at_the_last_character_within_its_limit() {
        for (sent, kept, is_cut) in [
            ("", "", false),
            ("12345678", "12345678", false),
            ("123456789", "12345678", true),
            ("1234567ä", "1234567", true),
            ("1234567äö", "1234567", true),
            ("😀😀", "😀😀", false),
            ("12345😀x", "12345", true),
        ] {
            assert_eq!(cut(sent.as_bytes()), (kept.to_owned(), is_cut), "{sent}");
        }
    }

    proptest! {
        // The limit holds for bytes that are no text as well, and what is kept is how the whole text begins.
        #[test]
        fn any_bytes_become_a_text_within_the_limit(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let (text, is_cut) = cut(&bytes);
            let whole = String::from_utf8_lossy(&bytes);
            prop_assert!(text.len() <= 8 && whole.starts_with(&text));
            prop_assert_eq!(is_cut, whole.len() > 8);
        }
    }
}
