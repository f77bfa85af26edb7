//! Everything known of one supervisor name, behind one lock that is held for one event or one answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::answers::{CausesPage, HistoryPage, Levels, SupervisorConfig, SupervisorStats, SupervisorView};
use super::causes::{Cause, Causes};
use super::children::{ChildCounts, ChildState, ChildView, Children, Death, End};
use super::health::Health;
use super::history::{EventType, Fact, History, HistoryEntry, HistoryEvent, HistoryFilter, Remains};
use super::registry::{Name, OTHER};
use super::ring::Ring;
use super::stats::{FailureRate, Stats, Totals};
use crate::event::{
    Action, Aggregated, ChildRef, Decision, ExitReason, Payload, Pid, Restart, SupervisorEvent, SupervisorExit,
    Timestamp,
};
use crate::resources::Room;

/// Restarts followed inside the intensity window if the limit is unknown.
pub const INTENSITY_STAMPS_UNKNOWN: usize = 1000;

/// Most restarts followed inside the intensity window, however generous the limit: the window's use is shown up to here.
pub const MAX_INTENSITY_STAMPS: usize = 10_000;

/// What is kept of one supervisor name.
///
/// The record of [`OTHER`] stands for many supervisors: it has their history, causes and totals, but no incarnation,
/// no config and no children, because those of different supervisors make no sense together.
pub struct Record {
    name: Name,
    state: Mutex<RecordState>,
}

struct RecordState {
    epoch: Instant,
    /// The newest time seen. Two incarnations of a name have two authors, and windows need times that do not go back.
    newest: u64,
    is_shared: bool,
    incarnation: Option<Incarnation>,
    config: Option<SupervisorConfig>,
    history: History,
    causes: Causes,
    stats: Stats,
    /// When restarts after a failure were admitted, as the supervisor's own intensity counts them.
    intensity: Ring<u64>,
    children: Children,
    /// A copy and not an id, as of the deaths of children.
    last_end: Option<HistoryEvent>,
    /// Does nobody want it any more, since its last end or before? Then how it ended is no trouble.
    is_dismissed: bool,
}

/// The newest incarnation of a name.
struct Incarnation {
    key: u64,
    id: Pid,
    started_at: Option<u64>,
    up: bool,
}

// === impl Record ===

impl Record {
    /// Nothing known yet. `epoch` is the zero of all [`HistoryEvent::at`]; static children of a node are listed as far as
    /// there is room for those `of_nodes`.
    pub(super) fn new(name: Name, epoch: Instant, capacity: usize, of_nodes: &Room) -> Self {
        let state = RecordState {
            epoch,
            newest: 0,
            is_shared: *name.supervisor == *OTHER,
            incarnation: None,
            config: None,
            history: History::new(capacity),
            causes: Causes::new(),
            stats: Stats::new(capacity),
            intensity: Ring::new(INTENSITY_STAMPS_UNKNOWN),
            children: Children::new(name.node.is_some().then(|| of_nodes.clone())),
            last_end: None,
            is_dismissed: false,
        };
        Self { name, state: Mutex::new(state) }
    }

    /// Whether nobody wants this supervisor any more.
    pub(super) fn dismiss(&self, is_dismissed: bool) {
        self.state.lock().is_dismissed = is_dismissed;
    }

    /// Takes an event in; returns what it added to the totals.
    pub(super) fn apply(&self, event: &SupervisorEvent) -> Totals {
        self.state.lock().apply(event)
    }

    /// Whose record it is.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// What a scrape shows of it.
    pub fn levels(&self, now: Instant) -> Levels {
        let state = self.state.lock();
        Levels {
            children: state.children.counts(),
            restarts_in_window: state.restarts_in_window(state.nanos(now)),
            history_events: state.history.len() as u64,
            evicted_events: state.history.evicted(),
        }
    }

    /// What the supervisor announced at its last init; none if no init was seen.
    pub fn config(&self) -> Option<SupervisorConfig> {
        self.state.lock().config.clone()
    }

