//! From what a node's supervisor reports to the events that every supervisor emits. Pure.
//!
//! OTP reports deaths, starts and failures; what follows from them is put together here:
//!
//! | report | events |
//! |---|---|
//! | `child_terminated`, temporary | terminate; the child is forgotten |
//! | `child_terminated`, else | terminate, and a restart is expected |
//! | `progress` of a child that is expected | restart after a failure |
//! | `progress` of another child meanwhile | restart along with its sibling, if the strategy has it so |
//! | `progress` of a child that ran, otherwise | restart on request |
//! | `progress`, otherwise | start |
//! | dynamic supervisors report no start: their next report, or a second without `start_error` | restart after a failure |
//! | `start_error` | start error; the supervisor tries again |
//! | `shutdown` | the expected restart was refused; when the supervisor is gone it has given up |
//! | `shutdown_error` | terminate on order |
//! | nothing at all | ordered and clean ends, which OTP does not report |
//!
//! Whatever is not known (a lifetime whose start nobody saw, the pid of a dynamic child that was restarted) stays unknown.

mod children;
mod kinds;
mod share;
mod sums;
mod text;

use std::collections::HashMap;
use std::mem::size_of;
use std::sync::Arc;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;

use super::message::{Child, End, Event, Kind, MAX_NAME_BYTES, Reason, Sup};
use crate::event::{
    Action, Aggregated, ChildRef, Decision, Detail, ExitReason, NodeLimit, Payload, Pid, RestartCause, Strategy,
    SupervisorExit, SupervisorRef, Timestamp, counted,
};
use crate::intensity::Intensity;
use crate::resources::{Place, entry_bytes, shrink, shrink_list};

use children::{Described, Fixed};
use text::{name_of, since};

pub use children::MAX_CHILDREN;
pub use share::Share;

/// Dynamic children of one supervisor whose restart is awaited at a time; beyond, and beyond the limit of the node, the
/// oldest is taken for restarted.
pub const MAX_AWAITED: usize = 1000;

/// After this time without a `start_error` a dynamic child is taken for restarted, and what starts is no sibling any more.
pub const SETTLE: Duration = Duration::from_secs(1);

/// Restarts remembered until the limit of the supervisor is known.
pub(super) const MAX_EARLY: usize = 100;

/// Parts of the intensity window in which restarts are counted together, if there may be more of them than that.
pub(super) const WINDOW_PARTS: u32 = 100;

/// When something happened on the node, and when it was heard of.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// By the node's clock, for differences.
    pub node_us: i64,
    /// The same on our clocks.
    pub at: Timestamp,
    /// When it arrived here.
    pub heard: Instant,
}

/// Takes the events.
pub type Emit<'a> = dyn FnMut(&Arc<SupervisorRef>, Timestamp, Payload) + 'a;

