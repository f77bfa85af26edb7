//! Every case of OTP's `supervisor_SUITE` (OTP 27.3) that makes sense for tokio tasks, under its own name: 78 of 91. The
//! comment above a test is the rule; where the test is adapted it says what is different. Beside them stand the defects of
//! other supervisors (`defects`, `generations`), random operations against a model (`model`), many threads (`stress`) and OS processes
//! (`processes`), which OTP's suite does not have.
//!
//! # What has no test here
//!
//! | case | why |
//! |---|---|
//! | `significant_upgrade_never_any`, `_any_never`, `_never_all`, `_all_never`, `_any_all`, `_all_any` | a running program's code and flags are not exchanged |
//! | `significant_upgrade_child` | the same for a child's spec |
//! | `code_change`, `code_change_map`, `code_change_simple`, `code_change_simple_map` | the same |
//! | `get_callback_module` | serves the release handler of the same |
//! | `simple_global_supervisor` | there are no names over several nodes |
//!
//! # Where the answers are not OTP's
//!
//! - `simple_one_for_one` is [`Strategy::Dynamic`], which follows Elixir's `DynamicSupervisor`: each child brings a spec of
//!   its own, so `count_children` counts as many specs as children (OTP: one), a child's id is shown (OTP: `undefined`),
//!   and `terminate_child` with the pid of a dead child answers `not_found` (OTP: `ok`).
//! - OTP's init callback is [`Supervisor::from_fn`]; a [`Supervisor`] is the flags and children it would return.
//! - The intensity window is real time and not whole seconds ([`Resolution`] has both).
//! - The last failed attempt to restart ends the supervisor at once; OTP counts it when its turn to be tried again comes.
//! - A child that says nothing and ends by itself after it was told to stop has ended with `shutdown`: a task has no exit
//!   signal that could be its reason. One that is killed because its time was over has ended with `timeout`; OTP says
//!   `killed` for this as for `brutal_kill`.
//! - A terminated child that stood first in a failing group restart takes those that wait behind it along: they are
//!   stopped, as in OTP, and [`ChildStop`] says so for each.
//! - Errors of a start are the child's own words and not `{What, ChildRecord}`.
//!
//! [`ChildStop`]: restart_exporter::event::EventKind::ChildStop
//! [`Resolution`]: restart_exporter::supervisor::Resolution
//! [`Strategy::Dynamic`]: restart_exporter::supervisor::Strategy::Dynamic
//! [`Supervisor`]: restart_exporter::supervisor::Supervisor
//! [`Supervisor::from_fn`]: restart_exporter::supervisor::Supervisor::from_fn

mod api;
mod defects;
mod generations;
mod log_text;
mod model;
mod processes;
mod restart;
mod restart_loop;
mod scale;
mod significant;
mod start;
mod stop;
mod stress;
mod termination;
