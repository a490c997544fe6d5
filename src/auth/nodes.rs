//! What paired nodes may offer: a node declares commands, an operator enables them (protocol section 4.2).
//!
//! Pairing lets a node connect; nothing it declares can be asked of it before its surface is approved.

use super::ClientLabel;
use super::registry::{Notice, PairingFault, Registry, State, check_itself, facts};
use crate::journal::{Event, Record};
use crate::model::{DeviceId, Principal, RequestId, Role, needed_to_enable};
use crate::store::{Changes, DeviceRecord, NodeRecord, NodeRequest};
use std::collections::HashMap;

/// What a node says it can do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Surface {
    pub(crate) caps: Vec<String>,
    pub(crate) commands: Vec<String>,
}

/// Approved surfaces, and those that wait.
#[derive(Default)]
pub(super) struct Nodes {
    approved: HashMap<DeviceId, NodeRecord>,
    waiting: HashMap<DeviceId, NodeRequest>,
}

impl Nodes {
    pub(super) fn of(approved: Vec<NodeRecord>, waiting: Vec<NodeRequest>) -> Self {
        Nodes {
            approved: approved.into_iter().map(|n| (n.id.clone(), n)).collect(),
            waiting: waiting.into_iter().map(|r| (r.node.clone(), r)).collect(),
        }
    }

    pub(super) fn forget(&mut self, node: &DeviceId) {
        self.approved.remove(node);
        self.waiting.remove(node);
    }
}

impl State {
    fn waiting_node(&self, request: &RequestId) -> Option<NodeRequest> {
        self.nodes.waiting.values().find(|r| r.id == *request).cloned()
    }
}

impl Surface {
    /// Sorted and without repetitions, so that two declarations of the same are the same.
    pub(crate) fn of(caps: &[String], commands: &[String]) -> Self {
        let tidy = |names: &[String]| {
            let mut names = names.to_vec();
            names.sort();
            names.dedup();
            names
        };
        Surface { caps: tidy(caps), commands: tidy(commands) }
    }

    fn is_within(&self, approved: &NodeRecord) -> bool {
        self.commands.iter().all(|c| approved.commands.contains(c))
            && self.caps.iter().all(|c| approved.caps.contains(c))
    }
}

impl Registry {
    /// Notes what a node that has just connected declares. What is not enabled yet becomes its one request, in place
    /// of an earlier one; says whether there is a new one. Waits for the disk.
    pub(crate) fn declare(
        &self,
        node: &DeviceId,
        client: &ClientLabel,
        surface: &Surface,
    ) -> Result<bool, PairingFault> {
        let _alone = self.alone();
        // It may have been taken away since it proved itself.
        if self.device(node).is_none_or(|d| super::registry::live_token(&d, Role::Node).is_none()) {
            return Err(PairingFault::UnknownDevice);
        }
        let (approved, waiting) = self.surface(node);
        if approved.is_some_and(|a| surface.is_within(&a)) {
            if waiting.is_some() {
                self.parts.store.apply(&Changes::default().remove::<NodeRequest>(&node.0))?;
                self.write(|state| state.nodes.waiting.remove(node));
            }
            return Ok(false);
        }
        let client = facts(client);
        if waiting
            .as_ref()
            .is_some_and(|w| w.commands == surface.commands && w.caps == surface.caps && w.client == client)
        {
            return Ok(false);
        }
        let request = NodeRequest {
            id: RequestId::from_random((self.parts.random)()),
            node: node.clone(),
            client,
            caps: surface.caps.clone(),
            commands: surface.commands.clone(),
            created: self.parts.clock.now(),
        };
        let mut written = Record::new(Event::NodeRequested).decided("ask", "surface").about(&node.0);
        written.command = Some(request.commands.clone());
        let _receipt = self.parts.journal.append(written)?;
        self.parts.store.apply(&Changes::default().put(&request))?;
        self.write(|state| state.nodes.waiting.insert(node.clone(), request.clone()));
        if let Some(old) = waiting {
            let request = Some(old.id);
            self.tell(&Notice::NodeResolved { request, node: node.clone(), decision: "rejected" });
        }
        self.tell(&Notice::NodeRequested(request));
        Ok(true)
    }

    /// The approved and the waiting surface of a node.
    pub(crate) fn surface(&self, node: &DeviceId) -> (Option<NodeRecord>, Option<NodeRequest>) {
        self.read(|state| (state.nodes.approved.get(node).cloned(), state.nodes.waiting.get(node).cloned()))
    }

