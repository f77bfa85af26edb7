//! One report after the other, by its kind.

use std::sync::Arc;
use std::time::Duration;

use super::text::since;
use super::{Awaited, Emit, Moment, Round, SETTLE, Watched, ending};
use crate::beam::message::{Child, Event, Flag};
use crate::event::{
    Action, Aggregated, ChildRef, ExitReason, Payload, Pid, ReasonClass, Restart, RestartCause, Timestamp,
};

impl Watched {
    pub(super) fn started(
        &mut self,
        child: &Child<'_>,
        pid: Option<Pid>,
        flag: Flag,
        moment: Moment,
        at: Timestamp,
        emit: &mut Emit<'_>,
    ) {
        if self.config.is_dynamic {
            let start = Payload::ChildStart { child: self.child_ref(child), child_pid: pid, duration: None };
            return emit(&self.reference, at, start);
        }
        let is_round_open = self.is_round_open(moment.node_us);
        let round = self.round.number;
        let (child, cause, previous_pid, downtime) = self.with_fixed(child, |fixed| {
            let was_expected = fixed.expected > 0;
            let cause = if was_expected && flag != Flag::Api {
                fixed.expected -= 1;
                Some(RestartCause::Failure)
            } else if is_round_open && fixed.round != round && flag == Flag::None {
                Some(RestartCause::Sibling)
            } else {
                // Whoever asked for it made the supervisor's own attempt void.
                fixed.expected = fixed.expected.min(0);
                fixed.has_run.then_some(RestartCause::Requested)
            };
            let downtime = fixed.died_us.take().filter(|_| was_expected).map(|died| since(died, moment.node_us));
            let previous_pid = fixed.last;
            (fixed.run, fixed.has_run, fixed.last) = (Some((pid, moment.node_us)), true, pid);
            (fixed.attempts, fixed.round) = (0, round);
            (fixed.child.clone(), cause, previous_pid, downtime)
        });
        if matches!(cause, Some(RestartCause::Failure | RestartCause::Sibling)) {
            self.round.last_us = moment.node_us;
        }
        let payload = match cause {
            Some(cause) => {
                Payload::ChildRestart { child, child_pid: pid, previous_pid, cause, downtime, duration: None }
            }
            None => Payload::ChildStart { child, child_pid: pid, duration: None },
        };
        emit(&self.reference, at, payload);
    }

    pub(super) fn terminated(&mut self, event: &Event<'_>, moment: Moment, at: Timestamp, emit: &mut Emit<'_>) {
        let reason = self.share.reason(&event.reason);
        let is_restarted = self.config.restarts && event.child.restart != Some(Restart::Temporary);
        let decision = if is_restarted { self.decide(at.monotonic) } else { ending(Action::Forget) };
        let (child, lifetime) = if self.config.is_dynamic {
            let child = self.child_ref(&event.child);
            if is_restarted {
                self.await_restart(Awaited::new(child.clone(), event.pid, 0, moment.heard + SETTLE), at, emit);
            }
            (child, None)
        } else {
            self.died(event, is_restarted, moment)
        };
        if is_restarted {
            self.last_failure = Some((child.clone(), reason.clone()));
        }
        let payload = Payload::ChildTerminate {
            child,
            child_pid: event.pid,
            reason,
            shutdown: false,
            lifetime,
            decision,
            last_output: None,
            usage: None,
        };
        emit(&self.reference, at, payload);
    }

    /// A static child died.
    fn died(&mut self, event: &Event<'_>, is_restarted: bool, moment: Moment) -> (Arc<ChildRef>, Option<Duration>) {
        if is_restarted {
            self.round = Round { number: self.round.number + 1, last_us: moment.node_us };
        }
        let round = self.round.number;
        let (child, lifetime) = self.with_fixed(&event.child, |fixed| {
            let lifetime = fixed.lifetime(event.pid, moment.node_us);
            if is_restarted {
                (fixed.has_run, fixed.last, fixed.round) = (true, event.pid, round);
                fixed.expected += 1;
                fixed.died_us = (fixed.expected > 0).then_some(moment.node_us);
            }
            (fixed.child.clone(), lifetime)
        });
        // OTP keeps no spec of a temporary child, and there may be many that come and go.
        if event.child.restart == Some(Restart::Temporary) {
            self.fixed.remove(&*child.id);
        }
        (child, lifetime)
    }

    pub(super) fn start_error(&mut self, event: &Event<'_>, moment: Moment, at: Timestamp, emit: &mut Emit<'_>) {
        let reason = self.share.reason(&event.reason);
        // A supervisor that cannot start a child when it starts itself does not try again.
        let is_retried = event.flag != Flag::Init;
        let decision = is_retried.then(|| self.decide(at.monotonic));
        let (child, attempt) = if self.config.is_dynamic {
            let child = self.child_ref(&event.child);
            let place = self.awaited.iter().position(|awaited| awaited.pid == event.pid);
            let attempts = place.map_or(0, |place| self.awaited.remove(place).attempts).saturating_add(1);
            if is_retried {
                self.await_restart(Awaited::new(child.clone(), event.pid, attempts, moment.heard + SETTLE), at, emit);
            }
            (child, attempts)
        } else {
            if is_retried {
                self.round = Round { number: self.round.number + 1, last_us: moment.node_us };
            }
            let round = self.round.number;
            self.with_fixed(&event.child, |fixed| {
                fixed.attempts = fixed.attempts.saturating_add(1);
                fixed.round = round;
                // Its death may have been counted only, or have happened before anybody looked.
                if is_retried && fixed.expected == 0 {
                    fixed.expected = 1;
                }
                (fixed.child.clone(), fixed.attempts)
            })
        };
        if is_retried {
            self.last_failure = Some((child.clone(), reason.clone()));
        }
        let payload = Payload::ChildStartError { child, reason, attempt, duration: None, decision, last_output: None };
        emit(&self.reference, at, payload);
    }

    /// A child did not stop as it was told to.
    pub(super) fn stopped(&mut self, event: &Event<'_>, moment: Moment, at: Timestamp, emit: &mut Emit<'_>) {
        let class = match event.reason.class {
            // Whoever is killed when he was asked to stop was late; OTP does not tell the two apart.
            ReasonClass::Killed if !event.child.is_killed => ReasonClass::Timeout,
            class => class,
        };
        if event.count > 1 {
            let of = Aggregated::Terminated { class, shutdown: true, restart: event.child.restart };
            let child = Some(self.child_ref(&event.child));
            return emit(&self.reference, at, Payload::ChildAggregate { child, of, count: event.count });
        }
        let (child, lifetime) = if self.config.is_dynamic {
            (self.child_ref(&event.child), None)
        } else {
            self.with_fixed(&event.child, |fixed| (fixed.child.clone(), fixed.lifetime(event.pid, moment.node_us)))
        };
        let reason = if class == ReasonClass::Timeout { ExitReason::Timeout } else { self.share.reason(&event.reason) };
        let payload = Payload::ChildTerminate {
            child,
            child_pid: event.pid,
            reason,
            shutdown: true,
            lifetime,
            decision: ending(Action::Leave),
            last_output: None,
            usage: None,
        };
        emit(&self.reference, at, payload);
    }
}
