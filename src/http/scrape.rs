//! One scrape: an exposition that is built, and compressed if that was asked for, as its reader takes it.

use std::collections::VecDeque;
use std::io::Write;
use std::sync::Arc;
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
pub(super) struct Scrapes(Option<Arc<Semaphore>>);

/// A scrape's places among those that are answered at once, of all and of its connection: given back with the answer, or
/// before, when its reader turns out to be slow, because one that waits costs nothing and must not keep others out.
#[derive(Clone)]
pub(super) struct Place(Arc<Mutex<Vec<OwnedSemaphorePermit>>>);

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
        Self((scrapes > 0).then(|| Arc::new(Semaphore::new(scrapes.min(Semaphore::MAX_PERMITS)))))
    }

    /// A place for a scrape on a connection that has these places; none if one of the two kinds is used up.
    pub(super) fn take(&self, of_connection: Option<&Arc<Semaphore>>) -> Option<Place> {
        // The own ones first: a connection that has none left takes none from the others.
        let kinds = of_connection.into_iter().chain(&self.0);
        let permits: Result<_, _> = kinds.map(|places| places.clone().try_acquire_owned()).collect();
        Some(Place::new(permits.ok()?))
    }
}

// === impl Place ===

impl Place {
    /// The places of one scrape. Clones share them.
    pub(super) fn new(permits: Vec<OwnedSemaphorePermit>) -> Self {
        Self(Arc::new(Mutex::new(permits)))
    }

    pub(super) fn give_back(&self) {
        self.0.lock().clear();
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
        self.place.give_back();
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

    // One connection has few of the places, so that a single client does not keep the others out.
    #[test]
    fn a_connection_takes_no_more_than_its_share_of_the_places() {
        let scrapes = Scrapes::at_most(3);
        let of_one = Arc::new(Semaphore::new(2));
        let (first, _second) = (scrapes.take(Some(&of_one)).unwrap(), scrapes.take(Some(&of_one)).unwrap());
        assert!(scrapes.take(Some(&of_one)).is_none());
        let _other = scrapes.take(None).unwrap();
        assert!(scrapes.take(None).is_none());
        first.give_back();
        assert!(scrapes.take(Some(&of_one)).is_some());
        assert!(Scrapes::at_most(0).take(Some(&of_one)).is_some());
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
            let mut late = Scrape::new(metrics.clone(), Format::Text, gzip, monotonic_now(), Place::new(Vec::new()));
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
        let mut whole = Scrape::new(metrics.clone(), Format::Text, false, in_time, Place::new(Vec::new()));
        let mut text = Vec::new();
        while let Some(piece) = whole.next() {
            text.extend_from_slice(&piece.unwrap());
        }
        assert!(text.len() > PIECES_AT_FIRST * PIECE_BYTES && text.ends_with(b"\n"));
        assert!(counted(2));
    }
}
