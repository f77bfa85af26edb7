//! What does an event cost its emitter? `execute` with 0, 1 and 4 empty handlers, and with history and metrics attached
//! while known children crash: at least 1 M events/s on one core, at most 10 times one empty handler.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod support;

use std::hint::black_box;
use std::sync::Barrier;
use std::thread;

use restart_exporter::event::{Event, EventKind};
use restart_exporter::telemetry::{Telemetry, monotonic_now, now};

use support::events::{Tree, storm};
use support::{Attached, Target};

const SUPERVISORS: usize = 8;
const CHILDREN: usize = 4;
/// Crashes of each supervisor until the same events come again.
const CRASHES: u64 = 16;
/// How often all events are executed in one turn; few, so that many turns end before the scheduler interrupts them.
const REPEATS: usize = 12;

/// A bus and what is told over it.
struct Bus {
    telemetry: Telemetry,
    trees: Vec<Tree>,
    events: Vec<Event>,
}

impl Bus {
    fn new(telemetry: Telemetry) -> Self {
        let (trees, time) = (Tree::forest(SUPERVISORS, CHILDREN), now());
        trees.iter().for_each(|tree| tree.start(&telemetry, time));
        let events = storm(&trees, CRASHES, time);
        Self { telemetry, trees, events }
    }

    fn with_empty_handlers(handlers: usize) -> Self {
        let telemetry = Telemetry::new();
        for number in 0..handlers {
            let empty = |event: &Event| {
                black_box(event);
            };
            telemetry.attach_many(&format!("empty-{number}"), &EventKind::SUPERVISOR, empty).unwrap();
        }
        Self::new(telemetry)
    }

    fn with_everything() -> Self {
        let bus = Self::new(Attached::for_supervisors(1000, 10_000).telemetry);
        // Full rings are the steady state.
        (0..20).for_each(|_| bus.execute_all());
        bus
    }

    fn execute_all(&self) {
        for event in &self.events {
            self.telemetry.execute(black_box(event));
        }
    }

    /// Nanoseconds for one event.
    fn execute(&self) -> f64 {
        support::ns_each(REPEATS * self.events.len(), || (0..REPEATS).for_each(|_| self.execute_all()))
    }

    /// The same as a supervisor does it: reads the clocks, makes the event, executes it, drops it.
    fn emit(&self) -> f64 {
        let rounds = REPEATS as u64 * CRASHES;
        support::ns_each(REPEATS * self.events.len(), || {
            for round in 0..rounds {
                for tree in &self.trees {
                    tree.crash(round, now()).iter().for_each(|event| self.telemetry.execute(event));
                }
            }
        })
    }

    /// Nanoseconds for one event while two threads, each with supervisors of its own, do as [`execute`](Self::execute).
    fn execute_on_two_threads(&self) -> f64 {
        let halves = [0, 1].map(|half| {
            let is_of_half = |event: &&Event| match event {
                Event::Supervisor(event) => event.supervisor.key() % 2 == half,
                Event::HandlerFailure(_) | Event::Span(_) | Event::Mark(_) | Event::Node(_) => false,
            };
            self.events.iter().filter(is_of_half).collect::<Vec<_>>()
        });
        let barrier = Barrier::new(halves.len());
        let times = thread::scope(|scope| {
            let threads = halves.each_ref().map(|events| {
                scope.spawn(|| {
                    barrier.wait();
                    let start = monotonic_now();
                    for _ in 0..10 * REPEATS {
                        events.iter().for_each(|event| self.telemetry.execute(black_box(event)));
                    }
                    (start, monotonic_now())
                })
            });
            threads.map(|thread| thread.join().unwrap())
        });
        let start = times.iter().map(|(start, _)| *start).min().unwrap();
        let end = times.iter().map(|(_, end)| *end).max().unwrap();
        (end - start).as_nanos() as f64 / (10 * REPEATS * self.events.len()) as f64
    }
}

fn main() {
    let [none, one, four] = [0, 1, 4].map(Bus::with_empty_handlers);
    let all = Bus::with_everything();

    let mut criterion = support::criterion();
    let mut group = criterion.benchmark_group("execute 256 events");
    group.throughput(criterion::Throughput::Elements(all.events.len() as u64));
    for (name, bus) in [("0 handlers", &none), ("1 empty", &one), ("4 empty", &four), ("history + metrics", &all)] {
        group.bench_function(name, |bencher| bencher.iter(|| bus.execute_all()));
    }
    group.finish();
    criterion.final_summary();
    if !support::is_bench() {
        return;
    }

    let [none_ns, one_ns, four_ns, all_ns, emit_one_ns, emit_ns] = support::by_turns(
        15,
        [
            &mut || none.execute(),
            &mut || one.execute(),
            &mut || four.execute(),
            &mut || all.execute(),
            &mut || one.emit(),
            &mut || all.emit(),
        ],
    );
    support::figure("execute, 0 handlers", none_ns, " ns");
    support::figure("execute, 1 empty handler", one_ns, " ns");
    support::figure("execute, 4 empty handlers", four_ns, " ns");
    support::figure("execute, history + metrics", all_ns, " ns");
    support::figure("clocks + new event + execute + drop, 1 empty handler", emit_one_ns, " ns");
    support::figure("clocks + new event + execute + drop, history + metrics", emit_ns, " ns");
    support::verdict("events/s on one core, history + metrics", 1e3 / all_ns, " M", Target::AtLeast(1.0));
    support::verdict("ratio: history + metrics / empty handler", all_ns / one_ns, "", Target::AtMost(10.0));

    let [one_ns, all_ns] =
        support::by_turns(60, [&mut || one.execute_on_two_threads(), &mut || all.execute_on_two_threads()]);
    support::figure("events/s from 2 threads, 1 empty handler", 1e3 / one_ns, " M");
    support::figure("events/s from 2 threads, history + metrics", 1e3 / all_ns, " M");
    support::figure("ratio: 2 threads, history + metrics / empty handler", all_ns / one_ns, "");
}
