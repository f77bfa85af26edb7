//! Pages for people and probes.

use std::fmt::Write;
use std::sync::atomic::Ordering;

use hyper::StatusCode;

use super::App;
use super::respond::{self, Reply};
use super::router::{Query, ROUTES};

pub(super) fn index(app: &App, _: &Query) -> Reply {
    let mut links = String::new();
    for route in ROUTES {
        let path = app.path_of(route);
        let mut label = path.to_owned();
        for (index, parameter) in route.parameters.iter().enumerate() {
            // Writing to a String cannot fail.
            let _ = write!(label, "{}{parameter}=", if index == 0 { '?' } else { '&' });
        }
        let label = label.replace('&', "&amp;").replace('<', "&lt;");
        let _ = writeln!(links, "<li><a href=\"{path}\"><code>{label}</code></a> {}</li>", route.help);
    }
    let version = env!("CARGO_PKG_VERSION");
    let page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>restart_exporter</title></head>\n\
         <body><h1>restart_exporter</h1>\n<p>What died, why, and how many more deaths its supervisor will take. \
         Version {version}.</p>\n<ul>\n{links}</ul></body></html>\n"
    );
    respond::full(StatusCode::OK, "text/html; charset=utf-8", page)
}

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
