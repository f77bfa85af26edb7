//! One scrape: an exposition that is built, and compressed if that was asked for, as its reader takes it.

use std::collections::VecDeque;
use std::io::Write;
use std::sync::{Arc, Weak};
use std::time::Instant;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use parking_lot::Mutex;
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::metrics::{Exposition, Format, Limit, Metrics, PIECE_BYTES};
use crate::telemetry::monotonic_now;

/// Compressed bytes that are sent together.
const GZIP_PIECE_BYTES: usize = 16 * 1024;

/// Pieces built before the head of the answer is sent: an exposition that ends with the first of two is sent whole.
const PIECES_AT_FIRST: usize = 2;

/// How many scrapes may be answered at once. Clones share the places.
#[derive(Clone)]
pub(super) struct Scrapes(Option<Arc<Shared>>);

struct Shared {
    free: Arc<Semaphore>,
    /// Who has the others.
    taken: Mutex<Vec<Weak<Mutex<Kept>>>>,
}

/// A scrape's place among those that are answered at once, and its place on its connection. The first is given back with the
/// answer, or before, when its reader turns out to be slow or another scrape needs it while this one waits for its reader:
/// one that waits costs no time and must not keep others out. The second is kept to the end, because it costs memory.
#[derive(Clone)]
pub(super) struct Place(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    place: Option<OwnedSemaphorePermit>,
    _of_connection: Option<OwnedSemaphorePermit>,
    /// Since when the scrape waits for its reader.
    waits_since: Option<tokio::time::Instant>,
}

/// Why an answer was cut off.
#[derive(Debug, Error)]
pub enum BodyError {
    /// The time that the scraper allows was over.
    #[error("the time for this scrape is over")]
    TimedOut,
    /// Compressing failed.
    #[error(transparent)]
    Gzip(#[from] std::io::Error),
}

/// An exposition on its way to a reader.
pub struct Scrape {
    source: Source,
    ready: VecDeque<Result<Bytes, BodyError>>,
    is_done: bool,
    deadline: Instant,
    metrics: Metrics,
    place: Place,
}

enum Source {
    Plain(Exposition),
    /// With the one buffer that all pieces are built in.
    Gzip(Exposition, Vec<u8>, Box<GzEncoder<Vec<u8>>>),
}

// === impl Scrapes ===

impl Scrapes {
    /// At most so many at once; 0 for no limit.
    pub(super) fn at_most(scrapes: usize) -> Self {
        let shared = |scrapes: usize| {
            let free = Arc::new(Semaphore::new(scrapes.min(Semaphore::MAX_PERMITS)));
            Arc::new(Shared { free, taken: Mutex::default() })
        };
        Self((scrapes > 0).then(|| shared(scrapes)))
    }

    /// A place for a scrape, on a connection that has these places for its own; none if there is none of one kind.
    pub(super) fn take(&self, of_connection: Option<&Arc<Semaphore>>) -> Option<Place> {
        let of_connection = of_connection.map(|places| places.clone().try_acquire_owned()).transpose().ok()?;
        let Some(shared) = &self.0 else { return Some(Place::new(None, of_connection)) };
        let mut taken = shared.taken.lock();
        taken.retain(|place| place.strong_count() > 0);
        let free = shared.free.clone().try_acquire_owned().ok();
        let place = Place::new(Some(free.or_else(|| reclaimed(&taken))?), of_connection);
        taken.push(Arc::downgrade(&place.0));
        Some(place)
    }
}

/// The place of the scrape that has waited longest for its reader; none if all are being built.
fn reclaimed(taken: &[Weak<Mutex<Kept>>]) -> Option<OwnedSemaphorePermit> {
    let all: Vec<_> = taken.iter().filter_map(Weak::upgrade).collect();
    let waits_since = |kept: &Arc<Mutex<Kept>>| {
        let kept = kept.lock();
        kept.waits_since.filter(|_| kept.place.is_some())
    };
    let (_, longest) =
        all.iter().filter_map(|kept| Some((waits_since(kept)?, kept))).min_by_key(|(since, _)| *since)?;
    longest.lock().place.take()
}

// === impl Place ===

impl Place {
    fn new(place: Option<OwnedSemaphorePermit>, of_connection: Option<OwnedSemaphorePermit>) -> Self {
        Self(Arc::new(Mutex::new(Kept { place, _of_connection: of_connection, waits_since: None })))
    }

