//! One answer on its way to its reader: what the reader was given, what it took, and how long it may still take. Pure but
//! for [`Delivered`], the body that keeps this record.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::patience::{READER_TIMEOUT, SLOW_READER};
use super::respond::ResponseBody;
use super::scrape::{BodyError, Place};

/// An answer that is at least this long is heavy, in bytes: it is more than sockets take at once.
pub(super) const HEAVY_BYTES: u64 = 64 * 1024;

/// The record of one answer, shared by its body, its bytes on their way, and the connection that watches it.
pub(super) struct Delivery {
    progress: Mutex<Progress>,
    /// Among the scrapes that are answered at once; none for other answers.
    place: Option<Place>,
    /// Ends the stream of the answer alone; none where the answer has the connection for itself.
    stream: Option<Arc<Notify>>,
    pub(super) is_heavy: bool,
}

#[derive(Debug)]
struct Progress {
    /// None where the reader is only as slow as its socket, which is watched anyway.
    lap: Option<Lap>,
    deadline: Option<Instant>,
    is_slow: bool,
    /// The body has nothing more to give.
    is_over: bool,
}

/// How a reader keeps up. All that is ready at the beginning of a lap must have left before its time is over, and then the
/// next piece must have been asked for, so that a trickle is no way to stay.
#[derive(Debug)]
struct Lap {
    given: u64,
    taken: u64,
    /// What must have been taken for this lap to end.
    goal: u64,
    /// Was the body asked for more since it gave its last piece?
    is_asked: bool,
    /// When the lap began; none while nothing waits for the reader.
    since: Option<Instant>,
}

/// What is to be done about an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing before this time, or nothing at all.
    Until(Option<Instant>),
    /// It took longer than its client allows.
    OutOfTime,
    /// Its reader did not take what was ready.
    Unread,
}

/// The body of an answer that is watched.
pub(super) struct Delivered {
    body: ResponseBody,
    delivery: Option<Arc<Delivery>>,
}

/// Bytes that say when they have been taken.
struct Piece {
    bytes: Bytes,
    delivery: Arc<Delivery>,
}

// === impl Delivery ===

impl Delivery {
    /// Of this answer, which begins now. With `stream` the answer shares its connection with others.
    pub(super) fn of(body: &ResponseBody, stream: Option<Arc<Notify>>, now: Instant) -> Self {
        let (place, deadline) = match body {
            ResponseBody::Scrape(scrape) => (Some(scrape.place()), Some(scrape.deadline().into())),
            ResponseBody::Full(_) | ResponseBody::Live(_) => (None, None),
        };
        let is_heavy = match body {
            ResponseBody::Full(bytes) => bytes.as_ref().is_some_and(|bytes| bytes.len() as u64 >= HEAVY_BYTES),
            ResponseBody::Scrape(_) => true,
            ResponseBody::Live(_) => false,
        };
        let lap = stream.is_some().then(|| Lap::new(now));
        let progress = Mutex::new(Progress { lap, deadline, is_slow: false, is_over: false });
        Self { progress, place, stream, is_heavy }
    }

    /// What is to be done about it now. The place of a reader that has become slow is given back.
    pub(super) fn look(&self, now: Instant) -> Verdict {
        let (was_slow, (verdict, is_slow)) = {
            let mut progress = self.progress.lock();
            (progress.is_slow, (progress.look(now), progress.is_slow))
        };
        if is_slow && !was_slow {
            self.give_back_place();
        }
        verdict
    }

    pub(super) fn is_slow(&self) -> bool {
        self.progress.lock().is_slow
    }

    /// Lets another scrape be answered while this one waits for its reader.
    pub(super) fn give_back_place(&self) {
        if let Some(place) = &self.place {
            place.give_back();
        }
    }

    /// Ends the stream of the answer. False if only the end of its connection ends it.
    pub(super) fn cut_off(&self) -> bool {
        self.progress.lock().is_over = true;
        self.stream.as_ref().inspect(|stream| stream.notify_one()).is_some()
    }

    /// Notes since when the socket of the connection waits for its reader, if it does.
    pub(super) fn socket_waits(&self, since: Option<Instant>) {
        if let (Some(place), None) = (&self.place, &self.stream) {
            place.waits(since);
        }
    }

    fn asked(&self) {
        self.in_lap(Lap::asked);
    }

    fn give(self: &Arc<Self>, bytes: Bytes) -> Bytes {
        if self.stream.is_none() {
            return bytes;
        }
        self.in_lap(|lap| lap.given(bytes.len() as u64, Instant::now()));
        Bytes::from_owner(Piece { bytes, delivery: self.clone() })
    }

    fn over(&self) {
        self.progress.lock().is_over = true;
        self.in_lap(Lap::asked);
    }

    /// Does something to the lap, if there is one; then the place knows whether the scrape waits.
    fn in_lap(&self, act: impl FnOnce(&mut Lap)) {
        if let Some(lap) = &mut self.progress.lock().lap {
            act(lap);
            if let Some(place) = &self.place {
                place.waits(lap.since);
            }
        }
    }
}

impl Progress {
    fn look(&mut self, now: Instant) -> Verdict {
        let deadline = self.deadline.filter(|_| !self.is_over);
        if deadline.is_some_and(|deadline| deadline <= now) {
            return Verdict::OutOfTime;
        }
        let since = self.lap.as_ref().and_then(|lap| lap.since);
        let Some(since) = since else {
            self.is_slow = false;
            return Verdict::Until(deadline);
        };
        self.is_slow = since + SLOW_READER <= now;
        let next = if self.is_slow { since + READER_TIMEOUT } else { since + SLOW_READER };
        if next <= now {
            return Verdict::Unread;
        }
        Verdict::Until(Some(deadline.map_or(next, |deadline| deadline.min(next))))
    }
}

