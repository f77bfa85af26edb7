//! Who may come in: the web config file from outside, with real certificates and curl.

mod later;
pub(crate) mod site;
mod sockets;
mod wrong;

use std::time::Instant;

use restart_exporter::http::ROUTES;
use restart_exporter::telemetry::monotonic_now;

use crate::world::{Running, request_unix, sample, until};
use site::{PASSWORD, Site, certificates, client_certificates, tls, users};

/// What a case asks with: the scheme, and arguments of curl.
type Asks = (&'static str, &'static [&'static str]);

const PLAIN: Asks = ("http", &[]);
const TLS: Asks = ("https", &[]);
const ADA: &[&str] = &["-u", "ada:correct horse: battery"];
const CLIENT: &[&str] = &["--cert", "client.crt", "--key", "client.key"];
const STRANGER: &[&str] = &["--cert", "stranger.crt", "--key", "stranger.key"];
const FORGED: &[&str] = &["--cert", "forged.crt", "--key", "forged.key"];
const EXPIRED: &[&str] = &["--cert", "expired.crt", "--key", "expired.key"];

/// One exporter with this file, asked in each of these ways; 0 stands for no answer.
async fn check(name: &str, text: &str, cases: &[(Asks, u16)]) {
    let site = Site::start(text).await;
    for ((scheme, arguments), status) in cases {
        let answer = match *scheme {
            "http" => site.http("/-/healthy", arguments).await,
            _ => site.https("/-/healthy", arguments).await,
        };
        assert_eq!(answer.status, *status, "{name}: {scheme} {arguments:?}: {}", answer.text);
    }
}

async fn limit(exporter: &Running, limit: &str) -> f64 {
    let series = format!("restart_exporter_limit_reached_total{{limit=\"{limit}\"}}");
    sample(&exporter.get("/metrics").await.body, &series).expect("every limit stands at 0")
}

// A file without protections lets everybody in, be it empty or all comment.
#[tokio::test]
async fn a_file_that_asks_for_nothing_lets_everybody_in() {
    for text in ["", "# nothing yet\n", "{}\n", "http_server_config:\n  http2: false\n"] {
        check(text, text, &[(PLAIN, 200), (TLS, 0)]).await;
    }
}

// With TLS the URL of the page that the log names has https, and the host that the flag named.
#[tokio::test]
async fn the_url_in_the_log_has_https() {
    let mut site = Site::start_with(&tls(""), &["--web.listen-address=localhost:0"]).await;
    // The first of its addresses is the one that the exporter is known by here.
    let port = site.exporter.address.port();
    site.exporter.line_with(&format!("msg=\"open the page\" url=https://localhost:{port}/")).await;
    site.exporter.line_with("msg=\"open the page\" url=https://127.0.0.1:").await;
}

// Users: the right password of a known user, and nothing else.
#[tokio::test]
async fn only_users_come_in() {
    let cases: &[(Asks, u16)] = &[
        (PLAIN, 401),
        (("http", ADA), 200),
        (("http", &["-u", "ada:wrong"]), 401),
        (("http", &["-u", "ada:"]), 401),
        (("http", &["-u", "eve:correct horse: battery"]), 401),
        (("http", &["-u", ":correct horse: battery"]), 401),
        (("http", &["-H", "Authorization: Bearer YWRhOmNvcnJlY3Q="]), 401),
        (("http", &["-H", "Authorization: Basic !"]), 401),
        (("http", ADA), 200),
    ];
    check("users", &users(), cases).await;
    let with_tls = [(TLS, 401), (("https", ADA), 200), (PLAIN, 400), (("http", ADA), 400)];
    check("users over TLS", &(users() + &tls("")), &with_tls).await;
    let site = Site::start(&users()).await;
    let answer = site.http("/metrics", &[]).await;
    assert!(answer.header("www-authenticate").is_some_and(|value| value.starts_with("Basic")), "{}", answer.text);
}

// TLS from 1.2 on, with the versions, suites and curves of the file; what is not offered here is passed over.
#[tokio::test]
async fn tls_is_spoken_as_the_file_says() {
    const OLD: &[&str] = &["--tls-max", "1.1", "--ciphers", "DEFAULT:@SECLEVEL=0"];
    const V12: &[&str] = &["--tls-max", "1.2"];
    const V13: &[&str] = &["--tlsv1.3"];
    let inline = |name: &str| {
        let text = std::fs::read_to_string(certificates().join(name)).unwrap();
        text.lines().map(|line| format!("    {line}\n")).collect::<String>()
    };
    let inline = format!("tls_server_config:\n  cert: |\n{}  key: |\n{}", inline("server.crt"), inline("server.key"));
    let any: &[(Asks, u16)] =
        &[(TLS, 200), (PLAIN, 400), (("https", OLD), 0), (("https", V12), 200), (("https", V13), 200)];
    let newest: &[(Asks, u16)] = &[(TLS, 200), (("https", OLD), 0), (("https", V12), 0), (("https", V13), 200)];
    let older: &[(Asks, u16)] = &[(TLS, 200), (("https", OLD), 0), (("https", V12), 200), (("https", V13), 0)];
    let suites: &[(Asks, u16)] = &[
        (("https", &["--tls-max", "1.2", "--ciphers", "ECDHE-ECDSA-AES256-GCM-SHA384"]), 200),
        (("https", &["--tls-max", "1.2", "--ciphers", "ECDHE-ECDSA-AES128-GCM-SHA256"]), 0),
        (("https", V13), 200),
    ];
    let curves: &[(Asks, u16)] = &[(("https", &["--curves", "P-384"]), 200), (("https", &["--curves", "X25519"]), 0)];
    let table = [
        ("defaults", tls(""), any),
        ("inline", inline, any),
        ("TLS 1.0 is named but not spoken", tls("min_version: TLS10"), any),
        ("at least 1.3", tls("min_version: TLS13"), newest),
        ("at most 1.2", tls("max_version: TLS12"), older),
        (
            "suites",
            tls(
                "cipher_suites: [TLS_RSA_WITH_AES_128_CBC_SHA, TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, TLS_AES_128_GCM_SHA256]",
            ),
            suites,
        ),
        ("curves", tls("curve_preferences: [CurveP521, CurveP384]"), curves),
        ("the order of the client", tls("prefer_server_cipher_suites: false"), any),
        ("nothing to verify with", tls("client_auth_type: VerifyClientCertIfGiven"), any),
        ("words that are empty", tls("client_auth_type: \"\"\nclient_ca_file: \"\""), any),
    ];
    for (name, text, cases) in table {
        check(name, &text, cases).await;
    }
}

// Relative paths begin where the file is, wherever the program was started.
#[tokio::test]
async fn relative_paths_begin_at_the_file() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("tls")).unwrap();
    for name in ["server.crt", "server.key"] {
        std::fs::copy(certificates().join(name), folder.path().join("tls").join(name)).unwrap();
    }
    let file = folder.path().join("web.yml");
    std::fs::write(&file, "tls_server_config: {cert_file: tls/server.crt, key_file: ./tls/server.key}\n").unwrap();
    let exporter = Running::start(&["run", &format!("--web.config.file={}", file.display())]).await;
    drop(exporter);
}

