//! `tail`: what happens, as it happens. A connection that breaks is opened again, and what was missed meanwhile is told.

use std::time::Duration;

use http_body_util::BodyExt;
use hyper::header::HeaderName;
use restart_exporter::event::counted;
use restart_exporter::http::HEARTBEAT;
use restart_exporter::wire::{self, Event, LiveMissed};
use tokio::time::{sleep, timeout};

use super::events::{Message, Reader};
use super::explain::{WITHHELD, brief, decided, what};
use super::http::Client;
use super::screen::{Screen, named, unread};
use super::times::{clock, lasting};
use super::{Failure, Found};
use crate::cli::complain;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Types of events that a person need not read as they happen.
const ON_THE_WAY: [&str; 4] = ["waiting", "starting", "stopping", "configured"];

/// After so many heartbeats that did not come the connection is dead.
const HEARTBEATS: u32 = 3;

/// Waits between attempts to connect again; the last one is repeated for as long as it takes.
const WAITS: [Duration; 4] =
    [Duration::from_millis(200), Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(5)];

pub(super) async fn run(
    client: &Client,
    screen: &mut Screen,
    json: bool,
    supervisor: Option<&str>,
) -> Result<Found, Failure> {
    tokio::select! {
        ended = follow_all(client, screen, json, supervisor) => ended,
        () = unread() => Ok(Found::Fine),
    }
}

/// Shows what comes, whatever becomes of the connections.
async fn follow_all(
    client: &Client,
    screen: &mut Screen,
    json: bool,
    supervisor: Option<&str>,
) -> Result<Found, Failure> {
    let (mut reader, mut warned) = (Reader::default(), false);
    // Who cannot be reached at first is not there; who was reached once may come back.
    follow(client, screen, &mut reader, &mut warned, json, supervisor).await?;
    let mut attempt = 0;
    while !screen.is_closed() {
        sleep(WAITS[attempt.min(WAITS.len() - 1)]).await;
        match follow(client, screen, &mut reader, &mut warned, json, supervisor).await {
            Ok(()) => attempt = 0,
            Err(failure @ (Failure::Refused(_) | Failure::Usage(_))) => return Err(failure),
            Err(_) => attempt += 1,
        }
    }
    Ok(Found::Fine)
}

/// Shows what comes on one connection.
async fn follow(
    client: &Client,
    screen: &mut Screen,
    reader: &mut Reader,
    warned: &mut bool,
    json: bool,
    supervisor: Option<&str>,
) -> Result<(), Failure> {
    let seen = reader.last_id.clone();
    let mut body = client.stream("events", seen.as_deref().map(|id| (LAST_EVENT_ID, id))).await?;
    if seen.is_some() {
        complain("connected again");
    }
    let patience = HEARTBEAT * HEARTBEATS;
    while let Ok(Some(Ok(frame))) = timeout(patience, body.frame()).await {
        let Ok(piece) = frame.into_data() else { continue };
        let messages = reader.take(&piece).ok_or_else(|| client.bad_answer(&"an event without an end"))?;
        for message in messages {
            show(client, screen, warned, &message, json, supervisor)?;
            if screen.is_closed() {
                return Ok(());
            }
        }
    }
    reader.broken();
    complain("the connection is lost, trying again");
    Ok(())
}

fn show(
    client: &Client,
    screen: &mut Screen,
    warned: &mut bool,
    message: &Message,
    json: bool,
    supervisor: Option<&str>,
) -> Result<(), Failure> {
    let bad = |error: wire::NoAnswer| client.bad_answer(&error);
    match message.kind.as_str() {
        "missed" => {
            let LiveMissed { missed } = wire::read(&message.data).map_err(bad)?;
            complain(counted(missed, "event was missed", "events were missed"));
        }
        "reset" => complain("the exporter has started anew"),
        _ => {
            let event: Event = wire::read(&message.data).map_err(bad)?;
            let is_wanted = |wanted: &str| event.supervisor_name.as_deref().is_none_or(|name| name == wanted);
            // What is on its way is soon over, and then told.
            let is_news = json || !ON_THE_WAY.contains(&&*event.event_type);
            if is_news && supervisor.is_none_or(is_wanted) {
                if event.last_output_withheld && !json && !std::mem::replace(warned, true) {
                    complain(WITHHELD);
                }
                if json { screen.json(&message.data) } else { screen.line(&line(&event)) }
            }
        }
    }
    Ok(())
}

fn line(event: &Event) -> String {
    let mut line = clock(event.timestamp);
    if event.event_type == "mark" {
        return format!("{line}  ▲ {}", what(event));
    }
    let supervisor = event.supervisor_name.as_deref().unwrap_or_default();
    line += "  ";
    line += &named(supervisor, event.child_id.as_deref(), event.node.as_deref());
    let words = if event.last_output.is_some() { brief(event) } else { what(event) };
    line += &format!("  {words}");
    if event.shutdown == Some(true) {
        line += ", as ordered";
    }
    if let Some(ms) = event.lifetime_ms {
        line += &format!(", ran {}", lasting(ms));
    }
    if let Some(decision) = event.decision.as_ref().filter(|_| event.shutdown != Some(true)) {
        line += &format!(" → {}", decided(decision));
    }
    if let Some(ms) = event.downtime_ms {
        line += &format!(", down {}", lasting(ms));
    }
    line
}
