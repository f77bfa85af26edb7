//! Random files, programs that break and are mended, orders and kills against a model of what a reload is: never two copies
//! of a child, never a lost one, what runs is what the file after the last good reload says, what did not change keeps its
//! process, and `status`, `/-/ready` and the API agree with it.
//!
//! The programs hold a lock each, so that a copy of one that runs is noticed and written down. Children wait an hour before
//! they come back by themselves: what happens, happens because of a step.
//!
//! A failure prints the seed and the steps. `RESTART_EXPORTER_RELOAD_SEQUENCES=100` runs more sequences than the few that
//! run by default, and `RESTART_EXPORTER_RELOAD_SEED=7` runs only this one.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{Site, Sleep};
use crate::world::{Response, until};

/// Sequences that run by default, and the steps of each.
const SEQUENCES: u64 = 16;
const STEPS: usize = 15;

/// Children and supervisors that there can be.
const CHILDREN: u32 = 7;
const SUPERVISORS: u32 = 5;

/// Deaths of a child from which on it may count as looping.
const LOOP_DEATHS: u32 = 6;

// === A random number, the same for the same seed ===

struct Random(u64);

impl Random {
    /// SplitMix64.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }

    fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    fn pick<'a, T>(&mut self, all: &'a [T]) -> Option<&'a T> {
        if all.is_empty() { None } else { all.get(self.below(all.len())) }
    }
}

// === The file ===

/// A child as the file has it. Its number is its id, its lock and its program.
#[derive(Clone, Debug, PartialEq)]
struct ChildTable {
    number: u32,
    /// An argument of its command.
    version: u32,
    /// Has it a `ready`?
    ready: bool,
    /// Something that is taken over in place.
    shutdown: u32,
}

#[derive(Clone, Debug, PartialEq)]
struct SupervisorTable {
    number: u32,
    parent: Option<u32>,
    /// Either so many that it never gives up, or 0; only a top one may have 0, because a parent restarts at once.
    max_restarts: u32,
    children: Vec<ChildTable>,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct File(Vec<SupervisorTable>);

impl File {
    fn text(&self, directory: &Path) -> String {
        let directory = directory.display();
        let mut text = String::new();
        for table in &self.0 {
            let parent = table.parent.map_or_else(String::new, |parent| format!("parent = \"s{parent}\"\n"));
            let (number, restarts) = (table.number, table.max_restarts);
            write!(text, "[[supervisor]]\nname = \"s{number}\"\n{parent}max_restarts = {restarts}\n").unwrap();
            for ChildTable { number, version, ready, shutdown } in &table.children {
                write!(
                    text,
                    "[[supervisor.child]]\nid = \"c{number}\"\ncommand = [\"{directory}/c{number}\", \"{number}\", \"{version}\"]\n\
                     cwd = \"{directory}\"\nshutdown = \"{shutdown}s\"\n\
                     backoff = {{ initial = \"1h\", max = \"1h\", jitter = 0 }}\n"
                )
                .unwrap();
                if *ready {
                    text.push_str("ready = { stable_after = \"30ms\" }\n");
                }
            }
        }
        text
    }

    fn children(&self) -> impl Iterator<Item = &ChildTable> {
        self.0.iter().flat_map(|table| &table.children)
    }

    /// Something else, by one random edit; the same if this edit cannot be done.
    fn edited(&self, random: &mut Random) -> (String, File) {
        let mut file = self.clone();
        let done = file.edit(random);
        (done, file)
    }

