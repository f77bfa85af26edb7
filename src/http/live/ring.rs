//! The newest events in the order in which they came, bounded by what they weigh. Pure.

use std::collections::VecDeque;

/// Things that are numbered from 1 without gaps, the newest of them kept.
pub(super) struct Ring<T> {
    /// Each with its weight, oldest first.
    kept: VecDeque<(T, usize)>,
    /// The number of the newest; 0 before the first.
    newest: u64,
    weight: usize,
    capacity: usize,
}

/// What follows a place in a [`Ring`].
pub(super) struct Following<T> {
    /// How many came after the place and are not kept any more.
    pub(super) missed: u64,
    /// The number of the first one of `items`.
    pub(super) first: u64,
    /// Oldest first.
    pub(super) items: Vec<T>,
}

impl<T: Clone> Ring<T> {
    /// An empty ring that grows up to this weight.
    pub(super) fn new(capacity: usize) -> Self {
        Self { kept: VecDeque::new(), newest: 0, weight: 0, capacity }
    }

    /// Adds the newest. The oldest ones leave until all that are kept weigh no more than the capacity; the newest stays,
    /// whatever its weight.
    pub(super) fn push(&mut self, item: T, weight: usize) {
        self.kept.push_back((item, weight));
        self.newest += 1;
        self.weight += weight;
        while self.weight > self.capacity && self.kept.len() > 1 {
            if let Some((_, weight)) = self.kept.pop_front() {
                self.weight -= weight;
            }
        }
    }

    /// The number of the newest; 0 before the first.
    pub(super) fn newest(&self) -> u64 {
        self.newest
    }

    /// What came after the one with this number, at most `most`.
    pub(super) fn after(&self, number: u64, most: usize) -> Following<T> {
        let gone = self.newest - self.kept.len() as u64;
        let place = number.clamp(gone, self.newest);
        let items = self.kept.iter().skip((place - gone) as usize).take(most).map(|(item, _)| item.clone());
        Following { missed: gone.saturating_sub(number), first: place + 1, items: items.collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(ring: &Ring<u64>, number: u64, most: usize) -> (u64, u64, Vec<u64>) {
        let Following { missed, first, items } = ring.after(number, most);
        (missed, first, items)
    }

    // Whoever reads on from the last number it has gets each item once, and is told how many are gone.
    #[test]
    fn nothing_is_given_twice_and_what_is_gone_is_counted() {
        let mut ring = Ring::new(3);
        assert_eq!((ring.newest(), after(&ring, 0, 9)), (0, (0, 1, vec![])));
        (1..=5).for_each(|number| ring.push(number, 1));
        assert_eq!(ring.newest(), 5);
        assert_eq!(after(&ring, 0, 9), (2, 3, vec![3, 4, 5]));
        assert_eq!(after(&ring, 1, 2), (1, 3, vec![3, 4]));
        assert_eq!(after(&ring, 2, 9), (0, 3, vec![3, 4, 5]));
        assert_eq!(after(&ring, 4, 9), (0, 5, vec![5]));
        assert_eq!(after(&ring, 5, 9), (0, 6, vec![]));
        assert_eq!(after(&ring, 7, 9), (0, 6, vec![]));
    }

    // Bounded by weight and not by number: one event may carry the last words of a child, another nothing.
    #[test]
    fn a_heavy_one_drives_out_many_and_the_newest_stays() {
        let mut ring = Ring::new(10);
        (1..=10).for_each(|number| ring.push(number, 1));
        assert_eq!(after(&ring, 0, 99).0, 0);
        ring.push(11, 8);
        assert_eq!(after(&ring, 0, 99), (8, 9, vec![9, 10, 11]));
        ring.push(12, 100);
        assert_eq!(after(&ring, 0, 99), (11, 12, vec![12]));
        ring.push(13, 1);
        assert_eq!(after(&ring, 0, 99), (12, 13, vec![13]));
    }
}
