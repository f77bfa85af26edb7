//! The top supervisors: started, watched, stopped, and kept in sight when they have ended.

use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, oneshot};

use super::Error;
use crate::analytics::Analytics;
use crate::event::{Detail, SupervisorExit};
use crate::supervisor::{Abandoned, Progress, StartError, Started, Supervisor, SupervisorHandle};
use crate::telemetry::Telemetry;

/// The top supervisors. Clones share them.
#[derive(Clone)]
pub(super) struct Tops(pub(super) Arc<Shared>);

pub(super) struct Shared {
    telemetry: Telemetry,
    analytics: Analytics,
    list: Mutex<Vec<Entry>>,
    /// Is the end of the program near? Then nothing is started any more.
    is_stopping: RwLock<bool>,
    /// Says that something of the list changed.
    changed: Notify,
    /// One reload, or order for a whole supervisor, at a time, until its starts have begun: of two that stop and start the
    /// same one, each would start a copy.
    pub(super) acting: tokio::sync::Mutex<()>,
}

/// What is kept of one.
pub(super) struct Entry {
    pub(super) spec: Supervisor,
    /// None if it could not even begin.
    pub(super) handle: Option<SupervisorHandle>,
    /// Why it could not begin.
    error: Option<StartError>,
    /// Does a file, or whatever is loaded, want it? Then it is kept in sight whatever becomes of it.
    is_configured: bool,
    /// Entries that ended later have a greater number; 0 while it has not.
    ended: u64,
    /// Did somebody stop it after it had failed? Then it is no failure any more.
    is_stopped: bool,
}

/// A top supervisor at the moment of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Top {
    /// Its name.
    pub name: Arc<str>,
    /// What it does.
    pub state: TopState,
}

/// What a top supervisor does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TopState {
    /// Its children are being started.
    Starting,
    /// It runs, and all its children have had their turn.
    Running,
    /// It used up its restart budget.
    GaveUp(Detail),
    /// It could not start.
    Failed(Detail),
    /// Somebody stopped it.
    Stopped,
    /// It ended because its significant children had.
    Done,
}

impl TopState {
    /// Is it down although it should be up?
    pub fn is_failure(&self) -> bool {
        matches!(self, TopState::GaveUp(_) | TopState::Failed(_))
    }

    /// Does it run, or is it about to?
    pub fn is_up(&self) -> bool {
        matches!(self, TopState::Starting | TopState::Running)
    }
}

// === impl Entry ===

impl Entry {
    pub(super) fn state(&self) -> TopState {
        if self.is_stopped {
            return TopState::Stopped;
        }
        let Some(handle) = &self.handle else {
            return match &self.error {
                Some(StartError::Ignored) | None => TopState::Done,
                Some(error) => TopState::Failed(Detail::new(&error.to_string())),
            };
        };
        match handle.exit() {
            None if *handle.progress().borrow() == Progress::Started => TopState::Running,
            None => TopState::Starting,
            Some(SupervisorExit::MaxIntensity(detail)) => TopState::GaveUp(detail),
            Some(SupervisorExit::Error(detail) | SupervisorExit::Unknown(detail)) => TopState::Failed(detail),
            Some(SupervisorExit::Normal) => TopState::Stopped,
            Some(SupervisorExit::Shutdown) => TopState::Done,
        }
    }
}

// === impl Tops ===

impl Tops {
    pub(super) fn new(telemetry: Telemetry, analytics: Analytics) -> Self {
        Self(Arc::new(Shared {
            telemetry,
            analytics,
            list: Mutex::default(),
            is_stopping: RwLock::default(),
            changed: Notify::new(),
            acting: tokio::sync::Mutex::default(),
        }))
    }

