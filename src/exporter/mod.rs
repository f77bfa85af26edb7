//! The composition root: bind, wire, supervise, serve. What starts first stands first.

mod error;
mod nodes;
mod reload;

use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::{TcpListener, ToSocketAddrs};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::analytics::{Analytics, AnalyticsConfig};
use crate::beam::{Beam, NodeLimits, Token};
use crate::control::{Changes, Control, Step};
use crate::http::{self, Access, App, Listener};
use crate::metrics::{Metrics, MetricsConfig};
use crate::resources;
use crate::supervisor::{Supervisor, SupervisorHandle};
use crate::telemetry::Telemetry;

pub use error::Error;
pub use reload::Reloader;

/// Limits and places of an exporter; the defaults are those of the command line.
#[derive(Clone)]
pub struct ExporterBuilder {
    telemetry: Telemetry,
    telemetry_path: Arc<str>,
    history_capacity: usize,
    metrics: MetricsConfig,
    web_config_file: Option<PathBuf>,
    admin_api: bool,
    max_requests: usize,
    exit_delay: Duration,
    on_give_up: OnGiveUp,
    node_token_file: Option<PathBuf>,
}

/// An endpoint that shows what its supervisors tell.
///
/// ```no_run
/// use restart_exporter::prelude::*;
///
/// # async fn run() -> Result<(), restart_exporter::Error> {
/// let exporter = Exporter::bind("127.0.0.1:8469").await?;
/// let workers = Supervisor::new("workers")
///     .child(ChildSpec::task("mailer", |stop| async move { stop.stopped().await }));
/// exporter.supervise(workers).await?;
/// exporter.serve(tokio::signal::ctrl_c()).await
/// # }
/// ```
pub struct Exporter {
    telemetry: Telemetry,
    analytics: Analytics,
    metrics: Metrics,
    control: Control,
    app: App,
    beam: Beam,
    exit_delay: Duration,
    on_give_up: OnGiveUp,
    listeners: Mutex<JoinSet<()>>,
    stop: watch::Sender<bool>,
}

/// What becomes of the exporter when a top supervisor gives up or cannot start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnGiveUp {
    /// [`Always`](Self::Always) as process 1, because a container must not stay green with a dead program inside; else
    /// [`Never`](Self::Never).
    #[default]
    Auto,
    /// It stops the other supervisors in reverse order, stays up for the exit delay, and ends with an error.
    Always,
    /// It stays, and so do the other supervisors.
    Never,
}

impl OnGiveUp {
    /// Does the exporter end then?
    pub fn ends(self) -> bool {
        match self {
            OnGiveUp::Auto => std::process::id() == 1,
            OnGiveUp::Always => true,
            OnGiveUp::Never => false,
        }
    }
}

// === impl ExporterBuilder ===

impl Default for ExporterBuilder {
    fn default() -> Self {
        Self {
            telemetry: Telemetry::new(),
            telemetry_path: "/metrics".into(),
            history_capacity: AnalyticsConfig::default().history_capacity,
            metrics: MetricsConfig::default(),
            web_config_file: None,
            admin_api: false,
            max_requests: http::MAX_REQUESTS,
            exit_delay: Duration::ZERO,
            on_give_up: OnGiveUp::default(),
            node_token_file: None,
        }
    }
}

impl ExporterBuilder {
    /// The bus whose events are shown; by default a new one of its own.
    pub fn telemetry(mut self, telemetry: &Telemetry) -> Self {
        self.telemetry = telemetry.clone();
        self
    }

    /// The path of the metrics, `/metrics` by default.
    pub fn telemetry_path(mut self, path: &str) -> Self {
        self.telemetry_path = path.into();
        self
    }

    /// Events kept in the history of each supervisor, 1000 by default.
    pub fn history_capacity(mut self, events: usize) -> Self {
        self.history_capacity = events;
        self
    }

    /// How long history and series of a supervisor stay after it ended, 15 minutes by default.
    pub fn retention(mut self, retention: Duration) -> Self {
        self.metrics.retention = retention;
        self
    }

    /// Supervisors kept apart, 1000 by default; all beyond are counted as `_other`.
    pub fn max_supervisors(mut self, supervisors: usize) -> Self {
        self.metrics.max_supervisors = supervisors;
        self
    }

    /// Children kept apart: of all supervisors together (10,000 by default) and under one (50 by default); all beyond are
    /// counted as `_other` of their supervisor.
    pub fn max_children(mut self, in_all: usize, per_supervisor: usize) -> Self {
        self.metrics.max_children = in_all;
        self.metrics.max_children_per_supervisor = per_supervisor;
        self
    }

    /// Whether requests over TCP may restart and terminate children, and reload; over a Unix socket they always may. Off by
    /// default.
    pub fn admin_api(mut self, admin_api: bool) -> Self {
        self.admin_api = admin_api;
        self
    }

    /// Scrapes answered at once, 40 by default; those beyond are refused with 503, and 0 is no limit.
    pub fn max_requests(mut self, scrapes: usize) -> Self {
        self.max_requests = scrapes;
        self
    }

