//! What to supervise: [`Supervisor`] and [`ChildSpec`], with OTP's names and Elixir's defaults.

use std::collections::HashSet;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use crate::event::{AutoShutdown, ChildRef, ChildType, ExitReason, Restart, Strategy};
use crate::intensity::Resolution;
use crate::supervisor::backoff::Backoff;
use crate::supervisor::child::{self, AnnouncedFn, IntoExit, Ready, StopToken, TaskFn};
use crate::supervisor::error::{MAX_ID_BYTES, SpecError};
use crate::supervisor::process::{Program, Readiness};

/// The label of dynamic children whose spec names no [`kind`](ChildSpec::kind).
pub const DYNAMIC_LABEL: &str = "_dynamic";

/// How long a child may take to stop when it is told to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// It is not told: it is killed.
    BrutalKill,
    /// It is told, and killed after this time.
    Timeout(Duration),
    /// It is told, and may take as long as it needs. OTP's advice for supervisors.
    Infinity,
}

/// What happens when a child of the spec cannot be started for the first time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StartErrorPolicy {
    /// Its supervisor cannot start either, as in OTP.
    #[default]
    Fail,
    /// It counts as a death: charged to the budget, and tried again after the backoff. Children before it keep running;
    /// children after it wait only for one that has to get ready.
    Retry,
}

/// One child: how it starts, when it is restarted, how it stops.
///
/// Defaults are OTP's: permanent, not significant, shutdown after 5 s (a supervisor: infinity), restarted at once. An OS
/// process is restarted after [`Backoff::OF_PROCESSES`].
#[derive(Clone)]
#[non_exhaustive]
pub struct ChildSpec {
    /// Unique among siblings, unless the supervisor is dynamic.
    pub id: Arc<str>,
    /// When it is restarted.
    pub restart: Restart,
    /// How long it may take to stop.
    pub shutdown: Shutdown,
    /// Does its end for good concern the supervisor's `auto_shutdown`?
    pub significant: bool,
    /// A worker or a supervisor.
    pub child_type: ChildType,
    /// How long it waits before it is restarted; not at all without it, as in OTP. Boxed, because most children have none.
    pub backoff: Option<Box<Backoff>>,
    /// What happens when it cannot be started for the first time.
    pub start_error: StartErrorPolicy,
    /// The `child` label if the supervisor is dynamic.
    pub kind: Option<Arc<str>>,
    pub(super) start: Start,
}

/// How a child starts.
#[derive(Clone)]
pub(super) enum Start {
    /// A task; its start ends when it is spawned.
    Task(Arc<dyn TaskFn>),
    /// A task whose start ends when it says so.
    Announced(Arc<dyn AnnouncedFn>),
    /// A process; its start ends when the program runs.
    Process(Arc<Program>),
    /// A supervisor; its start ends when all its children have started.
    Supervisor(Box<Supervisor>),
}

/// A supervisor to be started: strategy, intensity and children. Cheap to clone.
///
/// Defaults are Elixir's: `one_for_one`, 3 restarts in 5 seconds, no auto_shutdown.
#[derive(Clone)]
pub struct Supervisor {
    pub(super) name: Arc<str>,
    pub(super) strategy: Strategy,
    pub(super) max_restarts: u32,
    pub(super) max_seconds: u32,
    pub(super) resolution: Resolution,
    pub(super) auto_shutdown: AutoShutdown,
    pub(super) max_children: Option<usize>,
    pub(super) children: Vec<ChildSpec>,
    pub(super) init: Option<Arc<InitFn>>,
}

/// How large a tree of supervisors is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TreeSize {
    /// Supervisors, nested ones included.
    pub supervisors: usize,
    /// Children that are not supervisors.
    pub children: usize,
}

pub(super) type InitFn = dyn Fn() -> Result<Option<Supervisor>, ExitReason> + Send + Sync;

// === impl ChildSpec ===

impl ChildSpec {
    /// A tokio task. It gets a token that says when to stop, and ends by returning `()`, a `Result` or an
    /// [`ExitReason`], by a panic, or by being aborted. Its start ends when it is spawned.
    ///
    /// A task that never yields cannot be aborted, and its supervisor waits for it without limit (as OTP waits for a
    /// killed process).
    pub fn task<F, Fut>(id: impl Into<Arc<str>>, run: F) -> Self
    where
        F: Fn(StopToken) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: IntoExit> + Send + 'static,
    {
        Self::new(id, ChildType::Worker, Start::Task(Arc::new(run)))
    }

