//! What is followed of children.

use std::sync::Arc;
use std::time::Duration;

use super::Watched;
use super::share::Followed;
use super::text::{child_name, since};
use crate::beam::message::Child;
use crate::event::{ChildRef, ChildType, Pid, Restart};
use crate::resources::Place;

/// Children that are followed under one supervisor; those beyond share one that is called `_other`, as do those beyond the
/// limit of the node.
pub const MAX_CHILDREN: usize = 10_000;

/// A static child.
#[derive(Debug)]
pub(super) struct Fixed {
    pub(super) child: Arc<ChildRef>,
    /// Its start function.
    pub(super) mfa: Arc<str>,
    /// The run whose start was seen.
    pub(super) run: Option<(Option<Pid>, i64)>,
    /// Has it run, as far as is known?
    pub(super) has_run: bool,
    pub(super) last: Option<Pid>,
    pub(super) died_us: Option<i64>,
    /// Deaths whose restart was not told yet; negative if restarts were told (as counts) before their deaths.
    pub(super) expected: i64,
    pub(super) attempts: u32,
    pub(super) round: u64,
    /// Its place in the share of the node; none for the one that stands for all beyond the limit.
    _place: Option<Place>,
}

/// What the children of a dynamic supervisor are told as that have one start function.
#[derive(Debug)]
pub(super) struct Described {
    child: Arc<ChildRef>,
    /// As for a static child.
    place: Option<Place>,
}

impl Watched {
    /// Calls `act` with what is known of a static child.
    pub(super) fn with_fixed<R>(&mut self, child: &Child<'_>, act: impl FnOnce(&mut Fixed) -> R) -> R {
        let id = child_name(child);
        let fixed = match self.fixed.get_mut(id) {
            Some(fixed) => fixed,
            None => {
                self.share.cuts(child);
                let has_room = self.fixed.len() < MAX_CHILDREN;
                let new = if has_room { self.share.follow(id) } else { self.share.other_child() };
                self.fixed.entry(new.name.clone()).or_insert_with(|| {
                    let mfa = self.share.name(&child.mfa).unwrap_or_default();
                    Fixed::new(new, mfa, child)
                })
            }
        };
        let before = fixed.expected > 0;
        let result = act(fixed);
        match (before, fixed.expected > 0) {
            (false, true) => self.expected += 1,
            (true, false) => self.expected -= 1,
            _ => {}
        }
        result
    }

    pub(super) fn child_ref(&mut self, child: &Child<'_>) -> Arc<ChildRef> {
        if !self.config.is_dynamic {
            return self.with_fixed(child, |fixed| fixed.child.clone());
        }
        self.share.cuts(child);
        self.kind(&child.mfa, child.restart, child.child_type)
    }

    /// What the children of a dynamic supervisor that have this start function are told as.
    pub(super) fn kind(&mut self, mfa: &str, restart: Option<Restart>, child_type: ChildType) -> Arc<ChildRef> {
        let label = if mfa.is_empty() { "_dynamic" } else { mfa };
        let is_same = |known: &ChildRef| (known.restart, known.child_type) == (restart, child_type);
        if let Some(known) = self.kinds.get(label)
            && is_same(&known.child)
        {
            return known.child.clone();
        }
        let new = match self.kinds.remove(label) {
            Some(known) => Followed { name: known.child.id.clone(), place: known.place },
            None if self.kinds.len() < MAX_CHILDREN => self.share.follow(label),
            None => self.share.other_child(),
        };
        if let Some(other) = self.kinds.get(&new.name)
            && is_same(&other.child)
        {
            return other.child.clone();
        }
        let child = Arc::new(ChildRef {
            id: new.name.clone(),
            label: new.name.clone(),
            child_type,
            restart,
            // Nobody tells which of its children is back: it is the kind that dies again and again.
            dynamic: false,
        });
        self.kinds.insert(new.name, Described { child: child.clone(), place: new.place });
        child
    }
}

// === impl Fixed ===

impl Fixed {
    fn new(new: Followed, mfa: Arc<str>, child: &Child<'_>) -> Self {
        let (child_type, restart) = (child.child_type, child.restart);
        let (id, label) = (new.name.clone(), new.name);
        Self {
            child: Arc::new(ChildRef { id, label, child_type, restart, dynamic: false }),
            mfa,
            run: None,
            has_run: false,
            last: None,
            died_us: None,
            expected: 0,
            attempts: 0,
            round: 0,
            _place: new.place,
        }
    }

    /// The time that this run took, if its start was seen; the run is over.
    pub(super) fn lifetime(&mut self, pid: Option<Pid>, now_us: i64) -> Option<Duration> {
        let (_, started_us) = self.run.take_if(|(run, _)| *run == pid)?;
        Some(since(started_us, now_us))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Share;
    use super::*;
    use crate::beam::frame::FrameWriter;
    use crate::beam::message::{self, Message};
    use crate::beam::report::Moment;
    use crate::telemetry::now;

    fn supervisor() -> Watched {
        let frame = FrameWriter::new().tuple(16).atom("sup").integer(1).binary(b"<0.1.0>").atom("local").binary(b"sup");
        let frame = frame.binary(b"module").atom("supervisor").atom("undefined").atom("undefined").atom("undefined");
        let frame = frame.atom("one_for_one").integer(3).integer(5).atom("never").atom("unknown").integer(0).finish();
        let Ok(Message::Supervisor(sup)) = message::read(&frame[4..]) else { panic!("no supervisor") };
        Watched::new(&sup, &"node".into(), None, &Share::new(1000, 1000, 1 << 20))
    }

    fn reports(watched: &mut Watched, kind: &'static str, id: u32) {
        let frame = FrameWriter::new().tuple(2).atom("ev").list(1).tuple(9).integer(1).integer(0).integer(1).atom(kind);
        let frame = frame.tuple(6).binary(id.to_string().as_bytes()).binary(b"m:f/1").atom("temporary").atom("worker");
        let frame = frame.integer(0).atom("false").atom("undefined").atom("none").integer(1);
        let frame = frame.tuple(3).atom("exit").binary(b"tag").binary(b"").end_list().finish();
        let Ok(Message::Events(mut events)) = message::read(&frame[4..]) else { panic!("no events") };
        let (event, at) = (events.next_event().unwrap().unwrap(), now());
        watched.event(&event, Moment { node_us: 0, at, heard: at.monotonic }, &mut |_, _, _| ());
    }

    // Tables keep the room they once had. A node of 10,000 supervisors that each had 10,000 children must not.
    #[test]
    fn a_supervisor_whose_children_are_gone_takes_the_memory_of_none() {
        let mut watched = supervisor();
        (0..1000).for_each(|id| reports(&mut watched, "started", id));
        assert_eq!(watched.fixed.len(), 1000);
        (0..1000).for_each(|id| reports(&mut watched, "terminated", id));
        assert_eq!((watched.fixed.len(), watched.fixed.capacity()), (0, 0));
    }
}
