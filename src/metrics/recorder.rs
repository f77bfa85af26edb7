//! The handler: turns each event of a supervisor into cells.
//!
//! A restart is not a termination: only `child_restart` counts restarts, only `child_terminate` counts terminations, and
//! a failed start counts as an attempt and an error.

use std::sync::Arc;

use super::MetricsConfig;
use super::limits::{Limit, Limits};
use super::own::{DropCause, Own};
use super::row::{ChildRow, Incarnation, SupervisorRow};
use crate::analytics::registry::{Name, Registry};
use crate::analytics::{Analytics, Record};
use crate::event::{
    Action, Aggregated, ChildRef, Decision, Event, EventKind, NodeEvent, NodePayload, Payload, RestartCause,
    SupervisorEvent,
};
use crate::telemetry::{self, Handler};

/// The id under which the metrics are attached to a bus.
pub const HANDLER_ID: &str = "metrics";

/// What it wants to hear.
pub(super) const KINDS: [EventKind; EventKind::SUPERVISOR.len() + 4] = {
    let mut kinds = [EventKind::NodeUp; EventKind::SUPERVISOR.len() + 4];
    let mut index = 0;
    while index < EventKind::SUPERVISOR.len() {
        kinds[index] = EventKind::SUPERVISOR[index];
        index += 1;
    }
    kinds[index + 1] = EventKind::NodeDown;
    kinds[index + 2] = EventKind::NodeReport;
    kinds[index + 3] = EventKind::NodeLimit;
    kinds
};

/// What hangs on the bus. It knows nothing of the bus, or neither would ever be freed.
pub(super) struct Recorder {
    pub(super) config: MetricsConfig,
    pub(super) registry: Registry<SupervisorRow>,
    pub(super) own: Own,
    pub(super) analytics: Analytics,
    /// When it began to count, in Unix milliseconds.
    pub(super) created: u64,
}

// === impl Recorder ===

impl Recorder {
    pub(super) fn new(config: MetricsConfig, analytics: Analytics) -> Self {
        let own = Own::new(Arc::new(Limits::new(config.max_children)));
        let registry = Registry::new(config.max_supervisors, config.retention, analytics.kept());
        Self { config, registry, own, analytics, created: telemetry::now().unix_millis() }
    }

    fn record(&self, event: &SupervisorEvent) {
        self.own.events.inc(event.payload.kind() as usize);
        let now = event.time.monotonic;
        self.registry.with(&event.supervisor, now, |name| self.new_row(name, event), |row| self.count(event, row));
        if matches!(event.payload, Payload::SupervisorTerminate { .. }) {
            self.registry.ended(&event.supervisor, now);
        }
    }

    fn record_node(&self, event: &NodeEvent) {
        if event.payload == NodePayload::Up {
            // Adding pays for removing, so that memory is bounded even if nobody scrapes.
            self.own.expire_nodes(event.time.monotonic, self.config.retention);
        }
        self.own.nodes.record(event);
        match &event.payload {
            NodePayload::Report(counts) => {
                for (cause, count) in [
                    (DropCause::Invalid, counts.invalid),
                    (DropCause::UnknownEvent, counts.unknown),
                    (DropCause::Gap, counts.lost),
                ] {
                    self.own.dropped.add(cause as usize, count);
                }
            }
            NodePayload::Limit(limit) => self.own.limits.reached(Limit::of_node(*limit)),
            NodePayload::Up | NodePayload::Down => {}
        }
    }

