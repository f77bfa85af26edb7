//! What a person asks of the tree and tells it: the design document's `Control` module.
//!
//! Answers come from the analytics, which know every supervisor whose events they saw; operator verbs go to the
//! supervisors that were registered, and to those below them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use thiserror::Error;

use crate::analytics::registry::Name;
use crate::analytics::{
    AllStats, Analytics, Cause, CausesPage, FailureRate, HistoryEvent, HistoryFilter, HistoryPage, NotFound,
    SupervisorStats, SupervisorView,
};
use crate::event::Pid;
use crate::supervisor::{ChildSelector, ControlError, Started, SupervisorHandle};

/// The window of a failure rate that names none, as in the design document.
pub const DEFAULT_WINDOW: Duration = Duration::from_secs(60);

/// Why there is no answer.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Error {
    /// No supervisor has this name or id.
    #[error("not_found: no supervisor {0:?}")]
    NotFound(String),
    /// A top supervisor of this name is registered and runs.
    #[error("already_exists: a supervisor named {0:?} runs")]
    AlreadyExists(String),
    /// The supervisor answered that it does not do so.
    #[error(transparent)]
    Refused(#[from] ControlError),
}

/// Questions and orders, by the name or the id of a supervisor. Clones share what is registered.
#[derive(Clone)]
pub struct Control {
    analytics: Analytics,
    tops: Arc<RwLock<BTreeMap<Arc<str>, SupervisorHandle>>>,
}

// === impl Control ===

impl Control {
    /// A control over what `analytics` know.
    pub fn new(analytics: Analytics) -> Self {
        Self { analytics, tops: Arc::default() }
    }

    /// The same, but supervisors are looked for on this Erlang node alone. Without a node one of this process goes before one of
    /// a node.
    pub fn on(&self, node: Option<&str>) -> Self {
        Self { analytics: self.analytics.on(node), tops: self.tops.clone() }
    }

    /// Makes a top supervisor known for operator verbs, instead of an ended one of the same name.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`] if one of the same name runs.
    pub fn register(&self, supervisor: &SupervisorHandle) -> Result<(), Error> {
        let name = supervisor.reference().name.clone();
        let mut tops = self.tops.write();
        if tops.get(&name).is_some_and(|top| !top.is_ended()) {
            return Err(Error::AlreadyExists(name.to_string()));
        }
        tops.insert(name, supervisor.clone());
        Ok(())
    }

    /// Does a registered top supervisor of this name run?
    pub fn is_running(&self, name: &str) -> bool {
        self.tops.read().get(name).is_some_and(|top| !top.is_ended())
    }

    /// The history of a supervisor, newest first (`get_restart_history/1`).
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn restart_history(&self, supervisor: &str, filter: &HistoryFilter) -> Result<HistoryPage, Error> {
        self.ask(supervisor, |analytics, name| analytics.restart_history(name, filter))
    }

    /// Restarts and failures of a supervisor within the window that ends now (`get_failure_rate/2`).
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn failure_rate(&self, supervisor: &str, window: Duration) -> Result<FailureRate, Error> {
        self.ask(supervisor, |analytics, name| analytics.failure_rate(name, window))
    }

