//! Certificates: what an exporter asks for, what the commands show and believe, and the sentence for each thing that is wrong.

use std::path::Path;

use restart_exporter::http::HTTPS_ONLY;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::{code, run};
use crate::web_config::site::{PASSWORD, Site, certificates, client_certificates, tls, tls_of, users};
use crate::world::Running;

/// A flag with a file among the certificates.
fn file(flag: &str, name: &str) -> String {
    format!("--{flag}={}/{name}", certificates().display())
}

/// The flags that show this certificate.
fn shown(name: &str) -> [String; 2] {
    [file("cert", &format!("{name}.crt")), file("key", &format!("{name}.key"))]
}

/// What `status` says of an exporter that it cannot ask: one line, exit status 2, no word of a program's own.
async fn complaint(url: &str, flags: &[String]) -> String {
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let ended = run(&[&["status", "--url", url][..], &flags].concat()).await;
    assert_eq!((code(&ended), &*ended.stdout), (2, ""), "{flags:?}: {}", ended.stderr);
    let line = ended.stderr.strip_suffix('\n').unwrap().strip_prefix("restart_exporter: ").unwrap().to_owned();
    for word in
        ["UnknownIssuer", "CertificateRequired", "InvalidCertificate", "Invalid(", "Error", "peer", "received fatal"]
    {
        assert!(!line.contains(word), "{flags:?}: {line}");
    }
    assert!(!line.contains('\n'), "{line}");
    line
}

/// The web config file of the README, with a user whose password is known, beside the certificates that it names.
fn of_the_readme(folder: &Path) -> std::path::PathBuf {
    let readme = include_str!("../../../README.md");
    let yaml = readme.split("```yaml\n").find_map(|rest| rest.strip_prefix("# web.yml\n")).unwrap();
    let yaml = yaml.split("```").next().unwrap();
    assert!(yaml.contains("RequireAndVerifyClientCert"), "{yaml}");
    let user = users().lines().last().unwrap().to_owned();
    let text = yaml.replace("\nhttp_server_config", &format!("\n{user}\nhttp_server_config"));
    for name in ["server.crt", "server.key", "ca.crt"] {
        std::fs::copy(certificates().join(name), folder.join(name)).unwrap();
    }
    let file = folder.join("web.yml");
    std::fs::write(&file, text).unwrap();
    file
}

// The README's own web config file does not lock the commands out.
#[tokio::test]
async fn the_commands_get_past_the_web_config_of_the_readme() {
    let folder = tempfile::tempdir().unwrap();
    let web = format!("--web.config.file={}", of_the_readme(folder.path()).display());
    let exporter = Running::start(&["run", &web]).await;
    let url = format!("--url=https://{}", exporter.address);
    let (ca, user) = (file("ca-file", "server.crt"), format!("--user=ada:{PASSWORD}"));
    let [cert, key] = shown("client");
    let flags = [&*url, &ca, &user, &cert, &key];
    let ended = run(&[&["status"][..], &flags].concat()).await;
    assert_eq!((code(&ended), &*ended.stdout), (0, "no supervisors\n"), "{}", ended.stderr);
    for command in [&["why", "x"][..], &["history", "x"], &["restart", "x"], &["reload"], &["mark", "x"]] {
        let ended = run(&[command, &flags].concat()).await;
        assert!(!ended.stderr.contains("cannot reach"), "{command:?}: {}", ended.stderr);
    }
    let line = complaint(&format!("https://{}", exporter.address), &[ca, user]).await;
    assert!(line.ends_with(": it requires a client certificate: name one with --cert and --key"), "{line}");
}