/// A supervisor of a node.
#[derive(Debug)]
pub struct Watched {
    /// Who it is in events.
    pub reference: Arc<SupervisorRef>,
    share: Share,
    parent: Option<Arc<str>>,
    config: Config,
    window: Option<Intensity>,
    /// Restarts before the window was known.
    early: Vec<Instant>,
    /// No event is earlier than the one before.
    newest: Option<Instant>,
    /// By id.
    fixed: HashMap<Arc<str>, Fixed, RandomState>,
    /// Descriptions of dynamic children, by start function.
    kinds: HashMap<Arc<str>, Described, RandomState>,
    awaited: Vec<Awaited>,
    /// Static children with a restart to come.
    expected: usize,
    round: Round,
    /// The last failure, for the text when it gives up.
    last_failure: Option<(Arc<ChildRef>, ExitReason)>,
    gave_up: Option<Detail>,
    /// Restarts that were refused, as far as their deaths are still to be told.
    refused: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Config {
    strategy: Option<Strategy>,
    intensity: Option<u32>,
    period: Option<u32>,
    is_dynamic: bool,
    restarts: bool,
}

/// A dynamic child that died and has not been heard of since.
#[derive(Debug)]
struct Awaited {
    child: Arc<ChildRef>,
    pid: Option<Pid>,
    attempts: u32,
    deadline: Instant,
    /// Its place in the share of the node; none for the first of a supervisor.
    place: Option<Place>,
}

/// One failure and the siblings that are restarted with the child that failed.
#[derive(Clone, Copy, Debug, Default)]
struct Round {
    number: u64,
    last_us: i64,
}

/// Most bytes of one supervisor, beside its children and the texts that count in the [`Share`] of its node: itself and its
/// places in the tables of the session and of its consumers, its name and that of its parent, the window or the restarts
/// before it was known, and tables of children as small as there are.
pub const SUPERVISOR_BYTES: usize = size_of::<Watched>()
    + 4 * entry_bytes::<(Pid, usize)>()
    + size_of::<SupervisorRef>()
    + 2 * (MAX_NAME_BYTES + ALLOCATION)
    + (WINDOW_PARTS as usize).next_power_of_two() * size_of::<(u64, u64)>()
    + 4 * (size_of::<(Arc<str>, Fixed)>() + size_of::<(Arc<str>, Described)>() + size_of::<Awaited>())
    + size_of::<ChildRef>()
    + 8 * ALLOCATION;

/// Most bytes of one child, beside its name.
pub const CHILD_BYTES: usize = entry_bytes::<(Arc<str>, Fixed)>() + size_of::<ChildRef>() + ALLOCATION;

/// Most bytes of a restart that is awaited.
pub const AWAITED_BYTES: usize = 4 * size_of::<Awaited>();

/// What an allocation takes beside its content: counts of references, and what the allocator adds.
const ALLOCATION: usize = 40;

// === impl Watched ===

impl Watched {
    /// A supervisor that was found on a node, whose share what it says takes part in.
    pub fn new(sup: &Sup<'_>, node: &Arc<str>, parent: Option<&Arc<str>>, share: &Share) -> Self {
        let mut name = name_of(sup, parent.map(|parent| &**parent));
        if sup.is_cut() || name.len() > MAX_NAME_BYTES {
            share.reach(NodeLimit::TextLength);
            name.truncate(name.floor_char_boundary(MAX_NAME_BYTES));
        }
        let id = sup.pid.unwrap_or(Pid::Beam { id: 0, serial: 0 });
        Self {
            reference: Arc::new(SupervisorRef::new(id, name, Some(node.clone()))),
            share: share.clone(),
            parent: parent.cloned(),
            config: Config::default(),
            window: None,
            early: Vec::new(),
            newest: None,
            fixed: HashMap::default(),
            kinds: HashMap::default(),
            awaited: Vec::new(),
            expected: 0,
            round: Round::default(),
            last_failure: None,
            gave_up: None,
            refused: 0,
        }
    }

    /// Takes in what is said of it, for the first time or again.
    pub fn said(&mut self, sup: &Sup<'_>, at: Timestamp, emit: &mut Emit<'_>) {
        let config = Config {
            strategy: sup.strategy,
            intensity: sup.intensity,
            period: sup.period,
            is_dynamic: sup.is_dynamic,
            restarts: sup.restarts,
        };
        let is_new = self.newest.is_none();
        if !is_new && config == self.config {
            return;
        }
        let at = self.no_earlier(at);
        if (config.intensity, config.period) != (self.config.intensity, self.config.period)
            && let (Some(intensity), Some(period)) = (config.intensity, config.period)
        {
            let epoch = self.early.first().map_or(at.monotonic, |first| *first);
            // Real time and not OTP's whole seconds: what it finds too many is too many for OTP as well.
            let window = Duration::from_secs(period.into());
            let mut window = Intensity::in_parts(intensity, window, WINDOW_PARTS, epoch);
            for at in std::mem::take(&mut self.early) {
                window.admit(at);
            }
            self.window = Some(window);
        }
        let was_taken_for_static = !self.config.is_dynamic && config.is_dynamic;
        self.config = config;
        let payload = Payload::SupervisorInit {
            strategy: config.strategy,
            max_restarts: config.intensity,
            max_seconds: config.period,
            parent: self.parent.clone(),
            found: true,
        };
        emit(&self.reference, at, payload);
        if was_taken_for_static {
            self.becomes_dynamic(at, emit);
        }
    }

