//! One piece of state for each supervisor name: found by number on the hot path, bounded, and forgotten some time after
//! the supervisor ended.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use parking_lot::RwLock;

use crate::event::SupervisorRef;

/// The name under which everything beyond the limit of a registry is counted together, and with it a supervisor of this
/// process that is really called so.
pub const OTHER: &str = "_other";

/// What a registry keys by, in the order in which supervisors are listed: the name, then the node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    /// The supervisor's stable path, or [`OTHER`].
    pub supervisor: Arc<str>,
    /// The Erlang node it lives on; none in this process.
    pub node: Option<Arc<str>>,
}

impl Name {
    fn of(supervisor: &SupervisorRef) -> Self {
        Self { supervisor: supervisor.name.clone(), node: supervisor.node.clone() }
    }

    /// Is this the name of everything beyond the limit?
    pub fn is_other(&self) -> bool {
        self.node.is_none() && &*self.supervisor == OTHER
    }
}

/// Supervisors of this process that somebody wants, by full name: they are kept in sight for as long, also when they have
/// ended. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Kept(Arc<RwLock<BTreeSet<Arc<str>>>>);

/// State for each supervisor name, at most `limit` of them and one for [`OTHER`].
///
/// The state of a name lives from the first event of any incarnation until `retention` after the last incarnation ended.
/// A name that comes back earlier goes on with its state.
pub struct Registry<T> {
    limit: usize,
    retention: Duration,
    kept: Kept,
    inner: RwLock<Inner<T>>,
}

struct Inner<T> {
    /// Incarnations that have not ended, by [`SupervisorRef::key`].
    by_key: HashMap<u64, Arc<T>, RandomState>,
    /// Sorted by name, so that no reader has to sort. Copied on write only while a reader holds the last version.
    rows: Arc<Vec<Row<T>>>,
    other: Option<Arc<T>>,
    /// Names whose last incarnation ended, oldest first. One that comes back is taken out, or a supervisor that ends again
    /// and again would fill it.
    ended: BTreeSet<(Instant, Name)>,
    /// Names left out because of the limit, as far as they are alive.
    overflowed: usize,
}

/// A name and its state.
pub struct Row<T> {
    /// The name.
    pub name: Name,
    /// Its state.
    pub state: Arc<T>,
    /// Incarnations of the name that have not ended.
    live: usize,
    ended_at: Option<Instant>,
}

impl<T> Clone for Row<T> {
    fn clone(&self) -> Self {
        Self { name: self.name.clone(), state: self.state.clone(), live: self.live, ended_at: self.ended_at }
    }
}

// === impl Kept ===

impl Kept {
    /// These supervisors, and no others. Returns those before.
    pub fn set(&self, names: BTreeSet<Arc<str>>) -> BTreeSet<Arc<str>> {
        std::mem::replace(&mut *self.0.write(), names)
    }

    /// Is this one of them?
    pub(super) fn has(&self, name: &Name) -> bool {
        name.node.is_none() && self.0.read().contains(&*name.supervisor)
    }
}

// === impl Registry ===

impl<T> Registry<T> {
    /// An empty registry for at most `limit` names, each kept for `retention` after its last incarnation ended, or as long as
    /// it is among those `kept`.
    pub fn new(limit: usize, retention: Duration, kept: Kept) -> Self {
        let inner = Inner {
            by_key: HashMap::default(),
            rows: Arc::default(),
            other: None,
            ended: BTreeSet::new(),
            overflowed: 0,
        };
        Self { limit, retention, kept, inner: RwLock::new(inner) }
    }

    /// Calls `act` with the state of the event's supervisor, as [`get_or_insert`](Self::get_or_insert) finds it, and
    /// saves counting a reference up and down. No name is added or ended meanwhile, so `act` must be quick and must not
    /// do so itself.
    pub fn with<R>(
        &self,
        supervisor: &SupervisorRef,
        now: Instant,
        make: impl FnOnce(&Name) -> T,
        act: impl FnOnce(&T) -> R,
    ) -> R {
        let inner = self.inner.read();
        if let Some(state) = inner.by_key.get(&supervisor.key()) {
            return act(state);
        }
        drop(inner);
        act(&self.get_or_insert(supervisor, now, make))
    }

