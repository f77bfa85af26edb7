//! The live page `/`: server-rendered HTML that works as it is, and a script that renders it again when something happens.
//!
//! There is one renderer, the templates beside this file in `assets/`; the script only fetches the page again and puts the
//! difference into place. What is shown is in the address alone: a link shows the same to everybody.

mod detail;
mod lead;
mod sentences;
mod snapshot;
mod text;
mod view;

use askama::Template;
use hyper::body::Incoming;
use hyper::header::{CONTENT_SECURITY_POLICY, HOST, HeaderName, HeaderValue, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use hyper::{Request, StatusCode};

use super::App;
use super::respond::{self, Reply};
use super::router::Query;
use crate::analytics::registry::{Name, OTHER};
use crate::analytics::{ChildView, Health};
use crate::event::counted;
use detail::Detail;
use lead::Lead;
pub(super) use snapshot::Snapshots;
use snapshot::{Node, Snapshot, is_trouble};
pub(crate) use text::Visible;
use text::{clock, line};
use view::{Group, Link, Run, Said, Scene, Words, href, supervisor_link};

/// Supervisors in trouble that are shown before somebody asks for all.
const MAX_GROUPS: usize = 20;

/// Supervisors that are shown when somebody asks for all, or for a name.
const MAX_ALL: usize = 1000;

/// Children of one supervisor on the first page, and where it is shown alone.
const MAX_ROWS: usize = 8;
const MAX_ROWS_ALONE: usize = 200;

/// Supervisors that are well and shown by name in their fold.
const MAX_HEALTHY: usize = 12;

/// Nothing but what this server itself sends, and nothing inline.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// The address at which commands look if they are not told another.
const DEFAULT_HOST: &str = "127.0.0.1:8469";

/// What is around every page.
#[derive(Template)]
#[template(path = "page.html")]
struct Page<B: Template> {
    title: String,
    /// The id of the newest live event that the page knows.
    live: String,
    at: u64,
    clock: String,
    filter: String,
    counts: Vec<(Health, usize)>,
    /// May requests change something?
    admin: bool,
    metrics: String,
    version: &'static str,
    body: B,
}

#[derive(Template)]
#[template(path = "overview.html")]
struct Overview {
    lead: Option<Lead>,
    groups: Vec<Group>,
    more: usize,
    /// Supervisors that are counted together: so many, and where their history is.
    together: Option<(String, String)>,
    /// `1000 supervisors, 10000 children`
    size: String,
    healthy: Vec<Link>,
    healthy_more: usize,
    healthy_children: String,
    shows_all: bool,
    filter: String,
}

#[derive(Template)]
#[template(path = "missing.html")]
struct Missing {
    name: String,
    node: Option<String>,
}

/// `/`
pub(super) fn page(app: &App, request: &Request<Incoming>, query: &Query) -> Reply {
    let snapshot = app.snapshots.get(&app.control, &app.live);
    let scene = Scene {
        snapshot: &snapshot,
        control: &app.control,
        output: query.last_output(),
        admin: query.may_order(app),
        url: url(app, request),
    };
    let filter = query.get("filter").unwrap_or_default().trim();
    match query.get("supervisor") {
        None => {
            let overview = overview(&scene, filter, query.get("show") == Some("all"));
            reply(app, &scene, StatusCode::OK, filter, title(&snapshot), overview)
        }
        Some(name) => match snapshot.find(name, query.get("node")) {
            Some(place) => {
                let detail = Detail::new(&scene, place, query.get("child"), query.get("raw").is_some());
                reply(app, &scene, StatusCode::OK, filter, format!("{} – restart_exporter", line(name)), detail)
            }
            None => {
                let missing = Missing { name: line(name), node: query.get("node").map(line) };
                reply(app, &scene, StatusCode::NOT_FOUND, filter, "restart_exporter".into(), missing)
            }
        },
    }
}

fn reply(app: &App, scene: &Scene<'_>, status: StatusCode, filter: &str, title: String, body: impl Template) -> Reply {
    let snapshot = scene.snapshot;
    let page = Page {
        title,
        live: app.live.id(snapshot.newest),
        at: snapshot.at,
        clock: clock(snapshot.at, snapshot.at),
        filter: filter.to_owned(),
        counts: Health::ALL.into_iter().zip(snapshot.counts).filter(|(_, number)| *number > 0).collect(),
        admin: scene.admin,
        metrics: app.metrics_path().trim_start_matches('/').to_owned(),
        version: env!("CARGO_PKG_VERSION"),
        body,
    };
    match page.render() {
        Ok(html) => secured(respond::full(status, "text/html; charset=utf-8", html)),
        Err(error) => respond::text(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

/// What every part of the page is sent with.
fn secured(mut reply: Reply) -> Reply {
    let headers = reply.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin"));
    reply
}

pub(super) fn style(_: &App, _: &Query) -> Reply {
    secured(respond::full(StatusCode::OK, "text/css; charset=utf-8", include_str!("../assets/page.css")))
}

pub(super) fn script(_: &App, _: &Query) -> Reply {
    secured(respond::full(StatusCode::OK, "text/javascript; charset=utf-8", include_str!("../assets/page.js")))
}

pub(super) fn icon(_: &App, _: &Query) -> Reply {
    secured(respond::full(StatusCode::OK, "image/svg+xml", include_str!("../assets/icon.svg")))
}

/// Where a command reaches us, as the browser did; none if it looks there by itself.
fn url(app: &App, request: &Request<Incoming>) -> Option<String> {
    let authority = request.uri().authority().map(|authority| authority.as_str());
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok()).or(authority).unwrap_or(DEFAULT_HOST);
    let scheme = if app.tls().0 { "https" } else { "http" };
    (host != DEFAULT_HOST || scheme != "http").then(|| format!("{scheme}://{host}"))
}

/// What stands in the tab of a browser that is not looked at.
fn title(snapshot: &Snapshot) -> String {
    let bad =
        Health::ALL.into_iter().zip(snapshot.counts).filter(|(health, number)| is_trouble(*health) && *number > 0);
    let words: Vec<_> = bad.map(|(health, number)| format!("{number} {}", health.said())).collect();
    if words.is_empty() { "restart_exporter".into() } else { format!("{} – restart_exporter", words.join(", ")) }
}

/// Nothing is shown of those beyond the limit, so that there are any has to be said.
fn together(supervisors: u64) -> Option<(String, String)> {
    let other = Name { supervisor: OTHER.into(), node: None };
    (supervisors > 0).then(|| (counted(supervisors, "supervisor", "supervisors"), href(&other, None)))
}

fn overview(scene: &Scene<'_>, filter: &str, shows_all: bool) -> Overview {
    let snapshot = scene.snapshot;
    let needle = filter.to_lowercase();
    let is_meant = |text: &str| text.to_lowercase().contains(&needle);
    let child_is_meant = |child: &ChildView| is_meant(&child.child.id);
    let supervisor_is_meant = |node: &Node| {
        let Name { supervisor, node } = &node.view.supervisor;
        is_meant(supervisor) || node.as_deref().is_some_and(is_meant)
    };
    let is_wanted = |place: usize| {
        let node = &snapshot.supervisors[place];
        let is_named = supervisor_is_meant(node) || node.view.children.iter().any(child_is_meant);
        if needle.is_empty() { shows_all || node.worst <= Health::Recovered } else { is_named }
    };
    let (mut groups, mut more, mut healthy, mut healthy_children) = (Vec::new(), 0, Vec::new(), 0);
    let most = if shows_all || !needle.is_empty() { MAX_ALL } else { MAX_GROUPS };
    let mut next: Vec<(usize, usize)> = snapshot.tops.iter().rev().map(|top| (*top, 0)).collect();
    while let Some((place, depth)) = next.pop() {
        let node = &snapshot.supervisors[place];
        next.extend(node.below.iter().rev().map(|below| (*below, depth + 1)));
        if !is_wanted(place) {
            healthy.push(place);
            healthy_children += node.view.children.len() as u64;
        } else if groups.len() < most {
            let named = !needle.is_empty() && !supervisor_is_meant(node);
            groups.push(scene.group(place, depth, MAX_ROWS, |child| match needle.is_empty() {
                true => is_trouble(child.health),
                false if named => child_is_meant(child),
                false => true,
            }));
        } else {
            more += 1;
        }
    }
    let is_lead = |place: &&snapshot::Place| {
        let node = snapshot.node(**place);
        needle.is_empty() || supervisor_is_meant(node) || child_is_meant(snapshot.child(**place))
    };
    let children: u64 = snapshot.counts.iter().map(|number| *number as u64).sum();
    let supervisors = snapshot.supervisors.len() as u64;
    Overview {
        lead: snapshot.troubles.iter().find(is_lead).map(|place| scene.lead(*place)),
        groups,
        more,
        together: together(scene.control.overflowed() as u64),
        size: format!(
            "{}, {}",
            counted(supervisors, "supervisor", "supervisors"),
            counted(children, "child", "children")
        ),
        healthy_more: healthy.len().saturating_sub(MAX_HEALTHY),
        healthy: healthy.iter().take(MAX_HEALTHY).map(|place| supervisor_link(&snapshot.supervisors[*place])).collect(),
        healthy_children: counted(healthy_children, "child", "children"),
        shows_all,
        filter: filter.to_owned(),
    }
}