// A certificate that the exporter does not accept: the commands say why, and so does the log of the exporter.
#[tokio::test]
async fn a_refused_certificate_is_explained_on_both_sides() {
    for versions in ["", "\nmax_version: TLS12"] {
        let names = format!("{}\nclient_allowed_sans: [prometheus.example]{versions}", client_certificates());
        let mut site = Site::start_with(&tls(&names), &["--log.level=debug"]).await;
        let url = format!("https://{}", site.exporter.address);
        let table = [
            ("forged", "no authority in its client_ca_file signed it", "was not signed by a trusted authority"),
            ("expired", "it has expired, or is not valid yet", "has expired"),
            (
                "stranger",
                "it has none of the names in client_allowed_sans",
                "has none of the names in client_allowed_sans",
            ),
            ("for_servers", "it is not meant for clients (extended key usage)", "is not meant for this use"),
        ];
        for (name, said, logged) in table {
            let [cert, key] = shown(name);
            let line = complaint(&url, &[cert, key, file("ca-file", "server.crt")]).await;
            // The connection may be closed before the reason arrives.
            let expected = [
                format!("cannot reach {url}: it does not accept the certificate in --cert: {said}"),
                format!("cannot reach {url}: it closed the connection; it may not accept the certificate in --cert"),
            ];
            assert!(expected.contains(&line), "{line}\n  not {expected:?}");
            let log = site.exporter.line_with("TLS handshake refused").await;
            assert!(log.contains(&format!("err=\"the certificate of the client {logged}")), "{log}");
        }
        complaint(&url, &[file("ca-file", "server.crt")]).await;
        let log = site.exporter.line_with("TLS handshake refused").await;
        assert!(log.contains("err=\"the client showed no certificate, and client_auth_type requires one\""), "{log}");
        complaint(&url, &[file("ca-file", "other.crt")]).await;
        let log = site.exporter.line_with("TLS handshake refused").await;
        assert!(log.contains("err=\"the client does not accept the certificate in cert_file\""), "{log}");
        complaint(&url.replace("https", "http"), &[]).await;
        let log = site.exporter.line_with("TLS handshake refused").await;
        assert!(log.contains("err=\"the client speaks plain HTTP\""), "{log}");
    }
}

// A certificate of the exporter that is not believed: what is wrong with it, and which flag would be right.
#[tokio::test]
async fn a_certificate_that_is_not_believed_is_explained() {
    let table = [
        ("server", "other.crt", "its certificate is self-signed: name it with --ca-file to trust it"),
        ("signed", "other.crt", "its certificate was not signed by an authority in --ca-file "),
        (
            "signed",
            "",
            "its certificate was not signed by a trusted authority: name the authority's certificate with --ca-file",
        ),
        ("elsewhere", "ca.crt", "its certificate is for another name: elsewhere.example; use such a name in --url"),
        ("old", "ca.crt", "its certificate has expired"),
        ("for_clients", "ca.crt", "its certificate is not meant for this use (extended key usage)"),
    ];
    for (name, ca, said) in table {
        let site = Site::start(&tls_of(name, "")).await;
        let url = format!("https://{}", site.exporter.address);
        let ca: Vec<_> = Some(file("ca-file", ca)).filter(|_| !ca.is_empty()).into_iter().collect();
        let line = complaint(&url, &ca).await;
        assert!(line.starts_with(&format!("cannot reach {url}: {said}")), "{name}: {line}");
    }
    let site = Site::start(&tls_of("signed", "")).await;
    let ended = run(&["status", &format!("--url=https://{}", site.exporter.address), &file("ca-file", "ca.crt")]).await;
    assert_eq!(code(&ended), 0, "{}", ended.stderr);
}

