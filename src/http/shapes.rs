//! What analytics answers, in the shapes of [`wire`]. Pure.

use std::fmt::Display;
use std::time::Duration;

use crate::analytics::registry::{Name, OTHER};
use crate::analytics::{self, EventType, Fact, Remains, Verdict};
use crate::control::{Changes, Step};
use crate::event::{
    Aggregated, ChildRef, ExitReason, Mark, Payload, Phase, Pid, ReasonClass, SupervisorEvent, SupervisorExit,
    Timestamp, Usage, counted,
};
use crate::wire::{self, Word};

/// Whether what programs wrote is shown to who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LastOutput {
    /// As it is.
    Shown,
    /// As if nothing had been kept.
    Hidden,
}

/// `/api/v1/history`
pub(crate) fn history(page: &analytics::HistoryPage, output: LastOutput) -> wire::History {
    wire::History {
        supervisor: page.supervisor.supervisor.to_string(),
        capacity: page.capacity as u64,
        total: page.total,
        evicted: page.evicted,
        events: page.events.iter().map(|entry| event(&page.supervisor, entry, output)).collect(),
    }
}

/// One event of a supervisor's history.
pub(crate) fn event(supervisor: &Name, entry: &analytics::HistoryEntry, output: LastOutput) -> wire::Event {
    let analytics::HistoryEntry { event, remains: Remains { last_output, usage } } = entry;
    let common = wire::Event {
        id: event.id,
        timestamp: event.timestamp,
        time: wire::rfc3339(event.timestamp),
        event_type: Word::Borrowed(event.event_type().as_str()),
        supervisor_name: Some(supervisor.supervisor.to_string()),
        node: text(&supervisor.node),
        child_id: event.child.as_ref().map(|child| child.id.to_string()),
        child_pid: None,
        reason: event.reason().map(reason),
        shutdown: None,
        lifetime_ms: None,
        downtime_ms: None,
        cause: None,
        decision: None,
        last_output: lines(last_output, output),
        last_output_withheld: is_withheld(last_output, output),
        usage: usage.map(wire_usage),
        text: None,
    };
    match &event.fact {
        Fact::Terminated { child_pid, shutdown, lifetime_ms, decision: verdict, .. } => wire::Event {
            child_pid: text(child_pid),
            shutdown: Some(*shutdown),
            lifetime_ms: lifetime_ms.get(),
            decision: Some(decision(verdict)),
            ..common
        },
        Fact::Restarted { child_pid, cause, downtime_ms, .. } => wire::Event {
            child_pid: text(child_pid),
            downtime_ms: *downtime_ms,
            cause: Some(Word::Borrowed(cause.as_str())),
            ..common
        },
        Fact::StartError { decision: verdict, .. } => {
            wire::Event { decision: verdict.as_ref().map(decision), ..common }
        }
        Fact::Aggregated { of, count } => aggregated(of, *count, common),
        Fact::Mark { text } => {
            wire::Event { supervisor_name: None, node: None, text: Some(text.to_string()), ..common }
        }
        Fact::SupervisorTerminated { reason, lifetime_ms } => {
            wire::Event { reason: Some(supervisor_exit(reason)), lifetime_ms: lifetime_ms.get(), ..common }
        }
    }
}

