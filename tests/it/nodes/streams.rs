//! Streams: numbers, gaps, incarnations, silence, limits. Time is an argument.

use std::time::Duration;

use restart_exporter::analytics::Health;
use restart_exporter::beam::NodeLimits;
use restart_exporter::beam::session::Refusal;
use restart_exporter::event::{NodeLimit, NodePayload};

use super::Session;
use super::agent::{self, Report, Sup, Who};

const RETENTION: Duration = Duration::from_secs(900);

fn node(session: &Session, metric: &str) -> f64 {
    session.sum(&format!("restart_exporter_node_{metric}"), &["node=\"app@host\""])
}

// What was taken in already and is sent again is dropped; a gap is counted as lost, in numbers.
#[tokio::test(start_paused = true)]
async fn an_event_counts_once_and_a_gap_is_counted_as_lost() {
    let mut session = Session::with(&[Sup::default()]);
    let death = Report::default();
    for (first, count) in [(1, 3), (2, 3), (3, 2), (10, 1)] {
        session.says(&agent::events(first, session.node_us(), &vec![death; count])).unwrap();
    }
    assert_eq!(node(&session, "events_total"), 5.0);
    assert_eq!(node(&session, "events_lost_total"), 5.0);
    assert_eq!(session.sum("supervisor_child_terminations_total", &[]), 5.0);
    assert_eq!(session.sum("restart_exporter_telemetry_events_dropped_total", &["gap"]), 5.0);
}

// hello, welcome with the number to go on after, the rest of the ring: exact counts after any disconnect.
#[tokio::test(start_paused = true)]
async fn a_stream_goes_on_where_it_was_cut() {
    let mut session = Session::with(&[Sup::default()]);
    session.reports(&[Report::default(); 7]);
    session.passes(9000);
    assert_eq!(session.connect(&Who::default()), Ok(7));
    session.says(&agent::sup(&Sup::default())).unwrap();
    session.says(&agent::events(5, session.node_us(), &[Report::default(); 10])).unwrap();
    assert_eq!((node(&session, "events_total"), node(&session, "events_lost_total")), (14.0, 0.0));
    let up = session.told.iter().filter(|told| **told == NodePayload::Up).count();
    assert_eq!(up, 1, "a short absence is no end");
}

// The agent's own numbers begin anywhere for an exporter that was restarted: what is before was acknowledged to another.
#[tokio::test(start_paused = true)]
async fn an_unknown_stream_begins_with_its_first_number() {
    let mut session = Session::with(&[Sup::default()]);
    session.says(&agent::events(5000, session.node_us(), &[Report::default()])).unwrap();
    assert_eq!((node(&session, "events_total"), node(&session, "events_lost_total")), (1.0, 0.0));
}

// A new agent in the same virtual machine: the supervisors are the same processes, and none of them ended.
#[tokio::test(start_paused = true)]
async fn a_new_agent_takes_over_the_supervisors_that_still_run() {
    let other = Sup { key: 2, pid: "<0.101.0>", name: "other", ..Sup::default() };
    let mut session = Session::with(&[Sup::default(), other]);
    session.reports(&[Report::default()]);
    session.lines();
    let again = Who { incarnation: b"another", ..Who::default() };
    assert_eq!(session.connect(&again), Ok(0));
    session.says(&agent::snapshot("begin")).unwrap();
    session.says(&agent::sup(&Sup { key: 1, ..other })).unwrap();
    session.says(&agent::snapshot("done")).unwrap();
    assert_eq!(session.lines(), ["end sup unknown"]);
    assert_eq!(session.sum("supervisor_up", &["other"]), 1.0);
    session.says(&agent::events(1, session.node_us(), &[Report::default()])).unwrap();
    assert_eq!(session.lines(), ["terminate other/a error -> restart"]);
    assert_eq!(node(&session, "events_total"), 2.0);
}

// The node was started again under its name: its supervisors have ended with it, and counters go on.
#[tokio::test(start_paused = true)]
async fn another_virtual_machine_of_the_name_ends_the_supervisors_of_the_one_before() {
    let mut session = Session::with(&[Sup::default()]);
    session.reports(&[Report::default()]);
    session.lines();
    session.welcomed.as_ref().unwrap().node.lock().closed(session.connection);
    session.connect(&Who { incarnation: b"another", os_pid: 4343, ..Who::default() }).unwrap();
    assert_eq!(session.lines(), ["end sup unknown"]);
    session.says(&agent::sup(&Sup::default())).unwrap();
    session.says(&agent::events(1, session.node_us(), &[Report::default()])).unwrap();
    assert_eq!(session.sum("supervisor_child_terminations_total", &[]), 2.0);
    assert_eq!(session.sum("supervisor_up", &[]), 1.0);
}