// Client certificates: the five kinds, and the names that are allowed.
#[tokio::test]
async fn client_certificates_are_asked_for_as_the_file_says() {
    const fn with(arguments: &'static [&'static str]) -> Asks {
        ("https", arguments)
    }
    let ca = format!("client_ca_file: {}/ca.crt", certificates().display());
    let all = |none, client, stranger, forged, expired| {
        [
            (TLS, none),
            (with(CLIENT), client),
            (with(STRANGER), stranger),
            (with(FORGED), forged),
            (with(EXPIRED), expired),
        ]
    };
    let sans = |name: &str| format!("{}\nclient_allowed_sans: [no.example, \"{name}\"]", client_certificates());
    let only_client = all(0, 200, 0, 0, 0);
    let table = [
        ("no", tls("client_auth_type: NoClientCert"), all(200, 200, 200, 200, 200)),
        ("request", tls("client_auth_type: RequestClientCert"), all(200, 200, 200, 200, 200)),
        ("any", tls("client_auth_type: RequireAnyClientCert"), all(0, 200, 200, 200, 200)),
        ("any, by its older name", tls("client_auth_type: RequireClientCert"), all(0, 200, 200, 200, 200)),
        ("if given", tls(&format!("client_auth_type: VerifyClientCertIfGiven\n{ca}")), all(200, 200, 200, 0, 0)),
        ("verified", tls(&client_certificates()), all(0, 200, 200, 0, 0)),
        ("a DNS name", tls(&sans("prometheus.example")), only_client),
        ("an e-mail address", tls(&sans("ops@example.org")), only_client),
        ("an address", tls(&sans("10.0.0.7")), only_client),
        ("an address of IPv6", tls(&sans("2001:db8::7")), only_client),
        ("a URI", tls(&sans("spiffe://example/prometheus")), only_client),
        ("letter for letter", tls(&sans("*.example")), all(0, 0, 0, 0, 0)),
        ("of TLS 1.2", tls(&(sans("prometheus.example") + "\nmax_version: TLS12")), only_client),
    ];
    for (name, text, cases) in table {
        check(name, &text, &cases).await;
    }
}

