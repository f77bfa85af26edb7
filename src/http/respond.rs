//! Responses: the one body type of the server, and the answers that every route may give.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::{Response, StatusCode};
use serde::Serialize;

use super::live::LiveStream;
use super::scrape::{BodyError, Scrape};
use crate::metrics::PIECE_BYTES;
use crate::telemetry::now;
use crate::text;
use crate::wire::{self, Envelope};

/// What the server sends: bytes that are there, or what is made while it is sent.
pub enum ResponseBody {
    /// All of it; taken when it is sent.
    Full(Option<Bytes>),
    /// Pieces that are built as the client takes them.
    Scrape(Box<Scrape>),
    /// Events as they happen.
    Live(LiveStream),
}

pub(super) type Reply = Response<ResponseBody>;

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let piece = match self.get_mut() {
            // In pieces, so that a slow reader takes one after the other.
            ResponseBody::Full(Some(bytes)) if bytes.len() > PIECE_BYTES => Some(Ok(bytes.split_to(PIECE_BYTES))),
            ResponseBody::Full(bytes) => bytes.take().map(Ok),
            ResponseBody::Scrape(scrape) => scrape.next(),
            ResponseBody::Live(stream) => ready!(stream.poll_next(cx)).map(Ok),
        };
        Poll::Ready(piece.map(|piece| piece.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, ResponseBody::Full(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            ResponseBody::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            ResponseBody::Scrape(_) | ResponseBody::Live(_) => SizeHint::default(),
        }
    }
}

/// A body of this type.
pub(super) fn full(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(ResponseBody::Full(Some(body.into())));
    *reply.status_mut() = status;
    let headers = reply.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    // Every answer tells the state of now.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // A browser must not take text of programs for a page.
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    reply
}

/// Text of one line or several, safe for a terminal.
pub(super) fn text(status: StatusCode, lines: &str) -> Reply {
    full(status, "text/plain; charset=utf-8", format!("{}\n", text::lines(lines)))
}

/// `{"status":"success","now":…,"data":…}`
pub(super) fn success(data: impl Serialize) -> Reply {
    success_at(now().unix_millis(), data)
}

fn success_at(now: u64, data: impl Serialize) -> Reply {
    full(StatusCode::OK, wire::CONTENT_TYPE, wire::json(&Envelope::Success { now, data }))
}

/// `{"status":"error","now":…,"errorType":…,"error":…}`. The message is for people: the page and the commands show it.
pub(super) fn error(status: StatusCode, error_type: &'static str, message: String) -> Reply {
    error_at(now().unix_millis(), status, error_type, message, None::<()>)
}

/// The same, with what was done nevertheless.
pub(super) fn partial(status: StatusCode, error_type: &'static str, message: String, data: impl Serialize) -> Reply {
    error_at(now().unix_millis(), status, error_type, message, Some(data))
}

fn error_at(
    now: u64,
    status: StatusCode,
    error_type: &'static str,
    error: String,
    data: Option<impl Serialize>,
) -> Reply {
    let error = text::lines(&error).into_owned();
    let envelope = Envelope::Error { now, error_type: error_type.into(), error, data };
    full(status, wire::CONTENT_TYPE, wire::json(&envelope))
}

/// 405 with the methods that the route knows.
pub(super) fn method_not_allowed(allow: &'static str) -> Reply {
    let mut reply = text(StatusCode::METHOD_NOT_ALLOWED, "method not allowed");
    reply.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
    reply
}

#[cfg(test)]
mod tests {
    use super::*;

    // Every answer says when it was given, be it one or none.
    #[test]
    fn an_answer_says_when_it_was_given() {
        let body = |reply: Reply| match reply.into_body() {
            ResponseBody::Full(Some(bytes)) => String::from_utf8(bytes.into()).unwrap(),
            _ => panic!("an answer is whole"),
        };
        assert_eq!(body(success_at(1_700_000_000_123, [1])), r#"{"status":"success","now":1700000000123,"data":[1]}"#);
        let error = error_at(1_700_000_000_123, StatusCode::NOT_FOUND, "not_found", "no such".into(), None::<()>);
        assert_eq!(body(error), r#"{"status":"error","now":1700000000123,"errorType":"not_found","error":"no such"}"#);
    }
}
