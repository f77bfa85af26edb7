"""Recording and alerting rules."""

from settings import *

# What tells a supervisor apart; node is absent where it is not one of an Erlang or Elixir node.
KEY = "job, instance, node, supervisor"

PAGE = f"{SCHEME}://{{{{ $labels.instance }}}}"
HISTORY = f"{PAGE}/api/v1/history?supervisor={{{{ $labels.supervisor | urlquery }}}}"
COUNT = '{{ $value | printf "%.0f" }}'
SUPERVISOR = "supervisor {{ $labels.supervisor }} on {{ $labels.instance }}"

RESTARTS = 'supervisor_child_restarts_total{cause="failure"}'
ENDS = "supervisor_terminations_total"
# Why a supervisor that is down ended last; there is no such series while it runs.
DOWN_REASON = "supervisor_down_reason"
# Not timeout: only who was told to stop can be late. Killed may have been ordered; see the new reason below.
DEATHS = 'supervisor_child_terminations_total{reason=~"error|panic|killed|signal|oom"}'


def grew(counter, window):
    """Has it grown within the window? increase() alone misses what a series was born with."""
    return f"increase({counter}[{window}]) > 0 or ({counter} > 0 unless {counter} offset {window})"


RECORDINGS = [
    (
        f"instance_supervisor:supervisor_child_restarts:rate{RATE_WINDOW}",
        f'sum by ({KEY}) (rate(supervisor_child_restarts_total{{cause=~"failure|sibling"}}[{RATE_WINDOW}]))',
        "Restarts that nobody asked for.",
    ),
    (
        f"instance_supervisor_reason:supervisor_child_terminations:rate{RATE_WINDOW}",
        f"sum by ({KEY}, reason) (rate(supervisor_child_terminations_total[{RATE_WINDOW}]))",
        "Deaths of children by class of reason.",
    ),
    (
        "instance_supervisor:supervisor_restart_intensity_used:ratio",
        "supervisor_restart_intensity_used / (supervisor_restart_intensity_limit > 0)",
        "Part of the restart budget in use; none where no restart is allowed.",
    ),
    (
        f"instance_supervisor:supervisor_child_start_errors_per_attempt:ratio_rate{START_ERROR_WINDOW}",
        f"rate(supervisor_child_start_errors_total[{START_ERROR_WINDOW}])\n"
        f"/ rate(supervisor_child_start_attempts_total[{START_ERROR_WINDOW}])",
        "Part of the starts that fail.",
    ),
    (
        f"instance_supervisor_le:supervisor_child_downtime_seconds_bucket:rate{SLOW_WINDOW}",
        f"sum by ({KEY}, le) (rate(supervisor_child_downtime_seconds_bucket[{SLOW_WINDOW}]))",
        None,
    ),
    (
        f"instance_supervisor:supervisor_child_downtime_seconds:p95_{SLOW_WINDOW}",
        f"histogram_quantile(0.95, instance_supervisor_le:supervisor_child_downtime_seconds_bucket:rate{SLOW_WINDOW})",
        "How long the slowest of twenty restarts took, from death to replacement.",
    ),
]


def recorded(part):
    """The name of the one recording that contains this."""
    [name] = [name for name, _, _ in RECORDINGS if part in name]
    return name


def alert(name, severity, expr, summary, description, wait=None, keep=None, link=HISTORY):
    """An alert; the link goes to the history of the supervisor unless it is about the exporter."""
    annotations = {"summary": summary, "description": description, "runbook_url": f"{RUNBOOK}#{name.lower()}"}
    if link:
        annotations["history_url" if link == HISTORY else "exporter_url"] = link
    return {
        "alert": name,
        "expr": expr,
        "for": wait,
        "keep_firing_for": keep,
        "labels": {"severity": severity},
        "annotations": annotations,
    }


