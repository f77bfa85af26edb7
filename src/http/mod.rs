//! The HTTP endpoint: `/metrics` for Prometheus, JSON for scripts, pages for people.
//!
//! [`ROUTES`] is the list of everything that is served. Everything a client can make large or slow has a limit: the number
//! of connections, the size of a request's head and body, the time to send it; each limit has a counter.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::{Service, service_fn};
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::control::{Changes, Control, Step};
use crate::metrics::{Limit, Metrics};
use crate::resources::{self, Seats, Taken};
use crate::telemetry::{AttachError, Telemetry};
use access::{Admission, Channel, Entered};
use listener::Connection;
use live::{Closing, Live};
use page::Snapshots;
use patience::{Patience, Patient};
use scrape::Scrapes;
use streams::Streams;

mod accept;
mod access;
mod admin;
mod api;
mod commands;
mod delivery;
mod listener;
mod live;
mod metrics;
mod page;
mod pages;
mod patience;
mod respond;
mod router;
mod scrape;
mod shapes;
mod streams;

pub use access::{
    Access, HANDSHAKE_TIMEOUT, HTTPS_ONLY, MAX_WEB_CONFIG_BYTES, Peer, Viewer, WebConfigError, certificate_fault,
    is_self_signed,
};
pub use commands::command;
pub use listener::{Listener, SocketFile, bind_unix};
pub use live::{HEARTBEAT, LIVE_BYTES, LiveStream, MAX_VIEWERS};
pub use metrics::MAX_SCRAPE_TIME;
pub use patience::{HEAD_TIMEOUT, MAX_SCRAPES_OF_CONNECTION, MAX_SLOW_ANSWERS, READER_TIMEOUT, SLOW_READER};
pub use respond::ResponseBody;
pub use router::{MAX_BODY_BYTES, NOT_FOUND, ROUTES, Route};
pub use scrape::{BodyError, Scrape};

/// Open connections of all listeners together, and fewer where few files may be open; for a client beyond them, the one on
/// which nothing has moved for longest is closed.
pub const MAX_CONNECTIONS: usize = 512;

/// How much of the head of a request may wait for its end, in bytes; beyond, the answer is 431. A head of twice as many
/// bytes is always too long, and one in between may pass if its end came with the last piece read.
pub const MAX_HEAD_BYTES: usize = 64 * 1024;

/// Requests that are answered at the same time on one connection that speaks HTTP/2.
pub const MAX_STREAMS: u32 = 32;

/// Longest time a client may stay silent between two requests: longer than scrapers usually pause.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(150);

/// Scrapes that may be answered at once unless told otherwise, as in exporters of Prometheus' family.
pub const MAX_REQUESTS: usize = 40;

/// Longest time that requests which are being answered at the end may still take.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// How long accepting pauses after an error such as "too many open files": trying again at once would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the routes answer from. Clones share it.
#[derive(Clone)]
pub struct App {
    pub(super) metrics: Metrics,
    pub(super) control: Control,
    live: Live,
    snapshots: Snapshots,
    pub(super) ready: Arc<AtomicBool>,
    /// May requests change something?
    pub(super) admin: bool,
    access: Access,
    pub(super) reload: Arc<OnceLock<Box<dyn Reload>>>,
    scrapes: Scrapes,
    seats: Seats,
    telemetry_path: Arc<str>,
}

/// An answer that takes time.
pub type Later<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What `POST /-/reload` does.
pub trait Reload: Send + Sync {
    /// Reads the file again and does what it says: what was done, or why nothing was touched.
    fn reload(&self) -> Later<Result<Changes, String>>;

    /// Reads the file again: what would be done.
    fn plan(&self) -> Later<Result<Vec<Step>, String>>;
}

// === impl App ===

