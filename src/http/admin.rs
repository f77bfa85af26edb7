//! Requests that change something. Closed unless opened: over TCP only with the admin API enabled, over a Unix socket for
//! whoever may open it; and never from a page of another site.

use hyper::header::{HOST, HeaderMap, HeaderName, ORIGIN};
use hyper::{Request, StatusCode};

use super::access::is_address;
use super::api::{Failure, reply, required};
use super::respond::{self, Reply};
use super::router::Query;
use super::{App, Viewer, shapes};
use crate::control::{Control, Error, Started};
use crate::event::{InvalidMark, MarkText};
use crate::wire;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Why a request may not change anything; none if it may.
pub(super) fn refusal<B>(app: &App, request: &Request<B>) -> Option<Reply> {
    // HTTP/2 names the host beside the path, and an absolute target overrides the header.
    let authority = request.uri().authority().map(|authority| authority.as_str());
    let viewer: Viewer = request.extensions().get().copied().unwrap_or_default();
    let message = if !app.admin {
        "the admin API is off here: start with --web.enable-admin-api, or use a unix: address"
    } else if is_cross_site(request.headers(), authority) {
        "the request comes from a page of another site"
    } else if !viewer.is_trusted() {
        "orders are taken only from root and the exporter's own user on its host, by a loopback address and without a proxy, and from users of its web config file: use --url unix:PATH, or --user"
    } else {
        return None;
    };
    Some(respond::error(StatusCode::FORBIDDEN, "forbidden", message.into()))
}

pub(super) async fn restart(app: &App, query: &Query) -> Reply {
    let restart = |control: Control, supervisor: String, child: Option<String>| async move {
        control.restart(&supervisor, child.as_deref()).await
    };
    order(app, query, "restart", restart, started).await
}

pub(super) async fn start(app: &App, query: &Query) -> Reply {
    let start = |control: Control, supervisor: String, child: Option<String>| async move {
        control.start(&supervisor, child.as_deref()).await
    };
    order(app, query, "start", start, started).await
}

pub(super) async fn stop(app: &App, query: &Query) -> Reply {
    let stop = |control: Control, supervisor: String, child: Option<String>| async move {
        control.stop(&supervisor, child.as_deref()).await
    };
    order(app, query, "stop", stop, |()| respond::success(wire::Done {})).await
}

/// Does what is ordered, and logs it.
async fn order<T: Send + 'static, F: Future<Output = Result<T, Error>> + Send + 'static>(
    app: &App,
    query: &Query,
    verb: &'static str,
    order: impl FnOnce(Control, String, Option<String>) -> F,
    done: impl FnOnce(T) -> Reply,
) -> Reply {
    let supervisor = match required(query, "supervisor") {
        Ok(supervisor) => supervisor.to_owned(),
        Err(failure) => return reply(Err(failure)),
    };
    let child = query.get("child").map(str::to_owned);
    tracing::info!(order = verb, supervisor, child, "an operator gives an order");
    let answer = to_the_end(order(app.control.clone(), supervisor, child)).await;
    reply(answer.and_then(|answer| Ok(done(answer?))))
}

/// Goes on when whoever asked does not wait for the answer: half a restart is a stop.
async fn to_the_end<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> Result<T, Failure> {
    tokio::spawn(work).await.map_err(|error| Failure::Internal(error.to_string()))
}

fn started(started: Started) -> Reply {
    respond::success(wire::Started { child_pid: started.pid.map(|pid| pid.to_string()) })
}

pub(super) async fn mark(app: &App, query: &Query) -> Reply {
    reply((|| {
        let text: MarkText = required(query, "text")?
            .parse()
            .map_err(|error: InvalidMark| Failure::BadData(format!("invalid parameter \"text\": {error}")))?;
        Ok(respond::success(shapes::marked(&app.metrics.telemetry().mark(text))))
    })())
}

pub(super) async fn reload(app: &App, query: &Query) -> Reply {
    let Some(reload) = app.reload.get() else {
        let message = "there is no file to reload: restart_exporter was started without one".into();
        return respond::error(StatusCode::CONFLICT, "conflict", message);
    };
    let broken = |message| respond::error(StatusCode::UNPROCESSABLE_ENTITY, "bad_data", message);
    match query.get("dry_run") {
        None | Some("0" | "false") => match to_the_end(reload.reload()).await {
            Err(failure) => reply(Err(failure)),
            Ok(Ok(changes)) if changes.is_complete() => respond::success(shapes::reloaded(&changes)),
            Ok(Ok(changes)) => {
                let message = shapes::incomplete(&changes);
                respond::partial(StatusCode::UNPROCESSABLE_ENTITY, "execution", message, shapes::reloaded(&changes))
            }
            Ok(Err(message)) => broken(message),
        },
        Some("1" | "true" | "") => match reload.plan().await {
            Ok(steps) => respond::success(shapes::plan(&steps)),
            Err(message) => broken(message),
        },
        Some(other) => super::api::bad_data(&format!("invalid parameter \"dry_run\": {other:?} is neither 1 nor 0")),
    }
}

/// Does a browser send this for a page that is not ours? A page under a name of its own that points to our address
/// (DNS rebinding) would have an origin equal to the host, so from a browser only addresses and `localhost` are taken.
fn is_cross_site(headers: &HeaderMap, authority: Option<&str>) -> bool {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    if text(SEC_FETCH_SITE).is_some_and(|site| site != "same-origin" && site != "none") {
        return true;
    }
    let Some(origin) = text(ORIGIN) else { return false };
    let host = authority.or(text(HOST)).unwrap_or_default();
    let same = origin.strip_prefix("http://").or(origin.strip_prefix("https://")) == Some(host);
    !same || !is_address(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Never cross-site: a page elsewhere must not restart anything through a visitor's browser.
    #[test]
    fn requests_of_other_sites_pages_are_refused() {
        let table: [(&[(HeaderName, &str)], bool); 9] = [
            (&[(HOST, "127.0.0.1:8469")], false),
            (&[(HOST, "metrics.example:8469")], false),
            (&[(HOST, "127.0.0.1:8469"), (ORIGIN, "http://127.0.0.1:8469")], false),
            (&[(HOST, "[::1]:8469"), (ORIGIN, "http://[::1]:8469")], false),
            (&[(HOST, "localhost:8469"), (ORIGIN, "http://localhost:8469"), (SEC_FETCH_SITE, "same-origin")], false),
            (&[(HOST, "127.0.0.1:8469"), (ORIGIN, "https://evil.example")], true),
            (&[(HOST, "127.0.0.1:8469"), (ORIGIN, "null")], true),
            (&[(HOST, "evil.example:8469"), (ORIGIN, "http://evil.example:8469")], true),
            (&[(HOST, "127.0.0.1:8469"), (SEC_FETCH_SITE, "cross-site")], true),
        ];
        for (pairs, refused) in table {
            let headers: HeaderMap = pairs.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect();
            assert_eq!(is_cross_site(&headers, None), refused, "{pairs:?}");
        }
    }

    // Over HTTP/2 the host stands beside the path, and counts the same.
    #[test]
    fn the_host_of_http2_counts() {
        let of = |origin: &str| HeaderMap::from_iter([(ORIGIN, origin.parse().unwrap())]);
        assert!(!is_cross_site(&of("https://127.0.0.1:8469"), Some("127.0.0.1:8469")));
        assert!(is_cross_site(&of("https://evil.example"), Some("127.0.0.1:8469")));
        assert!(is_cross_site(&of("https://127.0.0.1:8469"), None));
    }
}
