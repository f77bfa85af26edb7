//! Every report that OTP's supervisors make, and what becomes of it.

use super::world::{Exporter, NodeBuilder};

/// What is done on the node, the start of the supervisor first, and what the exporter must say of which supervisor.
struct Case {
    does: &'static [&'static str],
    supervisor: &'static str,
    history: &'static [&'static str],
}

const fn case(does: &'static [&'static str], supervisor: &'static str, history: &'static [&'static str]) -> Case {
    Case { does, supervisor, history }
}

/// The table of what OTP reports, in its order; each case has supervisors and workers of its own.
const CASES: &[Case] = &[
    // A permanent child is restarted whatever its reason.
    case(
        &[
            "tree:start(permanent, #{intensity => 9}, [tree:child(p1), tree:child(p2)]).",
            "tree:die(p1, kill), tree:await(p1), tree:die(p2, normal), tree:await(p2).",
        ],
        "permanent",
        &["terminated p1 killed", "restarted p1 failure", "terminated p2 normal", "restarted p2 failure"],
    ),
    // A transient one after an abnormal end; of its normal end nothing is reported.
    case(
        &[
            "tree:start(transient, #{intensity => 9}, [tree:child(t1, #{restart => transient}), tree:child(t2, #{restart => transient})]).",
            "tree:die(t1, normal), tree:die(t2, {shutdown, done}).",
            "supervisor:restart_child(transient, t1), tree:die(t1, boom), tree:await(t1).",
        ],
        "transient",
        &["restarted t1 requested", "terminated t1 error", "restarted t1 failure"],
    ),
    // A temporary one never.
    case(
        &[
            "tree:start(temporary, #{}, [tree:child(c1, #{restart => temporary}), tree:child(c2, #{restart => temporary})]).",
            "tree:die(c1, normal), tree:die(c2, error, {bad, thing}).",
        ],
        "temporary",
        &["terminated c2 error"],
    ),
    // The siblings' ends are silent, their starts are not.
    case(
        &[
            "tree:start(one_for_all, #{strategy => one_for_all}, [tree:child(a1), tree:child(a2), tree:child(a3)]).",
            "tree:die(a2, boom), tree:await(a3).",
        ],
        "one_for_all",
        &["terminated a2 error", "restarted a1 sibling", "restarted a2 failure", "restarted a3 sibling"],
    ),
    case(
        &[
            "tree:start(rest_for_one, #{strategy => rest_for_one}, [tree:child(r1), tree:child(r2), tree:child(r3)]).",
            "tree:die(r2, boom), tree:await(r3).",
        ],
        "rest_for_one",
        &["terminated r2 error", "restarted r2 failure", "restarted r3 sibling"],
    ),
    // A restart that fails is tried again, with the old pid, then with {restarting, Pid}.
    case(
        &[
            "tree:start(flaky, #{intensity => 9}, [tree:child(f1)]).",
            "tree:next(f1, [{error, {flaky, 2}}, {error, {flaky, 1}}]), tree:die(f1, boom), tree:await(f1).",
        ],
        "flaky",
        &["terminated f1 error", "start_error f1 error", "start_error f1 error", "restarted f1 failure"],
    ),
    // In one_for_all each try begins from the first child.
    case(
        &[
            "tree:start(flaky_all, #{strategy => one_for_all, intensity => 9}, [tree:child(fa), tree:child(fl), tree:child(fz)]).",
            "tree:next(fl, [{error, 2}, {error, 1}]), tree:die(fz, boom), tree:await(fz).",
        ],
        "flaky_all",
        &[
            "terminated fz error",
            "restarted fa sibling",
            "start_error fl error",
            "restarted fa sibling",
            "start_error fl error",
            "restarted fa sibling",
            "restarted fl failure",
            "restarted fz failure",
        ],
    ),
    // A child that chooses not to start again.
    case(
        &["tree:start(ignoring, #{}, [tree:child(i1)]).", "tree:next(i1, [ignore]), tree:die(i1, boom)."],
        "ignoring",
        &["terminated i1 error"],
    ),
    // What is asked for over the API, and what is not reported at all.
    case(
        &[
            "tree:start(api, #{}, []).",
            "supervisor:start_child(api, tree:child(s1)).",
            "supervisor:terminate_child(api, s1), supervisor:restart_child(api, s1).",
            "tree:next(s2, [{error, no}]), supervisor:start_child(api, tree:child(s2)).",
            "tree:next(s3, [ignore]), supervisor:start_child(api, tree:child(s3)).",
            "supervisor:terminate_child(api, s1), supervisor:delete_child(api, s1).",
            "api ! unexpected.",
            "tree:stop(api).",
        ],
        "api",
        &["restarted s1 requested", "supervisor_terminated shutdown"],
    ),
    case(
        &[
            "tree:start(significant, #{auto_shutdown => any_significant}, [tree:child(g1, #{restart => transient, significant => true})]).",
            "tree:die(g1, normal).",
        ],
        "significant",
        &["supervisor_terminated shutdown"],
    ),
    // A supervisor that is killed says nothing; its parent does, and whoever watches it.
    case(
        &[
            "tree:start(above, #{}, [#{id => below, type => supervisor, start => {tree, start_link, [below, #{}, [tree:child(k1)]]}}]).",
            "tree:die(below, kill), tree:await(below).",
        ],
        "above",
        &["terminated below killed", "restarted below failure"],
    ),
    // The second child cannot be started: the supervisor is not, and stops the first in silence. It is gone before it is known.
    case(
        &["ok.", "tree:next(n2, [{error, no}]), tree:start(unborn, #{}, [tree:child(n1), tree:child(n2)])."],
        "unborn",
        &["start_error n2 error", "supervisor_terminated unknown"],
    ),
    // One restart too many: the inner supervisor gives up, and is restarted by the one above.
    case(
        &[
            "tree:start(top, #{}, [#{id => inner, type => supervisor, start => {tree, start_link, [inner, #{intensity => 1}, [tree:child(w1), tree:child(w2)]]}}]).",
            "S = whereis(inner), tree:die(w1, boom), tree:await(w1), tree:die(w1, boom), M = monitor(process, S), receive {'DOWN', M, _, _, _} -> tree:await(w2) end.",
        ],
        "inner",
        &["terminated w1 error", "restarted w1 failure", "terminated w1 error", "supervisor_terminated max_intensity"],
    ),
    case(&[], "top", &["terminated inner shutdown", "restarted inner failure"]),
    // Of simple_one_for_one no start is reported: that no failure follows is the proof.
    case(
        &[
            "tree:start(simple, #{strategy => simple_one_for_one, intensity => 9}, [tree:child(x, #{start => {tree, dynamic, []}})]).",
            "supervisor:start_child(simple, [d1, secret]), supervisor:start_child(simple, [d2, secret]).",
            "tree:die(d1, boom), tree:await(d1).",
        ],
        "simple",
        &["terminated tree:dynamic/2 error", "restarted tree:dynamic/2 failure"],
    ),
];

