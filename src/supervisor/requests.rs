//! What is asked of a running supervisor, answered with OTP's words.

use std::ops::ControlFlow;

use crate::event::{Action, Strategy, SupervisorExit};
use crate::supervisor::error::ControlError;
use crate::supervisor::handle::{ChildSelector, Reply, Request, Started};
use crate::supervisor::run_loop::Supervision;
use crate::supervisor::spec::ChildSpec;
use crate::supervisor::table::{Child, Down, Key, Purpose, State, Turn};

impl Supervision {
    pub(super) async fn answer(&mut self, request: Request) -> ControlFlow<SupervisorExit> {
        // A caller who does not wait for the answer any more still has the request carried out, as with OTP's calls.
        match request {
            Request::StartChild(spec, reply) => self.start_child(spec, reply),
            Request::TerminateChild(child, reply) => drop(reply.send(self.terminate_child(&child).await)),
            Request::RestartChild(child, reply) => match self.select_stopped(&child) {
                Ok(key) => self.launch(key, Purpose::Revived(reply)),
                Err(error) => drop(reply.send(Err(error))),
            },
            Request::Start(child, anew, reply) => self.bring_up(&child, anew, reply).await,
            Request::DeleteChild(child, reply) => drop(reply.send(self.delete_child(&child))),
            Request::GetChildspec(child, reply) => {
                let child = self.table.find(&child).and_then(|key| self.table.get(key));
                let spec = child.map(|child| child.spec.clone()).ok_or(ControlError::NotFound);
                drop(reply.send(spec));
            }
            Request::WhichChildren(reply) => {
                drop(reply.send(Ok(self.table.iter().rev().map(|(_, child)| child.info()).collect())));
            }
            Request::CountChildren(reply) => drop(reply.send(Ok(self.table.count()))),
            Request::Plan(wanted, reply) => drop(reply.send(self.plan(&wanted))),
            Request::Hold(wanted, reply) => drop(reply.send(self.hold(&wanted).await)),
            Request::Adopt(wanted, reply) => drop(reply.send(self.adopt(wanted).await)),
            Request::Settle(reply) => {
                let all = self.table.specs().map(|spec| spec.id.clone()).collect();
                self.watch(all, move |settled| drop(reply.send(Ok(settled))));
            }
        }
        self.advance();
        ControlFlow::Continue(())
    }

    fn start_child(&mut self, spec: ChildSpec, reply: Reply<Started>) {
        match self.check_new(&spec) {
            Err(error) => drop(reply.send(Err(error))),
            Ok(()) => {
                self.done.remove(&spec.id);
                let reference = spec.reference(self.spec.strategy);
                let key = self.table.insert(spec, reference);
                self.launch(key, Purpose::Added(reply));
            }
        }
    }

    /// May a child with this spec be added?
    fn check_new(&self, spec: &ChildSpec) -> Result<(), ControlError> {
        spec.check(self.spec.auto_shutdown)?;
        if self.spec.strategy == Strategy::Dynamic {
            if let Some(max_children) = self.spec.max_children.filter(|max| self.table.len() >= *max) {
                return Err(ControlError::MaxChildren(max_children));
            }
        } else if let Some(key) = self.table.find(&ChildSelector::Id(spec.id.clone())) {
            let run = self.table.get(key).filter(|child| !child.is_restarting()).and_then(Child::any_run);
            return Err(run.map_or(ControlError::AlreadyPresent, |run| ControlError::AlreadyStarted(run.pid)));
        }
        Ok(())
    }

    async fn terminate_child(&mut self, selector: &ChildSelector) -> Result<(), ControlError> {
        let key = self.select(selector)?;
        let Some(child) = self.table.get(key) else { return Err(ControlError::NotFound) };
        let (kept, was_restarting) = (child.reference.is_kept(), child.is_restarting());
        self.line.remove(&key);
        match child.down() {
            None => match self.stop(key, if kept { Action::Leave } else { Action::Forget }).await {
                Some(purpose) => {
                    self.settle(key, false);
                    purpose.reply(Err(ControlError::Interrupted));
                }
                None if !kept => self.forget(key),
                None => {}
            },
            Some(Down::Restarting { .. } | Down::Waiting(_) | Down::Held(_) | Down::Failed) => self.settle(key, false),
            Some(Down::Stopped | Down::Done) => {}
        }
        if was_restarting {
            // What waited for this child in a group restart is not started any more either.
            let waits = |child: &Child| matches!(child.down(), Some(Down::Waiting(Turn::Again(_))));
            let waiting = self.table.iter().filter(|(_, child)| waits(child));
            for key in waiting.map(|(key, _)| key).collect::<Vec<_>>() {
                self.settle(key, false);
            }
        }
        Ok(())
    }

    /// An operator wants a child up; with `anew` even one that is up is stopped first.
    async fn bring_up(&mut self, selector: &ChildSelector, anew: bool, reply: Reply<Started>) {
        let key = match self.select(selector) {
            Ok(key) => key,
            Err(error) => match selector {
                ChildSelector::Id(id) if self.done.contains_key(id) => {
                    let Some(spec) = self.done.remove(id) else { return };
                    let reference = spec.reference(self.spec.strategy);
                    let key = self.table.insert(spec, reference);
                    if let Some(child) = self.table.get_mut(key) {
                        child.is_configured = true;
                    }
                    key
                }
                _ => return drop(reply.send(Err(error))),
            },
        };
        let Some(child) = self.table.get_mut(key) else { return };
        // Whoever asks for it has done something about what it failed of.
        child.failures = 0;
        match &child.state {
            _ if child.reference.dynamic => return drop(reply.send(Err(ControlError::Dynamic))),
            State::Running(run) if !anew => return drop(reply.send(Ok(Started { pid: Some(run.pid), info: None }))),
            State::Starting(starting) if !anew => {
                return drop(reply.send(Ok(Started { pid: Some(starting.run.pid), info: None })));
            }
            State::Running(_) | State::Starting(_) => {
                if let Some(purpose) = self.stop(key, Action::Restart).await {
                    purpose.reply(Err(ControlError::Interrupted));
                }
            }
            State::Down(..) => {}
        }
        self.launch(key, Purpose::Requested(reply));
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
        let Some(child) = self.table.get(key) else { return Err(ControlError::NotFound) };
        match &child.state {
            _ if child.is_restarting() => Err(ControlError::Restarting),
            State::Running(_) => Err(ControlError::Running),
            State::Starting(_) => Err(ControlError::Starting),
            State::Down(..) => Ok(key),
        }
    }
}
