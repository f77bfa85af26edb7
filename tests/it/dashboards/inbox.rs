//! Where Alertmanager sends its notifications: a webhook receiver that keeps all of them.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// Longest wait for an alert: three times what the slowest needs.
const PATIENCE: Duration = Duration::from_secs(90);

/// A webhook receiver, gone with the test's runtime.
pub(crate) struct Inbox {
    pub(crate) address: SocketAddr,
    notes: watch::Receiver<Vec<Note>>,
}

/// An alert in a notification.
#[derive(Clone, Debug)]
pub(crate) struct Note {
    /// The path that it was sent to.
    pub(crate) path: String,
    /// `firing` or `resolved`.
    pub(crate) status: String,
    pub(crate) labels: Value,
    pub(crate) annotations: Value,
}

impl Note {
    pub(crate) fn is(&self, status: &str, labels: &[(&str, &str)]) -> bool {
        self.status == status && labels.iter().all(|(name, value)| self.labels[name] == *value)
    }

    /// A text of the alert; panics if there is none.
    pub(crate) fn text(&self, name: &str) -> &str {
        self.annotations[name].as_str().unwrap_or_else(|| panic!("no {name} in {self:?}"))
    }
}

impl Inbox {
    pub(crate) async fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, notes) = watch::channel(Vec::new());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let sender = sender.clone();
                let receive = service_fn(move |request| receive(request, sender.clone()));
                let server = hyper::server::conn::http1::Builder::new();
                tokio::spawn(async move { server.serve_connection(TokioIo::new(stream), receive).await });
            }
        });
        Self { address, notes }
    }

    /// All that came so far, in order.
    pub(crate) fn notes(&self) -> Vec<Note> {
        self.notes.borrow().clone()
    }

    /// How many came so far.
    pub(crate) fn len(&self) -> usize {
        self.notes.borrow().len()
    }

    /// Waits for an alert with this status and these labels, the first `skip` notes left out.
    pub(crate) async fn wait(&self, status: &str, labels: &[(&str, &str)], skip: usize) -> Note {
        let mut notes = self.notes.clone();
        let is_new = |notes: &Vec<Note>| notes.iter().skip(skip).find(|note| note.is(status, labels)).cloned();
        let found = notes.wait_for(|notes| is_new(notes).is_some());
        match tokio::time::timeout(PATIENCE, found).await {
            Ok(notes) => is_new(&notes.unwrap()).unwrap(),
            Err(_) => panic!("no {status} {labels:?} within {PATIENCE:?} among {:#?}", self.notes()),
        }
    }
}

async fn receive(
    request: Request<Incoming>,
    sender: watch::Sender<Vec<Note>>,
) -> Result<Response<Empty<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await.expect("a whole body").to_bytes();
    let message: Value = serde_json::from_slice(&body).expect("JSON");
    sender.send_modify(|notes| {
        notes.extend(message["alerts"].as_array().into_iter().flatten().map(|alert| Note {
            path: path.clone(),
            status: alert["status"].as_str().unwrap_or_default().to_owned(),
            labels: alert["labels"].clone(),
            annotations: alert["annotations"].clone(),
        }));
    });
    Ok(Response::new(Empty::new()))
}
