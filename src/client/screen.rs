//! What is written to standard output: safe on a terminal, coloured only there, quiet when nobody reads any more.
//!
//! All that the commands print goes through here, and is made safe here: no command has to think of it.

use std::future::pending;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;

use restart_exporter::analytics::Health;
use restart_exporter::text;
use tokio::io::Interest;
use tokio::net::unix::pipe::Sender;

/// Longest text shown in a column of a table; the whole stands in `why` and in the JSON.
const MAX_COLUMN: usize = 60;

/// Standard output, or another place where lines are read.
pub(super) struct Screen {
    place: Place,
    colours: bool,
    closed: bool,
    broken: Option<io::Error>,
}

/// Where lines go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Output,
    Errors,
    /// The log, a line each.
    Log,
}

/// A part of a line. Its text need not be safe.
pub(super) enum Part {
    Plain(String),
    /// Stands out.
    Bold(String),
    /// In the colour of a word. The word stands there as well: colours never tell alone.
    Painted(Health, String),
}

/// Columns that are as wide as they must be.
#[derive(Default)]
pub(super) struct Table {
    rows: Vec<(Option<Health>, Vec<String>)>,
}

// === impl Screen ===

impl Screen {
    /// With colours if a person looks at it who did not forbid them.
    pub(super) fn of_process() -> Self {
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let colours = io::stdout().is_terminal() && !set("NO_COLOR") && !dumb;
        Self { place: Place::Output, colours, closed: false, broken: None }
    }

    /// Standard error, as it is or, where a program reads it, as lines of the log.
    pub(super) fn of_errors(as_log: bool) -> Self {
        let place = if as_log { Place::Log } else { Place::Errors };
        Self { place, colours: false, closed: false, broken: None }
    }

    /// Writes a text as one line.
    pub(super) fn line(&mut self, text: &str) {
        self.write(&text::one_line(text));
    }

    /// Writes JSON as it is, but for the escapes in its strings.
    pub(super) fn json(&mut self, json: &str) {
        self.write(&text::json(json));
    }

    /// Writes a line of several parts.
    pub(super) fn parts(&mut self, parts: impl IntoIterator<Item = Part>) {
        let line: String = parts.into_iter().map(|part| self.shown(&part)).collect();
        self.write(&line);
    }

    /// A part with its colour, if there are colours. The codes of colours come from nowhere else.
    fn shown(&self, part: &Part) -> String {
        let (code, text) = match part {
            Part::Plain(text) => return text::one_line(text).into_owned(),
            Part::Bold(text) => ("1", text),
            Part::Painted(health, text) => (colour(*health), text),
        };
        let text = text::one_line(text);
        if self.colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.into_owned() }
    }

    fn write(&mut self, line: &str) {
        let mut stream: Box<dyn Write> = match self.place {
            Place::Output => Box::new(io::stdout().lock()),
            Place::Errors => Box::new(io::stderr().lock()),
            Place::Log => return tracing::error!("{}", line.trim()),
        };
        let written =
            stream.write_all(line.as_bytes()).and_then(|()| stream.write_all(b"\n")).and_then(|()| stream.flush());
        let Err(error) = written else { return };
        self.closed = true;
        // Whoever closed the output needs no more of it, and no complaint; a full disk is another matter.
        if error.kind() != io::ErrorKind::BrokenPipe {
            self.broken.get_or_insert(error);
        }
    }

    /// Why not all was written, if somebody still wants it.
    pub(super) fn broken(self) -> Option<io::Error> {
        self.broken
    }

    /// Is nothing written any more?
    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Writes a table; the first column is painted.
    pub(super) fn table(&mut self, table: &Table) {
        let columns = table.rows.iter().map(|(_, cells)| cells.len()).max().unwrap_or(0);
        let width = |column: usize| {
            table.rows.iter().filter_map(|(_, cells)| cells.get(column)).map(|cell| cell.chars().count()).max()
        };
        let widths: Vec<_> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
        for (health, cells) in &table.rows {
            let padded = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
            let line = padded.collect::<Vec<_>>().join("  ");
            let line = line.trim_end();
            let (first, rest) = line.split_at(cells.first().map_or(0, String::len));
            match health {
                Some(health) => self.parts([Part::Painted(*health, first.into()), Part::Plain(rest.into())]),
                None => self.parts([Part::Bold(line.into())]),
            }
        }
    }
}

/// The code of a colour for terminals.
fn colour(health: Health) -> &'static str {
    match health {
        Health::GaveUp | Health::Looping | Health::Failed => "31;1",
        Health::Silent => "35",
        Health::Starting | Health::Restarting | Health::Stopping => "33",
        Health::Recovered => "36",
        Health::Stopped => "2",
        Health::Ok => "32",
    }
}

/// Returns when nobody reads standard output any more, though nothing is written; if it is a file, never.
pub(super) async fn unread() {
    // Not made non-blocking: what is written waits for a slow reader.
    let out = io::stdout().as_fd().try_clone_to_owned().and_then(Sender::from_owned_fd_unchecked);
    match out {
        Ok(out) if out.ready(Interest::ERROR).await.is_ok() => {}
        _ => pending().await,
    }
}

// === impl Table ===

impl Table {
    /// With these words above the columns.
    pub(super) fn with_head(head: &[&str]) -> Self {
        Self { rows: vec![(None, head.iter().map(|word| (*word).to_owned()).collect())] }
    }

    /// Adds a row whose texts need not be short.
    pub(super) fn row(&mut self, health: Health, cells: impl IntoIterator<Item = String>) {
        self.rows.push((Some(health), cells.into_iter().map(|cell| short(&cell)).collect()));
    }
}

/// A supervisor or a child of it, with the Erlang node that it lives on: two may have supervisors of one name.
pub(super) fn named(supervisor: &str, child: Option<&str>, node: Option<&str>) -> String {
    let child = child.map_or_else(String::new, |child| format!("/{child}"));
    let node = node.map_or_else(String::new, |node| format!(" on {node}"));
    format!("{supervisor}{child}{node}")
}

/// The word of a health as a table shows it.
pub(super) fn word(health: Health) -> String {
    health.as_str().replace('_', " ").to_uppercase()
}

/// The health that a word names; one that is newer than this program is no trouble that it knows.
pub(super) fn health(word: &str) -> Health {
    Health::ALL.into_iter().find(|health| health.as_str() == word).unwrap_or(Health::Ok)
}

fn short(text: &str) -> String {
    let text = text::one_line(text);
    match text.char_indices().nth(MAX_COLUMN) {
        Some(_) => text.chars().take(MAX_COLUMN - 1).chain(['…']).collect(),
        None => text.into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // A name or a line of stderr must not move the cursor, ring, hide or reorder what a person reads.
    #[test]
    fn what_a_terminal_would_obey_is_escaped() {
        let text = "\x1b[2Jgone\r\n\u{202e}";
        for colours in [false, true] {
            let screen = Screen { place: Place::Output, colours, closed: false, broken: None };
            let (begin, end) = if colours { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
            assert_eq!(screen.shown(&Part::Plain(text.into())), r"\u{1b}[2Jgone\r\n\u{202e}");
            assert_eq!(screen.shown(&Part::Bold(text.into())), [begin, r"\u{1b}[2Jgone\r\n\u{202e}", end].concat());
        }
        assert_eq!(short(&"x".repeat(61)).chars().count(), MAX_COLUMN);
    }
}
