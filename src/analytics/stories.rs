//! Equal events in a row, told once: a crash loop is one line, and the odd death in it another. Pure.
//!
//! The page tells what the store has, commands what the API sends, so the events may be of any type; what has to be known of
//! one is [`Told`].

use std::collections::HashSet;

use super::history::{EventType, Fact, HistoryEntry};
use crate::event::RestartCause;

/// Stories that an event may join: so many children may die in turn and still be told in a line each.
const SIDE_BY_SIDE: usize = 8;

/// What an event is in a story.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// A child died, or did not start.
    Death,
    /// It runs again after its own failure.
    Recovery,
    /// Anything else.
    Other,
}

/// What has to be known of an event to tell it. Events of one child that are equal here may be told together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Told<'a, W> {
    /// Whose event it is. One that belongs to no child parts the stories before it from those after it.
    pub child: Option<&'a str>,
    /// What it is.
    pub part: Part,
    /// Whatever else makes it another story.
    pub words: W,
}

/// An event, and the restart after it if it is a death.
#[derive(Debug)]
pub struct Telling<'a, E> {
    /// The event.
    pub event: &'a E,
    /// That the child ran again.
    pub restart: Option<&'a E>,
}

/// What is told in one line.
#[derive(Debug)]
pub struct Story<'a, E> {
    /// The newest event of it.
    pub newest: Telling<'a, E>,
    /// The oldest one, which may be the same.
    pub oldest: &'a E,
    /// How many.
    pub times: u64,
    /// Is it the oldest story of its child? Then events that are older than all that were told may belong to it as well.
    pub is_oldest: bool,
}

// === impl Story ===

impl<'a, E> Story<'a, E> {
    /// An event by itself.
    pub fn of(event: &'a E) -> Self {
        Self::told(Telling { event, restart: None })
    }

    fn told(newest: Telling<'a, E>) -> Self {
        Self { oldest: newest.event, newest, times: 1, is_oldest: false }
    }
}

/// Tells events that are sorted newest first.
pub fn stories<'a, E, W: PartialEq>(events: &'a [E], told: impl Fn(&'a E) -> Told<'a, W>) -> Vec<Story<'a, E>> {
    let mut stories: Vec<(Told<'a, W>, Story<'a, E>)> = Vec::new();
    for event in events {
        let of = told(event);
        let mut restart = None;
        let mut place = newest_of(&stories, of.child);
        // The restart after a death stands before it, because the newest stands first.
        if let Some(waits) = place.filter(|place| of.part == Part::Death && stories[*place].0.part == Part::Recovery) {
            restart = Some((waits, stories.remove(waits).1.newest.event));
            place = newest_of(&stories, of.child);
        }
        let joins = place.filter(|place| of.part != Part::Recovery && stories[*place].0 == of);
        match (joins, restart) {
            (Some(place), _) => {
                let story = &mut stories[place].1;
                story.oldest = event;
                story.times += 1;
            }
            (None, Some((place, restart))) => {
                let newest = Telling { event, restart: Some(restart) };
                stories.insert(place, (of, Story::told(newest)));
            }
            (None, None) => stories.push((of, Story::of(event))),
        }
    }
    let mut children = HashSet::new();
    for (told, story) in stories.iter_mut().rev() {
        story.is_oldest = told.child.is_some_and(|child| children.insert(child));
    }
    stories.into_iter().map(|(_, story)| story).collect()
}

/// Stories that go on side by side are told side by side: where the newest one of the child stands that its next event may
/// join.
fn newest_of<W, E>(stories: &[(Told<'_, W>, Story<'_, E>)], child: Option<&str>) -> Option<usize> {
    let from = stories.len().saturating_sub(SIDE_BY_SIDE);
    let open = stories[from..].iter().rev().take_while(|(told, _)| told.child.is_some());
    let back = open.map(|(told, _)| told.child).position(|of| of == child)?;
    Some(stories.len() - 1 - back)
}

// === impl HistoryEntry ===

