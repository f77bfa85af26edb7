//! Pages for probes.

use std::sync::atomic::Ordering;

use hyper::StatusCode;

use super::App;
use super::respond::{self, Reply};
use super::router::Query;

pub(super) fn healthy(_: &App, _: &Query) -> Reply {
    respond::text(StatusCode::OK, "restart_exporter is healthy.")
}

pub(super) fn ready(app: &App, _: &Query) -> Reply {
    if app.ready.load(Ordering::Acquire) {
        respond::text(StatusCode::OK, "restart_exporter is ready.")
    } else {
        respond::text(StatusCode::SERVICE_UNAVAILABLE, "restart_exporter is not ready.")
    }
}
