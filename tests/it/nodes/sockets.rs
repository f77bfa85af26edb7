//! The listener over real sockets: who comes in, who is sent away, and what is counted meanwhile.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use restart_exporter::beam::frame::Reader;
use restart_exporter::supervisor::{ChildSpec, Supervisor};
use restart_exporter::{Error, Exporter};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use super::agent::{self, HELLO_US, Report, Sup, Who};
use crate::world::{Running, run_to_end, sample, soon, until};

/// An exporter that hears nodes on a port of its own.
async fn hearing() -> (Exporter, SocketAddr) {
    let exporter = Exporter::builder().build().unwrap();
    let address = exporter.listen_for_nodes("127.0.0.1:0".parse().unwrap()).await.unwrap();
    (exporter, address)
}

/// The next frame that the exporter sends, as its first word and number; none when it closed the connection.
async fn answer(stream: &mut (impl AsyncRead + Unpin)) -> Option<(String, u64)> {
    let read = async {
        let length = stream.read_u32().await.ok()?;
        let mut frame = vec![0; length as usize];
        stream.read_exact(&mut frame).await.ok()?;
        let mut reader = Reader::new(&frame).unwrap();
        reader.tuple(2).unwrap();
        let word = reader.atom().unwrap().to_owned();
        if word == "welcome" {
            assert_eq!(reader.integer(), Ok(1));
        }
        Some((word, reader.natural().unwrap()))
    };
    soon("an answer", read).await
}

async fn connect(address: SocketAddr, who: &Who<'_>) -> (TcpStream, u64) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(&agent::hello(who)).await.unwrap();
    let (word, resume_after) = answer(&mut stream).await.expect("a welcome");
    assert_eq!(word, "welcome");
    (stream, resume_after)
}

/// A node of this name, whose supervisor `sup` has a child `a` that died six times of `detail`. It stays for as long as the
/// connection.
pub(crate) async fn looping_node(address: SocketAddr, node: &str, detail: &str) -> TcpStream {
    let (mut stream, _) = connect(address, &Who { node, ..Who::default() }).await;
    stream.write_all(&agent::sup(&Sup { intensity: 100, ..Sup::default() })).await.unwrap();
    let deaths = vec![Report { detail, ..Report::default() }; 6];
    stream.write_all(&agent::events(1, HELLO_US, &deaths)).await.unwrap();
    while answer(&mut stream).await.expect("an ack") != ("ack".to_owned(), 6) {}
    stream
}

/// Sends so many deaths with numbers from `first` on, and waits until all are acknowledged.
async fn send_deaths(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), first: u64, count: u64) {
    stream.write_all(&agent::events(first, HELLO_US, &vec![Report::default(); count as usize])).await.unwrap();
    while answer(stream).await.expect("an ack") != ("ack".to_owned(), first + count - 1) {}
}

fn value(exporter: &Exporter, series: &str) -> f64 {
    sample(&exporter.metrics().render(), series).unwrap_or_else(|| panic!("no {series}"))
}

const EVENTS: &str = "restart_exporter_node_events_total{node=\"app@host\"}";
const LOST: &str = "restart_exporter_node_events_lost_total{node=\"app@host\"}";

fn limit(exporter: &Exporter, limit: &str) -> f64 {
    value(exporter, &format!("restart_exporter_limit_reached_total{{limit=\"{limit}\"}}"))
}

// hello, welcome, snapshot, events, acks; then the connection is cut, and the stream goes on with exact counts.
#[tokio::test]
async fn an_agent_is_heard_acknowledged_and_resumed_with_exact_counts() {
    let (exporter, address) = hearing().await;
    let (mut stream, resume_after) = connect(address, &Who::default()).await;
    assert_eq!(resume_after, 0);
    stream.write_all(&agent::sup(&Sup::default())).await.unwrap();
    send_deaths(&mut stream, 1, 2500).await;
    drop(stream);
    let (mut stream, resume_after) = connect(address, &Who::default()).await;
    assert_eq!(resume_after, 2500);
    send_deaths(&mut stream, 2001, 1000).await;
    assert_eq!((value(&exporter, EVENTS), value(&exporter, LOST)), (3000.0, 0.0));
    exporter.shutdown().await;
    assert_eq!(answer(&mut stream).await, None, "the end of the exporter ends its connections");
}

