//! What breaks, and the counts afterwards: they are what the test did, exactly.

use std::time::Duration;

use rustix::process::Signal;
use tokio::time::sleep;

use super::world::{Exporter, Node, NodeBuilder};

const RESTARTS: &str = "supervisor_child_restarts_total";
const TERMINATIONS: &str = "supervisor_child_terminations_total";
const LOST: &str = "restart_exporter_node_events_lost_total";
const AGGREGATED: &str = "restart_exporter_node_events_aggregated_total";

/// How long an exporter stays away; with `RESTART_EXPORTER_TEST_OUTAGE=30` as long as the original promise has it.
fn outage() -> Duration {
    let seconds = std::env::var("RESTART_EXPORTER_TEST_OUTAGE").ok().and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(seconds.unwrap_or(2))
}

/// A supervisor of one worker that may be killed without end, on a node that does not print it.
async fn stormy(node: &mut Node) {
    node.check("logger:remove_handler(default).", "ok").await;
    node.ask("tree:start(storm, #{intensity => 1000000, period => 1}, [tree:child(s)]).").await;
}

/// So many deaths, each followed by a restart for that reason, were heard, and none of anything else.
async fn all_is_counted(exporter: &Exporter, deaths: u32) {
    let storm = ("supervisor", "storm");
    exporter.counts(RESTARTS, &[storm, ("cause", "failure")], f64::from(deaths)).await;
    exporter.counts(TERMINATIONS, &[storm, ("reason", "killed")], f64::from(deaths)).await;
    let metrics = exporter.metrics().await;
    assert_eq!(metrics.sum(RESTARTS, &[storm]), f64::from(deaths));
    assert_eq!(metrics.sum(TERMINATIONS, &[storm]), f64::from(deaths));
    assert_eq!(metrics.sum(LOST, &[]), 0.0);
}

// More happens than the agent may hold, so the rest arrives as counts.
#[tokio::test]
async fn an_exporter_that_stands_still_under_load_misses_nothing() {
    let exporter = Exporter::start().await;
    let mut node = NodeBuilder::erlang().start();
    node.watch(&exporter).await;
    stormy(&mut node).await;
    node.check("tree:storm(s, 1000).", "ok").await;
    exporter.running.signal(Signal::STOP);
    node.tell("tree:storm(s, 20000).");
    sleep(outage()).await;
    assert_eq!(node.answer().await, "ok");
    exporter.running.signal(Signal::CONT);
    node.check("tree:storm(s, 1000).", "ok").await;
    all_is_counted(&exporter, 22_000).await;
    assert!(exporter.metrics().await.sum(AGGREGATED, &[]) > 0.0, "the test was too small");
}

// What the old exporter had not acknowledged the new one gets; nothing is lost between them.
#[tokio::test]
async fn the_next_exporter_goes_on_where_the_last_one_ended() {
    let exporter = Exporter::start().await;
    let mut node = NodeBuilder::erlang().start();
    node.watch(&exporter).await;
    stormy(&mut node).await;
    node.tell("tree:storm(s, 3000).");
    sleep(Duration::from_millis(100)).await;
    let exporter = exporter.again().await;
    assert_eq!(node.answer().await, "ok");
    node.status("connection", "live").await;
    let acked: f64 = node.ask("maps:get(resumed, restart_agent:status()).").await.parse().unwrap();
    // Of each death two reports, and one each of the starts of child and supervisor.
    node.status("queue", "0").await;
    let seen: f64 = node.status_now("seen").await.parse().unwrap();
    exporter.counts("restart_exporter_node_events_total", &[], seen - acked).await;
    assert_eq!(exporter.metrics().await.sum(LOST, &[]), 0.0);
    node.check("tree:storm(s, 10).", "ok").await;
    exporter.counts("restart_exporter_node_events_total", &[], seen - acked + 20.0).await;
}

#[tokio::test]
async fn an_agent_that_is_killed_again_and_again_loses_nothing() {
    let exporter = Exporter::start().await;
    let mut node = NodeBuilder::erlang().start();
    node.watch(&exporter).await;
    stormy(&mut node).await;
    node.ask("spawn(fun() -> [begin timer:sleep(150), exit(tree:await(restart_agent), kill) end || _ <- lists:seq(1, 4)] end).").await;
    node.check("tree:storm(s, 5000).", "ok").await;
    all_is_counted(&exporter, 5000).await;
    node.check("is_pid(whereis(restart_agent_keeper)).", "true").await;
}

#[tokio::test]
async fn a_node_that_is_killed_and_comes_back_under_its_name_is_the_same_node() {
    let exporter = Exporter::start().await;
    for run in 1..=2 {
        let mut node = NodeBuilder::erlang().args(&["-sname", "payments"]).start();
        node.watch(&exporter).await;
        stormy(&mut node).await;
        node.check("tree:storm(s, 100).", "ok").await;
        all_is_counted(&exporter, run * 100).await;
        node.kill();
    }
    let metrics = exporter.metrics().await;
    assert_eq!(metrics.sum("restart_exporter_node_up", &[]), 1.0, "one node");
    let storm = exporter.supervisor("storm").await;
    assert!(storm["node"].as_str().unwrap().starts_with("payments@"), "{storm}");
}

