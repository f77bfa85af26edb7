//! From tables to supervisors: what goes together is checked here, each fault with its place.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use nix::unistd::{Group, Uid, User, geteuid};
use toml::Spanned;

use super::tables::{
    BackoffKey, BackoffTable, ChildTable, CommandLine, Decimal, LastOutputTable, Ranged, ReadyTable, SupervisorTable,
    Umask, Word,
};
use crate::supervisor::{
    Backoff, ChildSpec, Credentials, LastOutputLimits, Probing, Program, Readiness, SpecError, StartErrorPolicy,
    Supervisor,
};
use crate::text;

/// What is wrong, at which bytes of the file, under which key.
pub(super) struct Fault {
    pub(super) span: Range<usize>,
    pub(super) key: String,
    pub(super) message: String,
}

fn fault<T>(value: &Spanned<T>, key: String, message: String) -> Fault {
    Fault { span: value.span(), key, message }
}

/// Builds the top supervisors, each with those that name it as their parent.
pub(super) fn supervisors(tables: Vec<SupervisorTable>) -> Result<Vec<Supervisor>, Fault> {
    let mut names = BTreeMap::new();
    let mut parents = Vec::with_capacity(tables.len());
    for (index, table) in tables.iter().enumerate() {
        let name = table.name.get_ref();
        check_seen(&table.name, || format!("supervisor[{index}].name"))?;
        if names.insert(name.clone(), index).is_some() {
            let message = format!("another supervisor is named {name:?}");
            return Err(fault(&table.name, format!("supervisor[{index}].name"), message));
        }
    }
    for (index, table) in tables.iter().enumerate() {
        let parent = match &table.parent {
            None => None,
            Some(parent) => Some(*names.get(parent.get_ref()).ok_or_else(|| {
                let message = format!("no supervisor is named {:?}", parent.get_ref());
                fault(parent, format!("supervisor[{index}].parent"), message)
            })?),
        };
        parents.push(parent);
    }
    check_cycles(&tables, &parents)?;

    let mut built: Vec<Option<Supervisor>> = Vec::with_capacity(tables.len());
    let mut places = Vec::with_capacity(tables.len());
    for (index, table) in tables.into_iter().enumerate() {
        places.push(table.name.span());
        built.push(Some(supervisor(index, table)?));
    }
    // Those below first, so that each is complete when it becomes a child.
    let mut order: Vec<usize> = (0..built.len()).collect();
    order.sort_by_key(|index| std::cmp::Reverse(depth(*index, &parents)));
    let mut below: Vec<Vec<(usize, Supervisor)>> = built.iter().map(|_| Vec::new()).collect();
    let mut tops = Vec::new();
    for index in order {
        let Some(mut supervisor) = built[index].take() else { continue };
        let mut children = std::mem::take(&mut below[index]);
        // In the order of the file, after the supervisor's own children.
        children.sort_by_key(|(index, _)| *index);
        for (below, child) in children {
            supervisor = supervisor.child(ChildSpec::supervisor(child).start_error(StartErrorPolicy::Retry));
            // The only rule left that it can break: an id of its own among the parent's children.
            supervisor.check().map_err(|error| Fault {
                span: places[below].clone(),
                key: format!("supervisor[{below}].name"),
                message: error.to_string(),
            })?;
        }
        match parents[index] {
            Some(parent) => below[parent].push((index, supervisor)),
            None => tops.push((index, supervisor)),
        }
    }
    tops.sort_by_key(|(index, _)| *index);
    Ok(tops.into_iter().map(|(_, supervisor)| supervisor).collect())
}

/// A name is read by people and typed by them, so it has nothing in it that they cannot see.
fn check_seen(name: &Spanned<String>, key: impl Fn() -> String) -> Result<(), Fault> {
    match name.get_ref().chars().find(|character| text::is_unseen(*character)) {
        Some(unseen) => {
            let message =
                format!("U+{:04X} in the name is invisible or a control character: leave it out", u32::from(unseen));
            Err(fault(name, key(), message))
        }
        None => Ok(()),
    }
}

