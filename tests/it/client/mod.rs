//! The commands that ask a running exporter: what they print, word for word, and their exit status.

mod nodes;
mod reach;
mod tail;
mod terminal;
mod tls;
mod why;

use std::net::SocketAddr;
use std::process::{Command, Stdio};

use restart_exporter::supervisor::{Backoff, ChildSpec, Program, Strategy, Supervisor};
use restart_exporter::{Exporter, ExporterBuilder};

use crate::world::{BINARY, Ended, listening, until};

/// Runs a command of the binary, with nothing of our own environment in its way.
async fn run(arguments: &[&str]) -> Ended {
    run_with(arguments, &[]).await
}

async fn run_with(arguments: &[&str], environment: &[(&str, &str)]) -> Ended {
    let mut command = Command::new(BINARY);
    for name in ["RESTART_EXPORTER_URL", "RESTART_EXPORTER_USER", "RESTART_EXPORTER_PASSWORD"] {
        command.env_remove(name);
    }
    command.args(arguments).envs(environment.iter().copied()).stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = |bytes| String::from_utf8(bytes).expect("output in UTF-8");
    Ended { status: output.status, stdout: text(output.stdout), stderr: text(output.stderr) }
}

fn code(ended: &Ended) -> i32 {
    ended.status.code().expect("ended by itself")
}

