//! Connections to the exporter: TCP, TLS, Unix sockets; and why there is none, in sentences.

use std::error;
use std::io;

use restart_exporter::http::App;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use super::tls::{self, Tls};
use super::url::Target;
use super::{Failure, last_resort};
use crate::cli::ClientArgs;

/// A connection, whatever it runs over.
pub(super) type Stream = Box<dyn Duplex>;

/// Both directions of a connection.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// Opens connections to one target.
pub(super) struct Connector(Way);

enum Way {
    To(Target, Option<Tls>),
    /// To the application of this very program.
    Within(App),
}

// === impl Connector ===

impl Connector {
    /// Connects to where the flags say, with TLS as they say it.
    ///
    /// # Errors
    /// [`Failure::Usage`] if a file of a flag cannot be used, or if the flags speak of TLS and the address does not.
    pub(super) fn new(args: &ClientArgs) -> Result<Self, Failure> {
        let target = &args.url;
        if let Target::Host { tls: true, .. } = target {
            return Ok(Self(Way::To(target.clone(), Some(Tls::new(args)?))));
        }
        let of_tls = [("--cert", &args.cert), ("--key", &args.key), ("--ca-file", &args.ca_file)];
        match of_tls.iter().find(|(_, file)| file.is_some()) {
            Some((flag, _)) => Err(Failure::Usage(format!(
                "{flag} is only for TLS, and {target} has none: use --url https://HOST:PORT"
            ))),
            None => Ok(Self(Way::To(target.clone(), None))),
        }
    }

    /// Connects to this application, in this process.
    pub(super) fn within(app: &App) -> Self {
        Self(Way::Within(app.clone()))
    }

    /// Does it lead to the application of this very program?
    pub(super) fn is_within(&self) -> bool {
        matches!(self.0, Way::Within(_))
    }

    pub(super) async fn connect(&self) -> io::Result<Stream> {
        let (host, port, tls) = match &self.0 {
            Way::Within(app) => return Ok(Box::new(last_resort::connect(app))),
            Way::To(Target::Unix(path), _) => return Ok(Box::new(UnixStream::connect(path).await?)),
            Way::To(Target::Host { host, port, .. }, tls) => (host, *port, tls),
        };
        let Some(tls) = tls else { return Ok(Box::new(TcpStream::connect((host.as_str(), port)).await?)) };
        let name = ServerName::try_from(host.clone());
        let name = name.map_err(|_| io::Error::other(format!("no certificate can be for the name {host:?}")))?;
        let stream = TcpStream::connect((host.as_str(), port)).await?;
        Ok(Box::new(TlsConnector::from(tls.config.clone()).connect(name, stream).await?))
    }

    /// Why there was no connection or no answer, in words about the exporter, which is named before.
    pub(super) fn fault(&self, error: &(dyn error::Error + 'static)) -> String {
        let tls = match &self.0 {
            Way::To(_, tls) => tls.as_ref(),
            Way::Within(_) => None,
        };
        let (mut innermost, mut http) = (error, None);
        loop {
            http = http.or(innermost.downcast_ref::<hyper::Error>());
            let Some(source) = innermost.source() else { break };
            innermost = source;
        }
        let io = innermost.downcast_ref::<io::Error>();
        let of_tls = io.and_then(tls::within);
        let is_broken = http.is_some_and(hyper::Error::is_incomplete_message) || io.is_some_and(is_broken);
        if let Some(fault) = tls.filter(|_| of_tls.is_some() || is_broken).and_then(|tls| tls.fault(of_tls)) {
            return fault;
        }
        match io {
            Some(error) if error.kind() == io::ErrorKind::NotFound => "there is no such socket".into(),
            Some(error) if error.kind() == io::ErrorKind::UnexpectedEof => "it closed the connection".into(),
            _ if http.is_some_and(hyper::Error::is_incomplete_message) => {
                "it closed the connection without an answer".into()
            }
            _ if http.is_some_and(hyper::Error::is_parse) && tls.is_none() => {
                "what it answers is not HTTP; if it speaks TLS, use https:// in --url".into()
            }
            _ => innermost.to_string(),
        }
    }
}

/// Did the other side close the connection?
fn is_broken(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
}
