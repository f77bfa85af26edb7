//! The one loop that acts: it takes what can happen to a supervisor, asks the pure policy, and announces what it did.
//!
//! All events of a supervisor are emitted here, by the one task that runs this loop, in the order in which they happened.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::task::{Id as TaskId, yield_now};
use tokio::time::sleep_until;

use crate::event::{
    Action, AutoShutdown, Decision, Detail, Event, ExitReason, Payload, RestartCause, SupervisorEvent, SupervisorExit,
    SupervisorRef, Timestamp,
};
use crate::intensity::Intensity;
use crate::supervisor::child::{Exit, next_pid};
use crate::supervisor::decision::{self, Ended};
use crate::supervisor::error::{ControlError, StartError};
use crate::supervisor::handle::{MAX_QUEUED_REQUESTS, Request, Started, SupervisorHandle};
use crate::supervisor::runs::{Orders, Runs, StartOutcome, Stopped};
use crate::supervisor::spec::{ChildSpec, Supervisor};
use crate::supervisor::strategy;
use crate::supervisor::table::{Child, Down, Key, Run, Table};
use crate::telemetry::{Telemetry, monotonic_now, now};

/// Where a supervisor lives.
pub(super) struct Place {
    /// Full name of the supervisor above.
    pub(super) parent: Option<Arc<str>>,
    pub(super) telemetry: Telemetry,
    pub(super) orders: Orders,
}

/// A supervisor at work.
pub(super) struct Supervision {
    pub(super) me: Arc<SupervisorRef>,
    pub(super) spec: Supervisor,
    pub(super) telemetry: Telemetry,
    pub(super) orders: Orders,
    pub(super) table: Table,
    pub(super) runs: Runs,
    pub(super) intensity: Intensity,
    /// Children that wait for their restart, and when they are due. Entries outlive their meaning: only one that agrees
    /// with the state of its child counts.
    pub(super) due: BTreeSet<(Instant, Key)>,
    pub(super) requests: mpsc::Receiver<Request>,
    pub(super) exit: watch::Sender<Option<SupervisorExit>>,
    pub(super) since: Instant,
}

/// What came of an attempt to start a child again.
pub(super) enum Attempt {
    /// It runs, or it chose not to.
    Done,
    /// It failed and waits for its turn; what comes after it in its group waits as well.
    Later,
    /// The supervisor has to end.
    End(SupervisorExit),
}

/// Starts a supervisor: returns when all children have started, with the supervision to be served.
pub(super) async fn open(supervisor: Supervisor, place: Place) -> Result<(Supervision, SupervisorHandle), StartError> {
    let Place { parent, telemetry, orders } = place;
    let mut spec = supervisor.initialised().map_err(StartError::Init)?.ok_or(StartError::Ignored)?;
    spec.check()?;
    let children = std::mem::take(&mut spec.children);
    let name = parent.as_ref().map_or_else(|| spec.name.clone(), |parent| format!("{parent}/{}", spec.name).into());
    let me = Arc::new(SupervisorRef::new(next_pid(), name.clone(), None));
    let (requests, mailbox) = mpsc::channel(MAX_QUEUED_REQUESTS);
    let (exit, exited) = watch::channel(None);
    let handle = SupervisorHandle::new(me.clone(), requests, orders.stop.clone(), exited);
    let since = monotonic_now();
    let window = Duration::from_secs(spec.max_seconds.into());
    let mut supervision = Supervision {
        intensity: Intensity::new(spec.max_restarts, window, spec.resolution, since),
        runs: Runs::new(orders.clone(), telemetry.clone(), name),
        table: Table::default(),
        due: BTreeSet::new(),
        requests: mailbox,
        me,
        spec,
        telemetry,
        orders,
        exit,
        since,
    };
    supervision.init(parent, children).await?;
    Ok((supervision, handle))
}

impl Supervision {
    /// Supervises until it is told to stop, gives up, or its significant children are done.
    pub(super) async fn serve(mut self) -> SupervisorExit {
        // One wait for all turns: each new one would lock the notices to enlist, and again to leave.
        let orders = self.orders.clone();
        let mut ordered = pin!(orders.given());
        let exit = loop {
            if let ControlFlow::Break(exit) = self.turn(ordered.as_mut()).await {
                break exit;
            }
        };
        self.end(exit).await
    }

