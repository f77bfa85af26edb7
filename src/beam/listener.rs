//! The sockets: one task a connection, which reads frames, hands them to the session, and acknowledges.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, sleep, timeout};

use super::frame::MAX_FRAME_BYTES;
use super::message::{self, Hello, Message};
use super::session::{HEARTBEAT, Refusal, SILENCE, Welcomed};
use super::{HELLO_TIME, Shared, Socket, TICK};
use crate::event::NodeLimit;
use crate::resources::{self, Seat, Seats, Seldom};
use crate::telemetry::now;

/// Longest hello, in bytes: who has not said who he is gets no more memory than this.
const MAX_HELLO_BYTES: usize = 8 * 1024;

/// Bytes that are read at a time.
const READ_BYTES: usize = 64 * 1024;

/// Events after which an acknowledgement is due, and the time.
const ACK_EVENTS: u64 = 1000;
const ACK_TIME: Duration = Duration::from_secs(1);

/// How long after the failure of an `accept` the next is tried: the usual cause is that descriptors are used up.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Who is connected.
pub(super) struct Connections {
    seats: Seats,
    numbers: AtomicU64,
    /// Peers that were not let in, as the log tells of them: they may be back at once, again and again.
    refused: Mutex<Seldom>,
}

/// A connection.
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// The frames that come from a peer.
struct Frames<R> {
    reader: R,
    /// Memory that is used again for each frame.
    buffer: Vec<u8>,
    /// Where in the buffer the next frame begins.
    start: usize,
}

/// Why a connection ended.
enum End {
    Closed,
    Bye,
    Refused(Refusal),
    TooLong {
        announced: usize,
        limit: usize,
    },
    NoHello,
    Silent,
    /// It had to make room.
    Crowded,
    Failed(io::Error),
}

// === impl Connections ===

impl Connections {
    pub(super) fn new(limit: usize) -> Self {
        let seats = Seats::new(move || resources::connections().min(limit));
        Self { seats, numbers: AtomicU64::new(0), refused: Mutex::default() }
    }
}

