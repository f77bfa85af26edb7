//! Identical deaths collapse into one entry each, so that 1,655 equal deaths do not push the one odd death out of sight.

use std::sync::Arc;

use super::fingerprint::{Fingerprints, error_line, fingerprints};
use super::history::{HistoryEntry, HistoryEvent, Remains};
use crate::event::{ChildRef, ExitReason};

/// Causes of one supervisor kept apart; a cause beyond it makes the one that was not seen for longest join the rest.
pub const MAX_CAUSES: usize = 64;

/// Deaths and failed starts of one child (or one kind of dynamic children) for one reason.
#[derive(Clone, Debug, PartialEq)]
pub struct Cause {
    /// A hash of child, class, detail and last error line, numbers and times left out; the same in every run of every
    /// version; none for the entry that stands for all causes that were forgotten.
    pub fingerprint: Option<u64>,
    /// The same hash without the child: equal for whoever dies of the same.
    pub reason_fingerprint: Option<u64>,
    /// The child's label; none for the entry of the forgotten.
    pub child: Option<Arc<str>>,
    /// How often.
    pub count: u64,
    /// The first time, in milliseconds since the Unix epoch.
    pub first: u64,
    /// The last time, in milliseconds since the Unix epoch.
    pub last: u64,
    /// The newest of them, with its last words.
    pub sample: HistoryEntry,
}

/// The causes of one supervisor, at most [`MAX_CAUSES`] and one entry for all that were forgotten.
#[derive(Debug)]
pub(super) struct Causes {
    entries: Vec<Cause>,
    other: Option<Cause>,
    /// Where a child's last cause stands, by the child's address. A wrong hint only costs a hash: in a crash loop the
    /// same child dies of the same cause, and hashing its text again would cost more than all the rest.
    hints: [u8; MAX_CAUSES],
}

/// Where an event belongs among the causes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    /// In the entry at this index.
    Known(usize),
    /// In a new entry with these fingerprints.
    New(Fingerprints),
}

// === impl Causes ===

impl Causes {
    pub(super) fn new() -> Self {
        Self { entries: Vec::new(), other: None, hints: [0; MAX_CAUSES] }
    }

    /// Where a death or a failed start belongs, and its reason: the one already known if they are equal, so that a ring
    /// full of equal panics holds their message once.
    pub(super) fn place(&self, child: &Arc<ChildRef>, reason: &ExitReason, remains: &Remains) -> (Place, ExitReason) {
        let line = line_of(remains);
        let is_same = |cause: &&Cause| {
            cause.sample.event.reason() == Some(reason)
                && line_of(&cause.sample.remains) == line
                && cause.child.as_ref().is_some_and(|label| Arc::ptr_eq(label, &child.label) || *label == child.label)
        };
        let hint = usize::from(self.hints[hint_slot(child)]);
        if let Some(cause) = self.entries.get(hint).filter(is_same) {
            return (Place::Known(hint), cause.sample.event.reason().unwrap_or(reason).clone());
        }
        let fingerprints = fingerprints(&child.label, reason, line);
        match self.entries.iter().position(|cause| cause.fingerprint == Some(fingerprints.of_child)) {
            Some(index) => {
                let known = self.entries[index].sample.event.reason().filter(|known| *known == reason);
                (Place::Known(index), known.unwrap_or(reason).clone())
            }
            None => (Place::New(fingerprints), reason.clone()),
        }
    }

    /// Counts the event of which [`place`](Self::place) just told where it belongs; returns its
    /// [`reason_fingerprint`](Cause::reason_fingerprint).
    pub(super) fn count(
        &mut self,
        place: Place,
        child: &Arc<ChildRef>,
        event: &HistoryEvent,
        remains: &Remains,
    ) -> u64 {
        let index = match place {
            Place::Known(index) => {
                let cause = &mut self.entries[index];
                cause.count += 1;
                cause.last = event.timestamp;
                cause.sample.event.overwrite(event);
                cause.sample.remains = remains.clone();
                index
            }
            Place::New(fingerprints) => self.insert(Cause {
                fingerprint: Some(fingerprints.of_child),
                reason_fingerprint: Some(fingerprints.of_reason),
                child: Some(child.label.clone()),
                count: 1,
                first: event.timestamp,
                last: event.timestamp,
                sample: HistoryEntry { event: event.clone(), remains: remains.clone() },
            }),
        };
        self.hints[hint_slot(child)] = index as u8;
        // Only the entry of the forgotten has none, and it has no index.
        self.entries[index].reason_fingerprint.unwrap_or_default()
    }

    /// Most frequent first, of two equally frequent ones the newer. With a child's label or id only that child's; what
    /// was forgotten belongs to no child.
    pub(super) fn list(&self, child: Option<&str>) -> Vec<Cause> {
        let mut causes: Vec<Cause> = self
            .entries
            .iter()
            .chain(&self.other)
            .filter(|cause| child.is_none_or(|child| cause.is_of(child)))
            .cloned()
            .collect();
        causes.sort_by_key(|cause| std::cmp::Reverse((cause.count, cause.sample.event.id)));
        causes
    }

    /// Those of this reason whose newest death was not before `since`, in monotonic nanoseconds.
    pub(super) fn of_reason(&self, reason: u64, since: u64) -> impl Iterator<Item = &Cause> {
        self.entries
            .iter()
            .filter(move |cause| cause.reason_fingerprint == Some(reason) && cause.sample.event.at >= since)
    }

    /// The last words of an event that is a sample.
    pub(super) fn last_words(&self, id: u64) -> Option<&Remains> {
        let sample = self.entries.iter().map(|cause| &cause.sample).find(|sample| sample.event.id == id)?;
        Some(&sample.remains)
    }

