//! The only JSON shapes: what the HTTP API writes and its clients read.
//!
//! Field names are part of the contract. An unknown value is `null`, never left out and never 0. A `timestamp` is in Unix
//! milliseconds and has an RFC 3339 twin `time` where a person reads it. Words of closed sets (strategies, states, reason
//! classes) are strings, so that a client can read a word that is newer than itself. Names and reasons are what they are, but
//! `error` is a sentence for people and has [nothing unseen](text::lines) in it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::text;

/// A word of a closed set: borrowed when written, owned when read.
pub type Word = Cow<'static, str>;

/// Every answer of the API, in the form of Prometheus' own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "lowercase")]
pub enum Envelope<T> {
    /// The question was answered.
    Success {
        /// When, by the exporter's clock, in Unix milliseconds: "12 s ago" is counted from it.
        now: u64,
        /// The answer.
        data: T,
    },
    /// It was not.
    Error {
        /// When, by the exporter's clock, in Unix milliseconds.
        now: u64,
        /// Which kind of error: `not_found`, `bad_data`, …
        #[serde(rename = "errorType")]
        error_type: Word,
        /// What a person should know.
        error: String,
        /// What was done nevertheless, where that is the question.
        #[serde(default = "none", skip_serializing_if = "Option::is_none")]
        data: Option<T>,
    },
}

/// No data, of whatever shape.
fn none<T>() -> Option<T> {
    None
}

/// `/api/v1/history`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// The supervisor's name.
    pub supervisor: String,
    /// Most events kept.
    pub capacity: u64,
    /// Events that ever entered the history.
    pub total: u64,
    /// Events that left it because newer ones came.
    pub evicted: u64,
    /// Newest first.
    pub events: Vec<Event>,
}

/// One event of a history, or of `/api/v1/events`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Running number from 1: in a history within the supervisor's name, in live events within this exporter's life.
    pub id: u64,
    /// When, in Unix milliseconds.
    pub timestamp: u64,
    /// When, in RFC 3339.
    pub time: String,
    /// `terminated`, `restarted`, `start_error`, `supervisor_terminated` or `mark`; in live events also `waiting`, `starting`,
    /// `started`, `stopping`, `stopped`, `supervisor_started` and `configured`.
    pub event_type: Word,
    /// The supervisor's name; null for a mark, which belongs to none.
    pub supervisor_name: Option<String>,
    /// The Erlang node it lives on; null in the exporter's own process.
    pub node: Option<String>,
    /// The child's id; null for the supervisor's own end and for a mark.
    pub child_id: Option<String>,
    /// The run that ended, or the new one.
    pub child_pid: Option<String>,
    /// Why a child ended or did not start, or why the supervisor ended.
    pub reason: Option<Reason>,
    /// Did the supervisor order the end?
    pub shutdown: Option<bool>,
    /// Milliseconds from ready to the end.
    pub lifetime_ms: Option<u64>,
    /// Milliseconds from the end until the next run was ready.
    pub downtime_ms: Option<u64>,
    /// Whose failure or wish a restart was: `failure`, `sibling` or `requested`.
    pub cause: Option<Word>,
    /// What the supervisor decided.
    pub decision: Option<Decision>,
    /// The last lines that the run which ended wrote, oldest first; null if not captured, not kept, or withheld.
    pub last_output: Option<Vec<String>>,
    /// True if there is last output and the asker may not see it; left out otherwise.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub last_output_withheld: bool,
    /// What the run used; `null` where it is not known or not kept any more.
    pub usage: Option<Usage>,
    /// What a mark says; null for all other events.
    pub text: Option<String>,
}

/// What a process used in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Most memory it had resident at once; `null` if it is not known, because it was less than what the process had when it
    /// was started.
    pub peak_memory_bytes: Option<u64>,
    /// Processor time in milliseconds, user and system.
    pub cpu_ms: u64,
}

/// Why something ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// A word of a closed set.
    pub class: Word,
    /// What is known beyond the class.
    pub detail: Option<String>,
}

/// What a supervisor decided about a child.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// `restart`, `leave`, `forget`, `give_up` or `auto_shutdown`.
    pub action: Word,
    /// Milliseconds it waits before.
    pub delay_ms: u64,
    /// Restarts that the window still allowed afterwards.
    pub restarts_left: Option<u32>,
}

/// `/api/v1/failure_rate`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FailureRate {
    /// Restarts in the window.
    pub restarts: u64,
    /// Restarts per second.
    pub rate: f64,
    /// Failures in the window.
    pub failures: u64,
    /// Length of the window, which ends now.
    pub window_ms: u64,
    /// True if the counts are exact; else they are the most that can be proven.
    pub complete: bool,
}

