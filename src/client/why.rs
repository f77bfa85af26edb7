//! `why`: all that is known of one child's deaths, on one screen.

use restart_exporter::analytics::{Health, JUST_BEFORE};
use restart_exporter::event::counted;
use restart_exporter::wire::{Cause, Causes, Child, Event, History, Supervisor};

use super::explain::{WITHHELD, decided, progress, says, unheard, what};
use super::http::Client;
use super::screen::{self, Part, Screen, named};
use super::times::{ago, clock, lasting, short_clock};
use super::{Failure, Found, is_it, shape};

/// Others that die of the same, and causes, that are listed.
const LISTED: usize = 10;

/// A child that was asked for.
struct Subject<'a> {
    supervisor: &'a Supervisor,
    /// By its id, as its history knows it.
    id: String,
    /// As its causes know it, and maybe others with it.
    label: String,
    /// As its supervisor lists it; none of a child that is known only by its deaths.
    child: Option<&'a Child>,
}

pub(super) async fn run(
    client: &Client,
    screen: &mut Screen,
    json: bool,
    wanted: &str,
    node: Option<&str>,
) -> Result<Found, Failure> {
    let answer = client.get("supervisors", &[]).await?;
    let mut supervisors: Vec<Supervisor> = shape(client, &answer)?;
    supervisors.retain(|one| node.is_none() || one.node.as_deref() == node);
    let is_child = supervisors.iter().any(|one| one.children.iter().any(|child| is_it(one, child, wanted)));
    let mut called_so: Vec<&Supervisor> = supervisors.iter().filter(|one| !is_child && one.name == wanted).collect();
    called_so.dedup_by(|later, one| is_own(one, later));
    match called_so[..] {
        [] => {}
        [supervisor] => return of_supervisor(client, screen, json, supervisor, &supervisors, answer.now).await,
        _ => return Err(which(wanted, called_so.iter().map(|one| (*one, None)))),
    }
    let subject = find(client, &supervisors, wanted).await?;
    let of = of(subject.supervisor);
    let query = [&of[..], &[("child", subject.label.as_str())]].concat();
    let causes = client.get("causes", &query).await?;
    if json {
        screen.json(&causes.data);
        return Ok(Found::Fine);
    }
    let causes: Causes = shape(client, &causes)?;
    let query = [&of[..], &[("child", subject.id.as_str())]].concat();
    let history: History = shape(client, &client.get("history", &query).await?)?;
    let marks = [&of[..], &[("event", "mark")]].concat();
    let marks: History = shape(client, &client.get("history", &marks).await?)?;
    headline(screen, &subject, answer.now);
    state(screen, &subject, &supervisors, answer.now);
    show_causes(screen, &causes.causes, Some(&*subject.label).filter(|label| *label != subject.id), answer.now);
    restarts(screen, &history.events, answer.now);
    let last = subject.child.and_then(|child| child.last_death.as_ref());
    last_words(screen, last.or(history.events.iter().find(|event| has_words(event))), answer.now);
    // A child that is gone has no last death, but causes.
    let newest = causes.causes.iter().max_by_key(|cause| cause.last);
    let of_newest = newest.and_then(|cause| cause.reason_fingerprint.as_ref());
    if let Some(reason) = subject.child.and_then(|child| child.reason_fingerprint.as_ref()).or(of_newest) {
        others(client, screen, &subject, reason).await?;
    }
    show_marks(screen, &marks.events, &causes.causes, &subject, answer.now);
    let Supervisor { name, node, .. } = subject.supervisor;
    advise(client, screen, &subject, Some(client.command("history", node.as_deref(), name)));
    Ok(Found::Fine)
}

// === Who ===

impl Subject<'_> {
    fn name(&self) -> String {
        named(&self.supervisor.name, Some(&self.id), self.supervisor.node.as_deref())
    }
}

/// What names a supervisor in a query: two may have one name, on different nodes.
fn of(supervisor: &Supervisor) -> Vec<(&str, &str)> {
    let node = supervisor.node.as_deref().map(|node| ("node", node));
    std::iter::once(("supervisor", supervisor.name.as_str())).chain(node).collect()
}

/// Does the first one live in the exporter's own process and have the name of the other?
fn is_own(one: &Supervisor, other: &Supervisor) -> bool {
    one.node.is_none() && one.name == other.name
}

/// Nothing is guessed.
fn which<'a>(wanted: &str, those: impl Iterator<Item = (&'a Supervisor, Option<&'a str>)>) -> Failure {
    let mut on_nodes = false;
    let names = those.map(|(supervisor, child)| {
        on_nodes |= supervisor.node.is_some();
        named(&supervisor.name, child, supervisor.node.as_deref())
    });
    let names = names.collect::<Vec<_>>().join(", ");
    let how = if on_nodes { " --node tells those of nodes apart" } else { "" };
    Failure::Refused(format!("{wanted:?} may be {names}: which?{how}"))
}

