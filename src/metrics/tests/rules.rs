//! The rules that turn events into numbers.

use super::*;
use crate::event::EventKind;
use crate::metrics::{DropCause, HANDLER_ID, Limit};

// `increase()` sees the first restart only if the series stood at 0 before: all closed sets start there.
#[test]
fn every_closed_set_stands_at_zero_before_the_first_restart() {
    let world = World::new(MetricsConfig::default());
    let (supervisor, name) = (world.supervisor("a"), "supervisor=\"a\"");
    supervisor.init();
    supervisor.start("c");
    for (metric, count) in [
        ("supervisor_child_restarts_total", 3),
        ("supervisor_child_last_restart_timestamp_seconds", 1),
        ("supervisor_terminations_total", 5),
        ("supervisor_child_terminations_total", 8),
        ("supervisor_restart_intensity_saturated_total", 1),
        ("supervisor_child_start_errors_total", 1),
        ("supervisor_child_lifetime_seconds_bucket", 11),
        ("supervisor_child_downtime_seconds_bucket", 13),
        ("restart_exporter_limit_reached_total", Limit::ALL.len()),
        ("restart_exporter_telemetry_events_dropped_total", 3),
    ] {
        let lines = world.lines(metric);
        assert_eq!(lines.len(), count, "{metric}");
        assert!(lines.iter().all(|line| line.ends_with(" 0")), "{lines:?}");
    }
    supervisor.restart("c", RestartCause::Failure);
    let restarts = format!("supervisor_child_restarts_total{{{name},child=\"c\",cause=\"failure\"}}");
    assert_eq!(world.value(&restarts), Some(1.0));
}

// Restart is not termination: each event moves its own numbers and no others.
#[test]
fn each_event_moves_its_own_numbers() {
    let world = World::new(MetricsConfig::default());
    let supervisor = world.supervisor("a");
    let numbers = || {
        let text = world.metrics.render();
        let value = |series: &str| value_in(&text, &series.replace('@', "supervisor=\"a\"")).unwrap() as u64;
        [
            value("supervisor_child_start_attempts_total{@}"),
            value("supervisor_child_start_errors_total{@}"),
            value("supervisor_child_start_duration_seconds_count{@}"),
            value("supervisor_child_lifetime_seconds_count{@}"),
            value("supervisor_child_downtime_seconds_count{@}"),
            value("supervisor_restart_intensity_saturated_total{@}"),
        ]
    };
    supervisor.init();
    let steps: &[(&dyn Fn(), [u64; 6])] = &[
        (&|| supervisor.start("c"), [1, 0, 1, 0, 0, 0]),
        (&|| supervisor.terminate("c", ExitReason::Killed, 1), [1, 0, 1, 1, 0, 0]),
        (&|| supervisor.restart("c", RestartCause::Failure), [2, 0, 2, 1, 1, 0]),
        (&|| supervisor.terminate("c", ExitReason::Killed, 0), [2, 0, 2, 2, 1, 1]),
        (&|| supervisor.start_error("c", Some(restart(0))), [3, 1, 2, 2, 1, 2]),
        (&|| supervisor.start_error("c", None), [4, 2, 2, 2, 1, 2]),
        // A child that chose to be ignored: an attempt without a start.
        (
            &|| {
                let duration = Duration::from_secs(1);
                supervisor.emit(Payload::ChildStart {
                    child: child_ref("c"),
                    child_pid: None,
                    duration: Some(duration),
                });
            },
            [5, 2, 2, 2, 1, 2],
        ),
        (&|| supervisor.emit(Payload::ChildStop { child: child_ref("c"), deleted: false }), [5, 2, 2, 2, 1, 2]),
    ];
    for (step, (act, expected)) in steps.iter().enumerate() {
        act();
        assert_eq!(numbers(), *expected, "after step {step}");
    }
}

// A sibling that is stopped on order uses up nothing of the window, though it is restarted too.
#[test]
fn an_ordered_stop_does_not_saturate_the_window() {
    let world = World::new(MetricsConfig::default());
    let supervisor = world.supervisor("a");
    supervisor.emit(Payload::ChildTerminate {
        child: child_ref("sibling"),
        child_pid: Some(Pid::Task(1)),
        reason: ExitReason::Shutdown(None),
        shutdown: true,
        lifetime: Some(Duration::ZERO),
        decision: restart(0),
        last_output: None,
        usage: None,
    });
    assert_eq!(world.value("supervisor_restart_intensity_saturated_total{supervisor=\"a\"}"), Some(0.0));
}

