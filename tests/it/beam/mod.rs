//! Erlang and Elixir nodes, end to end: real nodes, the real agent, the real binary.
//!
//! A node does what a test tells it over its standard input (`fixtures/beam/driver.erl` and `driver.exs`), with supervisors and
//! workers of `fixtures/beam/tree.erl`. What the exporter then says is compared with what the test did, exactly.

mod crowds;
mod document;
mod elixir;
mod faults;
mod others;
mod reports;
mod start;
mod world;