fn check_cycles(tables: &[SupervisorTable], parents: &[Option<usize>]) -> Result<(), Fault> {
    for (index, table) in tables.iter().enumerate() {
        let mut above = parents[index];
        // A path longer than there are supervisors goes round.
        for _ in 0..tables.len() {
            above = above.and_then(|above| parents[above]);
        }
        if let (Some(_), Some(parent)) = (above, &table.parent) {
            let message = format!("{:?} would be above itself", table.name.get_ref());
            return Err(fault(parent, format!("supervisor[{index}].parent"), message));
        }
    }
    Ok(())
}

fn depth(index: usize, parents: &[Option<usize>]) -> usize {
    std::iter::successors(parents[index], |above| parents[*above]).count()
}

fn supervisor(index: usize, table: SupervisorTable) -> Result<Supervisor, Fault> {
    let name = table.name;
    let mut supervisor = Supervisor::new(name.get_ref().as_str());
    if let Some(Word(strategy)) = table.strategy {
        supervisor = supervisor.strategy(strategy);
    }
    if let Some(Ranged(max_restarts)) = table.max_restarts {
        supervisor = supervisor.max_restarts(max_restarts as u32);
    }
    if let Some(Ranged(max_seconds)) = table.max_seconds {
        supervisor = supervisor.max_seconds(max_seconds as u32);
    }
    if let Some(Word(auto_shutdown)) = table.auto_shutdown {
        supervisor = supervisor.auto_shutdown(auto_shutdown);
    }
    // Checked before it has children, so that each fault is told at its own place.
    supervisor.check().map_err(|error| fault(&name, format!("supervisor[{index}].name"), error.to_string()))?;
    for (number, child) in table.child.into_iter().enumerate() {
        let key = format!("supervisor[{index}].child[{number}]");
        check_seen(&child.id, || format!("{key}.id"))?;
        let (id, significant) = (child.id.span(), child.significant.as_ref().map(Spanned::span));
        supervisor = supervisor.child(spec(&key, child)?);
        supervisor.check().map_err(|error| {
            let (span, name) = match (&error, significant) {
                (SpecError::SignificantNever(_) | SpecError::SignificantPermanent(_), Some(span)) => {
                    (span, "significant")
                }
                _ => (id, "id"),
            };
            Fault { span, key: format!("{key}.{name}"), message: error.to_string() }
        })?;
    }
    Ok(supervisor)
}

fn spec(key: &str, table: ChildTable) -> Result<ChildSpec, Fault> {
    let mut program = command(key, &table)?;
    if let Some(Word(signal)) = table.stop_signal {
        program = program.stop_signal(signal);
    }
    if let Some(Umask(umask)) = table.umask {
        program = program.umask(umask);
    }
    if let Some(credentials) = credentials(key, &table)? {
        program = program.credentials(credentials);
    }
    if let Some(ready) = &table.ready {
        program = program.readiness(readiness(&format!("{key}.ready"), ready)?);
    }
    if let Some(Word(pass_on)) = table.output {
        program = program.pass_on(pass_on);
    }
    if let Some(LastOutputTable { lines, bytes, stdout }) = table.last_output {
        let default = LastOutputLimits::default();
        program = program
            .last_output(LastOutputLimits {
                lines: lines.map_or(default.lines, |lines| lines.0),
                bytes: bytes.map_or(default.bytes, |bytes| bytes.0),
            })
            .keep_stdout(stdout.unwrap_or(false));
    }
    program = program.ok_exit_codes(table.ok_exit_codes.iter().map(|Ranged(code)| *code as i32));

    // A typo in one command must not keep the other programs from starting.
    let start_error = table.start_error.map_or(StartErrorPolicy::Retry, |Word(policy)| policy);
    let mut spec = ChildSpec::program(table.id.into_inner(), program).start_error(start_error);
    spec = spec.significant(table.significant.is_some_and(Spanned::into_inner));
    if let Some(Word(restart)) = table.restart {
        spec = spec.restart(restart);
    }
    if let Some(Word(shutdown)) = table.shutdown {
        spec = spec.shutdown(shutdown);
    }
    spec = match table.backoff {
        None => spec,
        Some(BackoffKey::None) => spec.backoff(None),
        Some(BackoffKey::Table(table)) => spec.backoff(backoff(&format!("{key}.backoff"), table)?),
    };
    Ok(spec)
}

