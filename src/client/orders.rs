//! `restart`, `start`, `stop` and `reload`: what a running exporter is told to do.

use restart_exporter::text;
use restart_exporter::wire::{Plan, Reloaded, Started, Supervisor};

use super::http::Client;
use super::screen::Screen;
use super::{Failure, Found, is_it, shape};
use crate::cli::Order;

impl Order {
    fn route(self) -> &'static str {
        match self {
            Order::Restart => "restart",
            Order::Start => "start",
            Order::Stop => "stop",
        }
    }
}

pub(super) async fn order(
    client: &Client,
    screen: &mut Screen,
    json: bool,
    order: Order,
    target: &str,
) -> Result<Found, Failure> {
    let supervisors: Vec<Supervisor> = shape(client, &client.get("supervisors", &[]).await?)?;
    let (supervisor, child) = goal(&supervisors, target)?;
    let child_query = child.as_ref().map(|child| ("child", child.as_str()));
    let query: Vec<_> = std::iter::once(("supervisor", supervisor.as_str())).chain(child_query).collect();
    let answer = client.post(order.route(), &query).await?;
    if json {
        screen.json(&answer.data);
        return Ok(Found::Fine);
    }
    let name = child.map_or_else(|| supervisor.clone(), |child| format!("{supervisor}/{child}"));
    let done = match order {
        Order::Stop => "stopped".to_owned(),
        Order::Restart | Order::Start => {
            let Started { child_pid } = shape(client, &answer)?;
            let verb = if order == Order::Restart { "restarted" } else { "runs" };
            child_pid.map_or_else(|| verb.to_owned(), |pid| format!("{verb} as {pid}"))
        }
    };
    screen.line(&format!("{name} {done}"));
    Ok(Found::Fine)
}

/// The supervisor, and the child, that a text names. What is not listed is for the exporter to find, or to say what comes
/// near it.
fn goal(supervisors: &[Supervisor], target: &str) -> Result<(String, Option<String>), Failure> {
    let own = || supervisors.iter().filter(|one| one.node.is_none());
    if own().any(|one| one.name == target) {
        return Ok((target.to_owned(), None));
    }
    let mut found: Vec<(String, String)> = own()
        .flat_map(|one| {
            one.children.iter().filter(|child| is_it(one, child, target)).map(|child| (&one.name, &child.id))
        })
        .map(|(supervisor, child)| (supervisor.clone(), child.clone()))
        .collect();
    found.dedup();
    match &found[..] {
        [] => Ok(match target.rsplit_once('/').filter(|(supervisor, _)| own().any(|one| one.name == *supervisor)) {
            Some((supervisor, child)) => (supervisor.to_owned(), Some(child.to_owned())),
            None => (target.to_owned(), None),
        }),
        [(supervisor, child)] => Ok((supervisor.clone(), Some(child.clone()))),
        several => {
            let names: Vec<_> = several.iter().map(|(supervisor, child)| format!("{supervisor}/{child}")).collect();
            Err(Failure::Refused(format!("several children are named {target:?}: {}", names.join(", "))))
        }
    }
}

pub(super) async fn reload(client: &Client, screen: &mut Screen, json: bool, dry_run: bool) -> Result<Found, Failure> {
    if !json || dry_run {
        let answer = client.post("reload", &[("dry_run", "1")]).await?;
        if json {
            screen.json(&answer.data);
            return Ok(Found::Fine);
        }
        show(screen, &shape(client, &answer)?);
    }
    if dry_run {
        return Ok(Found::Fine);
    }
    let answer = client.post("reload", &[]).await?;
    if json {
        screen.json(&answer.data);
    } else {
        let Reloaded { added, removed, changed, updated, .. } = shape(client, &answer)?;
        let counts = [(added, "started"), (changed, "started again"), (removed, "stopped"), (updated, "updated")];
        let done = counts.iter().filter(|(names, _)| !names.is_empty());
        let done: Vec<_> = done.map(|(names, what)| format!("{} {what}", names.len())).collect();
        screen.line(&if done.is_empty() { "done".to_owned() } else { format!("done: {}", done.join(", ")) });
    }
    Ok(Found::Fine)
}

fn show(screen: &mut Screen, plan: &Plan) {
    if plan.steps.is_empty() {
        screen.line("nothing to do: what runs is what the file says");
    }
    let width = plan.steps.iter().map(|step| text::one_line(&step.name).chars().count()).max().unwrap_or(0);
    for step in &plan.steps {
        // Its width is that of what is shown.
        let name = text::one_line(&step.name);
        screen.line(&format!("{:<6}  {name:<width$}  {}", step.action, step.why));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn supervisor(name: &str, children: &[&str]) -> Supervisor {
        let child = |id: &&str| {
            format!(
                r#"{{"id":"{id}","label":null,"pid":null,"state":"running","type":"worker","restart":null,"restarts":0,
                "uptime_ms":null,"progress":null,"next_try_ms":null,"last_death":null,"reason_fingerprint":null,
                "health":"ok","looping":null,"deaths_hour":0,"deaths_day":0}}"#
            )
        };
        let children = children.iter().map(child).collect::<Vec<_>>().join(",");
        let json = format!(
            r#"{{"name":"{name}","node":null,"id":null,"parent":null,"up":true,"strategy":null,"max_restarts":null,
            "max_seconds":null,"budget_can_run_out":null,"restarts_in_window":null,"restarts_left":null,"health":"ok",
            "silent_since":null,"uptime_ms":null,"total_restarts":0,"total_failures":0,"last_end":null,"children":[{children}]}}"#
        );
        restart_exporter::wire::read(&json).unwrap()
    }

    // A person types what the page shows; what is not there is for the exporter to answer.
    #[test]
    fn a_target_is_a_supervisor_or_a_child_with_or_without_its_supervisor() {
        let all =
            [supervisor("payments", &["api", "db"]), supervisor("payments/workers", &["w"]), supervisor("b", &["db"])];
        let table = [
            ("payments", ("payments", None)),
            ("payments/workers", ("payments/workers", None)),
            ("payments/api", ("payments", Some("api"))),
            ("payments/workers/w", ("payments/workers", Some("w"))),
            ("api", ("payments", Some("api"))),
            ("b/db", ("b", Some("db"))),
            ("payments/nope", ("payments", Some("nope"))),
            ("nope", ("nope", None)),
        ];
        for (target, (supervisor, child)) in table {
            let expected = (supervisor.to_owned(), child.map(str::to_owned));
            assert_eq!(goal(&all, target).unwrap(), expected, "{target}");
        }
        let error = goal(&all, "db").unwrap_err().to_string();
        assert!(error.ends_with("payments/db, b/db"), "{error}");
    }
}
