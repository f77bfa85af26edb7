//! The rules of grafana/dashboard-linter, by their names there, and a few of our own. That every expression is PromQL and
//! gives something is asked of Prometheus (`stack`).

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::grafana::{Dashboard, items, text};
use super::promql::Expression;

/// Rules that a panel may break, and why.
const EXCLUDED: &[(&str, &str, &str)] = &[];

/// Units as Grafana names them, those that our panels need.
const UNITS: [&str; 7] = ["short", "percentunit", "ops", "reqps", "s", "bytes", "dateTimeFromNow"];

/// Functions that turn a counter into something to be looked at.
const OF_COUNTERS: [&str; 3] = ["rate", "irate", "increase"];

/// All that breaks a rule in all dashboards.
#[derive(Default)]
struct Findings(Vec<String>);

impl Findings {
    fn unless(&mut self, holds: bool, rule: &str, place: &str) {
        let is_excluded = EXCLUDED.iter().any(|(excluded, panel, _)| *excluded == rule && place.contains(panel));
        if !holds && !is_excluded {
            self.0.push(format!("{place}: {rule}"));
        }
    }

    fn none(self) {
        assert!(self.0.is_empty(), "{}", self.0.join("\n"));
    }
}

fn variable<'a>(dashboard: &'a Dashboard, name: &str) -> &'a Value {
    items(&dashboard.json["templating"]["list"]).find(|variable| variable["name"] == name).unwrap_or(&Value::Null)
}

#[test]
fn the_variables_are_as_the_linter_wants_them() {
    let mut findings = Findings::default();
    for dashboard in Dashboard::all() {
        let source = variable(&dashboard, "datasource");
        findings.unless(
            source["type"] == "datasource" && source["query"] == "prometheus",
            "template-datasource-rule",
            dashboard.file,
        );
        findings.unless(source["label"] == "Data source", "template-datasource-rule", dashboard.file);
        for (name, label, rule) in
            [("job", "Job", "template-job-rule"), ("instance", "Instance", "template-instance-rule")]
        {
            let variable = variable(&dashboard, name);
            let wanted = json!({"type": "query", "label": label, "multi": true, "includeAll": true, "allValue": ".+"});
            for (key, value) in wanted.as_object().unwrap() {
                findings.unless(variable[key] == *value, rule, &format!("{}, {key} of {name}", dashboard.file));
            }
        }
        for variable in items(&dashboard.json["templating"]["list"]).filter(|variable| variable["type"] == "query") {
            let place = format!("{}, variable {}", dashboard.file, variable["name"]);
            findings.unless(variable["datasource"]["uid"] == "${datasource}", "template-datasource-rule", &place);
            findings.unless(variable["refresh"] == 2, "template-on-time-change-reload-rule", &place);
        }
        for variable in dashboard.variables() {
            let expression = Expression::of(&variable.selector);
            findings.unless(
                expression.selectors.len() == 1,
                "template-label-promql-rule",
                &format!("{}, {}", dashboard.file, variable.name),
            );
        }
        findings.unless(dashboard.json["editable"] == false, "uneditable-dashboard-rule", dashboard.file);
    }
    findings.none();
}

#[test]
fn the_panels_are_as_the_linter_wants_them() {
    let mut findings = Findings::default();
    for dashboard in Dashboard::all() {
        for panel in dashboard.panels() {
            let place = format!("{}, {}", dashboard.file, panel["title"]);
            findings.unless(panel["datasource"]["uid"] == "${datasource}", "panel-datasource-rule", &place);
            let is_said = |key: &str| !text(&panel[key]).trim().is_empty();
            findings.unless(is_said("title") && is_said("description"), "panel-title-description-rule", &place);
            findings.unless(
                UNITS.contains(&text(&panel["fieldConfig"]["defaults"]["unit"])),
                "panel-units-rule",
                &place,
            );
            for property in items(&panel["fieldConfig"]["overrides"]).flat_map(|each| items(&each["properties"])) {
                let is_unit = property["id"] == "unit";
                findings.unless(!is_unit || UNITS.contains(&text(&property["value"])), "panel-units-rule", &place);
            }
            findings.unless(items(&panel["targets"]).count() > 0, "panel-no-targets-rule", &place);
        }
    }
    findings.none();
}

#[test]
fn the_targets_are_as_the_linter_wants_them() {
    let mut findings = Findings::default();
    for dashboard in Dashboard::all() {
        for question in dashboard.targets() {
            let place = &question.place;
            for selector in Expression::of(&question.expression).selectors {
                let has = |label: &str, value: &str| {
                    selector
                        .matchers
                        .iter()
                        .any(|(name, is, of)| (name.as_str(), is.as_str(), of.as_str()) == (label, "=~", value))
                };
                findings.unless(has("job", "$job"), "target-job-rule", place);
                findings.unless(has("instance", "$instance"), "target-instance-rule", place);
                let innermost = selector.within.last().map_or("", String::as_str);
                let is_counter =
                    ["_total", "_count", "_sum", "_bucket"].iter().any(|end| selector.metric.ends_with(end));
                findings.unless(!is_counter || OF_COUNTERS.contains(&innermost), "target-counter-agg-rule", place);
                findings.unless(is_counter || !OF_COUNTERS.contains(&innermost), "no rate of a gauge", place);
                let range = selector.range.as_deref();
                findings.unless(
                    !innermost.ends_with("rate") || range == Some("$__rate_interval"),
                    "target-rate-interval-rule",
                    place,
                );
                // One number for the whole range of time, or one for each step.
                findings.unless(
                    range.is_none_or(|range| ["$__rate_interval", "$__range"].contains(&range)),
                    "no fixed range",
                    place,
                );
            }
        }
    }
    findings.none();
}

// What is not in the linter and still goes wrong.
#[test]
fn the_panels_have_places_and_numbers_of_their_own() {
    let mut findings = Findings::default();
    for dashboard in Dashboard::all() {
        let (mut ids, mut taken) = (BTreeSet::new(), BTreeSet::new());
        for panel in items(&dashboard.json["panels"]) {
            let place = format!("{}, {}", dashboard.file, panel["title"]);
            findings.unless(ids.insert(panel["id"].as_u64()), "a number of its own", &place);
            let [x, y, width, height] = ["x", "y", "w", "h"].map(|key| panel["gridPos"][key].as_u64().unwrap());
            findings.unless(x + width <= 24 && width > 0 && height > 0, "inside the grid", &place);
            let mut cells = (x..x + width).flat_map(|column| (y..y + height).map(move |row| (column, row)));
            findings.unless(cells.all(|cell| taken.insert(cell)), "a place of its own", &place);
            let targets: Vec<_> = items(&panel["targets"]).map(|target| text(&target["refId"])).collect();
            findings.unless(
                targets.iter().collect::<BTreeSet<_>>().len() == targets.len(),
                "targets with ids of their own",
                &place,
            );
            // The last sample of a series that has just ended is none.
            findings.unless(!panel["options"].to_string().contains("\"last\""), "lastNotNull instead of last", &place);
        }
        findings.unless(
            dashboard.json["id"].is_null() && !text(&dashboard.json["uid"]).is_empty(),
            "a fixed uid and no id",
            dashboard.file,
        );
        findings.unless(dashboard.json["__inputs"].is_null(), "no inputs", dashboard.file);
    }
    findings.none();
}
