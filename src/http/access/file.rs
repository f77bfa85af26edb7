//! The web config file as it is written: its keys, the words it knows, and what is wrong with it and where.
//!
//! The schema is that of Prometheus' exporter-toolkit, read strictly. Nothing of a file that is wrong is used.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use bcrypt::HashParts;
use hyper::header::{
    CONTENT_SECURITY_POLICY, HeaderMap, HeaderName, HeaderValue, STRICT_TRANSPORT_SECURITY, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS, X_XSS_PROTECTION,
};
use serde::{Deserialize, Deserializer};
use serde_path_to_error::Segment;
use serde_saphyr::{Location, Spanned, UserMessageFormatter};
use thiserror::Error;

use super::rate::Rate;
use super::tls::TlsRules;

/// Largest file read for the web configuration, each certificate included, in bytes.
pub const MAX_WEB_CONFIG_BYTES: u64 = 1024 * 1024;

/// Costs of a bcrypt hash: one check at the highest takes about a minute, and each further step doubles that.
const BCRYPT_COSTS: RangeInclusive<u32> = 4..=20;

/// The headers that a file may add to each answer, and the values they may have; any where none are named.
const HEADERS: [(HeaderName, &[&str]); 5] = [
    (CONTENT_SECURITY_POLICY, &[]),
    (X_FRAME_OPTIONS, &["deny", "sameorigin"]),
    (X_CONTENT_TYPE_OPTIONS, &["nosniff"]),
    (X_XSS_PROTECTION, &[]),
    (STRICT_TRANSPORT_SECURITY, &[]),
];

/// What is wrong with a web config file, and where.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum WebConfigError {
    /// The file cannot be read.
    #[error("{file}: {error}")]
    Read {
        /// The file.
        file: String,
        /// Why not.
        error: String,
    },
    /// Its text is not what it should be, or a file that it names is not.
    #[error("{file}:{line}:{column}: {key}{message}")]
    Invalid {
        /// The file.
        file: String,
        /// Line, from 1.
        line: u64,
        /// Column in characters, from 1.
        column: u64,
        /// Path of the key followed by a colon and a space, such as `tls_server_config.cert_file: `; empty if there is none.
        key: String,
        /// What is wrong, and what would be right.
        message: String,
    },
}

/// What a file says.
pub(super) struct Rules {
    pub(super) tls: Option<TlsRules>,
    pub(super) http2: bool,
    /// Added to each answer.
    pub(super) headers: HeaderMap,
    /// Hashes by user; without any user nobody is asked for a password.
    pub(super) users: BTreeMap<String, String>,
    pub(super) rate: Option<Rate>,
    /// The keys that keep somebody out.
    pub(super) guards: BTreeSet<&'static str>,
}

/// A fault: where, under which key, what.
#[derive(Debug)]
pub(super) struct Fault {
    location: Location,
    key: String,
    message: String,
}

