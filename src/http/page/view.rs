//! From a snapshot to what the templates show: every sentence and number of the page. Pure but for the questions it asks.

use std::time::Duration;

use super::super::shapes::LastOutput;
use super::sentences;
use super::snapshot::{Node, Place, Snapshot};
use super::text::{clock, duration, line};
use crate::analytics::registry::Name;
use crate::analytics::{ChildState, ChildView, Fact, Health, HistoryEntry};
use crate::control::Control;
use crate::event::{ExitReason, Strategy, SupervisorExit, counted};

/// How a word of JSON is said to a person.
pub(super) trait Said {
    /// The word, or the words.
    fn said(&self) -> &'static str;
}

/// What is shown is of this moment, and for whom.
pub(super) struct Scene<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) control: &'a Control,
    pub(super) output: LastOutput,
    /// May requests change something?
    pub(super) admin: bool,
    /// Where a command reaches us; none if it looks there by itself.
    pub(super) url: Option<String>,
}

/// A moment, to be shown as how long ago it was and when.
pub(super) struct Moment {
    pub(super) at: u64,
    pub(super) ago: String,
    pub(super) clock: String,
}

/// A name that leads somewhere.
pub(super) struct Link {
    pub(super) name: String,
    /// The Erlang node it leads to: two may have supervisors of one name.
    pub(super) node: Option<String>,
    pub(super) href: String,
    pub(super) health: Health,
}

/// What a child or supervisor does now.
pub(super) enum Run {
    /// Up since then, in Unix milliseconds, and so long.
    Up(u64, String),
    /// Up since before it was known.
    UpBefore,
    /// Started again then, and so long from now.
    Next(u64, String),
    /// About to be started.
    Starting,
    /// It waits, starts or stops: what is waited for, since when in Unix milliseconds, for how long, and how long it may take.
    Busy { what: String, since: u64, elapsed: String, limit: Option<String> },
    /// Down.
    Down,
    /// Nobody knows.
    Unknown,
}

/// How something ended.
pub(super) struct Death {
    pub(super) when: Moment,
    pub(super) class: &'static str,
    pub(super) text: String,
    /// How long it had run.
    pub(super) ran: Option<String>,
}

/// What a run wrote last.
pub(super) enum Words {
    /// There is nothing.
    None,
    /// Not for who asks.
    Hidden,
    /// Oldest first.
    Lines(Vec<String>),
}

/// A restart budget.
pub(super) struct Budget {
    pub(super) used: u32,
    pub(super) max: u32,
    pub(super) left: u32,
    pub(super) seconds: u32,
    /// How much of it is used, in percent.
    pub(super) percent: u32,
}

impl Budget {
    /// How many it is in all, `1 restart` or `5 restarts`.
    pub(super) fn all(&self) -> String {
        counted(self.max, "restart", "restarts")
    }
}

/// Deaths by the minute.
#[derive(Default)]
pub(super) struct Spark {
    /// Its shape in a box of 120 by 20; empty if nothing died.
    pub(super) path: String,
    pub(super) label: String,
}

/// A supervisor in the table, and some of its children.
pub(super) struct Group {
    pub(super) depth: usize,
    pub(super) link: Link,
    pub(super) strategy: &'static str,
    pub(super) run: Run,
    pub(super) deaths_hour: u64,
    pub(super) deaths_day: u64,
    pub(super) totals: String,
    pub(super) spark: Spark,
    pub(super) budget: Option<Budget>,
    pub(super) actions: Vec<Action>,
    pub(super) rows: Vec<Row>,
    /// Those not listed: `4 ok`.
    pub(super) rest: Vec<String>,
}

/// A child in the table.
pub(super) struct Row {
    /// The same for as long as it is the same child: dynamic ones may share an id, but no run.
    pub(super) key: String,
    pub(super) link: Link,
    pub(super) run: Run,
    pub(super) deaths_hour: u64,
    pub(super) deaths_day: u64,
    pub(super) death: Option<Death>,
    pub(super) actions: Vec<Action>,
}

/// What an operator may do with a child or a supervisor.
pub(super) struct Action {
    /// `restart`, which is the name of the route as well.
    pub(super) verb: &'static str,
    pub(super) query: String,
    pub(super) what: String,
}

// === impl Scene ===

