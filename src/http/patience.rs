//! How long a connection waits for its client: for the rest of a request's head, and for the answer to be read.

use std::future::pending;
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, Sleep, sleep_until};

use super::IDLE_TIMEOUT;
use super::delivery::{Delivered, Delivery, Verdict};
use super::respond::ResponseBody;
use super::streams;
use crate::metrics::{Limit, Metrics};
use crate::resources::{Seat, Settled};

/// Longest time from the first byte of a request to the end of its head.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Longest time that bytes of an answer may wait for their reader. All that is ready to be sent, some 100 KiB, must have
/// left within it, so that a trickle is no way to stay.
pub const READER_TIMEOUT: Duration = Duration::from_secs(30);

/// When a reader is slow: its scrape then does not count among those that are answered at once any more.
pub const SLOW_READER: Duration = Duration::from_secs(1);

/// Scrapes that are answered at once on one connection; those beyond are refused with 503.
pub const MAX_SCRAPES_OF_CONNECTION: usize = 4;

/// Long answers of one connection whose reader may be slow at the same time. With more the connection is closed, because
/// each keeps what it has built in memory.
pub const MAX_SLOW_ANSWERS: usize = 4;

/// What the two sides of a connection, the socket and the answer, know of each other. Clones share it.
#[derive(Clone)]
pub(super) struct Patience(Arc<Shared>);

struct Shared {
    seat: Arc<Seat>,
    /// Requests whose head has been read.
    requests: AtomicU64,
    /// Places for scrapes.
    scrapes: Arc<Semaphore>,
    /// The answers on their way that have to be watched.
    deliveries: Mutex<Vec<Weak<Delivery>>>,
    /// There is one more of them.
    begun: Notify,
    /// How often all that was to be sent had left.
    emptied: AtomicU64,
    empty: Notify,
}

/// A connection that is closed when its client keeps it waiting.
pub(super) struct Patient<S> {
    io: S,
    patience: Patience,
    metrics: Metrics,
    /// What had been read when the head that is awaited began.
    head: Option<(u64, Alarm)>,
    /// Where several requests share the connection, their heads are not told apart; then it must not fall silent.
    silent: Option<Alarm>,
    /// Since when something waits to be read, and whether the reader counts as slow already.
    unread: Option<(Instant, bool, Alarm)>,
}

type Alarm = Pin<Box<Sleep>>;

// === impl Patience ===

impl Patience {
    /// For the connection on this seat.
    pub(super) fn new(seat: Arc<Seat>) -> Self {
        Self(Arc::new(Shared {
            seat,
            requests: AtomicU64::new(0),
            scrapes: Arc::new(Semaphore::new(MAX_SCRAPES_OF_CONNECTION)),
            deliveries: Mutex::default(),
            begun: Notify::new(),
            emptied: AtomicU64::new(0),
            empty: Notify::new(),
        }))
    }

