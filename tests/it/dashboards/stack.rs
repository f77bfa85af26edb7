//! The whole way of an alert: programs that really die, the exporter, Prometheus, Alertmanager, and whoever is called.
//! On the same Prometheus every question of the dashboards is asked.
//!
//! Rules, alerts and the two examples of a configuration are those of operators, with all times divided by one factor.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::process::Signal;
use serde_json::Value;

use super::grafana::{Dashboard, Question, Values, items, text};
use super::inbox::{Inbox, Note};
use super::{content, read};
use crate::world::{BINARY, Foreign, Prometheus, Running, get, until};

/// All times are this much shorter: a minute takes a second.
const FACTOR: f64 = 60.0;

/// Prometheus scrapes every 15 seconds in the example, here as often in a sixtieth of it.
const SCRAPE_INTERVAL: f64 = 15.0 / FACTOR;

/// Questions whose answer is rightly empty here, and why. Everything else must have an answer.
const RIGHTLY_EMPTY: &[(&str, &str)] = &[
    ("fleet.json, variable node", "no Erlang or Elixir node is connected"),
    ("supervisor.json, variable node", "no Erlang or Elixir node is connected"),
];

/// Labels that a series may lack, and why.
const OPTIONAL: &[(&str, &str)] = &[("node", "only on supervisors of an Erlang or Elixir node")];

/// One loops with the default backoff, and one dies as often as its supervisor allows, then stays.
///
/// The times of the backoff are divided like all others. The budget is of whole seconds, so it is not divided: one is
/// given that a loop does not use up, as the default budget is not by the default backoff.
const SHOP: &str = r#"
    [[supervisor]]
    name = "shop"
    max_restarts = 1000
    max_seconds = 60

    [[supervisor.child]]
    id = "loops"
    command = "echo 'bind: address already in use' >&2; exit 1"
    shell = true
    backoff = { initial = "17ms", max = "500ms", reset_after = "167ms" }

    [[supervisor]]
    name = "bakery"

    [[supervisor.child]]
    id = "well"
    command = ["sleep", "600"]

    [[supervisor]]
    name = "stock"
    max_restarts = 3
    max_seconds = 8

    [[supervisor.child]]
    id = "falters"
    command = "echo >> lives; [ $(wc -l < lives) -gt 3 ] && exec sleep 600; sleep 0.3; exit 1"
    shell = true
    backoff = "none"
    cwd = "DIRECTORY"
"#;

/// It gives up when it is told to.
const TILL: &str = r#"
    [[supervisor]]
    name = "till"
    max_restarts = 3
    max_seconds = 60

    [[supervisor.child]]
    id = "drawer"
    command = "while [ ! -e die ]; do sleep 0.05; done; sleep 0.2; exit 1"
    shell = true
    backoff = "none"
    cwd = "DIRECTORY"
"#;

struct Stack {
    shop: Running,
    till_address: SocketAddr,
    inbox: Inbox,
    prometheus: Prometheus,
    directory: tempfile::TempDir,
    alertmanager_address: SocketAddr,
    _alertmanager: Foreign,
}

