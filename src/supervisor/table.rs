//! The children of one supervisor in start order, found by key, id, task or pid.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, Hasher};
use std::ops::RangeBounds;
use std::sync::Arc;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use tokio::task::{AbortHandle, Id as TaskId};

use crate::event::{ChildRef, ChildType, ExitReason, Pid, RestartCause, Strategy};
use crate::supervisor::handle::{ChildCount, ChildInfo, ChildSelector, ChildState, Reply, Started, SupervisorHandle};
use crate::supervisor::notice::Notice;
use crate::supervisor::process::Live;
use crate::supervisor::spec::{ChildSpec, Start};
use crate::supervisor::starts::StartId;

/// A child's place in the start order; never used twice.
pub(super) type Key = u64;

/// One child: its spec, and what it does.
pub(super) struct Child {
    pub(super) spec: ChildSpec,
    pub(super) reference: Arc<ChildRef>,
    pub(super) state: State,
    /// Is it a child of the supervisor's spec? Else somebody added it.
    pub(super) is_configured: bool,
    /// Failed attempts to start since the last run.
    pub(super) attempts: u32,
    /// Failures in a row: ends of runs that were not stable, and failed attempts to start.
    pub(super) failures: u32,
    /// Why its last attempt to start failed; none if it did not.
    pub(super) start_error: Option<ExitReason>,
}

/// What a child does.
pub(super) enum State {
    /// Its start has begun. Boxed, because most children are elsewhere most of the time.
    Starting(Box<Starting>),
    Running(Run),
    /// It does not run, for this reason, since its last run ended; none if it never ran.
    Down(Down, Option<Last>),
}

/// A start that has not ended.
pub(super) struct Starting {
    pub(super) run: Run,
    pub(super) start: StartId,
    pub(super) purpose: Purpose,
    /// The run before.
    pub(super) last: Option<Last>,
    /// Does a supervisor below wait for a child of its own whose start failed?
    pub(super) is_stalled: bool,
}

/// Why a child is started: what its start is announced as, and what a failure means.
pub(super) enum Purpose {
    /// A child of the spec, for the first time.
    First,
    /// It is restarted, with what its strategy says goes with it. A failure is charged to the budget.
    Again(RestartCause),
    /// The same, but no sibling was stopped for it, and none has to be.
    Alone(RestartCause),
    /// A new child, for this caller; nothing is kept of one that fails (`start_child`).
    Added(Reply<Started>),
    /// A stopped child, for this caller; one that fails stays down (`restart_child`).
    Revived(Reply<Started>),
    /// An operator wants it up, whatever it did before; one that fails is treated as its spec says.
    Requested(Reply<Started>),
}

/// Why a child is to be started when its turn comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    First,
    Again(RestartCause),
    Alone(RestartCause),
}

/// Why a child does not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Down {
    /// Somebody wanted so.
    Stopped,
    /// It ended for good.
    Done,
    /// It did not start, and nobody tries again.
    Failed,
    /// It is started when its turn comes. Seen from outside it is stopped.
    Waiting(Turn),
    /// A reload stopped it, and will start it with its new spec.
    Held(Turn),
    /// It ended or did not start, and will be started when it is due.
    Restarting {
        cause: RestartCause,
        due: Instant,
        /// Does it take no siblings along? A first start that failed never had any that rely on it.
        alone: bool,
    },
}

/// A run that ended, for the downtime until the next.
#[derive(Clone, Copy)]
pub(super) struct Last {
    pub(super) pid: Pid,
    pub(super) ended: Instant,
}

/// A run of a child, from the moment its start begins.
pub(super) struct Run {
    pub(super) pid: Pid,
    pub(super) task: TaskId,
    pub(super) stop: Notice,
    pub(super) kill: Kill,
    /// When its start ended; until then, when it began.
    pub(super) since: Instant,
    /// The program of a process as it is now: what a reload changes while it runs.
    pub(super) program: Option<Live>,
    /// Boxed, because most children are none.
    pub(super) supervisor: Option<Box<SupervisorHandle>>,
}

/// How a run is killed.
pub(super) enum Kill {
    /// A task is dropped at its next await.
    Abort(AbortHandle),
    /// A process or a supervisor ends what it holds, and only then its own task: else a successor could meet it alive.
    Notice(Notice),
}

/// All children of one supervisor.
#[derive(Default)]
pub(super) struct Table {
    next_key: Key,
    /// Boxed, because keys only rise, which leaves the nodes of the map half empty.
    children: BTreeMap<Key, Box<Child>>,
    by_task: HashMap<TaskId, Key, RandomState>,
    by_start: HashMap<StartId, Key, RandomState>,
    /// Ids of static children. Those of dynamic ones need not be unique.
    by_id: HashMap<Arc<str>, Key, RandomState>,
    /// Pids of dynamic children; one that waits for its restart keeps its old pid, as in OTP.
    by_pid: HashMap<Pid, Key, RandomState>,
}

