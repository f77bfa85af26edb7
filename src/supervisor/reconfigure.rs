//! New children and settings for a running supervisor: only what changed is touched (OTP: `supervisor:code_change/3`, which
//! a release upgrade calls).
//!
//! It goes in two steps, so that in a whole tree all stops come before all starts: a child that moves from one supervisor to
//! another never runs twice. Each supervisor does its own part; the handle leads the way down the tree.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::event::{Action, ExitReason, RestartCause, Strategy, SupervisorExit};
use crate::supervisor::difference::Difference;
use crate::supervisor::error::ControlError;
use crate::supervisor::handle::{ChildSelector, Request, SupervisorHandle};
use crate::supervisor::run_loop::Supervision;
use crate::supervisor::settle::{Fate, Settled};
use crate::supervisor::spec::{ChildSpec, Start, Supervisor};
use crate::supervisor::table::{Down, Key, Purpose, State, Turn};

/// What a reconfiguration did, by the full names of children and supervisors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Started for the first time.
    pub added: Vec<String>,
    /// Stopped, and their specs deleted.
    pub removed: Vec<String>,
    /// Stopped and started with their new spec, or tried again because they had not started.
    pub changed: Vec<String>,
    /// Numbers taken over without touching a run.
    pub updated: Vec<String>,
    /// Those of the above that did not start, with the reason. They stay wanted: they are tried again as their spec says,
    /// when somebody asks for it, and by the next reconfiguration.
    pub failed: Vec<(String, ExitReason)>,
    /// Those of the above that wait for a child which did not start, with its name.
    pub waiting: Vec<(String, String)>,
}

/// One step of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What is done.
    pub action: StepAction,
    /// The full name of the child or supervisor.
    pub name: String,
    /// Why: what changed.
    pub why: String,
}

/// What a step does. The order is that in which a plan does it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StepAction {
    /// Stops a child or supervisor.
    Stop,
    /// Takes over numbers, without touching a run.
    Update,
    /// Starts a child or supervisor.
    Start,
}

/// The children that a supervisor should have, and its settings; without settings it keeps its own.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    settings: Option<Supervisor>,
    children: Vec<ChildSpec>,
}

/// What a supervisor does of its own part, and who below it has a part.
pub(crate) struct Part {
    pub(crate) steps: Vec<Step>,
    below: Vec<(SupervisorHandle, Wanted)>,
}

/// A part that was taken over.
pub(crate) struct Adopted {
    changes: Changes,
    below: Vec<(SupervisorHandle, Wanted)>,
    settled: oneshot::Receiver<Vec<Settled>>,
}

/// Starts that have begun.
pub(crate) struct Starts {
    pub(crate) supervisor: SupervisorHandle,
    /// Says how they ended; nothing if the supervisor ends first.
    pub(crate) settled: oneshot::Receiver<Vec<Settled>>,
}

