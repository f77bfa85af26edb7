//! What does a scrape cost? Ours, streamed in pieces, beside `gather` and `TextEncoder` of the crate `prometheus` over
//! the same series: our own collector, and a plain set-up of `*Vec` metrics as a user would write it. At most 25 ms and
//! 1 MiB for a text of 65 MB, 20 times faster than the encoder; reported for each line too, because ours has more lines
//! for a supervisor than the text that the target was set for. And at most 100 ms while 10,000 dynamic children come and go.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod support;

use std::hint::black_box;
use std::process::Command;

use prometheus::Registry;
use restart_exporter::metrics::PIECE_BYTES;
use restart_exporter::prelude::*;
use restart_exporter::telemetry::monotonic_now;

use support::same_series::{encode, is_same, plain_registry, stream};
use support::{Attached, Target};

const CHILDREN: usize = 4;
/// Children of one dynamic supervisor, and their kinds, of which some are told apart.
const DYNAMIC_CHILDREN: usize = 10_000;
const KINDS: usize = 100;
/// Asks a new process of this bench for the peak of one scrape of so many supervisors.
const PEAK_ENV: &str = "SCRAPE_BENCH_PEAK";
/// The text of the target: 25,000 supervisors, 700,000 lines.
const TARGET_BYTES: f64 = 65e6;

/// The same series three times.
struct Setup {
    ours: Attached,
    collected: Registry,
    plain: Registry,
}

impl Setup {
    fn new(supervisors: usize) -> Self {
        let ours = Attached::after_crashes(supervisors, CHILDREN);
        let collected = Registry::new();
        collected.register(Box::new(ours.metrics.collector())).unwrap();
        let plain = plain_registry(&ours.metrics.render());
        Self { ours, collected, plain }
    }

    /// Lines and bytes of our text.
    fn size(&self) -> (usize, usize) {
        let text = self.ours.metrics.render();
        (text.lines().filter(|line| !line.starts_with('#')).count(), text.len())
    }
}

/// A comparison of different texts would be none.
fn check(setup: &Setup) {
    let ours = setup.ours.metrics.render();
    for registry in [&setup.collected, &setup.plain] {
        assert!(is_same(&ours, &String::from_utf8(encode(registry)).unwrap()));
    }
}

fn report(supervisors: usize, rounds: usize) {
    let setup = Setup::new(supervisors);
    let metrics = &setup.ours.metrics;
    let mut piece = Vec::new();
    let our_peak = our_peak_in_new_process(supervisors) / 1e6;
    let (lines, bytes) = setup.size();
    let plain_peak = support::peak(|| drop(black_box(encode(&setup.plain)))) / 1e6;
    let (plain_lines, collected_lines) = (text_lines(&encode(&setup.plain)), text_lines(&encode(&setup.collected)));

    let ms = |work: &mut dyn FnMut()| {
        let start = monotonic_now();
        work();
        (monotonic_now() - start).as_secs_f64() * 1e3
    };
    let [ours, collected, plain] = support::by_turns(
        rounds,
        [
            &mut || ms(&mut || _ = stream(metrics, &mut piece)),
            &mut || ms(&mut || drop(black_box(encode(&setup.collected)))),
            &mut || ms(&mut || drop(black_box(encode(&setup.plain)))),
        ],
    );
    println!("{supervisors} supervisors x {CHILDREN} children: {:.1} MB, {lines} lines", bytes as f64 / 1e6);
    for (name, ms, lines) in [
        ("ours, pieces", ours, lines),
        ("our collector + TextEncoder", collected, collected_lines),
        ("plain *Vec + TextEncoder", plain, plain_lines),
    ] {
        println!("  {name}: {ms:.2} ms, {:.1} ns per line", ms * 1e6 / lines as f64);
    }
    support::figure("  extra peak, plain *Vec + TextEncoder", plain_peak, " MB");
    support::verdict("  extra peak, ours", our_peak, " MB", Target::AtMost(1.05));
    support::figure("  ratio: our collector + TextEncoder / ours", collected / ours, "");
    support::verdict("  ratio: plain *Vec + TextEncoder / ours", plain / ours, "", Target::AtLeast(20.0));
    if supervisors == 25_000 {
        support::figure("  ms for this text", ours, "");
        let for_target = ours * TARGET_BYTES / bytes as f64;
        support::verdict("  ms for 65 MB of it", for_target, " ms", Target::AtMost(25.0));
    }
}

/// Scrapes while children of a dynamic supervisor with many end and start all the time.
async fn report_dynamic(scrapes: usize) {
    let attached = Attached::for_supervisors(10, 1000);
    let pool = Supervisor::new("pool").strategy(Strategy::Dynamic).max_restarts(1_000_000).max_seconds(1);
    let pool = pool.start(&attached.telemetry).await.unwrap();
    let metrics = attached.metrics.clone();
    let job = |number: usize, lasts: bool| {
        let task = move |stop: StopToken| async move {
            if lasts {
                stop.stopped().await;
            }
            Ok::<_, &'static str>(())
        };
        let kind = format!("kind-{}", number % KINDS);
        ChildSpec::task(format!("job-{number}"), task).restart(Restart::Temporary).kind(kind)
    };
    for number in 0..DYNAMIC_CHILDREN {
        pool.start_child(job(number, true)).await.unwrap();
    }
    let measure = tokio::task::spawn_blocking(move || {
        let mut piece = Vec::with_capacity(2 * PIECE_BYTES);
        let scrape = |_| support::ns_each(1, || _ = stream(&metrics, &mut piece)) / 1e6;
        (0..scrapes).map(scrape).fold(0.0, f64::max)
    });
    let mut number = DYNAMIC_CHILDREN;
    while !measure.is_finished() {
        pool.start_child(job(number, false)).await.unwrap();
        number += 1;
    }
    println!("{DYNAMIC_CHILDREN} dynamic children, {} more came and went meanwhile", number - DYNAMIC_CHILDREN);
    support::verdict("  slowest scrape", measure.await.unwrap(), " ms", Target::AtMost(100.0));
}

/// How far memory rises during our first scrape, in a process where no free memory lies around that it could take.
fn our_peak_in_new_process(supervisors: usize) -> f64 {
    let bench = std::env::current_exe().unwrap();
    let output = Command::new(bench).env(PEAK_ENV, supervisors.to_string()).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
}

fn text_lines(text: &[u8]) -> usize {
    text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty() && line[0] != b'#').count()
}

fn main() {
    if let Ok(supervisors) = std::env::var(PEAK_ENV) {
        let ours = Attached::after_crashes(supervisors.parse().unwrap(), CHILDREN);
        println!("{}", support::peak(|| _ = stream(&ours.metrics, &mut Vec::new())));
        return;
    }
    let setup = Setup::new(1000);
    check(&setup);
    let mut criterion = support::criterion();
    let mut group = criterion.benchmark_group("scrape of 1000 supervisors");
    let mut piece = Vec::with_capacity(2 * PIECE_BYTES);
    group.bench_function("ours, pieces", |bencher| bencher.iter(|| stream(&setup.ours.metrics, &mut piece)));
    group.bench_function("plain *Vec + TextEncoder", |bencher| bencher.iter(|| encode(&setup.plain)));
    group.finish();
    criterion.final_summary();
    drop(setup);
    if support::is_bench() {
        report(1000, 15);
        report(10_000, 5);
        report(25_000, 3);
        tokio::runtime::Runtime::new().unwrap().block_on(report_dynamic(1000));
    }
}
