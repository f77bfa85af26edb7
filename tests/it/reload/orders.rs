//! `restart`, `start` and `stop`, by command and by API: of a child and of a supervisor, whatever it does.

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use super::{SLOW, Site, child, sleeper, supervisor};
use crate::world::{Ended, is_alive, sample, until};

fn kill(pid: u32) {
    kill_process(Pid::from_raw(pid as i32).unwrap(), Signal::KILL).unwrap();
}

fn outcome(ended: &Ended) -> (Option<i32>, &str, &str) {
    (ended.status.code(), ended.stdout.trim_end(), ended.stderr.trim_end())
}

impl Site {
    /// How often a child was restarted because somebody wanted so.
    async fn requested(&self, supervisor: &str, child: &str) -> f64 {
        let series = format!(
            "supervisor_child_restarts_total{{supervisor=\"{supervisor}\",child=\"{child}\",cause=\"requested\"}}"
        );
        sample(&self.metrics().await, &series).unwrap_or(0.0)
    }

    /// The reason of the last end of a supervisor.
    async fn ended(&self, supervisor: &str, class: &str) {
        until(&format!("{supervisor} ended with {class}"), async || {
            let end = self.supervisor(supervisor).await["last_end"]["reason"]["class"].take();
            (end == class).then_some(())
        })
        .await;
    }
}

// A child that runs is stopped and started; its siblings are not concerned, whatever the strategy. It costs no budget.
#[tokio::test]
async fn a_running_child_is_restarted_alone() {
    let file =
        supervisor("a", "strategy = \"one_for_all\"\nmax_restarts = 0") + &sleeper("x", 71001) + &sleeper("y", 71002);
    let site = Site::ready(&file).await;
    let (x, y) = (site.pid("71001"), site.pid("71002"));
    let ended = site.ask(&["restart", "a/x"]);
    let new = site.pid("71001");
    assert_eq!(outcome(&ended), (Some(0), format!("a/x restarted as {new}").as_str(), ""));
    assert_ne!(new, x);
    assert!(!is_alive(x.into()));
    assert_eq!(site.pid("71002"), y);
    // The same by the API, under both names, and by the child's id alone.
    for (round, path) in
        ["restart?supervisor=a&child=x", "restart_child?supervisor=a&child=x", "restart?supervisor=a/x"]
            .into_iter()
            .enumerate()
    {
        let answer = site.exporter.post(&format!("/api/v1/{path}")).await.data();
        assert_eq!(answer["child_pid"], site.pid("71001").to_string(), "{path}");
        assert_eq!(site.requested("a", "x").await, round as f64 + 2.0);
    }
    assert_eq!(site.ask(&["restart", "y"]).status.code(), Some(0));
    assert_ne!(site.pid("71002"), y);
    // To start what runs changes nothing.
    let y = site.pid("71002");
    assert_eq!(outcome(&site.ask(&["start", "a/y"])), (Some(0), format!("a/y runs as {y}").as_str(), ""));
    assert_eq!(site.pid("71002"), y);
    assert_eq!(site.supervisor("a").await["restarts_left"], 0);
    site.is_well().await;
}

