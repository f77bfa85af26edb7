//! Which path is answered by what: the one table of routes.

use std::pin::Pin;

use hyper::body::{Body, Incoming};
use hyper::header::{CONNECTION, HeaderValue};
use hyper::{Method, Request, StatusCode};

use super::respond::{self, Reply};
use super::shapes::LastOutput;
use super::{App, Viewer, admin, api, live, metrics, page, pages};
use crate::metrics::Limit;

/// Longest request body, in bytes. No route reads one; a few bytes are let pass as clients send them by habit.
pub const MAX_BODY_BYTES: u64 = 8 * 1024;

/// The name of the one route whose path can be configured.
pub(super) const METRICS: &str = "metrics";

/// One path and what it is for.
pub struct Route {
    /// The path; that of the metrics is [`App`]'s to say and stands here with its default.
    pub path: &'static str,
    /// The route's name in metrics.
    pub name: &'static str,
    /// Query parameters it takes. All others are errors, except for the metrics: Prometheus' jobs may have any `params`.
    pub parameters: &'static [&'static str],
    /// Whether the answer depends on who asks: it shows last output, or it is an order.
    pub is_private: bool,
    /// One line of documentation.
    pub help: &'static str,
    handler: Handler,
}

/// What a route does.
enum Handler {
    /// Answers `GET` and `HEAD`.
    Get(fn(&App, &Query) -> Reply),
    /// Answers `GET` and `HEAD` by what the query and the headers ask for.
    Ask(fn(&App, &Request<Incoming>, &Query) -> Reply),
    /// Answers `POST`, if the request may change something.
    Post(for<'a> fn(&'a App, &'a Query) -> Answer<'a>),
}

type Answer<'a> = Pin<Box<dyn Future<Output = Reply> + Send + 'a>>;

/// Every route. Those that change something answer `POST`, all others `GET` and `HEAD`.
pub static ROUTES: &[Route] = &[
    Route {
        path: "/metrics",
        name: METRICS,
        parameters: &[],
        is_private: false,
        help: "Metrics as Prometheus text, OpenMetrics or protobuf, as `Accept` says; gzip if asked for.",
        handler: Handler::Ask(metrics::exposition),
    },
    Route {
        path: "/",
        name: "index",
        parameters: &["supervisor", "node", "child", "raw", "filter", "show"],
        is_private: true,
        help: "The live page: what is in trouble, why, and what comes next.",
        handler: Handler::Ask(page::page),
    },
    Route {
        path: "/page.css",
        name: "page_style",
        parameters: &[],
        is_private: false,
        help: "The style of the page.",
        handler: Handler::Get(page::style),
    },
    Route {
        path: "/page.js",
        name: "page_script",
        parameters: &[],
        is_private: false,
        help: "The script of the page, which keeps it live.",
        handler: Handler::Get(page::script),
    },
    Route {
        path: "/icon.svg",
        name: "page_icon",
        parameters: &[],
        is_private: false,
        help: "The icon of the page.",
        handler: Handler::Get(page::icon),
    },
    Route {
        path: "/-/healthy",
        name: "healthy",
        parameters: &[],
        is_private: false,
        help: "200 as long as the exporter answers.",
        handler: Handler::Get(pages::healthy),
    },
    Route {
        path: "/-/ready",
        name: "ready",
        parameters: &[],
        is_private: false,
        help: "200 when nothing is in trouble; 503 with a line for each thing that is, before the start, and while stopping.",
        handler: Handler::Get(pages::ready),
    },
    Route {
        path: "/api/v1/stats",
        name: "stats",
        parameters: &[],
        is_private: false,
        help: "Totals of all supervisors.",
        handler: Handler::Get(api::stats),
    },
    Route {
        path: "/api/v1/supervisors",
        name: "supervisors",
        parameters: &[],
        is_private: true,
        help: "All supervisors with their children, budgets and last deaths.",
        handler: Handler::Get(api::supervisors),
    },
    Route {
        path: "/api/v1/history",
        name: "history",
        parameters: &["supervisor", "node", "child", "event", "limit"],
        is_private: true,
        help: "What happened to the children of a supervisor, newest first.",
        handler: Handler::Get(api::history),
    },
    Route {
        path: "/api/v1/failure_rate",
        name: "failure_rate",
        parameters: &["supervisor", "node", "window"],
        is_private: false,
        help: "Restarts and failures of a supervisor within a window, 60s by default.",
        handler: Handler::Get(api::failure_rate),
    },
    Route {
        path: "/api/v1/causes",
        name: "causes",
        parameters: &["supervisor", "node", "child"],
        is_private: true,
        help: "The digest of identical deaths, most frequent first.",
        handler: Handler::Get(api::causes),
    },
    Route {
        path: "/api/v1/same_causes",
        name: "same_causes",
        parameters: &["reason"],
        is_private: true,
        help: "Who died of one `reason_fingerprint` within a day, in all supervisors, most frequent first.",
        handler: Handler::Get(api::same_causes),
    },
    Route {
        path: "/api/v1/events",
        name: "events",
        parameters: &["after"],
        is_private: true,
        help: "Everything that happens, as server-sent events; resumes by `Last-Event-ID`, or `after` an id.",
        handler: Handler::Ask(live::events),
    },
    Route {
        path: "/api/v1/restart",
        name: "restart",
        parameters: &["supervisor", "child"],
        is_private: true,
        help: "POST: start a child or a whole supervisor anew, whatever it does (admin API).",
        handler: Handler::Post(|app, query| Box::pin(admin::restart(app, query))),
    },
    Route {
        path: "/api/v1/start",
        name: "start",
        parameters: &["supervisor", "child"],
        is_private: true,
        help: "POST: start a child or a whole supervisor, unless it runs (admin API).",
        handler: Handler::Post(|app, query| Box::pin(admin::start(app, query))),
    },
    Route {
        path: "/api/v1/stop",
        name: "stop",
        parameters: &["supervisor", "child"],
        is_private: true,
        help: "POST: stop a child or a whole supervisor, and keep it stopped (admin API).",
        handler: Handler::Post(|app, query| Box::pin(admin::stop(app, query))),
    },
    Route {
        path: "/api/v1/restart_child",
        name: "restart_child",
        parameters: &["supervisor", "child"],
        is_private: true,
        help: "POST: the same as `/api/v1/restart` (admin API).",
        handler: Handler::Post(|app, query| Box::pin(admin::restart(app, query))),
    },
    Route {
        path: "/api/v1/terminate_child",
        name: "terminate_child",
        parameters: &["supervisor", "child"],
        is_private: true,
        help: "POST: the same as `/api/v1/stop` (admin API).",
        handler: Handler::Post(|app, query| Box::pin(admin::stop(app, query))),
    },
    Route {
        path: "/api/v1/marks",
        name: "marks",
        parameters: &["text"],
        is_private: true,
        help: "POST: note something, such as a deploy, in the history of every supervisor (admin API).",
        handler: Handler::Post(|app, query| Box::pin(admin::mark(app, query))),
    },
    Route {
        path: "/-/reload",
        name: "reload",
        parameters: &["dry_run"],
        is_private: true,
        help: "POST: read the file again; only what changed is touched. With `dry_run=1` only the plan is told (admin API).",
        handler: Handler::Post(|app, query| Box::pin(admin::reload(app, query))),
    },
];

