//! Every limit that has a counter, and the room that is left for labels.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::cells::{Counter, Counters};
use crate::event::NodeLimit;
use crate::resources::Shortage;

/// What is bounded: the closed set behind `restart_exporter_limit_reached_total`, all from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// A connection was refused, or another one closed for it, because too many are open. Spelled `http_connections`.
    HttpConnections,
    /// The head of a request was too long, or took too long. Spelled `http_request_header`.
    HttpRequestHeader,
    /// The body of a request was too long. Spelled `http_request_body`.
    HttpRequestBody,
    /// A client was silent between two requests for too long. Spelled `http_idle`.
    HttpIdle,
    /// A scrape was refused because too many were being answered. Spelled `http_scrapes`.
    HttpScrapes,
    /// An exposition was cut off because the time that the scraper allows was over. Spelled `http_scrape_time`.
    HttpScrapeTime,
    /// An answer was cut off because its reader took too long. Spelled `http_slow_reader`.
    HttpSlowReader,
    /// A TLS handshake was refused, or took too long. Spelled `http_tls_handshake`.
    HttpTlsHandshake,
    /// A request came faster than the web config file allows. Spelled `http_rate`.
    HttpRate,
    /// A password was not checked because too many waited already. Spelled `http_password_checks`.
    HttpPasswordChecks,
    /// A viewer of live events was refused because there are too many. Spelled `live_viewers`.
    LiveViewers,
    /// An event of a supervisor beyond [`MetricsConfig::max_supervisors`](super::MetricsConfig::max_supervisors).
    /// Spelled `series_supervisors`.
    SeriesSupervisors,
    /// An event of a child beyond [`MetricsConfig::max_children`](super::MetricsConfig::max_children) or
    /// [`max_children_per_supervisor`](super::MetricsConfig::max_children_per_supervisor). Spelled `series_children`.
    SeriesChildren,
    /// See [`NodeLimit::Connections`]. Spelled `node_connections`.
    NodeConnections,
    /// See [`NodeLimit::HelloTime`]. Spelled `node_hello_time`.
    NodeHelloTime,
    /// See [`NodeLimit::FrameSize`]. Spelled `node_frame_size`.
    NodeFrameSize,
    /// See [`NodeLimit::Silence`]. Spelled `node_silence`.
    NodeSilence,
    /// See [`NodeLimit::Nodes`]. Spelled `nodes`.
    Nodes,
    /// See [`NodeLimit::Supervisors`]. Spelled `node_supervisors`.
    NodeSupervisors,
    /// See [`NodeLimit::Children`]. Spelled `node_children`.
    NodeChildren,
    /// See [`NodeLimit::Awaited`]. Spelled `node_awaited_restarts`.
    NodeAwaited,
    /// See [`NodeLimit::TextLength`]. Spelled `node_text_length`.
    NodeTextLength,
    /// See [`NodeLimit::TextBytes`]. Spelled `node_text_bytes`.
    NodeTextBytes,
    /// A static child of a node was counted and not listed, because
    /// [`MAX_LISTED_OF_NODES`](crate::analytics::MAX_LISTED_OF_NODES) are. Spelled `node_listed_children`.
    NodeListed,
    /// A process had to wait with its start, or a connection was not accepted, because no more files may be open. This one
    /// and the two below are counted for the whole process. Spelled `file_descriptors`.
    FileDescriptors,
    /// A process had to wait with its start because there may be no more processes. Spelled `processes`.
    Processes,
    /// A process had to wait with its start because the system had no memory for it. Spelled `memory`.
    Memory,
}

