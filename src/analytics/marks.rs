//! The newest marks, which stand in the history of every supervisor. Pure.

use std::time::{Duration, Instant};

use super::changes::newest_before;
use super::history::{EventType, Fact, HistoryEntry, HistoryEvent, HistoryFilter, Remains};
use super::ring::Ring;
use crate::event::Mark;

/// Most marks kept: deploys of months.
pub const MAX_MARKS: usize = 100;

/// The marks that are kept.
#[derive(Debug)]
pub(super) struct Marks {
    newest: Ring<HistoryEvent>,
}

// === impl Marks ===

impl Default for Marks {
    fn default() -> Self {
        Self { newest: Ring::new(MAX_MARKS) }
    }
}

impl Marks {
    /// Keeps a mark; `epoch` is the zero of all [`HistoryEvent::at`].
    pub(super) fn push(&mut self, mark: &Mark, epoch: Instant) {
        let since = |duration: Duration| duration.as_nanos().try_into().unwrap_or(u64::MAX);
        let timestamp = mark.time.unix_millis();
        self.newest.push(HistoryEvent {
            id: self.newest.total() + 1,
            at: since(mark.time.monotonic.saturating_duration_since(epoch)),
            timestamp,
            child: None,
            fact: Fact::Mark { text: mark.text.clone() },
        });
    }

    /// The newest mark that was made just before the moment `at`, in monotonic nanoseconds.
    pub(super) fn change_before(&self, at: u64) -> Option<HistoryEvent> {
        newest_before(self.newest.items(), at).cloned()
    }

    /// Puts the marks that the filter wants between events that are sorted newest first.
    pub(super) fn join(&self, events: &mut Vec<HistoryEntry>, filter: &HistoryFilter) {
        let wants_marks = filter.event.is_none_or(|event| event == EventType::Mark);
        if self.newest.items().is_empty() || !wants_marks || filter.child.is_some() || filter.after.is_some() {
            return;
        }
        let marks = self.newest.items().iter().rev();
        events.extend(marks.map(|mark| HistoryEntry { event: mark.clone(), remains: Remains::default() }));
        events.sort_by_key(|entry| std::cmp::Reverse(entry.event.at));
        events.truncate(filter.limit.unwrap_or(usize::MAX));
    }
}
