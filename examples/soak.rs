//! Restarts children a million times (or as often as the argument says) and counts in four ways: by the children
//! themselves, the history, the totals and the metrics. All must agree exactly, and memory must not grow once the rings
//! are full: the largest, the 10,000 stamps of each intensity window, after a million.
//!
//! ```text
//! cargo run --release --example soak [RESTARTS]
//! ```

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use restart_exporter::analytics::HistoryFilter;
use restart_exporter::prelude::*;
use restart_exporter::telemetry::monotonic_now;
use tokio::sync::Notify;

const SUPERVISORS: u64 = 100;
const CHILDREN: u64 = 4;

/// What the children know themselves.
struct Count {
    /// Restarts that are to happen.
    wanted: u64,
    /// Runs after the first one of each child.
    restarts: AtomicU64,
    /// Resident memory in KiB when a tenth, half and all of the restarts had happened.
    resident: [AtomicU64; 3],
    done: Notify,
}

impl Count {
    fn restarted(&self) {
        let restarts = self.restarts.fetch_add(1, Ordering::Relaxed) + 1;
        for (share, resident) in [self.wanted / 10, self.wanted / 2, self.wanted].iter().zip(&self.resident) {
            if restarts == *share {
                resident.store(resident_kib(), Ordering::Relaxed);
            }
        }
        if restarts == self.wanted {
            self.done.notify_one();
        }
    }
}

/// A child that dies as often as it should and then works on quietly.
fn child(number: u64, deaths: u64, count: &Arc<Count>) -> ChildSpec {
    let (count, runs, is_erring) = (count.clone(), Arc::new(AtomicU64::new(0)), number % 2 == 1);
    ChildSpec::task(format!("child-{number}"), move |stop| {
        let run = runs.fetch_add(1, Ordering::Relaxed);
        if run > 0 {
            count.restarted();
        }
        async move {
            if run >= deaths {
                stop.stopped().await;
                return Ok(());
            }
            // Of a few kinds, by a panic and by an error, some at once and some after others had their turn.
            if run % 3 == 0 {
                tokio::task::yield_now().await;
            }
            assert!(is_erring, "boom {}", run % 5);
            Err(format!("connection refused by replica {}", run % 5))
        }
    })
}

fn main() -> ExitCode {
    let restarts = std::env::args().nth(1).map_or(1_000_000, |restarts| restarts.parse().unwrap());
    std::panic::set_hook(Box::new(|_| {}));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(soak(restarts))
}

async fn soak(restarts: u64) -> ExitCode {
    let exporter = Exporter::builder().build().unwrap();
    let count = Arc::new(Count {
        wanted: restarts,
        restarts: AtomicU64::new(0),
        resident: Default::default(),
        done: Notify::new(),
    });
    let start = monotonic_now();
    let mut handles = Vec::new();
    for number in 0..SUPERVISORS {
        let mut supervisor = Supervisor::new(format!("soak-{number:02}")).max_restarts(u32::MAX).max_seconds(1);
        for index in 0..CHILDREN {
            let deaths = share(share(restarts, SUPERVISORS, number), CHILDREN, index);
            supervisor = supervisor.child(child(index, deaths, &count));
        }
        handles.push(exporter.supervise(supervisor).await.unwrap());
    }
    if restarts > 0 {
        count.done.notified().await;
    }
    let took = (monotonic_now() - start).as_secs_f64();
    println!("{restarts} restarts in {took:.1} s: {:.0} restarts/s", restarts as f64 / took);
    for (share, resident) in ["10 %", "50 %", "100 %"].iter().zip(&count.resident) {
        println!("resident at {share:>5}: {} KiB", resident.load(Ordering::Relaxed));
    }

    // The last run began before its restart was told of; a supervisor that has ended has told everything.
    for handle in &handles {
        handle.shutdown().await;
    }
    check(&exporter, restarts, count.restarts.load(Ordering::Relaxed))
}

/// Part `index` of `whole` in parts that are as equal as can be.
fn share(whole: u64, parts: u64, index: u64) -> u64 {
    whole / parts + u64::from(index < whole % parts)
}

fn check(exporter: &Exporter, wanted: u64, by_children: u64) -> ExitCode {
    let stats = exporter.analytics().all_supervisor_stats();
    let of_each = |of: fn(&restart_exporter::analytics::SupervisorStats) -> u64| {
        stats.supervisor_stats.iter().map(of).sum::<u64>()
    };
    let history: u64 = stats
        .supervisor_stats
        .iter()
        .map(|row| exporter.analytics().restart_history(&row.supervisor.supervisor, &HistoryFilter::default()).unwrap())
        .map(|page| page.total)
        .sum();
    let causes: u64 = stats
        .supervisor_stats
        .iter()
        .flat_map(|row| exporter.analytics().causes(&row.supervisor.supervisor, None).unwrap().causes)
        .map(|cause| cause.count)
        .sum();
    let metrics = exporter.metrics().render();
    let sum = |name: &str, label: &str| -> u64 {
        let lines = metrics.lines().filter(|line| line.starts_with(name) && line.contains(label));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    };
    let children = SUPERVISORS * CHILDREN;
    let deaths = sum("supervisor_child_terminations_total{", "reason=\"error\"")
        + sum("supervisor_child_terminations_total{", "reason=\"panic\"");
    let rows = [
        ("restarts, counted by the children", by_children, wanted),
        ("restarts, total of all", stats.total_restarts, wanted),
        ("restarts, totals of each", of_each(|row| row.total_restarts), wanted),
        ("failures, total of all", stats.total_failures, wanted),
        ("failures, totals of each", of_each(|row| row.total_failures), wanted),
        ("failures, counts of the causes", causes, wanted),
        // A death and a restart each time, and the end of each supervisor.
        ("events in the histories", history, 2 * wanted + SUPERVISORS),
        ("supervisor_child_restarts_total", sum("supervisor_child_restarts_total{", "cause=\"failure\""), wanted),
        ("supervisor_child_restarts_total, all causes", sum("supervisor_child_restarts_total{", ""), wanted),
        ("supervisor_child_terminations_total, error and panic", deaths, wanted),
        ("supervisor_child_start_attempts_total", sum("supervisor_child_start_attempts_total{", ""), wanted + children),
        (
            "supervisor_child_lifetime_seconds_count",
            sum("supervisor_child_lifetime_seconds_count{", ""),
            wanted + children,
        ),
        ("supervisor_child_downtime_seconds_count", sum("supervisor_child_downtime_seconds_count{", ""), wanted),
    ];
    let mut is_exact = true;
    for (what, counted, expected) in rows {
        let mark = if counted == expected { "ok" } else { "MISMATCH" };
        println!("{what}: {counted}, expected {expected}: {mark}");
        is_exact &= counted == expected;
    }
    if is_exact { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
