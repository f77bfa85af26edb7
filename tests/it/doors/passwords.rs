//! Wrong passwords, many at once.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use restart_exporter::telemetry::monotonic_now;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::web_config::site::Site;
use crate::world::{sample, soon};

/// Connects from this address of the loopback network.
async fn connect_from(host: &str, address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("{host}:0").parse().unwrap()).unwrap();
    socket.connect(address).await.unwrap()
}

/// The status of an answer for this user and password.
async fn status_for(host: &str, address: SocketAddr, credentials: &str) -> u16 {
    use base64::Engine;
    let word = base64::engine::general_purpose::STANDARD.encode(credentials);
    let mut stream = connect_from(host, address).await;
    let request =
        format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nAuthorization: Basic {word}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    soon("an answer", stream.read_to_end(&mut answer)).await.unwrap();
    let head = String::from_utf8_lossy(&answer);
    head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("no answer: {head:?}"))
}

// 50 clients that send wrong passwords without a pause, and each time the hash has changed: the right one comes in at its
// turn from another address. A scrape whose password is known waits for none of this.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_passwords_lock_out_no_right_one_of_another_address() {
    let file = |password: &str| {
        let known = bcrypt::hash("known", 4).unwrap();
        // A check takes a tenth of a second and more.
        format!("basic_auth_users:\n  ada: {}\n  known: {known}\n", bcrypt::hash(password, 8).unwrap())
    };
    let site = Site::start(&file("first")).await;
    let address = site.exporter.address;
    assert_eq!(status_for("127.0.0.1", address, "known:known").await, 200);
    let is_over = Arc::new(AtomicBool::new(false));
    let attacks: Vec<_> = (0..50)
        .map(|number| {
            let is_over = is_over.clone();
            tokio::spawn(async move {
                let mut attempt = 0;
                while !is_over.load(Ordering::Relaxed) {
                    status_for("127.0.0.2", address, &format!("ada:{number} {attempt}")).await;
                    attempt += 1;
                }
            })
        })
        .collect();
    for password in ["second", "third", "fourth", "fifth"] {
        site.write(&file(password));
        assert_eq!(status_for("127.0.0.3", address, &format!("ada:{password}")).await, 200, "{password}");
        let begin = monotonic_now();
        assert_eq!(status_for("127.0.0.1", address, "known:known").await, 200);
        assert!(begin.elapsed().as_secs() < 5, "a known password waited {:?}", begin.elapsed());
    }
    is_over.store(true, Ordering::Relaxed);
    for attack in attacks {
        attack.await.unwrap();
    }
    let text = site.http("/metrics", &["-u", "known:known"]).await.text;
    assert!(sample(&text, "restart_exporter_http_requests_total{handler=\"metrics\",code=\"401\"}").unwrap() > 0.0);
}