// "Automatic restart": an operator's wish leaves the timestamp alone; a value that is not known is absent.
#[test]
fn a_requested_restart_leaves_the_timestamp_alone() {
    let world = World::new(MetricsConfig::default());
    let supervisor = world.supervisor("a");
    let timestamp = "supervisor_child_last_restart_timestamp_seconds{supervisor=\"a\",child=\"c\"}";
    supervisor.restart("c", RestartCause::Requested);
    assert_eq!(world.value(timestamp), Some(0.0));
    supervisor.restart("c", RestartCause::Sibling);
    assert_eq!(world.value(timestamp), Some(1_700_000_000.0));
    assert!(world.lines("supervisor_info").is_empty(), "no init was seen");
    assert!(world.lines("supervisor_restart_intensity_limit").is_empty());
}

// Every termination was a life: `_count` of lifetimes = sum of terminations, and no more restarts than ends.
#[test]
fn lifetimes_are_as_many_as_terminations() {
    let world = World::new(MetricsConfig::default());
    scripted(&world);
    let text = world.metrics.render();
    let sum = |metric: &str| -> f64 {
        let lines = text.lines().filter(|line| line.starts_with(metric));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    };
    let terminations = sum("supervisor_child_terminations_total{");
    assert_eq!(sum("supervisor_child_lifetime_seconds_count{"), terminations);
    assert!(sum("supervisor_child_restarts_total{") <= terminations + sum("supervisor_child_start_errors_total{"));
}

// After its end a supervisor stays with `up 0` for the retention, then all its series go at once and are counted.
#[tokio::test(start_paused = true)]
async fn series_stay_for_the_retention_and_go_together() {
    let world = World::new(MetricsConfig::default());
    let supervisor = world.supervisor("a");
    supervisor.init();
    supervisor.start("c");
    supervisor.end(SupervisorExit::Normal);
    tokio::time::advance(Duration::from_secs(899)).await;
    assert_eq!(world.value("supervisor_up{supervisor=\"a\"}"), Some(0.0));
    let is_of_it = |line: &&str| line.contains("supervisor=\"a\"");
    let series = world.metrics.render().lines().filter(is_of_it).count();
    assert_eq!(world.value("restart_exporter_label_values{label=\"child\"}"), Some(1.0));
    tokio::time::advance(Duration::from_secs(1)).await;
    let text = world.metrics.render();
    assert_eq!(text.lines().filter(is_of_it).count(), 0);
    assert_eq!(value_in(&text, "restart_exporter_expired_series_total"), Some(series as f64));
    assert_eq!(value_in(&text, "restart_exporter_label_values{label=\"child\"}"), Some(0.0), "room is given back");
}

// Coming back by the same name within the retention continues the counters.
#[tokio::test(start_paused = true)]
async fn a_supervisor_that_comes_back_goes_on_counting() {
    let world = World::new(MetricsConfig::default());
    for _ in 0..2 {
        let incarnation = world.supervisor("a");
        incarnation.init();
        incarnation.start("c");
        incarnation.end(SupervisorExit::Error(crate::event::Detail::new("no")));
        tokio::time::advance(Duration::from_secs(800)).await;
    }
    world.supervisor("a").init();
    assert_eq!(world.value("supervisor_terminations_total{supervisor=\"a\",reason=\"error\"}"), Some(2.0));
    assert_eq!(world.value("supervisor_up{supervisor=\"a\"}"), Some(1.0));
}

// Counters say how often a supervisor ended for each reason, but not which end was the last one.
#[test]
fn a_supervisor_that_is_down_shows_the_reason_of_its_last_end() {
    let world = World::new(MetricsConfig::default());
    let reasons = || -> Vec<String> {
        let lines = world.lines("supervisor_down_reason{supervisor=\"a\"");
        let reason = |line: &String| line.split('"').nth(3).unwrap().to_owned();
        assert!(lines.is_empty() || lines.len() == 5, "{lines:?}");
        lines.iter().filter(|line| line.ends_with(" 1")).map(reason).collect()
    };
    let detail = || crate::event::Detail::new("no");
    for (exit, reason) in [
        (SupervisorExit::MaxIntensity(detail()), "max_intensity"),
        (SupervisorExit::Shutdown, "shutdown"),
        (SupervisorExit::Error(detail()), "error"),
        (SupervisorExit::Normal, "normal"),
    ] {
        let incarnation = world.supervisor("a");
        incarnation.init();
        assert!(reasons().is_empty(), "it runs");
        incarnation.end(exit);
        assert_eq!(reasons(), [reason]);
    }
    // Two incarnations may overlap; the name is up as long as one of them runs.
    let (old, new) = (world.supervisor("a"), world.supervisor("a"));
    old.init();
    new.init();
    old.end(SupervisorExit::Error(detail()));
    assert!(reasons().is_empty());
    new.end(SupervisorExit::Shutdown);
    assert_eq!(reasons(), ["shutdown"]);
}

