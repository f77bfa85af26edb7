//! What a run writes: kept for its death record, and passed on to our own output.
//!
//! A pipe for each stream, a task for each pipe. The end of the run does not wait for the end of the pipe, which a
//! grandchild may hold open for ever: what is in the pipe at that moment is read, and no more.

use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use once_cell::sync::Lazy;
use parking_lot::Mutex;
use rustix::io::retry_on_intr;
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::Live;
use super::last_output::{LastOutput, Lines};
use crate::supervisor::notice::Notice;
use crate::text;

/// How the output of a process is passed on to ours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PassOn {
    /// Line by line, each with the child's id in front. What the child wrote stays as it is.
    #[default]
    Prefixed,
    /// Byte for byte.
    Raw,
    /// Not at all.
    Off,
}

/// One of our own streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    Stdout,
    Stderr,
}

/// Pieces that wait for a slow reader of our own output. Beyond them the program has to wait, as it would have to if it
/// wrote there itself.
const MAX_WAITING_PIECES: usize = 256;

/// Bytes read from a pipe at once.
const READ_BYTES: usize = 16 * 1024;

/// Most bytes read from a pipe after the end of its run: a grandchild may write faster than we read.
const MAX_BYTES_AFTER_END: usize = 1024 * 1024;

/// Longest line that is passed on in one; a longer one is passed on in several.
const MAX_PASSED_LINE_BYTES: usize = 64 * 1024;

enum Piece {
    Bytes(Stream, Vec<u8>),
    Flushed(oneshot::Sender<()>),
}

/// Our own output has one writer: it may block, and no task of the runtime must.
static WRITER: Lazy<Option<mpsc::Sender<Piece>>> = Lazy::new(|| {
    let (pieces, mut queue) = mpsc::channel::<Piece>(MAX_WAITING_PIECES);
    let write = move || {
        while let Some(piece) = queue.blocking_recv() {
            // Nobody reads our output any more: that is no reason to stop reading our children's.
            let _ = match piece {
                Piece::Bytes(Stream::Stdout, bytes) => write_all(&mut io::stdout().lock(), &bytes),
                Piece::Bytes(Stream::Stderr, bytes) => write_all(&mut io::stderr().lock(), &bytes),
                Piece::Flushed(done) => done.send(()).map_err(|()| io::ErrorKind::BrokenPipe.into()),
            };
        }
    };
    std::thread::Builder::new().name("output".into()).spawn(write).ok().map(|_| pieces)
});

fn write_all(stream: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes)?;
    stream.flush()
}

/// Waits until what processes wrote so far has been passed on, at most for `patience`: a program that is about to end
/// calls this last.
pub async fn flush_output(patience: Duration) {
    let flush = async {
        let Some(writer) = Lazy::get(&WRITER).and_then(Option::as_ref) else { return };
        let (done, flushed) = oneshot::channel();
        if writer.send(Piece::Flushed(done)).await.is_ok() {
            let _ = flushed.await;
        }
    };
    let _ = timeout(patience, flush).await;
}

/// The output of one run.
pub(super) struct Output {
    live: Live,
    kept: Arc<Mutex<LastOutput>>,
    ended: Notice,
    readers: Vec<oneshot::Receiver<()>>,
}

impl Output {
    /// What is kept of it is as much as the program says at the time.
    pub(super) fn new(live: Live) -> Self {
        Self { live, kept: Arc::default(), ended: Notice::default(), readers: Vec::new() }
    }

    /// Reads a pipe from now on.
    pub(super) fn read(
        &mut self,
        pipe: impl Into<OwnedFd>,
        stream: Stream,
        pass_on: PassOn,
        id: &Arc<str>,
    ) -> io::Result<()> {
        let (done, read) = oneshot::channel();
        let reader = Reader {
            pipe: pipe::Receiver::from_owned_fd(pipe.into())?,
            ended: self.ended.clone(),
            live: self.live.clone(),
            kept: self.kept.clone(),
            lines: Lines::default(),
            passed: Passed { stream, pass_on, id: id.clone(), open: Vec::new() },
        };
        tokio::spawn(reader.run(done));
        self.readers.push(read);
        Ok(())
    }

    /// The last lines. The run has ended: what its pipes hold now is read, what others write later is not.
    pub(super) async fn finish(self) -> Arc<[Box<str>]> {
        self.ended.give();
        for reader in self.readers {
            let _ = reader.await;
        }
        let mut kept = self.kept.lock();
        kept.trim(self.live.load().last_output);
        kept.lines().collect()
    }
}

struct Reader {
    pipe: pipe::Receiver,
    ended: Notice,
    live: Live,
    kept: Arc<Mutex<LastOutput>>,
    lines: Lines,
    passed: Passed,
}

