//! The design document's own test, section 4, with real OTP supervisors.

use super::world::{Exporter, NodeBuilder};

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