impl Stack {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name).display().to_string();
        let factor = FACTOR.to_string();
        content("python3", &["-B", "generator", "--into", &path(""), "--times-divided-by", &factor]);

        let inbox = Inbox::open().await;
        let config = faster(&read("alertmanager.yml")).replace("127.0.0.1:9095", &inbox.address.to_string());
        std::fs::write(path("alertmanager.yml"), config).unwrap();
        let arguments = [
            format!("--config.file={}", path("alertmanager.yml")),
            format!("--storage.path={}", path("alertmanager")),
            "--web.listen-address=127.0.0.1:0".into(),
            "--cluster.listen-address=".into(),
        ];
        let mut alertmanager = Foreign::start("prometheus-alertmanager", &arguments.each_ref().map(String::as_str));
        let alertmanager_address = alertmanager.address().await;

        let shop = Running::file(directory.path(), &SHOP.replace("DIRECTORY", &path(""))).await;
        // An address that survives its exporter: nobody else binds there, as long as test runs have numbers of their own.
        let [_, _, high, low] = std::process::id().to_be_bytes();
        let till_address = SocketAddr::from(([127, 70, high, low.max(1)], 8469));
        let targets = format!("{}\", \"{till_address}", shop.address);
        let config = faster(&read("prometheus.yml")).replace("127.0.0.1:9093", &alertmanager_address.to_string());
        let config = config.replace("127.0.0.1:8469", &targets);
        // A machine under load may need longer than a sixtieth of the time; none given is all of the interval.
        let lines = config.lines().filter(|line| !line.contains("scrape_timeout"));
        std::fs::write(path("prometheus.yml"), lines.collect::<Vec<_>>().join("\n")).unwrap();
        // The two times that stand in no file: 5 minutes and 1 minute.
        let flags = ["--query.lookback-delta=5s", "--rules.alert.resend-delay=1s"];
        let prometheus = Prometheus::configured(Path::new(&path("prometheus.yml")), &flags).await;
        Self { shop, till_address, inbox, prometheus, directory, alertmanager_address, _alertmanager: alertmanager }
    }

    /// Starts the exporter of the till, at the same address each time.
    async fn open_till(&self) -> Foreign {
        let directory = self.directory.path().join("till");
        std::fs::create_dir_all(&directory).unwrap();
        let file = directory.join("till.toml");
        std::fs::write(&file, TILL.replace("DIRECTORY", directory.to_str().unwrap())).unwrap();
        let listen = format!("--web.listen-address={}", self.till_address);
        let mut till = Foreign::start(BINARY, &["run", file.to_str().unwrap(), "--exit.delay=1h", &listen]);
        assert_eq!(till.address().await, self.till_address);
        let up = format!("up{{instance=\"{}\"}}", self.till_address);
        self.prometheus.sees(&up, 1.0).await;
        self.prometheus.sees("supervisor_up{supervisor=\"till\"}", 1.0).await;
        till
    }

    /// Writes or removes the word that the till's child waits for.
    fn tell_till_to_die(&self, die: bool) {
        let word = self.directory.path().join("till/die");
        if die { std::fs::write(word, "").unwrap() } else { std::fs::remove_file(word).unwrap() }
    }

    /// Waits until Alertmanager has this alert of the till and holds it back for another one.
    async fn is_inhibited(&self, alert: &str) {
        let is_it = |other: &&Value| other["labels"]["alertname"] == alert && other["labels"]["supervisor"] == "till";
        until(&format!("{alert} is inhibited"), async || {
            let alerts = get(self.alertmanager_address, "/api/v2/alerts").await.json();
            let status = &items(&alerts).find(is_it)?["status"];
            (status["state"] == "suppressed" && items(&status["inhibitedBy"]).count() > 0).then_some(())
        })
        .await;
    }

    /// Waits for an alert to fire; its texts must be filled, and say whom they are about.
    async fn fires(&self, labels: &[(&str, &str)], receiver: &str, words: &[&str]) -> Note {
        self.fires_after(0, labels, receiver, words).await
    }

    /// The same, the first `skip` notes left out.
    async fn fires_after(&self, skip: usize, labels: &[(&str, &str)], receiver: &str, words: &[&str]) -> Note {
        let note = self.inbox.wait("firing", labels, skip).await;
        assert_eq!(note.path, receiver, "{note:?}");
        let anchor = format!("#{}", text(&note.labels["alertname"]).to_lowercase());
        assert!(note.text("runbook_url").ends_with(&anchor), "{note:?}");
        assert!(!note.text("summary").is_empty(), "{note:?}");
        for words in words {
            assert!(note.text("description").contains(words), "{words:?} is not in {note:?}");
        }
        note
    }
}

/// A configuration with its times divided: `interval: 15s` becomes `interval: 250ms`.
fn faster(config: &str) -> String {
    let line = |line: &str| {
        let time = line.rsplit_once(": ").filter(|(_, value)| value.starts_with(|first: char| first.is_ascii_digit()));
        let divided = time.and_then(|(key, value)| Some((key, humantime::parse_duration(value).ok()?.div_f64(FACTOR))));
        divided.map_or_else(|| line.to_owned(), |(key, time)| format!("{key}: {}ms", time.as_millis()))
    };
    config.lines().map(line).collect::<Vec<_>>().join("\n")
}

fn unix_time() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

