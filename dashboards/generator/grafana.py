"""Building blocks of a Grafana dashboard: panels, variables, links, annotations, and their places in the grid."""

import json

from settings import SCHEME

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
TAG = "restart_exporter"
# What every selector of a panel has.
SCOPE = 'job=~"$job",instance=~"$instance"'
# What every selector of a metric of supervisors has besides.
OF = f'{SCOPE},node=~"$node",supervisor=~"$supervisor"'
# Shortest step of what is counted by stretches of time. The window of a rate is four scrapes: with shorter steps one restart
# would be seen in several of them.
STRETCH = "1m"
GREEN, YELLOW, ORANGE, RED, BLUE = "green", "yellow", "orange", "red", "blue"
# A colour for each class of reason, the same in all panels.
REASONS = {
    "normal": "green", "shutdown": "blue", "error": "orange", "panic": "red",
    "killed": "purple", "signal": "dark-yellow", "oom": "dark-red", "timeout": "yellow",
}
# A colour for each state of a child.
STATES = {
    "running": GREEN, "starting": "light-green", "waiting": YELLOW, "restarting": ORANGE,
    "stopping": "light-blue", "stopped": BLUE, "failed": RED,
}


def target(expr, legend="", instant=False, form="time_series"):
    return {
        "datasource": DATASOURCE, "editorMode": "code", "expr": expr, "format": form, "instant": instant,
        "range": not instant, "legendFormat": legend or "__auto",
    }


def steps(*pairs):
    """Colours from thresholds upward; the first colour has no lower bound."""
    first, *rest = pairs
    return {
        "mode": "absolute",
        "steps": [{"color": first, "value": None}] + [{"color": color, "value": value} for value, color in rest],
    }


def link(title, path, labels="__field.labels"):
    """A data link to an exporter; a series has its instance as a label, a row of a table as a field."""
    return {"title": title, "url": SCHEME + "://${" + labels + ".instance}" + path, "targetBlank": True}


def history_links(labels="__field.labels", child=False):
    query = "?supervisor=${" + labels + ".supervisor:percentencode}"
    query += "&child=${" + labels + ".child:percentencode}" if child else ""
    return [
        link("Live page of the exporter", "/", labels),
        link("History", f"/api/v1/history{query}", labels),
        link("Causes", f"/api/v1/causes{query}", labels),
    ]


def panel(kind, title, description, targets, width, height, options, unit="short", overrides=(), **defaults):
    for index, each in enumerate(targets):
        each["refId"] = chr(ord("A") + index)
    return {
        "type": kind, "title": title, "description": description, "datasource": DATASOURCE, "targets": targets,
        "gridPos": {"w": width, "h": height}, "options": options,
        "fieldConfig": {"defaults": {"unit": unit, **defaults}, "overrides": list(overrides)},
    }


def stat(title, description, expr, width=3, height=4, thresholds=None, unit="short", **defaults):
    thresholds = thresholds or steps(BLUE)
    options = {
        "colorMode": "value", "graphMode": "area", "justifyMode": "auto", "textMode": "auto", "orientation": "auto",
        "percentChangeColorMode": "standard", "showPercentChange": False, "wideLayout": True,
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
    }
    if unit in ("string", "dateTimeFromNow", "s"):
        options["graphMode"] = "none"
    return panel("stat", title, description, [target(expr)], width, height, options, unit,
                 thresholds=thresholds, color={"mode": "thresholds"}, **defaults)


def color(name, value):
    return {"matcher": {"id": "byName", "options": name},
            "properties": [{"id": "color", "value": {"mode": "fixed", "fixedColor": value}}]}


