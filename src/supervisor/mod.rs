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
//! **When a restart fails**, the attempt counts as a restart, and the next one follows after the requests that came in
//! meanwhile. Under `rest_for_one` it goes on with the child that failed, under `one_for_all` with all.
//!
//! **When restarts are too many**: with more than `max_restarts` within `max_seconds` the supervisor gives up: it stops all
//! children in reverse order and ends; its parent counts one failure and decides by its own strategy. The window is real
//! time in milliseconds. OTP reads a clock of whole seconds, which makes its window up to a second longer;
//! [`Resolution::WholeSeconds`] does the same. Requests through the handle are never counted.
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

use std::pin::pin;

use tokio::sync::oneshot;

use crate::telemetry::Telemetry;

mod backoff;
mod child;
mod decision;
mod ending;
mod error;
mod handle;
mod notice;
mod process;
mod reconfigure;
mod requests;
mod run_loop;
mod runs;
mod spec;
mod strategy;
mod table;

pub use crate::event::{AutoShutdown, ChildType, Restart, Strategy};
pub use crate::intensity::Resolution;
pub use backoff::{Backoff, BackoffError, MAX_BACKOFF};
pub use child::{Info, IntoExit, Ready, StopToken};
pub use error::{ControlError, MAX_ID_BYTES, SpecError, StartError};
pub use handle::{ChildCount, ChildInfo, ChildSelector, ChildState, Started, SupervisorHandle};
pub use process::{
    Credentials, LastOutputLimits, MAX_LINE_BYTES, PassOn, Probing, Program, Readiness, StopSignal, UnknownSignal,
    end_leftovers, flush_output, kill_all_processes, reap_orphans,
};
pub use reconfigure::Changes;
pub use spec::{ChildSpec, DYNAMIC_LABEL, Shutdown, Supervisor};

impl Supervisor {
    /// Starts the supervisor and its children on the current tokio runtime, and returns when all children have started
    /// (`supervisor:start_link/3`). It then runs until it ends or the runtime does; its events go to `telemetry`.
    ///
    /// # Errors
    /// [`StartError`]: a broken rule, a failed init, or a child that failed to start. Nothing runs then.
    ///
    /// # Panics
    /// If called outside a tokio runtime.
    pub async fn start(self, telemetry: &Telemetry) -> Result<SupervisorHandle, StartError> {
        self.start_marked(telemetry, ()).await
    }

    /// As [`start`](Self::start). The mark is dropped when the start is over: all children run, or all that had started
    /// are stopped, also for a caller who did not wait for it.
    pub(crate) async fn start_marked(
        self,
        telemetry: &Telemetry,
        mark: impl Send + 'static,
    ) -> Result<SupervisorHandle, StartError> {
        let place = run_loop::Place { parent: None, telemetry: telemetry.clone(), orders: runs::Orders::default() };
        let stop = place.orders.stop.clone();
        let (mut answer, opened) = oneshot::channel();
        // In a task of its own from the first moment, so that a caller who stops waiting leaves no half-started tree.
        tokio::spawn(async move {
            let mut open = pin!(run_loop::open(self, place));
            let opened = tokio::select! {
                biased;
                opened = &mut open => opened,
                () = answer.closed() => {
                    stop.by_parent();
                    open.await
                }
            };
            match opened {
                Ok((supervision, handle)) => {
                    let abandoned = answer.send(Ok(handle)).is_err();
                    let mark = Some(mark).filter(|_| abandoned);
                    if abandoned {
                        stop.by_parent();
                    }
                    supervision.serve().await;
                    drop(mark);
                }
                Err(error) => {
                    drop(mark);
                    drop(answer.send(Err(error)));
                }
            }
        });
        opened.await.unwrap_or(Err(StartError::Stopped))
    }
}
