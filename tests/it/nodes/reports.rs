//! OTP's reports and what follows from them, scenario by scenario as OTP 23 to 29 write them.

use std::time::Duration;

use restart_exporter::analytics::{ChildState, ChildView, Health, LOOP_DEATHS};
use restart_exporter::event::{EventKind, Payload};

use super::Session;
use super::agent::{self, Child, Report, Row, SUP, Sup};
use crate::world::Events;

const DYNAMIC: Sup<'static> = Sup { behaviour: "dynamic", ..SUP };

fn child(id: &str) -> Child<'_> {
    Child { id, ..Child::default() }
}

/// The children of `sup`, as they are shown.
fn children(session: &Session) -> Vec<ChildView> {
    session.analytics.find("sup").unwrap().view(session.now().monotonic).children
}

fn died<'a>(id: &'a str, pid: &'a str) -> Report<'a> {
    Report { child: child(id), pid: Some(pid), ..Report::default() }
}

fn started<'a>(id: &'a str, pid: &'a str) -> Report<'a> {
    Report { kind: "started", class: "normal", detail: "", ..died(id, pid) }
}

fn start_error<'a>(id: &'a str, pid: Option<&'a str>, flag: &'static str) -> Report<'a> {
    Report { kind: "start_error", pid, flag, ..died(id, "") }
}

fn gave_up(id: &str) -> Report<'_> {
    Report { kind: "max_intensity", class: "max_intensity", detail: "", ..died(id, "<0.200.0>") }
}

fn restarts(session: &Session, cause: &str) -> f64 {
    session.sum("supervisor_child_restarts_total", &[&format!("cause=\"{cause}\"")])
}

// A permanent child that is killed: child_terminated, progress. The start of the first run was not seen, that of the second was.
#[tokio::test(start_paused = true)]
async fn a_killed_child_that_is_started_again_is_one_restart() {
    let mut session = Session::with(&[SUP]);
    let mut events = Events::of(&session.telemetry);
    let killed = Report { class: "killed", detail: "", ..died("a", "<0.1.0>") };
    session.reports(&[killed, started("a", "<0.2.0>")]);
    assert_eq!(session.lines(), ["terminate sup/a killed -> restart", "restart sup/a failure"]);
    session.passes(1500);
    session.reports(&[died("a", "<0.2.0>")]);
    let mut lifetimes = Vec::new();
    for _ in 0..2 {
        let event = events.next(EventKind::ChildTerminate).await;
        let Payload::ChildTerminate { lifetime, .. } = event.payload else { panic!("{event:?}") };
        lifetimes.push(lifetime.map(|lifetime| lifetime.as_millis()));
    }
    assert_eq!(lifetimes, [None, Some(1499)]);
    assert_eq!(restarts(&session, "failure"), 1.0);
    assert_eq!(session.sum("supervisor_child_lifetime_seconds_count", &[]), 1.0);
    assert_eq!(session.sum("supervisor_child_downtime_seconds_count", &[]), 1.0);
    assert_eq!(session.sum("supervisor_restart_intensity_used", &["node=\"app@host\""]), 2.0);
}

// one_for_one, the restart fails twice, then succeeds: the first start_error names the dead pid, the next {restarting, Pid}.
#[tokio::test(start_paused = true)]
async fn failed_attempts_are_start_errors_and_the_last_one_is_the_restart() {
    let mut session = Session::with(&[SUP]);
    let dead = "<0.116.0>";
    session.reports(&[
        died("a", dead),
        start_error("a", Some(dead), "none"),
        start_error("a", Some(dead), "restarting"),
        started("a", "<0.117.0>"),
    ]);
    let told = [
        "terminate sup/a error -> restart",
        "start_error sup/a #1 -> restart",
        "start_error sup/a #2 -> restart",
        "restart sup/a failure",
    ];
    assert_eq!(session.lines(), told);
    assert_eq!(session.sum("supervisor_child_start_errors_total", &[]), 2.0);
    assert_eq!(session.sum("supervisor_child_start_attempts_total", &[]), 3.0);
    // Each attempt used the window.
    assert_eq!(session.sum("supervisor_restart_intensity_used", &["supervisor=\"sup\""]), 3.0);
}