// A child that waits for its restart is started now; one that is stopped is started, and stays stopped until then, also over
// a reload.
#[tokio::test]
async fn a_child_that_is_down_is_started_now() {
    let file = |shutdown: u32| {
        supervisor("a", "")
            + &child("x", "[\"sleep\", \"72001\"]", &format!("{SLOW}\nshutdown = \"{shutdown}s\""))
            + &sleeper("y", 72002)
    };
    let site = Site::ready(&file(5)).await;
    for (round, verb) in ["restart", "start"].into_iter().enumerate() {
        kill(site.pid("72001"));
        site.child_is("a/x", "restarting").await;
        site.is_in_trouble("a/x").await;
        let ended = site.ask(&[verb, "a/x"]);
        assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
        assert_eq!(site.pids("72001").len(), 1);
        assert_eq!(site.requested("a", "x").await, 2.0 * round as f64 + 1.0);
        site.is_well().await;

        let ended = site.ask(&["stop", "a/x"]);
        assert_eq!(outcome(&ended), (Some(0), "a/x stopped", ""));
        assert_eq!((site.pids("72001").len(), &site.child("a/x").await["state"]), (0, &json!("stopped")));
        site.is_well().await;
        // To stop it once more is no error.
        assert_eq!(site.ask(&["stop", "a/x"]).status.code(), Some(0));
        site.write(&file(6 + round as u32));
        assert_eq!(site.reload().await.status, 200);
        assert_eq!(site.pids("72001").len(), 0);
        assert_eq!(site.ask(&[verb, "a/x"]).status.code(), Some(0));
        assert_eq!(site.pids("72001").len(), 1);
    }
    // A stop while it waits cancels the wait.
    kill(site.pid("72001"));
    site.child_is("a/x", "restarting").await;
    assert_eq!(site.ask(&["stop", "a/x"]).status.code(), Some(0));
    assert_eq!(site.child("a/x").await["state"], "stopped");
    site.is_well().await;
}

// A child that is being started can be stopped, and so can one that waits behind it; and both can be started then.
#[tokio::test]
async fn a_child_that_starts_or_waits_takes_orders() {
    let stuck = child(
        "stuck",
        "[\"sleep\", \"73001\"]",
        "ready = { exec = [\"test\", \"-e\", \"DIR/go\"], interval = \"10ms\", timeout = \"1h\" }",
    );
    let file = supervisor("a", "") + &stuck + &sleeper("next", 73002) + &sleeper("last", 73003);
    let site = Site::start(&file).await;
    site.child_is("a/stuck", "starting").await;
    site.child_is("a/next", "waiting").await;
    // Who waits need not wait if somebody wants it now.
    let ended = site.ask(&["start", "a/next"]);
    assert_eq!(outcome(&ended), (Some(0), format!("a/next runs as {}", site.pid("73002")).as_str(), ""));
    site.child_is("a/last", "waiting").await;
    assert_eq!(site.ask(&["stop", "a/last"]).status.code(), Some(0));
    site.child_is("a/last", "stopped").await;
    assert_eq!(site.ask(&["stop", "a/stuck"]).status.code(), Some(0));
    assert_eq!((site.pids("73001").len(), &site.child("a/stuck").await["state"]), (0, &json!("stopped")));
    site.is_well().await;
    assert_eq!(site.pids("73003").len(), 0, "it was stopped before its turn came");
    std::fs::write(site.path("go"), "").unwrap();
    for (id, seconds) in [("a/last", "73003"), ("a/stuck", "73001")] {
        assert_eq!(site.ask(&["restart", id]).status.code(), Some(0));
        assert_eq!(site.pids(seconds).len(), 1);
    }
    site.is_well().await;
}

// A supervisor that gave up is started again with all its children and a fresh budget; each counts as requested. Its
// children alone take no orders before.
#[tokio::test]
async fn a_supervisor_that_gave_up_is_started_again_as_a_whole() {
    let below = supervisor("below", "parent = \"a\"") + &sleeper("z", 74003);
    let file = supervisor("a", "max_restarts = 1\nmax_seconds = 3600")
        + &child("x", "[\"sleep\", \"74001\"]", "backoff = \"none\"")
        + &sleeper("y", 74002)
        + &below
        + &supervisor("other", "")
        + &sleeper("o", 74004);
    let site = Site::ready(&file).await;
    let other = site.pid("74004");
    for (round, verb) in ["restart", "start"].into_iter().enumerate() {
        for restarts in [1, 2] {
            let pid = site.pid("74001");
            kill(pid);
            if restarts == 1 {
                until("another run", async || site.pids("74001").first().filter(|new| **new != pid).copied()).await;
            }
        }
        site.ended("a", "max_intensity").await;
        until("a is down", async || (site.supervisor("a").await["up"] == false).then_some(())).await;
        let up: Vec<_> = site.sleeps().into_iter().map(|sleep| sleep.pid).collect();
        assert_eq!(up, [other]);
        site.is_in_trouble("a").await;
        let ended = site.ask(&["restart", "a/x"]);
        assert_eq!(ended.status.code(), Some(2));
        assert!(ended.stderr.contains("\"a\" does not run; start it first"), "{}", ended.stderr);
        let answer = site.exporter.post("/api/v1/stop?supervisor=a&child=y").await;
        assert_eq!((answer.status, &answer.json()["errorType"]), (409, &json!("conflict")), "{}", answer.body);

        let ended = site.ask(&[verb, "a"]);
        assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
        assert_eq!(site.sleeps().len(), 4);
        assert_eq!(site.supervisor("a").await["restarts_left"], 1);
        // The one below has no restart of its own: it is new, with its children.
        for id in ["x", "y", "below"] {
            assert_eq!(site.requested("a", id).await, round as f64 + 1.0, "{id}");
        }
        site.is_well().await;
    }
    assert_eq!(site.pid("74004"), other);
}