impl Scene<'_> {
    pub(super) fn moment(&self, at: u64) -> Moment {
        let now = self.snapshot.at;
        Moment { at, ago: duration(now.saturating_sub(at)), clock: clock(at, now) }
    }

    pub(super) fn run(&self, child: &ChildView) -> Run {
        let now = self.snapshot.at;
        if let Some(progress) = &child.progress {
            let elapsed = millis(progress.elapsed);
            return Run::Busy {
                what: sentences::progress(child.state, progress),
                since: now.saturating_sub(elapsed),
                elapsed: duration(elapsed),
                limit: progress.limit.map(|limit| duration(millis(limit))),
            };
        }
        match (child.state, child.uptime.map(millis), child.next_try.map(millis)) {
            _ if child.health == Health::Silent => Run::Unknown,
            (ChildState::Running, Some(uptime), _) => Run::Up(now.saturating_sub(uptime), duration(uptime)),
            (ChildState::Restarting, _, Some(wait)) => Run::Next(now + wait, duration(wait)),
            (ChildState::Restarting, _, None) => Run::Starting,
            _ => Run::Down,
        }
    }

    pub(super) fn run_of(&self, node: &Node) -> Run {
        match node.view.uptime.map(millis) {
            _ if !node.view.up => Run::Down,
            _ if node.view.silent_since.is_some() => Run::Unknown,
            Some(uptime) => Run::Up(self.snapshot.at.saturating_sub(uptime), duration(uptime)),
            None => Run::UpBefore,
        }
    }

    pub(super) fn death(&self, entry: &HistoryEntry) -> Death {
        let (class, text) = match &entry.event.fact {
            Fact::SupervisorTerminated { reason, .. } => supervisor_exit(reason),
            _ => entry.event.reason().map_or(("unknown", String::new()), exit),
        };
        let ran = match entry.event.fact {
            Fact::Terminated { lifetime_ms, .. } | Fact::SupervisorTerminated { lifetime_ms, .. } => lifetime_ms.get(),
            _ => None,
        };
        Death { when: self.moment(entry.event.timestamp), class, text: line(&text), ran: ran.map(duration) }
    }

    /// The last lines of what is left of a run.
    pub(super) fn words(&self, entry: Option<&HistoryEntry>, most: usize) -> Words {
        match entry.and_then(|entry| entry.remains.last_output.as_ref()).filter(|lines| !lines.is_empty()) {
            None => Words::None,
            Some(_) if self.output == LastOutput::Hidden => Words::Hidden,
            Some(lines) => {
                Words::Lines(lines.iter().skip(lines.len().saturating_sub(most)).map(|text| line(text)).collect())
            }
        }
    }

    /// Answers questions about this supervisor and not about one of the same name elsewhere.
    pub(super) fn control_of(&self, node: &Node) -> Control {
        self.control.on(node.view.supervisor.node.as_deref())
    }

    pub(super) fn spark(&self, node: &Node, child: Option<&str>) -> Spark {
        spark(&self.control_of(node).deaths_by_minute(&node.view.supervisor.supervisor, child).unwrap_or_default())
    }

    /// A supervisor with those of its children that `wanted` wants, worst first and at most `most`.
    pub(super) fn group(&self, place: usize, depth: usize, most: usize, wanted: impl Fn(&ChildView) -> bool) -> Group {
        let node = &self.snapshot.supervisors[place];
        let view = &node.view;
        let mut children: Vec<usize> =
            (0..view.children.len()).filter(|child| wanted(&view.children[*child])).collect();
        children.sort_by_key(|child| {
            let child = &view.children[*child];
            (child.health, std::cmp::Reverse(child.deaths_day))
        });
        children.truncate(most);
        let mut unlisted = [0_u64; Health::ALL.len()];
        view.children.iter().for_each(|child| unlisted[child.health as usize] += 1);
        children.iter().for_each(|child| unlisted[view.children[*child].health as usize] -= 1);
        let rest = Health::ALL.into_iter().zip(unlisted).filter(|(_, number)| *number > 0);
        let sum = |deaths: fn(&ChildView) -> u64| view.children.iter().map(deaths).sum();
        // Below another one, the last part of the name says it all.
        let mut link = supervisor_link(node);
        if let (1.., Some((_, last))) = (depth, link.name.rsplit_once('/')) {
            (link.name, link.node) = (last.to_owned(), None);
        }
        Group {
            depth,
            link,
            strategy: strategy(node),
            run: self.run_of(node),
            deaths_hour: sum(|child| child.deaths_hour),
            deaths_day: sum(|child| child.deaths_day),
            totals: totals(node),
            spark: self.spark(node, None),
            budget: budget(node),
            actions: if self.admin { supervisor_actions(node) } else { Vec::new() },
            rows: children.iter().map(|child| self.row(Place { supervisor: place, child: *child })).collect(),
            rest: rest.map(|(health, number)| format!("{number} {}", health.said())).collect(),
        }
    }

    fn row(&self, place: Place) -> Row {
        let (node, child) = (self.snapshot.node(place), self.snapshot.child(place));
        let href = href(&node.view.supervisor, Some(&child.child.id));
        Row {
            key: match &child.pid {
                // One of a node stands for all of its kind, whichever of them runs.
                Some(pid) if child.child.dynamic && node.view.supervisor.node.is_none() => format!("{href} {pid}"),
                _ => href.clone(),
            },
            link: Link { name: line(&child.child.id), node: None, href, health: child.health },
            run: self.run(child),
            deaths_hour: child.deaths_hour,
            deaths_day: child.deaths_day,
            death: child.last_death.as_ref().map(|entry| self.death(entry)),
            actions: if self.admin { child_actions(node, child) } else { Vec::new() },
        }
    }
}

