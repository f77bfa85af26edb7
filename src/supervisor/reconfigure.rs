//! New children for a running supervisor: only what changed is touched (OTP: `supervisor:code_change/3`, which a release
//! upgrade calls).

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use crate::event::{Action, ExitReason, RestartCause, Strategy, SupervisorExit};
use crate::supervisor::error::ControlError;
use crate::supervisor::handle::ChildSelector;
use crate::supervisor::run_loop::{Attempt, Supervision};
use crate::supervisor::spec::{ChildSpec, Start, Supervisor};
use crate::supervisor::table::{Down, Key, State};

/// What a reconfiguration did, by the full names of children.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Started for the first time.
    pub added: Vec<String>,
    /// Stopped, and their specs deleted.
    pub removed: Vec<String>,
    /// Stopped and started with their new spec. One that did not start is retried as after any failed restart.
    pub changed: Vec<String>,
    /// Not started, and forgotten, with the reason.
    pub failed: Vec<(String, ExitReason)>,
}

impl Changes {
    /// True if nothing was touched.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Takes in what was done elsewhere in the tree.
    pub(crate) fn merge(&mut self, other: Changes) {
        self.added.extend(other.added);
        self.removed.extend(other.removed);
        self.changed.extend(other.changed);
        self.failed.extend(other.failed);
    }
}

impl Supervision {
    /// Makes `children` the children of this supervisor, in this order. Breaks if the supervisor has to end meanwhile.
    pub(super) async fn reconfigure(
        &mut self,
        children: Vec<ChildSpec>,
    ) -> ControlFlow<SupervisorExit, Result<Changes, ControlError>> {
        if self.spec.strategy == Strategy::Dynamic {
            return ControlFlow::Continue(Err(ControlError::Dynamic));
        }
        // All are checked before any is touched.
        let mut wanted = self.spec.clone();
        wanted.children = children.clone();
        if let Err(error) = wanted.check() {
            return ControlFlow::Continue(Err(error.into()));
        }
        let mut changes = Changes::default();
        self.remove_all_but(&children, &mut changes).await;
        let order: Vec<Arc<str>> = children.iter().map(|child| child.id.clone()).collect();
        for spec in children {
            let path = format!("{}/{}", self.me.name, spec.id);
            match self.table.find(&ChildSelector::Id(spec.id.clone())) {
                Some(key) => self.change(key, spec, path, &mut changes).await?,
                None => match self.start_new(spec).await {
                    Ok(_) => changes.added.push(path),
                    Err(ControlError::NotRunning) => return ControlFlow::Break(self.orders.stop.exit()),
                    Err(ControlError::StartFailed(reason)) => changes.failed.push((path, reason)),
                    Err(error) => changes.failed.push((path, ExitReason::error(error))),
                },
            }
        }
        let moved = self.table.reorder(&order);
        self.due = self.due.iter().filter_map(|(due, key)| Some((*due, *moved.get(key)?))).collect();
        ControlFlow::Continue(Ok(changes))
    }

    async fn remove_all_but(&mut self, children: &[ChildSpec], changes: &mut Changes) {
        let wanted: HashSet<&str> = children.iter().map(|child| &*child.id).collect();
        let surplus = self.table.iter().filter(|(_, child)| !wanted.contains(&*child.reference.id));
        let surplus: Vec<_> = surplus.map(|(key, child)| (key, child.reference.id.clone())).collect();
        for (key, id) in surplus.into_iter().rev() {
            self.stop(key, Action::Leave).await;
            self.settle(key, true);
            changes.removed.push(format!("{}/{id}", self.me.name));
        }
    }

    async fn change(
        &mut self,
        key: Key,
        spec: ChildSpec,
        path: String,
        changes: &mut Changes,
    ) -> ControlFlow<SupervisorExit> {
        let Some(child) = self.table.get(key) else { return ControlFlow::Continue(()) };
        if child.spec.is_same(&spec) {
            return ControlFlow::Continue(());
        }
        let below = child.run().and_then(|run| run.supervisor.clone());
        if let (Some(below), Start::Supervisor(supervisor)) = (below, &spec.start)
            && child.spec.differs_only_below(&spec)
        {
            let below = below.reconfigure(supervisor.children.clone()).await;
            self.table.respec(key, spec, self.spec.strategy);
            match below {
                Ok(below) => changes.merge(below),
                Err(error) => changes.failed.push((path, ExitReason::error(error))),
            }
            return ControlFlow::Continue(());
        }
        // One that an operator stopped stays so.
        let is_wanted = !matches!(child.state, State::Down(Down::Stopped, _));
        self.stop(key, Action::Restart).await;
        self.table.respec(key, spec, self.spec.strategy);
        changes.changed.push(path);
        if is_wanted {
            match self.start_again(key, RestartCause::Requested).await {
                Attempt::Done | Attempt::Later => {}
                Attempt::End(exit) => return ControlFlow::Break(exit),
            }
        }
        ControlFlow::Continue(())
    }
}

// === What is the same ===

impl ChildSpec {
    /// Would the child run as before with this spec?
    pub(super) fn is_same(&self, other: &ChildSpec) -> bool {
        self.has_same_settings(other)
            && match (&self.start, &other.start) {
                (Start::Task(own), Start::Task(other)) => Arc::ptr_eq(own, other),
                (Start::Announced(own), Start::Announced(other)) => Arc::ptr_eq(own, other),
                (Start::Process(own), Start::Process(other)) => own == other,
                (Start::Supervisor(own), Start::Supervisor(other)) => own.is_same(other),
                _ => false,
            }
    }

    /// Is this a supervisor with the same settings, but other children?
    pub(super) fn differs_only_below(&self, other: &ChildSpec) -> bool {
        self.has_same_settings(other)
            && match (&self.start, &other.start) {
                (Start::Supervisor(own), Start::Supervisor(other)) => own.has_same_settings(other),
                _ => false,
            }
    }

    fn has_same_settings(&self, other: &ChildSpec) -> bool {
        (&self.id, self.restart, self.shutdown, self.significant, self.child_type, &self.backoff, &self.kind)
            == (
                &other.id,
                other.restart,
                other.shutdown,
                other.significant,
                other.child_type,
                &other.backoff,
                &other.kind,
            )
    }
}

impl Supervisor {
    /// Would the supervisor and all below it run as before with this spec?
    pub(crate) fn is_same(&self, other: &Supervisor) -> bool {
        let same_children = || self.children.iter().zip(&other.children).all(|(own, other)| own.is_same(other));
        self.has_same_settings(other) && self.children.len() == other.children.len() && same_children()
    }

    /// Are all but the children the same? What an init function will say is not known: it must be the very same.
    pub(crate) fn has_same_settings(&self, other: &Supervisor) -> bool {
        let same_init = match (&self.init, &other.init) {
            (None, None) => true,
            (Some(own), Some(other)) => Arc::ptr_eq(own, other),
            _ => false,
        };
        let settings = |spec: &Supervisor| {
            let limits = (spec.max_restarts, spec.max_seconds, spec.resolution, spec.max_children);
            (spec.name.clone(), spec.strategy, limits, spec.auto_shutdown)
        };
        same_init && settings(self) == settings(other)
    }
}
