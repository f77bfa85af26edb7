use std::sync::Arc;
use std::time::UNIX_EPOCH;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::*;
use crate::analytics::{ChildCounts, ChildState, Health, HistoryEntry, HistoryEvent, SupervisorConfig};
use crate::event::{
    Action, ChildType, Decision, Detail, Panic, Restart, RestartCause, Strategy, SupervisorRef, Timestamp,
};
use crate::telemetry::monotonic_now;

/// The text of each shape, field for field; a client reads back what was written.
#[track_caller]
fn check<T: serde::Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(shape: &T, golden: Value) {
    assert_eq!(serde_json::to_value(shape).unwrap(), golden);
    assert_eq!(&serde_json::from_value::<T>(golden).unwrap(), shape);
}

fn name(node: Option<&str>) -> Name {
    Name { supervisor: "payments/workers".into(), node: node.map(Into::into) }
}

fn mailer() -> Arc<ChildRef> {
    let (child_type, restart) = (ChildType::Worker, Some(Restart::Transient));
    Arc::new(ChildRef { id: "mailer".into(), label: "mailer".into(), child_type, restart, dynamic: false })
}

fn entry(fact: Fact) -> HistoryEntry {
    let child = (!matches!(fact, Fact::SupervisorTerminated { .. } | Fact::Mark { .. })).then(mailer);
    HistoryEntry {
        event: HistoryEvent { id: 7, at: 1, timestamp: 1_700_000_000_123, child, fact },
        remains: Remains::default(),
    }
}

fn death() -> HistoryEntry {
    let panic = Panic { message: Detail::new("boom"), location: Some("src/main.rs:88:5".into()) };
    let decision = Decision { action: Action::Restart, delay: Duration::from_millis(250), restarts_left: Some(2) };
    let fact = Fact::Terminated {
        child_pid: Some(Pid::Task(3)),
        reason: ExitReason::Panic(Arc::new(panic)),
        shutdown: false,
        lifetime_ms: Some(Duration::from_millis(410)).into(),
        decision: decision.into(),
    };
    let usage = Some(crate::event::Usage { peak_memory_bytes: Some(4096), cpu: Duration::from_millis(20) });
    let remains = Remains { last_output: Some(Arc::new(["one".into(), "two".into()])), usage };
    HistoryEntry { remains, ..entry(fact) }
}

fn death_json() -> Value {
    json!({
        "id": 7, "timestamp": 1_700_000_000_123_u64, "time": "2023-11-14T22:13:20.123Z", "event_type": "terminated",
        "supervisor_name": "payments/workers", "node": null, "child_id": "mailer", "child_pid": "task-3",
        "reason": {"class": "panic", "detail": "boom at src/main.rs:88:5"}, "shutdown": false, "lifetime_ms": 410,
        "downtime_ms": null, "cause": null, "decision": {"action": "restart", "delay_ms": 250, "restarts_left": 2},
        "last_output": ["one", "two"],
        "usage": {"peak_memory_bytes": 4096, "cpu_ms": 20}, "text": null,
    })
}

#[test]
fn history_has_its_shape() {
    let page = analytics::HistoryPage {
        supervisor: name(None),
        capacity: 1000,
        total: 1007,
        evicted: 7,
        events: vec![death()],
    };
    let golden = json!({
        "supervisor": "payments/workers", "capacity": 1000, "total": 1007, "evicted": 7, "events": [death_json()],
    });
    check(&history(&page, LastOutput::Shown), golden);
}

