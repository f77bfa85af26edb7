//! How children come up: whose turn it is, what a start says, and what a failed one means.

use std::ops::ControlFlow;
use std::time::Duration;

use crate::event::{Action, Decision, Detail, ExitReason, Payload, Phase, RestartCause, SupervisorExit, Timestamp};
use crate::supervisor::child::{Exit, Info};
use crate::supervisor::decision;
use crate::supervisor::error::{ControlError, StartError};
use crate::supervisor::handle::{Progress, Started};
use crate::supervisor::run_loop::Supervision;
use crate::supervisor::spec::StartErrorPolicy;
use crate::supervisor::starts::{Answer, Known, Outcome, Said, StartId};
use crate::supervisor::table::{Child, Down, Key, Purpose, Run, State, Turn};
use crate::telemetry::{monotonic_now, now};

type Flow = ControlFlow<SupervisorExit>;

impl Supervision {
    /// Starts the children whose turn has come. They stand in line in start order, and each waits until those before it
    /// have left the line: they run, are not wanted any more, or failed and others need not wait for them.
    ///
    /// In the line stand the children of the spec until they have started, the new ones of a reload, and the group that a
    /// strategy restarts. A child that restarts alone does not, so nobody waits for it.
    pub(super) fn advance(&mut self) {
        while let Some(&key) = self.line.first() {
            match self.table.get(key).map(|child| &child.state) {
                Some(State::Down(Down::Waiting(turn), _)) => {
                    let purpose = (*turn).into();
                    self.launch(key, purpose);
                }
                Some(State::Starting(_) | State::Down(Down::Restarting { .. } | Down::Held(_), _)) => break,
                _ => {
                    self.line.pop_first();
                }
            }
        }
        self.tell_waiting();
        self.note_progress();
    }

    /// Starts a child now, whoever stands in line.
    pub(super) fn launch(&mut self, key: Key, purpose: Purpose) {
        let Some(child) = self.table.get(key) else { return };
        let begin = monotonic_now();
        let (run, start) = self.runs.start(&child.spec, begin);
        let Some(start) = start else {
            self.started(key, now(), run, purpose, Some(Duration::ZERO), None);
            return;
        };
        let (waits_for, limit) = child.spec.awaits().unzip();
        let phase = Phase::Starting { waits_for: waits_for.map(Into::into), limit: limit.flatten() };
        self.table.starting(key, run, start, purpose);
        self.emit_child(now(), key, |child| Payload::ChildPhase { child, child_pid: None, phase });
    }

    /// Says once of each child in the line that it waits.
    fn tell_waiting(&mut self) {
        if !std::mem::take(&mut self.untold) {
            return;
        }
        for key in &self.line {
            if let Some(Down::Waiting(_)) = self.table.get(*key).and_then(Child::down) {
                self.emit_child(now(), *key, |child| Payload::ChildPhase {
                    child,
                    child_pid: None,
                    phase: Phase::Waiting,
                });
            }
        }
    }

    /// Tells those who wait for the start of this supervisor how far it has come.
    fn note_progress(&mut self) {
        let first = self.line.first().and_then(|key| self.table.get(*key));
        let progress = match first.map(|child| &child.state) {
            _ if self.has_started() => return,
            None => Progress::Started,
            Some(State::Starting(starting)) if !starting.is_stalled => Progress::Starting,
            Some(_) => Progress::Stalled,
        };
        self.progress.send_if_modified(|was| std::mem::replace(was, progress) != progress);
        if progress == Progress::Started
            && let Some(opened) = self.opened.take()
        {
            drop(opened.send(Ok(())));
        }
    }

    // === What a start says ===

