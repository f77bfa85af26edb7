//! `/metrics`: the exposition, built while it is sent.

use super::App;
use super::respond::{self, Reply};
use super::router::Query;
use crate::metrics::Metrics;

pub(super) fn exposition(app: &App, _: &Query) -> Reply {
    respond::exposition(app.metrics.exposition(), Metrics::content_type())
}
