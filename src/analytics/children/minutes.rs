//! The deaths of children by the minute. Pure.

use super::{Child, Children};

/// Minutes of which the deaths are told one by one.
pub const MINUTES_COUNTED: usize = 60;

impl Children {
    /// Deaths in each of the last [`MINUTES_COUNTED`] minutes, the present one last, of the children with this id or, without
    /// one, of all.
    pub(in crate::analytics) fn deaths_by_minute(&self, id: Option<&str>, now: u64) -> Vec<u32> {
        let mut minutes = vec![0; MINUTES_COUNTED];
        let wanted = |entry: &&Child| id.is_none_or(|id| *entry.child.id == *id);
        let children = self.fixed.values().chain(self.dynamic.values()).filter(wanted);
        children.filter_map(|entry| entry.deaths.as_ref()).for_each(|deaths| deaths.add_by_minute(now, &mut minutes));
        minutes
    }
}