    pub(super) async fn child_said(&mut self, start: StartId, said: Said) -> Flow {
        let Some(key) = self.table.by_start(start) else { return ControlFlow::Continue(()) };
        match said {
            Said::Known(known) => {
                let Some(starting) = self.table.get_mut(key).and_then(Child::starting) else {
                    return ControlFlow::Continue(());
                };
                match known {
                    Known::Pid(pid) => starting.run.pid = pid,
                    Known::Supervisor(handle) => {
                        starting.run.pid = handle.reference().id;
                        starting.run.supervisor = Some(Box::new(handle));
                    }
                    Known::Stalled(is_stalled) => {
                        starting.is_stalled = is_stalled;
                        // A start that has to wait for a child is none that failed: the answer does not wait for it.
                        if is_stalled && matches!(starting.purpose, Purpose::Requested(_)) {
                            let purpose = Purpose::Alone(RestartCause::Requested);
                            let started = Started { pid: Some(starting.run.pid), info: None };
                            std::mem::replace(&mut starting.purpose, purpose).reply(Ok(started));
                        }
                    }
                }
                self.note_progress();
                ControlFlow::Continue(())
            }
            Said::Answer(answer) => {
                if !matches!(answer.outcome, Outcome::Running) {
                    self.discard(key).await;
                }
                self.answered(key, answer)
            }
            Said::Dropped => {
                let exit = self.discard(key).await;
                // It may just have ended, and says better why.
                let reason = match exit.reason {
                    ExitReason::Killed => ExitReason::error("dropped before it was ready"),
                    reason if reason.is_abnormal() => reason,
                    _ => ExitReason::error("ended before it was ready"),
                };
                self.not_started(key, Exit { reason, ..exit })
            }
        }
    }

    /// The start of a child has ended as it says; one that is not to run has ended before.
    pub(super) fn answered(&mut self, key: Key, answer: Answer) -> Flow {
        match answer.outcome {
            Outcome::Running => self.announce(key, answer),
            Outcome::Ignored => self.ignored(key),
            Outcome::AlreadyStarted(pid) => {
                let error = ControlError::AlreadyStarted(pid);
                return self.failed_start(key, ExitReason::error(&error).into(), Some(error));
            }
        }
        self.advance();
        ControlFlow::Continue(())
    }

    /// The end of a run whose start is given up.
    async fn discard(&mut self, key: Key) -> Exit {
        match self.table.get(key).and_then(Child::any_run) {
            Some(run) => self.runs.discard(run).await,
            None => ExitReason::Killed.into(),
        }
    }

    /// Notes that a child which was being started runs.
    pub(super) fn announce(&mut self, key: Key, answer: Answer) {
        let time = now();
        let Some(starting) = self.table.start_ended(key, Down::Stopped) else { return };
        let (begin, mut run) = (starting.run.since, starting.run);
        run.since = time.monotonic;
        self.started(key, time, run, starting.purpose, Some(time.monotonic - begin), answer.info);
    }

    fn started(
        &mut self,
        key: Key,
        time: Timestamp,
        run: Run,
        purpose: Purpose,
        duration: Option<Duration>,
        info: Option<Info>,
    ) {
        let last = self.table.get(key).and_then(Child::last);
        let pid = Some(run.pid);
        self.table.started(key, run);
        let cause = match &purpose {
            Purpose::First if self.is_requested && !self.has_started() => Some(RestartCause::Requested),
            Purpose::First | Purpose::Added(_) => None,
            Purpose::Again(cause) | Purpose::Alone(cause) => Some(*cause),
            Purpose::Revived(_) | Purpose::Requested(_) => Some(RestartCause::Requested),
        };
        self.emit_child(time, key, |child| match cause {
            None => Payload::ChildStart { child, child_pid: pid, duration },
            Some(cause) => Payload::ChildRestart {
                child,
                child_pid: pid,
                previous_pid: last.map(|last| last.pid),
                cause,
                downtime: last.map(|last| time.monotonic - last.ended),
                duration,
            },
        });
        purpose.reply(Ok(Started { pid, info }));
    }

    /// A child chose not to run.
    fn ignored(&mut self, key: Key) {
        let begin = self.table.get_mut(key).and_then(Child::starting).map(|starting| starting.run.since);
        let Some(starting) = self.table.start_ended(key, Down::Done) else { return };
        let (time, kept) = (now(), self.table.get(key).is_some_and(|child| child.reference.is_kept()));
        self.line.remove(&key);
        match starting.purpose {
            Purpose::First | Purpose::Added(_) => {
                let duration = begin.map(|begin| time.monotonic - begin);
                self.emit_child(time, key, |child| Payload::ChildStart { child, child_pid: None, duration });
                if !kept {
                    self.forget(key);
                }
            }
            Purpose::Again(_) | Purpose::Alone(_) => self.settle(key, false),
            Purpose::Revived(_) | Purpose::Requested(_) => {}
        }
        starting.purpose.reply(Ok(Started { pid: None, info: None }));
    }

    // === A start that failed ===

    /// A child ended, or was ended, before its start had.
    pub(super) fn not_started(&mut self, key: Key, exit: Exit) -> Flow {
        self.failed_start(key, exit, None)
    }

