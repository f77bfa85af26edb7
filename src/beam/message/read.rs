//! From the agent: frames become messages.

use super::{
    Child, Down, Elements, End, Event, Events, Flag, Hello, Kind, Label, MAX_LABELS, Message, Reason, SCHEMA_VERSION,
    Stats, Sum, Sums, Sup, Text,
};
use crate::beam::frame::{FrameError, Reader};
use crate::event::{ChildType, Pid, ReasonClass, Restart, Strategy};

/// Reads one message.
///
/// # Errors
/// If the frame is not of the schema.
pub fn read(frame: &[u8]) -> Result<Message<'_>, FrameError> {
    let mut reader = Reader::new(frame)?;
    let arity = reader.tuple(1)?;
    let word = reader.atom()?;
    let (message, read) = match word {
        "hello" => (Message::Hello(hello(&mut reader, arity)?), 3),
        "sup" => (Message::Supervisor(supervisor(&mut reader, arity)?), 16),
        "snapshot" => {
            need(&reader, arity, 2)?;
            (Message::Snapshot { begins: reader.atom()? == "begin" }, 2)
        }
        "ev" => {
            need(&reader, arity, 2)?;
            // Looked at as a whole first: half a message must not be taken in.
            let mut ahead = reader.clone();
            ahead.skip(arity - 1)?;
            ahead.end()?;
            return Ok(Message::Events(Events { elements: Elements::new(reader)? }));
        }
        "agg" => {
            need(&reader, arity, 4)?;
            let mut ahead = reader.clone();
            ahead.skip(3)?;
            let seq = if arity > 4 { Some(ahead.natural()?) } else { None };
            ahead.skip(arity.saturating_sub(5))?;
            ahead.end()?;
            let _from_us = reader.integer()?;
            let to_us = reader.integer()?;
            return Ok(Message::Sums(Sums { seq, to_us, elements: Elements::new(reader)? }));
        }
        "down" => {
            need(&reader, arity, 5)?;
            let (seq, time_us, sup) = (reader.natural()?, reader.integer()?, reader.integer()?);
            let (word, reason) = reason(&mut reader)?;
            (Message::Down(Down { seq, time_us, sup, end: end(word), reason }), 5)
        }
        "stats" => {
            need(&reader, arity, 3)?;
            (Message::Stats(stats(&mut reader)?), 3)
        }
        "bye" => {
            need(&reader, arity, 2)?;
            (Message::Bye(Text::read(&mut reader)?), 2)
        }
        _ => (Message::Unknown, 1),
    };
    reader.skip(arity - read)?;
    reader.end()?;
    Ok(message)
}

fn need(reader: &Reader<'_>, arity: usize, at_least: usize) -> Result<(), FrameError> {
    if arity < at_least { Err(reader.wrong_here("a message of too few elements")) } else { Ok(()) }
}

fn hello<'a>(reader: &mut Reader<'a>, arity: usize) -> Result<Hello<'a>, FrameError> {
    need(reader, arity, 3)?;
    let version = reader.integer()?;
    if version != SCHEMA_VERSION {
        return Err(reader.wrong_here("a version of the schema other than 1"));
    }
    let elements = reader.tuple(11)?;
    let mut hello = Hello {
        agent: Text::read(reader)?,
        node: Text::read(reader)?,
        incarnation: reader.binary()?,
        otp: Text::read(reader)?,
        elixir: optional(reader, Text::read)?,
        host: Text::read(reader)?,
        os_pid: reader.integer()?,
        vm_start_us: reader.integer()?,
        now_us: reader.integer()?,
        labels: Vec::new(),
        has_more_labels: false,
        token: None,
    };
    (hello.labels, hello.has_more_labels) = labels(reader)?;
    hello.token = optional(reader, Reader::binary)?;
    reader.skip(elements - 11)?;
    Ok(hello)
}

/// The labels that are kept, and whether there are more.
fn labels<'a>(reader: &mut Reader<'a>) -> Result<(Vec<Label<'a>>, bool), FrameError> {
    let (count, mut labels) = (reader.list()?, Vec::new());
    for _ in 0..count.min(MAX_LABELS) {
        let arity = reader.tuple(2)?;
        labels.push((Text::read(reader)?, Text::read(reader)?));
        reader.skip(arity - 2)?;
    }
    reader.skip(count.saturating_sub(MAX_LABELS))?;
    reader.end_list(count)?;
    Ok((labels, count > MAX_LABELS))
}

fn supervisor<'a>(reader: &mut Reader<'a>, arity: usize) -> Result<Sup<'a>, FrameError> {
    need(reader, arity, 16)?;
    let key = reader.integer()?;
    let pid = pid(reader.binary()?);
    let _name_kind = reader.atom()?;
    let (name, module) = (Text::read(reader)?, Text::read(reader)?);
    let behaviour = reader.atom()?;
    let app = optional(reader, Text::read)?;
    let parent = optional(reader, Reader::integer)?;
    let id_in_parent = optional(reader, Text::read)?;
    let strategy = reader.atom()?;
    let known = |number: i64| u32::try_from(number).ok();
    let (intensity, period) = (known(reader.integer()?), known(reader.integer()?));
    // Words on auto_shutdown, and counts of children: nothing that is said later would keep them true.
    reader.skip(2)?;
    let seen_us = reader.integer()?;
    let is_dynamic = behaviour == "dynamic" || strategy == "simple_one_for_one";
    let strategy = match strategy {
        _ if is_dynamic => Some(Strategy::Dynamic),
        "one_for_one" => Some(Strategy::OneForOne),
        "one_for_all" => Some(Strategy::OneForAll),
        "rest_for_one" => Some(Strategy::RestForOne),
        _ => None,
    };
    let restarts = behaviour != "bridge";
    Ok(Sup {
        key,
        pid,
        name,
        module,
        is_dynamic,
        restarts,
        app,
        parent,
        id_in_parent,
        strategy,
        intensity,
        period,
        seen_us,
    })
}