    /// A place without a limit.
    #[cfg(test)]
    pub(super) fn unlimited() -> Self {
        Self::new(None, None)
    }

    /// Notes since when the scrape waits for its reader, if it does.
    pub(super) fn waits(&self, since: Option<tokio::time::Instant>) {
        self.0.lock().waits_since = since;
    }

    /// Lets another scrape have it. Its connection still has one less.
    pub(super) fn give_back(&self) {
        self.0.lock().place = None;
    }

    fn end(&self) {
        *self.0.lock() = Kept::default();
    }
}

// === impl Scrape ===

impl Scrape {
    /// A scrape whose pieces are built until `deadline`.
    pub(super) fn new(metrics: Metrics, format: Format, gzip: bool, deadline: Instant, place: Place) -> Self {
        let exposition = metrics.exposition(format);
        let source = if gzip {
            let encoder = GzEncoder::new(Vec::new(), Compression::fast());
            Source::Gzip(exposition, Vec::with_capacity(PIECE_BYTES + PIECE_BYTES / 8), Box::new(encoder))
        } else {
            Source::Plain(exposition)
        };
        Self { source, ready: VecDeque::new(), is_done: false, deadline, metrics, place }
    }

    pub(super) fn place(&self) -> Place {
        self.place.clone()
    }

    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Builds what is sent first.
    pub(super) fn fill(&mut self) {
        while !self.is_done && self.ready.len() < PIECES_AT_FIRST {
            let piece = self.source.next();
            self.is_done = !matches!(piece, Ok(Some(_)));
            self.ready.extend(piece.map_err(BodyError::Gzip).transpose());
        }
    }

    /// All of it, if it is no more than one piece.
    pub(super) fn take_whole(&mut self) -> Option<Bytes> {
        if !self.is_done || self.ready.len() > 1 {
            return None;
        }
        match self.ready.pop_front() {
            Some(Err(error)) => {
                self.ready.push_front(Err(error));
                None
            }
            Some(Ok(piece)) => Some(piece),
            None => Some(Bytes::new()),
        }
    }

