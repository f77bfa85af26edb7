//! Many children that come and go under a dynamic supervisor, as the endpoint shows them.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use restart_exporter::Exporter;
use restart_exporter::event::EventKind;
use restart_exporter::prelude::*;

use crate::world::{Events, get, listening, sample, until};

const CHILDREN: usize = 10_000;

/// Kinds of children, twice as many as are told apart under one supervisor.
const KINDS: usize = 100;
const TOLD_APART: usize = 50;

/// Starts [`CHILDREN`], of kinds by turns. Each tenth fails in its first run; then all end by themselves.
async fn come_and_go(pool: &SupervisorHandle, events: &mut Events, kind: impl Fn(usize) -> Option<String>) {
    for number in 0..CHILDREN {
        let fails = AtomicBool::new(number.is_multiple_of(10));
        let spec = ChildSpec::task(format!("job-{number}"), move |_stop| {
            let result = if fails.swap(false, Relaxed) { Err("no disk") } else { Ok(()) };
            async move { result }
        });
        let spec = spec.restart(Restart::Transient);
        let spec = match kind(number) {
            Some(kind) => spec.kind(kind),
            None => spec,
        };
        pool.start_child(spec).await.unwrap();
    }
    // Each has one end, and a second one if it was restarted.
    for _ in 0..CHILDREN + CHILDREN / 10 {
        events.next(EventKind::ChildTerminate).await;
    }
}

/// Samples of the supervisor, and the restarts of each of its children: label and value.
fn shown(text: &str) -> (usize, Vec<(&str, f64)>) {
    let samples = text.lines().filter(|line| line.contains("supervisor=\"pool\"")).count();
    let prefix = "supervisor_child_restarts_total{supervisor=\"pool\",child=\"";
    let restarts = text.lines().filter_map(|line| {
        let (child, value) = line.strip_prefix(prefix)?.split_once("\",cause=\"failure\"} ")?;
        Some((child, value.parse().unwrap()))
    });
    (samples, restarts.collect())
}

async fn pool(exporter: &Exporter) -> SupervisorHandle {
    let pool = Supervisor::new("pool").strategy(Strategy::Dynamic).max_restarts(1_000_000).max_seconds(1);
    exporter.supervise(pool).await.unwrap()
}

// Series follow the kinds of children and never the children: ten thousand come and go, the number of samples stays, no
// death is missing in the sums, and the kinds beyond the limit are counted together.
#[tokio::test]
async fn ten_thousand_dynamic_children_leave_bounded_series_and_exact_sums() {
    let (exporter, address) = listening(Exporter::builder()).await;
    let mut events = Events::of(exporter.telemetry());
    let pool = pool(&exporter).await;
    let kind = |number: usize| Some(format!("kind-{}", number / 10 % KINDS));
    come_and_go(&pool, &mut events, kind).await;
    let text = get(address, "/metrics").await.body;
    let (samples, restarts) = shown(&text);
    assert_eq!(restarts.len(), TOLD_APART + 1);
    let restarts_of_a_kind = (CHILDREN / 10 / KINDS) as f64;
    let (other, kinds): (Vec<_>, Vec<_>) = restarts.iter().partition(|(child, _)| *child == "_other");
    assert!(kinds.iter().all(|(_, restarts)| *restarts == restarts_of_a_kind), "{kinds:?}");
    assert_eq!(other, [("_other", restarts_of_a_kind * (KINDS - TOLD_APART) as f64)]);
    let total = |round: f64| {
        for (series, per_round) in [
            ("supervisor_child_start_attempts_total{supervisor=\"pool\"}", 11_000.0),
            ("supervisor_child_start_errors_total{supervisor=\"pool\"}", 0.0),
            ("supervisor_child_terminations_total{supervisor=\"pool\",reason=\"error\"}", 1_000.0),
            ("supervisor_child_terminations_total{supervisor=\"pool\",reason=\"normal\"}", 10_000.0),
            ("supervisor_child_lifetime_seconds_count{supervisor=\"pool\"}", 11_000.0),
            ("supervisor_child_downtime_seconds_count{supervisor=\"pool\"}", 1_000.0),
        ] {
            let text = exporter.metrics().render();
            assert_eq!(sample(&text, series), Some(per_round * round), "{series}");
            assert_eq!(shown(&text).1.iter().map(|(_, restarts)| restarts).sum::<f64>(), 1_000.0 * round);
        }
    };
    total(1.0);
    assert_eq!(sample(&text, "supervisor_children{supervisor=\"pool\",state=\"running\"}"), Some(0.0));

    come_and_go(&pool, &mut events, kind).await;
    assert_eq!(shown(&exporter.metrics().render()).0, samples, "as many samples as before");
    total(2.0);
}

// A child without a kind has no name that lasts: all such are one.
#[tokio::test]
async fn dynamic_children_without_a_kind_are_counted_together() {
    let (exporter, _address) = listening(Exporter::builder()).await;
    let mut events = Events::of(exporter.telemetry());
    let pool = pool(&exporter).await;
    come_and_go(&pool, &mut events, |_| None).await;
    let text = exporter.metrics().render();
    let dynamic: Vec<_> = shown(&text).1.into_iter().filter(|(_, restarts)| *restarts > 0.0).collect();
    assert_eq!(dynamic, [("_dynamic", 1_000.0)]);
}

// Children may share an id: a button on the page names the run that it is for, and stays with it. What they die of is known of
// all of a kind together, and said of that.
#[tokio::test]
async fn dynamic_children_of_one_id_are_not_mistaken_for_each_other() {
    let (exporter, address) = listening(Exporter::builder().admin_api(true)).await;
    let pool = pool(&exporter).await;
    for _ in 0..2 {
        let fails = AtomicBool::new(true);
        let spec = ChildSpec::task("same", move |stop| {
            let fails = fails.swap(false, Relaxed);
            async move {
                if fails {
                    return Err("no disk");
                }
                stop.stopped().await;
                Ok(())
            }
        });
        pool.start_child(spec.restart(Restart::Transient).kind("job")).await.unwrap();
    }
    let pids = until("both run again", async || {
        let view = exporter.control().supervisors().swap_remove(0);
        let again = view.children.iter().filter(|child| child.restarts == 1);
        let pids: Vec<_> = again.filter_map(|child| child.pid).collect();
        (pids.len() == 2).then_some(pids)
    })
    .await;
    let page = get(address, "/?supervisor=pool&child=same").await.body;
    for pid in pids {
        let row = format!("<tr class=\"child\" data-key=\"?supervisor=pool&amp;child=same {pid}\">");
        let form = format!("<details class=\"act\" data-key=\"stop?supervisor=pool&amp;child={pid}\">");
        for part in [row, form, format!("<button>stop same ({pid}) now</button>")] {
            assert!(page.contains(&part), "{part} is not in {page}");
        }
    }
    assert!(page.contains("2 of the 2 deaths of all job"), "{page}");
    assert!(page.contains("<td class=\"number\">2</td><th scope=\"row\">job</th>"), "{page}");
    exporter.shutdown().await;
}
