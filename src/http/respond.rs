//! Responses: the one body type of the server, and the answers that every route may give.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io::Write;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::body::{Body, Frame, SizeHint};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;
use tokio::sync::OwnedSemaphorePermit;

use crate::metrics::{Exposition, PIECE_BYTES};
use crate::wire::{self, Envelope};

/// What the server sends: bytes that are there, or an exposition that is built while it is sent.
pub enum ResponseBody {
    /// All of it; taken when it is sent.
    Full(Option<Bytes>),
    /// Pieces that are there, then more as the client takes them.
    Pieces(VecDeque<Bytes>, Box<Pieces>),
}

/// An exposition that is encoded piece by piece.
pub struct Pieces {
    exposition: Exposition,
    encoder: Encoder,
    /// What is encoded next; kept, so that it is allocated once.
    plain: Vec<u8>,
    /// The scrape counts as being answered until all has been taken.
    _permit: Option<OwnedSemaphorePermit>,
}

/// A content coding.
pub(super) enum Encoder {
    Identity,
    /// None when the end has been written.
    Gzip(Option<Box<GzEncoder<Vec<u8>>>>),
}

pub(super) type Reply = Response<ResponseBody>;

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = match self.get_mut() {
            ResponseBody::Full(bytes) => bytes.take(),
            ResponseBody::Pieces(ready, rest) => ready.pop_front().or_else(|| rest.next()),
        };
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, ResponseBody::Full(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            ResponseBody::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            ResponseBody::Pieces(..) => SizeHint::default(),
        }
    }
}

/// Pieces: whole with its length if there is but one, else one after the other.
pub(super) fn pieces(mut pieces: Pieces, content_type: &'static str) -> Reply {
    let first = pieces.next().unwrap_or_default();
    let Some(second) = pieces.next() else { return full(StatusCode::OK, content_type, first) };
    let mut reply = full(StatusCode::OK, content_type, Bytes::new());
    *reply.body_mut() = ResponseBody::Pieces([first, second].into(), Box::new(pieces));
    reply
}

// === impl Pieces ===

impl Pieces {
    pub(super) fn new(exposition: Exposition, encoder: Encoder, permit: Option<OwnedSemaphorePermit>) -> Self {
        Self { exposition, encoder, plain: Vec::new(), _permit: permit }
    }

    /// The next piece; none after the last.
    fn next(&mut self) -> Option<Bytes> {
        match &mut self.encoder {
            Encoder::Identity => {
                let mut piece = Vec::with_capacity(PIECE_BYTES + PIECE_BYTES / 8);
                self.exposition.next_piece(&mut piece).then(|| piece.into())
            }
            Encoder::Gzip(gzip) => loop {
                // Writing to a `Vec` cannot fail; an encoder that did all the same would end the body early.
                let encoder = gzip.as_mut()?;
                if !self.exposition.next_piece(&mut self.plain) {
                    return gzip.take()?.finish().ok().map(Bytes::from);
                }
                encoder.write_all(&self.plain).ok()?;
                let ready = std::mem::take(encoder.get_mut());
                if !ready.is_empty() {
                    return Some(ready.into());
                }
            },
        }
    }
}

impl Encoder {
    /// The fastest level: a better one would cost many times the rendering.
    pub(super) fn gzip() -> Self {
        Encoder::Gzip(Some(Box::new(GzEncoder::new(Vec::new(), Compression::fast()))))
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
