//! Files that are wrong from the start: nothing listens, and one line says where and what.

use std::process::Command;

use super::site::{certificates, client_certificates, refused, tls, users};

// Strict: what is unknown, of the wrong kind, missing or senseless is exit status 1 with file, line, column and key.
#[test]
fn a_wrong_file_is_refused_with_line_column_and_key() {
    let hash = "$2y$04$aaaaaaaaaaaaaaaaaaaaaOaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    let ca = certificates().join("ca.crt");
    let key = certificates().join("server.key");
    let folder = certificates().display();
    let table: Vec<(String, &str)> = vec![
        // Text and structure.
        ("hello\n".into(), ":1:1: expected mapping start"),
        ("- a\n".into(), ":1:1: expected mapping start"),
        ("null\n".into(), ":1:1: expected mapping start"),
        ("basic_auth_users: [\n".into(), ":1:19: "),
        ("basic_auth_users:\n  ada: 'x\n".into(), ":2:8: "),
        ("tls_config: {}\n".into(), ":1:1: tls_config: unknown field `tls_config`, expected one of tls_server_config"),
        (users() + &users(), ":3:1: duplicate mapping key `basic_auth_users`"),
        ("http_server_config: {}\n---\n{}\n".into(), ":3:1: "),
        // Sections.
        ("tls_server_config:\n".into(), ":1:18: tls_server_config: expected mapping start"),
        ("tls_server_config: {}\n".into(), ":1:20: tls_server_config: one of `cert` and `cert_file` is missing"),
        (tls("certs: x"), ":4:3: tls_server_config.certs: unknown field `certs`"),
        (
            tls("min_version: TLS9"),
            ":4:16: tls_server_config.min_version: \"TLS9\" is none of TLS10, TLS11, TLS12, TLS13",
        ),
        (tls("min_version: [TLS12]"), ":4:16: tls_server_config.min_version: expected string scalar"),
        (tls("max_version: TLS11"), ":4:16: tls_server_config.max_version: no version is left"),
        (tls("min_version: TLS13\nmax_version: TLS12"), ":5:16: tls_server_config.max_version: no version is left"),
        (
            tls("cipher_suites: [TLS_MADE_UP]"),
            ":4:19: tls_server_config.cipher_suites: \"TLS_MADE_UP\" is none of TLS_AES",
        ),
        (
            tls("cipher_suites: [TLS_RSA_WITH_AES_128_CBC_SHA]\nmax_version: TLS12"),
            ":2:3: tls_server_config: no cipher suite is left",
        ),
        (
            tls("curve_preferences: [CurveP1]"),
            ":4:23: tls_server_config.curve_preferences: \"CurveP1\" is none of CurveP256",
        ),
        (
            tls("curve_preferences: [CurveP521]"),
            ":4:23: tls_server_config.curve_preferences: this program has none of these",
        ),
        (
            tls("prefer_server_cipher_suites: maybe"),
            ":4:32: tls_server_config.prefer_server_cipher_suites: invalid boolean",
        ),
        // Certificates.
        (
            "tls_server_config: {cert_file: none.crt, key_file: none.key}\n".into(),
            ":1:32: tls_server_config.cert_file: ",
        ),
        (format!("tls_server_config: {{cert_file: {folder}/server.crt}}\n"), ":1:20: tls_server_config: one of `key`"),
        (format!("tls_server_config: {{cert_file: \"\", key_file: {folder}/server.key}}\n"), "one of `cert` and"),
        (format!("tls_server_config: {{cert_file: /, key_file: {folder}/server.key}}\n"), "no regular file"),
        (
            format!("tls_server_config: {{cert_file: {}, key_file: {0}}}\n", key.display()),
            ":1:32: tls_server_config.cert_file: there is no certificate in PEM",
        ),
        (
            format!("tls_server_config: {{cert_file: {folder}/server.crt, key_file: {folder}/server.crt}}\n"),
            "tls_server_config.key_file: there is no private key in PEM",
        ),
        (
            format!("tls_server_config: {{cert_file: {folder}/server.crt, key_file: {folder}/other.key}}\n"),
            "tls_server_config.key_file: certificate and key do not go together",
        ),
        (tls("cert: x"), ":2:14: tls_server_config.cert_file: the same is given inline"),
        // Client certificates.
        (
            tls(&format!("client_ca_file: {}", ca.display())),
            ":4:19: tls_server_config.client_ca_file: it says nothing without `client_auth_type",
        ),
        (
            tls("client_auth_type: Please"),
            ":4:21: tls_server_config.client_auth_type: \"Please\" is none of NoClientCert",
        ),
        (tls("client_auth_type: RequireAndVerifyClientCert"), ":4:21: tls_server_config.client_auth_type: `client_ca`"),
        (
            tls(&format!("client_auth_type: RequireAndVerifyClientCert\nclient_ca_file: {}", key.display())),
            ":5:19: tls_server_config.client_ca_file: there is no certificate in PEM",
        ),
        (tls("client_allowed_sans: [a]"), ":4:24: tls_server_config.client_allowed_sans: it needs `client_auth_type"),
        (
            tls("client_auth_type: VerifyClientCertIfGiven\nclient_allowed_sans: [a]"),
            ":5:24: tls_server_config.client_allowed_sans: it needs",
        ),
        (
            tls("client_auth_type: RequireAnyClientCert\nclient_allowed_sans: [a]"),
            ":5:24: tls_server_config.client_allowed_sans: it needs",
        ),
        (
            tls(&(client_certificates() + "\nclient_allowed_sans: []")),
            ":6:24: tls_server_config.client_allowed_sans: there is no name",
        ),
        // Users.
        ("basic_auth_users:\n".into(), ":1:17: basic_auth_users: expected mapping start"),
        ("basic_auth_users: {}\n".into(), ":1:19: basic_auth_users: there is no user"),
        ("basic_auth_users:\n  ada: s3cret\n".into(), ":2:8: basic_auth_users.ada: no bcrypt hash"),
        ("basic_auth_users:\n  ada:\n".into(), "basic_auth_users.ada: "),
        (format!("basic_auth_users:\n  \"a:b\": {hash}\n"), ":2:10: basic_auth_users.a:b: a colon cannot be part"),
        (
            format!("basic_auth_users:\n  ada: {}\n", hash.replacen("04", "21", 1)),
            ":2:8: basic_auth_users.ada: the cost",
        ),
        // Headers and rate.
        ("http_server_config: {http3: true}\n".into(), ":1:22: http_server_config.http3: unknown field"),
        ("http_server_config:\n  http2: sometimes\n".into(), ":2:10: http_server_config.http2: invalid boolean"),
        (
            "http_server_config: {headers: {Server: x}}\n".into(),
            ":1:40: http_server_config.headers.Server: this header cannot be set; known: content-security-policy",
        ),
        (
            "http_server_config:\n  headers:\n    X-Frame-Options: allow\n".into(),
            ":3:22: http_server_config.headers.X-Frame-Options: \"allow\" is none of deny, sameorigin",
        ),
        (
            "http_server_config: {headers: {X-Content-Type-Options: sniff}}\n".into(),
            "http_server_config.headers.X-Content-Type-Options: \"sniff\" is none of nosniff",
        ),
        (
            "http_server_config: {headers: {X-XSS-Protection: \"a\\nb\"}}\n".into(),
            "http_server_config.headers.X-XSS-Protection: a header is one line",
        ),
        ("rate_limit: {burst: 1}\n".into(), ":1:13: rate_limit: `interval` is missing"),
        ("rate_limit: {interval: 1s}\n".into(), ":1:13: rate_limit: `burst` is missing"),
        ("rate_limit: {interval: 1s, burst: 0}\n".into(), ":1:35: rate_limit.burst: at least 1"),
        ("rate_limit: {interval: 1s, burst: -1}\n".into(), ":1:35: rate_limit.burst: invalid"),
        ("rate_limit: {interval: soon, burst: 1}\n".into(), ":1:24: rate_limit.interval: \"soon\" is not a duration"),
        // Too large.
        ("#".repeat(1024 * 1024 + 1), ": larger than 1048576 bytes"),
    ];
    assert!(table.len() >= 40);
    for (text, expected) in table {
        let (file, ended) = refused(text.as_bytes());
        let text = &text[..text.len().min(500)];
        assert_eq!(ended.status.code(), Some(1), "{text}: {}", ended.stderr);
        let line = ended.stderr.lines().last().unwrap_or_default();
        assert!(line.contains("level=error") && line.contains(&file), "{text}: {line}");
        let said = line.replace("\\\"", "\"");
        assert!(said.contains(expected), "{text}\n  gives {said}\n  not   {expected}");
        assert!(!ended.stderr.contains("Listening"), "{text}: {}", ended.stderr);
        assert!(!ended.stderr.contains("s3cret"), "a secret is shown: {}", ended.stderr);
    }
    let (file, ended) = refused(b"basic_auth_users:\n  ada: \xff\n");
    assert!(ended.stderr.contains(&format!("{file}: not in UTF-8")), "{}", ended.stderr);
}