/// `/api/v1/stats`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Supervisors that are remembered.
    pub total_supervisors: u64,
    /// Restarts of all supervisors ever.
    pub total_restarts: u64,
    /// Failures of all supervisors ever.
    pub total_failures: u64,
    /// Milliseconds since counting began.
    pub uptime_ms: u64,
    /// Each supervisor, sorted by name.
    pub supervisor_stats: Vec<SupervisorStats>,
}

/// One supervisor in [`Stats`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SupervisorStats {
    /// The supervisor's name.
    pub supervisor_name: String,
    /// Its newest incarnation.
    pub supervisor_pid: Option<String>,
    /// The Erlang node it lives on; null in the exporter's own process.
    pub node: Option<String>,
    /// Restarts ever.
    pub total_restarts: u64,
    /// Failures ever.
    pub total_failures: u64,
    /// Restarts among the newest ten events.
    pub recent_restarts: u32,
    /// The last restart in Unix milliseconds; null if there was none.
    pub last_restart: Option<u64>,
}

/// One supervisor of `/api/v1/supervisors`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Supervisor {
    /// Its name.
    pub name: String,
    /// The Erlang node it lives on; null in the exporter's own process.
    pub node: Option<String>,
    /// Its newest incarnation.
    pub id: Option<String>,
    /// Name of the supervisor above.
    pub parent: Option<String>,
    /// Does the newest incarnation live?
    pub up: bool,
    /// `one_for_one`, `one_for_all`, `rest_for_one` or `dynamic`.
    pub strategy: Option<Word>,
    /// Restarts allowed within `max_seconds`.
    pub max_restarts: Option<u32>,
    /// Length of the intensity window in seconds.
    pub max_seconds: Option<u32>,
    /// Whether the children can fail often enough to use up the budget; with backoffs that are long compared to the window
    /// they cannot. Null if unknown.
    pub budget_can_run_out: Option<bool>,
    /// Restarts that the window holds now.
    pub restarts_in_window: Option<u32>,
    /// Restarts that the window still allows; with one more the supervisor gives up.
    pub restarts_left: Option<u32>,
    /// `gave_up`, `failed` or `stopped` if it is down, `silent` if its node is, else the worst word of its children, or `ok`.
    pub health: Word,
    /// Since when its node is not heard: what else is told of it is what was known then; null if it is heard.
    pub silent_since: Option<u64>,
    /// Milliseconds since its init; null if it is down or its init was not seen.
    pub uptime_ms: Option<u64>,
    /// Restarts ever.
    pub total_restarts: u64,
    /// Failures ever.
    pub total_failures: u64,
    /// Its last end, of whatever incarnation.
    pub last_end: Option<Event>,
    /// Its children in the order in which they appeared.
    pub children: Vec<Child>,
}

/// One child of a [`Supervisor`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Child {
    /// The id of its spec.
    pub id: String,
    /// What its deaths are counted under: its id, or what it has in common with other children of a dynamic supervisor.
    pub label: Option<String>,
    /// Its run; null if it does not run.
    pub pid: Option<String>,
    /// `waiting`, `starting`, `running`, `stopping`, `restarting`, `stopped` or `failed`.
    pub state: Word,
    /// `worker` or `supervisor`.
    #[serde(rename = "type")]
    pub child_type: Word,
    /// `permanent`, `transient` or `temporary`.
    pub restart: Option<Word>,
    /// Restarts since its supervisor's init.
    pub restarts: u64,
    /// Milliseconds since its last start; null if it does not run.
    pub uptime_ms: Option<u64>,
    /// What is waited for while it is `waiting`, `starting` or `stopping`; null otherwise.
    pub progress: Option<Progress>,
    /// Milliseconds until it is started again; null if no delay is running.
    pub next_try_ms: Option<u64>,
    /// Its last death that nobody ordered, or failed start.
    pub last_death: Option<Event>,
    /// What that was of, in 16 hexadecimal digits: equal for whoever dies of the same.
    pub reason_fingerprint: Option<String>,
    /// `gave_up`, `looping`, `failed`, `silent`, `starting`, `restarting`, `stopping`, `recovered`, `stopped` or `ok`.
    pub health: Word,
    /// The loop it is in; null if `health` is not `looping`.
    pub looping: Option<Looping>,
    /// Deaths and failed starts within the last hour.
    pub deaths_hour: u64,
    /// Deaths and failed starts within the last day.
    pub deaths_day: u64,
}