    fn edit(&mut self, random: &mut Random) -> String {
        let used: BTreeSet<u32> = self.children().map(|child| child.number).collect();
        let names: BTreeSet<u32> = self.0.iter().map(|table| table.number).collect();
        let free: Vec<u32> = (0..CHILDREN).filter(|number| !used.contains(number)).collect();
        let free_names: Vec<u32> = (0..SUPERVISORS).filter(|number| !names.contains(number)).collect();
        let all: Vec<(usize, usize)> = self
            .0
            .iter()
            .enumerate()
            .flat_map(|(at, table)| (0..table.children.len()).map(move |child| (at, child)))
            .collect();
        let child = random.pick(&all).copied();
        let to = random.below(self.0.len());
        match (random.below(16), child) {
            (0 | 1, _) if !free.is_empty() => {
                let number = free[random.below(free.len())];
                let new = ChildTable { number, version: 0, ready: random.one_in(3), shutdown: 5 };
                let at = random.below(self.0[to].children.len() + 1);
                self.0[to].children.insert(at, new);
                format!("add c{number} to s{}", self.0[to].number)
            }
            (2, Some((at, child))) => format!("remove c{}", self.0[at].children.remove(child).number),
            (3..=5, Some((at, child))) => {
                let moved = self.0[at].children.remove(child);
                let place = random.below(self.0[to].children.len() + 1);
                let number = moved.number;
                self.0[to].children.insert(place, moved);
                format!("move c{number} to s{}", self.0[to].number)
            }
            (6, Some((at, child))) if !free.is_empty() => {
                let number = free[random.below(free.len())];
                let old = std::mem::replace(&mut self.0[at].children[child].number, number);
                format!("rename c{old} to c{number}")
            }
            (7, Some((at, _))) => {
                self.0[at].children.reverse();
                format!("reorder s{}", self.0[at].number)
            }
            (8, Some((at, child))) => {
                let child = &mut self.0[at].children[child];
                child.version += 1;
                format!("another command of c{}", child.number)
            }
            (9, Some((at, child))) => {
                let child = &mut self.0[at].children[child];
                child.shutdown += 1;
                format!("another shutdown of c{}", child.number)
            }
            (10, Some((at, child))) => {
                let child = &mut self.0[at].children[child];
                child.ready = !child.ready;
                format!("ready of c{} is {}", child.number, child.ready)
            }
            (11, _) => {
                let table = &mut self.0[to];
                table.max_restarts = match table.max_restarts {
                    1000 if table.parent.is_none() && random.one_in(2) => 0,
                    1000 => 1001,
                    _ => 1000,
                };
                format!("max_restarts of s{} is {}", table.number, table.max_restarts)
            }
            (12, _) if !free_names.is_empty() => {
                let number = free_names[random.below(free_names.len())];
                let parent = self.tops_but(number, random);
                let place = random.below(self.0.len() + 1);
                self.0.insert(place, SupervisorTable { number, parent, max_restarts: 1000, children: Vec::new() });
                // An empty one would be dull.
                if let Some((at, child)) = child {
                    let at = if at >= place { at + 1 } else { at };
                    let moved = self.0[at].children.remove(child);
                    self.0[place].children.push(moved);
                }
                format!("add s{number} below {parent:?} with {:?}", self.0[place].children.first())
            }
            (13, _) if self.0.len() > 1 => {
                let gone = self.0[to].number;
                self.0.retain(|table| table.number != gone && table.parent != Some(gone));
                if self.0.is_empty() {
                    let table =
                        SupervisorTable { number: gone, parent: None, max_restarts: 1000, children: Vec::new() };
                    self.0.push(table);
                }
                format!("remove s{gone}")
            }
            (14, _) if !free_names.is_empty() => {
                let (old, number) = (self.0[to].number, free_names[random.below(free_names.len())]);
                for table in &mut self.0 {
                    table.number = if table.number == old { number } else { table.number };
                    table.parent = table.parent.map(|parent| if parent == old { number } else { parent });
                }
                format!("rename s{old} to s{number}")
            }
            (15, _) => {
                let number = self.0[to].number;
                if self.0.iter().any(|table| table.parent == Some(number)) {
                    self.0.reverse();
                    return "reverse the file".into();
                }
                let parent = if self.0[to].parent.is_some() { None } else { self.tops_but(number, random) };
                self.0[to].parent = parent;
                if parent.is_some() {
                    self.0[to].max_restarts = 1000;
                }
                format!("s{number} is below {parent:?}")
            }
            _ => "nothing".into(),
        }
    }