impl App {
    /// The application over these metrics and this control; the metrics are served under `telemetry_path`.
    pub fn new(metrics: Metrics, control: Control, telemetry_path: impl Into<Arc<str>>) -> Self {
        let names: Vec<_> = ROUTES.iter().map(|route| route.name).chain([NOT_FOUND]).collect();
        metrics.http_handlers(&names);
        let telemetry_path = telemetry_path.into();
        Self {
            live: Live::new(metrics.clone()),
            snapshots: Snapshots::default(),
            metrics,
            control,
            ready: Arc::default(),
            admin: false,
            access: Access::open(),
            reload: Arc::default(),
            scrapes: Scrapes::at_most(MAX_REQUESTS),
            seats: Seats::new(|| resources::connections().min(MAX_CONNECTIONS)),
            telemetry_path,
        }
    }

    /// Shows viewers all supervisor events of a bus from now on. Attach it last: who hears of an event and asks then is told
    /// of it. Attaching again changes nothing.
    ///
    /// # Errors
    /// [`AttachError`] if another application is attached to the bus.
    pub fn attach(&self, telemetry: &Telemetry) -> Result<(), AttachError> {
        self.live.attach(telemetry)
    }

    /// Whether requests may change something; at first they may not.
    pub fn admin_api(mut self, admin: bool) -> Self {
        self.admin = admin;
        self
    }

    /// How many scrapes may be answered at once, [`MAX_REQUESTS`] at first; 0 for no limit. Those beyond are refused with
    /// 503. One whose reader is slow does not count.
    pub fn max_requests(mut self, scrapes: usize) -> Self {
        self.scrapes = Scrapes::at_most(scrapes);
        self
    }

    /// Who may come in; at first everybody.
    pub fn access(mut self, access: Access) -> Self {
        self.access = access;
        self
    }

    /// Whether connections are encrypted, and whether HTTP/2 may then be spoken.
    pub fn tls(&self) -> (bool, bool) {
        self.access.tls()
    }

    /// What `POST /-/reload` does. Only the first call has an effect.
    pub fn on_reload(&self, reload: impl Reload + 'static) {
        drop(self.reload.set(Box::new(reload)));
    }

    /// Notes how the configuration was loaded, for the metrics.
    pub fn config_reloaded(&self, successful: bool, time: SystemTime) {
        self.metrics.config_reloaded(successful, time);
    }

