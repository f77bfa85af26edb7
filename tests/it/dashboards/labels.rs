//! Every label that rules and dashboards speak of exists on that metric in the table of the program, and every value of a
//! closed set is one of it: who renames a label or a word turns this red.

use std::collections::{BTreeMap, BTreeSet};

use restart_exporter::metrics::{FAMILIES, Kind};

use super::grafana::Dashboard;
use super::promql::Expression;
use super::read;

/// What Prometheus puts on every series of a target.
const OF_THE_TARGET: [&str; 2] = ["job", "instance"];

/// What Prometheus makes itself, with the labels that matter here.
const OF_PROMETHEUS: [(&str, &[&str]); 2] =
    [("up", &[]), ("ALERTS", &["alertname", "alertstate", "severity", "node", "supervisor"])];

/// The labels of a metric, and the closed set of values of each where there is one.
type Labels = BTreeMap<String, &'static [&'static str]>;

/// A rule: its name, its expression, its texts.
struct Rule {
    name: String,
    expression: String,
    texts: String,
}

/// The rules of a file, in order. They are written by the generator, in one form.
fn rules(file: &str) -> Vec<Rule> {
    let text = read(file);
    let rules: Vec<_> = text
        .split("\n      - ")
        .skip(1)
        .filter_map(|rule| {
            let name = rule.strip_prefix("record: ").or_else(|| rule.strip_prefix("alert: "))?.lines().next()?;
            let lines = rule.lines().skip_while(|line| !line.trim_start().starts_with("expr:"));
            let first = lines.clone().next()?.split_once("expr:")?.1.trim();
            let expression = if first == "|-" {
                lines
                    .skip(1)
                    .take_while(|line| line.starts_with("          "))
                    .map(str::trim)
                    .collect::<Vec<_>>()
                    .join("\n")
            } else {
                first.trim_matches('\'').replace("''", "'")
            };
            Some(Rule {
                name: name.into(),
                expression,
                texts: rule.split_once("annotations:").map_or("", |(_, texts)| texts).into(),
            })
        })
        .collect();
    assert_eq!(rules.len(), text.matches("expr:").count(), "{file}: rules are not found");
    rules
}

/// The labels of every series: of the program, of Prometheus, and of the recordings.
fn known() -> BTreeMap<String, Labels> {
    let open = |labels: &[&str]| -> Labels { labels.iter().map(|label| ((*label).to_owned(), &[][..])).collect() };
    let mut known: BTreeMap<String, Labels> =
        OF_PROMETHEUS.iter().map(|(name, labels)| ((*name).into(), open(labels))).collect();
    for family in FAMILIES {
        let mut labels = open(family.labels);
        if let Some(closed) = family.labels.last().and_then(|last| labels.get_mut(*last)) {
            *closed = family.values;
        }
        if family.labels.contains(&"supervisor") {
            labels.insert("node".into(), &[]);
        }
        let suffixes = if family.kind == Kind::Histogram { &["_sum", "_count", "_bucket"][..] } else { &[""] };
        for suffix in suffixes {
            let mut labels = labels.clone();
            labels.extend(open(&["le"]).into_iter().filter(|_| *suffix == "_bucket"));
            known.insert(format!("{}{suffix}", family.name), labels);
        }
    }
    known.values_mut().for_each(|labels| labels.extend(open(&OF_THE_TARGET)));
    for rule in rules("rules.yml") {
        let labels = result(&Expression::of(&rule.expression), &known);
        known.insert(rule.name, labels);
    }
    known
}

/// The labels of what an expression gives.
fn result(expression: &Expression, known: &BTreeMap<String, Labels>) -> Labels {
    let of_metric = |metric: &str| known.get(metric).cloned().unwrap_or_default();
    let first = of_metric(&expression.selectors[0].metric);
    let is_quantile = expression.selectors[0].within.iter().any(|function| function == "histogram_quantile");
    let mut labels = match expression.outermost_grouping() {
        Some(grouping) => first.into_iter().filter(|(label, _)| grouping.labels.contains(label)).collect(),
        None => first,
    };
    if is_quantile {
        labels.remove("le");
    }
    labels
}

