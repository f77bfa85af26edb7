//! Responses: the one body type of the server, and the answers that every route may give.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;

use crate::metrics::{Exposition, PIECE_BYTES};
use crate::wire::{self, Envelope};

/// What the server sends: bytes that are there, or an exposition that is built while it is sent.
pub enum ResponseBody {
    /// All of it; taken when it is sent.
    Full(Option<Bytes>),
    /// Pieces that are there, then more as the client takes them.
    Exposition(VecDeque<Bytes>, Box<Exposition>),
}

pub(super) type Reply = Response<ResponseBody>;

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = match self.get_mut() {
            ResponseBody::Full(bytes) => bytes.take(),
            ResponseBody::Exposition(ready, rest) => ready.pop_front().or_else(|| next_piece(rest)),
        };
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, ResponseBody::Full(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            ResponseBody::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            ResponseBody::Exposition(..) => SizeHint::default(),
        }
    }
}

/// An exposition: whole with its length if it is short, else in pieces.
pub(super) fn exposition(mut exposition: Exposition, content_type: &'static str) -> Reply {
    let first = next_piece(&mut exposition).unwrap_or_default();
    let Some(second) = next_piece(&mut exposition) else { return full(StatusCode::OK, content_type, first) };
    let mut reply = full(StatusCode::OK, content_type, Bytes::new());
    *reply.body_mut() = ResponseBody::Exposition([first, second].into(), Box::new(exposition));
    reply
}

fn next_piece(exposition: &mut Exposition) -> Option<Bytes> {
    let mut piece = Vec::with_capacity(PIECE_BYTES + PIECE_BYTES / 8);
    exposition.next_piece(&mut piece).then(|| piece.into())
}

/// A body of this type.
pub(super) fn full(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(ResponseBody::Full(Some(body.into())));
    *reply.status_mut() = status;
    let headers = reply.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    // Every answer tells the state of now.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    reply
}

/// One line of text.
pub(super) fn text(status: StatusCode, line: &str) -> Reply {
    full(status, "text/plain; charset=utf-8", format!("{line}\n"))
}

/// `{"status":"success","data":…}`
pub(super) fn success(data: impl Serialize) -> Reply {
    full(StatusCode::OK, wire::CONTENT_TYPE, wire::json(&Envelope::Success { data }))
}

/// `{"status":"error","errorType":…,"error":…}`
pub(super) fn error(status: StatusCode, error_type: &'static str, message: String) -> Reply {
    let envelope = Envelope::<()>::Error { error_type: error_type.into(), error: message };
    full(status, wire::CONTENT_TYPE, wire::json(&envelope))
}

/// 405 with the methods that the route knows.
pub(super) fn method_not_allowed(allow: &'static str) -> Reply {
    let mut reply = text(StatusCode::METHOD_NOT_ALLOWED, "method not allowed");
    reply.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
    reply
}
