//! The bus: handlers attach to kinds of events, producers execute events, and nothing stands between them.
//!
//! The contract is that of hex `telemetry` 1.4 (Erlang's and Elixir's `:telemetry`):
//!
//! - Handlers run synchronously in the emitter, so a scrape after an event sees the event. Their order is unspecified.
//! - A handler id is unique over all events of a bus: [`AttachError`] for a second one, [`DetachError`] for an unknown one.
//! - Events match by their exact name, never by a prefix; only [`list_handlers`](Telemetry::list_handlers) takes a prefix.
//! - A handler that panics is detached from all its events, counted, announced by `[telemetry, handler, failure]`, and
//!   never harms the emitter or another handler.
//!
//! Where the types make a rule of `:telemetry` impossible to break there is nothing to check: an event name cannot be
//! malformed ([`EventKind`] is closed), measurements cannot be a bare number, metadata cannot be missing.
//!
//! ```
//! use restart_exporter::event::{Event, EventKind};
//! use restart_exporter::telemetry::Telemetry;
//!
//! let telemetry = Telemetry::new();
//! telemetry.attach("print-deaths", EventKind::ChildTerminate, |event: &Event| println!("{event:?}"))?;
//! assert_eq!(telemetry.list_handlers(&["supervisor", "child"]).len(), 1);
//! # Ok::<(), restart_exporter::telemetry::AttachError>(())
//! ```

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime};

use arc_swap::ArcSwap;
use once_cell::sync::Lazy;
use parking_lot::Mutex;
use thiserror::Error;

use crate::event::{Detail, Event, EventKind, HandlerFailure, Mark, MarkText, Span, SpanPhase, Timestamp};

/// Most handler ids whose failures are counted apart; those beyond are counted under [`OTHER_HANDLER`].
pub const MAX_FAILED_HANDLERS: usize = 64;

/// The id under which failures beyond [`MAX_FAILED_HANDLERS`] are counted.
pub const OTHER_HANDLER: &str = "_other";

/// Reads both clocks.
///
/// Monotonic time is tokio's, which equals the system's outside of tests on paused time.
pub fn now() -> Timestamp {
    Timestamp { monotonic: monotonic_now(), system: SystemTime::now() }
}

/// Reads the monotonic clock alone, for the start of a duration or the right end of a window.
pub fn monotonic_now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// What is called for an event. Every `Fn(&Event) + Send + Sync` is one.
pub trait Handler: Send + Sync {
    /// Called in the emitter, which waits: be quick, never block, never wait for a supervisor.
    fn handle(&self, event: &Event);
}

impl<F: Fn(&Event) + Send + Sync> Handler for F {
    fn handle(&self, event: &Event) {
        self(event);
    }
}

/// A handler as [`Telemetry::list_handlers`] shows it: one entry for each event it is attached to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandlerInfo {
    /// The id it was attached under.
    pub id: Arc<str>,
    /// One of its events.
    pub event: EventKind,
}

/// How often a handler failed, and whether it is detached now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandlerFailures {
    /// The handler, or [`OTHER_HANDLER`].
    pub id: Arc<str>,
    /// Panics so far.
    pub failures: u64,
    /// True from the failure until the id is attached again.
    pub detached: bool,
}

/// The id is taken by another handler of this bus (`{error, already_exists}`).
#[derive(Debug, Error, PartialEq, Eq)]
#[error("already_exists: a telemetry handler with the id {0:?} is attached")]
pub struct AttachError(Arc<str>);

/// No handler has this id (`{error, not_found}`).
#[derive(Debug, Error, PartialEq, Eq)]
#[error("not_found: no telemetry handler has the id {0:?}")]
pub struct DetachError(Arc<str>);

/// A bus. Clones share the handlers.
#[derive(Clone, Default)]
pub struct Telemetry {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    table: ArcSwap<Table>,
    /// Serialises writers. Not a lock around the table: `execute` must never wait, and a handler may attach or detach.
    writer: Mutex<()>,
    /// Counted here and not by a handler of the failure event, because that handler may be the one that failed.
    failures: Mutex<BTreeMap<Arc<str>, Failures>>,
}

#[derive(Default)]
struct Failures {
    count: u64,
    detached: bool,
}

