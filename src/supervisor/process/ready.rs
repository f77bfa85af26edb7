//! When a process counts as started: at once, after a while, or when a probe says so.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::{Program, cannot_run, launch};
use crate::event::ExitReason;

/// What ends the start of a process. The next child starts only then.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Readiness {
    /// The program runs.
    #[default]
    None,
    /// It has been running for this long.
    StableAfter(Duration),
    /// This command (program and arguments) ends with exit code 0.
    Exec(Vec<String>, Probing),
    /// This address (`host:port`) accepts a connection.
    Tcp(String, Probing),
    /// This URL (`http://host:port/path`) answers a GET with a status from 200 to 299.
    Http(String, Probing),
}

/// How often and how long is probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probing {
    /// Time between two probes.
    pub interval: Duration,
    /// If no probe has succeeded by then, the start has failed and the process is killed.
    pub timeout: Duration,
}

impl Default for Probing {
    /// Every 200 ms for 30 s.
    fn default() -> Self {
        Self { interval: Duration::from_millis(200), timeout: Duration::from_secs(30) }
    }
}

impl Readiness {
    /// What has to happen, in words, and the longest time it may take; none if nothing has to.
    pub(in crate::supervisor) fn awaits(&self) -> Option<(String, Duration)> {
        match self {
            Readiness::None => None,
            Readiness::StableAfter(time) => Some((format!("a run of {}", humantime::format_duration(*time)), *time)),
            // The arguments may hold secrets.
            Readiness::Exec(command, probing) => {
                Some((format!("exec {}", command.first().map_or("", String::as_str)), probing.timeout))
            }
            Readiness::Tcp(address, probing) => Some((format!("tcp {address}"), probing.timeout)),
            Readiness::Http(url, probing) => Some((format!("http {url}"), probing.timeout)),
        }
    }

    /// Returns when the process is ready.
    pub(super) async fn reached(&self) -> Result<(), ExitReason> {
        let probing = match self {
            Readiness::None => return Ok(()),
            Readiness::StableAfter(time) => {
                sleep(*time).await;
                return Ok(());
            }
            Readiness::Exec(_, probing) | Readiness::Tcp(_, probing) | Readiness::Http(_, probing) => probing,
        };
        let what = self.awaits().map(|(what, _)| what).unwrap_or_default();
        let mut last = "no probe has ended".to_owned();
        let probes = async {
            while let Err(error) = self.probe().await {
                last = error.to_string();
                sleep(probing.interval).await;
            }
        };
        let in_time = timeout(probing.timeout, probes).await;
        in_time.map_err(|_| {
            let within = humantime::format_duration(probing.timeout);
            ExitReason::error(format_args!("not ready within {within}: {what}: {last}"))
        })
    }

    async fn probe(&self) -> io::Result<()> {
        match self {
            Readiness::None | Readiness::StableAfter(_) => Ok(()),
            Readiness::Exec(command, _) => exec(command).await,
            Readiness::Tcp(address, _) => TcpStream::connect(address).await.map(drop),
            Readiness::Http(url, _) => http(url).await,
        }
    }
}

async fn exec(argv: &[String]) -> io::Result<()> {
    let Some((program, args)) = argv.split_first() else { return Err(io::ErrorKind::InvalidInput.into()) };
    let program = Program::probe(program, args);
    let started = launch::once(&program).await;
    let mut process = started.map_err(|failed| io::Error::other(cannot_run::reason(&program, &failed).to_string()))?;
    process.ended().await?;
    let (status, _) = process.reap()?;
    if status.success() { Ok(()) } else { Err(io::Error::other(status.to_string())) }
}

async fn http(url: &str) -> io::Result<()> {
    let uri: Uri = url.parse().map_err(io::Error::other)?;
    let authority = uri.authority().ok_or(io::ErrorKind::InvalidInput)?;
    let stream = TcpStream::connect((authority.host(), authority.port_u16().unwrap_or(80))).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    // A set, so that the connection goes when the probe is dropped.
    let mut connections = JoinSet::new();
    connections.spawn(connection);
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::get(path).header(HOST, authority.as_str()).body(Empty::<Bytes>::new());
    let response = sender.send_request(request.map_err(io::Error::other)?).await.map_err(io::Error::other)?;
    let status = response.status();
    if status.is_success() { Ok(()) } else { Err(io::Error::other(status.to_string())) }
}
