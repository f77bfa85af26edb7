//! What differs between two specs, and whether a run can go on under the new one. Pure.

use std::sync::Arc;

use crate::event::Strategy;
use crate::supervisor::spec::{ChildSpec, Start, Supervisor};

/// In which keys of the file two specs of a child differ.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Difference {
    /// Those that need a new run.
    pub(super) for_good: Vec<&'static str>,
    /// Those that a run takes over as it is.
    pub(super) in_place: Vec<&'static str>,
}

impl Difference {
    /// Is the child the same, but for what is below it?
    pub(super) fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

impl ChildSpec {
    /// What differs from `new`. What is below a supervisor is for that supervisor to compare.
    pub(super) fn difference(&self, new: &ChildSpec) -> Difference {
        let (mut for_good, mut in_place) = match (&self.start, &new.start) {
            (Start::Task(own), Start::Task(new)) => (differing([("task", !Arc::ptr_eq(own, new))]), Vec::new()),
            (Start::Announced(own), Start::Announced(new)) => {
                (differing([("task", !Arc::ptr_eq(own, new))]), Vec::new())
            }
            (Start::Process(own), Start::Process(new)) => (own.changed_for_good(new), own.changed_in_place(new)),
            (Start::Supervisor(own), Start::Supervisor(new)) => (own.changed_for_good(new), Vec::new()),
            _ => (vec!["type"], Vec::new()),
        };
        for_good.extend(differing([("kind", self.kind != new.kind)]));
        in_place.extend(differing([
            ("restart", self.restart != new.restart),
            ("shutdown", self.shutdown != new.shutdown),
            ("significant", self.significant != new.significant),
            ("backoff", self.backoff != new.backoff),
            ("start_error", self.start_error != new.start_error),
        ]));
        Difference { for_good, in_place }
    }
}

impl Supervisor {
    /// The settings that a running supervisor cannot take over. What an init function will say is not known: it must be the
    /// very same.
    pub(crate) fn changed_for_good(&self, new: &Supervisor) -> Vec<&'static str> {
        let same_init = match (&self.init, &new.init) {
            (None, None) => true,
            (Some(own), Some(new)) => Arc::ptr_eq(own, new),
            _ => false,
        };
        let is_dynamic = |supervisor: &Supervisor| supervisor.strategy == Strategy::Dynamic;
        differing([("init", !same_init), ("strategy", is_dynamic(self) != is_dynamic(new))])
    }

    /// The settings that a running supervisor takes over as it is.
    pub(super) fn changed_in_place(&self, new: &Supervisor) -> Vec<&'static str> {
        differing([
            ("strategy", self.strategy != new.strategy),
            ("max_restarts", self.max_restarts != new.max_restarts),
            ("max_seconds", self.max_seconds != new.max_seconds),
            ("auto_shutdown", self.auto_shutdown != new.auto_shutdown),
            ("max_children", self.max_children != new.max_children),
        ])
    }

    /// Is it the same, down the whole tree?
    pub(crate) fn is_same(&self, other: &Supervisor) -> bool {
        let below = |own: &ChildSpec, other: &ChildSpec| match (&own.start, &other.start) {
            (Start::Supervisor(own), Start::Supervisor(other)) => own.is_same(other),
            _ => true,
        };
        let is_same = |(own, other): (&ChildSpec, &ChildSpec)| {
            own.id == other.id && own.difference(other).is_none() && below(own, other)
        };
        self.changed_for_good(other).is_empty()
            && self.changed_in_place(other).is_empty()
            && self.children.len() == other.children.len()
            && self.children.iter().zip(&other.children).all(is_same)
    }
}

/// The keys that differ.
pub(super) fn differing<const KEYS: usize>(keys: [(&'static str, bool); KEYS]) -> Vec<&'static str> {
    keys.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::supervisor::{Backoff, Program, Readiness, Restart, Shutdown, StopSignal};

    fn of(old: ChildSpec, new: ChildSpec) -> Difference {
        old.difference(&new)
    }

    // Numbers are taken over in place; what the process was started with needs a new one.
    #[test]
    fn only_what_a_process_was_started_with_needs_a_new_process() {
        let program = || Program::new("sleep").args(["1"]);
        let spec = |program: Program| ChildSpec::program("c", program);
        assert!(of(spec(program()), spec(program())).is_none());
        let in_place = [
            (spec(program()).restart(Restart::Transient), "restart"),
            (spec(program()).shutdown(Shutdown::Infinity), "shutdown"),
            (spec(program()).backoff(Backoff::default()), "backoff"),
            (spec(program().ok_exit_codes([3])), "ok_exit_codes"),
            (spec(program().stop_signal(StopSignal::Int)), "stop_signal"),
            (spec(program().keep_stdout(true)), "last_output"),
            (spec(program().readiness(Readiness::StableAfter(Duration::from_secs(1)))), "ready"),
        ];
        for (new, key) in in_place {
            assert_eq!(of(spec(program()), new), Difference { for_good: Vec::new(), in_place: vec![key] });
        }
        let for_good = [
            (spec(Program::new("sleep").args(["2"])), "command"),
            (spec(program().cwd("/tmp")), "cwd"),
            (spec(program().env("A", "b")), "env"),
            (spec(program().umask(0o27)), "umask"),
        ];
        for (new, key) in for_good {
            assert_eq!(of(spec(program()), new), Difference { for_good: vec![key], in_place: Vec::new() });
        }
    }

    // Two tasks are the same only if their spec is a clone.
    #[test]
    fn a_task_is_the_same_only_as_a_clone() {
        let task = || ChildSpec::task("t", |stop| async move { stop.stopped().await });
        let one = task();
        assert!(of(one.clone(), one.clone()).is_none());
        assert_eq!(of(one, task()).for_good, ["task"]);
    }
}