/// One event as it happens; beside those of a history also first starts, ordered stops, and the supervisor's own start.
pub(crate) fn live_event(number: u64, event: &SupervisorEvent, output: LastOutput) -> wire::Event {
    let of = |event_type: &'static str, child: Option<&ChildRef>, child_pid: Option<Pid>| wire::Event {
        event_type: Word::Borrowed(event_type),
        supervisor_name: Some(event.supervisor.name.to_string()),
        node: text(&event.supervisor.node),
        child_id: child.map(|child| child.id.to_string()),
        child_pid: text(&child_pid),
        ..blank(number, event.time)
    };
    match &event.payload {
        Payload::SupervisorInit { .. } => of("supervisor_started", None, None),
        Payload::ChildStart { child, child_pid, .. } => of("started", Some(child), *child_pid),
        Payload::ChildTerminate {
            child,
            child_pid,
            reason: why,
            shutdown,
            lifetime,
            decision: verdict,
            last_output,
            usage,
        } => wire::Event {
            reason: Some(reason(why)),
            shutdown: Some(*shutdown),
            lifetime_ms: lifetime.map(millis),
            decision: Some(decision(&(*verdict).into())),
            last_output: lines(last_output, output),
            last_output_withheld: is_withheld(last_output, output),
            usage: usage.map(wire_usage),
            ..of(EventType::Terminated.as_str(), Some(child), *child_pid)
        },
        Payload::ChildRestart { child, child_pid, cause, downtime, .. } => wire::Event {
            downtime_ms: downtime.map(millis),
            cause: Some(Word::Borrowed(cause.as_str())),
            ..of(EventType::Restarted.as_str(), Some(child), *child_pid)
        },
        Payload::ChildStartError { child, reason: why, decision: verdict, last_output, .. } => wire::Event {
            reason: Some(reason(why)),
            decision: verdict.map(|verdict| decision(&verdict.into())),
            last_output: lines(last_output, output),
            last_output_withheld: is_withheld(last_output, output),
            ..of(EventType::StartError.as_str(), Some(child), None)
        },
        Payload::ChildAggregate { child, of: what, count } => {
            aggregated(what, *count, of(EventType::Aggregated.as_str(), child.as_deref(), None))
        }
        Payload::ChildStop { child, .. } => of("stopped", Some(child), None),
        Payload::ChildPhase { child, child_pid, phase } => {
            let event_type = match phase {
                Phase::Waiting => "waiting",
                Phase::Starting { .. } => "starting",
                Phase::Stopping { .. } => "stopping",
            };
            of(event_type, Some(child), *child_pid)
        }
        Payload::SupervisorConfig { .. } => of("configured", None, None),
        Payload::SupervisorTerminate { reason, lifetime } => wire::Event {
            reason: Some(supervisor_exit(reason)),
            lifetime_ms: lifetime.map(millis),
            ..of(EventType::SupervisorTerminated.as_str(), None, None)
        },
    }
}

/// `POST /api/v1/marks`
pub(crate) fn marked(mark: &Mark) -> wire::Marked {
    let timestamp = mark.time.unix_millis();
    wire::Marked { timestamp, time: wire::rfc3339(timestamp), text: mark.text.to_string() }
}

/// `POST /-/reload`
pub(crate) fn reloaded(changes: &Changes) -> wire::Reloaded {
    let failed =
        changes.failed.iter().map(|(name, reason)| wire::NotStarted { name: name.clone(), reason: reason.to_string() });
    let waiting = changes
        .waiting
        .iter()
        .map(|(name, waits_for)| wire::Waiting { name: name.clone(), waits_for: waits_for.clone() });
    wire::Reloaded {
        added: changes.added.clone(),
        removed: changes.removed.clone(),
        changed: changes.changed.clone(),
        updated: changes.updated.clone(),
        failed: failed.collect(),
        waiting: waiting.collect(),
    }
}

/// Why a reload did not do all that the file says.
pub(crate) fn incomplete(changes: &Changes) -> String {
    let failed = changes.failed.iter().map(|(name, reason)| format!("{name} did not start: {reason}"));
    let waiting = changes.waiting.iter().map(|(name, first)| format!("{name} waits for {first}"));
    failed.chain(waiting).collect::<Vec<_>>().join("; ")
}

/// `POST /-/reload?dry_run=1`
pub(crate) fn plan(steps: &[Step]) -> wire::Plan {
    let steps = steps.iter().map(|step| wire::Step {
        action: Word::Borrowed(step.action.as_str()),
        name: step.name.clone(),
        why: step.why.clone(),
    });
    wire::Plan { steps: steps.collect() }
}