// === Words ===

impl Said for Health {
    fn said(&self) -> &'static str {
        match self {
            Health::GaveUp => "gave up",
            other => other.as_str(),
        }
    }
}

pub(super) fn totals(node: &Node) -> String {
    let view = &node.view;
    format!(
        "{}, {}",
        counted(view.total_failures, "failure", "failures"),
        counted(view.total_restarts, "restart", "restarts")
    )
}

pub(super) fn strategy(node: &Node) -> &'static str {
    node.view.config.as_ref().and_then(|config| config.strategy).map_or("", Strategy::as_str)
}

/// Where a supervisor or child is shown.
pub(super) fn href(supervisor: &Name, child: Option<&str>) -> String {
    let mut query = form_urlencoded::Serializer::for_suffix(String::from("?"), 1);
    query.append_pair("supervisor", &supervisor.supervisor);
    if let Some(node) = &supervisor.node {
        query.append_pair("node", node);
    }
    if let Some(child) = child {
        query.append_pair("child", child);
    }
    query.finish()
}

pub(super) fn supervisor_link(node: &Node) -> Link {
    let name = &node.view.supervisor;
    Link {
        name: line(&name.supervisor),
        node: name.node.as_deref().map(line),
        href: href(name, None),
        health: node.view.health,
    }
}

fn exit(reason: &ExitReason) -> (&'static str, String) {
    let class = reason.class().as_str();
    (class, reason.detail().unwrap_or_default())
}

fn supervisor_exit(reason: &SupervisorExit) -> (&'static str, String) {
    (reason.class().as_str(), reason.detail().map(|detail| detail.to_string()).unwrap_or_default())
}

pub(super) fn budget(node: &Node) -> Option<Budget> {
    // What is left of one that is down is left to nobody.
    let config = node.view.config.as_ref().filter(|_| node.view.up)?;
    let (max, seconds) = (config.max_restarts?, config.max_seconds?);
    let left = node.view.restarts_left?;
    let used = max.saturating_sub(left);
    let percent = if max == 0 { 100 } else { (u64::from(used) * 100).div_ceil(max.into()) as u32 };
    Some(Budget { used, max, left, seconds, percent })
}

/// What can be ordered of a supervisor of this process as a whole.
fn supervisor_actions(node: &Node) -> Vec<Action> {
    let name = &node.view.supervisor;
    if name.node.is_some() {
        return Vec::new();
    }
    let verbs: &[_] = if node.view.up { &["restart", "stop"] } else { &["start"] };
    let action = |verb: &&'static str| Action { verb, query: href(name, None), what: line(&name.supervisor) };
    verbs.iter().map(action).collect()
}

/// What can be ordered of a child. One of a node takes no orders of ours, and of a supervisor that is down only the whole.
fn child_actions(node: &Node, child: &ChildView) -> Vec<Action> {
    let Some(supervisor) = Some(&node.view.supervisor).filter(|name| name.node.is_none() && node.view.up) else {
        return Vec::new();
    };
    let what = line(&child.child.id);
    // The children of a dynamic supervisor have no ids to be found by, and none of them is stopped and kept.
    let (verbs, target, what): (&[_], _, _) = match (&child.pid, child.state) {
        (Some(pid), _) if child.child.dynamic => (&["stop"], pid.to_string(), format!("{what} ({pid})")),
        _ if child.child.dynamic => return Vec::new(),
        (_, ChildState::Stopped | ChildState::Failed) => (&["start"], child.child.id.to_string(), what),
        _ => (&["restart", "stop"], child.child.id.to_string(), what),
    };
    let query = href(supervisor, Some(&target));
    verbs.iter().map(|verb| Action { verb, query: query.clone(), what: what.clone() }).collect()
}

fn spark(minutes: &[u32]) -> Spark {
    let most = minutes.iter().copied().max().unwrap_or(0);
    if most == 0 {
        return Spark::default();
    }
    let mut path = String::new();
    for (minute, deaths) in minutes.iter().enumerate().filter(|(_, deaths)| **deaths > 0) {
        // At least two units high, or a single death beside a storm could not be seen.
        let height = (u64::from(*deaths) * 20).div_ceil(u64::from(most)).max(2);
        path += &format!("M{},20v-{height}h1.6v{height}z", minute * 2);
    }
    Spark { path, label: format!("deaths per minute in the last hour, at most {most}") }
}

pub(super) fn millis(duration: Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX)
}