#[derive(Clone, Default)]
struct Table {
    by_kind: [Vec<Arc<Attachment>>; EventKind::ALL.len()],
}

struct Attachment {
    id: Arc<str>,
    handler: Arc<dyn Handler>,
}

// === impl Telemetry ===

impl Telemetry {
    /// A bus of its own.
    pub fn new() -> Self {
        Self::default()
    }

    /// The bus that applications share when they do not pass one around. The library itself never reads it.
    pub fn global() -> &'static Telemetry {
        static GLOBAL: Lazy<Telemetry> = Lazy::new(Telemetry::new);
        &GLOBAL
    }

    /// Attaches a handler to one kind of event (`telemetry:attach/4`).
    ///
    /// # Errors
    /// [`AttachError`] if the id is taken, whatever its events.
    pub fn attach(&self, id: &str, kind: EventKind, handler: impl Handler + 'static) -> Result<(), AttachError> {
        self.attach_many(id, &[kind], handler)
    }

    /// Attaches a handler to several kinds of events (`telemetry:attach_many/4`).
    ///
    /// # Errors
    /// [`AttachError`] if the id is taken, whatever its events.
    pub fn attach_many(
        &self,
        id: &str,
        kinds: &[EventKind],
        handler: impl Handler + 'static,
    ) -> Result<(), AttachError> {
        self.attach_shared(id, kinds, Arc::new(handler))
    }

    /// Attaches a handler that its owner also holds; attaching the very same handler again is no error, so that an
    /// owner which starts again need not know whether it was attached before.
    ///
    /// # Errors
    /// [`AttachError`] if the id is taken by another handler.
    pub fn attach_shared(&self, id: &str, kinds: &[EventKind], handler: Arc<dyn Handler>) -> Result<(), AttachError> {
        let _writer = self.shared.writer.lock();
        let mut table = Table::clone(&self.shared.table.load());
        if let Some(existing) = table.find(id) {
            if std::ptr::addr_eq(Arc::as_ptr(&existing.handler), Arc::as_ptr(&handler)) {
                return Ok(());
            }
            return Err(AttachError(id.into()));
        }
        let attachment = Arc::new(Attachment { id: id.into(), handler });
        for kind in kinds {
            let handlers = &mut table.by_kind[*kind as usize];
            if !handlers.iter().any(|other| Arc::ptr_eq(other, &attachment)) {
                handlers.push(attachment.clone());
            }
        }
        self.shared.table.store(Arc::new(table));
        if let Some(failures) = self.shared.failures.lock().get_mut(id) {
            failures.detached = false;
        }
        Ok(())
    }

    /// Detaches a handler from all its events (`telemetry:detach/1`). An event that is being dispatched may still reach it.
    ///
    /// # Errors
    /// [`DetachError`] if no handler has the id.
    pub fn detach(&self, id: &str) -> Result<(), DetachError> {
        self.remove(|attachment| &*attachment.id == id).ok_or_else(|| DetachError(id.into()))
    }

    /// Lists the handlers whose event names begin with `prefix`, one entry for each event; an empty prefix lists all
    /// (`telemetry:list_handlers/1`).
    pub fn list_handlers(&self, prefix: &[&str]) -> Vec<HandlerInfo> {
        let table = self.shared.table.load();
        EventKind::ALL
            .into_iter()
            .filter(|kind| kind.name().starts_with(prefix))
            .flat_map(|kind| table.by_kind[kind as usize].iter().map(move |handler| (kind, handler)))
            .map(|(event, handler)| HandlerInfo { id: handler.id.clone(), event })
            .collect()
    }

    /// Number of handlers attached, each counted once.
    pub fn attached_handlers(&self) -> usize {
        let table = self.shared.table.load();
        let mut attached: Vec<_> = table.by_kind.iter().flatten().map(Arc::as_ptr).collect();
        attached.sort_unstable();
        attached.dedup();
        attached.len()
    }

    /// The handlers that failed so far, at most [`MAX_FAILED_HANDLERS`] and [`OTHER_HANDLER`].
    pub fn handler_failures(&self) -> Vec<HandlerFailures> {
        let failures = self.shared.failures.lock();
        failures
            .iter()
            .map(|(id, entry)| HandlerFailures { id: id.clone(), failures: entry.count, detached: entry.detached })
            .collect()
    }

    /// Calls the handlers of the event's kind, here and now (`telemetry:execute/3`).
    ///
    /// Never fails and never panics, whatever the handlers do.
    pub fn execute(&self, event: &Event) {
        let kind = event.kind();
        let table = self.shared.table.load();
        for attachment in &table.by_kind[kind as usize] {
            if let Err(payload) = panic::catch_unwind(AssertUnwindSafe(|| attachment.handler.handle(event))) {
                self.handler_failed(attachment, kind, payload);
            }
        }
    }

    /// Emits a `[mark]` event: something was done at this moment that the history should show beside deaths, such as a deploy.
    pub fn mark(&self, text: MarkText) -> Mark {
        let mark = Mark { time: now(), text };
        self.execute(&Event::Mark(mark.clone()));
        mark
    }

    /// Runs `work` between a `[telemetry, span, start]` and a `[telemetry, span, stop]` event, or an
    /// `[telemetry, span, exception]` event if it panics (`telemetry:span/3`).
    ///
    /// # Panics
    /// Goes on with the panic of `work`, if it panics.
    pub fn span<R>(&self, name: &'static str, work: impl FnOnce() -> R) -> R {
        static NEXT_CONTEXT: AtomicU64 = AtomicU64::new(0);
        let context = NEXT_CONTEXT.fetch_add(1, Ordering::Relaxed);
        let start = now();
        let emit = |time, phase| self.execute(&Event::Span(Span { name, context, time, phase }));
        emit(start, SpanPhase::Start);
        let outcome = panic::catch_unwind(AssertUnwindSafe(work));
        let end = now();
        let duration = end.monotonic - start.monotonic;
        match outcome {
            Ok(result) => {
                emit(end, SpanPhase::Stop { duration });
                result
            }
            Err(payload) => {
                emit(end, SpanPhase::Exception { duration, reason: panic_message(&*payload) });
                panic::resume_unwind(payload)
            }
        }
    }

    fn remove(&self, is_gone: impl Fn(&Arc<Attachment>) -> bool) -> Option<()> {
        let _writer = self.shared.writer.lock();
        let mut table = Table::clone(&self.shared.table.load());
        let mut found = None;
        for handlers in &mut table.by_kind {
            handlers.retain(|attachment| {
                let gone = is_gone(attachment);
                if gone {
                    found = Some(());
                }
                !gone
            });
        }
        self.shared.table.store(Arc::new(table));
        found
    }

    fn handler_failed(&self, attachment: &Arc<Attachment>, kind: EventKind, payload: Box<dyn Any + Send>) {
        let reason = panic_message(&*payload);
        // Dropping a hostile payload may panic as well.
        let _ = panic::catch_unwind(AssertUnwindSafe(move || drop(payload)));
        // By identity: another thread may have seen the same handler fail, and its id may belong to a new one already.
        let was_attached = self.remove(|other| Arc::ptr_eq(other, attachment)).is_some();
        self.count_failure(&attachment.id, was_attached);
        if was_attached {
            tracing::error!(handler = &*attachment.id, event = %kind, err = &*reason, "telemetry handler failed and was detached");
            let failure = HandlerFailure { time: now(), handler_id: attachment.id.clone(), event_name: kind, reason };
            self.execute(&Event::HandlerFailure(failure));
        }
    }

    fn count_failure(&self, id: &Arc<str>, detached: bool) {
        let mut failures = self.shared.failures.lock();
        let known = failures.contains_key(id) || failures.len() < MAX_FAILED_HANDLERS;
        let id = if known { id.clone() } else { OTHER_HANDLER.into() };
        let entry = failures.entry(id).or_default();
        entry.count += 1;
        entry.detached |= detached;
    }
}

// === impl Table ===

impl Table {
    fn find(&self, id: &str) -> Option<&Arc<Attachment>> {
        self.by_kind.iter().flatten().find(|attachment| &*attachment.id == id)
    }
}

/// The text of a panic's payload, as the standard hook prints it.
pub(crate) fn panic_message(payload: &(dyn Any + Send)) -> Detail {
    if let Some(text) = payload.downcast_ref::<&str>() {
        Detail::new(text)
    } else if let Some(text) = payload.downcast_ref::<String>() {
        Detail::new(text)
    } else {
        Detail::new("Box<dyn Any>")
    }
}
