//! Addresses to listen on: how the flags write them, which sockets they mean, and where a browser finds the page.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use restart_exporter::Error;

/// What an address looks like, for errors.
const FORMS: &str = "`:PORT` (all addresses of this host), `HOST:PORT`, `[IPV6]:PORT` or `unix:PATH`";

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ListenAddress {
    /// TCP.
    Tcp(Host),
    /// The Unix socket at this path.
    Unix(PathBuf),
}

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Host {
    /// A name, which may resolve to several addresses, or one address; none for all addresses of this host.
    name: Option<String>,
    port: u16,
}

impl FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| Err(format!("{what}; expected {FORMS}"));
        match text.strip_prefix("unix:") {
            Some("") => return wrong("the path after `unix:` is empty"),
            Some(path) => return Ok(Self::Unix(path.into())),
            None => {}
        }
        if text.contains('/') {
            return wrong("an address has no scheme and no path");
        }
        let Some((host, port)) = text.rsplit_once(':') else { return wrong("the port is missing") };
        let Ok(port) = port.parse() else { return wrong(&format!("{port:?} is not a port from 0 to 65535")) };
        let named = |host: &str| Ok(Self::Tcp(Host { name: Some(host.into()), port }));
        if host.is_empty() {
            return Ok(Self::Tcp(Host { name: None, port }));
        }
        let in_brackets = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let is_name = |name: &str| name.chars().all(|c| c.is_alphanumeric() || "-._".contains(c));
        match in_brackets {
            // An address of one link names its interface after a `%`.
            Some(host) if host.split('%').next().is_some_and(|host| host.parse::<Ipv6Addr>().is_ok()) => named(host),
            Some(host) => wrong(&format!("{host:?} is not an IPv6 address")),
            None if host.contains(':') => wrong("an IPv6 address needs brackets"),
            None if is_name(host) => named(host),
            None => wrong(&format!("{host:?} is not a host name")),
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(host) => write!(f, "{host}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name.as_deref().unwrap_or_default() {
            host if host.contains(':') => write!(f, "[{host}]:{}", self.port),
            host => write!(f, "{host}:{}", self.port),
        }
    }
}

impl Host {
    /// Listens with `listen` on each address, and returns the first that it bound.
    ///
    /// # Errors
    /// Of `listen`, or [`Error::Bind`] if the name cannot be resolved.
    pub(crate) async fn listen(
        &self,
        listen: impl AsyncFnMut(SocketAddr) -> Result<SocketAddr, Error>,
    ) -> Result<SocketAddr, Error> {
        let Some(name) = &self.name else { return on_all(self.port, is_ipv6_alone(), listen).await };
        let unknown = |reason: &dyn fmt::Display| Error::Bind {
            address: self.to_string(),
            error: io::Error::new(io::ErrorKind::NotFound, format!("the host name cannot be resolved: {reason}")),
        };
        let mut addresses: Vec<SocketAddr> = Vec::new();
        for address in tokio::net::lookup_host((name.as_str(), self.port)).await.map_err(|error| unknown(&error))? {
            // A hosts file may name one address twice.
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        on_each(&addresses, listen).await.unwrap_or_else(|| Err(unknown(&"it has no address")))
    }

    /// Where a browser on this host finds the page; `bound` is the address that we listen on.
    pub(crate) fn page_url(&self, bound: SocketAddr, tls: bool) -> String {
        let is_address = |name: &str| name.parse::<IpAddr>().is_ok();
        match self.name.as_deref().filter(|name| !is_address(name)) {
            // A certificate is for a name. Without one the address is better: to the exporter a browser that uses a name
            // other than `localhost` is remote.
            Some(name) if tls || name == "localhost" => format!("{}://{name}:{}/", scheme(tls), bound.port()),
            _ => page_url(bound, tls),
        }
    }
}

/// Where a browser on this host finds the page of a socket that listens on this address.
pub(crate) fn page_url(bound: SocketAddr, tls: bool) -> String {
    match bound.ip().to_canonical().is_unspecified() {
        true => format!("{}://localhost:{}/", scheme(tls), bound.port()),
        false => format!("{}://{bound}/", scheme(tls)),
    }
}

/// Does one of these sockets take what is sent to this address? One of all IPv6 addresses takes IPv4 along, unless it was told
/// not to: then the address is still free.
pub(crate) fn is_covered(address: SocketAddr, sockets: &[SocketAddr]) -> bool {
    sockets.iter().any(|socket| {
        let takes_all = socket.ip().is_unspecified() && (socket.is_ipv6() || address.is_ipv4());
        socket.port() == address.port() && (socket.ip() == address.ip() || takes_all)
    })
}

fn scheme(tls: bool) -> &'static str {
    if tls { "https" } else { "http" }
}