    /// A top supervisor other than this one, or none.
    fn tops_but(&self, number: u32, random: &mut Random) -> Option<u32> {
        let tops: Vec<u32> = self
            .0
            .iter()
            .filter(|table| table.parent.is_none() && table.number != number)
            .map(|table| table.number)
            .collect();
        if random.one_in(3) { None } else { random.pick(&tops).copied() }
    }
}

// === The programs ===

#[derive(Clone, Copy, Debug, PartialEq)]
enum Program {
    Works,
    /// It ends at once with a status.
    Exits,
    /// It is there, but cannot be run.
    NoInterpreter,
    /// It is not there: a file that names it is wrong.
    Missing,
}

const SCRIPTS: [(&str, &str); 3] = [
    (
        "works",
        "#!/bin/sh\nexec 9>> \"lock.$1\"\nflock -n 9 || echo \"$1\" >> overlaps\nexec sleep 90000 \"$1\" \"$2\"\n",
    ),
    ("exits", "#!/bin/sh\nexit 3\n"),
    ("no-interpreter", "#!/no/such\n"),
];

fn prepare(directory: &Path) {
    for (name, text) in SCRIPTS {
        let path = directory.join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    (0..CHILDREN).for_each(|number| set_program(directory, number, Program::Works));
}

/// A link is exchanged, because a program that is written to cannot be run.
fn set_program(directory: &Path, number: u32, program: Program) {
    let link = directory.join(format!("c{number}"));
    let target = match program {
        Program::Works => "works",
        Program::Exits => "exits",
        Program::NoInterpreter => "no-interpreter",
        Program::Missing => return std::fs::remove_file(link).unwrap(),
    };
    let next = directory.join("next");
    symlink(target, &next).unwrap();
    std::fs::rename(next, link).unwrap();
}

// === The model ===

/// What a child does.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Life {
    /// It runs. Its process is known once it was looked at.
    Up(Option<u32>),
    /// It is to be started when its turn comes.
    Pending,
    /// It ran, died, and waits for an hour.
    Died,
    /// It did not start, and waits for an hour. In the line others wait for it.
    NotStarted { in_line: bool },
    /// An operator stopped it.
    Stopped,
    /// Its supervisor is down.
    Down,
}

#[derive(Clone, Debug)]
struct Child {
    table: ChildTable,
    life: Life,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    /// Its turn to be started has not come.
    Pending,
    Up {
        /// Have all its children had their turn once?
        started: bool,
    },
    GaveUp,
    Stopped,
}

#[derive(Clone, Debug)]
struct Node {
    number: u32,
    path: String,
    max_restarts: u32,
    state: State,
    children: Vec<Child>,
    below: Vec<Node>,
}

/// What the answer of a reload or an order has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Expected {
    All,
    /// A child that starts and ends at once may have ended before it was looked at.
    Either,
    Partial,
}

struct Model {
    tops: Vec<Node>,
    programs: BTreeMap<u32, Program>,
    /// Deaths by full name, over all that ever had it.
    deaths: BTreeMap<String, u32>,
    expected: Expected,
}

impl Node {
    fn new(table: &SupervisorTable, above: &str, file: &File) -> Node {
        let path = format!("{above}s{}", table.number);
        let child = |table: &ChildTable| Child { table: table.clone(), life: Life::Pending };
        let below = file.0.iter().filter(|other| other.parent == Some(table.number));
        Node {
            number: table.number,
            max_restarts: table.max_restarts,
            state: State::Pending,
            children: table.children.iter().map(child).collect(),
            below: below.map(|other| Node::new(other, &format!("{path}/"), file)).collect(),
            path,
        }
    }

    /// Takes this node's table over from the wanted one. `touched` are those that a reload is to start.
    fn renew(&mut self, wanted: Node, touched: &mut BTreeSet<String>) {
        self.max_restarts = wanted.max_restarts;
        let is_up = matches!(self.state, State::Up { .. });
        let mut old = std::mem::take(&mut self.children);
        for Child { table, .. } in wanted.children {
            let name = format!("{}/c{}", self.path, table.number);
            let at = old.iter().position(|child| child.table.number == table.number);
            let life = match at.map(|at| old.swap_remove(at)) {
                _ if self.state == State::Pending => Life::Pending,
                _ if !is_up => Life::Down,
                None => Life::Pending,
                Some(Child { table: before, life }) => {
                    let (command, ready) = (before.version != table.version, before.ready != table.ready);
                    match life {
                        Life::Stopped | Life::Down => life,
                        // Its turn comes anyway, and is waited for by the reload that began it.
                        Life::Pending => {
                            self.children.push(Child { table, life });
                            continue;
                        }
                        _ if command => Life::Pending,
                        Life::Up(_) => life,
                        Life::NotStarted { .. } => Life::Pending,
                        Life::Died if ready => Life::Pending,
                        Life::Died => life,
                    }
                }
            };
            if life == Life::Pending && is_up {
                touched.insert(name);
            }
            self.children.push(Child { table, life });
        }
        let mut old = std::mem::take(&mut self.below);
        for wanted in wanted.below {
            let at = old.iter().position(|node| node.number == wanted.number);
            match at.map(|at| old.swap_remove(at)) {
                Some(mut node) => {
                    node.renew(wanted, touched);
                    self.below.push(node);
                }
                None => {
                    if is_up {
                        wanted.all_names(touched);
                    }
                    self.below.push(wanted);
                }
            }
        }
        if !is_up && self.state != State::Pending {
            self.goes_down(self.state);
        }
    }

    fn all_names(&self, names: &mut BTreeSet<String>) {
        names.extend(self.children.iter().map(|child| format!("{}/c{}", self.path, child.table.number)));
        self.below.iter().for_each(|node| node.all_names(names));
    }

    fn goes_down(&mut self, state: State) {
        self.state = state;
        self.children.iter_mut().for_each(|child| child.life = Life::Down);
        // Those below are started with it, whatever they did.
        self.below.iter_mut().for_each(|node| node.goes_down(State::Stopped));
    }