/// The one child that the text names: listed, or known by its deaths.
async fn find<'a>(client: &Client, supervisors: &'a [Supervisor], wanted: &str) -> Result<Subject<'a>, Failure> {
    let mut found: Vec<Subject<'a>> = Vec::new();
    for supervisor in supervisors {
        for child in supervisor.children.iter().filter(|child| is_it(supervisor, child, wanted)) {
            let worse = |other: &Child| screen::health(&child.health) < screen::health(&other.health);
            // Children of a dynamic supervisor may share an id; the worst of them speaks for all.
            match found.iter_mut().find(|one| std::ptr::eq(one.supervisor, supervisor)) {
                Some(one) if one.child.is_none_or(worse) => one.child = Some(child),
                Some(_) => {}
                None => {
                    let label = child.label.as_ref().unwrap_or(&child.id).clone();
                    found.push(Subject { supervisor, id: child.id.clone(), label, child: Some(child) });
                }
            }
        }
    }
    if found.is_empty() {
        for supervisor in supervisors.iter().filter(|one| one.total_failures > 0) {
            let prefix = format!("{}/", supervisor.name);
            let id = wanted.strip_prefix(&prefix).unwrap_or(wanted);
            let query = [&of(supervisor)[..], &[("child", id)]].concat();
            let causes: Causes = shape(client, &client.get("causes", &query).await?)?;
            if let Some(cause) = causes.causes.first() {
                let label = cause.child_id.as_deref().unwrap_or(id).to_owned();
                found.push(Subject { supervisor, id: id.to_owned(), label, child: None });
            }
        }
    }
    // As in all questions, one of the exporter's own goes before one of the same name on a node; it is listed before.
    found.dedup_by(|later, one| is_own(one.supervisor, later.supervisor) && one.id == later.id);
    if found.len() > 1 {
        return Err(which(wanted, found.iter().map(|one| (one.supervisor, Some(&*one.id)))));
    }
    found.pop().ok_or_else(|| {
        Failure::Refused(format!("no child matches {wanted:?} (tried the child id and SUPERVISOR/CHILD); `restart_exporter status --all` lists them"))
    })
}

// === What is said ===

fn headline(screen: &mut Screen, subject: &Subject<'_>, now: u64) {
    let name = subject.name();
    let Some(child) = subject.child else {
        let of_label = |child: &&Child| child.label.as_ref() == Some(&subject.id);
        let left = match subject.supervisor.children.iter().filter(of_label).count() {
            0 => "no run is left".into(),
            count => format!("is what {} in common", counted(count, "child has", "children have")),
        };
        return screen.parts([Part::Bold(name), Part::Plain(format!("  {left}"))]);
    };
    let health = screen::health(&child.health);
    let how = match &child.looping {
        Some(looping) => {
            let share = (100 * looping.up_ms).checked_div(looping.lasting_ms).unwrap_or(0);
            format!(
                "since {} ({}), {}, up {share}% of that time",
                short_clock(looping.since, now),
                lasting(looping.lasting_ms),
                counted(looping.deaths, "death", "deaths")
            )
        }
        None => {
            let hour = counted(child.deaths_hour, "death", "deaths");
            format!("{hour} in the last hour, {} in the last day", child.deaths_day)
        }
    };
    screen.parts(titled(name, health).into_iter().chain([Part::Plain(format!("  {how}"))]));
}

/// A name, and how it is doing in one word.
fn titled(name: String, health: Health) -> [Part; 3] {
    [Part::Bold(name), Part::Plain("  ".into()), Part::Painted(health, screen::word(health))]
}