    /// Whether OpenMetrics shows `_created` beside counters and histograms; off by default, because Prometheus usually keeps
    /// each as one more series.
    pub fn openmetrics_created(mut self, created: bool) -> Self {
        self.metrics.openmetrics_created = created;
        self
    }

    /// Whether the buckets of lifetimes point to the newest death that lies in them, by its number in the history; off by
    /// default.
    pub fn exemplars(mut self, exemplars: bool) -> Self {
        self.metrics.exemplars = exemplars;
        self
    }

    /// The file that says who may come in: TLS, client certificates, users, headers and a rate limit, in the schema of
    /// Prometheus' exporter-toolkit. It guards every address but those of [`Exporter::listen_unix`], which have the
    /// permissions of their file. None by default: everybody may.
    pub fn web_config_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.web_config_file = Some(path.into());
        self
    }

    /// The file with the token that Erlang nodes must know to come in over TCP. It is read anew for each connection.
    /// None by default: then nodes come in from this machine alone.
    pub fn node_token_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.node_token_file = Some(path.into());
        self
    }

    /// What becomes of the exporter when a top supervisor gives up or cannot start; [`OnGiveUp::Auto`] by default.
    pub fn on_give_up(mut self, on_give_up: OnGiveUp) -> Self {
        self.on_give_up = on_give_up;
        self
    }

    /// How long the endpoint stays up when the exporter ends because a top supervisor gave up, so that a scrape still sees
    /// it; 0 by default.
    pub fn exit_delay(mut self, delay: Duration) -> Self {
        self.exit_delay = delay;
        self
    }

    /// Attaches history, metrics and live events to the bus. Nothing listens yet.
    ///
    /// # Errors
    /// [`Error::Attach`] if another exporter is attached to the same bus; [`Error::WebConfig`]; [`Error::Token`].
    pub fn build(self) -> Result<Exporter, Error> {
        let Self { telemetry, telemetry_path, history_capacity, metrics, admin_api, max_requests, .. } = self;
        let (exit_delay, on_give_up) = (self.exit_delay, self.on_give_up);
        let token = self.node_token_file.map(|path| Token::in_file(&path)).transpose()?;
        let access = self.web_config_file.map_or(Ok(Access::open()), Access::guarded)?;
        let config = AnalyticsConfig {
            history_capacity,
            retention: metrics.retention,
            max_supervisors: metrics.max_supervisors,
        };
        let analytics = Analytics::new(config);
        let metrics = Metrics::new(metrics, &telemetry, &analytics);
        analytics.attach(&telemetry)?;
        metrics.attach()?;
        let control = Control::new(analytics.clone(), telemetry.clone());
        let app = App::new(metrics.clone(), control.clone(), telemetry_path)
            .access(access)
            .admin_api(admin_api)
            .max_requests(max_requests);
        app.attach(&telemetry)?;
        let beam = Beam::new(&telemetry, NodeLimits::new(metrics.config().retention), token);
        Ok(Exporter {
            telemetry,
            analytics,
            metrics,
            control,
            app,
            beam,
            exit_delay,
            on_give_up,
            listeners: Mutex::default(),
            stop: watch::Sender::new(false),
        })
    }
}

// === impl Exporter ===

impl Exporter {
    /// An exporter with the defaults that listens on this address, and answers from now on.
    ///
    /// # Errors
    /// [`Error::Bind`].
    pub async fn bind(address: impl ToSocketAddrs + std::fmt::Debug) -> Result<Self, Error> {
        let exporter = Self::builder().build()?;
        exporter.listen(address).await?;
        Ok(exporter)
    }

    /// An exporter with limits or places of its own.
    pub fn builder() -> ExporterBuilder {
        ExporterBuilder::default()
    }

    /// Listens on one more address, and answers from now on. Returns the address, which is of use if port 0 was asked for.
    ///
    /// # Errors
    /// [`Error::Bind`].
    pub async fn listen(&self, address: impl ToSocketAddrs + std::fmt::Debug) -> Result<SocketAddr, Error> {
        let bind = |error| Error::Bind { address: format!("{address:?}"), error };
        let listener = TcpListener::bind(&address).await.map_err(bind)?;
        resources::set_backlog(&listener).map_err(bind)?;
        let bound = listener.local_addr().map_err(bind)?;
        self.listen_on(listener).map_err(bind)?;
        Ok(bound)
    }

    /// Listens on a Unix socket that only this user can open (mode 0600), and answers from now on. Whoever can open it may
    /// use the admin API, and is asked for nothing else: no TLS, no password. A socket that nobody listens on any more is
    /// replaced.
    ///
    /// # Errors
    /// [`Error::Bind`], also if something answers there, or if the path is no socket.
    pub async fn listen_unix(&self, path: &Path) -> Result<(), Error> {
        let bind = |error| Error::Bind { address: format!("unix:{}", path.display()), error };
        let listener = http::bind_unix(path).await.map_err(bind)?;
        self.serve_listener(self.app.clone().access(Access::open()).admin_api(true), listener).map_err(bind)
    }

