//! `sandbox.*`: what sandboxes keep between commands, seen and removed.

use super::Done;
use crate::auth::Session;
use crate::gateway::Gateway;
use crate::gateway::reply::Answer;
use crate::journal::{Event, Receipt, Record};
use crate::model::{Backend, SandboxAction, StandingContainer, UnixMillis};
use crate::policy::profile_of_kept;
use crate::sandbox::kept::Kept;
use crate::wire::{ErrorCode, ErrorShape};
use futures_util::future::join_all;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Kept sandboxes in which a command runs, by name: these stay.
#[derive(Debug, Default)]
pub(in crate::gateway) struct InUse {
    counts: Mutex<HashMap<String, usize>>,
    /// Taken alone while one is taken out, and by everybody who begins to use one.
    taking: tokio::sync::RwLock<()>,
}

/// One command's use of a kept sandbox.
pub(super) struct Use {
    held: Arc<InUse>,
    name: String,
}

impl InUse {
    fn counts(&self) -> MutexGuard<'_, HashMap<String, usize>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Holds a kept sandbox while a command runs in it: from here on nobody takes it out.
    pub(super) async fn begin(self: Arc<Self>, path: &Path) -> Use {
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default().to_owned();
        let taking = self.taking.read().await;
        *self.counts().entry(name.clone()).or_default() += 1;
        drop(taking);
        Use { held: self, name }
    }
}

impl Drop for Use {
    fn drop(&mut self) {
        let mut held = self.held.counts();
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
    let found = gateway.parts.runners.native.list_kept().await.map_err(|e| fault(&e, &[]))?;
    let policy = &gateway.parts.policy;
    let standing = join_all(found.iter().map(|kept| {
        let profile = profile_of_kept(policy, kept.agent.as_ref(), &kept.name);
        async move { (profile.backend, gateway.parts.runners.standing(&profile).await) }
    }));
    let standing = standing.await;
    let (held, now) = (gateway.in_use.counts(), gateway.parts.clock.now());
    let container = |container: &StandingContainer| {
        json!({
            "id": container.id, "created": container.created, "state": container.state,
            "asPlanned": container.differences.is_empty(), "differences": container.differences,
        })
    };
    let entry = |(kept, (backend, standing)): (&Kept, &(Backend, Option<StandingContainer>))| {
        json!({
            "backend": backend.as_str(), "container": standing.as_ref().map(container),
            "name": kept.name, "scope": kept.scope.as_str(), "agent": kept.agent.as_deref(),
            "session": kept.session.as_deref(), "usedAtMs": kept.used,
            "idleMs": now.saturating_sub(kept.used), "prunedAfterMs": kept.idle.as_millis() as u64,
            "running": held.get(&kept.name).copied().unwrap_or(0),
        })
    };
    Ok(json!({"sandboxes": found.iter().zip(&standing).map(entry).collect::<Vec<Value>>()}))
}

/// `sandbox.recreate` and `sandbox.prune`.
pub(super) async fn change(
    gateway: &Arc<Gateway>,
    session: &Session,
    action: SandboxAction,
    _receipt: Receipt,
) -> Done {
    let what = target(&action);
    let Removed { names, fault: error } = match action {
        SandboxAction::Recreate { name } => gateway.recreate(name).await,
        SandboxAction::Prune { idle } => gateway.prune(idle, gateway.parts.clock.now()).await,
        SandboxAction::List => Removed::default(),
    };
    let Some(error) = error else { return Ok(json!({"removed": names})).into() };
    let record = Record::new(Event::ChangeRefused).by(&session.principal, &session.peer.label());
    let what = if names.is_empty() { what } else { format!("{what}, after {}", names.join(", ")) };
    Done { answer: Err(fault(&error, &names)), record: Some(record.about(&what).error(&error.to_string())) }
}

/// What was removed until something could not be.
#[derive(Debug, Default)]
pub(crate) struct Removed {
    names: Vec<String>,
    fault: Option<io::Error>,
}

impl Removed {
    fn failed(fault: io::Error) -> Self {
        Removed { names: Vec::new(), fault: Some(fault) }
    }
}

fn fault(error: &io::Error, removed: &[String]) -> ErrorShape {
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
    ErrorShape::new(kind, message).details(json!({"code": code, "hint": hint, "removed": removed}))
}

impl Gateway {
    /// Takes a kept sandbox out of its place unless a command runs in it, then has it removed.
    async fn recreate(&self, name: String) -> Removed {
        match self.take_out(&name).await {
            Ok(()) => Removed { names: vec![name], fault: self.parts.runners.native.sweep().await.err() },
            Err(error) => Removed::failed(error),
        }
    }

    async fn take_out(&self, name: &str) -> io::Result<()> {
        // Held until it is out: no command begins in it meanwhile.
        let _alone = self.in_use.taking.write().await;
        if self.in_use.counts().contains_key(name) {
            return Err(io::Error::from(io::ErrorKind::ResourceBusy));
        }
        self.parts.runners.native.take_out(name).await?;
        self.parts.runners.discard(name);
        Ok(())
    }

    /// Has every kept sandbox removed that has lain unused for long enough.
    async fn prune(&self, idle: Option<Duration>, now: UnixMillis) -> Removed {
        let mut removed = Removed::default();
        let found = match self.parts.runners.native.list_kept().await {
            Ok(found) => found,
            Err(error) => return Removed::failed(error),
        };
        for kept in found {
            let unused = Duration::from_millis(now.saturating_sub(kept.used));
            if unused < idle.unwrap_or(kept.idle) {
                continue;
            }
            match self.take_out(&kept.name).await {
                Ok(()) => removed.names.push(kept.name),
                // In use, or removed by somebody else meanwhile.
                Err(e) if matches!(e.kind(), io::ErrorKind::ResourceBusy | io::ErrorKind::NotFound) => {}
                Err(error) => removed.fault = removed.fault.or(Some(error)),
            }
        }
        removed.fault = removed.fault.or(self.parts.runners.native.sweep().await.err());
        removed
    }

    /// Prunes by the profiles' own times and records what went; what fails is logged and tried again later. A clock that
    /// was set forth since we run makes nothing old.
    pub(crate) async fn prune_idle(&self) {
        let Removed { names, fault } = self.prune(None, self.started.now(&*self.parts.clock)).await;
        for name in names {
            let record = Record::new(Event::SandboxRemoved).about(&name);
            if let Err(error) = self.parts.journal.append(record) {
                tracing::error!(%error, "cannot record that an idle sandbox was removed");
            }
        }
        if let Some(error) = fault {
            tracing::error!(%error, "idle sandboxes were not all removed");
        }
    }
}
