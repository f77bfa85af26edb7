//! The sentences of the page. Pure.

use std::time::Duration;

use super::snapshot::{Node, is_trouble};
use super::text::{duration, line};
use super::view::{Budget, budget, millis};
use crate::analytics::{Cause, ChildProgress, ChildState, ChildView, Fact, Health, HistoryEvent, Looping};
use crate::event::{Strategy, counted};

/// How many deaths, and how quickly one after the other.
pub(super) fn pace(looping: &Looping) -> String {
    let deaths = counted(looping.deaths, "death", "deaths");
    match millis(looping.lasting).checked_div(looping.deaths) {
        Some(every) => format!("{deaths}, one every {}", duration(every)),
        None => deaths,
    }
}

/// `213 of its 214 deaths`; of a dynamic child `213 of the 214 deaths of all job`, which is its label.
pub(super) fn share(causes: &[Cause], reason: Option<u64>, label: Option<&str>) -> String {
    let all: u64 = causes.iter().map(|cause| cause.count).sum();
    let same: u64 = causes.iter().filter(|cause| cause.reason_fingerprint == reason).map(|cause| cause.count).sum();
    match (same, all, label) {
        (0, ..) => String::new(),
        (1, 1, None) => "its only death".into(),
        (same, all, None) if same == all => format!("all of its {all} deaths"),
        (same, all, None) => format!("{same} of its {all} deaths"),
        (same, all, Some(label)) => {
            format!("{same} of the {} of all {}", counted(all, "death", "deaths"), line(label))
        }
    }
}

/// When the child began to die, in monotonic nanoseconds, and with which death: the first of its loop, or else the last.
pub(super) fn began(child: &ChildView) -> Option<(u64, &'static str)> {
    match (&child.looping, &child.last_death) {
        (Some(looping), _) => Some((looping.began_at, "the first death")),
        (None, death) => death.as_ref().map(|death| (death.event.at, "its last death")),
    }
}

/// What somebody changed, and how long that was before a death.
pub(super) fn change(changed: &HistoryEvent, at: u64, death: &str) -> (String, String) {
    let what = match (&changed.fact, &changed.child) {
        (Fact::Mark { text }, _) => format!("mark “{}”", line(text)),
        (_, Some(child)) => format!("{} was restarted on request", line(&child.id)),
        (_, None) => "restarted on request".into(),
    };
    let before = Duration::from_nanos(at.saturating_sub(changed.at));
    (what, format!("{} before {death}", duration(millis(before))))
}

/// What a child that waits, starts or stops is waiting for.
pub(super) fn progress(state: ChildState, progress: &ChildProgress) -> String {
    match (state, &progress.waits_for) {
        (ChildState::Waiting, Some(first)) => format!("waiting for {} to start", line(first)),
        (ChildState::Waiting, None) => "waiting for its turn".into(),
        (ChildState::Stopping, _) => "stopping".into(),
        (_, Some(what)) => format!("starting: waiting for {}", line(what)),
        (_, None) => "starting".into(),
    }
}

/// Is it up in between?
pub(super) fn up(child: &ChildView) -> Vec<String> {
    let Some(looping) = &child.looping else { return Vec::new() };
    let (up, lasting) = (millis(looping.up), millis(looping.lasting).max(1));
    vec![format!("{} % of that time", (up.saturating_mul(100) / lasting).min(100))]
}

/// What happens next.
pub(super) fn next(node: &Node, child: &ChildView) -> Vec<String> {
    let name = line(&node.view.supervisor.supervisor);
    let above = match node.view.config.as_ref().and_then(|config| config.parent.as_ref()) {
        Some(parent) => format!("That counts as a failure under {}.", line(parent)),
        None => "No supervisor is above it.".into(),
    };
    let siblings = node.view.children.len().saturating_sub(1) as u64;
    match child.health {
        Health::GaveUp => {
            return vec![format!(
                "Nothing: {name} gave up, and all its children are down until {name} is started. {above}"
            )];
        }
        Health::Failed => return vec!["Nothing: it stays down until an operator starts it.".into()],
        Health::Silent => return vec!["Nobody knows: its node is not heard. What stands here was known last.".into()],
        _ => {}
    }
    let mut sentences = Vec::new();
    match node.view.config.as_ref().and_then(|config| config.strategy) {
        Some(Strategy::OneForAll) if siblings > 0 => {
            sentences.push(format!("Each death restarts {} as well.", counted(siblings, "sibling", "siblings")));
        }
        Some(Strategy::RestForOne) if siblings > 0 => {
            sentences.push("Each death restarts those after it as well.".into())
        }
        _ => {}
    }
    if node.view.config.as_ref().and_then(|config| config.budget_can_run_out) == Some(false) {
        sentences.push(format!("{name} never gives up: the backoffs are too long to use up its restart budget."));
        return sentences;
    }
    let Some(Budget { left, max, seconds, .. }) = budget(node) else { return sentences };
    sentences.push(match left {
        0 => format!("With the next death within {seconds} s {name} gives up and stops all its children. {above}"),
        left => {
            let more = if left == 1 { "One more death is".to_owned() } else { format!("{left} more deaths are") };
            format!("{more} restarted; with another one within {seconds} s {name} gives up. {above}")
        }
    });
    let every = child.looping.and_then(|looping| millis(looping.lasting).checked_div(looping.deaths.saturating_sub(1)));
    // The budget is for all children of the supervisor: what one of them needs says something only if it is alone in trouble.
    let alone = node.view.children.iter().filter(|other| is_trouble(other.health)).count() == 1;
    if let Some(every) = every.filter(|_| alone)
        && u64::from(seconds) * 1000 / every.max(1) <= u64::from(max)
    {
        sentences.push("At this pace the budget is never spent: it can go on for ever.".into());
    }
    sentences
}
