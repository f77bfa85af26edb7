"""The dashboard of all supervisors and the health of the exporters."""

import settings
from grafana import *

WHO = "{{supervisor}} {{node}}"
BY = "job, instance, node, supervisor"
UNPLANNED = f'supervisor_child_restarts_total{{{OF},cause!="requested"}}'
BUDGET = f"supervisor_restart_intensity_used{{{OF}}} / (supervisor_restart_intensity_limit{{{OF}}} > 0)"
BUDGET_STEPS = steps(GREEN, (0.5, YELLOW), (settings.BUDGET_USED, RED))
# Named by what it leaves out, so that a state between down and running counts.
NOT_RUNNING_STATES = 'state!~"running|stopped"'
NOT_RUNNING = "Children that should run and do not, such as those that wait for their restart: what a backoff hides."
SUPERVISOR_PAGE = {
    "title": "This supervisor",
    "url": "/d/restart-exporter-supervisor?var-supervisor=${__data.fields.supervisor:percentencode}&${__url_time_range}",
    "targetBlank": False,
}


def count(expr):
    return f"round(sum({expr})) or vector(0)"


def dashboard_rows():
    return [
        ("Overview", [
            stat("Supervisors up", "Supervisors that run.", f"sum(supervisor_up{{{OF}}})", thresholds=steps(RED, (1, GREEN))),
            stat("Supervisors down", "Supervisors that ended and whose series are still kept, cleanly or not.",
                 f"count(supervisor_up{{{OF}}} == 0) or vector(0)", thresholds=steps(GREEN, (1, RED))),
            stat("Gave up", "Times a supervisor gave up within the range of time.",
                 count(f'increase(supervisor_terminations_total{{{OF},reason="max_intensity"}}[$__range])'), thresholds=steps(GREEN, (1, RED))),
            stat("Children running", "Children that run.", f'sum(supervisor_children{{{OF},state="running"}})', thresholds=steps(RED, (1, GREEN))),
            stat("Children not running", NOT_RUNNING, f"sum(supervisor_children{{{OF},{NOT_RUNNING_STATES}}})", thresholds=steps(GREEN, (1, ORANGE))),
            stat("Restarts", "Restarts after failures within the range of time, those that were asked for left out.",
                 count(f"increase({UNPLANNED}[$__range])"), thresholds=steps(GREEN, (1, YELLOW), (50, ORANGE))),
            stat("Highest budget used", "Largest part of a restart budget in use now. Beyond all of it a supervisor gives up.",
                 f"max({BUDGET})", unit="percentunit", thresholds=BUDGET_STEPS, min=0, max=1),
            stat("Events dropped", "Telemetry events that were not processed within the range of time: what metrics and history lack.",
                 count(f"increase(restart_exporter_telemetry_events_dropped_total{{{SCOPE}}}[$__range])"), thresholds=steps(GREEN, (1, RED))),
        ]),
        ("Restarts", [
            graph("Restart rate", "Restarts a second of each supervisor, those that were asked for left out.",
                  [target(f"sum by ({BY}) (rate({UNPLANNED}[$__rate_interval]))", WHO)], unit="ops", links=history_links()),
            graph("Deaths by reason", "Terminations of children a second by class of reason; shutdown and normal are no failures.",
                  [target(f"sum by (reason) (rate(supervisor_child_terminations_total{{{OF}}}[$__rate_interval]))", "{{reason}}")],
                  unit="ops", stacked=True, overrides=[color(name, value) for name, value in REASONS.items()]),
            timeline("Supervisors", "Whether each supervisor runs. A gap is unknown, not down.",
                     [target(f"supervisor_up{{{OF}}}", WHO)], mappings=up_or_down(), links=history_links()),
            bars("Restart budget used", "Restarts inside the window against the limit, now. Only supervisors that allow restarts.",
                 [target(BUDGET, WHO)], thresholds=BUDGET_STEPS, min=0, max=1, links=history_links()),
            table("Children with most restarts", "Restarts after failures within the range of time and the time of the last. "
                  "The links lead to the exporter's page and the history of the child.",
                  [("Restarts", f"topk(20, round(sum by (instance, node, supervisor, child) (increase({UNPLANNED}[$__range]))) > 0)", "short"),
                   ("Last restart", f"max by (instance, node, supervisor, child) "
                    f"(supervisor_child_last_restart_timestamp_seconds{{{OF}}} > 0) * 1000", "dateTimeFromNow")],
                  ["instance", "node", "supervisor", "child"],
                  [SUPERVISOR_PAGE, *history_links("__data.fields", child=True)], height=10),
        ]),
        ("Durations", [
            heatmap("Lifetimes", "How long children had run when they died. A hot low band is a crash loop.",
                    f"sum by (le) (increase(supervisor_child_lifetime_seconds_bucket{{{OF}}}[$__rate_interval]))"),
            graph("Downtime and start", "From death to replacement, and the time that starts took.", [
                target(f"histogram_quantile(0.5, sum by (le) (rate(supervisor_child_downtime_seconds_bucket{{{OF}}}[$__rate_interval])))", "downtime p50"),
                target(f"histogram_quantile(0.95, sum by (le) (rate(supervisor_child_downtime_seconds_bucket{{{OF}}}[$__rate_interval])))", "downtime p95"),
                target(f"histogram_quantile(0.95, sum by (le) (rate(supervisor_child_start_duration_seconds_bucket{{{OF}}}[$__rate_interval])))", "start p95"),
            ], unit="s"),
        ]),
        ("Exporter", [
            timeline("Exporters", "Whether Prometheus reaches each exporter.",
                     [target(f"up{{{SCOPE}}}", "{{instance}}")], mappings=up_or_down(), links=[link("Live page of the exporter", "/")]),
            table("Configuration", "Whether the last attempt to load the configuration file was applied completely, and when one last was. "
                  "Exporters without a file are not listed.",
                  [("Last load", f"max by (instance) (restart_exporter_config_last_reload_successful{{{SCOPE}}})", "short"),
                   ("Last success", f"max by (instance) (restart_exporter_config_last_reload_success_timestamp_seconds{{{SCOPE}}}) * 1000", "dateTimeFromNow")],
                  ["instance"], [link("Live page of the exporter", "/", "__data.fields")], width=12, height=8, desc=False,
                  words=bad_or_good("failed", "applied")),
            graph("Events", "Telemetry events a second, and what went wrong with them.", [
                target(f"sum by (event) (rate(restart_exporter_telemetry_events_total{{{SCOPE}}}[$__rate_interval]))", "{{event}}"),
                target(f"sum by (cause) (rate(restart_exporter_telemetry_events_dropped_total{{{SCOPE}}}[$__rate_interval]))", "dropped: {{cause}}"),
                target(f"sum by (handler) (rate(restart_exporter_telemetry_handler_failures_total{{{SCOPE}}}[$__rate_interval]))", "failed: {{handler}}"),
            ], width=8, unit="ops"),
            graph("Time of a scrape", "Time the exporter took to build its metrics.",
                  [target(f"restart_exporter_scrape_duration_seconds{{{SCOPE}}}", "{{instance}}")], width=8, unit="s"),
            graph("Label values", "Supervisors and children told apart, as part of the limit. At the limit the rest is counted under _other.",
                  [target(f"max by (instance, label) (restart_exporter_label_values{{{SCOPE}}} / (restart_exporter_label_value_limit{{{SCOPE}}} > 0))",
                          "{{label}} {{instance}}")], width=8, unit="percentunit"),
            graph("Limits reached", "Times a second that a limit was reached, so that something was refused, cut or counted together.",
                  [target(f"sum by (limit) (rate(restart_exporter_limit_reached_total{{{SCOPE}}}[$__rate_interval]))", "{{limit}}")],
                  width=8, unit="ops"),
            graph("History", "Events kept in the histories of all supervisors, and how many a second are pushed out.", [
                target(f"sum by (instance) (supervisor_history_events{{{OF}}})", "kept {{instance}}"),
                target(f"sum by (instance) (rate(supervisor_history_evicted_events_total{{{OF}}}[$__rate_interval]))", "pushed out a second {{instance}}"),
            ], width=8),
            graph("Memory", "Resident memory of each exporter.",
                  [target(f"process_resident_memory_bytes{{{SCOPE}}}", "{{instance}}")], width=8, unit="bytes"),
            graph("HTTP requests", "Requests a second by route and status.",
                  [target(f"sum by (handler, code) (rate(restart_exporter_http_requests_total{{{SCOPE}}}[$__rate_interval]))", "{{handler}} {{code}}")],
                  unit="reqps"),
            graph("Handlers", "Telemetry handlers by state. A detached one failed, and what it keeps no longer moves.",
                  [target(f"sum by (state) (restart_exporter_telemetry_handlers{{{SCOPE}}})", "{{state}}")]),
        ]),
    ]


def dashboard_json():
    return dashboard("restart-exporter-fleet", "Supervisors / Fleet", "All supervisors, and the health of the exporters that tell of them.",
                     dashboard_rows(), one_supervisor=False)