    /// The events that the filter wants, newest first.
    pub fn history(&self, filter: &HistoryFilter) -> HistoryPage {
        let state = self.state.lock();
        HistoryPage {
            supervisor: self.name.clone(),
            capacity: state.history.capacity(),
            total: state.history.total(),
            evicted: state.history.evicted(),
            events: state.history.query(filter).map(|event| state.entry(event)).collect(),
        }
    }

    /// Shows the deaths of known lifetime among the newest `limit` that the history holds, newest first, each with its
    /// lifetime in milliseconds.
    pub fn each_newest_death(&self, limit: usize, mut show: impl FnMut(&HistoryEvent, u64)) {
        let filter =
            HistoryFilter { event: Some(EventType::Terminated), limit: Some(limit), ..HistoryFilter::default() };
        for event in self.state.lock().history.query(&filter) {
            if let Fact::Terminated { lifetime_ms, .. } = event.fact
                && let Some(lifetime_ms) = lifetime_ms.get()
            {
                show(event, lifetime_ms);
            }
        }
    }

    /// The newest restart that was asked for just before the moment `at`, in monotonic nanoseconds.
    pub(super) fn change_before(&self, at: u64) -> Option<HistoryEvent> {
        self.state.lock().history.change_before(at)
    }

    /// The causes of deaths, most frequent first; with a child's label or id only its own.
    pub fn causes(&self, child: Option<&str>) -> CausesPage {
        CausesPage { supervisor: self.name.clone(), causes: self.state.lock().causes.list(child) }
    }

    /// The causes of this reason that children died of within the time before `now`.
    pub(super) fn causes_of(&self, reason: u64, within: Duration, now: Instant) -> Vec<Cause> {
        let state = self.state.lock();
        let since = state.nanos(now).saturating_sub(within.as_nanos() as u64);
        state.causes.of_reason(reason, since).cloned().collect()
    }

    /// Deaths in each of the last [`MINUTES_COUNTED`](super::MINUTES_COUNTED) minutes, the present one last, of the children
    /// with this id or, without one, of all.
    pub fn deaths_by_minute(&self, child: Option<&str>, now: Instant) -> Vec<u32> {
        let state = self.state.lock();
        state.children.deaths_by_minute(child, state.nanos(now))
    }

    /// What failed in the window that ends `now`.
    pub fn failure_rate(&self, window: Duration, now: Instant) -> FailureRate {
        let state = self.state.lock();
        state.stats.failure_rate(window, state.nanos(now))
    }

    /// The supervisor's line in the statistics of all.
    pub fn stats(&self) -> SupervisorStats {
        let state = self.state.lock();
        let totals = state.stats.totals();
        SupervisorStats {
            supervisor: self.name.clone(),
            id: state.incarnation.as_ref().map(|incarnation| incarnation.id),
            total_restarts: totals.restarts,
            total_failures: totals.failures,
            recent_restarts: state.history.recent_restarts(),
            last_restart: state.stats.last_restart(),
        }
    }

    /// The supervisor and its children at `now`.
    pub fn view(&self, now: Instant) -> SupervisorView {
        let state = self.state.lock();
        let now = state.nanos(now);
        let incarnation = state.incarnation.as_ref();
        let started_at =
            incarnation.filter(|incarnation| incarnation.up).and_then(|incarnation| incarnation.started_at);
        let (up, totals) = (incarnation.is_some_and(|incarnation| incarnation.up), state.stats.totals());
        let restarts_in_window = state.restarts_in_window(now);
        let limit = state.config.as_ref().and_then(|config| config.max_restarts);
        let child_counts = state.children.counts();
        let mut children = state.children.view(now, |death| state.entry(death));
        if !up && state.is_dismissed {
            for child in children.iter_mut().filter(|child| child.health.is_trouble()) {
                (child.health, child.looping) = (Health::Stopped, None);
            }
        }
        SupervisorView {
            supervisor: self.name.clone(),
            id: incarnation.map(|incarnation| incarnation.id),
            up,
            uptime: started_at.map(|at| Duration::from_nanos(now.saturating_sub(at))),
            config: state.config.clone(),
            restarts_in_window,
            restarts_left: limit.zip(restarts_in_window).map(|(limit, inside)| limit.saturating_sub(inside)),
            health: state.health(up, child_counts, &children),
            silent_since: None,
            total_restarts: totals.restarts,
            total_failures: totals.failures,
            last_end: state.last_end.as_ref().map(|end| state.entry(end)),
            child_counts,
            children,
        }
    }
}

