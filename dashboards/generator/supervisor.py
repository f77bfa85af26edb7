"""The dashboard of one supervisor."""

from fleet import BUDGET, BUDGET_STEPS, NOT_RUNNING, NOT_RUNNING_STATES, UNPLANNED, count
from grafana import *

CHILD = "{{child}}"


def quantiles(metric, word):
    bucket = f"sum by (le) (rate({metric}_bucket{{{OF}}}[$__rate_interval]))"
    return [target(f"histogram_quantile({part}, {bucket})", f"{word} {name}") for part, name in ((0.5, "p50"), (0.95, "p95"))]


def dashboard_rows():
    return [
        ("Now", [
            stat("State", "Whether it runs.", f"min(supervisor_up{{{OF}}})", thresholds=steps(RED, (1, GREEN)), mappings=up_or_down()),
            stat("Running for", "Time since its last start.",
                 f"time() - max(supervisor_start_time_seconds{{{OF}}})", unit="s"),
            stat("Children running", "Children that run.", f'sum(supervisor_children{{{OF},state="running"}})', thresholds=steps(RED, (1, GREEN))),
            stat("Children not running", NOT_RUNNING, f"sum(supervisor_children{{{OF},{NOT_RUNNING_STATES}}})", thresholds=steps(GREEN, (1, ORANGE))),
            stat("Budget used", "Restarts inside the window against the limit. Beyond all of it the supervisor gives up.",
                 f"max({BUDGET})", unit="percentunit", thresholds=BUDGET_STEPS, min=0, max=1),
            stat("Restarts", "Restarts after failures within the range of time, those that were asked for left out.",
                 count(f"increase({UNPLANNED}[$__range])"), thresholds=steps(GREEN, (1, YELLOW), (50, ORANGE))),
            stat("Gave up", "Times it gave up within the range of time.",
                 count(f'increase(supervisor_terminations_total{{{OF},reason="max_intensity"}}[$__range])'), thresholds=steps(GREEN, (1, RED))),
            stat("Last restart", "When a child was last restarted after a failure.",
                 f"max(supervisor_child_last_restart_timestamp_seconds{{{OF}}} > 0) * 1000", unit="dateTimeFromNow"),
        ]),
        ("Children", [
            graph("Restarts by child", "Restarts within each stretch of time, those that were asked for left out.",
                  [target(f"round(sum by (job, instance, node, supervisor, child) (increase({UNPLANNED}[$__rate_interval])))", CHILD)],
                  stacked=True, bars=True, links=history_links(child=True)),
            graph("Deaths by reason", "Terminations within each stretch of time by class of reason; shutdown and normal are no failures.",
                  [target(f"round(sum by (reason) (increase(supervisor_child_terminations_total{{{OF}}}[$__rate_interval])))", "{{reason}}")],
                  stacked=True, bars=True, overrides=[color(name, value) for name, value in REASONS.items()]),
            table("Last restarts", "Each child with its restarts within the range of time by cause, and when it was last restarted.",
                  [("After a failure", f'round(sum by (instance, node, supervisor, child) (increase(supervisor_child_restarts_total{{{OF},cause="failure"}}[$__range])))', "short"),
                   ("With a sibling", f'round(sum by (instance, node, supervisor, child) (increase(supervisor_child_restarts_total{{{OF},cause="sibling"}}[$__range])))', "short"),
                   ("On request", f'round(sum by (instance, node, supervisor, child) (increase(supervisor_child_restarts_total{{{OF},cause="requested"}}[$__range])))', "short"),
                   ("Last restart", f"max by (instance, node, supervisor, child) (supervisor_child_last_restart_timestamp_seconds{{{OF}}} > 0) * 1000", "dateTimeFromNow")],
                  ["instance", "node", "supervisor", "child"], history_links("__data.fields", child=True), width=12, height=8, sort=3),
            graph("Children by state", "Restarting children wait for their restart. Stopped ones are down on purpose, or done.",
                  [target(f"sum by (state) (supervisor_children{{{OF}}})", "{{state}}")], stacked=True,
                  overrides=[color(name, value) for name, value in STATES.items()]),
        ]),
        ("Budget", [
            graph("Restart budget", "Restarts inside the window, and how many are allowed. One more than the limit, and the supervisor gives up.", [
                target(f"max by (job, instance, node, supervisor) (supervisor_restart_intensity_used{{{OF}}})", "used"),
                target(f"max by (job, instance, node, supervisor) (supervisor_restart_intensity_limit{{{OF}}})", "limit"),
            ], overrides=[color("limit", RED), color("used", BLUE)], links=history_links()),
            graph("Budget used up", "Times within each stretch of time that the window was full, and that the supervisor ended, by reason.", [
                target(f"round(sum(increase(supervisor_restart_intensity_saturated_total{{{OF}}}[$__rate_interval])))", "window full"),
                target(f"round(sum by (reason) (increase(supervisor_terminations_total{{{OF}}}[$__rate_interval])))", "ended: {{reason}}"),
            ], bars=True),
        ]),
        ("Durations", [
            heatmap("Lifetimes", "How long children had run when they died. A hot low band is a crash loop.",
                    f"sum by (le) (increase(supervisor_child_lifetime_seconds_bucket{{{OF}}}[$__rate_interval]))"),
            graph("Downtime", "From the death of a child to its replacement.", quantiles("supervisor_child_downtime_seconds", "downtime"), unit="s"),
            graph("Starts", "Time that starts took.", quantiles("supervisor_child_start_duration_seconds", "start"), unit="s"),
            graph("Attempts to start", "Attempts a second, and those that failed.", [
                target(f"sum(rate(supervisor_child_start_attempts_total{{{OF}}}[$__rate_interval]))", "attempts"),
                target(f"sum(rate(supervisor_child_start_errors_total{{{OF}}}[$__rate_interval]))", "failed"),
            ], unit="ops", overrides=[color("failed", RED)]),
        ]),
    ]


def dashboard_json():
    return dashboard("restart-exporter-supervisor", "Supervisors / One", "One supervisor: its children, why they die, and how many more deaths it will take.",
                     dashboard_rows(), one_supervisor=True)