/// What is wrong with the labels of an expression and with those that are shown of its result.
fn wrong(place: &str, text: &str, shown: &[String], known: &BTreeMap<String, Labels>) -> Vec<String> {
    let expression = Expression::of(text);
    let mut wrong = Vec::new();
    for selector in &expression.selectors {
        let Some(labels) = known.get(&selector.metric) else {
            wrong.push(format!("{place}: no metric {}", selector.metric));
            continue;
        };
        for (label, operator, value) in &selector.matchers {
            match labels.get(label) {
                None => wrong.push(format!("{place}: {} has no label {label}", selector.metric)),
                Some(closed) if !closed.is_empty() && !value.starts_with('$') => {
                    let words: BTreeSet<_> =
                        if operator.ends_with('~') { value.split('|').collect() } else { [value.as_str()].into() };
                    let unknown = words.into_iter().filter(|word| !closed.contains(word));
                    wrong
                        .extend(unknown.map(|word| format!("{place}: {label} of {} is never {word}", selector.metric)));
                }
                Some(_) => {}
            }
        }
    }
    for grouping in &expression.groupings {
        for metric in grouping.selectors.iter().map(|place| &expression.selectors[*place].metric) {
            let labels = known.get(metric).into_iter().flat_map(BTreeMap::keys).collect::<BTreeSet<_>>();
            let missing = grouping.labels.iter().filter(|label| !labels.contains(label));
            wrong.extend(
                missing.map(|label| format!("{place}: {} ({label}), but {metric} has no such label", grouping.word)),
            );
        }
    }
    let labels = result(&expression, known);
    wrong.extend(
        shown
            .iter()
            .filter(|label| !labels.contains_key(*label))
            .map(|label| format!("{place}: shows no label {label}")),
    );
    wrong
}

#[test]
fn every_label_of_the_rules_and_their_texts_exists() {
    let known = known();
    let mut offenders = Vec::new();
    for rule in rules("rules.yml").iter().chain(&rules("alerts.yml")) {
        let shown = rule.texts.split("$labels.").skip(1);
        let shown: Vec<_> = shown
            .map(|rest| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap().to_owned())
            .collect();
        // Of an absent target the matchers are all that is known.
        offenders.extend(wrong(&rule.name, &rule.expression, &shown, &known));
    }
    assert!(offenders.is_empty(), "{}", offenders.join("\n"));
}

#[test]
fn every_label_of_the_dashboards_exists() {
    let known = known();
    let mut offenders = Vec::new();
    for dashboard in Dashboard::all() {
        for question in dashboard.targets().iter().chain(&dashboard.annotations()) {
            offenders.extend(wrong(&question.place, &question.expression, &question.shown, &known));
        }
        for variable in dashboard.variables() {
            let place = format!("{}, variable {}", dashboard.file, variable.name);
            offenders.extend(wrong(&place, &variable.selector, std::slice::from_ref(&variable.label), &known));
        }
    }
    assert!(offenders.is_empty(), "{}", offenders.join("\n"));
}

// A test that cannot fail is none.
#[test]
fn a_label_or_a_word_that_does_not_exist_is_found() {
    let known = known();
    let table = [
        (r#"supervisor_children{status="running"}"#, "no label status"),
        (r#"supervisor_children{state=~"running|dead"}"#, "never dead"),
        ("sum by (child) (supervisor_up)", "no such label"),
        ("supervisor_up and on (code) supervisor_up", "no such label"),
        ("supervisor_ups", "no metric"),
        ("sum by (job) (supervisor_up)", "shows no label supervisor"),
        ("instance_supervisor:supervisor_child_restarts:rate5m", "shows no label child"),
    ];
    for (expression, problem) in table {
        let shown = if problem.ends_with("child") { "child" } else { "supervisor" };
        let wrong = wrong("here", expression, &[shown.to_owned()], &known);
        assert!(wrong.iter().any(|found| found.contains(problem)), "{expression}: {wrong:?}");
    }
}
