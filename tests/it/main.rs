//! All integration tests in one binary, a module a feature.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "clippy takes only test functions for tests, not the helpers they share"
)]

mod backoff;
mod beam;
mod browser;
mod cli;
mod client;
mod config_file;
mod corpus;
mod dashboards;
mod docs;
mod document;
mod doors;
mod dynamic;
mod endpoint;
mod endpoint_end;
mod formats;
mod layers;
mod live;
mod nodes;
mod operator;
mod otp_suite;
mod outside;
mod processes;
mod prometheus;
mod reload;
mod resources;
mod starts;
mod stored;
mod support;
mod telemetry_suite;
mod web_config;
mod world;
