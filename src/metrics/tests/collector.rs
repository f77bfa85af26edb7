//! The collector: what a host's `prometheus::Registry` shows is what our own endpoint shows.

use std::collections::BTreeSet;

use prometheus::{Encoder, IntCounterVec, Opts, Registry, TextEncoder};
use proptest::prelude::*;

use super::*;

fn gathered(metrics: &Metrics) -> String {
    let registry = Registry::new();
    registry.register(Box::new(metrics.collector())).unwrap();
    let mut buffer = Vec::new();
    TextEncoder::new().encode(&registry.gather(), &mut buffer).unwrap();
    String::from_utf8(buffer).unwrap()
}

/// Samples as a set, without what changes from scrape to scrape, and numbers in one form, those of `le` too.
fn samples(text: &str) -> BTreeSet<String> {
    let changes = |line: &&str| line.starts_with("process_") || line.contains("scrape_duration_seconds");
    let lines = text.lines().filter(|line| !line.starts_with('#') && !changes(line));
    lines
        .map(|line| {
            let (series, value) = line.rsplit_once(' ').unwrap();
            format!("{} {}", series.replace(".0\"}", "\"}"), value.parse::<f64>().unwrap())
        })
        .collect()
}

// Both are written from the same walk; only the order of families and the form of numbers may differ.
#[test]
fn the_collector_yields_the_samples_of_the_endpoint() {
    let world = World::new(MetricsConfig { max_supervisors: 2, max_children: 2, ..MetricsConfig::default() });
    scripted(&world);
    world.metrics.http_handlers(&["/metrics"]);
    let ours = samples(&world.metrics.render());
    assert!(ours.len() > 150);
    assert_eq!(samples(&gathered(&world.metrics)), ours);
}

// Trap: `prometheus` finds a series by a hash of its label values put together without a separator.
#[test]
fn label_values_that_are_the_same_put_together_stay_apart() {
    let merged = IntCounterVec::new(Opts::new("restarts", "Restarts."), &["supervisor", "child"]).unwrap();
    merged.with_label_values(&["sup1", "2"]).inc();
    merged.with_label_values(&["sup", "12"]).inc();
    assert_eq!(merged.with_label_values(&["sup1", "2"]).get(), 2, "the trap is gone: simplify");

    let world = World::new(MetricsConfig::default());
    for (supervisor, child) in [("sup1", "2"), ("sup", "12")] {
        world.supervisor(supervisor).restart(child, RestartCause::Failure);
        let series = format!(
            "supervisor_child_restarts_total{{supervisor=\"{supervisor}\",child=\"{child}\",cause=\"failure\"}}"
        );
        assert_eq!(world.value(&series), Some(1.0));
        assert_eq!(value_in(&gathered(&world.metrics), &series), Some(1.0));
    }
}

proptest! {
    // Whatever names hold, each series is one line, and both writers agree on it.
    #[test]
    fn both_writers_agree_on_any_names(names in proptest::collection::btree_set("[\\\\\"\n{},=aé🦀 ]{0,6}", 1..4)) {
        let world = World::new(MetricsConfig::default());
        for name in &names {
            let supervisor = world.supervisor(name);
            supervisor.init_under(Some(name));
            names.iter().for_each(|child| supervisor.start(child));
        }
        prop_assert_eq!(world.lines("supervisor_info").len(), names.len());
        prop_assert_eq!(world.lines("supervisor_child_restarts_total").len(), 3 * names.len() * names.len());
        prop_assert_eq!(samples(&gathered(&world.metrics)), samples(&world.metrics.render()));
    }
}