/// `path?query` of the answers of an API, or what was wrong.
async fn ask(prometheus: &Prometheus, path: &str, parameters: &[(&str, &str)]) -> Result<Value, String> {
    let mut query = form_urlencoded::Serializer::new(String::new());
    parameters.iter().for_each(|(name, value)| _ = query.append_pair(name, value));
    let answer = get(prometheus.address, &format!("{path}?{}", query.finish())).await;
    let json = answer.json();
    if answer.status == 200 { Ok(json["data"].clone()) } else { Err(json["error"].to_string()) }
}

/// Asks a question of a dashboard; returns what is wrong with the answer.
async fn wrong_with(
    question: &Question,
    values: &Values,
    (start, end, step): (f64, f64, f64),
    prometheus: &Prometheus,
) -> Option<String> {
    let expression = values.fill(&question.expression);
    let [start, end, step] = [start, end, step].map(|seconds| format!("{seconds:.3}"));
    let answer = if question.instant {
        ask(prometheus, "/api/v1/query", &[("query", &expression), ("time", &end)]).await
    } else {
        let parameters = [("query", expression.as_str()), ("start", &start), ("end", &end), ("step", &step)];
        ask(prometheus, "/api/v1/query_range", &parameters).await
    };
    let result = match &answer {
        Ok(data) => &data["result"],
        Err(error) => return Some(error.clone()),
    };
    let is_number = |point: &Value| text(&point[1]).parse::<f64>().is_ok_and(f64::is_finite);
    let has_value = |series: &Value| is_number(&series["value"]) || items(&series["values"]).any(is_number);
    if !items(result).any(has_value) {
        return Some("empty".into());
    }
    let missing = question.shown.iter().filter(|label| !OPTIONAL.iter().any(|(optional, _)| label == optional));
    let missing: Vec<_> =
        missing.filter(|label| items(result).any(|series| series["metric"][label].is_null())).collect();
    (!missing.is_empty()).then(|| format!("no label {missing:?}"))
}

/// Asks all that a dashboard wants to know; returns what is wrong. `All` is chosen where it can be, else, or if `one` is
/// told to, these values.
async fn wrong_in(
    dashboard: &Dashboard,
    one: bool,
    choice: &[(&str, &str)],
    range: (f64, f64, f64),
    prometheus: &Prometheus,
) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut values = Values::of_time(SCRAPE_INTERVAL, range.2, range.1 - range.0);
    for variable in dashboard.variables() {
        let selector = values.fill(&variable.selector);
        let path = format!("/api/v1/label/{}/values", variable.label);
        let known = ask(prometheus, &path, &[("match[]", &selector)]).await;
        let known = known.unwrap_or_else(|error| panic!("{selector}: {error}"));
        let value = choice.iter().find(|(name, _)| *name == variable.name).map(|(_, value)| *value);
        match value.filter(|_| one || !values.choose_all(&variable)) {
            Some(value) => values.choose(&variable, value),
            None => assert!(values.choose_all(&variable), "{} has neither All nor a value", variable.name),
        }
        if value.map_or(known[0].is_null(), |value| !items(&known).any(|known| known == value)) {
            wrong.push(format!("{}, variable {}: {known}", dashboard.file, variable.name));
        }
    }
    for question in dashboard.targets().iter().chain(&dashboard.annotations()) {
        if let Some(problem) = wrong_with(question, &values, range, prometheus).await {
            wrong.push(format!("{}: {problem}", question.place));
        }
    }
    wrong
}

