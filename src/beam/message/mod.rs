//! What agent and exporter say to each other: wire schema, version 1. Pure.
//!
//! Elements that a tuple has beyond those known are ignored, and so are messages and words that are newer than this
//! exporter: an agent may be newer, and its events must not be lost for that.

mod read;
mod text;
mod write;

use super::frame::Reader;
use crate::event::{ChildType, MAX_DETAIL_BYTES, Pid, ReasonClass, Restart, Strategy};

pub use read::read;
pub use text::Text;
pub use write::{ack, resync, welcome};

/// The version of the schema.
pub const SCHEMA_VERSION: i64 = 1;

/// Longest name of a supervisor, child, module, function, host or label, in bytes. The agent sends at most 64 of most.
pub const MAX_NAME_BYTES: usize = 255;

/// Longest name of a node, in bytes: an atom of Erlang has at most 255 characters.
pub const MAX_NODE_BYTES: usize = 1020;

/// Most labels of a node; those beyond are left out.
pub const MAX_LABELS: usize = 32;

/// A name.
pub type Name<'a> = Text<'a, MAX_NAME_BYTES>;

/// The name of a node. One that is cut names no node.
pub type NodeName<'a> = Text<'a, MAX_NODE_BYTES>;

/// A reason at length.
pub type ReasonText<'a> = Text<'a, MAX_DETAIL_BYTES>;

/// What an agent says.
#[derive(Debug)]
pub enum Message<'a> {
    /// The first message of a connection.
    Hello(Hello<'a>),
    /// A supervisor, before its key is used; said again when more of it is known.
    Supervisor(Sup<'a>),
    /// All supervisors follow, or have been said.
    Snapshot {
        /// Does it begin?
        begins: bool,
    },
    /// Events, one by one.
    Events(Events<'a>),
    /// Events, counted.
    Sums(Sums<'a>),
    /// A supervisor ended.
    Down(Down<'a>),
    /// A heartbeat.
    Stats(Stats),
    /// The agent stops.
    Bye(ReasonText<'a>),
    /// Something newer than this exporter.
    Unknown,
}

/// Who speaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello<'a> {
    /// Version of the agent.
    pub agent: Name<'a>,
    /// Name of the node.
    pub node: NodeName<'a>,
    /// Made by chance when the agent's tables were made; numbers and keys belong to it.
    pub incarnation: &'a [u8],
    /// OTP's release.
    pub otp: Name<'a>,
    /// Elixir's version; none if there is no Elixir.
    pub elixir: Option<Name<'a>>,
    /// The host's name.
    pub host: Name<'a>,
    /// The process of the operating system.
    pub os_pid: i64,
    /// When the virtual machine started: with host and process it tells machines apart.
    pub vm_start_us: i64,
    /// The node's clock.
    pub now_us: i64,
    /// What its owner says of it: names and values, at most [`MAX_LABELS`].
    pub labels: Vec<Label<'a>>,
    /// Were there more?
    pub has_more_labels: bool,
    /// What the exporter may want to see.
    pub token: Option<&'a [u8]>,
}

/// The name and the value of a label.
pub type Label<'a> = (Name<'a>, Name<'a>);

/// A supervisor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sup<'a> {
    /// Never used twice within an incarnation.
    pub key: i64,
    /// The process, as text.
    pub pid: Option<Pid>,
    /// The registered name; empty if it has none.
    pub name: Name<'a>,
    /// The callback module.
    pub module: Name<'a>,
    /// Are its children all alike, and never reported when they start?
    pub is_dynamic: bool,
    /// Does it restart children at all? A `supervisor_bridge` does not.
    pub restarts: bool,
    /// The application it belongs to.
    pub app: Option<Name<'a>>,
    /// The supervisor above.
    pub parent: Option<i64>,
    /// Its id there.
    pub id_in_parent: Option<Name<'a>>,
    /// How the failure of one child concerns its siblings; none if unknown.
    pub strategy: Option<Strategy>,
    /// Restarts allowed within the period; none if unknown.
    pub intensity: Option<u32>,
    /// Seconds; none if unknown.
    pub period: Option<u32>,
    /// When the agent saw it first, by the node's clock.
    pub seen_us: i64,
}

/// The events of a message, decoded while they are taken.
#[derive(Clone, Debug)]
pub struct Events<'a> {
    elements: Elements<'a>,
}

/// The elements of a list, one after the other.
#[derive(Clone, Debug)]
struct Elements<'a> {
    reader: Reader<'a>,
    count: usize,
    left: usize,
}

/// What a supervisor reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// The place in the stream.
    pub seq: u64,
    /// The node's clock.
    pub time_us: i64,
    /// Whose report it is.
    pub sup: i64,
    /// Which.
    pub kind: Kind,
    /// About whom.
    pub child: Child<'a>,
    /// The run; with `start_error` the one before.
    pub pid: Option<Pid>,
    /// More about the kind.
    pub flag: Flag,
    /// Children it speaks of.
    pub count: u64,
    /// Why.
    pub reason: Reason<'a>,
}

