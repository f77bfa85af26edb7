//! One supervisor: its children, what they died of, what happened, how often.

use std::time::Duration;

use askama::Template;

use super::snapshot::{Place, is_trouble};
use super::text::{count, duration, line};
use super::view::{Death, Group, Lead, Link, Moment, Run, Said, Scene, Words, href, strategy, supervisor_link};
use super::{Health, MAX_ROWS_ALONE};
use crate::analytics::{Cause, Fact, HistoryEntry, HistoryFilter, Verdict};

/// Windows of the failure rate.
const WINDOWS: [(&str, u64); 4] = [("1 min", 60), ("5 min", 300), ("1 h", 3600), ("24 h", 86_400)];

/// Causes and events that are shown; the links to the JSON have all.
const MAX_CAUSES_SHOWN: usize = 20;
const MAX_EVENTS_SHOWN: usize = 50;

/// Lines of the last words; more are not kept unless the file says so.
const MAX_WORDS: usize = 40;

#[derive(Template)]
#[template(path = "supervisor.html")]
pub(super) struct Detail {
    name: String,
    health: Health,
    /// The one child that is asked for.
    child: Option<String>,
    /// What questions to the API about the same begin with.
    query: String,
    supervisor_query: String,
    above: Option<Link>,
    lead: Option<Lead>,
    strategy: &'static str,
    /// Itself, with all its children.
    groups: [Group; 1],
    end: Option<Death>,
    rates: Vec<Rate>,
    causes: Vec<CauseRow>,
    causes_more: usize,
    events: Vec<EventRow>,
    events_kept: String,
}

struct Rate {
    window: &'static str,
    failures: u64,
    restarts: u64,
    per_minute: String,
    complete: bool,
}

struct CauseRow {
    key: String,
    count: u64,
    child: String,
    death: Death,
    first: Moment,
    last: Moment,
    words: Words,
}

struct EventRow {
    id: u64,
    when: Moment,
    what: &'static str,
    child: String,
    death: Option<Death>,
    more: Vec<String>,
    words: Words,
}

impl Detail {
    pub(super) fn new(scene: &Scene<'_>, place: usize, child: Option<&str>) -> Self {
        let node = &scene.snapshot.supervisors[place];
        let name = &*node.view.supervisor.supervisor;
        let is_meant = |id: &str, label: &str| child.is_none_or(|child| child == id || child == label);
        let filter =
            HistoryFilter { child: child.map(str::to_owned), limit: Some(MAX_EVENTS_SHOWN), ..Default::default() };
        let history = scene.control.restart_history(name, &filter).ok();
        let causes = scene.control.causes(name, child).map(|page| page.causes).unwrap_or_default();
        let worst = (0..node.view.children.len())
            .filter(|index| {
                let view = &node.view.children[*index];
                is_meant(&view.child.id, &view.child.label) && (is_trouble(view.health) || child.is_some())
            })
            .min_by_key(|index| {
                (node.view.children[*index].health, std::cmp::Reverse(node.view.children[*index].deaths_day))
            });
        let rate = |(window, seconds): (&'static str, u64)| {
            let rate = scene.control.failure_rate(name, Duration::from_secs(seconds)).ok()?;
            let per_minute = format!("{:.2}", rate.failures as f64 * 60.0 / seconds as f64);
            Some(Rate { window, failures: rate.failures, restarts: rate.restarts, per_minute, complete: rate.complete })
        };
        let parent = node.view.config.as_ref().and_then(|config| config.parent.as_ref());
        let above = parent.and_then(|parent| scene.snapshot.find(parent));
        Self {
            name: line(name),
            health: node.view.health,
            child: child.map(line),
            query: href(name, child),
            supervisor_query: href(name, None),
            above: above.map(|above| supervisor_link(&scene.snapshot.supervisors[above])),
            lead: worst.map(|child| scene.lead(Place { supervisor: place, child })),
            strategy: strategy(node),
            groups: [scene.group(place, 0, MAX_ROWS_ALONE, |view| is_meant(&view.child.id, &view.child.label))],
            end: node.view.last_end.as_ref().map(|end| scene.death(end)),
            rates: WINDOWS.into_iter().filter_map(rate).collect(),
            causes: causes.iter().take(MAX_CAUSES_SHOWN).map(|cause| cause_row(scene, cause)).collect(),
            causes_more: causes.len().saturating_sub(MAX_CAUSES_SHOWN),
            events_kept: history.as_ref().map_or_else(String::new, |page| {
                format!(
                    "{} of at most {} kept",
                    page.total - page.evicted,
                    count(page.capacity as u64, "event", "events")
                )
            }),
            events: history.iter().flat_map(|page| &page.events).map(|entry| event_row(scene, entry)).collect(),
        }
    }
}

fn cause_row(scene: &Scene<'_>, cause: &Cause) -> CauseRow {
    CauseRow {
        key: cause.fingerprint.map_or_else(|| "other".into(), |fingerprint| format!("{fingerprint:016x}")),
        count: cause.count,
        child: cause.child.as_ref().map_or_else(|| "others".into(), |child| line(child)),
        death: scene.death(&cause.sample),
        first: scene.moment(cause.first),
        last: scene.moment(cause.last),
        words: scene.words(Some(&cause.sample), MAX_WORDS),
    }
}

fn event_row(scene: &Scene<'_>, entry: &HistoryEntry) -> EventRow {
    let (what, has_reason, more) = match &entry.event.fact {
        Fact::Terminated { decision, .. } => ("died", true, decided(decision)),
        Fact::StartError { decision, attempt, .. } => {
            let attempt = (*attempt > 1).then(|| format!("attempt {attempt}"));
            let decided = decision.iter().flat_map(decided);
            ("did not start", true, attempt.into_iter().chain(decided).collect())
        }
        Fact::Restarted { cause, downtime_ms, .. } => {
            let down = downtime_ms.map(|down| format!("after {}", duration(down)));
            ("restarted", false, [Some(cause.as_str().to_owned()), down].into_iter().flatten().collect())
        }
        Fact::SupervisorTerminated { .. } => ("ended", true, Vec::new()),
        Fact::Aggregated { count, .. } => ("counted", false, vec![format!("{count}, in the node, without details")]),
        Fact::Mark { text } => ("mark", false, vec![line(text)]),
    };
    EventRow {
        id: entry.event.id,
        when: scene.moment(entry.event.timestamp),
        what,
        child: entry.event.child.as_ref().map_or_else(String::new, |child| line(&child.id)),
        death: has_reason.then(|| scene.death(entry)),
        more,
        words: scene.words(Some(entry), MAX_WORDS),
    }
}

/// What the supervisor made of a death.
fn decided(verdict: &Verdict) -> Vec<String> {
    let delay = (verdict.delay_ms > 0).then(|| format!("in {}", duration(verdict.delay_ms.into())));
    let left = verdict.restarts_left().map(|left| format!("{left} left"));
    [Some(verdict.action.as_str().replace('_', " ")), delay, left].into_iter().flatten().collect()
}