    /// Notes that the head of a request has been read.
    pub(super) fn request(&self) {
        self.0.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// Keeps the connection when others have to make room, until what is returned is dropped.
    pub(super) fn settle(&self) -> Settled {
        self.0.seat.settle()
    }

    /// The places that this connection has for scrapes.
    pub(super) fn scrapes(&self) -> &Arc<Semaphore> {
        &self.0.scrapes
    }

    /// Makes a body whose way to its reader is watched, where the socket alone does not tell enough: on a connection that
    /// several answers share, and if its time is limited.
    pub(super) fn deliver(&self, body: ResponseBody) -> Delivered {
        let stream = streams::current();
        if stream.is_none() && !matches!(body, ResponseBody::Scrape(_)) {
            return Delivered::new(body, None);
        }
        let delivery = Arc::new(Delivery::of(&body, stream, Instant::now()));
        let mut deliveries = self.0.deliveries.lock();
        deliveries.retain(|delivery| delivery.strong_count() > 0);
        deliveries.push(Arc::downgrade(&delivery));
        self.0.begun.notify_one();
        Delivered::new(body, Some(delivery))
    }

    /// Watches the answers on their way. Returns when the connection has to be closed.
    pub(super) async fn run_out(&self, metrics: &Metrics) {
        loop {
            let again = match self.look(Instant::now(), metrics) {
                Ok(again) => again,
                Err(why) => return tracing::debug!(why, "connection closed"),
            };
            let later = async {
                match again {
                    Some(at) => sleep_until(at).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                () = self.0.begun.notified() => {}
                () = later => {}
            }
        }
    }

    /// When to look again, or why the connection has to be closed.
    fn look(&self, now: Instant, metrics: &Metrics) -> Result<Option<Instant>, &'static str> {
        let (mut again, mut slow) = (None, 0);
        for delivery in self.deliveries() {
            match delivery.look(now) {
                Verdict::Until(at) => again = [again, at].into_iter().flatten().min(),
                Verdict::OutOfTime => {
                    metrics.limit_reached(Limit::HttpScrapeTime);
                    if !delivery.cut_off() {
                        return Err("the time of a scrape was over");
                    }
                }
                Verdict::Unread => {
                    metrics.limit_reached(Limit::HttpSlowReader);
                    return Err("an answer was not read in time");
                }
            }
            slow += usize::from(delivery.is_heavy && delivery.is_slow());
        }
        if slow > MAX_SLOW_ANSWERS {
            metrics.limit_reached(Limit::HttpSlowReader);
            return Err("too many answers were not read in time");
        }
        Ok(again)
    }

    fn deliveries(&self) -> Vec<Arc<Delivery>> {
        self.0.deliveries.lock().iter().filter_map(Weak::upgrade).collect()
    }

    /// Waits until all that was given to the connection before this call has left.
    pub(super) async fn all_read(&self) {
        let before = self.0.emptied.load(Ordering::Acquire);
        loop {
            let mut empty = pin!(self.0.empty.notified());
            empty.as_mut().enable();
            if self.0.emptied.load(Ordering::Acquire) != before {
                return;
            }
            empty.await;
        }
    }

    fn emptied(&self) {
        self.0.emptied.fetch_add(1, Ordering::Release);
        self.0.empty.notify_waiters();
    }

    fn requests(&self) -> u64 {
        self.0.requests.load(Ordering::Relaxed)
    }

    fn socket_waits(&self, since: Option<Instant>) {
        self.deliveries().iter().for_each(|delivery| delivery.socket_waits(since));
    }

    fn give_back_places(&self) {
        self.deliveries().iter().for_each(|delivery| delivery.give_back_place());
    }
}

// === impl Patient ===

impl<S> Patient<S> {
    pub(super) fn new(io: S, patience: Patience, metrics: Metrics) -> Self {
        Self { io, patience, metrics, head: None, silent: None, unread: None }
    }

    /// A connection on which several requests may be under way: it is closed when nothing has moved in either direction
    /// for [`IDLE_TIMEOUT`].
    pub(super) fn multiplexed(io: S, patience: Patience, metrics: Metrics) -> Self {
        let silent = Some(Box::pin(sleep_until(Instant::now() + IDLE_TIMEOUT)));
        Self { io, patience, metrics, head: None, silent, unread: None }
    }

    /// The client sent something, or did not.
    fn has_read(&mut self, some: bool, cx: &mut Context<'_>) -> io::Result<()> {
        if some {
            self.patience.0.seat.moved();
        }
        if let Some(alarm) = &mut self.silent {
            if some {
                alarm.as_mut().reset(Instant::now() + IDLE_TIMEOUT);
            }
            if alarm.as_mut().poll(cx).is_ready() {
                self.metrics.limit_reached(Limit::HttpIdle);
                return Err(too_slow("nothing moved on the connection for too long"));
            }
            return Ok(());
        }
        let requests = self.patience.requests();
        if self.head.as_ref().is_some_and(|(before, _)| *before != requests) {
            self.head = None;
        }
        if some {
            self.head.get_or_insert_with(|| (requests, Box::pin(sleep_until(Instant::now() + HEAD_TIMEOUT))));
        } else if let Some((_, alarm)) = &mut self.head
            && alarm.as_mut().poll(cx).is_ready()
        {
            self.metrics.limit_reached(Limit::HttpRequestHeader);
            return Err(too_slow("the head of a request took too long"));
        }
        Ok(())
    }