/// A start or stop that takes time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// What has to happen: `tcp 127.0.0.1:5432`, or the id of the child that has to start first; null if only the start or
    /// the end itself.
    pub waits_for: Option<String>,
    /// Milliseconds since it began.
    pub elapsed_ms: u64,
    /// Milliseconds it may take altogether; null if there is no limit.
    pub limit_ms: Option<u64>,
}

/// A loop of deaths.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Looping {
    /// When its first death was, in Unix milliseconds.
    pub since: u64,
    /// The same in RFC 3339.
    pub since_time: String,
    /// Milliseconds since then.
    pub lasting_ms: u64,
    /// Milliseconds of these that the child was up.
    pub up_ms: u64,
    /// Deaths since then, the first included.
    pub deaths: u64,
}

/// `/api/v1/causes`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Causes {
    /// The supervisor's name.
    pub supervisor: String,
    /// Most frequent first.
    pub causes: Vec<Cause>,
}

/// Identical deaths of a child; `/api/v1/same_causes` answers with those of all supervisors.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// 16 hexadecimal digits, the same on every machine; `_other` for all causes that were forgotten.
    pub fingerprint: String,
    /// The same without the child: equal for whoever dies of the same; null for all causes that were forgotten.
    pub reason_fingerprint: Option<String>,
    /// The child's label; null for all causes that were forgotten.
    pub child_id: Option<String>,
    /// How often.
    pub count: u64,
    /// The first time, in Unix milliseconds.
    pub first: u64,
    /// The last time, in Unix milliseconds.
    pub last: u64,
    /// The newest of them.
    pub sample: Event,
}

/// `event: missed` of `/api/v1/events`: the viewer was too slow, or away for too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveMissed {
    /// Events that it will not be told of any more.
    pub missed: u64,
}

/// `event: reset` of `/api/v1/events`: what the viewer has seen was told by an exporter before this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveReset {
    /// When this exporter began to count, in Unix milliseconds.
    pub start: u64,
}

/// `POST /api/v1/restart` and `POST /api/v1/start`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// The run of the child, or the incarnation of the supervisor; `null` if it chose to be ignored.
    pub child_pid: Option<String>,
}

/// `POST /api/v1/stop`: there is nothing to say but that it is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {}

/// `POST /api/v1/marks`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marked {
    /// When, in Unix milliseconds.
    pub timestamp: u64,
    /// When, in RFC 3339.
    pub time: String,
    /// What.
    pub text: String,
}

/// `POST /-/reload`: what was touched, by full names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// Started for the first time.
    pub added: Vec<String>,
    /// Stopped, and not known any more.
    pub removed: Vec<String>,
    /// Stopped and started with what is new, or tried again.
    pub changed: Vec<String>,
    /// Numbers taken over without touching a run.
    pub updated: Vec<String>,
    /// Of these, what did not start, with the reason. It stays wanted.
    pub failed: Vec<NotStarted>,
    /// Of these, what waits for a child that did not start.
    pub waiting: Vec<Waiting>,
}

/// Something of a [`Reloaded`] that did not start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotStarted {
    /// Its full name.
    pub name: String,
    /// Why not.
    pub reason: String,
}

/// Something of a [`Reloaded`] that waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// Its full name.
    pub name: String,
    /// The full name of what it waits for.
    pub waits_for: String,
}

/// `POST /-/reload?dry_run=1`: what would be done, in order: all stops, then numbers that are taken over, then all starts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The steps.
    pub steps: Vec<Step>,
}

/// One step of a [`Plan`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// `stop`, `update` or `start`.
    pub action: Word,
    /// The full name of the child or supervisor.
    pub name: String,
    /// What changed.
    pub why: String,
}

/// A line of the program's log, with the keys that Prometheus' own programs use.
#[derive(Clone, Debug, Serialize)]
pub struct LogLine {
    /// When, in RFC 3339.
    pub ts: String,
    /// `debug`, `info`, `warn` or `error`.
    pub level: Word,
    /// What.
    pub msg: String,
    /// More, by name; `err` is an error.
    #[serde(flatten)]
    pub fields: BTreeMap<String, String>,
}

/// The content type of JSON.
pub const CONTENT_TYPE: &str = "application/json";

/// A shape as JSON text. The shapes have no map with keys other than text, and nothing else can fail.
///
/// Strings are exact, whatever is in them, and the text is safe to show: what no reader sees is [escaped](text::json).
pub fn json(shape: &impl Serialize) -> String {
    let json = serde_json::to_string(shape).unwrap_or_default();
    match text::json(&json) {
        Cow::Borrowed(_) => json,
        Cow::Owned(escaped) => escaped,
    }
}