/// Listens on IPv6, which takes IPv4 along unless the system keeps them apart; without IPv6 on IPv4.
async fn on_all(
    port: u16,
    is_ipv6_alone: bool,
    mut listen: impl AsyncFnMut(SocketAddr) -> Result<SocketAddr, Error>,
) -> Result<SocketAddr, Error> {
    let ipv4 = |port| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    match listen((Ipv6Addr::UNSPECIFIED, port).into()).await {
        Ok(bound) if is_ipv6_alone => listen(ipv4(bound.port())).await.map(|_| bound),
        Err(error) if is_absent(&error) => listen(ipv4(port)).await,
        listens => listens,
    }
}

/// Listens on each address that this host has: a name such as `localhost` may have one of a family that is switched off.
async fn on_each(
    addresses: &[SocketAddr],
    mut listen: impl AsyncFnMut(SocketAddr) -> Result<SocketAddr, Error>,
) -> Option<Result<SocketAddr, Error>> {
    let (mut first, mut absent) = (None, None);
    for address in addresses {
        match listen(*address).await {
            Ok(bound) => first = first.or(Some(bound)),
            Err(error) if is_absent(&error) => absent = Some(error),
            Err(error) => return Some(Err(error)),
        }
    }
    first.map(Ok).or(absent.map(|error| Err(said_of_absent(error))))
}

/// Does this host lack the address, or its whole family?
fn is_absent(error: &Error) -> bool {
    let Error::Bind { error, .. } = error else { return false };
    let no_family = Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error());
    error.kind() == io::ErrorKind::AddrNotAvailable || error.raw_os_error() == no_family
}

fn said_of_absent(error: Error) -> Error {
    match error {
        Error::Bind { address, error } => {
            let message = format!("this host does not have that address; `:PORT` listens on all it has ({error})");
            Error::Bind { address, error: io::Error::new(error.kind(), message) }
        }
        other => other,
    }
}

