//! Who asks: what is known of the other end of a request.

use std::net::{IpAddr, SocketAddr};

use hyper::header::{FORWARDED, HOST, HeaderMap, HeaderName};

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

    /// The same, if the request is what it seems: a proxy on this machine passes on the requests of others, and a page of
    /// another site reaches this machine through its visitor's browser by a name of its own (DNS rebinding). `authority` is
    /// where HTTP/2 names the host.
    pub(in crate::http) fn behind(mut self, headers: &HeaderMap, authority: Option<&str>) -> Self {
        let is_forwarded = headers.contains_key(FORWARDED) || headers.contains_key(X_FORWARDED_FOR);
        let host = headers.get(HOST).map(|host| host.to_str().unwrap_or_default()).or(authority);
        if self.peer == Peer::Loopback && (is_forwarded || host.is_some_and(|host| !is_address(host))) {
            self.peer = Peer::Remote;
        }
        self
    }
}

/// Is this host, with or without a port, an address or `localhost`? Every other name may be anybody's.
pub(in crate::http) fn is_address(host: &str) -> bool {
    let name = host.rsplit_once(':').filter(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()));
    let name = name.map_or(host, |(name, _)| name);
    let name = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name == "localhost" || name.parse::<IpAddr>().is_ok()
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
            assert!(!here.behind(&headers, None).is_trusted(), "{name}");
            assert!(Viewer { authenticated: true, ..here }.behind(&headers, None).is_trusted(), "{name}");
        }
        assert!(here.behind(&HeaderMap::new(), None).is_trusted());
    }

    // A page of another site reaches us through its visitor's browser under its own name; our own addresses it cannot use.
    #[test]
    fn a_request_for_a_name_that_may_be_anybodys_is_not_of_this_machine() {
        let here = Viewer { peer: Peer::Loopback, authenticated: false };
        for (host, trusted) in [
            ("127.0.0.1:8469", true),
            ("localhost", true),
            ("localhost:8469", true),
            ("[::1]:8469", true),
            ("evil.example:8469", false),
            ("localhost.evil.example", false),
            ("", false),
        ] {
            let headers = HeaderMap::from_iter([(HOST, host.parse().unwrap())]);
            assert_eq!(here.behind(&headers, None).is_trusted(), trusted, "{host:?}");
            assert_eq!(here.behind(&HeaderMap::new(), Some(host)).is_trusted(), trusted, "{host:?} of HTTP/2");
            assert!(Viewer { authenticated: true, ..here }.behind(&headers, None).is_trusted(), "{host:?}");
            let unix = Viewer { peer: Peer::Unix, authenticated: false };
            assert!(unix.behind(&headers, None).is_trusted(), "{host:?} over a Unix socket");
        }
    }
}
