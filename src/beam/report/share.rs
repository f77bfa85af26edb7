//! What one node may have kept of what it says, by whomever: children, awaited restarts, and texts.
//!
//! Events carry texts and children to consumers that keep them for as long as they like. So what counts here is what
//! still exists and not what was sent: a place is given back when its child is dropped, and a text when nobody has it any more.

use std::collections::HashSet;
use std::sync::Arc;

use foldhash::fast::RandomState;
use parking_lot::Mutex;

use crate::beam::message::{Child, Reason, Text};
use crate::event::{Detail, ExitReason, NodeLimit, ReasonClass};
use crate::resources::{Place, Room};

/// The child that all are told under who are beyond the limit.
const OTHER: &str = "_other";

/// The reason of a death whose own text has no room.
const LEFT_OUT: &str = "the reason is left out: the node has sent too many different texts";

/// What a text takes beside its bytes: its counts, its place in a table that grows by doubling, and what the allocator adds.
const TEXT_OVERHEAD: usize = 80;

/// Texts without an owner are looked for after one new text for so many that are kept, so that looking costs little.
const SWEEP_EVERY: usize = 8;

/// The share of one node. Clones are the same share.
#[derive(Clone, Debug)]
pub struct Share(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    children: Room,
    awaited: Room,
    other: Arc<str>,
    left_out: Detail,
    kept: Mutex<Kept>,
}

#[derive(Debug)]
struct Kept {
    texts: Texts,
    /// The limits that were reached since this was asked last.
    reached: [bool; NodeLimit::ALL.len()],
}

/// Different texts that somebody has, and some that nobody has any more.
#[derive(Debug)]
struct Texts {
    kept: HashSet<Arc<str>, RandomState>,
    bytes: usize,
    limit: usize,
    /// Texts that were new since those without an owner were dropped.
    since_sweep: usize,
}

/// A child that is followed from now on.
pub(super) struct Followed {
    pub(super) name: Arc<str>,
    pub(super) place: Option<Place>,
}

// === impl Share ===

impl Share {
    /// A share of so many children, awaited restarts, and bytes of text.
    pub fn new(children: usize, awaited: usize, text_bytes: usize) -> Self {
        Self(Arc::new(Inner {
            children: Room::new(children),
            awaited: Room::new(awaited),
            other: OTHER.into(),
            left_out: Detail::new(LEFT_OUT),
            kept: Mutex::new(Kept { texts: Texts::new(text_bytes), reached: [false; NodeLimit::ALL.len()] }),
        }))
    }

    /// The limits that were reached since this was asked last.
    pub fn reached(&self) -> Vec<NodeLimit> {
        let reached = std::mem::take(&mut self.0.kept.lock().reached);
        NodeLimit::ALL.iter().copied().filter(|limit| reached[*limit as usize]).collect()
    }

    /// Room for a child of this name. Without room it is told under `_other`.
    pub(super) fn follow(&self, name: &str) -> Followed {
        let place = self.0.children.take();
        match place.is_some().then(|| self.name(name)).flatten() {
            Some(name) => Followed { name, place },
            None => self.other_child(),
        }
    }

    /// All children beyond a limit, as one.
    pub(super) fn other_child(&self) -> Followed {
        self.reach(NodeLimit::Children);
        Followed { name: self.0.other.clone(), place: None }
    }

    /// Notes whether a child was cut.
    pub(super) fn cuts(&self, child: &Child<'_>) {
        if child.id.is_cut() || child.mfa.is_cut() {
            self.reach(NodeLimit::TextLength);
        }
    }

    /// Room for a restart to wait in.
    pub(super) fn awaited(&self) -> Option<Place> {
        self.0.awaited.take()
    }

    /// Notes that a limit was reached.
    pub(super) fn reach(&self, limit: NodeLimit) {
        self.0.kept.lock().reached[limit as usize] = true;
    }

    /// A name to be kept; none if there is no room for it.
    pub(super) fn name(&self, name: &str) -> Option<Arc<str>> {
        let mut kept = self.0.kept.lock();
        let name = kept.texts.keep(name);
        kept.reached[NodeLimit::TextBytes as usize] |= name.is_none();
        name
    }

