//! Live events: what the supervisors tell, as a stream of server-sent events for each viewer.
//!
//! The handler on the bus puts each event into one ring that all viewers share, and wakes them; a viewer is no more than a
//! place in that ring. So a viewer that is slow costs no memory and keeps nobody waiting. When the ring has gone on without
//! it, it is told how many events it missed, and goes on with the oldest that is kept. An event becomes JSON when the first
//! viewer takes it, once for all, and never in the emitter.
//!
//! The id of an event is `<start>-<number>`: numbers run from 1 since this exporter started, and `start` tells
//! one exporter's numbers from those of the one before it.

mod ring;
mod stream;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{HeaderName, HeaderValue};
use hyper::{Request, StatusCode};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::patience::Patience;
use super::respond::{self, Reply, ResponseBody};
use super::router::Query;
use super::shapes::{self, LastOutput};
use super::{App, api};
use crate::event::{ChildRef, Event, EventKind, ExitReason, Payload, SupervisorRef};
use crate::metrics::{Limit, Metrics};
use crate::resources::Settled;
use crate::telemetry::{AttachError, Handler, Telemetry, now};
use crate::wire;
use ring::Ring;
pub use stream::LiveStream;

/// The id of the handler on the bus.
const HANDLER_ID: &str = "live";

/// Viewers at once, and no more than three quarters of the connections there may be; those beyond are refused with 503.
/// A viewer keeps its connection when others make room, and scrapes always find one.
pub const MAX_VIEWERS: usize = 384;

/// About how much memory the events kept for viewers may take: more than 10,000 events without last words.
pub const LIVE_BYTES: usize = 16 * 1024 * 1024;

/// What an event takes beside its texts, as it is and as JSON.
const EVENT_BYTES: usize = 1024;

/// How often a text of an event is there: as it is and as JSON, for those who may see the last words and those who may not.
const COPIES: usize = 3;

/// After so long without an event a viewer is sent its place, which keeps proxies from closing the connection and tells
/// both sides that the other is there.
pub const HEARTBEAT: Duration = Duration::from_secs(15);

/// How long a viewer that has seen everything rests before it looks again: in a storm, events leave together.
const REST: Duration = Duration::from_millis(50);

/// How long a browser waits before it connects again.
const RETRY: Duration = Duration::from_secs(1);

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Proxies of nginx's kind otherwise keep events back until they have many.
const NO_BUFFERING: (HeaderName, HeaderValue) =
    (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));

/// The events that viewers are told of. Clones share them.
#[derive(Clone)]
pub(super) struct Live {
    shared: Arc<Shared>,
    /// Not in what is shared: the bus has that, and metrics have the bus.
    metrics: Metrics,
}

/// Ends the streams of a connection: its server closes.
#[derive(Clone)]
pub(super) struct Closing(pub(super) watch::Receiver<()>);

struct Shared {
    /// When counting began, in milliseconds since the Unix epoch.
    start: u64,
    ring: Mutex<Ring<Arc<Told>>>,
    arrived: Notify,
    viewers: AtomicUsize,
}

/// An event, and how it is written for those who may see the last words and for those who may not.
struct Told {
    event: Event,
    shown: OnceLock<Bytes>,
    hidden: OnceLock<Bytes>,
}

/// Room for one viewer, given back when dropped.
struct Seat {
    live: Live,
    /// Its connection makes no room for others meanwhile; none on a connection of another server.
    _settled: Option<Settled>,
}

/// Where a viewer wants to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// After the event with this number.
    After(u64),
    /// At the beginning, and it should know that what it saw was told by another exporter.
    Anew,
}

// === impl Live ===

impl Live {
    pub(super) fn new(metrics: Metrics) -> Self {
        let start = now().unix_millis();
        let ring = Mutex::new(Ring::new(LIVE_BYTES));
        let shared = Shared { start, ring, arrived: Notify::new(), viewers: AtomicUsize::new(0) };
        Self { shared: Arc::new(shared), metrics }
    }

    pub(super) fn attach(&self, telemetry: &Telemetry) -> Result<(), AttachError> {
        let kinds = [&EventKind::SUPERVISOR[..], &[EventKind::Mark]].concat();
        telemetry.attach_shared(HANDLER_ID, &kinds, self.shared.clone())
    }

    /// The number of the newest event; 0 before the first.
    pub(super) fn newest(&self) -> u64 {
        self.shared.ring.lock().newest()
    }

    /// The id of the event with this number.
    pub(super) fn id(&self, number: u64) -> String {
        format!("{}-{number}", self.shared.start)
    }

    /// Where a viewer begins that has seen the event with this id; none if it is no id.
    fn place(&self, id: &str) -> Option<Place> {
        let (start, number) = id.split_once('-')?;
        let (start, number) = (start.parse::<u64>().ok()?, number.parse().ok()?);
        let is_ours = start == self.shared.start && number <= self.newest();
        Some(if is_ours { Place::After(number) } else { Place::Anew })
    }