// === impl RecordState ===

impl RecordState {
    fn apply(&mut self, event: &SupervisorEvent) -> Totals {
        let before = self.stats.totals();
        self.newest = self.newest.max(self.nanos(event.time.monotonic));
        let is_current = self.follow(event);
        match &event.payload {
            Payload::SupervisorInit { strategy, max_restarts, max_seconds, parent, found } if is_current => {
                let (strategy, max_restarts, max_seconds) = (*strategy, *max_restarts, *max_seconds);
                // One of this process says so when it cannot.
                let budget_can_run_out = event.supervisor.node.is_none().then_some(true);
                let parent = parent.clone();
                let config = SupervisorConfig { strategy, max_restarts, max_seconds, parent, budget_can_run_out };
                self.begin(config, *found);
            }
            Payload::ChildStart { child, child_pid, .. } if is_current => {
                self.children.started(child, *child_pid, self.newest);
            }
            Payload::ChildStop { child, deleted } if is_current => self.children.stopped(child, *deleted),
            Payload::ChildPhase { child, child_pid, phase } if is_current => {
                self.children.phase(child, *child_pid, phase, self.newest);
            }
            Payload::SupervisorConfig { strategy, max_restarts, max_seconds, parent, budget_can_run_out, children }
                if is_current =>
            {
                self.children.configured(children);
                self.configure(SupervisorConfig {
                    strategy: Some(*strategy),
                    max_restarts: Some(*max_restarts),
                    max_seconds: Some(*max_seconds),
                    parent: parent.clone(),
                    budget_can_run_out: Some(*budget_can_run_out),
                });
            }
            Payload::SupervisorInit { .. }
            | Payload::SupervisorConfig { .. }
            | Payload::ChildStart { .. }
            | Payload::ChildPhase { .. }
            | Payload::ChildStop { .. } => {}
            Payload::ChildTerminate { child, child_pid, reason, shutdown, lifetime, decision, last_output, usage } => {
                let remains = Remains { last_output: last_output.clone(), usage: *usage };
                if !*shutdown && is_failure(child, reason) {
                    self.stats.failed(1, self.newest);
                }
                let death = (!*shutdown && is_recorded(child, reason)).then(|| {
                    self.failed(event.time, child, reason, &remains, |reason| Fact::Terminated {
                        child_pid: *child_pid,
                        reason,
                        shutdown: *shutdown,
                        lifetime_ms: (*lifetime).into(),
                        decision: (*decision).into(),
                    })
                });
                if is_current {
                    if !*shutdown {
                        self.admitted(decision);
                    }
                    let is_failure = is_failure(child, reason);
                    let death = death.as_ref().map(|(event, reason_fingerprint)| Death {
                        event,
                        reason_fingerprint: *reason_fingerprint,
                        is_failure,
                    });
                    let (action, next_try) = (decision.action, self.next_try(decision));
                    self.children.ended(child, *child_pid, End { action, next_try, lifetime: *lifetime, death });
                }
                if let Some((death, _)) = death {
                    self.history.push(death, remains);
                }
            }
            Payload::ChildRestart { child, child_pid, previous_pid, cause, downtime, .. } => {
                let (child_pid, previous_pid, cause) = (*child_pid, *previous_pid, *cause);
                let downtime_ms = downtime.map(millis);
                let fact = Fact::Restarted { child_pid, previous_pid, cause, downtime_ms };
                let restart = self.next_event(event.time, Some(child), fact);
                self.stats.restarted(1, restart.at, restart.timestamp);
                self.history.push(restart, Remains::default());
                if is_current {
                    self.children.restarted(child, child_pid, previous_pid, self.newest);
                }
            }
            Payload::ChildStartError { child, reason, attempt, decision, last_output, .. } => {
                let remains = Remains { last_output: last_output.clone(), usage: None };
                let verdict = decision.map(Into::into);
                let (failure, reason_fingerprint) = self.failed(event.time, child, reason, &remains, |reason| {
                    Fact::StartError { reason, attempt: *attempt, decision: verdict }
                });
                self.stats.failed(1, self.newest);
                if is_current {
                    if let Some(decision) = decision {
                        self.admitted(decision);
                    }
                    let next_try = decision.as_ref().and_then(|decision| self.next_try(decision));
                    let death = Death { event: &failure, reason_fingerprint, is_failure: true };
                    self.children.start_failed(child, decision.map(|decision| decision.action), next_try, death);
                }
                self.history.push(failure, remains);
            }
            Payload::ChildAggregate { child, of, count } => {
                self.counted(event.time, child.as_ref(), *of, *count);
                if let Some(child) = child.as_ref().filter(|_| is_current) {
                    self.children.counted(child, *of, *count, self.newest);
                }
            }
            Payload::SupervisorTerminate { reason, lifetime } => {
                let fact = Fact::SupervisorTerminated { reason: reason.clone(), lifetime_ms: (*lifetime).into() };
                let end = self.next_event(event.time, None, fact);
                self.history.push(end.clone(), Remains::default());
                if is_current {
                    self.last_end = Some(end);
                    self.children.all_ended();
                    if let Some(incarnation) = &mut self.incarnation {
                        incarnation.up = false;
                    }
                }
            }
        }
        let after = self.stats.totals();
        Totals { restarts: after.restarts - before.restarts, failures: after.failures - before.failures }
    }