// Every field stands in every event; what is unknown or does not apply is null.
#[test]
fn each_type_of_event_has_its_shape() {
    let node = name(Some("web@host"));
    let restarted = Fact::Restarted {
        child_pid: Some(Pid::Beam { id: 123, serial: 0 }),
        previous_pid: None,
        cause: RestartCause::Sibling,
        downtime_ms: Some(5),
    };
    let golden = json!({
        "id": 7, "timestamp": 1_700_000_000_123_u64, "time": "2023-11-14T22:13:20.123Z", "event_type": "restarted",
        "supervisor_name": "payments/workers", "node": "web@host", "child_id": "mailer", "child_pid": "<0.123.0>",
        "reason": null, "shutdown": null, "lifetime_ms": null, "downtime_ms": 5, "cause": "sibling", "decision": null,
        "last_output": null, "usage": null, "text": null,
    });
    check(&event(&node, &entry(restarted), LastOutput::Shown), golden);

    let decision = Decision { action: Action::GiveUp, delay: Duration::ZERO, restarts_left: None };
    let start_error = Fact::StartError { reason: ExitReason::Exit(127), attempt: 4, decision: Some(decision.into()) };
    let golden = json!({
        "id": 7, "timestamp": 1_700_000_000_123_u64, "time": "2023-11-14T22:13:20.123Z", "event_type": "start_error",
        "supervisor_name": "payments/workers", "node": "web@host", "child_id": "mailer", "child_pid": null,
        "reason": {"class": "error", "detail": "exit code 127"}, "shutdown": null, "lifetime_ms": null,
        "downtime_ms": null, "cause": null, "decision": {"action": "give_up", "delay_ms": 0, "restarts_left": null},
        "last_output": null, "usage": null, "text": null,
    });
    check(&event(&node, &entry(start_error), LastOutput::Shown), golden);

    let ended = Fact::SupervisorTerminated {
        reason: SupervisorExit::Shutdown,
        lifetime_ms: Some(Duration::from_millis(99)).into(),
    };
    let golden = json!({
        "id": 7, "timestamp": 1_700_000_000_123_u64, "time": "2023-11-14T22:13:20.123Z",
        "event_type": "supervisor_terminated", "supervisor_name": "payments/workers", "node": "web@host",
        "child_id": null, "child_pid": null, "reason": {"class": "shutdown", "detail": null}, "shutdown": null,
        "lifetime_ms": 99, "downtime_ms": null, "cause": null, "decision": null, "last_output": null, "usage": null, "text": null,
    });
    check(&event(&node, &entry(ended), LastOutput::Shown), golden);

    // A mark belongs to no supervisor, in whose history soever it stands.
    let marked = Fact::Mark { text: "deploy api v1.8.2".parse().unwrap() };
    let golden = json!({
        "id": 7, "timestamp": 1_700_000_000_123_u64, "time": "2023-11-14T22:13:20.123Z", "event_type": "mark",
        "supervisor_name": null, "node": null, "child_id": null, "child_pid": null, "reason": null, "shutdown": null,
        "lifetime_ms": null, "downtime_ms": null, "cause": null, "decision": null, "last_output": null, "usage": null,
        "text": "deploy api v1.8.2",
    });
    check(&event(&node, &entry(marked), LastOutput::Shown), golden);
}

#[test]
fn failure_rate_has_its_shape() {
    let window = Duration::from_secs(60);
    let rate = analytics::FailureRate { restarts: 30, rate: 0.5, failures: 31, window, complete: true };
    let golden = json!({"restarts": 30, "rate": 0.5, "failures": 31, "window_ms": 60_000, "complete": true});
    check(&failure_rate(&rate), golden);
}

#[test]
fn stats_have_their_shape() {
    let row = |id, last_restart| analytics::SupervisorStats {
        supervisor: name(None),
        id,
        total_restarts: 5,
        total_failures: 6,
        recent_restarts: 4,
        last_restart,
    };
    let all = analytics::AllStats {
        total_supervisors: 2,
        total_restarts: 10,
        total_failures: 12,
        uptime: Duration::from_millis(1500),
        supervisor_stats: vec![row(Some(Pid::Task(1)), Some(1_700_000_000_123)), row(None, None)],
    };
    let golden = json!({
        "total_supervisors": 2, "total_restarts": 10, "total_failures": 12, "uptime_ms": 1500, "supervisor_stats": [
            {"supervisor_name": "payments/workers", "supervisor_pid": "task-1", "node": null, "total_restarts": 5,
             "total_failures": 6, "recent_restarts": 4, "last_restart": 1_700_000_000_123_u64},
            {"supervisor_name": "payments/workers", "supervisor_pid": null, "node": null, "total_restarts": 5,
             "total_failures": 6, "recent_restarts": 4, "last_restart": null},
        ],
    });
    check(&stats(&all), golden);
}

