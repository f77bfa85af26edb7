//! What the system lets this process have. Children come first: connections never take the file descriptors that starting
//! a child needs.
//!
//! A leaf: it knows nothing of supervisors or listeners. Supervisors say how many processes they run, and listeners ask
//! how many connections they may hold.

mod room;
mod seats;
mod seldom;
mod shortage;

use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicUsize, Ordering};

use once_cell::sync::{Lazy, OnceCell};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::watch;

pub(crate) use room::{Place, Room, entry_bytes, shrink, shrink_list};
pub(crate) use seats::{Seat, Seats, Settled, Taken};
pub(crate) use seldom::{Seldom, accept_failed};
pub(crate) use shortage::Shortage;

/// Descriptors for everything but processes and connections: standard streams, the runtime, sockets that listen, files
/// that are read now and then, and the seven that exist for a moment while a process is started.
const OWN_DESCRIPTORS: usize = 32;

/// Descriptors for one process: two pipes, its pidfd, and a probe of its readiness with its own.
const DESCRIPTORS_PER_PROCESS: usize = 6;

/// Connections that are accepted whatever the limit, of all listeners together.
const LEAST_CONNECTIONS: usize = 8;

/// Connections that may wait to be accepted on one socket, as far as the system allows (`net.core.somaxconn`). When more
/// come at once, the system drops their first packet, and each of them loses a second.
pub(crate) const LISTEN_BACKLOG: i32 = 1024;

/// The limits of open files as they were before they were raised.
static ORIGINAL: OnceCell<Rlimit> = OnceCell::new();

static ALIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

/// Moves when connections may be fewer than before.
static CHANGES: Lazy<watch::Sender<()>> = Lazy::new(watch::Sender::default);

/// A process that runs, or waits to be started; until dropped.
pub(crate) struct Alive(());

/// Raises the soft limit of open files of this process to the hard one. Processes that supervisors start get the limits
/// that were there before.
///
/// # Errors
/// If the system refuses, because the hard limit is above what it allows by now. Nothing has changed then.
pub fn raise_open_files() -> io::Result<()> {
    let original = getrlimit(Resource::Nofile);
    if original.current != original.maximum {
        setrlimit(Resource::Nofile, Rlimit { current: original.maximum, maximum: original.maximum })?;
        // Whoever raised it first knows what it was.
        let _ = ORIGINAL.set(original);
    }
    Ok(())
}

/// Lets [`LISTEN_BACKLOG`] connections wait on a socket that listens; listen(2) may be called again for that.
///
/// # Errors
/// If it does not listen.
pub(crate) fn set_backlog(socket: impl AsFd) -> io::Result<()> {
    Ok(rustix::net::listen(socket, LISTEN_BACKLOG)?)
}

/// The limits of open files that a child gets; none if it just inherits ours.
pub(crate) fn open_files_of_children() -> Option<Rlimit> {
    ORIGINAL.get().cloned()
}

/// Connections that the listeners of one protocol may hold together. There are two, HTTP and that of nodes.
pub(crate) fn connections() -> usize {
    let limit = getrlimit(Resource::Nofile).current;
    let limit = limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    left_for_connections(limit, PEAK.load(Ordering::Relaxed)) / 2
}

fn left_for_connections(limit: usize, processes: usize) -> usize {
    let reserved = processes.saturating_mul(DESCRIPTORS_PER_PROCESS).saturating_add(OWN_DESCRIPTORS);
    limit.saturating_sub(reserved).max(LEAST_CONNECTIONS)
}

/// Hears when [`connections`] may have become fewer.
pub(crate) fn changes() -> watch::Receiver<()> {
    CHANGES.subscribe()
}

impl Alive {
    /// One process more.
    pub(crate) fn one_more() -> Self {
        let alive = ALIVE.fetch_add(1, Ordering::Relaxed) + 1;
        // The peak and not what lives now: between two runs of a child its descriptors stay reserved.
        if PEAK.fetch_max(alive, Ordering::Relaxed) < alive {
            CHANGES.send_replace(());
        }
        Self(())
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        ALIVE.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Whatever connections there are, the processes and one that is being started find their descriptors.
    #[test]
    fn connections_leave_room_for_processes() {
        assert_eq!(left_for_connections(256, 1), 218);
        assert_eq!(left_for_connections(64, 2), 20);
        assert_eq!(left_for_connections(64, 50), LEAST_CONNECTIONS);
        assert_eq!(left_for_connections(usize::MAX, usize::MAX), LEAST_CONNECTIONS);
        for processes in 0..100 {
            let connections = left_for_connections(1024, processes);
            assert!(connections + processes * 6 + 32 <= 1024, "{connections} beside {processes}");
        }
    }

    // The peak counts: a child that is down for a moment comes back.
    #[test]
    fn a_process_that_ended_keeps_its_descriptors() {
        drop([(); 3].map(|()| Alive::one_more()));
        assert!(PEAK.load(Ordering::Relaxed) >= 3);
    }
}