/// Does a socket for all IPv6 addresses leave those of IPv4 out? On almost all systems it does not.
fn is_ipv6_alone() -> bool {
    std::fs::read_to_string("/proc/sys/net/ipv6/bindv6only").is_ok_and(|value| value.trim() == "1")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(address: SocketAddr, errno: rustix::io::Errno) -> Error {
        Error::Bind { address: address.to_string(), error: io::Error::from_raw_os_error(errno.raw_os_error()) }
    }

    /// Listens on what is asked for; `refusal` says which addresses the system refuses.
    async fn all(is_ipv6_alone: bool, refusal: impl Fn(SocketAddr) -> Option<Error>) -> (Vec<String>, bool) {
        let mut listening = Vec::new();
        let listens = on_all(0, is_ipv6_alone, async |mut address: SocketAddr| match refusal(address) {
            Some(error) => Err(error),
            None => {
                address.set_port(if address.port() == 0 { 7 } else { address.port() });
                listening.push(address.to_string());
                Ok(address)
            }
        });
        let is_ok = listens.await.is_ok();
        (listening, is_ok)
    }

    #[test]
    fn addresses_are_read_as_people_write_them() {
        let host = |host: &str, port| ListenAddress::Tcp(Host { name: Some(host.into()), port });
        let table = [
            (":8469", ListenAddress::Tcp(Host { name: None, port: 8469 })),
            ("localhost:8469", host("localhost", 8469)),
            ("127.0.0.1:0", host("127.0.0.1", 0)),
            ("[::1]:8469", host("::1", 8469)),
            ("[fe80::1%eth0]:8469", host("fe80::1%eth0", 8469)),
            ("web-1.example:80", host("web-1.example", 80)),
            ("unix:/run/x/socket", ListenAddress::Unix("/run/x/socket".into())),
        ];
        for (text, expected) in table {
            let address: ListenAddress = text.parse().unwrap();
            assert_eq!((address.to_string(), address), (text.to_owned(), expected));
        }
    }

    // An error says what is wrong, and what an address looks like.
    #[test]
    fn a_wrong_address_says_what_is_right() {
        let table = [
            ("", "the port is missing"),
            ("8469", "the port is missing"),
            ("localhost", "the port is missing"),
            ("localhost:", "\"\" is not a port"),
            ("localhost:http", "\"http\" is not a port"),
            (":65536", "\"65536\" is not a port"),
            ("::1:8469", "an IPv6 address needs brackets"),
            ("[localhost]:8469", "\"localhost\" is not an IPv6 address"),
            ("two words:8469", "\"two words\" is not a host name"),
            ("http://localhost:8469", "an address has no scheme"),
            ("localhost:8469/", "an address has no scheme and no path"),
            ("unix:", "the path after `unix:` is empty"),
        ];
        for (text, expected) in table {
            let error = text.parse::<ListenAddress>().unwrap_err();
            assert!(error.starts_with(expected) && error.ends_with(FORMS), "{text}: {error}");
        }
    }

    // All addresses: one socket of IPv6 that takes IPv4 along, or one of each, or IPv4 alone where there is no IPv6.
    #[tokio::test]
    async fn all_addresses_are_ipv6_and_ipv4() {
        assert_eq!(all(false, |_| None).await, (vec!["[::]:7".into()], true));
        assert_eq!(all(true, |_| None).await, (vec!["[::]:7".into(), "0.0.0.0:7".into()], true));
        for errno in [rustix::io::Errno::AFNOSUPPORT, rustix::io::Errno::ADDRNOTAVAIL] {
            let refusal = |address: SocketAddr| address.is_ipv6().then(|| refused(address, errno));
            assert_eq!(all(false, refusal).await, (vec!["0.0.0.0:7".into()], true));
        }
        assert_eq!(all(false, |address| Some(refused(address, rustix::io::Errno::ADDRINUSE))).await, (vec![], false));
    }

    // A name: each of its addresses that this host has; any other failure is one.
    #[tokio::test]
    async fn a_name_is_listened_on_at_each_of_its_addresses() {
        let addresses: Vec<SocketAddr> = ["[::1]:7", "127.0.0.1:7"].map(|text| text.parse().unwrap()).to_vec();
        let refuse = |which: &'static str, errno| {
            async move |address: SocketAddr| {
                if address.to_string().starts_with(which) { Err(refused(address, errno)) } else { Ok(address) }
            }
        };
        let bound = on_each(&addresses, refuse("none", rustix::io::Errno::PERM)).await.unwrap().unwrap();
        assert_eq!(bound, addresses[0]);
        let bound = on_each(&addresses, refuse("[::1]", rustix::io::Errno::ADDRNOTAVAIL)).await.unwrap().unwrap();
        assert_eq!(bound, addresses[1]);
        let error = on_each(&addresses, refuse("127", rustix::io::Errno::ADDRINUSE)).await.unwrap().unwrap_err();
        assert!(error.to_string().starts_with("cannot listen on 127.0.0.1:7: Address already in use"), "{error}");
        let error = on_each(&addresses, refuse("", rustix::io::Errno::ADDRNOTAVAIL)).await.unwrap().unwrap_err();
        assert!(error.to_string().contains("this host does not have that address; `:PORT` listens on all"), "{error}");
        assert!(on_each(&[], refuse("none", rustix::io::Errno::PERM)).await.is_none());
    }

    // A socket of all addresses covers each of them, and one of IPv6 those of IPv4.
    #[test]
    fn a_socket_covers_the_addresses_that_it_takes() {
        let table = [
            ("127.0.0.1:7", "127.0.0.1:7", true),
            ("127.0.0.1:7", "127.0.0.1:8", false),
            ("127.0.0.1:7", "127.0.0.2:7", false),
            ("0.0.0.0:7", "127.0.0.1:7", true),
            ("0.0.0.0:7", "[::1]:7", false),
            ("[::]:7", "127.0.0.1:7", true),
            ("[::]:7", "[::]:7", true),
            ("127.0.0.1:7", "0.0.0.0:7", false),
        ];
        for (socket, address, expected) in table {
            let sockets = [socket.parse().unwrap()];
            assert_eq!(is_covered(address.parse().unwrap(), &sockets), expected, "{socket} {address}");
        }
    }

    #[tokio::test]
    async fn a_name_that_cannot_be_resolved_is_named() {
        let host = Host { name: Some("no-such-host.invalid".into()), port: 7 };
        let error = host.listen(async |address| Ok(address)).await.unwrap_err().to_string();
        let expected = "cannot listen on no-such-host.invalid:7: the host name cannot be resolved: ";
        assert!(error.starts_with(expected), "{error}");
    }

    #[test]
    fn the_url_of_the_page_works_on_this_host() {
        let table = [
            ("127.0.0.1:8469", None, false, "http://127.0.0.1:8469/"),
            ("127.0.0.1:8469", Some("127.0.0.1"), true, "https://127.0.0.1:8469/"),
            ("[::1]:8469", Some("::1"), false, "http://[::1]:8469/"),
            ("[::1]:8469", Some("localhost"), false, "http://localhost:8469/"),
            ("[::]:8469", None, false, "http://localhost:8469/"),
            ("0.0.0.0:8469", None, true, "https://localhost:8469/"),
            ("192.0.2.7:80", Some("web-1"), false, "http://192.0.2.7:80/"),
            ("192.0.2.7:80", Some("web-1"), true, "https://web-1:80/"),
        ];
        for (bound, name, tls, expected) in table {
            let host = Host { name: name.map(str::to_owned), port: 0 };
            assert_eq!(host.page_url(bound.parse().unwrap(), tls), expected);
        }
    }
}
