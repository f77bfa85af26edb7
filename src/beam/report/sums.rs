//! Reports that a node was too busy to tell one by one.

use std::sync::Arc;

use super::{Emit, Moment, Watched};
use crate::beam::message::{Kind, Sum};
use crate::event::{Aggregated, ChildRef, Detail, Payload, Restart, RestartCause};

impl Watched {
    /// Takes in reports that were counted in the node; of one message those of [`Kind::MaxIntensity`] first.
    pub fn sum(&mut self, sum: &Sum<'_>, moment: Moment, emit: &mut Emit<'_>) {
        let at = self.in_order(moment);
        if sum.count == 0 {
            return;
        }
        let child = sum.child.as_ref().map(|child| self.child_ref(child));
        let reference = self.reference.clone();
        let mut many = |child: Option<Arc<ChildRef>>, of, count| {
            if count > 0 {
                emit(&reference, at, Payload::ChildAggregate { child, of, count });
            }
        };
        let is_restarted = self.config.restarts && sum.restart != Some(Restart::Temporary);
        let restarted = |cause| Aggregated::Restarted { cause };
        match sum.kind {
            Kind::Terminated => {
                let of = Aggregated::Terminated { class: sum.class, shutdown: false, restart: sum.restart };
                many(child.clone(), of, sum.count);
                if is_restarted && self.config.is_dynamic {
                    let refused = self.refused.min(sum.count);
                    self.refused -= refused;
                    many(child, restarted(RestartCause::Failure), sum.count - refused);
                } else if is_restarted && let Some(of) = &sum.child {
                    self.with_fixed(of, |fixed| {
                        fixed.expected = fixed.expected.saturating_add_unsigned(sum.count);
                        fixed.run = None;
                    });
                }
            }
            Kind::Started => {
                let Some(of) = &sum.child else { return many(None, Aggregated::Started, sum.count) };
                // One that starts again without having died is a sibling's victim; alone, its death is told later.
                let is_alone = !self.restarts_siblings();
                let cause = if is_alone { RestartCause::Failure } else { RestartCause::Sibling };
                let (first, after_failures, others) = self.with_fixed(of, |fixed| {
                    let after_failures = sum.count.min(fixed.expected.max(0).unsigned_abs());
                    fixed.expected = fixed.expected.saturating_sub_unsigned(after_failures);
                    (fixed.run, fixed.attempts) = (None, 0);
                    let others = sum.count - after_failures;
                    let first = u64::from(others > 0 && !fixed.has_run);
                    fixed.has_run = true;
                    if is_alone {
                        fixed.expected = fixed.expected.saturating_sub_unsigned(others - first);
                    }
                    (first, after_failures, others - first)
                });
                many(child.clone(), Aggregated::Started, first);
                many(child.clone(), restarted(RestartCause::Failure), after_failures);
                many(child, restarted(cause), others);
            }
            Kind::StartError => many(child, Aggregated::StartErrors, sum.count),
            Kind::MaxIntensity => {
                if let Some(child) = &sum.child {
                    self.refused(child, None);
                }
                // A death that was told by itself is awaited; of one that was counted the count is still to come.
                match self.awaited.iter().rposition(|awaited| awaited.attempts == 0) {
                    Some(newest) => {
                        self.awaited.remove(newest);
                        self.shrink();
                    }
                    None => self.refused += 1,
                }
                self.gave_up.get_or_insert_with(|| Detail::new("one restart too many"));
            }
            Kind::ShutdownError => {
                let of = Aggregated::Terminated { class: sum.class, shutdown: true, restart: sum.restart };
                many(child, of, sum.count);
            }
            Kind::Unknown => {}
        }
    }
}
