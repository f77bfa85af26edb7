//! Feeds damaged frames to the decoder and the session of the listener for nodes, for as many minutes as the argument says:
//! `cargo run --release --example fuzz_node -- 10`. Ends with the number of frames, or with a panic and the frame.
//!
//! Frames are those of a lively node; each is damaged a little (bits, bytes, lengths, pieces of other frames) or not at all,
//! so that damage meets a session in every state. Texts are short, as long as they may be, or far too long. Chance is
//! seeded, and the seed is printed. Memory may not grow beyond what the limits say, and not from session to session.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a tool for the hand")]

#[path = "../benches/support/agent.rs"]
mod agent;
#[path = "../benches/support/chance.rs"]
mod chance;

use std::panic::{self, AssertUnwindSafe};
use std::time::{Duration, SystemTime};

use restart_exporter::Exporter;
use restart_exporter::analytics::AnalyticsConfig;
use restart_exporter::beam::NodeLimits;
use restart_exporter::beam::message::{self, Message};
use restart_exporter::beam::session::{Nodes, Welcomed};
use restart_exporter::http::LIVE_BYTES;
use restart_exporter::telemetry::{Telemetry, monotonic_now, now};

use agent::{Child, HELLO_US, Report, Row, Sup, Who};
use chance::Chance;

/// Frames until everything begins anew: a session must not grow for ever in the fuzzer either.
const FRAMES_EACH: u64 = 20_000;

const KINDS: [&str; 6] = ["started", "terminated", "start_error", "max_intensity", "shutdown_error", "newer"];
const CLASSES: [&str; 5] = ["normal", "shutdown", "killed", "error", "max_intensity"];
const RESTARTS: [&str; 4] = ["permanent", "transient", "temporary", "intrinsic"];
const STRATEGIES: [&str; 5] = ["one_for_one", "one_for_all", "rest_for_one", "simple_one_for_one", "unknown"];
const FLAGS: [&str; 4] = ["none", "restarting", "api", "init"];
const IDS: [&str; 4] = ["a", "b", "undefined", ""];

/// Texts of chance that differ from each other.
const TEXTS: usize = 4000;

/// Lengths of texts: at each limit, beside it, and far beyond all of them.
const LENGTHS: [usize; 10] = [1, 8, 64, 254, 255, 256, 1023, 1024, 1025, 20_000];

/// Supervisors that are kept apart.
const SUPERVISORS: usize = 10;

const LIMITS: NodeLimits = NodeLimits {
    nodes: 2,
    supervisors_per_node: 3,
    children_per_node: 20,
    text_bytes_per_node: 32 * 1024,
    retention: Duration::from_secs(1),
};

struct Fuzzer {
    chance: Chance,
    seq: u64,
    last: Vec<u8>,
    texts: &'static [String],
}

impl Fuzzer {
    fn new(mut chance: Chance) -> Self {
        let texts = (0..TEXTS).map(|number| {
            let letter = chance.of(&["x", "ä", "\u{1}", "\u{1f600}"]);
            let length = if number % 50 == 0 { chance.of(&LENGTHS) } else { chance.of(&LENGTHS[..6]) };
            format!("{number}{}", letter.repeat(length / letter.len()))
        });
        let texts = texts.collect::<Vec<_>>().leak();
        Self { chance, seq: 1, last: Vec::new(), texts }
    }

