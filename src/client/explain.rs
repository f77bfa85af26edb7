//! Events in sentences: what a death was, and what its supervisor made of it. Pure.

use nix::sys::signal::Signal;
use restart_exporter::analytics::error_line;
use restart_exporter::wire::{Child, Decision, Event, Supervisor};

use super::times::lasting;

/// What happened, in a few words; not safe for a terminal yet.
pub(super) fn what(event: &Event) -> String {
    let (class, detail) = match &event.reason {
        Some(reason) => (&*reason.class, reason.detail.as_deref().unwrap_or_default()),
        None => ("", ""),
    };
    match &*event.event_type {
        "terminated" => death(class, detail, peak(event)),
        "start_error" => format!("did not start: {}", death(class, detail, None)),
        "restarted" => match event.cause.as_deref() {
            Some("failure") => "restarted after its failure".into(),
            Some("sibling") => "restarted because a sibling failed".into(),
            Some("requested") => "restarted on request".into(),
            _ => "restarted".into(),
        },
        "supervisor_terminated" => match class {
            "max_intensity" => format!("gave up: {detail}"),
            "error" => format!("supervisor failed: {detail}"),
            "shutdown" => "supervisor was shut down".into(),
            "unknown" => "nobody saw how the supervisor ended".into(),
            _ => "supervisor ended".into(),
        },
        "aggregated" => detail.into(),
        "mark" => event.text.clone().unwrap_or_default(),
        "started" => "started".into(),
        "waiting" => "waits for those before it to start".into(),
        "starting" => "is being started".into(),
        "stopping" => "was told to stop".into(),
        "stopped" => "stopped for good".into(),
        "configured" => "has its settings".into(),
        other => other.replace('_', " "),
    }
}

/// That nobody knows of a supervisor any more, and for how long; none if its node is heard.
pub(super) fn unheard(supervisor: &Supervisor, now: u64) -> Option<String> {
    let silent = now.saturating_sub(supervisor.silent_since?);
    Some(format!("its node is not heard for {}", lasting(silent)))
}

/// What a child that waits, starts or stops is waiting for, for how long, and how long it may take; none if it does none of
/// that.
pub(super) fn progress(child: &Child) -> Option<String> {
    let progress = child.progress.as_ref()?;
    let what = match (&*child.state, &progress.waits_for) {
        ("waiting", Some(first)) => format!("waiting for {first} to start"),
        ("waiting", None) => "waiting for its turn".into(),
        ("starting", Some(what)) => format!("starting: waiting for {what}"),
        (state, _) => state.to_owned(),
    };
    let limit = progress.limit_ms.map(|limit| format!(" of {}", lasting(limit))).unwrap_or_default();
    Some(format!("{what}, {}{limit}", lasting(progress.elapsed_ms)))
}

/// How a run ended.
fn death(class: &str, detail: &str, peak: Option<String>) -> String {
    match class {
        "normal" => "ended by itself, without an error".into(),
        "shutdown" if detail.is_empty() => "was shut down".into(),
        "shutdown" => format!("was shut down: {detail}"),
        "panic" => format!("panicked: {detail}"),
        "killed" => "killed by SIGKILL (not by the OOM killer, as far as the kernel reports)".into(),
        "oom" => match peak {
            Some(peak) => format!("out of memory (the cgroup's oom_kill counter increased); it had {peak}"),
            None => "out of memory (the cgroup's oom_kill counter increased)".into(),
        },
        "timeout" => "did not stop in time and was killed".into(),
        "signal" => match detail.strip_prefix("signal ").and_then(|number| number.parse::<i32>().ok()) {
            Some(number) => match Signal::try_from(number) {
                Ok(signal) => format!("ended by signal {number} ({signal})"),
                Err(_) => format!("ended by signal {number}"),
            },
            None => format!("ended by {detail}"),
        },
        "error" if detail.starts_with("exit code ") => format!("ended with {detail}"),
        "error" => format!("ended with an error: {detail}"),
        _ => format!("{class} {detail}"),
    }
}

