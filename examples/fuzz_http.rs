//! Sends damaged HTTP requests to an exporter, for as many minutes as the argument says:
//! `cargo run --release --example fuzz_http -- 10`. Ends with the number of connections, or with an error if something
//! panicked, if memory grew, or if a plain request was no longer answered.
//!
//! Requests are for every route, with parameters and headers that mean something; each is damaged a little (bytes, pieces,
//! lengths) or not at all. Some connections speak HTTP/2 in damaged frames. Chance is seeded, and the seed is printed.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a tool for the hand")]

#[path = "../benches/support/chance.rs"]
mod chance;

use std::net::SocketAddr;
use std::panic;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use restart_exporter::Exporter;
use restart_exporter::http::ROUTES;
use restart_exporter::prelude::*;
use restart_exporter::telemetry::monotonic_now;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use chance::Chance;

/// Memory may grow by so much in the second half of the time. In the first, rings and histories fill.
const MOST_GROWTH_KIB: u64 = 8 * 1024;

/// How long an answer to damaged bytes is waited for: a server may rightly wait for the rest of them.
const PATIENCE: Duration = Duration::from_millis(20);

const AT_ONCE: usize = 16;
const METHODS: [&str; 6] = ["GET", "HEAD", "POST", "PUT", "OPTIONS", "CONNECT"];
const VALUES: [&str; 10] =
    ["loop", "loop/child", "", "0", "1", "-1", "60s", "18446744073709551616", "%00%ff%e2%80%ae", "terminated"];
const HEADERS: [&str; 14] = [
    "Host: 127.0.0.1:8469",
    "X-Forwarded-For: 192.0.2.1",
    "Via: 1.1 proxy",
    "Accept: text/plain;q=0.5, application/openmetrics-text; version=1.0.0",
    "Accept: application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited",
    "Accept-Encoding: gzip;q=1, *;q=0",
    "X-Prometheus-Scrape-Timeout-Seconds: 0.001",
    "Last-Event-ID: 1-2",
    "Authorization: Basic YWRhOmVuZ2luZQ==",
    "Origin: http://localhost",
    "Content-Length: 5",
    "Transfer-Encoding: chunked",
    "Expect: 100-continue",
    "Connection: Upgrade, HTTP2-Settings",
];

/// Frames of HTTP/2, each without its body: settings, a window update, a ping, a reset, an end of everything.
const FRAMES: [&[u8]; 6] = [
    &[0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0],
    &[0, 0, 0, 4, 1, 0, 0, 0, 0],
    &[0, 0, 4, 8, 0, 0, 0, 0, 0, 0, 0, 1, 0],
    &[0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8],
    &[0, 0, 4, 3, 0, 0, 0, 0, 1, 0, 0, 0, 8],
    &[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0],
];

static PANICS: AtomicU64 = AtomicU64::new(0);

struct Fuzzer {
    chance: Chance,
}

impl Fuzzer {
    fn target(&mut self) -> String {
        let route = &ROUTES[self.chance.below(ROUTES.len())];
        let mut target = route.path.to_owned();
        for number in 0..self.chance.below(4) {
            let parameters = if self.chance.below(8) > 0 { route.parameters } else { &["other"] };
            if parameters.is_empty() {
                break;
            }
            let name = self.chance.of(parameters);
            target += &format!("{}{name}={}", if number == 0 { '?' } else { '&' }, self.chance.of(&VALUES));
        }
        match self.chance.below(12) {
            0 => format!("http://localhost{target}"),
            1 => format!("http://user@evil.example{target}"),
            2 => "*".into(),
            _ => target,
        }
    }

    fn request(&mut self) -> Vec<u8> {
        let method = self
            .chance
            .of(&[METHODS[0], METHODS[0], METHODS[0], METHODS[1], METHODS[2], METHODS[3], METHODS[4], METHODS[5]]);
        let version = self.chance.of(&["HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/2.0"]);
        let mut head = format!("{method} {} {version}\r\n", self.target());
        head += self.chance.of(&["Host: localhost\r\n", "Host: localhost\r\n", "Host: evil.example\r\n", ""]);
        for _ in 0..self.chance.below(5) {
            head += self.chance.of(&HEADERS);
            head += "\r\n";
        }
        head += "\r\n";
        if self.chance.below(6) == 0 {
            head += self.chance.of(&["5\r\nhello\r\n0\r\n\r\n", "ffffffffffffffff\r\n", "hello", "-1\r\n"]);
        }
        head.into_bytes()
    }

    /// Several requests, one after the other.
    fn http1(&mut self) -> Vec<u8> {
        let requests: Vec<_> = (0..1 + self.chance.below(4)).map(|_| self.request()).collect();
        self.damaged(requests.concat())
    }

