//! Work that waits, taken in turn from each address that asks for it, so that one address cannot keep the others waiting. Pure.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr};

/// Where a request comes from, as far as turns are concerned: one host, or one network of IPv6, which a host has all of. None
/// where there are no addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Origin(Option<IpAddr>);

/// What waits: at most so much for each origin, and at most so much in all.
pub(super) struct Turns<T> {
    waiting: HashMap<Origin, VecDeque<T>>,
    /// The origins that have something waiting; the next turn is that of the first.
    order: VecDeque<Origin>,
    most_of_one: usize,
    most: usize,
}

impl Origin {
    /// Of requests without an address.
    pub(super) const NONE: Origin = Origin(None);

    pub(super) fn of(address: IpAddr) -> Self {
        Self(Some(match address.to_canonical() {
            IpAddr::V6(address) => {
                let network = u128::from(address) & !u128::from(u64::MAX);
                IpAddr::V6(Ipv6Addr::from(network))
            }
            address => address,
        }))
    }
}

impl<T> Turns<T> {
    pub(super) fn new(most_of_one: usize, most: usize) -> Self {
        Self { waiting: HashMap::new(), order: VecDeque::new(), most_of_one, most }
    }

    /// Has this wait for its turn. If there is no room at all, the newest of the origin with the most makes room.
    ///
    /// # Errors
    /// If its own origin has as much waiting as any may have, or as the one with the most.
    pub(super) fn push(&mut self, origin: Origin, item: T) -> Result<(), T> {
        let own = self.waiting.get(&origin).map_or(0, VecDeque::len);
        if own >= self.most_of_one {
            return Err(item);
        }
        if self.len() >= self.most {
            let longest = self.waiting.values_mut().max_by_key(|items| items.len());
            match longest.filter(|items| items.len() > own + 1) {
                Some(items) => drop(items.pop_back()),
                None => return Err(item),
            }
        }
        let items = self.waiting.entry(origin).or_default();
        if items.is_empty() {
            self.order.push_back(origin);
        }
        items.push_back(item);
        Ok(())
    }

    /// Takes what has the next turn: the oldest of the origin that has waited longest.
    pub(super) fn take(&mut self) -> Option<T> {
        let origin = self.order.pop_front()?;
        let items = self.waiting.get_mut(&origin)?;
        let item = items.pop_front();
        if items.is_empty() {
            self.waiting.remove(&origin);
        } else {
            self.order.push_back(origin);
        }
        item
    }

    /// Everything that waits.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.waiting.values_mut().flatten()
    }

    fn len(&self) -> usize {
        self.waiting.values().map(VecDeque::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(address: &str) -> Origin {
        Origin::of(address.parse().unwrap())
    }

    fn all<T>(mut turns: Turns<T>) -> Vec<T> {
        std::iter::from_fn(|| turns.take()).collect()
    }

    // However much one origin asks for, each other one has the next turn but one at the latest.
    #[test]
    fn origins_take_turns() {
        let mut turns = Turns::new(10, 100);
        for number in 0..4 {
            turns.push(origin("192.0.2.1"), ("busy", number)).unwrap();
        }
        turns.push(origin("192.0.2.2"), ("calm", 0)).unwrap();
        turns.push(origin("192.0.2.3"), ("calm too", 0)).unwrap();
        turns.push(origin("192.0.2.2"), ("calm", 1)).unwrap();
        let order = [("busy", 0), ("calm", 0), ("calm too", 0), ("busy", 1), ("calm", 1), ("busy", 2), ("busy", 3)];
        assert_eq!(all(turns), order);
    }

    // One origin has a bound of its own. Where all room is taken, the newest of the one with the most makes room for another.
    #[test]
    fn an_origin_with_much_makes_room_for_another() {
        let mut turns = Turns::new(3, 4);
        for number in 0..3 {
            turns.push(origin("192.0.2.1"), number).unwrap();
        }
        assert_eq!(turns.push(origin("192.0.2.1"), 3), Err(3));
        turns.push(origin("192.0.2.2"), 10).unwrap();
        turns.push(origin("192.0.2.3"), 20).unwrap();
        assert_eq!(turns.push(origin("192.0.2.4"), 30), Ok(()));
        assert_eq!(turns.push(origin("192.0.2.5"), 40), Err(40), "no origin has two more than it");
        assert_eq!(all(turns), [0, 10, 20, 30]);
    }

    // A host may have all addresses of an IPv6 network of 64 bits, and an IPv4 address may be written as an IPv6 one.
    #[test]
    fn an_origin_is_a_host_or_a_network() {
        assert_eq!(origin("2001:db8::1"), origin("2001:db8::ffff:1"));
        assert_ne!(origin("2001:db8:0:1::1"), origin("2001:db8::1"));
        assert_eq!(origin("::ffff:192.0.2.1"), origin("192.0.2.1"));
        assert_ne!(origin("192.0.2.1"), origin("192.0.2.2"));
        assert_ne!(Origin::NONE, origin("192.0.2.1"));
    }
}