    /// Everything that can wake a supervisor. No branch is preferred: a crash loop must not starve the requests that
    /// could end it.
    async fn turn(&mut self, ordered: Pin<&mut impl Future<Output = ()>>) -> ControlFlow<SupervisorExit> {
        tokio::select! {
            () = ordered => ControlFlow::Break(self.orders.stop.exit()),
            (task, exit) = self.runs.next_exit() => self.child_ended(task, exit).await,
            Some(request) = self.requests.recv() => self.answer(request).await,
            () = is_due(self.due.first()), if !self.due.is_empty() => self.retry().await,
        }
    }

    // === Init ===

    async fn init(&mut self, parent: Option<Arc<str>>, children: Vec<ChildSpec>) -> Result<(), StartError> {
        self.emit(Payload::SupervisorInit {
            strategy: Some(self.spec.strategy),
            max_restarts: Some(self.spec.max_restarts),
            max_seconds: Some(self.spec.max_seconds),
            parent,
            found: false,
        });
        for spec in children {
            let child = spec.id.clone();
            let reason = match self.start_new(spec).await {
                Ok(_) => continue,
                Err(ControlError::NotRunning) => {
                    self.end(self.orders.stop.exit()).await;
                    return Err(StartError::Stopped);
                }
                Err(ControlError::StartFailed(reason)) => reason,
                Err(error) => ExitReason::error(error),
            };
            let error = StartError::Child { child, reason };
            self.end(SupervisorExit::Error(Detail::new(&error.to_string()))).await;
            return Err(error);
        }
        Ok(())
    }

    // === A child ended by itself ===

    async fn child_ended(&mut self, task: TaskId, exit: Exit) -> ControlFlow<SupervisorExit> {
        // As in OTP, the end of something that is no child any more concerns nobody.
        let Some(key) = self.table.by_task(task) else { return ControlFlow::Continue(()) };
        let time = now();
        let Some(run) = self.table.ended(key, time.monotonic) else { return ControlFlow::Continue(()) };
        let ran = time.monotonic - run.since;
        let backoff = self.table.get_mut(key).map_or(Duration::ZERO, |child| child.fail(Some(ran)));
        let Some(child) = self.table.get(key) else { return ControlFlow::Continue(()) };
        let ended = Ended {
            backoff,
            restart: child.spec.restart,
            reason: &exit.reason,
            significant: child.spec.significant,
            auto_shutdown: self.spec.auto_shutdown,
            other_significant: child.spec.significant && self.other_significant(key),
            is_kept: child.reference.is_kept(),
        };
        let is_kept = ended.is_kept;
        let decision = decision::child_ended(&ended, &mut self.intensity, time.monotonic);
        let stopped = Stopped { exit, ordered: false };
        self.emit_terminate(time, key, &run, &stopped, decision);
        // One that ends its supervisor by its failure stays until its name has been said.
        if !matches!(decision.action, Action::Restart | Action::GiveUp) && !is_kept {
            self.table.remove(key);
        }
        match decision.action {
            Action::Restart => self.restart(key, RestartCause::Failure, decision.delay).await,
            Action::Leave | Action::Forget => ControlFlow::Continue(()),
            Action::AutoShutdown => ControlFlow::Break(SupervisorExit::Shutdown),
            Action::GiveUp => ControlFlow::Break(self.max_intensity(key, &stopped.exit.reason)),
        }
    }

    /// Does a significant child other than this one run, or wait for its restart?
    fn other_significant(&self, key: Key) -> bool {
        self.spec.auto_shutdown == AutoShutdown::AllSignificant
            && self.table.iter().any(|(other, child)| {
                let runs = matches!(child.down(), None | Some(Down::Restarting { .. }));
                other != key && child.spec.significant && runs
            })
    }

