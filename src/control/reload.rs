//! The wanted top supervisors against those there are: a plan, and what is done of it.
//!
//! All stops come before all starts, over all supervisors, so that a child that moves from one to another never runs twice.

use std::collections::HashSet;

use super::tops::Entry;
use super::{Control, Top, TopState};
use crate::event::ExitReason;
use crate::supervisor::{
    Changes, ControlError, GONE, NEW, Progress, Starts, Step, StepAction, Supervisor, SupervisorHandle, Wanted, changed,
};

/// What becomes of a wanted top supervisor.
enum Fate {
    /// It goes on, and makes its own part of the plan.
    GoesOn(SupervisorHandle),
    /// It has to be stopped and started, or was down and is started, for this reason.
    Anew(Option<SupervisorHandle>, String),
    /// It is started for the first time.
    New,
    /// It is down and stays so.
    StaysDown,
}

/// A reload whose starts have begun.
pub(crate) struct Begun {
    changes: Changes,
    starts: Vec<Starts>,
    /// Whole supervisors that were begun.
    begun: Vec<SupervisorHandle>,
}

impl Begun {
    /// Returns when all that was to be started has had its turn, with what was done and what not.
    pub(crate) async fn settled(self) -> Changes {
        let Self { mut changes, starts, begun } = self;
        for Starts { supervisor, settled } in starts {
            match settled.await {
                Ok(settled) => changes.settle(settled).await,
                Err(_) => changes.ended(&supervisor).await,
            }
        }
        for handle in begun {
            let mut progress = handle.progress();
            // Its end closes the channel.
            let _ = progress.wait_for(|progress| *progress != Progress::Starting).await;
            match handle.settle().await {
                Ok(settled) => changes.settle(settled).await,
                Err(_) => changes.ended(&handle).await,
            }
        }
        changes
    }
}

impl Control {
    /// Starts a top supervisor, and returns when all its children have started.
    ///
    /// # Errors
    /// [`NotStarted`](super::Error::NotStarted), and nothing of it is kept; [`AlreadyExists`](super::Error::AlreadyExists).
    pub async fn supervise(&self, supervisor: Supervisor) -> Result<SupervisorHandle, super::Error> {
        self.tops.supervise(supervisor).await
    }

    /// The top supervisors in order, those that have ended included.
    pub fn tops(&self) -> Vec<Top> {
        self.tops.all()
    }

    /// Returns when there is no point in going on; see [`Exporter::serve`](crate::Exporter::serve).
    pub(crate) async fn end(&self, leaves: bool) -> Result<(), (std::sync::Arc<str>, crate::event::SupervisorExit)> {
        self.tops.end(leaves).await
    }

    /// Stops all top supervisors in reverse order.
    pub(crate) async fn shutdown(&self) {
        self.tops.shutdown().await;
    }

    /// What [`reload`](Self::reload) would do: first all stops, then numbers that are taken over, then all starts.
    pub async fn plan(&self, wanted: &[Supervisor]) -> Vec<Step> {
        let mut steps = Vec::new();
        for entry in self.surplus(wanted).into_iter().rev() {
            steps.push(Step { action: StepAction::Stop, name: entry.name.to_string(), why: GONE.into() });
        }
        for spec in wanted {
            let mut step = |action, why: &str| {
                steps.push(Step { action, name: spec.name().into(), why: why.into() });
            };
            match self.fate(spec) {
                Fate::GoesOn(handle) => match handle.plan(Wanted::all_of(spec)).await {
                    Ok(part) => steps.extend(part),
                    Err(_) => step(StepAction::Start, "it ended"),
                },
                Fate::Anew(handle, why) => {
                    if handle.is_some() {
                        step(StepAction::Stop, &why);
                    }
                    step(StepAction::Start, &why);
                }
                Fate::New => step(StepAction::Start, NEW),
                Fate::StaysDown => {}
            }
        }
        steps.sort_by_key(|step| step.action);
        steps
    }

    /// Makes these the top supervisors, and returns when all that was to be started has had its turn. Only what changed is
    /// touched; see [`SupervisorHandle::reconfigure`]. Nothing of this counts as a failure. Supervisors that gave up or
    /// failed are started again; those that somebody stopped stay so. Another reload can come while starts are waited for.
    pub async fn reload(&self, wanted: Vec<Supervisor>) -> Changes {
        self.begin(wanted).await.settled().await
    }

