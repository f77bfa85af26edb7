//! The streams of an HTTP/2 connection: each is a task of its own, which can be ended without its connection.

use std::future::Future;
use std::sync::Arc;

use hyper::rt::Executor;
use tokio::sync::Notify;

tokio::task_local! {
    /// Ends the stream whose request this task answers.
    static CUT_OFF: Arc<Notify>;
}

/// Runs what answers the requests of an HTTP/2 connection.
#[derive(Clone, Copy)]
pub(super) struct Streams;

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Streams {
    fn execute(&self, stream: F) {
        let cut_off = Arc::new(Notify::new());
        let ends = cut_off.clone();
        let until_cut_off = async move {
            // A stream that is dropped is reset.
            tokio::select! {
                () = stream => {}
                () = ends.notified() => {}
            }
        };
        tokio::spawn(CUT_OFF.scope(cut_off, until_cut_off));
    }
}

/// What ends the stream of the request that is being answered; none if it has its connection for itself.
pub(super) fn current() -> Option<Arc<Notify>> {
    CUT_OFF.try_with(Arc::clone).ok()
}
