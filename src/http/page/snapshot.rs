//! What all viewers of the page share: the state of everything at one moment, sorted by trouble.
//!
//! The views of 1,000 supervisors with 10 children each take some milliseconds to gather, so a snapshot is used again as long
//! as nothing has happened since, and otherwise for [`FRESH`].

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::super::live::Live;
use crate::analytics::registry::Name;
use crate::analytics::{ChildView, Health, SupervisorView};
use crate::control::Control;
use crate::telemetry::now;

/// How long a snapshot is shown although something has happened since.
const FRESH: Duration = Duration::from_millis(250);

/// How long a snapshot is shown if nothing has happened since: words change with time alone too.
const STALE: Duration = Duration::from_secs(1);

/// The snapshot that was made last. Clones share it.
#[derive(Clone, Default)]
pub(in crate::http) struct Snapshots(Arc<Mutex<Option<Arc<Snapshot>>>>);

/// Everything at one moment.
pub(super) struct Snapshot {
    made: Instant,
    /// When, in Unix milliseconds.
    pub(super) at: u64,
    /// The number of the newest live event that it surely knows.
    pub(super) newest: u64,
    /// Sorted by name.
    pub(super) supervisors: Vec<Node>,
    /// Supervisors without one above, worst first.
    pub(super) tops: Vec<usize>,
    /// Children in trouble, worst first.
    pub(super) troubles: Vec<Place>,
    /// Children by how they fare, in the order of [`Health::ALL`].
    pub(super) counts: [usize; Health::ALL.len()],
}

/// A supervisor and those below it.
pub(super) struct Node {
    pub(super) view: SupervisorView,
    /// Supervisors right below, worst first.
    pub(super) below: Vec<usize>,
    /// The worst word of it and all below.
    pub(super) worst: Health,
}

/// A child: its supervisor's place among the supervisors, and its own among the children.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) supervisor: usize,
    pub(super) child: usize,
}

// === impl Snapshots ===

impl Snapshots {
    /// A snapshot that is fresh enough.
    pub(super) fn get(&self, control: &Control, live: &Live) -> Arc<Snapshot> {
        // Held while one is made: who comes at the same time wants the same.
        let mut last = self.0.lock();
        let (time, newest) = (now(), live.newest());
        if let Some(snapshot) = &*last {
            let age = time.monotonic.saturating_duration_since(snapshot.made);
            if age < FRESH || (age < STALE && snapshot.newest == newest) {
                return snapshot.clone();
            }
        }
        let at = time.unix_millis();
        let snapshot = Arc::new(Snapshot::new(control.supervisors(), newest, time.monotonic, at));
        *last = Some(snapshot.clone());
        snapshot
    }
}

// === impl Snapshot ===

impl Snapshot {
    fn new(views: Vec<SupervisorView>, newest: u64, made: Instant, at: u64) -> Self {
        let supervisors: Vec<Node> =
            views.into_iter().map(|view| Node { worst: view.health, view, below: Vec::new() }).collect();
        let mut snapshot = Self {
            made,
            at,
            newest,
            supervisors,
            tops: Vec::new(),
            troubles: Vec::new(),
            counts: [0; Health::ALL.len()],
        };
        snapshot.grow();
        snapshot.look_for_trouble();
        snapshot
    }

    /// Puts each supervisor below the one above it.
    fn grow(&mut self) {
        let by_name: HashMap<Name, usize> =
            self.supervisors.iter().enumerate().map(|(place, node)| (node.view.supervisor.clone(), place)).collect();
        let above = |node: &Node| by_name.get(&node.above()?).copied();
        let parents: Vec<Option<usize>> = self.supervisors.iter().map(above).collect();
        // A name is longer than its parent's, so those below come after.
        for place in (0..parents.len()).rev() {
            let Some(parent) = parents[place].filter(|parent| *parent < place) else {
                self.tops.push(place);
                continue;
            };
            self.supervisors[parent].worst = self.supervisors[parent].worst.min(self.supervisors[place].worst);
            self.supervisors[parent].below.push(place);
        }
        let mut tops = std::mem::take(&mut self.tops);
        self.sort(&mut tops);
        self.tops = tops;
        for place in 0..self.supervisors.len() {
            let mut below = std::mem::take(&mut self.supervisors[place].below);
            self.sort(&mut below);
            self.supervisors[place].below = below;
        }
    }

    fn sort(&self, places: &mut [usize]) {
        places.sort_by_key(|place| (self.supervisors[*place].worst, *place));
    }

    fn look_for_trouble(&mut self) {
        for (supervisor, node) in self.supervisors.iter().enumerate() {
            for (child, view) in node.view.children.iter().enumerate() {
                let place = Place { supervisor, child };
                self.counts[view.health as usize] += 1;
                if is_trouble(view.health) {
                    self.troubles.push(place);
                }
            }
        }
        let mut troubles = std::mem::take(&mut self.troubles);
        troubles.sort_by_key(|place| {
            let child = self.child(*place);
            (child.health, std::cmp::Reverse((child.deaths_hour, child.deaths_day)))
        });
        self.troubles = troubles;
    }

    pub(super) fn node(&self, place: Place) -> &Node {
        &self.supervisors[place.supervisor]
    }

    pub(super) fn child(&self, place: Place) -> &ChildView {
        &self.supervisors[place.supervisor].view.children[place.child]
    }

    /// The supervisor with this name on this node. Without a node one of this process goes before one of a node.
    pub(super) fn find(&self, name: &str, node: Option<&str>) -> Option<usize> {
        self.supervisors.iter().position(|one| {
            let of = &one.view.supervisor;
            &*of.supervisor == name && (node.is_none() || of.node.as_deref() == node)
        })
    }
}

// === impl Node ===

impl Node {
    /// What the supervisor above is called. It lives on the same node.
    pub(super) fn above(&self) -> Option<Name> {
        let parent = self.view.config.as_ref()?.parent.clone()?;
        Some(Name { supervisor: parent, node: self.view.supervisor.node.clone() })
    }
}

/// Does somebody have to look at it?
pub(super) fn is_trouble(health: Health) -> bool {
    health.is_trouble()
}
