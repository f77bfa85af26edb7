//! Starting and stopping runs: the mechanics below the run loop. Nothing is decided and nothing announced here.

use std::collections::VecDeque;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, Instant as StdInstant};

use arc_swap::ArcSwap;
use tokio::task::{AbortHandle, Id as TaskId, JoinError};
use tokio::time::{Instant, sleep_until};

use crate::event::{ExitReason, SupervisorExit};
use crate::supervisor::child::{self, Exit, Ready, StopToken, Tasks};
use crate::supervisor::error::StartError;
use crate::supervisor::handle::{Progress, StopOrder};
use crate::supervisor::notice::Notice;
use crate::supervisor::process;
use crate::supervisor::run_loop::{self, Place};
use crate::supervisor::spec::{ChildSpec, Shutdown, Start, Supervisor};
use crate::supervisor::starts::{Answer, Known, Outcome, Said, StartId, Starts, Voice};
use crate::supervisor::table::{Kill, Run};
use crate::telemetry::Telemetry;

/// How long a stop may take before the log says who is waited for.
pub(super) const QUIET_STOP: Duration = Duration::from_secs(1);

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
    starts: Starts,
    orders: Orders,
    telemetry: Telemetry,
    /// Full name of the supervisor, for those below it.
    name: Arc<str>,
}

