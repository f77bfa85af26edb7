//! Starting and stopping runs: the mechanics below the run loop. Nothing is decided and nothing announced here.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant as StdInstant;

use tokio::sync::oneshot::{self, error::TryRecvError};
use tokio::task::{AbortHandle, Id as TaskId, JoinError};
use tokio::time::{Instant, sleep_until};

use crate::event::{ExitReason, Pid, SupervisorExit};
use crate::supervisor::child::{self, Answer, Exit, Info, Outcome, Ready, StopToken, Tasks};
use crate::supervisor::error::StartError;
use crate::supervisor::handle::StopOrder;
use crate::supervisor::notice::Notice;
use crate::supervisor::process;
use crate::supervisor::run_loop::{self, Place};
use crate::supervisor::spec::{ChildSpec, Shutdown, Start, Supervisor};
use crate::supervisor::table::{Kill, Run};
use crate::telemetry::{Telemetry, monotonic_now};

/// What a supervisor itself is told: to stop, or to stop at once.
#[derive(Clone, Debug, Default)]
pub(super) struct Orders {
    pub(super) stop: StopOrder,
    pub(super) kill: Notice,
}

/// The tasks of all runs, and the ends that were seen before anybody asked for them.
pub(super) struct Runs {
    tasks: Tasks,
    /// Ends seen while waiting for another child, in order: OTP leaves such messages in the mailbox.
    seen: VecDeque<(TaskId, Exit)>,
    orders: Orders,
    telemetry: Telemetry,
    /// Full name of the supervisor, for those below it.
    name: Arc<str>,
}

/// How a start ended.
pub(super) enum StartOutcome {
    Running(Run, Option<Info>),
    Ignored,
    AlreadyStarted(Pid),
    Failed(Exit),
    /// The supervisor was told to stop meanwhile; the half-started child is gone.
    Interrupted,
}

/// How a stop ended.
pub(super) struct Stopped {
    pub(super) exit: Exit,
    /// False if the child had ended by itself before it was told.
    pub(super) ordered: bool,
}

// === impl Orders ===

impl Orders {
    /// Returns when the supervisor should end, softly or at once.
    pub(super) async fn given(&self) {
        tokio::select! {
            () = self.stop.notice.given() => {}
            () = self.kill.given() => {}
        }
    }
}

// === impl Runs ===

impl Runs {
    pub(super) fn new(orders: Orders, telemetry: Telemetry, name: Arc<str>) -> Self {
        Self { tasks: Tasks::new(), seen: VecDeque::new(), orders, telemetry, name }
    }

    /// Starts a child and waits until it is ready, has failed, or the supervisor is told to stop. `begin` is now.
    pub(super) async fn start(&mut self, spec: &ChildSpec, begin: StdInstant) -> StartOutcome {
        let stop = Notice::default();
        // Each kind of start makes what it needs: a plain task waits for no word, and it is the one whose restart has to
        // be quick.
        let (task, kill, answer) = match &spec.start {
            Start::Task(code) => {
                let task = code.clone().spawn(StopToken(stop.clone()), &mut self.tasks);
                return StartOutcome::Running(new_run(&task.clone(), stop, Kill::Abort(task), begin), None);
            }
            Start::Announced(code) => {
                let (ready, answer) = Ready::channel();
                let task = code.clone().spawn(StopToken(stop.clone()), ready, &mut self.tasks);
                (task.clone(), Kill::Abort(task), answer)
            }
            Start::Process(program) => {
                let ((ready, answer), kill) = (Ready::channel(), Notice::default());
                let run = process::run(program.clone(), spec.id.clone(), StopToken(stop.clone()), kill.clone(), ready);
                (self.tasks.spawn(run), Kill::Notice(kill), answer)
            }
            Start::Supervisor(supervisor) => {
                let ((ready, answer), kill) = (Ready::channel(), Notice::default());
                let orders = Orders { stop: StopOrder::new(stop.clone()), kill: kill.clone() };
                let place = Place { parent: Some(self.name.clone()), telemetry: self.telemetry.clone(), orders };
                // Boxed, because a supervisor's future contains those of the supervisors below it.
                let run = nested(Supervisor::clone(supervisor), place, ready);
                (self.tasks.spawn(run), Kill::Notice(kill), answer)
            }
        };
        let starting = new_run(&task, stop, kill, begin);
        self.until_ready(starting, answer).await
    }

