//! The children of one supervisor as its events show them. Pure: an event in, the view changed.

mod counted;
mod minutes;
mod states;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::RandomState;

use super::health::{Deaths, Down, Health, Looping};
use super::history::{HistoryEntry, HistoryEvent};
use crate::event::{Action, ChildRef, Phase, Pid};
use crate::resources::{Place, Room, entry_bytes, shrink};
pub use minutes::MINUTES_COUNTED;
pub use states::{ChildCounts, ChildState};

/// Dynamic children of one supervisor that are listed; those beyond are only counted. Static children are as many as
/// the supervisor has specs, unless it lives on a node.
pub const MAX_LISTED_DYNAMIC: usize = 1000;

/// Static children of the supervisors of all nodes that are listed, those included whose supervisor has ended and is not
/// forgotten yet; those beyond are only counted.
pub const MAX_LISTED_OF_NODES: usize = 20_000;

/// Most bytes of a child that is listed, beside its texts: its place in a table that grows by doubling, and its deaths.
pub(super) const LISTED_BYTES: usize = entry_bytes::<(Arc<str>, Child)>() + Deaths::MOST_BYTES;

/// What a child is about to do, and how long that has taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildProgress {
    /// What is waited for; none if only the start or the end itself.
    pub waits_for: Option<Arc<str>>,
    /// For how long.
    pub elapsed: Duration,
    /// How long it may take altogether; none if there is no limit.
    pub limit: Option<Duration>,
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
    /// What is waited for while it waits, starts or stops.
    pub progress: Option<ChildProgress>,
    /// Time until it is started again; none if no delay is running.
    pub next_try: Option<Duration>,
    /// Its last death that nobody ordered, or failed start.
    pub last_death: Option<HistoryEntry>,
    /// What the last death was of, whatever the child; see [`Cause::reason_fingerprint`](super::Cause).
    pub reason_fingerprint: Option<u64>,
    /// How it fares.
    pub health: Health,
    /// The loop it is in.
    pub looping: Option<Looping>,
    /// Deaths within the hour just past, counted by the minute.
    pub deaths_hour: u64,
    /// Deaths within the day just past, those longer ago than an hour counted by the hour.
    pub deaths_day: u64,
}

/// A run that ended, as far as it concerns its child.
#[derive(Clone, Copy, Debug)]
pub(super) struct End<'a> {
    /// What becomes of the child.
    pub(super) action: Action,
    /// When it is started again, if a delay is running.
    pub(super) next_try: Option<u64>,
    /// How long the run lasted.
    pub(super) lifetime: Option<Duration>,
    /// The death, if nobody ordered it.
    pub(super) death: Option<Death<'a>>,
}

/// A death or a failed start that was recorded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Death<'a> {
    /// As the history has it.
    pub(super) event: &'a HistoryEvent,
    /// What of, whatever the child.
    pub(super) reason_fingerprint: u64,
    /// Is it a failure? Else the child was done, and need not have been.
    pub(super) is_failure: bool,
}

/// All children of one supervisor.
#[derive(Debug, Default)]
pub(super) struct Children {
    /// Static children by id.
    fixed: HashMap<Arc<str>, Child, RandomState>,
    /// Dynamic children by their run, or while they restart by the run that ended: their ids are not unique.
    dynamic: HashMap<Pid, Child, RandomState>,
    /// Deaths of static children of the incarnation before that did not appear in this one yet: a loop that takes its
    /// supervisor along is still that loop.
    before: HashMap<Arc<str>, Before, RandomState>,
    /// Where static children of a node need a place to be listed; none for those of this process.
    room: Option<Room>,
    counts: ChildCounts,
    /// The part of `counts` that is not listed.
    unlisted: ChildCounts,
    next_place: u64,
}

/// What is known of a child of the incarnation before.
#[derive(Debug)]
struct Before {
    deaths: Box<Deaths>,
    room: Option<Place>,
}

#[derive(Debug)]
struct Child {
    child: Arc<ChildRef>,
    /// Children are listed in the order in which they appeared, or were configured since.
    place: u64,
    doing: Doing,
    restarts: u64,
    /// Boxed, because most children never die.
    deaths: Option<Box<Deaths>>,
    /// Its place among those of nodes that are listed.
    room: Option<Place>,
}

