//! Files that change while the exporter runs: what is right holds at once, what is wrong closes the door.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::limit;
use super::site::{PASSWORD, Site, certificates, client_certificates, tls, tls_of, users};
use crate::world::soon;

// A change holds for the next request and the next connection, without a restart.
#[tokio::test]
async fn a_change_holds_at_once() {
    let site = Site::start("").await;
    assert_eq!(site.status("http").await, 200);

    site.write(&users());
    assert_eq!((site.http("/", &[]).await.status, site.status("http").await), (401, 200));

    let hash = bcrypt::hash("another", 4).unwrap();
    site.write(&format!("basic_auth_users: {{ada: {hash}, bob: {hash}}}\n"));
    let as_user = async |user| site.http("/-/healthy", &["-u", user]).await.status;
    assert_eq!(
        (site.status("http").await, as_user("ada:another").await, as_user("bob:another").await),
        (401, 200, 200)
    );

    site.write(&format!("basic_auth_users: {{ada: {hash}}}\n"));
    assert_eq!((as_user("ada:another").await, as_user("bob:another").await), (200, 401));

    site.write(&(users() + "http_server_config: {headers: {X-Frame-Options: deny}}\n"));
    assert_eq!(site.http("/", &[]).await.header("x-frame-options"), Some("deny"));
    site.write(&users());
    assert_eq!(site.http("/", &[]).await.header("x-frame-options"), None);

    site.write(&(users() + &tls("")));
    assert_eq!((site.status("https").await, site.status("http").await), (200, 400));

    site.write(&(users() + &tls("min_version: TLS13")));
    let ada = format!("ada:{PASSWORD}");
    let old = site.https("/-/healthy", &["-u", &ada, "--tls-max", "1.2"]).await.status;
    assert_eq!((site.status("https").await, old), (200, 0));

    site.write(&(users() + &tls(&(client_certificates() + "\nmin_version: TLS13"))));
    assert_eq!(site.status("https").await, 0);
    let ours = ["-u", &ada, "--cert", "client.crt", "--key", "client.key"];
    assert_eq!(site.https("/-/healthy", &ours).await.status, 200);
}

// A connection that is older than the TLS of the file is no way around it.
#[tokio::test]
async fn an_old_connection_ends_when_tls_comes() {
    let site = Site::start("").await;
    let mut connection = TcpStream::connect(site.exporter.address).await.unwrap();
    let mut ask = async || {
        connection.write_all(b"GET /-/healthy HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        let mut answer = vec![0; 4096];
        let length = soon("an answer", connection.read(&mut answer)).await.unwrap();
        String::from_utf8_lossy(&answer[..length]).into_owned()
    };
    assert!(ask().await.starts_with("HTTP/1.1 200 "));
    site.write(&tls(""));
    let refused = ask().await;
    assert!(refused.starts_with("HTTP/1.1 400 ") && refused.contains("connection: close"), "{refused}");
}

// Certificates are read again for each connection, be it that only their files have changed.
#[tokio::test]
async fn a_certificate_is_rotated_without_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let put = |name: &str| {
        for end in ["crt", "key"] {
            std::fs::copy(certificates().join(format!("{name}.{end}")), folder.path().join(format!("tls.{end}")))
                .unwrap();
        }
    };
    put("server");
    let path = folder.path().join("tls");
    let text = format!("tls_server_config: {{cert_file: {0}.crt, key_file: {0}.key}}\n", path.display());
    let site = Site::start(&text).await;
    let trusts = async |authority| site.https("/", &["--cacert", authority]).await.status;
    assert_eq!((trusts("server.crt").await, trusts("other.crt").await), (200, 0));
    put("other");
    assert_eq!((trusts("server.crt").await, trusts("other.crt").await), (0, 200));
    // Half of a rotation closes; the other half opens.
    std::fs::copy(certificates().join("server.crt"), folder.path().join("tls.crt")).unwrap();
    assert_eq!((trusts("server.crt").await, trusts("other.crt").await), (0, 0));
    put("server");
    assert_eq!(trusts("server.crt").await, 200);
}

