//! A child from its own side: the token that tells it to stop, the word that it is ready, and how its end is caught.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;

use once_cell::sync::Lazy;
use tokio::task::{AbortHandle, JoinSet};

use crate::event::{ExitReason, Panic, Pid, Usage};
use crate::supervisor::notice::Notice;
use crate::supervisor::starts::{Answer, Outcome, Voice};
use crate::telemetry::panic_message;

/// The tasks of one supervisor's children. Dropping it aborts them all, so that none outlives its supervisor.
pub(super) type Tasks = JoinSet<Exit>;

/// How a run ended, and what is left of it.
#[derive(Debug)]
pub(super) struct Exit {
    pub(super) reason: ExitReason,
    pub(super) last_output: Option<Arc<[Box<str>]>>,
    pub(super) usage: Option<Usage>,
}

impl From<ExitReason> for Exit {
    fn from(reason: ExitReason) -> Self {
        Self { reason, last_output: None, usage: None }
    }
}

/// A task's code, whose start ends when it is spawned.
pub(super) trait TaskFn: Send + Sync {
    fn spawn(self: Arc<Self>, stop: StopToken, tasks: &mut Tasks) -> AbortHandle;
}

impl<F, Fut> TaskFn for F
where
    F: Fn(StopToken) -> Fut + Send + Sync + 'static,
    Fut: Future<Output: IntoExit> + Send + 'static,
{
    fn spawn(self: Arc<Self>, stop: StopToken, tasks: &mut Tasks) -> AbortHandle {
        tasks.spawn(guard(stop, move |stop| self(stop)))
    }
}

/// A task's code, whose start ends when it says so.
pub(super) trait AnnouncedFn: Send + Sync {
    fn spawn(self: Arc<Self>, stop: StopToken, ready: Ready, tasks: &mut Tasks) -> AbortHandle;
}

impl<F, Fut> AnnouncedFn for F
where
    F: Fn(StopToken, Ready) -> Fut + Send + Sync + 'static,
    Fut: Future<Output: IntoExit> + Send + 'static,
{
    fn spawn(self: Arc<Self>, stop: StopToken, ready: Ready, tasks: &mut Tasks) -> AbortHandle {
        tasks.spawn(guard(stop, move |stop| self(stop, ready)))
    }
}

/// What a child gives to whoever called `start_child` or `restart_child` (OTP: `{ok, Child, Info}`): a channel to talk
/// to it, the address it listens on.
pub type Info = Arc<dyn Any + Send + Sync>;

/// Tells a child that it should stop.
#[derive(Clone, Debug)]
pub struct StopToken(pub(super) Notice);

impl StopToken {
    /// Returns when the child should stop; at once if it should already.
    pub fn stopped(&self) -> impl Future<Output = ()> + Send + '_ {
        self.0.given()
    }

    /// Should the child stop?
    pub fn is_stopped(&self) -> bool {
        self.0.is_given()
    }
}

/// Says that a child is ready: its start ends with this word. Dropping it unsaid is a failed start, at once.
pub struct Ready(Voice);

impl fmt::Debug for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ready").finish_non_exhaustive()
    }
}

impl Ready {
    pub(super) fn new(voice: Voice) -> Self {
        Self(voice)
    }

    /// The child runs (`{ok, Pid}`). False if nobody waits for it any more: its supervisor was told to stop meanwhile, and
    /// the child is about to be stopped.
    pub fn ok(mut self) -> bool {
        self.0.answer(Answer::default())
    }

    /// The child runs and has something for whoever started it (`{ok, Pid, Info}`). False as [`ok`](Self::ok).
    pub fn ok_with(mut self, info: impl Any + Send + Sync) -> bool {
        self.0.answer(Answer { info: Some(Arc::new(info)), ..Answer::default() })
    }

    /// The child is not wanted (`ignore`): no error, but nothing runs. The task is aborted if it does not end.
    pub fn ignore(mut self) {
        self.0.answer(Answer { outcome: Outcome::Ignored, ..Answer::default() });
    }