// A file that is not there is named; an empty flag stands for none, as unit files have it.
#[test]
fn a_file_that_is_absent_is_named() {
    let run = |flag: &str| crate::world::run_to_end(&["run", flag, "--web.listen-address=192.0.2.1:1"]).stderr;
    let absent = run("--web.config.file=no/such/web.yml");
    assert!(absent.contains("no/such/web.yml: No such file"), "{absent}");
    // It goes on to the address, which is none of ours.
    let empty = run("--web.config.file=");
    assert!(empty.contains("cannot listen on 192.0.2.1:1"), "{empty}");
}

/// The first YAML block of the README that sets up the endpoint.
fn documented() -> String {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let (_, rest) =
        readme.split_once("```yaml\n# web.yml\n").expect("README.md has an example that begins with # web.yml");
    rest.split_once("```").unwrap().0.to_owned()
}

// The example of the README is right for us and for Prometheus' own check.
#[test]
fn the_documented_example_is_right() {
    let folder = tempfile::tempdir().unwrap();
    for (from, to) in [("server.crt", "server.crt"), ("server.key", "server.key"), ("ca.crt", "ca.crt")] {
        std::fs::copy(certificates().join(from), folder.path().join(to)).unwrap();
    }
    let file = folder.path().join("web.yml");
    std::fs::write(&file, documented()).unwrap();
    let promtool = Command::new("promtool").args(["check", "web-config", file.to_str().unwrap()]).output();
    let promtool = promtool.unwrap_or_else(|error| panic!("promtool cannot be run, install it: {error}"));
    assert!(promtool.status.success(), "{}", String::from_utf8_lossy(&promtool.stderr));
    // The file is read before the address is tried, which is none of ours.
    let flag = format!("--web.config.file={}", file.display());
    let ended = crate::world::run_to_end(&["run", &flag, "--web.listen-address=192.0.2.1:1"]);
    assert!(ended.stderr.contains("cannot listen on 192.0.2.1:1"), "{}", ended.stderr);
}
