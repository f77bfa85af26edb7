//! Names and times.

use std::time::Duration;

use crate::beam::message::{Child, Sup};

/// The registered name; else the place below the parent; else the module.
pub(super) fn name_of(sup: &Sup<'_>, parent: Option<&str>) -> String {
    if !sup.name.is_empty() {
        return sup.name.to_string();
    }
    let id = sup.id_in_parent.as_deref().filter(|id| !id.is_empty() && *id != "undefined");
    let own = id.unwrap_or(if sup.module.is_empty() { "_anonymous" } else { &sup.module });
    match (parent, &sup.app) {
        (Some(parent), _) => format!("{parent}/{own}"),
        (None, Some(app)) => format!("{app}/{own}"),
        (None, None) => own.to_owned(),
    }
}

/// The id, unless it has none that stays the same: then its start function.
pub(super) fn child_name<'a>(child: &'a Child<'_>) -> &'a str {
    match (&*child.id, &*child.mfa) {
        ("" | "undefined", "") => "undefined",
        ("" | "undefined", mfa) => mfa,
        (id, _) => id,
    }
}

/// Never negative, whatever the node's clock did.
pub(super) fn since(earlier_us: i64, later_us: i64) -> Duration {
    Duration::from_micros(u64::try_from(later_us.saturating_sub(earlier_us)).unwrap_or(0))
}
