//! What can go wrong.

use thiserror::Error;

use crate::beam::TokenError;
use crate::control;
use crate::event::SupervisorExit;
use crate::http::WebConfigError;
use crate::telemetry::AttachError;

/// What can go wrong with an exporter.
#[derive(Debug, Error)]
pub enum Error {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {error}")]
    Bind {
        /// The address.
        address: String,
        /// Why not.
        error: std::io::Error,
    },
    /// Nodes would be let in from beyond this machine without a token.
    #[error("cannot listen for nodes on {address}: beyond loopback a token file is wanted")]
    NoToken {
        /// The address.
        address: String,
    },
    /// The token file for nodes is wrong.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The web config file is wrong.
    #[error(transparent)]
    WebConfig(#[from] WebConfigError),
    /// Another exporter is attached to the same bus.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// A supervisor did not start, or one of its name runs.
    #[error(transparent)]
    Control(#[from] control::Error),
    /// A top supervisor gave up or could not start, and the exporter is to end with it.
    #[error("supervisor {name:?} ended: {exit}")]
    GaveUp {
        /// Its name.
        name: String,
        /// Why.
        exit: SupervisorExit,
    },
}