// A top supervisor that runs is restarted, stopped and started as a whole; one that was stopped stays so over a reload.
#[tokio::test]
async fn a_running_supervisor_takes_orders_as_a_whole() {
    let file = |restarts: u32| {
        supervisor("a", &format!("max_restarts = {restarts}")) + &sleeper("x", 75001) + &sleeper("y", 75002)
    };
    let site = Site::ready(&(file(3) + &supervisor("other", "") + &sleeper("o", 75003))).await;
    let before = site.sleeps();
    let ended = site.ask(&["restart", "a"]);
    assert!(
        outcome(&ended).0 == Some(0) && ended.stdout.starts_with("a restarted as "),
        "{}{}",
        ended.stdout,
        ended.stderr
    );
    let after = site.sleeps();
    assert_eq!(after.len(), 3);
    assert!(
        before[..2].iter().all(|sleep| !after.contains(sleep)) && after.contains(&before[2]),
        "{before:?} {after:?}"
    );
    assert_eq!((site.requested("a", "x").await, site.requested("a", "y").await), (1.0, 1.0));
    // One that runs is not started.
    assert!(site.ask(&["start", "a"]).stdout.starts_with("a runs as "));
    assert_eq!(site.sleeps(), after);

    assert_eq!(outcome(&site.ask(&["stop", "a"])), (Some(0), "a stopped", ""));
    assert_eq!(site.sleeps(), after[2..]);
    site.is_well().await;
    site.write(&(file(4) + &supervisor("other", "") + &sleeper("o", 75003)));
    assert_eq!(site.reload().await.status, 200);
    assert_eq!(site.sleeps(), after[2..]);
    assert_eq!(site.ask(&["start", "a"]).status.code(), Some(0));
    assert_eq!((site.sleeps().len(), &site.supervisor("a").await["max_restarts"]), (3, &json!(4)));
    site.is_well().await;
}

// The same of a supervisor below another: it is a child of it, and its own children have a path of their own.
#[tokio::test]
async fn a_nested_supervisor_takes_orders() {
    let file = supervisor("a", "strategy = \"one_for_all\"\nmax_restarts = 0")
        + &sleeper("x", 76001)
        + &supervisor("b", "parent = \"a\"")
        + &sleeper("y", 76002)
        + &supervisor("c", "parent = \"b\"")
        + &sleeper("z", 76003);
    let site = Site::ready(&file).await;
    let x = site.pid("76001");
    for target in ["a/b", "a/b/c"] {
        let (y, z) = (site.pid("76002"), site.pid("76003"));
        let ended = site.ask(&["restart", target]);
        assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
        assert_eq!((site.pid("76001"), site.pid("76002") == y), (x, target == "a/b/c"));
        assert_ne!(site.pid("76003"), z);
        let (above, id) = target.rsplit_once('/').unwrap();
        assert_eq!(site.requested(above, id).await, 1.0);

        assert_eq!(outcome(&site.ask(&["stop", target])), (Some(0), format!("{target} stopped").as_str(), ""));
        assert_eq!((site.pid("76001"), site.pids("76003").len()), (x, 0));
        site.is_well().await;
        // What is below one that does not run cannot be started alone.
        let ended = site.ask(&["start", "a/b/c/z"]);
        assert!(
            ended.status.code() == Some(2) && ended.stderr.contains("does not run; start it first"),
            "{}",
            ended.stderr
        );
        assert_eq!(site.ask(&["start", target]).status.code(), Some(0));
        assert_eq!((site.pid("76001"), site.pids("76002").len(), site.pids("76003").len()), (x, 1, 1));
        site.is_well().await;
    }
    assert_eq!(site.ask(&["restart", "a/b/c/z"]).status.code(), Some(0));
    assert_eq!(site.requested("a/b/c", "z").await, 1.0);
}