    /// Restarts a child and what its strategy says goes with it: stops in reverse, waits, then starts in order.
    async fn restart(&mut self, failed: Key, cause: RestartCause, delay: Duration) -> ControlFlow<SupervisorExit> {
        let group = self.table.keys(strategy::group(self.spec.strategy, failed));
        for key in group.iter().rev().filter(|key| **key != failed) {
            self.stop_for_sibling(*key).await;
        }
        if !delay.is_zero() {
            self.wait_for_restart(failed, cause, delay);
            return ControlFlow::Continue(());
        }
        for key in group {
            let cause = if key == failed { cause } else { RestartCause::Sibling };
            match self.start_again(key, cause).await {
                Attempt::Done => {}
                Attempt::Later => break,
                Attempt::End(exit) => return ControlFlow::Break(exit),
            }
        }
        ControlFlow::Continue(())
    }

    async fn stop_for_sibling(&mut self, key: Key) {
        self.stop(key, Action::Restart).await;
        let Some(child) = self.table.get_mut(key) else { return };
        if child.reference.is_kept() {
            child.set_down(Down::Waiting);
        } else {
            self.table.remove(key);
        }
    }

    pub(super) async fn start_again(&mut self, key: Key, cause: RestartCause) -> Attempt {
        let Some(child) = self.table.get(key) else { return Attempt::Done };
        let begin = monotonic_now();
        let outcome = self.runs.start(&child.spec, begin).await;
        let time = now();
        let duration = Some(time.monotonic - begin);
        let exit = match outcome {
            StartOutcome::Running(run, _) => {
                self.restarted(time, key, run, cause, duration);
                return Attempt::Done;
            }
            StartOutcome::Ignored => {
                self.settle(key, false);
                return Attempt::Done;
            }
            StartOutcome::Interrupted => return Attempt::End(self.orders.stop.exit()),
            StartOutcome::AlreadyStarted(pid) => ExitReason::error(ControlError::AlreadyStarted(pid)).into(),
            StartOutcome::Failed(exit) => exit,
        };
        let backoff = self.table.get_mut(key).map_or(Duration::ZERO, |child| child.fail(None));
        let decision = decision::restart(&mut self.intensity, time.monotonic, backoff);
        let reason = exit.reason.clone();
        self.start_failed(time, key, exit, duration, Some(decision));
        if decision.action == Action::GiveUp {
            return Attempt::End(self.max_intensity(key, &reason));
        }
        self.wait_for_restart(key, cause, decision.delay);
        Attempt::Later
    }

    fn wait_for_restart(&mut self, key: Key, cause: RestartCause, delay: Duration) {
        let Some(child) = self.table.get_mut(key) else { return };
        let due = monotonic_now() + delay;
        child.set_down(Down::Restarting { cause, due });
        self.due.insert((due, key));
    }

    /// Starts a child for the first time; of one that fails nothing is kept.
    pub(super) async fn start_new(&mut self, spec: ChildSpec) -> Result<Started, ControlError> {
        let reference = spec.reference(self.spec.strategy);
        let is_kept = reference.is_kept();
        let begin = monotonic_now();
        let outcome = self.runs.start(&spec, begin).await;
        let time = now();
        let duration = Some(time.monotonic - begin);
        let key = self.table.insert(spec, reference);
        let error = match outcome {
            StartOutcome::Running(run, info) => {
                let pid = Some(run.pid);
                self.table.started(key, run);
                self.emit_child(time, key, |child| Payload::ChildStart { child, child_pid: pid, duration });
                return Ok(Started { pid, info });
            }
            StartOutcome::Ignored => {
                self.emit_child(time, key, |child| Payload::ChildStart { child, child_pid: None, duration });
                if !is_kept {
                    self.table.remove(key);
                }
                return Ok(Started { pid: None, info: None });
            }
            StartOutcome::Interrupted => ControlError::NotRunning,
            StartOutcome::AlreadyStarted(pid) => {
                let error = ControlError::AlreadyStarted(pid);
                self.start_failed(time, key, ExitReason::error(&error).into(), duration, None);
                error
            }
            StartOutcome::Failed(exit) => {
                let error = ControlError::StartFailed(exit.reason.clone());
                self.start_failed(time, key, exit, duration, None);
                error
            }
        };
        self.table.remove(key);
        Err(error)
    }

    async fn retry(&mut self) -> ControlFlow<SupervisorExit> {
        let Some((now_due, key)) = self.due.pop_first() else { return ControlFlow::Continue(()) };
        match self.table.get(key).and_then(Child::down) {
            Some(Down::Restarting { cause, due }) if due == now_due => self.restart(key, cause, Duration::ZERO).await,
            // Terminated, or restarted with a sibling, since.
            _ => ControlFlow::Continue(()),
        }
    }

