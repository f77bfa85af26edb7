//! What is followed of children.

use std::sync::Arc;
use std::time::Duration;

use super::Watched;
use super::text::{OTHER, child_name, cut, since};
use crate::beam::message::Child;
use crate::event::{ChildRef, ChildType, Pid, Restart};

/// Children that are followed under one supervisor; those beyond share one that is called `_other`.
pub const MAX_CHILDREN: usize = 10_000;

/// A static child.
#[derive(Debug)]
pub(super) struct Fixed {
    pub(super) child: Arc<ChildRef>,
    /// Its start function.
    pub(super) mfa: Box<str>,
    /// The run whose start was seen.
    pub(super) run: Option<(Option<Pid>, i64)>,
    /// Has it run, as far as is known?
    pub(super) has_run: bool,
    pub(super) last: Option<Pid>,
    pub(super) died_us: Option<i64>,
    /// Deaths whose restart was not told yet; negative if restarts were told (as counts) before their deaths.
    pub(super) expected: i64,
    pub(super) attempts: u32,
    pub(super) round: u64,
}

impl Watched {
    /// Calls `act` with what is known of a static child.
    pub(super) fn with_fixed<R>(&mut self, child: &Child<'_>, act: impl FnOnce(&mut Fixed) -> R) -> R {
        let id = child_name(child);
        let fixed = match self.fixed.get_mut(id) {
            Some(fixed) => fixed,
            None => {
                let has_room = self.fixed.len() < MAX_CHILDREN;
                self.is_full |= !has_room;
                let id = if has_room { id } else { OTHER };
                self.fixed.entry(id.into()).or_insert_with(|| Fixed::new(id, child))
            }
        };
        let before = fixed.expected > 0;
        let result = act(fixed);
        match (before, fixed.expected > 0) {
            (false, true) => self.expected += 1,
            (true, false) => self.expected -= 1,
            _ => {}
        }
        result
    }

    pub(super) fn child_ref(&mut self, child: &Child<'_>) -> Arc<ChildRef> {
        if !self.config.is_dynamic {
            return self.with_fixed(child, |fixed| fixed.child.clone());
        }
        self.kind(&child.mfa, child.restart, child.child_type)
    }

    /// What the children of a dynamic supervisor that have this start function are told as.
    pub(super) fn kind(&mut self, mfa: &str, restart: Option<Restart>, child_type: ChildType) -> Arc<ChildRef> {
        let label = if mfa.is_empty() { "_dynamic" } else { cut(mfa) };
        if let Some(known) = self.kinds.get(label)
            && (known.restart, known.child_type) == (restart, child_type)
        {
            return known.clone();
        }
        self.is_full |= self.kinds.len() >= MAX_CHILDREN;
        let label = if self.kinds.len() < MAX_CHILDREN { label } else { OTHER };
        let new = Arc::new(ChildRef {
            id: label.into(),
            label: label.into(),
            child_type,
            restart,
            // Nobody tells which of its children is back: it is the kind that dies again and again.
            dynamic: false,
        });
        self.kinds.insert(label.into(), new.clone());
        new
    }
}

// === impl Fixed ===

impl Fixed {
    fn new(id: &str, child: &Child<'_>) -> Self {
        let (child_type, restart) = (child.child_type, child.restart);
        Self {
            child: Arc::new(ChildRef { id: id.into(), label: id.into(), child_type, restart, dynamic: false }),
            mfa: (&*child.mfa).into(),
            run: None,
            has_run: false,
            last: None,
            died_us: None,
            expected: 0,
            attempts: 0,
            round: 0,
        }
    }

    /// The time that this run took, if its start was seen; the run is over.
    pub(super) fn lifetime(&mut self, pid: Option<Pid>, now_us: i64) -> Option<Duration> {
        let (_, started_us) = self.run.take_if(|(run, _)| *run == pid)?;
        Some(since(started_us, now_us))
    }
}