// A supervisor whose children cannot all start is started all the same: the answer comes at once, and does not wait for a
// child that is tried again in an hour.
#[tokio::test]
async fn an_order_does_not_wait_for_a_child_that_failed() {
    let ready = format!("{SLOW}\nready = {{ stable_after = \"50ms\" }}");
    let file = supervisor("a", "max_restarts = 1000")
        + &supervisor("b", "parent = \"a\"\nmax_restarts = 1000")
        + &child("bad", "[\"false\"]", &ready)
        + &sleeper("z", 77001);
    let site = Site::start(&file).await;
    site.child_is("a/b/bad", "restarting").await;
    site.child_is("a/b/z", "waiting").await;
    for target in ["a/b", "a"] {
        let ended = site.ask(&["restart", target]);
        assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
        site.child_is("a/b/bad", "restarting").await;
        site.is_in_trouble("a/b/bad").await;
    }
    // The child itself: its failure is the answer.
    let ended = site.ask(&["restart", "a/b/bad"]);
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.stderr.contains("exit code 1"), "{}", ended.stderr);
    // Who waits for it is started when it is stopped.
    assert_eq!(site.ask(&["stop", "bad"]).status.code(), Some(0));
    site.child_is("a/b/z", "running").await;
    assert_eq!(site.pids("77001").len(), 1);
    site.is_ready().await;
    site.is_well().await;
}

// While the start that an order began still takes its time, another order or a reload ends it.
#[tokio::test]
async fn a_long_start_can_be_ended_by_another_order() {
    let stuck = child(
        "stuck",
        "[\"sleep\", \"78001\"]",
        "ready = { exec = [\"test\", \"-e\", \"DIR/go\"], interval = \"10ms\", timeout = \"1h\" }",
    );
    let site = Site::start(&(supervisor("a", "") + &stuck)).await;
    let first = until("the first run", async || site.pids("78001").first().copied()).await;
    let (begun, ()) = tokio::join!(site.exporter.post("/api/v1/restart?supervisor=a"), async {
        until("another run", async || site.pids("78001").first().filter(|pid| **pid != first).copied()).await;
        assert_eq!(site.exporter.post("/api/v1/stop?supervisor=a").await.status, 200);
    });
    assert_eq!((begun.status, &begun.json()["errorType"]), (422, &json!("execution")), "{}", begun.body);
    assert!(begun.body.contains("told to stop"), "{}", begun.body);
    assert_eq!(site.sleeps(), []);
    site.is_well().await;
    let (begun, done) = tokio::join!(site.exporter.post("/api/v1/start?supervisor=a"), async {
        site.child_is("a/stuck", "starting").await;
        site.write(&(supervisor("a", "") + &sleeper("stuck", 78002)));
        site.reload().await.data()
    });
    assert_eq!((begun.status, &done["changed"]), (200, &json!(["a/stuck"])), "{}", begun.body);
    assert_eq!(site.pids("78002").len(), 1);
}