    /// A tokio task whose start ends when it says so through [`Ready`], as `proc_lib:init_ack` ends a `start_link`: its
    /// supervisor starts the next child only then. If it ends before, its start has failed.
    pub fn ready_task<F, Fut>(id: impl Into<Arc<str>>, run: F) -> Self
    where
        F: Fn(StopToken, Ready) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: IntoExit> + Send + 'static,
    {
        Self::new(id, ChildType::Worker, Start::Announced(Arc::new(run)))
    }

    /// An OS process: a program and its arguments, no shell.
    pub fn process<A>(id: impl Into<Arc<str>>, program: impl Into<String>, args: A) -> Self
    where
        A: IntoIterator<Item: Into<String>>,
    {
        Self::program(id, Program::new(program).args(args))
    }

    /// An OS process with a working directory, environment or stop signal of its own.
    pub fn program(id: impl Into<Arc<str>>, program: Program) -> Self {
        Self::new(id, ChildType::Worker, Start::Process(Arc::new(program))).backoff(Backoff::OF_PROCESSES)
    }

    /// A supervisor below this one. Its id is its name, and its full name is the parent's, a slash, and its own.
    pub fn supervisor(supervisor: Supervisor) -> Self {
        let id = supervisor.name.clone();
        Self::new(id, ChildType::Supervisor, Start::Supervisor(Box::new(supervisor))).shutdown(Shutdown::Infinity)
    }

    /// When the child is restarted.
    pub fn restart(mut self, restart: Restart) -> Self {
        self.restart = restart;
        self
    }

    /// How long the child may take to stop.
    pub fn shutdown(mut self, shutdown: Shutdown) -> Self {
        self.shutdown = shutdown;
        self
    }

    /// Whether the child's end for good concerns the supervisor's `auto_shutdown`.
    pub fn significant(mut self, significant: bool) -> Self {
        self.significant = significant;
        self
    }

    /// How long the child waits before it is restarted after a failure; `None` for not at all. What its strategy stops along
    /// with it waits too.
    pub fn backoff(mut self, backoff: impl Into<Option<Backoff>>) -> Self {
        self.backoff = backoff.into().map(Box::new);
        self
    }

    /// What happens when the child cannot be started for the first time.
    pub fn start_error(mut self, policy: StartErrorPolicy) -> Self {
        self.start_error = policy;
        self
    }

    /// What a dynamic child is, for the `child` label; without it the label is [`DYNAMIC_LABEL`].
    pub fn kind(mut self, kind: impl Into<Arc<str>>) -> Self {
        self.kind = Some(kind.into());
        self
    }

    fn new(id: impl Into<Arc<str>>, child_type: ChildType, start: Start) -> Self {
        Self {
            id: id.into(),
            restart: Restart::Permanent,
            shutdown: Shutdown::Timeout(Duration::from_secs(5)),
            significant: false,
            child_type,
            backoff: None,
            start_error: StartErrorPolicy::Fail,
            kind: None,
            start,
        }
    }

    /// What its start waits for, in words, and the longest time that may take.
    pub(super) fn awaits(&self) -> Option<(String, Option<Duration>)> {
        match &self.start {
            Start::Task(_) => None,
            Start::Announced(_) => Some(("its task to say that it is ready".into(), None)),
            Start::Process(program) => program.readiness_of().awaits().map(|(what, limit)| (what, Some(limit))),
            Start::Supervisor(_) => Some(("its children".into(), None)),
        }
    }

    /// Does it say, or is it found out, when it is ready? Then those behind it wait for that.
    pub(super) fn has_ready(&self) -> bool {
        match &self.start {
            Start::Task(_) | Start::Supervisor(_) => false,
            Start::Announced(_) => true,
            Start::Process(program) => *program.readiness_of() != Readiness::None,
        }
    }

    /// The child as events name it.
    pub(super) fn reference(&self, strategy: Strategy) -> ChildRef {
        let dynamic = strategy == Strategy::Dynamic;
        let label = match &self.kind {
            _ if !dynamic => self.id.clone(),
            Some(kind) => kind.clone(),
            None => DYNAMIC_LABEL.into(),
        };
        ChildRef { id: self.id.clone(), label, child_type: self.child_type, restart: Some(self.restart), dynamic }
    }

