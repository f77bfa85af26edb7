//! `tail`: each event once, over a connection that breaks.

use std::net::SocketAddr;
use std::process::Stdio;

use restart_exporter::Exporter;
use restart_exporter::supervisor::{ChildSpec, Supervisor};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};

use super::{exporter, once, timeless};
use crate::world::{BINARY, soon, until};

/// A running `tail`, ended when dropped.
struct Tail {
    process: Child,
    out: Lines<BufReader<ChildStdout>>,
    err: Lines<BufReader<ChildStderr>>,
}

impl Tail {
    /// Its first event is the mark `begin`, so that all later ones are told.
    async fn start(exporter: &Exporter, url: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(BINARY);
        command.arg("tail").arg(url).args(arguments).kill_on_drop(true);
        let mut process = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(process.stdout.take().unwrap()).lines();
        let err = BufReader::new(process.stderr.take().unwrap()).lines();
        let mut tail = Self { process, out, err };
        tail.follows(exporter, "begin").await;
        tail
    }

    /// Marks until it is told of a mark.
    async fn follows(&mut self, exporter: &Exporter, text: &str) {
        let told = async {
            loop {
                exporter.telemetry().mark(text.parse().unwrap());
                let wait = std::time::Duration::from_millis(200);
                if let Ok(line) = tokio::time::timeout(wait, self.out.next_line()).await {
                    assert!(line.unwrap().unwrap().contains(text));
                    return;
                }
            }
        };
        soon("the first mark", told).await;
    }

    /// The next line that is no mark.
    async fn line(&mut self) -> String {
        loop {
            let line = soon("a line", self.out.next_line()).await.unwrap().unwrap();
            if !line.contains("▲") && !line.contains("\"mark\"") {
                return line;
            }
        }
    }
}

// A death stands there as soon as it happened, in the words of the other commands; with --json as the API sends it.
#[tokio::test]
async fn tail_shows_what_happens_in_words_or_as_json() {
    let (exporter, _, url) = exporter().await;
    let mut words = Tail::start(&exporter, &url, &["top"]).await;
    let mut json = Tail::start(&exporter, &url, &["--json"]).await;
    let top = |name: &str| {
        let child = ChildSpec::task("worker", |_| async { Err::<(), _>("SMTP \u{1b}[2J421") }).backoff(once());
        Supervisor::new(name).max_restarts(9).max_seconds(3600).child(child)
    };
    exporter.supervise(top("other")).await.unwrap();
    exporter.supervise(top("top")).await.unwrap();
    assert_eq!(timeless(&words.line().await), "DAY CLOCK top supervisor started");
    assert_eq!(timeless(&words.line().await), "DAY CLOCK top/worker started");
    let death =
        r"DAY CLOCK top/worker ended with an error: SMTP \u{1b}[2J421, ran T → restarts after T, 8 more allowed";
    assert_eq!(timeless(&words.line().await), death);
    let first: serde_json::Value = serde_json::from_str(&json.line().await).unwrap();
    assert_eq!((&first["event_type"], &first["supervisor_name"]), (&"supervisor_started".into(), &"other".into()));
    exporter.shutdown().await;
}

// The exporter stops and another starts in its place: tail says so, and goes on.
#[tokio::test]
async fn tail_comes_back_when_the_exporter_does() {
    let (first, address, url) = exporter().await;
    let mut tail = Tail::start(&first, &url, &[]).await;
    first.shutdown().await;
    let lost = soon("the loss", tail.err.next_line()).await.unwrap().unwrap();
    assert_eq!(lost, "restart_exporter: the connection is lost, trying again");
    let second = again(address).await;
    tail.follows(&second, "back").await;
    let said = soon("the return", tail.err.next_line()).await.unwrap().unwrap();
    assert_eq!(said, "restart_exporter: connected again");
    let said = soon("the reset", tail.err.next_line()).await.unwrap().unwrap();
    assert_eq!(said, "restart_exporter: the exporter has started anew");
    second.shutdown().await;
}

// Nobody reads any more: tail ends by itself, and says nothing, though nothing happens that it could try to tell.
#[tokio::test]
async fn tail_ends_when_nobody_reads_it() {
    let (exporter, _, url) = exporter().await;
    let Tail { mut process, out, mut err } = Tail::start(&exporter, &url, &[]).await;
    drop(out);
    let status = soon("the end", process.wait()).await.unwrap();
    assert_eq!((status.code(), err.next_line().await.unwrap()), (Some(0), None));
    exporter.shutdown().await;
}

async fn again(address: SocketAddr) -> Exporter {
    let exporter = Exporter::builder().build().unwrap();
    until("the port", async || exporter.listen(address).await.ok()).await;
    exporter
}
