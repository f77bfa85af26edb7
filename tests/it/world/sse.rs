//! A viewer of server-sent events.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::soon;

/// A stream of events that is being read.
pub(crate) struct Sse {
    stream: BufReader<TcpStream>,
    /// Read and not yet made into an event.
    text: String,
    /// The id of the newest event, also of those that are none but for their id.
    pub(crate) last_id: String,
}

/// One event.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SseEvent {
    /// `message` unless it says otherwise.
    pub(crate) event: String,
    pub(crate) id: String,
    pub(crate) data: Value,
}

impl Sse {
    /// Opens a stream; `headers` are lines, each with its end. Panics if the answer is not 200.
    pub(crate) async fn open(address: SocketAddr, path: &str, headers: &str) -> Self {
        let mut stream = BufReader::new(TcpStream::connect(address).await.unwrap());
        let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert_ne!(soon("the head", stream.read_line(&mut head)).await.unwrap(), 0, "closed after {head:?}");
        }
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert!(head.to_lowercase().contains("\r\ncontent-type: text/event-stream\r\n"), "{head}");
        let mut sse = Self { stream, text: String::new(), last_id: String::new() };
        // The greeting, which says from where on.
        let greeting = soon("the greeting", sse.block()).await.expect("the stream ended");
        if sse.event(&greeting).is_some() {
            sse.text.insert_str(0, &greeting);
        }
        sse
    }

    /// The next event; none if the server has closed the stream.
    pub(crate) async fn next(&mut self) -> Option<SseEvent> {
        loop {
            let block = self.block().await?;
            if let Some(event) = self.event(&block) {
                return Some(event);
            }
        }
    }

    /// The ids of the next events, which are not looked at.
    pub(crate) async fn take_ids(&mut self, count: usize) -> Vec<String> {
        let mut ids = Vec::new();
        while ids.len() < count {
            let block = soon("an event", self.block()).await.expect("the stream ended");
            // A heartbeat has an id too, and no data.
            if block.contains("\ndata:") || block.starts_with("data:") {
                ids.extend(block.lines().find_map(|line| line.strip_prefix("id: ")).map(str::to_owned));
            }
        }
        ids
    }

    /// The lines up to the next blank one.
    pub(crate) async fn block(&mut self) -> Option<String> {
        let mut searched = 0;
        loop {
            if let Some(end) = self.text[searched..].find("\n\n") {
                let rest = self.text.split_off(searched + end + 2);
                return Some(std::mem::replace(&mut self.text, rest));
            }
            searched = self.text.len().saturating_sub(1);
            if !self.read().await {
                return None;
            }
        }
    }

    /// As many events. What children are about to do, and settings, are left out.
    pub(crate) async fn take(&mut self, count: usize) -> Vec<SseEvent> {
        let mut events = Vec::new();
        while events.len() < count {
            let event = soon("an event", self.next()).await;
            let event = event.unwrap_or_else(|| panic!("the stream ended after {events:?}"));
            if !["waiting", "starting", "stopping", "configured"].iter().any(|phase| event.data["event_type"] == *phase)
            {
                events.push(event);
            }
        }
        events
    }

    fn event(&mut self, block: &str) -> Option<SseEvent> {
        let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        if let Some(id) = field("id") {
            self.last_id = id.to_owned();
        }
        let data = serde_json::from_str(field("data")?).unwrap();
        Some(SseEvent { event: field("event").unwrap_or("message").to_owned(), id: self.last_id.clone(), data })
    }

    /// One more chunk; false at the end.
    async fn read(&mut self) -> bool {
        let mut size = String::new();
        if self.stream.read_line(&mut size).await.unwrap_or(0) == 0 {
            return false;
        }
        let size = usize::from_str_radix(size.trim_end(), 16).unwrap_or_else(|_| panic!("no size: {size:?}"));
        let mut chunk = vec![0; size + 2];
        if self.stream.read_exact(&mut chunk).await.is_err() {
            return false;
        }
        self.text.push_str(std::str::from_utf8(&chunk[..size]).unwrap());
        size > 0
    }
}
