//! `/metrics`: the exposition in the format and encoding that the scraper likes best, built while it is sent.

use hyper::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, HeaderValue, RETRY_AFTER, VARY};
use hyper::{HeaderMap, StatusCode};

use super::respond::{self, Encoder, Pieces, Reply};
use super::{App, negotiate};
use crate::metrics::Limit;

pub(super) fn exposition(app: &App, headers: &HeaderMap) -> Reply {
    let permit = match &app.scrapes {
        None => None,
        Some(scrapes) => match scrapes.clone().try_acquire_owned() {
            Ok(permit) => Some(permit),
            Err(_) => {
                app.metrics.limit_reached(Limit::HttpScrapes);
                let mut reply = respond::text(StatusCode::SERVICE_UNAVAILABLE, "too many scrapes at once");
                reply.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
                return reply;
            }
        },
    };
    let (format, gzip) = (negotiate::format(headers), negotiate::wants_gzip(headers));
    let encoder = if gzip { Encoder::gzip() } else { Encoder::Identity };
    let mut reply =
        respond::pieces(Pieces::new(app.metrics.exposition(format), encoder, permit), format.content_type());
    let headers = reply.headers_mut();
    if gzip {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    for header in [ACCEPT, ACCEPT_ENCODING] {
        headers.append(VARY, header.into());
    }
    reply
}
