//! Marks: what people note beside what supervisors tell, such as a deploy.

use std::fmt;
use std::ops::Deref;
use std::str::FromStr;
use std::sync::Arc;

use super::Timestamp;

/// Longest text of a mark, in bytes.
pub const MAX_MARK_BYTES: usize = 256;

/// `[mark]`: somebody noted that something was done at this moment. It belongs to no supervisor, and so to all of them.
#[derive(Clone, Debug)]
pub struct Mark {
    /// When.
    pub time: Timestamp,
    /// What.
    pub text: MarkText,
}

/// One line of at most [`MAX_MARK_BYTES`] bytes, without control characters and not empty. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MarkText(Arc<str>);

/// Why a text is no [`MarkText`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidMark {
    /// There is nothing in it but space.
    Empty,
    /// It has so many bytes, which is more than [`MAX_MARK_BYTES`].
    TooLong(usize),
    /// It has a line break or another control character.
    Control(char),
}

impl FromStr for MarkText {
    type Err = InvalidMark;

    /// Takes the text without the space around it. A text that is too long is refused and not cut: what is cut off may be
    /// the version.
    fn from_str(text: &str) -> Result<Self, InvalidMark> {
        let text = text.trim();
        match text.chars().find(|c| c.is_control()) {
            _ if text.is_empty() => Err(InvalidMark::Empty),
            _ if text.len() > MAX_MARK_BYTES => Err(InvalidMark::TooLong(text.len())),
            Some(control) => Err(InvalidMark::Control(control)),
            None => Ok(Self(text.into())),
        }
    }
}

impl Deref for MarkText {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for InvalidMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InvalidMark::Empty => f.write_str("the text of a mark is empty"),
            InvalidMark::TooLong(bytes) => {
                write!(f, "the text of a mark has {bytes} bytes, and may have {MAX_MARK_BYTES}")
            }
            InvalidMark::Control(control) => {
                write!(f, "the text of a mark is one line without control characters, and has {control:?}")
            }
        }
    }
}

impl std::error::Error for InvalidMark {}

#[cfg(test)]
mod tests {
    use super::*;

    // A mark is one short line: what is wrong with another text is said, and nothing is cut.
    #[test]
    fn a_mark_is_one_short_line() {
        let marked = |text: &str| text.parse::<MarkText>().map(|mark| mark.to_string());
        assert_eq!(marked(" deploy api v1.8.2 \n"), Ok("deploy api v1.8.2".to_owned()));
        assert_eq!(marked(&"ä".repeat(128)).map(|text| text.len()), Ok(MAX_MARK_BYTES));
        assert_eq!(marked(&"ä".repeat(129)), Err(InvalidMark::TooLong(258)));
        assert_eq!(marked(" \t"), Err(InvalidMark::Empty));
        assert_eq!(marked("a\nb"), Err(InvalidMark::Control('\n')));
        assert_eq!(marked("\u{1b}[31mred"), Err(InvalidMark::Control('\u{1b}')));
    }
}
