//! What may be done. Pure: no I/O, no clock, no state; the same question always gets the same answer.
//!
//! `scope` says whether a principal may knock with an action at all, `judge` whether the action is
//! permitted. The only mint of `Permit`.

mod judge;
mod scope;

pub(crate) use judge::{Denial, Lockdown, Permit, Permitted, Policy, Verdict, judge, profile_of_kept};
pub(crate) use scope::{MissingScope, Need, Why, may_see, need, scope};
