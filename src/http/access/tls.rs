//! From `tls_server_config` to a configuration of rustls.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_saphyr::Spanned;
use tokio_rustls::rustls::crypto::{SupportedKxGroup, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::NoServerSessionStorage;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{Error, RootCertStore, ServerConfig, SupportedCipherSuite, SupportedProtocolVersion};

use super::client_cert::{ClientCertificates, verifier};
use super::file::{Fault, Place, TlsTable, none_of, read_small};

/// How HTTP/2 is called when the protocol is agreed on.
pub(super) const H2: &[u8] = b"h2";

/// Versions in the order of their age. Those before 1.2 may be named, but nobody offers them.
const VERSIONS: &[&str] = &["TLS10", "TLS11", "TLS12", "TLS13"];

/// Suites that the schema knows and rustls leaves out on purpose: they have no forward secrecy, or are built on CBC.
const LEFT_OUT_SUITES: &[&str] = &[
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA",
    "TLS_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_RSA_WITH_AES_256_GCM_SHA384",
];

/// Curves that the schema knows and ring does not have.
const LEFT_OUT_CURVES: &[&str] = &["CurveP521", "X25519MLKEM768"];

/// What `tls_server_config` says; certificates are read anew for each connection.
pub(super) struct TlsRules {
    place: Place,
    cert: Pem,
    key: Pem,
    client_ca: Option<Pem>,
    client_certificates: ClientCertificates,
    versions: Vec<&'static SupportedProtocolVersion>,
    cipher_suites: Vec<SupportedCipherSuite>,
    curves: Vec<&'static dyn SupportedKxGroup>,
    prefer_server_order: bool,
    guards: Vec<&'static str>,
    /// Suites and curves that were asked for and cannot be offered.
    pub(super) left_out: Vec<String>,
}

/// PEM text, in the file itself or in one of its own.
struct Pem {
    place: Place,
    source: Source,
}

enum Source {
    Inline(String),
    File(PathBuf),
}

/// Everything that is read for a connection; as long as it is the same, so is the configuration.
#[derive(PartialEq, Eq)]
pub(super) struct Material {
    cert: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

// === impl TlsRules ===

impl TlsRules {
    pub(super) fn new(table: Spanned<TlsTable>, directory: &Path) -> Result<Self, Fault> {
        let place = Place::of(&table, "tls_server_config");
        let table = table.value;
        let pem = |inline, file, keys| Pem::one_of(inline, file, keys, directory);
        let cert = pem(table.cert, table.cert_file, ["tls_server_config.cert", "tls_server_config.cert_file"])?;
        let cert = cert.ok_or_else(|| place.fault("one of `cert` and `cert_file` is missing"))?;
        let key = pem(table.key, table.key_file, ["tls_server_config.key", "tls_server_config.key_file"])?;
        let key = key.ok_or_else(|| place.fault("one of `key` and `key_file` is missing"))?;
        let ca = ["tls_server_config.client_ca", "tls_server_config.client_ca_file"];
        let client_ca = pem(table.client_ca, table.client_ca_file, ca)?;
        let mut guards = vec!["tls_server_config"];
        guards.extend(table.client_auth_type.is_some().then_some("tls_server_config.client_auth_type"));
        guards.extend(table.client_allowed_sans.is_some().then_some("tls_server_config.client_allowed_sans"));
        guards.extend(table.min_version.is_some().then_some("tls_server_config.min_version"));
        let ca = client_ca.as_ref().map(|ca| ca.place);
        let client_certificates =
            ClientCertificates::new(table.client_auth_type, ca, table.client_allowed_sans, place)?;
        let mut left_out = Vec::new();
        Ok(Self {
            place,
            cert,
            key,
            client_ca,
            client_certificates,
            versions: versions(table.min_version, table.max_version)?,
            cipher_suites: cipher_suites(&table.cipher_suites, &mut left_out)?,
            curves: curves(&table.curve_preferences, &mut left_out)?,
            prefer_server_order: table.prefer_server_cipher_suites.unwrap_or(true),
            guards,
            left_out,
        })
    }

    /// The keys that keep somebody out.
    pub(super) fn guards(&self) -> impl Iterator<Item = &'static str> {
        self.guards.iter().copied()
    }

    /// Does a certificate that came through prove who sent it?
    pub(super) fn verifies_clients(&self) -> bool {
        self.client_certificates.are_verified()
    }

    /// Reads the certificates.
    pub(super) fn read(&self) -> Result<Material, Fault> {
        let client_ca = self.client_ca.as_ref().map(Pem::read).transpose()?;
        Ok(Material { cert: self.cert.read()?, key: self.key.read()?, client_ca })
    }

    /// What rustls needs to know.
    pub(super) fn server_config(&self, material: &Material, http2: bool) -> Result<ServerConfig, Fault> {
        let (cert, key) = (self.cert.place, self.key.place);
        let chain = certificates(&material.cert, cert)?;
        // What is wrong with a key is not said in detail: it may be a key.
        let private = PrivateKeyDer::from_pem_slice(&material.key);
        let private = private.map_err(|_| key.fault("there is no private key in PEM"))?;
        let mut provider = ring::default_provider();
        provider.cipher_suites.clone_from(&self.cipher_suites);
        provider.kx_groups.clone_from(&self.curves);
        let provider = Arc::new(provider);
        let authority = self.client_ca.as_ref().zip(material.client_ca.as_ref());
        let roots = authority.map(|(ca, text)| roots(text, ca.place)).transpose()?;
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&self.versions)
            .map_err(|error| self.place.fault(format!("no cipher suite is left for these versions: {error}")))?;
        let builder = match verifier(&self.client_certificates, roots, &provider) {
            Ok(Some(verifier)) => builder.with_client_cert_verifier(verifier),
            Ok(None) => builder.with_no_client_auth(),
            Err(error) => return Err(self.client_ca.as_ref().map_or(self.place, |ca| ca.place).fault(error)),
        };
        let mut config = builder.with_single_cert(chain, private).map_err(|error| match error {
            Error::InvalidCertificate(_) => cert.fault("the certificate in it cannot be read"),
            Error::InconsistentKeys(_) => key.fault("certificate and key do not go together"),
            _ => key.fault("a private key of this kind is not supported; RSA, ECDSA and Ed25519 are"),
        })?;
        config.ignore_client_order = self.prefer_server_order;
        config.alpn_protocols = if http2 { vec![H2.into(), b"http/1.1".into()] } else { vec![b"http/1.1".into()] };
        // Each connection is judged anew: a session that is resumed would bring an old judgement along.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }
}

fn certificates(pem: &[u8], place: Place) -> Result<Vec<CertificateDer<'static>>, Fault> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match chain {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        _ => Err(place.fault("there is no certificate in PEM")),
    }
}