impl Reader {
    async fn run(mut self, done: oneshot::Sender<()>) {
        let mut buffer = vec![0; READ_BYTES];
        // While our own output is stuck, the end of the run must still be seen.
        let mut late = loop {
            tokio::select! {
                biased;
                ready = self.pipe.readable() => if ready.is_err() { break Vec::new() },
                () = self.ended.given() => break Vec::new(),
            }
            match self.pipe.try_read(&mut buffer) {
                Ok(0) => break Vec::new(),
                Ok(length) => {
                    let piece = self.take(&buffer[..length]);
                    tokio::select! {
                        biased;
                        () = pass(&piece) => {}
                        () = self.ended.given() => break vec![piece],
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => break Vec::new(),
            }
        };
        let mut read = 0;
        while read < MAX_BYTES_AFTER_END {
            // Past the runtime, which may have heard of the end before it hears that there is something in the pipe.
            match retry_on_intr(|| rustix::io::read(&self.pipe, &mut *buffer)) {
                Ok(length) if length > 0 => {
                    read += length;
                    late.push(self.take(&buffer[..length]));
                }
                _ => break,
            }
        }
        if let Some(line) = self.lines.finish() {
            let program = self.live.load();
            if program.keeps(self.passed.stream) {
                self.kept.lock().push(line, program.last_output);
            }
        }
        // The death is told from here on; passing on what is left may take longer. Its descriptor is needed for the next run.
        drop(self.pipe);
        let _ = done.send(());
        late.push(self.passed.finish());
        for piece in &late {
            pass(piece).await;
        }
    }

    /// Keeps what was read, and gives what is to be passed on of it.
    fn take(&mut self, bytes: &[u8]) -> Option<(Stream, Vec<u8>)> {
        let program = self.live.load();
        if program.keeps(self.passed.stream) {
            let mut kept = self.kept.lock();
            self.lines.feed(bytes, |line| kept.push(line, program.last_output));
        }
        self.passed.feed(bytes)
    }
}

/// Passes a piece on, when there is room for it.
async fn pass(piece: &Option<(Stream, Vec<u8>)>) {
    if let (Some((stream, bytes)), Some(writer)) = (piece, WRITER.as_ref()) {
        // An error means that the writer has gone, and with it our own output.
        let _ = writer.send(Piece::Bytes(*stream, bytes.clone())).await;
    }
}

/// What is passed on of one stream.
struct Passed {
    stream: Stream,
    pass_on: PassOn,
    id: Arc<str>,
    /// The line that has no end yet: lines of different children must not mix.
    open: Vec<u8>,
}

impl Passed {
    fn feed(&mut self, bytes: &[u8]) -> Option<(Stream, Vec<u8>)> {
        match self.pass_on {
            PassOn::Off => None,
            PassOn::Raw => Some((self.stream, bytes.to_vec())),
            PassOn::Prefixed => {
                let mut out = Vec::with_capacity(bytes.len() + bytes.len() / 4);
                for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
                    self.open.extend_from_slice(piece);
                    if piece.ends_with(b"\n") || self.open.len() >= MAX_PASSED_LINE_BYTES {
                        self.end_line(&mut out);
                    }
                }
                (!out.is_empty()).then_some((self.stream, out))
            }
        }
    }

    fn finish(&mut self) -> Option<(Stream, Vec<u8>)> {
        let mut out = Vec::new();
        if !self.open.is_empty() {
            self.end_line(&mut out);
        }
        (!out.is_empty()).then_some((self.stream, out))
    }

    fn end_line(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(text::one_line(&self.id).as_bytes());
        out.extend_from_slice(b" | ");
        out.extend_from_slice(&self.open);
        if !self.open.ends_with(b"\n") {
            out.push(b'\n');
        }
        self.open.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(pass_on: PassOn, pieces: &[&[u8]]) -> String {
        let mut passed = Passed { stream: Stream::Stderr, pass_on, id: "api".into(), open: Vec::new() };
        let mut all: Vec<u8> = Vec::new();
        for piece in pieces {
            all.extend(passed.feed(piece).into_iter().flat_map(|(_, bytes)| bytes));
        }
        all.extend(passed.finish().into_iter().flat_map(|(_, bytes)| bytes));
        String::from_utf8(all).unwrap()
    }

    #[test]
    fn each_line_has_the_child_in_front() {
        assert_eq!(passed(PassOn::Prefixed, &[b"one\ntw", b"o\nthree"]), "api | one\napi | two\napi | three\n");
    }

    #[test]
    fn raw_output_is_passed_on_as_it_is() {
        assert_eq!(passed(PassOn::Raw, &[b"one\ntw", b"o"]), "one\ntwo");
        assert_eq!(passed(PassOn::Off, &[b"one\n"]), "");
    }

    // Nothing is lost of a line that is too long to wait for its end.
    #[test]
    fn a_long_line_is_passed_on_in_several() {
        let long = "x".repeat(MAX_PASSED_LINE_BYTES + 10);
        let lines: Vec<_> = passed(PassOn::Prefixed, &[long.as_bytes()]).lines().map(str::len).collect();
        assert_eq!(lines.iter().map(|length| length - "api | ".len()).sum::<usize>(), long.len());
    }
}