// Bounds: beyond the limit all supervisors share `_other`, whose counters go on and which has no gauges.
#[test]
fn supervisors_beyond_the_limit_are_counted_together() {
    let world = World::new(MetricsConfig { max_supervisors: 1, ..MetricsConfig::default() });
    for name in ["a", "b", "_other"] {
        let supervisor = world.supervisor(name);
        supervisor.init();
        supervisor.start("c");
        supervisor.restart("c", RestartCause::Failure);
    }
    let other = world.lines("supervisor_child_restarts_total{supervisor=\"_other\",child=\"_other\"");
    assert_eq!(other.len(), 3);
    assert!(other[0].ends_with("cause=\"failure\"} 2"), "{other:?}");
    assert_eq!(world.lines("supervisor_up{").len(), 1);
    assert_eq!(world.lines("supervisor_child_last_restart_timestamp_seconds{").len(), 1);
    assert_eq!(world.value("restart_exporter_label_overflows_total{label=\"supervisor\"}"), Some(6.0));
    assert_eq!(world.value("restart_exporter_label_overflows_total{label=\"child\"}"), Some(0.0));
    assert_eq!(world.value("restart_exporter_limit_reached_total{limit=\"series_supervisors\"}"), Some(6.0));
}

// The same for children: of one supervisor and of all; sums stay right, and no series appears twice.
#[test]
fn children_beyond_the_limits_are_counted_together() {
    let config = MetricsConfig { max_children_per_supervisor: 2, max_children: 3, ..MetricsConfig::default() };
    let world = World::new(config);
    for name in ["a", "b"] {
        let supervisor = world.supervisor(name);
        for child in ["_other", "x", "z", "y"] {
            supervisor.restart(child, RestartCause::Failure);
        }
    }
    let restarts: Vec<_> = world
        .lines("supervisor_child_restarts_total")
        .into_iter()
        .filter(|line| !line.ends_with(" 0"))
        .map(|line| line.replace("supervisor_child_restarts_total{supervisor=", "").replace("cause=\"failure\"", ""))
        .collect();
    let expected = [
        "\"a\",child=\"x\",} 1",
        "\"a\",child=\"z\",} 1",
        "\"a\",child=\"_other\",} 2",
        "\"b\",child=\"x\",} 1",
        "\"b\",child=\"_other\",} 3",
    ];
    assert_eq!(restarts, expected);
    assert_eq!(world.value("restart_exporter_label_overflows_total{label=\"child\"}"), Some(5.0));
    assert_eq!(world.value("restart_exporter_label_values{label=\"child\"}"), Some(3.0));
}

// Nothing is lost and nothing doubled when two threads emit, for one supervisor, for others, and beyond the limit.
#[test]
fn two_threads_add_up_exactly() {
    const ROUNDS: usize = 5_000;
    let world = World::new(MetricsConfig { max_supervisors: 3, ..MetricsConfig::default() });
    let shared = world.supervisor("shared");
    std::thread::scope(|scope| {
        for thread in 0..2 {
            let (world, shared) = (&world, &shared);
            scope.spawn(move || {
                let (own, beyond) = (world.supervisor(&format!("own-{thread}")), world.supervisor("shared"));
                for _ in 0..ROUNDS {
                    for supervisor in [shared, &own, &beyond] {
                        supervisor.terminate("c", ExitReason::Killed, 1);
                        supervisor.restart("c", RestartCause::Failure);
                    }
                }
            });
        }
    });
    let text = world.metrics.render();
    for (name, threads) in [("shared", 4), ("own-0", 1), ("own-1", 1)] {
        let count = (threads * ROUNDS) as f64;
        let value = |metric: &str, rest: &str| value_in(&text, &format!("{metric}{{supervisor=\"{name}\"{rest}}}"));
        assert_eq!(value("supervisor_child_restarts_total", ",child=\"c\",cause=\"failure\""), Some(count));
        assert_eq!(value("supervisor_child_lifetime_seconds_count", ""), Some(count));
        assert_eq!(value("supervisor_child_lifetime_seconds_sum", ""), Some(count * 1.5));
    }
    let events = (6 * ROUNDS) as f64;
    assert_eq!(value_in(&text, "restart_exporter_telemetry_events_total{event=\"child_restart\"}"), Some(events));
}

