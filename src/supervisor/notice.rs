//! A notice that is given once: to stop, to be killed, that a run has ended.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use pin_project_lite::pin_project;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// Given once and for all who wait for it, now or later. Clones are the same notice.
///
/// Every child holds one, and most children are idle: `CancellationToken` would take twice the memory, for a tree that
/// supervisors do not use.
#[derive(Clone, Debug, Default)]
pub(super) struct Notice(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    given: AtomicBool,
    waiting: Notify,
}

impl Notice {
    /// Gives the notice; again changes nothing.
    pub(super) fn give(&self) {
        self.0.given.store(true, Ordering::Release);
        self.0.waiting.notify_waiters();
    }

    pub(super) fn is_given(&self) -> bool {
        self.0.given.load(Ordering::Acquire)
    }

    /// Returns when the notice is given; at once if it was.
    pub(super) fn given(&self) -> Given<'_> {
        // Made before any look at the notice: from here on it hears of it, polled or not.
        Given { notice: self, notified: self.0.waiting.notified() }
    }
}

pin_project! {
    /// Waits for a notice. Not an `async fn`, whose future would keep the waiting twice, in the task of every child.
    pub(super) struct Given<'a> {
        notice: &'a Notice,
        #[pin]
        notified: Notified<'a>,
    }
}

impl Future for Given<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        if this.notice.is_given() { Poll::Ready(()) } else { this.notified.poll(context) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_notice_reaches_those_who_wait_and_those_who_come_later() {
        let notice = Notice::default();
        let waiting: Vec<_> = (0..3)
            .map(|_| {
                tokio::spawn({
                    let notice = notice.clone();
                    async move { notice.given().await }
                })
            })
            .collect();
        tokio::task::yield_now().await;
        assert!(!notice.is_given() && waiting.iter().all(|task| !task.is_finished()));
        notice.give();
        for task in waiting {
            task.await.unwrap();
        }
        notice.given().await;
    }
}
