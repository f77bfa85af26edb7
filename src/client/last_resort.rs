//! What a program says before it ends because a supervisor gave up: what `why` would say of the culprit, on standard error.
//!
//! The questions go to the exporter's own application, in this process, so that it does not matter where it listens and who
//! may ask there.

use hyper::service::{Service, service_fn};
use hyper_util::rt::TokioIo;
use restart_exporter::analytics::Health;
use restart_exporter::http::{Access, App, Peer, Viewer};
use restart_exporter::wire::Supervisor;
use tokio::io::{DuplexStream, duplex};

use super::http::Client;
use super::screen::{self, Screen};
use super::{Failure, Found, shape, why};
use crate::cli::complain;

/// Bytes under way between the two ends of a connection.
const ROOM: usize = 64 * 1024;

/// Says why a top supervisor gave up or could not start; as lines of the log where a program reads that.
pub(crate) async fn explain_end(app: &App, top: &str, as_log: bool) {
    let client = Client::within(app);
    let explained: Result<Found, Failure> = async {
        let supervisors: Vec<Supervisor> = shape(&client, &client.get("supervisors", &[]).await?)?;
        let name = culprit(&supervisors, top).unwrap_or_else(|| top.to_owned());
        why::run(&client, &mut Screen::of_errors(as_log), false, &name, None).await
    }
    .await;
    if let Err(failure) = explained {
        complain(failure);
    }
}

/// The child whose death was one too many, below this supervisor or further down.
fn culprit(supervisors: &[Supervisor], top: &str) -> Option<String> {
    let is_below = |one: &&Supervisor| {
        one.node.is_none() && one.name.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let children =
        supervisors.iter().filter(is_below).flat_map(|one| one.children.iter().map(move |child| (one, child)));
    let failed = children.filter(|(_, child)| screen::health(&child.health) <= Health::Failed);
    let newest = failed.max_by_key(|(_, child)| {
        let died = child.last_death.as_ref().map(|death| death.timestamp);
        // A supervisor dies of what its child died of a moment before.
        (child.child_type == "worker", died)
    });
    newest.map(|(supervisor, child)| format!("{}/{}", supervisor.name, child.id))
}

/// A connection to the application itself, which trusts it: who reads our standard error reads that of our children.
pub(super) fn connect(app: &App) -> DuplexStream {
    let (ours, theirs) = duplex(ROOM);
    // Whatever the web config file asks of others.
    let service = app.clone().access(Access::open()).service();
    let trusted = service_fn(move |mut request| {
        hyper::Request::extensions_mut(&mut request).insert(Viewer { peer: Peer::Unix, authenticated: false });
        service.call(request)
    });
    tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(theirs), trusted));
    ours
}