impl HistoryEntry {
    /// What a line of the history says of it, but for its times.
    pub fn told(&self) -> Told<'_, impl PartialEq> {
        let (cause, action, counted) = match &self.event.fact {
            Fact::Terminated { decision, .. } => (None, Some(decision.action), None),
            Fact::StartError { decision, .. } => (None, decision.map(|decision| decision.action), None),
            Fact::Restarted { cause, .. } => (Some(*cause), None, None),
            Fact::Aggregated { of, count } => (None, None, Some((*of, *count))),
            Fact::SupervisorTerminated { .. } | Fact::Mark { .. } => (None, None, None),
        };
        let words = (self.event.event_type(), self.event.reason(), cause, action, counted);
        let part = match (self.event.event_type(), cause) {
            (EventType::Terminated | EventType::StartError, _) => Part::Death,
            (_, Some(RestartCause::Failure)) => Part::Recovery,
            _ => Part::Other,
        };
        Told { child: self.event.child.as_ref().map(|child| &*child.id), part, words }
    }
}

#[cfg(test)]
mod tests {
    use super::super::history::{HistoryEvent, Remains};
    use super::*;
    use crate::event::{Aggregated, ReasonClass};

    /// `a!x` is a death of `a` of `x`, `a+` its restart after that, `|` something of nobody.
    fn tell(events: &str) -> String {
        let events: Vec<&str> = events.split(' ').rev().collect();
        let stories = stories(&events, |event| {
            let part = match event.get(1..2) {
                Some("!") => Part::Death,
                Some("+") => Part::Recovery,
                _ => Part::Other,
            };
            Told { child: event.get(..1).filter(|child| *child != "|"), part, words: event.get(2..) }
        });
        let line = |story: &Story<'_, &str>| {
            let oldest = if story.is_oldest { "^" } else { "" };
            let times = if story.times > 1 { format!("{}*", story.times) } else { String::new() };
            format!("{oldest}{times}{}{}", story.newest.event, if story.newest.restart.is_some() { "+" } else { "" })
        };
        stories.iter().rev().map(line).collect::<Vec<_>>().join(" ")
    }

    // Oldest first, as they happened; a loop is one story, and so is each of several that go on at once.
    #[test]
    fn equal_deaths_in_a_row_are_one_story() {
        for (events, expected) in [
            ("a!x a+ a!x a+ a!x a+", "^3*a!x+"),
            ("a!x a+ a!x a+ a!y a+ a!x a+", "^2*a!x+ a!y+ a!x+"),
            ("a!x b!x a!x b!x", "^2*a!x ^2*b!x"),
            ("a!x b!y a+ b+ a!x b!y a+ b+", "^2*a!x+ ^2*b!y+"),
            // The newest death is of the loop, though the child does not run again yet.
            ("a!x a+ a!x a+ a!x", "^3*a!x"),
            // What belongs to no child parts what was before it from what came after it.
            ("a!x a+ | a!x a+", "^a!x+ | a!x+"),
            // A restart whose death is not there is told alone.
            ("b+ a+ a!x a+", "^b+ ^a+ a!x+"),
        ] {
            assert_eq!(tell(events), expected, "{events}");
        }
    }

    // As many restarts as deaths, counted in a node: two things, and not one that happened twice.
    #[test]
    fn what_was_counted_together_is_told_by_what_it_is() {
        let counted = |of| HistoryEntry {
            event: HistoryEvent { id: 1, at: 1, timestamp: 1, child: None, fact: Fact::Aggregated { of, count: 9 } },
            remains: Remains::default(),
        };
        let deaths = Aggregated::Terminated { class: ReasonClass::Killed, shutdown: false, restart: None };
        let restarts = Aggregated::Restarted { cause: RestartCause::Failure };
        let (deaths, again, restarts) = (counted(deaths), counted(deaths), counted(restarts));
        assert!(deaths.told() == again.told() && deaths.told() != restarts.told());
    }

    // Nine children that die in turn are too many to be followed: each of their deaths is told.
    #[test]
    fn only_so_many_stories_go_on_side_by_side() {
        let turns =
            |children: usize| (0..3 * children).map(|turn| format!("{}!x", turn % children)).collect::<Vec<_>>();
        assert_eq!(tell(&turns(SIDE_BY_SIDE).join(" ")).split(' ').count(), SIDE_BY_SIDE);
        assert_eq!(tell(&turns(SIDE_BY_SIDE + 1).join(" ")).split(' ').count(), 3 * (SIDE_BY_SIDE + 1));
    }
}