// Elixir's Logger takes the tap along when it stops.
#[tokio::test]
async fn a_logger_that_is_restarted_gets_the_tap_again() {
    let exporter = Exporter::start().await;
    let mut node = NodeBuilder::elixir().start();
    node.watch(&exporter).await;
    node.ask(":tree.start(:storm, %{intensity: 1000000, period: 1}, [:tree.child(:s)])").await;
    node.check(":tree.storm(:s, 100)", ":ok").await;
    node.check("Application.stop(:logger)", ":ok").await;
    node.status("reinstalls", "1").await;
    node.check(":tree.storm(:s, 100)", ":ok").await;
    node.check("Application.start(:logger)", ":ok").await;
    node.check(":tree.storm(:s, 100)", ":ok").await;
    all_is_counted(&exporter, 300).await;
    let reinstalls = node.status_now("reinstalls").await.parse().unwrap();
    exporter.counts("restart_exporter_node_tap_reinstalls_total", &[], reinstalls).await;
}

#[tokio::test]
async fn a_hundred_thousand_tasks_that_die_at_once_are_counted_to_the_last() {
    let exporter = Exporter::start().await;
    let mut node = NodeBuilder::elixir().start();
    node.watch(&exporter).await;
    node.ask("{:ok, _} = Supervisor.start_link([{Task.Supervisor, name: Crowd}], strategy: :one_for_one)").await;
    exporter.knows(&["Crowd"]).await;
    node.ask("pids = for _ <- 1..100_000, do: elem(Task.Supervisor.start_child(Crowd, fn -> Process.sleep(:infinity) end), 1); length(pids)").await;
    node.check("Enum.each(pids, &Process.exit(&1, :kill))", ":ok").await;
    let crowd = ("supervisor", "Crowd");
    exporter.counts(TERMINATIONS, &[crowd, ("reason", "killed")], 100_000.0).await;
    let metrics = exporter.metrics().await;
    assert_eq!((metrics.sum(TERMINATIONS, &[crowd]), metrics.sum(RESTARTS, &[crowd])), (100_000.0, 0.0));
    assert_eq!(metrics.sum(LOST, &[]), 0.0);
}

// A reason may be anything, also what looks like a stack and is none: it is told, and what comes after it as well.
#[tokio::test]
async fn a_reason_that_looks_like_a_stack_does_not_stop_the_agent() {
    let exporter = Exporter::start().await;
    let mut node = NodeBuilder::erlang().start();
    node.watch(&exporter).await;
    stormy(&mut node).await;
    for reason in
        ["{invalid, [{users, email, required, missing}]}", "{invalid, [{m, f, [a|b], [{file, 1}, {line, 2}]}]}"]
    {
        node.ask(&format!("tree:die(s, {reason}), tree:await(s).")).await;
    }
    node.check("tree:storm(s, 10).", "ok").await;
    let storm = ("supervisor", "storm");
    exporter.counts(RESTARTS, &[storm, ("cause", "failure")], 12.0).await;
    exporter.counts(TERMINATIONS, &[storm, ("reason", "error")], 2.0).await;
    assert_eq!(exporter.metrics().await.sum(LOST, &[]), 0.0);
}

// The supervisor of the application starts the keeper again, once, and never has to give up for it.
#[tokio::test]
async fn a_keeper_that_is_killed_costs_its_supervisor_one_restart() {
    let exporter = Exporter::start().await;
    let mut node = NodeBuilder::erlang().start();
    let spec = format!("restart_agent:child_spec(#{{address => \"{}\"}})", exporter.address());
    node.ask(&format!("tree:start(top, #{{intensity => 1}}, [{spec}]).")).await;
    node.status("connection", "live").await;
    node.check("exit(tree:await(restart_agent_keeper), kill).", "true").await;
    sleep(Duration::from_millis(500)).await;
    node.status("connection", "live").await;
    node.check("is_pid(whereis(top)).", "true").await;
    stormy(&mut node).await;
    node.check("tree:storm(s, 10).", "ok").await;
    exporter.counts(TERMINATIONS, &[("supervisor", "storm"), ("reason", "killed")], 10.0).await;
}

// A supervisor without a name is told when it was asked where it stands; its events do not wait for that.
#[tokio::test]
async fn many_supervisors_without_a_name_are_told_before_their_events() {
    let exporter = Exporter::start().await;
    let mut node = NodeBuilder::erlang().start();
    node.watch(&exporter).await;
    let start = "lists:foreach(fun(N) -> {ok, S} = supervisor:start_link(tree, {#{intensity => 9}, []}), \
        supervisor:start_child(S, tree:child(list_to_atom(\"w\" ++ integer_to_list(N)))) end, lists:seq(1, 300)).";
    node.check(start, "ok").await;
    node.status("queue", "0").await;
    let metrics = exporter.metrics().await;
    assert_eq!(metrics.sum("restart_exporter_telemetry_events_dropped_total", &[]), 0.0);
    exporter.counts("supervisor_child_start_attempts_total", &[("supervisor", "tree")], 300.0).await;
}
