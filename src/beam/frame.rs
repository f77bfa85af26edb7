//! Erlang's external term format, as much of it as the agent writes: a reader that stays inside its frame, and a writer.
//!
//! A frame comes from a socket, so nothing it says is believed: each count is held against the bytes that are left before
//! anything is done with it, nesting has a limit, and what is not in the table below is an error that names the byte.
//! The reader allocates nothing; binaries and atoms are borrowed from the frame.
//!
//! | tag | term |
//! |---|---|
//! | 97, 98, 110 | integers of at most 64 bits |
//! | 118, 119 | atoms in UTF-8 |
//! | 109 | binaries |
//! | 104 | tuples of at most 255 elements |
//! | 106, 107, 108 | proper lists; 107 is a list of small integers |
//!
//! Source: "External Term Format" of the ERTS user's guide.

use thiserror::Error;

/// Longest frame that is read, in bytes.
pub const MAX_FRAME_BYTES: usize = 1024 * 1024;

/// Deepest nesting of tuples and lists.
pub const MAX_DEPTH: usize = 8;

const VERSION: u8 = 131;
const SMALL_INTEGER: u8 = 97;
const INTEGER: u8 = 98;
const SMALL_TUPLE: u8 = 104;
const NIL: u8 = 106;
const STRING: u8 = 107;
const LIST: u8 = 108;
const BINARY: u8 = 109;
const SMALL_BIG: u8 = 110;
const ATOM_UTF8: u8 = 118;
const SMALL_ATOM_UTF8: u8 = 119;

/// A frame that is not what it should be.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("{what} at byte {at}")]
pub struct FrameError {
    /// What is wrong.
    pub what: &'static str,
    /// Where: bytes from the begin of the frame, its length not counted.
    pub at: usize,
}

/// Reads one term after the other.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    frame: &'a [u8],
    at: usize,
}

/// Writes one frame: its length, then one term.
#[derive(Debug)]
pub struct FrameWriter(Vec<u8>);

// === impl Reader ===

impl<'a> Reader<'a> {
    /// Reads a frame without its length.
    ///
    /// # Errors
    /// If it does not begin with the version of the format.
    pub fn new(frame: &'a [u8]) -> Result<Self, FrameError> {
        let mut reader = Self { frame, at: 0 };
        match reader.byte()? {
            VERSION => Ok(reader),
            _ => Err(reader.wrong(0, "no version byte 131")),
        }
    }

    /// The number of elements of the tuple that begins here; they follow.
    ///
    /// # Errors
    /// If no tuple begins here, or one of fewer elements than `at_least`.
    pub fn tuple(&mut self, at_least: usize) -> Result<usize, FrameError> {
        let at = self.at;
        match self.byte()? {
            SMALL_TUPLE => {}
            _ => return Err(self.wrong(at, "no tuple")),
        }
        let arity = usize::from(self.byte()?);
        if arity < at_least {
            return Err(self.wrong(at, "a tuple of too few elements"));
        }
        self.holds(arity, at)?;
        Ok(arity)
    }

    /// The number of elements of the list that begins here; they follow, and [`end_list`](Self::end_list) after them.
    ///
    /// # Errors
    /// If no list begins here, or one of more elements than there are bytes left.
    pub fn list(&mut self) -> Result<usize, FrameError> {
        let at = self.at;
        match self.byte()? {
            NIL => Ok(0),
            LIST => {
                let count = u32::from_be_bytes(self.array()?);
                let count = usize::try_from(count).map_err(|_| self.wrong(at, "a list that is too long"))?;
                if count == 0 {
                    return Err(self.wrong(at, "an empty list in its long form"));
                }
                self.holds(count, at)?;
                Ok(count)
            }
            _ => Err(self.wrong(at, "no list")),
        }
    }

    /// Reads the end of a list that had `count` elements.
    ///
    /// # Errors
    /// If the list is improper.
    pub fn end_list(&mut self, count: usize) -> Result<(), FrameError> {
        let at = self.at;
        if count == 0 || self.byte()? == NIL { Ok(()) } else { Err(self.wrong(at, "an improper list")) }
    }