/// What is to become of a wanted child.
enum Change {
    Keep,
    Update(Vec<&'static str>),
    Replace(Vec<&'static str>),
    /// It did not start before.
    Retry,
    New,
}

// === impl Changes ===

impl Changes {
    /// True if nothing was touched.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// True if all was done.
    pub fn is_complete(&self) -> bool {
        self.failed.is_empty() && self.waiting.is_empty()
    }

    /// Takes in what was done elsewhere in the tree.
    pub(crate) fn merge(&mut self, other: Changes) {
        self.added.extend(other.added);
        self.removed.extend(other.removed);
        self.changed.extend(other.changed);
        self.updated.extend(other.updated);
        self.failed.extend(other.failed);
        self.waiting.extend(other.waiting);
    }

    fn remove(&mut self, stopped: &[Step]) {
        let gone = stopped.iter().filter(|step| step.action == StepAction::Stop && step.why == GONE);
        self.removed.extend(gone.map(|step| step.name.clone()));
    }

    /// Takes in what came of the starts. A supervisor is asked about its children.
    pub(crate) async fn settle(&mut self, settled: Vec<Settled>) {
        for Settled { name, fate } in settled {
            match fate {
                Fate::Fine => {}
                Fate::Failed(reason) => self.failed.push((name, reason)),
                Fate::Waits(first) => self.waiting.push((name, first)),
                Fate::Below(supervisor) => match supervisor.settle().await {
                    Ok(settled) => Box::pin(self.settle(settled)).await,
                    Err(_) => self.ended(&supervisor).await,
                },
            }
        }
    }

    /// Takes in that a supervisor has ended before all its children had their turn. One that somebody stopped has not failed.
    pub(crate) async fn ended(&mut self, supervisor: &SupervisorHandle) {
        let reason = match supervisor.wait().await {
            SupervisorExit::Error(detail) => ExitReason::Error(detail),
            SupervisorExit::MaxIntensity(detail) => ExitReason::error(format_args!("gave up: {detail}")),
            exit if exit.detail().is_some() => ExitReason::error(exit),
            _ => return,
        };
        self.failed.push((supervisor.reference().name.to_string(), reason));
    }
}

// === impl StepAction ===

impl StepAction {
    /// The spelling used in JSON and in what a person reads.
    pub const fn as_str(self) -> &'static str {
        match self {
            StepAction::Stop => "stop",
            StepAction::Update => "update",
            StepAction::Start => "start",
        }
    }
}

impl fmt::Display for StepAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Why something is stopped that nobody wants any more.
pub(crate) const GONE: &str = "not wanted any more";

/// Why something is started that was not there before.
pub(crate) const NEW: &str = "new";

/// `command, env changed`
pub(crate) fn changed(keys: &[&str]) -> String {
    format!("{} changed", keys.join(", "))
}

// === impl Wanted ===

impl Wanted {
    /// All of this supervisor: settings and children.
    pub(crate) fn all_of(supervisor: &Supervisor) -> Self {
        Self { settings: Some(supervisor.clone()), children: supervisor.children.clone() }
    }
}

// === impl SupervisorHandle: the way down the tree ===

impl SupervisorHandle {
    /// Makes these the children of the supervisor, in this order, and returns when all have had their turn. Only what
    /// changed is touched: children that are gone are stopped, children whose spec needs a new run are stopped and started
    /// with it, numbers are taken over in place, new ones are started, ones that had not started are tried again; a
    /// supervisor below that has other children or settings does the same in turn. All stops come before all starts.
    /// Nothing of this counts as a failure. Tasks are the same only if their spec is a clone.
    ///
    /// # Errors
    /// [`Spec`](ControlError::Spec), and nothing is touched; [`Dynamic`](ControlError::Dynamic);
    /// [`NotRunning`](ControlError::NotRunning), also if a changed child made the supervisor give up.
    pub async fn reconfigure(&self, children: Vec<ChildSpec>) -> Result<Changes, ControlError> {
        let wanted = Wanted { settings: None, children };
        let mut changes = Changes::default();
        changes.remove(&self.hold(wanted.clone()).await?);
        let (adopted, starts) = self.adopt(wanted).await?;
        changes.merge(adopted);
        for Starts { settled, .. } in starts {
            changes.settle(settled.await.map_err(|_| ControlError::NotRunning)?).await;
        }
        Ok(changes)
    }

    /// What would be done, down the tree: stops first.
    pub(crate) async fn plan(&self, wanted: Wanted) -> Result<Vec<Step>, ControlError> {
        let Part { mut steps, below } = self.request(|reply| Request::Plan(wanted, reply)).await?;
        for (supervisor, wanted) in below {
            steps.extend(unless_gone(Box::pin(supervisor.plan(wanted)).await)?.unwrap_or_default());
        }
        steps.sort_by_key(|step| step.action);
        Ok(steps)
    }

    /// Stops what has to be stopped, those below first.
    pub(crate) async fn hold(&self, wanted: Wanted) -> Result<Vec<Step>, ControlError> {
        let Part { below, .. } = self.request(|reply| Request::Plan(wanted.clone(), reply)).await?;
        let mut steps = Vec::new();
        for (supervisor, wanted) in below.into_iter().rev() {
            match unless_gone(Box::pin(supervisor.hold(wanted)).await)? {
                Some(stopped) => steps.extend(stopped),
                // It may still be stopping its children, and one of them may be started elsewhere.
                None => drop(supervisor.wait().await),
            }
        }
        steps.extend(self.request(|reply| Request::Hold(wanted, reply)).await?);
        Ok(steps)
    }

    /// Takes everything over and begins to start; returns what was done, and what will say how the starts ended.
    pub(crate) async fn adopt(&self, wanted: Wanted) -> Result<(Changes, Vec<Starts>), ControlError> {
        let Adopted { mut changes, below, settled } = self.request(|reply| Request::Adopt(wanted, reply)).await?;
        let mut starts = vec![Starts { supervisor: self.clone(), settled }];
        for (supervisor, wanted) in below {
            if let Some((other, more)) = unless_gone(Box::pin(supervisor.adopt(wanted)).await)? {
                changes.merge(other);
                starts.extend(more);
            }
        }
        Ok((changes, starts))
    }

    /// Returns when all children have had their turn, with what came of it.
    pub(crate) async fn settle(&self) -> Result<Vec<Settled>, ControlError> {
        self.request(Request::Settle).await
    }
}

/// A supervisor below that ended meanwhile is started with its new spec by the one above.
fn unless_gone<T>(answer: Result<T, ControlError>) -> Result<Option<T>, ControlError> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(ControlError::NotRunning) => Ok(None),
        Err(error) => Err(error),
    }
}