/// The program with its environment and directory; it must exist.
fn command(key: &str, table: &ChildTable) -> Result<Program, Fault> {
    let at_command = |message: &str| fault(&table.command, format!("{key}.command"), message.into());
    let program = match (table.command.get_ref(), table.shell.unwrap_or(false)) {
        (CommandLine::Line(line), true) if line.trim().is_empty() => return Err(at_command("the command is empty")),
        (CommandLine::Line(line), true) if line.contains('\0') => {
            return Err(at_command("no program takes an argument with a NUL in it"));
        }
        (CommandLine::Line(line), true) => Program::shell(line.as_str()),
        (CommandLine::Line(_), false) => {
            return Err(at_command("a string needs `shell = true`; without a shell: [\"program\", \"argument\"]"));
        }
        (CommandLine::Argv(_), true) => return Err(at_command("with `shell = true` the command is one string")),
        (CommandLine::Argv(argv), false) if argv.iter().any(|word| word.contains('\0')) => {
            return Err(at_command("no program takes an argument with a NUL in it"));
        }
        (CommandLine::Argv(argv), false) => match argv.split_first() {
            Some((program, args)) if !program.is_empty() => Program::new(program.as_str()).args(args),
            _ => return Err(at_command("the command is empty")),
        },
    };
    let mut program = program;
    for (name, value) in &table.env {
        if name.is_empty() || name.contains(['=', '\0']) || value.get_ref().contains('\0') {
            let message = "a variable's name has no `=` in it and is not empty, and neither it nor its value has a NUL";
            return Err(fault(value, format!("{key}.env.{name:?}"), message.into()));
        }
        program = program.env(name.as_str(), value.get_ref().as_str());
    }
    match (&table.env_inherit, table.env_clear.unwrap_or(false)) {
        (Some(inherit), false) => {
            let message = "only with `env_clear = true`: without it all variables are inherited".into();
            return Err(fault(inherit, format!("{key}.env_inherit"), message));
        }
        (Some(inherit), true) => program = program.env_clear(inherit.get_ref().iter().map(String::as_str)),
        (None, true) => program = program.env_clear([] as [&str; 0]),
        (None, false) => {}
    }
    if let Some(cwd) = &table.cwd {
        if !cwd.get_ref().is_dir() {
            let message = format!("{} is not a directory", cwd.get_ref().display());
            return Err(fault(cwd, format!("{key}.cwd"), message));
        }
        program = program.cwd(cwd.get_ref());
    }
    if program.find().is_none() {
        let name = program.name();
        return Err(at_command(&format!("no executable file {name:?}, neither as a path nor in PATH")));
    }
    Ok(program)
}

fn credentials(key: &str, table: &ChildTable) -> Result<Option<Credentials>, Fault> {
    let user = match &table.user {
        None => None,
        Some(name) => match find_user(name.get_ref()) {
            Some(user) => Some(user),
            None => {
                return Err(fault(name, format!("{key}.user"), format!("no user {:?}", name.get_ref())));
            }
        },
    };
    let group = match &table.group {
        None => None,
        Some(name) => match find_group(name.get_ref()) {
            Some(group) => Some(group),
            None => {
                return Err(fault(name, format!("{key}.group"), format!("no group {:?}", name.get_ref())));
            }
        },
    };
    let (Some(place), key) = (table.user.as_ref().or(table.group.as_ref()), format!("{key}.user")) else {
        return Ok(None);
    };
    if !geteuid().is_root() {
        return Err(fault(place, key, "only root can run a program as another user or group".into()));
    }
    let (uid, own_group) = user.unwrap_or((geteuid().as_raw(), nix::unistd::getegid().as_raw()));
    Ok(Some(Credentials { uid, gid: group.unwrap_or(own_group) }))
}

/// A user by name or number, with its own group.
fn find_user(name: &str) -> Option<(u32, u32)> {
    let by_name = User::from_name(name).ok().flatten();
    let by_number = || name.parse().ok().and_then(|uid| User::from_uid(Uid::from_raw(uid)).ok().flatten());
    by_name.or_else(by_number).map(|user| (user.uid.as_raw(), user.gid.as_raw()))
}

