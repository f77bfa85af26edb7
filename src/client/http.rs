//! Requests to the exporter: each on a connection of its own, bounded in time and size.

use std::fmt;
use std::fs;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, AUTHORIZATION, DATE, HOST, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use restart_exporter::event::unix_millis;
use restart_exporter::http::{App, HTTPS_ONLY, command};
use restart_exporter::{telemetry, wire};
use tokio::time::timeout;

use super::connect::Connector;
use super::url::Target;
use super::{Failure, path_of};
use crate::cli::ClientArgs;

/// Longest answer that is read: a history of a million events with all their texts.
const MAX_ANSWER_BYTES: usize = 1024 * 1024 * 1024;

/// Longest time for an answer to a question.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Holds the password, where neither the list of processes nor a shell's history shows it.
const PASSWORD_VARIABLE: &str = "RESTART_EXPORTER_PASSWORD";

/// A user, and maybe the password. Never printed.
#[derive(Clone)]
pub(crate) struct Credentials {
    name: String,
    password: Option<String>,
}

/// Asks one exporter.
pub(super) struct Client {
    target: Target,
    url_is_given: bool,
    connector: Connector,
    authorization: Option<HeaderValue>,
    timeout: Duration,
    /// Is it an order, which goes on when nobody waits for it?
    takes_time: bool,
}

/// A whole answer.
pub(super) struct Answer {
    /// The JSON text of the data.
    pub(super) data: String,
    /// The exporter's clock, in milliseconds since the Unix epoch: "12 s ago" is counted from it.
    pub(super) now: u64,
}

// === impl Credentials ===

impl FromStr for Credentials {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, password) = text.split_once(':').map_or((text, None), |(name, word)| (name, Some(word.to_owned())));
        if name.is_empty() { Err("the name is empty".into()) } else { Ok(Self { name: name.into(), password }) }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("name", &self.name).finish_non_exhaustive()
    }
}

// === impl Client ===

impl Client {
    /// Asks as the flags say. What `takes_time` is waited for without limit, unless they say otherwise.
    pub(super) fn new(args: &ClientArgs, takes_time: bool) -> Result<Self, Failure> {
        let connector = Connector::new(args)?;
        let authorization = args.user.as_ref().map(|user| authorization(user, args)).transpose()?;
        let (target, url_is_given) = (args.url.clone(), args.url_is_given);
        let timeout = args.timeout.unwrap_or(if takes_time { Duration::MAX } else { TIMEOUT });
        Ok(Self { target, url_is_given, connector, authorization, timeout, takes_time })
    }

    /// Asks the application of this very program.
    pub(super) fn within(app: &App) -> Self {
        let target = Target::default();
        let connector = Connector::within(app);
        Self { target, url_is_given: false, connector, authorization: None, timeout: TIMEOUT, takes_time: false }
    }

    /// What can be typed to ask the same exporter for more.
    pub(super) fn command(&self, verb: &str, node: Option<&str>, name: &str) -> String {
        let url = self.url_is_given.then(|| self.target.to_string());
        command(verb, url.as_deref(), node, name)
    }

    /// Is it this very program that is asked, and about to end?
    pub(super) fn is_within(&self) -> bool {
        self.connector.is_within()
    }

    pub(super) async fn get(&self, route: &str, query: &[(&str, &str)]) -> Result<Answer, Failure> {
        self.whole(Method::GET, route, query).await
    }

    pub(super) async fn post(&self, route: &str, query: &[(&str, &str)]) -> Result<Answer, Failure> {
        self.whole(Method::POST, route, query).await
    }

    /// What `/-/ready` says if it does not say that all is well.
    pub(super) async fn not_ready(&self) -> Result<Option<String>, Failure> {
        let exchange = async {
            let response = self.send(Method::GET, "ready", &[], None).await?;
            let status = response.status();
            let text = self.body(response.into_body()).await?;
            match status {
                StatusCode::SERVICE_UNAVAILABLE => Ok(Some(text)),
                status if status.is_success() => Ok(None),
                status => Err(self.refusal(status, &text)),
            }
        };
        self.in_time(exchange).await
    }

    /// A body that goes on; the request has to be answered in time, the body need not end.
    pub(super) async fn stream(&self, route: &str, header: Option<(HeaderName, &str)>) -> Result<Incoming, Failure> {
        let response = self.in_time(self.send(Method::GET, route, &[], header)).await?;
        if response.status().is_success() {
            return Ok(response.into_body());
        }
        let status = response.status();
        let text = self.in_time(self.body(response.into_body())).await?;
        Err(self.refusal(status, &text))
    }

    pub(super) fn bad_answer(&self, reason: &dyn fmt::Display) -> Failure {
        Failure::BadAnswer { target: self.target.to_string(), reason: reason.to_string() }
    }