// Orders and reloads at the same time never leave two copies of anything, nor one that nobody wants.
#[tokio::test]
async fn orders_and_reloads_at_once_leave_what_the_file_says() {
    let one = supervisor("a", "")
        + &child("x", "[\"flock\", \"-n\", \"DIR/lock\", \"sleep\", \"79001\"]", "ready = { stable_after = \"20ms\" }");
    let two = supervisor("b", "") + &one["[[supervisor]]\nname = \"a\"\n\n".len()..];
    let site = Site::ready(&one).await;
    for round in 0..10 {
        site.write(if round % 2 == 0 { &two } else { &one });
        let (gone, new) = if round % 2 == 0 { ("a", "b") } else { ("b", "a") };
        let path = format!("/api/v1/restart?supervisor={gone}");
        let (reloaded, one, two) = tokio::join!(site.reload(), site.exporter.post(&path), site.exporter.post(&path));
        assert_eq!(reloaded.status, 200, "{}", reloaded.body);
        // An order that came first was carried out, and one that came later finds nobody.
        for answer in [one, two] {
            assert!([200, 404, 422].contains(&answer.status), "{}", answer.body);
        }
        site.child_is(&format!("{new}/x"), "running").await;
        assert_eq!(site.pids("79001").len(), 1, "{:?}", site.sleeps());
        assert_ne!(site.supervisor(gone).await["up"], true);
    }
    site.is_well().await;
}

// An unknown target is not found, and the answer has the nearest names; a name that several have is refused.
#[tokio::test]
async fn an_unknown_target_is_not_found() {
    let file = supervisor("payments", "")
        + &sleeper("api", 80001)
        + &sleeper("store", 80002)
        + &supervisor("web", "")
        + &sleeper("api", 80003);
    let site = Site::ready(&file).await;
    for verb in ["restart", "start", "stop"] {
        for (target, near) in [("payments/apy", "payments/api"), ("paymnts", "payments"), ("stoer", "payments/store")] {
            let ended = site.ask(&[verb, target]);
            assert_eq!((ended.status.code(), ended.stdout.as_str()), (Some(2), ""), "{verb} {target}");
            let said = &ended.stderr;
            assert!(
                said.contains(target) && said.contains(near) && said.lines().count() == 1,
                "{verb} {target}: {said}"
            );
        }
        let ended = site.ask(&[verb, "api"]);
        assert_eq!(ended.status.code(), Some(2));
        assert!(ended.stderr.contains("payments/api, web/api"), "{}", ended.stderr);
        let path = format!("/api/v1/{verb}?supervisor=payments&child=apy");
        let answer = site.exporter.post(&path).await;
        let body = answer.json();
        assert_eq!((answer.status, &body["errorType"]), (404, &json!("not_found")), "{body}");
        assert!(body["error"].as_str().unwrap().contains("payments/api"), "{body}");
        assert_eq!(site.exporter.post(&format!("/api/v1/{verb}?child=api")).await.status, 400);
    }
    assert_eq!(site.sleeps().len(), 3);
    site.is_well().await;
}

// Without an answer it is exit status 2, as for questions.
#[tokio::test]
async fn an_order_without_an_answer_is_exit_status_2() {
    let site = Site::ready(&(supervisor("a", "") + &sleeper("x", 81001))).await;
    site.exporter.signal(Signal::STOP);
    let url = format!("--url=http://{}", site.exporter.address);
    let ended = crate::world::run_to_end(&["restart", "a/x", &url, "--timeout=100ms"]);
    site.exporter.signal(Signal::CONT);
    assert_eq!((ended.status.code(), ended.stdout.as_str()), (Some(2), ""), "{}", ended.stderr);
    assert!(ended.stderr.contains("no answer within 100ms"), "{}", ended.stderr);
}

// An order goes on when nobody waits for it: half a restart would be a stop.
#[tokio::test]
async fn an_order_that_nobody_waits_for_is_done_all_the_same() {
    let slow = "trap 'sleep 1; exit 0' TERM; echo up; while :; do sleep 0.05; done";
    let site = Site::ready(&(supervisor("a", "") + &child("x", &format!("\"{slow}\""), "shell = true"))).await;
    let before = site.child("a/x").await["pid"].clone();
    let url = format!("--url=http://{}", site.exporter.address);
    let ended = crate::world::run_to_end(&["restart", "a", &url, "--timeout=200ms"]);
    assert_eq!(ended.status.code(), Some(2));
    assert!(ended.stderr.contains("no answer within 200ms; what was ordered goes on"), "{}", ended.stderr);
    until("another run", async || {
        let child = site.child("a/x").await;
        (child["state"] == "running" && child["pid"] != before).then_some(())
    })
    .await;
}