    /// Begins to start one, in the place of an ended one of its name or as the last.
    pub(super) fn begin(
        &self,
        spec: Supervisor,
        is_requested: bool,
        is_configured: bool,
    ) -> Result<(SupervisorHandle, oneshot::Receiver<Result<(), StartError>>), StartError> {
        // Held until it is in the list: what is begun is stopped, or is not begun. A handler may begin another meanwhile.
        let is_stopping = self.0.is_stopping.read_recursive();
        if *is_stopping {
            return Err(StartError::Stopped);
        }
        let begun = spec.clone().begin(&self.0.telemetry, is_requested);
        let (handle, error) = match &begun {
            Ok((handle, _)) => (Some(handle.clone()), None),
            Err(error) => (None, Some(error.clone())),
        };
        if let Some(handle) = handle.clone() {
            let shared = self.0.clone();
            tokio::spawn(async move {
                handle.wait().await;
                shared.note_end(&handle);
            });
        }
        let entry = Entry { spec, handle, error, is_configured, ended: 0, is_stopped: false };
        let mut list = self.0.list.lock();
        // A program may start and stop as many as it likes; those that it is done with are not kept.
        list.retain(|other| other.is_configured || other.state().is_up() || other.state().is_failure());
        match list.iter_mut().find(|other| other.spec.name() == entry.spec.name()) {
            Some(other) => *other = entry,
            None => list.push(entry),
        }
        drop(list);
        drop(is_stopping);
        self.0.list_changed();
        begun
    }

    /// Starts one, and returns when all its children have started; one that does not start is not kept.
    pub(super) async fn supervise(&self, supervisor: Supervisor) -> Result<SupervisorHandle, Error> {
        let name = supervisor.name().to_owned();
        if self.0.list.lock().iter().any(|entry| entry.spec.name() == name && entry.state().is_up()) {
            return Err(Error::AlreadyExists(name));
        }
        let not_started = |error| Error::NotStarted { name: name.clone(), error };
        let (handle, opened) = match self.begin(supervisor, false, false) {
            Ok(begun) => begun,
            Err(error) => {
                self.remove(&name);
                return Err(not_started(error));
            }
        };
        let abandoned = Abandoned::unless_done(&handle);
        let opened = opened.await.unwrap_or(Err(StartError::Stopped));
        abandoned.done();
        match opened {
            Ok(()) => Ok(handle),
            Err(error) => {
                self.remove(&name);
                Err(not_started(error))
            }
        }
    }

    pub(super) fn remove(&self, name: &str) {
        self.0.list.lock().retain(|entry| entry.spec.name() != name);
        self.0.list_changed();
    }

    /// Calls `act` with the list.
    pub(super) fn with<R>(&self, act: impl FnOnce(&mut Vec<Entry>) -> R) -> R {
        act(&mut self.0.list.lock())
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.0.list.lock().iter().any(|entry| entry.spec.name() == name)
    }

    /// The handle of one that has not ended.
    pub(super) fn handle(&self, name: &str) -> Option<SupervisorHandle> {
        let list = self.0.list.lock();
        let entry = list.iter().find(|entry| entry.spec.name() == name)?;
        entry.handle.clone().filter(|handle| !handle.is_ended())
    }

    /// All, in order.
    pub(super) fn all(&self) -> Vec<Top> {
        let list = self.0.list.lock();
        list.iter().map(|entry| Top { name: entry.spec.name().into(), state: entry.state() }).collect()
    }

    /// Is the end of the program near?
    pub(super) fn is_stopping(&self) -> bool {
        *self.0.is_stopping.read_recursive()
    }

    /// Starts one on request; with `anew` one that runs is stopped first.
    pub(super) async fn bring_up(&self, name: &str, anew: bool) -> Result<Started, Error> {
        let alone = self.0.acting.lock().await;
        if self.is_stopping() {
            return Err(Error::Stopping);
        }
        if let Some(handle) = self.handle(name) {
            if !anew {
                return Ok(Started { pid: Some(handle.reference().id), info: None });
            }
            handle.shutdown().await;
        }
        let spec_of = |entry: &Entry| (entry.spec.clone(), entry.is_configured);
        let spec = self.0.list.lock().iter().find(|entry| entry.spec.name() == name).map(spec_of);
        let not_started = |error| Error::NotStarted { name: name.to_owned(), error };
        // A reload has just taken it away.
        let (spec, is_configured) =
            spec.ok_or_else(|| Error::NotFound { name: name.to_owned(), nearest: Vec::new() })?;
        let (handle, opened) = self.begin(spec, true, is_configured).map_err(not_started)?;
        // A start that takes long can be ended by another order, and mended by a reload.
        drop(alone);
        // A start that has to wait for a child is none that failed: the answer does not wait for it.
        let mut progress = handle.progress();
        let started = tokio::select! {
            opened = opened => opened.unwrap_or(Err(StartError::Stopped)),
            // Its end closes the channel, and is told by the other.
            Ok(_) = progress.wait_for(|progress| *progress != Progress::Starting) => Ok(()),
        };
        started.map_err(not_started)?;
        Ok(Started { pid: Some(handle.reference().id), info: None })
    }