/// A [`ChildState`], and what is known of a child only in it.
#[derive(Clone, Debug)]
enum Doing {
    Waiting { since: u64 },
    Starting { since: u64, waits_for: Option<Arc<str>>, limit: Option<Duration> },
    Running { pid: Option<Pid>, since: u64 },
    Stopping { pid: Option<Pid>, since: u64, limit: Option<Duration> },
    Restarting { next_try: Option<u64> },
    Stopped(Down),
}

// === impl Children ===

impl Children {
    /// No children yet. Static children of a node are listed as far as there is room.
    pub(super) fn new(room: Option<Room>) -> Self {
        Self { room, ..Self::default() }
    }

    /// Children by state.
    pub(super) fn counts(&self) -> ChildCounts {
        self.counts
    }

    /// `[supervisor, child, start]`; without a run the child chose to be ignored.
    pub(super) fn started(&mut self, child: &Arc<ChildRef>, pid: Option<Pid>, at: u64) {
        match pid {
            Some(_) => self.enter(child, pid, &[], Doing::Running { pid, since: at }, |_| ()),
            None if child.is_kept() => self.enter(child, None, &[], Doing::Stopped(Down::Wanted), |_| ()),
            None => {}
        }
    }

    /// `[supervisor, child, terminate]`.
    pub(super) fn ended(&mut self, child: &Arc<ChildRef>, pid: Option<Pid>, end: End<'_>) {
        let is_failure = end.death.is_some_and(|death| death.is_failure);
        let doing = Doing::after(child, end.action, end.next_try, is_failure);
        self.decided(child, pid, &[ChildState::Running], doing, |entry| {
            if let (Some(deaths), None, Some(lifetime)) = (&mut entry.deaths, end.death, end.lifetime) {
                deaths.ran(lifetime);
            }
            if let Some(death) = end.death {
                entry.died(death, end.lifetime);
            }
        });
    }

    /// `[supervisor, child, restart]`. A dynamic child whose new run is unknown cannot be found again, so it is only counted.
    pub(super) fn restarted(&mut self, child: &Arc<ChildRef>, pid: Option<Pid>, previous: Option<Pid>, at: u64) {
        if child.dynamic
            && let Some(entry) = previous.and_then(|previous| self.dynamic.remove(&previous))
        {
            let replaced = match pid {
                Some(pid) => self.dynamic.insert(pid, entry),
                None => Some(entry),
            };
            if let Some(replaced) = replaced {
                *self.counts.of(replaced.doing.state()) -= 1;
            }
        }
        let before = &[ChildState::Restarting, ChildState::Stopped, ChildState::Failed];
        let running = Doing::Running { pid, since: at };
        self.enter(child, pid, before, running, |entry| entry.restarts += 1);
    }

    /// `[supervisor, child, start_error]`; without a decision the caller of `start_child` has the child back, and one
    /// that was not there before is not there now.
    pub(super) fn start_failed(
        &mut self,
        child: &Arc<ChildRef>,
        action: Option<Action>,
        next_try: Option<u64>,
        death: Death<'_>,
    ) {
        let (key, before) = (self.dynamic_key(child), &[ChildState::Restarting]);
        let edit = |entry: &mut Child| entry.died(death, Some(Duration::ZERO));
        match action {
            Some(action) => self.decided(child, key, before, Doing::after(child, action, next_try, true), edit),
            None if self.fixed.contains_key(&child.id) && !child.dynamic => {
                self.enter(child, None, &[], Doing::Stopped(Down::Failed), edit);
            }
            None => {}
        }
    }

    /// `[supervisor, child, stop]`.
    pub(super) fn stopped(&mut self, child: &Arc<ChildRef>, deleted: bool) {
        let (key, before) =
            (self.dynamic_key(child), &[ChildState::Restarting, ChildState::Stopped, ChildState::Failed]);
        if deleted || !child.is_kept() {
            self.leave(child, key, before);
        } else {
            self.enter(child, key, before, Doing::Stopped(Down::Wanted), |_| ());
        }
    }

    /// `[supervisor, child, phase]`. Of dynamic children, which have no name before they run, only the stop is shown.
    pub(super) fn phase(&mut self, child: &Arc<ChildRef>, pid: Option<Pid>, phase: &Phase, at: u64) {
        let doing = match phase {
            Phase::Waiting => Doing::Waiting { since: at },
            Phase::Starting { waits_for, limit } => {
                Doing::Starting { since: at, waits_for: waits_for.clone(), limit: *limit }
            }
            Phase::Stopping { limit } => Doing::Stopping { pid, since: at, limit: *limit },
        };
        let is_listed = pid.is_some_and(|pid| self.dynamic.contains_key(&pid));
        if !child.dynamic || is_listed && matches!(phase, Phase::Stopping { .. }) {
            self.enter(child, pid, &[], doing, |_| ());
        }
    }