    /// Room for one more viewer, if there are fewer than `most`.
    fn seat(&self, most: usize, patience: Option<&Patience>) -> Option<Seat> {
        let sit = |viewers| (viewers < most).then_some(viewers + 1);
        self.shared.viewers.fetch_update(Ordering::Relaxed, Ordering::Relaxed, sit).ok()?;
        self.metrics.live_viewer_came();
        Some(Seat { live: self.clone(), _settled: patience.map(Patience::settle) })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.live.shared.viewers.fetch_sub(1, Ordering::Relaxed);
        self.live.metrics.live_viewer_left();
    }
}

impl Handler for Shared {
    fn handle(&self, event: &Event) {
        let weight = EVENT_BYTES + COPIES * text_bytes(event);
        let told = Told { event: event.clone(), shown: OnceLock::new(), hidden: OnceLock::new() };
        self.ring.lock().push(Arc::new(told), weight);
        self.arrived.notify_waiters();
    }
}

impl Told {
    /// The event as it is sent, made when it is first asked for.
    fn frame(&self, live: &Live, number: u64, output: LastOutput) -> &Bytes {
        let frame = match output {
            LastOutput::Shown => &self.shown,
            LastOutput::Hidden => &self.hidden,
        };
        frame.get_or_init(|| {
            let shape = match &self.event {
                Event::Supervisor(event) => Some(shapes::live_event(number, event, output)),
                Event::Mark(mark) => Some(shapes::live_mark(number, mark)),
                // Not what is attached to.
                Event::HandlerFailure(_) | Event::Span(_) | Event::Node(_) => None,
            };
            let data = shape.map_or_else(String::new, |shape| format!("data: {}\n", wire::json(&shape)));
            format!("id: {}\n{data}\n", live.id(number)).into()
        })
    }
}

/// The bytes of all texts of an event, as JSON writes them.
fn text_bytes(event: &Event) -> usize {
    let Event::Supervisor(event) = event else { return 0 };
    let SupervisorRef { name, node, .. } = &*event.supervisor;
    let own = written(name) + node.as_deref().map_or(0, written);
    let of = |child: &ChildRef| written(&child.id) + written(&child.label);
    own + match &event.payload {
        Payload::ChildTerminate { child, reason, last_output, .. }
        | Payload::ChildStartError { child, reason, last_output, .. } => {
            let output = last_output.iter().flat_map(|lines| lines.iter()).map(|line| written(line));
            of(child) + reason_bytes(reason) + output.sum::<usize>()
        }
        Payload::ChildStart { child, .. }
        | Payload::ChildRestart { child, .. }
        | Payload::ChildStop { child, .. }
        | Payload::ChildPhase { child, .. } => of(child),
        Payload::ChildAggregate { child, .. } => child.as_deref().map_or(0, of),
        Payload::SupervisorTerminate { reason, .. } => reason.detail().map_or(0, |detail| written(detail)),
        Payload::SupervisorInit { parent, .. } => parent.as_deref().map_or(0, written),
        Payload::SupervisorConfig { parent, children, .. } => {
            parent.as_deref().map_or(0, written) + children.iter().map(|child| of(child)).sum::<usize>()
        }
    }
}

fn reason_bytes(reason: &ExitReason) -> usize {
    match reason {
        ExitReason::Error(detail) | ExitReason::Shutdown(Some(detail)) => written(detail),
        ExitReason::Panic(panic) => written(&panic.message) + panic.location.as_deref().map_or(0, written),
        _ => 0,
    }
}

/// Bytes of a text in JSON: a control character becomes six.
fn written(text: &str) -> usize {
    text.bytes().map(|byte| if byte < b' ' { 6 } else { 1 + usize::from(matches!(byte, b'"' | b'\\')) }).sum()
}

// === The route ===

/// `/api/v1/events`
pub(super) fn events(app: &App, request: &Request<Incoming>, query: &Query) -> Reply {
    let live = &app.live;
    let seen = request.headers().get(LAST_EVENT_ID).map(|id| id.to_str().unwrap_or_default());
    let place = match (seen, query.get("after")) {
        // A browser that comes again asks for the same address as at first, and what it has seen since stands in the header.
        (Some(id), _) => live.place(id).unwrap_or(Place::Anew),
        (None, None) => Place::After(live.newest()),
        (None, Some(id)) => match live.place(id) {
            Some(place) => place,
            None => return api::bad_data(&format!("invalid parameter \"after\": {id:?} is not the id of an event")),
        },
    };
    let extensions = request.extensions();
    let (patience, closing) = (extensions.get::<Patience>().cloned(), extensions.get::<Closing>().cloned());
    let most = MAX_VIEWERS.min(app.seats.most() * 3 / 4);
    let Some(seat) = live.seat(most, patience.as_ref()) else {
        app.metrics.limit_reached(Limit::LiveViewers);
        return respond::text(StatusCode::SERVICE_UNAVAILABLE, "too many viewers at once, try again later");
    };
    let stream = LiveStream::new(seat, place, query.last_output(), patience, closing);
    let mut reply = respond::full(StatusCode::OK, "text/event-stream", Bytes::new());
    *reply.body_mut() = ResponseBody::Live(stream);
    let (name, value) = NO_BUFFERING;
    reply.headers_mut().insert(name, value);
    reply
}
