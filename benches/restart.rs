//! What does supervision add to a plain `JoinSet` loop that spawns again what ended? From the death of a task to its
//! replacement running at most 2 times the loop, with history and metrics attached; at most 1 KiB for an idle child.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod support;

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use restart_exporter::prelude::*;
use restart_exporter::telemetry::monotonic_now;
use tokio::runtime::Runtime;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use support::{Attached, Target};

/// Restarts behind one figure of latency.
const LATENCIES: u64 = 10_000;
/// Restarts behind one figure of throughput.
const RESTARTS: u64 = 50_000;
/// Idle children whose memory is measured.
const IDLE: usize = 20_000;
/// Chooses what a new process of this bench measures.
const IDLE_ENV: &str = "RESTART_BENCH_IDLE";

#[derive(Clone, Copy)]
enum Death {
    Panic,
    Error,
}

#[derive(Clone, Copy)]
enum Loop {
    JoinSet,
    /// Nobody listens.
    Bare,
    /// History and metrics attached.
    Attached,
}

/// Children that die as soon as they run, until all together were restarted often enough.
struct Crashes {
    death: Death,
    begin: Instant,
    /// Restarts still to happen.
    left: AtomicU64,
    /// When the last run died, in nanoseconds since `begin`; one child only.
    died: AtomicU64,
    latencies: Option<Mutex<Vec<f64>>>,
    done: Notify,
}

impl Crashes {
    fn new(death: Death, restarts: u64, children: usize) -> Arc<Self> {
        let latencies = (children == 1).then(|| Mutex::new(Vec::with_capacity(restarts as usize + 1)));
        let (left, died, done) = (AtomicU64::new(restarts + children as u64), AtomicU64::new(0), Notify::new());
        Arc::new(Self { death, begin: monotonic_now(), left, died, latencies, done })
    }

    fn nanos(&self) -> u64 {
        (monotonic_now() - self.begin).as_nanos() as u64
    }

    async fn child(self: Arc<Self>) -> Result<(), &'static str> {
        if let Some(latencies) = &self.latencies {
            let died = self.died.load(Ordering::Relaxed);
            if died > 0 {
                latencies.lock().push((self.nanos() - died) as f64);
            }
        }
        let left = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        match left {
            Ok(1) => self.done.notify_one(),
            Ok(_) => {
                if self.latencies.is_some() {
                    self.died.store(self.nanos(), Ordering::Relaxed);
                }
                match self.death {
                    Death::Panic => panic!("boom"),
                    Death::Error => return Err("boom"),
                }
            }
            Err(_) => {}
        }
        std::future::pending().await
    }
}

/// Lets `children` crash; returns the nanoseconds it took in all, and the latencies if it was one child.
fn crash(runtime: &Runtime, how: Loop, death: Death, restarts: u64, children: usize) -> (f64, Vec<f64>) {
    let crashes = Crashes::new(death, restarts, children);
    let took = runtime.block_on(async {
        match how {
            Loop::JoinSet => {
                let crashing = crashes.clone();
                let looping = tokio::spawn(async move {
                    let mut set = JoinSet::new();
                    (0..children).for_each(|_| drop(set.spawn(crashing.clone().child())));
                    while set.join_next().await.is_some() {
                        set.spawn(crashing.clone().child());
                    }
                });
                crashes.done.notified().await;
                let took = crashes.nanos();
                looping.abort();
                took
            }
            Loop::Bare | Loop::Attached => {
                let attached = matches!(how, Loop::Attached).then(|| Attached::for_supervisors(1000, 10_000));
                let telemetry = attached.map_or_else(Telemetry::new, |attached| attached.telemetry);
                let mut supervisor = Supervisor::new("crashing").max_restarts(u32::MAX).max_seconds(3600);
                for number in 0..children {
                    let crashes = crashes.clone();
                    supervisor = supervisor.child(
                        ChildSpec::task(format!("child-{number}"), move |_stop| crashes.clone().child())
                            .shutdown(restart_exporter::supervisor::Shutdown::BrutalKill),
                    );
                }
                let handle = supervisor.start(&telemetry).await.unwrap();
                crashes.done.notified().await;
                let took = crashes.nanos();
                handle.shutdown().await;
                took
            }
        }
    });
    let latencies = crashes.latencies.as_ref().map(|latencies| std::mem::take(&mut *latencies.lock()));
    (took as f64, latencies.unwrap_or_default())
}

/// Microseconds from death to the replacement running: the half and the hundredth that took longer.
fn latency(runtime: &Runtime, how: Loop, death: Death) -> [f64; 2] {
    let (_, mut latencies) = crash(runtime, how, death, LATENCIES, 1);
    latencies.sort_unstable_by(f64::total_cmp);
    [50, 99].map(|percent| latencies[latencies.len() * percent / 100] / 1e3)
}

