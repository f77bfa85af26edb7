//! The newest items of a sequence, in memory that grows with use and never beyond the limit.

use std::collections::VecDeque;

/// Keeps the newest `limit` items. The cost of a push does not depend on how many there are.
#[derive(Debug)]
pub(super) struct Ring<T> {
    items: VecDeque<T>,
    limit: usize,
    evicted: u64,
}

// === impl Ring ===

impl<T> Ring<T> {
    /// An empty ring that has not allocated. With a limit of 0 it only counts.
    pub(super) fn new(limit: usize) -> Self {
        Self { items: VecDeque::new(), limit, evicted: 0 }
    }

    /// Adds the newest item; returns the one that had to leave for it.
    #[inline]
    pub(super) fn push(&mut self, item: T) -> Option<T> {
        if self.limit == 0 {
            self.evicted += 1;
            return Some(item);
        }
        let evicted = if self.items.len() == self.limit { self.items.pop_front() } else { None };
        self.evicted += u64::from(evicted.is_some());
        if self.items.len() == self.items.capacity() {
            self.grow();
        }
        self.items.push_back(item);
        evicted
    }

    /// Apart from `push`, which is then small enough to be inlined, and where nobody asks what left, nobody reads it.
    #[cold]
    fn grow(&mut self) {
        // By itself a VecDeque doubles, which may take it far beyond the limit.
        let room = self.items.len().clamp(4, self.limit.max(4)).min(self.limit - self.items.len());
        self.items.reserve_exact(room);
    }

    /// What is kept, oldest first.
    pub(super) fn items(&self) -> &VecDeque<T> {
        &self.items
    }

    /// The newest item kept.
    pub(super) fn newest_mut(&mut self) -> Option<&mut T> {
        self.items.back_mut()
    }

    /// Most items kept.
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// Items that had to leave.
    pub(super) fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Items ever pushed.
    pub(super) fn total(&self) -> u64 {
        self.evicted + self.items.len() as u64
    }
}

impl Ring<u64> {
    /// How many of a ring of rising numbers are not less than `from`.
    pub(super) fn count_from(&self, from: u64) -> usize {
        self.items.len() - self.items.partition_point(|&item| item < from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // A ring keeps the newest, counts the rest, and takes memory only as it is used.
    #[test]
    fn the_newest_stay_and_memory_follows_use() {
        for limit in [0, 1, 3, 10, 1000] {
            let mut ring = Ring::new(limit);
            assert_eq!(ring.items().capacity(), 0);
            for number in 1..=2500u64 {
                let evicted = ring.push(number);
                assert_eq!(evicted, number.checked_sub(limit as u64).filter(|&left| left > 0));
                assert!(ring.items().capacity() <= limit.min(ring.items().len() * 2).max(4.min(limit)));
            }
            assert_eq!((ring.items().len(), ring.total(), ring.evicted()), (limit, 2500, 2500 - limit as u64));
            assert!(ring.items().iter().copied().eq(2501 - limit as u64..=2500));
        }
    }
}