/// What was counted together says how many and of what.
fn aggregated(of: &Aggregated, count: u64, common: wire::Event) -> wire::Event {
    let (class, shutdown) = match of {
        Aggregated::Started | Aggregated::Restarted { .. } => (None, None),
        Aggregated::StartErrors => (Some(ReasonClass::Error.as_str()), None),
        Aggregated::Terminated { class, shutdown, .. } => (Some(class.as_str()), Some(*shutdown)),
    };
    let cause = match of {
        Aggregated::Restarted { cause } => Some(Word::Borrowed(cause.as_str())),
        _ => None,
    };
    let detail = Some(format!("{}, counted in the node without details", in_numbers(of, count)));
    let reason = Some(wire::Reason { class: class.unwrap_or("unknown").into(), detail });
    wire::Event { shutdown, cause, reason, ..common }
}

/// `21738 deaths`
pub(crate) fn in_numbers(of: &Aggregated, count: u64) -> String {
    let (one, many) = match of {
        Aggregated::Started => ("start", "starts"),
        Aggregated::StartErrors => ("failed start", "failed starts"),
        Aggregated::Terminated { .. } => ("death", "deaths"),
        Aggregated::Restarted { .. } => ("restart", "restarts"),
    };
    counted(count, one, many)
}

/// A mark as it is made.
pub(crate) fn live_mark(number: u64, mark: &Mark) -> wire::Event {
    wire::Event {
        event_type: Word::Borrowed(EventType::Mark.as_str()),
        text: Some(mark.text.to_string()),
        ..blank(number, mark.time)
    }
}

/// A live event that says nothing yet.
fn blank(number: u64, time: Timestamp) -> wire::Event {
    let timestamp = time.unix_millis();
    wire::Event {
        id: number,
        timestamp,
        time: wire::rfc3339(timestamp),
        event_type: Word::Borrowed(""),
        supervisor_name: None,
        node: None,
        child_id: None,
        child_pid: None,
        reason: None,
        shutdown: None,
        lifetime_ms: None,
        downtime_ms: None,
        cause: None,
        decision: None,
        last_output: None,
        last_output_withheld: false,
        usage: None,
        text: None,
    }
}

/// `/api/v1/failure_rate`
pub(crate) fn failure_rate(rate: &analytics::FailureRate) -> wire::FailureRate {
    wire::FailureRate {
        restarts: rate.restarts,
        rate: rate.rate,
        failures: rate.failures,
        window_ms: millis(rate.window),
        complete: rate.complete,
    }
}

/// `/api/v1/stats`
pub(crate) fn stats(stats: &analytics::AllStats) -> wire::Stats {
    let supervisor_stats = stats.supervisor_stats.iter().map(|row| wire::SupervisorStats {
        supervisor_name: row.supervisor.supervisor.to_string(),
        supervisor_pid: text(&row.id),
        node: text(&row.supervisor.node),
        total_restarts: row.total_restarts,
        total_failures: row.total_failures,
        recent_restarts: row.recent_restarts,
        last_restart: row.last_restart,
    });
    wire::Stats {
        total_supervisors: stats.total_supervisors as u64,
        total_restarts: stats.total_restarts,
        total_failures: stats.total_failures,
        uptime_ms: millis(stats.uptime),
        supervisor_stats: supervisor_stats.collect(),
    }
}

/// One supervisor of `/api/v1/supervisors`.
pub(crate) fn supervisor(view: &analytics::SupervisorView, output: LastOutput) -> wire::Supervisor {
    let config = view.config.as_ref();
    wire::Supervisor {
        name: view.supervisor.supervisor.to_string(),
        node: text(&view.supervisor.node),
        id: text(&view.id),
        parent: config.and_then(|config| text(&config.parent)),
        up: view.up,
        strategy: config.and_then(|config| config.strategy).map(|strategy| Word::Borrowed(strategy.as_str())),
        max_restarts: config.and_then(|config| config.max_restarts),
        max_seconds: config.and_then(|config| config.max_seconds),
        budget_can_run_out: config.and_then(|config| config.budget_can_run_out),
        restarts_in_window: view.restarts_in_window,
        restarts_left: view.restarts_left,
        health: Word::Borrowed(view.health.as_str()),
        silent_since: view.silent_since,
        uptime_ms: view.uptime.map(millis),
        total_restarts: view.total_restarts,
        total_failures: view.total_failures,
        last_end: view.last_end.as_ref().map(|end| event(&view.supervisor, end, output)),
        children: view.children.iter().map(|child_view| child(&view.supervisor, child_view, output)).collect(),
    }
}

