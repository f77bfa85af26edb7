//! Many connections at once.

use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use restart_exporter::Exporter;
use restart_exporter::http::MAX_CONNECTIONS;
use restart_exporter::prelude::*;
use tokio::sync::Semaphore;

use crate::world::{Sse, crasher, get, listening, raise_open_files, sample};

/// More connections than the usual backlog of 128 holds, and fewer than ours.
const AT_ONCE: usize = 600;

/// Connects again and again while the runtime, whose only thread this is, accepts nothing.
fn connects_while_nothing_is_accepted(address: SocketAddr) -> Vec<TcpStream> {
    let connect = |_| TcpStream::connect_timeout(&address, Duration::from_millis(500));
    (0..AT_ONCE).map(connect).collect::<Result<_, _>>().unwrap_or_else(|error| panic!("{address}: {error}"))
}

// Connections that come faster than they are accepted wait; without room to wait, the system drops them for a second.
#[tokio::test]
async fn every_listener_has_room_for_many_connections_to_wait() {
    raise_open_files();
    let (exporter, address) = listening(Exporter::builder()).await;
    let nodes = exporter.listen_for_nodes("127.0.0.1:0".parse().unwrap()).await.unwrap();
    drop((connects_while_nothing_is_accepted(address), connects_while_nothing_is_accepted(nodes)));

    let directory = tempfile::tempdir().unwrap();
    let (http, beam) = (directory.path().join("http"), directory.path().join("beam"));
    exporter.listen_unix(&http).await.unwrap();
    exporter.listen_for_nodes_unix(&beam).await.unwrap();
    for path in [http, beam] {
        // A full backlog makes it wait for ever.
        let (done, waits) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let all: Result<Vec<_>, _> = (0..AT_ONCE).map(|_| UnixStream::connect(&path)).collect();
            let _ = done.send(all.map(|all| all.len()));
        });
        assert_eq!(waits.recv_timeout(Duration::from_secs(20)).unwrap().unwrap(), AT_ONCE);
    }
}

// A viewer may be silent for as long as nothing happens. Others do not push it out, however many connect.
#[tokio::test]
async fn new_connections_push_out_no_viewer() {
    raise_open_files();
    let (exporter, address) = listening(Exporter::builder()).await;
    let crashes = Arc::new(Semaphore::new(0));
    let supervisor = Supervisor::new("workers").max_restarts(100).child(crasher("mailer", &crashes));
    exporter.supervise(supervisor).await.unwrap();
    let mut viewer = Sse::open(address, "/api/v1/events", "").await;
    let mut others = Vec::new();
    for _ in 0..MAX_CONNECTIONS + 100 {
        others.push(tokio::net::TcpStream::connect(address).await.unwrap());
    }
    let text = get(address, "/metrics").await.body;
    let refused = sample(&text, "restart_exporter_limit_reached_total{limit=\"http_connections\"}").unwrap();
    assert!(refused >= 100.0, "{refused}");
    crashes.add_permits(1);
    assert_eq!(viewer.next().await.expect("pushed out").data["event_type"], "terminated");
}
