//! The nodes and their streams: who is connected, what is known of each supervisor, which number came last. Time is an
//! argument.
//!
//! A stream is one incarnation of an agent's tables on one node. Its events are numbered; what was taken in already is
//! dropped when it is sent again, and a gap is counted as lost. A new incarnation in the same virtual machine takes over
//! the supervisors that still run; in another one they have all ended.

mod clock;
mod node;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::RandomState;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::frame::{FrameError, MAX_FRAME_BYTES};
use super::message::Hello;
use super::report::{CHILD_BYTES, SUPERVISOR_BYTES};
use crate::event::{Event, NodeEvent, NodeLimit, NodePayload, Timestamp, counted};

pub use node::Node;

use node::NODE_BYTES;

/// How often an agent is asked to be heard.
pub const HEARTBEAT: Duration = Duration::from_secs(5);

/// A node that was not heard for so long is down.
pub const SILENCE: Duration = Duration::from_secs(15);

/// How often an agent is asked to say all its supervisors again at most: there may be ten thousand.
pub const RESYNC_PAUSE: Duration = Duration::from_secs(60);

/// Longest incarnation, in bytes.
const MAX_INCARNATION: usize = 64;

/// How much is kept of nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeLimits {
    /// Most nodes that are known at a time.
    pub nodes: usize,
    /// Most supervisors of a node, those included that a new incarnation of its agent has not said yet.
    pub supervisors_per_node: usize,
    /// Most children of a node that are followed; those beyond are told under `_other` of their supervisor.
    pub children_per_node: usize,
    /// Most bytes of different texts of a node that are kept at a time, by whomever: names of children, reasons.
    pub text_bytes_per_node: usize,
    /// How long a node that is down is remembered.
    pub retention: Duration,
}

/// Why a connection ends that its peer did not end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// What came is not the protocol.
    #[error("protocol error: {0}")]
    Protocol(#[from] FrameError),
    /// Something else than a hello came first, or a second hello.
    #[error("protocol error: {0}")]
    Order(&'static str),
    /// The hello has no token or a wrong one.
    #[error("wrong token")]
    Token,
    /// Nobody can come in, because the token that is wanted cannot be read.
    #[error("{0}")]
    TokenFile(String),
    /// Too many nodes are known.
    #[error("{} known, and no more are taken in", counted(*.0, "node is", "nodes are"))]
    Nodes(usize),
    /// Another virtual machine is connected under this name.
    #[error("another node of the name {0:?} is connected from host {1:?}: give each node a name of its own")]
    NameTaken(String, String),
    /// A newer connection of the same node took the place of this one.
    #[error("a newer connection of the node took its place")]
    Replaced,
}

/// All nodes.
#[derive(Debug)]
pub struct Nodes {
    limits: NodeLimits,
    table: Mutex<HashMap<Arc<str>, Arc<Mutex<Node>>, RandomState>>,
}

/// What a hello leads to.
#[derive(Clone, Debug)]
pub struct Welcomed {
    /// The node.
    pub node: Arc<Mutex<Node>>,
    /// Its name.
    pub name: Arc<str>,
    /// Events up to this number are not wanted again.
    pub resume_after: u64,
    /// Notified when a newer connection takes the place of this one.
    pub replaced: Arc<Notify>,
}

/// Takes the events.
pub type Bus<'a> = dyn FnMut(&Event) + 'a;

// === impl NodeLimits ===

impl NodeLimits {
    /// Most bytes of memory that one node takes of its own, whatever it sends: its supervisors, children and texts, and its
    /// connection with a frame that is read. What histories and metrics take is bounded for all nodes together, by
    /// [`AnalyticsConfig::most_bytes`](crate::analytics::AnalyticsConfig::most_bytes) and
    /// [`MetricsConfig::most_bytes`](crate::metrics::MetricsConfig::most_bytes).
    pub fn most_bytes_per_node(&self) -> usize {
        // A buffer that grows has its old and its new memory at once, of which the new is at most twice the frame.
        let connection = 3 * MAX_FRAME_BYTES;
        self.supervisors_per_node * SUPERVISOR_BYTES
            + self.children_per_node * CHILD_BYTES
            + self.text_bytes_per_node
            + NODE_BYTES
            + connection
    }
}

// === impl Nodes ===

impl Nodes {
    /// No node is known.
    pub fn new(limits: NodeLimits) -> Self {
        Self { limits, table: Mutex::default() }
    }

    /// A node says who it is; who may do so was decided before.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn hello(
        &self,
        hello: &Hello<'_>,
        connection: u64,
        now: Timestamp,
        bus: &mut Bus<'_>,
    ) -> Result<Welcomed, Refusal> {
        if hello.node.is_empty() || hello.node.is_cut() || hello.incarnation.len() > MAX_INCARNATION {
            return Err(Refusal::Order("a node without a name, or with one that is too long"));
        }
        loop {
            let node = self.node(hello, now, bus)?;
            let mut state = node.lock();
            // It may have been forgotten between the two locks.
            if !state.is_forgotten {
                let (resume_after, replaced) = state.hello(hello, connection, now, bus)?;
                let name = state.name.clone();
                drop(state);
                return Ok(Welcomed { node, name, resume_after, replaced });
            }
        }
    }

    fn node(&self, hello: &Hello<'_>, now: Timestamp, bus: &mut Bus<'_>) -> Result<Arc<Mutex<Node>>, Refusal> {
        let mut table = self.table.lock();
        match table.get(&*hello.node) {
            Some(node) => Ok(node.clone()),
            None if table.len() >= self.limits.nodes => {
                bus(&limit(None, NodeLimit::Nodes, now));
                Err(Refusal::Nodes(table.len()))
            }
            None => {
                let name: Arc<str> = (&*hello.node).into();
                let node = Arc::new(Mutex::new(Node::new(name.clone(), self.limits, hello, now)));
                table.insert(name, node.clone());
                Ok(node)
            }
        }
    }

    /// Looks at what only time tells: silence, restarts that are settled, nodes to be forgotten.
    pub fn tick(&self, now: Timestamp, bus: &mut Bus<'_>) {
        let nodes: Vec<_> = self.table.lock().values().cloned().collect();
        for node in nodes {
            let mut state = node.lock();
            state.tick(now, bus);
            let silence = now.monotonic.saturating_duration_since(state.heard);
            if !state.is_up && state.connection.is_none() && silence > self.limits.retention {
                state.is_forgotten = true;
                state.close("its node was not heard of any more", now, bus);
                self.table.lock().remove(&state.name);
            }
        }
    }
}

/// A limit was reached.
pub fn limit(node: Option<&Arc<str>>, limit: NodeLimit, time: Timestamp) -> Event {
    Event::Node(NodeEvent { node: node.cloned(), time, payload: NodePayload::Limit(limit) })
}
