//! Whose socket is at the other end of a loopback connection, as the kernel lists it in `/proc/net/tcp` and `tcp6` (proc(5)).

use std::net::SocketAddr;

use procfs::net::{TcpNetEntry, tcp, tcp6};

/// Where all user ids of the parent namespace are mapped, none is shown as the overflow id (user_namespaces(7)).
const UID_MAP: &str = "/proc/self/uid_map";
const OVERFLOW_UID: &str = "/proc/sys/kernel/overflowuid";

/// The other end of a connection, as the kernel lists it.
#[derive(Clone, Copy, Debug)]
struct Socket {
    local: SocketAddr,
    remote: SocketAddr,
    uid: u32,
    /// 0 if no process holds the socket any more.
    inode: u64,
}

/// Does the socket at the other end belong to root or to the user of this process? What cannot be read is a no.
///
/// Takes about a microsecond for each TCP socket of the host.
pub(super) fn is_ours(peer: SocketAddr, local: SocketAddr) -> bool {
    // The client of an IPv6 socket may have an IPv4 socket.
    let sockets = [tcp(), tcp6()].into_iter().filter_map(Result::ok).flatten();
    owner(sockets.map(Socket::of), peer, local).is_some_and(is_own)
}

/// Is this root, or the user of this process?
pub(super) fn is_own(uid: u32) -> bool {
    uid == 0 || uid == rustix::process::geteuid().as_raw() && !is_ambiguous(uid)
}

/// The user whose socket has these ends, seen from the peer; none if there is no such socket, or no process holds it any more.
fn owner(sockets: impl Iterator<Item = Socket>, peer: SocketAddr, local: SocketAddr) -> Option<u32> {
    let (peer, local) = (canonical(peer), canonical(local));
    let mut found = sockets
        .filter(|socket| socket.local == peer && socket.remote == local)
        // The kernel shows a socket that its process has closed as one of root, without an inode.
        .map(|socket| (socket.inode > 0).then_some(socket.uid));
    let uid = found.next()??;
    found.all(|other| other == Some(uid)).then_some(uid)
}

/// May this id stand for another user, whom our user namespace does not know?
fn is_ambiguous(uid: u32) -> bool {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let is_overflow = read(OVERFLOW_UID).trim().parse().map_or(true, |overflow: u32| overflow == uid);
    is_overflow && !maps_all(&read(UID_MAP))
}

fn maps_all(uid_map: &str) -> bool {
    uid_map.split_whitespace().eq(["0", "0", "4294967295"])
}

impl Socket {
    fn of(entry: TcpNetEntry) -> Self {
        let (local, remote) = (canonical(entry.local_address), canonical(entry.remote_address));
        Self { local, remote, uid: entry.uid, inode: entry.inode }
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    fn socket(local: &str, remote: &str, uid: u32, inode: u64) -> Socket {
        Socket { local: local.parse().unwrap(), remote: remote.parse().unwrap(), uid, inode }
    }

    // The client's end counts and not ours, in either family; what no process holds any more proves nothing.
    #[test]
    fn the_owner_is_the_user_of_the_clients_socket() {
        let (peer, local) = ("127.0.0.1:40000".parse().unwrap(), "127.0.0.1:8469".parse().unwrap());
        let server = || socket("127.0.0.1:8469", "127.0.0.1:40000", 0, 1);
        let client = |uid, inode| socket("127.0.0.1:40000", "127.0.0.1:8469", uid, inode);
        let of = |sockets: Vec<Socket>| owner(sockets.into_iter(), peer, local);
        assert_eq!(of(vec![server(), client(33, 2)]), Some(33));
        assert_eq!(of(vec![server()]), None);
        assert_eq!(of(vec![client(0, 0)]), None, "a closed socket is shown as one of root");
        assert_eq!(of(vec![client(0, 2), client(33, 3)]), None);
        let (peer, local) = ("[::ffff:127.0.0.1]:40000".parse().unwrap(), "[::ffff:127.0.0.1]:8469".parse().unwrap());
        assert_eq!(owner([client(33, 2)].into_iter(), peer, local), Some(33), "an IPv4 client of an IPv6 socket");
    }

    // In a user namespace the overflow id stands for all users that have no id there.
    #[test]
    fn an_id_is_ambiguous_only_where_some_users_have_none() {
        assert!(maps_all("         0          0 4294967295\n"));
        assert!(!maps_all("         0     100000      65536\n") && !maps_all(""));
    }

    // The real kernel, in both families: our own connection is ours, as long as a process holds it.
    #[test]
    fn a_connection_of_this_process_is_ours() {
        for (address, host) in [("127.0.0.1:0", "127.0.0.1"), ("[::1]:0", "::1"), ("[::]:0", "127.0.0.1")] {
            let listener = TcpListener::bind(address).unwrap();
            let client = TcpStream::connect((host, listener.local_addr().unwrap().port())).unwrap();
            let (server, peer) = listener.accept().unwrap();
            let local = server.local_addr().unwrap();
            assert!(is_ours(peer, local), "{address}");
            drop(client);
            assert!(!is_ours(peer, local), "{address}");
        }
    }
}
