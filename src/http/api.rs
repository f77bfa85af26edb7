//! The JSON API: questions to [`Control`](crate::control::Control), answers in the shapes of [`wire`](crate::wire).

use std::time::Duration;

use hyper::StatusCode;

use super::respond::{self, Reply};
use super::router::Query;
use super::{App, shapes};
use crate::analytics::{EventType, HistoryFilter};
use crate::control::{ControlError, DEFAULT_WINDOW, Error};

/// Longest window of a failure rate: what asks for more is a typing error.
const MAX_WINDOW: Duration = Duration::from_secs(366 * 24 * 3600);

pub(super) fn stats(app: &App, _: &Query) -> Reply {
    respond::success(shapes::stats(&app.control.supervisor_analytics()))
}

pub(super) fn supervisors(app: &App, query: &Query) -> Reply {
    let (views, output) = (app.control.supervisors(), query.last_output());
    respond::success(views.iter().map(|view| shapes::supervisor(view, output)).collect::<Vec<_>>())
}

pub(super) fn history(app: &App, query: &Query) -> Reply {
    reply((|| {
        let filter = HistoryFilter {
            child: query.get("child").map(str::to_owned),
            event: query.get("event").map(event_type).transpose()?,
            limit: query.get("limit").map(limit).transpose()?,
            after: None,
        };
        let page = app.control.on(query.get("node")).restart_history(required(query, "supervisor")?, &filter)?;
        Ok(respond::success(shapes::history(&page, query.last_output())))
    })())
}

pub(super) fn failure_rate(app: &App, query: &Query) -> Reply {
    reply((|| {
        let window = query.get("window").map_or(Ok(DEFAULT_WINDOW), window)?;
        let rate = app.control.on(query.get("node")).failure_rate(required(query, "supervisor")?, window)?;
        Ok(respond::success(shapes::failure_rate(&rate)))
    })())
}

pub(super) fn causes(app: &App, query: &Query) -> Reply {
    reply((|| {
        let page = app.control.on(query.get("node")).causes(required(query, "supervisor")?, query.get("child"))?;
        Ok(respond::success(shapes::causes(&page, query.last_output())))
    })())
}

pub(super) fn same_causes(app: &App, query: &Query) -> Reply {
    reply((|| {
        let died = app.control.died_of(fingerprint(required(query, "reason")?)?);
        let causes = died.iter().map(|(supervisor, cause)| shapes::cause(supervisor, cause, query.last_output()));
        Ok(respond::success(causes.collect::<Vec<_>>()))
    })())
}

/// 400: the question is wrong, and this is why.
pub(super) fn bad_data(message: &str) -> Reply {
    respond::error(StatusCode::BAD_REQUEST, "bad_data", message.into())
}

/// Why there is no answer.
pub(super) enum Failure {
    BadData(String),
    Control(Error),
    Internal(String),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Control(error)
    }
}

pub(super) fn reply(answer: Result<Reply, Failure>) -> Reply {
    match answer {
        Ok(reply) => reply,
        Err(Failure::BadData(message)) => bad_data(&message),
        Err(Failure::Internal(message)) => respond::error(StatusCode::INTERNAL_SERVER_ERROR, "internal", message),
        Err(Failure::Control(error)) => {
            let (status, error_type) = match &error {
                Error::NotFound { .. } => (StatusCode::NOT_FOUND, "not_found"),
                Error::NotStarted { .. } | Error::Refused(ControlError::StartFailed(_)) => {
                    (StatusCode::UNPROCESSABLE_ENTITY, "execution")
                }
                Error::AlreadyExists(_) | Error::Foreign(_) | Error::Down(_) | Error::Stopping | Error::Refused(_) => {
                    (StatusCode::CONFLICT, "conflict")
                }
            };
            respond::error(status, error_type, error.to_string())
        }
    }
}

pub(super) fn required<'a>(query: &'a Query, name: &str) -> Result<&'a str, Failure> {
    query.get(name).ok_or_else(|| Failure::BadData(format!("parameter {name:?} is missing")))
}

fn event_type(word: &str) -> Result<EventType, Failure> {
    EventType::ALL.iter().find(|event| event.as_str() == word).copied().ok_or_else(|| {
        let known: Vec<_> = EventType::ALL.iter().map(|event| event.as_str()).collect();
        Failure::BadData(format!("invalid parameter \"event\": {word:?} is none of {}", known.join(", ")))
    })
}

fn fingerprint(word: &str) -> Result<u64, Failure> {
    let wrong = || Failure::BadData(format!("invalid parameter \"reason\": {word:?} is no `reason_fingerprint`"));
    u64::from_str_radix(word, 16).map_err(|_| wrong())
}

fn limit(word: &str) -> Result<usize, Failure> {
    let wrong = || Failure::BadData(format!("invalid parameter \"limit\": {word:?} is not a number from 1"));
    word.parse().ok().filter(|limit| *limit > 0).ok_or_else(wrong)
}

fn window(word: &str) -> Result<Duration, Failure> {
    let wrong = || {
        Failure::BadData(format!(
            "invalid parameter \"window\": {word:?} is not a duration such as 60s, of at most a year"
        ))
    };
    let window = humantime::parse_duration(word).map_err(|_| wrong())?;
    if window.is_zero() || window > MAX_WINDOW { Err(wrong()) } else { Ok(window) }
}