    /// The state of the event's supervisor. The first event of an incarnation looks its name up and, if the name is new,
    /// calls `make`; beyond the limit all share the state of [`OTHER`].
    pub fn get_or_insert(&self, supervisor: &SupervisorRef, now: Instant, make: impl FnOnce(&Name) -> T) -> Arc<T> {
        if let Some(state) = self.inner.read().by_key.get(&supervisor.key()) {
            return state.clone();
        }
        let mut inner = self.inner.write();
        // Adding pays for removing, so that memory is bounded even if nobody ever reads.
        inner.expire(now, self.retention, &self.kept);
        inner.add(supervisor, self.limit, make)
    }

    /// Notes that an incarnation ended. The state of its name stays for the retention.
    pub fn ended(&self, supervisor: &SupervisorRef, now: Instant) {
        let mut inner = self.inner.write();
        let Some(state) = inner.by_key.remove(&supervisor.key()) else { return };
        if inner.other.as_ref().is_some_and(|other| Arc::ptr_eq(other, &state)) {
            inner.overflowed -= 1;
            return;
        }
        let name = Name::of(supervisor);
        let Ok(index) = inner.find(&name) else { return };
        let row = &mut Arc::make_mut(&mut inner.rows)[index];
        row.live = row.live.saturating_sub(1);
        if row.live == 0 {
            row.ended_at = Some(now);
            let name = row.name.clone();
            inner.ended.insert((now, name));
        }
    }

    /// The state of a name, if it has any. Without a node, a name of this process goes before one of a node.
    pub fn find(&self, supervisor: &str, node: Option<&str>) -> Option<Arc<T>> {
        let inner = self.inner.read();
        let first = inner.rows.partition_point(|row| &*row.name.supervisor < supervisor);
        inner.rows[first..]
            .iter()
            .take_while(|row| &*row.name.supervisor == supervisor)
            .find(|row| node.is_none() || row.name.node.as_deref() == node)
            .map(|row| row.state.clone())
            .or_else(|| inner.other.clone().filter(|_| supervisor == OTHER))
    }

    /// Forgets the names that ended longer than the retention ago, all at once; returns how many.
    pub fn expire(&self, now: Instant) -> Vec<Arc<T>> {
        if self.inner.read().ended.first().is_none_or(|(ended_at, _)| now.duration_since(*ended_at) < self.retention) {
            return Vec::new();
        }
        self.inner.write().expire(now, self.retention, &self.kept)
    }

    /// All names with their states, sorted by name; [`OTHER`] is not among them.
    pub fn rows(&self) -> Arc<Vec<Row<T>>> {
        self.inner.read().rows.clone()
    }

    /// The state of everything beyond the limit; none as long as the limit was not reached.
    pub fn other(&self) -> Option<Arc<T>> {
        self.inner.read().other.clone()
    }

    /// Most names kept apart.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Names kept apart now.
    pub fn len(&self) -> usize {
        self.inner.read().rows.len()
    }

    /// True if no name is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Incarnations that are alive and share [`OTHER`].
    pub fn overflowed(&self) -> usize {
        self.inner.read().overflowed
    }
}

// === impl Row ===

impl<T> Row<T> {
    /// Does an incarnation of the name live?
    pub fn is_up(&self) -> bool {
        self.live > 0
    }
}

// === impl Inner ===

impl<T> Inner<T> {
    fn find(&self, name: &Name) -> Result<usize, usize> {
        self.rows.binary_search_by(|row| row.name.cmp(name))
    }