    /// An integer.
    ///
    /// # Errors
    /// If none begins here, or one that does not fit.
    pub fn integer(&mut self) -> Result<i64, FrameError> {
        let at = self.at;
        match self.byte()? {
            SMALL_INTEGER => Ok(self.byte()?.into()),
            INTEGER => Ok(i32::from_be_bytes(self.array()?).into()),
            SMALL_BIG => {
                let length = usize::from(self.byte()?);
                let sign = self.byte()?;
                if length > 8 || sign > 1 {
                    return Err(self.wrong(at, "an integer beyond 64 bits"));
                }
                let mut bytes = [0; 8];
                bytes[..length].copy_from_slice(self.bytes(length)?);
                let magnitude = i128::from(u64::from_le_bytes(bytes));
                let value = if sign == 1 { -magnitude } else { magnitude };
                i64::try_from(value).map_err(|_| self.wrong(at, "an integer beyond 64 bits"))
            }
            _ => Err(self.wrong(at, "no integer")),
        }
    }

    /// An integer that is not negative.
    ///
    /// # Errors
    /// If none begins here, or a negative one.
    pub fn natural(&mut self) -> Result<u64, FrameError> {
        let at = self.at;
        u64::try_from(self.integer()?).map_err(|_| self.wrong(at, "a negative number"))
    }

    /// An atom.
    ///
    /// # Errors
    /// If none begins here, or one that is no UTF-8.
    pub fn atom(&mut self) -> Result<&'a str, FrameError> {
        let at = self.at;
        let length = match self.byte()? {
            SMALL_ATOM_UTF8 => usize::from(self.byte()?),
            ATOM_UTF8 => usize::from(u16::from_be_bytes(self.array()?)),
            _ => return Err(self.wrong(at, "no atom")),
        };
        let bytes = self.bytes(length)?;
        str::from_utf8(bytes).map_err(|_| self.wrong(at, "an atom that is no UTF-8"))
    }

    /// A binary.
    ///
    /// # Errors
    /// If none begins here.
    pub fn binary(&mut self) -> Result<&'a [u8], FrameError> {
        let at = self.at;
        if self.byte()? != BINARY {
            return Err(self.wrong(at, "no binary"));
        }
        let length = usize::try_from(u32::from_be_bytes(self.array()?));
        self.bytes(length.map_err(|_| self.wrong(at, "a binary that is too long"))?)
    }

    /// Is the next term an atom, as opposed to what could stand in its place?
    pub fn is_atom(&self) -> bool {
        matches!(self.frame.get(self.at), Some(&(SMALL_ATOM_UTF8 | ATOM_UTF8)))
    }

    /// Is the next term a tuple, as opposed to what could stand in its place?
    pub fn is_tuple(&self) -> bool {
        self.frame.get(self.at) == Some(&SMALL_TUPLE)
    }

    /// Goes past as many terms, and looks at them all the same.
    ///
    /// # Errors
    /// If one is not of the table above, nested deeper than [`MAX_DEPTH`], or ends behind the frame.
    pub fn skip(&mut self, terms: usize) -> Result<(), FrameError> {
        self.skip_within(terms, MAX_DEPTH)
    }

    /// The bytes of the next term.
    ///
    /// # Errors
    /// As [`skip`](Self::skip).
    pub fn raw(&mut self) -> Result<&'a [u8], FrameError> {
        let begin = self.at;
        self.skip(1)?;
        Ok(&self.frame[begin..self.at])
    }

    /// Holds that the frame ends here.
    ///
    /// # Errors
    /// If it does not.
    pub fn end(&self) -> Result<(), FrameError> {
        if self.at == self.frame.len() { Ok(()) } else { Err(self.wrong(self.at, "more than one term")) }
    }

    /// An error about the place where a reader stands.
    pub fn wrong_here(&self, what: &'static str) -> FrameError {
        self.wrong(self.at, what)
    }

    fn skip_within(&mut self, terms: usize, depth: usize) -> Result<(), FrameError> {
        for _ in 0..terms {
            let at = self.at;
            let tag = *self.frame.get(at).ok_or(self.wrong(at, "an end too early"))?;
            match tag {
                SMALL_INTEGER | INTEGER | SMALL_BIG => drop(self.integer()?),
                SMALL_ATOM_UTF8 | ATOM_UTF8 => drop(self.atom()?),
                BINARY => drop(self.binary()?),
                NIL => self.at += 1,
                STRING => {
                    self.at += 1;
                    let length = u16::from_be_bytes(self.array()?);
                    self.bytes(length.into())?;
                }
                SMALL_TUPLE | LIST if depth == 0 => return Err(self.wrong(at, "terms nested too deep")),
                SMALL_TUPLE => {
                    let arity = self.tuple(0)?;
                    self.skip_within(arity, depth - 1)?;
                }
                LIST => {
                    let count = self.list()?;
                    self.skip_within(count, depth - 1)?;
                    self.end_list(count)?;
                }
                _ => return Err(self.wrong(at, "a kind of term that is not spoken here")),
            }
        }
        Ok(())
    }

    /// Every term has at least one byte.
    fn holds(&self, terms: usize, at: usize) -> Result<(), FrameError> {
        if terms <= self.frame.len() - self.at { Ok(()) } else { Err(self.wrong(at, "more elements than bytes")) }
    }

    fn byte(&mut self) -> Result<u8, FrameError> {
        let byte = *self.frame.get(self.at).ok_or(self.wrong(self.at, "an end too early"))?;
        self.at += 1;
        Ok(byte)
    }

    fn bytes(&mut self, length: usize) -> Result<&'a [u8], FrameError> {
        let rest = &self.frame[self.at..];
        let bytes = rest.get(..length).ok_or(self.wrong(self.at, "an end too early"))?;
        self.at += length;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], FrameError> {
        let mut array = [0; N];
        array.copy_from_slice(self.bytes(N)?);
        Ok(array)
    }

    fn wrong(&self, at: usize, what: &'static str) -> FrameError {
        FrameError { what, at }
    }
}