/// Where in the file a value stands, for a fault that shows when it is used.
#[derive(Clone, Copy)]
pub(super) struct Place {
    location: Location,
    key: &'static str,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default, deserialize_with = "present")]
    tls_server_config: Option<Spanned<TlsTable>>,
    #[serde(default, deserialize_with = "present")]
    http_server_config: Option<HttpTable>,
    #[serde(default, deserialize_with = "present")]
    basic_auth_users: Option<Spanned<BTreeMap<String, Spanned<String>>>>,
    #[serde(default, deserialize_with = "present")]
    rate_limit: Option<Spanned<RateTable>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TlsTable {
    pub(super) cert: Option<Spanned<String>>,
    pub(super) cert_file: Option<Spanned<String>>,
    pub(super) key: Option<Spanned<String>>,
    pub(super) key_file: Option<Spanned<String>>,
    pub(super) client_ca: Option<Spanned<String>>,
    pub(super) client_ca_file: Option<Spanned<String>>,
    pub(super) client_auth_type: Option<Spanned<String>>,
    pub(super) client_allowed_sans: Option<Spanned<Vec<String>>>,
    pub(super) min_version: Option<Spanned<String>>,
    pub(super) max_version: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) cipher_suites: Vec<Spanned<String>>,
    #[serde(default)]
    pub(super) curve_preferences: Vec<Spanned<String>>,
    pub(super) prefer_server_cipher_suites: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct HttpTable {
    http2: Option<bool>,
    #[serde(default)]
    headers: BTreeMap<String, Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RateTable {
    interval: Option<Spanned<String>>,
    burst: Option<Spanned<u32>>,
}

/// A section that is written must say something: one that is empty may have lost what it said.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

// === impl Rules ===

impl Rules {
    /// Understands the text of a file; `path` is named in errors, and its folder is where relative paths begin.
    pub(super) fn parse(path: &Path, text: &[u8]) -> Result<Self, WebConfigError> {
        let Ok(text) = std::str::from_utf8(text) else {
            return Err(WebConfigError::Read { file: path.display().to_string(), error: "not in UTF-8".into() });
        };
        let directory = path.parent().unwrap_or(Path::new(""));
        read(text).and_then(|file| rules(file, directory)).map_err(|fault| fault.in_file(path))
    }
}

fn read(text: &str) -> Result<File, Fault> {
    let mut key = String::new();
    let options = serde_saphyr::options! { with_snippet: false };
    let file = serde_saphyr::with_deserializer_from_str_with_options(text, options, |document| {
        serde_path_to_error::deserialize(document).map_err(|error| {
            key = key_path(error.path());
            error.into_inner()
        })
    });
    file.map_err(|error: serde_saphyr::Error| {
        let message = error.render_with_formatter(&UserMessageFormatter);
        let message = message.split(" at line ").next().unwrap_or_default().to_owned();
        Fault { location: error.location().unwrap_or(Location::UNKNOWN), key, message }
    })
}

/// The path of a key as a person writes it.
fn key_path(path: &serde_path_to_error::Path) -> String {
    let mut key = String::new();
    for segment in path {
        match segment {
            Segment::Seq { index } => key.push_str(&format!("[{index}]")),
            // `Spanned` shows up as a key of its own, which no file has.
            Segment::Map { key: name } if name == "value" => {}
            Segment::Map { key: name } => {
                let dot = if key.is_empty() { "" } else { "." };
                key.push_str(&format!("{dot}{name}"));
            }
            Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    key
}

fn rules(file: File, directory: &Path) -> Result<Rules, Fault> {
    let File { tls_server_config, http_server_config, basic_auth_users, rate_limit } = file;
    let mut guards = BTreeSet::new();
    guards.extend(basic_auth_users.is_some().then_some("basic_auth_users"));
    guards.extend(rate_limit.is_some().then_some("rate_limit"));
    let users = basic_auth_users.map_or(Ok(BTreeMap::new()), users)?;
    let tls = tls_server_config.map(|table| TlsRules::new(table, directory)).transpose()?;
    guards.extend(tls.iter().flat_map(TlsRules::guards));
    let rate = rate_limit.map_or(Ok(None), rate)?;
    let http = http_server_config.unwrap_or_default();
    Ok(Rules { tls, http2: http.http2.unwrap_or(true), headers: headers(http.headers)?, users, rate, guards })
}

fn users(table: Spanned<BTreeMap<String, Spanned<String>>>) -> Result<BTreeMap<String, String>, Fault> {
    if table.value.is_empty() {
        let message = "there is no user: name one, or leave the key out to ask nobody for a password".into();
        return Err(Fault { location: table.referenced, key: "basic_auth_users".into(), message });
    }
    for (user, hash) in &table.value {
        let wrong = |message: &str| {
            let key = format!("basic_auth_users.{user}");
            Err(Fault { location: hash.referenced, key, message: message.into() })
        };
        // HTTP sends `user:password`.
        if user.contains(':') {
            return wrong("a colon cannot be part of the name of a user");
        }
        match hash.value.parse::<HashParts>() {
            Ok(parts) if BCRYPT_COSTS.contains(&parts.get_cost()) => {}
            Ok(_) => return wrong("the cost of a hash is from 4 to 20: beyond, one check takes minutes"),
            // A hash is not shown: it may be a password that somebody forgot to hash.
            Err(_) => return wrong("no bcrypt hash; `htpasswd -nBC 10 \"\"` makes one, which begins with $2y$10$"),
        }
    }
    Ok(table.value.into_iter().map(|(user, hash)| (user, hash.value)).collect())
}

fn headers(table: BTreeMap<String, Spanned<String>>) -> Result<HeaderMap, Fault> {
    let mut headers = HeaderMap::new();
    for (name, value) in table {
        let fault =
            |message| Fault { location: value.referenced, key: format!("http_server_config.headers.{name}"), message };
        let Some((known, values)) = HEADERS.iter().find(|(known, _)| name.eq_ignore_ascii_case(known.as_str())) else {
            let known: Vec<_> = HEADERS.iter().map(|(known, _)| known.as_str()).collect();
            return Err(fault(format!("this header cannot be set; known: {}", known.join(", "))));
        };
        // Unset if blank.
        if value.value.is_empty() {
            continue;
        }
        if !values.is_empty() && !values.contains(&value.value.as_str()) {
            return Err(fault(none_of(&value.value, values)));
        }
        let line = HeaderValue::from_str(&value.value);
        headers.insert(known, line.map_err(|_| fault("a header is one line of visible characters".into()))?);
    }
    Ok(headers)
}

fn rate(table: Spanned<RateTable>) -> Result<Option<Rate>, Fault> {
    let place = Place::of(&table, "rate_limit");
    let Some(interval) = table.value.interval else { return Err(place.fault("`interval` is missing, such as 1s")) };
    let at = Place::of(&interval, "rate_limit.interval");
    let wrong = |_| at.fault(format!("{:?} is not a duration such as 1s, 500ms or 1m30s", interval.value));
    // Go takes a zero without a unit.
    let word = if interval.value == "0" { "0s" } else { &interval.value };
    let interval: Duration = humantime::parse_duration(word).map_err(wrong)?;
    match table.value.burst {
        _ if interval.is_zero() => Ok(None),
        Some(burst) if burst.value > 0 => Ok(Some(Rate { interval, burst: burst.value })),
        Some(burst) => {
            Err(Place::of(&burst, "rate_limit.burst").fault("at least 1, else every request would be refused"))
        }
        None => Err(place.fault("`burst` is missing: without it every request would be refused")),
    }
}

/// `"x" is none of a, b`
pub(super) fn none_of(found: &str, known: &[&str]) -> String {
    format!("{found:?} is none of {}", known.join(", "))
}

/// Reads a small file whole, and never waits for one that is no file.
pub(super) fn read_small(path: &Path) -> Result<Vec<u8>, String> {
    let metadata = std::fs::metadata(path).map_err(|error| error.to_string())?;
    if !metadata.is_file() {
        return Err("no regular file".into());
    }
    if metadata.len() > MAX_WEB_CONFIG_BYTES {
        return Err(format!("larger than {MAX_WEB_CONFIG_BYTES} bytes"));
    }
    std::fs::read(path).map_err(|error| error.to_string())
}

// === impl Fault, Place ===

impl Fault {
    /// As an error of this file.
    pub(super) fn in_file(self, path: &Path) -> WebConfigError {
        let key = if self.key.is_empty() { self.key } else { self.key + ": " };
        let (line, column) = (self.location.line().max(1), self.location.column().max(1));
        WebConfigError::Invalid { file: path.display().to_string(), line, column, key, message: self.message }
    }
}

impl Place {
    pub(super) fn of<T>(value: &Spanned<T>, key: &'static str) -> Self {
        Self { location: value.referenced, key }
    }

    pub(super) fn fault(self, message: impl Into<String>) -> Fault {
        Fault { location: self.location, key: self.key.into(), message: message.into() }
    }
}

/// A protection that an earlier text of the file had and this one has no more.
pub(super) fn gone(key: &'static str) -> Fault {
    let message = "it was in the file before and is gone: restart to serve without it";
    Fault { location: Location::UNKNOWN, key: key.into(), message: message.into() }
}
