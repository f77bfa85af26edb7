//! How much memory what is kept takes at most. Pure.

use std::mem::size_of;

use super::AnalyticsConfig;
use super::causes::{Cause, MAX_CAUSES};
use super::children::{LISTED_BYTES, MAX_LISTED_OF_NODES};
use super::history::HistoryEvent;
use super::record::{MAX_INTENSITY_STAMPS, Record};
use super::stats::{MAX_SECONDS_COUNTED, Totals};
use crate::event::ChildRef;

/// What an allocation takes beside its content: counts of references, and what the allocator adds.
const ALLOCATION: usize = 40;

/// Names of a supervisor and its parent, and the place in the lists of records.
const NAMES: usize = 1024;

// === impl AnalyticsConfig ===

impl AnalyticsConfig {
    /// Most bytes of memory that the supervisors of all nodes together take here, whatever their nodes send.
    ///
    /// Texts of nodes are not among them, because [`NodeLimits`](crate::beam::NodeLimits) bound them wherever they are.
    /// Supervisors of this process take more: their last output, and as many children as they have specs.
    pub fn most_bytes(&self) -> usize {
        (self.max_supervisors + 1) * self.record_bytes() + MAX_LISTED_OF_NODES * LISTED_BYTES
    }

    /// Each ring of a record when it is full, and for each event and cause a description of a child of its own.
    fn record_bytes(&self) -> usize {
        let child = size_of::<ChildRef>() + ALLOCATION;
        let events = self.history_capacity * (size_of::<HistoryEvent>() + child);
        let stamps = (2 * self.history_capacity + MAX_INTENSITY_STAMPS) * size_of::<u64>();
        let seconds = MAX_SECONDS_COUNTED * size_of::<(u64, Totals)>();
        let causes = (MAX_CAUSES + 1) * (size_of::<Cause>() + child);
        size_of::<Record>() + NAMES + events + stamps + seconds + causes
    }
}
