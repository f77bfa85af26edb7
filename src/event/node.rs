//! What the listener for Erlang nodes says of the nodes themselves.

use std::sync::Arc;

use super::words::NodeLimit;
use super::{EventKind, Timestamp};

/// An event of an Erlang node, or of the listener.
#[derive(Clone, Debug)]
pub struct NodeEvent {
    /// The node; none where it is not known, as for a connection that was refused.
    pub node: Option<Arc<str>>,
    /// When it happened.
    pub time: Timestamp,
    /// What happened.
    pub payload: NodePayload,
}

/// What a [`NodeEvent`] says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodePayload {
    /// `[node, up]`: it is heard, for the first time or again.
    Up,
    /// `[node, down]`: it is not heard any more.
    Down,
    /// `[node, report]`: what arrived since the last report.
    Report(NodeCounts),
    /// `[node, limit]`: a limit was reached.
    Limit(NodeLimit),
}

/// Numbers of a [`NodePayload::Report`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeCounts {
    /// Events that arrived one by one and were taken in.
    pub events: u64,
    /// Events that will never arrive, as gaps in their numbers prove.
    pub lost: u64,
    /// Events that arrived as counts only.
    pub aggregated: u64,
    /// Events that broke a rule of the protocol and were not taken in.
    pub invalid: u64,
    /// Events of a kind that is newer than this exporter.
    pub unknown: u64,
    /// Times the agent had to install its tap again.
    pub tap_reinstalls: u64,
}

impl NodePayload {
    /// The kind of event this payload belongs to.
    pub fn kind(&self) -> EventKind {
        match self {
            NodePayload::Up => EventKind::NodeUp,
            NodePayload::Down => EventKind::NodeDown,
            NodePayload::Report(_) => EventKind::NodeReport,
            NodePayload::Limit(_) => EventKind::NodeLimit,
        }
    }
}