    /// The digest of identical deaths of a supervisor's children, most frequent first.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn causes(&self, supervisor: &str, child: Option<&str>) -> Result<CausesPage, Error> {
        self.ask(supervisor, |analytics, name| analytics.causes(name, child))
    }

    /// Who died of one reason within a day; see [`Analytics::died_of`].
    pub fn died_of(&self, reason: u64) -> Vec<(Name, Cause)> {
        self.analytics.died_of(reason)
    }

    /// Deaths in each of the last minutes of an hour, the present one last; with a child's id only its own.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn deaths_by_minute(&self, supervisor: &str, child: Option<&str>) -> Result<Vec<u32>, Error> {
        self.ask(supervisor, |analytics, name| analytics.deaths_by_minute(name, child))
    }

    /// What somebody changed just before the moment `at`; see [`Analytics::change_before`].
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn change_before(&self, supervisor: &str, at: u64) -> Result<Option<HistoryEvent>, Error> {
        self.ask(supervisor, |analytics, name| analytics.change_before(name, at))
    }

    /// Totals of all supervisors (`get_supervisor_analytics/0`).
    pub fn supervisor_analytics(&self) -> AllStats {
        self.analytics.all_supervisor_stats()
    }

    /// All supervisors with their children.
    pub fn supervisors(&self) -> Vec<SupervisorView> {
        self.analytics.supervisors()
    }

    /// Supervisors that are counted together; see [`Analytics::overflowed`].
    pub fn overflowed(&self) -> usize {
        self.analytics.overflowed()
    }

    /// Starts a child that does not run.
    ///
    /// # Errors
    /// [`Error::NotFound`] if the supervisor is not one of ours, else what
    /// [`SupervisorHandle::restart_child`] answers.
    pub async fn restart_child(&self, supervisor: &str, child: impl Into<ChildSelector>) -> Result<Started, Error> {
        Ok(self.handle(supervisor).await?.restart_child(child).await?)
    }

    /// Stops a child and keeps it stopped. A child of a dynamic supervisor is given by its pid, also as text.
    ///
    /// # Errors
    /// [`Error::NotFound`] if the supervisor is not one of ours, else what
    /// [`SupervisorHandle::terminate_child`] answers.
    pub async fn terminate_child(&self, supervisor: &str, child: impl Into<ChildSelector>) -> Result<(), Error> {
        let (handle, child) = (self.handle(supervisor).await?, child.into());
        match (handle.terminate_child(child.clone()).await, &child) {
            // The children of a dynamic supervisor have no ids to be found by; a person types what a page shows.
            (Err(ControlError::Dynamic), ChildSelector::Id(text)) => {
                let pid: Pid = text.parse().map_err(|_| ControlError::NotFound)?;
                Ok(handle.terminate_child(pid).await?)
            }
            (answer, _) => Ok(answer?),
        }
    }

    /// The answer to a question about the supervisor that is called so, or has this id.
    fn ask<T>(
        &self,
        supervisor: &str,
        question: impl FnOnce(&Analytics, &str) -> Result<T, NotFound>,
    ) -> Result<T, Error> {
        let name = self.resolve(supervisor)?;
        let analytics = self.analytics.on(name.node.as_deref());
        question(&analytics, &name.supervisor).map_err(|_| Error::NotFound(supervisor.into()))
    }

    /// The supervisor that is given by its name or its id (the document's `to_pid/1`, the other way round).
    fn resolve(&self, supervisor: &str) -> Result<Name, Error> {
        if let Some(record) = self.analytics.find(supervisor) {
            return Ok(record.name().clone());
        }
        let node = self.analytics.node();
        let is_meant = |stats: &SupervisorStats| {
            stats.id.is_some_and(|id| id.to_string() == supervisor)
                && (node.is_none() || stats.supervisor.node.as_deref() == node)
        };
        let by_id = self.analytics.all_supervisor_stats().supervisor_stats.into_iter().find(is_meant);
        by_id.map(|stats| stats.supervisor).ok_or_else(|| Error::NotFound(supervisor.into()))
    }

    /// The handle of a supervisor: the top one's, then down the path, a child id at a time.
    async fn handle(&self, supervisor: &str) -> Result<SupervisorHandle, Error> {
        let not_found = || Error::NotFound(supervisor.into());
        // One of a node is none of ours, whatever it is called.
        let name = self.resolve(supervisor)?;
        let mut path = if name.node.is_none() { name.supervisor.split('/') } else { return Err(not_found()) };
        let top = path.next().and_then(|top| self.tops.read().get(top).cloned());
        let mut handle = top.ok_or_else(not_found)?;
        for id in path {
            let children = handle.which_children().await?;
            let below = children.into_iter().find(|child| &*child.id == id).and_then(|child| child.supervisor);
            handle = below.ok_or_else(not_found)?;
        }
        Ok(handle)
    }
}