    /// Does the event speak of the newest incarnation? One that lost its name to the next still has deaths to record,
    /// but its children are not those to be shown.
    fn follow(&mut self, event: &SupervisorEvent) -> bool {
        if self.is_shared {
            return false;
        }
        let key = event.supervisor.key();
        match &self.incarnation {
            Some(current) if current.key == key => true,
            Some(current) if current.key > key => false,
            _ => {
                self.incarnation = Some(Incarnation { key, id: event.supervisor.id, started_at: None, up: true });
                self.children.clear();
                self.intensity = Ring::new(self.intensity.limit());
                true
            }
        }
    }

    /// An init: nothing of the incarnation's life before it counts, unless it was found running.
    fn begin(&mut self, config: SupervisorConfig, found: bool) {
        if found {
            self.configure(config);
            return;
        }
        self.intensity = Ring::new(0);
        self.is_dismissed = false;
        self.configure(config);
        self.children.clear();
        if let Some(incarnation) = &mut self.incarnation {
            (incarnation.started_at, incarnation.up) = (Some(self.newest), true);
        }
    }

    /// Takes over settings; the restarts that the window holds stay in it.
    fn configure(&mut self, config: SupervisorConfig) {
        let stamps = config.max_restarts.map_or(INTENSITY_STAMPS_UNKNOWN, |max| (max as usize).saturating_add(1));
        let earlier = std::mem::replace(&mut self.intensity, Ring::new(stamps.min(MAX_INTENSITY_STAMPS)));
        for at in earlier.items() {
            self.intensity.push(*at);
        }
        self.config = Some(config);
    }

    /// What only its number is known of moves the totals, and the history has one event for it.
    fn counted(&mut self, time: Timestamp, child: Option<&Arc<ChildRef>>, of: Aggregated, count: u64) {
        let event = self.next_event(time, child, Fact::Aggregated { of, count });
        match of {
            Aggregated::Restarted { .. } => self.stats.restarted(count, event.at, event.timestamp),
            Aggregated::StartErrors => self.stats.failed(count, event.at),
            Aggregated::Terminated { class, shutdown: false, restart } if is_failing(restart, class.is_abnormal()) => {
                self.stats.failed(count, event.at);
            }
            Aggregated::Terminated { .. } | Aggregated::Started => return,
        }
        self.history.push(event, Remains::default());
    }