    fn add(&mut self, supervisor: &SupervisorRef, limit: usize, make: impl FnOnce(&Name) -> T) -> Arc<T> {
        // Two threads may have raced here with the first event of one incarnation.
        if let Some(state) = self.by_key.get(&supervisor.key()) {
            return state.clone();
        }
        let name = Name::of(supervisor);
        let state = match self.find(&name) {
            Ok(index) => {
                let row = &mut Arc::make_mut(&mut self.rows)[index];
                row.live += 1;
                let (ended_at, state) = (row.ended_at.take(), row.state.clone());
                if let Some(ended_at) = ended_at {
                    self.ended.remove(&(ended_at, name));
                }
                state
            }
            // One name, one state: two that are shown under the same name would make an exposition invalid.
            Err(index) if self.rows.len() < limit && !name.is_other() => {
                let state = Arc::new(make(&name));
                let row = Row { name, state: state.clone(), live: 1, ended_at: None };
                Arc::make_mut(&mut self.rows).insert(index, row);
                state
            }
            Err(_) => {
                self.overflowed += 1;
                let other = Name { supervisor: OTHER.into(), node: None };
                self.other.get_or_insert_with(|| Arc::new(make(&other))).clone()
            }
        };
        self.by_key.insert(supervisor.key(), state.clone());
        state
    }

