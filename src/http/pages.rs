//! Pages for probes.

use std::sync::atomic::Ordering;
use std::time::Duration;

use hyper::StatusCode;

use super::App;
use super::respond::{self, Reply};
use super::router::Query;
use crate::analytics::{ChildView, Health, SupervisorView};
use crate::control::{Top, TopState};
use crate::text;

/// Things in trouble that are named; the rest are counted.
const MAX_NAMED: usize = 20;

pub(super) fn healthy(_: &App, _: &Query) -> Reply {
    respond::text(StatusCode::OK, "restart_exporter is healthy.")
}

/// Ready is what `status` ends with 0 for: the same rule, on the same state.
pub(super) fn ready(app: &App, _: &Query) -> Reply {
    if !app.ready.load(Ordering::Acquire) {
        return respond::text(
            StatusCode::SERVICE_UNAVAILABLE,
            "restart_exporter is not ready: it is starting or stopping.",
        );
    }
    let (views, tops) = (app.control.supervisors(), app.control.tops());
    let mut troubles: Vec<String> = views.iter().flat_map(troubles).collect();
    // One that could not even begin is seen by nobody.
    let is_unseen =
        |top: &&Top| !views.iter().any(|view| view.supervisor.supervisor == top.name && view.supervisor.node.is_none());
    troubles.extend(tops.iter().filter(is_unseen).filter_map(|top| match &top.state {
        TopState::Failed(why) => Some(format!("{} {}: {why}", top.name, said(Health::Failed))),
        _ => None,
    }));
    if troubles.is_empty() {
        // One that has just begun may not have said anything yet, or nothing of its children.
        let starting = tops.iter().filter(|top| top.state == TopState::Starting);
        troubles.extend(starting.map(|top| format!("{} {}", top.name, said(Health::Starting))));
    }
    if troubles.is_empty() {
        return respond::text(StatusCode::OK, "restart_exporter is ready.");
    }
    let mut lines = vec!["restart_exporter is not ready:".to_owned()];
    // One line each, whatever a name or a reason has in it.
    lines.extend(troubles.iter().take(MAX_NAMED).map(|trouble| text::one_line(trouble).into_owned()));
    if troubles.len() > MAX_NAMED {
        lines.push(format!("and {} more", troubles.len() - MAX_NAMED));
    }
    respond::text(StatusCode::SERVICE_UNAVAILABLE, &lines.join("\n"))
}

/// What is in trouble of one supervisor: itself, if it is down or not heard, else its children.
fn troubles(view: &SupervisorView) -> Vec<String> {
    let name = &view.supervisor.supervisor;
    if view.health.is_trouble() && (!view.up || view.health == Health::Silent) {
        let why = view.last_end.as_ref().and_then(|end| end.event.supervisor_exit()).and_then(|exit| exit.detail());
        let why = why.map_or_else(String::new, |why| format!(": {why}"));
        return vec![format!("{name} {}{why}", said(view.health))];
    }
    let of_child = |child: &ChildView| {
        let doing = child.progress.as_ref().and_then(|progress| {
            let limit = progress.limit.map(|limit| format!(" of {}", seconds(limit))).unwrap_or_default();
            let elapsed = seconds(progress.elapsed);
            progress.waits_for.as_ref().map(|what| format!(": waiting for {what}, {elapsed}{limit}"))
        });
        format!("{name}/{} {}{}", child.child.id, said(child.health), doing.unwrap_or_default())
    };
    view.children.iter().filter(|child| child.health.is_trouble()).map(of_child).collect()
}

fn said(health: Health) -> &'static str {
    match health {
        Health::GaveUp => "gave up",
        Health::Failed => "failed",
        Health::Looping => "is in a crash loop",
        Health::Silent => "is silent: its node is not connected",
        Health::Starting => "is starting",
        Health::Restarting => "is restarting",
        Health::Stopping => "is stopping",
        Health::Recovered | Health::Stopped | Health::Ok => "is fine",
    }
}

fn seconds(duration: Duration) -> String {
    humantime::format_duration(Duration::from_secs(duration.as_secs())).to_string()
}