ALERTS = {
    "supervisors": [
        alert(
            "SupervisorGaveUp", "critical",
            f'increase({ENDS}{{reason="max_intensity"}}[{GAVE_UP_WINDOW}]) > 0\n'
            "or (\n"
            f'  ({ENDS}{{reason="max_intensity"}} > 0 unless {ENDS}{{reason="max_intensity"}} offset {GAVE_UP_WINDOW})\n'
            f"  and on ({KEY}) time() - supervisor_start_time_seconds < {seconds(GAVE_UP_WINDOW)}\n"
            ")\n"
            f'or {DOWN_REASON}{{reason="max_intensity"}} == 1',
            "A supervisor gave up.",
            f"The {SUPERVISOR} gave up: its children died more often than its restart budget allows. This alert stays until "
            f"the supervisor runs again, and for at least {words(GAVE_UP_WINDOW)}.",
        ),
        alert(
            "SupervisorDown", "critical",
            "supervisor_up == 0\n"
            # One that gave up has the alert above: with two for one end, the pager would be called when the first is resolved.
            f'unless on ({KEY}) {DOWN_REASON}{{reason=~"normal|shutdown|max_intensity"}} == 1',
            "A supervisor is down.",
            f"The {SUPERVISOR} has been down for {words(DOWN_FOR)} and did not end cleanly. Its children do not run.",
            wait=DOWN_FOR,
        ),
        alert(
            "SupervisorChildCrashLooping", "warning",
            f"increase({RESTARTS}[{LOOP_WINDOW}]) >= {LOOP_RESTARTS}",
            "A child is in a crash loop.",
            f"The child {{{{ $labels.child }}}} of {SUPERVISOR} was restarted {COUNT} times after failures within "
            f"{words(LOOP_WINDOW)}.",
            wait=LOOP_FOR, keep=LOOP_KEEP,
        ),
        alert(
            "SupervisorChildCrashLoopingSlowly", "warning",
            f"increase({RESTARTS}[{SLOW_LOOP_WINDOW}]) >= {SLOW_LOOP_RESTARTS}\n"
            f"and increase({RESTARTS}[{SLOW_LOOP_RECENT}]) > 0",
            "A child is in a slow crash loop.",
            f"The child {{{{ $labels.child }}}} of {SUPERVISOR} was restarted {COUNT} times after failures within "
            f"{words(SLOW_LOOP_WINDOW)}, the last time within {words(SLOW_LOOP_RECENT)}.",
        ),
        alert(
            "SupervisorRestartRateHigh", "warning",
            f"{recorded('restarts:rate')} > {RATE}",
            "Children are restarted at a high rate.",
            f"The {SUPERVISOR} has made more than {RATE} restarts a second for {words(RATE_FOR)}: "
            'now {{ $value | printf "%.2f" }}, over '
            f"{words(RATE_WINDOW)}.",
            wait=RATE_FOR, keep=RATE_KEEP,
        ),
        alert(
            "SupervisorRestartBudgetNearlyExhausted", "warning",
            f"clamp_max(({grew('supervisor_restart_intensity_saturated_total', BUDGET_WINDOW)}), 1)\n"
            f"or max_over_time({recorded('used:ratio')}[{BUDGET_WINDOW}]) >= {BUDGET_USED}",
            "The restart budget is nearly used up.",
            f"The {SUPERVISOR} has used {{{{ $value | humanizePercentage }}}} of its restart budget within the last "
            f"{words(BUDGET_WINDOW)}. One restart more than the budget, and it gives up.",
        ),
        alert(
            "SupervisorChildStartErrors", "warning",
            f"{recorded('start_errors')} > {START_ERROR_RATIO}\n"
            f"and increase(supervisor_child_start_errors_total[{START_ERROR_WINDOW}]) >= {START_ERRORS}",
            "Children cannot be started.",
            f"{{{{ $value | humanizePercentage }}}} of the starts under {SUPERVISOR} failed over "
            f"{words(START_ERROR_WINDOW)}, at least {START_ERRORS} of them.",
            wait=START_ERROR_FOR,
        ),
        alert(
            "SupervisorChildrenNotRunning", "warning",
            # Together: a child that fails while it starts is now in one of these states, now in another.
            f'sum by ({KEY}) (avg_over_time(supervisor_children{{state=~"waiting|starting|restarting"}}'
            f"[{NOT_RUNNING_WINDOW}])) > {NOT_RUNNING}",
            "Children do not run.",
            f'On average {{{{ $value | printf "%.1f" }}}} children of {SUPERVISOR} were waiting or starting over '
            f"{words(NOT_RUNNING_WINDOW)}.",
            wait=NOT_RUNNING_FOR,
        ),
        alert(
            "SupervisorChildSlowToRestart", "warning",
            f"{recorded('p95')} > {SLOW_SECONDS}\n"
            f"and on ({KEY}) increase(supervisor_child_downtime_seconds_count[{SLOW_WINDOW}]) >= {SLOW_RESTARTS}",
            "Children are away for long.",
            f"One restart in twenty under {SUPERVISOR} took more than {{{{ $value | humanizeDuration }}}} from death to "
            f"replacement over {words(SLOW_WINDOW)}, with at least {SLOW_RESTARTS} restarts.",
            wait=SLOW_FOR,
        ),
        alert(
            "SupervisorChildNewReason", "info",
            f"({grew(DEATHS, NEW_REASON_WINDOW)})\n"
            f"unless increase({DEATHS}[{NEW_REASON_MEMORY}] offset {NEW_REASON_WINDOW}) > 0\n"
            f"and on ({KEY}) ({grew(RESTARTS, NEW_REASON_WINDOW)})",
            "A child died for a new reason.",
            f"A child of {SUPERVISOR} died by {{{{ $labels.reason }}}} within the last {words(NEW_REASON_WINDOW)}, for the "
            f"first time in {words(NEW_REASON_MEMORY)}.",
        ),
    ],
    "exporter": [
        alert(
            "SupervisorExporterDown", "critical",
            f'up{{job="{JOB}"}} == 0',
            "An exporter is down.",
            f"Prometheus has not reached restart_exporter on {{{{ $labels.instance }}}} for {words(EXPORTER_DOWN_FOR)}; "
            "nothing is known of its supervisors.",
            wait=EXPORTER_DOWN_FOR, link=PAGE,
        ),
        alert(
            "SupervisorExporterAbsent", "critical",
            f'absent(up{{job="{JOB}"}})',
            "There is no exporter.",
            f"Prometheus has had no target of the job {JOB} for {words(EXPORTER_ABSENT_FOR)}.",
            wait=EXPORTER_ABSENT_FOR, link=None,
        ),
        alert(
            "SupervisorExporterRestarting", "warning",
            f'changes(process_start_time_seconds{{job="{JOB}"}}[{EXPORTER_STARTS_WINDOW}]) >= {EXPORTER_STARTS}',
            "An exporter is restarted again and again.",
            f"restart_exporter on {{{{ $labels.instance }}}} was restarted {COUNT} times within "
            f"{words(EXPORTER_STARTS_WINDOW)}. The last line of its log says why it ended, unless it was killed.",
            link=PAGE,
        ),
        alert(
            "ConfigReloadFailed", "warning",
            "restart_exporter_config_last_reload_successful == 0",
            "The configuration file could not be loaded.",
            f"restart_exporter on {{{{ $labels.instance }}}} has not applied its whole configuration file for "
            f"{words(RELOAD_FAILED_FOR)}. Run `restart_exporter check-config FILE` there and read the line of the log about "
            "the last reload. After the fix, `restart_exporter reload --dry-run` shows what a reload would change.",
            wait=RELOAD_FAILED_FOR, link=PAGE,
        ),
        alert(
            "SupervisorTelemetryDropped", "warning",
            grew("restart_exporter_telemetry_events_dropped_total", DROPPED_WINDOW),
            "Telemetry events were dropped.",
            f"restart_exporter on {{{{ $labels.instance }}}} dropped {COUNT} telemetry events "
            f"({{{{ $labels.cause }}}}) within {words(DROPPED_WINDOW)}: metrics and history show less than happened.",
            link=PAGE,
        ),
        alert(
            "SupervisorTelemetryHandlerDetached", "critical",
            'restart_exporter_telemetry_handlers{state="detached"} > 0',
            "A telemetry handler failed and is detached.",
            f"{COUNT} telemetry handlers of restart_exporter on {{{{ $labels.instance }}}} have been detached for "
            f"{words(DETACHED_FOR)}: what they keep no longer moves.",
            wait=DETACHED_FOR, link=PAGE,
        ),
        alert(
            "SupervisorNodeDisconnected", "warning",
            "restart_exporter_node_up == 0",
            "A node is disconnected.",
            "The node {{ $labels.node }} has not been connected to restart_exporter on {{ $labels.instance }} for "
            f"{words(NODE_DOWN_FOR)}; nothing is known of its supervisors.",
            wait=NODE_DOWN_FOR, link=PAGE,
        ),
        alert(
            "SupervisorNodeEventsLost", "warning",
            grew("restart_exporter_node_events_lost_total", NODE_LOST_WINDOW),
            "Events of a node were lost.",
            f"{COUNT} events of the node {{{{ $labels.node }}}} did not reach restart_exporter on "
            f"{{{{ $labels.instance }}}} within {words(NODE_LOST_WINDOW)}: metrics and history show less than happened.",
            link=PAGE,
        ),
        alert(
            "SupervisorLabelLimitReached", "info",
            grew("restart_exporter_label_overflows_total", LABEL_LIMIT_WINDOW),
            "A limit of label values is reached.",
            f"{COUNT} events on {{{{ $labels.instance }}}} were counted under _other within "
            f"{words(LABEL_LIMIT_WINDOW)}, because there are more values of {{{{ $labels.label }}}} than may be kept apart.",
            link=PAGE,
        ),
    ],
}

