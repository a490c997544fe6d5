//! The story of one request. Every stage is one call, every refusal ends here and is recorded.
//!
//!     frame ─▶ action ─▶ scope ─▶ verdict ─▶ record ─▶ act ─▶ record ─▶ answer
//!
//! No stage can be left out: each takes what only the one before it can make.

use super::Gateway;
use super::methods;
use super::outbox::Outbox;
use super::recorded::{self, Recorded};
use super::reply::{self, Answer};
use crate::auth::Session;
use crate::policy::{self, Verdict};
use crate::wire::{self, Frame};
use std::sync::Arc;

/// Answers one request of an authenticated session.
pub(super) async fn answer(gateway: &Arc<Gateway>, session: &Session, frame: &Frame, outbox: &Outbox) -> Answer {
    // Does what this session rests on still stand? A revocation is at use, not only at the door.
    if !gateway.parts.gatekeeper.stands(session) {
        return reply::fallen();
    }

    // What is asked: one of a closed list of actions, or nothing we know.
    let action = match wire::action(frame) {
        Ok(action) => action,
        Err(invalid) => return reply::invalid(session, &invalid),
    };
    let method = action.method();

    // May this principal knock with it at all?
    let scoped = match policy::scope(&session.principal, action) {
        Ok(scoped) => scoped,
        Err(missing) => {
            recorded::refusal(gateway, session, method, &missing);
            return reply::missing_scope(&missing);
        }
    };

    // What do the operator's rules say? Pure; the same question always gets the same answer.
    let (grants, lockdown) = (gateway.parts.secrets.grants(), gateway.lockdown.state());
    let permit = match policy::judge(&gateway.policy(), &grants, lockdown, scoped) {
        Verdict::Permit(permit) => permit,
        Verdict::Deny(denial) => {
            recorded::denial(gateway, session, method, &denial);
            return reply::denied(&denial);
        }
    };

    // No receipt, no act: the record stands before anything happens.
    let recorded = match Recorded::write(gateway, session, permit) {
        Ok(recorded) => recorded,
        Err(fault) => return reply::journal_fault(&fault),
    };

    // The act itself; a command runs in the other process, behind its walls.
    let done = methods::perform(gateway, session, recorded, &frame.id, outbox).await;

    // What came of it stands in the journal before anybody is told.
    match recorded::finish(gateway, done.record) {
        Ok(()) => done.answer,
        Err(fault) => reply::unrecorded_end(&fault),
    }
}