fn state(screen: &mut Screen, subject: &Subject<'_>, all: &[Supervisor], now: u64) {
    let supervisor = subject.supervisor;
    let name = &supervisor.name;
    if let (true, Some(left), Some(max), Some(seconds)) =
        (supervisor.up, supervisor.restarts_left, supervisor.max_restarts, supervisor.max_seconds)
    {
        let restarts = counted(max, "restart", "restarts");
        let end = match supervisor.budget_can_run_out {
            Some(false) => format!("{name} never gives up: the backoffs are too long to use them up"),
            _ => format!("when they are used up, the next death makes {name} give up"),
        };
        screen.line(&format!("  budget       {left} of {restarts} left within {seconds}s; {end}"));
    }
    let next = match (subject.child, unheard(supervisor, now)) {
        _ if !supervisor.up => match (&supervisor.parent, decides(supervisor, all)) {
            (_, Some(above)) => {
                format!("{name} is down; what becomes of it is for {above} above to decide")
            }
            _ if supervisor.node.is_some() => format!("{name} is down until its node starts it"),
            (Some(_), None) => {
                format!("{name} is down, as all above it are, until an operator starts its top supervisor")
            }
            (None, None) => format!("{name} is down until an operator starts it"),
        },
        (_, Some(unheard)) => format!("nobody knows: {unheard}"),
        (Some(child), None) if child.progress.is_some() => progress(child).unwrap_or_default(),
        (Some(Child { next_try_ms: Some(ms), .. }), None) => format!("tried again in {}", lasting(*ms)),
        (Some(Child { uptime_ms: Some(ms), .. }), None) => format!("nothing: it runs, for {} now", lasting(*ms)),
        (Some(child), None) if child.state == "restarting" => "is being started again".into(),
        (Some(_), None) => "nothing: it stays down until an operator starts it".into(),
        (None, None) => "nothing".into(),
    };
    screen.line(&format!("  next         {next}"));
    if !supervisor.up
        && let Some(end) = &supervisor.last_end
    {
        screen.line(&format!("  supervisor   {}", what(end)));
    }
}

/// What can be typed next. Nobody answers a program that is about to end.
fn advise(client: &Client, screen: &mut Screen, subject: &Subject<'_>, more: Option<String>) {
    if client.is_within() {
        return;
    }
    let start = starts(subject).map(|target| client.command("start", None, &target));
    for (command, label) in start.into_iter().chain(more).zip(["do", ""]) {
        screen.line(&format!("  {label:<11}  {command}"));
    }
}

/// What an operator has to start so that this runs again; none of what starts by itself, or takes no orders.
fn starts(subject: &Subject<'_>) -> Option<String> {
    let supervisor = subject.supervisor;
    match subject.child {
        _ if supervisor.node.is_some() => None,
        _ if !supervisor.up => supervisor.parent.is_none().then(|| supervisor.name.clone()),
        Some(child) if child.state == "stopped" || child.state == "failed" => {
            Some(format!("{}/{}", supervisor.name, child.id))
        }
        _ => None,
    }
}

/// The next above that may be up: one that is not listed is not known to be down.
fn decides<'a>(supervisor: &'a Supervisor, all: &'a [Supervisor]) -> Option<&'a str> {
    let mut above = supervisor.parent.as_deref()?;
    for _ in all {
        let Some(next) = all.iter().find(|one| one.name == above && one.node == supervisor.node) else { break };
        if next.up {
            break;
        }
        above = next.parent.as_deref()?;
    }
    Some(above)
}

/// Most frequent first, as the exporter has them. With a label they are those of all children that have it.
fn show_causes(screen: &mut Screen, causes: &[Cause], label: Option<&str>, now: u64) {
    let first = match label {
        _ if causes.is_empty() => return screen.line("  why          nothing died"),
        Some(label) => {
            screen.line(&format!("  why          of all {label} together:"));
            ""
        }
        None => "why",
    };
    for (cause, label) in causes.iter().zip(std::iter::once(first).chain(std::iter::repeat(""))).take(LISTED) {
        let sample = &cause.sample;
        screen.line(&format!("  {label:<11}{:>4}× {}", cause.count, what(sample)));
        if let Some(line) = says(sample) {
            screen.line(&format!("                  {}", line.trim()));
        }
        let ran = sample.lifetime_ms.map(|ms| format!(", the last after {}", lasting(ms))).unwrap_or_default();
        let (first, last) = (short_clock(cause.first, now), short_clock(cause.last, now));
        let ago = ago(cause.last, now);
        screen.line(&match cause.count {
            1 => format!("                  at {first} ({ago}){}", ran.replace(", the last after", ", after")),
            _ => format!("                  first {first}, last {last} ({ago}){ran}"),
        });
        if let Some(decision) = &sample.decision {
            screen.line(&format!("                  then {}", decided(decision)));
        }
    }
    if causes.len() > LISTED {
        screen.line(&format!("               and {}", counted(causes.len() - LISTED, "other cause", "other causes")));
    }
}

/// Restarts that were not for a failure of its own.
fn restarts(screen: &mut Screen, events: &[Event], now: u64) {
    for (cause, words) in [("sibling", "because a sibling failed"), ("requested", "on request")] {
        let mut of_cause = events.iter().filter(|event| event.cause.as_deref() == Some(cause));
        let Some(last) = of_cause.next() else { continue };
        let times = 1 + of_cause.count();
        let when = format!("last {} ({})", short_clock(last.timestamp, now), ago(last.timestamp, now));
        screen.line(&format!("  restarted  {times:>4}× {words}, {when}"));
    }
}

fn has_words(event: &Event) -> bool {
    event.last_output.is_some() || event.last_output_withheld
}