fn roots(pem: &[u8], place: Place) -> Result<Arc<RootCertStore>, Fault> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem, place)? {
        roots.add(certificate).map_err(|_| place.fault("a certificate in it cannot be read"))?;
    }
    Ok(Arc::new(roots))
}

fn versions(
    min: Option<Spanned<String>>,
    max: Option<Spanned<String>>,
) -> Result<Vec<&'static SupportedProtocolVersion>, Fault> {
    let rank = |version: &Option<Spanned<String>>, key, default| match version {
        None => Ok(default),
        Some(version) => VERSIONS
            .iter()
            .position(|known| *known == version.value)
            .ok_or_else(|| Place::of(version, key).fault(none_of(&version.value, VERSIONS))),
    };
    let lowest = rank(&min, "tls_server_config.min_version", 2)?;
    let highest = rank(&max, "tls_server_config.max_version", 3)?;
    let offered = [(2, &TLS12), (3, &TLS13)].into_iter().filter(|(rank, _)| (lowest..=highest).contains(rank));
    let offered: Vec<_> = offered.map(|(_, version)| version).collect();
    match max {
        // Only a highest version can leave none.
        Some(max) if offered.is_empty() => {
            let place = Place::of(&max, "tls_server_config.max_version");
            Err(place.fault("no version is left: at least TLS12, and not below min_version"))
        }
        _ => Ok(offered),
    }
}

