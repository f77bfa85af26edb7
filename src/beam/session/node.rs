//! One node and its stream.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use foldhash::fast::RandomState;
use tokio::sync::Notify;

use super::clock::Anchor;
use super::{Bus, NodeLimits, RESYNC_PAUSE, Refusal, SILENCE, limit};
use crate::beam::message::{Down, Events, Hello, Kind, Message, Stats, Sums, Sup};
use crate::beam::report::{AWAITED_BYTES, Share, Watched};
use crate::event::{
    Event, NodeCounts, NodeEvent, NodeLimit, NodePayload, Payload, Pid, SupervisorEvent, SupervisorRef, Timestamp,
};

/// Dynamic children of one node whose restart is awaited at a time, beside one of each supervisor.
pub(super) const MAX_AWAITED_PER_NODE: usize = 10_000;

/// Most bytes that a node takes beside its supervisors, children and texts.
pub(super) const NODE_BYTES: usize = MAX_AWAITED_PER_NODE * AWAITED_BYTES + Ended::LIMIT * Ended::KEY_BYTES;

/// A node.
#[derive(Debug)]
pub struct Node {
    pub(super) name: Arc<str>,
    limits: NodeLimits,
    share: Share,
    machine: Machine,
    incarnation: Box<[u8]>,
    /// The connection that speaks for it now.
    pub(super) connection: Option<u64>,
    /// Tells that connection when another one takes its place.
    replaced: Arc<Notify>,
    /// The newest number taken in; none before the first of a stream that was not known.
    last_seq: Option<u64>,
    /// In boxes, or the tables would take more than the supervisors.
    supervisors: HashMap<i64, Box<Watched>, RandomState>,
    /// Supervisors of the incarnation before, by process, until the new one has said all of its own.
    handed_over: HashMap<Pid, Box<Watched>, RandomState>,
    ended: Ended,
    is_full: bool,
    /// Was a supervisor left out that there is room for by now?
    is_incomplete: bool,
    /// When the agent was asked for all of them.
    asked: Option<Instant>,
    anchor: Anchor,
    /// When it was heard first.
    since: Timestamp,
    pub(super) heard: Instant,
    pub(super) is_up: bool,
    pub(super) is_forgotten: bool,
    stats: Stats,
    counts: NodeCounts,
}

/// The newest supervisors of the incarnation that ended.
#[derive(Debug, Default)]
struct Ended {
    keys: HashSet<i64, RandomState>,
    in_order: VecDeque<i64>,
}

/// What tells one virtual machine from another of the same name.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Machine {
    host: Box<str>,
    os_pid: i64,
    start_us: i64,
}

// === impl Node ===

impl Node {
    pub(super) fn new(name: Arc<str>, limits: NodeLimits, hello: &Hello<'_>, now: Timestamp) -> Self {
        Self {
            name,
            limits,
            share: Share::new(limits.children_per_node, MAX_AWAITED_PER_NODE, limits.text_bytes_per_node),
            machine: Machine::of(hello),
            incarnation: hello.incarnation.into(),
            connection: None,
            replaced: Arc::default(),
            last_seq: None,
            supervisors: HashMap::default(),
            handed_over: HashMap::default(),
            ended: Ended::default(),
            is_full: false,
            is_incomplete: false,
            asked: None,
            anchor: Anchor::new(hello.now_us, now),
            since: now,
            heard: now.monotonic,
            is_up: false,
            is_forgotten: false,
            stats: Stats::default(),
            counts: NodeCounts::default(),
        }
    }

