//! One supervisor: its children, what they died of, what happened, how often.

use std::time::Duration;

use askama::Template;

use super::super::shapes::in_numbers;
use super::lead::Lead;
use super::snapshot::{Place, is_trouble};
use super::text::{duration, line};
use super::view::{Death, Group, Link, Moment, Run, Said, Scene, Words, href, strategy, supervisor_link};
use super::{Health, MAX_ROWS_ALONE};
use crate::analytics::registry::Name;
use crate::analytics::{Cause, Fact, HistoryEntry, HistoryFilter, HistoryPage, Story, Verdict, stories};
use crate::event::counted;

/// Windows of the failure rate.
const WINDOWS: [(&str, u64); 4] = [("1 min", 60), ("5 min", 300), ("1 h", 3600), ("24 h", 86_400)];

/// Causes that are shown; the link to the JSON has all.
const MAX_CAUSES_SHOWN: usize = 20;

/// Events that are looked at for equal ones in a row, and lines of those that are shown.
const MAX_EVENTS: usize = 1000;
const MAX_STORIES_SHOWN: usize = 50;

/// Events that are shown each by itself; the link to the JSON has all.
const MAX_RAW_SHOWN: usize = 500;

/// Lines of the last words; more are not kept unless the file says so.
const MAX_WORDS: usize = 40;

#[derive(Template)]
#[template(path = "supervisor.html")]
pub(super) struct Detail {
    name: String,
    node: Option<String>,
    health: Health,
    /// The one child that is asked for.
    child: Option<String>,
    /// What questions to the API about the same begin with.
    query: String,
    supervisor_query: String,
    /// Is each event shown by itself?
    is_raw: bool,
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
    events_more: bool,
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
    /// The same for as long as it is the same line, however many events it is of.
    key: String,
    when: Moment,
    /// The oldest of several.
    first: Option<Moment>,
    /// `×12`, and where each of them is shown.
    times: Option<(String, String)>,
    what: &'static str,
    child: String,
    death: Option<Death>,
    /// What it says if it is no death.
    note: String,
    more: Vec<String>,
    words: Words,
}

