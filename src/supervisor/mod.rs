//! An OTP supervisor for tokio tasks and OS processes, which tells what it does.
//!
//! # The policy on one page
//!
//! **When a child ends by itself** (`supervisor:do_restart/3`):
//!
//! | restart | ended `normal` or `shutdown` | ended otherwise |
//! |---|---|---|
//! | [`Permanent`](Restart::Permanent) | restarted | restarted |
//! | [`Transient`](Restart::Transient) | left, its spec stays | restarted |
//! | [`Temporary`](Restart::Temporary) | forgotten | forgotten |
//!
//! **Whom a restart concerns**: the child alone ([`OneForOne`](Strategy::OneForOne), [`Dynamic`](Strategy::Dynamic)), the
//! child and those started after it ([`RestForOne`](Strategy::RestForOne)), or all ([`OneForAll`](Strategy::OneForAll)).
//! They are stopped in reverse start order, one after the other, and only when all are gone are they started again in
//! start order: two generations never meet. Temporary siblings are stopped and forgotten.
//!
//! **When children start**: in the order of their specs. A child that has to get ready keeps those after it waiting; meanwhile
//! the supervisor answers requests and restarts the children that run. A child that restarts alone keeps nobody waiting.
//!
//! **When a first start fails**, [`StartErrorPolicy`] decides. Under [`Fail`](StartErrorPolicy::Fail), OTP's rule, the start
//! of the supervisor fails. Under [`Retry`](StartErrorPolicy::Retry) it counts as a death: it is charged to the window, and
//! the child is tried again after its backoff. Children before it keep running. Children after it start at once if it has
//! nothing to get ready for, and wait for it otherwise. A start that finds no file descriptor, process or memory waits for
//! them, and has not failed.
//!
//! **When a restart fails**, the attempt counts as a restart, and the next one follows after the requests that came in
//! meanwhile. Under `rest_for_one` it goes on with the child that failed, under `one_for_all` with all.
//!
//! **When restarts are too many**: with more than `max_restarts` within `max_seconds` the supervisor gives up: it stops all
//! children in reverse order and ends; its parent counts one failure and decides by its own strategy. The window is real
//! time in milliseconds. OTP reads a clock of whole seconds, which makes its window up to a second longer;
//! [`Resolution::WholeSeconds`] does the same. Requests through the handle are never counted. With a [`Backoff`] that is long
//! compared to the window the budget may never be used up.
//!
//! **When children are significant**: a significant child that ends and is not restarted ends its supervisor, or the last
//! of them does, as [`AutoShutdown`] says. Ends that a sibling or an operator caused do not.
//!
//! **How a child is stopped**: it is told through its [`StopToken`], and killed if it does not end within its
//! [`Shutdown`] time. Children of a dynamic supervisor stop at the same time, others one by one in reverse.
//!
//! ```
//! use restart_exporter::prelude::*;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let telemetry = Telemetry::new();
//! let workers = Supervisor::new("workers")
//!     .strategy(Strategy::RestForOne)
//!     .child(ChildSpec::task("store", |stop| async move { stop.stopped().await }))
//!     .child(ChildSpec::task("mailer", |stop| async move { stop.stopped().await }).restart(Restart::Transient))
//!     .start(&telemetry)
//!     .await?;
//! assert_eq!(workers.count_children().await?.active, 2);
//! workers.shutdown().await;
//! # Ok(())
//! # }
//! ```

use tokio::sync::oneshot;

use crate::telemetry::Telemetry;

mod backoff;
mod child;
mod decision;
mod difference;
mod ending;
mod error;
mod handle;
mod notice;
mod process;
mod reconfigure;
mod requests;
mod run_loop;
mod runs;
mod settle;
mod spec;
mod starting;
mod starts;
mod strategy;
mod table;

pub use crate::event::{AutoShutdown, ChildType, Restart, Strategy};
pub use crate::intensity::Resolution;
pub use backoff::{Backoff, BackoffError, MAX_BACKOFF};
pub use child::{Info, IntoExit, Ready, StopToken};
pub use error::{ControlError, MAX_ID_BYTES, SpecError, StartError};
pub(crate) use handle::Progress;
pub use handle::{ChildCount, ChildInfo, ChildSelector, ChildState, Started, SupervisorHandle};
pub use process::{
    Credentials, LastOutputLimits, MAX_LINE_BYTES, PassOn, Probing, Program, Readiness, StopSignal, UnknownSignal,
    end_leftovers, flush_output, kill_all_processes, reap_orphans,
};
pub use reconfigure::{Changes, Step, StepAction};
pub(crate) use reconfigure::{GONE, NEW, Starts, Wanted, changed};
pub use spec::{ChildSpec, DYNAMIC_LABEL, Shutdown, StartErrorPolicy, Supervisor, TreeSize};

impl Supervisor {
    /// Starts the supervisor and its children on the current tokio runtime, and returns when all children have started
    /// (`supervisor:start_link/3`). It then runs until it ends or the runtime does; its events go to `telemetry`.
    ///
    /// A caller who stops waiting leaves no half-started tree: the supervisor is told to stop.
    ///
    /// # Errors
    /// [`StartError`]: a broken rule, a failed init, or a child that failed to start. Nothing runs then.
    ///
    /// # Panics
    /// If called outside a tokio runtime.
    pub async fn start(self, telemetry: &Telemetry) -> Result<SupervisorHandle, StartError> {
        let (handle, opened) = self.begin(telemetry, false)?;
        let abandoned = Abandoned::unless_done(&handle);
        opened.await.unwrap_or(Err(StartError::Stopped))?;
        abandoned.done();
        Ok(handle)
    }

    /// Begins to start the supervisor, in a task of its own: returns its handle at once, and what says how the start ended.
    /// With `is_requested` its children count as restarted on request.
    pub(crate) fn begin(
        self,
        telemetry: &Telemetry,
        is_requested: bool,
    ) -> Result<(SupervisorHandle, oneshot::Receiver<Result<(), StartError>>), StartError> {
        let orders = runs::Orders::default();
        let place = run_loop::Place { parent: None, telemetry: telemetry.clone(), orders, is_requested };
        let (mut supervision, handle) = run_loop::open(self, place)?;
        let (answer, opened) = oneshot::channel();
        supervision.opened = Some(answer);
        tokio::spawn(supervision.serve());
        Ok((handle, opened))
    }
}

/// Tells a supervisor to stop if whoever waits for its start goes away.
pub(crate) struct Abandoned<'a>(Option<&'a SupervisorHandle>);

impl<'a> Abandoned<'a> {
    pub(crate) fn unless_done(handle: &'a SupervisorHandle) -> Self {
        Self(Some(handle))
    }

    /// The start is over, however it ended.
    pub(crate) fn done(mut self) {
        self.0 = None;
    }
}

impl Drop for Abandoned<'_> {
    fn drop(&mut self) {
        if let Some(handle) = self.0 {
            handle.abandon();
        }
    }
}