    fn insert(&mut self, cause: Cause) -> usize {
        let oldest = self.entries.iter().enumerate().min_by_key(|(_, cause)| cause.sample.event.id);
        match oldest {
            Some((oldest, _)) if self.entries.len() == MAX_CAUSES => {
                let forgotten = std::mem::replace(&mut self.entries[oldest], cause);
                self.forget(forgotten);
                oldest
            }
            _ => {
                self.entries.push(cause);
                self.entries.len() - 1
            }
        }
    }

    fn forget(&mut self, cause: Cause) {
        let (count, first) = self.other.take().map_or((0, u64::MAX), |other| (other.count, other.first));
        self.other = Some(Cause {
            fingerprint: None,
            reason_fingerprint: None,
            child: None,
            count: count + cause.count,
            first: first.min(cause.first),
            ..cause
        });
    }
}

// === impl Cause ===

impl Cause {
    fn is_of(&self, child: &str) -> bool {
        self.child.as_deref() == Some(child)
            || self.child.is_some() && self.sample.event.child.as_ref().is_some_and(|of| &*of.id == child)
    }
}

/// The line that says why.
fn line_of(remains: &Remains) -> Option<&str> {
    error_line(remains.last_output.as_deref()?)
}

fn hint_slot(child: &Arc<ChildRef>) -> usize {
    // Allocations lie at least 16 bytes apart.
    (Arc::as_ptr(child) as usize >> 4) % MAX_CAUSES
}

#[cfg(test)]
mod tests {
    use super::super::history::Fact;
    use super::super::testing::child;
    use super::*;
    use crate::event::{Detail, Panic, Restart};

    /// A failed start that is counted; the reason is the one that would enter the history.
    fn fail(causes: &mut Causes, id: u64, child: &Arc<ChildRef>, reason: ExitReason) -> ExitReason {
        let (place, reason) = causes.place(child, &reason, &Remains::default());
        let fact = Fact::StartError { reason: reason.clone(), attempt: 1, decision: None };
        let event = HistoryEvent { id, at: id, timestamp: 1000 + id, child: Some(child.clone()), fact };
        causes.count(place, child, &event, &Remains::default());
        reason
    }

    fn panicked(message: &str) -> ExitReason {
        ExitReason::Panic(Arc::new(Panic { message: Detail::new(message), location: None }))
    }

    // User promise: 1,655 identical deaths leave the earlier, different death readable.
    #[test]
    fn many_equal_deaths_leave_the_odd_one_visible() {
        let (mut causes, worker) = (Causes::new(), child("worker", Restart::Permanent));
        fail(&mut causes, 1, &worker, ExitReason::Oom);
        for id in 2..1657 {
            fail(&mut causes, id, &worker, panicked("bind: address in use"));
        }
        let list = causes.list(None);
        assert_eq!(list.iter().map(|cause| cause.count).collect::<Vec<_>>(), [1655, 1]);
        assert_eq!((list[0].first, list[0].last, list[0].sample.event.id), (1002, 2656, 1656));
        assert_eq!(list[1].sample.event.reason(), Some(&ExitReason::Oom));
    }

    // New reasons stay visible, old ones join the rest, and no death is lost from the sum.
    #[test]
    fn causes_beyond_the_limit_are_merged_and_the_counts_stay_exact() {
        let (mut causes, worker) = (Causes::new(), child("worker", Restart::Permanent));
        for id in 1..=1000 {
            // Code 0 is seen again and again, so it is never the oldest.
            let code = if id % 2 == 0 { 0 } else { id as i32 };
            fail(&mut causes, id, &worker, ExitReason::Exit(code));
        }
        let list = causes.list(None);
        assert_eq!(list.len(), MAX_CAUSES + 1);
        assert_eq!(list.iter().map(|cause| cause.count).sum::<u64>(), 1000);
        assert_eq!(list[0].sample.event.reason(), Some(&ExitReason::Exit(0)));
        let other = &list[1];
        assert_eq!((other.fingerprint, other.child.as_ref(), other.count), (None, None, 500 - 63));
        assert_eq!((other.first, other.last), (1001, other.sample.event.timestamp));
        assert!(list.iter().any(|cause| cause.sample.event.reason() == Some(&ExitReason::Exit(999))));
    }

    // A ring full of equal panics must not hold a thousand copies of their message.
    #[test]
    fn an_equal_reason_shares_the_text_of_the_known_one() {
        let (mut causes, worker) = (Causes::new(), child("worker", Restart::Permanent));
        let first = fail(&mut causes, 1, &worker, panicked("boom"));
        let second = fail(&mut causes, 2, &worker, panicked("boom"));
        let (ExitReason::Panic(first), ExitReason::Panic(second)) = (first, second) else {
            panic!("both are panics");
        };
        assert!(Arc::ptr_eq(&first, &second));
    }

    // A list for one child leaves out the others, and what was forgotten belongs to nobody.
    #[test]
    fn a_list_can_be_narrowed_to_one_child() {
        let mut causes = Causes::new();
        let (a, b) = (child("a", Restart::Permanent), child("b", Restart::Permanent));
        fail(&mut causes, 1, &a, ExitReason::Killed);
        for id in 2..100 {
            fail(&mut causes, id, &b, ExitReason::Exit(id as i32));
        }
        fail(&mut causes, 100, &a, ExitReason::Oom);
        assert_eq!(causes.list(None).len(), MAX_CAUSES + 1);
        assert_eq!(causes.list(Some("a")).len(), 1);
        assert_eq!(causes.list(Some("c")), []);
    }
}