// Orders and reloads cost no budget, also where the start fails: only what a supervisor does by itself is counted.
#[tokio::test]
async fn orders_and_reloads_that_cannot_start_a_child_cost_no_budget() {
    let dead = format!("{SLOW}\nready = {{ exec = [\"false\"], timeout = \"50ms\" }}");
    let file = supervisor("a", "max_restarts = 1\nmax_seconds = 3600")
        + &sleeper("well", 83001)
        + &child("dead", "[\"sleep\", \"83002\"]", &dead);
    let site = Site::start(&file).await;
    site.child_is("a/dead", "restarting").await;
    let well = site.pid("83001");
    for _ in 0..3 {
        let ended = site.ask(&["restart", "a/dead"]);
        assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
        assert_eq!(site.reload().await.status, 422);
    }
    let supervisor = site.supervisor("a").await;
    assert_eq!((&supervisor["up"], &supervisor["restarts_left"]), (&json!(true), &json!(0)), "{supervisor}");
    assert_eq!(site.pid("83001"), well);
}

// What gave up can be stopped: then it is no trouble, and a reload leaves it alone until somebody starts it.
#[tokio::test]
async fn a_supervisor_that_gave_up_can_be_stopped() {
    let file = supervisor("a", "max_restarts = 0")
        + &child("x", "\"exit 1\"", "shell = true")
        + &supervisor("b", "")
        + &sleeper("y", 84001);
    let site = Site::start(&file).await;
    site.ended("a", "max_intensity").await;
    site.is_in_trouble("a").await;
    assert_eq!(outcome(&site.ask(&["stop", "a"])), (Some(0), "a stopped", ""));
    site.is_well().await;
    assert_eq!(site.reload().await.status, 200);
    site.is_well().await;
    assert_eq!(site.supervisor("a").await["up"], false);
    assert_eq!(site.ask(&["start", "a"]).status.code(), Some(0));
    site.ended("a", "max_intensity").await;
    site.is_in_trouble("a").await;
}

// While the exporter stops, nothing is started any more: it would be ended at once, and not in order.
#[tokio::test]
async fn orders_that_start_something_are_refused_while_the_exporter_stops() {
    let stubborn = "trap '' TERM; echo up; while :; do sleep 0.05; done";
    let file = supervisor("a", "")
        + &sleeper("x", 85001)
        + &supervisor("b", "")
        + &child("y", &format!("\"{stubborn}\""), "shell = true\nshutdown = \"4s\"");
    let site = Site::ready(&file).await;
    site.exporter.signal(Signal::TERM);
    site.child_is("b/y", "stopping").await;
    for target in ["a", "a/x"] {
        for verb in ["restart", "start"] {
            let ended = site.ask(&[verb, target]);
            assert_eq!(ended.status.code(), Some(2), "{verb} {target}");
            assert!(ended.stderr.contains("starts nothing any more"), "{}", ended.stderr);
        }
    }
    site.write(&(file + &supervisor("c", "") + &sleeper("z", 85003)));
    let answer = site.reload().await;
    assert_eq!(answer.status, 422, "{}", answer.body);
    assert!(answer.body.contains("starts nothing any more"), "{}", answer.body);
    assert_eq!(site.pids("85003").len(), 0);
}

// The name of a child works for its history as for every other question.
#[tokio::test]
async fn the_history_of_a_child_is_found_by_its_full_name() {
    let file = supervisor("a", "") + &child("x", "\"exit 3\"", &format!("shell = true\n{SLOW}")) + &sleeper("y", 86001);
    let site = Site::start(&file).await;
    site.child_is("a/x", "restarting").await;
    let ended = site.ask(&["history", "a/x"]);
    assert_eq!(ended.stdout, site.ask(&["history", "a", "--child=x"]).stdout);
    assert!(ended.stdout.contains("exit code 3"), "{}{}", ended.stdout, ended.stderr);
}