fn last_words(screen: &mut Screen, event: Option<&Event>, now: u64) {
    let Some(event) = event else { return };
    if event.last_output_withheld {
        return screen.line(&format!("  last words   {WITHHELD}"));
    }
    let Some(lines) = event.last_output.as_ref().filter(|lines| !lines.is_empty()) else { return };
    let ran = event.lifetime_ms.map(|ms| format!(" after {}", lasting(ms))).unwrap_or_default();
    screen.line(&format!("  last words of the run that died {}{ran}", ago(event.timestamp, now)));
    for line in lines {
        screen.line(&format!("    {line}"));
    }
}

/// Who else dies of the same.
async fn others(client: &Client, screen: &mut Screen, subject: &Subject<'_>, reason: &str) -> Result<(), Failure> {
    let answer = client.get("same_causes", &[("reason", reason)]).await?;
    let causes: Vec<Cause> = shape(client, &answer)?;
    let Supervisor { name, node, .. } = subject.supervisor;
    let is_subject = |cause: &&Cause| {
        let ids = [&cause.child_id, &cause.sample.child_id];
        cause.sample.supervisor_name.as_ref() == Some(name)
            && cause.sample.node == *node
            && ids.into_iter().flatten().any(|id| *id == subject.id || *id == subject.label)
    };
    let others = causes.iter().filter(|cause| !is_subject(cause)).map(|cause| {
        let supervisor = cause.sample.supervisor_name.as_deref().unwrap_or_default();
        let name = named(supervisor, cause.child_id.as_deref(), cause.sample.node.as_deref());
        // The count is not that of the day.
        format!("{name} ({}× ever)", cause.count)
    });
    let names: Vec<_> = others.collect();
    if !names.is_empty() {
        let more = names.len().saturating_sub(LISTED);
        let more = if more > 0 { format!(" and {}", counted(more, "other", "others")) } else { String::new() };
        let line = names[..names.len().min(LISTED)].join(", ");
        screen.line(&format!("  same cause   {line}{more}"));
    }
    Ok(())
}

fn show_marks(screen: &mut Screen, marks: &[Event], causes: &[Cause], subject: &Subject<'_>, now: u64) {
    let looping = subject.child.and_then(|child| child.looping.as_ref()).map(|looping| looping.since);
    let began = looping.or_else(|| match subject.child {
        // Its causes are those of others, too.
        Some(child) if subject.label != subject.id => child.last_death.as_ref().map(|death| death.timestamp),
        _ => causes.iter().map(|cause| cause.first).min(),
    });
    let Some(began) = began else { return };
    for mark in marks.iter().filter(|mark| mark.timestamp + JUST_BEFORE.as_millis() as u64 >= began).take(LISTED) {
        let when = match began.checked_sub(mark.timestamp) {
            Some(before) => format!("{} before it began", lasting(before)),
            None => format!("{} after it began", lasting(mark.timestamp - began)),
        };
        let text = mark.text.as_deref().unwrap_or_default();
        screen.line(&format!("  mark         {} {text} ({when})", short_clock(mark.timestamp, now)));
    }
}

/// A supervisor that is asked for by its own name.
async fn of_supervisor(
    client: &Client,
    screen: &mut Screen,
    json: bool,
    supervisor: &Supervisor,
    all: &[Supervisor],
    now: u64,
) -> Result<Found, Failure> {
    let causes = client.get("causes", &of(supervisor)).await?;
    if json {
        screen.json(&causes.data);
        return Ok(Found::Fine);
    }
    let causes: Causes = shape(client, &causes)?;
    let health = screen::health(&supervisor.health);
    screen.parts(titled(named(&supervisor.name, None, supervisor.node.as_deref()), health));
    let nobody = Subject { supervisor, id: String::new(), label: String::new(), child: None };
    if supervisor.up {
        screen.line(&format!("  budget       {}", super::status::budget(supervisor)));
    } else {
        state(screen, &nobody, all, now);
    }
    if let Some(end) = supervisor.last_end.as_ref().filter(|_| supervisor.up) {
        screen.line(&format!("  before       {}, {}", what(end), clock(end.timestamp)));
    }
    show_causes(screen, &causes.causes, None, now);
    if causes.causes.iter().any(|cause| cause.sample.last_output_withheld) {
        screen.line(&format!("  last words   {WITHHELD}"));
    }
    let worst = supervisor.children.iter().min_by_key(|child| screen::health(&child.health));
    let worst = worst.filter(|child| screen::health(&child.health) < Health::Stopped);
    let why = worst.map(|child| {
        let name = format!("{}/{}", supervisor.name, child.id);
        client.command("why", supervisor.node.as_deref(), &name)
    });
    advise(client, screen, &nobody, why);
    Ok(Found::Fine)
}
