//! A running supervisor from outside: OTP's API functions, as methods.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{mpsc, oneshot, watch};

use crate::event::{ChildType, Pid, SupervisorExit, SupervisorRef};
use crate::supervisor::child::Info;
use crate::supervisor::error::ControlError;
use crate::supervisor::notice::Notice;
use crate::supervisor::reconfigure::{Adopted, Part, Step, Wanted};
use crate::supervisor::settle::Settled;
use crate::supervisor::spec::ChildSpec;

/// Requests that wait for a supervisor; further callers wait until there is room.
pub(super) const MAX_QUEUED_REQUESTS: usize = 64;

/// A running supervisor. Cheap to clone; dropping it stops nothing.
#[derive(Clone, Debug)]
pub struct SupervisorHandle {
    reference: Arc<SupervisorRef>,
    requests: mpsc::Sender<Request>,
    stop: StopOrder,
    exit: watch::Receiver<Option<SupervisorExit>>,
    progress: watch::Receiver<Progress>,
}

/// How far the start of a supervisor has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Children are being started.
    Starting,
    /// Others wait for a child whose start failed, and which is tried again.
    Stalled,
    /// All children have had their turn.
    Started,
}

/// Which child is meant: an id under a static supervisor, a pid under a dynamic one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChildSelector {
    /// The id of the spec.
    Id(Arc<str>),
    /// The pid of the run.
    Pid(Pid),
}

/// A child that was started (`{ok, Child}` or `{ok, Child, Info}`).
#[derive(Clone, Debug)]
pub struct Started {
    /// The run; none if the child chose to be ignored (`{ok, undefined}`).
    pub pid: Option<Pid>,
    /// What the child gave to its starter, see [`Ready::ok_with`](crate::supervisor::Ready::ok_with).
    pub info: Option<Info>,
}

/// A child in the list of [`which_children`](SupervisorHandle::which_children).
#[derive(Clone, Debug)]
pub struct ChildInfo {
    /// The id of its spec.
    pub id: Arc<str>,
    /// What it does now.
    pub state: ChildState,
    /// A worker or a supervisor.
    pub child_type: ChildType,
    /// The handle of a running child that is a supervisor.
    pub supervisor: Option<SupervisorHandle>,
}

/// What a child does now (OTP: a pid, `restarting`, or `undefined`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChildState {
    /// Its first start has begun, and has not ended.
    Starting,
    /// It runs.
    Running(Pid),
    /// It waits for the next attempt to restart it.
    Restarting,
    /// It does not run.
    Stopped,
}

/// The answer of [`count_children`](SupervisorHandle::count_children).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChildCount {
    /// Specs, running or not; a dynamic supervisor has one for each child.
    pub specs: usize,
    /// Children that run.
    pub active: usize,
    /// Specs of supervisors, running or not.
    pub supervisors: usize,
    /// Specs of workers, running or not.
    pub workers: usize,
}

/// What can be asked of a supervisor; the closed set of its mailbox.
pub(super) enum Request {
    StartChild(ChildSpec, Reply<Started>),
    TerminateChild(ChildSelector, Reply<()>),
    RestartChild(ChildSelector, Reply<Started>),
    DeleteChild(ChildSelector, Reply<()>),
    GetChildspec(ChildSelector, Reply<ChildSpec>),
    WhichChildren(Reply<Vec<ChildInfo>>),
    CountChildren(Reply<ChildCount>),
    /// An operator wants the child up: with `true` anew, if it is up already.
    Start(ChildSelector, bool, Reply<Started>),
    /// What would be done to have these children and settings.
    Plan(Wanted, Reply<Part>),
    /// Stop what has to be stopped for them.
    Hold(Wanted, Reply<Vec<Step>>),
    /// Take them over, and begin to start what has to be started.
    Adopt(Wanted, Reply<Adopted>),
    /// Answer when all children have had their turn.
    Settle(Reply<Vec<Settled>>),
}

pub(super) type Reply<T> = oneshot::Sender<Result<T, ControlError>>;

