//! The one loop that acts: it takes what can happen to a supervisor, asks the pure policy, and announces what it did.
//!
//! All events of a supervisor are emitted here, by the one task that runs this loop, in the order in which they happened.

use std::collections::{BTreeSet, HashMap};
use std::ops::ControlFlow;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{Id as TaskId, yield_now};
use tokio::time::sleep_until;

use crate::event::{
    Action, AutoShutdown, Decision, Detail, Event, ExitReason, Payload, Phase, RestartCause, Strategy, SupervisorEvent,
    SupervisorExit, SupervisorRef, Timestamp, counted,
};
use crate::intensity::Intensity;
use crate::supervisor::child::{Exit, next_pid};
use crate::supervisor::decision::{self, Ended};
use crate::supervisor::error::{ControlError, StartError};
use crate::supervisor::handle::{MAX_QUEUED_REQUESTS, Progress, Request, SupervisorHandle};
use crate::supervisor::runs::{News, Orders, Runs, Stopped};
use crate::supervisor::settle::Watcher;
use crate::supervisor::spec::{ChildSpec, Supervisor, budget_can_run_out};
use crate::supervisor::starts::Outcome;
use crate::supervisor::strategy;
use crate::supervisor::table::{Child, Down, Key, Purpose, Table, Turn};
use crate::telemetry::{Telemetry, monotonic_now, now};

/// Where a supervisor lives.
pub(super) struct Place {
    /// Full name of the supervisor above.
    pub(super) parent: Option<Arc<str>>,
    pub(super) telemetry: Telemetry,
    pub(super) orders: Orders,
    /// Does an operator want it again?
    pub(super) is_requested: bool,
}

/// A supervisor at work.
pub(super) struct Supervision {
    pub(super) me: Arc<SupervisorRef>,
    pub(super) spec: Supervisor,
    parent: Option<Arc<str>>,
    pub(super) telemetry: Telemetry,
    pub(super) orders: Orders,
    pub(super) table: Table,
    pub(super) runs: Runs,
    pub(super) intensity: Intensity,
    /// Children that wait for their restart, and when they are due. Entries outlive their meaning: only one that agrees
    /// with the state of its child counts.
    pub(super) due: BTreeSet<(Instant, Key)>,
    /// Children that those behind them wait for, in start order: see [`advance`](Self::advance).
    pub(super) line: BTreeSet<Key>,
    /// Are there children in the line of which nobody has heard that they wait?
    pub(super) untold: bool,
    /// Static temporary children that are done: their specs leave the list as in OTP, but a reload does not run them again.
    pub(super) done: HashMap<Arc<str>, ChildSpec>,
    pub(super) requests: mpsc::Receiver<Request>,
    pub(super) exit: watch::Sender<Option<SupervisorExit>>,
    pub(super) progress: watch::Sender<Progress>,
    /// Who waits for the start.
    pub(super) opened: Option<oneshot::Sender<Result<(), StartError>>>,
    /// Why it cannot start.
    pub(super) start_error: Option<StartError>,
    /// Is it started because an operator wants it again? Then its children are restarted on request.
    pub(super) is_requested: bool,
    /// Who waits until children have had their turn.
    pub(super) watchers: Vec<Watcher>,
    pub(super) since: Instant,
}

/// Begins a supervisor; [`serve`](Supervision::serve) starts its children.
pub(super) fn open(supervisor: Supervisor, place: Place) -> Result<(Supervision, SupervisorHandle), StartError> {
    let Place { parent, telemetry, orders, is_requested } = place;
    let spec = supervisor.initialised().map_err(StartError::Init)?.ok_or(StartError::Ignored)?;
    spec.check()?;
    let name = parent.as_ref().map_or_else(|| spec.name.clone(), |parent| format!("{parent}/{}", spec.name).into());
    let me = Arc::new(SupervisorRef::new(next_pid(), name.clone(), None));
    let (requests, mailbox) = mpsc::channel(MAX_QUEUED_REQUESTS);
    let (exit, exited) = watch::channel(None);
    let (progress, progressed) = watch::channel(Progress::Starting);
    let handle = SupervisorHandle::new(me.clone(), requests, orders.stop.clone(), exited, progressed);
    let since = monotonic_now();
    let window = Duration::from_secs(spec.max_seconds.into());
    let supervision = Supervision {
        intensity: Intensity::new(spec.max_restarts, window, spec.resolution, since),
        runs: Runs::new(orders.clone(), telemetry.clone(), name),
        table: Table::default(),
        due: BTreeSet::new(),
        line: BTreeSet::new(),
        untold: false,
        done: HashMap::new(),
        requests: mailbox,
        me,
        spec,
        parent,
        telemetry,
        orders,
        exit,
        progress,
        opened: None,
        start_error: None,
        is_requested,
        watchers: Vec::new(),
        since,
    };
    Ok((supervision, handle))
}

