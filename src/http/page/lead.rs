//! The worst child: all questions of three in the morning, in one card.

use super::super::commands::command;
use super::sentences::{began, change, next, pace, share, up};
use super::snapshot::Place;
use super::text::line;
use super::view::{Budget, Death, Link, Moment, Run, Scene, Spark, Words, budget, href, supervisor_link};
use crate::analytics::registry::{Name, OTHER};
use crate::analytics::{Cause, Health};
use crate::event::counted;

/// Others that died of the same, by name.
const MAX_ALSO: usize = 3;

/// Lines of the last words on the first screen.
const MAX_LEAD_WORDS: usize = 3;

/// The worst child: the eight questions of the first screen.
pub(super) struct Lead {
    pub(super) health: Health,
    pub(super) supervisor: Link,
    pub(super) child: String,
    pub(super) href: String,
    pub(super) spark: Spark,
    /// Since when, and what that means.
    pub(super) since: Option<(Moment, String)>,
    /// What somebody changed just before, and how long before.
    pub(super) changed: Option<(String, String)>,
    pub(super) why: Option<Death>,
    /// How many of its deaths are of that.
    pub(super) share: String,
    pub(super) words: Words,
    pub(super) up: Vec<String>,
    pub(super) run: Run,
    pub(super) also: Vec<Also>,
    pub(super) also_more: usize,
    pub(super) budget: Option<Budget>,
    pub(super) next: Vec<String>,
    pub(super) commands: Vec<String>,
}

/// Somebody who died of the same, and may not be there any more.
pub(super) struct Also {
    pub(super) name: String,
    pub(super) node: Option<String>,
    pub(super) href: String,
    pub(super) deaths: String,
}

// === impl Scene ===

impl Scene<'_> {
    pub(super) fn lead(&self, place: Place) -> Lead {
        let (node, child) = (self.snapshot.node(place), self.snapshot.child(place));
        let Name { supervisor, node: beam } = &node.view.supervisor;
        let (control, id) = (self.control_of(node), &*child.child.id);
        // What dynamic children die of is known of all of a kind together.
        let label = &*child.child.label;
        let causes = control.causes(supervisor, Some(label)).map(|page| page.causes).unwrap_or_default();
        let changed = began(child).and_then(|(at, death)| {
            let changed = control.change_before(supervisor, at).ok()??;
            Some(change(&changed, at, death))
        });
        let typed = |verb, name: &str| command(verb, self.url.as_deref(), beam.as_deref(), name);
        let same = child.reason_fingerprint.map(|reason| control.died_of(reason)).unwrap_or_default();
        let also =
            same.iter().filter(|(name, cause)| *name != node.view.supervisor || cause.child.as_deref() != Some(label));
        let also: Vec<_> = also.collect();
        let run = self.run(child);
        Lead {
            health: child.health,
            supervisor: supervisor_link(node),
            child: line(id),
            href: href(&node.view.supervisor, Some(id)),
            spark: self.spark(node, Some(id)),
            since: match (&child.looping, node.view.silent_since) {
                (Some(looping), _) => Some((self.moment(looping.since), pace(looping))),
                (None, Some(since)) => Some((self.moment(since), "nothing was heard of its node".into())),
                (None, None) => None,
            },
            changed,
            why: child.last_death.as_ref().map(|entry| self.death(entry)),
            share: share(&causes, child.reason_fingerprint, Some(label).filter(|label| *label != id)),
            words: self.words(child.last_death.as_ref(), MAX_LEAD_WORDS),
            up: up(child),
            run,
            also_more: also.len().saturating_sub(MAX_ALSO),
            also: also.into_iter().take(MAX_ALSO).map(|(name, cause)| Also::of(name, cause)).collect(),
            budget: budget(node),
            next: next(node, child),
            commands: [typed("why", &format!("{supervisor}/{id}")), typed("history", supervisor)]
                .into_iter()
                .chain(match child.health {
                    _ if beam.is_some() => None,
                    Health::GaveUp => Some(typed("start", supervisor)),
                    Health::Failed => Some(typed("start", &format!("{supervisor}/{id}"))),
                    _ => None,
                })
                .collect(),
        }
    }
}

// === impl Also ===

impl Also {
    fn of(supervisor: &Name, cause: &Cause) -> Self {
        let child = cause.child.as_deref().unwrap_or_default();
        let href = href(supervisor, cause.child.as_deref());
        // All beyond the limit together are on no page.
        let is_other = &*supervisor.supervisor == OTHER && supervisor.node.is_none();
        Self {
            name: format!("{}/{}", line(&supervisor.supervisor), line(child)),
            node: supervisor.node.as_deref().map(line),
            href: if is_other { format!("api/v1/causes{href}") } else { href },
            deaths: format!("{} of it ever", counted(cause.count, "death", "deaths")),
        }
    }
}