// Two nodes that are both called nonode@nohost must not take turns in being one.
#[tokio::test(start_paused = true)]
async fn a_name_that_is_taken_by_a_living_node_is_refused() {
    let mut session = Session::with(&[Sup::default()]);
    let twin = Who { incarnation: b"another", os_pid: 4343, ..Who::default() };
    let refused = session.connect(&twin).unwrap_err();
    assert!(matches!(&refused, Refusal::NameTaken(name, _) if name == "app@host"), "{refused}");
    session.passes(16_000);
    session.connect(&twin).unwrap();
}

// Silence of more than three heartbeats: the node is down, and up again with its next word.
#[tokio::test(start_paused = true)]
async fn a_silent_node_is_down_until_it_is_heard_again() {
    let mut session = Session::with(&[Sup::default()]);
    session.passes(15_000);
    assert_eq!(node(&session, "up"), 1.0);
    session.passes(1000);
    assert_eq!(node(&session, "up"), 0.0);
    session.says(&agent::stats(session.node_us(), 3, 2)).unwrap();
    assert_eq!(node(&session, "up"), 1.0);
    assert_eq!((node(&session, "events_lost_total"), node(&session, "tap_reinstalls_total")), (3.0, 2.0));
    session.says(&agent::stats(session.node_us(), 3, 3)).unwrap();
    assert_eq!((node(&session, "events_lost_total"), node(&session, "tap_reinstalls_total")), (3.0, 3.0));
}

// What became of the supervisors of a node that is not heard is not known; that they run is what was known last.
#[tokio::test(start_paused = true)]
async fn nobody_knows_how_the_supervisors_of_a_silent_node_fare() {
    let mut session = Session::with(&[Sup::default()]);
    session.reports(&[Report { kind: "started", ..Report::default() }]);
    let view = |session: &Session| session.analytics.supervisors().remove(0);
    assert_eq!((view(&session).health, view(&session).silent_since), (Health::Ok, None));
    session.passes(16_000);
    let silent = view(&session);
    assert_eq!((silent.health, silent.children[0].health), (Health::Silent, Health::Silent));
    assert_eq!((silent.uptime, silent.restarts_left, silent.children[0].uptime), (None, None, None));
    assert_eq!(silent.silent_since, Some(session.now().unix_millis()));
    session.says(&agent::stats(session.node_us(), 0, 0)).unwrap();
    assert_eq!((view(&session).health, view(&session).silent_since), (Health::Ok, None));
}

// A node that never comes back is forgotten with its supervisors; until then they are not said to have ended.
#[tokio::test(start_paused = true)]
async fn a_node_that_stays_away_is_forgotten_after_the_retention() {
    let mut session = Session::with(&[Sup::default()]);
    session.welcomed.as_ref().unwrap().node.lock().closed(session.connection);
    session.passes(20_000);
    assert_eq!(session.sum("supervisor_up", &[]), 1.0);
    session.passes(900_000);
    assert_eq!(session.lines(), ["end sup unknown"]);
    tokio::time::advance(Duration::from_secs(1000)).await;
    assert!(!session.metrics.render().contains("restart_exporter_node_up{"));
}

// An agent that is stopped says bye: nothing more will be heard of its supervisors.
#[tokio::test(start_paused = true)]
async fn a_bye_ends_what_was_known_of_the_node() {
    let session = Session::with(&[Sup::default()]);
    let node = session.welcomed.as_ref().unwrap().node.clone();
    let (connection, now) = (session.connection, session.now());
    let telemetry = session.telemetry.clone();
    node.lock().said_bye(connection, now, &mut |event| telemetry.execute(event));
    assert_eq!(session.sum("supervisor_up", &[]), 0.0);
    assert_eq!(session.sum("restart_exporter_node_up", &[]), 0.0);
}

// Of two connections of one node the newer speaks for it.
#[tokio::test(start_paused = true)]
async fn a_newer_connection_takes_the_place_of_the_one_before() {
    let mut session = Session::with(&[Sup::default()]);
    session.connect(&Who::default()).unwrap();
    session.connection -= 1;
    let frame = agent::events(1, session.node_us(), &[Report::default()]);
    assert_eq!(session.says(&frame), Err(Refusal::Replaced));
    session.connection += 1;
    session.says(&frame).unwrap();
}

#[tokio::test(start_paused = true)]
async fn nodes_and_their_supervisors_have_limits_that_are_counted() {
    let limits = NodeLimits { nodes: 1, supervisors_per_node: 1, ..NodeLimits::new(RETENTION) };
    let mut session = Session::with_limits(limits);
    session.connect(&Who::default()).unwrap();
    session.says(&agent::sup(&Sup::default())).unwrap();
    session.says(&agent::sup(&Sup { key: 2, pid: "<0.101.0>", name: "more", ..Sup::default() })).unwrap();
    session.says(&agent::events(1, session.node_us(), &[Report { sup: 2, ..Report::default() }])).unwrap();
    assert_eq!(node(&session, "events_lost_total"), 1.0, "an event that is left out is not lost in silence");
    assert!(matches!(session.connect(&Who { node: "b@host", ..Who::default() }), Err(Refusal::Nodes(1))));
    for limit in [NodeLimit::Supervisors, NodeLimit::Nodes] {
        let label = format!("limit=\"{limit}\"");
        assert_eq!(session.sum("restart_exporter_limit_reached_total", &[&label]), 1.0, "{label}");
    }
}