impl Supervision {
    /// Starts the children, and supervises until it is told to stop, gives up, cannot start, or its significant children
    /// are done.
    pub(super) async fn serve(mut self) -> SupervisorExit {
        // One wait for all turns: each new one would lock the notices to enlist, and again to leave.
        let orders = self.orders.clone();
        let mut ordered = pin!(orders.given());
        self.init();
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
        let flow = tokio::select! {
            () = ordered => ControlFlow::Break(self.orders.stop.exit()),
            news = self.runs.next() => match news {
                News::Ended(task, exit) => self.child_ended(task, exit).await,
                News::Said(start, said) => self.child_said(start, said).await,
            },
            Some(request) = self.requests.recv() => self.answer(request).await,
            () = is_due(self.due.first()), if !self.due.is_empty() => {
                self.retry().await;
                ControlFlow::Continue(())
            }
        };
        self.answer_watchers();
        flow
    }

    // === Init ===

    fn init(&mut self) {
        let Supervisor { strategy, max_restarts, max_seconds, .. } = self.spec;
        self.emit(Payload::SupervisorInit {
            strategy: Some(strategy),
            max_restarts: Some(max_restarts),
            max_seconds: Some(max_seconds),
            parent: self.parent.clone(),
            found: false,
        });
        for spec in std::mem::take(&mut self.spec.children) {
            self.enlist(spec, Turn::First);
        }
        if !self.budget_can_run_out() {
            self.emit_config();
        }
        self.advance();
    }

    /// Adds a child that is started when its turn comes.
    pub(super) fn enlist(&mut self, spec: ChildSpec, turn: Turn) {
        let reference = spec.reference(self.spec.strategy);
        let key = self.table.insert(spec, reference);
        if let Some(child) = self.table.get_mut(key) {
            child.is_configured = true;
        }
        self.wait_for_turn(key, turn);
    }

    pub(super) fn wait_for_turn(&mut self, key: Key, turn: Turn) {
        let Some(child) = self.table.get_mut(key) else { return };
        child.set_down(Down::Waiting(turn));
        self.line.insert(key);
        self.untold = true;
    }

    // === A child ended by itself ===

    async fn child_ended(&mut self, task: TaskId, exit: Exit) -> ControlFlow<SupervisorExit> {
        // As in OTP, the end of something that is no child any more concerns nobody.
        let Some(key) = self.table.by_task(task) else { return ControlFlow::Continue(()) };
        let begun = self.table.get_mut(key).and_then(Child::starting).map(|starting| starting.start);
        if let Some(start) = begun {
            // It may have said the word just before it ended: then it did start.
            match self.runs.close(start) {
                Some(answer) => self.answered(key, answer)?,
                None => return self.not_started(key, as_start_error(exit)),
            }
        }
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
        let decision = decision::child_ended(&ended, &mut self.intensity, time.monotonic);
        let stopped = Stopped { exit, ordered: false };
        self.emit_terminate(time, key, &run, &stopped, decision);
        match decision.action {
            Action::Restart => {
                self.restart(key, RestartCause::Failure, decision.delay).await;
                ControlFlow::Continue(())
            }
            Action::Leave | Action::Forget => {
                self.done(key);
                self.advance();
                ControlFlow::Continue(())
            }
            Action::AutoShutdown => {
                self.done(key);
                ControlFlow::Break(SupervisorExit::Shutdown)
            }
            // The child is kept: `max_intensity` still needs its id.
            Action::GiveUp => ControlFlow::Break(self.max_intensity(key, &stopped.exit.reason)),
        }
    }