    /// A text that is put together here, if there is room for it.
    pub(super) fn text(&self, text: &str) -> Detail {
        self.name(&Detail::new(text)).map_or_else(|| self.0.left_out.clone(), Detail::shared)
    }

    /// Why, in the words of events: at length, or in short if there is no room for that.
    pub(super) fn reason(&self, reason: &Reason<'_>) -> ExitReason {
        let text = match (reason.class, &*reason.detail) {
            (ReasonClass::Normal, _) => return ExitReason::Normal,
            (ReasonClass::Killed, _) => return ExitReason::Killed,
            (ReasonClass::Shutdown, "") => return ExitReason::Shutdown(None),
            (_, "") => self.detail(&reason.tag),
            _ => self.detail(&reason.detail),
        };
        let text = text.or_else(|| self.name(&reason.tag).map(Detail::shared));
        let text = text.unwrap_or_else(|| self.0.left_out.clone());
        if reason.class == ReasonClass::Shutdown { ExitReason::Shutdown(Some(text)) } else { ExitReason::Error(text) }
    }

    fn detail<const MOST: usize>(&self, text: &Text<'_, MOST>) -> Option<Detail> {
        if text.is_cut() {
            self.reach(NodeLimit::TextLength);
            let marked = Detail::new(&format!("{text}…"));
            return self.name(&marked).map(Detail::shared);
        }
        self.name(text).map(Detail::shared)
    }
}

// === impl Texts ===

impl Texts {
    fn new(limit: usize) -> Self {
        Self { kept: HashSet::default(), bytes: 0, limit, since_sweep: 0 }
    }

    /// The text as everybody has it; none if it is new and there is no room.
    fn keep(&mut self, text: &str) -> Option<Arc<str>> {
        if let Some(known) = self.kept.get(text) {
            return Some(known.clone());
        }
        self.since_sweep += 1;
        if self.bytes + cost(text) > self.limit {
            self.sweep();
        }
        if self.bytes + cost(text) > self.limit {
            return None;
        }
        let text: Arc<str> = text.into();
        self.bytes += cost(&text);
        self.kept.insert(text.clone());
        Some(text)
    }

    /// Drops the texts that nobody else has.
    fn sweep(&mut self) {
        if self.since_sweep * SWEEP_EVERY < self.kept.len() {
            return;
        }
        self.since_sweep = 0;
        self.kept.retain(|text| Arc::strong_count(text) > 1);
        self.bytes = self.kept.iter().map(|text| cost(text)).sum();
    }
}

fn cost(text: &str) -> usize {
    text.len() + TEXT_OVERHEAD
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: usize = TEXT_OVERHEAD + 1;

    // What is the same is kept once, and takes no more room the second time.
    #[test]
    fn equal_texts_are_one_text() {
        let mut texts = Texts::new(ONE);
        let (one, two) = (texts.keep("a").unwrap(), texts.keep("a").unwrap());
        assert!(Arc::ptr_eq(&one, &two));
        assert_eq!(texts.keep("b"), None);
    }

    // Room comes back when the last owner is gone, wherever it kept the text.
    #[test]
    fn a_text_that_nobody_has_any_more_makes_room() {
        let mut texts = Texts::new(2 * ONE);
        let (one, two) = (texts.keep("a").unwrap(), texts.keep("b").unwrap());
        assert_eq!(texts.keep("c"), None);
        drop(one);
        assert_eq!(texts.keep("c").as_deref(), Some("c"));
        assert_eq!((&*two, texts.bytes), ("b", 2 * ONE));
    }

    // Looking for texts without an owner is paid for by the texts that came since, however full the share is.
    #[test]
    fn a_full_share_is_not_searched_for_each_text() {
        let mut texts = Texts::new(100 * ONE);
        let all: Vec<_> = (0..100u8).map(|number| texts.keep(&char::from(number).to_string()).unwrap()).collect();
        assert_eq!(texts.keep("x\u{80}"), None);
        drop(all);
        let refused = (0..100).take_while(|number| texts.keep(&format!("{number:03}")).is_none()).count();
        assert!((1..=100 / SWEEP_EVERY).contains(&refused), "{refused}");
    }
}