// What operators install does what it says: each alert comes, with its texts filled, to whom it belongs, and goes again.
#[tokio::test]
async fn alerts_come_and_go_and_every_panel_has_an_answer() {
    let begin = unix_time();
    let stack = Stack::start().await;
    let (shop_address, till_address) = (stack.shop.address.to_string(), stack.till_address.to_string());
    let mut till = stack.open_till().await;
    stack.tell_till_to_die(true);
    till.line_with("supervisor gave up").await;

    // Firing.
    let gave_up = [("alertname", "SupervisorGaveUp"), ("supervisor", "till"), ("instance", &till_address)];
    let note = stack.fires(&gave_up, "/pager", &["supervisor till on", &till_address, "for at least 10 seconds"]).await;
    let (_, link) = note.text("history_url").split_once(&till_address).unwrap();
    let history = get(stack.till_address, link).await.data();
    assert_eq!(history["supervisor"], "till");
    let ends = items(&history["events"]).filter(|event| event["event_type"] == "supervisor_terminated").count();
    assert_eq!(ends, 1, "the link of the alert leads to what happened: {history}");
    let budget = [("alertname", "SupervisorRestartBudgetNearlyExhausted"), ("supervisor", "stock")];
    stack.fires(&budget, "/warnings", &["supervisor stock on", &shop_address, "used 100% of"]).await;
    let looping = [("alertname", "SupervisorChildCrashLooping"), ("supervisor", "shop"), ("child", "loops")];
    let note = stack.fires(&looping, "/warnings", &["The child loops of supervisor shop on", &shop_address]).await;
    let times =
        note.text("description").split("restarted ").nth(1).and_then(|rest| rest.split(' ').next()?.parse().ok());
    assert!(times.is_some_and(|times: u32| times >= 6), "{note:?}");
    let all = get(stack.shop.address, "/api/v1/supervisors").await.data();
    let bakery = items(&all).find(|supervisor| supervisor["name"] == "bakery").unwrap();
    let well = &bakery["children"][0];
    assert_eq!(
        (&bakery["up"], &well["state"], &well["restarts"]),
        (&true.into(), &"running".into(), &0.into()),
        "{bakery}"
    );
    // Nothing is mended, so the alert stays after its window.
    let ends = "supervisor_terminations_total{supervisor=\"till\",reason=\"max_intensity\"}";
    stack.prometheus.sees(&format!("increase({ends}[10s])"), 0.0).await;
    stack.is_inhibited("SupervisorRestartBudgetNearlyExhausted").await;
    let resolved = stack.inbox.notes().into_iter().find(|note| note.is("resolved", &gave_up));
    assert!(resolved.is_none(), "the till is still down: {resolved:?}");

    // The dashboards.
    let end = unix_time();
    // Grafana's shortest step is the scrape interval, and what looks back one step finds one sample there.
    let range = (begin, end, SCRAPE_INTERVAL);
    let choice = [("instance", till_address.as_str()), ("supervisor", "till")];
    let mut wrong = Vec::new();
    for dashboard in Dashboard::all() {
        for one in [false, true] {
            wrong.extend(wrong_in(&dashboard, one, &choice, range, &stack.prometheus).await);
        }
    }
    for (place, why) in RIGHTLY_EMPTY {
        let problems = wrong.len();
        wrong.retain(|problem| !problem.starts_with(place));
        assert!(wrong.len() < problems, "{place} has an answer, though it should be empty: {why}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));

    // Resolved.
    let looped = stack.inbox.len();
    let home = stack.directory.path();
    let mended = SHOP.replace("echo 'bind", "exec sleep 600; echo 'bind").replace("DIRECTORY", home.to_str().unwrap());
    std::fs::write(home.join("tree.toml"), mended).unwrap();
    stack.shop.signal(Signal::HUP);
    stack.tell_till_to_die(false);
    drop(till);
    let till = stack.open_till().await;
    stack.inbox.wait("resolved", &gave_up, 0).await;
    let exporter_down = [("alertname", "SupervisorExporterDown"), ("instance", till_address.as_str())];
    let was_up = stack.inbox.len();
    drop(till);
    stack.fires_after(was_up, &exporter_down, "/pager", &[&till_address, "for 5 seconds"]).await;
    let was_gone = stack.inbox.len();
    let _till = stack.open_till().await;
    stack.inbox.wait("resolved", &exporter_down, was_gone).await;
    stack.inbox.wait("resolved", &looping, looped).await;
    stack.inbox.wait("resolved", &budget, 0).await;

    for note in stack.inbox.notes() {
        let is_down = note.is("firing", &[("alertname", "SupervisorDown"), ("supervisor", "till")]);
        assert!(!is_down, "one that gave up has an alert of its own: {note:?}");
        let texts = note.annotations.to_string() + &note.labels.to_string();
        assert!(!texts.contains("<no value>") && !texts.contains("{{"), "{note:?}");
    }
}