    /// Puts a child that ended for good to rest. The spec of a temporary one leaves the list.
    fn done(&mut self, key: Key) {
        self.line.remove(&key);
        match self.table.get_mut(key) {
            Some(child) if child.reference.is_kept() => child.set_down(Down::Done),
            _ => self.forget(key),
        }
    }

    /// Takes a child out of the list. Of a static one its spec is remembered, because a reload would else run it again.
    pub(super) fn forget(&mut self, key: Key) {
        self.line.remove(&key);
        if let Some(child) = self.table.remove(key)
            && !child.reference.dynamic
            && child.is_configured
        {
            self.done.insert(child.reference.id.clone(), child.spec);
        }
    }

    /// Does a significant child other than this one run, or wait for its restart?
    fn other_significant(&self, key: Key) -> bool {
        self.spec.auto_shutdown == AutoShutdown::AllSignificant
            && self.table.iter().any(|(other, child)| {
                let runs = matches!(child.down(), None | Some(Down::Restarting { .. } | Down::Waiting(_)));
                other != key && child.spec.significant && runs
            })
    }

    /// Restarts a child and what its strategy says goes with it: stops in reverse, waits, then starts in order.
    async fn restart(&mut self, failed: Key, cause: RestartCause, delay: Duration) {
        let group = self.table.keys(strategy::group(self.spec.strategy, failed));
        for key in group.iter().rev().filter(|key| **key != failed) {
            self.stop_for_sibling(*key).await;
        }
        let has_groups = matches!(self.spec.strategy, Strategy::OneForAll | Strategy::RestForOne);
        match (delay.is_zero(), has_groups) {
            (true, false) => return self.launch(failed, Purpose::Again(cause)),
            (true, true) => self.wait_for_turn(failed, Turn::Again(cause)),
            (false, false) => return self.wait_for_restart(failed, cause, delay, false),
            (false, true) => {
                self.wait_for_restart(failed, cause, delay, false);
                self.line.insert(failed);
            }
        }
        self.advance();
    }

    async fn stop_for_sibling(&mut self, key: Key) {
        let interrupted = self.stop(key, Action::Restart).await;
        let Some(child) = self.table.get(key) else { return };
        match child.down() {
            // Its turn comes anyway.
            Some(Down::Held(_) | Down::Waiting(Turn::First)) => {}
            // It never ran, so it is not restarted.
            _ if matches!(interrupted, Some(Purpose::First)) => self.wait_for_turn(key, Turn::First),
            _ if child.reference.is_kept() => self.wait_for_turn(key, Turn::Again(RestartCause::Sibling)),
            _ => self.forget(key),
        }
        if let Some(purpose) = interrupted {
            purpose.reply(Err(ControlError::Interrupted));
        }
    }

    pub(super) fn wait_for_restart(&mut self, key: Key, cause: RestartCause, delay: Duration, alone: bool) {
        let Some(child) = self.table.get_mut(key) else { return };
        let due = monotonic_now() + delay;
        child.set_down(Down::Restarting { cause, due, alone });
        self.due.insert((due, key));
    }

    async fn retry(&mut self) {
        let Some((now_due, key)) = self.due.pop_first() else { return };
        // One that was terminated, or restarted with a sibling, since, is not due any more.
        if let Some(Down::Restarting { cause, due, alone }) = self.table.get(key).and_then(Child::down)
            && due == now_due
        {
            // Those of its group were stopped when it died, and those before it have started since.
            let was_stopped = |child: &Child| child.start_error.is_none();
            match alone {
                false if self.line.contains(&key) && self.table.get(key).is_some_and(was_stopped) => {
                    self.wait_for_turn(key, Turn::Again(cause));
                    self.advance();
                }
                false => self.restart(key, cause, Duration::ZERO).await,
                true if self.line.contains(&key) => {
                    self.wait_for_turn(key, Turn::Alone(cause));
                    self.advance();
                }
                true => self.launch(key, Purpose::Alone(cause)),
            }
        }
    }

