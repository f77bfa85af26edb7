//! What a child does, in one word, and how many do so.

/// What a child does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ChildState {
    /// It is started when the children before it have started.
    Waiting,
    /// It is being started.
    Starting,
    /// It runs.
    Running,
    /// It was told to stop.
    Stopping,
    /// It ended or did not start, and will be started again.
    Restarting,
    /// It is down because somebody wanted so, or because it was done.
    Stopped,
    /// It is down by its own failure, and stays so until somebody asks for it.
    Failed,
}

/// Children by state, those that are not listed included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChildCounts([u64; ChildState::ALL.len()]);

// === impl ChildState ===

impl ChildState {
    /// Every state, in the order of the discriminants.
    pub const ALL: [ChildState; 7] = [
        ChildState::Waiting,
        ChildState::Starting,
        ChildState::Running,
        ChildState::Stopping,
        ChildState::Restarting,
        ChildState::Stopped,
        ChildState::Failed,
    ];

    /// The spelling used in labels and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            ChildState::Waiting => "waiting",
            ChildState::Starting => "starting",
            ChildState::Running => "running",
            ChildState::Stopping => "stopping",
            ChildState::Restarting => "restarting",
            ChildState::Stopped => "stopped",
            ChildState::Failed => "failed",
        }
    }
}

// === impl ChildCounts ===

impl ChildCounts {
    /// Children in this state.
    pub fn get(&self, state: ChildState) -> u64 {
        self.0[state as usize]
    }

    /// Children in each state, in the order of [`ChildState::ALL`].
    pub fn by_state(&self) -> [u64; ChildState::ALL.len()] {
        self.0
    }

    pub(super) fn of(&mut self, state: ChildState) -> &mut u64 {
        &mut self.0[state as usize]
    }
}

impl<const STATES: usize> From<[(ChildState, u64); STATES]> for ChildCounts {
    fn from(counts: [(ChildState, u64); STATES]) -> Self {
        let mut all = Self::default();
        counts.into_iter().for_each(|(state, count)| *all.of(state) = count);
        all
    }
}