    fn count(&self, event: &SupervisorEvent, row: &SupervisorRow) {
        if row.is_other() {
            self.own.limits.reached(Limit::SeriesSupervisors);
        }
        match &event.payload {
            Payload::SupervisorInit { strategy, max_restarts, max_seconds, parent, found } => {
                if !row.is_other() {
                    row.set_incarnation(Incarnation {
                        // Asked for anew: analytics may have forgotten the incarnation before.
                        record: self.record_of(event),
                        info: Some(row.info_labels(*strategy, parent.as_deref())),
                    });
                    row.max_restarts.set(max_restarts.map(u64::from));
                    row.max_seconds.set(max_seconds.map(u64::from));
                    if !found {
                        row.set_start_time(event.time.system);
                    }
                }
            }
            Payload::ChildStart { child, child_pid, duration } => {
                row.start_attempts.inc();
                // A child that chose to be ignored did not start.
                if let (Some(_), Some(duration)) = (child_pid, duration) {
                    row.start_duration.observe(*duration);
                }
                row.with_child(&child.label, event.time.system, |_| ());
            }
            Payload::ChildStartError { child, decision, .. } => {
                row.start_attempts.inc();
                row.start_errors.inc();
                if decision.as_ref().is_some_and(saturates) {
                    row.saturated.inc();
                }
                row.with_child(&child.label, event.time.system, |_| ());
            }
            // The child's row was born at its start; one that started before anybody listened is born at its restart.
            Payload::ChildTerminate { reason, shutdown, lifetime, decision, .. } => {
                row.child_terminations.inc(reason.class() as usize);
                if let Some(lifetime) = lifetime {
                    row.lifetime.observe(*lifetime);
                }
                // A stop that the supervisor ordered is not what uses up the window, whatever becomes of the child.
                if !shutdown && saturates(decision) {
                    row.saturated.inc();
                }
            }
            Payload::ChildRestart { child, cause, downtime, duration, .. } => {
                row.start_attempts.inc();
                if let Some(duration) = duration {
                    row.start_duration.observe(*duration);
                }
                if let Some(downtime) = downtime {
                    row.downtime.observe(*downtime);
                }
                row.with_child(&child.label, event.time.system, |child| {
                    child.restarts.inc(*cause as usize);
                    if *cause != RestartCause::Requested {
                        child.restarted_at(event.time.system);
                    }
                });
            }
            Payload::ChildStop { .. } | Payload::ChildPhase { .. } => {}
            Payload::SupervisorConfig { strategy, max_restarts, max_seconds, parent, .. } => {
                if !row.is_other() {
                    row.set_incarnation(Incarnation {
                        record: self.record_of(event),
                        info: Some(row.info_labels(Some(*strategy), parent.as_deref())),
                    });
                    row.max_restarts.set(Some((*max_restarts).into()));
                    row.max_seconds.set(Some((*max_seconds).into()));
                }
            }
            Payload::ChildAggregate { child, of, count } => count_many(event, row, child.as_deref(), *of, *count),
            Payload::SupervisorTerminate { reason, .. } => {
                let class = reason.class();
                row.terminations.inc(class as usize);
                row.last_exit.set(Some(class as u64));
            }
        }
    }

    /// All closed label sets of the row stand at 0 from here on, before anything is counted.
    fn new_row(&self, name: &Name, event: &SupervisorEvent) -> SupervisorRow {
        let row = SupervisorRow::new(
            name,
            event.time.system,
            self.config.max_children_per_supervisor,
            self.own.limits.clone(),
        );
        if !row.is_other() {
            row.set_incarnation(Incarnation { record: self.record_of(event), ..Incarnation::default() });
        }
        row
    }

    /// Where analytics keeps this supervisor; none if it is one of those that analytics does not tell apart.
    fn record_of(&self, event: &SupervisorEvent) -> Option<Arc<Record>> {
        // Analytics may have seen the end already, and would take the supervisor for one that begins.
        if matches!(event.payload, Payload::SupervisorTerminate { .. }) {
            return None;
        }
        let record = self.analytics.record(&event.supervisor, event.time.monotonic);
        (!record.name().is_other()).then_some(record)
    }
}

/// Restarts of children that are not known belong to the row of all others.
fn count_many(event: &SupervisorEvent, row: &SupervisorRow, child: Option<&ChildRef>, of: Aggregated, count: u64) {
    let now = event.time.system;
    match of {
        Aggregated::Started => row.start_attempts.add(count),
        Aggregated::StartErrors => {
            row.start_attempts.add(count);
            row.start_errors.add(count);
        }
        Aggregated::Terminated { class, .. } => drop(row.child_terminations.add(class as usize, count)),
        Aggregated::Restarted { cause } => {
            row.start_attempts.add(count);
            let restarted = |child: &ChildRow| {
                child.restarts.add(cause as usize, count);
                if cause != RestartCause::Requested {
                    child.restarted_at(now);
                }
            };
            match child {
                Some(child) => row.with_child(&child.label, now, restarted),
                None => row.with_other_children(now, restarted),
            }
        }
    }
}

impl Handler for Recorder {
    fn handle(&self, event: &Event) {
        match event {
            Event::Supervisor(event) => self.record(event),
            Event::Node(event) => self.record_node(event),
            Event::HandlerFailure(_) | Event::Span(_) | Event::Mark(_) => {}
        }
    }
}

/// Does this restart use up the window, so that one more stops the supervisor?
fn saturates(decision: &Decision) -> bool {
    decision.action == Action::Restart && decision.restarts_left == Some(0)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::analytics::AnalyticsConfig;
    use crate::event::Timestamp;

    // Nobody need scrape: a node that is heard makes those be forgotten that were not heard for the retention.
    #[test]
    fn nodes_that_come_and_go_take_the_memory_of_those_that_are_remembered() {
        let config = MetricsConfig::default();
        let recorder = Recorder::new(config.clone(), Analytics::new(AnalyticsConfig::default()));
        let mut time = telemetry::now();
        for number in 0..100 {
            let node: Arc<str> = format!("node{number}@host").into();
            for payload in [NodePayload::Up, NodePayload::Down] {
                recorder.handle(&Event::Node(NodeEvent { node: Some(node.clone()), time, payload }));
            }
            let passed = config.retention / 2 + Duration::from_secs(1);
            time = Timestamp { monotonic: time.monotonic + passed, ..time };
        }
        let mut remembered = 0;
        recorder.own.nodes.each(|_| remembered += 1);
        assert_eq!(remembered, 2);
    }
}