/// `/api/v1/causes`
pub(crate) fn causes(page: &analytics::CausesPage, output: LastOutput) -> wire::Causes {
    let causes = page.causes.iter().map(|one| cause(&page.supervisor, one, output));
    wire::Causes { supervisor: page.supervisor.supervisor.to_string(), causes: causes.collect() }
}

/// One cause of `/api/v1/causes` and of `/api/v1/same_causes`.
pub(crate) fn cause(supervisor: &Name, cause: &analytics::Cause, output: LastOutput) -> wire::Cause {
    wire::Cause {
        fingerprint: cause.fingerprint.map_or_else(|| OTHER.to_owned(), hex),
        reason_fingerprint: cause.reason_fingerprint.map(hex),
        child_id: text(&cause.child),
        count: cause.count,
        first: cause.first,
        last: cause.last,
        sample: event(supervisor, &cause.sample, output),
    }
}

fn child(supervisor: &Name, view: &analytics::ChildView, output: LastOutput) -> wire::Child {
    wire::Child {
        id: view.child.id.to_string(),
        label: Some(view.child.label.to_string()),
        pid: text(&view.pid),
        state: Word::Borrowed(view.state.as_str()),
        child_type: Word::Borrowed(view.child.child_type.as_str()),
        restart: view.child.restart.map(|restart| Word::Borrowed(restart.as_str())),
        restarts: view.restarts,
        uptime_ms: view.uptime.map(millis),
        progress: view.progress.as_ref().map(progress),
        next_try_ms: view.next_try.map(millis),
        last_death: view.last_death.as_ref().map(|death| event(supervisor, death, output)),
        reason_fingerprint: view.reason_fingerprint.map(hex),
        health: Word::Borrowed(view.health.as_str()),
        looping: view.looping.as_ref().map(looping),
        deaths_hour: view.deaths_hour,
        deaths_day: view.deaths_day,
    }
}

fn progress(progress: &analytics::ChildProgress) -> wire::Progress {
    wire::Progress {
        waits_for: text(&progress.waits_for),
        elapsed_ms: millis(progress.elapsed),
        limit_ms: progress.limit.map(millis),
    }
}

fn looping(looping: &analytics::Looping) -> wire::Looping {
    wire::Looping {
        since: looping.since,
        since_time: wire::rfc3339(looping.since),
        lasting_ms: millis(looping.lasting),
        up_ms: millis(looping.up),
        deaths: looping.deaths,
    }
}

fn hex(fingerprint: u64) -> String {
    format!("{fingerprint:016x}")
}

fn reason(reason: &ExitReason) -> wire::Reason {
    wire::Reason { class: Word::Borrowed(reason.class().as_str()), detail: reason.detail() }
}

fn supervisor_exit(reason: &SupervisorExit) -> wire::Reason {
    wire::Reason { class: Word::Borrowed(reason.class().as_str()), detail: text(&reason.detail()) }
}

fn wire_usage(usage: Usage) -> wire::Usage {
    wire::Usage { peak_memory_bytes: usage.peak_memory_bytes, cpu_ms: millis(usage.cpu) }
}

fn lines(lines: &Option<analytics::Output>, output: LastOutput) -> Option<Vec<String>> {
    let lines = lines.as_ref().filter(|_| output == LastOutput::Shown)?;
    Some(lines.iter().map(|line| line.to_string()).collect())
}

fn is_withheld(lines: &Option<analytics::Output>, output: LastOutput) -> bool {
    output == LastOutput::Hidden && lines.as_ref().is_some_and(|lines| !lines.is_empty())
}

fn decision(verdict: &Verdict) -> wire::Decision {
    wire::Decision {
        action: Word::Borrowed(verdict.action.as_str()),
        delay_ms: verdict.delay_ms.into(),
        restarts_left: verdict.restarts_left(),
    }
}

fn text(value: &Option<impl Display>) -> Option<String> {
    value.as_ref().map(ToString::to_string)
}

fn millis(duration: Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