    /// It is to be started anew, with all below it.
    fn begins(&mut self) {
        self.state = State::Pending;
        self.children.iter_mut().for_each(|child| child.life = Life::Pending);
        self.below.iter_mut().for_each(Node::begins);
    }

    /// Is anything in it not as it should be?
    fn is_in_trouble(&self) -> bool {
        let down = |child: &Child| matches!(child.life, Life::Pending | Life::Died | Life::NotStarted { .. });
        match self.state {
            State::GaveUp | State::Pending => true,
            State::Stopped => false,
            State::Up { .. } => self.children.iter().any(down) || self.below.iter().any(Node::is_in_trouble),
        }
    }

    fn each<'a>(&'a self, visit: &mut impl FnMut(&'a Node)) {
        visit(self);
        self.below.iter().for_each(|node| node.each(visit));
    }

    fn each_mut(&mut self, visit: &mut impl FnMut(&mut Node)) {
        visit(self);
        self.below.iter_mut().for_each(|node| node.each_mut(visit));
    }
}

impl Model {
    fn new() -> Self {
        let programs = (0..CHILDREN).map(|number| (number, Program::Works)).collect();
        Self { tops: Vec::new(), programs, deaths: BTreeMap::new(), expected: Expected::All }
    }

    /// A reload. False if the file is refused.
    fn reload(&mut self, file: &File) -> bool {
        if file.children().any(|child| self.programs[&child.number] == Program::Missing) {
            return false;
        }
        let mut touched = BTreeSet::new();
        let mut old = std::mem::take(&mut self.tops);
        for table in file.0.iter().filter(|table| table.parent.is_none()) {
            let wanted = Node::new(table, "", file);
            let at = old.iter().position(|node| node.number == wanted.number);
            match at.map(|at| old.swap_remove(at)) {
                Some(mut node) if node.state != State::GaveUp => {
                    node.renew(wanted, &mut touched);
                    self.tops.push(node);
                }
                _ => {
                    wanted.all_names(&mut touched);
                    self.tops.push(wanted);
                }
            }
        }
        self.advance(&touched);
        true
    }

    /// Starts all whose turn has come. `touched` are those whose failure is in the answer.
    fn advance(&mut self, touched: &BTreeSet<String>) {
        self.expected = Expected::All;
        let mut tops = std::mem::take(&mut self.tops);
        for node in &mut tops {
            if !self.run_line(node, touched) {
                node.goes_down(State::GaveUp);
            }
        }
        for node in &tops {
            node.each(&mut |node| {
                for child in &node.children {
                    let name = format!("{}/c{}", node.path, child.table.number);
                    if touched.contains(&name) && matches!(child.life, Life::Pending | Life::NotStarted { .. }) {
                        self.expected = Expected::Partial;
                    }
                }
            });
        }
        self.tops = tops;
    }

    /// False if it gives up.
    fn run_line(&mut self, node: &mut Node, touched: &BTreeSet<String>) -> bool {
        if node.state == State::Pending {
            node.state = State::Up { started: false };
        }
        let State::Up { started } = node.state else { return true };
        let mut blocked = false;
        for at in 0..node.children.len() {
            match node.children[at].life {
                Life::Pending if !blocked => {
                    if !self.start(node, at, touched) {
                        return false;
                    }
                    let child = &mut node.children[at];
                    if let Life::NotStarted { in_line } = &mut child.life {
                        *in_line = child.table.ready;
                        blocked = child.table.ready;
                    }
                }
                Life::NotStarted { in_line: true } => blocked = true,
                _ => {}
            }
        }
        for below in &mut node.below {
            if below.state == State::Pending && blocked {
                continue;
            }
            // One with children never gives up.
            assert!(self.run_line(below, touched), "{below:?}");
            if let State::Up { started: false } = below.state {
                blocked = true;
            }
        }
        node.state = State::Up { started: started || !blocked };
        true
    }

    /// Starts a child now. False if its supervisor gives up on it.
    fn start(&mut self, node: &mut Node, at: usize, touched: &BTreeSet<String>) -> bool {
        let Child { table, life } = &mut node.children[at];
        let name = format!("{}/c{}", node.path, table.number);
        *life = match self.programs[&table.number] {
            Program::Works => Life::Up(None),
            Program::Exits if !table.ready => Life::Died,
            Program::Exits | Program::NoInterpreter | Program::Missing => Life::NotStarted { in_line: false },
        };
        if let Life::Up(_) = life {
            return true;
        }
        if touched.contains(&name) {
            let answer = if *life == Life::Died { Expected::Either } else { Expected::Partial };
            self.expected = self.expected.max(answer);
        }
        *self.deaths.entry(name).or_default() += 1;
        node.max_restarts > 0
    }

