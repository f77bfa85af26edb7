//! One row for each Erlang node: is it heard, and what arrived.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::RwLock;

use super::cells::Counter;
use super::labels::{Labels, label_text};
use crate::event::{NodeCounts, NodeEvent, NodePayload};

/// The cells of a node.
pub(super) struct NodeRow {
    labels: Box<str>,
    /// When its counters stood at 0 first, in Unix milliseconds.
    created: u64,
    /// Since when it is not heard; none while it is.
    down_since: Option<Instant>,
    pub(super) events: Counter,
    pub(super) lost: Counter,
    pub(super) aggregated: Counter,
    pub(super) tap_reinstalls: Counter,
}

/// The nodes that are heard, and those that were not long ago. The listener bounds how many there are.
#[derive(Default)]
pub(super) struct NodeRows(RwLock<BTreeMap<Arc<str>, NodeRow>>);

// === impl NodeRow ===

impl NodeRow {
    pub(super) fn labels(&self) -> Labels<'_> {
        Labels { created: Some(self.created), ..Labels::from(&*self.labels) }
    }

    pub(super) fn is_up(&self) -> bool {
        self.down_since.is_none()
    }

    fn add(&self, counts: &NodeCounts) {
        self.events.add(counts.events);
        self.lost.add(counts.lost);
        self.aggregated.add(counts.aggregated);
        self.tap_reinstalls.add(counts.tap_reinstalls);
    }
}

// === impl NodeRows ===

impl NodeRows {
    /// Takes in what is said of a node. Its row is born, at 0, when it is heard first.
    pub(super) fn record(&self, event: &NodeEvent) {
        let Some(name) = &event.node else { return };
        if let NodePayload::Report(counts) = &event.payload
            && let Some(row) = self.0.read().get(name)
        {
            return row.add(counts);
        }
        let mut rows = self.0.write();
        let row = rows.entry(name.clone()).or_insert_with(|| NodeRow {
            labels: label_text(&[("node", name)]).into(),
            created: event.time.unix_millis(),
            down_since: Some(event.time.monotonic),
            events: Counter::default(),
            lost: Counter::default(),
            aggregated: Counter::default(),
            tap_reinstalls: Counter::default(),
        });
        match &event.payload {
            NodePayload::Up => row.down_since = None,
            NodePayload::Down => row.down_since = Some(event.time.monotonic),
            NodePayload::Report(counts) => row.add(counts),
            NodePayload::Limit(_) => {}
        }
    }

    /// Forgets nodes that have been down for longer than the retention; returns how many.
    pub(super) fn expire(&self, now: Instant, retention: Duration) -> u64 {
        let is_due =
            |row: &NodeRow| row.down_since.is_some_and(|down| now.saturating_duration_since(down) >= retention);
        if !self.0.read().values().any(is_due) {
            return 0;
        }
        let mut rows = self.0.write();
        let before = rows.len();
        rows.retain(|_, row| !is_due(row));
        (before - rows.len()) as u64
    }

    /// All nodes, sorted by name.
    pub(super) fn each(&self, show: impl FnMut(&NodeRow)) {
        self.0.read().values().for_each(show);
    }
}