    /// `[supervisor, config]`: these are the children, in this order. Those that nobody has heard of come later.
    pub(super) fn configured(&mut self, children: &[Arc<ChildRef>]) {
        for child in children {
            if let Some(entry) = self.fixed.get_mut(&child.id) {
                entry.child = child.clone();
                entry.place = self.next_place;
                self.next_place += 1;
            }
        }
    }

    /// `[supervisor, terminate]`: static children are down, dynamic ones are gone with their specs.
    pub(super) fn all_ended(&mut self) {
        self.dynamic.clear();
        self.counts = ChildCounts::default();
        for entry in self.fixed.values_mut() {
            if !matches!(entry.doing, Doing::Stopped(_)) {
                entry.doing = Doing::Stopped(Down::Wanted);
            }
            *self.counts.of(entry.doing.state()) += 1;
        }
        self.unlisted = ChildCounts::default();
    }

    /// `[supervisor, init]`: a new incarnation knows no children yet, only what those of the same ids died of before.
    pub(super) fn clear(&mut self) {
        let fixed = std::mem::take(&mut self.fixed);
        let mut before = std::mem::take(&mut self.before);
        if !fixed.is_empty() {
            // Without the ids that even the last incarnation did not have.
            let known = |child: Child| Some(Before { deaths: child.deaths?, room: child.room });
            before = fixed.into_iter().filter_map(|(id, child)| Some((id, known(child)?))).collect();
        }
        *self = Self { before, ..Self::new(self.room.take()) };
    }

    /// The listed children in the order in which they appeared. `entry_of` completes a death with its last words.
    pub(super) fn view(&self, now: u64, entry_of: impl Fn(&HistoryEvent) -> HistoryEntry) -> Vec<ChildView> {
        let mut entries: Vec<&Child> = self.fixed.values().chain(self.dynamic.values()).collect();
        entries.sort_unstable_by_key(|entry| entry.place);
        // Who waits, waits for the last one before it that is not up yet.
        let mut awaited = None;
        let mut view = |entry: &Child| {
            if matches!(entry.doing.state(), ChildState::Starting | ChildState::Restarting) {
                awaited = Some(entry.child.id.clone());
            }
            entry.view(now, awaited.as_ref(), &entry_of)
        };
        entries.into_iter().map(&mut view).collect()
    }

    /// Moves a child to what became of it; none: it is known no more.
    fn decided(
        &mut self,
        child: &Arc<ChildRef>,
        key: Option<Pid>,
        before: &[ChildState],
        doing: Option<Doing>,
        edit: impl FnOnce(&mut Child),
    ) {
        match doing {
            Some(doing) => self.enter(child, key, before, doing, edit),
            None => self.leave(child, key, before),
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
        let state = doing.state();
        if let Some(entry) = listed {
            *self.counts.of(entry.doing.state()) -= 1;
            *self.counts.of(state) += 1;
            entry.doing = doing;
            edit(entry);
            return;
        }
        self.uncount(before);
        *self.counts.of(state) += 1;
        let place = self.next_place;
        let before = if child.dynamic { None } else { self.before.remove(&child.id) };
        shrink(&mut self.before);
        let (deaths, mut room) = before.map_or((None, None), |before| (Some(before.deaths), before.room));
        let is_of_node = self.room.is_some() && !child.dynamic;
        if let Some(of_nodes) = self.room.as_ref().filter(|_| is_of_node && room.is_none()) {
            room = of_nodes.take();
        }
        let has_room = !is_of_node || room.is_some();
        let mut entry = Child { child: child.clone(), place, doing, restarts: 0, deaths, room };
        self.next_place += 1;
        edit(&mut entry);
        match key {
            _ if !child.dynamic && has_room => {
                self.fixed.insert(child.id.clone(), entry);
            }
            _ if !child.dynamic => *self.unlisted.of(state) += 1,
            Some(pid) if self.dynamic.len() < MAX_LISTED_DYNAMIC => {
                self.dynamic.insert(pid, entry);
            }
            _ => *self.unlisted.of(state) += 1,
        }
    }

    fn leave(&mut self, child: &Arc<ChildRef>, key: Option<Pid>, before: &[ChildState]) {
        let listed =
            if child.dynamic { key.and_then(|pid| self.dynamic.remove(&pid)) } else { self.fixed.remove(&child.id) };
        shrink(&mut self.fixed);
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
            let is_up = |entry: &Child| matches!(entry.doing, Doing::Running { .. } | Doing::Stopping { .. });
            let mut down = self.dynamic.iter().filter(|(_, entry)| !is_up(entry));
            down.find(|(_, entry)| is_it(&entry.child)).map(|(pid, _)| *pid)
        };
        // Producers that share one description among equal children leave no way to tell these apart, and no need.
        find(&|other| Arc::ptr_eq(other, child)).or_else(|| find(&|other| other == child))
    }
}