    async fn until_ready(&mut self, mut starting: Run, mut answer: oneshot::Receiver<Answer>) -> StartOutcome {
        let answer = loop {
            tokio::select! {
                biased;
                answered = &mut answer => match answered {
                    Ok(answer) => break answer,
                    // It dropped the word unsaid. Only its end is an answer now.
                    Err(_) => return self.failed_start(&starting).await,
                },
                exit = join(&mut self.tasks) => {
                    let own = exit.0 == starting.task;
                    self.seen.push_back(exit);
                    if own {
                        // It may have said the word just before it ended: then it did start.
                        match answer.try_recv() {
                            Ok(answer) => break answer,
                            Err(TryRecvError::Empty | TryRecvError::Closed) => return self.failed_start(&starting).await,
                        }
                    }
                }
                () = self.orders.given() => {
                    // From here on a word finds nobody: each was either heard, and its start is announced, or refused.
                    answer.close();
                    if let Ok(answer) = answer.try_recv() {
                        break answer;
                    }
                    self.discard(&starting).await;
                    return StartOutcome::Interrupted;
                }
            }
        };
        match answer.outcome {
            Outcome::Running => {
                starting.since = monotonic_now();
                starting.pid = answer.pid.unwrap_or(starting.pid);
                starting.supervisor = answer.supervisor.map(Box::new);
                StartOutcome::Running(starting, answer.info)
            }
            Outcome::Ignored => {
                self.discard(&starting).await;
                StartOutcome::Ignored
            }
            Outcome::AlreadyStarted(pid) => {
                self.discard(&starting).await;
                StartOutcome::AlreadyStarted(pid)
            }
        }
    }

    async fn failed_start(&mut self, starting: &Run) -> StartOutcome {
        let Some(exit) = self.wait_or_orders(starting).await else { return StartOutcome::Interrupted };
        if exit.reason.is_abnormal() {
            StartOutcome::Failed(exit)
        } else {
            StartOutcome::Failed(Exit { reason: ExitReason::error("ended before it was ready"), ..exit })
        }
    }

    /// Waits for the end of a run; none if the supervisor is told to stop before, and then the run is gone as well.
    async fn wait_or_orders(&mut self, run: &Run) -> Option<Exit> {
        let orders = self.orders.clone();
        tokio::select! {
            biased;
            exit = self.wait(run.task) => return Some(exit),
            () = orders.given() => {}
        }
        self.discard(run).await;
        None
    }

    async fn discard(&mut self, run: &Run) {
        run.stop.give();
        run.kill();
        self.wait(run.task).await;
    }

    /// Stops a run as `shutdown` says, and returns when it has ended.
    pub(super) async fn stop(&mut self, run: &Run, shutdown: Shutdown) -> Stopped {
        self.look();
        if let Some(exit) = self.take_seen(run.task) {
            return Stopped { exit, ordered: false };
        }
        let in_time = match shutdown {
            Shutdown::BrutalKill => None,
            Shutdown::Timeout(timeout) => {
                run.stop.give();
                self.wait_until(run.task, Instant::now().checked_add(timeout)).await
            }
            Shutdown::Infinity => {
                run.stop.give();
                self.wait_until(run.task, None).await
            }
        };
        let exit = match in_time {
            Some(exit) => exit,
            None => {
                run.kill();
                let exit = self.wait(run.task).await;
                self.late(exit, shutdown)
            }
        };
        Stopped { exit, ordered: true }
    }

    /// All runs that ended by now.
    pub(super) fn ended(&mut self) -> VecDeque<(TaskId, Exit)> {
        self.look();
        std::mem::take(&mut self.seen)
    }

