//! The agent's side of the node protocol: frames as `restart_agent.erl` writes them.
#![allow(dead_code, reason = "each user needs another part of it")]

use restart_exporter::beam::frame::FrameWriter;

/// The node's clock when it says hello, in microseconds.
pub(crate) const HELLO_US: i64 = 1_700_000_000_000_000;

/// Who says hello.
#[derive(Clone, Copy)]
pub(crate) struct Who<'a> {
    pub(crate) node: &'a str,
    pub(crate) incarnation: &'a [u8],
    pub(crate) os_pid: i64,
    pub(crate) token: Option<&'a [u8]>,
    pub(crate) host: &'a str,
    pub(crate) labels: &'a [(&'a str, &'a str)],
}

/// A supervisor, as `sup` says it.
#[derive(Clone, Copy)]
pub(crate) struct Sup<'a> {
    pub(crate) key: i64,
    pub(crate) pid: &'a str,
    pub(crate) name: &'a str,
    pub(crate) module: &'a str,
    pub(crate) behaviour: &'static str,
    pub(crate) parent: Option<i64>,
    pub(crate) id: Option<&'a str>,
    pub(crate) strategy: &'static str,
    pub(crate) intensity: i64,
    pub(crate) period: i64,
}

/// A child, as reports describe it.
#[derive(Clone, Copy)]
pub(crate) struct Child<'a> {
    pub(crate) id: &'a str,
    pub(crate) mfa: &'a str,
    pub(crate) restart: &'static str,
    pub(crate) shutdown_ms: i64,
}

/// A report.
#[derive(Clone, Copy)]
pub(crate) struct Report<'a> {
    pub(crate) kind: &'static str,
    pub(crate) sup: i64,
    pub(crate) child: Child<'a>,
    pub(crate) pid: Option<&'a str>,
    pub(crate) flag: &'static str,
    pub(crate) count: i64,
    pub(crate) class: &'static str,
    pub(crate) detail: &'a str,
}

/// A row of `agg`.
#[derive(Clone, Copy)]
pub(crate) struct Row<'a> {
    pub(crate) sup: i64,
    pub(crate) kind: &'static str,
    pub(crate) class: &'static str,
    pub(crate) count: i64,
    pub(crate) child: Child<'a>,
}

impl Default for Who<'_> {
    fn default() -> Self {
        Self {
            node: "app@host",
            incarnation: b"0123456789abcdef",
            os_pid: 4242,
            token: None,
            host: "host",
            labels: &[],
        }
    }
}

/// One like most.
pub(crate) const SUP: Sup<'static> = Sup {
    key: 1,
    pid: "<0.100.0>",
    name: "sup",
    module: "my_sup",
    behaviour: "supervisor",
    parent: None,
    id: None,
    strategy: "one_for_one",
    intensity: 3,
    period: 5,
};

impl Default for Sup<'_> {
    fn default() -> Self {
        SUP
    }
}

impl Default for Child<'_> {
    fn default() -> Self {
        Self { id: "a", mfa: "worker:start_link/1", restart: "permanent", shutdown_ms: 5000 }
    }
}

impl Default for Report<'_> {
    fn default() -> Self {
        Self {
            kind: "terminated",
            sup: 1,
            child: Child::default(),
            pid: Some("<0.200.0>"),
            flag: "none",
            count: 1,
            class: "exit",
            detail: "boom",
        }
    }
}

fn optional(writer: FrameWriter, text: Option<&[u8]>) -> FrameWriter {
    match text {
        Some(text) => writer.binary(text),
        None => writer.atom("undefined"),
    }
}

fn text(writer: FrameWriter, text: &str) -> FrameWriter {
    writer.binary(text.as_bytes())
}