    /// Often one of these, else any text.
    fn text(&mut self, often: &[&'static str]) -> &'static str {
        if self.chance.below(3) > 0 { self.chance.of(often) } else { &self.texts[self.chance.below(TEXTS)] }
    }

    fn child(&mut self) -> Child<'static> {
        let (id, restart) = (self.text(&IDS), self.chance.of(&RESTARTS));
        Child { id, restart, mfa: self.text(&["m:f/1", ""]), shutdown_ms: self.chance.of(&[5000, -1, -2]) }
    }

    fn frame(&mut self) -> Vec<u8> {
        let time_us = HELLO_US + self.chance.below(10_000_000) as i64;
        let sup = self.chance.below(5) as i64;
        let reports: Vec<_> = (0..1 + self.chance.below(8))
            .map(|_| Report {
                kind: self.chance.of(&KINDS),
                sup,
                child: self.child(),
                pid: self.chance.of(&[None, Some("<0.1.0>"), Some("<0.2.0>"), Some("<7.1.0>"), Some("pid")]),
                flag: self.chance.of(&FLAGS),
                count: self.chance.of(&[0, 1, 3, i64::MAX]),
                class: self.chance.of(&CLASSES),
                detail: self.text(&["", "boom", "\u{fffd}"]),
            })
            .collect();
        let seq = self.chance.of(&[self.seq, self.seq, self.seq, 0, 1 << 62]);
        match self.chance.below(10) {
            0 => agent::sup(&Sup {
                key: sup,
                behaviour: self.chance.of(&["supervisor", "dynamic", "bridge"]),
                strategy: self.chance.of(&STRATEGIES),
                intensity: self.chance.of(&[-1, 0, 3, i64::MAX]),
                period: self.chance.of(&[-1, 0, 5, i64::MAX]),
                name: self.text(&["", "sup", "_other"]),
                parent: self.chance.of(&[None, Some(1), Some(-1)]),
                id: if self.chance.below(2) == 0 { None } else { Some(self.text(&["id"])) },
                ..Sup::default()
            }),
            1 => agent::snapshot(self.chance.of(&["begin", "done"])),
            2 => {
                let rows: Vec<_> = reports
                    .iter()
                    .map(|report| Row {
                        sup,
                        kind: report.kind,
                        class: report.class,
                        count: report.count,
                        child: report.child,
                    })
                    .collect();
                self.seq = self.seq.wrapping_add(1);
                agent::sums(seq, time_us, &rows)
            }
            3 => {
                self.seq = self.seq.wrapping_add(1);
                agent::down(seq, time_us, sup, self.chance.of(&CLASSES))
            }
            4 => agent::stats(self.chance.of(&[time_us, 0, i64::MIN, i64::MAX]), self.chance.of(&[0, 7, i64::MAX]), 1),
            5 => agent::hello(&Who::default()),
            _ => {
                self.seq += reports.len() as u64;
                agent::events(seq, time_us, &reports)
            }
        }
    }

    fn damaged(&mut self) -> Vec<u8> {
        let mut frame = self.frame().split_off(4);
        for _ in 0..self.chance.of(&[0, 0, 1, 1, 2, 8]) {
            if frame.is_empty() {
                break;
            }
            let at = self.chance.below(frame.len());
            match self.chance.below(7) {
                0 => frame[at] ^= 1 << self.chance.below(8),
                1 => frame[at] = self.chance.of(&[0, 1, 97, 98, 104, 106, 107, 108, 109, 110, 118, 119, 127, 131, 255]),
                2 => frame.truncate(at),
                3 => frame.insert(at, self.chance.next() as u8),
                4 => drop(frame.remove(at)),
                5 => {
                    let end = (at + self.chance.below(64)).min(frame.len());
                    let piece = frame[at..end].to_vec();
                    frame.splice(at..at, piece);
                }
                _ => {
                    let from = self.chance.below(self.last.len().max(1)).min(self.last.len());
                    frame.truncate(at);
                    frame.extend(&self.last[from..]);
                }
            }
        }
        self.last.clone_from(&frame);
        frame
    }

    /// A connection of many frames.
    fn session(&mut self, exporter: &Exporter) {
        let telemetry = exporter.telemetry();
        let nodes = Nodes::new(LIMITS);
        let mut connection = 0;
        let mut welcomed = self.connect(&nodes, connection, telemetry);
        for _ in 0..FRAMES_EACH {
            let frame = self.damaged();
            let time = now();
            let read = panic::catch_unwind(AssertUnwindSafe(|| match message::read(&frame) {
                Ok(message) => {
                    let mut node = welcomed.node.lock();
                    node.message(message, connection, time, &mut |event| telemetry.execute(event)).is_ok()
                }
                Err(_) => false,
            }));
            match read {
                Ok(true) => {}
                Ok(false) => {
                    welcomed.node.lock().closed(connection);
                    connection += 1;
                    welcomed = self.connect(&nodes, connection, telemetry);
                }
                Err(panic) => {
                    println!("panic at the frame {frame:?}");
                    panic::resume_unwind(panic);
                }
            }
            if self.chance.below(50) == 0 {
                nodes.tick(time, &mut |event| telemetry.execute(event));
            }
        }
    }

    /// Mostly the same agent, sometimes one that was started again, with more labels than there may be.
    fn connect(&mut self, nodes: &Nodes, connection: u64, telemetry: &Telemetry) -> Welcomed {
        let labels: Vec<_> = (0..self.chance.of(&[0, 1, 40])).map(|_| ("name", self.text(&["value"]))).collect();
        let incarnation = self.chance.of(&[&b"one"[..], b"one", b"one", b"another"]);
        let who = Who { incarnation, labels: &labels, ..Who::default() };
        let frame = agent::hello(&who);
        let Ok(Message::Hello(hello)) = message::read(&frame[4..]) else { panic!("the hello is damaged") };
        nodes.hello(&hello, connection, now(), &mut |event| telemetry.execute(event)).unwrap()
    }
}

/// Bytes that this process has resident.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

fn main() {
    let minutes: u64 = std::env::args().nth(1).map_or(1, |minutes| minutes.parse().unwrap());
    let seed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos() as u64 | 1;
    println!("seed {seed}, {minutes} minutes");
    let mut fuzzer = Fuzzer::new(Chance::new(seed));
    let (begin, mut frames) = (monotonic_now(), 0u64);
    // One session after the other, so that what one may take is what all may take, but for what the allocator keeps.
    let analytics = AnalyticsConfig { max_supervisors: SUPERVISORS, ..AnalyticsConfig::default() };
    let (before, mut most) = (resident(), 0);
    let allowed = LIMITS.nodes * LIMITS.most_bytes_per_node() + analytics.most_bytes() + 2 * LIVE_BYTES;
    while monotonic_now() - begin < Duration::from_secs(minutes * 60) {
        let exporter = Exporter::builder().max_supervisors(SUPERVISORS).build().unwrap();
        fuzzer.session(&exporter);
        frames += FRAMES_EACH;
        most = most.max(resident().saturating_sub(before));
        assert!(most < allowed, "memory grew by {most} bytes in {frames} frames, {allowed} are allowed");
        // A handler that panicked was detached, and that is a defect as well.
        assert!(exporter.telemetry().handler_failures().is_empty(), "{:?}", exporter.telemetry().handler_failures());
    }
    let rate = frames as f64 / (monotonic_now() - begin).as_secs_f64();
    println!("{frames} frames, {rate:.0} a second, no panic, memory grew by {} of {} KiB", most / 1024, allowed / 1024);
}