/// OTP's reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `progress`
    Started,
    /// `child_terminated`
    Terminated,
    /// `start_error`
    StartError,
    /// `shutdown`: it gave up.
    MaxIntensity,
    /// `shutdown_error`
    ShutdownError,
    /// One that is newer than this exporter.
    Unknown,
}

/// What the agent knows of a report beyond its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flag {
    /// Nothing.
    None,
    /// A restart was tried.
    Restarting,
    /// Somebody called `start_child` or `restart_child`.
    Api,
    /// The supervisor itself starts.
    Init,
}

/// A child as its supervisor describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Child<'a> {
    /// `undefined` where there is none that would be stable.
    pub id: Name<'a>,
    /// Its start function.
    pub mfa: Name<'a>,
    /// When it is restarted; none for a type that OTP does not have.
    pub restart: Option<Restart>,
    /// A worker or a supervisor.
    pub child_type: ChildType,
    /// Is it killed at once when the supervisor stops it?
    pub is_killed: bool,
}

/// Why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason<'a> {
    /// In our words.
    pub class: ReasonClass,
    /// In short.
    pub tag: Name<'a>,
    /// At length; empty where class or tag say it all.
    pub detail: ReasonText<'a>,
}

/// Events that were counted in the node.
#[derive(Clone, Debug)]
pub struct Sums<'a> {
    /// The place in the stream; none from an agent that does not number them.
    pub seq: Option<u64>,
    /// The end of the time they are from, by the node's clock.
    pub to_us: i64,
    elements: Elements<'a>,
}

/// A row of [`Sums`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sum<'a> {
    /// Whose reports.
    pub sup: i64,
    /// Which.
    pub kind: Kind,
    /// When such children are restarted; none for a type that OTP does not have.
    pub restart: Option<Restart>,
    /// Why.
    pub class: ReasonClass,
    /// How many.
    pub count: u64,
    /// About whom; none from an agent that does not say.
    pub child: Option<Child<'a>>,
}

/// The end of a supervisor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Down<'a> {
    /// The place in the stream.
    pub seq: u64,
    /// The node's clock.
    pub time_us: i64,
    /// Which.
    pub sup: i64,
    /// How.
    pub end: End,
    /// Why.
    pub reason: Reason<'a>,
}

/// How a supervisor ended, as far as the word of OTP tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// `normal`
    Normal,
    /// `shutdown`
    Shutdown,
    /// `noproc`: it had ended before the agent watched it.
    Unseen,
    /// Every other word.
    Failed,
}

/// What an agent counts about itself, since its incarnation began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// The node's clock.
    pub now_us: i64,
    /// Events it lost itself.
    pub lost: u64,
    /// Times its tap had to be installed again.
    pub reinstalls: u64,
}

// === impl Hello ===

impl Hello<'_> {
    /// Did the agent say more than is kept?
    pub fn is_cut(&self) -> bool {
        let texts = [&self.agent, &self.otp, &self.host].into_iter().chain(&self.elixir);
        let labels = self.labels.iter().flat_map(|(name, value)| [name, value]);
        self.has_more_labels || texts.chain(labels).any(Text::is_cut)
    }
}

// === impl Sup ===

impl Sup<'_> {
    /// Did the agent say more than is kept?
    pub fn is_cut(&self) -> bool {
        let texts = [&self.name, &self.module].into_iter().chain(&self.app).chain(&self.id_in_parent);
        texts.into_iter().any(Text::is_cut)
    }
}
