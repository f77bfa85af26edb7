//! Log lines on standard error, as logfmt or JSON, with the keys `ts`, `level`, `msg`, then the fields.

use std::fmt::{self, Write};
use std::time::{Duration, Instant};

use humantime::format_duration;
use parking_lot::Mutex;
use restart_exporter::event::{self, Action, EventKind, Payload, SupervisorEvent, SupervisorExit};
use restart_exporter::telemetry::{AttachError, Telemetry, monotonic_now};
use restart_exporter::text;
use restart_exporter::wire::{self, LogLine};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber, error, info, warn};
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use crate::cli::{LogFormat, LogLevel};

/// Lines that wait for a slow reader of standard error; those beyond are dropped, because a log that blocks would block
/// the supervisor that writes it.
const MAX_BUFFERED_LINES: usize = 8192;

/// Most lines about failures within a second: a node may have ten thousand. The history has them all the same.
const MAX_FAILURES_A_SECOND: u32 = 100;

/// Starts logging. What is buffered is written when the guard is dropped.
pub(crate) fn init(level: LogLevel, format: LogFormat) -> WorkerGuard {
    let (writer, guard) =
        NonBlockingBuilder::default().buffered_lines_limit(MAX_BUFFERED_LINES).finish(std::io::stderr());
    let level = match level {
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Error => LevelFilter::ERROR,
    };
    // The libraries below us say much at the level debug, in words of their own.
    let levels = Targets::new().with_target("restart_exporter", level).with_default(level.min(LevelFilter::WARN));
    let lines = tracing_subscriber::fmt::layer().with_writer(writer).event_format(Lines(format));
    tracing_subscriber::registry().with(lines).with(levels).init();
    guard
}

/// Logs what a person wants to read beside the output of the children: each failure, each end of a supervisor, and marks.
pub(crate) fn attach(telemetry: &Telemetry) -> Result<(), AttachError> {
    let kinds =
        [EventKind::ChildStartError, EventKind::ChildTerminate, EventKind::SupervisorTerminate, EventKind::Mark];
    let failures = Mutex::new(Failures::default());
    telemetry.attach_many("log", &kinds, move |event: &event::Event| match event {
        event::Event::Supervisor(event) => log(event, &failures),
        event::Event::Mark(mark) => info!(text = &*mark.text, "mark"),
        event::Event::HandlerFailure(_) | event::Event::Span(_) | event::Event::Node(_) => {}
    })
}

/// Lines about failures within the second that is under way.
#[derive(Default)]
struct Failures {
    since: Option<Instant>,
    told: u32,
    untold: u64,
}

impl Failures {
    /// One more failure; if there is room to tell it, how many before it were not told.
    fn one_more(&mut self, now: Instant) -> Option<u64> {
        if self.since.is_none_or(|since| now.saturating_duration_since(since) >= Duration::from_secs(1)) {
            (self.since, self.told) = (Some(now), 0);
        }
        if self.told == MAX_FAILURES_A_SECOND {
            self.untold += 1;
            return None;
        }
        self.told += 1;
        Some(std::mem::take(&mut self.untold))
    }
}

/// Is there room for a line about a failure? Says before it how many there were without.
fn is_told(failures: &Mutex<Failures>) -> bool {
    let untold = failures.lock().one_more(monotonic_now());
    if let Some(count @ 1..) = untold {
        warn!(count, "failures without a line: there were too many at once");
    }
    untold.is_some()
}

fn log(event: &SupervisorEvent, failures: &Mutex<Failures>) {
    let (supervisor, node) = (&*event.supervisor.name, event.supervisor.node.as_deref());
    match &event.payload {
        Payload::ChildTerminate { child, child_pid, reason, shutdown: false, lifetime, decision, .. }
            if (reason.is_abnormal() || decision.action == Action::Restart) && is_told(failures) =>
        {
            let (child, action, left) = (&*child.id, decision.action, Known(decision.restarts_left));
            let ran = lifetime.map(|ran| format_duration(Duration::from_millis(ran.as_millis() as u64)).to_string());
            let (ran, pid) = (Known(ran), Known(*child_pid));
            warn!(supervisor, node, child, %pid, %reason, %ran, %action, restarts_left = %left, "child terminated");
        }
        Payload::ChildStartError { child, reason, attempt, decision, .. } if is_told(failures) => {
            let left = Known(decision.and_then(|decision| decision.restarts_left));
            warn!(supervisor, node, child = &*child.id, %reason, attempt, restarts_left = %left, "child failed to start");
        }
        Payload::SupervisorTerminate { reason, .. } => match reason {
            SupervisorExit::Normal | SupervisorExit::Shutdown => info!(supervisor, node, %reason, "supervisor ended"),
            SupervisorExit::MaxIntensity(_) => error!(supervisor, node, %reason, "supervisor gave up"),
            SupervisorExit::Error(_) => error!(supervisor, node, %reason, "supervisor failed"),
            SupervisorExit::Unknown(_) => warn!(supervisor, node, %reason, "supervisor is not seen any more"),
        },
        _ => {}
    }
}

