//! Names and reasons.

use std::sync::Arc;
use std::time::Duration;

use crate::beam::message::{Child, Reason, Sup};
use crate::event::{Detail, ExitReason, ReasonClass};

/// Longest name that becomes a label, in bytes.
const MAX_NAME: usize = 255;

/// The child that all are told under who are beyond the limit.
pub(super) const OTHER: &str = "_other";

/// Why, in the words of events.
pub(super) fn exit_reason(reason: &Reason<'_>) -> ExitReason {
    let text = if reason.detail.is_empty() { &reason.tag } else { &reason.detail };
    match reason.class {
        ReasonClass::Normal => ExitReason::Normal,
        ReasonClass::Killed => ExitReason::Killed,
        ReasonClass::Shutdown => {
            ExitReason::Shutdown(Some(&reason.detail).filter(|text| !text.is_empty()).map(|text| Detail::new(text)))
        }
        _ => ExitReason::Error(Detail::new(text)),
    }
}

/// The registered name; else the place below the parent; else the module.
pub(super) fn name_of(sup: &Sup<'_>, parent: Option<&str>) -> Arc<str> {
    if !sup.name.is_empty() {
        return cut(&sup.name).into();
    }
    let id = sup.id_in_parent.as_deref().filter(|id| !id.is_empty() && *id != "undefined");
    let own = id.unwrap_or(if sup.module.is_empty() { "_anonymous" } else { &sup.module });
    match (parent, &sup.app) {
        (Some(parent), _) => cut(&format!("{parent}/{own}")).into(),
        (None, Some(app)) => cut(&format!("{app}/{own}")).into(),
        (None, None) => cut(own).into(),
    }
}

/// The id, unless it has none that stays the same: then its start function.
pub(super) fn child_name<'a>(child: &'a Child<'_>) -> &'a str {
    match (&*child.id, &*child.mfa) {
        ("" | "undefined", "") => "undefined",
        ("" | "undefined", mfa) => cut(mfa),
        (id, _) => cut(id),
    }
}

pub(super) fn cut(name: &str) -> &str {
    &name[..name.floor_char_boundary(MAX_NAME)]
}

/// Never negative, whatever the node's clock did.
pub(super) fn since(earlier_us: i64, later_us: i64) -> Duration {
    Duration::from_micros(u64::try_from(later_us.saturating_sub(earlier_us)).unwrap_or(0))
}
