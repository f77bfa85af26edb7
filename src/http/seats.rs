//! The connections that are open: only so many, and when all seats are taken whoever has been silent longest makes room.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::MAX_CONNECTIONS;

/// The seats of one listener. Clones share them.
#[derive(Clone)]
pub(super) struct Seats(Arc<Shared>);

struct Shared {
    free: Arc<Semaphore>,
    taken: Mutex<HashMap<u64, Arc<Seat>>>,
    /// Seats that were ever taken: their numbers.
    count: AtomicU64,
}

/// One connection, as the others see it.
pub(super) struct Seat {
    /// When bytes last moved on it, in either direction.
    moved: Mutex<Instant>,
    leave: Notify,
}

/// A seat that is given back when dropped.
pub(super) struct Taken {
    pub(super) seat: Arc<Seat>,
    number: u64,
    seats: Seats,
    _permit: OwnedSemaphorePermit,
}

// === impl Seats ===

impl Seats {
    pub(super) fn new() -> Self {
        let free = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        Self(Arc::new(Shared { free, taken: Mutex::default(), count: AtomicU64::new(0) }))
    }

    /// A seat, if one is free.
    pub(super) fn try_take(&self) -> Option<Taken> {
        self.0.free.clone().try_acquire_owned().ok().map(|permit| self.taken(permit))
    }

    /// A seat, after whoever has been silent longest was told to leave. None if there are no seats any more.
    ///
    /// A scrape that is being answered moves bytes all the time, so those who only wait leave before it; and a newcomer
    /// never waits for their patience to end.
    pub(super) async fn take_from_most_silent(&self) -> Option<Taken> {
        let most_silent = self.0.taken.lock().values().min_by_key(|seat| *seat.moved.lock()).cloned();
        if let Some(seat) = most_silent {
            seat.leave.notify_one();
        }
        self.0.free.clone().acquire_owned().await.ok().map(|permit| self.taken(permit))
    }

    fn taken(&self, permit: OwnedSemaphorePermit) -> Taken {
        let seat = Arc::new(Seat { moved: Mutex::new(Instant::now()), leave: Notify::new() });
        let number = self.0.count.fetch_add(1, Ordering::Relaxed);
        self.0.taken.lock().insert(number, seat.clone());
        Taken { seat, number, seats: self.clone(), _permit: permit }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.seats.0.taken.lock().remove(&self.number);
    }
}

// === impl Seat ===

impl Seat {
    /// Notes that bytes have moved.
    pub(super) fn moved(&self) {
        *self.moved.lock() = Instant::now();
    }

    /// Returns when the seat is needed by somebody else.
    pub(super) async fn told_to_leave(&self) {
        self.leave.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    // The seat of whoever has been silent longest is given to a newcomer, and every other one stays.
    #[tokio::test(start_paused = true)]
    async fn the_most_silent_makes_room() {
        let seats = Seats::new();
        let mut taken = Vec::new();
        for _ in 0..MAX_CONNECTIONS {
            taken.push(seats.try_take().unwrap());
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        assert!(seats.try_take().is_none(), "all seats are taken");
        taken[0].seat.moved();
        let most_silent = taken.remove(1);
        let leaves = tokio::spawn(async move {
            most_silent.seat.told_to_leave().await;
            drop(most_silent);
        });
        let newcomer = seats.take_from_most_silent().await.unwrap();
        leaves.await.unwrap();
        for seated in taken.iter().chain([&newcomer]) {
            let leaves = tokio::time::timeout(Duration::from_secs(1), seated.seat.told_to_leave());
            assert!(leaves.await.is_err(), "{} was told to leave", seated.number);
        }
        assert_eq!(seats.0.taken.lock().len(), MAX_CONNECTIONS);
        drop((taken, newcomer));
        assert!(seats.0.taken.lock().is_empty() && seats.try_take().is_some());
    }
}
