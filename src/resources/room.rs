//! Room for so many things. Who has a place has it until the place is dropped, so that none is forgotten. And tables that
//! give their memory back with the things in them, or many that were full once would take more than the things.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash};
use std::mem::size_of;
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

/// Gives memory back if a table has become emptier than [`entry_bytes`] allows. Called after each removal, it costs as little
/// as growing does.
pub(crate) fn shrink<K: Eq + Hash, V, S: BuildHasher>(table: &mut HashMap<K, V, S>) {
    if table.len() * 4 <= table.capacity() {
        table.shrink_to(table.len() * 2);
    }
}

/// The same for a list.
pub(crate) fn shrink_list<T>(list: &mut Vec<T>) {
    if list.len() * 4 <= list.capacity() {
        list.shrink_to(list.len() * 2);
    }
}

/// Most bytes that an entry takes in a table that grows by doubling, and gives memory back when it is a quarter full.
pub(crate) const fn entry_bytes<T>() -> usize {
    // Of eight buckets seven are used before it grows, and each has a byte beside its entry.
    (size_of::<T>() + 1) * 4 * 8 / 7
}

#[cfg(test)]
mod tests {
    use super::*;

    // However many there were: a table takes the memory of what is in it, and removing costs no more than adding.
    #[test]
    fn a_table_that_was_full_gives_its_memory_back() {
        let (mut table, mut list): (HashMap<u32, [u8; 100]>, Vec<u32>) = Default::default();
        for number in 0..1000 {
            table.insert(number, [0; 100]);
            list.push(number);
        }
        for number in 0..1000 {
            table.remove(&number);
            shrink(&mut table);
            list.pop();
            shrink_list(&mut list);
            assert!(table.capacity() <= (4 * table.len()).max(3), "{} for {}", table.capacity(), table.len());
            assert!(list.capacity() <= 4 * list.len(), "{} for {}", list.capacity(), list.len());
        }
    }

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
