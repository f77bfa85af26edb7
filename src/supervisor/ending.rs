//! How a supervisor ends: its children first, one by one in reverse, or all at once if they are independent.

use std::collections::{BTreeMap, HashSet};

use tokio::time::{Instant, sleep_until};

use crate::event::{Action, Decision, Detail, ExitReason, Payload, Strategy, SupervisorExit, Timestamp};
use crate::supervisor::error::StartError;
use crate::supervisor::run_loop::Supervision;
use crate::supervisor::runs::{QUIET_STOP, Stopped, say_killed, say_waiting, until};
use crate::supervisor::spec::Shutdown;
use crate::supervisor::table::{Down, Key, Run};
use crate::telemetry::monotonic_now;

impl Supervision {
    /// Stops all children and says good-bye.
    pub(super) async fn end(&mut self, exit: SupervisorExit) -> SupervisorExit {
        self.requests.close();
        if self.spec.strategy == Strategy::Dynamic {
            self.stop_at_once().await;
        } else {
            for key in self.table.keys(..).into_iter().rev() {
                drop(self.stop(key, Action::Leave).await);
            }
        }
        // Killed at once, or because the end took too long: either way it is no end in good order.
        let exit = if self.orders.kill.is_given() { killed() } else { exit };
        self.emit(Payload::SupervisorTerminate { reason: exit.clone(), lifetime: Some(monotonic_now() - self.since) });
        if let Some(opened) = self.opened.take() {
            let error = match (self.start_error.take(), &exit) {
                (Some(error), _) => error,
                (None, SupervisorExit::MaxIntensity(detail)) => StartError::GaveUp(detail.clone()),
                (None, _) => StartError::Stopped,
            };
            drop(opened.send(Err(error)));
        }
        self.exit.send_replace(Some(exit.clone()));
        exit
    }

    /// Stops all children of a dynamic supervisor at the same time, each within its own.
    async fn stop_at_once(&mut self) {
        for key in self.table.keys(..) {
            self.close_start(key);
        }
        for (task, exit) in self.runs.ended() {
            if let Some(key) = self.table.by_task(task)
                && self.table.start_ended(key, Down::Stopped).is_none()
            {
                self.stopped(key, &Stopped { exit, ordered: false }, Action::Forget);
            }
        }
        let start = Instant::now();
        let mut deadlines: BTreeMap<Instant, Vec<Key>> = BTreeMap::new();
        let mut left: HashSet<Key> = HashSet::new();
        for (key, child) in self.table.iter() {
            let Some(run) = child.any_run() else { continue };
            left.insert(key);
            self.emit_stopping(key, child.spec.shutdown.limit());
            match child.spec.shutdown {
                Shutdown::BrutalKill => run.kill(),
                Shutdown::Infinity => run.stop.give(),
                Shutdown::Timeout(timeout) => {
                    run.stop.give();
                    if let Some(deadline) = start.checked_add(timeout) {
                        deadlines.entry(deadline).or_default().push(key);
                    }
                }
            }
        }
        let (mut killed, mut is_quiet) = (false, true);
        while !left.is_empty() {
            let deadline = deadlines.first_key_value().map(|(deadline, _)| *deadline);
            let overdue: Vec<Key> = tokio::select! {
                (task, exit) = self.runs.next_exit() => {
                    if let Some(key) = self.table.by_task(task).filter(|key| left.remove(key)) {
                        let shutdown = self.table.get(key).map_or(Shutdown::Infinity, |child| child.spec.shutdown);
                        let stopped = Stopped { exit: self.runs.late(exit, shutdown), ordered: true };
                        // Of one that was being started nobody was told that it ran.
                        if self.table.start_ended(key, Down::Stopped).is_none() {
                            self.stopped(key, &stopped, Action::Forget);
                        }
                    }
                    continue;
                }
                () = until(deadline) => deadlines.pop_first().map_or_else(Vec::new, |(_, keys)| keys),
                () = self.orders.kill.given(), if !killed => {
                    killed = true;
                    left.iter().copied().collect()
                }
                () = sleep_until(start + QUIET_STOP), if is_quiet => {
                    is_quiet = false;
                    let child = left.iter().min().and_then(|key| self.table.get(*key));
                    say_waiting(&self.me.name, child.map_or("", |child| &child.reference.id), deadline);
                    continue;
                }
            };
            for child in overdue.iter().filter_map(|key| self.table.get(*key)) {
                let Some(run) = child.any_run() else { continue };
                if let (Shutdown::Timeout(limit), false) = (child.spec.shutdown, killed) {
                    say_killed(&self.me.name, &child.reference.id, limit);
                }
                run.kill();
            }
        }
    }

    /// Says that a run has ended, and what becomes of its child.
    pub(super) fn emit_terminate(&self, time: Timestamp, key: Key, run: &Run, stopped: &Stopped, decision: Decision) {
        self.emit_child(time, key, |child| Payload::ChildTerminate {
            child,
            child_pid: Some(run.pid),
            reason: stopped.exit.reason.clone(),
            shutdown: stopped.ordered,
            lifetime: Some(time.monotonic - run.since),
            decision,
            last_output: stopped.exit.last_output.clone(),
            usage: stopped.exit.usage,
        });
    }
}

impl Drop for Supervision {
    /// Without a regular end (the runtime shuts down around it) the children are aborted with it: say so, lest the last
    /// word about them stays that they run.
    fn drop(&mut self) {
        if self.exit.borrow().is_some() {
            return;
        }
        let stopped = Stopped { exit: ExitReason::Killed.into(), ordered: true };
        for key in self.table.keys(..).into_iter().rev() {
            self.stopped(key, &stopped, Action::Leave);
        }
        let reason = killed();
        self.emit(Payload::SupervisorTerminate {
            reason: reason.clone(),
            lifetime: Some(monotonic_now() - self.since),
        });
        self.exit.send_replace(Some(reason));
    }
}

fn killed() -> SupervisorExit {
    SupervisorExit::Error(Detail::new("killed"))
}