/// Why last output is missing, and what shows it.
pub(super) const WITHHELD: &str = "the last output is withheld: over TCP only root and the exporter's own user may see it, on \
    its host, by localhost or a loopback address, and without a proxy. Run this command so, use --url unix:PATH, or --user \
    with a user of the web config file";

/// The line among its last words that says why.
pub(super) fn says(event: &Event) -> Option<&str> {
    error_line(event.last_output.as_deref()?)
}

/// Reason and that line, for a column.
pub(super) fn brief(event: &Event) -> String {
    let reason = match &event.reason {
        Some(reason) => match &reason.detail {
            Some(detail) if &*reason.class == "error" || &*reason.class == "signal" => detail.clone(),
            Some(detail) => format!("{}: {detail}", reason.class),
            None => reason.class.to_string(),
        },
        None => String::new(),
    };
    let start = if event.event_type == "start_error" { "did not start: " } else { "" };
    match says(event) {
        Some(line) => format!("{start}{reason} – {}", line.trim()),
        None => format!("{start}{reason}"),
    }
}

/// What the supervisor decided.
pub(super) fn decided(decision: &Decision) -> String {
    let then = match &*decision.action {
        "restart" if decision.delay_ms > 0 => format!("restarts after {}", lasting(decision.delay_ms)),
        "restart" => "restarts at once".into(),
        "leave" => "stays down".into(),
        "forget" => "is forgotten".into(),
        "give_up" => "its supervisor gives up".into(),
        "auto_shutdown" => "its supervisor shuts down".into(),
        other => other.replace('_', " "),
    };
    match decision.restarts_left {
        Some(left) if &*decision.action == "restart" => format!("{then}, {left} more allowed"),
        _ => then,
    }
}

fn peak(event: &Event) -> Option<String> {
    const MIB: u64 = 1024 * 1024;
    let bytes = event.usage.as_ref()?.peak_memory_bytes?;
    Some(if bytes < MIB { format!("{} KiB", bytes / 1024) } else { format!("{} MiB", bytes / MIB) })
}

#[cfg(test)]
mod tests {
    use restart_exporter::wire::{Reason, Usage};

    use super::*;

    fn event(event_type: &'static str, class: &'static str, detail: Option<&str>) -> Event {
        Event {
            id: 1,
            timestamp: 0,
            time: String::new(),
            event_type: event_type.into(),
            supervisor_name: Some("payments".into()),
            node: None,
            child_id: Some("api".into()),
            child_pid: None,
            reason: Some(Reason { class: class.into(), detail: detail.map(Into::into) }),
            shutdown: None,
            lifetime_ms: None,
            downtime_ms: None,
            cause: None,
            decision: None,
            last_output: None,
            last_output_withheld: false,
            usage: Some(Usage { peak_memory_bytes: Some(511 << 20), cpu_ms: 1 }),
            text: None,
        }
    }

    // Each way to end has a sentence of its own.
    #[test]
    fn each_way_to_end_is_explained() {
        let table = [
            (event("terminated", "error", Some("exit code 3")), "ended with exit code 3"),
            (event("terminated", "error", Some("SMTP 421")), "ended with an error: SMTP 421"),
            (event("terminated", "signal", Some("signal 11")), "ended by signal 11 (SIGSEGV)"),
            (
                event("terminated", "oom", None),
                "out of memory (the cgroup's oom_kill counter increased); it had 511 MiB",
            ),
            (
                event("terminated", "killed", None),
                "killed by SIGKILL (not by the OOM killer, as far as the kernel reports)",
            ),
            (event("terminated", "panic", Some("boom at src/a.rs:1:2")), "panicked: boom at src/a.rs:1:2"),
            (event("terminated", "timeout", None), "did not stop in time and was killed"),
            (event("start_error", "error", Some("no such file")), "did not start: ended with an error: no such file"),
            (event("supervisor_terminated", "max_intensity", Some("too many")), "gave up: too many"),
            (
                Event { cause: Some("sibling".into()), ..event("restarted", "", None) },
                "restarted because a sibling failed",
            ),
            (Event { cause: Some("requested".into()), ..event("restarted", "", None) }, "restarted on request"),
        ];
        for (event, expected) in table {
            assert_eq!(what(&event), expected);
        }
    }
}
