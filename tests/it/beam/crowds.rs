//! Supervisors with thousands of children: their restarts are counted as exactly as those of small ones.

use super::world::{Exporter, Node, NodeBuilder};

/// Children of each supervisor, each with a start argument of 100 elements: far more than may be copied.
const CHILDREN: usize = 5000;

/// Children that are killed at once where siblings do not matter.
const KILLED: usize = 2040;

/// Deaths one after the other where siblings are restarted too.
const DEATHS: usize = 3;

/// The child that dies under `rest_for_one`: those that were started after it are restarted.
const VICTIM: usize = 4965;

const RESTARTS: &str = "supervisor_child_restarts_total";
const DEATHS_TOLD: &str = "supervisor_child_terminations_total";

async fn start_all(node: &mut Node) {
    for strategy in ["simple_one_for_one", "one_for_one", "one_for_all", "rest_for_one"] {
        node.check(&format!("crowd:start(crowd_{strategy}, {strategy}, {CHILDREN})."), "ok").await;
    }
}

/// Kills children of all, and returns how long the first storm took, in microseconds.
async fn storm(node: &mut Node) -> f64 {
    let took = node.ask(&format!("crowd:kill(crowd_simple_one_for_one, {KILLED}).")).await;
    node.ask(&format!("crowd:kill(crowd_one_for_one, {KILLED}).")).await;
    node.check(&format!("crowd:kill(crowd_one_for_all, 17, {DEATHS})."), "ok").await;
    node.check(&format!("crowd:kill(crowd_rest_for_one, {VICTIM}, {DEATHS})."), "ok").await;
    took.parse().unwrap()
}

/// Everything is counted, by cause, and the budgets are known.
async fn is_exact(exporter: &Exporter) {
    let siblings = [("one_for_all", CHILDREN - 1), ("rest_for_one", CHILDREN - VICTIM)];
    let of = |strategy: &str| format!("crowd_{strategy}");
    for strategy in ["simple_one_for_one", "one_for_one"] {
        let name = of(strategy);
        let name = ("supervisor", name.as_str());
        exporter.counts(DEATHS_TOLD, &[name], KILLED as f64).await;
        exporter.counts(RESTARTS, &[name, ("cause", "failure")], KILLED as f64).await;
        exporter.counts(RESTARTS, &[name], KILLED as f64).await;
    }
    for (strategy, siblings) in siblings {
        let name = of(strategy);
        let name = ("supervisor", name.as_str());
        exporter.counts(DEATHS_TOLD, &[name], DEATHS as f64).await;
        exporter.counts(RESTARTS, &[name, ("cause", "failure")], DEATHS as f64).await;
        exporter.counts(RESTARTS, &[name, ("cause", "sibling")], (DEATHS * siblings) as f64).await;
        exporter.counts(RESTARTS, &[name, ("cause", "requested")], 0.0).await;
    }
    for strategy in ["simple_one_for_one", "one_for_one", "one_for_all", "rest_for_one"] {
        let supervisor = exporter.supervisor(&of(strategy)).await;
        let shown = if strategy == "simple_one_for_one" { "dynamic" } else { strategy };
        let said = (&supervisor["strategy"], &supervisor["max_restarts"]);
        assert_eq!(said, (&shown.into(), &100_000.into()), "{supervisor}");
        assert!(supervisor["restarts_left"].as_u64().is_some_and(|left| left <= 100_000), "{supervisor}");
    }
}

// A supervisor of each strategy with 5,000 children, killed in storms, with an agent that was there before them.
#[tokio::test]
async fn large_supervisors_are_counted_by_cause() {
    let exporter = Exporter::start().await;
    let mut node = NodeBuilder::erlang().start();
    node.watch(&exporter).await;
    start_all(&mut node).await;
    storm(&mut node).await;
    is_exact(&exporter).await;
}

// The same with an agent that finds them. What asking costs is printed: the same storm without an agent, and with it.
#[tokio::test]
async fn large_supervisors_that_are_found_are_counted_by_cause() {
    let exporter = Exporter::start().await;
    let mut node = NodeBuilder::erlang().start();
    start_all(&mut node).await;
    let mut alone = f64::MAX;
    for _ in 0..3 {
        alone = alone.min(node.ask(&format!("crowd:kill(crowd_simple_one_for_one, {KILLED}).")).await.parse().unwrap());
    }
    node.watch(&exporter).await;
    exporter.knows(&["crowd_simple_one_for_one", "crowd_one_for_one", "crowd_one_for_all", "crowd_rest_for_one"]).await;
    let watched = storm(&mut node).await;
    eprintln!("a storm of {KILLED} deaths with the agent takes {:.2} × the time without", watched / alone);
    is_exact(&exporter).await;
}