/// A text with its times left out, so that it is the same in each run: `T` stands for a duration, `DAY` and `CLOCK` for a
/// time, and columns are one space apart.
fn timeless(text: &str) -> String {
    let text = text.replace("just now", "1s ago");
    let lines = text.lines().map(|line| {
        let indent = line.len() - line.trim_start().len();
        let mut words: Vec<String> = Vec::new();
        for word in line.split_whitespace() {
            let word = timeless_word(word);
            // `1m 5s` and `5s` are the same.
            if words.last().is_some_and(|last| last.ends_with('T') && word.starts_with('T') && word.len() <= 2) {
                words.pop();
            }
            words.push(word);
        }
        format!("{:indent$}{}", "", words.join(" "))
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn timeless_word(word: &str) -> String {
    let core = word.trim_matches(['(', ')', ',', ';', '.']);
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let units = ["ms", "s", "m", "h", "d"];
    let replaced = if units.iter().any(|unit| core.strip_suffix(unit).is_some_and(digits)) {
        "T"
    } else if core.len() == 10 && core.split('-').count() == 3 {
        "DAY"
    } else if core.len() == 9 && core.split(':').count() == 3 && core.ends_with('Z') {
        "CLOCK"
    } else if core.strip_suffix('%').is_some_and(digits) {
        "N%"
    } else {
        return word.into();
    };
    word.replace(core, replaced)
}

/// Waits so long after a death that a test sees only the first.
fn once() -> Backoff {
    let hour = std::time::Duration::from_secs(3600);
    Backoff { initial: hour, max: hour, factor: 1.0, jitter: 0.0, reset_after: hour }
}

fn script(id: &str, script: &str) -> ChildSpec {
    ChildSpec::program(id, Program::shell(script)).backoff(once())
}

async fn deaths(exporter: &Exporter, supervisor: &str, child: &str, count: u64) {
    until("deaths", async || {
        let supervisors = exporter.control().supervisors();
        let view = supervisors.into_iter().find(|one| &*one.supervisor.supervisor == supervisor)?;
        let child = view.children.into_iter().find(|one| &*one.child.id == child)?;
        (child.deaths_day >= count).then_some(())
    })
    .await;
}

/// An exporter that says that the start of its supervisors has begun.
async fn serving(builder: ExporterBuilder) -> (Exporter, SocketAddr) {
    let (exporter, address) = listening(builder).await;
    exporter.app().set_ready(true);
    (exporter, address)
}

async fn exporter() -> (Exporter, SocketAddr, String) {
    let (exporter, address) = serving(Exporter::builder().admin_api(true)).await;
    (exporter, address, format!("--url=http://{address}"))
}

// Trouble first, the healthy folded; exit status 0 if all is well, 1 if something loops, gave up or failed.
#[tokio::test]
async fn status_shows_trouble_first_and_says_by_its_exit_status_whether_there_is_any() {
    let (exporter, _, url) = exporter().await;
    let well = Supervisor::new("well")
        .child(ChildSpec::task("one", |stop| async move { stop.stopped().await }))
        .child(ChildSpec::task("two", |stop| async move { stop.stopped().await }));
    exporter.supervise(well).await.unwrap();
    let ended = run(&["status", &url]).await;
    let expected = "2 ok\n\
                    STATE CHILD UP DEATHS 1h/24h LAST DEATH WHY BUDGET\n\
                    OK well (2 children) T – – – 3/3 in T";
    assert_eq!((code(&ended), timeless(&ended.stdout).as_str(), ended.stderr.as_str()), (0, expected, ""));

    let waits = Supervisor::new("waits").max_restarts(9).child(script("api", "echo 'bind: in use' >&2; exit 3"));
    exporter.supervise(waits).await.unwrap();
    deaths(&exporter, "waits", "api", 1).await;
    let ended = run(&["status", &url]).await;
    let expected = "1 restarting, 2 ok\n\
                    STATE CHILD UP DEATHS 1h/24h LAST DEATH WHY BUDGET\n\
                    RESTARTING waits/api in T 1/1 T ago, ran T exit code 3 – bind: in use N/9 in T\n\
                    OK well (2 children) T – – – 3/3 in T";
    let told = timeless(&ended.stdout).replace("8/9", "N/9").replace("9/9", "N/9");
    assert_eq!((code(&ended), told.as_str()), (1, expected));

    let fast =
        Backoff { initial: std::time::Duration::from_millis(1), max: std::time::Duration::from_millis(1), ..once() };
    let dies = ChildSpec::task("dies", |_| async { Err::<(), _>("SMTP \u{1b}[31m421\u{202e}") });
    let loops = Supervisor::new("loops").max_restarts(10_000).child(dies.backoff(fast));
    let gives_up =
        Supervisor::new("gives-up").max_restarts(1).child(ChildSpec::task("worker", |_| async { Err::<(), _>("no") }));
    exporter.supervise(loops).await.unwrap();
    let gives_up = exporter.supervise(gives_up).await.unwrap();
    gives_up.wait().await;
    deaths(&exporter, "loops", "dies", 6).await;
    let ended = run(&["status", &url]).await;
    let lines: Vec<_> = ended.stdout.lines().collect();
    assert_eq!((code(&ended), lines[0]), (1, "2 gave up, 1 looping, 1 restarting, 2 ok"));
    assert!(
        lines[2].starts_with("GAVE UP     gives-up") && lines[2].contains("gave up: more than 1 restart"),
        "{}",
        lines[2]
    );
    assert!(lines[3].starts_with("GAVE UP     gives-up/worker"), "{}", lines[3]);
    // What a terminal would obey is written out.
    assert!(
        lines[4].starts_with("LOOPING     loops/dies") && lines[4].contains(r"SMTP \u{1b}[31m421\u{202e}"),
        "{}",
        lines[4]
    );
    assert_eq!(code(&run(&["status", "well", &url]).await), 0);
    let ended = run(&["status", "nobody", &url]).await;
    assert_eq!((code(&ended), ended.stderr.as_str()), (2, "restart_exporter: no supervisor has the name \"nobody\"\n"));
    exporter.shutdown().await;
}

// What is beyond the limit has no line of its own, so that there is any is said: here and on the page.
#[tokio::test]
async fn supervisors_beyond_the_limit_are_not_passed_over() {
    let (exporter, address) = serving(Exporter::builder().max_supervisors(1)).await;
    for name in ["one", "two", "three"] {
        exporter.supervise(Supervisor::new(name)).await.unwrap();
    }
    let ended = run(&["status", &format!("--url=http://{address}")]).await;
    let last = ended.stdout.lines().last().unwrap();
    assert_eq!(last, "(2 beyond --series.max-supervisors are counted together as _other)");
    let page = crate::world::get(address, "/").await.body;
    let link = "2 supervisors beyond <code>--series.max-supervisors</code> counted together: \
                <a href=\"api/v1/history?supervisor=_other\">";
    assert!(page.contains(link), "{page}");
    assert_eq!(crate::world::get(address, "/api/v1/history?supervisor=_other").await.status, 200);
    exporter.shutdown().await;
}

// Equal deaths in a row are one line; `--raw` shows each event; a mark stands where it was made.
#[tokio::test]
async fn history_tells_equal_deaths_once() {
    let (exporter, _, url) = exporter().await;
    let gives_up =
        Supervisor::new("top").max_restarts(3).child(ChildSpec::task("worker", |_| async { Err::<(), _>("no") }));
    let gives_up = exporter.supervise(gives_up).await.unwrap();
    gives_up.wait().await;
    let ended = run(&["mark", "deploy api v1.8.2", &url]).await;
    assert_eq!((code(&ended), timeless(&ended.stdout).as_str()), (0, "DAY CLOCK deploy api v1.8.2"));
    let expected = "DAY CLOCK ▲ deploy api v1.8.2\n\
                    DAY CLOCK gave up: more than 3 restarts in 5 s; last child \"worker\": error: no, ran T\n\
                    DAY CLOCK worker ended with an error: no, ran T → its supervisor gives up\n\
                    DAY CLOCK worker ×3 ended with an error: no, ran T → runs again after T (first DAY CLOCK)";
    let ended = run(&["history", "top", &url]).await;
    let told = timeless(&ended.stdout);
    assert_eq!((code(&ended), told.as_str()), (0, expected));
    assert_eq!(run(&["history", "top", "--raw", &url]).await.stdout.lines().count(), 9);
    assert_eq!(run(&["history", "top", "--raw", "--limit=2", &url]).await.stdout.lines().count(), 2);
    assert_eq!(run(&["history", "top", "--since=1h", "--child=worker", "--raw", &url]).await.stdout.lines().count(), 7);
    let ended = run(&["history", "nobody", &url]).await;
    assert_eq!((code(&ended), ended.stderr.contains("nobody")), (2, true));
    let ended = run(&["mark", &"x".repeat(300), &url]).await;
    assert_eq!((code(&ended), ended.stderr.contains("300 bytes, and may have 256")), (2, true), "{}", ended.stderr);
    exporter.shutdown().await;
}

// That there was more is said though equal deaths are one line; what was asked for by time is counted exactly.
#[tokio::test]
async fn history_says_what_is_not_kept() {
    let gives_up =
        Supervisor::new("top").max_restarts(5).child(ChildSpec::task("worker", |_| async { Err::<(), _>("no") }));
    let (exporter, address) = serving(Exporter::builder().history_capacity(11)).await;
    exporter.supervise(gives_up.clone()).await.unwrap().wait().await;
    let told = run(&["history", "top", &format!("--url=http://{address}")]).await.stdout;
    assert!(told.ends_with("\n(1 older event is not kept)\n"), "{told}");
    exporter.shutdown().await;
    let (exporter, address) = serving(Exporter::builder().history_capacity(4)).await;
    let url = format!("--url=http://{address}");
    exporter.supervise(gives_up).await.unwrap().wait().await;
    let history =
        async |arguments: &[&str]| timeless(&run(&[&["history", "top", &url], arguments].concat()).await.stdout);
    // Six deaths, five restarts, the end.
    let told = history(&[]).await;
    assert!(told.ends_with("\n(8 older events are not kept)"), "{told}");
    assert!(history(&["--since=1h"]).await.ends_with("\n(8 older events are not kept)"));
    assert!(!history(&["--limit=3"]).await.contains("older"));
    let told = history(&["--child=worker"]).await;
    assert!(told.ends_with("\n(8 older events of top are not kept)"), "{told}");
    until("what happened is over", async || (history(&["--since=0s"]).await == "nothing happened").then_some(())).await;
    exporter.shutdown().await;
}

// One is one: what is counted has the noun that goes with it.
#[tokio::test]
async fn one_of_something_is_not_several() {
    let (exporter, address) = serving(Exporter::builder().max_supervisors(1)).await;
    let url = format!("--url=http://{address}");
    let worker = ChildSpec::task("worker", |_| async { Err::<(), _>("no") });
    let top = Supervisor::new("top").max_restarts(1).max_seconds(3600).child(worker.backoff(once()));
    exporter.supervise(top).await.unwrap();
    exporter.supervise(Supervisor::new("beyond")).await.unwrap();
    deaths(&exporter, "top", "worker", 1).await;
    let told = run(&["why", "top/worker", &url]).await.stdout;
    for part in ["1 death in the last hour, 1 in the last day", "0 of 1 restart left within 3600s"] {
        assert!(told.contains(part), "{told}");
    }
    let told = run(&["status", &url]).await.stdout;
    assert!(told.ends_with("(1 beyond --series.max-supervisors is counted together as _other)\n"), "{told}");
    let page = crate::world::get(address, "/").await.body;
    assert!(page.contains("</strong> of 1 restart left within 3600 s"), "{page}");
    exporter.shutdown().await;
}

// A script gets the data of the API as it is.
#[tokio::test]
async fn json_is_the_data_of_the_api_as_it_is() {
    let (exporter, address, url) = exporter().await;
    let tree = Supervisor::new("top").strategy(Strategy::OneForAll).max_restarts(9).child(script("api", "exit 3"));
    exporter.supervise(tree).await.unwrap();
    deaths(&exporter, "top", "api", 1).await;
    for (arguments, path) in [
        (vec!["history", "top"], "/api/v1/history?supervisor=top"),
        (vec!["why", "api"], "/api/v1/causes?supervisor=top&child=api"),
    ] {
        let ended = run(&[&arguments[..], &["--json", &url]].concat()).await;
        let json: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
        assert_eq!(json, crate::world::get(address, path).await.data(), "{path}");
    }
    let ended = run(&["status", "--json", &url]).await;
    let json: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!((code(&ended), &json[0]["children"][0]["health"]), (1, &serde_json::json!("restarting")));
    // Of one supervisor, if one is named.
    exporter.supervise(Supervisor::new("well")).await.unwrap();
    let ended = run(&["status", "top", "--json", &url]).await;
    assert_eq!(serde_json::from_str::<serde_json::Value>(&ended.stdout).unwrap().as_array().unwrap().len(), 1);
    exporter.shutdown().await;
}

// Completions and manual pages are made from the same table of commands and flags.
#[tokio::test]
async fn completions_and_manual_pages_know_every_command() {
    let bash = run(&["completions", "bash"]).await.stdout;
    let page = run(&["man"]).await.stdout;
    for command in ["run", "demo", "check-config", "status", "why", "history", "tail", "mark", "completions", "man"] {
        assert!(bash.contains(command), "{command}");
        assert!(page.contains(&command.replace('-', "\\-")), "{command} in {page}");
    }
    let page = run(&["man", "why"]).await.stdout;
    assert!(page.contains("restart_exporter\\-why") && page.contains("ca\\-file"), "{page}");
    for shell in ["zsh", "fish", "elvish", "powershell"] {
        assert!(run(&["completions", shell]).await.stdout.contains("restart_exporter"), "{shell}");
    }
    assert_eq!(code(&run(&["man", "nothing"]).await), 1);
}