    pub(super) fn hello(
        &mut self,
        hello: &Hello<'_>,
        connection: u64,
        now: Timestamp,
        bus: &mut Bus<'_>,
    ) -> Result<(u64, Arc<Notify>), Refusal> {
        let machine = Machine::of(hello);
        let is_alive = self.connection.is_some() && now.monotonic.saturating_duration_since(self.heard) <= SILENCE;
        if is_alive && machine != self.machine {
            return Err(Refusal::NameTaken(self.name.to_string(), self.machine.host.to_string()));
        }
        if machine != self.machine {
            self.close("its node was started again", now, bus);
        } else if *hello.incarnation != *self.incarnation {
            let handed_over: Vec<_> = self.supervisors.drain().map(|(_, supervisor)| supervisor).collect();
            for supervisor in handed_over {
                // Two of one process there cannot be, whatever an agent says.
                if let Some(other) = self.handed_over.insert(supervisor.reference.id, supervisor) {
                    other.gone("its agent was started again", now, &mut |reference, at, payload| {
                        bus(&supervised(reference, at, payload));
                    });
                }
            }
        }
        if machine != self.machine || *hello.incarnation != *self.incarnation {
            (self.machine, self.incarnation) = (machine, hello.incarnation.into());
            (self.last_seq, self.is_full, self.stats) = (None, false, Stats::default());
            self.ended = Ended::default();
        }
        if hello.is_cut() {
            bus(&limit(Some(&self.name), NodeLimit::TextLength, now));
        }
        self.connection = Some(connection);
        std::mem::take(&mut self.replaced).notify_one();
        self.anchor = Anchor::new(hello.now_us, now);
        self.heard(now, bus);
        self.supervisors.values_mut().for_each(|supervisor| supervisor.wait_again(now.monotonic));
        Ok((self.last_seq.unwrap_or(0), self.replaced.clone()))
    }

    /// Takes a message in. Nothing of a message that is refused was taken in, but for the events before the one that is
    /// wrong.
    ///
    /// # Errors
    /// [`Refusal`]; the connection must be closed.
    pub fn message(
        &mut self,
        message: Message<'_>,
        connection: u64,
        now: Timestamp,
        bus: &mut Bus<'_>,
    ) -> Result<(), Refusal> {
        if self.connection != Some(connection) {
            return Err(Refusal::Replaced);
        }
        self.heard(now, bus);
        let result = match message {
            Message::Hello(_) => Err(Refusal::Order("a second hello")),
            Message::Supervisor(sup) => {
                self.supervisor(&sup, now, bus);
                Ok(())
            }
            Message::Snapshot { begins } => {
                if begins {
                    (self.is_full, self.is_incomplete) = (false, false);
                } else {
                    self.snapshot_done(now, bus);
                }
                Ok(())
            }
            Message::Events(events) => self.events(events, now, bus),
            Message::Sums(sums) => self.sums(sums, now, bus),
            Message::Down(down) => {
                self.down(&down, now, bus);
                Ok(())
            }
            Message::Stats(stats) => {
                self.stats(stats, now);
                Ok(())
            }
            Message::Bye(_) => Ok(()),
            Message::Unknown => {
                self.counts.unknown += 1;
                Ok(())
            }
        };
        if result.is_err() {
            self.counts.invalid += 1;
        }
        self.report(now, bus);
        result
    }

    /// A connection was closed; if it spoke for the node, nothing does now.
    pub fn closed(&mut self, connection: u64) {
        if self.connection == Some(connection) {
            self.connection = None;
        }
    }

    /// What came is not the protocol, so whatever it was is not taken in.
    pub fn misspoke(&mut self, connection: u64, now: Timestamp, bus: &mut Bus<'_>) {
        if self.connection == Some(connection) {
            self.counts.invalid += 1;
            self.report(now, bus);
        }
    }

    /// The agent stops by itself, so nothing more will be heard of its supervisors.
    pub fn said_bye(&mut self, connection: u64, now: Timestamp, bus: &mut Bus<'_>) {
        if self.connection == Some(connection) {
            self.connection = None;
            self.close("its agent was stopped", now, bus);
            self.set_up(false, now, bus);
        }
    }

    /// The newest number that was taken in: it can be acknowledged.
    pub fn last_seq(&self) -> u64 {
        self.last_seq.unwrap_or(0)
    }

    /// Should the agent say all its supervisors again? True at most once in [`RESYNC_PAUSE`].
    pub fn wants_snapshot(&mut self, now: Timestamp) -> bool {
        let is_early = |asked| now.monotonic.saturating_duration_since(asked) < RESYNC_PAUSE;
        if !self.is_incomplete || self.asked.is_some_and(is_early) {
            return false;
        }
        (self.is_incomplete, self.asked) = (false, Some(now.monotonic));
        true
    }

    pub(super) fn tick(&mut self, now: Timestamp, bus: &mut Bus<'_>) {
        if self.is_up && now.monotonic.saturating_duration_since(self.heard) > SILENCE {
            self.set_up(false, now, bus);
        }
        if self.is_up && self.connection.is_some() {
            self.supervisors.values_mut().filter(|supervisor| supervisor.is_waiting()).for_each(|supervisor| {
                supervisor.settle(now, &mut |reference, at, payload| bus(&supervised(reference, at, payload)));
            });
        }
    }

