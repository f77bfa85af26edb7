//! Why, a thousand times: equal deaths are one cause, and the odd one stays in sight.

use super::{Tree, child, patient};
use crate::world::until;

// 1,655 equal deaths and an odd one in their middle: both causes are readable, their counts are exact and agree with the
// metrics; the history stays within its bounds, and the last words of the newest deaths are there.
#[tokio::test]
async fn after_1655_equal_deaths_the_odd_one_is_still_readable() {
    let script = r#"
        read n < n; n=$((n + 1)); echo $n > n
        case $n in
            800) echo "fatal: the disk is full" >&2; exit 7;;
            1657) exec sleep 600;;
            *) echo "error: cannot reach 10.0.0.$n:8$n after $n ms" >&2; exit 1;;
        esac"#;
    let text = patient(&[child("c", script, "output = \"off\"")]);
    let tree = Tree::start_with(&text, |directory| std::fs::write(directory.join("n"), "0\n").unwrap()).await;
    until("the last run", async || tree.read("n").filter(|n| n == "1657\n")).await;
    until("the last restart is told", async || {
        (tree.child("c").await["restarts"] == 1656 && tree.child("c").await["state"] == "running").then_some(())
    })
    .await;

    let causes = tree.data("/api/v1/causes?supervisor=a").await;
    let [many, odd] = &causes["causes"].as_array().unwrap()[..] else { panic!("{causes}") };
    assert_eq!((&many["count"], &odd["count"]), (&1655.into(), &1.into()));
    assert_eq!(many["sample"]["last_output"][0], "error: cannot reach 10.0.0.1656:81656 after 1656 ms");
    assert_eq!(odd["sample"]["last_output"][0], "fatal: the disk is full");
    assert_eq!(
        (&many["sample"]["reason"]["class"], &odd["sample"]["reason"]["class"]),
        (&"error".into(), &"error".into())
    );
    assert!(odd["sample"]["reason"]["detail"].as_str().unwrap().contains('7'), "{odd}");
    assert!(odd["last"].as_u64() < many["last"].as_u64(), "the odd one came before the last of the others: {causes}");

    let metrics = tree.metrics().await;
    let terminations = metrics.lines().filter(|line| line.starts_with("supervisor_child_terminations_total{"));
    let sum: f64 = terminations.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum();
    assert_eq!(sum, 1656.0, "{metrics}");

    let history = tree.data("/api/v1/history?supervisor=a&limit=100000").await;
    let events = history["events"].as_array().unwrap();
    assert_eq!((&history["capacity"], events.len()), (&1000.into(), 1000));
    assert_eq!((&history["total"], &history["evicted"]), (&3312.into(), &2312.into()));
    assert_eq!(events[0]["event_type"], "restarted");
    assert_eq!(events[1]["last_output"][0], "error: cannot reach 10.0.0.1656:81656 after 1656 ms");
    let kept = events.iter().filter(|event| event["last_output"].is_array()).count();
    assert!((1..=33).contains(&kept), "{kept} deaths have last words");
    tree.stops_well().await;
}