    /// The top supervisor and the child with this number.
    fn top_of(&mut self, number: u32) -> Option<(usize, Life)> {
        let mut found = None;
        for (at, top) in self.tops.iter().enumerate() {
            top.each(&mut |node| {
                let child = node.children.iter().find(|child| child.table.number == number);
                found = found.or(child.map(|child| (at, child.life)));
            });
        }
        found
    }

    /// Lets something happen to a child, and starts what waits no longer. Returns what comes of it; false is giving up.
    fn with_child(&mut self, number: u32, act: impl FnOnce(&mut Model, &mut Node, usize) -> bool) {
        self.expected = Expected::All;
        let Some((top, _)) = self.top_of(number) else { return };
        let mut node = self.tops.remove(top);
        let (mut act, mut goes_on) = (Some(act), true);
        node.each_mut(&mut |node| {
            let at = node.children.iter().position(|child| child.table.number == number);
            if let (Some(at), Some(act)) = (at, at.and_then(|_| act.take())) {
                goes_on = act(self, node, at);
            }
        });
        let expected = self.expected;
        if !goes_on || !self.run_line(&mut node, &BTreeSet::new()) {
            node.goes_down(State::GaveUp);
        }
        self.expected = expected;
        self.tops.insert(top, node);
    }

    /// What it says about readiness; none if it does not know.
    fn is_ready(&self) -> Option<bool> {
        if self.tops.iter().any(Node::is_in_trouble) {
            return Some(false);
        }
        let may_loop = self.deaths.values().any(|deaths| *deaths >= LOOP_DEATHS);
        (!may_loop).then_some(true)
    }

    /// What runs: number and version.
    fn running(&self) -> Vec<(u32, u32)> {
        let mut running = Vec::new();
        for top in &self.tops {
            top.each(&mut |node| {
                let up = node.children.iter().filter(|child| matches!(child.life, Life::Up(_)));
                running.extend(up.map(|child| (child.table.number, child.table.version)));
            });
        }
        running.sort_unstable();
        running
    }
}

// === The exporter, driven alike ===

#[derive(Clone, Debug)]
enum Step {
    Reload(How),
    Break(u32, Program),
    Kill(u32),
    Restart(u32),
    Start(u32),
    Stop(u32),
    RestartTop(u32),
    StopTop(u32),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum How {
    Post,
    /// Twice at the same time.
    Twice,
    Hangup,
}

/// Prints what led to a failure.
struct Story {
    seed: u64,
    told: Vec<String>,
}

impl Drop for Story {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("RESTART_EXPORTER_RELOAD_SEED={}\n{}", self.seed, self.told.join("\n"));
        }
    }
}

struct Real {
    site: Site,
    story: Story,
}

impl Real {
    async fn reload(&mut self, model: &mut Model, file: &File, how: How) {
        let plan = self.site.exporter.post("/-/reload?dry_run=1").await;
        let accepted = model.reload(file);
        assert_eq!(plan.status, if accepted { 200 } else { 422 }, "{}", plan.body);
        match how {
            How::Post => {
                let answer = self.site.reload().await;
                check_answer(&answer, accepted.then_some(model.expected));
                if accepted {
                    check_plan(&plan.data(), &answer.json()["data"]);
                }
                self.logged(1).await;
            }
            How::Twice => {
                let (one, two) = tokio::join!(self.site.reload(), self.site.reload());
                let expected = match (accepted, model.expected) {
                    (false, _) => None,
                    // Only one of them has something to do.
                    (true, Expected::Partial) => Some(Expected::Either),
                    (true, expected) => Some(expected),
                };
                check_answer(&one, expected);
                check_answer(&two, expected);
                self.logged(2).await;
                if accepted && model.expected != Expected::All {
                    // Who did not start was tried once or twice.
                    for deaths in model.deaths.values_mut() {
                        *deaths += 1;
                    }
                }
            }
            How::Hangup => {
                self.site.exporter.signal(Signal::HUP);
                self.logged(1).await;
            }
        }
    }

    /// Waits until the log has told of so many reloads.
    async fn logged(&mut self, reloads: usize) {
        for _ in 0..reloads {
            self.site.exporter.line_with("reload").await;
        }
    }

    async fn order(&self, verb: &str, number: u32, model: &Model) -> Response {
        let mut path = None;
        for top in &model.tops {
            top.each(&mut |node| {
                if node.children.iter().any(|child| child.table.number == number) {
                    path = Some(node.path.clone());
                }
            });
        }
        let path = path.expect("a child of the file");
        self.site.exporter.post(&format!("/api/v1/{verb}?supervisor={path}&child=c{number}")).await
    }