// === impl Supervision: the part of one supervisor ===

impl Supervision {
    /// What would be done. Checks everything before anything is touched.
    pub(super) fn plan(&self, wanted: &Wanted) -> Result<Part, ControlError> {
        if self.spec.strategy == Strategy::Dynamic {
            return Err(ControlError::Dynamic);
        }
        let mut checked = wanted.settings.as_ref().unwrap_or(&self.spec).clone();
        checked.children = wanted.children.clone();
        checked.check()?;
        let mut steps = Vec::new();
        let mut step = |action, name: String, why: String| steps.push(Step { action, name, why });
        let settings = wanted.settings.as_ref().map(|new| self.spec.changed_in_place(new)).unwrap_or_default();
        if !settings.is_empty() {
            step(StepAction::Update, self.me.name.to_string(), changed(&settings));
        }
        for id in self.surplus(&wanted.children).iter().rev() {
            step(StepAction::Stop, self.path(id), GONE.into());
        }
        for spec in &wanted.children {
            let name = self.path(&spec.id);
            match self.change_of(spec) {
                Change::Keep => {}
                Change::Update(keys) => step(StepAction::Update, name, changed(&keys)),
                // What an operator stopped stays so, and who waits comes to its turn anyway.
                Change::Replace(keys) if !self.is_to_start(&spec.id) => step(StepAction::Update, name, changed(&keys)),
                Change::Replace(keys) => {
                    step(StepAction::Stop, name.clone(), changed(&keys));
                    step(StepAction::Start, name, changed(&keys));
                }
                Change::Retry => step(StepAction::Start, name, "it had not started".into()),
                Change::New => step(StepAction::Start, name, NEW.into()),
            }
        }
        steps.sort_by_key(|step| step.action);
        Ok(Part { steps, below: self.below(&wanted.children) })
    }

    /// Stops what is not wanted any more or needs a new run, the last first.
    pub(super) async fn hold(&mut self, wanted: &Wanted) -> Result<Vec<Step>, ControlError> {
        let mut steps = self.plan(wanted)?.steps;
        steps.retain(|step| step.action == StepAction::Stop);
        let replaced = |spec: &&ChildSpec| matches!(self.change_of(spec), Change::Replace(_));
        let replaced: HashSet<Arc<str>> = wanted.children.iter().filter(replaced).map(|spec| spec.id.clone()).collect();
        let surplus = self.surplus(&wanted.children);
        for key in self.table.keys(..).into_iter().rev() {
            let Some(id) = self.table.get(key).map(|child| child.reference.id.clone()) else { continue };
            if surplus.contains(&id) {
                self.interrupt(key).await;
                self.settle(key, true);
            } else if replaced.contains(&id) {
                self.hold_one(key).await;
            }
        }
        self.done.retain(|id, _| wanted.children.iter().any(|spec| spec.id == *id));
        Ok(steps)
    }

    /// Stops a child that is to be started with another spec; one that an operator stopped stays so.
    async fn hold_one(&mut self, key: Key) {
        if !self.table.get(key).is_some_and(|child| is_to_start(child.down())) {
            return;
        }
        let turn = match self.interrupt(key).await {
            true => Turn::First,
            false => Turn::Alone(RestartCause::Requested),
        };
        if let Some(child) = self.table.get_mut(key) {
            child.set_down(Down::Held(turn));
        }
    }

    /// Takes children and settings over, and starts what has to be started.
    pub(super) async fn adopt(&mut self, wanted: Wanted) -> Result<Adopted, ControlError> {
        // What came back since it was stopped, a supervisor below that was restarted for example, is stopped again.
        self.hold(&wanted).await?;
        let mut changes = Changes::default();
        if let Some(new) = &wanted.settings {
            if !self.spec.changed_in_place(new).is_empty() {
                changes.updated.push(self.me.name.to_string());
            }
            self.take_settings(new);
        }
        let below = self.below(&wanted.children);
        let mut started: Vec<Arc<str>> = Vec::new();
        let order: Vec<Arc<str>> = wanted.children.iter().map(|spec| spec.id.clone()).collect();
        for spec in wanted.children {
            let (id, name) = (spec.id.clone(), self.path(&spec.id));
            let change = self.change_of(&spec);
            let Some(key) = self.table.find(&ChildSelector::Id(id.clone())) else {
                // A temporary child that is done is not run again.
                if let Change::New = change {
                    self.done.remove(&id);
                    changes.added.push(name);
                    self.enlist(spec, Turn::First);
                    started.push(id);
                }
                continue;
            };
            self.table.respec(key, spec, self.spec.strategy);
            let Some(child) = self.table.get_mut(key) else { continue };
            let turn = match (change, child.down()) {
                (_, Some(Down::Held(turn))) => turn,
                (Change::Retry, _) => Turn::Alone(RestartCause::Requested),
                (Change::Update(_) | Change::Replace(_), _) => {
                    changes.updated.push(name);
                    continue;
                }
                _ => continue,
            };
            child.failures = 0;
            changes.changed.push(name);
            self.wait_for_turn(key, turn);
            started.push(id);
        }
        self.reorder(&order);
        self.advance();
        // Only now all new ones have been heard of, so that this can tell their order.
        self.emit_config();
        let (answer, settled) = oneshot::channel();
        self.watch(started, move |settled| drop(answer.send(settled)));
        Ok(Adopted { changes, below, settled })
    }

