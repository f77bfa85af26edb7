//! What agent and exporter say to each other: wire schema, version 1. Pure.
//!
//! Elements that a tuple has beyond those known are ignored, and so are messages and words that are newer than this
//! exporter: an agent may be newer, and its events must not be lost for that.

mod read;
mod write;

use std::borrow::Cow;

use super::frame::Reader;
use crate::event::{ChildType, Pid, ReasonClass, Restart, Strategy};

pub use read::read;
pub use write::{ack, resync, welcome};

/// The version of the schema.
pub const SCHEMA_VERSION: i64 = 1;

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
    Bye(Cow<'a, str>),
    /// Something newer than this exporter.
    Unknown,
}

/// Who speaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello<'a> {
    /// Version of the agent.
    pub agent: Cow<'a, str>,
    /// Name of the node.
    pub node: Cow<'a, str>,
    /// Made by chance when the agent's tables were made; numbers and keys belong to it.
    pub incarnation: &'a [u8],
    /// OTP's release.
    pub otp: Cow<'a, str>,
    /// Elixir's version; none if there is no Elixir.
    pub elixir: Option<Cow<'a, str>>,
    /// The host's name.
    pub host: Cow<'a, str>,
    /// The process of the operating system.
    pub os_pid: i64,
    /// When the virtual machine started: with host and process it tells machines apart.
    pub vm_start_us: i64,
    /// The node's clock.
    pub now_us: i64,
    /// What its owner says of it: names and values.
    pub labels: Vec<Label<'a>>,
    /// What the exporter may want to see.
    pub token: Option<&'a [u8]>,
}

/// The name and the value of a label.
pub type Label<'a> = (Cow<'a, str>, Cow<'a, str>);

/// A supervisor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sup<'a> {
    /// Never used twice within an incarnation.
    pub key: i64,
    /// The process, as text.
    pub pid: Option<Pid>,
    /// The registered name; empty if it has none.
    pub name: Cow<'a, str>,
    /// The callback module.
    pub module: Cow<'a, str>,
    /// Are its children all alike, and never reported when they start?
    pub is_dynamic: bool,
    /// Does it restart children at all? A `supervisor_bridge` does not.
    pub restarts: bool,
    /// The application it belongs to.
    pub app: Option<Cow<'a, str>>,
    /// The supervisor above.
    pub parent: Option<i64>,
    /// Its id there.
    pub id_in_parent: Option<Cow<'a, str>>,
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
    pub id: Cow<'a, str>,
    /// Its start function.
    pub mfa: Cow<'a, str>,
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
    pub tag: Cow<'a, str>,
    /// At length; empty where class or tag say it all.
    pub detail: Cow<'a, str>,
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
    /// Why, in OTP's word: the class before it was turned into ours.
    pub class: &'a str,
    /// Why.
    pub reason: Reason<'a>,
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