    async fn step(&mut self, model: &mut Model, file: &File, step: &Step) {
        match step {
            Step::Reload(how) => self.reload(model, file, *how).await,
            Step::Break(number, program) => {
                if model.programs.insert(*number, *program) != Some(Program::Missing) || *program != Program::Missing {
                    set_program(self.site.directory.path(), *number, *program);
                }
            }
            Step::Kill(number) => {
                let Some((_, Life::Up(Some(pid)))) = model.top_of(*number) else { return };
                kill_process(Pid::from_raw(pid as i32).unwrap(), Signal::KILL).unwrap();
                model.with_child(*number, |model, node, at| {
                    node.children[at].life = Life::Died;
                    *model.deaths.entry(format!("{}/c{number}", node.path)).or_default() += 1;
                    node.max_restarts > 0
                });
            }
            Step::Restart(number) | Step::Start(number) => {
                let (verb, anew) = if matches!(step, Step::Restart(_)) { ("restart", true) } else { ("start", false) };
                let Some((_, life)) = model.top_of(*number) else { return };
                let answer = self.order(verb, *number, model).await;
                if life == Life::Down || self.is_pending(model, *number) {
                    return assert_eq!(answer.status, 409, "{}", answer.body);
                }
                model.with_child(*number, |model, node, at| {
                    if matches!(node.children[at].life, Life::Up(_)) && !anew {
                        return true;
                    }
                    let name = format!("{}/c{number}", node.path);
                    let was_in_line = matches!(life, Life::Pending | Life::NotStarted { in_line: true });
                    let goes_on = model.start(node, at, &BTreeSet::from([name]));
                    let child = &mut node.children[at];
                    if let Life::NotStarted { in_line } = &mut child.life {
                        *in_line = was_in_line && child.table.ready;
                    }
                    goes_on
                });
                // A child that starts has started, even if it ends at once.
                let expected = if model.expected == Expected::Either { Expected::All } else { model.expected };
                check_answer(&answer, Some(expected));
            }
            Step::Stop(number) => {
                let Some((_, life)) = model.top_of(*number) else { return };
                let answer = self.order("stop", *number, model).await;
                if life == Life::Down || self.is_pending(model, *number) {
                    return assert_eq!(answer.status, 409, "{}", answer.body);
                }
                check_answer(&answer, Some(Expected::All));
                model.with_child(*number, |_, node, at| {
                    node.children[at].life = Life::Stopped;
                    true
                });
            }
            Step::RestartTop(top) => {
                let Some(at) = model.tops.iter().position(|node| node.number == *top) else { return };
                let answer = self.site.exporter.post(&format!("/api/v1/restart?supervisor=s{top}")).await;
                model.tops[at].begins();
                model.advance(&BTreeSet::new());
                // It may have given up already when the answer is given.
                let gave_up = model.tops[at].state == State::GaveUp;
                check_answer(&answer, Some(if gave_up { Expected::Either } else { Expected::All }));
            }
            Step::StopTop(top) => {
                let Some(at) = model.tops.iter().position(|node| node.number == *top) else { return };
                let answer = self.site.exporter.post(&format!("/api/v1/stop?supervisor=s{top}")).await;
                check_answer(&answer, Some(Expected::All));
                // One that gave up is down already, and keeps its reason.
                if model.tops[at].state != State::GaveUp {
                    model.tops[at].goes_down(State::Stopped);
                }
            }
        }
    }

    /// Is the supervisor of this child one whose turn has not come?
    fn is_pending(&self, model: &Model, number: u32) -> bool {
        let mut is_pending = false;
        for top in &model.tops {
            top.each(&mut |node| {
                let is_it = node.children.iter().any(|child| child.table.number == number);
                is_pending |= is_it && node.state == State::Pending;
            });
        }
        is_pending
    }

