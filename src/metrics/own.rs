//! What the exporter counts about itself.
//!
//! Cells of our own rather than the types of the crate `prometheus`: those want a name where they are made, and names
//! stand in the table of families alone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::RwLock;

use super::cells::{Counter, Counters, Gauge};
use super::families::FAMILIES;
use super::labels::label_text;
use super::limits::Limits;
use super::nodes::NodeRows;
use crate::event::{EventKind, unix_millis};

/// Why an event was not processed: a closed set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropCause {
    /// It could not be decoded, or broke a rule of its schema. Spelled `invalid`.
    Invalid,
    /// Its name is not known to this version. Spelled `unknown_event`.
    UnknownEvent,
    /// It was lost on the way, as a gap in the numbers of its session proves. Spelled `gap`.
    Gap,
}

impl DropCause {
    /// Every cause, in the order of the discriminants.
    pub const ALL: &'static [DropCause] = &[DropCause::Invalid, DropCause::UnknownEvent, DropCause::Gap];

    /// The value of the label `cause`.
    pub const fn as_str(self) -> &'static str {
        match self {
            DropCause::Invalid => "invalid",
            DropCause::UnknownEvent => "unknown_event",
            DropCause::Gap => "gap",
        }
    }
}

/// Cells of the exporter itself.
pub(super) struct Own {
    pub(super) events: Counters<{ EventKind::SUPERVISOR.len() }>,
    pub(super) dropped: Counters<{ DropCause::ALL.len() }>,
    pub(super) limits: Arc<Limits>,
    pub(super) nodes: NodeRows,
    /// By route and status: both are sets that the code closes, no request can add to them.
    requests: RwLock<BTreeMap<(&'static str, u16), Counter>>,
    in_flight: AtomicU64,
    pub(super) live_viewers: AtomicU64,
    pub(super) live_events_missed: Counter,
    /// 1 if the last attempt to load the configuration file succeeded, else 0; unknown before the first attempt.
    pub(super) config_loaded: Gauge,
    /// Unix milliseconds of the last successful load; unknown before the first.
    pub(super) config_loaded_at: Gauge,
    /// Nanoseconds the last exposition took, 0 before the first.
    scrape_nanos: AtomicU64,
}

impl Own {
    pub(super) fn new(limits: Arc<Limits>) -> Self {
        Self {
            events: Counters::default(),
            dropped: Counters::default(),
            limits,
            nodes: NodeRows::default(),
            requests: RwLock::default(),
            in_flight: AtomicU64::new(0),
            live_viewers: AtomicU64::new(0),
            live_events_missed: Counter::default(),
            config_loaded: Gauge::default(),
            config_loaded_at: Gauge::default(),
            scrape_nanos: AtomicU64::new(0),
        }
    }

    /// Forgets nodes that have been down for longer than the retention.
    pub(super) fn expire_nodes(&self, now: Instant, retention: Duration) {
        let of_a_node = || FAMILIES.iter().filter(|family| family.labels == ["node"]).count() as u64;
        match self.nodes.expire(now, retention) {
            0 => {}
            expired => self.limits.expired_series.add(expired * of_a_node()),
        }
    }

    pub(super) fn know_handler(&self, handler: &'static str) {
        self.requests.write().entry((handler, 200)).or_default();
    }

    pub(super) fn request(&self, handler: &'static str, code: u16) {
        if let Some(counter) = self.requests.read().get(&(handler, code)) {
            return counter.inc();
        }
        self.requests.write().entry((handler, code)).or_default().inc();
    }

    pub(super) fn each_request(&self, mut show: impl FnMut(&str, u64)) {
        for ((handler, code), counter) in &*self.requests.read() {
            show(&label_text(&[("handler", handler), ("code", &code.to_string())]), counter.get());
        }
    }

    pub(super) fn request_begins(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn request_ends(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn in_flight(&self) -> u64 {
        self.in_flight.load(Ordering::Relaxed)
    }

    pub(super) fn config_reloaded(&self, successful: bool, time: SystemTime) {
        if successful {
            self.config_loaded_at.set(Some(unix_millis(time)));
        }
        self.config_loaded.set(Some(successful.into()));
    }

    pub(super) fn scraped(&self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.scrape_nanos.store(nanos.max(1), Ordering::Relaxed);
    }

    /// None before the first exposition.
    pub(super) fn scrape_seconds(&self) -> Option<f64> {
        let nanos = self.scrape_nanos.load(Ordering::Relaxed);
        (nanos > 0).then(|| Duration::from_nanos(nanos).as_secs_f64())
    }
}

/// The labels of the build, fixed when this crate was compiled.
pub(super) fn build_labels() -> String {
    let known = |value: Option<&'static str>| value.unwrap_or("unknown");
    label_text(&[
        ("version", env!("CARGO_PKG_VERSION")),
        ("revision", known(option_env!("RESTART_EXPORTER_REVISION"))),
        ("branch", known(option_env!("RESTART_EXPORTER_BRANCH"))),
        ("rustversion", known(option_env!("RESTART_EXPORTER_RUSTVERSION"))),
    ])
}
