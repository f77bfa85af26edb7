//! The connections that are open: only so many, and when all seats are taken whoever has been silent longest makes room.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

/// The seats of all listeners of one protocol. Clones share them.
#[derive(Clone)]
pub(crate) struct Seats(Arc<Shared>);

struct Shared {
    /// How many there are now.
    most: Box<dyn Fn() -> usize + Send + Sync>,
    state: Mutex<State>,
    freed: Notify,
}

#[derive(Default)]
struct State {
    taken: HashMap<u64, Arc<Seat>>,
    /// Seats that were ever taken: their numbers.
    count: u64,
    /// Newcomers for whom others were told to leave.
    waiting: usize,
}

/// One connection, as the others see it.
pub(crate) struct Seat {
    /// When bytes last moved on it, in either direction.
    moved: Mutex<Instant>,
    /// Reasons for which it makes no room for a newcomer.
    settled: AtomicUsize,
    told: AtomicBool,
    leave: Notify,
}

/// A seat that is given back when dropped.
pub(crate) struct Taken {
    pub(crate) seat: Arc<Seat>,
    number: u64,
    seats: Seats,
}

/// A reason for which a seat makes no room for newcomers; until dropped.
pub(crate) struct Settled(Arc<Seat>);

/// A newcomer who waits; until dropped.
struct Waiting<'a>(&'a Seats);

// === impl Seats ===

impl Seats {
    /// As many seats as `most` says, which is asked whenever somebody comes.
    pub(crate) fn new(most: impl Fn() -> usize + Send + Sync + 'static) -> Self {
        Self(Arc::new(Shared { most: Box::new(most), state: Mutex::default(), freed: Notify::new() }))
    }

    /// How many there are now.
    pub(crate) fn most(&self) -> usize {
        (self.0.most)()
    }

    /// A seat, if one is free.
    pub(crate) fn try_take(&self) -> Option<Taken> {
        let most = self.most();
        let mut state = self.0.state.lock();
        if state.taken.len() >= most {
            return None;
        }
        let seat = Arc::new(Seat::new());
        let number = state.count;
        state.count += 1;
        state.taken.insert(number, seat.clone());
        Some(Taken { seat, number, seats: self.clone() })
    }

    /// A seat, after whoever has been silent longest has left. None if all who sit have settled.
    ///
    /// A scrape that is being answered moves bytes all the time, so those who only wait leave before it; and a newcomer
    /// never waits for their patience to end.
    pub(crate) async fn take_from_most_silent(&self) -> Option<Taken> {
        let _waiting = Waiting::new(self);
        loop {
            let mut freed = pin!(self.0.freed.notified());
            freed.as_mut().enable();
            if let Some(taken) = self.try_take() {
                return Some(taken);
            }
            if !self.make_room(false) {
                return None;
            }
            freed.await;
        }
    }

    /// Has those leave who are too many, whenever there are fewer seats than before. Never returns.
    pub(crate) async fn follow_changes(&self) {
        let mut changes = super::changes();
        while changes.changed().await.is_ok() {
            self.make_room(true);
        }
    }

    /// Tells as many to leave as are too many, the most silent first, and last those who have settled if they may be told.
    /// Is anybody leaving?
    fn make_room(&self, settled_too: bool) -> bool {
        let most = self.most();
        let state = self.0.state.lock();
        let too_many = (state.taken.len() + state.waiting).saturating_sub(most);
        let mut leaving = state.taken.values().filter(|seat| seat.is_told()).count();
        while leaving < too_many {
            let staying = state.taken.values().filter(|seat| !seat.is_told() && (settled_too || !seat.is_settled()));
            let Some(seat) = staying.min_by_key(|seat| (seat.is_settled(), *seat.moved.lock())) else { break };
            seat.told.store(true, Ordering::Relaxed);
            seat.leave.notify_one();
            leaving += 1;
        }
        leaving > 0
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.seats.0.state.lock().taken.remove(&self.number);
        self.seats.0.freed.notify_waiters();
    }
}

impl Drop for Settled {
    fn drop(&mut self) {
        self.0.settled.fetch_sub(1, Ordering::Relaxed);
    }
}

// === impl Waiting ===

impl<'a> Waiting<'a> {
    fn new(seats: &'a Seats) -> Self {
        seats.0.state.lock().waiting += 1;
        Self(seats)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.0.state.lock().waiting -= 1;
    }
}

// === impl Seat ===

impl Seat {
    fn new() -> Self {
        Self {
            moved: Mutex::new(Instant::now()),
            settled: AtomicUsize::new(0),
            told: AtomicBool::new(false),
            leave: Notify::new(),
        }
    }