    /// The client does not read what waits for it.
    fn waits(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let (since, is_slow, alarm) = self.unread.get_or_insert_with(|| {
            let now = Instant::now();
            self.patience.socket_waits(Some(now));
            (now, false, Box::pin(sleep_until(now + SLOW_READER)))
        });
        if alarm.as_mut().poll(cx).is_pending() {
            return Ok(());
        }
        if !*is_slow {
            *is_slow = true;
            self.patience.give_back_places();
            alarm.as_mut().reset(*since + READER_TIMEOUT);
            if alarm.as_mut().poll(cx).is_pending() {
                return Ok(());
            }
        }
        self.metrics.limit_reached(Limit::HttpSlowReader);
        Err(too_slow("an answer was not read in time"))
    }

    /// Bytes have left.
    fn moved(&mut self, written: &Poll<io::Result<usize>>) {
        if let Poll::Ready(Ok(1..)) = written {
            self.patience.0.seat.moved();
            if let Some(alarm) = &mut self.silent {
                alarm.as_mut().reset(Instant::now() + IDLE_TIMEOUT);
            }
        }
    }

    fn written<T>(&mut self, written: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        match written {
            Poll::Pending => match self.waits(cx) {
                Ok(()) => Poll::Pending,
                Err(error) => Poll::Ready(Err(error)),
            },
            // What is written now may not be all that waits: only a flush tells that.
            ready => ready,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let read = Pin::new(&mut this.io).poll_read(cx, buf);
        let some = read.is_ready() && buf.filled().len() > before;
        match this.has_read(some, cx) {
            Ok(()) => read,
            Err(error) => Poll::Ready(Err(error)),
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.io).poll_write(cx, bytes);
        this.moved(&written);
        this.written(written, cx)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.io).poll_flush(cx);
        if flushed.is_ready() {
            if this.unread.take().is_some() {
                this.patience.socket_waits(None);
            }
            this.patience.emptied();
        }
        this.written(flushed, cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let shut = Pin::new(&mut this.io).poll_shutdown(cx);
        this.written(shut, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.io).poll_write_vectored(cx, bufs);
        this.moved(&written);
        this.written(written, cx)
    }
}

fn too_slow(message: &str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analytics::{Analytics, AnalyticsConfig};
    use crate::http::scrape::{Place, Scrape, Scrapes};
    use crate::http::streams::Streams;
    use crate::metrics::{Format, MetricsConfig};
    use crate::resources::Seats;
    use crate::telemetry::Telemetry;
    use hyper::rt::Executor;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::oneshot;

    fn patience() -> Patience {
        Patience::new(Seats::new(|| 1).try_take().unwrap().seat.clone())
    }

    fn metrics() -> Metrics {
        let analytics = Analytics::new(AnalyticsConfig::default());
        Metrics::new(MetricsConfig::default(), &Telemetry::new(), &analytics)
    }

    fn scrape(metrics: &Metrics, time: Duration, place: Place) -> ResponseBody {
        let deadline = (Instant::now() + time).into_std();
        let scrape = Scrape::new(metrics.clone(), Format::Text, false, deadline, place);
        ResponseBody::Scrape(Box::new(scrape))
    }

    fn limit(metrics: &Metrics, name: &str) -> u64 {
        let series = format!("restart_exporter_limit_reached_total{{limit=\"{name}\"}} ");
        let text = metrics.render();
        text.lines().find_map(|line| line.strip_prefix(&series)?.parse().ok()).unwrap()
    }

    // A head that has begun must end within its time, however steadily it trickles; what was read before it began, and
    // how long nothing was sent at all, does not count.
    #[tokio::test(start_paused = true)]
    async fn a_head_that_trickles_is_cut_off_and_one_that_has_ended_is_not() {
        let (metrics, patience) = (metrics(), patience());
        let (mut client, server) = tokio::io::duplex(64);
        let mut server = Patient::new(server, patience.clone(), metrics.clone());
        let wait = tokio::time::timeout(10 * HEAD_TIMEOUT, server.read_u8());
        assert!(wait.await.is_err(), "a client that has sent nothing waits for no head");

        client.write_u8(1).await.unwrap();
        server.read_u8().await.unwrap();
        patience.request();
        let wait = tokio::time::timeout(10 * HEAD_TIMEOUT, server.read_u8());
        assert!(wait.await.is_err(), "the head was read");

        let start = Instant::now();
        let trickle = tokio::spawn(async move {
            while client.write_u8(2).await.is_ok() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
        let cut_off = loop {
            if let Err(error) = server.read_u8().await {
                break error;
            }
        };
        assert_eq!((cut_off.kind(), start.elapsed().as_secs()), (io::ErrorKind::TimedOut, HEAD_TIMEOUT.as_secs()));
        assert_eq!(limit(&metrics, "http_request_header"), 1);
        drop(server);
        trickle.await.unwrap();
    }

    // Whoever does not take all that is ready within its time is cut off, even if some of it is taken all along. Long
    // before that its place among the scrapes is free again.
    #[tokio::test(start_paused = true)]
    async fn a_reader_that_trickles_gives_its_place_back_and_is_cut_off() {
        let (metrics, patience) = (metrics(), patience());
        let scrapes = Scrapes::at_most(1);
        let place = scrapes.take(None).unwrap();
        let _body = patience.deliver(scrape(&metrics, Duration::from_secs(3600), place));
        assert!(scrapes.take(None).is_none(), "its reader has not been slow");
        let (mut client, server) = tokio::io::duplex(64);
        let mut server = Patient::new(server, patience, metrics.clone());
        let start = Instant::now();
        let reader = tokio::spawn(async move {
            while client.read_u8().await.is_ok() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
        let freed = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(10)).await;
            scrapes.take(None).is_some()
        });
        let cut_off = server.write_all(&[0; 100 * 1024]).await.unwrap_err();
        assert_eq!((cut_off.kind(), start.elapsed().as_secs()), (io::ErrorKind::TimedOut, READER_TIMEOUT.as_secs()));
        assert!(freed.await.unwrap(), "a newcomer needs the place");
        assert_eq!(limit(&metrics, "http_slow_reader"), 1);
        drop(server);
        reader.await.unwrap();
    }

    // A reader that takes all that is ready in time may take its time for the next, as often as it likes.
    #[tokio::test(start_paused = true)]
    async fn a_reader_that_takes_all_in_time_is_served_for_as_long_as_it_reads() {
        let metrics = metrics();
        let (mut client, server) = tokio::io::duplex(64);
        let mut server = Patient::new(server, patience(), metrics.clone());
        let reader = tokio::spawn(async move {
            let mut piece = [0; 128];
            loop {
                tokio::time::sleep(READER_TIMEOUT / 2).await;
                if client.read_exact(&mut piece).await.is_err() {
                    return;
                }
            }
        });
        for _ in 0..10 {
            server.write_all(&[0; 128]).await.unwrap();
            server.flush().await.unwrap();
        }
        assert_eq!(limit(&metrics, "http_slow_reader"), 0);
        drop(server);
        reader.await.unwrap();
    }

    // Where requests share a connection it is closed after silence in both directions, and neither direction alone is
    // silence: not what the client sends, and not what it is sent.
    #[tokio::test(start_paused = true)]
    async fn a_shared_connection_is_closed_after_silence_alone() {
        let (mut client, server) = tokio::io::duplex(64);
        let mut server = Patient::multiplexed(server, patience(), metrics());
        let start = Instant::now();
        let almost = IDLE_TIMEOUT - Duration::from_secs(1);
        for turn in 0..6 {
            let wait = tokio::time::timeout(almost, server.read_u8());
            assert!(wait.await.is_err(), "closed after {:?}", start.elapsed());
            if turn % 2 == 0 {
                client.write_u8(1).await.unwrap();
                assert_eq!(server.read_u8().await.unwrap(), 1);
            } else {
                server.write_u8(2).await.unwrap();
                assert_eq!(client.read_u8().await.unwrap(), 2);
            }
        }
        let quiet = Instant::now();
        let closed = server.read_u8().await.unwrap_err();
        assert_eq!((closed.kind(), quiet.elapsed().as_secs()), (io::ErrorKind::TimedOut, IDLE_TIMEOUT.as_secs()));
    }

    /// A scrape whose stream nobody reads, on a connection that others share.
    async fn unread_stream(patience: &Patience, metrics: &Metrics, time: Duration) -> oneshot::Receiver<()> {
        let (begins, begun) = oneshot::channel();
        let (ended, ends) = oneshot::channel();
        let (patience, metrics) = (patience.clone(), metrics.clone());
        Streams.execute(async move {
            let _ended = ended;
            let _body = patience.deliver(scrape(&metrics, time, Place::unlimited()));
            let _ = begins.send(());
            pending().await
        });
        begun.await.unwrap();
        ends
    }

    // On a shared connection each stream is watched for itself. Its connection is closed if nothing is taken in time.
    #[tokio::test(start_paused = true)]
    async fn a_stream_that_takes_nothing_ends_its_connection() {
        let (metrics, patience, start) = (metrics(), patience(), Instant::now());
        let stream = unread_stream(&patience, &metrics, Duration::from_secs(3600)).await;
        patience.run_out(&metrics).await;
        assert_eq!(start.elapsed(), READER_TIMEOUT);
        assert_eq!(limit(&metrics, "http_slow_reader"), 1);
        drop(stream);
    }

    // A few slow readers on one connection are let be; with more it is closed, because what they do not read is memory.
    #[tokio::test(start_paused = true)]
    async fn a_connection_with_many_slow_streams_is_closed() {
        let (metrics, patience, start) = (metrics(), patience(), Instant::now());
        let mut streams = Vec::new();
        for _ in 0..=MAX_SLOW_ANSWERS {
            streams.push(unread_stream(&patience, &metrics, Duration::from_secs(3600)).await);
        }
        patience.run_out(&metrics).await;
        assert_eq!(start.elapsed(), SLOW_READER);
        assert_eq!(limit(&metrics, "http_slow_reader"), 1);
    }

    // The time of a scrape ends its stream, and its connection only if it has it for itself.
    #[tokio::test(start_paused = true)]
    async fn a_deadline_ends_a_scrape_that_waits_for_its_reader() {
        let (metrics, patience, start) = (metrics(), patience(), Instant::now());
        let time = Duration::from_secs(10);
        let stream = unread_stream(&patience, &metrics, time).await;
        tokio::select! {
            () = patience.run_out(&metrics) => panic!("the connection was closed"),
            ended = stream => assert!(ended.is_err() && start.elapsed() == time),
        }
        assert_eq!(limit(&metrics, "http_scrape_time"), 1);

        let alone = self::patience();
        let _body = alone.deliver(scrape(&metrics, time, Place::unlimited()));
        alone.run_out(&metrics).await;
        assert_eq!((start.elapsed(), limit(&metrics, "http_scrape_time")), (2 * time, 2));
    }
}