impl Limit {
    /// Every limit, in the order of the discriminants.
    pub const ALL: &'static [Limit] = &[
        Limit::HttpConnections,
        Limit::HttpRequestHeader,
        Limit::HttpRequestBody,
        Limit::HttpIdle,
        Limit::HttpScrapes,
        Limit::HttpScrapeTime,
        Limit::HttpSlowReader,
        Limit::HttpTlsHandshake,
        Limit::HttpRate,
        Limit::HttpPasswordChecks,
        Limit::LiveViewers,
        Limit::SeriesSupervisors,
        Limit::SeriesChildren,
        Limit::NodeConnections,
        Limit::NodeHelloTime,
        Limit::NodeFrameSize,
        Limit::NodeSilence,
        Limit::Nodes,
        Limit::NodeSupervisors,
        Limit::NodeChildren,
        Limit::NodeAwaited,
        Limit::NodeTextLength,
        Limit::NodeTextBytes,
        Limit::NodeListed,
        Limit::FileDescriptors,
        Limit::Processes,
        Limit::Memory,
    ];

    /// The value of the label `limit`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Limit::HttpConnections => "http_connections",
            Limit::HttpRequestHeader => "http_request_header",
            Limit::HttpRequestBody => "http_request_body",
            Limit::HttpIdle => "http_idle",
            Limit::HttpScrapes => "http_scrapes",
            Limit::HttpScrapeTime => "http_scrape_time",
            Limit::HttpSlowReader => "http_slow_reader",
            Limit::HttpTlsHandshake => "http_tls_handshake",
            Limit::HttpRate => "http_rate",
            Limit::HttpPasswordChecks => "http_password_checks",
            Limit::LiveViewers => "live_viewers",
            Limit::SeriesSupervisors => "series_supervisors",
            Limit::SeriesChildren => "series_children",
            Limit::NodeConnections => NodeLimit::Connections.as_str(),
            Limit::NodeHelloTime => NodeLimit::HelloTime.as_str(),
            Limit::NodeFrameSize => NodeLimit::FrameSize.as_str(),
            Limit::NodeSilence => NodeLimit::Silence.as_str(),
            Limit::Nodes => NodeLimit::Nodes.as_str(),
            Limit::NodeSupervisors => NodeLimit::Supervisors.as_str(),
            Limit::NodeChildren => NodeLimit::Children.as_str(),
            Limit::NodeAwaited => NodeLimit::Awaited.as_str(),
            Limit::NodeTextLength => NodeLimit::TextLength.as_str(),
            Limit::NodeTextBytes => NodeLimit::TextBytes.as_str(),
            Limit::NodeListed => "node_listed_children",
            Limit::FileDescriptors => Shortage::FileDescriptors.as_str(),
            Limit::Processes => Shortage::Processes.as_str(),
            Limit::Memory => Shortage::Memory.as_str(),
        }
    }

    /// The limit that there is a shortage of.
    const fn of_shortage(shortage: Shortage) -> Self {
        match shortage {
            Shortage::FileDescriptors => Limit::FileDescriptors,
            Shortage::Processes => Limit::Processes,
            Shortage::Memory => Limit::Memory,
        }
    }

    /// The limit that the listener for nodes speaks of.
    pub const fn of_node(limit: NodeLimit) -> Self {
        match limit {
            NodeLimit::Connections => Limit::NodeConnections,
            NodeLimit::HelloTime => Limit::NodeHelloTime,
            NodeLimit::FrameSize => Limit::NodeFrameSize,
            NodeLimit::Silence => Limit::NodeSilence,
            NodeLimit::Nodes => Limit::Nodes,
            NodeLimit::Supervisors => Limit::NodeSupervisors,
            NodeLimit::Children => Limit::NodeChildren,
            NodeLimit::Awaited => Limit::NodeAwaited,
            NodeLimit::TextLength => Limit::NodeTextLength,
            NodeLimit::TextBytes => Limit::NodeTextBytes,
        }
    }
}

/// How often each limit was reached, and what counts against the limits of labels. Shared by all rows, which give back
/// what they took when they go.
pub(super) struct Limits {
    reached: Counters<{ Limit::ALL.len() }>,
    max_children: usize,
    children: AtomicUsize,
    /// Series of rows that were removed after the retention.
    pub(super) expired_series: Counter,
}

impl Limits {
    pub(super) fn new(max_children: usize) -> Self {
        Self {
            reached: Counters::default(),
            max_children,
            children: AtomicUsize::new(0),
            expired_series: Counter::default(),
        }
    }

    /// Counts one event that met a limit. The first one at a limit of labels or of nodes is logged, because from then on
    /// the metrics show less than there is.
    pub(super) fn reached(&self, limit: Limit) {
        let before = self.reached.inc(limit as usize);
        if before > 0 {
            return;
        }
        match limit {
            Limit::SeriesSupervisors | Limit::SeriesChildren => {
                tracing::warn!(
                    limit = limit.as_str(),
                    "label limit reached: what is beyond it is counted under _other"
                );
            }
            Limit::NodeConnections
            | Limit::Nodes
            | Limit::NodeSupervisors
            | Limit::NodeChildren
            | Limit::NodeTextBytes => {
                tracing::warn!(limit = limit.as_str(), "limit of nodes reached: what is beyond it is not heard apart");
            }
            _ => {}
        }
    }

    pub(super) fn counts(&self) -> [u64; Limit::ALL.len()] {
        let mut counts = self.reached.get();
        for shortage in Shortage::ALL {
            counts[Limit::of_shortage(*shortage) as usize] += shortage.counted();
        }
        counts
    }

    pub(super) fn count(&self, limit: Limit) -> u64 {
        self.reached.get()[limit as usize]
    }

    /// Takes room for the label of one more child; false if there is none.
    pub(super) fn take_child(&self) -> bool {
        let take = |children| (children < self.max_children).then_some(children + 1);
        self.children.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }

    pub(super) fn has_room_for_child(&self) -> bool {
        self.children() < self.max_children
    }

    pub(super) fn give_back_children(&self, count: usize) {
        self.children.fetch_sub(count, Ordering::Relaxed);
    }

    pub(super) fn children(&self) -> usize {
        self.children.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Counters are indexed by the discriminant, label values are listed in the order of ALL.
    #[test]
    fn all_limits_stand_in_the_order_of_their_discriminants() {
        for (index, limit) in Limit::ALL.iter().enumerate() {
            assert_eq!(*limit as usize, index);
        }
    }

    // Room that is given back can be taken again, and never more than there is.
    #[test]
    fn children_take_room_until_there_is_none() {
        let limits = Limits::new(2);
        assert!(limits.take_child() && limits.take_child() && !limits.take_child());
        limits.give_back_children(1);
        assert!(limits.has_room_for_child() && limits.take_child() && !limits.has_room_for_child());
    }
}