fn report(runtime: &Runtime, death: Death, name: &str) {
    let mut tails = [const { Vec::new() }; 3];
    let mut turn = |index: usize, how| {
        let [p50, p99] = latency(runtime, how, death);
        tails[index].push(p99);
        p50
    };
    // One closure cannot be lent to three variants, so the turns are taken here.
    let mut halves = [const { Vec::new() }; 3];
    for _ in 0..20 {
        for (index, how) in [Loop::JoinSet, Loop::Bare, Loop::Attached].into_iter().enumerate() {
            halves[index].push(turn(index, how));
        }
    }
    let [plain, bare, attached] = halves.map(support::quiet_tenth);
    let tails = tails.map(support::quiet_tenth);
    println!(
        "{name}: death to replacement running, p50 / p99 of {LATENCIES} back to back, the quiet tenth of 20 rounds"
    );
    for (name, p50, p99) in
        [("JoinSet loop", plain, tails[0]), ("bare bus", bare, tails[1]), ("history + metrics", attached, tails[2])]
    {
        println!("  {name}: {p50:.2} us / {p99:.2} us");
    }
    // The target is for a panic. A task that returns an error costs a JoinSet next to nothing, so that any telemetry is much
    // beside it.
    for (tail, ratio) in [("p50", attached / plain), ("p99", tails[2] / tails[0])] {
        let what = format!("ratio: {name}, {tail}, telemetry on / JoinSet");
        match death {
            Death::Panic => support::verdict(&what, ratio, "", Target::AtMost(2.0)),
            Death::Error => support::figure(&what, ratio, ""),
        }
    }
    for children in [1, 100] {
        let took = |how| crash(runtime, how, death, RESTARTS, children).0 / RESTARTS as f64;
        let [plain, bare, attached] =
            support::by_turns(5, [&mut || took(Loop::JoinSet), &mut || took(Loop::Bare), &mut || took(Loop::Attached)]);
        let [plain_k, bare_k, attached_k] = [plain, bare, attached].map(|ns| 1e6 / ns);
        println!(
            "{name}, {children} children: JoinSet {plain_k:.0} k restarts/s, bare bus {bare_k:.0} k, history + metrics {attached_k:.0} k"
        );
        support::figure(
            &format!("ratio: {name}, {children} children, time per restart / JoinSet"),
            attached / plain,
            "",
        );
    }
}

/// Bytes of one idle child, in a process that did nothing else.
fn idle_in_new_process(kind: &str) -> f64 {
    let bench = std::env::current_exe().unwrap();
    let output = Command::new(bench).env(IDLE_ENV, kind).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
}

async fn idle(kind: &str) -> f64 {
    let attached = match kind {
        "own series" => Attached::for_supervisors(1000, 2 * IDLE),
        _ => Attached::for_supervisors(1000, 10_000),
    };
    let telemetry = &attached.telemetry;
    let child =
        |number: usize| ChildSpec::task(format!("child-{number:05}"), |stop| async move { stop.stopped().await });
    let before = support::memory("VmRSS");
    let after = match kind {
        "JoinSet" => {
            let mut set = JoinSet::new();
            (0..IDLE).for_each(|_| drop(set.spawn(std::future::pending::<()>())));
            tokio::task::yield_now().await;
            support::memory("VmRSS")
        }
        "dynamic" => {
            let handle = Supervisor::new("idle").strategy(Strategy::Dynamic).start(telemetry).await.unwrap();
            for number in 0..IDLE {
                handle.start_child(child(number).kind("worker")).await.unwrap();
            }
            support::memory("VmRSS")
        }
        "own series" => {
            // As many children as one supervisor may have with a series for each.
            let mut handles = Vec::new();
            for number in 0..IDLE / 50 {
                let supervisor = Supervisor::new(format!("idle-{number:03}"));
                let supervisor = (0..50).fold(supervisor, |supervisor, number| supervisor.child(child(number)));
                handles.push(supervisor.start(telemetry).await.unwrap());
            }
            support::memory("VmRSS")
        }
        "one by one" => {
            let handle = Supervisor::new("idle").start(telemetry).await.unwrap();
            for number in 0..IDLE {
                handle.start_child(child(number)).await.unwrap();
            }
            support::memory("VmRSS")
        }
        _ => {
            let supervisor =
                (0..IDLE).fold(Supervisor::new("idle"), |supervisor, number| supervisor.child(child(number)));
            let _handle = supervisor.start(telemetry).await.unwrap();
            support::memory("VmRSS")
        }
    };
    (after - before) / IDLE as f64
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    if let Ok(kind) = std::env::var(IDLE_ENV) {
        // On a worker, as in a program; the allocator has an arena for each thread.
        println!("{}", runtime.block_on(async { tokio::spawn(async move { idle(&kind).await }).await.unwrap() }));
        return;
    }
    // Before the library puts its own in front of it: printing would be all that is measured.
    std::panic::set_hook(Box::new(|_| {}));

    let mut criterion = support::criterion();
    let mut group = criterion.benchmark_group("1000 restarts of a task that returns an error");
    for (name, how) in [("JoinSet", Loop::JoinSet), ("bare bus", Loop::Bare), ("history + metrics", Loop::Attached)] {
        group.bench_function(name, |bencher| bencher.iter(|| crash(&runtime, how, Death::Error, 1000, 1)));
    }
    group.finish();
    criterion.final_summary();
    if !support::is_bench() {
        return;
    }

    report(&runtime, Death::Panic, "panic");
    report(&runtime, Death::Error, "error");
    support::figure("bytes of an idle task in a JoinSet", idle_in_new_process("JoinSet"), "");
    for kind in ["static", "one by one", "own series", "dynamic"] {
        let what = format!("bytes of an idle child, {kind}, telemetry on");
        support::verdict(&what, idle_in_new_process(kind), "", Target::AtMost(1024.0));
    }
}