#[tokio::test]
async fn each_report_becomes_what_it_means() {
    let exporter = Exporter::start().await;
    let mut node = NodeBuilder::erlang().start();
    node.watch(&exporter).await;
    for case in CASES {
        if let Some(start) = case.does.first() {
            node.ask(start).await;
        }
    }
    let running: Vec<_> = CASES.iter().map(|case| case.supervisor).filter(|name| *name != "unborn").collect();
    exporter.knows(&running).await;
    for line in CASES.iter().flat_map(|case| case.does.iter().skip(1)) {
        let answer = node.ask(line).await;
        assert!(!answer.starts_with("{error,{undef"), "{line}: {answer}");
    }
    for case in CASES {
        exporter.history_is(case.supervisor, case.history).await;
    }

    // What had to be killed when its supervisor stopped it, one by one and as a number.
    let stubborn = |id| format!("#{{id => {id}, start => {{tree, stubborn, [{id}]}}, shutdown => 10}}");
    node.ask(&format!("tree:start(patient, #{{}}, [{}]).", stubborn("u1"))).await;
    let many = "#{id => u, start => {tree, stubborn, []}, shutdown => 10}";
    node.ask(&format!("tree:start(crowd, #{{strategy => simple_one_for_one}}, [{many}]).")).await;
    node.ask("[supervisor:start_child(crowd, [Id]) || Id <- [u2, u3, u4]].").await;
    exporter.knows(&["patient", "crowd"]).await;
    node.check("{tree:stop(patient), tree:stop(crowd)}.", "{ok,ok}").await;
    for (supervisor, count) in [("patient", 1.0), ("crowd", 3.0)] {
        let stopped = [("supervisor", supervisor), ("reason", "timeout")];
        exporter.counts("supervisor_child_terminations_total", &stopped, count).await;
        exporter.counts("supervisor_child_restarts_total", &stopped[..1], 0.0).await;
    }
    exporter.counts("restart_exporter_node_events_lost_total", &[], 0.0).await;
}
