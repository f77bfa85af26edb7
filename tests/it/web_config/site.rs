//! A folder with certificates and a web config file, exporters that read it, and curl, which tries to get in.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::world::{Ended, Running, run_to_end};

/// The password of the user `ada` in [`users`].
pub(crate) const PASSWORD: &str = "correct horse: battery";

/// Certificates that all tests share: `server`, `other` (a second server), and clients of the authority `ca`: `client` with
/// every kind of name, `stranger` with another name, `expired`, `for_servers`; and `forged`, which has the names of `client`
/// from nobody. Servers of the authority are `signed`, `elsewhere` with another name, `old`, which has expired, and
/// `for_clients`.
pub(crate) fn certificates() -> &'static Path {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    FOLDER.get_or_init(make_certificates).path()
}

fn make_certificates() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let openssl = |arguments: &[&str]| {
        let mut openssl = Command::new("openssl");
        let output = openssl.current_dir(&folder).args(arguments).output();
        let output = output.unwrap_or_else(|error| panic!("openssl cannot be run, install it: {error}"));
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    let make = |name: &str, sans: &str, more: &[&str]| {
        let (subject, sans) = (format!("/CN={name}"), format!("subjectAltName={sans}"));
        let (key, certificate) = (format!("{name}.key"), format!("{name}.crt"));
        let begin = ["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", &subject];
        openssl(&[&begin[..], &["-keyout", &key, "-out", &certificate, "-addext", &sans], more].concat());
    };
    let ours = ["-x509", "-CA", "ca.crt", "-CAkey", "ca.key", "-addext", "basicConstraints=critical,CA:FALSE"];
    let names =
        "DNS:prometheus.example,email:ops@example.org,IP:10.0.0.7,IP:2001:db8::7,URI:spiffe://example/prometheus";
    for (name, sans) in [("server", "DNS:localhost,IP:127.0.0.1"), ("other", "DNS:localhost,IP:127.0.0.1")] {
        make(name, sans, &["-x509"]);
    }
    make("ca", "DNS:ca.example", &["-x509"]);
    make("client", names, &ours);
    make("stranger", "DNS:stranger.example", &ours);
    make("forged", names, &["-x509"]);
    let here = "DNS:localhost,IP:127.0.0.1";
    for (name, sans) in [("expired", names), ("old", here)] {
        make(name, sans, &["-new"]);
        let file = format!("{name}.crt");
        let ended = ["x509", "-req", "-in", &file, "-CA", "ca.crt", "-CAkey", "ca.key", "-days", "-1"];
        openssl(&[&ended[..], &["-copy_extensions", "copy", "-out", &file]].concat());
    }
    make("signed", here, &ours);
    make("elsewhere", "DNS:elsewhere.example", &ours);
    make("for_servers", names, &[&ours[..], &["-addext", "extendedKeyUsage=serverAuth"]].concat());
    make("for_clients", here, &[&ours[..], &["-addext", "extendedKeyUsage=clientAuth"]].concat());
    folder
}

/// `basic_auth_users` with one user, whose password is [`PASSWORD`].
pub(crate) fn users() -> String {
    static HASH: OnceLock<String> = OnceLock::new();
    let hash = HASH.get_or_init(|| bcrypt::hash(PASSWORD, 4).unwrap());
    format!("basic_auth_users:\n  ada: {hash}\n")
}

/// `tls_server_config` with the certificate `server` and more lines.
pub(crate) fn tls(more: &str) -> String {
    tls_of("server", more)
}

/// `tls_server_config` with this certificate and more lines.
pub(crate) fn tls_of(name: &str, more: &str) -> String {
    let folder = certificates().display();
    let more: String = more.lines().map(|line| format!("  {line}\n")).collect();
    format!("tls_server_config:\n  cert_file: {folder}/{name}.crt\n  key_file: {folder}/{name}.key\n{more}")
}

/// The lines that ask for a client certificate of our authority.
pub(crate) fn client_certificates() -> String {
    format!("client_auth_type: RequireAndVerifyClientCert\nclient_ca_file: {}/ca.crt", certificates().display())
}

/// An exporter with a web config file.
pub(crate) struct Site {
    _folder: tempfile::TempDir,
    pub(crate) file: PathBuf,
    pub(crate) exporter: Running,
}

impl Site {
    pub(crate) async fn start(text: &str) -> Self {
        Self::start_with(text, &[]).await
    }

    pub(crate) async fn start_with(text: &str, arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("web.yml");
        std::fs::write(&file, text).unwrap();
        let flag = format!("--web.config.file={}", file.display());
        let exporter = Running::start(&[&["run", &flag], arguments].concat()).await;
        Self { _folder: folder, file, exporter }
    }

    pub(crate) fn write(&self, text: &str) {
        std::fs::write(&self.file, text).unwrap();
    }

    /// Asks with curl over TLS; `arguments` may override everything.
    pub(crate) async fn https(&self, path: &str, arguments: &[&str]) -> Answer {
        self.curl("https", path, arguments).await
    }

    /// Asks with curl without TLS.
    pub(crate) async fn http(&self, path: &str, arguments: &[&str]) -> Answer {
        self.curl("http", path, arguments).await
    }

    async fn curl(&self, scheme: &str, path: &str, arguments: &[&str]) -> Answer {
        let url = format!("{scheme}://{}{path}", self.exporter.address);
        let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        tokio::task::spawn_blocking(move || curl(&url, &arguments)).await.unwrap()
    }

    /// `GET` of `/-/healthy` as the user that is in the file: 200, or what else came.
    pub(crate) async fn status(&self, scheme: &str) -> u16 {
        self.curl(scheme, "/-/healthy", &["-u", &format!("ada:{PASSWORD}")]).await.status
    }
}

/// What curl saw.
#[derive(Debug)]
pub(crate) struct Answer {
    /// 0 if there was no answer.
    pub(crate) status: u16,
    /// `1.1` or `2`.
    pub(crate) version: String,
    /// Head and body, or what curl says is wrong.
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let head = self.text.lines().take_while(|line| !line.is_empty());
        let mut pairs = head.filter_map(|line| line.split_once(": "));
        pairs.find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

fn curl(url: &str, arguments: &[String]) -> Answer {
    let mut curl = Command::new("curl");
    curl.args(["-sS", "-i", "--max-time", "20", "--noproxy", "*", "-w", "\n%{http_code} %{http_version}"]);
    // The certificates of the tests are in one place; each is its own authority.
    curl.current_dir(certificates()).args(["--cacert", "server.crt"]).args(arguments).arg(url);
    let output = curl.output().unwrap_or_else(|error| panic!("curl cannot be run, install it: {error}"));
    let said = String::from_utf8_lossy(&output.stdout).replace('\r', "");
    let (text, codes) = said.rsplit_once('\n').expect("what -w writes");
    let (status, version) = codes.split_once(' ').expect("status and version");
    let text = text.to_owned() + &String::from_utf8_lossy(&output.stderr);
    Answer { status: status.parse().unwrap(), version: version.into(), text }
}

/// Runs an exporter to its end, as a wrong file makes it; returns the name of the file as well.
pub(crate) fn refused(text: &[u8]) -> (String, Ended) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("web.yml").display().to_string();
    std::fs::write(&file, text).unwrap();
    let flag = format!("--web.config.file={file}");
    (file, run_to_end(&["run", &flag, "--web.listen-address=127.0.0.1:0"]))
}