// === impl FrameWriter ===

impl FrameWriter {
    /// A frame without a term.
    pub fn new() -> Self {
        Self(vec![0, 0, 0, 0, VERSION])
    }

    /// Begins a tuple of at most 255 elements, which follow.
    pub fn tuple(mut self, arity: u8) -> Self {
        self.0.extend([SMALL_TUPLE, arity]);
        self
    }

    /// Begins a list; its elements follow, and [`end_list`](Self::end_list) after them.
    pub fn list(mut self, count: u32) -> Self {
        if count > 0 {
            self.0.push(LIST);
            self.0.extend(count.to_be_bytes());
        }
        self
    }

    /// Ends a list, be it empty.
    pub fn end_list(mut self) -> Self {
        self.0.push(NIL);
        self
    }

    /// An atom; names are ours and short.
    pub fn atom(mut self, name: &'static str) -> Self {
        debug_assert!(name.len() <= u8::MAX.into());
        self.0.extend([SMALL_ATOM_UTF8, name.len() as u8]);
        self.0.extend(name.as_bytes());
        self
    }

    /// A binary; beyond 4 GiB its end is cut off.
    pub fn binary(mut self, bytes: &[u8]) -> Self {
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.0.push(BINARY);
        self.0.extend(length.to_be_bytes());
        self.0.extend(&bytes[..length as usize]);
        self
    }

    /// An integer.
    pub fn integer(mut self, value: i64) -> Self {
        if let Ok(small) = u8::try_from(value) {
            self.0.extend([SMALL_INTEGER, small]);
        } else if let Ok(middle) = i32::try_from(value) {
            self.0.push(INTEGER);
            self.0.extend(middle.to_be_bytes());
        } else {
            self.0.extend([SMALL_BIG, 8, value.is_negative().into()]);
            self.0.extend(value.unsigned_abs().to_le_bytes());
        }
        self
    }

    /// The frame with its length.
    pub fn finish(mut self) -> Vec<u8> {
        let length = u32::try_from(self.0.len() - 4).unwrap_or(u32::MAX);
        self.0[..4].copy_from_slice(&length.to_be_bytes());
        self.0
    }
}

