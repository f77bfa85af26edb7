//! Real programs that really die, scraped by a real Prometheus, checked by promtool.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use restart_exporter::telemetry::monotonic_now;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::world::{Prometheus, Running, get, is_alive, sample, soon, until};

pub(crate) const TREE: &str = r#"
    [[supervisor]]
    name = "shop"
    max_restarts = 100
    max_seconds = 60

    [[supervisor.child]]
    id = "idle"
    command = ["sleep", "600"]

    [[supervisor.child]]
    id = "busy"
    command = ["sh", "-c", "while :; do echo tick; sleep 0.2; done"]

    [[supervisor.child]]
    id = "web"
    command = ["sleep", "601"]
"#;

/// How often a child of the tests is killed.
const KILLS: u64 = 5;

/// What `promtool check metrics` says, and whether it is content.
fn promtool(exposition: &str) -> (Option<i32>, String) {
    let mut command = Command::new("promtool");
    command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut promtool = command.spawn().unwrap_or_else(|error| panic!("promtool cannot be run, install it: {error}"));
    promtool.stdin.take().unwrap().write_all(exposition.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}

async fn pid_of(exporter: &Running, child: &str) -> u64 {
    exporter.pids().await.into_iter().find(|(id, _)| id == child).expect("the child runs").1
}

/// Kills the run of a child as `kill -9` does, and returns when the history shows the restart.
pub(crate) async fn kill_and_see_restarted(exporter: &Running, child: &str) -> u64 {
    let pid = pid_of(exporter, child).await;
    let restarts = async || {
        let path = format!("/api/v1/history?supervisor=shop&child={child}&event=restarted");
        exporter.data(&path).await["events"].as_array().unwrap().len()
    };
    let before = restarts().await;
    kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), Signal::KILL).unwrap();
    until("restarted", async || (restarts().await > before).then_some(())).await;
    pid
}