impl Detail {
    pub(super) fn new(scene: &Scene<'_>, place: usize, child: Option<&str>, is_raw: bool) -> Self {
        let node = &scene.snapshot.supervisors[place];
        let (name, control) = (&node.view.supervisor, scene.control_of(node));
        let is_meant = |id: &str, label: &str| child.is_none_or(|child| child == id || child == label);
        let limit = Some(if is_raw { MAX_RAW_SHOWN } else { MAX_EVENTS });
        let filter = HistoryFilter { child: child.map(str::to_owned), limit, ..Default::default() };
        let history = control.restart_history(&name.supervisor, &filter).ok();
        let (events, events_more) = history.as_ref().map(|page| event_rows(scene, page, is_raw)).unwrap_or_default();
        // What dynamic children die of is known of all of a kind together.
        let mut views = node.view.children.iter();
        let label =
            child.map(|child| views.find(|view| &*view.child.id == child).map_or(child, |view| &view.child.label));
        let causes = control.causes(&name.supervisor, label).map(|page| page.causes).unwrap_or_default();
        let worst = (0..node.view.children.len())
            .filter(|index| {
                let view = &node.view.children[*index];
                is_meant(&view.child.id, &view.child.label) && (is_trouble(view.health) || child.is_some())
            })
            .min_by_key(|index| {
                (node.view.children[*index].health, std::cmp::Reverse(node.view.children[*index].deaths_day))
            });
        let rate = |(window, seconds): (&'static str, u64)| {
            let rate = control.failure_rate(&name.supervisor, Duration::from_secs(seconds)).ok()?;
            let per_minute = format!("{:.2}", rate.failures as f64 * 60.0 / seconds as f64);
            Some(Rate { window, failures: rate.failures, restarts: rate.restarts, per_minute, complete: rate.complete })
        };
        let above = node.above().and_then(|above| scene.snapshot.find(&above.supervisor, above.node.as_deref()));
        Self {
            name: line(&name.supervisor),
            node: name.node.as_deref().map(line),
            health: node.view.health,
            child: child.map(line),
            query: href(name, child),
            supervisor_query: href(name, None),
            is_raw,
            above: above.map(|above| supervisor_link(&scene.snapshot.supervisors[above])),
            lead: worst.map(|child| scene.lead(Place { supervisor: place, child })),
            strategy: strategy(node),
            groups: [scene.group(place, 0, MAX_ROWS_ALONE, |view| is_meant(&view.child.id, &view.child.label))],
            end: node.view.last_end.as_ref().map(|end| scene.death(end)),
            rates: WINDOWS.into_iter().filter_map(rate).collect(),
            causes: causes.iter().take(MAX_CAUSES_SHOWN).map(|cause| cause_row(scene, cause)).collect(),
            causes_more: causes.len().saturating_sub(MAX_CAUSES_SHOWN),
            events_kept: history.as_ref().map_or_else(String::new, |page| {
                let of = child.map_or_else(String::new, |_| format!(" of {}", line(&name.supervisor)));
                let most = counted(page.capacity as u64, "event", "events");
                format!("{} of at most {most}{of} kept", page.total - page.evicted)
            }),
            events,
            events_more,
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

/// The lines of a history, newest first, and whether there are more.
fn event_rows(scene: &Scene<'_>, page: &HistoryPage, is_raw: bool) -> (Vec<EventRow>, bool) {
    if is_raw {
        let rows = page.events.iter().map(|entry| event_row(scene, entry)).collect();
        return (rows, page.events.len() == MAX_RAW_SHOWN);
    }
    let told = stories(&page.events, HistoryEntry::told);
    let has_older = page.evicted > 0 || page.events.len() == MAX_EVENTS;
    let rows = told.iter().take(MAX_STORIES_SHOWN).map(|story| story_row(scene, &page.supervisor, story, has_older));
    (rows.collect(), told.len() > MAX_STORIES_SHOWN || page.events.len() == MAX_EVENTS)
}

fn story_row(scene: &Scene<'_>, supervisor: &Name, story: &Story<'_, HistoryEntry>, has_older: bool) -> EventRow {
    let mut row = event_row(scene, story.newest.event);
    let child = story.oldest.event.child.as_ref().map(|child| &*child.id);
    // The oldest one loses events while it gains others.
    row.key = match child {
        Some(child) if story.is_oldest => format!("oldest of {child}"),
        _ => key(story.oldest),
    };
    if let Some(Fact::Restarted { downtime_ms: Some(down), .. }) = story.newest.restart.map(|entry| &entry.event.fact) {
        row.more.push(format!("up again after {}", duration(*down)));
    }
    if story.times > 1 {
        let least = if story.is_oldest && has_older { "≥ " } else { "" };
        row.times = Some((format!("{least}{}×", story.times), format!("{}&raw=", href(supervisor, child))));
        row.first = Some(scene.moment(story.oldest.event.timestamp));
    }
    row
}

/// Marks have numbers of their own.
fn key(entry: &HistoryEntry) -> String {
    format!("{}{}", entry.event.event_type().as_str(), entry.event.id)
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
        Fact::Aggregated { .. } => ("counted", false, Vec::new()),
        Fact::Mark { .. } => ("mark", false, Vec::new()),
    };
    let note = match &entry.event.fact {
        Fact::Aggregated { of, count } => format!("{}, in the node, without details", in_numbers(of, *count)),
        Fact::Mark { text } => line(text),
        _ => String::new(),
    };
    EventRow {
        key: key(entry),
        first: None,
        times: None,
        when: scene.moment(entry.event.timestamp),
        what,
        child: entry.event.child.as_ref().map_or_else(String::new, |child| line(&child.id)),
        death: has_reason.then(|| scene.death(entry)),
        note,
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