#[test]
fn a_supervisor_has_its_shape() {
    let looping = analytics::Looping {
        began_at: 0,
        since: 1_700_000_000_000,
        lasting: Duration::from_secs(16),
        up: Duration::from_millis(1500),
        deaths: 214,
    };
    let child = |state, pid, uptime, next_try, last_death: Option<HistoryEntry>| analytics::ChildView {
        child: mailer(),
        pid,
        state,
        restarts: 3,
        uptime,
        progress: None,
        next_try,
        reason_fingerprint: last_death.as_ref().map(|_| 0x7c1e),
        health: if last_death.is_some() { Health::Looping } else { Health::Ok },
        looping: last_death.as_ref().map(|_| looping),
        deaths_hour: 3,
        deaths_day: 214,
        last_death,
    };
    let config = SupervisorConfig {
        strategy: Some(Strategy::RestForOne),
        max_restarts: Some(3),
        max_seconds: Some(5),
        parent: Some("payments".into()),
        budget_can_run_out: Some(false),
    };
    let known = analytics::SupervisorView {
        supervisor: name(None),
        id: Some(Pid::Task(1)),
        up: true,
        uptime: Some(Duration::from_secs(9)),
        config: Some(config),
        restarts_in_window: Some(1),
        restarts_left: Some(2),
        health: Health::Looping,
        silent_since: None,
        total_restarts: 213,
        total_failures: 214,
        last_end: None,
        child_counts: ChildCounts::from([(ChildState::Running, 1), (ChildState::Restarting, 1)]),
        children: vec![
            child(ChildState::Running, Some(Pid::Process(42)), Some(Duration::from_millis(1234)), None, None),
            child(ChildState::Restarting, None, None, Some(Duration::from_millis(250)), Some(death())),
        ],
    };
    let children = json!([
        {"id": "mailer", "label": "mailer", "pid": "42", "state": "running", "type": "worker", "restart": "transient", "restarts": 3,
         "uptime_ms": 1234, "progress": null, "next_try_ms": null, "last_death": null, "reason_fingerprint": null, "health": "ok",
         "looping": null, "deaths_hour": 3, "deaths_day": 214},
        {"id": "mailer", "label": "mailer", "pid": null, "state": "restarting", "type": "worker", "restart": "transient",
         "restarts": 3, "uptime_ms": null, "progress": null, "next_try_ms": 250, "last_death": death_json(),
         "reason_fingerprint": "0000000000007c1e", "health": "looping", "deaths_hour": 3, "deaths_day": 214,
         "looping": {"since": 1_700_000_000_000_u64, "since_time": "2023-11-14T22:13:20.000Z",
                     "lasting_ms": 16_000, "up_ms": 1500, "deaths": 214}},
    ]);
    let golden = json!({
        "name": "payments/workers", "node": null, "id": "task-1", "parent": "payments", "up": true,
        "strategy": "rest_for_one", "max_restarts": 3, "max_seconds": 5, "budget_can_run_out": false, "restarts_in_window": 1, "restarts_left": 2,
        "health": "looping", "silent_since": null, "uptime_ms": 9000, "total_restarts": 213, "total_failures": 214, "last_end": null,
        "children": children,
    });
    check(&supervisor(&known, LastOutput::Shown), golden);
    let reason = SupervisorExit::MaxIntensity(Detail::new("too many"));
    let unknown = analytics::SupervisorView {
        config: None,
        restarts_in_window: None,
        restarts_left: None,
        health: Health::GaveUp,
        silent_since: Some(1_700_000_000_000),
        uptime: None,
        last_end: Some(entry(Fact::SupervisorTerminated {
            reason,
            lifetime_ms: Some(Duration::from_millis(99)).into(),
        })),
        up: false,
        children: vec![],
        ..known
    };
    let golden = json!({
        "name": "payments/workers", "node": null, "id": "task-1", "parent": null, "up": false, "strategy": null,
        "max_restarts": null, "max_seconds": null, "budget_can_run_out": null, "restarts_in_window": null, "restarts_left": null,
        "health": "gave_up", "silent_since": 1_700_000_000_000_u64, "uptime_ms": null, "total_restarts": 213, "total_failures": 214, "children": [],
        "last_end": {
            "id": 7, "timestamp": 1_700_000_000_123_u64, "time": "2023-11-14T22:13:20.123Z",
            "event_type": "supervisor_terminated", "supervisor_name": "payments/workers", "node": null,
            "child_id": null, "child_pid": null, "reason": {"class": "max_intensity", "detail": "too many"},
            "shutdown": null, "lifetime_ms": 99, "downtime_ms": null, "cause": null, "decision": null,
            "last_output": null, "usage": null, "text": null,
        },
    });
    check(&supervisor(&unknown, LastOutput::Shown), golden);
}

