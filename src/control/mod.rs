//! What a person asks of the tree and tells it: the design document's `Control` module.
//!
//! Answers come from the analytics, which know every supervisor whose events they saw; orders go to the top supervisors
//! that were [started here](Control::supervise), and to what is below them.

mod nearest;
mod reload;
mod tops;

use std::time::Duration;

use thiserror::Error;

use crate::analytics::registry::Name;
use crate::analytics::{
    AllStats, Analytics, Cause, CausesPage, FailureRate, HistoryEvent, HistoryFilter, HistoryPage, NotFound,
    SupervisorStats, SupervisorView,
};
use crate::event::Pid;
pub use crate::supervisor::{Changes, ControlError, Started, Step};
use crate::supervisor::{ChildSelector, StartError, SupervisorHandle};
use crate::telemetry::Telemetry;
use tops::Tops;
pub use tops::{Top, TopState};

/// The window of a failure rate that names none, as in the design document.
pub const DEFAULT_WINDOW: Duration = Duration::from_secs(60);

/// Why there is no answer.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Error {
    /// No supervisor, or child of one, has this name or id. The names that are nearest to it follow.
    #[error("not_found: nothing is named {name:?}{}", nearest::said(.nearest))]
    NotFound {
        /// What was asked for.
        name: String,
        /// The nearest full names there are, at most [`MAX_NEAREST`].
        nearest: Vec<String>,
    },
    /// A top supervisor of this name runs.
    #[error("already_exists: a supervisor named {0:?} runs")]
    AlreadyExists(String),
    /// It lives on an Erlang node, which takes no orders of ours.
    #[error("{0:?} is supervised by an Erlang node, which takes no orders from here")]
    Foreign(String),
    /// The supervisor of the child is down, so that nobody can start it.
    #[error("the supervisor {0:?} does not run; start it first")]
    Down(String),
    /// The supervisors are being stopped for good; see [`Exporter::stop_supervisors`](crate::Exporter::stop_supervisors).
    #[error("stopping: the exporter is about to end and starts nothing any more")]
    Stopping,
    /// The supervisor did not start.
    #[error("supervisor {name:?}: {error}")]
    NotStarted {
        /// Its name.
        name: String,
        /// Why not.
        error: StartError,
    },
    /// The supervisor answered that it does not do so.
    #[error(transparent)]
    Refused(#[from] ControlError),
}

pub use nearest::MAX_NEAREST;

/// Questions and orders, by the name or the id of a supervisor. Clones share the top supervisors.
#[derive(Clone)]
pub struct Control {
    analytics: Analytics,
    tops: Tops,
}

/// Where an order goes.
enum Goal {
    /// To a top supervisor as a whole.
    Top(String),
    /// To a child of this supervisor.
    Child(SupervisorHandle, String),
}

// === impl Control ===

impl Control {
    /// A control over what `analytics` know, whose supervisors announce on `telemetry` what they do.
    pub fn new(analytics: Analytics, telemetry: Telemetry) -> Self {
        Self { tops: Tops::new(telemetry, analytics.clone()), analytics }
    }