    /// The next run that ended.
    pub(super) async fn next_exit(&mut self) -> (TaskId, Exit) {
        match self.seen.pop_front() {
            Some(exit) => exit,
            None => join(&mut self.tasks).await,
        }
    }

    fn look(&mut self) {
        while let Some(exit) = self.tasks.try_join_next_with_id() {
            self.seen.push_back(exit_of(exit));
        }
    }

    /// Waits for the end of a run without limit. OTP does the same after a kill.
    async fn wait(&mut self, task: TaskId) -> Exit {
        loop {
            if let Some(exit) = self.take_seen(task) {
                return exit;
            }
            let exit = join(&mut self.tasks).await;
            self.seen.push_back(exit);
        }
    }

    /// Waits for the end of a run until the deadline, or until the supervisor itself is killed.
    async fn wait_until(&mut self, task: TaskId, deadline: Option<Instant>) -> Option<Exit> {
        let killed = self.orders.kill.clone();
        tokio::select! {
            biased;
            exit = self.wait(task) => Some(exit),
            () = killed.given() => None,
            () = until(deadline) => None,
        }
    }

    /// The end of a run that was killed: unless that was the plan, for it or for its supervisor, its time to stop was over.
    pub(super) fn late(&self, exit: Exit, shutdown: Shutdown) -> Exit {
        match (&exit.reason, shutdown) {
            (ExitReason::Killed, Shutdown::Timeout(_)) if !self.orders.kill.is_given() => {
                Exit { reason: ExitReason::Timeout, ..exit }
            }
            _ => exit,
        }
    }

    fn take_seen(&mut self, task: TaskId) -> Option<Exit> {
        let index = self.seen.iter().position(|(seen, _)| *seen == task)?;
        self.seen.remove(index).map(|(_, exit)| exit)
    }
}

/// Returns at the deadline; never without one.
pub(super) async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

fn new_run(task: &AbortHandle, stop: Notice, kill: Kill, since: StdInstant) -> Run {
    Run { pid: child::next_pid(), task: task.id(), stop, kill, since, supervisor: None }
}

/// The next task to end; never returns while there is none.
async fn join(tasks: &mut Tasks) -> (TaskId, Exit) {
    match tasks.join_next_with_id().await {
        Some(exit) => exit_of(exit),
        None => std::future::pending().await,
    }
}

fn exit_of(exit: Result<(TaskId, Exit), JoinError>) -> (TaskId, Exit) {
    match exit {
        Ok(exit) => exit,
        Err(error) => {
            let task = error.id();
            // Caught by `guard` unless it came while the task's future was dropped.
            let reason = error.try_into_panic().map_or(ExitReason::Killed, |payload| child::panicked(payload, None));
            (task, reason.into())
        }
    }
}

/// A supervisor as the child of another.
fn nested(supervisor: Supervisor, place: Place, ready: Ready) -> std::pin::Pin<Box<dyn Future<Output = Exit> + Send>> {
    Box::pin(async move {
        let killed = place.orders.kill.clone();
        let (supervision, handle) = match run_loop::open(supervisor, place).await {
            Ok(opened) => opened,
            Err(StartError::Ignored) => {
                ready.ignore();
                return ExitReason::Normal.into();
            }
            Err(error) => return ExitReason::error(error).into(),
        };
        let pid = Some(handle.reference().id);
        ready.answer(Answer { pid, supervisor: Some(handle), ..Answer::default() });
        let exit = supervision.serve().await;
        if killed.is_given() {
            return ExitReason::Killed.into();
        }
        // To its parent a supervisor that gave up ends with `shutdown`, as in OTP: a transient one is not restarted.
        let reason = match exit {
            SupervisorExit::Normal => ExitReason::Normal,
            SupervisorExit::Shutdown => ExitReason::Shutdown(None),
            SupervisorExit::MaxIntensity(detail) => ExitReason::Shutdown(Some(detail)),
            SupervisorExit::Error(detail) | SupervisorExit::Unknown(detail) => ExitReason::Error(detail),
        };
        reason.into()
    })
}
