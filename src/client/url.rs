//! Where the exporter is: a host with or without `http://`, `https://`, or `unix:`. Pure.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// The port of the exporter where the address names none: nothing of ours listens on 80 or 443.
const PORT: u16 = 8469;

/// The host of an address that begins with the port: this one.
const THIS_HOST: &str = "127.0.0.1";

/// What an address looks like, for errors.
const FORMS: &str = "`HOST:PORT`, `http://HOST:PORT`, `https://HOST:PORT` or `unix:PATH`";

/// Where the exporter is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// A host, with TLS or without.
    Host {
        /// Encrypted?
        tls: bool,
        /// A name or an address, without brackets.
        host: String,
        port: u16,
        /// What stands before the path of a route: behind a proxy. Without a slash at its end.
        prefix: String,
    },
    /// The Unix socket at this path.
    Unix(PathBuf),
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| Err(format!("{what}; expected {FORMS}"));
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.is_empty() {
                wrong("the path after `unix:` is empty")
            } else {
                Ok(Self::Unix(path.into()))
            };
        }
        let (tls, rest) = match text.split_once("://") {
            Some(("http", rest)) => (false, rest),
            Some(("https", rest)) => (true, rest),
            Some((scheme, _)) => return wrong(&format!("{scheme:?} is none of `http`, `https`, `unix`")),
            None => (false, text),
        };
        let (authority, prefix) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
        if authority.contains('@') {
            return Err("no user in the address, where everybody sees it: use --user".into());
        }
        if prefix.contains(['?', '#']) || text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return wrong("no query, space or control character in the address");
        }
        let (host, port) = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, "")) => (host, None),
            Some((host, port)) => match port.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None => return wrong(&format!("{port:?} after `]` is not a port")),
            },
            None => authority.rsplit_once(':').map_or((authority, None), |(host, port)| (host, Some(port))),
        };
        if !authority.starts_with('[') && host.contains(':') {
            return wrong(&format!("an IPv6 address needs brackets, as in `[::1]:{PORT}`"));
        }
        let (host, port) = match (host, port) {
            ("", None) => return wrong("the address has no host"),
            ("", Some("")) => return wrong("the address has neither host nor port"),
            // The system would take it for an address in the notation of 1983.
            (number, None) if number.bytes().all(|byte| byte.is_ascii_digit()) => {
                return wrong(&format!("{number} is not a host; if it is a port, write `:{number}`"));
            }
            ("", Some(port)) => (THIS_HOST, Some(port)),
            whole => whole,
        };
        let port = match port {
            None | Some("") => PORT,
            Some(port) => match port.parse() {
                Ok(port) => port,
                Err(_) => return wrong(&format!("{port:?} is not a port from 0 to 65535")),
            },
        };
        Ok(Self::Host { tls, host: host.into(), port, prefix: prefix.trim_end_matches('/').into() })
    }
}

impl Default for Target {
    /// Where an exporter listens unless told otherwise.
    fn default() -> Self {
        Self::Host { tls: false, host: THIS_HOST.into(), port: PORT, prefix: String::new() }
    }
}

impl Target {
    /// The host as a request names it.
    pub(crate) fn authority(&self) -> String {
        match self {
            Target::Unix(_) => "localhost".into(),
            Target::Host { host, port, .. } if host.contains(':') => format!("[{host}]:{port}"),
            Target::Host { host, port, .. } => format!("{host}:{port}"),
        }
    }

    /// What stands before the path of a route.
    pub(crate) fn prefix(&self) -> &str {
        match self {
            Target::Unix(_) => "",
            Target::Host { prefix, .. } => prefix,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Unix(path) => write!(f, "unix:{}", path.display()),
            Target::Host { tls, prefix, .. } => {
                write!(f, "{}://{}{prefix}", if *tls { "https" } else { "http" }, self.authority())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // What a person types, and what is understood; a wrong address says what is wrong.
    #[test]
    fn addresses_are_read_as_people_write_them() {
        let table = [
            ("http://127.0.0.1:8469", "http://127.0.0.1:8469"),
            ("http://web-1/", "http://web-1:8469"),
            ("localhost:8469", "http://localhost:8469"),
            ("localhost", "http://localhost:8469"),
            (":9000", "http://127.0.0.1:9000"),
            ("https://:9000/restarts", "https://127.0.0.1:9000/restarts"),
            ("[::1]", "http://[::1]:8469"),
            ("web-1:80", "http://web-1:80"),
            ("https://[::1]:9000/restarts/", "https://[::1]:9000/restarts"),
            ("unix:/run/x/socket", "unix:/run/x/socket"),
            ("unix:///run/x/socket", "unix:/run/x/socket"),
        ];
        for (text, expected) in table {
            assert_eq!(text.parse::<Target>().map(|target| target.to_string()), Ok(expected.into()), "{text}");
        }
    }

    // An error says what is wrong, and what an address looks like.
    #[test]
    fn a_wrong_address_says_what_is_right() {
        let table = [
            ("", "the address has no host"),
            (":", "the address has neither host nor port"),
            ("http://", "the address has no host"),
            ("8469", "8469 is not a host; if it is a port, write `:8469`"),
            ("ftp://x", "\"ftp\" is none of `http`, `https`, `unix`"),
            ("unix:", "the path after `unix:` is empty"),
            ("http://x:99999", "\"99999\" is not a port"),
            ("http://x/?y", "no query"),
            ("http://[::1]x", "\"x\" after `]` is not a port"),
            ("::1:8469", "an IPv6 address needs brackets"),
        ];
        for (text, expected) in table {
            let error = text.parse::<Target>().unwrap_err();
            assert!(error.starts_with(expected) && error.ends_with(FORMS), "{text}: {error}");
        }
        assert!("http://a:b@c".parse::<Target>().unwrap_err().contains("use --user"));
    }
}