// reached_max_restart_intensity: the last death asks for a restart that is refused, and counts as none.
#[tokio::test(start_paused = true)]
async fn a_supervisor_that_gives_up_did_not_restart_the_last_death() {
    let mut session = Session::with(&[Sup { intensity: 1, ..SUP }]);
    session.reports(&[died("a", "<0.1.0>"), started("a", "<0.2.0>"), died("a", "<0.2.0>"), gave_up("a")]);
    session.says(&agent::down(session.seq, session.node_us(), 1, "shutdown")).unwrap();
    let told = [
        "terminate sup/a error -> restart",
        "restart sup/a failure",
        "terminate sup/a error -> give_up",
        "end sup max_intensity",
    ];
    assert_eq!(session.lines(), told);
    let view = session.analytics.find("sup").unwrap().view(session.now().monotonic);
    let end = format!("{:?}", view.last_end);
    assert!(end.contains("more than 1 restart in "), "{end}");
    assert_eq!(restarts(&session, "failure"), 1.0);
    assert_eq!(session.sum("supervisor_terminations_total", &["max_intensity"]), 1.0);
    assert_eq!(session.sum("supervisor_up", &[]), 0.0);
}

// simple_one_for_one and DynamicSupervisor never report a start: a second of silence is a restart, and so is the next report.
#[tokio::test(start_paused = true)]
async fn a_dynamic_child_is_restarted_if_nothing_bad_is_heard_of_it() {
    let mut session = Session::with(&[DYNAMIC]);
    session.reports(&[died("undefined", "<0.1.0>")]);
    assert_eq!(session.lines(), ["terminate sup/worker:start_link/1 error -> restart"]);
    session.passes(900);
    assert_eq!(session.lines(), [""; 0]);
    session.passes(200);
    assert_eq!(session.lines(), ["restart sup/worker:start_link/1 failure"]);
    session.reports(&[died("undefined", "<0.2.0>"), died("undefined", "<0.3.0>")]);
    let told = session.lines();
    assert_eq!(told.len(), 3);
    assert_eq!(told[1], "restart sup/worker:start_link/1 failure", "the second report proves the first restart");
    session.passes(1100);
    assert_eq!(restarts(&session, "failure"), 3.0);
    let child = ["child=\"worker:start_link/1\""];
    assert_eq!(session.sum("supervisor_child_restarts_total", &child), 3.0);
}

// DynamicSupervisor: the restart fails once, then succeeds silently. Other reports between the attempts prove nothing.
#[tokio::test(start_paused = true)]
async fn a_dynamic_child_whose_restart_failed_is_awaited_anew() {
    let mut session = Session::with(&[DYNAMIC]);
    session.reports(&[died("undefined", "<0.1.0>"), start_error("undefined", Some("<0.1.0>"), "none")]);
    let told =
        ["terminate sup/worker:start_link/1 error -> restart", "start_error sup/worker:start_link/1 #1 -> restart"];
    assert_eq!(session.lines(), told);
    let temporary = Child { id: "undefined", restart: "temporary", ..Child::default() };
    session.reports(&[Report { child: temporary, ..died("", "<0.9.0>") }]);
    assert_eq!(session.lines(), ["terminate sup/worker:start_link/1 error -> forget"]);
    session.passes(1100);
    assert_eq!(session.lines(), ["restart sup/worker:start_link/1 failure"]);
}

// A dynamic supervisor that gives up: the child it speaks of was not restarted.
#[tokio::test(start_paused = true)]
async fn a_dynamic_supervisor_that_gives_up_infers_nothing_of_the_last_child() {
    let mut session = Session::with(&[Sup { intensity: 0, ..DYNAMIC }]);
    session.reports(&[died("undefined", "<0.200.0>"), gave_up("undefined")]);
    session.says(&agent::down(session.seq, session.node_us(), 1, "shutdown")).unwrap();
    session.passes(5000);
    assert_eq!(restarts(&session, "failure"), 0.0);
    assert_eq!(session.sum("supervisor_terminations_total", &["max_intensity"]), 1.0);
}