// A slow sender is a sender: each byte may come by itself.
#[tokio::test]
async fn a_frame_may_come_byte_by_byte() {
    let (exporter, address) = hearing().await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let sup = agent::sup(&Sup::default());
    for byte in agent::hello(&Who::default()).into_iter().chain(sup) {
        stream.write_all(&[byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert_eq!(answer(&mut stream).await, Some(("welcome".into(), 0)));
    send_deaths(&mut stream, 1, 1).await;
    assert_eq!(value(&exporter, EVENTS), 1.0);
}

// One that connects again and again, and leaves half a frame each time, takes the memory of one connection.
#[tokio::test]
async fn a_connection_is_closed_when_a_newer_one_takes_its_place() {
    let (exporter, address) = hearing().await;
    let (mut stream, _) = connect(address, &Who::default()).await;
    stream.write_all(&[0, 1, 0, 0, 131]).await.unwrap();
    let begin = tokio::time::Instant::now();
    let (mut newer, _) = connect(address, &Who::default()).await;
    assert_eq!(answer(&mut stream).await, None);
    assert!(begin.elapsed() < Duration::from_secs(10), "before it is silent for too long");
    newer.write_all(&agent::sup(&Sup::default())).await.unwrap();
    send_deaths(&mut newer, 1, 1).await;
    assert_eq!(value(&exporter, EVENTS), 1.0);
}

// Garbage, a frame that is too long, half a frame, and another message before the hello: the connection ends, nothing else does.
#[tokio::test]
async fn whoever_breaks_the_protocol_is_disconnected() {
    let (exporter, address) = hearing().await;
    let frames: [&[u8]; 4] =
        [b"GET / HTTP/1.1\r\n\r\n", &[0, 0, 0, 4, 1, 2, 3, 4], &[0, 0, 0x20, 1, 131], &agent::sup(&Sup::default())];
    for frame in frames {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(frame).await.unwrap();
        assert_eq!(answer(&mut stream).await, None, "{frame:?}");
    }
    // The first four bytes of HTTP are a length as well.
    assert_eq!(limit(&exporter, "node_frame_size"), 2.0);
    let (mut stream, _) = connect(address, &Who::default()).await;
    stream.write_all(&[0, 0, 0, 9, 131, 104]).await.unwrap();
    drop(stream);
    let (mut stream, _) = connect(address, &Who::default()).await;
    stream.write_all(&(1024 * 1024 + 1u32).to_be_bytes()).await.unwrap();
    assert_eq!(answer(&mut stream).await, None);
    assert_eq!(limit(&exporter, "node_frame_size"), 3.0);
}

// Whoever does not say who he is has five seconds and no more.
#[tokio::test(start_paused = true)]
async fn a_connection_without_a_hello_ends() {
    let (exporter, address) = hearing().await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    assert_eq!(answer(&mut stream).await, None);
    assert_eq!(limit(&exporter, "node_hello_time"), 1.0);
}

// Ten thousand connections: as many as there is room for stay, all others are refused and counted.
#[tokio::test]
async fn connections_beyond_the_limit_are_refused_and_counted() {
    const ROOM: usize = restart_exporter::beam::MAX_CONNECTIONS;
    let (exporter, address) = hearing().await;
    let open = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
    assert!(open > 3 * ROOM as u64, "the test needs more open files than {open}");
    let mut held = Vec::new();
    for _ in 0..ROOM {
        held.push(TcpStream::connect(address).await.unwrap());
    }
    for _ in ROOM..10_000 {
        drop(TcpStream::connect(address).await.unwrap());
    }
    // On a slow machine those held are sent away for their silence meanwhile, and others come in their place.
    let refused = async || (limit(&exporter, "node_connections") > 0.0).then_some(());
    until("refusals", refused).await;
    drop(held);
    let heard = until("room again", async || {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(&agent::hello(&Who::default())).await.ok()?;
        answer(&mut stream).await
    });
    assert_eq!(heard.await.0, "welcome");
}

// A token is wanted over TCP if there is a file with one; the file is read anew, and what it holds is never printed.
#[tokio::test]
async fn only_who_knows_the_token_comes_in() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    std::fs::write(&file, "s3cret\n").unwrap();
    let flag = format!("--beam.token-file={}", file.display());
    let mut running = Running::start(&["run", "--beam.listen-address=127.0.0.1:0", &flag]).await;
    let line = running.line_with("Listening for nodes on").await;
    let address: SocketAddr = line.rsplit_once('=').unwrap().1.parse().unwrap();
    for token in [None, Some(&b"s3cre"[..]), Some(b"s3cret\n"), Some(b"S3CRET")] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(&agent::hello(&Who { token, ..Who::default() })).await.unwrap();
        assert_eq!(answer(&mut stream).await, None);
    }
    connect(address, &Who { token: Some(b"s3cret"), ..Who::default() }).await;
    std::fs::write(&file, "changed").unwrap();
    connect(address, &Who { token: Some(b"changed"), ..Who::default() }).await;
    running.signal(rustix::process::Signal::TERM);
    let (status, log) = running.ended().await;
    assert!(status.success());
    let log = log.join("\n");
    assert!(log.contains("wrong token") && !log.to_lowercase().contains("s3cre"), "{log}");
}

// Beyond loopback nobody listens without a token; a token file that is none is named.
#[tokio::test]
async fn beyond_loopback_a_token_is_wanted() {
    let exporter = Exporter::builder().build().unwrap();
    let refused = exporter.listen_for_nodes("0.0.0.0:0".parse().unwrap()).await.unwrap_err();
    assert!(matches!(refused, Error::NoToken { .. }), "{refused}");
    for (address, named) in [("0.0.0.0:0", "0.0.0.0:0"), (":0", ":0 ([::]:0)")] {
        let flag = format!("--beam.listen-address={address}");
        let ended = run_to_end(&["run", "--web.listen-address=127.0.0.1:0", &flag]);
        let said = "--beam.token-file is required for non-loopback addresses";
        let said = format!("refusing to listen for nodes on {named}: {said}");
        assert!(!ended.status.success() && ended.stderr.contains(&said), "{}", ended.stderr);
    }
    let ended = run_to_end(&["run", "--web.listen-address=127.0.0.1:0", "--beam.token-file=/dev/null"]);
    assert!(
        !ended.status.success() && ended.stderr.contains("/dev/null: a token has 1 to 256 bytes"),
        "{}",
        ended.stderr
    );
}

// A name that resolves to loopback needs no token, and agents come in at its addresses.
#[tokio::test]
async fn localhost_needs_no_token() {
    let mut running = Running::start(&["run", "--beam.listen-address=localhost:0"]).await;
    let line = running.line_with("msg=\"Listening for nodes on\"").await;
    let address: SocketAddr = line.split_once("address=").unwrap().1.parse().unwrap();
    assert!(address.ip().is_loopback(), "{line}");
    connect(address, &Who::default()).await;
}

// A port that is taken is an error for who asked for it, and a warning for who did not: a second exporter must still start.
#[tokio::test]
async fn a_port_that_is_taken_stops_only_who_asked_for_it() {
    let (_exporter, address) = hearing().await;
    let flag = format!("--beam.listen-address={address}");
    let ended = run_to_end(&["run", "--web.listen-address=127.0.0.1:0", &flag]);
    assert!(!ended.status.success(), "{}", ended.stderr);
    assert!(ended.stderr.contains(&format!("cannot listen on {address}: Address already in use")), "{}", ended.stderr);
}

// Over a Unix socket the permissions of its file decide, and no token is wanted.
#[tokio::test]
async fn a_unix_socket_needs_no_token_and_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let (path, file) = (directory.path().join("beam"), directory.path().join("token"));
    std::fs::write(&file, "s3cret").unwrap();
    let exporter = Exporter::builder().node_token_file(&file).build().unwrap();
    exporter.listen_for_nodes_unix(Path::new(&path)).await.unwrap();
    let mut stream = UnixStream::connect(&path).await.unwrap();
    stream.write_all(&agent::hello(&Who::default())).await.unwrap();
    assert_eq!(answer(&mut stream).await, Some(("welcome".into(), 0)));
    exporter.shutdown().await;
    assert!(!path.exists());
}