    fn heard(&mut self, now: Timestamp, bus: &mut Bus<'_>) {
        self.heard = now.monotonic;
        self.set_up(true, now, bus);
    }

    fn set_up(&mut self, is_up: bool, now: Timestamp, bus: &mut Bus<'_>) {
        if std::mem::replace(&mut self.is_up, is_up) != is_up {
            let payload = if is_up { NodePayload::Up } else { NodePayload::Down };
            bus(&Event::Node(NodeEvent { node: Some(self.name.clone()), time: now, payload }));
        }
    }

    fn supervisor(&mut self, sup: &Sup<'_>, now: Timestamp, bus: &mut Bus<'_>) {
        // Not earlier than we listen, or counters would have stood at 0 before there were any; and not later than its first event.
        let seen = self.anchor.moment(sup.seen_us, now).at;
        let at = if seen.monotonic < self.since.monotonic { self.since } else { seen };
        let mut emit = |reference: &Arc<_>, at, payload| bus(&supervised(reference, at, payload));
        if let Some(known) = self.supervisors.get_mut(&sup.key) {
            return known.said(sup, now, &mut emit);
        }
        // What was not acknowledged may still speak of it, so the agent says it again.
        if self.ended.has(sup.key) {
            return;
        }
        let handed_over = sup.pid.and_then(|pid| self.handed_over.remove(&pid));
        let has_room = self.supervisors.len() + self.handed_over.len() < self.limits.supervisors_per_node;
        let mut watched = match handed_over {
            Some(watched) => watched,
            None if has_room || self.makes_room(now, bus) => {
                let parent = sup.parent.and_then(|parent| self.supervisors.get(&parent));
                Box::new(Watched::new(sup, &self.name, parent.map(|parent| &parent.reference.name), &self.share))
            }
            None => {
                self.is_full = true;
                return;
            }
        };
        let mut emit = |reference: &Arc<_>, at, payload| bus(&supervised(reference, at, payload));
        watched.said(sup, at, &mut emit);
        self.supervisors.insert(sup.key, watched);
    }

    /// Is there room for one supervisor more after one has gone of the incarnation before? It was not said again so far, and
    /// if it is, it goes on by its name.
    fn makes_room(&mut self, now: Timestamp, bus: &mut Bus<'_>) -> bool {
        bus(&limit(Some(&self.name), NodeLimit::Supervisors, now));
        let silent = self.handed_over.keys().next().copied();
        let Some(silent) = silent.and_then(|pid| self.handed_over.remove(&pid)) else { return false };
        silent.gone("its agent was started again, and it had to make room", now, &mut |reference, at, payload| {
            bus(&supervised(reference, at, payload));
        });
        true
    }

    fn snapshot_done(&mut self, now: Timestamp, bus: &mut Bus<'_>) {
        for (_, supervisor) in self.handed_over.drain() {
            supervisor.gone("it ended while its agent was not there", now, &mut |reference, at, payload| {
                bus(&supervised(reference, at, payload));
            });
        }
    }

    fn events(&mut self, mut events: Events<'_>, now: Timestamp, bus: &mut Bus<'_>) -> Result<(), Refusal> {
        while let Some(event) = events.next_event()? {
            if !self.is_new(event.seq) {
                continue;
            }
            let moment = self.anchor.moment(event.time_us, now);
            if event.kind == Kind::Unknown {
                self.counts.unknown += 1;
            } else if let Some(supervisor) = self.supervisors.get_mut(&event.sup) {
                self.counts.events += 1;
                supervisor.event(&event, moment, &mut |reference, at, payload| {
                    bus(&supervised(reference, at, payload));
                });
            } else {
                self.left_out(1);
            }
        }
        Ok(())
    }