/// What a child or its start says.
pub(super) enum News {
    /// A run ended.
    Ended(TaskId, Exit),
    /// A child that is being started says something.
    Said(StartId, Said),
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
        let (tasks, seen, starts) = (Tasks::new(), VecDeque::new(), Starts::default());
        Self { tasks, seen, starts, orders, telemetry, name }
    }

    /// Begins to start a child. `begin` is now. Without a start, the child runs already: a plain task says nothing, and it
    /// is the one whose restart has to be quick.
    pub(super) fn start(&mut self, spec: &ChildSpec, begin: StdInstant) -> (Run, Option<StartId>) {
        let stop = Notice::default();
        match &spec.start {
            Start::Task(code) => {
                let task = code.clone().spawn(StopToken(stop.clone()), &mut self.tasks);
                (new_run(&task.clone(), stop, Kill::Abort(task), begin), None)
            }
            Start::Announced(code) => {
                let (start, voice) = self.starts.open(true);
                let task = code.clone().spawn(StopToken(stop.clone()), Ready::new(voice), &mut self.tasks);
                (new_run(&task.clone(), stop, Kill::Abort(task), begin), Some(start))
            }
            Start::Process(program) => {
                let ((start, voice), kill) = (self.starts.open(false), Notice::default());
                let live = Arc::new(ArcSwap::new(program.clone()));
                let run = process::run(live.clone(), spec.id.clone(), StopToken(stop.clone()), kill.clone(), voice);
                let run = new_run(&self.tasks.spawn(run), stop, Kill::Notice(kill), begin);
                (Run { program: Some(live), ..run }, Some(start))
            }
            Start::Supervisor(supervisor) => {
                let ((start, voice), kill) = (self.starts.open(false), Notice::default());
                let orders = Orders { stop: StopOrder::new(stop.clone()), kill: kill.clone() };
                let (parent, telemetry) = (Some(self.name.clone()), self.telemetry.clone());
                let place = Place { parent, telemetry, orders, is_requested: false };
                // Boxed, because a supervisor's future contains those of the supervisors below it.
                let run = nested(Supervisor::clone(supervisor), place, voice);
                (new_run(&self.tasks.spawn(run), stop, Kill::Notice(kill), begin), Some(start))
            }
        }
    }

    /// From here on the start cannot be answered; the answer, if it was said before.
    pub(super) fn close(&self, start: StartId) -> Option<Answer> {
        self.starts.close(start)
    }

    /// Ends a run at once, and returns when it has ended.
    pub(super) async fn discard(&mut self, run: &Run) -> Exit {
        run.stop.give();
        run.kill();
        self.wait(run.task).await
    }

    /// Stops a run as `shutdown` says, and returns when it has ended. `child` is named if that takes long.
    pub(super) async fn stop(&mut self, run: &Run, shutdown: Shutdown, child: &str) -> Stopped {
        self.look();
        if let Some(exit) = self.take_seen(run.task) {
            return Stopped { exit, ordered: false };
        }
        let in_time = match shutdown {
            Shutdown::BrutalKill => None,
            Shutdown::Timeout(_) | Shutdown::Infinity => {
                run.stop.give();
                self.wait_until(run.task, shutdown, child).await
            }
        };
        let exit = match in_time {
            Some(exit) => exit,
            None => {
                if let (Shutdown::Timeout(limit), false) = (shutdown, self.orders.kill.is_given()) {
                    say_killed(&self.name, child, limit);
                }
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

    /// The next run that ended, or word of a child that is being started.
    pub(super) async fn next(&mut self) -> News {
        if let Some((task, exit)) = self.seen.pop_front() {
            return News::Ended(task, exit);
        }
        tokio::select! {
            (task, exit) = join(&mut self.tasks) => News::Ended(task, exit),
            (start, said) = self.starts.next() => News::Said(start, said),
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

    /// Waits for the end of a run as long as it may take, or until the supervisor itself is killed.
    async fn wait_until(&mut self, task: TaskId, shutdown: Shutdown, child: &str) -> Option<Exit> {
        let killed = self.orders.kill.clone();
        let (begin, name) = (Instant::now(), self.name.clone());
        let deadline = match shutdown {
            Shutdown::Timeout(timeout) => begin.checked_add(timeout),
            Shutdown::BrutalKill | Shutdown::Infinity => None,
        };
        let mut exit = pin!(self.wait(task));
        let mut is_quiet = true;
        loop {
            tokio::select! {
                biased;
                exit = &mut exit => return Some(exit),
                () = killed.given() => return None,
                () = until(deadline) => return None,
                () = sleep_until(begin + QUIET_STOP), if is_quiet => {
                    is_quiet = false;
                    say_waiting(&name, child, deadline);
                }
            }
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

/// Says who is killed because its time to stop was over.
pub(super) fn say_killed(supervisor: &str, child: &str, limit: Duration) {
    let limit = humantime::format_duration(limit).to_string();
    tracing::warn!(supervisor, child, limit, "child did not stop in time and is killed");
}

/// Says who is waited for. The log is the only place that a person can look at while everything stops.
pub(super) fn say_waiting(supervisor: &str, child: &str, deadline: Option<Instant>) {
    let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
    let killed_in = left.map_or_else(
        || "never".into(),
        |left| humantime::format_duration(Duration::from_millis(left.as_millis() as u64)).to_string(),
    );
    tracing::info!(supervisor, child, killed_in, "waiting for a child to stop");
}

/// Returns at the deadline; never without one.
pub(super) async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

fn new_run(task: &AbortHandle, stop: Notice, kill: Kill, since: StdInstant) -> Run {
    Run { pid: child::next_pid(), task: task.id(), stop, kill, since, program: None, supervisor: None }
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
fn nested(supervisor: Supervisor, place: Place, mut voice: Voice) -> Pin<Box<dyn Future<Output = Exit> + Send>> {
    Box::pin(async move {
        let killed = place.orders.kill.clone();
        let (supervision, handle) = match run_loop::open(supervisor, place) {
            Ok(opened) => opened,
            Err(StartError::Ignored) => {
                voice.answer(Answer { outcome: Outcome::Ignored, ..Answer::default() });
                return ExitReason::Normal.into();
            }
            Err(error) => return ExitReason::error(error).into(),
        };
        voice.known(Known::Supervisor(handle.clone()));
        let mut progress = handle.progress();
        let mut serving = pin!(supervision.serve());
        let exit = loop {
            tokio::select! {
                biased;
                exit = &mut serving => break exit,
                Ok(()) = progress.changed() => match *progress.borrow_and_update() {
                    Progress::Starting => voice.known(Known::Stalled(false)),
                    Progress::Stalled => voice.known(Known::Stalled(true)),
                    Progress::Started => {
                        voice.answer(Answer::default());
                    }
                },
            }
        };
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
