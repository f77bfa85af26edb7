//! The one table of metric families, and the only place where the name of a metric is written.
//!
//! Names, types, labels and buckets are a contract with dashboards and alerts; a test below spells them out again.

use std::sync::atomic::Ordering;

use super::cells::Histogram;
use super::exposition::Sink;
use super::family::{Family, Samples, counter, gauge, histogram};
use super::labels::Labels;
use super::limits::Limit;
use super::own::DropCause;
use super::row::RowView;
use crate::analytics::ChildState;
use crate::event::{EventKind, ReasonClass, RestartCause, SupervisorExitClass};

use Samples::{Exporter, Supervisor};

/// Seconds a child ran: from a crash at once to a day.
pub(super) const LIFETIME_BUCKETS: [f64; 10] = [0.1, 1.0, 5.0, 15.0, 60.0, 300.0, 1800.0, 3600.0, 21600.0, 86400.0];
/// Seconds a child was away: from a task restarted at once to a long backoff.
pub(super) const DOWNTIME_BUCKETS: [f64; 12] = [0.001, 0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];
/// Seconds a start took.
pub(super) const START_BUCKETS: [f64; 11] = [0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// Spellings of a closed set of words, in the order of the discriminants.
macro_rules! spellings {
    ($words:ty) => {{
        const SPELLINGS: [&str; <$words>::ALL.len()] = {
            let mut spellings = [""; <$words>::ALL.len()];
            let mut index = 0;
            while index < spellings.len() {
                spellings[index] = <$words>::ALL[index].as_str();
                index += 1;
            }
            spellings
        };
        &SPELLINGS
    }};
}

const STATES: &[&str] = spellings!(ChildState);
const HANDLER_STATES: &[&str] = &["attached", "detached"];
/// The supervisors' events in the order of [`EventKind::SUPERVISOR`].
const EVENTS: &[&str; EventKind::SUPERVISOR.len()] = &[
    "supervisor_init",
    "child_start",
    "child_start_error",
    "child_terminate",
    "child_restart",
    "child_stop",
    "child_phase",
    "child_aggregate",
    "supervisor_config",
    "supervisor_terminate",
];
const SUPERVISOR: &[&str] = &["supervisor"];
const NODE: &[&str] = &["node"];
const CHILD: &[&str] = &["supervisor", "child"];
/// The labels whose values have a limit.
const LIMITED_LABELS: &[&str] = &["supervisor", "child"];

/// Every family, in the order of the exposition.
pub static FAMILIES: &[Family] = &[
    gauge("supervisor_info", "Configuration of the supervisor; always 1.", Supervisor(|view, out| {
        if let Some(labels) = &view.incarnation().info {
            out.int(labels.as_ref().into(), 1);
        }
    }))
    .by(&["supervisor", "strategy", "parent"]),
    gauge("supervisor_up", "Whether the supervisor runs (1) or has exited (0).", Supervisor(|view, out| {
        out.int(view.labels(), view.up.into());
    }))
    .by(SUPERVISOR),
    gauge("supervisor_start_time_seconds", "Unix time of the last start of the supervisor.", Supervisor(|view, out| {
        if let Some(millis) = view.row.start_time.get() {
            out.time(view.labels(), millis);
        }
    }))
    .by(SUPERVISOR),
    gauge(
        "supervisor_restart_intensity_limit",
        "Restarts allowed inside the intensity window (max_restarts).",
        Supervisor(|view, out| view.if_known(&view.row.max_restarts, out)),
    )
    .by(SUPERVISOR),
    gauge(
        "supervisor_restart_intensity_window_seconds",
        "Length of the intensity window (max_seconds).",
        Supervisor(|view, out| view.if_known(&view.row.max_seconds, out)),
    )
    .by(SUPERVISOR),
    gauge(
        "supervisor_restart_intensity_used",
        "Restarts inside the current intensity window (computed at scrape time).",
        Supervisor(|view, out| view.if_known(&view.row.observed.restarts_used, out)),
    )
    .by(SUPERVISOR),
    counter(
        "supervisor_restart_intensity_saturated_total",
        "Times the restarts inside the window reached the limit, so that one more stops the supervisor.",
        Supervisor(|view, out| out.int(view.labels(), view.row.saturated.get())),
    )
    .by(SUPERVISOR),
    counter(
        "supervisor_terminations_total",
        "Exits of the supervisor itself by class of reason.",
        Supervisor(|view, out| out.each(view.labels(), &view.row.terminations.get())),
    )
    .by_closed(&["supervisor", "reason"], spellings!(SupervisorExitClass)),
    gauge(
        "supervisor_down_reason",
        "Why the supervisor is down: 1 for the class of reason of its last exit, 0 for the others. Absent while it runs.",
        Supervisor(|view, out| {
            if let Some(reasons) = view.down_reason() {
                out.each(view.labels(), &reasons);
            }
        }),
    )
    .by_closed(&["supervisor", "reason"], spellings!(SupervisorExitClass)),
    gauge("supervisor_children", "Children of the supervisor by state.", Supervisor(|view, out| {
        let seen = &view.row.observed;
        let counts = seen.children.each_ref().map(|gauge| gauge.get());
        if counts.iter().all(Option::is_some) {
            out.each(view.labels(), &counts.map(Option::unwrap_or_default));
        }
    }))
    .by_closed(&["supervisor", "state"], STATES),
    counter(
        "supervisor_child_start_attempts_total",
        "Attempts to start a child, first starts and restarts, failed ones included.",
        Supervisor(|view, out| out.int(view.labels(), view.row.start_attempts.get())),
    )
    .by(SUPERVISOR),
    counter(
        "supervisor_child_start_errors_total",
        "Failed attempts to start a child.",
        Supervisor(|view, out| out.int(view.labels(), view.row.start_errors.get())),
    )
    .by(SUPERVISOR),
    counter(
        "supervisor_child_terminations_total",
        "Terminations of children by class of reason.",
        Supervisor(|view, out| out.each(view.labels(), &view.row.child_terminations.get())),
    )
    .by_closed(&["supervisor", "reason"], spellings!(ReasonClass)),
    counter(
        "supervisor_child_restarts_total",
        "Restarts of a child, by cause: its own failure, a sibling's failure under the strategy, or an operator's request.",
        Supervisor(|view, out| view.each_child_and_other(|labels, child| out.each(labels, &child.restarts.get()))),
    )
    .by_closed(&["supervisor", "child", "cause"], spellings!(RestartCause)),
    gauge(
        "supervisor_child_last_restart_timestamp_seconds",
        "Unix time of the last automatic restart of the child, 0 if never.",
        Supervisor(|view, out| view.each_child(|labels, child| out.time(labels, child.last_restart()))),
    )
    .by(CHILD),
    histogram(
        "supervisor_child_lifetime_seconds",
        "Time a child had been running when it terminated.",
        &LIFETIME_BUCKETS,
        Supervisor(|view, out| {
            let (counts, sum) = view.row.lifetime.get();
            out.histogram(view.labels(), &counts, sum, &view.lifetime_exemplars(&counts));
        }),
    )
    .by(SUPERVISOR),
    histogram(
        "supervisor_child_downtime_seconds",
        "Time from the termination of a child to its next successful start.",
        &DOWNTIME_BUCKETS,
        Supervisor(|view, out| distribution(view, &view.row.downtime, out)),
    )
    .by(SUPERVISOR),
    histogram(
        "supervisor_child_start_duration_seconds",
        "Time the start function of a child took, successful starts only.",
        &START_BUCKETS,
        Supervisor(|view, out| distribution(view, &view.row.start_duration, out)),
    )
    .by(SUPERVISOR),
    gauge("supervisor_history_events", "Events in the bounded history of the supervisor.", Supervisor(|view, out| {
        view.if_known(&view.row.observed.history_events, out);
    }))
    .by(SUPERVISOR),
    gauge(
        "supervisor_history_capacity_events",
        "Most events kept in the history of one supervisor.",
        Exporter(|scrape, out| out.int(Labels::default(), scrape.history_capacity() as u64)),
    ),
    counter(
        "supervisor_history_evicted_events_total",
        "Events pushed out of the bounded history.",
        Supervisor(|view, out| view.if_known(&view.row.observed.evicted_events, out)),
    )
    .by(SUPERVISOR),
    counter(
        "restart_exporter_telemetry_events_total",
        "Telemetry events processed.",
        Exporter(|scrape, out| out.each(Labels::default(), &scrape.own().events.get())),
    )
    .by_closed(&["event"], EVENTS),
    counter(
        "restart_exporter_telemetry_events_dropped_total",
        "Telemetry events that were not processed.",
        Exporter(|scrape, out| out.each(Labels::default(), &scrape.own().dropped.get())),
    )
    .by_closed(&["cause"], spellings!(DropCause)),
    counter(
        "restart_exporter_telemetry_handler_failures_total",
        "Telemetry handlers that failed.",
        Exporter(|scrape, out| scrape.each_handler(|labels, failures| out.int(labels.into(), failures))),
    )
    .by(&["handler"]),
    gauge(
        "restart_exporter_telemetry_handlers",
        "Telemetry handlers by state.",
        Exporter(|scrape, out| out.each(Labels::default(), &scrape.handlers_by_state())),
    )
    .by_closed(&["state"], HANDLER_STATES),
    gauge(
        "restart_exporter_scrape_duration_seconds",
        "Time the previous exposition took to build.",
        Exporter(|scrape, out| float_if_known(scrape.own().scrape_seconds(), out)),
    ),
    gauge(
        "restart_exporter_build_info",
        "Version of the running exporter; always 1.",
        Exporter(|scrape, out| out.int(scrape.build_labels().as_str().into(), 1)),
    )
    .by(&["version", "revision", "branch", "rustversion"]),
    gauge(
        "restart_exporter_config_last_reload_successful",
        "Whether the last attempt to load the configuration file succeeded and was applied completely (1) or not (0).",
        Exporter(|scrape, out| int_if_known(scrape.own().config_loaded.get(), out)),
    ),
    gauge(
        "restart_exporter_config_last_reload_success_timestamp_seconds",
        "Unix time of the last successful load of the configuration file.",
        Exporter(|scrape, out| {
            if let Some(millis) = scrape.own().config_loaded_at.get() {
                out.time(Labels::default(), millis);
            }
        }),
    ),
    counter(
        "restart_exporter_http_requests_total",
        "HTTP requests answered (handler = route name, never the raw path).",
        Exporter(|scrape, out| scrape.own().each_request(|labels, count| out.int(labels.into(), count))),
    )
    .by(&["handler", "code"]),
    gauge(
        "restart_exporter_http_requests_in_flight",
        "HTTP requests being answered.",
        Exporter(|scrape, out| out.int(Labels::default(), scrape.own().in_flight())),
    ),
    gauge(
        "restart_exporter_live_viewers",
        "Viewers of live events.",
        Exporter(|scrape, out| out.int(Labels::default(), scrape.own().live_viewers.load(Ordering::Relaxed))),
    ),
    counter(
        "restart_exporter_live_events_missed_total",
        "Live events that viewers were not told of because they were too slow.",
        Exporter(|scrape, out| out.int(Labels::default(), scrape.own().live_events_missed.get())),
    ),
    gauge(
        "restart_exporter_label_values",
        "Label values in use.",
        Exporter(|scrape, out| out.each(Labels::default(), &scrape.label_values())),
    )
    .by_closed(&["label"], LIMITED_LABELS),
    gauge(
        "restart_exporter_label_value_limit",
        "Most label values kept apart.",
        Exporter(|scrape, out| out.each(Labels::default(), &scrape.label_value_limits())),
    )
    .by_closed(&["label"], LIMITED_LABELS),
    counter(
        "restart_exporter_label_overflows_total",
        "Events counted under _other because the limit was reached.",
        Exporter(|scrape, out| {
            let counts = [Limit::SeriesSupervisors, Limit::SeriesChildren].map(|limit| scrape.own().limits.count(limit));
            out.each(Labels::default(), &counts);
        }),
    )
    .by_closed(&["label"], LIMITED_LABELS),
    counter(
        "restart_exporter_limit_reached_total",
        "Times a limit was reached, so that something was refused, cut or counted together.",
        Exporter(|scrape, out| out.each(Labels::default(), &scrape.limits_reached())),
    )
    .by_closed(&["limit"], spellings!(Limit)),
    counter(
        "restart_exporter_expired_series_total",
        "Series removed after the retention time.",
        Exporter(|scrape, out| out.int(Labels::default(), scrape.own().limits.expired_series.get())),
    ),
    gauge(
        "restart_exporter_node_up",
        "Whether the agent of the Erlang node is heard (1) or silent (0).",
        Exporter(|scrape, out| scrape.nodes().each(|node| out.int(node.labels(), node.is_up().into()))),
    )
    .by(NODE),
    counter(
        "restart_exporter_node_events_total",
        "Events of the node that arrived one by one.",
        Exporter(|scrape, out| scrape.nodes().each(|node| out.int(node.labels(), node.events.get()))),
    )
    .by(NODE),
    counter(
        "restart_exporter_node_events_lost_total",
        "Events of the node that will never arrive, or belong to a supervisor beyond the limit.",
        Exporter(|scrape, out| scrape.nodes().each(|node| out.int(node.labels(), node.lost.get()))),
    )
    .by(NODE),
    counter(
        "restart_exporter_node_events_aggregated_total",
        "Events of the node that arrived as counts without details.",
        Exporter(|scrape, out| scrape.nodes().each(|node| out.int(node.labels(), node.aggregated.get()))),
    )
    .by(NODE),
    counter(
        "restart_exporter_node_tap_reinstalls_total",
        "Times the agent of the node had to install its tap of logger again.",
        Exporter(|scrape, out| scrape.nodes().each(|node| out.int(node.labels(), node.tap_reinstalls.get()))),
    )
    .by(NODE),
    counter(
        "process_cpu_seconds_total",
        "Total user and system CPU time spent in seconds.",
        Exporter(|scrape, out| {
            let process = scrape.process();
            // It began to count before we did.
            let created = process.start_time_seconds.map(|seconds| (seconds * 1e3) as u64);
            if let Some(seconds) = process.cpu_seconds {
                out.float(Labels { created, ..Labels::default() }, seconds);
            }
        }),
    ),
    gauge(
        "process_open_fds",
        "Number of open file descriptors.",
        Exporter(|scrape, out| int_if_known(scrape.process().open_fds, out)),
    ),
    gauge(
        "process_max_fds",
        "Maximum number of open file descriptors.",
        Exporter(|scrape, out| int_if_known(scrape.process().max_fds, out)),
    ),
    gauge(
        "process_virtual_memory_bytes",
        "Virtual memory size in bytes.",
        Exporter(|scrape, out| int_if_known(scrape.process().virtual_memory_bytes, out)),
    ),
    gauge(
        "process_resident_memory_bytes",
        "Resident memory size in bytes.",
        Exporter(|scrape, out| int_if_known(scrape.process().resident_memory_bytes, out)),
    ),
    gauge(
        "process_start_time_seconds",
        "Start time of the process since unix epoch in seconds.",
        Exporter(|scrape, out| float_if_known(scrape.process().start_time_seconds, out)),
    ),
    gauge(
        "process_threads",
        "Number of OS threads in the process.",
        Exporter(|scrape, out| int_if_known(scrape.process().threads, out)),
    ),
];

impl Family {
    /// Does it describe the process as a whole, which is the business of whoever owns the process?
    pub(super) fn is_of_process(&self) -> bool {
        self.name.starts_with("process_")
    }
}

fn int_if_known(value: Option<u64>, out: &mut dyn Sink) {
    if let Some(value) = value {
        out.int(Labels::default(), value);
    }
}

fn float_if_known(value: Option<f64>, out: &mut dyn Sink) {
    if let Some(value) = value {
        out.float(Labels::default(), value);
    }
}

fn distribution<const CELLS: usize>(view: &RowView<'_>, histogram: &Histogram<CELLS>, out: &mut dyn Sink) {
    let (counts, sum) = histogram.get();
    out.histogram(view.labels(), &counts, sum, &[]);
}