    fn http2(&mut self) -> Vec<u8> {
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        bytes.extend(FRAMES[0]);
        for stream in 0..1 + self.chance.below(20) as u32 {
            if self.chance.below(3) == 0 {
                bytes.extend(self.chance.of(&FRAMES));
                continue;
            }
            // :method GET, :scheme http, :authority and :path as literals that are not indexed (RFC 7541, section 6.2.2).
            let target = self.target();
            let mut block = vec![0x82, 0x86, 0x01, 9];
            block.extend(b"localhost");
            block.extend([0x04, target.len().min(126) as u8]);
            block.extend(target.as_bytes().iter().take(126));
            bytes.extend(&(block.len() as u32).to_be_bytes()[1..]);
            bytes.extend([1, 5]);
            bytes.extend((2 * stream + 1).to_be_bytes());
            bytes.extend(block);
        }
        self.damaged(bytes)
    }

    fn damaged(&mut self, mut bytes: Vec<u8>) -> Vec<u8> {
        for _ in 0..self.chance.of(&[0, 0, 1, 1, 2, 8]) {
            if bytes.is_empty() {
                break;
            }
            let at = self.chance.below(bytes.len());
            match self.chance.below(6) {
                0 => bytes[at] ^= 1 << self.chance.below(8),
                1 => bytes[at] = self.chance.of(b"\r\n \t:/%?&=\0\xff"),
                2 => bytes.truncate(at),
                3 => drop(bytes.remove(at)),
                4 => {
                    let end = (at + self.chance.below(64)).min(bytes.len());
                    let piece = bytes[at..end].to_vec();
                    bytes.splice(at..at, piece);
                }
                _ => drop(bytes.splice(at..at, std::iter::repeat_n(b'x', self.chance.of(&[10, 1000, 100_000])))),
            }
        }
        bytes
    }
}

/// Sends the bytes, and reads what comes until nothing more does.
async fn converse(mut stream: impl AsyncReadExt + AsyncWriteExt + Unpin, bytes: Vec<u8>) {
    let mut answer = [0; 4096];
    if timeout(PATIENCE, stream.write_all(&bytes)).await.is_ok_and(|written| written.is_ok()) {
        while timeout(PATIENCE, stream.read(&mut answer)).await.is_ok_and(|read| read.is_ok_and(|length| length > 0)) {}
    }
}

/// A plain request is answered, whatever others do.
async fn is_answered(address: SocketAddr) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n") && answer.ends_with(b"\n"), "no whole answer");
}

fn memory_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let minutes: f64 = std::env::args().nth(1).map_or(1.0, |minutes| minutes.parse().unwrap());
    let seed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos() as u64;
    println!("seed {seed}, {minutes} minutes");
    let print = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        PANICS.fetch_add(1, Ordering::Relaxed);
        print(panic);
    }));

    let exporter = Exporter::builder().admin_api(true).build().unwrap();
    let address = exporter.listen("127.0.0.1:0").await.unwrap();
    let child = ChildSpec::task("child", |stop| async move {
        stop.stopped().await;
        Ok::<_, String>(())
    });
    exporter.supervise(Supervisor::new("loop").child(child)).await.unwrap();
    let mut fuzzer = Fuzzer { chance: Chance::new(seed) };
    let (begin, time) = (monotonic_now(), Duration::from_secs_f64(minutes * 60.0));
    let (mut connections, mut memory) = (0u64, Vec::new());
    while monotonic_now() - begin < time {
        let mut all = tokio::task::JoinSet::new();
        for number in 0..AT_ONCE {
            if number % 4 == 0 {
                let (client, server) = tokio::io::duplex(64 * 1024);
                let (service, bytes) = (exporter.app().service(), fuzzer.http2());
                all.spawn(async move {
                    let server =
                        http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(server), service);
                    tokio::select! {
                        _ = server => {}
                        () = converse(client, bytes) => {}
                    }
                });
            } else {
                let bytes = fuzzer.http1();
                all.spawn(async move {
                    if let Ok(stream) = TcpStream::connect(address).await {
                        converse(stream, bytes).await;
                    }
                });
            }
        }
        while all.join_next().await.is_some() {}
        connections += AT_ONCE as u64;
        if connections % 1600 == 0 {
            is_answered(address).await;
        }
        if monotonic_now() - begin >= time * memory.len() as u32 / 10 {
            memory.push(memory_kib());
        }
    }
    is_answered(address).await;
    let panics = PANICS.load(Ordering::Relaxed);
    println!("{connections} connections, {panics} panics, KiB at each tenth of the time: {memory:?}");
    assert_eq!(panics, 0);
    let half = memory.get(memory.len() / 2).copied().unwrap_or_default();
    assert!(memory_kib() < half + MOST_GROWTH_KIB, "memory grew");
    let failures = exporter.telemetry().handler_failures();
    assert!(failures.is_empty(), "{failures:?}");
    exporter.shutdown().await;
}
