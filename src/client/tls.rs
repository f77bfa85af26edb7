//! TLS as curl's users expect it: whom we believe, who we are, and why it failed, in sentences that say what would be right.

use std::fmt::{self, Display};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use restart_exporter::http::{certificate_fault, is_self_signed};
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::client::{ResolvesClientCert, WebPkiServerVerifier, verify_server_name};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::ParsedCertificate;
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError, RootCertStore,
    SignatureScheme,
};

use super::Failure;
use crate::cli::ClientArgs;

/// Largest file of certificates or a key that is read, in bytes: larger than any system's bundle of authorities.
const MAX_PEM_BYTES: u64 = 16 * 1024 * 1024;

/// What the flags say of TLS, and what became of it.
pub(super) struct Tls {
    pub(super) config: Arc<ClientConfig>,
    ca_file: Option<PathBuf>,
    identity: Arc<Identity>,
}

/// Who we are.
#[derive(Debug)]
struct Identity {
    certificate: Option<Arc<CertifiedKey>>,
    /// Did the exporter ask for a certificate?
    asked: AtomicBool,
}

// === impl Tls ===

impl Tls {
    /// Trusts the certificates of `--ca-file` instead of the system's, or with `--insecure` any; shows the certificate of
    /// `--cert`.
    ///
    /// # Errors
    /// [`Failure::Usage`] if a file cannot be used, or `--cert` and `--key` do not belong together.
    pub(super) fn new(args: &ClientArgs) -> Result<Self, Failure> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
        let builder = builder.map_err(|error| Failure::Usage(error.to_string()))?;
        let (roots, named) = roots(args.ca_file.as_deref())?;
        let usual = match args.insecure {
            true => None,
            false => {
                let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build();
                let none = |_| Failure::Usage("this system trusts no certificates: name some with --ca-file".into());
                Some(verifier.map_err(none)?)
            }
        };
        let certificate = certificate(args, &provider)?;
        let identity = Arc::new(Identity { certificate, asked: AtomicBool::new(false) });
        let verifier = Arc::new(Trust { usual, named, provider });
        let config = builder.dangerous().with_custom_certificate_verifier(verifier);
        let config = Arc::new(config.with_client_cert_resolver(identity.clone()));
        Ok(Self { config, ca_file: args.ca_file.clone(), identity })
    }

    /// Why there is no connection, or no answer, in words about the exporter; none if it has nothing to do with TLS.
    pub(super) fn fault(&self, error: Option<&Error>) -> Option<String> {
        let asked = self.identity.asked.load(Ordering::Relaxed);
        let shown = self.identity.certificate.is_some();
        let Some(error) = error else {
            // The alert that says why can be lost when the connection is closed.
            return match (asked, shown) {
                (true, false) => Some(REQUIRES.into()),
                (true, true) => Some("it closed the connection; it may not accept the certificate in --cert".into()),
                (false, _) => None,
            };
        };
        Some(match error {
            Error::InvalidCertificate(error) => self.fault_of_certificate(error),
            Error::AlertReceived(AlertDescription::CertificateRequired) => REQUIRES.into(),
            Error::AlertReceived(_) if asked && !shown => REQUIRES.into(),
            Error::AlertReceived(alert) if asked => refused(*alert),
            Error::AlertReceived(AlertDescription::ProtocolVersion | AlertDescription::HandshakeFailure)
            | Error::PeerIncompatible(_) => NOTHING_IN_COMMON.into(),
            Error::AlertReceived(AlertDescription::UnrecognisedName) => {
                "it has no certificate for this host name".into()
            }
            Error::AlertReceived(alert) => format!("it ended the handshake with TLS alert {}", u8::from(*alert)),
            Error::InvalidMessage(_) => "it does not speak TLS: use http:// instead of https:// in --url".into(),
            other => format!("the TLS handshake failed: {other}"),
        })
    }

    fn fault_of_certificate(&self, error: &CertificateError) -> String {
        let fault = certificate_fault(error);
        match (error, &self.ca_file) {
            (CertificateError::Other(OtherError(other)), _) if other.is::<SelfSigned>() => {
                "its certificate is self-signed: name it with --ca-file to trust it".into()
            }
            (CertificateError::UnknownIssuer, Some(file)) => {
                format!("its certificate was not signed by an authority in --ca-file {}", file.display())
            }
            (CertificateError::UnknownIssuer, None) => {
                format!("its certificate {fault}: name the authority's certificate with --ca-file")
            }
            (CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }, _) => {
                format!("its certificate {fault}; use such a name in --url")
            }
            (CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. }, _) => {
                format!("its certificate {fault}; is the clock of this host right?")
            }
            _ => format!("its certificate {fault}"),
        }
    }
}

const REQUIRES: &str = "it requires a client certificate: name one with --cert and --key";

const NOTHING_IN_COMMON: &str =
    "it has no TLS version, cipher suite or curve in common with this program, which speaks TLS 1.2 and 1.3";

