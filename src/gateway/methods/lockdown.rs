//! `lockdown.*`: everything stops at once, and nothing begins.

use super::Done;
use crate::auth::Session;
use crate::gateway::Gateway;
use crate::gateway::reply::Answer;
use crate::journal::{Event, Receipt, Record};
use crate::model::{LockdownAction, Running};
use crate::wire::{ErrorCode, ErrorShape};
use serde_json::json;
use std::sync::Arc;

/// The event of an action that changes something.
pub(in crate::gateway) fn event(action: LockdownAction) -> Option<Event> {
    match action {
        LockdownAction::Status => None,
        LockdownAction::On(_) => Some(Event::LockdownOn),
        LockdownAction::Off => Some(Event::LockdownOff),
    }
}

/// `lockdown.status`.
pub(super) fn status(gateway: &Gateway) -> Answer {
    Ok(json!({"on": gateway.lockdown.is_on(), "runs": gateway.running()}))
}

/// `lockdown.on` and `lockdown.off`.
pub(super) async fn change(
    gateway: &Arc<Gateway>,
    session: &Session,
    action: LockdownAction,
    _receipt: Receipt,
) -> Done {
    let on = action != LockdownAction::Off;
    let (_alone, at) = (gateway.credentials.lock().await, Arc::clone(gateway));
    let kept = tokio::task::spawn_blocking(move || at.set_lockdown(on)).await;
    let fault = match kept {
        Ok(Ok(())) => None,
        Ok(Err(fault)) => Some(fault.to_string()),
        Err(fault) => Some(fault.to_string()),
    };
    if action == LockdownAction::On(Running::Killed) {
        gateway.parts.runners.lock_down();
    }
    gateway.hub.tell("lockdown.changed", None, &json!({"on": gateway.lockdown.is_on()}));
    let Some(error) = fault else { return status(gateway).into() };
    tracing::error!(%error, "the state of the lockdown could not be kept");
    let held = if on { "everything is locked down, but a restart will not know of it" } else { "it stays locked down" };
    let record = Record::new(Event::ChangeRefused).by(&session.principal, &session.peer.label()).error(held);
    let shape = ErrorShape::new(ErrorCode::Unavailable, held).details(
        json!({"code": "STORE_UNAVAILABLE", "hint": "look at the gateway's log and the rights of its state folder"}),
    );
    Done { answer: Err(shape), record: Some(record) }
}
