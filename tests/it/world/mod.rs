//! What the end-to-end tests stand on: an HTTP client, the running binary, events to wait for.
//!
//! Nothing here sleeps for a time that was guessed: tests wait for a condition, and fail when a generous deadline passes.

mod http;
mod process;
mod prometheus;
mod sse;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use restart_exporter::event::{Event, EventKind, Payload, SupervisorEvent};
use restart_exporter::supervisor::ChildSpec;
use restart_exporter::telemetry::Telemetry;
use restart_exporter::{Exporter, ExporterBuilder};
use tokio::sync::{Semaphore, mpsc};

pub(crate) use http::{Response, exchange, get, request, request_unix};
pub(crate) use process::{BINARY, Ended, Foreign, Running, is_alive, run_to_end};
pub(crate) use prometheus::Prometheus;
pub(crate) use sse::{Sse, SseEvent};

/// Longest time that anything may take which should happen soon, on a machine that has much else to do: only a broken
/// program needs it.
pub(crate) const DEADLINE: Duration = Duration::from_secs(120);

/// How often a condition in another process is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Awaits what should happen soon; panics and names it if it does not.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: did not happen within {DEADLINE:?}"),
    }
}

/// Asks another process again and again until it gives an answer. Within this process wait for [`Events`] instead.
pub(crate) async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let mut looks = tokio::time::interval(LOOK_AGAIN);
    let found = async {
        loop {
            looks.tick().await;
            if let Some(answer) = ask().await {
                return answer;
            }
        }
    };
    soon(what, found).await
}

/// An exporter in this process that listens on a port of its own.
pub(crate) async fn listening(builder: ExporterBuilder) -> (Exporter, SocketAddr) {
    let exporter = builder.build().unwrap();
    let address = exporter.listen("127.0.0.1:0").await.unwrap();
    (exporter, address)
}

/// The events of a bus, in order. Attach it last: who hears from it then knows that all others have seen the event.
pub(crate) struct Events(mpsc::UnboundedReceiver<SupervisorEvent>);

impl Events {
    /// Follows a bus from now on.
    pub(crate) fn of(telemetry: &Telemetry) -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        let handler = move |event: &Event| {
            if let Event::Supervisor(event) = event {
                // The test may have ended.
                let _ = sender.send(event.clone());
            }
        };
        telemetry.attach_many("world-events", &EventKind::SUPERVISOR, handler).unwrap();
        Self(receiver)
    }

    /// The next event of this kind; others before it are skipped.
    pub(crate) async fn next(&mut self, kind: EventKind) -> SupervisorEvent {
        let next = async {
            loop {
                let event = self.0.recv().await.expect("the bus is gone");
                if event.payload.kind() == kind {
                    return event;
                }
            }
        };
        soon(&kind.to_string(), next).await
    }

    /// Waits for as many restarts.
    pub(crate) async fn restarts(&mut self, count: usize) {
        for _ in 0..count {
            let event = self.next(EventKind::ChildRestart).await;
            assert!(matches!(event.payload, Payload::ChildRestart { .. }));
        }
    }
}

/// Does the answer of `/-/ready` say that the start is over? Something may be in trouble since.
pub(crate) fn has_started(ready: &Response) -> bool {
    ready.status == 200 || !ready.body.contains("is starting")
}

/// A child that fails once for each permit, and else works.
pub(crate) fn crasher(id: &str, crashes: &Arc<Semaphore>) -> ChildSpec {
    let crashes = crashes.clone();
    ChildSpec::task(id, move |stop| {
        let crashes = crashes.clone();
        async move {
            tokio::select! {
                () = stop.stopped() => Ok(()),
                Ok(crash) = crashes.acquire() => {
                    crash.forget();
                    Err("SMTP 421")
                }
            }
        }
    })
}

/// The value of the one sample that begins with this series, as it stands in an exposition.
pub(crate) fn sample(exposition: &str, series: &str) -> Option<f64> {
    let value = exposition.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
    Some(value.parse().unwrap_or_else(|_| panic!("{series} has the value {value:?}")))
}

/// Lets this process open as many files as it may, for tests with hundreds of connections.
pub(crate) fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
}
