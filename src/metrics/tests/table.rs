//! The table against the contract that dashboards and alerts are written to.

use std::io::Write;
use std::process::{Command, Stdio};

use super::*;
use crate::metrics::{FAMILIES, Kind};

/// Name, type, labels and closed values, buckets.
const CONTRACT: &str = "\
supervisor_info gauge supervisor,strategy,parent
supervisor_up gauge supervisor
supervisor_start_time_seconds gauge supervisor
supervisor_restart_intensity_limit gauge supervisor
supervisor_restart_intensity_window_seconds gauge supervisor
supervisor_restart_intensity_used gauge supervisor
supervisor_restart_intensity_saturated_total counter supervisor
supervisor_terminations_total counter supervisor,reason=normal,shutdown,max_intensity,error,unknown
supervisor_down_reason gauge supervisor,reason=normal,shutdown,max_intensity,error,unknown
supervisor_children gauge supervisor,state=waiting,starting,running,stopping,restarting,stopped,failed
supervisor_child_start_attempts_total counter supervisor
supervisor_child_start_errors_total counter supervisor
supervisor_child_terminations_total counter supervisor,reason=normal,shutdown,error,panic,killed,signal,oom,timeout
supervisor_child_restarts_total counter supervisor,child,cause=failure,sibling,requested
supervisor_child_last_restart_timestamp_seconds gauge supervisor,child
supervisor_child_lifetime_seconds histogram supervisor 0.1 1 5 15 60 300 1800 3600 21600 86400
supervisor_child_downtime_seconds histogram supervisor 0.001 0.005 0.025 0.1 0.5 1 2.5 5 10 30 60 300
supervisor_child_start_duration_seconds histogram supervisor 0.001 0.005 0.025 0.1 0.25 0.5 1 2.5 5 10 30
supervisor_history_events gauge supervisor
supervisor_history_capacity_events gauge
supervisor_history_evicted_events_total counter supervisor
restart_exporter_telemetry_events_total counter event=supervisor_init,child_start,child_start_error,child_terminate,\
child_restart,child_stop,child_phase,child_aggregate,supervisor_config,supervisor_terminate
restart_exporter_telemetry_events_dropped_total counter cause=invalid,unknown_event,gap
restart_exporter_telemetry_handler_failures_total counter handler
restart_exporter_telemetry_handlers gauge state=attached,detached
restart_exporter_scrape_duration_seconds gauge
restart_exporter_build_info gauge version,revision,branch,rustversion
restart_exporter_config_last_reload_successful gauge
restart_exporter_config_last_reload_success_timestamp_seconds gauge
restart_exporter_http_requests_total counter handler,code
restart_exporter_http_requests_in_flight gauge
restart_exporter_live_viewers gauge
restart_exporter_live_events_missed_total counter
restart_exporter_label_values gauge label=supervisor,child
restart_exporter_label_value_limit gauge label=supervisor,child
restart_exporter_label_overflows_total counter label=supervisor,child
restart_exporter_limit_reached_total counter limit=http_connections,http_request_header,http_request_body,\
http_idle,http_scrapes,http_scrape_time,http_slow_reader,http_tls_handshake,http_rate,http_password_checks,\
live_viewers,series_supervisors,series_children,node_connections,node_hello_time,node_frame_size,node_silence,nodes,\
node_supervisors,node_children,node_awaited_restarts,node_text_length,node_text_bytes,node_listed_children,\
file_descriptors,processes,memory
restart_exporter_expired_series_total counter
restart_exporter_node_up gauge node
restart_exporter_node_events_total counter node
restart_exporter_node_events_lost_total counter node
restart_exporter_node_events_aggregated_total counter node
restart_exporter_node_tap_reinstalls_total counter node
process_cpu_seconds_total counter
process_open_fds gauge
process_max_fds gauge
process_virtual_memory_bytes gauge
process_resident_memory_bytes gauge
process_start_time_seconds gauge
process_threads gauge
";

// The contract, line by line: names, types, labels, closed sets, buckets.
#[test]
fn the_table_is_the_contract() {
    let mut table = String::new();
    for family in FAMILIES {
        let mut words = vec![family.name.to_owned(), family.kind.as_str().to_owned()];
        let labels = family.labels.join(",");
        match (labels.is_empty(), family.values.is_empty()) {
            (true, _) => {}
            (false, true) => words.push(labels),
            (false, false) => words.push(format!("{labels}={}", family.values.join(","))),
        }
        words.extend(family.buckets.iter().map(f64::to_string));
        table.push_str(&words.join(" "));
        table.push('\n');
    }
    assert_eq!(table, CONTRACT);
}

// Prometheus, "Writing exporters" and promlint: what a name must and must not end in; buckets ascend; help says something.
#[test]
fn every_family_is_well_formed() {
    for family in FAMILIES {
        let name = family.name;
        assert_eq!(name.ends_with("_total"), family.kind == Kind::Counter, "{name}");
        assert_eq!(family.buckets.is_empty(), family.kind != Kind::Histogram, "{name}");
        assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
        assert!(["supervisor_", "restart_exporter_", "process_"].iter().any(|prefix| name.starts_with(prefix)));
        assert!(!["_bucket", "_count", "_sum"].iter().any(|suffix| name.ends_with(suffix)), "{name}");
        assert!(family.help.ends_with('.') && family.buckets.is_sorted(), "{name}");
        assert_eq!(FAMILIES.iter().filter(|other| other.name == name).count(), 1, "{name}");
    }
}

// promtool's own lint finds nothing to say about a full exposition.
#[test]
fn promtool_finds_nothing() {
    let world = World::new(MetricsConfig { max_supervisors: 3, max_children: 3, ..MetricsConfig::default() });
    scripted(&world);
    world.supervisor("one too many").init();
    world.metrics.http_handlers(&["/metrics"]);
    let first = world.metrics.render();
    assert!(!first.contains("scrape_duration"), "before the first exposition its duration is unknown");
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("this test needs promtool (Debian package prometheus)");
    promtool.stdin.take().unwrap().write_all(world.metrics.render().as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    assert!(output.status.success() && said.concat().is_empty(), "promtool: {} {}", said[0], said[1]);
}
