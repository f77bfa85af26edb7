//! The file as it is at each moment, and what it makes of a request.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hyper::StatusCode;
use hyper::header::{CONNECTION, HeaderMap, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use parking_lot::Mutex;
use tokio_rustls::rustls::ServerConfig;

use super::file::{Fault, Rules, WebConfigError, gone, read_small};
use super::rate::Bucket;
use super::tls::Material;
use super::turns::Origin;
use super::users::{Credentials, Passwords, Verdict};
use super::{HTTPS_ONLY, Viewer};
use crate::http::respond::{self, Reply};
use crate::metrics::{Limit, Metrics};
use crate::telemetry::monotonic_now;

/// A web config file that is read again and again.
pub(super) struct Guard {
    path: PathBuf,
    current: Mutex<Current>,
    passwords: Passwords,
    bucket: Mutex<Bucket>,
}

/// What was read last.
struct Current {
    text: Vec<u8>,
    rules: Arc<Rules>,
    /// None without TLS, and as long as the certificates are wrong.
    tls: Option<Secured>,
    /// Every protection that the file has ever had.
    guards: BTreeSet<&'static str>,
    /// What is wrong now; it has been logged.
    fault: Option<WebConfigError>,
}

type Secured = (Material, Arc<ServerConfig>);

/// What is known of a request before it is judged.
pub(super) struct Asks<'a> {
    pub(super) headers: &'a HeaderMap,
    pub(super) origin: Origin,
    pub(super) is_encrypted: bool,
    pub(super) viewer: Viewer,
}

impl Guard {
    pub(super) fn new(path: PathBuf) -> Result<Self, WebConfigError> {
        let read = |error: String| WebConfigError::Read { file: path.display().to_string(), error };
        let text = read_small(&path).map_err(read)?;
        let rules = Rules::parse(&path, &text)?;
        let tls = secured(&rules, None).map_err(|fault| fault.in_file(&path))?;
        let passwords = Passwords::new().ok_or_else(|| read("the system has no random numbers".into()))?;
        for name in rules.tls.iter().flat_map(|tls| &tls.left_out) {
            tracing::warn!(file = %path.display(), name, "this program does not offer it, so it is passed over");
        }
        let guards = rules.guards.clone();
        let current = Mutex::new(Current { text, rules: Arc::new(rules), tls, guards, fault: None });
        Ok(Self { path, current, passwords, bucket: Mutex::default() })
    }

    /// The rules as they were read last.
    pub(super) fn rules(&self) -> Arc<Rules> {
        self.current.lock().rules.clone()
    }

    /// The rules as the file has them now; none if it is wrong.
    pub(super) fn for_request(&self) -> Option<Arc<Rules>> {
        self.read_again(false).map(|(rules, _)| rules)
    }

    /// The rules as the file has them now, and with TLS how to encrypt; none if the file or a certificate is wrong.
    pub(super) fn for_connection(&self) -> Option<(Arc<Rules>, Option<Arc<ServerConfig>>)> {
        self.read_again(true)
    }

    fn read_again(&self, connects: bool) -> Option<(Arc<Rules>, Option<Arc<ServerConfig>>)> {
        let mut current = self.current.lock();
        match self.refresh(&mut current, connects) {
            Ok(()) => {
                // A request does not look at the certificates, so it cannot say that they are right.
                let is_whole = current.rules.tls.is_some() == current.tls.is_some();
                if is_whole && current.fault.take().is_some() {
                    tracing::info!(file = %self.path.display(), "the web config file is right again");
                }
                let config = current.tls.as_ref().map(|(_, config)| config.clone());
                Some((current.rules.clone(), config))
            }
            Err(error) => {
                if current.fault.as_ref() != Some(&error) {
                    tracing::error!(err = %error, "the web config file is wrong: nobody is let in");
                    current.fault = Some(error);
                }
                None
            }
        }
    }

    fn refresh(&self, current: &mut Current, connects: bool) -> Result<(), WebConfigError> {
        let in_file = |fault: Fault| fault.in_file(&self.path);
        let text = read_small(&self.path);
        let text = text.map_err(|error| WebConfigError::Read { file: self.path.display().to_string(), error })?;
        if text == current.text {
            if connects {
                current.tls = secured(&current.rules, current.tls.take()).map_err(in_file)?;
            }
            return Ok(());
        }
        let rules = Rules::parse(&self.path, &text)?;
        if let Some(lost) = current.guards.difference(&rules.guards).next() {
            return Err(gone(lost).in_file(&self.path));
        }
        current.tls = secured(&rules, None).map_err(in_file)?;
        current.guards.extend(&rules.guards);
        current.rules = Arc::new(rules);
        current.text = text;
        Ok(())
    }

    /// Who asks, or the answer that lets nobody in.
    pub(super) async fn judge(&self, rules: &Rules, asks: Asks<'_>, metrics: &Metrics) -> Result<Viewer, Reply> {
        let Asks { headers, origin, is_encrypted, viewer } = asks;
        // The connection is older than the TLS of the file.
        if rules.tls.is_some() && !is_encrypted {
            let mut reply = respond::text(StatusCode::BAD_REQUEST, HTTPS_ONLY);
            reply.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            return Err(reply);
        }
        let taken = rules.rate.map_or(Ok(()), |rate| self.bucket.lock().take(rate, monotonic_now()));
        if let Err(wait) = taken {
            metrics.limit_reached(Limit::HttpRate);
            return Err(later(StatusCode::TOO_MANY_REQUESTS, "too many requests", wait));
        }
        if rules.users.is_empty() {
            return Ok(viewer);
        }
        let verdict = match Credentials::of(headers) {
            Some(credentials) => self.passwords.check(&rules.users, credentials, origin).await,
            None => Verdict::Wrong,
        };
        match verdict {
            Verdict::Right => Ok(Viewer { authenticated: true, ..viewer }),
            Verdict::Wrong => {
                let mut reply = respond::text(StatusCode::UNAUTHORIZED, "unauthorized");
                let challenge = HeaderValue::from_static("Basic realm=\"restart_exporter\", charset=\"UTF-8\"");
                reply.headers_mut().insert(WWW_AUTHENTICATE, challenge);
                Err(reply)
            }
            Verdict::Busy => {
                metrics.limit_reached(Limit::HttpPasswordChecks);
                let message = "too many passwords wait to be checked";
                Err(later(StatusCode::SERVICE_UNAVAILABLE, message, Duration::from_secs(1)))
            }
        }
    }
}

/// How to encrypt, as before if all that it is made of is the same.
fn secured(rules: &Rules, before: Option<Secured>) -> Result<Option<Secured>, Fault> {
    let Some(tls) = &rules.tls else { return Ok(None) };
    let material = tls.read()?;
    match before {
        Some((known, config)) if known == material => Ok(Some((known, config))),
        _ => {
            let config = Arc::new(tls.server_config(&material, rules.http2)?);
            Ok(Some((material, config)))
        }
    }
}

/// An answer that asks to come back.
fn later(status: StatusCode, message: &str, wait: Duration) -> Reply {
    let mut reply = respond::text(status, message);
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    reply.headers_mut().insert(RETRY_AFTER, seconds.into());
    reply
}