    fn failed_start(&mut self, key: Key, exit: Exit, error: Option<ControlError>) -> Flow {
        let Some(starting) = self.table.start_ended(key, Down::Failed) else { return ControlFlow::Continue(()) };
        let time = now();
        let duration = Some(time.monotonic - starting.run.since);
        let reason = exit.reason.clone();
        let error = error.unwrap_or_else(|| ControlError::StartFailed(reason.clone()));
        let Some(child) = self.table.get_mut(key) else { return ControlFlow::Continue(()) };
        child.attempts = child.attempts.saturating_add(1);
        child.start_error = Some(reason.clone());
        let retries = child.spec.start_error == StartErrorPolicy::Retry;
        // Tried again: for whose sake, and whether alone.
        let (cause, alone, reply) = match starting.purpose {
            Purpose::Again(cause) => (cause, false, None),
            Purpose::Alone(cause) => (cause, true, None),
            Purpose::First if retries => (RestartCause::Failure, true, None),
            Purpose::Requested(reply) if retries => (RestartCause::Requested, true, Some(reply)),
            purpose => {
                self.emit_start_error(time, key, exit, duration, None);
                self.line.remove(&key);
                return self.stays_down(key, purpose, reason, error);
            }
        };
        let backoff = self.table.get_mut(key).map_or(Duration::ZERO, |child| child.fail(None));
        let (decision, cause) = match cause {
            // Somebody asked for one start. The next ones are the supervisor's own.
            RestartCause::Requested => {
                (decision::requested(&mut self.intensity, time.monotonic, backoff), RestartCause::Failure)
            }
            cause => (decision::restart(&mut self.intensity, time.monotonic, backoff), cause),
        };
        self.emit_start_error(time, key, exit, duration, Some(decision));
        if let Some(reply) = reply {
            drop(reply.send(Err(error)));
        }
        if decision.action == Action::GiveUp {
            return ControlFlow::Break(self.max_intensity(key, &reason));
        }
        self.wait_for_restart(key, cause, decision.delay, alone);
        if alone && !self.table.get(key).is_some_and(|child| child.spec.has_ready()) {
            self.line.remove(&key);
        }
        self.advance();
        ControlFlow::Continue(())
    }

    /// What becomes of a child whose start failed, and which nobody tries again.
    fn stays_down(&mut self, key: Key, purpose: Purpose, reason: ExitReason, error: ControlError) -> Flow {
        match purpose {
            Purpose::First if !self.has_started() => {
                let child = self.table.remove(key).map(|child| child.spec.id).unwrap_or_default();
                let error = StartError::Child { child, reason };
                let exit = SupervisorExit::Error(Detail::new(&error.to_string()));
                self.start_error = Some(error);
                return ControlFlow::Break(exit);
            }
            Purpose::Added(reply) => {
                self.table.remove(key);
                drop(reply.send(Err(error)));
            }
            purpose => purpose.reply(Err(error)),
        }
        self.advance();
        ControlFlow::Continue(())
    }

    /// Have all children had their turn once?
    pub(super) fn has_started(&self) -> bool {
        *self.progress.borrow() == Progress::Started
    }

    fn emit_start_error(
        &self,
        time: Timestamp,
        key: Key,
        exit: Exit,
        duration: Option<Duration>,
        decision: Option<Decision>,
    ) {
        let attempt = self.table.get(key).map_or(1, |child| child.attempts);
        self.emit_child(time, key, |child| Payload::ChildStartError {
            child,
            reason: exit.reason,
            attempt,
            duration,
            decision,
            last_output: exit.last_output,
        });
    }
}

// === impl Purpose ===

impl Purpose {
    /// Answers who waits for this start, if anybody does.
    pub(super) fn reply(self, answer: Result<Started, ControlError>) {
        let reply = match self {
            Purpose::First | Purpose::Again(_) | Purpose::Alone(_) => return,
            Purpose::Added(reply) | Purpose::Revived(reply) | Purpose::Requested(reply) => reply,
        };
        drop(reply.send(answer));
    }
}

impl From<Turn> for Purpose {
    fn from(turn: Turn) -> Self {
        match turn {
            Turn::First => Purpose::First,
            Turn::Again(cause) => Purpose::Again(cause),
            Turn::Alone(cause) => Purpose::Alone(cause),
        }
    }
}
