//! What can go wrong.

use thiserror::Error;

use crate::beam::TokenError;
use crate::control;
use crate::event::SupervisorExit;
use crate::http::WebConfigError;
use crate::supervisor::{ControlError, StartError};
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
    /// A supervisor did not start.
    #[error("supervisor {name:?}: {error}")]
    Start {
        /// Its name.
        name: String,
        /// Why not.
        error: StartError,
    },
    /// A supervisor of the same name runs.
    #[error(transparent)]
    Control(#[from] control::Error),
    /// A supervisor could not be reconfigured.
    #[error("supervisor {name:?}: {error}")]
    Reconfigure {
        /// Its name.
        name: String,
        /// Why not.
        error: ControlError,
    },
    /// A top supervisor ended by a failure, and nobody is above it to decide what now.
    #[error("supervisor {name:?} ended: {exit}")]
    GaveUp {
        /// Its name.
        name: String,
        /// Why.
        exit: SupervisorExit,
    },
}
