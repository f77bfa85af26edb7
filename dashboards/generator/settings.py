"""Every threshold and window of the alerts, and the few names that differ from place to place.

The texts of the alerts are made from these values, so that what is said is what is checked. After a change:
python3 dashboards/generator
"""

import re

# Where the runbook is served. The anchor of an alert, its name in lower case, is added.
RUNBOOK = "https://example.com/restart_exporter/dashboards/README.md"
# The job of the scrape configuration; only the two alerts on the exporter itself need it.
JOB = "restart-exporter"
# How a browser reaches an exporter; https where its web configuration has TLS.
SCHEME = "http"

EXPORTER_DOWN_FOR = "5m"
EXPORTER_ABSENT_FOR = "10m"
EXPORTER_STARTS, EXPORTER_STARTS_WINDOW = 3, "30m"
RELOAD_FAILED_FOR = "5m"

GAVE_UP_WINDOW = "10m"
DOWN_FOR = "2m"

LOOP_RESTARTS, LOOP_WINDOW, LOOP_FOR, LOOP_KEEP = 6, "10m", "5m", "10m"
SLOW_LOOP_RESTARTS, SLOW_LOOP_WINDOW, SLOW_LOOP_RECENT = 6, "24h", "6h"
RATE, RATE_WINDOW, RATE_FOR, RATE_KEEP = 0.1, "5m", "10m", "5m"
BUDGET_USED, BUDGET_WINDOW = 0.8, "5m"
START_ERRORS, START_ERROR_RATIO, START_ERROR_WINDOW, START_ERROR_FOR = 3, 0.5, "10m", "5m"
NOT_RUNNING, NOT_RUNNING_WINDOW, NOT_RUNNING_FOR = 0.5, "10m", "5m"
SLOW_RESTARTS, SLOW_SECONDS, SLOW_WINDOW, SLOW_FOR = 3, 5, "15m", "10m"
NEW_REASON_WINDOW, NEW_REASON_MEMORY = "15m", "24h"

DROPPED_WINDOW = "10m"
DETACHED_FOR = "1m"
NODE_DOWN_FOR = "5m"
NODE_LOST_WINDOW = "10m"
LABEL_LIMIT_WINDOW = "15m"


UNITS = {"s": 1, "m": 60, "h": 3600}


def seconds(duration):
    """Seconds of a duration such as 10m."""
    return int(duration[:-1]) * UNITS[duration[-1]]


def words(duration):
    """A duration as people write it: 10 minutes."""
    number, unit = duration[:-1], {"s": "second", "m": "minute", "h": "hour"}[duration[-1]]
    return f"{number} {unit}" + ("" if number == "1" else "s")


def divide_times(factor):
    """Divides all times by a factor, so that the same alerts come and go in as many times less time."""
    if factor == 1:
        return
    here = globals()
    for name, value in list(here.items()):
        if isinstance(value, str) and re.fullmatch(r"\d+[smh]", value):
            short, rest = divmod(seconds(value), factor)
            if rest:
                raise ValueError(f"{name} = {value} cannot be divided by {factor}")
            unit = max((unit for unit in UNITS if short % UNITS[unit] == 0), key=UNITS.get)
            here[name] = f"{short // UNITS[unit]}{unit}"
    here["RATE"] *= factor
    here["SLOW_SECONDS"] /= factor
