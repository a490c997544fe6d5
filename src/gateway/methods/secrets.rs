//! `secrets.*` and `state.backup`: what operators keep for agents, and the key that everything is sealed with.

use super::Done;
use crate::auth::Session;
use crate::gateway::Gateway;
use crate::gateway::reply::Answer;
use crate::journal::{Event, Receipt, Record};
use crate::model::SecretsAction;
use crate::secrets::{Secrets, SecretsFault};
use crate::store::{self, BackupFault, KeyFacts, Lock, SecretRecord};
use crate::wire::{self, ErrorCode, ErrorShape};
use serde_json::{Value, json};
use std::sync::Arc;

/// The event of an action that changes or shows something; `None` for the list of names.
pub(in crate::gateway) fn event(action: &SecretsAction) -> Option<Event> {
    match action {
        SecretsAction::List => None,
        SecretsAction::Set { .. } => Some(Event::SecretSet),
        SecretsAction::Grant { .. } => Some(Event::SecretGranted),
        SecretsAction::Remove { .. } => Some(Event::SecretRemoved),
        SecretsAction::RotateKey => Some(Event::KeyRotated),
        SecretsAction::Backup { .. } => Some(Event::StateBackedUp),
    }
}

/// `secrets.store.list`: everything but the values.
pub(super) fn list(gateway: &Gateway) -> Answer {
    let entries: Vec<Value> = gateway.parts.secrets.list().iter().map(entry).collect();
    Ok(json!({"entries": entries}))
}

fn entry(record: &SecretRecord) -> Value {
    json!({
        "name": &*record.name, "kind": "secret", "scopeKind": "team",
        "agents": record.agents.iter().map(|agent| &**agent).collect::<Vec<_>>(),
        "createdAtMs": record.created, "updatedAtMs": record.updated, "updatedBy": record.updated_by,
    })
}

/// Every other one. What is refused after it was recorded is recorded as refused.
pub(super) async fn change(gateway: &Gateway, session: &Session, action: SecretsAction, _receipt: Receipt) -> Done {
    let secrets = Arc::clone(&gateway.parts.secrets);
    let by = session.principal.label();
    let target = action.target().map(ToOwned::to_owned);
    let done = tokio::task::spawn_blocking(move || apply(&secrets, action, &by)).await;
    let fault = match done {
        Ok(Ok(answer)) => return Ok(answer).into(),
        Ok(Err(fault)) => fault,
        Err(_) => refused("STORE_UNAVAILABLE", "the change broke off", "look at the gateway's log"),
    };
    let mut record = Record::new(Event::ChangeRefused).by(&session.principal, &session.peer.label());
    record = record.error(&fault.message);
    if let Some(target) = target {
        record = record.about(&target);
    }
    Done { answer: Err(fault), record: Some(record) }
}

fn apply(secrets: &Secrets, action: SecretsAction, by: &str) -> Result<Value, ErrorShape> {
    match action {
        SecretsAction::Set { name, value, agents, .. } => {
            let is_new = secrets.set(&name, value, agents, by).map_err(|e| fault(&e))?;
            Ok(json!({"ok": true, "reloaded": true, "created": is_new}))
        }
        SecretsAction::Grant { name, agents } => {
            secrets.grant(&name, agents, by).map_err(|e| fault(&e))?;
            Ok(json!({"ok": true}))
        }
        SecretsAction::Remove { name } => {
            secrets.remove(&name).map_err(|e| fault(&e))?;
            Ok(json!({"ok": true, "reloaded": true}))
        }
        SecretsAction::RotateKey => {
            let facts = secrets.store().rotate().map_err(|e| fault(&e.into()))?;
            Ok(key_json(&facts))
        }
        SecretsAction::Backup { recipient } => {
            let content = secrets.store().export().map_err(|e| fault(&e.into()))?;
            let sealed = store::lock(&content, &Lock::Recipient(recipient)).map_err(|e| backup_fault(&e))?;
            Ok(json!({"format": "age", "data": wire::bytes::encode(&sealed)}))
        }
        SecretsAction::List => unreachable!("listing changes nothing"),
    }
}

/// What `status` and a rotation tell of the key.
pub(super) fn key_json(facts: &KeyFacts) -> Value {
    json!({
        "source": facts.source.as_str(), "best": facts.best.as_str(), "epoch": facts.epoch,
        "lockedInMemory": facts.is_locked,
    })
}

fn fault(fault: &SecretsFault) -> ErrorShape {
    refused(fault.code(), &fault.to_string(), fault.hint())
}

fn backup_fault(fault: &BackupFault) -> ErrorShape {
    refused("BACKUP_REFUSED", &fault.to_string(), fault.hint())
}

fn refused(code: &str, message: &str, hint: &str) -> ErrorShape {
    let kind = if code == "STORE_UNAVAILABLE" { ErrorCode::Unavailable } else { ErrorCode::InvalidRequest };
    if kind == ErrorCode::Unavailable {
        tracing::error!(error = message, "the state cannot be read or written");
    }
    ErrorShape::new(kind, message).details(json!({"code": code, "hint": hint}))
}
