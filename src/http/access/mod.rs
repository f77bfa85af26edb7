//! Who may come in: the web config file of Prometheus' exporter-toolkit, with TLS, client certificates, users, headers and
//! a rate limit.
//!
//! The file is read again for each connection and each request, so that a change needs no restart. A file that becomes
//! wrong closes the door: connections are refused, requests are answered with 500. So does one that has lost a protection
//! it had, because half of a file may be all that somebody has written so far.

mod client_cert;
mod faults;
mod file;
mod guard;
mod host;
mod owner;
mod rate;
mod tls;
mod turns;
mod users;
mod viewer;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hyper::{Request, StatusCode};
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::server::TlsStream;

use super::listener::Connection;
use super::respond::{self, Reply};
use crate::metrics::{Limit, Metrics};
use file::Rules;
use guard::{Asks, Guard};
use turns::Origin;
use viewer::Proof;

pub use faults::{certificate_fault, is_self_signed};
pub use file::{MAX_WEB_CONFIG_BYTES, WebConfigError};
pub(super) use host::is_address;
pub(super) use viewer::Ends;
pub use viewer::{Peer, Viewer};

/// Longest time that a TLS handshake may take.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// The answer to a request without TLS where TLS is spoken, with status 400, as Go's server gives it.
pub const HTTPS_ONLY: &str = "Client sent an HTTP request to an HTTPS server.";

/// The door of a listener: open, or guarded by a web config file. Clones share what they remember.
#[derive(Clone, Default)]
pub struct Access(Option<Arc<Guard>>);

/// A connection that was let in.
pub(super) struct Entered {
    pub(super) stream: Connection,
    /// Whether HTTP/2 was agreed on.
    pub(super) h2: bool,
    pub(super) channel: Channel,
}

/// What is known of a connection.
#[derive(Clone)]
pub(super) struct Channel {
    ends: Ends,
    proof: Proof,
    is_tls: bool,
    /// Whether a certificate has proved who is at the other end.
    certified: bool,
}

/// What becomes of a request.
pub(super) struct Admission {
    /// The headers of the answer, whatever it is.
    pub(super) headers: ExtraHeaders,
    /// Who asks, or the answer that lets nobody in.
    pub(super) outcome: Result<Viewer, Reply>,
}

/// The headers that the file adds to an answer.
#[derive(Default)]
pub(super) struct ExtraHeaders(Option<Arc<Rules>>);

// === impl Access ===

impl Access {
    /// A door that stands open.
    pub fn open() -> Self {
        Self::default()
    }

    /// A door that this file guards, from now on as the file is at each moment.
    ///
    /// # Errors
    /// [`WebConfigError`] for the first thing that is wrong with the file, or with a certificate that it names.
    pub fn guarded(path: impl Into<PathBuf>) -> Result<Self, WebConfigError> {
        Ok(Self(Some(Arc::new(Guard::new(path.into())?))))
    }

    /// Whether connections are encrypted, and whether HTTP/2 may then be spoken, as the file was read last.
    pub fn tls(&self) -> (bool, bool) {
        let Some(guard) = &self.0 else { return (false, false) };
        let rules = guard.rules();
        (rules.tls.is_some(), rules.tls.is_some() && rules.http2)
    }

    /// Lets a connection in; none if it is refused.
    pub(super) async fn enter(&self, stream: Connection, metrics: &Metrics) -> Option<Entered> {
        let plain = Channel { ends: stream.ends(), proof: Proof::default(), is_tls: false, certified: false };
        let Some(guard) = &self.0 else { return Some(Entered { stream, h2: false, channel: plain }) };
        let rereads = guard.clone();
        // Files may be slow to read.
        let (rules, config) = match tokio::task::spawn_blocking(move || rereads.for_connection()).await.ok()? {
            Some((rules, Some(config))) => (rules, config),
            // Without TLS each request can be told what is wrong; with it there is nobody to talk to.
            None if guard.rules().tls.is_some() => return None,
            _ => return Some(Entered { stream, h2: false, channel: plain }),
        };
        let refused = match timeout(HANDSHAKE_TIMEOUT, handshake(stream, config)).await {
            Ok(Ok(stream)) => {
                let (_, connection) = stream.get_ref();
                let h2 = connection.alpn_protocol() == Some(tls::H2);
                let verifies = rules.tls.as_ref().is_some_and(tls::TlsRules::verifies_clients);
                let certified = verifies && connection.peer_certificates().is_some();
                let channel = Channel { is_tls: true, certified, ..plain };
                return Some(Entered { stream: Connection::Tls(Box::new(stream)), h2, channel });
            }
            Ok(Err(error)) => faults::refusal(&error),
            Err(_) => format!("it took more than {HANDSHAKE_TIMEOUT:?}").into(),
        };
        metrics.limit_reached(Limit::HttpTlsHandshake);
        tracing::debug!(err = &*refused, "TLS handshake refused");
        None
    }

    /// Judges a request, on a connection of ours or, without `channel`, of a program that has its own server. Who asks is
    /// found out only if the answer `depends_on_viewer`; otherwise it counts as a stranger.
    pub(super) async fn admit<B>(
        &self,
        request: &Request<B>,
        channel: Option<&Channel>,
        depends_on_viewer: bool,
        metrics: &Metrics,
    ) -> Admission {
        let host = match host::requested(request) {
            Ok(host) => host,
            Err(message) => {
                let refused = respond::text(StatusCode::BAD_REQUEST, message);
                return Admission { headers: ExtraHeaders::default(), outcome: Err(refused) };
            }
        };
        let viewer = match channel {
            Some(channel) if depends_on_viewer => {
                let peer = channel.ends.peer(request.headers(), host, &channel.proof).await;
                Viewer { peer, authenticated: channel.certified }
            }
            Some(channel) => Viewer { peer: Peer::Remote, authenticated: channel.certified },
            None => request.extensions().get().copied().unwrap_or_default(),
        };
        let Some(guard) = &self.0 else { return Admission { headers: ExtraHeaders::default(), outcome: Ok(viewer) } };
        let rereads = guard.clone();
        let Ok(Some(rules)) = tokio::task::spawn_blocking(move || rereads.for_request()).await else {
            let message = "the web config file is wrong, see the log";
            let closed = respond::text(StatusCode::INTERNAL_SERVER_ERROR, message);
            return Admission { headers: ExtraHeaders::default(), outcome: Err(closed) };
        };
        let is_encrypted = channel.is_none_or(|channel| channel.is_tls);
        let origin = channel.map_or(Origin::NONE, |channel| channel.ends.origin());
        let asks = Asks { headers: request.headers(), origin, is_encrypted, viewer };
        let outcome = guard.judge(&rules, asks, metrics).await;
        Admission { headers: ExtraHeaders(Some(rules)), outcome }
    }
}

async fn handshake(mut stream: Connection, config: Arc<ServerConfig>) -> std::io::Result<TlsStream<Connection>> {
    if stream.speaks_plainly().await {
        let answer = format!(
            "HTTP/1.0 400 Bad Request\r\nConnection: close\r\nX-Content-Type-Options: nosniff\r\n\r\n{HTTPS_ONLY}\n"
        );
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await?;
        return Err(std::io::Error::other("the client speaks plain HTTP"));
    }
    TlsAcceptor::from(config).accept(stream).await
}

// === impl ExtraHeaders ===

impl ExtraHeaders {
    pub(super) fn add_to(&self, reply: &mut Reply) {
        for (name, value) in self.0.iter().flat_map(|rules| &rules.headers) {
            reply.headers_mut().insert(name, value.clone());
        }
    }
}
