//! Reading the supervisors again, and making them so.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::control::{Changes, Control, Step};
use crate::http::{App, Later, Reload};
use crate::supervisor::Supervisor;
use crate::telemetry::now;

/// Reloads the supervisors of an exporter, while it serves. Cheap to clone.
#[derive(Clone)]
pub struct Reloader {
    load: Arc<Load>,
    control: Control,
    app: App,
    /// How many loads have begun. What a load came to counts if it is the last one.
    loads: Arc<AtomicU64>,
}

type Load = dyn Fn() -> Result<Vec<Supervisor>, String> + Send + Sync;

impl Reloader {
    pub(super) fn new(
        load: impl Fn() -> Result<Vec<Supervisor>, String> + Send + Sync + 'static,
        control: Control,
        app: App,
    ) -> Self {
        Self { load: Arc::new(load), control, app, loads: Arc::default() }
    }

    /// Loads the supervisors again, makes them the top ones, and returns when all that was to be started has had its turn.
    /// The outcome is logged and counted.
    ///
    /// # Errors
    /// Why they could not be loaded; then nothing was touched.
    pub async fn reload(&self) -> Result<Changes, String> {
        let number = self.number();
        let wanted = self.load().await.inspect_err(|error| {
            tracing::error!(err = error, "reload failed");
            self.count(number, false);
        })?;
        let changes = self.control.begin(wanted).await.settled().await;
        self.note(number, "reloaded", &changes);
        Ok(changes)
    }

    /// Begins to start these supervisors, which were loaded already: the first reload. Returns when the starts have begun,
    /// with what waits for them.
    pub async fn start(&self, wanted: Vec<Supervisor>) -> impl Future<Output = Changes> + Send + use<> {
        let number = self.number();
        let (begun, reloader) = (self.control.begin(wanted).await, self.clone());
        async move {
            let changes = begun.settled().await;
            reloader.note(number, "started", &changes);
            changes
        }
    }

    /// Loads the supervisors again and says what a reload would do, in order.
    ///
    /// # Errors
    /// Why they could not be loaded.
    pub async fn plan(&self) -> Result<Vec<Step>, String> {
        let wanted = self.load().await?;
        Ok(self.control.plan(&wanted).await)
    }

    /// Loads beside everything else: a file system, or what knows the users, may take its time.
    async fn load(&self) -> Result<Vec<Supervisor>, String> {
        let load = self.load.clone();
        let loaded = tokio::task::spawn_blocking(move || load()).await;
        loaded.unwrap_or_else(|error| Err(format!("the supervisors could not be loaded: {error}")))
    }

    /// The number of the load that begins.
    fn number(&self) -> u64 {
        self.loads.fetch_add(1, Relaxed) + 1
    }

    /// Counts the outcome of a load. A load whose starts take long may end after a later one, and is then out of date.
    fn count(&self, number: u64, successful: bool) {
        if number == self.loads.load(Relaxed) {
            self.app.config_reloaded(successful, now().system);
        }
    }

    fn note(&self, number: u64, what: &str, changes: &Changes) {
        let Changes { added, removed, changed, updated, failed, waiting } = changes;
        self.count(number, changes.is_complete());
        if changes.is_complete() {
            return tracing::info!(?added, ?removed, ?changed, ?updated, "{what}");
        }
        let failed: Vec<_> = failed.iter().map(|(name, reason)| format!("{name}: {reason}")).collect();
        let waiting: Vec<_> = waiting.iter().map(|(name, first)| format!("{name} waits for {first}")).collect();
        tracing::error!(
            ?added,
            ?removed,
            ?changed,
            ?updated,
            ?failed,
            ?waiting,
            "{what}, but not all could be started"
        );
    }
}

impl Reload for Reloader {
    fn reload(&self) -> Later<Result<Changes, String>> {
        let reloader = self.clone();
        Box::pin(async move { Reloader::reload(&reloader).await })
    }

    fn plan(&self) -> Later<Result<Vec<Step>, String>> {
        let reloader = self.clone();
        Box::pin(async move { Reloader::plan(&reloader).await })
    }
}
