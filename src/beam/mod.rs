//! Erlang and Elixir nodes: a listener for the agents that tell what OTP's own supervisors do.
//!
//! An agent dials, says who it is, and sends what the supervisors of its node report; here it becomes the events that every
//! supervisor emits. From the inside out: [`frame`] reads Erlang's terms, [`message`] knows what they mean, [`report`]
//! makes events of them, [`session`] keeps the nodes and their streams, and this module has the sockets.
//!
//! Nothing that a peer does can take more than its share: connections, nodes, supervisors, children, texts, the size of a
//! frame and the time until a hello are bounded, and each bound is counted when it is met ([`NodeLimit`]). A peer that breaks
//! the protocol is disconnected, and what it had said before stands.

pub mod frame;
mod listener;
pub mod message;
pub mod report;
pub mod session;
mod token;

use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener};

use crate::event::NodeLimit;
use crate::telemetry::{Telemetry, now};

pub use session::NodeLimits;
pub use token::{MAX_TOKEN_BYTES, Token, TokenError};

use listener::Connections;
use session::Nodes;

/// The agent: the source of an Erlang module without dependencies.
pub const AGENT_SOURCE: &str = include_str!("restart_agent.erl");

/// Connections that may be open at a time, of agents and of those who have not said who they are.
pub const MAX_CONNECTIONS: usize = 1000;

/// Nodes that may be known at a time.
pub const MAX_NODES: usize = 1000;

/// Supervisors of one node.
pub const MAX_SUPERVISORS: usize = 10_000;

/// Children of one node that are followed.
pub const MAX_CHILDREN: usize = 20_000;

/// Bytes of different texts of one node that are kept at a time.
pub const MAX_TEXT_BYTES: usize = 16 * 1024 * 1024;

/// How long a connection may take to say hello.
pub const HELLO_TIME: Duration = Duration::from_secs(5);

/// How often nodes are looked at for what only time tells.
const TICK: Duration = Duration::from_millis(250);

/// Where agents dial.
#[derive(Debug)]
pub enum Socket {
    /// A TCP address.
    Tcp(TcpListener),
    /// A Unix socket: whoever can open it needs no token.
    Unix(UnixListener),
}

/// The listener for nodes. Clones share what is known.
#[derive(Clone)]
pub struct Beam {
    shared: Arc<Shared>,
}

struct Shared {
    telemetry: Telemetry,
    nodes: Nodes,
    token: Option<Token>,
    connections: Connections,
}

// === impl Beam ===

impl Beam {
    /// A listener that emits on this bus, and wants a token from who comes over TCP if there is one.
    pub fn new(telemetry: &Telemetry, limits: NodeLimits, token: Option<Token>) -> Self {
        let connections = Connections::new(MAX_CONNECTIONS);
        Self {
            shared: Arc::new(Shared { telemetry: telemetry.clone(), nodes: Nodes::new(limits), token, connections }),
        }
    }

    /// Is a token wanted over TCP?
    pub fn has_token(&self) -> bool {
        self.shared.token.is_some()
    }

    /// Answers on a socket until `stopped`, then closes all its connections. Meanwhile nodes that go silent are noticed.
    pub async fn serve(&self, socket: Socket, stopped: impl Future<Output = ()>) {
        listener::serve(&self.shared, socket, stopped).await;
    }
}

// === impl Shared ===

impl Shared {
    /// Counts that a limit was met by somebody who has no name yet.
    fn limit(&self, limit: NodeLimit) {
        self.telemetry.execute(&session::limit(None, limit, now()));
    }
}

// === impl NodeLimits ===

impl NodeLimits {
    /// The limits of this module; `retention` is how long a node that is down is remembered.
    pub fn new(retention: Duration) -> Self {
        Self {
            nodes: MAX_NODES,
            supervisors_per_node: MAX_SUPERVISORS,
            children_per_node: MAX_CHILDREN,
            text_bytes_per_node: MAX_TEXT_BYTES,
            retention,
        }
    }
}