    /// Whether `/-/ready` may answer 200: the start of the supervisors has begun, and they are not being stopped. At first it
    /// may not.
    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Release);
    }

    /// The service itself, for programs that run a hyper server of their own. A request may say who asks by a [`Viewer`]
    /// among its extensions.
    pub fn service(
        &self,
    ) -> impl Service<Request<Incoming>, Response = Response<ResponseBody>, Error = Infallible, Future: Send> + use<>
    {
        let app = self.clone();
        service_fn(move |request| {
            let app = app.clone();
            async move { Ok(app.answer(request, None).await) }
        })
    }

    /// Serves a listener until `shutdown`, then lets requests that are being answered finish for [`DRAIN_TIMEOUT`].
    pub async fn serve(&self, listener: impl Into<Listener>, shutdown: impl Future<Output = ()>) {
        let listener = listener.into();
        let (graceful, closing) = (GracefulShutdown::new(), watch::Sender::new(()));
        let mut shutdown = std::pin::pin!(shutdown);
        let mut changes = std::pin::pin!(self.seats.follow_changes());
        loop {
            let accepted = tokio::select! {
                () = &mut shutdown => break,
                () = &mut changes => break,
                accepted = self.accept(&listener) => accepted,
            };
            if let Some((stream, taken)) = accepted {
                self.spawn_connection(stream, taken, graceful.watcher(), closing.subscribe());
            }
        }
        drop((listener, closing));
        if timeout(DRAIN_TIMEOUT, graceful.shutdown()).await.is_err() {
            tracing::warn!("requests were still being answered when the endpoint stopped");
        }
    }

    /// The next connection, which has a seat; none after an error of the system.
    async fn accept(&self, listener: &Listener) -> Option<(Connection, Taken)> {
        let stream = match listener.accept().await {
            Ok(stream) => stream,
            Err(error) => {
                if let Some(untold) = resources::accept_failed(&error) {
                    tracing::warn!(err = %error, untold, "cannot accept a connection");
                }
                sleep(ACCEPT_PAUSE).await;
                return None;
            }
        };
        if let Some(taken) = self.seats.try_take() {
            return Some((stream, taken));
        }
        self.metrics.limit_reached(Limit::HttpConnections);
        Some((stream, self.seats.take_from_most_silent().await?))
    }

    fn spawn_connection(&self, stream: Connection, taken: Taken, watcher: Watcher, mut closing: watch::Receiver<()>) {
        let app = self.clone();
        tokio::spawn(async move {
            let patience = Patience::new(taken.seat.clone());
            let served = async {
                let entered = tokio::select! {
                    entered = app.access.enter(stream, &app.metrics) => entered,
                    // Who has not come in yet need not be waited for.
                    _ = closing.changed() => None,
                };
                if let Some(entered) = entered
                    && let Err(error) = app.converse(entered, patience.clone(), watcher, closing).await
                {
                    if error.is_parse_too_large() {
                        app.metrics.limit_reached(Limit::HttpRequestHeader);
                    } else if error.is_timeout() {
                        app.metrics.limit_reached(Limit::HttpIdle);
                    }
                    tracing::debug!(err = %error, "connection ended");
                }
            };
            tokio::select! {
                () = served => {}
                () = patience.run_out(&app.metrics) => {}
                () = taken.seat.told_to_leave() => tracing::debug!("connection closed to make room"),
            }
        });
    }

    /// Answers what comes on a connection until it ends.
    async fn converse(
        &self,
        entered: Entered,
        patience: Patience,
        watcher: Watcher,
        closing: watch::Receiver<()>,
    ) -> hyper::Result<()> {
        let Entered { stream, h2, channel } = entered;
        let (app, told) = (self.clone(), patience.clone());
        let service = service_fn(move |mut request: Request<Incoming>| {
            let (app, patience, closing) = (app.clone(), told.clone(), Closing(closing.clone()));
            let channel = channel.clone();
            async move {
                patience.request();
                request.extensions_mut().insert(patience.clone());
                request.extensions_mut().insert(closing);
                let reply = app.answer(request, Some(&channel)).await;
                Ok::<_, Infallible>(reply.map(|body| patience.deliver(body)))
            }
        });
        if h2 {
            let stream = Patient::multiplexed(stream, patience, self.metrics.clone());
            let connection = http2::Builder::new(Streams)
                .timer(TokioTimer::new())
                .max_concurrent_streams(MAX_STREAMS)
                .max_header_list_size(MAX_HEAD_BYTES as u32)
                .serve_connection(TokioIo::new(stream), service);
            return watcher.watch(connection).await;
        }
        let stream = Patient::new(stream, patience, self.metrics.clone());
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            // It begins to run with the end of the answer before.
            .header_read_timeout(IDLE_TIMEOUT)
            .max_buf_size(MAX_HEAD_BYTES)
            .serve_connection(TokioIo::new(stream), service);
        watcher.watch(connection).await
    }

    async fn answer(&self, mut request: Request<Incoming>, channel: Option<&Channel>) -> Response<ResponseBody> {
        let _in_flight = self.metrics.http_request_in_flight();
        let depends_on_viewer = router::depends_on_viewer(self, request.uri().path());
        let Admission { headers, outcome } =
            self.access.admit(&request, channel, depends_on_viewer, &self.metrics).await;
        let (handler, mut reply) = match outcome {
            Ok(viewer) => {
                request.extensions_mut().insert(viewer);
                router::answer(self, request).await
            }
            Err(reply) => (router::name(self, request.uri().path()), reply),
        };
        headers.add_to(&mut reply);
        self.metrics.http_request(handler, reply.status().as_u16());
        reply
    }

    /// Where the metrics are served.
    pub(super) fn metrics_path(&self) -> &str {
        &self.telemetry_path
    }

    /// Where a route is served: the metrics under the path that was configured, all others under their own.
    pub(super) fn path_of<'a>(&'a self, route: &Route) -> &'a str {
        if route.name == router::METRICS { self.metrics_path() } else { route.path }
    }
}
