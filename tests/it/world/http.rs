//! As much of an HTTP client as the tests need: one request on one connection, and the whole answer.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::Path;

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use super::soon;

/// An answer.
#[derive(Debug)]
pub(crate) struct Response {
    /// 200, 404, …
    pub(crate) status: u16,
    /// Names in lower case, in the order in which they came.
    pub(crate) headers: Vec<(String, String)>,
    /// The body, chunks joined.
    pub(crate) body: String,
}

impl Response {
    /// The value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error} in {:?}", self.body))
    }

    /// `data` of an answer of the API; panics if it is an error.
    pub(crate) fn data(&self) -> Value {
        let mut answer = self.json();
        assert_eq!((self.status, &answer["status"]), (200, &Value::from("success")), "{answer}");
        answer["data"].take()
    }
}

/// `GET`, answered.
pub(crate) async fn get(address: SocketAddr, path: &str) -> Response {
    request(address, "GET", path).await.unwrap_or_else(|error| panic!("GET http://{address}{path}: {error}"))
}

/// A request without a body; an error if there is no connection.
pub(crate) async fn request(address: SocketAddr, method: &str, path: &str) -> std::io::Result<Response> {
    exchange(address, &format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")).await
}

/// Sends exactly this, and reads until the server closes the connection.
pub(crate) async fn exchange(address: SocketAddr, message: &str) -> std::io::Result<Response> {
    let exchange = async { converse(TcpStream::connect(address).await?, message).await };
    soon("an answer", exchange).await
}

/// A request to a Unix socket.
pub(crate) async fn request_unix(path: &Path, method: &str, target: &str) -> std::io::Result<Response> {
    let message = format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    soon("an answer", async { converse(UnixStream::connect(path).await?, &message).await }).await
}

async fn converse(mut stream: impl AsyncRead + AsyncWrite + Unpin, message: &str) -> std::io::Result<Response> {
    // A server that refuses a request need not read all of it; its answer counts.
    let written = stream.write_all(message.as_bytes()).await;
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer).await;
    if !answer.is_empty() {
        return Ok(parse(&answer));
    }
    written?;
    read?;
    Err(ErrorKind::UnexpectedEof.into())
}

fn parse(answer: &[u8]) -> Response {
    let text = std::str::from_utf8(answer).expect("an answer in UTF-8");
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head in {text:?}"));
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
    let headers = lines
        .map(|line| line.split_once(": ").unwrap_or_else(|| panic!("no header: {line:?}")))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let mut response = Response { status: status.expect("a status"), headers, body: body.to_owned() };
    if response.header("transfer-encoding") == Some("chunked") && !body.is_empty() {
        response.body = joined(body);
    }
    response
}

/// The body without its division into chunks.
fn joined(mut chunks: &str) -> String {
    let mut body = String::new();
    loop {
        let (size, rest) = chunks.split_once("\r\n").expect("the size of a chunk");
        let size = usize::from_str_radix(size, 16).expect("a size in hexadecimal digits");
        if size == 0 {
            assert_eq!(rest, "\r\n", "something follows the last chunk");
            return body;
        }
        body.push_str(&rest[..size]);
        chunks = rest[size..].strip_prefix("\r\n").expect("an end of the chunk");
    }
}