NOTE = "# Made by dashboards/generator from settings.py, which holds every threshold and window. Do not edit.\n"


def block(text, indent):
    """A text as it stands in YAML: a quoted scalar, or a block where it has several lines."""
    if "\n" not in text:
        return " " + "'" + text.replace("'", "''") + "'"
    return " |-\n" + "\n".join(" " * indent + line for line in text.split("\n"))


def rules_yml(recordings=RECORDINGS):
    out = [NOTE, "groups:\n", "  - name: restart_exporter.recordings\n", "    rules:\n"]
    for name, expr, why in recordings:
        out += [f"      # {why}\n"] if why else []
        out += [f"      - record: {name}\n", f"        expr:{block(expr, 10)}\n"]
    return "".join(out)


def table():
    """What fires when, as a comment at the top."""
    rows = [(each["alert"], each["labels"]["severity"], each["for"] or "at once") for each in sum(ALERTS.values(), [])]
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
    return "".join(f"#   {line}\n" for line in lines)


def alerts_yml(groups=ALERTS):
    out = [NOTE, "# Needs rules.yml. Alert, severity, how long its condition holds before it fires:\n#\n", table()]
    out.append("\ngroups:\n")
    for group, alerts in groups.items():
        out += [f"  - name: restart_exporter.{group}\n", "    rules:\n"]
        for each in alerts:
            out += [f"      - alert: {each['alert']}\n", f"        expr:{block(each['expr'], 10)}\n"]
            out += [f"        {key}: {each[key]}\n" for key in ("for", "keep_firing_for") if each[key]]
            for kind in ("labels", "annotations"):
                out.append(f"        {kind}:\n")
                out += [f"          {key}:{block(text, 12)}\n" for key, text in each[kind].items()]
    return "".join(out)