// A supervisor is asked for its strategy after it was heard of first; what it had reported by then was restarted as well.
#[tokio::test(start_paused = true)]
async fn a_dynamic_supervisor_that_is_described_late_has_restarted_its_children() {
    let mut session = Session::with(&[Sup { strategy: "unknown", ..SUP }]);
    session.reports(&["<0.1.0>", "<0.2.0>", "<0.3.0>"].map(|pid| died("a", pid)));
    session.says(&agent::sup(&Sup { strategy: "simple_one_for_one", ..SUP })).unwrap();
    assert_eq!(restarts(&session, "failure"), 2.0);
    session.passes(1100);
    assert_eq!(restarts(&session, "failure"), 3.0);
    let [kind] = children(&session).try_into().unwrap();
    assert_eq!((&*kind.child.id, kind.state), ("worker:start_link/1", ChildState::Running));
}

// Nobody tells which of many equal children is back, so it is their kind that dies again and again.
#[tokio::test(start_paused = true)]
async fn dynamic_children_that_die_again_and_again_are_a_loop_of_their_kind() {
    let mut session = Session::with(&[Sup { intensity: 100, ..DYNAMIC }]);
    for number in 0..LOOP_DEATHS {
        session.reports(&[died("undefined", &format!("<0.{number}.1>"))]);
        session.passes(1100);
    }
    let [kind] = children(&session).try_into().unwrap();
    assert_eq!((&*kind.child.id, kind.health), ("worker:start_link/1", Health::Looping));
    assert_eq!((kind.state, kind.deaths_hour, kind.restarts), (ChildState::Running, 6, 6));
}

// Counts without details move the child as well: it runs again, and died so often.
#[tokio::test(start_paused = true)]
async fn a_child_whose_deaths_were_counted_runs_and_has_these_deaths() {
    let mut session = Session::with(&[Sup { intensity: 100, ..SUP }]);
    session.reports(&[started("a", "<0.1.0>"), died("a", "<0.1.0>")]);
    let row = |kind, count| Row { sup: 1, kind, class: "exit", count, child: child("a") };
    session.says(&agent::sums(session.seq, session.node_us(), &[row("terminated", 99), row("started", 100)])).unwrap();
    let [child] = children(&session).try_into().unwrap();
    assert_eq!((child.state, child.health), (ChildState::Running, Health::Looping));
    assert_eq!((child.deaths_hour, child.deaths_day, child.restarts), (100, 100, 100));
    assert_eq!(child.looping.unwrap().deaths, 100);
}

// A temporary child that crashes is reported and never restarted.
#[tokio::test(start_paused = true)]
async fn a_temporary_child_is_never_a_restart() {
    let mut session = Session::with(&[SUP]);
    let temporary = Child { restart: "temporary", ..Child::default() };
    let start = Report { child: temporary, ..started("a", "<0.1.0>") };
    session.reports(&[start, Report { child: temporary, ..died("a", "<0.1.0>") }]);
    session.reports(&[Report { child: temporary, ..started("a", "<0.2.0>") }]);
    assert_eq!(session.lines(), ["start sup/a", "terminate sup/a error -> forget", "start sup/a"]);
    assert_eq!(session.sum("supervisor_child_restarts_total", &[]), 0.0);
}

// one_for_all: the siblings end silently, then progress for every one of them.
#[tokio::test(start_paused = true)]
async fn siblings_that_start_along_with_the_child_that_failed_are_restarted_as_siblings() {
    let mut session = Session::with(&[Sup { strategy: "one_for_all", ..SUP }]);
    session.reports(&[started("a", "<0.1.0>"), started("b", "<0.2.0>"), started("c", "<0.3.0>")]);
    session.lines();
    session.passes(5000);
    session.reports(&[died("b", "<0.2.0>"), started("a", "<0.4.0>"), started("b", "<0.5.0>"), started("c", "<0.6.0>")]);
    let told =
        ["terminate sup/b error -> restart", "restart sup/a sibling", "restart sup/b failure", "restart sup/c sibling"];
    assert_eq!(session.lines(), told);
    // Long after, somebody restarts a child by hand.
    session.passes(5000);
    session.reports(&[started("a", "<0.7.0>")]);
    assert_eq!(session.lines(), ["restart sup/a requested"]);
}