/// The suites in the order of the file; those of TLS 1.3 are not configurable, as in Go.
fn cipher_suites(wanted: &[Spanned<String>], left_out: &mut Vec<String>) -> Result<Vec<SupportedCipherSuite>, Fault> {
    if wanted.is_empty() {
        return Ok(ring::ALL_CIPHER_SUITES.to_vec());
    }
    let names: Vec<_> = ring::ALL_CIPHER_SUITES.iter().map(suite_name).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let named = pick(wanted, "tls_server_config.cipher_suites", &names, LEFT_OUT_SUITES, left_out)?;
    let named = named.into_iter().map(|index| ring::ALL_CIPHER_SUITES[index]);
    let is_newest = |suite: &SupportedCipherSuite| matches!(suite, SupportedCipherSuite::Tls13(_));
    let newest = ring::ALL_CIPHER_SUITES.iter().copied().filter(is_newest);
    Ok(newest.chain(named.filter(|suite| !is_newest(suite))).collect())
}

/// The name that the schema, which is Go's, has for a suite.
fn suite_name(suite: &SupportedCipherSuite) -> String {
    format!("{:?}", suite.suite()).replacen("TLS13_", "TLS_", 1)
}

fn curves(wanted: &[Spanned<String>], left_out: &mut Vec<String>) -> Result<Vec<&'static dyn SupportedKxGroup>, Fault> {
    const KEY: &str = "tls_server_config.curve_preferences";
    let names = ["CurveP256", "CurveP384", "X25519"];
    let offered = [ring::kx_group::SECP256R1, ring::kx_group::SECP384R1, ring::kx_group::X25519];
    let Some(first) = wanted.first() else { return Ok(ring::ALL_KX_GROUPS.to_vec()) };
    let named = pick(wanted, KEY, &names, LEFT_OUT_CURVES, left_out)?;
    if named.is_empty() {
        let message = format!("this program has none of these; name one of {}", names.join(", "));
        return Err(Place::of(first, KEY).fault(message));
    }
    Ok(named.into_iter().map(|index| offered[index]).collect())
}

/// The places of the wanted names among those that are offered; known ones that are not are passed over.
fn pick(
    wanted: &[Spanned<String>],
    key: &'static str,
    offered: &[&str],
    known: &[&str],
    left_out: &mut Vec<String>,
) -> Result<Vec<usize>, Fault> {
    let mut picked = Vec::new();
    for name in wanted {
        match offered.iter().position(|offered| *offered == name.value) {
            Some(index) if !picked.contains(&index) => picked.push(index),
            Some(_) => {}
            None if known.contains(&name.value.as_str()) => left_out.push(name.value.clone()),
            None => return Err(Place::of(name, key).fault(none_of(&name.value, offered))),
        }
    }
    Ok(picked)
}

// === impl Pem ===

impl Pem {
    /// The text that stands in the file, or the file that it names; an error if both are given. What is empty is absent.
    fn one_of(
        inline: Option<Spanned<String>>,
        file: Option<Spanned<String>>,
        [inline_key, file_key]: [&'static str; 2],
        directory: &Path,
    ) -> Result<Option<Self>, Fault> {
        let given = |value: Option<Spanned<String>>| value.filter(|value| !value.value.is_empty());
        match (given(inline), given(file)) {
            (Some(_), Some(file)) => {
                Err(Place::of(&file, file_key).fault("the same is given inline: leave one of them out"))
            }
            (Some(text), None) => {
                Ok(Some(Self { place: Place::of(&text, inline_key), source: Source::Inline(text.value) }))
            }
            (None, Some(file)) => {
                let source = Source::File(directory.join(&file.value));
                Ok(Some(Self { place: Place::of(&file, file_key), source }))
            }
            (None, None) => Ok(None),
        }
    }

    fn read(&self) -> Result<Vec<u8>, Fault> {
        match &self.source {
            Source::Inline(text) => Ok(text.clone().into_bytes()),
            Source::File(path) => {
                read_small(path).map_err(|error| self.place.fault(format!("{}: {error}", path.display())))
            }
        }
    }
}