    /// What it reported before it was described was taken for the reports of static children, whose restarts are told. Those
    /// of dynamic ones are not: all but the newest of each must have happened by now, and that one is awaited.
    fn becomes_dynamic(&mut self, at: Timestamp, emit: &mut Emit<'_>) {
        self.expected = 0;
        for (_, fixed) in std::mem::take(&mut self.fixed) {
            let kind = self.kind(&fixed.mfa, fixed.child.restart, fixed.child.child_type);
            let expected = fixed.expected.max(0).unsigned_abs();
            if expected > 1 {
                let of = Aggregated::Restarted { cause: RestartCause::Failure };
                emit(
                    &self.reference,
                    at,
                    Payload::ChildAggregate { child: Some(kind.clone()), of, count: expected - 1 },
                );
            }
            if expected > 0 {
                let deadline = at.monotonic + SETTLE;
                self.await_restart(Awaited::new(kind.clone(), fixed.last, fixed.attempts, deadline), at, emit);
            }
            if fixed.child.id != kind.id {
                emit(&self.reference, at, Payload::ChildStop { child: fixed.child, deleted: true });
            }
        }
    }

    /// Takes in a report.
    pub fn event(&mut self, event: &Event<'_>, moment: Moment, emit: &mut Emit<'_>) {
        let at = self.in_order(moment);
        let pid = event.pid;
        if self.config.is_dynamic {
            self.proven(pid, event.kind, at, emit);
        }
        match event.kind {
            Kind::Started => self.started(&event.child, pid, event.flag, moment, at, emit),
            Kind::Terminated => self.terminated(event, moment, at, emit),
            Kind::StartError => self.start_error(event, moment, at, emit),
            Kind::MaxIntensity => self.refused(&event.child, pid),
            Kind::ShutdownError => self.stopped(event, moment, at, emit),
            Kind::Unknown => {}
        }
        self.shrink();
    }

    /// Gives back the memory of children and restarts that are followed no more.
    fn shrink(&mut self) {
        shrink(&mut self.fixed);
        shrink_list(&mut self.awaited);
    }

    /// Takes dynamic children for restarted of which nothing bad was heard for long enough.
    pub fn settle(&mut self, now: Timestamp, emit: &mut Emit<'_>) {
        if self.awaited.is_empty() {
            return;
        }
        let at = self.no_earlier(now);
        let reference = &self.reference;
        self.awaited.retain(|awaited| {
            let is_due = awaited.deadline <= now.monotonic;
            if is_due {
                emit(reference, at, inferred(awaited));
            }
            !is_due
        });
        self.shrink();
    }

    /// Is there something that only time tells?
    pub fn is_waiting(&self) -> bool {
        !self.awaited.is_empty()
    }

    /// Nothing was heard for a while, so nothing can be concluded from it: waits anew.
    pub fn wait_again(&mut self, now: Instant) {
        self.awaited.iter_mut().for_each(|awaited| awaited.deadline = now + SETTLE);
    }

    /// It ended, for the reason that the node says. Nothing may be said of it afterwards.
    pub fn down(mut self, end: End, reason: &Reason<'_>, moment: Moment, emit: &mut Emit<'_>) {
        let at = self.in_order(moment);
        // It worked on after these deaths.
        for awaited in self.awaited.iter().filter(|awaited| awaited.attempts == 0) {
            emit(&self.reference, at, inferred(awaited));
        }
        let reason = match (self.gave_up.take(), end) {
            (Some(detail), _) => SupervisorExit::MaxIntensity(detail),
            (None, End::Normal) => SupervisorExit::Normal,
            (None, End::Shutdown) => SupervisorExit::Shutdown,
            (None, End::Unseen) => SupervisorExit::Unknown(self.share.text("it had ended before it was watched")),
            (None, End::Failed) => SupervisorExit::Error(self.share.text(&self.share.reason(reason).to_string())),
        };
        emit(&self.reference, at, Payload::SupervisorTerminate { reason, lifetime: None });
    }

    /// It ended, and nobody saw how.
    pub fn gone(mut self, why: &str, now: Timestamp, emit: &mut Emit<'_>) {
        let at = self.no_earlier(now);
        let reason = match self.gave_up.take() {
            Some(detail) => SupervisorExit::MaxIntensity(detail),
            None => SupervisorExit::Unknown(self.share.text(why)),
        };
        emit(&self.reference, at, Payload::SupervisorTerminate { reason, lifetime: None });
    }