// one_for_all, the restart of `fl` fails twice in [a, fl, z]: a is started three times.
#[tokio::test(start_paused = true)]
async fn a_failing_restart_of_all_starts_the_elder_siblings_each_time() {
    let mut session = Session::with(&[Sup { strategy: "one_for_all", ..SUP }]);
    session.reports(&[started("a", "<0.1.0>"), started("fl", "<0.2.0>"), started("z", "<0.3.0>")]);
    session.passes(2000);
    session.lines();
    session.reports(&[
        died("fl", "<0.2.0>"),
        started("a", "<0.4.0>"),
        start_error("fl", None, "none"),
        started("a", "<0.5.0>"),
        start_error("fl", None, "none"),
        started("a", "<0.6.0>"),
        started("fl", "<0.7.0>"),
        started("z", "<0.8.0>"),
    ]);
    assert_eq!(restarts(&session, "failure"), 1.0);
    assert_eq!(restarts(&session, "sibling"), 4.0);
    assert_eq!(session.sum("supervisor_child_start_errors_total", &[]), 2.0);
    assert_eq!(session.lines().last().map(String::as_str), Some("restart sup/z sibling"));
}

// shutdown_error: killed after the timeout, or, under a dynamic supervisor, as many at once as nb_children says.
#[tokio::test(start_paused = true)]
async fn children_that_do_not_stop_in_time_are_counted_as_such() {
    let mut session = Session::with(&[SUP, Sup { key: 2, pid: "<0.101.0>", name: "pool", ..DYNAMIC }]);
    let late = Report { kind: "shutdown_error", class: "killed", detail: "", ..died("a", "<0.1.0>") };
    session.reports(&[late, Report { sup: 2, pid: None, count: 3, ..late }]);
    assert_eq!(session.lines()[0], "terminate sup/a timeout ordered -> leave");
    let brutal = Child { shutdown_ms: -2, ..Child::default() };
    session.reports(&[Report { child: brutal, class: "error", ..late }]);
    assert_eq!(session.sum("supervisor_child_terminations_total", &["reason=\"timeout\""]), 4.0);
    assert_eq!(session.sum("supervisor_child_terminations_total", &["reason=\"error\""]), 1.0);
    let failures = session.analytics.all_supervisor_stats().total_failures;
    assert_eq!(failures, 0, "an ordered stop is no failure");
}

// start_child and restart_child: OTP 27.1 and later say so (debug level), before that nothing tells but that it ran.
#[tokio::test(start_paused = true)]
async fn a_start_by_hand_is_a_start_or_a_restart_on_request() {
    let mut session = Session::with(&[SUP]);
    let by_hand = |id, pid| Report { flag: "api", ..started(id, pid) };
    session.reports(&[by_hand("a", "<0.1.0>"), by_hand("a", "<0.2.0>"), started("a", "<0.3.0>")]);
    assert_eq!(session.lines(), ["start sup/a", "restart sup/a requested", "restart sup/a requested"]);
}

