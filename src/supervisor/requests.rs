//! What is asked of a running supervisor, answered with OTP's words.

use std::ops::ControlFlow;

use crate::event::{Action, ExitReason, RestartCause, Strategy, SupervisorExit};
use crate::supervisor::error::ControlError;
use crate::supervisor::handle::{ChildSelector, Request, Started};
use crate::supervisor::run_loop::Supervision;
use crate::supervisor::runs::StartOutcome;
use crate::supervisor::spec::ChildSpec;
use crate::supervisor::table::{Child, Down, Key};
use crate::telemetry::{monotonic_now, now};

impl Supervision {
    pub(super) async fn answer(&mut self, request: Request) -> ControlFlow<SupervisorExit> {
        // A caller who does not wait for the answer any more still has the request carried out, as with OTP's calls.
        match request {
            Request::StartChild(spec, reply) => drop(reply.send(self.start_child(spec).await)),
            Request::TerminateChild(child, reply) => drop(reply.send(self.terminate_child(&child).await)),
            Request::RestartChild(child, reply) => drop(reply.send(self.restart_child(&child).await)),
            Request::DeleteChild(child, reply) => drop(reply.send(self.delete_child(&child))),
            Request::GetChildspec(child, reply) => {
                let child = self.table.find(&child).and_then(|key| self.table.get(key));
                let spec = child.map(|child| child.spec.clone()).ok_or(ControlError::NotFound);
                drop(reply.send(spec));
            }
            Request::WhichChildren(reply) => {
                drop(reply.send(Ok(self.table.iter().rev().map(|(_, child)| child.info()).collect())));
            }
            Request::Reconfigure(children, reply) => drop(reply.send(self.reconfigure(children).await?)),
            Request::CountChildren(reply) => drop(reply.send(Ok(self.table.count()))),
        }
        ControlFlow::Continue(())
    }

    async fn start_child(&mut self, spec: ChildSpec) -> Result<Started, ControlError> {
        spec.check(self.spec.auto_shutdown)?;
        if self.spec.strategy == Strategy::Dynamic {
            if let Some(max_children) = self.spec.max_children.filter(|max| self.table.len() >= *max) {
                return Err(ControlError::MaxChildren(max_children));
            }
        } else if let Some(key) = self.table.find(&ChildSelector::Id(spec.id.clone())) {
            let run = self.table.get(key).and_then(Child::run);
            return Err(run.map_or(ControlError::AlreadyPresent, |run| ControlError::AlreadyStarted(run.pid)));
        }
        self.start_new(spec).await
    }

    async fn terminate_child(&mut self, selector: &ChildSelector) -> Result<(), ControlError> {
        let key = self.select(selector)?;
        let Some(child) = self.table.get(key) else { return Err(ControlError::NotFound) };
        let (kept, running) = (child.reference.is_kept(), child.run().is_some());
        let restarting = matches!(child.down(), Some(Down::Restarting { .. }));
        if running {
            self.stop(key, if kept { Action::Leave } else { Action::Forget }).await;
            if !kept {
                self.table.remove(key);
            }
        } else if restarting {
            self.settle(key, false);
            // What waited for this child in a group restart is not started any more either.
            let waiting = self.table.iter().filter(|(_, child)| matches!(child.down(), Some(Down::Waiting)));
            for key in waiting.map(|(key, _)| key).collect::<Vec<_>>() {
                self.settle(key, false);
            }
        }
        Ok(())
    }

    async fn restart_child(&mut self, selector: &ChildSelector) -> Result<Started, ControlError> {
        let key = self.select_stopped(selector)?;
        let Some(child) = self.table.get(key) else { return Err(ControlError::NotFound) };
        let begin = monotonic_now();
        let outcome = self.runs.start(&child.spec, begin).await;
        let time = now();
        let duration = Some(time.monotonic - begin);
        let exit = match outcome {
            StartOutcome::Running(run, info) => {
                let pid = Some(run.pid);
                self.restarted(time, key, run, RestartCause::Requested, duration);
                return Ok(Started { pid, info });
            }
            StartOutcome::Ignored => return Ok(Started { pid: None, info: None }),
            StartOutcome::Interrupted => return Err(ControlError::NotRunning),
            StartOutcome::AlreadyStarted(pid) => {
                let error = ControlError::AlreadyStarted(pid);
                self.start_failed(time, key, ExitReason::error(&error).into(), duration, None);
                return Err(error);
            }
            StartOutcome::Failed(exit) => exit,
        };
        let reason = exit.reason.clone();
        self.start_failed(time, key, exit, duration, None);
        Err(ControlError::StartFailed(reason))
    }

    fn delete_child(&mut self, selector: &ChildSelector) -> Result<(), ControlError> {
        let key = self.select_stopped(selector)?;
        self.settle(key, true);
        Ok(())
    }

    fn select(&self, selector: &ChildSelector) -> Result<Key, ControlError> {
        let by_id = matches!(selector, ChildSelector::Id(_));
        if by_id && self.spec.strategy == Strategy::Dynamic {
            return Err(ControlError::Dynamic);
        }
        self.table.find(selector).ok_or(ControlError::NotFound)
    }

    /// For calls that need a child that does not run, and make no sense for dynamic children.
    fn select_stopped(&self, selector: &ChildSelector) -> Result<Key, ControlError> {
        if self.spec.strategy == Strategy::Dynamic {
            return Err(ControlError::Dynamic);
        }
        let key = self.select(selector)?;
        match self.table.get(key).map(Child::down) {
            Some(None) => Err(ControlError::Running),
            Some(Some(Down::Restarting { .. })) => Err(ControlError::Restarting),
            Some(Some(Down::Stopped | Down::Waiting)) => Ok(key),
            None => Err(ControlError::NotFound),
        }
    }
}