pub(crate) fn hello(who: &Who<'_>) -> Vec<u8> {
    let writer = FrameWriter::new().tuple(3).atom("hello").integer(1).tuple(11);
    let writer = text(text(writer, "1.0.0"), who.node).binary(who.incarnation);
    let writer = text(text(writer, "25"), "1.14.0");
    let writer = text(writer, who.host).integer(who.os_pid).integer(HELLO_US - 60_000_000).integer(HELLO_US);
    let labels = who.labels.iter();
    let writer = labels
        .fold(writer.list(who.labels.len() as u32), |writer, (name, value)| text(text(writer.tuple(2), name), value));
    optional(writer.end_list(), who.token).finish()
}

pub(crate) fn sup(sup: &Sup<'_>) -> Vec<u8> {
    let writer = FrameWriter::new().tuple(16).atom("sup").integer(sup.key);
    let writer = text(writer, sup.pid).atom(if sup.name.is_empty() { "unnamed" } else { "local" });
    let writer = text(text(writer, sup.name), sup.module).atom(sup.behaviour).atom("undefined");
    let writer = match sup.parent {
        Some(parent) => writer.integer(parent),
        None => writer.atom("undefined"),
    };
    let writer = optional(writer, sup.id.map(str::as_bytes)).atom(sup.strategy);
    let writer = writer.integer(sup.intensity).integer(sup.period).atom("never");
    writer.tuple(4).integer(2).integer(2).integer(0).integer(2).integer(HELLO_US).finish()
}

pub(crate) fn snapshot(word: &'static str) -> Vec<u8> {
    FrameWriter::new().tuple(5).atom("snapshot").atom(word).integer(1).integer(1).integer(0).finish()
}

fn child(writer: FrameWriter, child: &Child<'_>) -> FrameWriter {
    let writer = text(text(writer.tuple(6), child.id), child.mfa).atom(child.restart);
    writer.atom("worker").integer(child.shutdown_ms).atom("false")
}

/// Reports with numbers from `seq` on, each one microsecond later than the one before from `time_us` on.
pub(crate) fn events(seq: u64, time_us: i64, reports: &[Report<'_>]) -> Vec<u8> {
    let mut writer = FrameWriter::new().tuple(2).atom("ev").list(reports.len() as u32);
    for (index, report) in reports.iter().enumerate() {
        let index = index as i64;
        writer = writer.tuple(9).integer(seq as i64 + index).integer(time_us + index).integer(report.sup);
        writer = child(writer.atom(report.kind), &report.child);
        writer = optional(writer, report.pid.map(str::as_bytes)).atom(report.flag).integer(report.count);
        writer = text(text(writer.tuple(3).atom(report.class), report.class), report.detail);
    }
    writer.end_list().finish()
}

pub(crate) fn sums(seq: u64, time_us: i64, rows: &[Row<'_>]) -> Vec<u8> {
    let writer = FrameWriter::new().tuple(5).atom("agg").integer(time_us - 1).integer(time_us);
    let mut writer = writer.list(rows.len() as u32);
    for row in rows {
        writer = writer.tuple(6).integer(row.sup).atom(row.kind).atom(row.child.restart);
        writer = child(writer.atom(row.class).integer(row.count), &row.child);
    }
    writer.end_list().integer(seq as i64).finish()
}

pub(crate) fn down(seq: u64, time_us: i64, key: i64, class: &'static str) -> Vec<u8> {
    let writer = FrameWriter::new().tuple(5).atom("down").integer(seq as i64).integer(time_us).integer(key);
    text(text(writer.tuple(3).atom(class), class), "").finish()
}

pub(crate) fn stats(now_us: i64, lost: i64, reinstalls: i64) -> Vec<u8> {
    let writer = FrameWriter::new().tuple(3).atom("stats").integer(now_us).list(3);
    let writer = writer.tuple(2).atom("seen").integer(1).tuple(2).atom("lost").integer(lost);
    writer.tuple(2).atom("reinstalls").integer(reinstalls).end_list().finish()
}

pub(crate) fn bye() -> Vec<u8> {
    text(FrameWriter::new().tuple(2).atom("bye"), "stopped").finish()
}
