//! `sandbox.*`: what sandboxes keep between commands, seen and removed.

use super::Done;
use crate::auth::Session;
use crate::gateway::Gateway;
use crate::gateway::reply::Answer;
use crate::journal::{Event, Receipt, Record};
use crate::model::SandboxAction;
use crate::sandbox::kept::{self, Kept};
use crate::wire::{ErrorCode, ErrorShape};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Kept sandboxes in which a command runs, by name: these stay.
#[derive(Debug, Default)]
pub(in crate::gateway) struct InUse(Mutex<HashMap<String, usize>>);

/// One command's use of a kept sandbox.
pub(super) struct Use<'a> {
    held: &'a InUse,
    name: String,
}

impl InUse {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a kept sandbox ready for a command and holds it while the command runs.
    pub(super) fn begin(&self, path: &Path, idle: Duration) -> io::Result<Use<'_>> {
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default().to_owned();
        // Under the lock: nobody takes it out between its making and its use.
        let mut held = self.lock();
        kept::make(path, idle)?;
        *held.entry(name.clone()).or_default() += 1;
        Ok(Use { held: self, name })
    }
}

impl Drop for Use<'_> {
    fn drop(&mut self) {
        let mut held = self.held.lock();
        if let Some(count) = held.get_mut(&self.name) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.name);
            }
        }
    }
}

/// The event of an action that removes something.
pub(in crate::gateway) fn event(action: &SandboxAction) -> Option<Event> {
    match action {
        SandboxAction::List => None,
        SandboxAction::Recreate { .. } | SandboxAction::Prune { .. } => Some(Event::SandboxRemoved),
    }
}

/// What it is about, for the record.
pub(in crate::gateway) fn target(action: &SandboxAction) -> String {
    match action {
        SandboxAction::List => String::new(),
        SandboxAction::Recreate { name } => name.clone(),
        SandboxAction::Prune { idle: None } => "idle".into(),
        SandboxAction::Prune { idle: Some(idle) } => format!("idle for {} s", idle.as_secs()),
    }
}

/// `sandbox.list`.
pub(super) async fn list(gateway: &Gateway) -> Answer {
    let root = gateway.parts.policy.sandboxes.clone();
    let found = tokio::task::spawn_blocking(move || kept::list(&root)).await;
    let found = found.map_err(io::Error::other).flatten().map_err(|e| fault(&e))?;
    let (held, now) = (gateway.in_use.lock(), gateway.parts.clock.now());
    let entry = |kept: &Kept| {
        json!({
            "name": kept.name, "scope": kept.scope.as_str(), "agent": kept.agent.as_deref(),
            "session": kept.session.as_deref(), "usedAtMs": kept.used,
            "idleMs": now.saturating_sub(kept.used), "prunedAfterMs": kept.idle.as_millis() as u64,
            "running": held.get(&kept.name).copied().unwrap_or(0),
        })
    };
    Ok(json!({"sandboxes": found.iter().map(entry).collect::<Vec<Value>>()}))
}

/// `sandbox.recreate` and `sandbox.prune`.
pub(super) async fn change(
    gateway: &Arc<Gateway>,
    session: &Session,
    action: SandboxAction,
    _receipt: Receipt,
) -> Done {
    let at = Arc::clone(gateway);
    let what = target(&action);
    let done = tokio::task::spawn_blocking(move || match action {
        SandboxAction::Recreate { name } => at.recreate(&name).map(|()| vec![name]),
        SandboxAction::Prune { idle } => at.prune(idle),
        SandboxAction::List => Ok(Vec::new()),
    });
    match done.await.map_err(io::Error::other).flatten() {
        Ok(removed) => Ok(json!({"removed": removed})).into(),
        Err(error) => {
            let record = Record::new(Event::ChangeRefused).by(&session.principal, &session.peer.label());
            Done { answer: Err(fault(&error)), record: Some(record.about(&what).error(&error.to_string())) }
        }
    }
}

fn fault(error: &io::Error) -> ErrorShape {
    let (code, hint) = match error.kind() {
        io::ErrorKind::NotFound => ("UNKNOWN_SANDBOX", "`vambrace sandbox list` shows those that keep something"),
        io::ErrorKind::ResourceBusy => ("SANDBOX_IN_USE", "wait for its commands to end, or cancel them"),
        _ => ("SANDBOX_UNAVAILABLE", "look at the gateway's log and the rights of the folder beside its state"),
    };
    let kind = if code == "SANDBOX_UNAVAILABLE" { ErrorCode::Unavailable } else { ErrorCode::InvalidRequest };
    let message = match error.kind() {
        io::ErrorKind::NotFound => "no sandbox of this name keeps anything".to_owned(),
        io::ErrorKind::ResourceBusy => "a command runs in this sandbox".to_owned(),
        _ => {
            tracing::error!(%error, "a kept sandbox cannot be read or removed");
            "what sandboxes keep cannot be read or removed".to_owned()
        }
    };
    ErrorShape::new(kind, message).details(json!({"code": code, "hint": hint}))
}

impl Gateway {
    fn sandboxes(&self) -> PathBuf {
        self.parts.policy.sandboxes.clone()
    }

    /// Takes a kept sandbox out of its place unless a command runs in it, then removes it. Waits for the disk.
    fn recreate(&self, name: &str) -> io::Result<()> {
        let root = self.sandboxes();
        let held = self.in_use.lock();
        if held.contains_key(name) {
            return Err(io::Error::from(io::ErrorKind::ResourceBusy));
        }
        kept::take_out(&root, name)?;
        drop(held);
        kept::sweep(&root)
    }

    /// Removes every kept sandbox that has lain unused for long enough. Waits for the disk.
    pub(crate) fn prune(&self, idle: Option<Duration>) -> io::Result<Vec<String>> {
        let (root, now) = (self.sandboxes(), self.parts.clock.now());
        let mut removed = Vec::new();
        for kept in kept::list(&root)? {
            let unused = Duration::from_millis(now.saturating_sub(kept.used));
            let held = self.in_use.lock();
            if unused >= idle.unwrap_or(kept.idle) && !held.contains_key(&kept.name) {
                kept::take_out(&root, &kept.name)?;
                removed.push(kept.name);
            }
        }
        kept::sweep(&root)?;
        Ok(removed)
    }

    /// Prunes by the profiles' own times and records what went; what fails is logged and tried again later.
    pub(crate) fn prune_idle(&self) {
        match self.prune(None) {
            Ok(removed) => {
                for name in removed {
                    let record = Record::new(Event::SandboxRemoved).about(&name);
                    if let Err(error) = self.parts.journal.append(record) {
                        tracing::error!(%error, "cannot record that an idle sandbox was removed");
                    }
                }
            }
            Err(error) => tracing::error!(%error, "idle sandboxes were not removed"),
        }
    }
}