impl Default for FrameWriter {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(writer: FrameWriter) -> Vec<u8> {
        writer.finish().split_off(4)
    }

    // ERTS user's guide: the smallest tag that holds an integer; the reader takes all of them.
    #[test]
    fn an_integer_is_read_as_it_was_written() {
        for value in [0, 255, 256, -1, i64::from(i32::MIN), 1 << 40, i64::MIN, i64::MAX] {
            let frame = written(FrameWriter::new().integer(value));
            let mut reader = Reader::new(&frame).unwrap();
            assert_eq!(reader.integer(), Ok(value));
            reader.end().unwrap();
        }
        // term_to_binary(16#ffffffffffffffff): 64 bits, but not of ours.
        let mut reader = Reader::new(&[131, 110, 8, 0, 255, 255, 255, 255, 255, 255, 255, 255]).unwrap();
        assert_eq!(reader.integer(), Err(FrameError { what: "an integer beyond 64 bits", at: 1 }));
    }

    // term_to_binary({ab, [<<"x">>], [1, 2]}, [{minor_version, 2}]) of OTP 25.
    #[test]
    fn what_erlang_writes_is_read() {
        let frame = [131, 104, 3, 119, 2, 97, 98, 108, 0, 0, 0, 1, 109, 0, 0, 0, 1, 120, 106, 107, 0, 2, 1, 2];
        let mut reader = Reader::new(&frame).unwrap();
        assert_eq!((reader.tuple(3), reader.atom(), reader.list()), (Ok(3), Ok("ab"), Ok(1)));
        assert_eq!(reader.binary(), Ok(&b"x"[..]));
        reader.end_list(1).unwrap();
        assert_eq!(reader.raw(), Ok(&[107, 0, 2, 1, 2][..]));
        reader.end().unwrap();
    }

    #[test]
    fn terms_are_nested_eight_deep_and_no_deeper() {
        let nested = |depth: usize| [vec![131], [104, 1].repeat(depth), vec![106]].concat();
        Reader::new(&nested(MAX_DEPTH)).unwrap().skip(1).unwrap();
        let error = Reader::new(&nested(MAX_DEPTH + 1)).unwrap().skip(1).unwrap_err();
        assert_eq!(error, FrameError { what: "terms nested too deep", at: 1 + 2 * MAX_DEPTH });
    }

    // A list of 2^31-1 elements in six bytes: the count is held against what is left.
    #[test]
    fn a_count_beyond_the_frame_is_refused_before_anything_is_done_with_it() {
        let error = Reader::new(&[131, 108, 127, 255, 255, 255]).unwrap().list().unwrap_err();
        assert_eq!(error.to_string(), "more elements than bytes at byte 1");
    }

    proptest! {
        // Whatever comes: an answer or an error within the frame, and never a panic.
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let frame = [&[131], &bytes[..]].concat();
            let mut reader = Reader::new(&frame).unwrap();
            if let Err(error) = reader.skip(1) {
                prop_assert!(error.at <= frame.len());
            }
        }

        // The same with bytes that are tags, which come further.
        #[test]
        fn any_tags_are_read_or_refused(
            bytes in proptest::collection::vec(
                prop::sample::select(vec![0u8, 1, 2, 3, 97, 98, 104, 106, 107, 108, 109, 110, 118, 119, 131, 255]),
                0..300,
            )
        ) {
            let frame = [&[131], &bytes[..]].concat();
            let _ = crate::beam::message::read(&frame);
            let mut reader = Reader::new(&frame).unwrap();
            if reader.skip(1).is_ok() {
                prop_assert!(reader.at <= frame.len());
            }
        }

        // Any prefix of a good frame is refused, wherever it was cut.
        #[test]
        fn half_a_frame_is_refused(cut in 1usize..60) {
            let frame = written(
                FrameWriter::new().tuple(3).atom("hello").integer(1 << 40).list(2).binary(b"text").integer(7).end_list(),
            );
            if cut < frame.len() {
                let mut reader = Reader::new(&frame[..cut]).unwrap();
                prop_assert!(reader.skip(1).is_err());
            }
        }
    }
}
