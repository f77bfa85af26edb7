//! Rules, alerts and dashboards: what operators install beside the program is tested as the program is.

mod grafana;
mod inbox;
mod labels;
mod lint;
mod promql;
mod schema;
mod stack;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use restart_exporter::analytics::{LOOP_DEATHS, LOOP_WINDOW, SLOW_LOOP_RECENT, SLOW_LOOP_WINDOW};
use restart_exporter::metrics::{FAMILIES, Kind};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/dashboards");

/// Runs a tool in the folder; it must be content.
fn content(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).current_dir(FOLDER).output();
    let output = output.unwrap_or_else(|error| panic!("{program} cannot be run, install it: {error}"));
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{program} {arguments:?}:\n{}", String::from_utf8_lossy(&said));
}

fn read(file: &str) -> String {
    std::fs::read_to_string(Path::new(FOLDER).join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// The names of our metrics in a text: words with one of our prefixes. Recordings have a colon in their names, and in a
/// name after one ours is a part of theirs.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let words = text.split(|c: char| !is_name(c)).filter(|word| !word.contains(':'));
    // `supervisor_` alone is a prefix in a regular expression, and upper case is an alert's name.
    let ours = words.filter(|word| {
        ["supervisor_", "restart_exporter_"].iter().any(|prefix| word.starts_with(prefix) && word.len() > prefix.len())
    });
    ours.map(str::to_owned).collect()
}

// The files that operators take are made from one table of thresholds: an edit by hand would be lost.
#[test]
fn the_files_are_what_the_generator_makes() {
    content("python3", &["-B", "generator", "--check"]);
}

#[test]
fn promtool_finds_nothing_in_the_rules_and_the_examples() {
    content("promtool", &["check", "rules", "--lint=all", "--lint-fatal", "rules.yml", "alerts.yml"]);
    content("promtool", &["check", "config", "prometheus.yml"]);
}

// For each alert a pending, a firing and a silent case; a healthy set that keeps all silent.
#[test]
fn the_unit_tests_of_the_rules_pass() {
    content("promtool", &["test", "rules", "alerts_test.yml"]);
}

#[test]
fn the_unit_tests_of_the_rules_over_days_pass() {
    content("promtool", &["test", "rules", "alerts_days_test.yml"]);
}

// All damages take minutes (`mutate.py`); those to one threshold show that it works.
#[test]
fn the_unit_tests_of_the_rules_notice_a_threshold_that_moved() {
    content("python3", &["-B", "mutate.py", "--only", "SupervisorGaveUp, threshold"]);
}

#[test]
fn amtool_finds_nothing_in_the_example_of_alertmanager() {
    content("amtool", &["check-config", "alertmanager.yml"]);
}

// A metric that is renamed turns this red, and so does one that is asked for and does not exist.
#[test]
fn every_metric_that_is_asked_for_exists() {
    let known: BTreeSet<String> = FAMILIES
        .iter()
        .flat_map(|family| match family.kind {
            Kind::Histogram => ["_bucket", "_sum", "_count"].map(|suffix| format!("{}{suffix}", family.name)).to_vec(),
            Kind::Counter | Kind::Gauge => vec![family.name.to_owned()],
        })
        .collect();
    let expressions = |file: &str| -> String {
        let text = read(file);
        let keys = ["expr:", "\"expr\":", "\"query\":", "\"definition\":"];
        text.lines().filter(|line| keys.iter().any(|key| line.trim_start().starts_with(key))).collect()
    };
    let asked: BTreeSet<_> = ["rules.yml", "alerts.yml", "fleet.json", "supervisor.json"]
        .iter()
        .flat_map(|file| metrics_in(&expressions(file)))
        .collect();
    assert!(asked.len() > 20, "the expressions are not found: {asked:?}");
    let unknown: Vec<_> = asked.difference(&known).map(String::as_str).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}

// At 3 a.m. the link of an alert leads to a section of the runbook.
#[test]
fn every_alert_has_its_section_in_the_runbook() {
    let (alerts, runbook) = (read("alerts.yml"), read("README.md"));
    let names: Vec<_> = alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(names.len() >= 16, "{names:?}");
    for name in names {
        assert!(runbook.lines().any(|line| line == format!("### {name}")), "no section {name}");
        assert!(alerts.contains(&format!("#{}", name.to_lowercase())), "no runbook_url for {name}");
    }
}

// An alert and the page must not disagree about what a loop is.
#[test]
fn the_alerts_and_the_word_looping_have_the_same_thresholds() {
    let settings = read("generator/settings.py");
    let value = |names: &str| {
        let line = settings.lines().find(|line| line.starts_with(names)).unwrap();
        line.split_once(" = ").unwrap().1.to_owned()
    };
    let words = |durations: &[std::time::Duration]| -> Vec<String> {
        durations.iter().map(|duration| format!("{:?}", humantime::format_duration(*duration).to_string())).collect()
    };
    let fast = value("LOOP_RESTARTS, LOOP_WINDOW");
    let expected = format!("{LOOP_DEATHS}, {}", words(&[LOOP_WINDOW])[0]);
    assert!(fast.starts_with(&expected), "{fast} / {expected}");
    let slow = value("SLOW_LOOP_RESTARTS, SLOW_LOOP_WINDOW, SLOW_LOOP_RECENT").replace("24h", "1day");
    assert_eq!(slow, format!("{LOOP_DEATHS}, {}", words(&[SLOW_LOOP_WINDOW, SLOW_LOOP_RECENT]).join(", ")));
}
