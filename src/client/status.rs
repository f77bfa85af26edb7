//! `status`: everything that is supervised, trouble first.

use restart_exporter::analytics::Health;
use restart_exporter::analytics::registry::OTHER;
use restart_exporter::event::counted;
use restart_exporter::wire::{self, Child, Stats, Supervisor};

use super::http::Client;
use super::screen::{self, Part, Screen, Table, named};
use super::{Failure, Found, explain, shape, times};
use crate::cli::complain;

const HEAD: [&str; 7] = ["STATE", "CHILD", "UP", "DEATHS 1h/24h", "LAST DEATH", "WHY", "BUDGET"];

pub(super) async fn run(
    client: &Client,
    screen: &mut Screen,
    json: bool,
    supervisor: Option<&str>,
    all: bool,
) -> Result<Found, Failure> {
    let answer = client.get("supervisors", &[]).await?;
    let mut supervisors: Vec<Supervisor> = shape(client, &answer)?;
    if let Some(wanted) = supervisor {
        supervisors.retain(|one| one.name == wanted || one.name.starts_with(&format!("{wanted}/")));
        if supervisors.is_empty() {
            return Err(Failure::Refused(format!("no supervisor has the name {wanted:?}")));
        }
    }
    if json {
        match supervisor {
            Some(_) => screen.json(&wire::json(&supervisors)),
            None => screen.json(&answer.data),
        }
    } else {
        show(screen, &supervisors, answer.now, all || supervisor.is_some());
        if supervisor.is_none() {
            match beyond(client).await {
                Ok(0) => {}
                Ok(beyond) => {
                    let one = "beyond --series.max-supervisors is counted together as";
                    let many = "beyond --series.max-supervisors are counted together as";
                    screen.line(&format!("({} {OTHER})", counted(beyond, one, many)));
                }
                // All that can be told apart was told.
                Err(failure) => {
                    complain(format_args!("it is not known whether any are beyond --series.max-supervisors: {failure}"))
                }
            }
        }
    }
    let children = supervisors.iter().flat_map(|one| &one.children).map(|child| &child.health);
    let is_trouble = |word: &str| screen::health(word).is_trouble();
    if supervisors.iter().map(|one| &one.health).chain(children).any(|word| is_trouble(word)) {
        return Ok(Found::Trouble);
    }
    // Before the start and while it stops nothing is in trouble, and yet not all is well.
    match client.not_ready().await? {
        Some(why) if supervisor.is_none() => {
            if !json {
                why.lines().for_each(|line| screen.line(line));
            }
            Ok(Found::Trouble)
        }
        _ => Ok(Found::Fine),
    }
}

/// How many supervisors have no line of their own.
async fn beyond(client: &Client) -> Result<u64, Failure> {
    let stats: Stats = shape(client, &client.get("stats", &[]).await?)?;
    let apart = stats.supervisor_stats.iter().filter(|one| one.supervisor_name != OTHER || one.node.is_some());
    Ok(stats.total_supervisors.saturating_sub(apart.count() as u64))
}

fn show(screen: &mut Screen, supervisors: &[Supervisor], now: u64, all: bool) {
    if supervisors.is_empty() {
        screen.line("no supervisors");
        return;
    }
    let mut rows = Vec::new();
    for supervisor in supervisors {
        let is_silent = supervisor.silent_since.is_some();
        if is_told_itself(supervisor) {
            rows.push((screen::health(&supervisor.health), own_row(supervisor, now)));
        }
        let mut well = 0;
        for child in &supervisor.children {
            let health = screen::health(&child.health);
            // A supervisor that runs has rows of its own.
            let is_news = if is_silent { child.deaths_day > 0 } else { health <= Health::Recovered };
            let is_shown = is_news || all && child.child_type != "supervisor";
            if is_shown {
                rows.push((health, row(supervisor, child, now)));
            } else if health == Health::Ok && child.child_type != "supervisor" {
                well += 1;
            }
        }
        let stopped = supervisor.children.iter().filter(|child| child.health == Health::Stopped.as_str()).count();
        if well > 0 {
            rows.push((Health::Ok, folded(supervisor, Health::Ok, well)));
        }
        if stopped > 0 && supervisor.up && !all {
            rows.push((Health::Stopped, folded(supervisor, Health::Stopped, stopped)));
        }
        if supervisor.up && !is_silent && supervisor.children.is_empty() {
            rows.push((Health::Ok, folded(supervisor, Health::Ok, 0)));
        }
    }
    // Within a word the order is that of the supervisors and their children.
    rows.sort_by_key(|(health, _)| *health);
    screen.parts(summary(supervisors));
    let mut table = Table::with_head(&HEAD);
    rows.into_iter().for_each(|(health, cells)| table.row(health, cells));
    screen.table(&table);
    let mut deaths = supervisors.iter().flat_map(|one| &one.children).filter_map(|child| child.last_death.as_ref());
    if deaths.any(|death| death.last_output_withheld) {
        screen.line(&format!("({})", explain::WITHHELD));
    }
}