def graph(title, description, targets, width=12, height=8, unit="short", stacked=False, bars=False, overrides=(),
          links=(), legend="table", **defaults):
    custom = {
        "drawStyle": "bars" if bars else "line", "fillOpacity": 70 if bars else 30 if stacked else 10, "lineWidth": 1,
        "showPoints": "never", "spanNulls": False, "axisSoftMin": 0, "lineInterpolation": "linear",
        "stacking": {"mode": "normal" if stacked else "none", "group": "A"},
    }
    calcs = ["max", "lastNotNull"] if legend == "table" else []
    options = {
        "legend": {"displayMode": legend, "placement": "right" if legend == "table" else "bottom", "showLegend": True, "calcs": calcs},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    made = panel("timeseries", title, description, targets, width, height, options, unit, overrides,
                 custom=custom, color={"mode": "palette-classic"}, min=0, links=list(links), **defaults)
    return {**made, "interval": STRETCH} if bars else made


def timeline(title, description, targets, width=12, height=8, mappings=(), links=()):
    options = {
        "showValue": "never", "rowHeight": 0.8, "mergeValues": True, "alignValue": "left",
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
        "tooltip": {"mode": "single", "sort": "none"},
    }
    return panel("state-timeline", title, description, targets, width, height, options, "short",
                 custom={"fillOpacity": 80, "lineWidth": 0}, mappings=list(mappings), color={"mode": "thresholds"},
                 thresholds=steps(RED, (1, GREEN)), links=list(links))


def bad_or_good(bad, good):
    """Words for 0 and 1."""
    return [{"type": "value", "options": {"0": {"text": bad, "color": RED, "index": 0},
                                          "1": {"text": good, "color": GREEN, "index": 1}}}]


def up_or_down():
    return bad_or_good("down", "up")


def bars(title, description, targets, width=12, height=8, unit="percentunit", thresholds=None, links=(), **defaults):
    options = {
        "displayMode": "gradient", "orientation": "horizontal", "valueMode": "color", "namePlacement": "auto", "showUnfilled": True,
        "sizing": "auto", "minVizHeight": 16, "minVizWidth": 8, "maxVizHeight": 300,
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": False, "calcs": []},
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
    }
    return panel("bargauge", title, description, targets, width, height, options, unit,
                 thresholds=thresholds, color={"mode": "thresholds"}, links=list(links), **defaults)


def heatmap(title, description, expr, width=12, height=8):
    """How many observations fell between two bounds in each stretch of time."""
    one = target(expr, "{{le}}", form="heatmap")
    options = {
        "calculate": False, "cellGap": 1, "showValue": "never", "exemplars": {"color": "rgba(255,0,255,0.7)"},
        "color": {"mode": "scheme", "scheme": "Oranges", "fill": "dark-orange", "exponent": 0.5, "scale": "exponential",
                  "reverse": False, "steps": 64},
        "filterValues": {"le": 1e-9}, "legend": {"show": True}, "rowsFrame": {"layout": "auto"},
        "tooltip": {"mode": "single", "showColorScale": True, "yHistogram": False},
        "yAxis": {"axisPlacement": "left", "reverse": False, "unit": "s"},
    }
    made = panel("heatmap", title, description, [one], width, height, options, "short",
                 custom={"scaleDistribution": {"type": "linear"}})
    return {**made, "interval": STRETCH}


def table(title, description, columns, keys, links, width=24, height=9, sort=0, desc=True, words=()):
    """Instant values of several expressions, joined by labels. Columns are (title, expression, unit); `words` are the value
    mappings of the first one."""
    targets = [target(expr, instant=True, form="table") for _, expr, _ in columns]
    names = {f"Value #{chr(ord('A') + index)}": title for index, (title, _, _) in enumerate(columns)}
    hidden = {"Time": True, "job": True, "__name__": True, **{f"Time {index + 1}": True for index in range(len(columns))}}
    order = {key: index for index, key in enumerate([*keys, *names])}
    overrides = [{"matcher": {"id": "byName", "options": title}, "properties": [{"id": "unit", "value": unit}]}
                 for title, _, unit in columns]
    if words:
        overrides[0]["properties"] += [{"id": "mappings", "value": words}, {"id": "custom.cellOptions", "value": {"type": "color-text"}}]
    overrides.append({"matcher": {"id": "byName", "options": keys[-1]}, "properties": [{"id": "links", "value": links}]})
    made = panel("table", title, description, targets, width, height,
                 {"frameIndex": 0, "showHeader": True, "cellHeight": "sm",
                  "sortBy": [{"displayName": columns[sort][0], "desc": desc}]}, "short", overrides,
                 custom={"align": "auto", "cellOptions": {"type": "auto"}, "inspect": False, "filterable": True})
    made["transformations"] = [
        {"id": "merge", "options": {}},
        {"id": "organize", "options": {"excludeByName": hidden, "indexByName": order, "renameByName": names}},
    ]
    return made


def variable(name, label, query, every=".+", multi=True, include_all=True):
    made = {
        "type": "query", "name": name, "label": label, "datasource": DATASOURCE, "query": query,
        "refresh": 2, "sort": 1, "multi": multi, "includeAll": include_all, "allValue": every, "regex": "",
        "hide": 0, "options": [], "skipUrlSync": False,
    }
    if include_all:
        made["current"] = {"selected": True, "text": ["All"], "value": ["$__all"]}
    return made


def variables(one_supervisor):
    info = "supervisor_info"
    return [
        {"type": "datasource", "name": "datasource", "label": "Data source", "query": "prometheus", "hide": 0,
         "includeAll": False, "multi": False, "options": [], "refresh": 1, "regex": "", "skipUrlSync": False},
        variable("job", "Job", f"label_values({info}, job)"),
        variable("instance", "Instance", f'label_values({info}{{job=~"$job"}}, instance)'),
        # A supervisor of no node has no label node, so that All takes the empty one as well.
        variable("node", "Node", f'label_values({info}{{{SCOPE}}}, node)', every=".*"),
        variable("supervisor", "Supervisor", f'label_values({info}{{{SCOPE},node=~"$node"}}, supervisor)',
                 multi=not one_supervisor, include_all=not one_supervisor),
    ]


def annotation(name, expr, colour, title, on):
    return {"name": name, "datasource": DATASOURCE, "enable": on, "hide": False, "iconColor": colour,
            "target": {"refId": "Anno", **target(expr)}, "titleFormat": title}


def annotations():
    return [
        # One step may hold a single sample, and then nothing grows within it: the window of a rate.
        annotation("Gave up", f'increase(supervisor_terminations_total{{{OF},reason="max_intensity"}}[$__rate_interval]) > 0',
                   RED, "{{supervisor}} gave up", True),
        annotation("Alerts", f'ALERTS{{{SCOPE},alertname=~"Supervisor.+|ConfigReloadFailed",alertstate="firing"}}',
                   ORANGE, "{{alertname}} {{supervisor}}", False),
    ]


def placed(rows):
    """The panels of all rows, from left to right and from top to bottom."""
    panels, y = [], 0
    for title, content in rows:
        panels.append({"type": "row", "title": title, "collapsed": False, "panels": [], "gridPos": {"x": 0, "y": y, "w": 24, "h": 1}})
        y, x, height = y + 1, 0, 0
        for each in content:
            size = each["gridPos"]
            if x + size["w"] > 24:
                x, y, height = 0, y + height, 0
            each["gridPos"] = {"x": x, "y": y, "w": size["w"], "h": size["h"]}
            x, height = x + size["w"], max(height, size["h"])
            panels.append(each)
        y += height
    for number, each in enumerate(panels, 1):
        each["id"] = number
    return panels


def dashboard(uid, title, description, rows, one_supervisor):
    links = [
        {"type": "dashboards", "title": "Supervisors", "tags": [TAG], "asDropdown": False, "icon": "external link",
         "includeVars": True, "keepTime": True, "targetBlank": False, "tooltip": "", "url": ""},
        {"type": "link", "title": "Alerts", "url": "/alerting/list?search=Supervisor", "tags": [], "asDropdown": False, "icon": "bell",
         "includeVars": False, "keepTime": False, "targetBlank": False, "tooltip": "Rules that look at supervisors"},
    ]
    made = {
        "id": None, "uid": uid, "title": title, "description": description, "tags": [TAG], "schemaVersion": 39, "version": 1,
        "editable": False, "graphTooltip": 1, "refresh": "30s", "timezone": "browser", "time": {"from": "now-1h", "to": "now"},
        "timepicker": {}, "fiscalYearStartMonth": 0, "links": links, "annotations": {"list": annotations()},
        "templating": {"list": variables(one_supervisor)}, "panels": placed(rows),
    }
    return json.dumps(made, indent=2, ensure_ascii=False) + "\n"