pub(super) async fn serve(shared: &Arc<Shared>, socket: Socket, stopped: impl Future<Output = ()>) {
    let mut stopped = pin!(stopped);
    let stop = watch::Sender::new(false);
    let mut connections = JoinSet::new();
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut changes = pin!(shared.connections.seats.follow_changes());
    loop {
        let accepted = tokio::select! {
            () = &mut stopped => break,
            () = &mut changes => break,
            accepted = accept(&socket) => accepted,
            Some(_) = connections.join_next() => continue,
            _ = ticks.tick() => {
                shared.nodes.tick(now(), &mut |event| shared.telemetry.execute(event));
                continue;
            }
        };
        let stream = match accepted {
            Ok(stream) => stream,
            Err(error) => {
                if let Some(untold) = resources::accept_failed(&error) {
                    tracing::warn!(err = %error, untold, "a node cannot be accepted");
                }
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let seats = &shared.connections.seats;
        let taken = match seats.try_take() {
            Some(taken) => taken,
            None => {
                shared.limit(NodeLimit::Connections);
                // Who has not said hello makes room: a real node says it at once.
                let Some(taken) = seats.take_from_most_silent().await else { continue };
                taken
            }
        };
        let (shared, mut stop) = (shared.clone(), stop.subscribe());
        connections.spawn(async move {
            let peer = stream.peer();
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => {}
                () = connection(&shared, stream, &peer, &taken.seat) => {}
            }
            drop(taken);
        });
    }
    stop.send_replace(true);
    while connections.join_next().await.is_some() {}
}

async fn accept(socket: &Socket) -> io::Result<Stream> {
    match socket {
        Socket::Tcp(listener) => {
            let (stream, _) = listener.accept().await?;
            // An acknowledgement should leave at once, not wait for more.
            let _ = stream.set_nodelay(true);
            Ok(Stream::Tcp(stream))
        }
        Socket::Unix(listener) => Ok(Stream::Unix(listener.accept().await?.0)),
    }
}

async fn connection(shared: &Shared, stream: Stream, peer: &str, seat: &Arc<Seat>) {
    let number = shared.connections.numbers.fetch_add(1, Ordering::Relaxed);
    let token_is_wanted = matches!(stream, Stream::Tcp(_));
    let (reader, mut writer) = tokio::io::split(stream);
    let mut frames = Frames { reader, buffer: Vec::new(), start: 0 };
    let welcomed = tokio::select! {
        welcomed = timeout(HELLO_TIME, hello(shared, &mut frames, number, token_is_wanted, peer)) => {
            welcomed.unwrap_or(Err(End::NoHello))
        }
        () = seat.told_to_leave() => Err(End::Crowded),
    };
    let (node, end) = match welcomed {
        Err(end) => (None, end),
        Ok(welcomed) => {
            let _settled = seat.settle();
            let end = tokio::select! {
                end = converse(shared, &mut frames, &mut writer, &welcomed, number) => end,
                () = seat.told_to_leave() => End::Crowded,
            };
            if matches!(end, End::Bye) {
                let mut bus = |event: &_| shared.telemetry.execute(event);
                welcomed.node.lock().said_bye(number, now(), &mut bus);
            }
            welcomed.node.lock().closed(number);
            (Some(welcomed.name), end)
        }
    };
    let node = node.as_deref();
    let closed = |why: &dyn std::fmt::Display| {
        if node.is_some() {
            tracing::warn!(node, peer, err = %why, "node disconnected");
        } else if let Some(untold) = shared.connections.refused.lock().one_more(Instant::now()) {
            tracing::warn!(peer, err = %why, untold, "node not let in");
        }
    };
    match end {
        End::Closed | End::Bye if node.is_some() => tracing::info!(node, peer, "node disconnected"),
        // Whoever looks whether somebody listens.
        End::Closed | End::Bye => {}
        End::Refused(refusal) => closed(&refusal),
        End::Failed(error) => closed(&error),
        End::TooLong { announced, limit } => {
            shared.limit(NodeLimit::FrameSize);
            closed(&format_args!("a frame of {announced} bytes, at most {limit} are read"));
        }
        End::NoHello => {
            shared.limit(NodeLimit::HelloTime);
            closed(&format_args!("no hello within {HELLO_TIME:?}"));
        }
        End::Silent => {
            shared.limit(NodeLimit::Silence);
            closed(&format_args!("silent for {SILENCE:?}"));
        }
        End::Crowded => closed(&"there are too many connections, and it had to make room"),
    }
}

/// The first message.
async fn hello<R: AsyncRead + Unpin>(
    shared: &Shared,
    frames: &mut Frames<R>,
    number: u64,
    token_is_wanted: bool,
    peer: &str,
) -> Result<Welcomed, End> {
    let frame = frames.next(MAX_HELLO_BYTES).await?;
    let Message::Hello(hello) = message::read(frame).map_err(Refusal::from)? else {
        return Err(Refusal::Order("something else than a hello comes first").into());
    };
    if token_is_wanted && let Some(token) = &shared.token {
        match token.is(hello.token) {
            Ok(true) => {}
            Ok(false) => return Err(Refusal::Token.into()),
            Err(error) => return Err(Refusal::TokenFile(error.to_string()).into()),
        }
    }
    let welcomed = shared.nodes.hello(&hello, number, now(), &mut |event| shared.telemetry.execute(event))?;
    let Hello { agent, otp, elixir, labels, .. } = &hello;
    let labels = labels.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(",");
    let labels = (!labels.is_empty()).then_some(labels);
    tracing::info!(node = &*welcomed.name, peer, %agent, %otp, elixir = elixir.as_deref(), labels, "node connected");
    Ok(welcomed)
}

/// All other messages, until the connection ends.
async fn converse<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
    shared: &Shared,
    frames: &mut Frames<R>,
    writer: &mut W,
    welcomed: &Welcomed,
    number: u64,
) -> End {
    let heartbeat_ms = HEARTBEAT.as_millis() as i64;
    let welcome = message::welcome(welcomed.resume_after, heartbeat_ms, MAX_FRAME_BYTES as i64);
    if let Err(end) = send(writer, &welcome).await {
        return end;
    }
    let mut acked = welcomed.resume_after;
    let mut ack_at = Instant::now() + ACK_TIME;
    let mut heard = Instant::now();
    loop {
        // Cancelling is safe: what was read stays in the buffer.
        let frame = tokio::select! {
            frame = frames.next(MAX_FRAME_BYTES) => match frame {
                Ok(frame) => Some(frame),
                Err(end) => return end,
            },
            // A peer that connects again and again has the memory of one connection.
            () = welcomed.replaced.notified() => return Refusal::Replaced.into(),
            () = tokio::time::sleep_until(ack_at) => None,
        };
        if let Some(frame) = frame {
            let mut bus = |event: &_| shared.telemetry.execute(event);
            let message = match message::read(frame) {
                Ok(Message::Bye(_)) => return End::Bye,
                Ok(message) => message,
                Err(error) => {
                    welcomed.node.lock().misspoke(number, now(), &mut bus);
                    return Refusal::from(error).into();
                }
            };
            if let Err(refusal) = welcomed.node.lock().message(message, number, now(), &mut bus) {
                return refusal.into();
            }
            heard = Instant::now();
        } else if heard.elapsed() > SILENCE {
            return End::Silent;
        }
        let (seq, wants_snapshot) = {
            let mut node = welcomed.node.lock();
            (node.last_seq(), node.wants_snapshot(now()))
        };
        if wants_snapshot && let Err(end) = send(writer, &message::resync()).await {
            return end;
        }
        let is_time = ack_at <= Instant::now();
        if seq.saturating_sub(acked) >= ACK_EVENTS || is_time && seq > acked {
            if let Err(end) = send(writer, &message::ack(seq)).await {
                return end;
            }
            acked = seq;
        }
        if is_time || acked == seq {
            ack_at = Instant::now() + ACK_TIME;
        }
    }
}

