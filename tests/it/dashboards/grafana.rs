//! As much of Grafana as a dashboard needs to be asked: what its panels, variables and annotations want to know, with all
//! variables filled in as Grafana does.

use std::collections::BTreeMap;

use serde_json::Value;

use super::read;

/// The dashboards.
pub(crate) const DASHBOARDS: [&str; 2] = ["fleet.json", "supervisor.json"];

/// A dashboard.
pub(crate) struct Dashboard {
    pub(crate) file: &'static str,
    pub(crate) json: Value,
}

/// An expression, and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    /// Such as `fleet.json, "Restart rate", A`.
    pub(crate) place: String,
    pub(crate) expression: String,
    /// Asked for one time, not for a range.
    pub(crate) instant: bool,
    /// Labels that legend, title or links show.
    pub(crate) shown: Vec<String>,
}

/// A variable that asks for the values of a label.
#[derive(Clone, Debug)]
pub(crate) struct Variable {
    pub(crate) name: String,
    /// The selector of `label_values(selector, label)`.
    pub(crate) selector: String,
    pub(crate) label: String,
    /// Stands for all values, where there is such a choice.
    all: Option<String>,
    multi: bool,
}

/// The values of all variables, as they stand in an expression.
#[derive(Clone, Debug, Default)]
pub(crate) struct Values(BTreeMap<String, String>);

impl Dashboard {
    pub(crate) fn all() -> Vec<Self> {
        DASHBOARDS.map(Self::read).into()
    }

    fn read(file: &'static str) -> Self {
        Self { file, json: serde_json::from_str(&read(file)).unwrap() }
    }

    /// The panels that are no mere headings.
    pub(crate) fn panels(&self) -> Vec<&Value> {
        let panels: Vec<_> = items(&self.json["panels"]).filter(|panel| panel["type"] != "row").collect();
        assert!(panels.len() > 10, "{}: the panels are elsewhere", self.file);
        panels
    }

    /// The targets of all panels.
    pub(crate) fn targets(&self) -> Vec<Question> {
        let mut questions = Vec::new();
        for panel in self.panels() {
            let links = &panel["fieldConfig"].to_string();
            for target in items(&panel["targets"]) {
                let mut shown = labels(text(&target["legendFormat"]), "{{", "}}");
                shown.extend(labels(links, "${__field.labels.", "}"));
                shown.extend(labels(links, "${__data.fields.", "}"));
                questions.push(Question {
                    place: format!("{}, {}, {}", self.file, panel["title"], text(&target["refId"])),
                    expression: text(&target["expr"]).to_owned(),
                    instant: target["instant"] == true,
                    shown,
                });
            }
        }
        questions
    }

    pub(crate) fn annotations(&self) -> Vec<Question> {
        let annotations = items(&self.json["annotations"]["list"]).map(|annotation| Question {
            place: format!("{}, annotation {}", self.file, annotation["name"]),
            expression: text(&annotation["target"]["expr"]).to_owned(),
            instant: false,
            shown: labels(text(&annotation["titleFormat"]), "{{", "}}"),
        });
        annotations.collect()
    }

    /// The variables that ask Prometheus, in their order: each may use those before it.
    pub(crate) fn variables(&self) -> Vec<Variable> {
        let queries = items(&self.json["templating"]["list"]).filter(|variable| variable["type"] == "query");
        queries
            .map(|variable| {
                let query =
                    text(&variable["query"]).strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')'));
                let (selector, label) =
                    query.and_then(|query| query.rsplit_once(", ")).expect("label_values(…, label)");
                Variable {
                    name: text(&variable["name"]).into(),
                    selector: selector.into(),
                    label: label.into(),
                    all: (variable["includeAll"] == true).then(|| text(&variable["allValue"]).into()),
                    multi: variable["multi"] == true,
                }
            })
            .collect()
    }
}

impl Values {
    /// What Grafana works out from the times: the step, the range, and the window of a rate.
    pub(crate) fn of_time(scrape: f64, step: f64, range: f64) -> Self {
        let milliseconds = |seconds: f64| format!("{}ms", (seconds * 1e3).round());
        let rate = (step + scrape).max(4.0 * scrape);
        let times = [("__rate_interval", rate), ("__range", range), ("__interval", step)];
        Self(times.map(|(name, seconds)| (name.to_owned(), milliseconds(seconds))).into())
    }

    /// All values of a variable; `false` where there is no such choice.
    pub(crate) fn choose_all(&mut self, variable: &Variable) -> bool {
        variable.all.as_ref().map(|all| self.0.insert(variable.name.clone(), all.clone())).is_some()
    }

    /// One value of a variable.
    pub(crate) fn choose(&mut self, variable: &Variable, value: &str) {
        // Inside a string of PromQL the backslash of a regular expression stands twice.
        let escaped = if variable.multi || variable.all.is_some() {
            let special = |c: char| if r"\^$*+?.()|[]{}'".contains(c) { format!(r"\\{c}") } else { c.to_string() };
            value.chars().map(special).collect()
        } else {
            value.replace('\\', r"\\").replace('\'', r"\'")
        };
        self.0.insert(variable.name.clone(), escaped);
    }

    /// The text with the values in it; panics if a variable is left.
    pub(crate) fn fill(&self, text: &str) -> String {
        let filled =
            self.0.iter().fold(text.to_owned(), |text, (name, value)| text.replace(&format!("${name}"), value));
        assert!(!filled.contains('$'), "a variable is left in {filled}");
        filled
    }
}

/// The elements of a list, none if there is no list.
pub(crate) fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// The words between these marks, a format after a colon left out.
fn labels(text: &str, before: &str, after: &str) -> Vec<String> {
    let rests = text.split(before).skip(1).filter_map(|rest| rest.split_once(after));
    rests.map(|(word, _)| word.split(':').next().unwrap_or_default().trim().to_owned()).collect()
}