// Flags that do not go together, and files that are not what their flag says, are told before anything is sent.
#[tokio::test]
async fn flags_and_files_that_cannot_be_right_are_named() {
    let nowhere = "https://127.0.0.1:1";
    let [cert, key] = shown("client");
    let absent = "/no/such.pem".to_owned();
    let folder = tempfile::tempdir().unwrap();
    let made = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let words = made("words", "hello\n");
    let cut = made("cut", "-----BEGIN CERTIFICATE-----\nMIIB\n");
    let odd = made("odd", "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n");
    let locked = made("locked", "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n-----END ENCRYPTED PRIVATE KEY-----\n");
    let table: [(&str, Vec<String>, String); 14] = [
        (nowhere, vec![cert.clone()], "--cert needs --key, the file of its private key".into()),
        (nowhere, vec![key.clone()], "--key needs --cert, the file of its certificate".into()),
        (nowhere, vec![format!("--cert={absent}"), key.clone()], format!("--cert {absent}: No such file")),
        (nowhere, vec![cert.clone(), format!("--key={absent}")], format!("--key {absent}: No such file")),
        (nowhere, vec![format!("--ca-file={absent}")], format!("--ca-file {absent}: No such file")),
        (
            nowhere,
            vec![format!("--cert={words}"), key.clone()],
            format!("--cert {words}: no certificate in it; expected PEM"),
        ),
        (nowhere, vec![format!("--cert={cut}"), key.clone()], format!("--cert {cut}: what is in it is not valid PEM")),
        (
            nowhere,
            vec![format!("--cert={odd}"), key.clone()],
            format!("--cert {odd}: the certificate in it cannot be read"),
        ),
        (nowhere, vec![format!("--ca-file={odd}")], format!("--ca-file {odd}: a certificate in it cannot be read")),
        (
            nowhere,
            vec![cert.clone(), format!("--key={words}")],
            format!("--key {words}: no private key in it; expected PEM"),
        ),
        (
            nowhere,
            vec![cert.clone(), format!("--key={locked}")],
            format!("--key {locked}: its private key is encrypted"),
        ),
        (
            nowhere,
            vec![cert.clone(), file("key", "stranger.key")],
            format!("--key {}/stranger.key: it is not the key of the certificate in --cert", certificates().display()),
        ),
        (
            "http://127.0.0.1:1",
            vec![cert.clone(), key.clone()],
            "--cert is only for TLS, and http://127.0.0.1:1 has none: use --url https://HOST:PORT".into(),
        ),
        ("unix:/run/x", vec![file("ca-file", "ca.crt")], "--ca-file is only for TLS, and unix:/run/x has none".into()),
    ];
    for (url, flags, said) in table {
        let line = complaint(url, &flags).await;
        assert!(line.starts_with(&said), "{flags:?}: {line}\n  not {said}");
    }
    let endless = complaint(nowhere, &["--ca-file=/dev/zero".into()]).await;
    assert!(endless.starts_with("--ca-file /dev/zero: larger than "), "{endless}");
}

// Plain HTTP where TLS is spoken, and the reverse: the other scheme is what would be right.
#[tokio::test]
async fn the_wrong_scheme_is_told_apart() {
    let site = Site::start(&tls("")).await;
    let line = complaint(&format!("http://{}", site.exporter.address), &[]).await;
    assert!(line.ends_with(": it speaks TLS: use https:// instead of http:// in --url"), "{line}");
    let plain = Running::start(&["run"]).await;
    let line = complaint(&format!("https://{}", plain.address), &[]).await;
    assert!(line.ends_with(": it does not speak TLS: use http:// instead of https:// in --url"), "{line}");
    // Other servers than ours: an answer of Go's, one of TLS, none.
    let go = format!("HTTP/1.0 400 Bad Request\r\n\r\n{HTTPS_ONLY}\n");
    let table: [(&[u8], &str); 3] = [
        (go.as_bytes(), ": it speaks TLS: use https:// instead of http:// in --url"),
        (b"\x15\x03\x03\0\x02\x02\x0a", ": what it answers is not HTTP; if it speaks TLS, use https:// in --url"),
        (b"", ": it closed the connection without an answer"),
    ];
    for (answer, said) in table {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let answer = answer.to_owned();
        let served = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 4096];
            assert_ne!(stream.read(&mut request).await.unwrap(), 0);
            stream.write_all(&answer).await.unwrap();
        });
        let line = complaint(&url, &[]).await;
        assert!(line.ends_with(said), "{line}\n  not {said}");
        served.await.unwrap();
    }
}