/// What is known, or that it is not.
struct Known<T>(Option<T>);

impl<T: fmt::Display> fmt::Display for Known<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(known) => known.fmt(f),
            None => f.write_str("unknown"),
        }
    }
}

struct Lines(LogFormat);

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let ts = humantime::format_rfc3339_millis(std::time::SystemTime::now()).to_string();
        let level = level_name(*event.metadata().level());
        match self.0 {
            LogFormat::Json => {
                let line =
                    LogLine { ts, level: level.into(), msg: fields.message, fields: fields.rest.into_iter().collect() };
                writeln!(writer, "{}", wire::json(&line))
            }
            LogFormat::Logfmt => {
                write!(writer, "ts={ts} level={level} msg={}", Value(&fields.message))?;
                for (name, value) in &fields.rest {
                    write!(writer, " {name}={}", Value(value))?;
                }
                writeln!(writer)
            }
        }
    }
}

fn level_name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG | Level::TRACE => "debug",
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    rest: Vec<(String, String)>,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value.into());
    }
}

impl Fields {
    fn add(&mut self, field: &Field, value: String) {
        if field.name() == "message" {
            self.message = value;
        } else {
            self.rest.push((field.name().into(), value));
        }
    }
}

/// A logfmt value: quoted where a reader would else misread it. Within quotes the escapes are those of JSON, as readers of
/// logfmt expect.
struct Value<'a>(&'a str);

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = |c: char| !c.is_whitespace() && !text::is_unseen(c) && !matches!(c, '"' | '=' | '\\');
        if !self.0.is_empty() && self.0.chars().all(plain) {
            return f.write_str(self.0);
        }
        f.write_char('"')?;
        for c in self.0.chars() {
            match c {
                '"' | '\\' => write!(f, "\\{c}")?,
                '\n' => f.write_str("\\n")?,
                c if text::is_unseen(c) => f.write_str(&text::json_escape(c))?,
                c => f.write_char(c)?,
            }
        }
        f.write_char('"')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // A crash loop must not fill the disk: so many lines a second, and then how many are missing.
    #[test]
    fn of_failures_the_log_tells_so_many_a_second() {
        let (mut failures, begin) = (Failures::default(), monotonic_now());
        let told = |failures: &mut Failures, ms| failures.one_more(begin + Duration::from_millis(ms));
        let first: Vec<_> = (0..MAX_FAILURES_A_SECOND + 2).map(|_| told(&mut failures, 0)).collect();
        assert_eq!(first.iter().flatten().count(), MAX_FAILURES_A_SECOND as usize);
        assert_eq!(told(&mut failures, 999), None);
        assert_eq!((told(&mut failures, 1000), told(&mut failures, 1000)), (Some(3), Some(0)));
    }

    // A value never breaks out of its line or its place, whatever a child said.
    #[test]
    fn a_value_is_quoted_where_it_would_be_misread() {
        let table = [
            ("plain", "plain"),
            ("a/b:1", "a/b:1"),
            ("", "\"\""),
            ("two words", "\"two words\""),
            ("a=b", "\"a=b\""),
            ("say \"x\"\n\u{1b}[1m", "\"say \\\"x\\\"\\n\\u001b[1m\""),
            ("a\u{202e}b\u{e0041}", "\"a\\u202eb\\udb40\\udc41\""),
            ("日本", "日本"),
        ];
        for (value, expected) in table {
            assert_eq!(Value(value).to_string(), expected);
        }
    }
}
