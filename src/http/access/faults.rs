//! Why a TLS handshake failed, in sentences. Pure.

use std::borrow::Cow;
use std::io;
use std::time::Duration;

use tokio_rustls::rustls::pki_types::{CertificateDer, UnixTime};
use tokio_rustls::rustls::{AlertDescription, CertificateError, Error};
use x509_cert::Certificate;
use x509_cert::der::Decode;

use crate::wire;

/// What is wrong with a certificate, as the end of a sentence that begins with whose it is: `expired at 2026-11-27T08:00:00.000Z`.
pub fn certificate_fault(error: &CertificateError) -> Cow<'static, str> {
    let words = match error {
        CertificateError::BadEncoding => "cannot be read",
        CertificateError::Expired => "has expired",
        CertificateError::ExpiredContext { not_after, .. } => return format!("expired at {}", at(*not_after)).into(),
        CertificateError::NotValidYet => "is not valid yet",
        CertificateError::NotValidYetContext { not_before, .. } => {
            return format!("is not valid before {}", at(*not_before)).into();
        }
        CertificateError::Revoked => "was revoked",
        CertificateError::UnknownRevocationStatus
        | CertificateError::ExpiredRevocationList
        | CertificateError::ExpiredRevocationListContext { .. } => {
            "may have been revoked: no current list says that it was not"
        }
        CertificateError::UnknownIssuer => "was not signed by a trusted authority",
        CertificateError::BadSignature => "has a wrong signature",
        CertificateError::NotValidForName => "is for another name",
        CertificateError::NotValidForNameContext { presented, .. } => match &presented[..] {
            [] => "is for no name at all",
            names => {
                let names: Vec<_> = names.iter().map(|name| unquoted(name)).collect();
                return format!("is for another name: {}", names.join(", ")).into();
            }
        },
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "is not meant for this use (extended key usage)"
        }
        CertificateError::UnhandledCriticalExtension => "has a critical extension that is not supported",
        CertificateError::ApplicationVerificationFailure => "has none of the names in client_allowed_sans",
        _ => "cannot be verified: it is not one of a server or client, or its signature is of an unsupported kind",
    };
    words.into()
}

/// Does a certificate name itself as the authority that signed it? One that cannot be read does not.
pub fn is_self_signed(certificate: &CertificateDer<'_>) -> bool {
    let certificate = Certificate::from_der(certificate);
    certificate.is_ok_and(|it| it.tbs_certificate().issuer() == it.tbs_certificate().subject())
}

/// The name in `DnsName("a.example")`.
fn unquoted(name: &str) -> &str {
    let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
    inner.unwrap_or(name).trim_matches('"')
}

fn at(time: UnixTime) -> String {
    wire::rfc3339(Duration::from_secs(time.as_secs()).as_millis() as u64)
}

/// Why a client was refused, or went away, for the log of the server.
pub(super) fn refusal(error: &io::Error) -> Cow<'static, str> {
    let Some(error) = error.get_ref().and_then(|error| error.downcast_ref::<Error>()) else {
        return match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                "the client closed the connection".into()
            }
            _ => error.to_string().into(),
        };
    };
    match error {
        Error::NoCertificatesPresented => "the client showed no certificate, and client_auth_type requires one".into(),
        Error::InvalidCertificate(error) => {
            format!("the certificate of the client {}", certificate_fault(error)).into()
        }
        Error::AlertReceived(
            AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateExpired,
        ) => "the client does not accept the certificate in cert_file".into(),
        Error::AlertReceived(AlertDescription::CloseNotify | AlertDescription::UserCanceled) => {
            "the client closed the connection".into()
        }
        Error::AlertReceived(alert) => {
            format!("the client ended the handshake with TLS alert {}", u8::from(*alert)).into()
        }
        Error::PeerIncompatible(_) => {
            "the client has no TLS version, cipher suite or curve in common with this server".into()
        }
        Error::InvalidMessage(_) | Error::InappropriateMessage { .. } => "what the client sent is not TLS".into(),
        other => format!("the handshake failed: {other}").into(),
    }
}

#[cfg(test)]
mod tests {
    use tokio_rustls::rustls::InvalidMessage;
    use tokio_rustls::rustls::pki_types::ServerName;

    use super::*;

    // Each fault is a sentence for people: no name of a type.
    #[test]
    fn a_fault_is_a_sentence() {
        let time = UnixTime::since_unix_epoch(Duration::from_secs(1_700_000_000));
        let expected = ServerName::try_from("a.example").unwrap();
        let presented = vec!["DnsName(\"b.example\")".into(), "IpAddress(127.0.0.1)".into()];
        let table = [
            (CertificateError::ExpiredContext { time, not_after: time }, "expired at 2023-11-14T22:13:20.000Z"),
            (
                CertificateError::NotValidYetContext { time, not_before: time },
                "is not valid before 2023-11-14T22:13:20.000Z",
            ),
            (CertificateError::Revoked, "was revoked"),
            (CertificateError::UnknownIssuer, "was not signed by a trusted authority"),
            (
                CertificateError::NotValidForNameContext { expected, presented },
                "is for another name: b.example, 127.0.0.1",
            ),
            (CertificateError::InvalidPurpose, "is not meant for this use (extended key usage)"),
        ];
        for (error, words) in table {
            assert_eq!(certificate_fault(&error), words);
            let refused = refusal(&io::Error::other(Error::InvalidCertificate(error)));
            assert_eq!(refused, format!("the certificate of the client {words}"));
        }
        let table = [
            (Error::NoCertificatesPresented, "the client showed no certificate, and client_auth_type requires one"),
            (
                Error::AlertReceived(AlertDescription::UnknownCA),
                "the client does not accept the certificate in cert_file",
            ),
            (
                Error::AlertReceived(AlertDescription::IllegalParameter),
                "the client ended the handshake with TLS alert 47",
            ),
            (Error::InvalidMessage(InvalidMessage::InvalidContentType), "what the client sent is not TLS"),
        ];
        for (error, words) in table {
            assert_eq!(refusal(&io::Error::other(error)), words);
        }
        assert_eq!(refusal(&io::ErrorKind::ConnectionReset.into()), "the client closed the connection");
    }
}
