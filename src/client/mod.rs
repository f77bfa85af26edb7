//! The commands that ask a running exporter: clients of its HTTP API, one file a command.
//!
//! Exit status: 0; 1 if `status` found trouble, or if what an order asked for did not start; 2 if there is no answer or it could
//! not be written, with one line on standard error that says why.

mod connect;
mod events;
mod explain;
mod history;
mod http;
mod last_resort;
mod orders;
mod screen;
mod status;
mod tail;
mod times;
mod tls;
mod url;
mod why;

use std::process::ExitCode;

use restart_exporter::http::ROUTES;
use restart_exporter::wire;
use serde::de::DeserializeOwned;

use crate::cli::{Ask, ClientArgs, complain};
pub(crate) use http::Credentials;
use http::{Answer, Client};
pub(crate) use last_resort::explain_end;
use screen::Screen;
pub(crate) use url::Target;

/// Why a command has no result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// No connection, no TLS.
    #[error("cannot reach {target}: {reason}")]
    Unreachable { target: String, reason: String },
    /// No answer in time. It may never have been reached.
    #[error("{target}: no answer within {limit}{order}")]
    Late { target: String, limit: String, order: &'static str },
    /// An answer that is none.
    #[error("bad answer of {target}: {reason}")]
    BadAnswer { target: String, reason: String },
    /// The exporter refused, or does not know what was asked for.
    #[error("{0}")]
    Refused(String),
    /// The exporter tried, and not all could be started.
    #[error("{0}")]
    Undone(String),
    /// What was found could not be written.
    #[error("standard output: {0}")]
    Output(std::io::Error),
    /// An argument or a file.
    #[error("{0}")]
    Usage(String),
}

/// What a command found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// Nothing wrong.
    Fine,
    /// Something loops, gave up or failed.
    Trouble,
}

/// Runs a command to its end.
pub(crate) fn run(ask: Ask, args: &ClientArgs) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&Failure::Usage(error.to_string())),
    };
    match runtime.block_on(answer(ask, args)) {
        Ok(Found::Fine) => ExitCode::SUCCESS,
        Ok(Found::Trouble) => ExitCode::from(1),
        Err(failure) => failed(&failure),
    }
}

fn failed(failure: &Failure) -> ExitCode {
    complain(failure);
    match failure {
        Failure::Undone(_) => ExitCode::from(1),
        _ => ExitCode::from(2),
    }
}

async fn answer(ask: Ask, args: &ClientArgs) -> Result<Found, Failure> {
    let takes_time = matches!(ask, Ask::Order { .. } | Ask::Reload { .. });
    let client = Client::new(args, takes_time)?;
    let mut screen = Screen::of_process();
    let found = match ask {
        Ask::Status { supervisor, all } => {
            status::run(&client, &mut screen, args.json, supervisor.as_deref(), all).await
        }
        Ask::Why { child, node } => why::run(&client, &mut screen, args.json, &child, node.as_deref()).await,
        Ask::History(question) => history::run(&client, &mut screen, args.json, &question).await,
        Ask::Tail { supervisor } => tail::run(&client, &mut screen, args.json, supervisor.as_deref()).await,
        Ask::Order { order, target } => orders::order(&client, &mut screen, args.json, order, &target).await,
        Ask::Reload { dry_run } => orders::reload(&client, &mut screen, args.json, dry_run).await,
        Ask::Mark { text } => mark(&client, &mut screen, args.json, &text).await,
    }?;
    screen.broken().map_or(Ok(found), |error| Err(Failure::Output(error)))
}

async fn mark(client: &Client, screen: &mut Screen, json: bool, text: &str) -> Result<Found, Failure> {
    let answer = client.post("marks", &[("text", text)]).await?;
    if json {
        screen.json(&answer.data);
    } else {
        let marked: wire::Marked = shape(client, &answer)?;
        screen.line(&format!("{}  {}", times::clock(marked.timestamp), marked.text));
    }
    Ok(Found::Fine)
}

/// The path of a route of the exporter, by its name.
fn path_of(name: &str) -> &'static str {
    ROUTES.iter().find(|route| route.name == name).map_or("/", |route| route.path)
}

/// Does a text name this child: by its id, alone or behind its supervisor's name?
fn is_it(supervisor: &wire::Supervisor, child: &wire::Child, wanted: &str) -> bool {
    child.id == wanted
        || wanted.strip_suffix(&child.id).and_then(|rest| rest.strip_suffix('/')) == Some(&supervisor.name)
}

/// The shape in an answer.
fn shape<T: DeserializeOwned>(client: &Client, answer: &Answer) -> Result<T, Failure> {
    wire::read(&answer.data).map_err(|error| client.bad_answer(&error))
}
