use super::testing::{Story, *};
use super::*;
use crate::event::{Action, ExitReason, Restart, SupervisorExit};
use crate::event::{Mark, Timestamp};

fn attached(config: AnalyticsConfig) -> (Analytics, Telemetry, Instant) {
    let (analytics, telemetry) = (Analytics::new(config), Telemetry::new());
    analytics.attach(&telemetry).expect("a new bus");
    (analytics, telemetry, monotonic_now())
}

/// A child of the supervisor fails and is restarted.
fn crash(telemetry: &Telemetry, story: &Story, ms: u64) {
    let a = child("a", Restart::Permanent);
    telemetry.execute(&Event::Supervisor(story.at(ms, died(&a, 1, ExitReason::Killed, Action::Restart))));
    telemetry.execute(&Event::Supervisor(story.at(ms, restarted(&a, 2, 1))));
}

fn end(telemetry: &Telemetry, story: &Story, ms: u64) {
    telemetry.execute(&Event::Supervisor(story.at(ms, ended(SupervisorExit::Shutdown))));
}

// The test of the original, without its sleep: kill a child, read the history, read the rate.
#[test]
fn it_tracks_restart_events_via_telemetry() {
    let (analytics, telemetry, begin) = attached(AnalyticsConfig::default());
    crash(&telemetry, &Story::of("workers", begin), 0);
    let history = analytics.restart_history("workers", &HistoryFilter::default()).expect("known");
    assert_eq!((history.capacity, history.total, history.events.len()), (1000, 2, 2));
    assert_eq!(history.events[0].event.event_type(), EventType::Restarted);
    let rate = analytics.failure_rate("workers", Duration::from_secs(10)).expect("known");
    assert_eq!((rate.restarts, rate.rate, rate.failures, rate.complete), (1, 0.1, 1, true));
    assert_eq!(analytics.causes("workers", Some("a")).expect("known").causes[0].count, 1);
    assert_eq!(analytics.supervisors()[0].children.len(), 1);
}