/// The order to stop, and whether it came through the handle or from the parent.
#[derive(Clone, Debug, Default)]
pub(super) struct StopOrder {
    pub(super) notice: Notice,
    by_handle: Arc<AtomicBool>,
}

// === impl SupervisorHandle ===

impl SupervisorHandle {
    /// Which incarnation of which supervisor this is.
    pub fn reference(&self) -> &Arc<SupervisorRef> {
        &self.reference
    }

    /// Starts a child and adds it as the last one (`supervisor:start_child/2`).
    ///
    /// # Errors
    /// [`AlreadyStarted`](ControlError::AlreadyStarted), [`AlreadyPresent`](ControlError::AlreadyPresent),
    /// [`MaxChildren`](ControlError::MaxChildren), [`Spec`](ControlError::Spec),
    /// [`StartFailed`](ControlError::StartFailed), [`NotRunning`](ControlError::NotRunning); nothing is kept of the child.
    pub async fn start_child(&self, spec: ChildSpec) -> Result<Started, ControlError> {
        self.request(|reply| Request::StartChild(spec, reply)).await
    }

    /// Stops a child as its spec says and keeps it stopped; its spec stays, unless it is temporary or dynamic
    /// (`supervisor:terminate_child/2`). No error if it does not run; a pending restart is cancelled.
    ///
    /// # Errors
    /// [`NotFound`](ControlError::NotFound), [`Dynamic`](ControlError::Dynamic) for an id under a dynamic supervisor,
    /// [`NotRunning`](ControlError::NotRunning).
    pub async fn terminate_child(&self, child: impl Into<ChildSelector>) -> Result<(), ControlError> {
        self.request(|reply| Request::TerminateChild(child.into(), reply)).await
    }

    /// Starts a child that does not run (`supervisor:restart_child/2`). Never counted in the intensity window. See
    /// [`restart`](Self::restart) for a verb that works whatever the child does.
    ///
    /// # Errors
    /// [`Running`](ControlError::Running), [`Restarting`](ControlError::Restarting),
    /// [`NotFound`](ControlError::NotFound), [`Dynamic`](ControlError::Dynamic),
    /// [`StartFailed`](ControlError::StartFailed) (the child stays stopped), [`NotRunning`](ControlError::NotRunning).
    pub async fn restart_child(&self, child: impl Into<ChildSelector>) -> Result<Started, ControlError> {
        self.request(|reply| Request::RestartChild(child.into(), reply)).await
    }

    /// Starts a child anew, whatever it does: one that runs is stopped first, one that waits for its restart is started
    /// now, one that is stopped or failed is started. Siblings are left alone, whatever the strategy. Counted as requested,
    /// and not in the intensity window.
    ///
    /// # Errors
    /// [`NotFound`](ControlError::NotFound), [`Dynamic`](ControlError::Dynamic),
    /// [`StartFailed`](ControlError::StartFailed): with [`StartErrorPolicy::Retry`](crate::supervisor::StartErrorPolicy) it
    /// is tried again, else it stays down; [`NotRunning`](ControlError::NotRunning).
    pub async fn restart(&self, child: impl Into<ChildSelector>) -> Result<Started, ControlError> {
        self.request(|reply| Request::Start(child.into(), true, reply)).await
    }

    /// As [`restart`](Self::restart), but a child that runs or is being started is left alone.
    ///
    /// # Errors
    /// As [`restart`](Self::restart).
    pub async fn start(&self, child: impl Into<ChildSelector>) -> Result<Started, ControlError> {
        self.request(|reply| Request::Start(child.into(), false, reply)).await
    }

    /// Deletes the spec of a child that does not run (`supervisor:delete_child/2`).
    ///
    /// # Errors
    /// [`Running`](ControlError::Running), [`Restarting`](ControlError::Restarting),
    /// [`NotFound`](ControlError::NotFound), [`Dynamic`](ControlError::Dynamic),
    /// [`NotRunning`](ControlError::NotRunning).
    pub async fn delete_child(&self, child: impl Into<ChildSelector>) -> Result<(), ControlError> {
        self.request(|reply| Request::DeleteChild(child.into(), reply)).await
    }