// === impl Child ===

impl Child {
    fn died(&mut self, death: Death<'_>, lifetime: Option<Duration>) {
        let Death { event, reason_fingerprint, is_failure } = death;
        let deaths = self.deaths.get_or_insert_with(|| Box::new(Deaths::new(event, reason_fingerprint)));
        deaths.last.overwrite(event);
        deaths.reason_fingerprint = reason_fingerprint;
        if let Some(lifetime) = lifetime {
            deaths.ran(lifetime);
        }
        if is_failure {
            deaths.count();
        }
    }

    fn view(
        &self,
        now: u64,
        awaited: Option<&Arc<str>>,
        entry_of: impl Fn(&HistoryEvent) -> HistoryEntry,
    ) -> ChildView {
        let ago = |at: u64| Duration::from_nanos(now.saturating_sub(at));
        let progress = |waits_for: Option<&Arc<str>>, since: u64, limit: Option<Duration>| {
            Some(ChildProgress { waits_for: waits_for.cloned(), elapsed: ago(since), limit })
        };
        let (mut pid, mut uptime, mut next_try, mut progressing, mut down) = (None, None, None, None, Down::Wanted);
        match &self.doing {
            Doing::Waiting { since } => progressing = progress(awaited, *since, None),
            Doing::Starting { since, waits_for, limit } => progressing = progress(waits_for.as_ref(), *since, *limit),
            Doing::Running { pid: run, since } => (pid, uptime) = (*run, Some(ago(*since))),
            Doing::Stopping { pid: run, since, limit } => (pid, progressing) = (*run, progress(None, *since, *limit)),
            Doing::Restarting { next_try: at } => next_try = at.map(|at| Duration::from_nanos(at.saturating_sub(now))),
            Doing::Stopped(why) => down = *why,
        }
        let (state, deaths) = (self.doing.state(), self.deaths.as_deref());
        let looping = deaths.and_then(|deaths| deaths.looping(now, uptime.unwrap_or_default()));
        let deaths_day = deaths.map_or(0, |deaths| deaths.last_day(now));
        let health = Health::of_child(state, down, looping.is_some(), deaths_day);
        ChildView {
            child: self.child.clone(),
            pid,
            state,
            restarts: self.restarts,
            uptime,
            progress: progressing,
            next_try,
            last_death: deaths.map(|deaths| entry_of(&deaths.last)),
            reason_fingerprint: deaths.map(|deaths| deaths.reason_fingerprint),
            health,
            looping: looping.filter(|_| health == Health::Looping),
            deaths_hour: deaths.map_or(0, |deaths| deaths.last_hour(now)),
            deaths_day,
        }
    }
}

// === impl Doing ===

impl Doing {
    /// What a child does that ended or did not start; none if it is known no more.
    fn after(child: &ChildRef, action: Action, next_try: Option<u64>, is_failure: bool) -> Option<Self> {
        match action {
            Action::Restart => Some(Doing::Restarting { next_try }),
            Action::Forget => None,
            Action::Leave if !child.is_kept() => None,
            Action::GiveUp => Some(Doing::Stopped(Down::GaveUp)),
            Action::Leave | Action::AutoShutdown if is_failure => Some(Doing::Stopped(Down::Failed)),
            Action::Leave | Action::AutoShutdown => Some(Doing::Stopped(Down::Wanted)),
        }
    }

    fn state(&self) -> ChildState {
        match self {
            Doing::Waiting { .. } => ChildState::Waiting,
            Doing::Starting { .. } => ChildState::Starting,
            Doing::Running { .. } => ChildState::Running,
            Doing::Stopping { .. } => ChildState::Stopping,
            Doing::Restarting { .. } => ChildState::Restarting,
            Doing::Stopped(Down::Wanted) => ChildState::Stopped,
            Doing::Stopped(Down::Failed | Down::GaveUp) => ChildState::Failed,
        }
    }
}

#[cfg(test)]
mod tests;
