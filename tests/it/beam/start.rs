//! How the agent is started and stopped, whom it lets in, and what it does not give away.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use super::world::{Exporter, NodeBuilder};
use crate::world::run_to_end;

// One line in a tree; the address from the environment.
#[tokio::test]
async fn one_line_in_a_supervision_tree_starts_it() {
    let exporter = Exporter::start().await;
    let mut node = NodeBuilder::elixir().env("RESTART_EXPORTER_ADDRESS", &exporter.address()).start();
    let children = "[:restart_agent, :tree.child(:w)]";
    node.ask(&format!("{{:ok, _}} = Supervisor.start_link({children}, strategy: :one_for_one, name: My.Top)")).await;
    node.ask(":tree.die(:w, :kill); :tree.await(:w)").await;
    exporter.history_is("My.Top", &["terminated w killed", "restarted w failure"]).await;
    // The tree stops it as any other child.
    node.check("Supervisor.terminate_child(My.Top, :restart_agent)", ":ok").await;
    node.check("for {id, _} <- :logger.get_primary_config().filters, id != :process_level, do: id", "[]").await;
    node.check(":logger.get_module_level()", "[]").await;
    exporter.counts("restart_exporter_node_up", &[], 0.0).await;
}

// As the README has it: the agent's file in src/ of a project that mix made, one line in its tree, a release of it.
#[tokio::test]
async fn a_release_of_a_mix_project_is_watched() {
    let exporter = Exporter::start().await;
    let directory = tempfile::tempdir().unwrap();
    let project = directory.path().join("my_app");
    mix(directory.path(), &["new", "my_app", "--sup"]);
    fs::create_dir(project.join("src")).unwrap();
    fs::write(project.join("src/restart_agent.erl"), run_to_end(&["beam-agent"]).stdout).unwrap();
    let application = project.join("lib/my_app/application.ex");
    let (source, begin) = (fs::read_to_string(&application).unwrap(), "children = [");
    assert!(source.contains(begin), "{source}");
    let children = format!(
        "{begin}
         {{:restart_agent, address: \"{}\"}},
         %{{id: :mailer, start: {{Agent, :start_link, [fn -> 0 end, [name: :mailer]]}}}},
         {{Task, fn -> Agent.stop(:mailer, :boom) end}},",
        exporter.address()
    );
    fs::write(&application, source.replacen(begin, &children, 1)).unwrap();
    mix(&project, &["release", "--quiet"]);
    let mut release = tokio::process::Command::new(project.join("_build/prod/rel/my_app/bin/my_app"));
    release.arg("start").env("RELEASE_DISTRIBUTION", "none").stdout(Stdio::null()).kill_on_drop(true);
    let mut release = release.spawn().unwrap();
    exporter.history_is("MyApp.Supervisor", &["terminated mailer error", "restarted mailer failure"]).await;
    release.kill().await.unwrap();
}

fn mix(directory: &Path, arguments: &[&str]) {
    let output = Command::new("mix").args(arguments).current_dir(directory).env("MIX_ENV", "prod").output();
    let output = output.unwrap_or_else(|error| panic!("mix cannot be run, install Elixir: {error}"));
    assert!(output.status.success(), "mix {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

// A node whose code must not be touched can be watched as well, by its command line; the application environment says where, too.
#[tokio::test]
async fn the_command_line_of_a_node_starts_it() {
    let exporter = Exporter::start().await;
    let address = exporter.address();
    let mut node =
        NodeBuilder::erlang().env("RESTART_EXPORTER_ADDRESS", &address).args(&["-s", "restart_agent"]).start();
    node.status("connection", "live").await;
    exporter.knows(&["kernel_sup"]).await;
    node.check("element(1, restart_agent:start()).", "error").await;
    node.check("restart_agent:stop().", "ok").await;
    node.check("restart_agent:stop().", "{error,not_started}").await;

    let mut node = NodeBuilder::erlang().start();
    node.check(&format!("application:set_env(restart_agent, address, \"{address}\")."), "ok").await;
    node.check("element(1, restart_agent:start()).", "ok").await;
    node.status("connection", "live").await;
}

// Telemetry must not take an application down: a tree with an agent that cannot start does start.
#[tokio::test]
async fn an_agent_with_wrong_options_is_left_out_of_its_tree() {
    let mut node = NodeBuilder::erlang().start();
    let wrong = "restart_agent:child_spec([{address, \"nowhere\"}])";
    node.check(&format!("element(1, tree:start(top, #{{}}, [{wrong}, tree:child(w)]))."), "ok").await;
    node.check("is_pid(whereis(w)).", "true").await;
    let printed = node.printed.join(" ");
    assert!(
        printed
            .contains("restart_agent is not started: {bad_address,\"nowhere\",\"HOST:PORT or unix:PATH is wanted\"}"),
        "{printed}"
    );
    node.check("element(1, restart_agent:start(#{adress => x})).", "error").await;
}

// Over TCP with a token: the wrong one is refused, the right one is nowhere to be read on the node.
#[tokio::test]
async fn a_token_opens_the_way_over_tcp_and_is_not_shown() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    fs::write(&file, "open-sesame").unwrap();
    let exporter = Exporter::start_tcp(&file).await;
    let address = exporter.address();
    let mut node = NodeBuilder::erlang().start();
    node.ask(&format!("restart_agent:start(#{{address => \"{address}\", token => \"closed\"}}).")).await;
    node.status("last_error", "closed").await;
    node.check("restart_agent:stop().", "ok").await;

    let spec = format!(
        "restart_agent:child_spec(#{{address => <<\"{address}\">>, token => <<\"open-sesame\">>, labels => #{{dc => eu}}}})"
    );
    node.check("logger:set_primary_config(level, all).", "ok").await;
    node.ask(&format!("tree:start(top, #{{}}, [{spec}]).")).await;
    node.status("connection", "live").await;
    node.ask("supervisor:get_childspec(top, restart_agent).").await;
    let statuses = "[{sys:get_status(P), sys:get_state(P)} || P <- [top, restart_agent, restart_agent_keeper]].";
    let status = node.ask(statuses).await;
    node.ask("tree:stop(top).").await;
    let printed = node.printed.join("\n");
    assert!(printed.contains("restart_agent"), "progress reports were printed: {printed}");
    assert!(!printed.contains("sesame") && !status.contains("sesame"), "{printed}\n{status}");
}

// For handlers on the node itself: the events of the design document.
#[tokio::test]
async fn the_agent_emits_telemetry_on_the_node_if_it_is_told_to() {
    let exporter = Exporter::start().await;
    let mut node = NodeBuilder::elixir().start();
    let events =
        "[:init], [:child, :start], [:child, :start_error], [:child, :terminate], [:child, :restart], [:terminate]";
    let attached = format!(
        ":telemetry.attach_many(:test, Enum.map([{events}], &[:supervisor | &1]), fn event, measured, metadata, pid -> send(pid, {{event, measured, metadata}}) end, self())"
    );
    node.check(&attached, ":ok").await;
    node.ask(&format!(":restart_agent.start(address: \"{}\", telemetry: true)", exporter.address())).await;
    node.status("connection", "live").await;
    node.ask(":tree.start(:told, %{intensity: 9}, [:tree.child(:w)])").await;
    exporter.knows(&["told"]).await;
    let pids = "old = Process.whereis(:w); :tree.next(:w, [{:error, :busy}]); :tree.die(:w, :boom); new = :tree.await(:w); :ok";
    node.check(pids, ":ok").await;
    node.check(":tree.stop(:told)", ":ok").await;
    let heard = |event: &str, pattern: &str, guard: &str| {
        format!(
            "receive do {{{event}, %{{system_time: _}}, %{{supervisor_pid: _, name: :told{pattern}}}}} when {guard} -> :heard after 5000 -> :missed end"
        )
    };
    for (event, pattern, guard) in [
        ("[:supervisor, :init]", ", strategy: :one_for_one, max_restarts: 9, max_seconds: 5", "true"),
        ("[:supervisor, :child, :start]", ", child_id: :w, child_pid: pid", "pid == old"),
        (
            "[:supervisor, :child, :terminate]",
            ", child_id: :w, child_pid: pid, reason: :boom, shutdown: false",
            "pid == old",
        ),
        (
            "[:supervisor, :child, :start_error]",
            ", child_id: :w, child_pid: pid, reason: :busy, shutdown: false",
            "pid == old",
        ),
        (
            "[:supervisor, :child, :restart]",
            ", child_id: :w, child_pid: pid, new_pid: next, reason: :boom, shutdown: false, cause: :failure",
            "pid == old and next == new",
        ),
        ("[:supervisor, :terminate]", ", reason: :shutdown", "true"),
    ] {
        node.check(&heard(event, pattern, guard), ":heard").await;
    }
}
