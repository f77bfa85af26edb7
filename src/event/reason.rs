//! Why a child or a supervisor ended.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use super::words::{ReasonClass, SupervisorExitClass};

/// Longest text kept of a reason, in bytes: one panic message must not fill the memory that a thousand deaths may use.
pub const MAX_DETAIL_BYTES: usize = 1024;

/// A text of at most [`MAX_DETAIL_BYTES`] bytes, cut at a character with a closing `…`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Detail(Arc<str>);

impl Detail {
    /// Keeps the text, cut if it is too long.
    pub fn new(text: &str) -> Self {
        const MARK: &str = "…";
        if text.len() <= MAX_DETAIL_BYTES {
            return Self(text.into());
        }
        let end = text.floor_char_boundary(MAX_DETAIL_BYTES - MARK.len());
        Self([&text[..end], MARK].concat().into())
    }

    /// Keeps a text that somebody else has as well, cut if it is too long.
    pub fn shared(text: Arc<str>) -> Self {
        if text.len() <= MAX_DETAIL_BYTES { Self(text) } else { Self::new(&text) }
    }
}

impl Deref for Detail {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Detail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl fmt::Display for Detail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self)
    }
}

/// A panic: what it said and where.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Panic {
    /// The message; `Box<dyn Any>` if the payload was no text.
    pub message: Detail,
    /// `file:line:column`; none if another panic hook replaced ours, or the panic came while the task was dropped.
    pub location: Option<Box<str>>,
}

/// How a child ended, with all that is known of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ExitReason {
    /// Ended by itself without an error (exit code 0).
    Normal,
    /// Stopped on order, or said that it shuts down (OTP: `shutdown` and `{shutdown, Term}`).
    Shutdown(Option<Detail>),
    /// Returned an error.
    Error(Detail),
    /// A process ended with this non-zero code.
    Exit(i32),
    /// Panicked.
    Panic(Arc<Panic>),
    /// Aborted, or killed by SIGKILL.
    Killed,
    /// Ended by this signal.
    Signal(i32),
    /// Killed for memory, as the kernel's own counter proves.
    Oom,
    /// Told to stop, did not in time, and was killed.
    Timeout,
}

impl ExitReason {
    /// An error with the text that `error` shows, cut at [`MAX_DETAIL_BYTES`].
    pub fn error(error: impl fmt::Display) -> Self {
        // The alternate form, because there `anyhow` and its kin show the whole chain of causes.
        ExitReason::Error(Detail::new(&format!("{error:#}")))
    }

    /// The class used as a label.
    pub fn class(&self) -> ReasonClass {
        match self {
            ExitReason::Normal => ReasonClass::Normal,
            ExitReason::Shutdown(_) => ReasonClass::Shutdown,
            ExitReason::Error(_) | ExitReason::Exit(_) => ReasonClass::Error,
            ExitReason::Panic(_) => ReasonClass::Panic,
            ExitReason::Killed => ReasonClass::Killed,
            ExitReason::Signal(_) => ReasonClass::Signal,
            ExitReason::Oom => ReasonClass::Oom,
            ExitReason::Timeout => ReasonClass::Timeout,
        }
    }

    /// OTP's rule for `transient`: everything but `normal`, `shutdown` and `{shutdown, Term}` (`supervisor:do_restart/3`).
    pub fn is_abnormal(&self) -> bool {
        self.class().is_abnormal()
    }

    /// What is known beyond the class, for people; none if the class says it all.
    pub fn detail(&self) -> Option<String> {
        match self {
            ExitReason::Normal | ExitReason::Killed | ExitReason::Oom | ExitReason::Timeout => None,
            ExitReason::Shutdown(detail) => detail.as_deref().map(str::to_owned),
            ExitReason::Error(detail) => Some(detail.to_string()),
            ExitReason::Exit(code) => Some(format!("exit code {code}")),
            ExitReason::Signal(number) => Some(format!("signal {number}")),
            ExitReason::Panic(panic) => Some(match &panic.location {
                Some(location) => format!("{} at {location}", panic.message),
                None => panic.message.to_string(),
            }),
        }
    }
}

impl fmt::Display for ExitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.detail() {
            Some(detail) => write!(f, "{}: {detail}", self.class()),
            None => write!(f, "{}", self.class()),
        }
    }
}

/// Why a supervisor ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SupervisorExit {
    /// Stopped through its handle.
    Normal,
    /// Stopped by its parent, or because a significant child was done.
    Shutdown,
    /// Gave up: one restart too many within the window. The text names the child, its reason and the limit.
    MaxIntensity(Detail),
    /// A child could not be started at init, or the supervisor itself was killed.
    Error(Detail),
    /// Nobody saw how: the node it lived on is gone, or was not heard at that time. The text says which.
    Unknown(Detail),
}

impl SupervisorExit {
    /// The class used as a label.
    pub fn class(&self) -> SupervisorExitClass {
        match self {
            SupervisorExit::Normal => SupervisorExitClass::Normal,
            SupervisorExit::Shutdown => SupervisorExitClass::Shutdown,
            SupervisorExit::MaxIntensity(_) => SupervisorExitClass::MaxIntensity,
            SupervisorExit::Error(_) => SupervisorExitClass::Error,
            SupervisorExit::Unknown(_) => SupervisorExitClass::Unknown,
        }
    }

    /// What is known beyond the class.
    pub fn detail(&self) -> Option<&Detail> {
        match self {
            SupervisorExit::Normal | SupervisorExit::Shutdown => None,
            SupervisorExit::MaxIntensity(detail) | SupervisorExit::Error(detail) | SupervisorExit::Unknown(detail) => {
                Some(detail)
            }
        }
    }
}

impl fmt::Display for SupervisorExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.detail() {
            Some(detail) => write!(f, "{}: {detail}", self.class()),
            None => write!(f, "{}", self.class()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // OTP, supervisor:do_restart/3: normal, shutdown and {shutdown, _} do not restart a transient child.
    #[test]
    fn only_normal_and_shutdown_are_not_abnormal() {
        let quiet = [ExitReason::Normal, ExitReason::Shutdown(None), ExitReason::Shutdown(Some(Detail::new("done")))];
        let panic = Panic { message: Detail::new("boom"), location: None };
        let abnormal = [
            ExitReason::error("no"),
            ExitReason::Exit(1),
            ExitReason::Panic(Arc::new(panic)),
            ExitReason::Killed,
            ExitReason::Signal(15),
            ExitReason::Oom,
            ExitReason::Timeout,
        ];
        assert!(quiet.iter().all(|reason| !reason.is_abnormal()));
        assert!(abnormal.iter().all(ExitReason::is_abnormal));
    }

    // A detail is never longer than its limit, never cut inside a character, and says that it was cut.
    #[test]
    fn a_long_detail_is_cut_at_a_character_with_a_mark() {
        assert_eq!(&*Detail::new("short"), "short");
        let cut = Detail::new(&"ä".repeat(MAX_DETAIL_BYTES));
        assert!(cut.len() <= MAX_DETAIL_BYTES);
        assert!(cut.ends_with("ä…"));
    }
}
