//! The host that a request is for: of its target, or of its `Host` header (RFC 9112, section 3.2; RFC 9113, section 8.3.1).

use std::net::IpAddr;

use hyper::header::{HOST, HeaderValue};
use hyper::http::uri::Authority;
use hyper::{Request, Version};

/// The host with its port, if it has one; empty if the client named none.
///
/// # Errors
/// What is wrong with the request: no host, several hosts, or something that is not a host.
pub(in crate::http) fn requested<B>(request: &Request<B>) -> Result<&str, &'static str> {
    let mut headers = request.headers().get_all(HOST).iter();
    let header = headers.next().map(checked).transpose()?;
    if headers.next().is_some() {
        return Err("the request has more than one Host header");
    }
    match (request.uri().authority(), header) {
        (Some(target), _) if target.as_str().contains('@') => Err("the target of the request names a user"),
        (Some(target), Some(host)) if request.version() >= Version::HTTP_2 && target.as_str() != host => {
            Err("the Host header differs from :authority")
        }
        // An absolute target overrides the header.
        (Some(target), _) => Ok(target.as_str()),
        (None, Some(host)) => Ok(host),
        (None, None) if request.version() == Version::HTTP_11 => Err("the request has no Host header"),
        (None, None) => Ok(""),
    }
}

/// An empty value is right where the target has no authority.
fn checked(value: &HeaderValue) -> Result<&str, &'static str> {
    let host = value.to_str().map_err(|_| INVALID)?;
    let is_host = host.is_empty() || !host.contains('@') && host.parse::<Authority>().is_ok();
    if is_host { Ok(host) } else { Err(INVALID) }
}

const INVALID: &str = "the Host header is not HOST or HOST:PORT";

/// Is this host, with or without a port, an address or `localhost`? Any other name may belong to anyone.
pub(in crate::http) fn is_address(host: &str) -> bool {
    is_localhost(name_of(host)) || address_of(host).is_some()
}

/// Is this host, with or without a port, `localhost` or a loopback address?
pub(super) fn is_loopback(host: &str) -> bool {
    is_localhost(name_of(host)) || address_of(host).is_some_and(|address| address.to_canonical().is_loopback())
}

fn is_localhost(name: &str) -> bool {
    name.eq_ignore_ascii_case("localhost")
}

fn address_of(host: &str) -> Option<IpAddr> {
    name_of(host).parse().ok()
}

/// The host without port and brackets.
fn name_of(host: &str) -> &str {
    let name = host.rsplit_once(':').filter(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()));
    let name = name.map_or(host, |(name, _)| name);
    name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a request names, by its version, its target and its Host headers.
    fn asked(version: Version, target: &str, hosts: &[&str]) -> Result<String, &'static str> {
        let mut request = Request::builder().version(version).uri(target);
        for host in hosts {
            request = request.header(HOST, *host);
        }
        requested(&request.body(()).unwrap()).map(str::to_owned)
    }

    // One host, and an absolute target overrides the header: RFC 9112 for HTTP/1, RFC 9113 for HTTP/2.
    #[test]
    fn a_request_has_one_host() {
        const ONE: Version = Version::HTTP_11;
        const TWO: Version = Version::HTTP_2;
        let right: [(Version, &str, &[&str], &str); 9] = [
            (ONE, "/", &["localhost:8469"], "localhost:8469"),
            (ONE, "/", &["[::1]:8469"], "[::1]:8469"),
            (ONE, "/", &[""], ""),
            (ONE, "http://evil.example/", &["localhost"], "evil.example"),
            (ONE, "http://localhost:1/", &["evil.example"], "localhost:1"),
            (ONE, "http://localhost:1/", &[], "localhost:1"),
            (Version::HTTP_10, "/", &[], ""),
            (TWO, "https://localhost:1/", &[], "localhost:1"),
            (TWO, "https://localhost:1/", &["localhost:1"], "localhost:1"),
        ];
        for (version, target, hosts, host) in right {
            assert_eq!(asked(version, target, hosts).as_deref(), Ok(host), "{version:?} {target} {hosts:?}");
        }
        let wrong: [(Version, &str, &[&str]); 9] = [
            (ONE, "/", &[]),
            (ONE, "/", &["localhost", "localhost"]),
            (ONE, "http://localhost/", &["localhost", "evil.example"]),
            (ONE, "/", &["local host"]),
            (ONE, "/", &["user@localhost"]),
            (ONE, "/", &["localhost/metrics"]),
            (ONE, "http://user@localhost/", &["localhost"]),
            (TWO, "https://localhost:1/", &["evil.example"]),
            (TWO, "https://localhost:1/", &["localhost:1", "localhost:1"]),
        ];
        for (version, target, hosts) in wrong {
            assert!(asked(version, target, hosts).is_err(), "{version:?} {target} {hosts:?}");
        }
    }

    // Only names that no one else can have are loopback: a page of another site reaches this host under its own name.
    #[test]
    fn a_loopback_host_is_localhost_or_a_loopback_address() {
        for host in ["127.0.0.1:8469", "127.8.8.8", "localhost", "LocalHost:8469", "[::1]:8469", "[::ffff:127.0.0.1]"] {
            assert!(is_loopback(host) && is_address(host), "{host:?}");
        }
        for host in ["192.0.2.1:8469", "[2001:db8::1]:8469", "0.0.0.0"] {
            assert!(!is_loopback(host) && is_address(host), "{host:?}");
        }
        for host in ["evil.example:8469", "localhost.evil.example", "localhost.", ""] {
            assert!(!is_loopback(host) && !is_address(host), "{host:?}");
        }
    }
}