    /// Notes that bytes have moved.
    pub(crate) fn moved(&self) {
        *self.moved.lock() = Instant::now();
    }

    /// Makes no room for newcomers until what is returned is dropped.
    pub(crate) fn settle(self: &Arc<Self>) -> Settled {
        self.settled.fetch_add(1, Ordering::Relaxed);
        Settled(self.clone())
    }

    /// Returns when the seat is needed by somebody else.
    pub(crate) async fn told_to_leave(&self) {
        self.leave.notified().await;
    }

    fn is_settled(&self) -> bool {
        self.settled.load(Ordering::Relaxed) > 0
    }

    fn is_told(&self) -> bool {
        self.told.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;
    use std::time::Duration;

    const SEATS: usize = 100;

    async fn full(seats: &Seats) -> Vec<Taken> {
        let mut taken = Vec::new();
        while let Some(one) = seats.try_take() {
            taken.push(one);
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        taken
    }

    /// Leaves when told to.
    fn obey(taken: Taken) -> tokio::task::JoinHandle<u64> {
        tokio::spawn(async move {
            taken.seat.told_to_leave().await;
            taken.number
        })
    }

    // The seat of whoever has been silent longest is given to a newcomer, and every other one stays.
    #[tokio::test(start_paused = true)]
    async fn the_most_silent_makes_room() {
        let seats = Seats::new(|| SEATS);
        let mut taken = full(&seats).await;
        assert_eq!(taken.len(), SEATS);
        taken[0].seat.moved();
        let leaves = obey(taken.remove(1));
        let newcomer = seats.take_from_most_silent().await.unwrap();
        assert_eq!(leaves.await.unwrap(), 1);
        for seated in taken.iter().chain([&newcomer]) {
            let leaves = tokio::time::timeout(Duration::from_secs(1), seated.seat.told_to_leave());
            assert!(leaves.await.is_err(), "{} was told to leave", seated.number);
        }
        assert!(seats.try_take().is_none(), "all seats are taken");
        drop((taken, newcomer));
        assert!(seats.0.state.lock().taken.is_empty() && seats.try_take().is_some());
    }

    // Each of those who wait at the same time, at different listeners, gets a seat of its own.
    #[tokio::test(start_paused = true)]
    async fn newcomers_at_the_same_time_do_not_wait_for_the_same_seat() {
        let seats = Seats::new(|| SEATS);
        let mut all: Vec<_> = full(&seats).await.into_iter().map(obey).collect();
        let take = async || seats.take_from_most_silent().await.unwrap().number;
        let (one, two, three) = tokio::join!(take(), take(), take());
        assert!(one != two && two != three && one != three);
        for (number, leaves) in all.drain(..3).enumerate() {
            assert_eq!(leaves.await.unwrap(), number as u64);
        }
        tokio::task::yield_now().await;
        assert!(all.iter().all(|task| !task.is_finished()), "one seat for each, and no more");
    }

    // Who has settled keeps the seat; where all have, a newcomer gets none.
    #[tokio::test(start_paused = true)]
    async fn who_has_settled_makes_no_room() {
        let seats = Seats::new(|| 3);
        let mut taken = full(&seats).await;
        let _first = taken[0].seat.settle();
        let last = taken[2].seat.settle();
        let leaves = obey(taken.remove(1));
        let newcomer = seats.take_from_most_silent().await.unwrap();
        assert_eq!(leaves.await.unwrap(), 1);
        let _newcomer = newcomer.seat.settle();
        assert!(seats.take_from_most_silent().await.is_none());
        drop(last);
        let leaves = obey(taken.remove(1));
        assert!(seats.take_from_most_silent().await.is_some());
        assert_eq!(leaves.await.unwrap(), 2, "it had settled for a while only");
    }

    // When there are fewer seats those who are too many leave, first who has not settled.
    #[tokio::test(start_paused = true)]
    async fn who_is_too_many_leaves_when_seats_become_fewer() {
        static MOST: AtomicUsize = AtomicUsize::new(4);
        let seats = Seats::new(|| MOST.load(Ordering::Relaxed));
        let taken = full(&seats).await;
        let _settled: Vec<_> = taken[..2].iter().map(|one| one.seat.settle()).collect();
        let all: Vec<_> = taken.into_iter().map(obey).collect();
        MOST.store(1, Ordering::Relaxed);
        assert!(seats.make_room(true));
        tokio::time::sleep(Duration::from_secs(1)).await;
        let left: Vec<_> = all.iter().map(|task| task.is_finished()).collect();
        assert_eq!(left, [true, false, true, true]);
    }
}
