//! Which client certificates are asked for, and which are let in.

use std::net::IpAddr;
use std::sync::Arc;

use serde_saphyr::Spanned;
use tokio_rustls::rustls::client::danger::HandshakeSignatureValid;
use tokio_rustls::rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::pki_types::{CertificateDer, UnixTime};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use tokio_rustls::rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme,
};
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use super::faults::is_self_signed;
use super::file::{Fault, Place, none_of};

/// The words of `client_auth_type`. `RequireClientCert` is an older name.
const KINDS: &[(&str, Kind)] = &[
    ("NoClientCert", Kind::No),
    ("RequestClientCert", Kind::Request),
    ("RequireAnyClientCert", Kind::RequireAny),
    ("RequireClientCert", Kind::RequireAny),
    ("VerifyClientCertIfGiven", Kind::VerifyIfGiven),
    ("RequireAndVerifyClientCert", Kind::RequireAndVerify),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    No,
    /// Asked for, and never looked at.
    Request,
    /// Any will do, of whoever made it.
    RequireAny,
    VerifyIfGiven,
    RequireAndVerify,
}

/// What the file says of client certificates.
pub(super) struct ClientCertificates {
    kind: Kind,
    /// If there is a list, one of its names must stand in the certificate, letter for letter.
    allowed_sans: Option<Vec<String>>,
}

impl ClientCertificates {
    /// `ca` is where the authority is named, `section` where the whole section begins.
    pub(super) fn new(
        kind: Option<Spanned<String>>,
        ca: Option<Place>,
        allowed_sans: Option<Spanned<Vec<String>>>,
        section: Place,
    ) -> Result<Self, Fault> {
        let place = kind.as_ref().map_or(section, |kind| Place::of(kind, "tls_server_config.client_auth_type"));
        let word = kind.map(|kind| kind.value).filter(|word| !word.is_empty());
        let word = word.as_deref().unwrap_or("NoClientCert");
        let Some((_, kind)) = KINDS.iter().find(|(known, _)| *known == word) else {
            let known: Vec<_> = KINDS.iter().map(|(known, _)| *known).collect();
            return Err(place.fault(none_of(word, &known)));
        };
        match ca {
            Some(ca) if *kind == Kind::No => {
                return Err(ca.fault("it says nothing without `client_auth_type: RequireAndVerifyClientCert`"));
            }
            None if *kind == Kind::RequireAndVerify => {
                return Err(place.fault("`client_ca` or `client_ca_file` is missing: nobody could be verified"));
            }
            _ => {}
        }
        if let Some(sans) = &allowed_sans {
            let place = Place::of(sans, "tls_server_config.client_allowed_sans");
            // Any certificate can claim any name: only a verified one proves it.
            if *kind != Kind::RequireAndVerify {
                return Err(place.fault(
                    "it needs `client_auth_type: RequireAndVerifyClientCert`, else whoever shows no certificate, or one \
                     made at home, gets in",
                ));
            }
            if sans.value.is_empty() {
                return Err(place.fault("there is no name: nobody would be let in"));
            }
        }
        Ok(Self { kind: *kind, allowed_sans: allowed_sans.map(|sans| sans.value) })
    }

    /// Does a certificate that came through prove who sent it?
    pub(super) fn are_verified(&self) -> bool {
        matches!(self.kind, Kind::VerifyIfGiven | Kind::RequireAndVerify)
    }
}

/// What rustls asks about client certificates; nothing if none are asked for.
///
/// # Errors
/// In words, if nobody can be verified by these authorities.
pub(super) fn verifier(
    rules: &ClientCertificates,
    roots: Option<Arc<RootCertStore>>,
    provider: &Arc<CryptoProvider>,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, String> {
    let (authority, mandatory) = match (rules.kind, roots) {
        // Without an authority whoever shows a certificate could only be refused, so nobody is asked for one.
        (Kind::No, _) | (Kind::VerifyIfGiven | Kind::RequireAndVerify, None) => return Ok(None),
        (Kind::Request, _) => (None, false),
        (Kind::RequireAny, _) => (None, true),
        (Kind::VerifyIfGiven | Kind::RequireAndVerify, Some(roots)) => {
            let authority = WebPkiClientVerifier::builder_with_provider(roots, provider.clone()).build();
            (Some(authority.map_err(|error| error.to_string())?), rules.kind == Kind::RequireAndVerify)
        }
    };
    let algorithms = provider.signature_verification_algorithms;
    Ok(Some(Arc::new(Verifier { authority, mandatory, allowed_sans: rules.allowed_sans.clone(), algorithms })))
}

#[derive(Debug)]
struct Verifier {
    /// Who says whether a certificate is good; without one each is.
    authority: Option<Arc<dyn ClientCertVerifier>>,
    mandatory: bool,
    allowed_sans: Option<Vec<String>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientCertVerifier for Verifier {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.authority.as_ref().map_or(&[], |authority| authority.root_hint_subjects())
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if let Some(authority) = &self.authority {
            authority.verify_client_cert(certificate, intermediates, now).map_err(|error| match error {
                // rustls has no alert for it, and this one tells the client what is wrong.
                Error::InvalidCertificate(CertificateError::Other(_)) if is_self_signed(certificate) => {
                    CertificateError::UnknownIssuer.into()
                }
                other => other,
            })?;
        }
        if let Some(allowed) = &self.allowed_sans {
            let names = names(certificate).ok_or(CertificateError::BadEncoding)?;
            if !names.iter().any(|name| allowed.contains(name)) {
                return Err(CertificateError::ApplicationVerificationFailure.into());
            }
        }
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// The subject alternative names of a certificate that the schema compares: DNS, e-mail, IP and URI. None if it cannot be
/// read.
fn names(certificate: &CertificateDer<'_>) -> Option<Vec<String>> {
    let certificate = Certificate::from_der(certificate).ok()?;
    let Some((_, SubjectAltName(names))) = certificate.tbs_certificate().get_extension().ok()? else {
        return Some(Vec::new());
    };
    let name = |name| match name {
        GeneralName::DnsName(name) => Some(name.to_string()),
        GeneralName::Rfc822Name(name) => Some(name.to_string()),
        GeneralName::UniformResourceIdentifier(name) => Some(name.to_string()),
        GeneralName::IpAddress(octets) => address(octets.as_bytes()).map(|address| address.to_string()),
        _ => None,
    };
    Some(names.into_iter().filter_map(name).collect())
}

fn address(octets: &[u8]) -> Option<IpAddr> {
    let four = <[u8; 4]>::try_from(octets).map(IpAddr::from).ok();
    four.or_else(|| <[u8; 16]>::try_from(octets).map(IpAddr::from).ok())
}
