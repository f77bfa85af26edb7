//! What can be wrong with a spec, and what a supervisor answers.

use std::sync::Arc;

use thiserror::Error;

use crate::event::{Detail, ExitReason, Pid, counted};
use crate::supervisor::backoff::BackoffError;

/// Longest id of a child or name of a supervisor, in bytes: ids are labels and keys.
pub const MAX_ID_BYTES: usize = 128;

/// A rule that a spec breaks (OTP: `supervisor:check_childspecs/2` and `check_flags/1`).
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum SpecError {
    /// An id or name is empty, too long, or has a slash or a control character in it.
    #[error("invalid id {0:?}: 1 to {MAX_ID_BYTES} bytes, no `/` and no control characters")]
    InvalidId(Arc<str>),
    /// Two children have the same id.
    #[error("duplicate child id {0:?}")]
    DuplicateChild(Arc<str>),
    /// `max_seconds` is zero.
    #[error("supervisor {0:?}: max_seconds must be at least 1")]
    InvalidPeriod(Arc<str>),
    /// A significant child under a supervisor whose `auto_shutdown` is `never`.
    #[error("child {0:?} is significant, but its supervisor's auto_shutdown is never")]
    SignificantNever(Arc<str>),
    /// A significant child that is permanent: it never ends for good.
    #[error("child {0:?} is significant: restart must be transient or temporary, not permanent")]
    SignificantPermanent(Arc<str>),
    /// A dynamic supervisor with `auto_shutdown`.
    #[error("supervisor {0:?}: strategy dynamic allows only auto_shutdown never")]
    DynamicAutoShutdown(Arc<str>),
    /// A dynamic supervisor with children in its spec.
    #[error("supervisor {0:?}: strategy dynamic starts empty; add children with start_child")]
    DynamicChildren(Arc<str>),
    /// `max_children` under a strategy other than dynamic.
    #[error("supervisor {0:?}: max_children needs strategy dynamic")]
    MaxChildren(Arc<str>),
    /// A backoff out of range.
    #[error("child {0:?}: {1}")]
    Backoff(Arc<str>, BackoffError),
    /// A process without a program.
    #[error("child {0:?}: the command is empty")]
    EmptyCommand(Arc<str>),
}

/// Why a supervisor did not start.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum StartError {
    /// Its spec breaks a rule.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// A child failed to start; those started before it were stopped in reverse order
    /// (`{shutdown, {failed_to_start_child, Id, Reason}}`).
    #[error("failed to start child {child:?}: {reason}")]
    Child {
        /// The child's id.
        child: Arc<str>,
        /// Why it failed.
        reason: ExitReason,
    },
    /// The init function failed or panicked.
    #[error("init failed: {0}")]
    Init(ExitReason),
    /// The init function said that this supervisor is not wanted (`ignore`).
    #[error("ignored: the init function wants no supervisor")]
    Ignored,
    /// Its children failed so often, before all had started, that it gave up.
    #[error("gave up while starting: {0}")]
    GaveUp(Detail),
    /// It was told to stop while it started.
    #[error("told to stop while starting")]
    Stopped,
}

/// What a running supervisor answers when it does not do as asked; the words are OTP's.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ControlError {
    /// No child has this id or pid.
    #[error("not_found: no such child")]
    NotFound,
    /// The child runs.
    #[error("running: the child runs")]
    Running,
    /// The child is being started.
    #[error("starting: the child is being started")]
    Starting,
    /// The child was stopped before it was ready.
    #[error("interrupted: the child was stopped before it was ready")]
    Interrupted,
    /// The child waits for its restart.
    #[error("restarting: the child waits for its restart")]
    Restarting,
    /// A child with this id runs already, or the started one says that it runs elsewhere.
    #[error("already_started: the child runs as {0}")]
    AlreadyStarted(Pid),
    /// A child with this id exists, but does not run.
    #[error("already_present: a child with this id exists; restart or delete it")]
    AlreadyPresent,
    /// The dynamic supervisor is full.
    #[error("max_children: the supervisor has its {}", counted(*.0, "child", "children"))]
    MaxChildren(usize),
    /// The call makes no sense under this strategy: dynamic children have pids, others have ids
    /// (`simple_one_for_one`).
    #[error("dynamic: not possible under strategy dynamic")]
    Dynamic,
    /// The child did not start, and nothing is kept of it unless it was there before.
    #[error("start_error: {0}")]
    StartFailed(ExitReason),
    /// The spec breaks a rule.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// The supervisor has ended, or ends before it came to this request (`noproc`).
    #[error("noproc: the supervisor does not run")]
    NotRunning,
}