    /// Waits until the exporter is where the model is, and compares all that can be seen.
    async fn check(&mut self, model: &mut Model) {
        let mut seen = String::new();
        let agrees = async || {
            let differs = self.difference(model).await;
            seen = differs.clone().unwrap_or_default();
            differs.is_none().then_some(())
        };
        let agrees = until("the model's state", agrees);
        if tokio::time::timeout(std::time::Duration::from_secs(20), agrees).await.is_err() {
            panic!("{seen}\nthe model: {:#?}", model.tops);
        }
        let overlaps = std::fs::read_to_string(self.site.path("overlaps"));
        assert!(overlaps.is_err(), "two copies of {overlaps:?}");
        // Those that were there before have kept their processes; the others' are noted.
        let sleeps = self.site.sleeps();
        for top in &mut model.tops {
            top.each_mut(&mut |node| {
                for child in &mut node.children {
                    let Life::Up(known) = &mut child.life else { continue };
                    let ChildTable { number, version, .. } = child.table;
                    let arguments = format!("90000 {number} {version}");
                    let pid = sleeps.iter().find(|sleep| sleep.arguments == arguments).unwrap().pid;
                    assert_eq!(known.unwrap_or(pid), pid, "c{number} was restarted although nothing of it has changed");
                    *known = Some(pid);
                }
            });
        }
        let (code, said) = self.site.status();
        let ready = self.site.exporter.get("/-/ready").await;
        assert_eq!(code == 0, ready.status == 200, "status: {said}\nready: {}", ready.body);
        if let Some(expected) = model.is_ready() {
            assert_eq!(ready.status == 200, expected, "{}\n{:#?}", ready.body, model.tops);
        }
    }

    /// What is not as the model says; none if all is.
    async fn difference(&self, model: &Model) -> Option<String> {
        let running: Vec<_> = self.site.sleeps().iter().map(|Sleep { arguments, .. }| arguments.clone()).collect();
        let expected: Vec<_> =
            model.running().iter().map(|(number, version)| format!("90000 {number} {version}")).collect();
        if running != expected {
            return Some(format!("runs: {running:?}, should run: {expected:?}"));
        }
        let all = self.site.exporter.data("/api/v1/supervisors").await;
        let mut differences = Vec::new();
        for top in &model.tops {
            top.each(&mut |node| differences.extend(difference_of(node, &super::find(&all, "name", &node.path))));
        }
        let names: BTreeSet<_> = all
            .as_array()
            .unwrap()
            .iter()
            .filter(|one| one["up"] == true)
            .collect::<Vec<_>>()
            .iter()
            .map(|one| one["name"].as_str().unwrap().to_owned())
            .collect();
        let mut up = BTreeSet::new();
        for top in &model.tops {
            top.each(&mut |node| {
                if let State::Up { .. } = node.state {
                    up.insert(node.path.clone());
                }
            });
        }
        if names != up {
            differences.push(format!("up: {names:?}, should be up: {up:?}"));
        }
        (!differences.is_empty()).then(|| differences.join("\n"))
    }
}

/// What the API shows of a supervisor and the model does not.
fn difference_of(node: &Node, shown: &Value) -> Vec<String> {
    let State::Up { .. } = node.state else { return Vec::new() };
    let mut differences = Vec::new();
    let ids: BTreeSet<_> =
        shown["children"].as_array().into_iter().flatten().filter_map(|child| child["id"].as_str()).collect();
    let wanted: BTreeSet<_> = node
        .children
        .iter()
        .map(|child| format!("c{}", child.table.number))
        .chain(node.below.iter().map(|below| format!("s{}", below.number)))
        .collect();
    if ids.iter().copied().ne(wanted.iter().map(String::as_str)) {
        differences.push(format!("{} has {ids:?}, should have {wanted:?}", node.path));
    }
    for child in &node.children {
        let id = format!("c{}", child.table.number);
        let state = super::find(&shown["children"], "id", &id)["state"].clone();
        let expected = match child.life {
            Life::Up(_) => "running",
            Life::Pending => "waiting",
            Life::Died | Life::NotStarted { .. } => "restarting",
            Life::Stopped | Life::Down => "stopped",
        };
        if state != expected {
            differences.push(format!("{}/{id} is {state}, should be {expected}", node.path));
        }
    }
    differences
}

/// Checks an answer; none is expected of a file that is refused.
fn check_answer(answer: &Response, expected: Option<Expected>) {
    let body = answer.json();
    let (status, error_type) = (answer.status, body["errorType"].as_str());
    match expected {
        None => assert_eq!((status, error_type), (422, Some("bad_data")), "{body}"),
        Some(Expected::All) => assert_eq!(status, 200, "{body}"),
        Some(Expected::Partial) => assert_eq!((status, error_type), (422, Some("execution")), "{body}"),
        Some(Expected::Either) => assert!(status == 200 || error_type == Some("execution"), "{body}"),
    }
}

/// What was planned is what was done.
fn check_plan(plan: &Value, done: &Value) {
    let steps = |action: &str| -> BTreeSet<String> {
        let steps = plan["steps"].as_array().unwrap().iter().filter(|step| step["action"] == action);
        steps.map(|step| step["name"].as_str().unwrap().to_owned()).collect()
    };
    let list = |name: &str| -> BTreeSet<String> {
        done[name].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect()
    };
    let (starts, stops) = (steps("start"), steps("stop"));
    assert_eq!(starts, &list("added") | &list("changed"), "starts of {plan}, done: {done}");
    assert_eq!(&stops - &starts, list("removed"), "stops of {plan}, done: {done}");
    assert_eq!(steps("update"), list("updated"), "updates of {plan}, done: {done}");
}