// A supervisor beyond the limit is not forgotten for ever: when another ends there is room, and the agent is asked for all.
#[tokio::test(start_paused = true)]
async fn a_supervisor_that_was_left_out_is_asked_for_when_there_is_room() {
    let limits = NodeLimits { nodes: 1, supervisors_per_node: 1, ..NodeLimits::new(RETENTION) };
    let mut session = Session::with_limits(limits);
    session.connect(&Who::default()).unwrap();
    let more = agent::sup(&Sup { key: 2, pid: "<0.101.0>", name: "more", ..Sup::default() });
    session.says(&agent::sup(&Sup::default())).unwrap();
    session.says(&more).unwrap();
    assert!(!session.wants_snapshot(), "there is no room");
    session.says(&agent::down(1, session.node_us(), 1, "shutdown")).unwrap();
    assert!(session.wants_snapshot());
    assert!(!session.wants_snapshot(), "once");
    for frame in [agent::snapshot("begin"), more, agent::snapshot("done")] {
        session.says(&frame).unwrap();
    }
    session.says(&agent::events(2, session.node_us(), &[Report { sup: 2, ..Report::default() }])).unwrap();
    assert_eq!((node(&session, "events_total"), node(&session, "events_lost_total")), (2.0, 0.0));
    session.says(&agent::sup(&Sup { key: 3, pid: "<0.102.0>", name: "third", ..Sup::default() })).unwrap();
    session.says(&agent::down(3, session.node_us(), 2, "shutdown")).unwrap();
    assert!(!session.wants_snapshot(), "not again so soon");
    session.passes(60_000);
    assert!(session.wants_snapshot());
}

// Words, messages and elements that are newer than this exporter are no mistake of the agent.
#[tokio::test(start_paused = true)]
async fn what_is_newer_than_this_exporter_is_counted_and_skipped() {
    use restart_exporter::beam::frame::FrameWriter;
    let mut session = Session::with(&[Sup::default()]);
    session.says(&FrameWriter::new().tuple(2).atom("weather").atom("fine").finish()).unwrap();
    session.reports(&[Report { kind: "hibernated", ..Report::default() }]);
    assert_eq!(session.sum("restart_exporter_telemetry_events_dropped_total", &["unknown_event"]), 2.0);
    assert_eq!(session.lines(), [""; 0]);
}

// A total must neither overflow nor fall, so a count that nobody can have counted is refused.
#[tokio::test(start_paused = true)]
async fn a_count_beyond_any_node_is_refused() {
    let mut session = Session::with(&[Sup::default()]);
    let row = |count| agent::Row { sup: 1, kind: "terminated", class: "exit", count, child: agent::Child::default() };
    session.says(&agent::sums(1, session.node_us(), &[row(u32::MAX.into())])).unwrap();
    let refused = session.says(&agent::sums(2, session.node_us(), &[row(i64::MAX)])).unwrap_err();
    assert!(refused.to_string().contains("a count beyond 32 bits at byte "), "{refused}");
    assert_eq!(session.sum("supervisor_child_terminations_total", &[]), f64::from(u32::MAX));
}

// Times are shown on our clock; one that a node's clock cannot have is no way to the future, and none to a panic.
#[tokio::test(start_paused = true)]
async fn no_time_of_a_node_is_too_odd() {
    let mut session = Session::with(&[Sup::default()]);
    for (seq, time_us) in [(1, i64::MIN), (2, i64::MAX), (3, 0), (4, agent::HELLO_US)] {
        session.says(&agent::events(seq, time_us, &[Report::default()])).unwrap();
    }
    assert_eq!(session.sum("supervisor_child_terminations_total", &[]), 4.0);
    let history = session.analytics.restart_history("sup", &Default::default()).unwrap();
    let now = session.now().system.duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64;
    assert!(history.events.iter().all(|entry| entry.event.timestamp <= now), "{history:?}");
}

// A supervisor that ended is said again while events that speak of it are not acknowledged: it stays ended.
#[tokio::test(start_paused = true)]
async fn a_supervisor_that_ended_does_not_come_back_with_a_snapshot() {
    let mut session = Session::with(&[Sup::default()]);
    let down = agent::down(1, session.node_us(), 1, "shutdown");
    session.says(&down).unwrap();
    assert_eq!(session.connect(&Who::default()), Ok(1));
    session.says(&agent::sup(&Sup::default())).unwrap();
    session.says(&down).unwrap();
    assert_eq!(session.lines(), ["end sup shutdown"]);
    assert_eq!(session.sum("supervisor_up", &[]), 0.0);
}