    fn sums(&mut self, sums: Sums<'_>, now: Timestamp, bus: &mut Bus<'_>) -> Result<(), Refusal> {
        if sums.seq.is_some_and(|seq| !self.is_new(seq)) {
            return Ok(());
        }
        let moment = self.anchor.moment(sums.to_us, now);
        // A restart that was refused must be known before the deaths are told, one of which asked for it.
        for refusals in [true, false] {
            let mut rows = sums.clone();
            while let Some(sum) = rows.next_row()? {
                if (sum.kind == Kind::MaxIntensity) != refusals {
                    continue;
                }
                match self.supervisors.get_mut(&sum.sup) {
                    Some(supervisor) => {
                        self.counts.aggregated = self.counts.aggregated.saturating_add(sum.count);
                        supervisor.sum(&sum, moment, &mut |reference, at, payload| {
                            bus(&supervised(reference, at, payload));
                        });
                    }
                    None => self.left_out(sum.count),
                }
            }
        }
        Ok(())
    }

    fn down(&mut self, down: &Down<'_>, now: Timestamp, bus: &mut Bus<'_>) {
        if !self.is_new(down.seq) {
            return;
        }
        let moment = self.anchor.moment(down.time_us, now);
        match self.supervisors.remove(&down.sup) {
            Some(supervisor) => {
                self.counts.events += 1;
                self.is_incomplete |= self.is_full;
                self.ended.add(down.sup);
                supervisor.down(down.end, &down.reason, moment, &mut |reference, at, payload| {
                    bus(&supervised(reference, at, payload));
                });
            }
            None => self.left_out(1),
        }
    }

    fn stats(&mut self, stats: Stats, now: Timestamp) {
        let before = std::mem::replace(&mut self.stats, stats);
        self.counts.lost = self.counts.lost.saturating_add(stats.lost.saturating_sub(before.lost));
        self.counts.tap_reinstalls += stats.reinstalls.saturating_sub(before.reinstalls);
        self.anchor.follow(stats.now_us, now);
    }

    /// Is it the next number, or one after a gap, which is lost? What is sent again is not.
    fn is_new(&mut self, seq: u64) -> bool {
        let last = self.last_seq.unwrap_or(seq.saturating_sub(1));
        if self.last_seq.is_some() && seq <= last {
            return false;
        }
        self.counts.lost = self.counts.lost.saturating_add(seq.saturating_sub(last).saturating_sub(1));
        self.last_seq = Some(seq);
        true
    }

    /// Events of a supervisor that is not known: one beyond the limit, or a mistake of the agent.
    fn left_out(&mut self, count: u64) {
        let counter = if self.is_full { &mut self.counts.lost } else { &mut self.counts.invalid };
        *counter = counter.saturating_add(count);
    }

    pub(super) fn close(&mut self, why: &str, now: Timestamp, bus: &mut Bus<'_>) {
        let handed_over = self.handed_over.drain().map(|(_, supervisor)| supervisor);
        for supervisor in self.supervisors.drain().map(|(_, supervisor)| supervisor).chain(handed_over) {
            supervisor.gone(why, now, &mut |reference, at, payload| bus(&supervised(reference, at, payload)));
        }
    }

    fn report(&mut self, now: Timestamp, bus: &mut Bus<'_>) {
        for reached in self.share.reached() {
            bus(&limit(Some(&self.name), reached, now));
        }
        let counts = std::mem::take(&mut self.counts);
        if counts != NodeCounts::default() {
            let payload = NodePayload::Report(counts);
            bus(&Event::Node(NodeEvent { node: Some(self.name.clone()), time: now, payload }));
        }
    }
}

// === impl Ended ===

impl Ended {
    /// More than an agent keeps events that were not acknowledged.
    const LIMIT: usize = 20_000;

    /// Most bytes of a key: a queue and a table, both of which grow by doubling.
    const KEY_BYTES: usize = 2 * 8 + 9 * 16 / 7;

    fn add(&mut self, key: i64) {
        if self.in_order.len() == Self::LIMIT
            && let Some(oldest) = self.in_order.pop_front()
        {
            self.keys.remove(&oldest);
        }
        self.keys.insert(key);
        self.in_order.push_back(key);
    }

    fn has(&self, key: i64) -> bool {
        self.keys.contains(&key)
    }
}

// === impl Machine ===

impl Machine {
    fn of(hello: &Hello<'_>) -> Self {
        Self { host: (&*hello.host).into(), os_pid: hello.os_pid, start_us: hello.vm_start_us }
    }
}

fn supervised(supervisor: &Arc<SupervisorRef>, time: Timestamp, payload: Payload) -> Event {
    Event::Supervisor(SupervisorEvent { supervisor: supervisor.clone(), time, payload })
}
