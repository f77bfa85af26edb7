//! The last lines of one run: bounded, whatever the program writes. Pure.

use std::collections::VecDeque;

/// What follows the part of a line that was kept.
const CUT_MARK: &str = "… [cut]";

/// How much of a run's output is kept for its death record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastOutputLimits {
    /// Most lines; the oldest go first.
    pub lines: usize,
    /// Most bytes of all lines together; the oldest go first.
    pub bytes: usize,
}

/// Longest line that is kept, in bytes; of a longer one the beginning is kept, with a mark.
pub const MAX_LINE_BYTES: usize = 4 * 1024;

impl Default for LastOutputLimits {
    /// 20 lines and 8 KiB.
    fn default() -> Self {
        Self { lines: 20, bytes: 8 * 1024 }
    }
}

/// The ring of one run. Its limits are an argument, because a reload can change them while the program runs.
#[derive(Debug, Default)]
pub(super) struct LastOutput {
    lines: VecDeque<Box<str>>,
    /// Bytes of `lines` together.
    bytes: usize,
}

/// Cuts a stream of bytes into lines. One for each stream, since lines of two streams come in pieces that mix.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// The line that has no end yet, at most [`MAX_LINE_BYTES`] of it.
    open: Vec<u8>,
    /// Is there more of the open line than is kept?
    cut: bool,
}

impl LastOutput {
    /// Adds a line and drops what is too much, from the oldest on.
    pub(super) fn push(&mut self, line: Box<str>, limits: LastOutputLimits) {
        self.bytes += line.len();
        self.lines.push_back(line);
        self.trim(limits);
    }

    /// Drops what is too much, from the oldest on.
    pub(super) fn trim(&mut self, limits: LastOutputLimits) {
        while self.lines.len() > limits.lines || self.bytes > limits.bytes {
            let Some(oldest) = self.lines.pop_front() else { break };
            self.bytes -= oldest.len();
        }
    }

    /// The lines, oldest first.
    pub(super) fn lines(&self) -> impl Iterator<Item = Box<str>> {
        self.lines.iter().cloned()
    }
}

impl Lines {
    /// Takes in some bytes and gives each line that ends in them.
    pub(super) fn feed(&mut self, bytes: &[u8], mut line: impl FnMut(Box<str>)) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, ends) = match piece.split_last() {
                Some((b'\n', text)) => (text, true),
                _ => (piece, false),
            };
            let room = MAX_LINE_BYTES - self.open.len();
            self.cut |= text.len() > room;
            self.open.extend_from_slice(&text[..text.len().min(room)]);
            if ends {
                line(self.take());
            }
        }
    }

    /// The line that never got its end, if there is one.
    pub(super) fn finish(&mut self) -> Option<Box<str>> {
        (!self.open.is_empty()).then(|| self.take())
    }

    fn take(&mut self) -> Box<str> {
        let text = self.open.strip_suffix(b"\r").unwrap_or(&self.open);
        let mut line = String::from_utf8_lossy(text).into_owned();
        if self.cut {
            line.push_str(CUT_MARK);
        }
        // Its memory is not kept: most lines are short, and a program may write one long line in its life.
        self.open = Vec::new();
        self.cut = false;
        line.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lines_of(pieces: &[&[u8]]) -> Vec<String> {
        let mut lines = Lines::default();
        let mut all = Vec::new();
        for piece in pieces {
            lines.feed(piece, |line| all.push(line.into()));
        }
        all.extend(lines.finish().map(String::from));
        all
    }

    #[test]
    fn lines_are_found_wherever_the_pieces_end() {
        assert_eq!(lines_of(&[b"one\ntw", b"o\r\n\nthree"]), ["one", "two", "", "three"]);
    }

    // Any bytes: NUL, invalid UTF-8, no newline at the end.
    #[test]
    fn any_bytes_become_text() {
        assert_eq!(lines_of(&[b"a\0b\n\xff\xfe!"]), ["a\0b", "\u{fffd}\u{fffd}!"]);
    }

    // A line of 1 MiB is cut with a mark, and the next one is whole.
    #[test]
    fn a_long_line_is_cut_with_a_mark() {
        let long = vec![b'x'; 1024 * 1024];
        let lines = lines_of(&[&long, b"\nnext\n"]);
        assert_eq!(lines[0], format!("{}{CUT_MARK}", "x".repeat(MAX_LINE_BYTES)));
        assert_eq!(lines[1], "next");
        assert_eq!(lines_of(&[&long[..MAX_LINE_BYTES], b"\n"]), ["x".repeat(MAX_LINE_BYTES)]);
    }

    #[test]
    fn the_oldest_lines_go_first() {
        let (mut output, limits) = (LastOutput::default(), LastOutputLimits { lines: 2, bytes: 10 });
        for line in ["one", "two", "three"] {
            output.push(line.into(), limits);
        }
        assert_eq!(output.lines().collect::<Vec<_>>(), ["two".into(), "three".into()]);
        output.push("seventeen".into(), limits);
        assert_eq!(output.lines().collect::<Vec<_>>(), ["seventeen".into()]);
    }

    proptest! {
        // Whatever is written in whatever pieces, the limits hold and the lines do not depend on the pieces.
        #[test]
        fn limits_hold_for_any_output(bytes in proptest::collection::vec(any::<u8>(), 0..2000), at in 0_usize..2000) {
            let at = at.min(bytes.len());
            let whole = lines_of(&[&bytes]);
            prop_assert_eq!(&whole, &lines_of(&[&bytes[..at], &bytes[at..]]));
            let limits = LastOutputLimits { lines: 5, bytes: 300 };
            let mut output = LastOutput::default();
            whole.iter().for_each(|line| output.push(line.as_str().into(), limits));
            let kept: Vec<_> = output.lines().collect();
            prop_assert!(kept.len() <= limits.lines);
            prop_assert!(kept.iter().map(|line| line.len()).sum::<usize>() <= limits.bytes);
        }
    }
}