    /// The first part of a [`reload`](Self::reload): returns when all stops are over and the starts have begun.
    pub(crate) async fn begin(&self, wanted: Vec<Supervisor>) -> Begun {
        let mut changes = Changes::default();
        let (mut starts, mut begun) = (Vec::new(), Vec::new());
        let mut anew: HashSet<String> = HashSet::new();
        let alone = self.tops.0.acting.lock().await;
        if self.tops.is_stopping() {
            let reason = ExitReason::error(super::Error::Stopping);
            changes.failed = wanted.iter().map(|spec| (spec.name().to_owned(), reason.clone())).collect();
            return Begun { changes, starts, begun };
        }
        for top in self.surplus(&wanted).into_iter().rev() {
            if let Some(handle) = self.tops.handle(&top.name) {
                handle.shutdown().await;
            }
            self.tops.remove(&top.name);
            changes.removed.push(top.name.to_string());
        }
        for spec in wanted.iter().rev() {
            match self.fate(spec) {
                Fate::GoesOn(handle) => {
                    match handle.hold(Wanted::all_of(spec)).await {
                        Ok(stopped) => {
                            let gone = stopped.into_iter().filter(|step| step.why == GONE);
                            changes.removed.extend(gone.map(|step| step.name));
                        }
                        // It is started below, but not beside its own children, which it may still be stopping.
                        Err(ControlError::NotRunning) => drop(handle.wait().await),
                        Err(_) => {}
                    }
                }
                Fate::Anew(Some(handle), _) => {
                    handle.shutdown().await;
                    anew.insert(spec.name().to_owned());
                }
                Fate::Anew(None, _) | Fate::New | Fate::StaysDown => {}
            }
        }
        let order: Vec<String> = wanted.iter().map(|spec| spec.name().to_owned()).collect();
        for spec in wanted {
            let name = spec.name().to_owned();
            let (fate, was_there) = (self.fate(&spec), self.tops.has(&name));
            let adopted = match fate {
                Fate::GoesOn(handle) => {
                    self.respec(&spec);
                    match handle.adopt(Wanted::all_of(&spec)).await {
                        Ok((done, more)) => {
                            changes.merge(done);
                            starts.extend(more);
                            continue;
                        }
                        // It gave up just now, or somebody stopped it.
                        Err(ControlError::NotRunning) => {
                            handle.wait().await;
                            if let Fate::StaysDown = self.fate(&spec) {
                                continue;
                            }
                            self.tops.begin(spec, true, true)
                        }
                        Err(error) => {
                            changes.failed.push((name, ExitReason::error(error)));
                            continue;
                        }
                    }
                }
                Fate::StaysDown if !anew.contains(&name) => {
                    self.respec(&spec);
                    continue;
                }
                Fate::Anew(..) | Fate::New | Fate::StaysDown => self.tops.begin(spec, was_there, true),
            };
            if was_there { &mut changes.changed } else { &mut changes.added }.push(name.clone());
            match adopted {
                Ok((handle, _)) => begun.push(handle),
                Err(error) => changes.failed.push((name, ExitReason::error(error))),
            }
        }
        self.tops.with(|list| list.sort_by_key(|entry| order.iter().position(|name| name == entry.spec.name())));
        self.tops.0.list_changed();
        // From here on only starts are waited for, and a wrong probe can be mended by the next reload.
        drop(alone);
        Begun { changes, starts, begun }
    }

    /// Those that are not wanted any more, in order.
    fn surplus(&self, wanted: &[Supervisor]) -> Vec<Top> {
        let is_surplus = |top: &Top| wanted.iter().all(|spec| spec.name() != &*top.name);
        self.tops.all().into_iter().filter(is_surplus).collect()
    }

    fn fate(&self, wanted: &Supervisor) -> Fate {
        self.tops.with(|list| {
            let Some(entry) = list.iter().find(|entry| entry.spec.name() == wanted.name()) else { return Fate::New };
            let Entry { spec, handle, .. } = entry;
            match entry.state() {
                TopState::Starting | TopState::Running => match (spec.changed_for_good(wanted), handle) {
                    (keys, Some(handle)) if keys.is_empty() => Fate::GoesOn(handle.clone()),
                    (keys, handle) => Fate::Anew(handle.clone(), changed(&keys)),
                },
                TopState::GaveUp(_) => Fate::Anew(None, "it had given up".into()),
                TopState::Failed(_) => Fate::Anew(None, "it had not started".into()),
                TopState::Done if !spec.is_same(wanted) => Fate::Anew(None, "it changed".into()),
                TopState::Done | TopState::Stopped => Fate::StaysDown,
            }
        })
    }

    fn respec(&self, spec: &Supervisor) {
        self.tops.with(|list| {
            if let Some(entry) = list.iter_mut().find(|entry| entry.spec.name() == spec.name()) {
                entry.spec = spec.clone();
            }
        });
    }
}