fn stats(reader: &mut Reader<'_>) -> Result<Stats, FrameError> {
    let mut stats = Stats { now_us: reader.integer()?, ..Stats::default() };
    let count = reader.list()?;
    for _ in 0..count {
        let arity = reader.tuple(2)?;
        match reader.atom()? {
            "lost" => stats.lost = reader.natural()?,
            "reinstalls" => stats.reinstalls = reader.natural()?,
            _ => reader.skip(1)?,
        }
        reader.skip(arity - 2)?;
    }
    reader.end_list(count)?;
    Ok(stats)
}

/// `undefined`, or what `read` reads.
fn optional<'a, T>(
    reader: &mut Reader<'a>,
    read: impl FnOnce(&mut Reader<'a>) -> Result<T, FrameError>,
) -> Result<Option<T>, FrameError> {
    if reader.is_atom() { reader.atom().map(|_| None) } else { read(reader).map(Some) }
}

fn reason<'a>(reader: &mut Reader<'a>) -> Result<(&'a str, Reason<'a>), FrameError> {
    let arity = reader.tuple(3)?;
    let word = reader.atom()?;
    let class = class(word);
    let reason = Reason { class, tag: Text::read(reader)?, detail: Text::read(reader)? };
    reader.skip(arity - 3)?;
    Ok((word, reason))
}

/// Every other end of a process on a node is an error: it has neither panics nor signals.
fn class(word: &str) -> ReasonClass {
    match word {
        "normal" => ReasonClass::Normal,
        "shutdown" => ReasonClass::Shutdown,
        "killed" => ReasonClass::Killed,
        _ => ReasonClass::Error,
    }
}

fn end(word: &str) -> End {
    match word {
        "normal" => End::Normal,
        "shutdown" => End::Shutdown,
        "noproc" => End::Unseen,
        _ => End::Failed,
    }
}

fn kind(word: &str) -> Kind {
    match word {
        "started" => Kind::Started,
        "terminated" => Kind::Terminated,
        "start_error" => Kind::StartError,
        "max_intensity" => Kind::MaxIntensity,
        "shutdown_error" => Kind::ShutdownError,
        _ => Kind::Unknown,
    }
}

fn restart(word: &str) -> Option<Restart> {
    Restart::ALL.iter().find(|restart| restart.as_str() == word).copied()
}

fn child<'a>(reader: &mut Reader<'a>) -> Result<Child<'a>, FrameError> {
    let arity = reader.tuple(6)?;
    let child = Child {
        id: Text::read(reader)?,
        mfa: Text::read(reader)?,
        restart: restart(reader.atom()?),
        child_type: if reader.atom()? == "supervisor" { ChildType::Supervisor } else { ChildType::Worker },
        is_killed: reader.integer()? == -2,
    };
    reader.skip(arity - 5)?;
    Ok(child)
}

/// A count of things that happened. No node counts further between two messages, and a total of such counts cannot overflow.
fn count(reader: &mut Reader<'_>) -> Result<u64, FrameError> {
    let count = reader.natural()?;
    if count > u32::MAX.into() { Err(reader.wrong_here("a count beyond 32 bits")) } else { Ok(count) }
}

/// `<0.123.0>`; none for a process of another node, and for what is no pid.
fn pid(text: &[u8]) -> Option<Pid> {
    str::from_utf8(text).ok()?.parse().ok()
}

impl<'a> Elements<'a> {
    fn new(mut reader: Reader<'a>) -> Result<Self, FrameError> {
        let count = reader.list()?;
        Ok(Self { reader, count, left: count })
    }

    /// Where the next element begins; none at the end of the list.
    fn next(&mut self) -> Result<Option<&mut Reader<'a>>, FrameError> {
        if self.left == 0 {
            self.reader.end_list(self.count)?;
            return Ok(None);
        }
        self.left -= 1;
        Ok(Some(&mut self.reader))
    }
}

impl<'a> Events<'a> {
    /// The next event.
    ///
    /// # Errors
    /// If it is not of the schema.
    pub fn next_event(&mut self) -> Result<Option<Event<'a>>, FrameError> {
        let Some(reader) = self.elements.next()? else { return Ok(None) };
        let arity = reader.tuple(9)?;
        let event = Event {
            seq: reader.natural()?,
            time_us: reader.integer()?,
            sup: reader.integer()?,
            kind: kind(reader.atom()?),
            child: child(reader)?,
            pid: optional(reader, Reader::binary)?.and_then(pid),
            flag: match reader.atom()? {
                "restarting" => Flag::Restarting,
                "api" => Flag::Api,
                "init" => Flag::Init,
                _ => Flag::None,
            },
            count: count(reader)?,
            reason: reason(reader)?.1,
        };
        reader.skip(arity - 9)?;
        Ok(Some(event))
    }
}

impl<'a> Sums<'a> {
    /// The next row.
    ///
    /// # Errors
    /// If it is not of the schema.
    pub fn next_row(&mut self) -> Result<Option<Sum<'a>>, FrameError> {
        let Some(reader) = self.elements.next()? else { return Ok(None) };
        let arity = reader.tuple(5)?;
        let sum = Sum {
            sup: reader.integer()?,
            kind: kind(reader.atom()?),
            restart: restart(reader.atom()?),
            class: class(reader.atom()?),
            count: count(reader)?,
            child: if arity > 5 && reader.is_tuple() { Some(child(reader)?) } else { None },
        };
        let read = if sum.child.is_some() { 6 } else { 5 };
        reader.skip(arity - read)?;
        Ok(Some(sum))
    }
}