    pub(super) fn max_intensity(&self, key: Key, reason: &ExitReason) -> SupervisorExit {
        let child = self.table.get(key).map_or("", |child| &child.reference.id);
        let Supervisor { max_restarts, max_seconds, .. } = self.spec;
        let restarts = counted(max_restarts, "restart", "restarts");
        let detail = format!("more than {restarts} in {max_seconds} s; last child {child:?}: {reason}");
        SupervisorExit::MaxIntensity(Detail::new(&detail))
    }

    /// Puts a child that does not run to rest: no restart is pending any more, and its spec may go.
    pub(super) fn settle(&mut self, key: Key, delete: bool) {
        self.line.remove(&key);
        let Some(child) = self.table.get_mut(key) else { return };
        child.set_down(Down::Stopped);
        let deleted = delete || !child.reference.is_kept();
        self.emit_child(now(), key, |child| Payload::ChildStop { child, deleted });
        if delete {
            self.table.remove(key);
        } else if deleted {
            self.forget(key);
        }
    }

    // === Stopping ===

    /// Stops a child if it runs, or is being started; `action` is what becomes of it, unless its spec goes with it. Returns
    /// what a start was for that was interrupted.
    pub(super) async fn stop(&mut self, key: Key, action: Action) -> Option<Purpose> {
        self.close_start(key);
        let child = self.table.get(key)?;
        let (run, shutdown) = (child.any_run()?, child.spec.shutdown);
        self.emit_stopping(key, shutdown.limit());
        let stopped = self.runs.stop(run, shutdown, &child.reference.id).await;
        match self.table.start_ended(key, Down::Stopped) {
            // Nobody was told that it ran, so nobody is told that it ended.
            Some(starting) => Some(starting.purpose),
            None => {
                self.stopped(key, &stopped, action);
                None
            }
        }
    }

    /// From here on a child that is being started is not heard any more: its start has ended, or is refused.
    pub(super) fn close_start(&mut self, key: Key) {
        let start = self.table.get_mut(key).and_then(Child::starting).map(|starting| starting.start);
        if let Some(answer) = start.and_then(|start| self.runs.close(start))
            && matches!(answer.outcome, Outcome::Running)
        {
            self.announce(key, answer);
        }
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

    pub(super) fn emit_stopping(&self, key: Key, limit: Option<Duration>) {
        let pid = self.table.get(key).and_then(Child::run).map(|run| run.pid);
        self.emit_child(now(), key, |child| Payload::ChildPhase {
            child,
            child_pid: pid,
            phase: Phase::Stopping { limit },
        });
    }

    fn budget_can_run_out(&self) -> bool {
        let window = Duration::from_secs(self.spec.max_seconds.into());
        self.spec.strategy == Strategy::Dynamic
            || budget_can_run_out(self.spec.max_restarts, window, self.table.specs())
    }

    pub(super) fn emit_config(&self) {
        let Supervisor { strategy, max_restarts, max_seconds, .. } = self.spec;
        let (parent, budget_can_run_out) = (self.parent.clone(), self.budget_can_run_out());
        let children = self.table.iter().map(|(_, child)| child.reference.clone()).collect();
        self.emit(Payload::SupervisorConfig {
            strategy,
            max_restarts,
            max_seconds,
            parent,
            budget_can_run_out,
            children,
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

/// The end of a run whose start had not ended: whatever it was, it was no start.
fn as_start_error(exit: Exit) -> Exit {
    let reason = match &exit.reason {
        // A supervisor below that gave up before all its children had started.
        ExitReason::Shutdown(Some(detail)) => ExitReason::Error(detail.clone()),
        reason if reason.is_abnormal() => return exit,
        _ => ExitReason::error("ended before it was ready"),
    };
    Exit { reason, ..exit }
}

/// Returns when the first child in line is due. One that is due already only lets go first those requests that came
/// before (OTP: the message `try_again_restart` to itself): a delay of zero must not cost the millisecond of a timer.
async fn is_due(first: Option<&(Instant, Key)>) {
    match first {
        Some((due, _)) if *due > monotonic_now() => sleep_until((*due).into()).await,
        _ => yield_now().await,
    }
}
