//! Where the exporter is: `http://`, `https://` or `unix:`. Pure.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// The port of the exporter where the address names none: nothing of ours listens on 80 or 443.
const PORT: u16 = 8469;

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
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.is_empty() {
                Err("the path after `unix:` is empty".into())
            } else {
                Ok(Self::Unix(path.into()))
            };
        }
        let (tls, rest) = match text.split_once("://") {
            Some(("http", rest)) => (false, rest),
            Some(("https", rest)) => (true, rest),
            Some((scheme, _)) => return Err(format!("{scheme:?} is none of `http`, `https`, `unix`")),
            None => (false, text),
        };
        let (authority, prefix) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
        if authority.contains('@') {
            return Err("no user in the address, where everybody sees it: use --user".into());
        }
        if prefix.contains(['?', '#']) || text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err("no query, space or control character in the address".into());
        }
        let (host, port) = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, port)) => (host, port.strip_prefix(':').or(port.is_empty().then_some(""))),
            None => authority.split_once(':').map_or((authority, Some("")), |(host, port)| (host, Some(port))),
        };
        let port = match port {
            Some("") => PORT,
            Some(port) => port.parse().map_err(|_| format!("{port:?} is no port"))?,
            None => return Err("what stands after `]` is no port".into()),
        };
        if host.is_empty() {
            return Err("the address has no host".into());
        }
        Ok(Self::Host { tls, host: host.into(), port, prefix: prefix.trim_end_matches('/').into() })
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
            ("web-1:80", "http://web-1:80"),
            ("https://[::1]:9000/restarts/", "https://[::1]:9000/restarts"),
            ("unix:/run/x/socket", "unix:/run/x/socket"),
            ("unix:///run/x/socket", "unix:/run/x/socket"),
        ];
        for (text, expected) in table {
            assert_eq!(text.parse::<Target>().map(|target| target.to_string()), Ok(expected.into()), "{text}");
        }
        for wrong in
            ["", "http://", "ftp://x", "unix:", "http://a:b@c", "http://x:99999", "http://x/?y", "http://[::1]x"]
        {
            assert!(wrong.parse::<Target>().is_err(), "{wrong}");
        }
    }
}
