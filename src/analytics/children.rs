//! The children of one supervisor as its events show them. Pure: an event in, the view changed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::RandomState;

use super::history::{HistoryEntry, HistoryEvent};
use crate::event::{Action, ChildRef, Pid};

/// Dynamic children of one supervisor that are listed; those beyond are only counted. Static children are as many as
/// the supervisor has specs.
pub const MAX_LISTED_DYNAMIC: usize = 1000;

/// What a child does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChildState {
    /// It runs.
    Running,
    /// It ended or did not start, and will be started again.
    Restarting,
    /// It is down and stays so until somebody asks for it.
    Stopped,
}

/// Children by state, those that are not listed included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChildCounts {
    /// In [`ChildState::Running`].
    pub running: u64,
    /// In [`ChildState::Restarting`].
    pub restarting: u64,
    /// In [`ChildState::Stopped`].
    pub stopped: u64,
}

/// A child at the moment of a question.
#[derive(Clone, Debug, PartialEq)]
pub struct ChildView {
    /// Which child.
    pub child: Arc<ChildRef>,
    /// Its run; none if it does not run.
    pub pid: Option<Pid>,
    /// What it does.
    pub state: ChildState,
    /// How often it was restarted, whatever the cause, since its supervisor's init.
    pub restarts: u64,
    /// Time since its last start; none if it does not run.
    pub uptime: Option<Duration>,
    /// Time until it is started again; none if no delay is running.
    pub next_try: Option<Duration>,
    /// Its last death that nobody ordered.
    pub last_death: Option<HistoryEntry>,
}

/// All children of one supervisor.
#[derive(Debug, Default)]
pub(super) struct Children {
    /// Static children by id.
    fixed: HashMap<Arc<str>, Child, RandomState>,
    /// Dynamic children by their run, or while they restart by the run that ended: their ids are not unique.
    dynamic: HashMap<Pid, Child, RandomState>,
    counts: ChildCounts,
    /// The part of `counts` that is not listed.
    unlisted: ChildCounts,
    next_place: u64,
}

#[derive(Debug)]
struct Child {
    child: Arc<ChildRef>,
    /// Children are listed in the order in which they appeared.
    place: u64,
    doing: Doing,
    restarts: u64,
    /// A copy and not an id: in a noisy family the quiet child's last death has left the ring long ago.
    /// Boxed, because most children never die.
    last_death: Option<Box<HistoryEvent>>,
}

/// A [`ChildState`], and what is known of a child only in it.
#[derive(Clone, Copy, Debug)]
enum Doing {
    Running { pid: Option<Pid>, since: u64 },
    Restarting { next_try: Option<u64> },
    Stopped,
}

// === impl ChildState ===

impl ChildState {
    /// The spelling used in labels and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            ChildState::Running => "running",
            ChildState::Restarting => "restarting",
            ChildState::Stopped => "stopped",
        }
    }
}

// === impl ChildCounts ===

impl ChildCounts {
    fn of(&mut self, state: ChildState) -> &mut u64 {
        match state {
            ChildState::Running => &mut self.running,
            ChildState::Restarting => &mut self.restarting,
            ChildState::Stopped => &mut self.stopped,
        }
    }
}

// === impl Children ===

impl Children {
    /// Children by state.
    pub(super) fn counts(&self) -> ChildCounts {
        self.counts
    }

    /// `[supervisor, child, start]`; without a run the child chose to be ignored.
    pub(super) fn started(&mut self, child: &Arc<ChildRef>, pid: Option<Pid>, at: u64) {
        match pid {
            Some(_) => self.enter(child, pid, &[], Doing::Running { pid, since: at }, |_| ()),
            None if child.is_kept() => self.enter(child, None, &[], Doing::Stopped, |_| ()),
            None => {}
        }
    }

    /// `[supervisor, child, terminate]`, with the death if it was recorded.
    pub(super) fn ended(
        &mut self,
        child: &Arc<ChildRef>,
        pid: Pid,
        action: Action,
        next_try: Option<u64>,
        death: Option<&HistoryEvent>,
    ) {
        self.decided(child, Some(pid), &[ChildState::Running], action, next_try, |entry| {
            match (&mut entry.last_death, death) {
                (Some(last), Some(death)) => last.overwrite(death),
                (last @ None, Some(death)) => *last = Some(Box::new(death.clone())),
                (_, None) => {}
            }
        });
    }

    /// `[supervisor, child, restart]`.
    pub(super) fn restarted(&mut self, child: &Arc<ChildRef>, pid: Pid, previous: Option<Pid>, at: u64) {
        if child.dynamic
            && let Some(entry) = previous.and_then(|previous| self.dynamic.remove(&previous))
            && let Some(replaced) = self.dynamic.insert(pid, entry)
        {
            *self.counts.of(replaced.doing.state()) -= 1;
        }
        let before = &[ChildState::Restarting, ChildState::Stopped];
        let running = Doing::Running { pid: Some(pid), since: at };
        self.enter(child, Some(pid), before, running, |entry| entry.restarts += 1);
    }

    /// `[supervisor, child, start_error]`; without a decision the caller of `start_child` has the child back, and one
    /// that was not there before is not there now.
    pub(super) fn start_failed(&mut self, child: &Arc<ChildRef>, action: Option<Action>, next_try: Option<u64>) {
        let key = self.dynamic_key(child);
        match action {
            Some(action) => self.decided(child, key, &[ChildState::Restarting], action, next_try, |_| ()),
            None if self.fixed.contains_key(&child.id) && !child.dynamic => {
                self.enter(child, None, &[], Doing::Stopped, |_| ());
            }
            None => {}
        }
    }