    /// The supervisor gives up: the restart that was expected will not be.
    fn refused(&mut self, child: &Child<'_>, pid: Option<Pid>) {
        if self.config.is_dynamic {
            self.awaited.retain(|awaited| awaited.pid != pid);
        } else {
            self.with_fixed(child, |fixed| fixed.expected = 0);
        }
        let limit = match (self.config.intensity, self.config.period) {
            (Some(intensity), Some(period)) => {
                format!("more than {} in {period} s", counted(intensity, "restart", "restarts"))
            }
            _ => "one restart too many".into(),
        };
        let text = match &self.last_failure {
            Some((child, reason)) => format!("child {:?} ended ({reason}): {limit}", child.id),
            None => limit,
        };
        self.gave_up = Some(self.share.text(&text));
    }

    /// A supervisor restarts a child before it does anything else, so a report proves that those before it succeeded.
    /// After a failed attempt that is not so: the next attempt is a message to itself.
    fn proven(&mut self, pid: Option<Pid>, kind: Kind, at: Timestamp, emit: &mut Emit<'_>) {
        let speaks_of_it = matches!(kind, Kind::StartError | Kind::MaxIntensity);
        let reference = &self.reference;
        self.awaited.retain(|awaited| {
            let is_proven = awaited.attempts == 0 && !(speaks_of_it && awaited.pid == pid);
            if is_proven {
                emit(reference, at, inferred(awaited));
            }
            !is_proven
        });
    }

    /// Waits for what becomes of a child. Each supervisor may wait for one, and for more while its node has room.
    fn await_restart(&mut self, mut new: Awaited, at: Timestamp, emit: &mut Emit<'_>) {
        if !self.awaited.is_empty() {
            new.place = if self.awaited.len() < MAX_AWAITED { self.share.awaited() } else { None };
            if new.place.is_none() {
                self.share.reach(NodeLimit::Awaited);
                let oldest = self.awaited.remove(0);
                emit(&self.reference, at, inferred(&oldest));
                new.place = oldest.place;
            }
        }
        self.awaited.push(new);
    }

    /// What OTP does about a child that is to be restarted.
    fn decide(&mut self, now: Instant) -> Decision {
        match &mut self.window {
            Some(window) => {
                let action = if window.admit(now) { Action::Restart } else { Action::GiveUp };
                Decision { action, delay: Duration::ZERO, restarts_left: Some(window.left(now)) }
            }
            None => {
                if self.early.len() < MAX_EARLY {
                    self.early.push(now);
                }
                ending(Action::Restart)
            }
        }
    }

    /// Is a failure being dealt with that concerns siblings?
    fn is_round_open(&self, node_us: i64) -> bool {
        match self.config.strategy {
            Some(Strategy::OneForOne | Strategy::Dynamic) => false,
            // A start just after a death is seldom asked for, so while the strategy is unknown it may be one with siblings.
            Some(Strategy::OneForAll | Strategy::RestForOne) | None => {
                let is_recent = since(self.round.last_us, node_us) <= SETTLE;
                self.round.number > 0 && (self.expected > 0 || is_recent)
            }
        }
    }

    fn restarts_siblings(&self) -> bool {
        matches!(self.config.strategy, Some(Strategy::OneForAll | Strategy::RestForOne))
    }

    fn in_order(&mut self, moment: Moment) -> Timestamp {
        self.no_earlier(moment.at)
    }

    fn no_earlier(&mut self, at: Timestamp) -> Timestamp {
        let monotonic = self.newest.map_or(at.monotonic, |newest| newest.max(at.monotonic));
        self.newest = Some(monotonic);
        Timestamp { monotonic, system: at.system }
    }
}

// === impl Awaited ===

impl Awaited {
    fn new(child: Arc<ChildRef>, pid: Option<Pid>, attempts: u32, deadline: Instant) -> Self {
        Self { child, pid, attempts, deadline, place: None }
    }
}

fn inferred(awaited: &Awaited) -> Payload {
    Payload::ChildRestart {
        child: awaited.child.clone(),
        child_pid: None,
        previous_pid: awaited.pid,
        cause: RestartCause::Failure,
        downtime: None,
        duration: None,
    }
}

fn ending(action: Action) -> Decision {
    Decision { action, delay: Duration::ZERO, restarts_left: None }
}