    fn max_intensity(&self, key: Key, reason: &ExitReason) -> SupervisorExit {
        let child = self.table.get(key).map_or("", |child| &child.reference.id);
        let Supervisor { max_restarts, max_seconds, .. } = self.spec;
        let detail = format!("more than {max_restarts} restarts in {max_seconds} s; last child {child:?}: {reason}");
        SupervisorExit::MaxIntensity(Detail::new(&detail))
    }

    /// Puts a child that does not run to rest: no restart is pending any more, and its spec may go.
    pub(super) fn settle(&mut self, key: Key, delete: bool) {
        let Some(child) = self.table.get_mut(key) else { return };
        child.set_down(Down::Stopped);
        let deleted = delete || !child.reference.is_kept();
        self.emit_child(now(), key, |child| Payload::ChildStop { child, deleted });
        if deleted {
            self.table.remove(key);
        }
    }

    // === Stopping ===

    /// Stops a child if it runs; `action` is what becomes of it, unless its spec goes with it.
    pub(super) async fn stop(&mut self, key: Key, action: Action) {
        let Some(child) = self.table.get(key) else { return };
        let Some(run) = child.run() else { return };
        let stopped = self.runs.stop(run, child.spec.shutdown).await;
        self.stopped(key, &stopped, action);
    }

    pub(super) fn stopped(&mut self, key: Key, stopped: &Stopped, action: Action) {
        let time = now();
        let Some(run) = self.table.ended(key, time.monotonic) else { return };
        let kept = self.table.get(key).is_some_and(|child| child.reference.is_kept());
        let action = if kept { action } else { Action::Forget };
        // No restart was counted, so nothing is said of how many are left.
        let decision = Decision { action, delay: Duration::ZERO, restarts_left: None };
        self.emit_terminate(time, key, &run, stopped, decision);
    }

    // === Events ===

    pub(super) fn restarted(
        &mut self,
        time: Timestamp,
        key: Key,
        run: Run,
        cause: RestartCause,
        duration: Option<Duration>,
    ) {
        let last = self.table.get(key).and_then(Child::last);
        let child_pid = run.pid;
        self.table.started(key, run);
        self.emit_child(time, key, |child| Payload::ChildRestart {
            child,
            child_pid: Some(child_pid),
            previous_pid: last.map(|last| last.pid),
            cause,
            downtime: last.map(|last| time.monotonic - last.ended),
            duration,
        });
    }

    pub(super) fn start_failed(
        &mut self,
        time: Timestamp,
        key: Key,
        exit: Exit,
        duration: Option<Duration>,
        decision: Option<Decision>,
    ) {
        let Some(child) = self.table.get_mut(key) else { return };
        child.attempts = child.attempts.saturating_add(1);
        let attempt = child.attempts;
        self.emit_child(time, key, |child| Payload::ChildStartError {
            child,
            reason: exit.reason,
            attempt,
            duration,
            decision,
            last_output: exit.last_output,
        });
    }

    pub(super) fn emit_child(
        &self,
        time: Timestamp,
        key: Key,
        payload: impl FnOnce(Arc<crate::event::ChildRef>) -> Payload,
    ) {
        let Some(child) = self.table.get(key) else { return };
        self.emit_at(time, payload(child.reference.clone()));
    }

    pub(super) fn emit(&self, payload: Payload) {
        self.emit_at(now(), payload);
    }

    fn emit_at(&self, time: Timestamp, payload: Payload) {
        let event = SupervisorEvent { supervisor: self.me.clone(), time, payload };
        self.telemetry.execute(&Event::Supervisor(event));
    }
}

/// Returns when the first child in line is due. One that is due already only lets go first those requests that came
/// before (OTP: the message `try_again_restart` to itself): a delay of zero must not cost the millisecond of a timer.
async fn is_due(first: Option<&(Instant, Key)>) {
    match first {
        Some((due, _)) if *due > monotonic_now() => sleep_until((*due).into()).await,
        _ => yield_now().await,
    }
}
