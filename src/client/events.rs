//! Server-sent events, read. Pure.

/// Longest event, in bytes: the last words of a run and what JSON makes of them.
pub(super) const MAX_EVENT_BYTES: usize = 4 * 1024 * 1024;

/// What the exporter sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Message {
    /// Empty for an ordinary event.
    pub(super) kind: String,
    pub(super) data: String,
}

/// Puts pieces of a stream together.
#[derive(Default)]
pub(super) struct Reader {
    rest: Vec<u8>,
    kind: String,
    data: Option<String>,
    /// The id of the newest message.
    pub(super) last_id: Option<String>,
}

impl Reader {
    /// Takes a piece; returns the messages that it completes, or none if one has no end.
    pub(super) fn take(&mut self, piece: &[u8]) -> Option<Vec<Message>> {
        self.rest.extend_from_slice(piece);
        let mut messages = Vec::new();
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            messages.extend(self.line(line.trim_end_matches(['\r', '\n'])));
        }
        let held = self.rest.len() + self.data.as_ref().map_or(0, String::len);
        (held <= MAX_EVENT_BYTES).then_some(messages)
    }

    /// What is left of a connection that broke does not belong to the next one.
    pub(super) fn broken(&mut self) {
        self.rest.clear();
        self.kind.clear();
        self.data = None;
    }

    fn line(&mut self, line: &str) -> Option<Message> {
        if line.is_empty() {
            let kind = std::mem::take(&mut self.kind);
            return self.data.take().map(|data| Message { kind, data });
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => self.last_id = Some(value.to_owned()),
            "event" => value.clone_into(&mut self.kind),
            "data" => match &mut self.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                None => self.data = Some(value.to_owned()),
            },
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Wherever the network cuts, the messages are the same.
    #[test]
    fn messages_are_put_together_from_any_pieces() {
        let stream = "retry: 1000\nid: 1-0\n\nid: 1-1\ndata: {\"a\":1}\n\n: heartbeat\nid: 1-1\n\n\
                      id: 1-9\nevent: missed\ndata: {\"missed\":8}\n\n";
        for size in 1..stream.len() {
            let mut reader = Reader::default();
            let pieces = stream.as_bytes().chunks(size);
            let messages: Vec<_> = pieces.flat_map(|piece| reader.take(piece).expect("short")).collect();
            let message = |kind: &str, data: &str| Message { kind: kind.into(), data: data.into() };
            assert_eq!(messages, [message("", "{\"a\":1}"), message("missed", "{\"missed\":8}")]);
            assert_eq!(reader.last_id.as_deref(), Some("1-9"));
        }
        assert_eq!(Reader::default().take(&vec![b'x'; MAX_EVENT_BYTES + 1]), None);
    }
}