fn find_group(name: &str) -> Option<u32> {
    let by_name = Group::from_name(name).ok().flatten().map(|group| group.gid.as_raw());
    // The system reads the greatest number as "leave it as it is".
    by_name.or_else(|| name.parse().ok().filter(|gid| *gid != u32::MAX))
}

fn readiness(key: &str, table: &Spanned<ReadyTable>) -> Result<Readiness, Fault> {
    let ready = table.get_ref();
    let default = Probing::default();
    let positive = |name: &str, value: &Option<Spanned<Word<Duration>>>, default| match value {
        Some(value) if value.get_ref().0.is_zero() => {
            Err(fault(value, format!("{key}.{name}"), "must be more than 0, such as `200ms`".into()))
        }
        value => Ok(value.as_ref().map_or(default, |value| value.get_ref().0)),
    };
    let probing = Probing {
        interval: positive("interval", &ready.interval, default.interval)?,
        timeout: positive("timeout", &ready.timeout, default.timeout)?,
    };
    let one = "exactly one of `stable_after`, `exec`, `tcp`, `http`";
    match (&ready.stable_after, &ready.exec, &ready.tcp, &ready.http) {
        (Some(_), None, None, None) if ready.interval.is_some() || ready.timeout.is_some() => {
            Err(fault(table, key.into(), "`interval` and `timeout` are for probes, not for `stable_after`".into()))
        }
        (Some(Word(time)), None, None, None) => Ok(Readiness::StableAfter(*time)),
        (None, Some(argv), None, None) if argv.get_ref().iter().any(|word| word.contains('\0')) => {
            Err(fault(argv, format!("{key}.exec"), "no program takes an argument with a NUL in it".into()))
        }
        (None, Some(argv), None, None) => match argv.get_ref().first() {
            Some(program) if Program::new(program.as_str()).find().is_some() => {
                Ok(Readiness::Exec(argv.get_ref().clone(), probing))
            }
            Some(program) => {
                let message = format!("no executable file {program:?}, neither as a path nor in PATH");
                Err(fault(argv, format!("{key}.exec"), message))
            }
            None => Err(fault(argv, format!("{key}.exec"), "the command is empty".into())),
        },
        (None, None, Some(address), None) => match address.get_ref().rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0) => {
                Ok(Readiness::Tcp(address.get_ref().clone(), probing))
            }
            _ => Err(fault(address, format!("{key}.tcp"), format!("{:?} is not `host:port`", address.get_ref()))),
        },
        (None, None, None, Some(url)) => match url.get_ref().parse::<hyper::Uri>() {
            Ok(uri) if uri.scheme_str() == Some("http") && uri.host().is_some() => {
                Ok(Readiness::Http(url.get_ref().clone(), probing))
            }
            _ => {
                let message = format!("{:?} is not `http://host:port/path`", url.get_ref());
                Err(fault(url, format!("{key}.http"), message))
            }
        },
        _ => Err(fault(table, key.into(), one.into())),
    }
}

fn backoff(key: &str, table: BackoffTable) -> Result<Backoff, Fault> {
    let default = Backoff::OF_PROCESSES;
    let or = |word: &Option<Spanned<Word<Duration>>>, default| word.as_ref().map_or(default, |word| word.get_ref().0);
    let initial = or(&table.initial, default.initial);
    let backoff = Backoff {
        initial,
        max: or(&table.max, default.max.max(initial)),
        factor: table.factor.map_or(default.factor, |Decimal(factor)| factor),
        jitter: table.jitter.map_or(default.jitter, |Decimal(jitter)| jitter),
        reset_after: table.reset_after.map_or(default.reset_after, |Word(time)| time),
    };
    // Only the waits are left to be wrong, and one of the two was given: the defaults are fine.
    match (backoff.check(), table.max, table.initial) {
        (Err(error), Some(max), _) => Err(fault(&max, format!("{key}.max"), error.to_string())),
        (Err(error), None, Some(initial)) => Err(fault(&initial, format!("{key}.initial"), error.to_string())),
        _ => Ok(backoff),
    }
}
