//! Room for so many things. Who has a place has it until the place is dropped, so that none is forgotten.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Room for at most `limit` things. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Room(Arc<Inner>);

/// The place of one thing, given back when dropped.
#[derive(Debug)]
pub(crate) struct Place(Room);

#[derive(Debug)]
struct Inner {
    limit: usize,
    taken: AtomicUsize,
    refused: AtomicU64,
}

// === impl Room ===

impl Room {
    pub(crate) fn new(limit: usize) -> Self {
        Self(Arc::new(Inner { limit, taken: AtomicUsize::new(0), refused: AtomicU64::new(0) }))
    }

    /// A place; none if all are taken, which is counted.
    pub(crate) fn take(&self) -> Option<Place> {
        let Inner { limit, taken, refused } = &*self.0;
        let one_more = |taken| (taken < *limit).then_some(taken + 1);
        if taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_err() {
            refused.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(Place(self.clone()))
    }

    /// How often there was no place.
    pub(crate) fn refused(&self) -> u64 {
        self.0.refused.load(Ordering::Relaxed)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.0.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // A place that is given back can be taken again, and there are never more than the limit.
    #[test]
    fn places_are_taken_until_there_is_none() {
        let room = Room::new(2);
        let (one, two) = (room.take(), room.take());
        assert!(one.is_some() && two.is_some() && room.take().is_none());
        drop(one);
        let again = room.clone().take();
        assert!(again.is_some() && room.take().is_none());
        assert_eq!(room.refused(), 2);
    }
}
