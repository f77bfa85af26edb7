//! What does a scrape cost? Ours, streamed in pieces, beside `gather` and `TextEncoder` of the crate `prometheus` over
//! the same series: our own collector, and a plain set-up of `*Vec` metrics as a user would write it. At most 25 ms and
//! 1 MiB for a text of 65 MB, 20 times faster than the encoder; reported for each line too, because ours has more lines
//! for a supervisor than the text that the target was set for.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod support;

use std::collections::BTreeMap;
use std::hint::black_box;
use std::process::Command;

use prometheus::{Encoder, GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry, TextEncoder};
use restart_exporter::metrics::{Format, Metrics, PIECE_BYTES};
use restart_exporter::telemetry::{monotonic_now, now};

use support::events::Tree;
use support::{Attached, Target};

const CHILDREN: usize = 4;
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
        let ours = ours_of(supervisors);
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

/// Supervisors each of whose children was restarted twice.
fn ours_of(supervisors: usize) -> Attached {
    let ours = Attached::for_supervisors(supervisors, supervisors * CHILDREN);
    let (trees, time) = (Tree::forest(supervisors, CHILDREN), now());
    trees.iter().for_each(|tree| tree.start(&ours.telemetry, time));
    for round in 0..CHILDREN as u64 * 2 {
        for tree in &trees {
            tree.crash(round, time).iter().for_each(|event| ours.telemetry.execute(event));
        }
    }
    ours
}

/// A sample line.
struct Sample<'a> {
    name: &'a str,
    labels: Vec<(&'a str, &'a str)>,
    value: f64,
}

impl<'a> Sample<'a> {
    /// Reads a line. No label of the bench needs escaping.
    fn read(line: &'a str) -> Self {
        let (series, value) = line.rsplit_once(' ').unwrap();
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let pairs = labels.trim_end_matches('}').split(',').filter(|pair| !pair.is_empty());
        let labels =
            pairs.map(|pair| pair.split_once('=').unwrap()).map(|(name, value)| (name, value.trim_matches('"')));
        Self { name, labels: labels.collect(), value: value.parse().unwrap() }
    }
}

/// The metrics of supervisors that a text shows, kept as a user of `prometheus` would.
fn plain_registry(text: &str) -> Registry {
    let registry = Registry::new();
    let mut families = text.split("# HELP ").filter(|family| family.starts_with("supervisor_"));
    families.by_ref().for_each(|family| plain_family(&registry, family));
    registry
}

fn plain_family(registry: &Registry, family: &str) {
    let (help, rest) = family.split_once('\n').unwrap();
    let (name, help) = help.split_once(' ').unwrap();
    let (kind, lines) = rest.split_once('\n').unwrap();
    let mut samples = lines.lines().map(Sample::read).peekable();
    let Some(first) = samples.peek() else { return };
    if first.labels.is_empty() {
        let gauge = prometheus::Gauge::new(name, help).unwrap();
        gauge.set(first.value);
        registry.register(Box::new(gauge)).unwrap();
        return;
    }
    let names: Vec<&str> = first.labels.iter().map(|(name, _)| *name).filter(|name| *name != "le").collect();
    fn values<'a>(sample: &Sample<'a>) -> Vec<&'a str> {
        sample.labels.iter().filter(|(name, _)| *name != "le").map(|(_, value)| *value).collect()
    }
    match kind.rsplit(' ').next().unwrap() {
        "counter" => {
            let vec = IntCounterVec::new(Opts::new(name, help), &names).unwrap();
            samples.for_each(|sample| vec.with_label_values(&values(&sample)).inc_by(sample.value as u64));
            registry.register(Box::new(vec)).unwrap();
        }
        "gauge" => {
            let vec = GaugeVec::new(Opts::new(name, help), &names).unwrap();
            samples.for_each(|sample| vec.with_label_values(&values(&sample)).set(sample.value));
            registry.register(Box::new(vec)).unwrap();
        }
        _ => {
            let bounds = lines.lines().map(Sample::read).map_while(|sample| {
                let bound = sample.labels.iter().find(|(name, _)| *name == "le")?.1;
                bound.parse::<f64>().ok().filter(|bound| bound.is_finite())
            });
            let vec = HistogramVec::new(HistogramOpts::new(name, help).buckets(bounds.collect()), &names).unwrap();
            let mut sum = 0.0;
            for sample in samples {
                if sample.name.ends_with("_sum") {
                    sum = sample.value;
                } else if sample.name.ends_with("_count") {
                    // All observations of a series of the bench are equal.
                    let histogram = vec.with_label_values(&values(&sample));
                    (0..sample.value as u64).for_each(|_| histogram.observe(sum / sample.value));
                }
            }
            registry.register(Box::new(vec)).unwrap();
        }
    }
}

/// Our text, each piece in the same buffer.
fn stream(metrics: &Metrics, piece: &mut Vec<u8>) -> usize {
    let (mut exposition, mut bytes) = (metrics.exposition(Format::Text), 0);
    while exposition.next_piece(piece) {
        bytes += black_box(&*piece).len();
    }
    bytes
}

/// What every example does.
fn encode(registry: &Registry) -> Vec<u8> {
    let mut text = Vec::new();
    TextEncoder::new().encode(&registry.gather(), &mut text).unwrap();
    text
}

/// All series of supervisors with their values, whatever the order of lines and labels.
fn series(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter(|line| line.starts_with("supervisor_"));
    let samples = lines.map(Sample::read).map(|mut sample| {
        sample.labels.sort_unstable();
        // The encoder writes a bound as `1`.
        (format!("{}{:?}", sample.name, sample.labels).replace(".0\")", "\")"), sample.value)
    });
    samples.collect()
}

/// A comparison of different texts would be none.
fn check(setup: &Setup) {
    let ours = series(&setup.ours.metrics.render());
    for registry in [&setup.collected, &setup.plain] {
        let theirs = series(&String::from_utf8(encode(registry)).unwrap());
        assert!(ours.keys().eq(theirs.keys()), "different series");
        let differs = |(ours, theirs): (&f64, &f64)| (ours - theirs).abs() > 1e-9 * ours.abs();
        assert!(!ours.values().zip(theirs.values()).any(differs), "different values");
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
        let ours = ours_of(supervisors.parse().unwrap());
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
    }
}