    fn unreachable(&self, error: &(dyn std::error::Error + 'static)) -> Failure {
        Failure::Unreachable { target: self.target.to_string(), reason: self.connector.fault(error) }
    }

    async fn whole(&self, method: Method, route: &str, query: &[(&str, &str)]) -> Result<Answer, Failure> {
        let exchange = async {
            let response = self.send(method, route, query, None).await?;
            let (status, date) = (response.status(), date(&response));
            let text = self.body(response.into_body()).await?;
            if !status.is_success() {
                return Err(self.refusal(status, &text));
            }
            let answer = wire::answer(&text).map_err(|error| self.bad_answer(&error))?;
            let now = clock(answer.now, date, telemetry::now().system);
            Ok(Answer { data: answer.data.to_owned(), now })
        };
        self.in_time(exchange).await
    }

    async fn in_time<T>(&self, exchange: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        let late = || Failure::Late {
            target: self.target.to_string(),
            limit: humantime::format_duration(self.timeout).to_string(),
            order: if self.takes_time { "; what was ordered goes on" } else { "" },
        };
        timeout(self.timeout, exchange).await.unwrap_or_else(|_| Err(late()))
    }

    async fn send(
        &self,
        method: Method,
        route: &str,
        query: &[(&str, &str)],
        header: Option<(HeaderName, &str)>,
    ) -> Result<Response<Incoming>, Failure> {
        let stream = self.connector.connect().await.map_err(|error| self.unreachable(&error))?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| self.unreachable(&error))?;
        tokio::spawn(connection);
        let mut target = format!("{}{}", self.target.prefix(), path_of(route));
        if !query.is_empty() {
            let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
            target = format!("{target}?{query}");
        }
        let mut request = Request::builder().method(method).uri(target);
        request = request.header(HOST, self.target.authority()).header(ACCEPT, "application/json, text/event-stream");
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        let request = request.body(Empty::<Bytes>::new()).map_err(|error| Failure::Usage(error.to_string()))?;
        sender.send_request(request).await.map_err(|error| self.unreachable(&error))
    }

    async fn body(&self, body: Incoming) -> Result<String, Failure> {
        let bytes = Limited::new(body, MAX_ANSWER_BYTES).collect().await;
        let bytes = bytes.map_err(|error| self.unreachable(&*error))?.to_bytes();
        String::from_utf8(bytes.into()).map_err(|_| self.bad_answer(&"no text"))
    }

    fn refusal(&self, status: StatusCode, text: &str) -> Failure {
        match (status, wire::answer(text)) {
            (_, Err(wire::NoAnswer::Error { error_type, error })) if error_type == "execution" => {
                Failure::Undone(error)
            }
            (_, Err(wire::NoAnswer::Error { error, .. })) => Failure::Refused(error),
            (StatusCode::UNAUTHORIZED, _) => {
                let wrong =
                    if self.authorization.is_some() { "does not know this user and password" } else { "needs --user" };
                Failure::Refused(format!("{} {wrong}: the users are those of its web config file", self.target))
            }
            (StatusCode::BAD_REQUEST, _) if text.trim_end() == HTTPS_ONLY => Failure::Unreachable {
                target: self.target.to_string(),
                reason: "it speaks TLS: use https:// instead of http:// in --url".into(),
            },
            (StatusCode::NOT_FOUND, _) => self.bad_answer(&"404: is there a restart_exporter, and not an older one?"),
            _ => self.bad_answer(&format!("{status} {}", text.lines().next().unwrap_or_default())),
        }
    }
}

fn authorization(user: &Credentials, args: &ClientArgs) -> Result<HeaderValue, Failure> {
    let from_file = |file: &std::path::PathBuf| {
        let text = fs::read_to_string(file)
            .map_err(|error| Failure::Usage(format!("--password-file {}: {error}", file.display())))?;
        Ok(text.lines().next().unwrap_or_default().to_owned())
    };
    let password = match (&user.password, &args.password_file) {
        (Some(password), _) => password.clone(),
        (None, Some(file)) => from_file(file)?,
        (None, None) => std::env::var(PASSWORD_VARIABLE).map_err(|_| {
            let places = format!("--user NAME:PASSWORD, --password-file or {PASSWORD_VARIABLE}");
            Failure::Usage(format!("no password for user {:?}: {places}", user.name))
        })?,
    };
    let word = BASE64_STANDARD.encode(format!("{}:{password}", user.name));
    let mut value =
        HeaderValue::try_from(format!("Basic {word}")).map_err(|error| Failure::Usage(error.to_string()))?;
    value.set_sensitive(true);
    Ok(value)
}

fn date<B>(response: &Response<B>) -> Option<SystemTime> {
    httpdate::parse_http_date(response.headers().get(DATE)?.to_str().ok()?).ok()
}

/// The exporter's clock: what it says, or from an exporter that is too old for that the date of the answer, or ours.
fn clock(now: Option<u64>, date: Option<SystemTime>, ours: SystemTime) -> u64 {
    now.unwrap_or_else(|| unix_millis(date.unwrap_or(ours)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_is_that_of_the_exporter_if_it_tells_it() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(clock(Some(7), Some(at(8)), at(9)), 7);
        assert_eq!(clock(None, Some(at(8)), at(9)), 8000);
        assert_eq!(clock(None, None, at(9)), 9000);
    }
}
