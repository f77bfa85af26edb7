//! `history`: what happened to the children of a supervisor, equal deaths in a row told once.

use restart_exporter::wire::{Event, History};

use super::explain::{brief, decided, what};
use super::http::Client;
use super::screen::{Screen, plain};
use super::times::{clock, lasting};
use super::{Failure, Found, shape};
use crate::cli::HistoryArgs;

/// Lines that are looked at for one that an event may join: so many children may die in turn and still be told in a line
/// each.
const STORIES: usize = 8;

/// Events that are told in one line: a death with the restart after it, and equal ones in a row.
struct Run<'a> {
    /// The newest death, or whatever else it is.
    newest: &'a Event,
    oldest: &'a Event,
    /// The restart that followed the newest death.
    restart: Option<&'a Event>,
    times: u64,
}

pub(super) async fn run(
    client: &Client,
    screen: &mut Screen,
    json: bool,
    args: &HistoryArgs,
) -> Result<Found, Failure> {
    let limit = args.limit.to_string();
    let mut query = vec![("supervisor", args.supervisor.as_str()), ("limit", limit.as_str())];
    if let Some(node) = &args.node {
        query.push(("node", node));
    }
    if let Some(child) = &args.child {
        query.push(("child", child));
    }
    let answer = client.get("history", &query).await?;
    let mut history: History = shape(client, &answer)?;
    let since = args.since.map_or(0, |since| answer.now.saturating_sub(since.as_millis() as u64));
    if json && args.since.is_none() {
        screen.line(client.data(&answer)?);
        return Ok(Found::Fine);
    }
    history.events.retain(|event| event.timestamp >= since);
    if json {
        screen.line(&restart_exporter::wire::json(&history));
        return Ok(Found::Fine);
    }
    let runs = if args.raw { history.events.iter().map(Run::of).collect() } else { collapsed(&history.events) };
    for run in &runs {
        screen.line(&line(run));
    }
    if history.evicted > 0 && runs.len() as u64 + history.evicted >= history.total {
        screen.line(&format!("({} older events are not kept)", history.evicted));
    }
    if runs.is_empty() {
        screen.line("nothing happened");
    }
    Ok(Found::Fine)
}

/// Newest first, as the events are.
fn collapsed(events: &[Event]) -> Vec<Run<'_>> {
    let mut runs: Vec<Run<'_>> = Vec::new();
    let mut restart: Option<&Event> = None;
    for event in events {
        // The restart after a death stands before it, because the newest stands first.
        let is_failure = event.event_type == "restarted" && event.cause.as_deref() == Some("failure");
        if is_failure {
            runs.extend(restart.replace(event).map(Run::of));
            continue;
        }
        let follows = restart.take_if(|restart| restart.child_id == event.child_id && is_death(event));
        runs.extend(restart.take().map(Run::of));
        // Stories that go on side by side are told side by side; a mark or an end of the supervisor parts them.
        let newer = runs.iter_mut().rev().take(STORIES).take_while(|run| run.newest.child_id.is_some());
        match newer.into_iter().find(|run| run.newest.child_id == event.child_id) {
            Some(run) if event.child_id.is_some() && run.is_equal(event, follows) => {
                run.oldest = event;
                run.times += 1;
            }
            _ => runs.push(Run { restart: follows, ..Run::of(event) }),
        }
    }
    runs.extend(restart.map(Run::of));
    runs
}

fn is_death(event: &Event) -> bool {
    event.event_type == "terminated" || event.event_type == "start_error"
}

impl<'a> Run<'a> {
    fn of(event: &'a Event) -> Self {
        Self { newest: event, oldest: event, restart: None, times: 1 }
    }

    /// Would an earlier event be told in the same words?
    fn is_equal(&self, earlier: &Event, restart: Option<&Event>) -> bool {
        let action = |event: &Event| event.decision.as_ref().map(|decision| decision.action.clone());
        self.newest.event_type == earlier.event_type
            && self.newest.child_id == earlier.child_id
            && self.newest.reason == earlier.reason
            && self.newest.cause == earlier.cause
            && action(self.newest) == action(earlier)
            && self.restart.is_some() == restart.is_some()
    }
}

fn line(run: &Run<'_>) -> String {
    let event = run.newest;
    let mut line = clock(event.timestamp);
    if event.event_type == "mark" {
        return format!("{line}  ▲ {}", plain(&what(event)));
    }
    if let Some(child) = &event.child_id {
        line += &format!("  {}", plain(child));
    }
    if run.times > 1 {
        line += &format!("  ×{}", run.times);
    }
    let words = if event.last_output.is_some() && is_death(event) { brief(event) } else { what(event) };
    line += &format!("  {}", plain(&words));
    if let Some(ms) = event.lifetime_ms {
        line += &format!(", ran {}", lasting(ms));
    }
    match (run.restart, &event.decision) {
        (Some(restart), _) => {
            let down = restart.downtime_ms.map(|ms| format!(" after {}", lasting(ms))).unwrap_or_default();
            line += &format!(" → runs again{down}");
        }
        (None, Some(decision)) => line += &format!(" → {}", decided(decision)),
        (None, None) => {}
    }
    if run.times > 1 {
        line += &format!(" (first {})", clock(run.oldest.timestamp));
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
            usage: None,
            text: None,
        }
    }

    // A crash loop is one line, and the odd death in it another.
    #[test]
    fn equal_deaths_in_a_row_are_told_once() {
        let mut events = Vec::new();
        for id in 0..10 {
            events.push(event(2 * id, "terminated", "api", if id == 4 { "odd" } else { "exit code 1" }));
            events.push(event(2 * id + 1, "restarted", "api", ""));
        }
        events.reverse();
        let told: Vec<_> = collapsed(&events).iter().map(|run| (run.times, line(run))).collect();
        assert_eq!(told.iter().map(|(times, _)| *times).collect::<Vec<_>>(), [5, 1, 4]);
        assert_eq!(
            told[0].1,
            "1970-01-01 00:00:18Z  api  ×5  ended with exit code 1, ran 400ms → runs again after 5ms \
             (first 1970-01-01 00:00:10Z)"
        );
        // Two that die in turn are two lines.
        let turns: Vec<_> = (0..20).map(|id| event(20 - id, "terminated", ["a", "b"][id as usize % 2], "x")).collect();
        assert_eq!(collapsed(&turns).iter().map(|run| run.times).collect::<Vec<_>>(), [10, 10]);
        // A restart whose death is not there, and a death that no restart followed yet, are told alone.
        let cut = [events[1].clone(), event(9, "restarted", "other", ""), event(8, "restarted", "api", "")];
        assert_eq!(collapsed(&cut).iter().map(|run| run.times).collect::<Vec<_>>(), [1, 1, 1]);
    }
}