    pub(super) async fn stop(&self, name: &str) -> Result<(), Error> {
        let _alone = self.0.acting.lock().await;
        if let Some(handle) = self.handle(name) {
            handle.shutdown().await;
        }
        let is_it = |entry: &&mut Entry| entry.spec.name() == name && entry.state().is_failure();
        let failed = self.with(|list| list.iter_mut().find(is_it).map(|entry| entry.is_stopped = true));
        if failed.is_some() {
            self.0.list_changed();
        }
        Ok(())
    }

    /// Returns when there is no point in going on: with an error as soon as one failed and `leaves` says so; without one
    /// when all have ended, and the last because it was done. One that was stopped through its handle was stopped on
    /// purpose, and more may come.
    pub(super) async fn end(&self, leaves: bool) -> Result<(), (Arc<str>, SupervisorExit)> {
        loop {
            let changed = self.0.changed.notified();
            if let Some(verdict) = self.verdict(leaves) {
                return verdict;
            }
            changed.await;
        }
    }

    fn verdict(&self, leaves: bool) -> Option<Result<(), (Arc<str>, SupervisorExit)>> {
        let list = self.0.list.lock();
        let mut failed = list.iter().filter_map(|entry| {
            let exit = match entry.state() {
                TopState::GaveUp(detail) => SupervisorExit::MaxIntensity(detail),
                TopState::Failed(detail) => SupervisorExit::Error(detail),
                _ => return None,
            };
            Some((entry.spec.name().into(), exit))
        });
        match failed.next() {
            Some(failure) if leaves => return Some(Err(failure)),
            Some(_) => return None,
            None => {}
        }
        let last = list.iter().max_by_key(|entry| entry.ended)?;
        let all_ended = list.iter().all(|entry| !entry.state().is_up());
        (all_ended && last.state() == TopState::Done).then_some(Ok(()))
    }

    /// Stops all in reverse order, also those that are still being started. None is started after that.
    pub(super) async fn shutdown(&self) {
        *self.0.is_stopping.write() = true;
        let handles: Vec<_> = self.0.list.lock().iter().filter_map(|entry| entry.handle.clone()).collect();
        for handle in handles.iter().rev() {
            handle.shutdown().await;
        }
    }
}

// === impl Shared ===

impl Shared {
    fn note_end(&self, ended: &SupervisorHandle) {
        let mut list = self.list.lock();
        let number = list.iter().map(|entry| entry.ended).max().unwrap_or(0) + 1;
        let key = ended.reference().key();
        let is_it = |entry: &&mut Entry| entry.handle.as_ref().is_some_and(|handle| handle.reference().key() == key);
        if let Some(entry) = list.iter_mut().find(is_it) {
            entry.ended = number;
        }
        drop(list);
        self.list_changed();
    }

    /// Tells those who have to know what is in the list.
    pub(super) fn list_changed(&self) {
        let is_kept = |entry: &&Entry| entry.is_configured || entry.is_stopped || entry.state().is_failure();
        let is_stopped = |entry: &&Entry| entry.is_stopped;
        let list = self.list.lock();
        // Under the lock, so that the last call has the last word.
        let stopped = list.iter().filter(is_stopped).flat_map(|entry| entry.spec.full_names(None)).collect();
        let kept = list.iter().filter(is_kept).flat_map(|entry| entry.spec.full_names(None)).collect();
        self.analytics.keep(kept, &stopped);
        drop(list);
        self.changed.notify_waiters();
    }
}