    fn expire(&mut self, now: Instant, retention: Duration, kept: &Kept) -> Vec<Arc<T>> {
        let (mut due, mut again) = (Vec::new(), Vec::new());
        while self.ended.first().is_some_and(|(ended_at, _)| now.duration_since(*ended_at) >= retention) {
            let Some((_, name)) = self.ended.pop_first() else { break };
            let Ok(index) = self.find(&name) else { continue };
            if kept.has(&name) {
                // Looked at again after another retention.
                Arc::make_mut(&mut self.rows)[index].ended_at = Some(now);
                again.push((now, name));
            } else {
                due.push(name);
            }
        }
        self.ended.extend(again);
        if due.is_empty() {
            return Vec::new();
        }
        due.sort_unstable();
        let mut expired = Vec::with_capacity(due.len());
        Arc::make_mut(&mut self.rows).retain(|row| {
            let gone = due.binary_search(&row.name).is_ok();
            if gone {
                expired.push(row.state.clone());
            }
            !gone
        });
        expired
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Pid;

    const RETENTION: Duration = Duration::from_secs(900);

    fn incarnation(name: &str) -> SupervisorRef {
        SupervisorRef::new(Pid::Task(0), name, None)
    }

    fn names(registry: &Registry<String>) -> Vec<String> {
        registry.rows().iter().map(|row| row.name.supervisor.to_string()).collect()
    }

    fn insert(registry: &Registry<String>, supervisor: &SupervisorRef, now: Instant) -> Arc<String> {
        registry.get_or_insert(supervisor, now, |name| name.supervisor.to_string())
    }

    // A supervisor that itself restarts keeps its past: state follows the name, not the incarnation.
    #[test]
    fn the_next_incarnation_of_a_name_goes_on_with_its_state() {
        let (registry, now) = (Registry::new(10, RETENTION, Kept::default()), crate::telemetry::monotonic_now());
        let (first, second) = (incarnation("a"), incarnation("a"));
        let state = insert(&registry, &first, now);
        registry.ended(&first, now);
        assert!(!registry.rows()[0].is_up());
        let later = now + RETENTION - Duration::from_millis(1);
        assert!(Arc::ptr_eq(&state, &insert(&registry, &second, later)));
        assert!(registry.rows()[0].is_up());
        assert!(registry.expire(now + 2 * RETENTION).is_empty(), "a name that came back is not forgotten");
    }

    // A supervisor that ends again and again is one name, and takes the memory of one.
    #[test]
    fn a_name_that_ends_often_is_remembered_once() {
        let (registry, now) = (Registry::new(10, RETENTION, Kept::default()), crate::telemetry::monotonic_now());
        for number in 0..1000 {
            let (again, at) = (incarnation("a"), now + Duration::from_millis(number));
            insert(&registry, &again, at);
            registry.ended(&again, at);
        }
        assert_eq!(registry.inner.read().ended.len(), 1);
        let last = now + Duration::from_millis(999);
        assert!(registry.expire(last + RETENTION - Duration::from_millis(1)).is_empty());
        assert_eq!(registry.expire(last + RETENTION).len(), 1);
    }

    // Without a retention a name is forgotten when it ends, unless somebody wants it in sight.
    #[test]
    fn a_retention_of_nothing_forgets_what_nobody_wants() {
        let (kept, now) = (Kept::default(), crate::telemetry::monotonic_now());
        let registry = Registry::new(10, Duration::ZERO, kept.clone());
        kept.set(BTreeSet::from(["a".into()]));
        for supervisor in [incarnation("a"), incarnation("b")] {
            insert(&registry, &supervisor, now);
            registry.ended(&supervisor, now);
        }
        registry.expire(now);
        assert_eq!(names(&registry), ["a"]);
    }

    // Ended supervisors are forgotten after the retention, all at once, and not before.
    #[test]
    fn an_ended_name_is_forgotten_after_the_retention() {
        let (registry, now) = (Registry::new(10, RETENTION, Kept::default()), crate::telemetry::monotonic_now());
        let (a, b, c) = (incarnation("a"), incarnation("b"), incarnation("c"));
        for supervisor in [&c, &a, &b] {
            insert(&registry, supervisor, now);
        }
        assert_eq!(names(&registry), ["a", "b", "c"]);
        registry.ended(&a, now);
        registry.ended(&c, now);
        assert!(registry.expire(now + RETENTION - Duration::from_millis(1)).is_empty());
        assert_eq!(registry.expire(now + RETENTION).len(), 2);
        assert_eq!(names(&registry), ["b"]);
    }

    // A supervisor that gave up is shown for as long as somebody wants it, and so are those below it that are still wanted.
    #[test]
    fn what_somebody_wants_is_not_forgotten() {
        let (kept, now) = (Kept::default(), crate::telemetry::monotonic_now());
        let registry = Registry::new(10, RETENTION, kept.clone());
        kept.set(BTreeSet::from(["a".into(), "a/below".into()]));
        for name in ["a", "a/below", "a/gone", "ab"] {
            let supervisor = incarnation(name);
            insert(&registry, &supervisor, now);
            registry.ended(&supervisor, now);
        }
        registry.expire(now + RETENTION);
        assert_eq!(names(&registry), ["a", "a/below"]);
        kept.set(BTreeSet::new());
        registry.expire(now + 2 * RETENTION);
        assert!(registry.is_empty());
    }

    // Everything has a limit: names beyond it share `_other`, and a name that ended makes room.
    #[test]
    fn names_beyond_the_limit_share_other() {
        let (registry, now) = (Registry::new(1, RETENTION, Kept::default()), crate::telemetry::monotonic_now());
        let (a, b, c) = (incarnation("a"), incarnation("b"), incarnation("c"));
        insert(&registry, &a, now);
        assert!(Arc::ptr_eq(&insert(&registry, &b, now), &insert(&registry, &c, now)));
        assert_eq!((registry.len(), registry.overflowed()), (1, 2));
        assert_eq!(registry.find(OTHER, None).as_deref().map(String::as_str), Some(OTHER));
        registry.ended(&b, now);
        registry.ended(&a, now);
        assert_eq!(registry.overflowed(), 1);
        let d = incarnation("d");
        assert_eq!(*insert(&registry, &d, now + RETENTION), "d");
    }

    // A supervisor that is really called `_other` is no second state of that name.
    #[test]
    fn a_supervisor_called_other_is_counted_under_other() {
        let (registry, now) = (Registry::new(10, RETENTION, Kept::default()), crate::telemetry::monotonic_now());
        let other = incarnation(OTHER);
        let state = insert(&registry, &other, now);
        assert_eq!((registry.len(), registry.overflowed()), (0, 1));
        assert!(registry.other().is_some_and(|shared| Arc::ptr_eq(&shared, &state)));
        registry.ended(&other, now);
        assert_eq!(registry.overflowed(), 0);
    }

    // Two live incarnations of one name: the name is down only when both have ended.
    #[test]
    fn a_name_is_up_while_any_incarnation_lives() {
        let (registry, now) = (Registry::new(10, RETENTION, Kept::default()), crate::telemetry::monotonic_now());
        let (first, second) = (incarnation("a"), incarnation("a"));
        insert(&registry, &first, now);
        insert(&registry, &second, now);
        registry.ended(&first, now);
        registry.ended(&first, now);
        assert!(registry.rows()[0].is_up());
        registry.ended(&second, now);
        assert!(!registry.rows()[0].is_up());
    }
}
