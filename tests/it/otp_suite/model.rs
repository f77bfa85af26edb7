//! Random operations and exits against a model of OTP's rules for one_for_one: which children there are and run, how
//! often the supervisor restarted, and whether it gave up.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use restart_exporter::event::ExitReason;
use restart_exporter::supervisor::{ControlError, Restart, Supervisor, SupervisorHandle};
use tokio::time::advance;

use crate::support::{Kid, Log, children, supervise};

const CHILDREN: usize = 3;

/// What can be done to a supervisor and its children, by number.
#[derive(Clone, Debug)]
enum Step {
    /// The child ends by itself.
    Exit {
        child: usize,
        abnormal: bool,
    },
    /// Its next starts fail.
    FailStarts {
        child: usize,
        starts: usize,
    },
    Start {
        child: usize,
        restart: Restart,
    },
    Terminate {
        child: usize,
    },
    Restart {
        child: usize,
    },
    Delete {
        child: usize,
    },
    /// Time passes.
    Wait {
        ms: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let child = 0..CHILDREN;
    let restart = prop::sample::select(Restart::ALL);
    prop_oneof![
        6 => (child.clone(), any::<bool>()).prop_map(|(child, abnormal)| Step::Exit { child, abnormal }),
        2 => (child.clone(), 0..3_usize).prop_map(|(child, starts)| Step::FailStarts { child, starts }),
        4 => (child.clone(), restart).prop_map(|(child, restart)| Step::Start { child, restart }),
        2 => child.clone().prop_map(|child| Step::Terminate { child }),
        2 => child.clone().prop_map(|child| Step::Restart { child }),
        1 => child.prop_map(|child| Step::Delete { child }),
        3 => (0..3_000_u64).prop_map(|ms| Step::Wait { ms }),
    ]
}

/// An answer, as far as the model says it.
#[derive(Debug, PartialEq)]
enum Answer {
    Ok,
    NotFound,
    Running,
    AlreadyStarted,
    AlreadyPresent,
    StartFailed,
    NotRunning,
}

impl<T> From<Result<T, ControlError>> for Answer {
    fn from(answer: Result<T, ControlError>) -> Self {
        match answer {
            Ok(_) => Answer::Ok,
            Err(ControlError::NotFound) => Answer::NotFound,
            Err(ControlError::Running) => Answer::Running,
            Err(ControlError::AlreadyStarted(_)) => Answer::AlreadyStarted,
            Err(ControlError::AlreadyPresent) => Answer::AlreadyPresent,
            Err(ControlError::StartFailed(_)) => Answer::StartFailed,
            Err(ControlError::NotRunning) => Answer::NotRunning,
            Err(error) => panic!("{error} is none of the model's answers"),
        }
    }
}

// === The model ===

/// OTP's rules, without time of its own, tasks or channels.
struct Model {
    max_restarts: usize,
    window: u64,
    /// Milliseconds since the start.
    now: u64,
    restarts: Vec<u64>,
    restarted: usize,
    gave_up: bool,
    /// Whether it runs and its restart type, by number in the order of the starts.
    children: Vec<(usize, bool, Restart)>,
    failing: BTreeMap<usize, usize>,
}

impl Model {
    fn new(max_restarts: usize, max_seconds: u64) -> Self {
        Self {
            max_restarts,
            window: max_seconds * 1000,
            now: 0,
            restarts: Vec::new(),
            restarted: 0,
            gave_up: false,
            children: Vec::new(),
            failing: BTreeMap::new(),
        }
    }

    fn find(&self, child: usize) -> Option<usize> {
        self.children.iter().position(|(other, ..)| *other == child)
    }

    fn runs(&self, child: usize) -> bool {
        self.find(child).is_some_and(|index| self.children[index].1)
    }

    /// Does a start succeed?
    fn try_start(&mut self, child: usize) -> bool {
        let failing = self.failing.entry(child).or_default();
        let succeeds = *failing == 0;
        *failing = failing.saturating_sub(1);
        succeeds
    }

    /// supervisor:add_restart/1. False if the supervisor gives up.
    fn add_restart(&mut self) -> bool {
        self.restarts.retain(|restart| self.now - restart <= self.window);
        self.restarts.push(self.now);
        self.gave_up = self.restarts.len() > self.max_restarts;
        !self.gave_up
    }

    /// supervisor:do_restart/3 of a running child.
    fn exit(&mut self, child: usize, abnormal: bool) {
        let Some(index) = self.find(child) else { return };
        let (_, runs, restart) = &mut self.children[index];
        *runs = false;
        match restart {
            Restart::Temporary => drop(self.children.remove(index)),
            Restart::Transient if !abnormal => {}
            Restart::Transient | Restart::Permanent => {
                while self.add_restart() {
                    if self.try_start(child) {
                        self.restarted += 1;
                        self.children[index].1 = true;
                        break;
                    }
                }
            }
        }
    }