/// Writes a message; a peer that does not read is as good as silent.
async fn send(writer: &mut (impl AsyncWrite + Unpin), message: &[u8]) -> Result<(), End> {
    match timeout(SILENCE, writer.write_all(message)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(End::of(error)),
        Err(_) => Err(End::Silent),
    }
}

// === impl Frames ===

impl<R: AsyncRead + Unpin> Frames<R> {
    /// The next frame, without its length. May be cancelled and called again.
    async fn next(&mut self, limit: usize) -> Result<&[u8], End> {
        loop {
            let unread = &self.buffer[self.start..];
            if let Some((length, rest)) = unread.split_first_chunk() {
                let length = u32::from_be_bytes(*length) as usize;
                if length > limit {
                    return Err(End::TooLong { announced: length, limit });
                }
                if rest.len() >= length {
                    let begin = self.start + 4;
                    self.start = begin + length;
                    return Ok(&self.buffer[begin..self.start]);
                }
            }
            self.fill(limit).await?;
        }
    }

    /// Reads more. Room is made for what may come at once, never for what is announced.
    async fn fill(&mut self, limit: usize) -> Result<(), End> {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        if self.buffer.is_empty() && self.buffer.capacity() > 4 * READ_BYTES {
            self.buffer = Vec::new();
        }
        self.buffer.reserve(limit.min(READ_BYTES));
        match self.reader.read_buf(&mut self.buffer).await {
            Ok(0) => Err(End::Closed),
            Ok(_) => Ok(()),
            Err(error) => Err(End::of(error)),
        }
    }
}

// === impl End ===

impl End {
    fn of(error: io::Error) -> Self {
        match error.kind() {
            // How a node that is killed says goodbye.
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => End::Closed,
            _ => End::Failed(error),
        }
    }
}

impl From<Refusal> for End {
    fn from(refusal: Refusal) -> Self {
        End::Refused(refusal)
    }
}

// === impl Stream ===

impl Stream {
    fn peer(&self) -> String {
        match self {
            Stream::Tcp(stream) => stream.peer_addr().map_or_else(|_| "gone".into(), |address| address.to_string()),
            Stream::Unix(_) => "unix".into(),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Stream::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