// === impl Table ===

impl Table {
    pub(super) fn insert(&mut self, spec: ChildSpec, reference: ChildRef) -> Key {
        let key = self.next_key;
        self.next_key += 1;
        if !reference.dynamic {
            self.by_id.insert(reference.id.clone(), key);
        }
        let state = State::Down(Down::Stopped, None);
        let child = Child {
            spec,
            reference: Arc::new(reference),
            state,
            is_configured: false,
            attempts: 0,
            failures: 0,
            start_error: None,
        };
        self.children.insert(key, Box::new(child));
        key
    }

    pub(super) fn remove(&mut self, key: Key) -> Option<Child> {
        let child = self.children.remove(&key)?;
        if child.reference.dynamic {
            if let Some(pid) = child.pid() {
                self.by_pid.remove(&pid);
            }
        } else {
            self.by_id.remove(&child.reference.id);
        }
        Some(*child)
    }

    /// Gives a child another spec with the same id; a run goes on under the new one.
    pub(super) fn respec(&mut self, key: Key, spec: ChildSpec, strategy: Strategy) {
        if let Some(child) = self.children.get_mut(&key) {
            if let (Some(live), Start::Process(program)) =
                (child.any_run().and_then(|run| run.program.as_ref()), &spec.start)
            {
                live.store(program.clone());
            }
            child.reference = Arc::new(spec.reference(strategy));
            child.spec = spec;
        }
    }

    /// Puts static children in this order, after those that are not named, and tells the new key of each old one.
    pub(super) fn reorder(&mut self, order: &[Arc<str>]) -> HashMap<Key, Key, RandomState> {
        let mut moved = HashMap::default();
        for old in order.iter().filter_map(|id| self.by_id.get(id)).copied() {
            let Some(child) = self.children.remove(&old) else { continue };
            moved.insert(old, self.next_key);
            self.children.insert(self.next_key, child);
            self.next_key += 1;
        }
        let new = |key: &mut Key| *key = moved.get(key).copied().unwrap_or(*key);
        self.by_task.values_mut().for_each(new);
        self.by_start.values_mut().for_each(new);
        self.by_id.values_mut().for_each(new);
        moved
    }

    pub(super) fn get(&self, key: Key) -> Option<&Child> {
        self.children.get(&key).map(Box::as_ref)
    }

    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut Child> {
        self.children.get_mut(&key).map(Box::as_mut)
    }

    pub(super) fn find(&self, selector: &ChildSelector) -> Option<Key> {
        match selector {
            ChildSelector::Id(id) => self.by_id.get(id).copied(),
            ChildSelector::Pid(pid) => self.by_pid.get(pid).copied(),
        }
    }

    pub(super) fn by_task(&self, task: TaskId) -> Option<Key> {
        self.by_task.get(&task).copied()
    }

    /// The specs, in start order.
    pub(super) fn specs(&self) -> impl Iterator<Item = &ChildSpec> {
        self.children.values().map(|child| &child.spec)
    }

    pub(super) fn len(&self) -> usize {
        self.children.len()
    }

    /// Keys within bounds, in start order.
    pub(super) fn keys(&self, bounds: impl RangeBounds<Key>) -> Vec<Key> {
        self.children.range(bounds).map(|(key, _)| *key).collect()
    }

    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = (Key, &Child)> {
        self.children.iter().map(|(key, child)| (*key, child.as_ref()))
    }

    pub(super) fn by_start(&self, start: StartId) -> Option<Key> {
        self.by_start.get(&start).copied()
    }

    /// Notes that the start of a child has begun.
    pub(super) fn starting(&mut self, key: Key, run: Run, start: StartId, purpose: Purpose) {
        let Some(child) = self.children.get_mut(&key) else { return };
        self.by_task.insert(run.task, key);
        self.by_start.insert(start, key);
        let last = child.last();
        child.state = State::Starting(Box::new(Starting { run, start, purpose, last, is_stalled: false }));
    }

    /// Notes that the start of a child has ended, and that it does not run; the start, if it was being started.
    pub(super) fn start_ended(&mut self, key: Key, down: Down) -> Option<Starting> {
        let child = self.children.get_mut(&key)?;
        let State::Starting(starting) = &child.state else { return None };
        let last = starting.last;
        let state = std::mem::replace(&mut child.state, State::Down(down, last));
        let State::Starting(starting) = state else { return None };
        self.by_task.remove(&starting.run.task);
        self.by_start.remove(&starting.start);
        Some(*starting)
    }

    /// Notes that a child runs.
    pub(super) fn started(&mut self, key: Key, run: Run) {
        let Some(child) = self.children.get_mut(&key) else { return };
        self.by_task.insert(run.task, key);
        if child.reference.dynamic {
            if let Some(old) = child.pid() {
                self.by_pid.remove(&old);
            }
            self.by_pid.insert(run.pid, key);
        }
        child.attempts = 0;
        child.start_error = None;
        child.state = State::Running(run);
    }