    /// Checks the rules of OTP's `check_childspecs` that the types leave open.
    pub(super) fn check(&self, auto_shutdown: AutoShutdown) -> Result<(), SpecError> {
        check_id(&self.id)?;
        if let Some(kind) = &self.kind {
            check_id(kind)?;
        }
        if self.significant && auto_shutdown == AutoShutdown::Never {
            return Err(SpecError::SignificantNever(self.id.clone()));
        }
        if self.significant && self.restart == Restart::Permanent {
            return Err(SpecError::SignificantPermanent(self.id.clone()));
        }
        if let Some(Err(error)) = self.backoff.as_ref().map(|backoff| backoff.check()) {
            return Err(SpecError::Backoff(self.id.clone(), error));
        }
        match &self.start {
            Start::Supervisor(supervisor) => supervisor.check(),
            Start::Process(program) if program.program.is_empty() => Err(SpecError::EmptyCommand(self.id.clone())),
            Start::Process(_) | Start::Task(_) | Start::Announced(_) => Ok(()),
        }
    }
}

impl Shutdown {
    /// The longest time from the order to the kill; none if there is no limit.
    pub(super) fn limit(self) -> Option<Duration> {
        match self {
            Shutdown::BrutalKill => Some(Duration::ZERO),
            Shutdown::Timeout(limit) => Some(limit),
            Shutdown::Infinity => None,
        }
    }
}

impl fmt::Debug for ChildSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the start: a command line may hold secrets.
        f.debug_struct("ChildSpec")
            .field("id", &self.id)
            .field("restart", &self.restart)
            .field("shutdown", &self.shutdown)
            .field("significant", &self.significant)
            .field("child_type", &self.child_type)
            .field("backoff", &self.backoff)
            .field("start_error", &self.start_error)
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

// === impl Supervisor ===

impl Supervisor {
    /// A supervisor with this name. A name is a label and a key: it should stay the same over restarts of the program.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self {
            name: name.into(),
            strategy: Strategy::OneForOne,
            max_restarts: 3,
            max_seconds: 5,
            resolution: Resolution::default(),
            auto_shutdown: AutoShutdown::Never,
            max_children: None,
            children: Vec::new(),
            init: None,
        }
    }

    /// A supervisor whose strategy and children are worked out at each of its starts, as OTP calls `Module:init/1` at each
    /// start and restart. `None` is OTP's `ignore`; the name that the returned supervisor has is not used.
    pub fn from_fn<E: fmt::Display>(
        name: impl Into<Arc<str>>,
        init: impl Fn() -> Result<Option<Supervisor>, E> + Send + Sync + 'static,
    ) -> Self {
        let init = move || init().map_err(ExitReason::error);
        Self { init: Some(Arc::new(init)), ..Self::new(name) }
    }

    /// How the failure of one child concerns its siblings.
    pub fn strategy(mut self, strategy: Strategy) -> Self {
        self.strategy = strategy;
        self
    }

    /// Restarts allowed within [`max_seconds`](Self::max_seconds); with one more the supervisor gives up. 0 allows none.
    pub fn max_restarts(mut self, max_restarts: u32) -> Self {
        self.max_restarts = max_restarts;
        self
    }

    /// Length of the intensity window in seconds, at least 1.
    pub fn max_seconds(mut self, max_seconds: u32) -> Self {
        self.max_seconds = max_seconds;
        self
    }

    /// How finely the intensity window measures time; by default in milliseconds, where OTP rounds to whole seconds.
    pub fn resolution(mut self, resolution: Resolution) -> Self {
        self.resolution = resolution;
        self
    }

    /// Whether the supervisor ends when its significant children have.
    pub fn auto_shutdown(mut self, auto_shutdown: AutoShutdown) -> Self {
        self.auto_shutdown = auto_shutdown;
        self
    }

    /// Most children of a dynamic supervisor; unlimited without it.
    pub fn max_children(mut self, max_children: usize) -> Self {
        self.max_children = Some(max_children);
        self
    }

    /// Adds a child. Children start in the order in which they are added, and stop in reverse.
    pub fn child(mut self, child: ChildSpec) -> Self {
        self.children.push(child);
        self
    }

    /// The name, without those of the supervisors above.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The full names of this supervisor and of those below it, as far as they are known before they start.
    pub(crate) fn full_names(&self, above: Option<&str>) -> Vec<Arc<str>> {
        let name: Arc<str> = above.map_or_else(|| self.name.clone(), |above| format!("{above}/{}", self.name).into());
        let below = self.children.iter().filter_map(|child| match &child.start {
            Start::Supervisor(below) => Some(below.full_names(Some(&name))),
            Start::Task(_) | Start::Announced(_) | Start::Process(_) => None,
        });
        let below: Vec<_> = below.flatten().collect();
        [name].into_iter().chain(below).collect()
    }

    /// How many supervisors and children the tree has, this supervisor included. The children of a dynamic supervisor and
    /// of one [from a function](Self::from_fn) are not known before they start.
    pub fn size(&self) -> TreeSize {
        let below = self.children.iter().map(|child| match &child.start {
            Start::Supervisor(supervisor) => supervisor.size(),
            Start::Task(_) | Start::Announced(_) | Start::Process(_) => TreeSize { supervisors: 0, children: 1 },
        });
        below.chain([TreeSize { supervisors: 1, children: 0 }]).sum()
    }

    /// Checks the rules of OTP's `check_flags` and `check_childspecs` that the types leave open, down the whole tree.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn check(&self) -> Result<(), SpecError> {
        check_id(&self.name)?;
        let name = || self.name.clone();
        if self.max_seconds == 0 {
            return Err(SpecError::InvalidPeriod(name()));
        }
        let dynamic = self.strategy == Strategy::Dynamic;
        if dynamic && self.auto_shutdown != AutoShutdown::Never {
            return Err(SpecError::DynamicAutoShutdown(name()));
        }
        if dynamic && !self.children.is_empty() {
            return Err(SpecError::DynamicChildren(name()));
        }
        if !dynamic && self.max_children.is_some() {
            return Err(SpecError::MaxChildren(name()));
        }
        let mut ids = HashSet::new();
        for child in &self.children {
            child.check(self.auto_shutdown)?;
            if !ids.insert(&child.id) {
                return Err(SpecError::DuplicateChild(child.id.clone()));
            }
        }
        Ok(())
    }

    /// The full names of those supervisors in it that can never give up: their children wait so long between restarts that
    /// the window never holds one too many. `above` is the full name of the supervisor above, if there is one.
    pub fn never_give_up(&self, above: Option<&str>) -> Vec<String> {
        let name = above.map_or_else(|| self.name.to_string(), |above| format!("{above}/{}", self.name));
        let below = self.children.iter().filter_map(|child| match &child.start {
            Start::Supervisor(below) => Some(below.never_give_up(Some(&name))),
            Start::Task(_) | Start::Announced(_) | Start::Process(_) => None,
        });
        let mut names: Vec<String> = below.flatten().collect();
        let window = Duration::from_secs(self.max_seconds.into());
        let can = self.strategy == Strategy::Dynamic || self.children.is_empty();
        if !can && !budget_can_run_out(self.max_restarts, window, self.children.iter()) {
            names.insert(0, name);
        }
        names
    }

    /// The spec to start now: this one, or what the init function says.
    pub(super) fn initialised(&self) -> Result<Option<Supervisor>, ExitReason> {
        let Some(init) = &self.init else { return Ok(Some(self.clone())) };
        let spec = child::catch(|| init()).unwrap_or_else(Err)?;
        Ok(spec.map(|spec| Supervisor { name: self.name.clone(), ..spec }))
    }
}