// The second child cannot start when its supervisor does: progress of the first, start_error, and the supervisor is gone.
#[tokio::test(start_paused = true)]
async fn a_supervisor_that_cannot_start_does_not_restart() {
    let mut session = Session::with(&[SUP]);
    session.reports(&[started("a", "<0.1.0>"), start_error("b", None, "init")]);
    session.says(&agent::down(session.seq, session.node_us(), 1, "noproc")).unwrap();
    assert_eq!(session.lines(), ["start sup/a", "start_error sup/b #1", "end sup unknown"]);
    assert_eq!(session.sum("supervisor_child_restarts_total", &[]), 0.0);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_supervisor_has_the_reason_that_its_monitor_says() {
    for (class, reason) in [("normal", "normal"), ("shutdown", "shutdown"), ("killed", "error"), ("exit", "error")] {
        let mut session = Session::with(&[SUP]);
        session.says(&agent::down(1, session.node_us(), 1, class)).unwrap();
        assert_eq!(session.lines(), [format!("end sup {reason}")]);
    }
}

// 100,000 temporary tasks that die at once: details are lost, counts are not, and nothing was restarted.
#[tokio::test(start_paused = true)]
async fn what_a_node_only_counted_moves_the_counters_exactly() {
    let mut session = Session::with(&[SUP, Sup { key: 2, pid: "<0.101.0>", name: "pool", ..DYNAMIC }]);
    let task = Child { id: "undefined", mfa: "task:run", restart: "temporary", ..Child::default() };
    let tasks = Row { sup: 2, kind: "terminated", class: "exit", count: 100_000, child: task };
    let workers = Row { child: Child { id: "undefined", ..Child::default() }, count: 5, ..tasks };
    let fixed = |kind, count| Row { sup: 1, kind, class: "killed", count, child: child("a") };
    let rows = [tasks, workers, fixed("terminated", 3), fixed("started", 2), fixed("start_error", 7)];
    session.says(&agent::sums(1, session.node_us(), &rows)).unwrap();
    session.seq = 2;
    // The third restart is told by itself, and not counted again.
    session.reports(&[started("a", "<0.9.0>")]);
    assert_eq!(session.sum("supervisor_child_terminations_total", &["supervisor=\"pool\""]), 100_005.0);
    assert_eq!(session.sum("supervisor_child_restarts_total", &["supervisor=\"pool\"", "failure"]), 5.0);
    assert_eq!(session.sum("supervisor_child_restarts_total", &["supervisor=\"sup\"", "child=\"a\"", "failure"]), 3.0);
    assert_eq!(session.sum("supervisor_child_restarts_total", &["requested"]), 0.0);
    assert_eq!(session.sum("supervisor_child_start_errors_total", &["supervisor=\"sup\""]), 7.0);
    assert_eq!(session.sum("restart_exporter_node_events_aggregated_total", &[]), 100_017.0);
    let stats = session.analytics.all_supervisor_stats();
    assert_eq!((stats.total_restarts, stats.total_failures), (8, 100_015));
}

// Names are stable across restarts: the registered one, else the place below the parent; a child without an id has its
// start function's name.
#[tokio::test(start_paused = true)]
async fn names_are_stable_and_never_a_pid() {
    let unnamed = Sup { key: 2, pid: "<0.101.0>", name: "", parent: Some(1), id: Some("workers"), ..SUP };
    let mut session = Session::with(&[SUP, unnamed, Sup { key: 3, pid: "<0.102.0>", name: "", ..SUP }]);
    let on = |sup, id| Report { sup, ..started(id, "<0.1.0>") };
    session.reports(&[on(2, "a"), on(3, "undefined")]);
    assert_eq!(session.lines(), ["start sup/workers/a", "start my_sup/worker:start_link/1"]);
    let info = session.metrics.render();
    assert!(info.contains(
        "supervisor_info{supervisor=\"sup/workers\",node=\"app@host\",strategy=\"one_for_one\",parent=\"sup\"} 1"
    ));
    assert!(!info.contains("<0."));
}

// What is said of a supervisor first is often not all: its strategy and limit come when it was asked.
#[tokio::test(start_paused = true)]
async fn what_is_learnt_of_a_supervisor_later_counts_from_its_first_restart() {
    let mut session = Session::with(&[Sup { strategy: "unknown", intensity: -1, period: -1, ..SUP }]);
    assert_eq!(session.sum("supervisor_restart_intensity_limit", &[]), 0.0);
    session.reports(&[died("a", "<0.1.0>"), started("a", "<0.2.0>")]);
    session.says(&agent::sup(&SUP)).unwrap();
    session.reports(&[died("a", "<0.2.0>"), started("a", "<0.3.0>")]);
    assert_eq!(session.sum("supervisor_restart_intensity_limit", &[]), 3.0);
    assert_eq!(session.sum("supervisor_restart_intensity_used", &["supervisor="]), 2.0);
    assert_eq!(restarts(&session, "failure"), 2.0);
}

// A supervisor of a node and one of this process, or of another node, may have the same name.
#[tokio::test(start_paused = true)]
async fn equal_names_on_two_nodes_are_two_supervisors() {
    let mut session = Session::with(&[SUP]);
    session.reports(&[died("a", "<0.1.0>"), started("a", "<0.2.0>")]);
    let other = agent::Who { node: "other@host", ..agent::Who::default() };
    session.connect(&other).unwrap();
    session.says(&agent::sup(&SUP)).unwrap();
    session.says(&agent::events(1, session.node_us(), &[died("a", "<0.1.0>")])).unwrap();
    assert_eq!(session.sum("supervisor_child_restarts_total", &["app@host", "failure"]), 1.0);
    assert_eq!(session.sum("supervisor_child_terminations_total", &["other@host"]), 1.0);
    assert_eq!(session.analytics.supervisors().len(), 2);
    let restarts =
        |node| session.analytics.on(node).failure_rate("sup", Duration::from_secs(60)).map(|rate| rate.restarts);
    assert_eq!(restarts(Some("app@host")), Ok(1));
    assert_eq!(restarts(Some("other@host")), Ok(0));
    assert!(restarts(Some("third@host")).is_err());
}
