//! OTP's words: closed sets, spelled the same in labels, JSON and files. And the noun that goes with a number.

use std::fmt;

/// Declares a closed set of words with the spelling used in labels, JSON and files.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$word_doc:meta])* $word:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name {
            $($(#[$word_doc])* #[doc = concat!("Spelled `", $text, "`.")] $word,)+
        }

        impl $name {
            /// Every word of the set, in the order of the discriminants.
            pub const ALL: &'static [$name] = &[$($name::$word,)+];

            /// The spelling used in labels, JSON and files.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $($name::$word => $text,)+
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }
    };
}

words! {
    /// How the failure of one child concerns its siblings (OTP: restart strategies).
    Strategy {
        /// Only the failed child is restarted.
        OneForOne = "one_for_one",
        /// All children are stopped and restarted.
        OneForAll = "one_for_all",
        /// The failed child and those started after it are stopped and restarted.
        RestForOne = "rest_for_one",
        /// Children are added while running and are independent (Elixir's `DynamicSupervisor`).
        Dynamic = "dynamic",
    }
}

words! {
    /// When a child that ended is restarted (OTP: restart types).
    Restart {
        /// Always.
        Permanent = "permanent",
        /// Only after an abnormal end, see [`ExitReason::is_abnormal`](super::ExitReason::is_abnormal).
        Transient = "transient",
        /// Never; the spec goes with the child.
        Temporary = "temporary",
    }
}

words! {
    /// What a child is.
    ChildType {
        /// It works.
        Worker = "worker",
        /// It supervises.
        Supervisor = "supervisor",
    }
}

words! {
    /// When a supervisor shuts itself down because significant children ended (OTP 24 and later).
    AutoShutdown {
        /// It does not.
        Never = "never",
        /// When any significant child ended by itself and is not restarted.
        AnySignificant = "any_significant",
        /// When the last significant child did.
        AllSignificant = "all_significant",
    }
}

words! {
    /// Why a child runs again.
    RestartCause {
        /// It failed.
        Failure = "failure",
        /// A sibling failed, and the strategy includes this child.
        Sibling = "sibling",
        /// An operator asked for it.
        Requested = "requested",
    }
}

words! {
    /// What a supervisor does about a child that ended.
    Action {
        /// Starts it again.
        Restart = "restart",
        /// Keeps the spec, the child stays down.
        Leave = "leave",
        /// Drops the spec with the child.
        Forget = "forget",
        /// Stops all children and ends: one restart too many within the window.
        GiveUp = "give_up",
        /// Stops all children and ends: the significant child it lived for is done.
        AutoShutdown = "auto_shutdown",
    }
}

words! {
    /// The class of an [`ExitReason`](super::ExitReason): a closed set, so that it can be a label.
    ReasonClass {
        /// Ended by itself, without an error.
        Normal = "normal",
        /// Told to stop, and did.
        Shutdown = "shutdown",
        /// Returned an error or a non-zero exit code.
        Error = "error",
        /// Panicked.
        Panic = "panic",
        /// Aborted, or killed by SIGKILL.
        Killed = "killed",
        /// Ended by another signal.
        Signal = "signal",
        /// Killed for memory, as the kernel's own counter proves.
        Oom = "oom",
        /// Told to stop, did not in time, and was killed.
        Timeout = "timeout",
    }
}

impl ReasonClass {
    /// OTP's rule for `transient`: everything but `normal`, `shutdown` and `{shutdown, Term}` (`supervisor:do_restart/3`).
    pub const fn is_abnormal(self) -> bool {
        !matches!(self, ReasonClass::Normal | ReasonClass::Shutdown)
    }
}

words! {
    /// The class of a [`SupervisorExit`](super::SupervisorExit).
    SupervisorExitClass {
        /// Stopped through its handle.
        Normal = "normal",
        /// Stopped by its parent, or because a significant child was done.
        Shutdown = "shutdown",
        /// Gave up: one restart too many within the window.
        MaxIntensity = "max_intensity",
        /// A child could not be started at init, or the supervisor itself was killed.
        Error = "error",
        /// Nobody saw how.
        Unknown = "unknown",
    }
}

words! {
    /// The limits of the listener for Erlang nodes.
    NodeLimit {
        /// A connection was refused because too many are open.
        Connections = "node_connections",
        /// A connection was closed because no hello came in time.
        HelloTime = "node_hello_time",
        /// A connection was closed because a frame was announced that is too long.
        FrameSize = "node_frame_size",
        /// A connection was closed because its agent was silent for too long, or did not read.
        Silence = "node_silence",
        /// A node was refused because too many are known.
        Nodes = "nodes",
        /// A supervisor was left out because its node has too many.
        Supervisors = "node_supervisors",
        /// A child was told under `_other` because its supervisor or its node has too many.
        Children = "node_children",
        /// A dynamic child was taken for restarted early because too many are awaited.
        Awaited = "node_awaited_restarts",
        /// A text was cut because it is too long, or labels of a node were left out because there are too many.
        TextLength = "node_text_length",
        /// A text was left out because the different texts of its node take too much memory.
        TextBytes = "node_text_bytes",
    }
}

/// A number and its noun: `1 child`, `2 children`.
///
/// ```
/// use restart_exporter::event::counted;
///
/// assert_eq!(counted(0, "child", "children"), "0 children");
/// assert_eq!(counted(1, "child", "children"), "1 child");
/// ```
pub fn counted<N: Copy + fmt::Display + PartialEq + From<u8>>(number: N, one: &str, many: &str) -> String {
    format!("{number} {}", if number == N::from(1) { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    // One is one; every other number is many.
    #[test]
    fn a_number_has_the_noun_that_goes_with_it() {
        let table = [(0_u64, "0 deaths"), (1, "1 death"), (2, "2 deaths"), (11, "11 deaths"), (101, "101 deaths")];
        for (number, expected) in table {
            assert_eq!(counted(number, "death", "deaths"), expected);
        }
    }
}
