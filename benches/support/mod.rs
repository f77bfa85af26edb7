//! What the benches share: a stopwatch that takes turns, verdicts, and what the kernel says of this process.
//!
//! Criterion tells how long a thing takes; the targets are ratios. Those are measured here by turns in one run, so that
//! whatever else the machine does falls on both sides alike.

#![allow(dead_code)] // Each bench uses a part of it.

pub(crate) mod events;
pub(crate) mod same_series;

use std::time::Duration;

use criterion::Criterion;
use restart_exporter::analytics::{Analytics, AnalyticsConfig};
use restart_exporter::metrics::{Metrics, MetricsConfig};
use restart_exporter::telemetry::{Telemetry, monotonic_now, now};

use events::{Tree, storm};

/// A bus with history and metrics attached.
pub(crate) struct Attached {
    pub(crate) telemetry: Telemetry,
    pub(crate) analytics: Analytics,
    pub(crate) metrics: Metrics,
}

impl Attached {
    /// With the default limits, but so many supervisors and children kept apart.
    pub(crate) fn for_supervisors(max_supervisors: usize, max_children: usize) -> Self {
        let telemetry = Telemetry::new();
        let analytics = Analytics::new(AnalyticsConfig { max_supervisors, ..AnalyticsConfig::default() });
        let config = MetricsConfig { max_supervisors, max_children, ..MetricsConfig::default() };
        let metrics = Metrics::new(config, &telemetry, &analytics);
        analytics.attach(&telemetry).unwrap();
        metrics.attach().unwrap();
        Self { telemetry, analytics, metrics }
    }

    /// So many supervisors, each of whose children was restarted twice.
    pub(crate) fn after_crashes(supervisors: usize, children: usize) -> Self {
        let attached = Self::for_supervisors(supervisors, supervisors * children);
        crashes(&attached.telemetry, supervisors, children);
        attached
    }
}

/// Tells of so many supervisors, each of whose children is restarted twice.
pub(crate) fn crashes(telemetry: &Telemetry, supervisors: usize, children: usize) {
    let (trees, time) = (Tree::forest(supervisors, children), now());
    trees.iter().for_each(|tree| tree.start(telemetry, time));
    storm(&trees, children as u64 * 2, time).iter().for_each(|event| telemetry.execute(event));
}

/// Criterion with short runs: what counts are the ratios below it.
pub(crate) fn criterion() -> Criterion {
    let short = Criterion::default().warm_up_time(Duration::from_millis(300));
    short.measurement_time(Duration::from_secs(1)).sample_size(20).configure_from_args()
}

/// Is this `cargo bench`? Anything else only wants to know that the bench runs.
pub(crate) fn is_bench() -> bool {
    std::env::args().any(|argument| argument == "--bench")
}

/// Nanoseconds for one of `count` pieces of work.
pub(crate) fn ns_each(count: usize, work: impl FnOnce()) -> f64 {
    let start = monotonic_now();
    work();
    (monotonic_now() - start).as_nanos() as f64 / count as f64
}

/// Lets each variant take its turn in each round; returns for each what the quiet tenth of its turns took. Not the
/// median, because other work on the machine only ever adds.
pub(crate) fn by_turns<const N: usize>(rounds: usize, mut variants: [&mut dyn FnMut() -> f64; N]) -> [f64; N] {
    let mut figures = [const { Vec::new() }; N];
    for _ in 0..rounds {
        for (variant, figures) in variants.iter_mut().zip(&mut figures) {
            figures.push(variant());
        }
    }
    figures.map(quiet_tenth)
}

pub(crate) fn quiet_tenth(mut figures: Vec<f64>) -> f64 {
    figures.sort_unstable_by(f64::total_cmp);
    figures[figures.len() / 10]
}

/// What a figure should be.
pub(crate) enum Target {
    AtMost(f64),
    AtLeast(f64),
}

/// Prints a figure beside its target.
pub(crate) fn verdict(what: &str, figure: f64, unit: &str, target: Target) {
    let (sign, target, is_met) = match target {
        Target::AtMost(target) => ("<=", target, figure <= target),
        Target::AtLeast(target) => (">=", target, figure >= target),
    };
    let missed = if is_met { "" } else { "  MISSED" };
    println!("{what} = {figure:.3}{unit} (target {sign} {target}{unit}){missed}");
}

/// Prints a figure that has no target.
pub(crate) fn figure(what: &str, figure: f64, unit: &str) {
    println!("{what} = {figure:.3}{unit}");
}

/// A line of `/proc/self/status` in bytes.
pub(crate) fn memory(field: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')).unwrap();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() * 1024.0
}

/// How far resident memory rises above where it stands now while `work` runs, in bytes.
pub(crate) fn peak(work: impl FnOnce()) -> f64 {
    // Sets VmHWM back to what is resident now (proc(5)).
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = memory("VmRSS");
    work();
    memory("VmHWM") - before
}