    /// Every waiting surface and every approved one.
    pub(crate) fn surfaces(&self) -> (Vec<NodeRequest>, Vec<NodeRecord>) {
        let (mut waiting, mut approved): (Vec<_>, Vec<_>) = self.read(|state| {
            (state.nodes.waiting.values().cloned().collect(), state.nodes.approved.values().cloned().collect())
        });
        waiting.sort_by_key(|r| r.created);
        approved.sort_by_key(|n| n.approved);
        (waiting, approved)
    }

    /// Enables what a node declared. The approver must hold what the commands need.
    pub(crate) fn approve_node(&self, by: &Principal, request: &RequestId) -> Result<NodeRecord, PairingFault> {
        let _alone = self.alone();
        let request = self.read(|state| state.waiting_node(request)).ok_or(PairingFault::UnknownRequest)?;
        if by.manages_itself_alone() {
            return Err(PairingFault::ApprovalDenied);
        }
        if let Some(missing) = needed_to_enable(&request.commands).beyond(by.scopes) {
            return Err(PairingFault::MissingScope(missing));
        }
        let before = self.read(|state| state.nodes.approved.get(&request.node).cloned());
        let record = NodeRecord {
            id: request.node.clone(),
            name: before.and_then(|b| b.name),
            client: request.client,
            caps: request.caps,
            commands: request.commands,
            approved: self.parts.clock.now(),
        };
        self.parts.store.apply(&Changes::default().put(&record).remove::<NodeRequest>(&record.id.0))?;
        self.write(|state| {
            state.nodes.waiting.remove(&record.id);
            state.nodes.approved.insert(record.id.clone(), record.clone());
        });
        let node = record.id.clone();
        self.tell(&Notice::NodeResolved { request: Some(request.id), node, decision: "approved" });
        Ok(record)
    }

    /// Refuses what a node declared; what was enabled before stays so.
    pub(crate) fn reject_node(&self, by: &Principal, request: &RequestId) -> Result<DeviceId, PairingFault> {
        let _alone = self.alone();
        let request = self.read(|state| state.waiting_node(request)).ok_or(PairingFault::UnknownRequest)?;
        check_itself(by, &request.node)?;
        self.parts.store.apply(&Changes::default().remove::<NodeRequest>(&request.node.0))?;
        self.write(|state| state.nodes.waiting.remove(&request.node));
        let node = request.node.clone();
        self.tell(&Notice::NodeResolved { request: Some(request.id), node, decision: "rejected" });
        Ok(request.node)
    }

    /// Takes a node's surface away, and its token with it: it is a node no more until it is paired again.
    pub(crate) fn remove_node(&self, by: &Principal, node: &DeviceId) -> Result<(), PairingFault> {
        {
            let _alone = self.alone();
            check_itself(by, node)?;
            let (approved, waiting) = self.surface(node);
            let paired = self.device(node).is_some_and(|d| super::registry::live_token(&d, Role::Node).is_some());
            if approved.is_none() && waiting.is_none() && !paired {
                return Err(PairingFault::UnknownNode);
            }
            let changes = Changes::default().remove::<NodeRecord>(&node.0).remove::<NodeRequest>(&node.0);
            let mut revoked = self.device(node).map(|d| DeviceRecord::clone(&d));
            if let Some(token) =
                revoked.as_mut().and_then(|d| d.tokens.iter_mut().find(|t| t.role == Role::Node && t.revoked.is_none()))
            {
                (token.revoked, token.previous) = (Some(self.parts.clock.now()), None);
            }
            let changes = revoked.iter().fold(changes, Changes::put);
            self.parts.store.apply(&changes)?;
            self.write(|state| {
                state.nodes.forget(node);
                revoked.into_iter().for_each(|record| state.insert_device(record.into()));
            });
        }
        self.tell(&Notice::NodeResolved { request: None, node: node.clone(), decision: "removed" });
        self.tell(&Notice::Changed);
        Ok(())
    }

    /// Gives a node a name.
    pub(crate) fn rename_node(&self, by: &Principal, node: &DeviceId, name: &str) -> Result<(), PairingFault> {
        let known = {
            let _alone = self.alone();
            check_itself(by, node)?;
            let (approved, _) = self.surface(node);
            match approved {
                Some(record) => {
                    let record = NodeRecord { name: Some(name.to_owned()), ..record };
                    self.parts.store.apply(&Changes::default().put(&record))?;
                    self.write(|state| state.nodes.approved.insert(node.clone(), record));
                    true
                }
                None => self.device(node).is_some(),
            }
        };
        if !known {
            return Err(PairingFault::UnknownNode);
        }
        // The device's own label carries the name as well, also before its surface is approved.
        match self.rename(by, node, name) {
            Err(PairingFault::UnknownDevice) => Ok(()),
            other => other,
        }
    }
}
