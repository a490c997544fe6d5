//! What operators decide: requests granted or refused, devices renamed and forgotten.

use super::admission::{Facts, is_fresh, requests_of};
use super::{Notice, PairingFault, Registry};
use crate::model::{AgentId, DeviceId, Principal, RequestId, Role, Scope, ScopeSet, needed_to_grant};
use crate::store::{ApprovedVia, Changes, DeviceRecord, NodeRecord, NodeRequest, PairingRequest};
use std::sync::{Arc, PoisonError};

impl Registry {
    /// Grants a request, or less of it. The approver must hold everything that is granted.
    pub(crate) fn approve(
        &self,
        approver: &Principal,
        request: &RequestId,
        only: Option<ScopeSet>,
        agent: Option<&AgentId>,
    ) -> Result<Arc<DeviceRecord>, PairingFault> {
        let _alone = self.alone();
        let request = self.waiting(request)?;
        if approver.manages_itself_alone() {
            return Err(PairingFault::ApprovalDenied);
        }
        let granted = granted_scopes(&request, only, agent)?;
        if let Some(missing) = needed_to_grant(granted).beyond(approver.scopes) {
            return Err(PairingFault::MissingScope(missing));
        }
        // A node runs commands on its host: only an admin lets one in. An agent is an operator's to make.
        if request.role == Role::Node && !approver.scopes.covers(Scope::Admin) {
            return Err(PairingFault::ApprovalDenied);
        }
        let device = self.device(&request.device);
        self.check_room(device.as_deref())?;
        if device.as_ref().is_some_and(|d| d.agent.as_ref() != agent && !d.tokens.is_empty()) {
            return Err(PairingFault::Invalid("the device is paired for another agent, or for none; remove it first"));
        }
        let facts = Facts { id: &request.device, key: &request.public_key, client: request.client.clone() };
        let record =
            Arc::new(self.granted(device.as_deref(), &facts, request.role, granted, agent, ApprovedVia::Owner));
        let moved = self.moved(device.as_deref(), &record);
        let is_moved = !moved.is_empty();
        self.parts.store.apply(&moved.put(&*record).remove::<PairingRequest>(request.id.as_str()))?;
        self.write(|state| {
            self.forget_surface(state, is_moved, &record.id);
            state.requests.remove(&request.id);
            state.devices.insert(record.id.clone(), Arc::clone(&record));
        });
        self.tell(&Notice::Resolved { request: request.id, device: request.device, approved: true });
        self.tell(&Notice::Changed);
        Ok(record)
    }

    /// Refuses a request; its device may ask again.
    pub(crate) fn reject(&self, by: &Principal, request: &RequestId) -> Result<DeviceId, PairingFault> {
        let _alone = self.alone();
        let request = self.waiting(request)?;
        check_itself(by, &request.device)?;
        self.parts.store.apply(&Changes::default().remove::<PairingRequest>(request.id.as_str()))?;
        self.write(|state| state.requests.remove(&request.id));
        self.tell(&Notice::Resolved { request: request.id, device: request.device.clone(), approved: false });
        Ok(request.device)
    }

    /// Forgets a device with everything that was granted to it.
    pub(crate) fn remove(&self, by: &Principal, device: &DeviceId) -> Result<(), PairingFault> {
        let _alone = self.alone();
        check_itself(by, device)?;
        self.device(device).ok_or(PairingFault::UnknownDevice)?;
        let requests = self.read(|state| {
            let mut ids = requests_of(state, device, Role::Operator);
            ids.extend(requests_of(state, device, Role::Node));
            ids
        });
        let changes = Changes::default()
            .remove::<DeviceRecord>(&device.0)
            .remove::<NodeRecord>(&device.0)
            .remove::<NodeRequest>(&device.0);
        let changes = requests.iter().fold(changes, |c, id| c.remove::<PairingRequest>(id.as_str()));
        self.parts.store.apply(&changes)?;
        self.write(|state| {
            state.devices.remove(device);
            state.nodes.forget(device);
            requests.iter().for_each(|id| drop(state.requests.remove(id)));
        });
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).remove(device);
        self.tell(&Notice::Changed);
        Ok(())
    }

    /// Gives a device the operator's name for it.
    pub(crate) fn rename(&self, by: &Principal, device: &DeviceId, label: &str) -> Result<(), PairingFault> {
        let _alone = self.alone();
        check_itself(by, device)?;
        self.change(device, |record| {
            record.label = Some(label.to_owned());
            Ok(())
        })?;
        self.tell(&Notice::Changed);
        Ok(())
    }

    pub(super) fn waiting(&self, request: &RequestId) -> Result<PairingRequest, PairingFault> {
        let now = self.parts.clock.now();
        let found = self.read(|state| state.requests.get(request).cloned());
        found.filter(|r| is_fresh(r, now)).ok_or(PairingFault::UnknownRequest)
    }
}

pub(super) fn granted_scopes(
    request: &PairingRequest,
    only: Option<ScopeSet>,
    agent: Option<&AgentId>,
) -> Result<ScopeSet, PairingFault> {
    let agents = |scope: &Scope| matches!(scope, Scope::AgentExec | Scope::AgentFiles);
    let asked = match only {
        None => request.scopes,
        Some(only) if only.beyond(request.scopes).is_none() => only,
        Some(_) => return Err(PairingFault::Invalid("a request is granted as it is or in part, never more")),
    };
    match agent {
        Some(_) if request.role == Role::Node => Err(PairingFault::Invalid("a node is no agent")),
        // An agent gets an agent's scopes, whatever it asked for besides.
        Some(_) => {
            let own: ScopeSet = asked.iter().filter(agents).collect();
            Ok(if own == ScopeSet::EMPTY { [Scope::AgentExec, Scope::AgentFiles].into_iter().collect() } else { own })
        }
        None if asked.iter().any(|scope| agents(&scope)) => {
            Err(PairingFault::Invalid("it asks to be an agent: name the agent it is approved for"))
        }
        None => Ok(asked),
    }
}

pub(in crate::auth) fn check_itself(by: &Principal, device: &DeviceId) -> Result<(), PairingFault> {
    if by.manages_itself_alone() && by.device.as_ref() != Some(device) {
        return Err(PairingFault::NotItself);
    }
    Ok(())
}