    fn take_settings(&mut self, new: &Supervisor) {
        self.spec.strategy = new.strategy;
        self.spec.max_restarts = new.max_restarts;
        self.spec.max_seconds = new.max_seconds;
        self.spec.auto_shutdown = new.auto_shutdown;
        self.spec.max_children = new.max_children;
        self.intensity.set_limits(new.max_restarts, Duration::from_secs(new.max_seconds.into()));
    }

    fn reorder(&mut self, order: &[Arc<str>]) {
        let moved = self.table.reorder(order);
        let new = |key: &Key| moved.get(key).copied().unwrap_or(*key);
        self.due = self.due.iter().map(|(due, key)| (*due, new(key))).collect();
        self.line = self.line.iter().map(new).collect();
    }

    /// Ends the run of a child, whatever it does. True if it had never run.
    async fn interrupt(&mut self, key: Key) -> bool {
        let interrupted = self.stop(key, Action::Restart).await;
        let never_ran = matches!(interrupted, Some(Purpose::First));
        if let Some(purpose) = interrupted {
            purpose.reply(Err(ControlError::Interrupted));
        }
        never_ran
    }

    fn change_of(&self, spec: &ChildSpec) -> Change {
        let key = self.table.find(&ChildSelector::Id(spec.id.clone()));
        let Some(child) = key.and_then(|key| self.table.get(key)) else {
            let is_done = self.done.get(&spec.id).is_some_and(|done| done.difference(spec).is_none());
            return if is_done { Change::Keep } else { Change::New };
        };
        let Difference { for_good, in_place } = child.spec.difference(spec);
        // A child that is not ready needs another probe at once; one that is, only at its next start.
        let probes = matches!(child.state, State::Starting(_) | State::Down(Down::Restarting { .. }, _));
        match (for_good.is_empty(), in_place.is_empty(), child.down()) {
            (false, ..) => Change::Replace(for_good),
            (true, false, _) if probes && in_place.contains(&"ready") => Change::Replace(vec!["ready"]),
            (true, _, Some(Down::Failed)) => Change::Retry,
            (true, _, Some(Down::Restarting { .. })) if child.start_error.is_some() => Change::Retry,
            (true, false, _) => Change::Update(in_place),
            (true, true, _) => Change::Keep,
        }
    }

    /// Is a child that needs a new run started again by the reload itself?
    fn is_to_start(&self, id: &Arc<str>) -> bool {
        let key = self.table.find(&ChildSelector::Id(id.clone()));
        key.and_then(|key| self.table.get(key)).is_some_and(|child| is_to_start(child.down()))
    }

    /// The children that are not wanted any more, in start order.
    fn surplus(&self, children: &[ChildSpec]) -> Vec<Arc<str>> {
        let wanted: HashSet<&str> = children.iter().map(|child| &*child.id).collect();
        self.table.specs().filter(|spec| !wanted.contains(&*spec.id)).map(|spec| spec.id.clone()).collect()
    }

    /// The supervisors below that go on, each with what it should have.
    fn below(&self, children: &[ChildSpec]) -> Vec<(SupervisorHandle, Wanted)> {
        let part = |spec: &ChildSpec| {
            let Start::Supervisor(supervisor) = &spec.start else { return None };
            let child = self.table.get(self.table.find(&ChildSelector::Id(spec.id.clone()))?)?;
            let handle = child.any_run()?.supervisor.as_deref()?.clone();
            // One that is worked out by a function or has no children of its spec is not reconfigured.
            let goes_on = child.spec.difference(spec).for_good.is_empty();
            let is_plain = supervisor.init.is_none() && supervisor.strategy != Strategy::Dynamic;
            (goes_on && is_plain).then(|| (handle, Wanted::all_of(supervisor)))
        };
        children.iter().filter_map(part).collect()
    }

    fn path(&self, id: &str) -> String {
        format!("{}/{id}", self.me.name)
    }
}

/// Not one that an operator stopped, nor one that is started anyway.
fn is_to_start(down: Option<Down>) -> bool {
    !matches!(down, Some(Down::Stopped | Down::Waiting(_) | Down::Held(_)))
}