    /// The next piece; none after the last.
    pub(super) fn next(&mut self) -> Option<Result<Bytes, BodyError>> {
        if let Some(piece) = self.ready.pop_front() {
            return Some(piece);
        }
        if self.is_done {
            return None;
        }
        if monotonic_now() >= self.deadline {
            self.is_done = true;
            self.metrics.limit_reached(Limit::HttpScrapeTime);
            return Some(Err(BodyError::TimedOut));
        }
        let piece = self.source.next().transpose();
        self.is_done = piece.is_none();
        piece.map(|piece| piece.map_err(BodyError::Gzip))
    }
}

impl Drop for Scrape {
    fn drop(&mut self) {
        self.place.end();
    }
}

// === impl Source ===

impl Source {
    fn next(&mut self) -> std::io::Result<Option<Bytes>> {
        match self {
            Source::Plain(exposition) => {
                let mut piece = Vec::with_capacity(PIECE_BYTES + PIECE_BYTES / 8);
                Ok(exposition.next_piece(&mut piece).then(|| piece.into()))
            }
            Source::Gzip(exposition, piece, encoder) => {
                while encoder.get_ref().len() < GZIP_PIECE_BYTES {
                    if !exposition.next_piece(piece) {
                        encoder.try_finish()?;
                        break;
                    }
                    encoder.write_all(piece)?;
                }
                let compressed = std::mem::take(encoder.get_mut());
                Ok((!compressed.is_empty()).then(|| compressed.into()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analytics::{Analytics, AnalyticsConfig};
    use crate::event::{Event, Payload, Pid, SupervisorEvent, SupervisorRef};
    use crate::metrics::MetricsConfig;
    use crate::telemetry::{Telemetry, now};
    use std::time::Duration;

    /// Metrics with more text than is built at first.
    fn metrics() -> Metrics {
        let (telemetry, analytics) = (Telemetry::new(), Analytics::new(AnalyticsConfig::default()));
        let metrics = Metrics::new(MetricsConfig::default(), &telemetry, &analytics);
        metrics.attach().unwrap();
        for number in 0..200 {
            let supervisor = Arc::new(SupervisorRef::new(Pid::Task(number), format!("supervisor-{number}"), None));
            let payload = Payload::SupervisorInit {
                strategy: None,
                max_restarts: None,
                max_seconds: None,
                parent: None,
                found: false,
            };
            telemetry.execute(&Event::Supervisor(SupervisorEvent { supervisor, time: now(), payload }));
        }
        metrics
    }

    // One connection has few of the places, so that a single client does not keep the others out. A slow reader gives a place
    // back to the others, not to its own connection.
    #[test]
    fn a_connection_takes_no_more_than_its_share_of_the_places() {
        let scrapes = Scrapes::at_most(3);
        let of_one = Arc::new(Semaphore::new(2));
        let (first, _second) = (scrapes.take(Some(&of_one)).unwrap(), scrapes.take(Some(&of_one)).unwrap());
        assert!(scrapes.take(Some(&of_one)).is_none());
        let _other = scrapes.take(None).unwrap();
        assert!(scrapes.take(None).is_none());
        first.give_back();
        assert!(scrapes.take(Some(&of_one)).is_none());
        let _newcomer = scrapes.take(None).unwrap();
        first.end();
        assert_eq!(of_one.available_permits(), 1);
        assert!(Scrapes::at_most(0).take(Some(&of_one)).is_some());
    }

    // Where all places are taken, a newcomer gets that of the scrape that has waited longest for its reader; none of one that
    // is being built.
    #[test]
    fn a_scrape_that_waits_for_its_reader_keeps_no_other_out() {
        let (scrapes, now) = (Scrapes::at_most(3), tokio::time::Instant::now());
        let [long, short, busy] = [(); 3].map(|()| scrapes.take(None).unwrap());
        long.waits(Some(now));
        short.waits(Some(now + Duration::from_secs(1)));
        let has_place = |place: &Place| place.0.lock().place.is_some();
        let first = scrapes.take(None).unwrap();
        assert_eq!([&long, &short, &busy, &first].map(has_place), [false, true, true, true]);
        short.waits(None);
        assert!(scrapes.take(None).is_none());
        short.waits(Some(now));
        assert!(scrapes.take(None).is_some() && !has_place(&short));
    }

    // What is ready is sent; whatever would come after the scraper's time is not built any more, and counted.
    #[test]
    fn a_scrape_is_cut_off_when_the_time_of_its_scraper_is_over() {
        let metrics = metrics();
        let counted = |count: u64| {
            let line = format!("restart_exporter_limit_reached_total{{limit=\"http_scrape_time\"}} {count}\n");
            metrics.render().contains(&line)
        };
        for (gzip, number) in [(false, 1), (true, 2)] {
            let mut late = Scrape::new(metrics.clone(), Format::Text, gzip, monotonic_now(), Place::unlimited());
            if !gzip {
                late.fill();
                assert!(late.take_whole().is_none());
                (0..PIECES_AT_FIRST).for_each(|_| assert!(matches!(late.next(), Some(Ok(_)))));
            }
            assert!(matches!(late.next(), Some(Err(BodyError::TimedOut))));
            assert!(late.next().is_none(), "nothing comes after the end");
            assert!(counted(number));
        }
        let in_time = monotonic_now() + Duration::from_secs(3600);
        let mut whole = Scrape::new(metrics.clone(), Format::Text, false, in_time, Place::unlimited());
        let mut text = Vec::new();
        while let Some(piece) = whole.next() {
            text.extend_from_slice(&piece.unwrap());
        }
        assert!(text.len() > PIECES_AT_FIRST * PIECE_BYTES && text.ends_with(b"\n"));
        assert!(counted(2));
    }
}