// === impl Lap ===

impl Lap {
    /// An answer whose head is ready and whose body was not asked for anything.
    fn new(now: Instant) -> Self {
        Self { given: 0, taken: 0, goal: 0, is_asked: false, since: Some(now) }
    }

    /// There is room for more: the body is asked, and it is not the reader who is waited for, unless something has not left.
    fn asked(&mut self) {
        self.is_asked = true;
        if self.given == self.taken {
            self.since = None;
        }
    }

    fn given(&mut self, bytes: u64, now: Instant) {
        self.given += bytes;
        self.is_asked = false;
        if self.since.is_none() {
            (self.since, self.goal) = (Some(now), self.given);
        }
    }

    fn taken(&mut self, bytes: u64, now: Instant) {
        self.taken += bytes;
        if self.taken >= self.goal {
            let waits = self.taken < self.given || !self.is_asked;
            (self.since, self.goal) = (waits.then_some(now), self.given);
        }
    }
}

// === impl Delivered ===

impl Delivered {
    pub(super) fn new(body: ResponseBody, delivery: Option<Arc<Delivery>>) -> Self {
        Self { body, delivery }
    }
}

impl Body for Delivered {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let Some(delivery) = &this.delivery else { return Pin::new(&mut this.body).poll_frame(cx) };
        delivery.asked();
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        let frame = frame.map(|frame| frame.map(|frame| frame.map_data(|bytes| delivery.give(bytes))));
        if !matches!(frame, Some(Ok(_))) || this.body.is_end_stream() {
            delivery.over();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Delivered {
    fn drop(&mut self) {
        if let Some(delivery) = &self.delivery {
            delivery.over();
        }
    }
}

// === impl Piece ===

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.delivery.in_lap(|lap| lap.taken(self.bytes.len() as u64, Instant::now()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const SECOND: Duration = Duration::from_secs(1);

    fn progress(now: Instant, deadline: Option<Instant>) -> Progress {
        Progress { lap: Some(Lap::new(now)), deadline, is_slow: false, is_over: false }
    }

    /// The lap, for what happens to it.
    fn lap(progress: &mut Progress) -> &mut Lap {
        progress.lap.as_mut().unwrap()
    }

    // A reader that opens no window is slow after a second and cut off after 30, whatever else moves on its connection.
    #[test]
    fn a_reader_that_takes_nothing_becomes_slow_and_is_cut_off() {
        let start = Instant::now();
        let mut progress = progress(start, None);
        assert_eq!(progress.look(start), Verdict::Until(Some(start + SLOW_READER)));
        assert!(!progress.is_slow);
        assert_eq!(progress.look(start + SLOW_READER), Verdict::Until(Some(start + READER_TIMEOUT)));
        assert!(progress.is_slow);
        assert_eq!(progress.look(start + READER_TIMEOUT), Verdict::Unread);
    }

    // All that was ready when a lap began must have left in time: taking a part of it is not enough.
    #[test]
    fn a_reader_that_trickles_is_cut_off() {
        let start = Instant::now();
        let mut progress = progress(start, None);
        lap(&mut progress).asked();
        lap(&mut progress).given(1000, start);
        lap(&mut progress).given(1000, start + SECOND);
        for second in 1..30 {
            lap(&mut progress).taken(10, start + second * SECOND);
            assert!(matches!(progress.look(start + second * SECOND), Verdict::Until(_)), "{second}");
        }
        assert_eq!(progress.look(start + READER_TIMEOUT), Verdict::Unread);
    }

    // A reader that takes what was ready in time may go on for as long as it likes, even if something always waits for it.
    #[test]
    fn a_reader_that_keeps_up_is_never_slow() {
        let start = Instant::now();
        let mut progress = progress(start, None);
        lap(&mut progress).asked();
        lap(&mut progress).given(100, start);
        for tenth in 1..1000 {
            let now = start + tenth * SECOND / 10;
            lap(&mut progress).asked();
            lap(&mut progress).given(100, now);
            lap(&mut progress).taken(100, now);
            assert!(matches!(progress.look(now), Verdict::Until(_)) && !progress.is_slow, "{progress:?}");
        }
    }

    // A body that has nothing to give, such as live events in a quiet hour, does not wait for its reader.
    #[test]
    fn a_body_that_is_asked_waits_for_itself() {
        let start = Instant::now();
        let mut progress = progress(start, None);
        lap(&mut progress).asked();
        assert_eq!(progress.look(start + 3600 * SECOND), Verdict::Until(None));
        lap(&mut progress).given(10, start + 3600 * SECOND);
        lap(&mut progress).taken(10, start + 3601 * SECOND);
        assert!(matches!(progress.look(start + 3631 * SECOND), Verdict::Unread), "it was not asked for more");
    }

    // The time that a scraper allows ends the scrape, be its reader slow or not; and not an answer that is over.
    #[test]
    fn a_deadline_ends_what_waits_between_two_pieces() {
        let start = Instant::now();
        let deadline = start + 5 * SECOND;
        let mut progress = progress(start, Some(deadline));
        lap(&mut progress).asked();
        assert_eq!(progress.look(start), Verdict::Until(Some(deadline)));
        lap(&mut progress).given(10, start + 3 * SECOND);
        assert_eq!(progress.look(start + 3 * SECOND), Verdict::Until(Some(start + 4 * SECOND)));
        assert_eq!(progress.look(start + 4 * SECOND), Verdict::Until(Some(deadline)));
        assert_eq!(progress.look(deadline), Verdict::OutOfTime);
        progress.is_over = true;
        assert_eq!(progress.look(deadline), Verdict::Until(Some(start + 33 * SECOND)));
    }
}
