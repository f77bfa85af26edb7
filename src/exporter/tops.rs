//! The top supervisors: started, reloaded, watched, stopped.

use std::convert::Infallible;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;

use super::Error;
use crate::control::{self, Control};
use crate::event::SupervisorExit;
use crate::supervisor::{Changes, Supervisor, SupervisorHandle};
use crate::telemetry::Telemetry;

/// The top supervisors of an exporter. Clones share them.
#[derive(Clone)]
pub(super) struct Tops(Arc<Shared>);

struct Shared {
    telemetry: Telemetry,
    control: Control,
    running: Mutex<Vec<Top>>,
    /// Says that `running` grew.
    grown: Notify,
    /// One reload at a time.
    reloading: tokio::sync::Mutex<()>,
    /// The receiver ends when no supervisor is being started any more, the starts that were given up included.
    starting: Mutex<Option<mpsc::Sender<Infallible>>>,
    started: tokio::sync::Mutex<mpsc::Receiver<Infallible>>,
}

#[derive(Clone)]
struct Top {
    spec: Supervisor,
    handle: SupervisorHandle,
}

impl Tops {
    pub(super) fn new(telemetry: Telemetry, control: Control) -> Self {
        let (starting, started) = mpsc::channel(1);
        Self(Arc::new(Shared {
            telemetry,
            control,
            running: Mutex::default(),
            grown: Notify::new(),
            reloading: tokio::sync::Mutex::default(),
            starting: Mutex::new(Some(starting)),
            started: tokio::sync::Mutex::new(started),
        }))
    }

    pub(super) async fn supervise(&self, supervisor: Supervisor) -> Result<SupervisorHandle, Error> {
        let name = supervisor.name().to_owned();
        if self.0.control.is_running(&name) {
            return Err(control::Error::AlreadyExists(name).into());
        }
        let (spec, mark) = (supervisor.clone(), self.0.starting.lock().clone());
        let started = supervisor.start_marked(&self.0.telemetry, mark).await;
        let handle = started.map_err(|error| Error::Start { name: name.clone(), error })?;
        if let Err(error) = self.0.control.register(&handle) {
            // Two callers raced with one name; the second gives way.
            handle.shutdown().await;
            return Err(error.into());
        }
        let mut running = self.0.running.lock();
        // An ended one of the same name has a successor now; any other is still to be noticed.
        running.retain(|top| top.spec.name() != name);
        running.push(Top { spec, handle: handle.clone() });
        drop(running);
        self.0.grown.notify_one();
        Ok(handle)
    }

    /// See [`Exporter::reload`](super::Exporter::reload).
    pub(super) async fn reload(&self, wanted: Vec<Supervisor>) -> Result<Changes, Error> {
        let _alone = self.0.reloading.lock().await;
        let mut changes = Changes::default();
        let running = self.0.running.lock().clone();
        for top in running.iter().rev().filter(|top| wanted.iter().all(|spec| spec.name() != top.spec.name())) {
            top.handle.shutdown().await;
            changes.removed.push(top.spec.name().into());
        }
        self.0.running.lock().retain(|top| wanted.iter().any(|spec| spec.name() == top.spec.name()));
        for spec in wanted {
            let name = spec.name().to_owned();
            let old = running.iter().find(|top| top.spec.name() == name && !top.handle.is_ended());
            match old {
                Some(top) if top.spec.is_same(&spec) => {}
                Some(top) if top.spec.has_same_settings(&spec) => {
                    let below = top.handle.reconfigure(spec.clone().into_children()).await;
                    changes.merge(below.map_err(|error| Error::Reconfigure { name: name.clone(), error })?);
                    if let Some(top) = self.0.running.lock().iter_mut().find(|top| top.spec.name() == name) {
                        top.spec = spec;
                    }
                }
                Some(top) => {
                    top.handle.shutdown().await;
                    self.supervise(spec).await?;
                    changes.changed.push(name);
                }
                None => {
                    self.supervise(spec).await?;
                    changes.added.push(name);
                }
            }
        }
        Ok(changes)
    }

    /// Returns when the supervisors have ended: with an error as soon as one failed, without one when all have, and the
    /// last because it was done. One that was stopped through its handle was stopped on purpose, and more may come.
    pub(super) async fn end(&self) -> Result<(), Error> {
        let mut ends = JoinSet::new();
        let mut watched = Vec::new();
        loop {
            let grown = self.0.grown.notified();
            let running: Vec<_> = self.0.running.lock().iter().map(|top| top.handle.clone()).collect();
            let keys = running.iter().map(|handle| handle.reference().key()).collect();
            let watched_before = std::mem::replace(&mut watched, keys);
            for handle in running.into_iter().filter(|handle| !watched_before.contains(&handle.reference().key())) {
                ends.spawn(async move {
                    let exit = handle.wait().await;
                    (handle, exit)
                });
            }
            tokio::select! {
                () = grown => {}
                Some(Ok((handle, exit))) = ends.join_next() => match exit {
                    SupervisorExit::MaxIntensity(_) | SupervisorExit::Error(_) | SupervisorExit::Unknown(_) => {
                        return Err(Error::GaveUp { name: handle.reference().name.to_string(), exit });
                    }
                    SupervisorExit::Shutdown if ends.is_empty() => return Ok(()),
                    SupervisorExit::Shutdown | SupervisorExit::Normal => {}
                },
            }
        }
    }

    /// Stops all in reverse order. A supervisor whose start was given up has stopped as well.
    pub(super) async fn shutdown(&self) {
        drop(self.0.starting.lock().take());
        let mut started = self.0.started.lock().await;
        while started.recv().await.is_some() {}
        let running = std::mem::take(&mut *self.0.running.lock());
        for top in running.iter().rev() {
            top.handle.shutdown().await;
        }
    }
}
