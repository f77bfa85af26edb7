//! The design document's own test, section 4, with real OTP supervisors.

use super::world::{Exporter, NodeBuilder};
use crate::world::until;

// "tracks restart events via telemetry": start a demo supervisor, kill a child; its history has the death and the restart,
// and the failure rate of ten seconds counts it.
#[tokio::test]
async fn a_killed_child_of_a_demo_supervisor_is_in_the_history_in_the_metrics_and_in_the_failure_rate() {
    let exporter = Exporter::start().await;
    let mut node = NodeBuilder::elixir().start();
    node.watch(&exporter).await;
    node.ask(
        "{:ok, sup} = Supervisor.start_link([%{id: :counter, start: {Agent, :start_link, [fn -> 0 end]}}], strategy: :one_for_one, name: :telemetry_test)",
    )
    .await;
    let killed = node.ask("[{_, pid, _, _}] = Supervisor.which_children(sup); Process.exit(pid, :kill); pid").await;
    exporter.history_is("telemetry_test", &["terminated counter killed", "restarted counter failure"]).await;
    let after = node.ask("[{_, pid, _, _}] = Supervisor.which_children(sup); pid").await;

    let history = exporter.running.data("/api/v1/history?supervisor=telemetry_test").await;
    let (restarted, terminated) = (&history["events"][0], &history["events"][1]);
    let elixir = |pid: &serde_json::Value| format!("#PID{}", pid.as_str().unwrap());
    assert_eq!(elixir(&terminated["child_pid"]), killed);
    assert_eq!(elixir(&restarted["child_pid"]), after);
    assert!(restarted["downtime_ms"].is_u64() && terminated["lifetime_ms"].is_u64(), "{history}");

    let rate = exporter.running.data("/api/v1/failure_rate?supervisor=telemetry_test&window=10s").await;
    assert_eq!((&rate["restarts"], &rate["failures"]), (&1.into(), &1.into()));
    let metrics = exporter.metrics().await;
    let counter = [("supervisor", "telemetry_test"), ("child", "counter"), ("cause", "failure")];
    assert_eq!(metrics.sum("supervisor_child_restarts_total", &counter), 1.0);
    let known = exporter.supervisor("telemetry_test").await;
    assert_eq!((&known["strategy"], &known["max_restarts"]), (&"one_for_one".into(), &3.into()));
    assert!(known["node"].as_str().unwrap().starts_with("nonode@"), "{known}");
}

// The same on the node itself, where the document has an `AnalyticsServer` that attaches to the five events: it reads each field
// that the document reads, and `child_pid` is the run that died. A supervisor without a name is shown by its pid.
#[tokio::test]
async fn handlers_on_the_node_are_told_what_the_document_reads() {
    let exporter = Exporter::start().await;
    let mut node = NodeBuilder::elixir().start();
    let server = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/fixtures/beam/analytics.exs");
    node.ask(&format!("Code.require_file({server:?}); {{:ok, _}} = Analytics.start_link()")).await;
    node.ask(&format!(":restart_agent.start(address: \"{}\", telemetry: true)", exporter.address())).await;
    node.status("connection", "live").await;
    for (options, name) in [("name: :demo, ", ":demo"), ("", "inspect(sup)")] {
        let child = "%{id: :counter, start: {Agent, :start_link, [fn -> 0 end]}}";
        let start = format!("{{:ok, sup}} = Supervisor.start_link([{child}], {options}strategy: :one_for_one)");
        node.ask(&start).await;
        node.ask("[{_, old, _, _}] = Supervisor.which_children(sup); Process.exit(old, :kill)").await;
        let expected = "[{:restart, :counter, old, :killed, false}, {:terminate, :counter, old, :killed, false}, {:start, :counter, old}]";
        let is_told = async || {
            let answer = node.ask(&format!("Analytics.history(sup) == {expected}")).await;
            (answer == "true").then_some(())
        };
        until("the history on the node", is_told).await;
        node.check(&format!("Analytics.info(sup) == {{{name}, :one_for_one, 3, 5}}"), "true").await;
    }
}