impl std::iter::Sum for TreeSize {
    fn sum<I: Iterator<Item = Self>>(sizes: I) -> Self {
        sizes.fold(Self::default(), |sum, size| Self {
            supervisors: sum.supervisors + size.supervisors,
            children: sum.children + size.children,
        })
    }
}

impl fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Supervisor")
            .field("name", &self.name)
            .field("strategy", &self.strategy)
            .field("max_restarts", &self.max_restarts)
            .field("max_seconds", &self.max_seconds)
            .field("auto_shutdown", &self.auto_shutdown)
            .field("max_children", &self.max_children)
            .field("children", &self.children)
            .finish_non_exhaustive()
    }
}

/// Can these children fail so often within the window that one restart is too many?
pub(super) fn budget_can_run_out<'a>(
    max_restarts: u32,
    window: Duration,
    children: impl Iterator<Item = &'a ChildSpec>,
) -> bool {
    let mut failures: Option<u32> = None;
    for child in children.filter(|child| child.restart != Restart::Temporary) {
        let Some(backoff) = &child.backoff else { return true };
        let more = backoff.most_failures(window, max_restarts);
        let all = failures.map_or(more, |failures| failures.saturating_add(more));
        if all > max_restarts {
            return true;
        }
        failures = Some(all);
    }
    // Without anything to restart there is no backoff that would be the reason.
    failures.is_none()
}

fn check_id(id: &Arc<str>) -> Result<(), SpecError> {
    let fits = (1..=MAX_ID_BYTES).contains(&id.len());
    if fits && !id.contains(|c: char| c == '/' || c.is_control()) {
        return Ok(());
    }
    let end = id.floor_char_boundary(MAX_ID_BYTES);
    Err(SpecError::InvalidId(id[..end].into()))
}