    fn start(&mut self, child: usize, restart: Restart) -> Answer {
        match self.find(child) {
            Some(index) if self.children[index].1 => Answer::AlreadyStarted,
            Some(_) => Answer::AlreadyPresent,
            None if self.try_start(child) => {
                self.children.push((child, true, restart));
                Answer::Ok
            }
            None => Answer::StartFailed,
        }
    }

    fn terminate(&mut self, child: usize) -> Answer {
        let Some(index) = self.find(child) else { return Answer::NotFound };
        self.children[index].1 = false;
        if self.children[index].2 == Restart::Temporary {
            self.children.remove(index);
        }
        Answer::Ok
    }

    fn restart(&mut self, child: usize) -> Answer {
        let Some(index) = self.find(child) else { return Answer::NotFound };
        if self.children[index].1 {
            return Answer::Running;
        }
        self.children[index].1 = self.try_start(child);
        if self.children[index].1 { Answer::Ok } else { Answer::StartFailed }
    }

    fn delete(&mut self, child: usize) -> Answer {
        match self.find(child) {
            None => Answer::NotFound,
            Some(index) if self.children[index].1 => Answer::Running,
            Some(index) => {
                self.children.remove(index);
                Answer::Ok
            }
        }
    }

    fn shown(&self) -> String {
        let shown = self.children.iter().map(|(child, runs, _)| format!("{child}{}", if *runs { "+" } else { "-" }));
        shown.collect::<Vec<_>>().join(" ")
    }
}

// === The supervisor, driven alike ===

struct Real {
    top: SupervisorHandle,
    log: Log,
    kids: [Kid; CHILDREN],
}

impl Real {
    /// Does the step to both; the answers must be the same.
    async fn step(&self, model: &mut Model, step: &Step) {
        let id = |child: &usize| child.to_string();
        let (answer, expected) = match step {
            Step::Exit { child, abnormal } => {
                // What does not run cannot end.
                if model.runs(*child) {
                    let words = format!("terminate top/{child}");
                    let end = self.log.count(&words) + 1;
                    let reason = if *abnormal { ExitReason::error("crash") } else { ExitReason::Normal };
                    self.kids[*child].exit(reason);
                    self.log.nth(end, &words).await;
                    model.exit(*child, *abnormal);
                }
                return;
            }
            Step::FailStarts { child, starts } => {
                self.kids[*child].fail_starts(*starts);
                model.failing.insert(*child, *starts);
                return;
            }
            Step::Wait { ms } => {
                advance(Duration::from_millis(*ms)).await;
                model.now += ms;
                return;
            }
            Step::Start { child, restart } => {
                let spec = self.kids[*child].spec().restart(*restart);
                (self.top.start_child(spec).await.into(), model.start(*child, *restart))
            }
            Step::Terminate { child } => (self.top.terminate_child(&*id(child)).await.into(), model.terminate(*child)),
            Step::Restart { child } => (self.top.restart_child(&*id(child)).await.into(), model.restart(*child)),
            Step::Delete { child } => (self.top.delete_child(&*id(child)).await.into(), model.delete(*child)),
        };
        let answer: Answer = answer;
        assert_eq!(answer, expected, "{step:?}");
    }

    /// Waits until no restart is pending, and compares.
    async fn check(&self, model: &Model) {
        if model.gave_up {
            self.log.first("end top max_intensity").await;
            assert!(self.kids.iter().all(|kid| kid.live() == 0));
        } else {
            let mut shown = children(&self.top).await;
            while shown.contains('~') {
                shown = children(&self.top).await;
            }
            assert_eq!(shown, model.shown());
            for (child, kid) in self.kids.iter().enumerate() {
                assert_eq!(kid.live(), usize::from(model.runs(child)), "child {child}");
            }
        }
        let restarts = self.log.lines().iter().filter(|line| line.ends_with(" failure")).count();
        assert_eq!(restarts, model.restarted);
        assert!(self.kids.iter().all(|kid| kid.most_live() <= 1));
    }
}

async fn check_steps(max_restarts: usize, max_seconds: u32, steps: &[Step]) {
    let top = Supervisor::new("top").max_restarts(max_restarts as u32).max_seconds(max_seconds);
    let (top, log) = supervise(top).await;
    let real = Real { top, log, kids: std::array::from_fn(|child| Kid::new(&child.to_string())) };
    let mut model = Model::new(max_restarts, max_seconds.into());
    for step in steps {
        real.step(&mut model, step).await;
        real.check(&model).await;
        if model.gave_up {
            let answer: Answer = real.top.count_children().await.into();
            assert_eq!(answer, Answer::NotRunning);
            return;
        }
    }
    real.top.shutdown().await;
    assert!(real.kids.iter().all(|kid| kid.live() == 0));
}

proptest! {
    // No file of past failures: a failing case prints its steps, and becomes a test of its own.
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    // Whatever is done to it, a one_for_one supervisor does what OTP's rules say.
    #[test]
    fn one_for_one_follows_the_model(
        max_restarts in 0..4_usize,
        max_seconds in 1..4_u32,
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(check_steps(max_restarts, max_seconds, &steps));
    }
}