// The agent comes with the program.
#[test]
fn the_program_prints_the_agent() {
    let printed = run_to_end(&["beam-agent"]);
    assert!(printed.status.success());
    assert_eq!(printed.stdout, include_str!("../../../src/beam/restart_agent.erl"));
}

// A node that says nothing for longer than three heartbeats is disconnected, so that a dead peer holds no place.
#[tokio::test(start_paused = true)]
async fn a_silent_agent_is_disconnected() {
    let (exporter, address) = hearing().await;
    let (mut stream, _) = connect(address, &Who::default()).await;
    let silent = async { while answer(&mut stream).await.is_some() {} };
    tokio::time::timeout(Duration::from_secs(60), silent).await.unwrap();
    assert_eq!(limit(&exporter, "node_silence"), 1.0);
}

// Names and process ids are those of a node, and two nodes may have the same: who asks on a node is answered of that node, and
// an order to it reaches nobody here.
#[tokio::test]
async fn each_node_answers_for_its_own() {
    let (exporter, address) = hearing().await;
    let _nodes = (looping_node(address, "app@one", "on one").await, looping_node(address, "app@two", "on two").await);
    let child = ChildSpec::task("a", |stop| async move { stop.stopped().await });
    exporter.supervise(Supervisor::new("sup").child(child)).await.unwrap();
    let control = exporter.control();
    for (node, detail) in [("app@one", "on one"), ("app@two", "on two")] {
        let on_node = control.on(Some(node));
        for supervisor in ["sup", "<0.100.0>"] {
            let causes = on_node.causes(supervisor, None).unwrap().causes;
            let said = causes[0].sample.event.reason().unwrap().detail();
            assert_eq!((causes.len(), said.as_deref()), (1, Some(detail)), "{supervisor} on {node}");
        }
        let ordered = on_node.stop("sup", Some("a")).await;
        assert_eq!(ordered, Err(restart_exporter::control::Error::Foreign("sup/a".into())));
    }
    assert_eq!(control.causes("sup", None).unwrap().causes, []);
    control.stop("sup", Some("a")).await.unwrap();
    exporter.shutdown().await;
}