// Attaching twice is no error; a handler that failed is counted and shown as detached.
#[test]
fn handlers_are_shown_by_state_and_failure() {
    let world = World::new(MetricsConfig::default());
    world.metrics.attach().unwrap();
    world.telemetry.attach("bad", EventKind::SupervisorInit, |_: &Event| panic!("bad handler")).unwrap();
    let failures = "restart_exporter_telemetry_handler_failures_total";
    assert_eq!(world.value(&format!("{failures}{{handler=\"bad\"}}")), Some(0.0));
    world.supervisor("a").init();
    assert_eq!(world.value(&format!("{failures}{{handler=\"bad\"}}")), Some(1.0));
    assert_eq!(world.value(&format!("{failures}{{handler=\"{HANDLER_ID}\"}}")), Some(0.0));
    assert_eq!(world.value("restart_exporter_telemetry_handlers{state=\"detached\"}"), Some(1.0));
}

// What the HTTP part counts: requests from 0, those in flight, limits, and events that were lost.
#[test]
fn the_exporter_counts_what_it_does_itself() {
    let world = World::new(MetricsConfig::default());
    let metrics = &world.metrics;
    metrics.http_handlers(&["/metrics"]);
    let answered =
        |code| world.value(&format!("restart_exporter_http_requests_total{{handler=\"/metrics\",code=\"{code}\"}}"));
    assert_eq!((answered(200), answered(503)), (Some(0.0), None));
    let guard = metrics.http_request_in_flight();
    assert_eq!(world.value("restart_exporter_http_requests_in_flight"), Some(1.0));
    drop(guard);
    metrics.http_request("/metrics", 503);
    assert_eq!((answered(200), answered(503)), (Some(0.0), Some(1.0)));
    assert_eq!(world.value("restart_exporter_http_requests_in_flight"), Some(0.0));
    metrics.limit_reached(Limit::HttpConnections);
    assert_eq!(world.value("restart_exporter_limit_reached_total{limit=\"http_connections\"}"), Some(1.0));
    metrics.events_dropped(DropCause::Gap, 7);
    assert_eq!(world.value("restart_exporter_telemetry_events_dropped_total{cause=\"gap\"}"), Some(7.0));
}

// Prometheus' own convention: both gauges are absent until a configuration file is loaded.
#[test]
fn a_failed_reload_keeps_the_time_of_the_last_successful_one() {
    let world = World::new(MetricsConfig::default());
    let shown = || {
        let text = world.metrics.render();
        let value = |name: &str| value_in(&text, &format!("restart_exporter_config_last_reload_{name}"));
        (value("successful"), value("success_timestamp_seconds"))
    };
    assert_eq!(shown(), (None, None), "no configuration file is used");
    for (successful, time, expected) in [
        (false, 100, (Some(0.0), None)),
        (true, 200, (Some(1.0), Some(200.0))),
        (false, 300, (Some(0.0), Some(200.0))),
        (true, 400, (Some(1.0), Some(400.0))),
    ] {
        world.metrics.config_reloaded(successful, unix(time));
        assert_eq!(shown(), expected, "after the attempt at {time}");
    }
    world.metrics.config_reloaded(true, unix(1_700_000_000) + Duration::from_millis(250));
    assert_eq!(shown().1, Some(1_700_000_000.25), "the time has milliseconds");
}

// The bus holds the recorder, so the recorder must not hold the bus.
#[test]
fn bus_and_metrics_do_not_keep_each_other_alive() {
    let world = World::new(MetricsConfig::default());
    world.supervisor("a").init();
    let recorder = Arc::downgrade(&world.metrics.recorder);
    drop(world);
    assert!(recorder.upgrade().is_none());
}
