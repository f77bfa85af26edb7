//! What a node was too busy to tell one by one.

use std::sync::Arc;

use super::{Children, Doing};
use crate::event::{Aggregated, ChildRef};

impl Children {
    /// `[supervisor, child, aggregate]`: what only the number is known of. A child that nothing else was ever told of is not
    /// listed by it.
    pub(in crate::analytics) fn counted(&mut self, child: &Arc<ChildRef>, of: Aggregated, count: u64, at: u64) {
        let Some(entry) = self.fixed.get(&child.id).filter(|_| !child.dynamic) else { return };
        let (running, doing) = (Doing::Running { pid: None, since: at }, entry.doing.clone());
        match of {
            Aggregated::Started => self.enter(child, None, &[], running, |_| ()),
            Aggregated::Restarted { .. } => self.enter(child, None, &[], running, |entry| entry.restarts += count),
            Aggregated::Terminated { shutdown: false, .. } | Aggregated::StartErrors => {
                self.enter(child, None, &[], doing, |entry| {
                    if let Some(deaths) = &mut entry.deaths {
                        deaths.count_many(count, at);
                    }
                });
            }
            Aggregated::Terminated { .. } => {}
        }
    }
}