/// Of one that is down, or that nobody knows of, its children say too little.
fn is_told_itself(supervisor: &Supervisor) -> bool {
    !supervisor.up || supervisor.silent_since.is_some()
}

/// `1 looping, 2 recovered, 14 ok`, of children; supervisors that are told themselves count as well.
fn summary(supervisors: &[Supervisor]) -> impl Iterator<Item = Part> {
    let children = supervisors.iter().flat_map(|one| &one.children).map(|child| screen::health(&child.health));
    let themselves = supervisors.iter().filter(|one| is_told_itself(one)).map(|one| screen::health(&one.health));
    let all: Vec<_> = children.chain(themselves).collect();
    let counts = Health::ALL.into_iter().map(move |health| (health, all.iter().filter(|one| **one == health).count()));
    counts.filter(|(_, count)| *count > 0).enumerate().flat_map(|(place, (health, count))| {
        let comma = Part::Plain(if place == 0 { "" } else { ", " }.into());
        [comma, Part::Painted(health, format!("{count} {}", screen::word(health).to_lowercase()))]
    })
}

fn row(supervisor: &Supervisor, child: &Child, now: u64) -> [String; 7] {
    let up = match (child.uptime_ms, child.next_try_ms) {
        (Some(ms), _) => times::lasting(ms),
        (None, Some(ms)) => format!("in {}", times::lasting(ms)),
        (None, None) => "–".into(),
    };
    let last = child.last_death.as_ref().map(|death| {
        let ran = death.lifetime_ms.map(|ms| format!(", ran {}", times::lasting(ms)));
        times::ago(death.timestamp, now) + &ran.unwrap_or_default()
    });
    [
        screen::word(screen::health(&child.health)),
        named(&supervisor.name, Some(&child.id), supervisor.node.as_deref()),
        up,
        format!("{}/{}", child.deaths_hour, child.deaths_day),
        last.unwrap_or_else(|| "–".into()),
        match (explain::progress(child), &child.last_death) {
            (Some(progress), _) => progress,
            (None, Some(death)) => explain::brief(death),
            (None, None) => "–".into(),
        },
        budget(supervisor),
    ]
}

fn own_row(supervisor: &Supervisor, now: u64) -> [String; 7] {
    let end = supervisor.last_end.as_ref();
    [
        screen::word(screen::health(&supervisor.health)),
        named(&supervisor.name, None, supervisor.node.as_deref()),
        "–".into(),
        "–".into(),
        end.map_or_else(|| "–".into(), |end| times::ago(end.timestamp, now)),
        match (explain::unheard(supervisor, now), end) {
            (Some(unheard), _) if supervisor.up => unheard,
            (_, Some(end)) => explain::what(end),
            (_, None) => "–".into(),
        },
        "–".into(),
    ]
}

fn folded(supervisor: &Supervisor, health: Health, children: usize) -> [String; 7] {
    let up = supervisor.uptime_ms.map_or_else(|| "–".into(), times::lasting);
    let dash = || "–".to_owned();
    let name = named(&supervisor.name, None, supervisor.node.as_deref());
    // A node does not tell of children that fare well.
    let name = if children == 0 && supervisor.node.is_some() {
        name
    } else {
        format!("{name} ({})", counted(children, "child", "children"))
    };
    [screen::word(health), name, up, dash(), dash(), dash(), budget(supervisor)]
}

/// `1/5 in 60s`: restarts left, allowed, and within how long.
pub(super) fn budget(supervisor: &Supervisor) -> String {
    match (supervisor.up, supervisor.restarts_left, supervisor.max_restarts, supervisor.max_seconds) {
        (true, Some(left), Some(max), Some(seconds)) => format!("{left}/{max} in {seconds}s"),
        _ => "–".into(),
    }
}
