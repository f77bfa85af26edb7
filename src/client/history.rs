//! `history`: what happened to the children of a supervisor, equal deaths in a row told once.

use restart_exporter::analytics::{Part, Story, Telling, Told, stories};
use restart_exporter::event::counted;
use restart_exporter::wire::{Event, History, Supervisor};

use super::explain::{WITHHELD, brief, decided, what};
use super::http::Client;
use super::screen::{Screen, named};
use super::times::{clock, lasting};
use super::{Failure, Found, shape};
use crate::cli::HistoryArgs;

pub(super) async fn run(
    client: &Client,
    screen: &mut Screen,
    json: bool,
    args: &HistoryArgs,
) -> Result<Found, Failure> {
    let limit = args.limit.to_string();
    let (supervisor, child) = match &args.child {
        Some(child) => (args.supervisor.as_str(), Some(child.as_str())),
        None => meant(client, &args.supervisor).await?,
    };
    let mut query = vec![("supervisor", supervisor), ("limit", limit.as_str())];
    if let Some(node) = &args.node {
        query.push(("node", node));
    }
    if let Some(child) = child {
        query.push(("child", child));
    }
    let answer = client.get("history", &query).await?;
    let mut history: History = shape(client, &answer)?;
    let since = args.since.map_or(0, |since| answer.now.saturating_sub(since.as_millis() as u64));
    if json && args.since.is_none() {
        screen.json(&answer.data);
        return Ok(Found::Fine);
    }
    let told_by_exporter = history.events.len();
    history.events.retain(|event| event.timestamp >= since);
    // What is older than an event that was left out was not asked for.
    let wants_older = history.events.len() == told_by_exporter;
    let has_all_kept = told_by_exporter < args.limit as usize;
    if json {
        screen.json(&restart_exporter::wire::json(&history));
        return Ok(Found::Fine);
    }
    let stories =
        if args.raw { history.events.iter().map(Story::of).collect() } else { stories(&history.events, told) };
    let has_older = wants_older && (history.evicted > 0 || !has_all_kept);
    for story in &stories {
        screen.line(&line(story, has_older));
    }
    if history.evicted > 0 && wants_older && has_all_kept {
        let of = child.map_or_else(String::new, |_| format!(" of {}", history.supervisor));
        let (one, many) = (format!("older event{of} is"), format!("older events{of} are"));
        screen.line(&format!("({} not kept)", counted(history.evicted, &one, &many)));
    }
    if stories.is_empty() {
        screen.line("nothing happened");
    }
    if history.events.iter().any(|event| event.last_output_withheld) {
        screen.line(&format!("({WITHHELD})"));
    }
    // Two nodes may have supervisors of this name.
    if let (None, Some(node)) = (&args.node, history.events.iter().find_map(|event| event.node.as_deref())) {
        screen.line(&format!("(of {})", named(&history.supervisor, None, Some(node))));
    }
    Ok(Found::Fine)
}

/// The supervisor and the child that a name stands for: with a slash in it, it may be that of a nested supervisor too.
async fn meant<'a>(client: &Client, name: &'a str) -> Result<(&'a str, Option<&'a str>), Failure> {
    let Some((above, child)) = name.rsplit_once('/') else { return Ok((name, None)) };
    let supervisors: Vec<Supervisor> = shape(client, &client.get("supervisors", &[]).await?)?;
    let is_child = |one: &Supervisor| one.name == above && one.children.iter().any(|other| other.id == child);
    let is_supervisor = supervisors.iter().any(|one| one.name == name);
    Ok(if !is_supervisor && supervisors.iter().any(is_child) { (above, Some(child)) } else { (name, None) })
}

/// What a line says of an event, but for its times.
fn told(event: &Event) -> Told<'_, impl PartialEq> {
    let action = event.decision.as_ref().map(|decision| &decision.action);
    let part = match (&*event.event_type, event.cause.as_deref()) {
        _ if is_death(event) => Part::Death,
        ("restarted", Some("failure")) => Part::Recovery,
        _ => Part::Other,
    };
    Told { child: event.child_id.as_deref(), part, words: (&event.event_type, &event.reason, &event.cause, action) }
}

fn is_death(event: &Event) -> bool {
    event.event_type == "terminated" || event.event_type == "start_error"
}

/// With events that are older than all that are told.
fn line(story: &Story<'_, Event>, has_older: bool) -> String {
    let Telling { event, restart } = story.newest;
    let mut line = clock(event.timestamp);
    if event.event_type == "mark" {
        return format!("{line}  ▲ {}", what(event));
    }
    if let Some(child) = &event.child_id {
        line += &format!("  {child}");
    }
    if story.times > 1 {
        let least = if story.is_oldest && has_older { "≥" } else { "" };
        line += &format!("  {least}×{}", story.times);
    }
    let words = if event.last_output.is_some() && is_death(event) { brief(event) } else { what(event) };
    line += &format!("  {words}");
    if let Some(ms) = event.lifetime_ms {
        line += &format!(", ran {}", lasting(ms));
    }
    match (restart, &event.decision) {
        (Some(restart), _) => {
            let down = restart.downtime_ms.map(|ms| format!(" after {}", lasting(ms))).unwrap_or_default();
            line += &format!(" → runs again{down}");
        }
        (None, Some(decision)) => line += &format!(" → {}", decided(decision)),
        (None, None) => {}
    }
    if story.times > 1 {
        line += &format!(" (first {})", clock(story.oldest.timestamp));
    }
    line
}

#[cfg(test)]
mod tests {
    use restart_exporter::wire::{Decision, Reason};

    use super::*;

    fn event(id: u64, event_type: &'static str, child: &str, detail: &str) -> Event {
        let is_death = event_type == "terminated";
        Event {
            id,
            timestamp: 1000 * id,
            time: String::new(),
            event_type: event_type.into(),
            supervisor_name: Some("top".into()),
            node: None,
            child_id: Some(child.into()),
            child_pid: None,
            reason: is_death.then(|| Reason { class: "error".into(), detail: Some(detail.into()) }),
            shutdown: None,
            lifetime_ms: is_death.then_some(400),
            downtime_ms: (!is_death).then_some(5),
            cause: (!is_death).then(|| "failure".into()),
            decision: is_death.then(|| Decision {
                action: "restart".into(),
                delay_ms: 0,
                restarts_left: Some(id as u32),
            }),
            last_output: None,
            last_output_withheld: false,
            usage: None,
            text: None,
        }
    }

    // A crash loop is one line that says how often, since when, and how the newest death went on; the odd death in it is another.
    #[test]
    fn equal_deaths_in_a_row_are_told_once() {
        let mut events = Vec::new();
        for id in 0..10 {
            events.push(event(2 * id, "terminated", "api", if id == 4 { "odd" } else { "exit code 1" }));
            events.push(event(2 * id + 1, "restarted", "api", ""));
        }
        events.reverse();
        let told: Vec<_> = stories(&events, told).iter().map(|story| (story.times, line(story, true))).collect();
        assert_eq!(told.iter().map(|(times, _)| *times).collect::<Vec<_>>(), [5, 1, 4]);
        assert_eq!(
            told[0].1,
            "1970-01-01 00:00:18Z  api  ×5  ended with exit code 1, ran 400ms → runs again after 5ms \
             (first 1970-01-01 00:00:10Z)"
        );
        assert!(told[2].1.starts_with("1970-01-01 00:00:06Z  api  ≥×4  "), "{}", told[2].1);
    }
}
