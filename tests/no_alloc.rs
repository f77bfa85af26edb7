//! An event of a known child costs no allocation, once its supervisor's rings are full.

#[path = "../benches/support/events.rs"]
mod events;

use std::time::Duration;

use restart_exporter::analytics::{Analytics, AnalyticsConfig, MAX_SECONDS_COUNTED};
use restart_exporter::event::Event;
use restart_exporter::metrics::{Metrics, MetricsConfig};
use restart_exporter::telemetry::{Telemetry, now};

use events::{Tree, later, storm};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

// The only test of its binary, because dhat counts the allocations of all threads.
#[test]
fn events_of_known_children_allocate_nothing_once_the_rings_are_full() {
    let telemetry = Telemetry::new();
    let analytics = Analytics::new(AnalyticsConfig::default());
    let metrics = Metrics::new(MetricsConfig::default(), &telemetry, &analytics);
    analytics.attach(&telemetry).unwrap();
    metrics.attach().unwrap();

    let (trees, begin) = (Tree::forest(2, 4), now());
    trees.iter().for_each(|tree| tree.start(&telemetry, begin));
    // One crash a second fills the ring of seconds too.
    let filling = (0..MAX_SECONDS_COUNTED as u64 + 1).map(|second| later(begin, Duration::from_secs(second)));
    for (number, time) in filling.enumerate() {
        for tree in &trees {
            tree.crash(number as u64, time).iter().for_each(|event| telemetry.execute(event));
        }
    }
    let filled = later(begin, Duration::from_secs(MAX_SECONDS_COUNTED as u64 + 1));
    let events: Vec<Event> =
        (0..2500).flat_map(|ms| storm(&trees, 1, later(filled, Duration::from_millis(ms)))).collect();
    assert_eq!(events.len(), 10_000);

    let _profiler = dhat::Profiler::builder().testing().build();
    let before = dhat::HeapStats::get().total_blocks;
    events.iter().for_each(|event| telemetry.execute(event));
    let after = dhat::HeapStats::get().total_blocks;
    assert_eq!(after - before, 0, "blocks allocated by 10,000 events");
    assert_eq!(analytics.all_supervisor_stats().total_restarts, 2 * (MAX_SECONDS_COUNTED as u64 + 1) + 5000);
}