// === The sequences ===

fn next_step(random: &mut Random, model: &Model) -> Step {
    let number = random.below(CHILDREN as usize) as u32;
    let top = random.pick(&model.tops).map_or(0, |node| node.number);
    let how = [How::Post, How::Post, How::Hangup, How::Twice][random.below(4)];
    match random.below(24) {
        0 | 1 => Step::Break(number, Program::Exits),
        2 | 3 => Step::Break(number, Program::NoInterpreter),
        4 if random.one_in(2) => Step::Break(number, Program::Missing),
        5 => Step::Kill(number),
        6 => Step::Restart(number),
        7 if random.one_in(2) => Step::Start(number),
        8 => Step::Stop(number),
        9 => Step::RestartTop(top),
        10 if random.one_in(3) => Step::StopTop(top),
        _ => Step::Reload(how),
    }
}

async fn check_sequence(seed: u64) {
    let mut random = Random(seed);
    let mut file = File(vec![SupervisorTable { number: 0, parent: None, max_restarts: 1000, children: Vec::new() }]);
    for _ in 0..12 {
        file.edit(&mut random);
    }
    let mut story = Story { seed, told: vec![format!("begin with {file:#?}")] };
    let directory = tempfile::tempdir().unwrap();
    let text = file.text(directory.path());
    prepare(directory.path());
    let exporter = crate::world::Running::file_with(directory.path(), &text, &["--web.enable-admin-api"]).await;
    story.told.push(format!("in {}", directory.path().display()));
    let mut real = Real { site: Site { exporter, directory }, story };
    let mut model = Model::new();
    model.reload(&file);
    real.check(&mut model).await;
    for _ in 0..STEPS {
        let broken: Vec<u32> = model
            .programs
            .iter()
            .filter(|(_, program)| **program != Program::Works)
            .map(|(number, _)| *number)
            .collect();
        // What is broken is mended soon, so that there is much that runs.
        if let Some(number) = random.pick(&broken).copied()
            && random.one_in(3)
        {
            let step = Step::Break(number, Program::Works);
            real.story.told.push(format!("{step:?}"));
            real.step(&mut model, &file, &step).await;
        }
        let step = next_step(&mut random, &model);
        if let Step::Reload(how) = step {
            let wrong = random.below(8);
            if wrong < 2 {
                let text = match wrong {
                    0 => String::new(),
                    _ => file.text(real.site.directory.path()) + "[[supervisor]]\nnam",
                };
                real.story.told.push(format!("{how:?} of a wrong file: {wrong}"));
                std::fs::write(real.site.path("tree.toml"), text).unwrap();
                let answer = real.site.reload().await;
                check_answer(&answer, None);
                real.logged(1).await;
                real.check(&mut model).await;
            }
            for _ in 0..=random.below(3) {
                let (edit, edited) = file.edited(&mut random);
                file = edited;
                real.story.told.push(edit);
            }
            std::fs::write(real.site.path("tree.toml"), file.text(real.site.directory.path())).unwrap();
        }
        real.story.told.push(format!("{step:?}"));
        real.step(&mut model, &file, &step).await;
        real.check(&mut model).await;
    }
    let Real { site: Site { exporter, directory }, story } = real;
    exporter.signal(Signal::TERM);
    let (status, log) = exporter.ended().await;
    assert_eq!((status.code(), super::sleeps_in(directory.path())), (Some(0), Vec::new()), "{log:#?}");
    drop(story);
}

async fn check_sequences(part: u64, parts: u64) {
    let number = |name: &str| std::env::var(name).ok().map(|value| value.parse::<u64>().expect("a number"));
    let (seed, sequences) = (number("RESTART_EXPORTER_RELOAD_SEED"), number("RESTART_EXPORTER_RELOAD_SEQUENCES"));
    match seed {
        Some(seed) if part == 0 => check_sequence(seed).await,
        Some(_) => {}
        None => {
            for seed in (0..sequences.unwrap_or(SEQUENCES)).filter(|seed| seed % parts == part) {
                check_sequence(seed).await;
            }
        }
    }
}

// Whatever the file becomes, what runs is what it says, once; what did not change is not touched; and nobody is told
// otherwise. In two parts, so that they can run beside each other.
#[tokio::test]
async fn what_runs_is_what_the_file_says() {
    check_sequences(0, 2).await;
}

// The other half of the sequences.
#[tokio::test]
async fn what_runs_is_still_what_the_file_says() {
    check_sequences(1, 2).await;
}