// A file that breaks, or that loses a protection it had, closes: 500, or no connection; never an open door. When it is
// right again, so is everything.
#[tokio::test]
async fn what_breaks_later_closes() {
    let without_users = "http_server_config: {http2: true}\n".to_owned();
    let plain: Vec<(&str, Vec<u8>)> = vec![
        ("empty", Vec::new()),
        ("only a comment", b"# basic_auth_users\n".to_vec()),
        ("nonsense", b"{".to_vec()),
        ("half a line", users().as_bytes()[..40].to_vec()),
        ("an unknown key", (users() + "more: true\n").into_bytes()),
        ("no hash", b"basic_auth_users: {ada: password}\n".to_vec()),
        ("no user", b"basic_auth_users: {}\n".to_vec()),
        ("users gone", without_users.into_bytes()),
        ("no text", b"\xff\xfe".to_vec()),
        ("too large", vec![b'#'; 1024 * 1024 + 1]),
    ];
    let site = Site::start(&users()).await;
    for (name, text) in plain {
        std::fs::write(&site.file, text).unwrap();
        for path in ["/", "/metrics", "/no/such/path"] {
            assert_eq!(site.http(path, &[]).await.status, 500, "{name}: {path}");
        }
        assert_eq!((name, site.status("http").await), (name, 500));
        site.write(&users());
        assert_eq!((name, site.status("http").await), (name, 200));
    }
    std::fs::remove_file(&site.file).unwrap();
    assert_eq!(site.status("http").await, 500, "removed");
    std::fs::create_dir(&site.file).unwrap();
    assert_eq!(site.status("http").await, 500, "a folder");
    std::fs::remove_dir(&site.file).unwrap();
    site.write(&users());
    assert_eq!(site.status("http").await, 200);
}

#[tokio::test]
async fn what_breaks_later_closes_tls_as_well() {
    let all = |more: &str| {
        let lines =
            format!("{}\nclient_allowed_sans: [prometheus.example]\nmin_version: TLS12{more}", client_certificates());
        users() + &tls(&lines)
    };
    let right = all("");
    let without = |word: &str| {
        let lines = right.lines().filter(|line| !line.contains(word));
        lines.map(|line| format!("{line}\n")).collect::<String>()
    };
    let broken = [
        ("empty", String::new()),
        ("TLS gone", users()),
        ("users gone", right.replace(&users(), "")),
        ("the kind of client certificates gone", without("client_a")),
        ("the authority gone", without("client_ca_file")),
        ("the names gone", without("client_allowed_sans")),
        ("the lowest version gone", without("min_version")),
        ("a certificate that is not there", users() + &tls_of("none", "")),
        ("a key of somebody else", right.replace("server.key", "other.key")),
        ("an unknown key", all("\nmore: true")),
        ("an unknown version", all("\nmax_version: TLS99")),
    ];
    let site = Site::start(&right).await;
    let ada = format!("ada:{PASSWORD}");
    let ours = ["-u", &ada, "--cert", "client.crt", "--key", "client.key"];
    assert_eq!(site.https("/-/healthy", &ours).await.status, 200);
    for (name, text) in broken {
        site.write(&text);
        assert_eq!(site.https("/-/healthy", &ours).await.status, 0, "{name}");
        assert_eq!(site.http("/-/healthy", &ours).await.status, 0, "{name}");
        assert_eq!(site.https("/-/healthy", &["-u", &ada]).await.status, 0, "{name}");
        site.write(&right);
        assert_eq!(site.https("/-/healthy", &ours).await.status, 200, "{name}");
    }
}

// What is wrong is logged once, with its place, and so is that it is right again; who asks is told nothing of it.
#[tokio::test]
async fn what_is_wrong_is_logged_once() {
    let mut site = Site::start(&users()).await;
    site.write("basic_auth_users: {ada: s3cret}\n");
    for _ in 0..5 {
        let answer = site.http("/", &[]).await;
        assert!(answer.status == 500 && !answer.text.contains("ada") && !answer.text.contains("web.yml"), "{answer:?}");
    }
    site.write(&users());
    assert_eq!(site.status("http").await, 200);
    site.exporter.line_with("the web config file is right again").await;
    let file = site.file.display().to_string();
    site.exporter.signal(rustix::process::Signal::TERM);
    let Site { exporter, .. } = site;
    let (_, log) = exporter.ended().await;
    let wrong: Vec<_> = log.iter().filter(|line| line.contains("the web config file is wrong")).collect();
    assert_eq!(wrong.len(), 1, "{log:#?}");
    assert!(wrong[0].contains(&format!("err=\"{file}:1:25: basic_auth_users.ada: no bcrypt hash")), "{wrong:?}");
    assert!(!log.iter().any(|line| line.contains("s3cret")), "{log:#?}");
}

// Each limit has a counter, from 0.
#[tokio::test]
async fn the_limits_stand_at_zero() {
    let site = Site::start("").await;
    for name in ["http_rate", "http_tls_handshake", "http_password_checks"] {
        assert_eq!((name, limit(&site.exporter, name).await), (name, 0.0));
    }
}