// The same rules hold for every route, for each method, and for paths that are none.
#[tokio::test]
async fn nobody_gets_in_on_any_route() {
    let names = format!("{}\nclient_allowed_sans: [prometheus.example]", client_certificates());
    let site = Site::start_with(&(users() + &tls(&names)), &["--web.enable-admin-api"]).await;
    let old = [CLIENT, ADA, &["--tls-max", "1.1", "--ciphers", "DEFAULT:@SECLEVEL=0"]].concat();
    let intruders: [(&str, &str, Vec<&str>, u16); 7] = [
        ("no user", "https", CLIENT.to_vec(), 401),
        ("a wrong password", "https", [CLIENT, &["-u", "ada:wrong"]].concat(), 401),
        ("no TLS", "http", ADA.to_vec(), 400),
        ("an old TLS", "https", old, 0),
        ("no certificate", "https", ADA.to_vec(), 0),
        ("a foreign name", "https", [STRANGER, ADA].concat(), 0),
        ("a foreign authority", "https", [FORGED, ADA].concat(), 0),
    ];
    let paths = ROUTES.iter().map(|route| (route.path, route.methods()));
    for (path, methods) in paths.chain([("/no/such/path", "GET, POST"), ("/-/reload", "PUT")]) {
        for method in methods.split(", ").filter(|method| *method != "HEAD") {
            for (who, scheme, arguments, status) in &intruders {
                let arguments = [arguments.as_slice(), &["-X", method]].concat();
                let answer = match *scheme {
                    "http" => site.http(path, &arguments).await,
                    _ => site.https(path, &arguments).await,
                };
                assert_eq!(answer.status, *status, "{who}: {method} {path}: {}", answer.text);
            }
        }
    }
    let ours = [CLIENT, ADA].concat();
    assert_eq!(site.https("/-/healthy", &ours).await.status, 200);
    assert_eq!(site.https("/no/such/path", &ours).await.status, 404);
    // It is judged as itself once it is in.
    assert_eq!(site.https("/-/reload", &[&ours[..], &["-X", "POST"]].concat()).await.status, 409);
    let metrics = site.https("/metrics", &ours).await.text;
    let refused = "restart_exporter_http_requests_total{handler=\"metrics\",code=\"401\"}";
    assert_eq!(sample(&metrics, refused), Some(2.0));
    let handshakes = sample(&metrics, "restart_exporter_limit_reached_total{limit=\"http_tls_handshake\"}");
    assert!(handshakes.is_some_and(|count| count > 10.0), "{handshakes:?}");
}

