//! Who asks: what is known of the other end of a request.

use std::net::SocketAddr;

use hyper::header::{FORWARDED, HeaderMap, HeaderName};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Where a connection comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Peer {
    /// Another machine, or nobody knows.
    #[default]
    Remote,
    /// This machine, over TCP.
    Loopback,
    /// This machine, over a Unix socket.
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

impl Peer {
    /// The other end of a TCP connection.
    pub(in crate::http) fn of(address: SocketAddr) -> Self {
        if address.ip().to_canonical().is_loopback() { Peer::Loopback } else { Peer::Remote }
    }
}

impl Viewer {
    /// Whether it may see what is not for everybody, such as the output of programs: it is on this machine, or has proved
    /// who it is.
    pub fn is_trusted(self) -> bool {
        self.authenticated || self.peer != Peer::Remote
    }

    /// The same, as a proxy on this machine that passes on the requests of others would have it.
    pub(in crate::http) fn behind(mut self, headers: &HeaderMap) -> Self {
        if self.peer == Peer::Loopback && (headers.contains_key(FORWARDED) || headers.contains_key(X_FORWARDED_FOR)) {
            self.peer = Peer::Remote;
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // On this machine, or proved: nobody else is trusted. An IPv4 address may come in the clothes of IPv6.
    #[test]
    fn only_this_machine_and_the_proved_are_trusted() {
        let table = [
            ("127.0.0.1:1", true),
            ("127.9.9.9:1", true),
            ("[::1]:1", true),
            ("[::ffff:127.0.0.1]:1", true),
            ("192.0.2.1:1", false),
            ("[2001:db8::1]:1", false),
            ("[::ffff:192.0.2.1]:1", false),
        ];
        for (address, trusted) in table {
            let peer = Peer::of(address.parse().unwrap());
            assert_eq!(Viewer { peer, authenticated: false }.is_trusted(), trusted, "{address}");
            assert!(Viewer { peer, authenticated: true }.is_trusted(), "{address}");
        }
        assert!(Viewer { peer: Peer::Unix, authenticated: false }.is_trusted());
        assert!(!Viewer::default().is_trusted());
    }

    // Who comes through a proxy on this machine is not on this machine.
    #[test]
    fn a_forwarded_request_is_not_of_this_machine() {
        let here = Viewer { peer: Peer::Loopback, authenticated: false };
        for name in ["forwarded", "x-forwarded-for"] {
            let headers = HeaderMap::from_iter([(name.parse().unwrap(), "192.0.2.1".parse().unwrap())]);
            assert!(!here.behind(&headers).is_trusted(), "{name}");
            assert!(Viewer { authenticated: true, ..here }.behind(&headers).is_trusted(), "{name}");
        }
        assert!(here.behind(&HeaderMap::new()).is_trusted());
    }
}