    /// The same, but supervisors are looked for on this Erlang node alone. Without a node one of this process goes before one of
    /// a node.
    pub fn on(&self, node: Option<&str>) -> Self {
        Self { analytics: self.analytics.on(node), tops: self.tops.clone() }
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

    /// Starts a child or a supervisor anew, whatever it does: one that runs is stopped first, one that waits for its restart
    /// is started now, one that is stopped, failed or gave up is started. A supervisor is started with all its children and a
    /// fresh budget. All of it counts as requested.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Foreign`], [`Error::Down`], [`Error::Stopping`], [`Error::NotStarted`], and what
    /// [`SupervisorHandle::restart`] answers.
    pub async fn restart(&self, supervisor: &str, child: Option<&str>) -> Result<Started, Error> {
        self.bring_up(supervisor, child, true).await
    }

    /// As [`restart`](Self::restart), but what runs, or is being started, is left alone.
    ///
    /// # Errors
    /// As [`restart`](Self::restart).
    pub async fn start(&self, supervisor: &str, child: Option<&str>) -> Result<Started, Error> {
        self.bring_up(supervisor, child, false).await
    }

    /// Stops a child or a supervisor, and keeps it stopped. A child of a dynamic supervisor is given by its pid.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Foreign`], [`Error::Down`], and what [`SupervisorHandle::terminate_child`] answers.
    pub async fn stop(&self, supervisor: &str, child: Option<&str>) -> Result<(), Error> {
        match self.goal(supervisor, child).await? {
            Goal::Top(name) => self.tops.stop(&name).await,
            Goal::Child(handle, child) => {
                let answer = match handle.terminate_child(&*child).await {
                    // The children of a dynamic supervisor have no ids to be found by; a person types what a page shows.
                    Err(ControlError::Dynamic) => match child.parse::<Pid>() {
                        Ok(pid) => handle.terminate_child(ChildSelector::Pid(pid)).await,
                        Err(_) => Err(ControlError::NotFound),
                    },
                    answer => answer,
                };
                self.found(answer, &handle, &child)
            }
        }
    }

    /// Starts a child or a supervisor; with `anew` one that runs is stopped first.
    async fn bring_up(&self, supervisor: &str, child: Option<&str>, anew: bool) -> Result<Started, Error> {
        if self.tops.is_stopping() {
            return Err(Error::Stopping);
        }
        match self.goal(supervisor, child).await? {
            Goal::Top(name) => self.tops.bring_up(&name, anew).await,
            Goal::Child(handle, child) => {
                let answer = if anew { handle.restart(&*child).await } else { handle.start(&*child).await };
                self.found(answer, &handle, &child)
            }
        }
    }

    /// The answer to a question about the supervisor that is called so, or has this id.
    fn ask<T>(
        &self,
        supervisor: &str,
        question: impl FnOnce(&Analytics, &str) -> Result<T, NotFound>,
    ) -> Result<T, Error> {
        let name = self.resolve(supervisor).ok_or_else(|| self.not_found(supervisor))?;
        let analytics = self.analytics.on(name.node.as_deref());
        question(&analytics, &name.supervisor).map_err(|_| self.not_found(supervisor))
    }

    /// The supervisor that is given by its name or its id (the document's `to_pid/1`, the other way round).
    fn resolve(&self, supervisor: &str) -> Option<Name> {
        if let Some(record) = self.analytics.find(supervisor) {
            return Some(record.name().clone());
        }
        let node = self.analytics.node();
        let is_meant = |stats: &SupervisorStats| {
            stats.id.is_some_and(|id| id.to_string() == supervisor)
                && (node.is_none() || stats.supervisor.node.as_deref() == node)
        };
        let by_id = self.analytics.all_supervisor_stats().supervisor_stats.into_iter().find(is_meant);
        by_id.map(|stats| stats.supervisor)
    }

    /// Where an order goes. A child can be given behind a slash of its supervisor's name as well.
    async fn goal(&self, supervisor: &str, child: Option<&str>) -> Result<Goal, Error> {
        let resolved = self.resolve(supervisor);
        let asked = child.map_or_else(|| supervisor.to_owned(), |child| format!("{supervisor}/{child}"));
        if resolved.as_ref().is_some_and(|name| name.node.is_some()) {
            return Err(Error::Foreign(asked));
        }
        let name = resolved.map_or_else(|| supervisor.to_owned(), |name| name.supervisor.to_string());
        let path: Vec<&str> = name.split('/').chain(child).collect();
        let Some((top, below)) = path.split_first().filter(|(top, _)| self.tops.has(top)) else {
            return Err(self.not_found(&asked));
        };
        let Some((last, between)) = below.split_last() else { return Ok(Goal::Top((*top).to_owned())) };
        let mut handle = self.tops.handle(top).ok_or_else(|| Error::Down((*top).to_owned()))?;
        for id in between {
            let children =
                handle.which_children().await.map_err(|_| Error::Down(handle.reference().name.to_string()))?;
            let child = children.into_iter().find(|child| &*child.id == *id).ok_or_else(|| self.not_found(&asked))?;
            handle = child.supervisor.ok_or_else(|| Error::Down(format!("{}/{id}", handle.reference().name)))?;
        }
        Ok(Goal::Child(handle, (*last).to_owned()))
    }

    /// An answer in which a child that is not there has its name, and those near it.
    fn found<T>(&self, answer: Result<T, ControlError>, above: &SupervisorHandle, child: &str) -> Result<T, Error> {
        let name = &above.reference().name;
        answer.map_err(|error| match error {
            ControlError::NotFound => self.not_found(&format!("{name}/{child}")),
            ControlError::NotRunning => Error::Down(name.to_string()),
            error => Error::Refused(error),
        })
    }

    fn not_found(&self, name: &str) -> Error {
        let mut names = Vec::new();
        for view in self.analytics.supervisors() {
            let supervisor = view.supervisor.supervisor.to_string();
            names.extend(view.children.iter().map(|child| format!("{supervisor}/{}", child.child.id)));
            names.push(supervisor);
        }
        Error::NotFound { name: name.to_owned(), nearest: nearest::to(name, names) }
    }
}