// The original's restart_history of an unknown pid was an empty list, which looks like a healthy supervisor.
#[test]
fn an_unknown_name_is_not_found() {
    let (analytics, _telemetry, _) = attached(AnalyticsConfig::default());
    let not_found = NotFound("nobody".to_owned());
    assert_eq!(analytics.restart_history("nobody", &HistoryFilter::default()), Err(not_found.clone()));
    assert_eq!(analytics.failure_rate("nobody", Duration::ZERO), Err(not_found.clone()));
    assert_eq!(analytics.causes("nobody", None), Err(not_found.clone()));
    assert_eq!(not_found.to_string(), r#"not_found: no supervisor has the name "nobody""#);
}

// A server that is started again need not know whether it was attached; a second server on one bus is an error.
#[test]
fn attaching_is_idempotent_for_its_owner() {
    let (analytics, telemetry, begin) = attached(AnalyticsConfig::default());
    assert_eq!(analytics.clone().attach(&telemetry), Ok(()));
    assert!(Analytics::new(AnalyticsConfig::default()).attach(&telemetry).is_err());
    crash(&telemetry, &Story::of("workers", begin), 0);
    assert_eq!(analytics.all_supervisor_stats().total_restarts, 1);
    assert!(telemetry.list_handlers(&[]).iter().all(|handler| &*handler.id == HANDLER_ID));
}

// Totals of all survive the forgetting of one.
#[test]
fn an_ended_supervisor_is_forgotten_after_the_retention_but_not_its_part_of_the_totals() {
    let config = AnalyticsConfig { retention: Duration::ZERO, ..Default::default() };
    let (analytics, telemetry, begin) = attached(config);
    let (stays, goes) = (Story::of("stays", begin), Story::of("goes", begin));
    crash(&telemetry, &stays, 0);
    crash(&telemetry, &goes, 0);
    assert_eq!(analytics.all_supervisor_stats().total_supervisors, 2);
    end(&telemetry, &goes, 0);
    let stats = analytics.all_supervisor_stats();
    assert_eq!((stats.total_supervisors, stats.total_restarts, stats.total_failures), (1, 2, 2));
    assert_eq!(&*stats.supervisor_stats[0].supervisor.supervisor, "stays");
    assert!(analytics.find("goes").is_none());
}

// A supervisor that itself restarts keeps its history.
#[test]
fn the_next_incarnation_goes_on_with_the_history() {
    let (analytics, telemetry, begin) = attached(AnalyticsConfig::default());
    let first = Story::of("workers", begin);
    crash(&telemetry, &first, 0);
    end(&telemetry, &first, 1);
    crash(&telemetry, &first.next_incarnation(), 2);
    let history = analytics.restart_history("workers", &HistoryFilter::default()).expect("known");
    let ids: Vec<u64> = history.events.iter().map(|entry| entry.event.id).collect();
    assert_eq!(ids, [5, 4, 3, 2, 1]);
}

// Beyond the limit supervisors are counted together; nothing is lost from any total.
#[test]
fn supervisors_beyond_the_limit_share_other() {
    let (analytics, telemetry, begin) = attached(AnalyticsConfig { max_supervisors: 1, ..Default::default() });
    for name in ["a", "b", "c"] {
        crash(&telemetry, &Story::of(name, begin), 0);
    }
    let stats = analytics.all_supervisor_stats();
    let restarts: Vec<(&str, u64)> =
        stats.supervisor_stats.iter().map(|row| (&*row.supervisor.supervisor, row.total_restarts)).collect();
    assert_eq!(restarts, [("a", 1), (registry::OTHER, 2)]);
    assert_eq!((stats.total_supervisors, stats.total_restarts), (3, 3));
    let views = analytics.supervisors();
    assert_eq!(views.len(), 1);
    let died = analytics.died_of(views[0].children[0].reason_fingerprint.expect("it died"));
    let died: Vec<_> = died.iter().map(|(name, cause)| (&*name.supervisor, cause.count)).collect();
    assert_eq!(died, [(registry::OTHER, 2), ("a", 1)]);
    assert!(analytics.restart_history(registry::OTHER, &HistoryFilter::default()).is_ok());
}

// "What changed just before?" A mark stands between the deaths of every supervisor where it was made, and the newest are kept.
#[test]
fn marks_stand_in_every_history_by_their_time() {
    let (analytics, telemetry, begin) = attached(AnalyticsConfig::default());
    let (one, other) = (Story::of("one", begin), Story::of("other", begin));
    let mark = |ms: u64, text: &str| {
        let system = std::time::UNIX_EPOCH + Duration::from_millis(BEGIN_MS + ms);
        let time = Timestamp { monotonic: one.time(ms), system };
        telemetry.execute(&Event::Mark(Mark { time, text: text.parse().expect("a mark") }));
    };
    crash(&telemetry, &one, 10);
    mark(20, "deploy v2");
    crash(&telemetry, &one, 30);
    crash(&telemetry, &other, 40);
    let types = |name: &str, filter: &HistoryFilter| {
        let page = analytics.restart_history(name, filter).expect("known");
        page.events.iter().map(|entry| entry.event.event_type().as_str()).collect::<Vec<_>>()
    };
    let all = HistoryFilter::default();
    assert_eq!(types("one", &all), ["restarted", "terminated", "mark", "restarted", "terminated"]);
    assert_eq!(types("other", &all), ["restarted", "terminated", "mark"]);
    assert_eq!(types("one", &HistoryFilter { limit: Some(3), ..all.clone() }).len(), 3);
    assert_eq!(types("one", &HistoryFilter { event: Some(EventType::Mark), ..all.clone() }), ["mark"]);
    assert_eq!(types("one", &HistoryFilter { child: Some("a".into()), ..all.clone() }).len(), 4);
    for number in 0..MAX_MARKS as u64 {
        mark(50 + number, "another");
    }
    let page = analytics.restart_history("one", &all).expect("known");
    assert_eq!((page.events.len(), page.total), (4 + MAX_MARKS, 4));
    assert_eq!(page.events[0].event.id, MAX_MARKS as u64 + 1);
}

// A temporary child is forgotten with its death, but not what it died of: whoever asks who else dies of the same is told.
#[test]
fn who_died_of_the_same_is_known_though_it_is_gone() {
    let (analytics, telemetry, begin) = attached(AnalyticsConfig::default());
    let (here, there) = (Story::of("here", begin), Story::of("there", begin));
    let (stays, goes) = (child("stays", Restart::Permanent), dynamic("job", Restart::Temporary));
    let tell = |story: &Story, payload| telemetry.execute(&Event::Supervisor(story.at(0, payload)));
    tell(&here, died(&stays, 1, ExitReason::Exit(3), Action::Restart));
    tell(&here, died(&child("other", Restart::Permanent), 2, ExitReason::Exit(4), Action::Restart));
    for number in 3..5 {
        tell(&there, started(&goes, number));
        tell(&there, died(&goes, number, ExitReason::Exit(3), Action::Forget));
    }
    let views = analytics.supervisors();
    assert_eq!(views[1].children.len(), 0);
    let reason = views[0].children[0].reason_fingerprint.expect("it died");
    let died = |reason| {
        let died = analytics.died_of(reason).into_iter();
        let line = |(supervisor, cause): (registry::Name, Cause)| {
            format!("{}/{} {}", supervisor.supervisor, cause.child.unwrap_or_default(), cause.count)
        };
        died.map(line).collect::<Vec<_>>()
    };
    assert_eq!((died(reason), died(0)), (vec!["there/job 2".to_owned(), "here/stays 1".to_owned()], vec![]));
}
