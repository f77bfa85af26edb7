//! Prometheus tells you that something restarted. restart_exporter tells you what died, why, what it said last, and how
//! many restarts are left.
//!
//! ```
//! use restart_exporter::prelude::*;
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let exporter = Exporter::bind("127.0.0.1:0").await?;
//! let workers = Supervisor::new("workers")
//!     .child(ChildSpec::task("mailer", |_stop| async { Err("SMTP 421") }).restart(Restart::Transient));
//! let workers = exporter.supervise(workers).await?;
//!
//! workers.wait().await; // three restarts in five seconds are allowed, the fourth is one too many
//! let metrics = exporter.metrics().render();
//! assert!(metrics.contains(r#"supervisor_child_restarts_total{supervisor="workers",child="mailer",cause="failure"} 3"#));
//! assert!(metrics.contains(r#"supervisor_terminations_total{supervisor="workers",reason="max_intensity"} 1"#));
//! let causes = exporter.control().causes("workers", None)?.causes;
//! assert_eq!((causes.len(), causes[0].count), (1, 4));
//! # Ok(())
//! # }
//! ```
//!
//! Events come from inside the supervisor, never from watching it from outside: each updates counters, histograms and a
//! bounded history at the same moment, so that nothing happens between two scrapes unseen.
//!
//! # Map
//!
//! | module | what |
//! |---|---|
//! | [`event`] | the vocabulary: what a supervisor can say |
//! | [`telemetry`] | the bus: handlers attach, producers execute |
//! | [`supervisor`] | OTP's supervisor for tokio tasks and OS processes |
//! | [`analytics`] | history, causes, failure rate, statistics |
//! | [`metrics`] | the table of metric families, and their exposition |
//! | [`control`] | questions and orders by name |
//! | [`wire`] | the JSON shapes |
//! | [`http`] | the endpoint |
//! | [`config`] | the TOML file |
//! | [`text`] | what of a text from outside is written out, and how |
//! | [`resources`] | file descriptors, and who may hold them |
//! | [`Exporter`] | all of it wired together |
//!
//! # What it does not do
//!
//! It does not supervise across machines, keep history on disk, schedule jobs, limit what a process may use, or watch
//! supervisors that do not tell.

pub mod event;
pub mod telemetry;
pub mod text;

mod intensity;
pub mod resources;

pub mod beam;
pub mod supervisor;

pub mod analytics;
pub mod metrics;

pub mod control;
pub mod wire;

pub mod http;

pub mod config;

mod exporter;

pub use exporter::{Error, Exporter, ExporterBuilder, OnGiveUp, Reloader};

/// The names a program that supervises needs.
pub mod prelude {
    pub use crate::exporter::Exporter;
    pub use crate::supervisor::{
        AutoShutdown, ChildSpec, Program, Ready, Restart, Shutdown, StopToken, Strategy, Supervisor, SupervisorHandle,
    };
    pub use crate::telemetry::Telemetry;
}

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