// HTTP/2 is spoken over TLS by those who ask for it, unless the file says no.
#[tokio::test]
async fn http2_is_spoken_over_tls() {
    for (text, versions) in
        [(tls(""), ["2", "1.1"]), (tls("") + "http_server_config: {http2: false}\n", ["1.1", "1.1"])]
    {
        let site = Site::start(&text).await;
        for (argument, version) in ["--http2", "--http1.1"].into_iter().zip(versions) {
            let answer = site.https("/metrics", &[argument]).await;
            assert_eq!((answer.status, answer.version.as_str()), (200, version), "{argument}");
            assert!(answer.text.contains("restart_exporter_build_info"), "{}", answer.text);
        }
        // A body that is too long, and a request to change something, are refused as over HTTP/1.
        let long = "x".repeat(10_000);
        // Nobody reads the body: a client that is still sending it may lose the answer.
        let refused = until("an answer", async || {
            let status = site.https("/-/healthy", &["--http2", "-d", &long, "-X", "GET"]).await.status;
            (status != 0).then_some(status)
        });
        assert_eq!(refused.await, 413);
        assert_eq!(site.https("/-/reload", &["--http2", "-X", "POST"]).await.status, 403);
    }
}

// The five headers, on each answer, whatever it is.
#[tokio::test]
async fn headers_are_added_to_each_answer() {
    let headers = "http_server_config:\n  headers:\n    X-Frame-Options: deny\n    X-Content-Type-Options: nosniff\n    \
                   Content-Security-Policy: default-src 'self'\n    X-XSS-Protection: \"0\"\n    \
                   Strict-Transport-Security: max-age=31536000\n";
    let expected = [
        ("x-frame-options", "deny"),
        ("x-content-type-options", "nosniff"),
        ("content-security-policy", "default-src 'self'"),
        ("x-xss-protection", "0"),
        ("strict-transport-security", "max-age=31536000"),
    ];
    let site = Site::start(&(users() + headers)).await;
    for (path, arguments, status) in [("/metrics", ADA, 200), ("/no/such/path", ADA, 404), ("/", &[], 401)] {
        let answer = site.http(path, arguments).await;
        assert_eq!(answer.status, status);
        for (name, value) in expected {
            assert_eq!(answer.header(name), Some(value), "{path}: {name} in {}", answer.text);
        }
    }
}

// A rate limit counts every request, says when to come back, and has a counter.
#[tokio::test]
async fn requests_beyond_the_rate_are_refused() {
    let site = Site::start("rate_limit: {interval: 1h, burst: 3}\n").await;
    for (path, status) in [("/-/healthy", 200), ("/no/such/path", 404), ("/", 200), ("/metrics", 429), ("/", 429)] {
        let answer = site.exporter.get(path).await;
        assert_eq!(answer.status, status, "{path}");
        if status == 429 {
            let seconds: u64 = answer.header("retry-after").unwrap().parse().unwrap();
            assert!((3500..=3600).contains(&seconds), "{seconds}");
        }
    }
    site.write("rate_limit: {interval: 0, burst: 3}\n");
    assert_eq!(limit(&site.exporter, "http_rate").await, 2.0);
}

// A Unix socket has the permissions of its file: whoever may open it is asked for nothing else, whatever the file says.
#[tokio::test]
async fn a_unix_socket_is_guarded_by_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("socket");
    let address = format!("--web.listen-address=unix:{}", socket.display());
    let text = users() + &tls("") + "rate_limit: {interval: 1h, burst: 1}\n";
    let site = Site::start_with(&text, &[&address]).await;
    assert_eq!(site.https("/-/healthy", &[]).await.status, 401);
    site.write("broken: [");
    for _ in 0..3 {
        assert_eq!(request_unix(&socket, "GET", "/-/healthy").await.unwrap().status, 200);
    }
    assert_eq!(request_unix(&socket, "POST", "/-/reload").await.unwrap().status, 409);
    assert_eq!(site.status("https").await, 0);
}

// Checks are slow by design, so what came of one is remembered: a second request does not wait for its hash again.
#[tokio::test]
async fn a_password_is_checked_once() {
    // A cost whose check takes far longer than all else.
    let hash = bcrypt::hash(PASSWORD, 11).unwrap();
    let site = Site::start(&format!("basic_auth_users: {{ada: \"{hash}\"}}\n")).await;
    let timed = async || -> (u16, std::time::Duration) {
        let start: Instant = monotonic_now();
        (site.status("http").await, start.elapsed())
    };
    let first = timed().await;
    assert_eq!(first.0, 200);
    for _ in 0..3 {
        let again = timed().await;
        assert_eq!(again.0, 200);
        assert!(again.1 < first.1, "{again:?} after {first:?}");
    }
}
