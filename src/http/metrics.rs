//! `/metrics`: the exposition, in the format and coding that the request asks for, built while it is sent.

use std::time::Duration;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{ACCEPT, ACCEPT_ENCODING, AsHeaderName, CONTENT_ENCODING, HeaderMap, HeaderValue, VARY};
use hyper::{Request, StatusCode};

use super::App;
use super::accept;
use super::patience::Patience;
use super::respond::{self, Reply, ResponseBody};
use super::router::Query;
use super::scrape::Scrape;
use crate::metrics::Limit;
use crate::telemetry::monotonic_now;

/// Longest time that one exposition may take to be sent, whatever time the scraper allows.
pub const MAX_SCRAPE_TIME: Duration = Duration::from_secs(120);

/// The time in seconds after which the scraper will not listen any more, as Prometheus and VictoriaMetrics tell it.
const SCRAPE_TIMEOUT: &str = "x-prometheus-scrape-timeout-seconds";

pub(super) fn exposition(app: &App, request: &Request<Incoming>, _: &Query) -> Reply {
    let patience = request.extensions().get::<Patience>();
    let Some(place) = app.scrapes.take(patience.map(Patience::scrapes)) else {
        app.metrics.limit_reached(Limit::HttpScrapes);
        return respond::text(StatusCode::SERVICE_UNAVAILABLE, "too many scrapes at once, try again later");
    };
    let headers = request.headers();
    let format = accept::format(values(headers, ACCEPT));
    let gzip = accept::gzip(values(headers, ACCEPT_ENCODING));
    let time = headers.get(SCRAPE_TIMEOUT).and_then(scrape_timeout).unwrap_or(MAX_SCRAPE_TIME);
    let scrape = Scrape::new(app.metrics.clone(), format, gzip, monotonic_now() + time, place);
    let mut reply = respond::full(StatusCode::OK, format.content_type(), Bytes::new());
    *reply.body_mut() = body(scrape);
    let headers = reply.headers_mut();
    headers.insert(VARY, HeaderValue::from_static("Accept, Accept-Encoding"));
    if gzip {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    reply
}

/// Whole, with its length, if it is short; else in pieces.
fn body(mut scrape: Scrape) -> ResponseBody {
    scrape.fill();
    match scrape.take_whole() {
        Some(whole) => ResponseBody::Full(Some(whole)),
        None => ResponseBody::Scrape(Box::new(scrape)),
    }
}

fn values(headers: &HeaderMap, name: impl AsHeaderName) -> impl Iterator<Item = &str> {
    headers.get_all(name).iter().filter_map(|value| value.to_str().ok())
}

/// A number of seconds, also a fraction; what is no such number is passed over.
fn scrape_timeout(value: &HeaderValue) -> Option<Duration> {
    let seconds: f64 = value.to_str().ok()?.trim().parse().ok()?;
    let timeout = Duration::try_from_secs_f64(seconds).ok().filter(|timeout| !timeout.is_zero())?;
    Some(timeout.min(MAX_SCRAPE_TIME))
}

#[cfg(test)]
mod tests {
    use super::*;

    // Prometheus sends `10`, VictoriaMetrics `1.000`.
    #[test]
    fn a_scrape_timeout_is_a_number_of_seconds_and_anything_else_is_passed_over() {
        for (text, millis) in [
            ("10", Some(10_000)),
            ("1.000", Some(1_000)),
            (" 0.25 ", Some(250)),
            ("1e9", Some(120_000)),
            ("", None),
            ("0", None),
            ("-1", None),
            ("NaN", None),
            ("inf", None),
            ("1e300", None),
            ("10s", None),
        ] {
            let timeout = scrape_timeout(&HeaderValue::from_str(text).unwrap());
            assert_eq!(timeout, millis.map(Duration::from_millis), "{text:?}");
        }
    }
}
