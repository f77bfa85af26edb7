//! Connections to the exporter: TCP, TLS as curl's users expect it, Unix sockets.

use std::fmt::Display;
use std::io;
use std::path::Path;
use std::sync::Arc;

use restart_exporter::http::App;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::client::{WebPkiServerVerifier, verify_server_name};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::ParsedCertificate;
use tokio_rustls::rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::url::Target;
use super::{Failure, last_resort};

/// A connection, whatever it runs over.
pub(super) type Stream = Box<dyn Duplex>;

/// Both directions of a connection.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// Opens connections to one target.
pub(super) struct Connector(Way);

enum Way {
    To(Target, Option<TlsConnector>),
    /// To the application of this very program.
    Within(App),
}

// === impl Connector ===

impl Connector {
    /// Trusts the certificates of `ca_file` instead of the system's, or with `insecure` any.
    pub(super) fn new(target: &Target, ca_file: Option<&Path>, insecure: bool) -> Result<Self, Failure> {
        let tls = match target {
            Target::Host { tls: true, .. } => Some(Arc::new(config(ca_file, insecure)?).into()),
            Target::Host { .. } | Target::Unix(_) => None,
        };
        Ok(Self(Way::To(target.clone(), tls)))
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
        let stream = TcpStream::connect((host.as_str(), port)).await?;
        let Some(tls) = tls else { return Ok(Box::new(stream)) };
        let name = ServerName::try_from(host.clone()).map_err(io::Error::other)?;
        Ok(Box::new(tls.connect(name, stream).await?))
    }
}

fn config(ca_file: Option<&Path>, insecure: bool) -> Result<ClientConfig, Failure> {
    let usage = |error: &dyn Display| Failure::Usage(error.to_string());
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| usage(&error))?;
    let (roots, named) = roots(ca_file)?;
    let usual = match insecure {
        true => None,
        false => {
            let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build();
            Some(verifier.map_err(|error| usage(&format!("no certificate is trusted, see --ca-file: {error}")))?)
        }
    };
    let verifier = Arc::new(Trust { usual, named, provider });
    Ok(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
}

/// The authorities, and the certificates that were named.
fn roots(ca_file: Option<&Path>) -> Result<(RootCertStore, Vec<CertificateDer<'static>>), Failure> {
    let mut roots = RootCertStore::empty();
    let Some(file) = ca_file else {
        // What cannot be read of the system's is missed when a certificate is not trusted, and said then.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        return Ok((roots, Vec::new()));
    };
    let wrong = |reason: &dyn Display| Failure::Usage(format!("--ca-file {}: {reason}", file.display()));
    let certificates = CertificateDer::pem_file_iter(file).map_err(|error| wrong(&error))?;
    let named = certificates.collect::<Result<Vec<_>, _>>().map_err(|error| wrong(&error))?;
    for certificate in &named {
        roots.add(certificate.clone()).map_err(|error| wrong(&error))?;
    }
    if roots.is_empty() { Err(wrong(&"no certificate in it")) } else { Ok((roots, named)) }
}

/// Whom we believe.
#[derive(Debug)]
struct Trust {
    /// None with `--insecure`: then whoever answers is believed, but what is signed must be signed.
    usual: Option<Arc<WebPkiServerVerifier>>,
    /// A certificate that was named is trusted itself, as curl's users expect it of one that signed itself; the usual rules
    /// take such a one only for an authority.
    named: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Trust {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(usual) = &self.usual else { return Ok(ServerCertVerified::assertion()) };
        if self.named.contains(certificate) {
            verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
            return Ok(ServerCertVerified::assertion());
        }
        usual.verify_server_cert(certificate, intermediates, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