/// What an alert says of the certificate that was shown.
fn refused(alert: AlertDescription) -> String {
    let why = match alert {
        AlertDescription::UnknownCA => "no authority in its client_ca_file signed it",
        AlertDescription::CertificateExpired => "it has expired, or is not valid yet",
        AlertDescription::CertificateRevoked => "it was revoked",
        AlertDescription::UnsupportedCertificate => "it is not meant for clients (extended key usage)",
        AlertDescription::AccessDenied => "it has none of the names in client_allowed_sans",
        AlertDescription::BadCertificate | AlertDescription::CertificateUnknown => "it cannot be verified",
        AlertDescription::ProtocolVersion | AlertDescription::HandshakeFailure => return NOTHING_IN_COMMON.into(),
        other => return format!("it ended the handshake with TLS alert {}", u8::from(other)),
    };
    format!("it does not accept the certificate in --cert: {why}")
}

// === Files ===

/// The bytes of a file that a flag names.
fn read(flag: &str, path: &Path) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    // One byte more than is allowed shows that there are too many: a pipe does not say how long it is.
    let read = File::open(path).and_then(|file| file.take(MAX_PEM_BYTES + 1).read_to_end(&mut bytes));
    match read {
        Ok(_) if bytes.len() as u64 > MAX_PEM_BYTES => {
            Err(wrong(flag, path, &format!("larger than {MAX_PEM_BYTES} bytes")))
        }
        Ok(_) => Ok(bytes),
        Err(error) => Err(wrong(flag, path, &error)),
    }
}

fn wrong(flag: &str, path: &Path, reason: &dyn Display) -> Failure {
    Failure::Usage(format!("{flag} {}: {reason}", path.display()))
}

fn certificates(flag: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(flag, path)?).collect();
    match certificates {
        Ok(certificates) if certificates.is_empty() => {
            Err(wrong(flag, path, &"no certificate in it; expected PEM, `-----BEGIN CERTIFICATE-----`"))
        }
        Ok(certificates) => Ok(certificates),
        Err(_) => Err(wrong(flag, path, &"what is in it is not valid PEM")),
    }
}

/// The authorities, and the certificates that were named.
fn roots(ca_file: Option<&Path>) -> Result<(RootCertStore, Vec<CertificateDer<'static>>), Failure> {
    let mut roots = RootCertStore::empty();
    let Some(file) = ca_file else {
        // What cannot be read of the system's is missed when a certificate is not trusted, and said then.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        return Ok((roots, Vec::new()));
    };
    let named = certificates("--ca-file", file)?;
    for certificate in &named {
        let unreadable = |_| wrong("--ca-file", file, &"a certificate in it cannot be read");
        roots.add(certificate.clone()).map_err(unreadable)?;
    }
    Ok((roots, named))
}

/// The certificate of `--cert` with the key of `--key`, if they are given.
fn certificate(args: &ClientArgs, provider: &CryptoProvider) -> Result<Option<Arc<CertifiedKey>>, Failure> {
    let (cert, key) = match (&args.cert, &args.key) {
        (None, None) => return Ok(None),
        (Some(cert), Some(key)) => (cert, key),
        (Some(_), None) => return Err(Failure::Usage("--cert needs --key, the file of its private key".into())),
        (None, Some(_)) => return Err(Failure::Usage("--key needs --cert, the file of its certificate".into())),
    };
    let chain = certificates("--cert", cert)?;
    let pem = read("--key", key)?;
    // What is wrong with a key is not said in detail: it may be a key.
    let Ok(private) = PrivateKeyDer::from_pem_slice(&pem) else {
        let is_encrypted = pem.windows(ENCRYPTED.len()).any(|text| text == ENCRYPTED);
        let reason = match is_encrypted {
            true => "its private key is encrypted; expected one without a passphrase",
            false => "no private key in it; expected PEM, `-----BEGIN PRIVATE KEY-----`",
        };
        return Err(wrong("--key", key, &reason));
    };
    match CertifiedKey::from_der(chain, private, provider) {
        Ok(certified) => Ok(Some(Arc::new(certified))),
        Err(Error::InconsistentKeys(_)) => {
            let reason = format!("it is not the key of the certificate in --cert {}", cert.display());
            Err(wrong("--key", key, &reason))
        }
        Err(Error::InvalidCertificate(_)) => Err(wrong("--cert", cert, &"the certificate in it cannot be read")),
        Err(_) => {
            Err(wrong("--key", key, &"its private key is of an unsupported kind; RSA, ECDSA and Ed25519 are supported"))
        }
    }
}

/// What is in the file of an encrypted key, of whatever format.
const ENCRYPTED: &[u8] = b"ENCRYPTED";

// === impl Identity ===

impl ResolvesClientCert for Identity {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.asked.store(true, Ordering::Relaxed);
        self.certificate.clone()
    }

    fn has_certs(&self) -> bool {
        self.certificate.is_some()
    }
}

// === Trust ===

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

/// A certificate that nobody but itself signed, and that was not named.
#[derive(Debug)]
struct SelfSigned;

impl Display for SelfSigned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("self-signed")
    }
}

impl std::error::Error for SelfSigned {}

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
        usual.verify_server_cert(certificate, intermediates, name, ocsp, now).map_err(|error| match error {
            Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::Other(_))
                if is_self_signed(certificate) =>
            {
                CertificateError::Other(OtherError(Arc::new(SelfSigned))).into()
            }
            other => other,
        })
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

/// The error of TLS in an error of the connection, if it is one.
pub(super) fn within(error: &io::Error) -> Option<&Error> {
    error.get_ref()?.downcast_ref()
}
