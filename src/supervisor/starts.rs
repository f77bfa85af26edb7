//! What children that are being started say to their supervisor. Mechanics; nothing is decided here.
//!
//! A supervisor does not stand still while a child gets ready: words arrive here, and the run loop takes them one by one.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use foldhash::fast::RandomState;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::event::Pid;
use crate::supervisor::child::Info;
use crate::supervisor::handle::SupervisorHandle;

/// One start; never used twice by a supervisor.
pub(super) type StartId = u64;

/// The inbox of one supervisor. Clones share it.
#[derive(Clone, Default)]
pub(super) struct Starts(Arc<Shared>);

#[derive(Default)]
struct Shared {
    inner: Mutex<Inner>,
    said: Notify,
}

#[derive(Default)]
struct Inner {
    next: StartId,
    /// Starts whose end nobody has said yet.
    open: HashSet<StartId, RandomState>,
    said: VecDeque<(StartId, Said)>,
}

/// What is said about a start.
pub(super) enum Said {
    /// It has not ended, but this is known of it.
    Known(Known),
    /// How it ended.
    Answer(Answer),
    /// Its [`Ready`](crate::supervisor::Ready) was dropped without a word.
    Dropped,
}

/// What is known of a child before its start has ended.
#[derive(Clone)]
pub(super) enum Known {
    /// The run's own pid.
    Pid(Pid),
    /// The handle of a child that is a supervisor.
    Supervisor(SupervisorHandle),
    /// Whether a supervisor below waits for a child whose start failed, and which is tried again.
    Stalled(bool),
}

/// How a start ended.
#[derive(Default)]
pub(super) struct Answer {
    pub(super) outcome: Outcome,
    pub(super) info: Option<Info>,
}

#[derive(Default)]
pub(super) enum Outcome {
    #[default]
    Running,
    Ignored,
    AlreadyStarted(Pid),
}

/// The right to say how one start ended, once.
pub(super) struct Voice {
    starts: Starts,
    id: StartId,
    /// Is it said when this is dropped unsaid?
    tells_drop: bool,
}

// === impl Starts ===

impl Starts {
    /// Opens a start. With `tells_drop` a voice that is dropped unsaid says so; else only the end of the run ends it.
    pub(super) fn open(&self, tells_drop: bool) -> (StartId, Voice) {
        let mut inner = self.0.inner.lock();
        let id = inner.next;
        inner.next += 1;
        inner.open.insert(id);
        (id, Voice { starts: self.clone(), id, tells_drop })
    }

    /// From here on the start cannot be answered. The answer, if it was said before and nobody has taken it.
    pub(super) fn close(&self, id: StartId) -> Option<Answer> {
        let mut inner = self.0.inner.lock();
        inner.open.remove(&id);
        let mut answer = None;
        inner.said.retain_mut(|(said, word)| {
            if *said == id
                && let Said::Answer(said) = word
            {
                answer = Some(std::mem::take(said));
            }
            *said != id
        });
        answer
    }

    /// The next word about any start.
    pub(super) async fn next(&self) -> (StartId, Said) {
        loop {
            // Taken before the wait, and one word wakes one wait: none is overlooked.
            if let Some(said) = self.0.inner.lock().said.pop_front() {
                return said;
            }
            self.0.said.notified().await;
        }
    }
}

// === impl Voice ===

impl Voice {
    /// Says how the start ended. False if nobody wants to know any more.
    pub(super) fn answer(&mut self, answer: Answer) -> bool {
        self.end(Said::Answer(answer))
    }

    /// Says what is known so far.
    pub(super) fn known(&self, known: Known) {
        let mut inner = self.starts.0.inner.lock();
        if inner.open.contains(&self.id) {
            inner.said.push_back((self.id, Said::Known(known)));
            self.starts.0.said.notify_one();
        }
    }

    fn end(&mut self, said: Said) -> bool {
        let mut inner = self.starts.0.inner.lock();
        let is_open = inner.open.remove(&self.id);
        if is_open {
            inner.said.push_back((self.id, said));
            self.starts.0.said.notify_one();
        }
        is_open
    }
}

impl Drop for Voice {
    fn drop(&mut self) {
        if self.tells_drop {
            self.end(Said::Dropped);
        } else {
            self.starts.0.inner.lock().open.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // A word that was said before the start was closed counts; one that comes later finds nobody.
    #[test]
    fn a_start_is_answered_once_or_refused() {
        let starts = Starts::default();
        let (first, mut voice) = starts.open(true);
        assert!(voice.answer(Answer::default()));
        assert!(!voice.answer(Answer::default()), "it was said already");
        assert!(starts.close(first).is_some());
        let (second, mut voice) = starts.open(true);
        assert!(starts.close(second).is_none());
        assert!(!voice.answer(Answer::default()));
    }

    // What a supervisor waits for must not be forgotten by whoever was to say it.
    #[tokio::test]
    async fn a_voice_that_is_dropped_says_so() {
        let starts = Starts::default();
        let (id, voice) = starts.open(true);
        voice.known(Known::Stalled(true));
        drop(voice);
        assert!(matches!(starts.next().await, (said, Said::Known(Known::Stalled(true))) if said == id));
        assert!(matches!(starts.next().await, (said, Said::Dropped) if said == id));
        drop(starts.open(false));
        assert!(starts.0.inner.lock().said.is_empty() && starts.0.inner.lock().open.is_empty());
    }
}
