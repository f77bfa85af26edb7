//! HTTP/2 clients that open no window.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::client::conn::http2::{self, SendRequest};
use hyper::{Request, Response, body::Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use restart_exporter::Exporter;
use restart_exporter::http::{READER_TIMEOUT, SLOW_READER};
use restart_exporter::telemetry::{monotonic_now, now};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::live::tree::Tree;
use crate::web_config::site::{certificates, tls_of};
use crate::world::{sample, soon, until};

/// An exporter that speaks HTTP/2, with an exposition of many pieces.
async fn exporter() -> (Exporter, SocketAddr, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("web.yml");
    // A certificate that an authority has signed, as this client wants it.
    std::fs::write(&file, tls_of("client", "")).unwrap();
    let exporter = Exporter::builder().web_config_file(file).build().unwrap();
    let address = exporter.listen("127.0.0.1:0").await.unwrap();
    for number in 0..500 {
        Tree::new(&format!("supervisor-{number}"), 3).start(exporter.telemetry(), now());
    }
    (exporter, address, folder)
}

/// A client that opens this window for each stream, and asks by pings whether the server is there.
async fn client(address: SocketAddr, window: u32) -> (SendRequest<Empty<Bytes>>, JoinHandle<hyper::Result<()>>) {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certificates().join("ca.crt")).unwrap()).unwrap();
    let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let name = ServerName::try_from("prometheus.example").unwrap();
    let stream = TcpStream::connect(address).await.unwrap();
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(window)
        .keep_alive_interval(Duration::from_secs(1))
        .handshake(TokioIo::new(stream))
        .await
        .unwrap();
    (sender, tokio::spawn(connection))
}

/// A question whose answer is long, and no scrape.
async fn question(sender: &mut SendRequest<Empty<Bytes>>, address: SocketAddr) -> hyper::Result<Response<Incoming>> {
    let request = Request::get(format!("https://{address}/api/v1/supervisors"));
    sender.send_request(request.body(Empty::new()).unwrap()).await
}

async fn scrape(
    sender: &mut SendRequest<Empty<Bytes>>,
    address: SocketAddr,
    timeout: &str,
) -> hyper::Result<Response<Incoming>> {
    let request =
        Request::get(format!("https://{address}/metrics")).header("x-prometheus-scrape-timeout-seconds", timeout);
    sender.send_request(request.body(Empty::new()).unwrap()).await
}

fn limit(exporter: &Exporter, limit: &str) -> f64 {
    sample(&exporter.metrics().render(), &format!("restart_exporter_limit_reached_total{{limit=\"{limit}\"}}")).unwrap()
}

/// Opens 30 scrapes that it never reads, leaves before it is slow, and comes again.
async fn hostile(address: SocketAddr) {
    loop {
        let (mut sender, connection) = client(address, 0).await;
        let mut unread = Vec::new();
        for _ in 0..30 {
            match scrape(&mut sender, address, "120").await {
                Ok(answer) => unread.push(answer),
                Err(_) => break,
            }
        }
        tokio::time::sleep(SLOW_READER * 9 / 10).await;
        connection.abort();
    }
}

// Clients that never open a window keep no other scrape out, however many they are and however often they come again: a
// connection has few places, and a scrape that waits for its reader makes room for one that does not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_without_a_window_keep_no_scrape_out() {
    let (exporter, address, _folder) = exporter().await;
    let clients: Vec<_> = (0..16).map(|_| tokio::spawn(hostile(address))).collect();
    let is_hostile = async || (limit(&exporter, "http_scrapes") > 0.0).then_some(());
    until("scrapes that were refused", is_hostile).await;
    let (mut honest, _connection) = client(address, 1 << 20).await;
    for _ in 0..50 {
        let answer = soon("an answer", scrape(&mut honest, address, "10")).await.unwrap();
        assert_eq!(answer.status(), 200);
        soon("all of it", http_body_util::BodyExt::collect(answer.into_body())).await.unwrap();
    }
    clients.iter().for_each(|client| client.abort());
    exporter.shutdown().await;
}

// More slow answers than a connection may have end it long before one alone would.
#[tokio::test]
async fn many_unread_answers_end_their_connection() {
    let (exporter, address, _folder) = exporter().await;
    let (mut sender, connection) = client(address, 0).await;
    let mut unread = Vec::new();
    let begin = monotonic_now();
    while !connection.is_finished() {
        if let Ok(answer) = question(&mut sender, address).await {
            unread.push(answer);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let took = monotonic_now() - begin;
    assert!(took > SLOW_READER && took < READER_TIMEOUT / 2, "{took:?}");
    assert_eq!(limit(&exporter, "http_slow_reader"), 1.0);
    exporter.shutdown().await;
}

// A few unread answers are let be for as long as any reader may take.
#[tokio::test]
async fn a_single_unread_answer_ends_its_connection_in_time() {
    let (exporter, address, _folder) = exporter().await;
    let (mut sender, connection) = client(address, 0).await;
    let begin = monotonic_now();
    let _unread = scrape(&mut sender, address, "120").await.unwrap();
    let _ = soon("the end of the connection", connection).await;
    let took = begin.elapsed();
    assert!(took >= READER_TIMEOUT && took < READER_TIMEOUT + Duration::from_secs(10), "{took:?}");
    assert_eq!(limit(&exporter, "http_slow_reader"), 1.0);
    exporter.shutdown().await;
}

// The time that a scraper allows ends its stream alone: the connection serves others.
#[tokio::test]
async fn the_time_of_a_scrape_ends_its_stream() {
    let (exporter, address, _folder) = exporter().await;
    let (mut sender, connection) = client(address, 0).await;
    let unread = scrape(&mut sender, address, "2").await.unwrap();
    let ended = until("the end of the scrape", async || (limit(&exporter, "http_scrape_time") == 1.0).then_some(()));
    ended.await;
    assert!(soon("the reset", http_body_util::BodyExt::collect(unread.into_body())).await.is_err());
    assert!(!connection.is_finished() && sender.is_ready());
    exporter.shutdown().await;
}
