//! The supervisors of Elixir, under Elixir's default logger settings: it does not show reports of supervisors then.

use super::world::{Exporter, NodeBuilder};

#[tokio::test]
async fn each_kind_of_elixir_supervisor_is_heard_with_the_default_logger_settings() {
    let exporter = Exporter::start().await;
    let mut node = NodeBuilder::elixir().start();
    node.watch(&exporter).await;
    node.check("Application.get_env(:logger, :handle_sasl_reports, false)", "false").await;

    for line in [
        "{:ok, _} = Supervisor.start_link([:tree.child(:plain)], strategy: :one_for_one, name: My.Supervisor)",
        "dynamic = {DynamicSupervisor, strategy: :one_for_one, max_restarts: 9, name: My.Dynamic}",
        "tasks = {Task.Supervisor, name: My.Tasks}",
        "partitions = {PartitionSupervisor, child_spec: {Agent, fn -> 0 end}, partitions: 2, name: My.Partitions}",
        "registry = {Registry, keys: :unique, name: My.Registry}",
        "inner = {Supervisor, :start_link, [[:tree.child(:deep)], [strategy: :one_for_one]]}",
        "children = [dynamic, tasks, partitions, registry, %{id: Inner, type: :supervisor, start: inner}]",
        "{:ok, _} = Supervisor.start_link(children, strategy: :one_for_one, name: My.Outer)",
    ] {
        let answer = node.ask(line).await;
        assert!(!answer.contains(":error"), "{line}: {answer}");
    }
    exporter
        .knows(&[
            "My.Supervisor",
            "My.Dynamic",
            "My.Tasks",
            "My.Partitions",
            "My.Registry",
            "My.Outer",
            "My.Outer/Inner",
        ])
        .await;

    for line in [
        ":tree.die(:plain, :kill); :tree.await(:plain)",
        // Of dynamic children only ends and failures are reported.
        "for name <- [:d1, :d2], do: {:ok, _} = DynamicSupervisor.start_child(My.Dynamic, :tree.child(name))",
        ":tree.next(:d1, [{:error, :flaky}]); :tree.die(:d1, :boom); :tree.await(:d1)",
        "Task.Supervisor.start_child(My.Tasks, fn -> Process.exit(self(), :kill) end)",
        "Task.Supervisor.start_child(My.Tasks, fn -> :done end)",
        "for {1, pid, _, _} <- Supervisor.which_children(My.Partitions), do: Process.exit(pid, :kill)",
        "[{_, pid, _, _}] = Supervisor.which_children(My.Registry); Process.exit(pid, :kill)",
        ":tree.die(:deep, :kill); :tree.await(:deep)",
    ] {
        node.ask(line).await;
    }
    // One that failed to restart may still be failing when others die, so that only time tells that it is back.
    exporter.counts("supervisor_child_restarts_total", &[("supervisor", "My.Dynamic")], 1.0).await;
    node.ask(":tree.die(:d2, :error, %RuntimeError{message: \"no balance\"}); :tree.await(:d2)").await;
    let worker = |event: &str| format!("{event} tree:worker/1");
    let dynamic = [
        worker("terminated") + " error",
        worker("start_error") + " error",
        worker("restarted") + " failure",
        worker("terminated") + " error",
        worker("restarted") + " failure",
    ];
    exporter.history_is("My.Dynamic", &dynamic.each_ref().map(String::as_str)).await;
    exporter.history_is("My.Supervisor", &["terminated plain killed", "restarted plain failure"]).await;
    exporter.history_is("My.Tasks", &["terminated Task.Supervised.start_link killed"]).await;
    exporter.history_is("My.Partitions", &["terminated 1 killed", "restarted 1 failure"]).await;
    let partition = "My.Registry.PIDPartition0";
    let restarted = [format!("terminated {partition} killed"), format!("restarted {partition} failure")];
    exporter.history_is("My.Registry", &restarted.each_ref().map(String::as_str)).await;
    exporter.history_is("My.Outer/Inner", &["terminated deep killed", "restarted deep failure"]).await;

    let causes = exporter.running.data("/api/v1/causes?supervisor=My.Dynamic").await;
    let details: Vec<_> =
        causes["causes"].as_array().unwrap().iter().map(|cause| &cause["sample"]["reason"]["detail"]).collect();
    let place = "RuntimeError: no balance in tree:work/0 (";
    assert!(details.iter().any(|detail| detail.as_str().unwrap().contains(place)), "{causes}");
}

// What Elixir 1.15 and later do: a primary filter stops every report of a supervisor before any handler.
#[tokio::test]
async fn a_filter_that_stops_the_reports_of_supervisors_does_not_stop_the_agent() {
    let exporter = Exporter::start().await;
    let mut node = NodeBuilder::elixir().start();
    let filter = "fn %{meta: %{domain: [:otp, :sasl | _]}}, _ -> :stop; _, _ -> :ignore end";
    node.check(&format!(":logger.add_primary_filter(:logger_translator, {{{filter}, []}})"), ":ok").await;
    node.watch(&exporter).await;
    node.ask(":tree.start(:stopped, %{intensity: 9}, [:tree.child(:s)])").await;
    node.ask(":tree.die(:s, :kill); :tree.await(:s)").await;
    exporter.history_is("stopped", &["terminated s killed", "restarted s failure"]).await;

    // One that is added later stands in front of the tap, until that is looked after.
    node.check(&format!(":logger.add_primary_filter(:later, {{{filter}, []}})"), ":ok").await;
    node.status("reinstalls", "1").await;
    node.ask(":tree.die(:s, :kill); :tree.await(:s)").await;
    exporter.counts("supervisor_child_restarts_total", &[("supervisor", "stopped")], 2.0).await;
    exporter.counts("restart_exporter_node_tap_reinstalls_total", &[], 1.0).await;
}
