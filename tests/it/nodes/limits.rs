//! What a node may have kept: texts, children, awaited restarts, supervisors. Beyond each limit details are lost, but no count.

use std::time::Duration;

use restart_exporter::beam::NodeLimits;
use restart_exporter::beam::frame::MAX_FRAME_BYTES;
use restart_exporter::event::NodeLimit;

use super::Session;
use super::agent::{self, Child, Report, Row, SUP, Sup, Who};

const LIMITS: NodeLimits = NodeLimits {
    nodes: 1,
    supervisors_per_node: 100,
    children_per_node: 3,
    text_bytes_per_node: 1024,
    retention: Duration::from_secs(900),
};

const DYNAMIC: Sup<'static> = Sup { behaviour: "dynamic", ..SUP };

/// A connected node with these supervisors, and limits that are soon reached.
fn limited(limits: NodeLimits, supervisors: &[Sup<'_>]) -> Session {
    let mut session = Session::with_limits(limits);
    session.connect(&Who::default()).unwrap();
    supervisors.iter().for_each(|sup| session.says(&agent::sup(sup)).unwrap());
    session.lines();
    session
}

fn reached(session: &Session, limit: NodeLimit) -> f64 {
    session.sum("restart_exporter_limit_reached_total", &[&format!("limit=\"{limit}\"")])
}

fn death(id: &str) -> Report<'_> {
    Report { child: Child { id, ..Child::default() }, ..Report::default() }
}

// A text is never longer than its limit, wherever in a message it stands.
#[tokio::test(start_paused = true)]
async fn every_text_of_a_node_is_cut_at_its_limit() {
    let long = "x".repeat(100_000);
    let labels = vec![(&*long, &*long); 40];
    let mut session = Session::with_limits(NodeLimits::new(Duration::from_secs(900)));
    session.connect(&Who { host: &long, labels: &labels, ..Who::default() }).unwrap();
    assert_eq!(reached(&session, NodeLimit::TextLength), 1.0);
    session.says(&agent::sup(&Sup { name: &long, ..SUP })).unwrap();
    session.says(&agent::sup(&Sup { key: 2, pid: "<0.101.0>", name: "", id: Some(&long), ..SUP })).unwrap();
    session.says(&agent::sup(&Sup { key: 3, name: "", module: &long, behaviour: "dynamic", ..SUP })).unwrap();
    assert_eq!(reached(&session, NodeLimit::TextLength), 4.0);
    for sup in 1..=3 {
        let child = Child { id: &long, mfa: &long, ..Child::default() };
        session.reports(&[Report { sup, child, detail: &long, ..Report::default() }]);
    }
    assert_eq!(reached(&session, NodeLimit::TextLength), 7.0);
    let longest = session.lines().iter().map(String::len).max().unwrap();
    assert!(longest < 2 * 255 + 50, "{longest}");
    for view in session.analytics.supervisors() {
        let causes = session.analytics.causes(&view.supervisor.supervisor, None).unwrap().causes;
        let said = causes[0].sample.event.reason().unwrap().detail().unwrap();
        assert!(said.len() <= 1024 && said.ends_with("x…"), "{said}");
    }
}

// 1,000 children whose start function fills a frame: what is kept of each does not depend on what was sent.
#[tokio::test(start_paused = true)]
async fn a_text_that_fills_a_frame_takes_no_more_memory_than_its_limit() {
    let mut session = Session::with(&[SUP]);
    let mfa = "m".repeat(MAX_FRAME_BYTES - 1000);
    for number in 0..1000 {
        let child = Child { id: &number.to_string(), mfa: &mfa, ..Child::default() };
        session.reports(&[Report { child, ..Report::default() }]);
    }
    // All texts of the node count together, and 1,000 frames would not have had room.
    assert_eq!(reached(&session, NodeLimit::TextBytes), 0.0);
    assert_eq!(session.sum("supervisor_child_terminations_total", &[]), 1000.0);
}

// OTP's totals stay exact: children beyond the limit of their node are one child, `_other`, of their supervisor.
#[tokio::test(start_paused = true)]
async fn children_beyond_the_limit_of_a_node_are_counted_as_other() {
    let other = Sup { key: 2, pid: "<0.101.0>", name: "more", ..SUP };
    let dynamic = Sup { key: 3, pid: "<0.102.0>", name: "dynamic", ..DYNAMIC };
    let mut session = limited(LIMITS, &[SUP, other, dynamic]);
    session.reports(&[death("a"), death("b"), death("c")]);
    assert_eq!(reached(&session, NodeLimit::Children), 0.0);
    session.lines();
    session.reports(&[Report { sup: 2, ..death("a") }, Report { sup: 3, ..death("x") }, death("a")]);
    let told = [
        "terminate more/_other error -> restart",
        "terminate dynamic/_other error -> restart",
        "terminate sup/a error -> give_up",
    ];
    assert_eq!(session.lines(), told);
    assert_eq!(reached(&session, NodeLimit::Children), 1.0, "once a message");
    let child = Child { id: "d", ..Child::default() };
    session
        .says(&agent::sums(
            session.seq,
            session.node_us(),
            &[Row { sup: 2, kind: "terminated", class: "exit", count: 5, child }],
        ))
        .unwrap();
    session.seq += 1;
    assert_eq!(reached(&session, NodeLimit::Children), 2.0);
    assert_eq!(session.sum("supervisor_child_terminations_total", &[]), 11.0);
}

