//! Who asks: what is known of the other end of a request.

use std::net::SocketAddr;
use std::sync::Arc;

use hyper::header::{FORWARDED, HeaderMap, HeaderName, VIA};
use tokio::sync::OnceCell;

use super::turns::Origin;
use super::{host, owner};

const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// How the names of the headers begin that proxies add, beside those that have a name of their own.
const X_FORWARDED: &str = "x-forwarded-";

/// Where a request comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Peer {
    /// Another host, another user of this host, a proxy, or unknown.
    #[default]
    Remote,
    /// Root, or the user of this process, on this host over TCP.
    Loopback,
    /// This host, over a Unix socket: one of ours, or root or the user of this process over one of another program.
    Unix,
}

/// Who asks. Each request carries one among its extensions; a program that runs a hyper server of its own may put one
/// there, and without it the request counts as one of a stranger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Viewer {
    /// Where the request comes from.
    pub peer: Peer,
    /// Whether a password or a certificate has proved who it is.
    pub authenticated: bool,
}

/// The two ends of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http) enum Ends {
    /// A Unix socket whose file only our own user and root can open.
    Unix,
    /// A Unix socket of another program, such as systemd, whose file may be open to all; and who is at its other end.
    PassedUnix {
        uid: u32,
    },
    Tcp {
        peer: SocketAddr,
        local: SocketAddr,
    },
    /// The system does not say, because the peer has gone.
    Unknown,
}

/// What is found out about the other end of a connection when a request depends on it.
#[derive(Clone, Default)]
pub(super) struct Proof(Arc<OnceCell<bool>>);

impl Viewer {
    /// Whether it may see what is not for everyone, such as the output of programs, and give orders: it is root or the
    /// exporter's own user on this host, or it has proved who it is.
    pub fn is_trusted(self) -> bool {
        self.authenticated || self.peer != Peer::Remote
    }
}

impl Ends {
    /// Whose turn a request on this connection takes.
    pub(super) fn origin(self) -> Origin {
        match self {
            Ends::Tcp { peer, .. } => Origin::of(peer.ip()),
            Ends::Unix | Ends::PassedUnix { .. } | Ends::Unknown => Origin::NONE,
        }
    }

    /// Where a request on this connection comes from, for the host it names.
    ///
    /// A proxy on this host passes on the requests of others; so the socket must be one of root or of our own user, and
    /// there must be no header of a proxy. A page of another site reaches this host through its visitor's browser, by a
    /// name of its own (DNS rebinding); so the host must be a loopback one. What cannot be proved is remote.
    pub(super) async fn peer(self, headers: &HeaderMap, host: &str, proof: &Proof) -> Peer {
        match self {
            Ends::Unix => Peer::Unix,
            Ends::PassedUnix { uid } if owner::is_own(uid) => Peer::Unix,
            Ends::Tcp { peer, local } => {
                let is_direct = is_loopback(peer) && host::is_loopback(host) && !is_forwarded(headers);
                if is_direct && proof.is_ours(peer, local).await { Peer::Loopback } else { Peer::Remote }
            }
            Ends::PassedUnix { .. } | Ends::Unknown => Peer::Remote,
        }
    }
}

impl Proof {
    async fn is_ours(&self, peer: SocketAddr, local: SocketAddr) -> bool {
        // The list of sockets may be long.
        let look = || tokio::task::spawn_blocking(move || owner::is_ours(peer, local));
        *self.0.get_or_init(|| async move { look().await.unwrap_or(false) }).await
    }
}

fn is_loopback(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

/// Does a proxy say that it passes this on?
fn is_forwarded(headers: &HeaderMap) -> bool {
    let names = [FORWARDED, VIA, X_REAL_IP];
    names.iter().any(|name| headers.contains_key(name))
        || headers.keys().any(|name| name.as_str().starts_with(X_FORWARDED))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(peer: &str) -> Ends {
        Ends::Tcp { peer: peer.parse().unwrap(), local: "127.0.0.1:8469".parse().unwrap() }
    }

    fn proof(is_ours: bool) -> Proof {
        Proof(Arc::new(OnceCell::new_with(Some(is_ours))))
    }

    // Root and our own user on this host, over a Unix socket, or proved. An IPv4 address may be written as an IPv6 one.
    #[tokio::test]
    async fn only_our_own_user_on_this_host_and_the_proved_are_trusted() {
        let none = HeaderMap::new();
        for (address, is_local) in [
            ("127.0.0.1:1", true),
            ("127.9.9.9:1", true),
            ("[::1]:1", true),
            ("[::ffff:127.0.0.1]:1", true),
            ("192.0.2.1:1", false),
            ("[2001:db8::1]:1", false),
            ("[::ffff:192.0.2.1]:1", false),
        ] {
            for is_ours in [true, false] {
                let peer = from(address).peer(&none, "localhost", &proof(is_ours)).await;
                let viewer = Viewer { peer, authenticated: false };
                assert_eq!(viewer.is_trusted(), is_local && is_ours, "{address} {is_ours}");
                assert!(Viewer { authenticated: true, ..viewer }.is_trusted(), "{address}");
            }
        }
        let unix = Ends::Unix.peer(&none, "evil.example", &proof(false)).await;
        assert!(Viewer { peer: unix, authenticated: false }.is_trusted());
        let passed = async |uid| Ends::PassedUnix { uid }.peer(&none, "localhost", &proof(true)).await;
        let ours = rustix::process::geteuid().as_raw();
        assert_eq!((passed(0).await, passed(ours).await, passed(64321).await), (Peer::Unix, Peer::Unix, Peer::Remote));
        assert_eq!(Ends::Unknown.peer(&none, "localhost", &proof(true)).await, Peer::Remote);
        assert!(!Viewer::default().is_trusted());
    }

    // A request that a proxy on this host passes on is not of this host.
    #[tokio::test]
    async fn a_forwarded_request_is_remote() {
        let names = "forwarded via x-real-ip x-forwarded-for x-forwarded-host x-forwarded-proto x-forwarded-prefix";
        for name in names.split(' ') {
            let headers = HeaderMap::from_iter([(name.parse().unwrap(), "127.0.0.1".parse().unwrap())]);
            let peer = from("127.0.0.1:1").peer(&headers, "localhost", &proof(true)).await;
            assert_eq!(peer, Peer::Remote, "{name}");
        }
    }

    // A page of another site reaches us through its visitor's browser under its own name, and not under a loopback one.
    #[tokio::test]
    async fn a_request_for_another_host_is_remote() {
        for (host, peer) in [
            ("127.0.0.1:8469", Peer::Loopback),
            ("[::1]:8469", Peer::Loopback),
            ("localhost:8469", Peer::Loopback),
            ("192.0.2.1:8469", Peer::Remote),
            ("evil.example:8469", Peer::Remote),
            ("", Peer::Remote),
        ] {
            assert_eq!(from("127.0.0.1:1").peer(&HeaderMap::new(), host, &proof(true)).await, peer, "{host:?}");
        }
    }
}
