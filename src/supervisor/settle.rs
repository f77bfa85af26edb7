//! Who waits until children have had their turn: they run, or it is known why not.

use std::sync::Arc;

use crate::event::ExitReason;
use crate::supervisor::handle::{ChildSelector, SupervisorHandle};
use crate::supervisor::run_loop::Supervision;
use crate::supervisor::table::{Down, State};

/// A child that has had its turn.
pub(crate) struct Settled {
    /// Its full name.
    pub(crate) name: String,
    pub(crate) fate: Fate,
}

/// What came of a child's turn.
pub(crate) enum Fate {
    /// It runs, or is down because somebody wanted so.
    Fine,
    /// It did not start. It may be tried again.
    Failed(ExitReason),
    /// It waits for this child, which did not start and is tried again.
    Waits(String),
    /// It is a supervisor, which knows what came of its own children.
    Below(SupervisorHandle),
}

/// Children that are waited for.
pub(super) struct Watcher {
    pending: Vec<Arc<str>>,
    settled: Vec<Settled>,
    answer: Box<dyn FnOnce(Vec<Settled>) + Send>,
}

impl Supervision {
    /// Answers when each of these children has had its turn.
    pub(super) fn watch(&mut self, children: Vec<Arc<str>>, answer: impl FnOnce(Vec<Settled>) + Send + 'static) {
        self.watchers.push(Watcher { pending: children, settled: Vec::new(), answer: Box::new(answer) });
    }

    /// Answers those who need not wait any more.
    pub(super) fn answer_watchers(&mut self) {
        if self.watchers.is_empty() {
            return;
        }
        let mut watchers = std::mem::take(&mut self.watchers);
        for watcher in &mut watchers {
            let Watcher { pending, settled, .. } = watcher;
            pending.retain(|id| match self.fate(id) {
                Some(fate) => {
                    settled.push(Settled { name: format!("{}/{id}", self.me.name), fate });
                    false
                }
                None => true,
            });
        }
        let (done, waiting) = watchers.into_iter().partition(|watcher: &Watcher| watcher.pending.is_empty());
        self.watchers = waiting;
        for Watcher { settled, answer, .. } in done {
            answer(settled);
        }
    }

    /// What came of a child's turn; none if that is still to come.
    fn fate(&self, id: &Arc<str>) -> Option<Fate> {
        let Some(child) = self.table.find(&ChildSelector::Id(id.clone())).and_then(|key| self.table.get(key)) else {
            return Some(Fate::Fine);
        };
        match &child.state {
            // It runs although children of its own may not.
            State::Running(run) => Some(run.supervisor.as_deref().cloned().map_or(Fate::Fine, Fate::Below)),
            State::Starting(starting) => {
                let handle = starting.run.supervisor.as_deref().filter(|_| starting.is_stalled);
                handle.cloned().map(Fate::Below)
            }
            State::Down(Down::Stopped | Down::Done, _) => Some(Fate::Fine),
            // Without a start error it started, and died since.
            State::Down(Down::Failed | Down::Restarting { .. }, _) => {
                Some(child.start_error.clone().map_or(Fate::Fine, Fate::Failed))
            }
            State::Down(Down::Waiting(_) | Down::Held(_), _) => self.blocked_by().map(Fate::Waits),
        }
    }

    /// The full name of the child that those in the line wait for in vain; none if the line moves.
    fn blocked_by(&self) -> Option<String> {
        let first = self.line.first().and_then(|key| self.table.get(*key))?;
        let moves = match &first.state {
            State::Starting(starting) => !starting.is_stalled,
            State::Running(_) => true,
            State::Down(down, _) => !matches!(down, Down::Restarting { .. }),
        };
        (!moves).then(|| format!("{}/{}", self.me.name, first.reference.id))
    }
}