/// An answer of the API, as a client reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer<'a> {
    /// The JSON text of `data`, as it is.
    pub data: &'a str,
    /// `now`; an exporter that is older than this field does not tell it.
    pub now: Option<u64>,
}

/// Takes an answer of the API apart.
///
/// # Errors
/// [`NoAnswer`]: the API's own error, or that this is no answer of it.
pub fn answer(json: &str) -> Result<Answer<'_>, NoAnswer> {
    #[derive(Deserialize)]
    struct Parts<'a> {
        now: Option<u64>,
        #[serde(borrow)]
        data: Option<&'a serde_json::value::RawValue>,
        #[serde(rename = "errorType")]
        error_type: Option<String>,
        error: Option<String>,
    }
    match serde_json::from_str(json).map_err(|error| NoAnswer::Unreadable(error.to_string()))? {
        Parts { error_type: Some(error_type), error: Some(error), .. } => Err(NoAnswer::Error { error_type, error }),
        Parts { data: Some(data), now, .. } => Ok(Answer { data: data.get(), now }),
        _ => Err(NoAnswer::Unreadable("neither data nor an error".into())),
    }
}

/// Reads a shape.
///
/// # Errors
/// [`NoAnswer::Unreadable`] with place and reason.
pub fn read<T: serde::de::DeserializeOwned>(json: &str) -> Result<T, NoAnswer> {
    serde_json::from_str(json).map_err(|error| NoAnswer::Unreadable(error.to_string()))
}

/// Why a text holds no answer.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum NoAnswer {
    /// The API says why it does not answer.
    #[error("{error}")]
    Error {
        /// Which kind of error: `not_found`, `bad_data`, …
        error_type: String,
        /// What a person should know.
        error: String,
    },
    /// It is not what the API would write.
    #[error("not understood: {0}")]
    Unreadable(String),
}

/// The RFC 3339 twin of a timestamp in Unix milliseconds; years beyond 9999 read as the end of 9999.
pub fn rfc3339(timestamp: u64) -> String {
    const LAST: u64 = 253_402_300_799_999;
    humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(timestamp.min(LAST))).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    // Prometheus' own API: clients look at `status` first.
    #[test]
    fn an_answer_says_whether_it_is_one() {
        let success = Envelope::Success { now: 7, data: vec![1, 2] };
        let json = r#"{"status":"success","now":7,"data":[1,2]}"#;
        assert_eq!(serde_json::to_string(&success).unwrap(), json);
        assert_eq!(serde_json::from_str::<Envelope<Vec<u8>>>(json).unwrap(), success);
        let error: Envelope<Vec<u8>> =
            Envelope::Error { now: 7, error_type: "not_found".into(), error: "no such".to_owned(), data: None };
        let json = r#"{"status":"error","now":7,"errorType":"not_found","error":"no such"}"#;
        assert_eq!(serde_json::to_string(&error).unwrap(), json);
        assert_eq!(serde_json::from_str::<Envelope<Vec<u8>>>(json).unwrap(), error);
    }

    // What a client gets of an answer: the data as it is, the API's own error, or that it is something else.
    #[test]
    fn a_client_reads_data_or_why_there_is_none() {
        let data = r#"{"b":1, "a":[2]}"#;
        let success = answer(r#"{"status":"success","now":7,"data":{"b":1, "a":[2]}}"#);
        assert_eq!(success, Ok(Answer { data, now: Some(7) }));
        let older = answer(r#"{"status":"success","data":{"b":1, "a":[2]}}"#);
        assert_eq!(older, Ok(Answer { data, now: None }));
        let error = answer(r#"{"status":"error","now":7,"errorType":"not_found","error":"no such"}"#);
        assert_eq!(error, Err(NoAnswer::Error { error_type: "not_found".into(), error: "no such".into() }));
        for other in ["", "<html>", "{}", "[1]"] {
            assert!(matches!(answer(other), Err(NoAnswer::Unreadable(_))), "{other}");
        }
        assert_eq!(read::<Vec<u8>>("[1]"), Ok(vec![1]));
        assert!(read::<Done>("[").is_err());
    }

    // A clock that is wrong must not take an answer down.
    #[test]
    fn any_timestamp_has_a_twin() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(1_700_000_000_123), "2023-11-14T22:13:20.123Z");
        assert_eq!(rfc3339(u64::MAX), "9999-12-31T23:59:59.999Z");
    }
}