    /// Makes the history's next event of a death or a failed start and counts it among the causes; also returns what the
    /// death was of, whoever dies of it.
    fn failed(
        &mut self,
        time: Timestamp,
        child: &Arc<ChildRef>,
        reason: &ExitReason,
        remains: &Remains,
        fact: impl FnOnce(ExitReason) -> Fact,
    ) -> (HistoryEvent, u64) {
        let (place, reason) = self.causes.place(child, reason, remains);
        let event = self.next_event(time, Some(child), fact(reason));
        let reason_fingerprint = self.causes.count(place, child, &event, remains);
        (event, reason_fingerprint)
    }

    /// Makes the history's next event.
    fn next_event(&self, time: Timestamp, child: Option<&Arc<ChildRef>>, fact: Fact) -> HistoryEvent {
        let timestamp = time.unix_millis();
        HistoryEvent { id: self.history.next_id(), at: self.newest, timestamp, child: child.cloned(), fact }
    }

    /// Follows the supervisor's window. A decision that says nothing of a window whose limit is known did not use it: the
    /// restart belongs to that of a sibling.
    fn admitted(&mut self, decision: &Decision) {
        let limit = self.config.as_ref().and_then(|config| config.max_restarts);
        if decision.action == Action::Restart && decision.restarts_left.is_some() == limit.is_some() {
            self.intensity.push(self.newest);
        }
    }

    fn next_try(&self, decision: &Decision) -> Option<u64> {
        (!decision.delay.is_zero()).then(|| self.newest.saturating_add(nanos(decision.delay)))
    }

    fn health(&self, up: bool, counts: ChildCounts, children: &[ChildView]) -> Health {
        let end = self.last_end.as_ref().map(|end| &end.fact);
        match end {
            _ if !up && self.is_dismissed => Health::Stopped,
            _ if up => {
                let unlisted = (counts.get(ChildState::Restarting) > 0).then_some(Health::Restarting);
                Health::of_supervisor(children.iter().map(|child| child.health).chain(unlisted))
            }
            Some(Fact::SupervisorTerminated { reason: SupervisorExit::MaxIntensity(_), .. }) => Health::GaveUp,
            Some(Fact::SupervisorTerminated { reason: SupervisorExit::Error(_), .. }) => Health::Failed,
            _ => Health::Stopped,
        }
    }

    fn restarts_in_window(&self, now: u64) -> Option<u32> {
        let window = Duration::from_secs(self.config.as_ref()?.max_seconds?.into());
        let inside = self.intensity.count_from(now.saturating_sub(nanos(window)));
        Some(inside.try_into().unwrap_or(u32::MAX))
    }

    fn entry(&self, event: &HistoryEvent) -> HistoryEntry {
        let remains = self.history.last_words(event.id).or_else(|| self.causes.last_words(event.id));
        HistoryEntry { event: event.clone(), remains: remains.cloned().unwrap_or_default() }
    }

    fn nanos(&self, time: Instant) -> u64 {
        nanos(time.saturating_duration_since(self.epoch))
    }
}

/// OTP writes an error report for every end of a permanent child and for every abnormal end; of a child whose restart
/// type is unknown nothing may be assumed to be harmless.
fn is_failure(child: &ChildRef, reason: &ExitReason) -> bool {
    is_failing(child.restart, reason.is_abnormal())
}

fn is_failing(restart: Option<Restart>, abnormal: bool) -> bool {
    abnormal || restart.is_none_or(|restart| restart == Restart::Permanent)
}

/// A temporary child that ends normally is a task that is done: no matter of restarts, and there may be thousands.
fn is_recorded(child: &ChildRef, reason: &ExitReason) -> bool {
    reason.is_abnormal() || child.restart != Some(Restart::Temporary)
}

fn nanos(duration: Duration) -> u64 {
    duration.as_nanos().try_into().unwrap_or(u64::MAX)
}

fn millis(duration: Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