// Promises 1 and 2 of every user: a child that dies five times between two scrapes shows +5 and five deaths, and the very
// first crash after the start is seen by increase(), because the series stood at 0 before it.
#[tokio::test]
async fn five_kills_between_two_scrapes_are_five_restarts_in_prometheus_and_in_the_history() {
    let directory = tempfile::tempdir().unwrap();
    let exporter = Running::file(directory.path(), TREE).await;
    let prometheus = Prometheus::scraping(exporter.address).await;
    let restarts = r#"supervisor_child_restarts_total{supervisor="shop",child="web",cause="failure"}"#;
    let killed = r#"supervisor_child_terminations_total{supervisor="shop",reason="killed"}"#;
    prometheus.sees(restarts, 0.0).await;
    let others = [pid_of(&exporter, "idle").await, pid_of(&exporter, "busy").await];

    let mut dead = Vec::new();
    for _ in 0..KILLS {
        dead.push(kill_and_see_restarted(&exporter, "web").await);
    }
    let text = exporter.get("/metrics").await.body;
    assert_eq!((sample(&text, restarts), sample(&text, killed)), (Some(5.0), Some(5.0)));

    prometheus.sees(restarts, 5.0).await;
    prometheus.sees(killed, 5.0).await;
    prometheus.sees(r#"sum(supervisor_child_restarts_total{supervisor="shop"})"#, 5.0).await;
    prometheus.sees(r#"sum(supervisor_child_terminations_total{supervisor="shop"})"#, 5.0).await;
    let scraped = prometheus.query(&format!("{restarts}[1m]")).await;
    eprintln!("as scraped, by time: {}", scraped[0].1);
    assert_eq!(scraped[0].1[0][1], "0", "a scrape saw the series before the first crash");
    let increase = prometheus.value(&format!("increase({restarts}[1m])")).await;
    assert!(increase.is_some_and(|increase| increase > 0.0), "{increase:?}");
    prometheus.sees(r#"supervisor_children{supervisor="shop",state="running"}"#, 3.0).await;
    prometheus.sees(r#"supervisor_child_lifetime_seconds_count{supervisor="shop"}"#, 5.0).await;
    prometheus.sees(r#"supervisor_child_downtime_seconds_bucket{supervisor="shop",le="+Inf"}"#, 5.0).await;
    prometheus.sees(r#"supervisor_restart_intensity_limit{supervisor="shop"}"#, 100.0).await;

    let history = exporter.data("/api/v1/history?supervisor=shop").await;
    let events = history["events"].as_array().unwrap();
    let types: Vec<_> = events.iter().map(|event| event["event_type"].as_str().unwrap()).collect();
    assert_eq!(types, ["restarted", "terminated"].repeat(5));
    let deaths = events.iter().rev().filter(|event| event["event_type"] == "terminated");
    let dead_pids: Vec<_> = dead.iter().map(u64::to_string).collect();
    assert_eq!(deaths.map(|event| event["child_pid"].as_str().unwrap()).collect::<Vec<_>>(), dead_pids);
    assert!(events.iter().all(|event| event["child_id"] == "web"));
    assert_eq!((&history["total"], &history["evicted"]), (&Value::from(10), &Value::from(0)));
    let causes = exporter.data("/api/v1/causes?supervisor=shop").await;
    assert_eq!(causes["causes"].as_array().unwrap().len(), 1, "five equal deaths are one cause: {causes}");
    assert_eq!(causes["causes"][0]["count"], 5);
    let rate = exporter.data("/api/v1/failure_rate?supervisor=shop&window=10m").await;
    assert_eq!((&rate["restarts"], &rate["failures"], &rate["complete"]), (&5.into(), &5.into(), &true.into()));

    assert_eq!([pid_of(&exporter, "idle").await, pid_of(&exporter, "busy").await], others, "siblings are left alone");
    assert!(dead.iter().all(|pid| !is_alive(*pid)), "no zombie is left");
}

// A target is healthy as long as every scrape of it was: nothing of the exposition may offend Prometheus.
#[tokio::test]
async fn prometheus_scrapes_the_demo_without_an_error() {
    let exporter = Running::start(&["demo"]).await;
    let prometheus = Prometheus::scraping(exporter.address).await;
    until("three scrapes", async || {
        prometheus.value("count_over_time(up[1m])").await.filter(|scrapes| *scrapes >= 3.0)
    })
    .await;
    prometheus.sees("min_over_time(up[1m])", 1.0).await;
    let targets = prometheus.data("/api/v1/targets").await.unwrap();
    let target = &targets["activeTargets"][0];
    assert_eq!((&target["health"], &target["lastError"]), (&"up".into(), &"".into()));
    for scrapes in ["duplicate_timestamp", "out_of_order", "out_of_bounds", "exceeded_sample_limit"] {
        let text = get(prometheus.address, "/metrics").await.body;
        let name = format!("prometheus_target_scrapes_sample_{scrapes}_total");
        assert!(sample(&text, &name).unwrap_or_default() == 0.0, "{name}");
    }
    let metadata = prometheus.data("/api/v1/targets/metadata?match_target=%7Bjob%3D%22exporter%22%7D").await.unwrap();
    // The demo has no configuration file, and no supervisor of it is down. Nor is there a node.
    let is_absent = |name: &str| {
        ["process_max_fds", "supervisor_down_reason"].contains(&name) || name.starts_with("restart_exporter_config_")
    };
    let is_seen = |family: &&restart_exporter::metrics::Family| !is_absent(family.name) && family.labels != ["node"];
    for family in restart_exporter::metrics::FAMILIES.iter().filter(is_seen) {
        // It asks for OpenMetrics, where `_total` is no part of a family's name.
        let name = family.name.strip_suffix("_total").unwrap_or(family.name);
        let known = metadata.as_array().unwrap().iter().find(|known| known["metric"] == name);
        let known = known.unwrap_or_else(|| panic!("Prometheus does not know {}", family.name));
        assert_eq!((known["type"].as_str(), known["help"].as_str()), (Some(family.kind.as_str()), Some(family.help)));
    }
}

// With native histograms Prometheus asks for protobuf first: the same series with the same values.
#[tokio::test]
async fn prometheus_reads_the_same_from_protobuf() {
    let directory = tempfile::tempdir().unwrap();
    let exporter = Running::file(directory.path(), TREE).await;
    let features = ["--enable-feature=native-histograms"];
    let prometheus = Prometheus::scraping_with(exporter.address, &features).await;
    kill_and_see_restarted(&exporter, "web").await;
    prometheus.sees(r#"supervisor_child_restarts_total{supervisor="shop",child="web",cause="failure"}"#, 1.0).await;
    prometheus.sees(r#"supervisor_child_lifetime_seconds_bucket{supervisor="shop",le="+Inf"}"#, 1.0).await;
    prometheus.sees(r#"supervisor_children{supervisor="shop",state="running"}"#, 3.0).await;
    let text = exporter.get("/metrics").await.body;
    let series = text.lines().filter(|line| !line.starts_with('#')).count() as f64;
    prometheus.sees("scrape_samples_scraped", series).await;
    prometheus.sees("min_over_time(up[1m])", 1.0).await;
}

// The rules of promtool hold for what is really served, and the demo is quick to show something.
#[tokio::test]
async fn promtool_has_nothing_to_say_about_the_demo_which_answers_at_once() {
    let started: Instant = monotonic_now();
    let exporter = Running::start(&["demo"]).await;
    let five_supervisors = async {
        until("the demo's supervisors", async || {
            let text = exporter.get("/metrics").await.body;
            (text.lines().filter(|line| line.starts_with("supervisor_up{")).count() >= 6).then_some(text)
        })
        .await
    };
    let text = soon("the demo's metrics", five_supervisors).await;
    let took = monotonic_now() - started;
    eprintln!("first scrape with all supervisors of the demo {took:?} after its start");
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert_eq!(promtool(&text), (Some(0), String::new()));
}

// The same for a tree that has every kind of series: deaths, histograms, causes, a handler counted, errors of clients.
#[tokio::test]
async fn promtool_has_nothing_to_say_after_deaths_and_bad_requests() {
    let directory = tempfile::tempdir().unwrap();
    let exporter = Running::file(directory.path(), TREE).await;
    kill_and_see_restarted(&exporter, "web").await;
    for path in ["/no/such/path", "/api/v1/history?supervisor=nobody", "/api/v1/stats?x=1"] {
        assert!(exporter.get(path).await.status >= 400);
    }
    assert_eq!(promtool(&exporter.get("/metrics").await.body), (Some(0), String::new()));
}