    /// The spec of a child (`supervisor:get_childspec/2`).
    ///
    /// # Errors
    /// [`NotFound`](ControlError::NotFound), [`NotRunning`](ControlError::NotRunning).
    pub async fn get_childspec(&self, child: impl Into<ChildSelector>) -> Result<ChildSpec, ControlError> {
        self.request(|reply| Request::GetChildspec(child.into(), reply)).await
    }

    /// All children, the last started first, as in OTP (`supervisor:which_children/1`).
    ///
    /// # Errors
    /// [`NotRunning`](ControlError::NotRunning).
    pub async fn which_children(&self) -> Result<Vec<ChildInfo>, ControlError> {
        self.request(Request::WhichChildren).await
    }

    /// Counts the children (`supervisor:count_children/1`).
    ///
    /// # Errors
    /// [`NotRunning`](ControlError::NotRunning).
    pub async fn count_children(&self) -> Result<ChildCount, ControlError> {
        self.request(Request::CountChildren).await
    }

    /// Stops all children in reverse order, ends the supervisor, and returns when it has ended (`supervisor:stop/1`).
    /// A permanent one under a parent is restarted by it.
    pub async fn shutdown(&self) -> SupervisorExit {
        self.stop.by_handle();
        self.wait().await
    }

    /// Returns when the supervisor has ended, with the reason.
    pub async fn wait(&self) -> SupervisorExit {
        let mut exit = self.exit.clone();
        let ended = exit.wait_for(Option::is_some).await.ok().and_then(|exit| exit.clone());
        // The sender is dropped unsent only with the runtime.
        ended.unwrap_or(SupervisorExit::Shutdown)
    }

    /// Tells the supervisor to stop, and does not wait.
    pub(super) fn abandon(&self) {
        self.stop.by_parent();
    }

    /// How the supervisor ended; none if it has not.
    pub(crate) fn exit(&self) -> Option<SupervisorExit> {
        self.exit.borrow().clone()
    }

    /// Has the supervisor ended?
    pub fn is_ended(&self) -> bool {
        self.exit.borrow().is_some() || self.exit.has_changed().is_err()
    }

    pub(super) fn new(
        reference: Arc<SupervisorRef>,
        requests: mpsc::Sender<Request>,
        stop: StopOrder,
        exit: watch::Receiver<Option<SupervisorExit>>,
        progress: watch::Receiver<Progress>,
    ) -> Self {
        Self { reference, requests, stop, exit, progress }
    }

    /// Follows its start.
    pub(crate) fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.clone()
    }

    /// Sends a request, and returns when it stands in the line; the answer comes later.
    pub(super) async fn send<T>(
        &self,
        request: impl FnOnce(Reply<T>) -> Request,
    ) -> Result<oneshot::Receiver<Result<T, ControlError>>, ControlError> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(request(reply)).await.map_err(|_| ControlError::NotRunning)?;
        Ok(answer)
    }

    pub(super) async fn request<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, ControlError> {
        self.send(request).await?.await.map_err(|_| ControlError::NotRunning)?
    }
}

// === impl StopOrder ===

impl StopOrder {
    pub(super) fn new(notice: Notice) -> Self {
        Self { notice, by_handle: Arc::default() }
    }

    pub(super) fn by_parent(&self) {
        self.notice.give();
    }

    fn by_handle(&self) {
        // Only the first order counts, as only the first exit signal does.
        if !self.notice.is_given() {
            self.by_handle.store(true, Ordering::Release);
        }
        self.notice.give();
    }

    /// How a supervisor that was ordered to stop ends.
    pub(super) fn exit(&self) -> SupervisorExit {
        if self.by_handle.load(Ordering::Acquire) { SupervisorExit::Normal } else { SupervisorExit::Shutdown }
    }
}

// === impl ChildSelector ===

impl From<&str> for ChildSelector {
    fn from(id: &str) -> Self {
        ChildSelector::Id(id.into())
    }
}

impl From<Arc<str>> for ChildSelector {
    fn from(id: Arc<str>) -> Self {
        ChildSelector::Id(id)
    }
}

impl From<Pid> for ChildSelector {
    fn from(pid: Pid) -> Self {
        ChildSelector::Pid(pid)
    }
}