    /// Answers on a socket that somebody else has opened, such as systemd. Who may open a Unix socket of others is theirs
    /// to say, so the rules of TCP hold for it as well: the web config file, and the admin API only if it is enabled.
    ///
    /// # Errors
    /// If the system does not say where it listens.
    pub fn listen_on(&self, listener: impl Into<Listener>) -> std::io::Result<()> {
        self.serve_listener(self.app.clone(), listener.into())
    }

    fn serve_listener(&self, app: App, listener: Listener) -> std::io::Result<()> {
        let (address, (is_tls, http2)) = (listener.address()?, app.tls());
        tracing::info!(address, "Listening on");
        let word = if is_tls { "TLS is enabled." } else { "TLS is disabled." };
        tracing::info!(http2, address, "{word}");
        let mut stop = self.stop.subscribe();
        self.listeners.lock().spawn(async move {
            // An exporter that is dropped stops as well.
            let stopped = async { drop(stop.wait_for(|stop| *stop).await) };
            app.serve(listener, stopped).await;
        });
        Ok(())
    }

    /// Starts a top supervisor, and returns when all its children have started. One that does not start is not kept.
    ///
    /// # Errors
    /// [`Error::Control`]: why it did not start, or that one of the same name runs.
    pub async fn supervise(&self, supervisor: Supervisor) -> Result<SupervisorHandle, Error> {
        Ok(self.control.supervise(supervisor).await?)
    }

    /// Makes these the top supervisors; see [`Control::reload`].
    pub async fn reload(&self, supervisors: Vec<Supervisor>) -> Changes {
        self.control.reload(supervisors).await
    }

    /// What [`reload`](Self::reload) would do, in order.
    pub async fn plan(&self, supervisors: &[Supervisor]) -> Vec<Step> {
        self.control.plan(supervisors).await
    }

    /// Says where the supervisors come from, for `POST /-/reload` and for the [`Reloader`]: each reload calls `load` and then
    /// does what [`reload`](Self::reload) does. Only the first call has an effect on the route.
    pub fn on_reload(&self, load: impl Fn() -> Result<Vec<Supervisor>, String> + Send + Sync + 'static) -> Reloader {
        let reloader = Reloader::new(load, self.control.clone(), self.app.clone());
        self.app.on_reload(reloader.clone());
        reloader
    }

    /// Serves until `shutdown`, then stops the supervisors in reverse order, and last the endpoint.
    ///
    /// It also ends when the supervisors do: without an error when all have ended as they should; and, if
    /// [`OnGiveUp`] says so, with one as soon as one gives up or cannot start: the others are stopped then, and the endpoint
    /// stays up for the exit delay. Without any supervisor it serves until `shutdown`.
    ///
    /// # Errors
    /// [`Error::GaveUp`] for the first top supervisor that ended by a failure.
    pub async fn serve(self, shutdown: impl Future) -> Result<(), Error> {
        self.app.set_ready(true);
        let mut shutdown = pin!(shutdown);
        let result = tokio::select! {
            _ = &mut shutdown => Ok(()),
            result = self.done() => result,
        };
        if result.is_err() {
            let leaves = async {
                self.stop_supervisors().await;
                self.linger(std::future::pending::<()>()).await;
            };
            tokio::select! {
                () = leaves => {}
                _ = &mut shutdown => {}
            }
        }
        self.shutdown().await;
        result
    }

    /// Returns when there is no point in going on; see [`serve`](Self::serve), which does this, for a program that has to do
    /// something before it ends.
    ///
    /// # Errors
    /// [`Error::GaveUp`], unless the exporter is to stay then.
    pub async fn done(&self) -> Result<(), Error> {
        let ended = self.control.end(self.on_give_up.ends()).await;
        ended.map_err(|(name, exit)| Error::GaveUp { name: name.to_string(), exit })
    }

    /// Stays up for the exit delay, or until `shutdown`.
    pub async fn linger(&self, shutdown: impl Future) {
        let _ = timeout(self.exit_delay, shutdown).await;
    }

    /// Stops the supervisors in reverse order, and starts none any more. The endpoint goes on, and refuses orders.
    pub async fn stop_supervisors(&self) {
        self.app.set_ready(false);
        self.control.shutdown().await;
    }

    /// Stops the supervisors in reverse order, and last the endpoint: the end of [`serve`](Self::serve), for a program
    /// that ends before it serves. A supervisor whose start was given up has stopped as well.
    pub async fn shutdown(self) {
        self.stop_supervisors().await;
        self.stop.send_replace(true);
        let mut listeners = std::mem::take(&mut *self.listeners.lock());
        while listeners.join_next().await.is_some() {}
    }

    /// The bus of this exporter: attach handlers of your own, or start supervisors that are not tops here.
    pub fn telemetry(&self) -> &Telemetry {
        &self.telemetry
    }

    /// Everything known of the supervisors.
    pub fn analytics(&self) -> &Analytics {
        &self.analytics
    }

    /// The metrics, for programs that have a `prometheus::Registry` of their own.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Questions and operator verbs.
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// The HTTP application, for programs that run a hyper server of their own.
    pub fn app(&self) -> &App {
        &self.app
    }
}