    /// The child runs elsewhere (`{error, {already_started, Pid}}`): an error, and nothing is kept.
    pub fn already_started(mut self, pid: Pid) {
        self.0.answer(Answer { outcome: Outcome::AlreadyStarted(pid), ..Answer::default() });
    }
}

/// What a task may return: `()`, a `Result` whose error can be shown, or an [`ExitReason`].
pub trait IntoExit {
    /// How the child ended.
    fn into_exit(self) -> ExitReason;
}

impl IntoExit for () {
    fn into_exit(self) -> ExitReason {
        ExitReason::Normal
    }
}

impl<E: fmt::Display> IntoExit for Result<(), E> {
    fn into_exit(self) -> ExitReason {
        self.map_or_else(ExitReason::error, |()| ExitReason::Normal)
    }
}

impl IntoExit for ExitReason {
    fn into_exit(self) -> ExitReason {
        self
    }
}

/// A number for a task or supervisor, never given twice.
pub(super) fn next_pid() -> Pid {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    Pid::Task(NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Runs a child's future to its end and says how it ended, panics included.
///
/// What lives in here lives in every task, so nothing is kept twice and nothing is wrapped in a future of its own.
pub(super) async fn guard<Fut>(stop: StopToken, run: impl FnOnce(StopToken) -> Fut) -> Exit
where
    Fut: Future<Output: IntoExit>,
{
    // `run` is the child's code as well, and so is how its error is shown: each may panic.
    let future = match catch(|| run(stop.clone())) {
        Ok(future) => future,
        Err(panic) => return panic.into(),
    };
    let mut future = pin!(future);
    let exit = poll_fn(|context| match catch(|| future.as_mut().poll(context).map(IntoExit::into_exit)) {
        Ok(poll) => poll,
        Err(panic) => Poll::Ready(panic),
    })
    .await;
    // A child that was told to stop and ends without an error did as it was told (OTP: exit reason `shutdown`).
    match exit {
        ExitReason::Normal if stop.is_stopped() => ExitReason::Shutdown(None).into(),
        exit => exit.into(),
    }
}

/// Calls a child's code and turns a panic into its exit reason, with message and location.
pub(super) fn catch<R>(code: impl FnOnce() -> R) -> Result<R, ExitReason> {
    Lazy::force(&HOOK);
    // A panic that the child caught itself left its place here, and one that is passed on brings none.
    LOCATION.with(|location| location.borrow_mut().take());
    let _supervised = Supervised::enter();
    panic::catch_unwind(AssertUnwindSafe(code)).map_err(|payload| {
        let location = LOCATION.with(|location| location.borrow_mut().take());
        panicked(payload, location)
    })
}

/// The exit reason of a panic; `location` is where, if known.
pub(super) fn panicked(payload: Box<dyn Any + Send>, location: Option<Box<str>>) -> ExitReason {
    let message = panic_message(&*payload);
    // A payload is anything, and dropping it may panic once more: not in the supervisor.
    let _ = panic::catch_unwind(AssertUnwindSafe(move || drop(payload)));
    ExitReason::Panic(Arc::new(Panic { message, location }))
}

thread_local! {
    /// Is a child's code running on this thread?
    static SUPERVISED: Cell<bool> = const { Cell::new(false) };
    /// Where the last panic of a child on this thread was.
    static LOCATION: RefCell<Option<Box<str>>> = const { RefCell::new(None) };
}

/// Only a panic hook learns where a panic was. Ours notes it for children and then calls the one that was there before,
/// so that what the program prints does not change.
static HOOK: Lazy<()> = Lazy::new(|| {
    let previous = panic::take_hook();
    panic::set_hook(Box::new(move |info: &PanicHookInfo<'_>| {
        if SUPERVISED.get() {
            let location = info.location().map(|location| location.to_string().into_boxed_str());
            LOCATION.with(|last| *last.borrow_mut() = location);
        }
        previous(info);
    }));
});

/// Marks the thread as running a child's code; nests, since a child may poll another supervisor's code.
struct Supervised {
    outer: bool,
}

impl Supervised {
    fn enter() -> Self {
        Self { outer: SUPERVISED.replace(true) }
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        SUPERVISED.set(self.outer);
    }
}