    /// `[supervisor, child, stop]`.
    pub(super) fn stopped(&mut self, child: &Arc<ChildRef>, deleted: bool) {
        let (key, before) = (self.dynamic_key(child), &[ChildState::Restarting, ChildState::Stopped]);
        if deleted || !child.is_kept() {
            self.leave(child, key, before);
        } else {
            self.enter(child, key, before, Doing::Stopped, |_| ());
        }
    }

    /// `[supervisor, terminate]`: static children are down, dynamic ones are gone with their specs.
    pub(super) fn all_ended(&mut self) {
        self.dynamic.clear();
        for entry in self.fixed.values_mut() {
            entry.doing = Doing::Stopped;
        }
        self.counts = ChildCounts { stopped: self.fixed.len() as u64, ..ChildCounts::default() };
        self.unlisted = ChildCounts::default();
    }

    /// `[supervisor, init]`: a new incarnation knows no children yet.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// The listed children in the order in which they appeared. `entry_of` completes a death with its last words.
    pub(super) fn view(&self, now: u64, entry_of: impl Fn(&HistoryEvent) -> HistoryEntry) -> Vec<ChildView> {
        let mut entries: Vec<&Child> = self.fixed.values().chain(self.dynamic.values()).collect();
        entries.sort_unstable_by_key(|entry| entry.place);
        let view = |entry: &Child| {
            let (pid, since, next_try) = match entry.doing {
                Doing::Running { pid, since } => (pid, Some(since), None),
                Doing::Restarting { next_try } => (None, None, next_try),
                Doing::Stopped => (None, None, None),
            };
            ChildView {
                child: entry.child.clone(),
                pid,
                state: entry.doing.state(),
                restarts: entry.restarts,
                uptime: since.map(|at| Duration::from_nanos(now.saturating_sub(at))),
                next_try: next_try.map(|at| Duration::from_nanos(at.saturating_sub(now))),
                last_death: entry.last_death.as_deref().map(&entry_of),
            }
        };
        entries.into_iter().map(view).collect()
    }

    fn decided(
        &mut self,
        child: &Arc<ChildRef>,
        key: Option<Pid>,
        before: &[ChildState],
        action: Action,
        next_try: Option<u64>,
        edit: impl FnOnce(&mut Child),
    ) {
        match action {
            Action::Restart => self.enter(child, key, before, Doing::Restarting { next_try }, edit),
            Action::Forget => self.leave(child, key, before),
            Action::Leave if !child.is_kept() => self.leave(child, key, before),
            Action::Leave | Action::GiveUp | Action::AutoShutdown => {
                self.enter(child, key, before, Doing::Stopped, edit);
            }
        }
    }

    /// Moves a child to a state; a child that is not listed yet comes from one of the states `before` if it is among
    /// those counted only, else it is new.
    fn enter(
        &mut self,
        child: &Arc<ChildRef>,
        key: Option<Pid>,
        before: &[ChildState],
        doing: Doing,
        edit: impl FnOnce(&mut Child),
    ) {
        let listed =
            if child.dynamic { key.and_then(|pid| self.dynamic.get_mut(&pid)) } else { self.fixed.get_mut(&child.id) };
        if let Some(entry) = listed {
            *self.counts.of(entry.doing.state()) -= 1;
            *self.counts.of(doing.state()) += 1;
            entry.doing = doing;
            edit(entry);
            return;
        }
        self.uncount(before);
        *self.counts.of(doing.state()) += 1;
        let place = self.next_place;
        let mut entry = Child { child: child.clone(), place, doing, restarts: 0, last_death: None };
        self.next_place += 1;
        edit(&mut entry);
        match key {
            _ if !child.dynamic => {
                self.fixed.insert(child.id.clone(), entry);
            }
            Some(pid) if self.dynamic.len() < MAX_LISTED_DYNAMIC => {
                self.dynamic.insert(pid, entry);
            }
            _ => *self.unlisted.of(doing.state()) += 1,
        }
    }

    fn leave(&mut self, child: &Arc<ChildRef>, key: Option<Pid>, before: &[ChildState]) {
        let listed =
            if child.dynamic { key.and_then(|pid| self.dynamic.remove(&pid)) } else { self.fixed.remove(&child.id) };
        match listed {
            Some(entry) => *self.counts.of(entry.doing.state()) -= 1,
            None => self.uncount(before),
        }
    }

    /// Takes one child out of those counted only, from the first of the states that has any.
    fn uncount(&mut self, states: &[ChildState]) {
        for &state in states {
            if *self.unlisted.of(state) > 0 {
                *self.unlisted.of(state) -= 1;
                *self.counts.of(state) -= 1;
                return;
            }
        }
    }

    /// The entry of a dynamic child that does not run, for events that name no run.
    fn dynamic_key(&self, child: &Arc<ChildRef>) -> Option<Pid> {
        if !child.dynamic {
            return None;
        }
        let find = |is_it: &dyn Fn(&Arc<ChildRef>) -> bool| {
            let mut down = self.dynamic.iter().filter(|(_, entry)| entry.doing.state() != ChildState::Running);
            down.find(|(_, entry)| is_it(&entry.child)).map(|(pid, _)| *pid)
        };
        // Producers that share one description among equal children leave no way to tell these apart, and no need.
        find(&|other| Arc::ptr_eq(other, child)).or_else(|| find(&|other| other == child))
    }
}

// === impl Doing ===

impl Doing {
    fn state(self) -> ChildState {
        match self {
            Doing::Running { .. } => ChildState::Running,
            Doing::Restarting { .. } => ChildState::Restarting,
            Doing::Stopped => ChildState::Stopped,
        }
    }
}

#[cfg(test)]
mod tests;