    /// Notes that a child no longer runs, and returns the run that ended; none if it did not run.
    pub(super) fn ended(&mut self, key: Key, now: Instant) -> Option<Run> {
        let child = self.children.get_mut(&key)?;
        let last = Last { pid: child.run()?.pid, ended: now };
        let state = std::mem::replace(&mut child.state, State::Down(Down::Stopped, Some(last)));
        let State::Running(run) = state else { return None };
        self.by_task.remove(&run.task);
        Some(run)
    }

    pub(super) fn count(&self) -> ChildCount {
        let mut count = ChildCount::default();
        for child in self.children.values() {
            count.specs += 1;
            count.active += usize::from(child.run().is_some());
            match child.spec.child_type {
                ChildType::Worker => count.workers += 1,
                ChildType::Supervisor => count.supervisors += 1,
            }
        }
        count
    }
}

// === impl Child ===

impl Child {
    /// Its run, if its start has ended.
    pub(super) fn run(&self) -> Option<&Run> {
        match &self.state {
            State::Running(run) => Some(run),
            State::Starting(_) | State::Down(..) => None,
        }
    }

    /// Its run, even if its start has not ended.
    pub(super) fn any_run(&self) -> Option<&Run> {
        match &self.state {
            State::Running(run) => Some(run),
            State::Starting(starting) => Some(&starting.run),
            State::Down(..) => None,
        }
    }

    /// Its start, if that has not ended.
    pub(super) fn starting(&mut self) -> Option<&mut Starting> {
        match &mut self.state {
            State::Starting(starting) => Some(starting),
            State::Running(_) | State::Down(..) => None,
        }
    }

    /// Is it being started again? To OTP it is `restarting` until its start has ended.
    pub(super) fn is_restarting(&self) -> bool {
        match &self.state {
            State::Starting(starting) => matches!(starting.purpose, Purpose::Again(_) | Purpose::Alone(_)),
            // A sibling that waits is stopped, as in OTP, unless it is the one that does not start.
            State::Down(Down::Waiting(Turn::Again(cause)), _) => {
                *cause != RestartCause::Sibling || self.start_error.is_some()
            }
            State::Down(down, _) => matches!(down, Down::Restarting { .. } | Down::Waiting(Turn::Alone(_))),
            State::Running(_) => false,
        }
    }

    /// Why it does not run; none if it does, or is being started.
    pub(super) fn down(&self) -> Option<Down> {
        match &self.state {
            State::Starting(_) | State::Running(_) => None,
            State::Down(down, _) => Some(*down),
        }
    }

    /// Replaces why it does not run.
    pub(super) fn set_down(&mut self, reason: Down) {
        if let State::Down(down, _) = &mut self.state {
            *down = reason;
        }
    }

    /// Its last run, if it does not run now.
    pub(super) fn last(&self) -> Option<Last> {
        match &self.state {
            State::Running(_) => None,
            State::Starting(starting) => starting.last,
            State::Down(_, last) => *last,
        }
    }

    /// The pid of its run, or of the last one.
    fn pid(&self) -> Option<Pid> {
        self.run().map(|run| run.pid).or_else(|| self.last().map(|last| last.pid))
    }

    /// Counts a failure, and says how long the restart has to wait. `ran` is the length of the run that ended; none for a
    /// failed attempt to start.
    pub(super) fn fail(&mut self, ran: Option<Duration>) -> Duration {
        let Some(backoff) = &self.spec.backoff else { return Duration::ZERO };
        if ran.is_some_and(|ran| ran >= backoff.reset_after) {
            self.failures = 0;
        }
        self.failures = self.failures.saturating_add(1);
        backoff.delay(self.failures, random())
    }

    pub(super) fn info(&self) -> ChildInfo {
        let state = match &self.state {
            _ if self.is_restarting() => ChildState::Restarting,
            State::Starting(_) => ChildState::Starting,
            State::Running(run) => ChildState::Running(run.pid),
            State::Down(..) => ChildState::Stopped,
        };
        ChildInfo {
            id: self.reference.id.clone(),
            state,
            child_type: self.spec.child_type,
            supervisor: self.any_run().and_then(|run| run.supervisor.as_deref().cloned()),
        }
    }
}

/// A number from 0 to 1, good enough to keep children from coming back together.
fn random() -> f64 {
    let random = std::hash::RandomState::new().build_hasher().finish();
    random as f64 / u64::MAX as f64
}

// === impl Run ===

impl Run {
    pub(super) fn kill(&self) {
        match &self.kill {
            Kill::Abort(task) => task.abort(),
            Kill::Notice(notice) => notice.give(),
        }
    }
}