#[test]
fn causes_have_their_shape() {
    let known = analytics::Cause {
        fingerprint: Some(0x7c1e),
        reason_fingerprint: Some(0x1),
        child: Some("mailer".into()),
        count: 213,
        first: 1,
        last: 2,
        sample: death(),
    };
    let other =
        analytics::Cause { fingerprint: None, reason_fingerprint: None, child: None, count: 1, ..known.clone() };
    let page = analytics::CausesPage { supervisor: name(None), causes: vec![known, other] };
    let golden = json!({"supervisor": "payments/workers", "causes": [
        {"fingerprint": "0000000000007c1e", "reason_fingerprint": "0000000000000001", "child_id": "mailer",
         "count": 213, "first": 1, "last": 2,
         "sample": death_json()},
        {"fingerprint": "_other", "reason_fingerprint": null, "child_id": null, "count": 1, "first": 1, "last": 2, "sample": death_json()},
    ]});
    check(&causes(&page, LastOutput::Shown), golden);
}

// Who may not see the last words is told as much as if none had been kept.
#[test]
fn the_last_output_can_be_hidden() {
    let shown = event(&name(None), &death(), LastOutput::Shown);
    let hidden = event(&name(None), &death(), LastOutput::Hidden);
    assert!(shown.last_output.is_some());
    assert_eq!(hidden, wire::Event { last_output: None, last_output_withheld: true, ..shown });
}

// A live event has the shape of one in a history; starts and ordered stops have words of their own.
#[test]
fn live_events_have_the_shape_of_those_in_a_history() {
    let time = Timestamp { monotonic: monotonic_now(), system: UNIX_EPOCH + Duration::from_millis(1_700_000_000_123) };
    let supervisor = Arc::new(SupervisorRef::new(Pid::Task(1), "payments/workers", None));
    let of = |payload| SupervisorEvent { supervisor: supervisor.clone(), time, payload };
    let HistoryEntry { event: died, remains } = death();
    let Fact::Terminated { reason, .. } = died.fact else { panic!("no death") };
    let terminate = |last_output| Payload::ChildTerminate {
        child: mailer(),
        child_pid: Some(Pid::Task(3)),
        reason: reason.clone(),
        shutdown: false,
        lifetime: Some(Duration::from_millis(410)),
        decision: Decision { action: Action::Restart, delay: Duration::from_millis(250), restarts_left: Some(2) },
        last_output,
        usage: remains.usage,
    };
    let event = of(terminate(remains.last_output.clone()));
    check(&live_event(7, &event, LastOutput::Shown), death_json());
    let hidden = live_event(7, &event, LastOutput::Hidden);
    let none = live_event(7, &of(terminate(None)), LastOutput::Shown);
    assert_eq!(hidden, wire::Event { last_output_withheld: true, ..none });

    let (child, child_pid) = (mailer(), Some(Pid::Task(3)));
    let start = of(Payload::ChildStart { child: child.clone(), child_pid, duration: Some(Duration::ZERO) });
    let started = live_event(8, &start, LastOutput::Shown);
    assert_eq!((&*started.event_type, started.child_pid.as_deref()), ("started", Some("task-3")));
    let stopped = live_event(9, &of(Payload::ChildStop { child, deleted: false }), LastOutput::Shown);
    assert_eq!((&*stopped.event_type, stopped.child_id.as_deref()), ("stopped", Some("mailer")));
    let end = Payload::SupervisorTerminate { reason: SupervisorExit::Normal, lifetime: Some(Duration::from_secs(1)) };
    let ended = live_event(10, &of(end), LastOutput::Shown);
    assert_eq!((&*ended.event_type, ended.child_id, ended.lifetime_ms), ("supervisor_terminated", None, Some(1000)));
}
