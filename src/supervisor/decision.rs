//! What becomes of a child that ended. Pure: the table of OTP's `supervisor:do_restart/3`.

use std::time::{Duration, Instant};

use crate::event::{Action, AutoShutdown, Decision, ExitReason, Restart};
use crate::intensity::Intensity;

/// A child that ended, as far as the decision needs to know it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ended<'a> {
    pub(super) restart: Restart,
    pub(super) reason: &'a ExitReason,
    pub(super) significant: bool,
    /// Of the supervisor.
    pub(super) auto_shutdown: AutoShutdown,
    /// Does another significant child run, or wait for its restart?
    pub(super) other_significant: bool,
    /// Does the spec outlive the run? Not under a dynamic supervisor.
    pub(super) is_kept: bool,
    /// How long a restart has to wait.
    pub(super) backoff: Duration,
}

/// Decides about a child that ended by itself, and counts the restart if there is one.
pub(super) fn child_ended(ended: &Ended<'_>, intensity: &mut Intensity, now: Instant) -> Decision {
    let restarts = match ended.restart {
        Restart::Permanent => true,
        Restart::Transient => ended.reason.is_abnormal(),
        Restart::Temporary => false,
    };
    if restarts {
        return restart(intensity, now, ended.backoff);
    }
    let shuts_down = ended.significant
        && match ended.auto_shutdown {
            AutoShutdown::Never => false,
            AutoShutdown::AnySignificant => true,
            AutoShutdown::AllSignificant => !ended.other_significant,
        };
    let action = match (shuts_down, ended.is_kept) {
        (true, _) => Action::AutoShutdown,
        (false, true) => Action::Leave,
        (false, false) => Action::Forget,
    };
    Decision { action, delay: Duration::ZERO, restarts_left: Some(intensity.left(now)) }
}

/// Decides about a child that has to be started again, after its end or after a failed attempt: each is counted, as
/// OTP counts each `try_again_restart`.
pub(super) fn restart(intensity: &mut Intensity, now: Instant, backoff: Duration) -> Decision {
    let (action, delay) =
        if intensity.admit(now) { (Action::Restart, backoff) } else { (Action::GiveUp, Duration::ZERO) };
    Decision { action, delay, restarts_left: Some(intensity.left(now)) }
}

/// Decides about a start that somebody asked for and that failed: it is tried again, and only what the supervisor does by
/// itself is counted.
pub(super) fn requested(intensity: &mut Intensity, now: Instant, backoff: Duration) -> Decision {
    Decision { action: Action::Restart, delay: backoff, restarts_left: Some(intensity.left(now)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::intensity::Resolution;

    fn decide(max_restarts: u32, ended: &Ended<'_>) -> Action {
        let now = crate::telemetry::monotonic_now();
        let mut intensity = Intensity::new(max_restarts, Duration::from_secs(5), Resolution::Milliseconds, now);
        child_ended(ended, &mut intensity, now).action
    }

    const ENDED: Ended<'_> = Ended {
        restart: Restart::Permanent,
        reason: &ExitReason::Normal,
        significant: false,
        auto_shutdown: AutoShutdown::Never,
        other_significant: false,
        is_kept: true,
        backoff: Duration::ZERO,
    };

    // The table in the documentation of `supervisor`, as data.
    #[test]
    fn restart_type_and_reason_decide() {
        let table = [
            (Restart::Permanent, ExitReason::Normal, Action::Restart),
            (Restart::Permanent, ExitReason::Shutdown(None), Action::Restart),
            (Restart::Permanent, ExitReason::Killed, Action::Restart),
            (Restart::Transient, ExitReason::Normal, Action::Leave),
            (Restart::Transient, ExitReason::Shutdown(None), Action::Leave),
            (Restart::Transient, ExitReason::Exit(1), Action::Restart),
            (Restart::Temporary, ExitReason::Normal, Action::Forget),
            (Restart::Temporary, ExitReason::Shutdown(None), Action::Forget),
            (Restart::Temporary, ExitReason::error("boom"), Action::Forget),
        ];
        for (restart, reason, action) in &table {
            let is_kept = *restart != Restart::Temporary;
            assert_eq!(
                decide(1, &Ended { restart: *restart, reason, is_kept, ..ENDED }),
                *action,
                "{restart} {reason}"
            );
        }
    }

    #[test]
    fn a_restart_beyond_the_limit_gives_up() {
        assert_eq!(decide(0, &ENDED), Action::GiveUp);
    }

    // OTP 24: only a significant child that ends for good counts, and with `all_significant` only the last of them.
    #[test]
    fn a_significant_child_that_ends_for_good_shuts_the_supervisor_down() {
        let done = Ended { restart: Restart::Transient, significant: true, ..ENDED };
        let table = [
            (AutoShutdown::Never, false, Action::Leave),
            (AutoShutdown::AnySignificant, true, Action::AutoShutdown),
            (AutoShutdown::AllSignificant, true, Action::Leave),
            (AutoShutdown::AllSignificant, false, Action::AutoShutdown),
        ];
        for (auto_shutdown, other_significant, action) in table {
            assert_eq!(decide(1, &Ended { auto_shutdown, other_significant, ..done }), action, "{auto_shutdown}");
            let plain = Ended { auto_shutdown, other_significant, significant: false, ..done };
            assert_eq!(decide(1, &plain), Action::Leave, "{auto_shutdown}, not significant");
        }
        let crashed = Ended { reason: &ExitReason::Killed, auto_shutdown: AutoShutdown::AnySignificant, ..done };
        assert_eq!(decide(1, &crashed), Action::Restart);
    }
}