/// The name under which requests to unknown paths are counted.
pub const NOT_FOUND: &str = "not_found";

/// The decoded query of a request, and who asks.
pub(super) struct Query {
    pairs: Vec<(String, String)>,
    viewer: Viewer,
}

/// Finds the route, checks method, body and query, answers, and says under which name to count it.
pub(super) async fn answer(app: &App, request: Request<Incoming>) -> (&'static str, Reply) {
    let Some(route) = find(app, request.uri().path()) else {
        return (NOT_FOUND, respond::text(StatusCode::NOT_FOUND, "not found"));
    };
    let reply = match (&route.handler, request.method()) {
        (Handler::Get(_) | Handler::Ask(_), &Method::GET | &Method::HEAD) | (Handler::Post(_), &Method::POST) => {
            carry_out(app, route, &request).await
        }
        _ => respond::method_not_allowed(route.methods()),
    };
    (route.name, reply)
}

/// The name under which requests to a path are counted.
pub(super) fn name(app: &App, path: &str) -> &'static str {
    find(app, path).map_or(NOT_FOUND, |route| route.name)
}

/// Whether the answer to requests to a path depends on who asks.
pub(super) fn depends_on_viewer(app: &App, path: &str) -> bool {
    find(app, path).is_some_and(|route| route.is_private)
}

fn find(app: &App, path: &str) -> Option<&'static Route> {
    ROUTES.iter().find(|route| app.path_of(route) == path)
}

async fn carry_out(app: &App, route: &Route, request: &Request<Incoming>) -> Reply {
    if request.body().size_hint().upper().is_none_or(|upper| upper > MAX_BODY_BYTES) {
        app.metrics.limit_reached(Limit::HttpRequestBody);
        let mut reply = respond::text(StatusCode::PAYLOAD_TOO_LARGE, "request body too large");
        // What comes on this connection next is the body that nobody reads.
        reply.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        return reply;
    }
    let viewer = request.extensions().get().copied().unwrap_or_default();
    let text = request.uri().query().filter(|_| route.name != METRICS);
    let query = match Query::parse(text, route.parameters, viewer) {
        Ok(query) => query,
        Err(message) => return api::bad_data(&message),
    };
    match route.handler {
        Handler::Get(handler) => handler(app, &query),
        Handler::Ask(handler) => handler(app, request, &query),
        Handler::Post(handler) => match admin::refusal(app, request) {
            Some(refusal) => refusal,
            None => handler(app, &query).await,
        },
    }
}

impl Route {
    /// The methods it answers, as `Allow` names them.
    pub fn methods(&self) -> &'static str {
        match self.handler {
            Handler::Get(_) | Handler::Ask(_) => "GET, HEAD",
            Handler::Post(_) => "POST",
        }
    }
}

impl Query {
    /// Decodes a query and refuses what the route does not know: a parameter misspelt is a question misunderstood.
    fn parse(query: Option<&str>, known: &[&str], viewer: Viewer) -> Result<Self, String> {
        let mut pairs: Vec<(String, String)> = Vec::new();
        for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            if !known.contains(&&*name) {
                let known = if known.is_empty() { "none".into() } else { known.join(", ") };
                return Err(format!("unknown parameter {name:?}; known: {known}"));
            }
            if pairs.iter().any(|(other, _)| *other == name) {
                return Err(format!("parameter {name:?} is given twice"));
            }
            pairs.push((name.into_owned(), value.into_owned()));
        }
        Ok(Self { pairs, viewer })
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// Whether the asker may see what programs wrote.
    pub(super) fn last_output(&self) -> LastOutput {
        if self.viewer.is_trusted() { LastOutput::Shown } else { LastOutput::Hidden }
    }

    /// Whether the asker may give orders.
    pub(super) fn may_order(&self, app: &App) -> bool {
        app.admin && self.viewer.is_trusted()
    }
}
