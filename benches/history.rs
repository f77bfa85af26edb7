//! What does it cost to keep a history, and to ask for it? One event costs the same at an empty and at a full ring and
//! fits into 96 bytes; a failure rate over a full ring takes less than 1 us; the statistics of 10,000 supervisors take
//! less than 5 ms, and events go on meanwhile.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod support;

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use restart_exporter::analytics::{Analytics, AnalyticsConfig, HistoryEvent, MAX_SECONDS_COUNTED};
use restart_exporter::event::Event;
use restart_exporter::telemetry::{Telemetry, monotonic_now, now};

use support::Target;
use support::events::{Tree, later, storm};

/// Ring of the default configuration.
const CAPACITY: usize = 1000;
/// Events of one figure: half a ring, so that an empty ring does not become a full one meanwhile.
const PUSHED: usize = 500;
const MANY: usize = 10_000;

fn store(history_capacity: usize, max_supervisors: usize) -> (Telemetry, Analytics) {
    let telemetry = Telemetry::new();
    let config = AnalyticsConfig { history_capacity, max_supervisors, ..AnalyticsConfig::default() };
    let analytics = Analytics::new(config);
    analytics.attach(&telemetry).unwrap();
    (telemetry, analytics)
}

/// Nanoseconds for one event of a supervisor whose ring has taken in `before` events.
fn push(capacity: usize, before: usize) -> f64 {
    let (telemetry, _analytics) = store(capacity, 1);
    let (trees, time) = (Tree::forest(1, 4), now());
    trees[0].start(&telemetry, time);
    let events = storm(&trees, PUSHED as u64 / 2, time);
    events.iter().cycle().take(before).for_each(|event| telemetry.execute(event));
    support::ns_each(PUSHED, || events.iter().for_each(|event| telemetry.execute(black_box(event))))
}

/// A supervisor whose rings are all full: crashes a quarter of a second apart for longer than seconds are counted.
fn full_store() -> (Analytics, Instant) {
    let (telemetry, analytics) = store(CAPACITY, 1000);
    // Among others, because a name has to be found first.
    let (trees, begin) = (Tree::forest(1000, 4), now());
    trees.iter().for_each(|tree| tree.start(&telemetry, begin));
    let mut time = begin;
    for number in 0..4 * MAX_SECONDS_COUNTED as u64 + 100 {
        time = later(begin, Duration::from_millis(250 * number));
        trees[500].crash(number, time).iter().for_each(|event| telemetry.execute(event));
    }
    (analytics, time.monotonic)
}

/// Nanoseconds for one event while another thread asks for statistics without a pause, or not; and how long each of
/// those took.
fn ingest(telemetry: &Telemetry, analytics: &Analytics, events: &[Event], is_asked: bool) -> f64 {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        if is_asked {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    black_box(analytics.all_supervisor_stats());
                }
            });
        }
        let ns = support::ns_each(events.len(), || events.iter().for_each(|event| telemetry.execute(black_box(event))));
        done.store(true, Ordering::Relaxed);
        ns
    })
}

fn main() {
    let (full, end) = full_store();
    let failure_rate = |window: Duration| {
        let name = black_box("supervisor-00500");
        full.find(name).unwrap().failure_rate(black_box(window), end)
    };
    // Half of the ring of stamps; far past it, where counts by the second answer.
    let (near, far) = (Duration::from_secs(125), Duration::from_secs(1800));
    assert!(failure_rate(near).complete && failure_rate(near).restarts == 501);
    assert!(failure_rate(far).restarts > CAPACITY as u64);

    let (telemetry, many) = store(CAPACITY, MANY);
    let trees = Tree::forest(MANY, 4);
    trees.iter().for_each(|tree| tree.start(&telemetry, now()));
    let events = storm(&trees, 25, now());
    events.iter().for_each(|event| telemetry.execute(event));

    let mut criterion = support::criterion();
    criterion.bench_function("failure rate within the ring", |bencher| bencher.iter(|| failure_rate(near)));
    criterion.bench_function("failure rate past the ring", |bencher| bencher.iter(|| failure_rate(far)));
    criterion.bench_function("stats of 10,000 supervisors", |bencher| bencher.iter(|| many.all_supervisor_stats()));
    criterion.final_summary();
    if !support::is_bench() {
        return;
    }

    let [empty, full_ring, small, large] = support::by_turns(
        101,
        [&mut || push(CAPACITY, 0), &mut || push(CAPACITY, 4 * CAPACITY), &mut || push(100, 400), &mut || {
            push(10_000, 40_000)
        }],
    );
    support::figure("one event at an empty ring of 1000", empty, " ns");
    support::figure("one event at a full ring of 1000", full_ring, " ns");
    support::verdict("ratio: full / empty ring", full_ring / empty, "", Target::AtMost(1.3));
    support::figure("ratio: full ring of 10,000 / full ring of 100", large / small, "");
    support::verdict("bytes of one event", size_of::<HistoryEvent>() as f64, "", Target::AtMost(96.0));

    let asks = 2000;
    let rate = |window| support::ns_each(asks, || (0..asks).for_each(|_| _ = black_box(failure_rate(window))));
    let [near, far] = support::by_turns(60, [&mut || rate(near), &mut || rate(far)]);
    support::verdict("failure rate within a full ring, name lookup included", near, " ns", Target::AtMost(1000.0));
    support::verdict("failure rate past a full ring, name lookup included", far, " ns", Target::AtMost(1000.0));

    let stats = || {
        let start = monotonic_now();
        black_box(many.all_supervisor_stats());
        (monotonic_now() - start).as_secs_f64() * 1e3
    };
    let [stats_ms, alone, asked] = support::by_turns(
        15,
        [&mut || stats(), &mut || ingest(&telemetry, &many, &events, false), &mut || {
            ingest(&telemetry, &many, &events, true)
        }],
    );
    support::verdict("stats of 10,000 supervisors", stats_ms, " ms", Target::AtMost(5.0));
    support::figure("events/s over 10,000 supervisors, nobody asks", 1e3 / alone, " M");
    support::figure("events/s over 10,000 supervisors, stats without a pause", 1e3 / asked, " M");
    support::figure("ratio: ingest while stats are asked / undisturbed", alone / asked, "");
}
