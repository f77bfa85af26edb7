//! What other handlers of the node print is the same, byte for byte, with the agent, without it and after it.

use std::fs;

use super::world::{Exporter, Node, NodeBuilder};

/// Adds a handler that writes everything it gets to a file, but for times.
async fn write_logs_to(node: &mut Node, file: &str) {
    let formatter = "{logger_formatter, #{single_line => true, template => [level, \" \", mfa, \" \", msg, \"\\n\"]}}";
    let config = format!("#{{config => #{{file => \"{file}\"}}, level => all, formatter => {formatter}}}");
    node.check(&format!("logger:add_handler(others, logger_std_h, {config})."), "ok").await;
}

/// A death, a restart, starts over the API, a supervisor that gives up, an unexpected message; then what was written meanwhile,
/// but for pids, which no two runs share.
async fn deaths(node: &mut Node, file: &str) -> String {
    let before = fs::read_to_string(file).unwrap_or_default().len();
    for line in [
        "tree:start(others, #{intensity => 1}, [tree:child(o1), tree:child(o2, #{start => {tree, stubborn, [o2]}})]).",
        "others ! unexpected.",
        "supervisor:start_child(others, tree:child(o3)).",
        "M = monitor(process, others), tree:die(o1, {badmatch, some}), tree:await(o1), tree:die(o1, boom), receive {'DOWN', M, _, _, R} -> R end.",
        "logger_std_h:filesync(others).",
    ] {
        node.ask(line).await;
    }
    let written = fs::read_to_string(file).unwrap()[before..].to_owned();
    let mut pieces = written.split('<');
    let mut same = pieces.next().unwrap().to_owned();
    for piece in pieces {
        same += match piece.split_once('>') {
            Some((pid, rest)) if pid.chars().all(|c| c.is_ascii_digit() || c == '.') => rest,
            _ => piece,
        };
    }
    same
}

/// What a user may have set, how many lines others then see, at least, and how it is undone.
const SETTINGS: &[(&str, &str)] = &[
    ("ok", "ok"),
    ("logger:set_primary_config(level, info)", "logger:set_primary_config(level, notice)"),
    ("logger:set_primary_config(level, debug)", "logger:set_primary_config(level, notice)"),
    ("logger:set_primary_config(level, critical)", "logger:set_primary_config(level, notice)"),
    ("logger:set_primary_config(level, none)", "logger:set_primary_config(level, notice)"),
    ("logger:set_module_level(supervisor, info)", "logger:unset_module_level(supervisor)"),
    ("logger:set_module_level(supervisor, critical)", "logger:unset_module_level(supervisor)"),
];

#[tokio::test]
async fn other_handlers_write_the_same_with_and_without_the_agent() {
    let exporter = Exporter::start().await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("log").to_str().unwrap().to_owned();
    let mut node = NodeBuilder::erlang().start();
    write_logs_to(&mut node, &file).await;
    let filters = node.ask("logger:get_primary_config().").await;
    let mut different = Vec::new();
    for (set, undo) in SETTINGS {
        node.check(&format!("{set}."), "ok").await;
        let levels = node.ask("{logger:get_module_level(), maps:get(level, logger:get_primary_config())}.").await;
        let without = deaths(&mut node, &file).await;
        node.watch(&exporter).await;
        let with = deaths(&mut node, &file).await;
        // Starts of three children and of the supervisor, a restart, two ends, one restart too many, and what would not stop.
        node.status("seen", "9").await;
        node.check("restart_agent:stop().", "ok").await;
        let after = deaths(&mut node, &file).await;
        assert_eq!(with, without, "{set}");
        assert_eq!(after, without, "{set}, after the agent");
        let restored = node.ask("{logger:get_module_level(), maps:get(level, logger:get_primary_config())}.").await;
        assert_eq!(restored, levels, "{set}");
        node.check(&format!("{undo}."), "ok").await;
        different.push(without);
    }
    assert_eq!(node.ask("logger:get_primary_config().").await, filters);
    different.sort();
    different.dedup();
    assert_eq!(different.len(), 3, "everything, errors alone, and nothing: {different:#?}");
    let processes = "[P || P <- registered(), lists:prefix(\"restart_agent\", atom_to_list(P))].";
    node.check(processes, "[]").await;
}

// Elixir prints no reports of supervisors by default, but the last words of processes.
#[tokio::test]
async fn elixir_prints_the_same_with_and_without_the_agent() {
    let exporter = Exporter::start().await;
    let mut node = NodeBuilder::elixir().start();
    node.check("Logger.configure_backend(:console, format: \"$level $message\\n\", colors: [enabled: false])", ":ok")
        .await;
    let deaths = async |node: &mut Node| {
        node.printed.clear();
        node.ask(":tree.start(:others, %{intensity: 9}, [:tree.child(:o1)])").await;
        node.ask(":tree.die(:o1, :boom); :tree.await(:o1)").await;
        node.ask("{:ok, a} = Agent.start(fn -> 0 end); Agent.cast(a, fn _ -> raise \"boom\" end); Process.sleep(50)")
            .await;
        node.ask(":tree.stop(:others); Logger.flush()").await;
        let text = node.printed.join("\n");
        text.split("#PID<").map(|piece| piece.split_once('>').map_or(piece, |(_, rest)| rest)).collect::<String>()
    };
    let without = deaths(&mut node).await;
    node.watch(&exporter).await;
    let with = deaths(&mut node).await;
    exporter
        .history_is("others", &["terminated o1 error", "restarted o1 failure", "supervisor_terminated shutdown"])
        .await;
    assert!(without.contains("RuntimeError"), "{without}");
    assert_eq!(with, without);
}