// What counts is what is there: the children of a supervisor that ended make room for others.
#[tokio::test(start_paused = true)]
async fn a_child_that_is_gone_makes_room() {
    let other = Sup { key: 2, pid: "<0.101.0>", name: "more", ..SUP };
    let mut session = limited(LIMITS, &[SUP, other]);
    session.reports(&[death("a"), death("b"), death("c")]);
    session.says(&agent::down(session.seq, session.node_us(), 1, "shutdown")).unwrap();
    session.seq += 1;
    session.lines();
    let temporary = Child { id: "t", restart: "temporary", ..Child::default() };
    for _ in 0..10 {
        session.reports(&[Report { sup: 2, child: temporary, ..Report::default() }]);
    }
    session.reports(&["a", "b", "c"].map(|id| Report { sup: 2, ..death(id) }));
    assert!(session.lines().iter().all(|line| !line.contains("_other")));
    assert_eq!(reached(&session, NodeLimit::Children), 0.0);
}

// A node that sends ever new reasons keeps the short ones; deaths count as before.
#[tokio::test(start_paused = true)]
async fn reasons_beyond_the_room_for_texts_are_told_in_short() {
    let mut session = limited(LIMITS, &[SUP]);
    let details: Vec<_> = (0..20).map(|number| format!("reason {number} {}", "x".repeat(100))).collect();
    session.reports(&details.iter().map(|detail| Report { detail, ..death("a") }).collect::<Vec<_>>());
    assert_eq!(reached(&session, NodeLimit::TextBytes), 1.0);
    let history = session.analytics.restart_history("sup", &Default::default()).unwrap();
    let said = |entry: &restart_exporter::analytics::HistoryEntry| entry.event.reason().unwrap().detail().unwrap();
    assert!(said(&history.events[19]).starts_with("reason 0 x"));
    assert_eq!(said(&history.events[0]), "exit");
    assert_eq!(session.sum("supervisor_child_terminations_total", &[]), 20.0);
}

// OTP reports no restart of a dynamic child. Those that nothing more is awaited of are taken for restarted at once.
#[tokio::test(start_paused = true)]
async fn restarts_are_awaited_up_to_a_limit_of_the_node_and_counted_at_once_beyond() {
    let names: Vec<_> = (0..12).map(|number| (format!("sup{number}"), format!("<0.{}.0>", 100 + number))).collect();
    let supervisors: Vec<_> = names
        .iter()
        .enumerate()
        .map(|(key, (name, pid))| Sup { key: key as i64, pid, name, intensity: -1, ..DYNAMIC })
        .collect();
    let mut session = limited(NodeLimits::new(Duration::from_secs(900)), &supervisors);
    let sups = names.len();
    // A failed attempt is awaited until the next, whatever else is reported.
    let failed = |sup: usize, pid| Report { sup: sup as i64, pid: Some(pid), kind: "start_error", ..Report::default() };
    let pids: Vec<_> = (0..1000).map(|number| format!("<0.{}.0>", 1000 + number)).collect();
    for sup in 0..sups {
        session.reports(&pids.iter().map(|pid| failed(sup, pid)).collect::<Vec<_>>());
    }
    let restarts = |session: &Session| session.sum("supervisor_child_restarts_total", &["cause=\"failure\""]);
    // 10,000 of the node and one of each supervisor wait.
    assert_eq!(restarts(&session), (sups * 1000 - 10_000 - sups) as f64);
    assert!(reached(&session, NodeLimit::Awaited) > 0.0);
    session.passes(1100);
    assert_eq!(restarts(&session), (sups * 1000) as f64);
}

// An agent that is started again and again must not pile up supervisors that it never says again.
#[tokio::test(start_paused = true)]
async fn supervisors_of_earlier_incarnations_make_room_for_those_of_this_one() {
    let mut session = limited(NodeLimits { supervisors_per_node: 3, ..LIMITS }, &[]);
    let says = |session: &mut Session, incarnation: &[u8], numbers: std::ops::Range<i64>| {
        session.connect(&Who { incarnation, ..Who::default() }).unwrap();
        for key in numbers {
            let (pid, name) = (format!("<0.{key}.0>"), format!("sup{key}"));
            session.says(&agent::sup(&Sup { key, pid: &pid, name: &name, ..SUP })).unwrap();
        }
    };
    says(&mut session, b"one", 1..4);
    assert_eq!(session.sum("supervisor_up", &[]), 3.0);
    for (incarnation, first) in [(b"two", 10), (b"six", 20), (b"ten", 30)] {
        says(&mut session, incarnation, first..first + 3);
        assert_eq!(session.sum("supervisor_up", &[]), 3.0, "{first}");
    }
    assert_eq!(reached(&session, NodeLimit::Supervisors), 9.0);
    // Those that are said again in time go on.
    session.lines();
    says(&mut session, b"all", 30..33);
    session.says(&agent::snapshot("done")).unwrap();
    assert_eq!(session.lines(), [""; 0]);
    assert_eq!(session.sum("supervisor_up", &[]), 3.0);
}

// Whoever sees a limit in the counter finds in the README what it means.
#[test]
fn the_readme_says_what_happens_beyond_each_limit_of_a_node() {
    let readme = include_str!("../../../README.md");
    for limit in NodeLimit::ALL.iter().map(|limit| limit.as_str()).chain(["node_listed_children"]) {
        assert!(readme.contains(&format!("| `{limit}` |")), "{limit}");
    }
}
