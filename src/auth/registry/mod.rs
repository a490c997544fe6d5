//! Who is paired: devices, their tokens, and the requests that wait for an operator's word.
//!
//! Every change is on the disk before it is true in memory, and true in memory before anybody is told.
//! A request is never merged with another and never grows: an approver grants what was shown under its
//! id (attack classes PAI-01, PAI-02, PAI-13; protocol section 8.1). Knows no frames.

mod admission;
mod approval;
mod tokens;

pub(crate) use admission::Waiting;
pub(super) use admission::{Answer, Entered, Facts, Voucher, Wish, facts, facts_of, requests_of};
pub(super) use approval::check_itself;
pub(super) use tokens::live_token;

use super::invites::Invites;
use super::nodes::Nodes;
use super::signed::Replay;
use crate::journal::{Journal, JournalFault};
use crate::model::{AgentId, Clock, DeviceId, RequestId, Role, Scope, ScopeSet, Secret, UnixMillis};
use crate::os::memory::Locked;
use crate::store::{
    ApprovedVia, Changes, ClientFacts, DeviceRecord, InviteRecord, NodeRecord, NodeRequest, PairingRequest, Store,
    StoreFault, TokenRecord,
};
use admission::{is_fresh, is_same_kind};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use tokens::key_name;

/// Paired devices.
const MOST_DEVICES: usize = 100_000;

/// Something that others are told: by events to operators, by a closed connection to the device itself.
#[derive(Debug, Clone)]
pub(crate) enum Notice {
    Requested(PairingRequest),
    Resolved { request: RequestId, device: DeviceId, approved: bool },
    Changed,
    SetupCompleted { setup: RequestId, device: DeviceId, name: Option<String> },
    NodeRequested(NodeRequest),
    NodeResolved { request: Option<RequestId>, node: DeviceId, decision: &'static str },
}

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PairingFault {
    #[error("unknown requestId")]
    UnknownRequest,
    #[error("unknown deviceId")]
    UnknownDevice,
    #[error("unknown nodeId")]
    UnknownNode,
    #[error("missing scope: {}", .0.as_str())]
    MissingScope(Scope),
    #[error("device pairing approval denied")]
    ApprovalDenied,
    #[error("device token rotation denied")]
    RotationDenied,
    #[error("a paired device without operator.admin manages itself alone")]
    NotItself,
    #[error("{0}")]
    Invalid(&'static str),
    #[error("too many wait already")]
    Full,
    #[error(transparent)]
    Store(#[from] StoreFault),
    #[error(transparent)]
    Journal(#[from] JournalFault),
}

impl PairingFault {
    /// A device that is invited must be told where we are.
    pub(crate) const UNREACHABLE: &'static str =
        "the gateway listens on loopback alone, so it must be said how the device reaches it";
}

/// What a device's session rests on; it stands as long as the record says the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Grant {
    pub(crate) device: DeviceId,
    pub(crate) role: Role,
    generation: [u8; 16],
    scopes: ScopeSet,
}

type Follower = Box<dyn Fn(&Notice) + Send + Sync>;

/// The registry of one gateway.
pub(crate) struct Registry {
    pub(in crate::auth) parts: RegistryParts,
    pub(in crate::auth) key: Locked<Secret<[u8; 32]>>,
    writing: Mutex<()>,
    state: RwLock<State>,
    seen: Mutex<HashMap<DeviceId, (UnixMillis, String)>>,
    follower: RwLock<Option<Follower>>,
    pub(in crate::auth) replay: Replay,
}

/// What it is made of.
pub(crate) struct RegistryParts {
    pub(crate) store: Arc<Store>,
    pub(crate) journal: Journal,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) random: fn() -> [u8; 16],
}

#[derive(Default)]
pub(in crate::auth) struct State {
    devices: HashMap<DeviceId, Arc<DeviceRecord>>,
    requests: BTreeMap<RequestId, PairingRequest>,
    pub(in crate::auth) invites: Invites,
    pub(in crate::auth) nodes: Nodes,
}

impl Registry {
    /// Reads what is kept. `key` derives the tokens and must be the same for ever.
    ///
    /// # Errors
    /// Where a record cannot be read: nobody is let in on half a list.
    pub(crate) fn open(parts: RegistryParts, key: Locked<Secret<[u8; 32]>>) -> Result<Self, StoreFault> {
        let store = &parts.store;
        let state = State {
            devices: store.all::<DeviceRecord>()?.into_iter().map(|d| (d.id.clone(), Arc::new(d))).collect(),
            requests: store.all::<PairingRequest>()?.into_iter().map(|r| (r.id.clone(), r)).collect(),
            invites: Invites::of(store.all::<InviteRecord>()?),
            nodes: Nodes::of(store.all::<NodeRecord>()?, store.all::<NodeRequest>()?),
        };
        let keys: HashSet<String> = state
            .devices
            .values()
            .flat_map(|d| d.tokens.iter().filter(|t| t.revoked.is_none()).map(|t| key_name(&d.id, t)))
            .collect();
        let replay = Replay::open(store, &|name| keys.contains(name))?;
        Ok(Registry {
            parts,
            key,
            replay,
            writing: Mutex::default(),
            state: RwLock::new(state),
            seen: Mutex::default(),
            follower: RwLock::new(None),
        })
    }

    /// Tells this of every change from now on.
    pub(crate) fn follow(&self, follower: Follower) {
        *self.follower.write().unwrap_or_else(PoisonError::into_inner) = Some(follower);
    }

    /// The record of a device.
    pub(crate) fn device(&self, id: &DeviceId) -> Option<Arc<DeviceRecord>> {
        self.read(|state| state.devices.get(id).cloned())
    }

    /// How many devices are paired.
    pub(crate) fn count(&self) -> usize {
        self.read(|state| state.devices.len())
    }

    /// Every paired device and every request that still waits, both in the order they came.
    pub(crate) fn list(&self) -> (Vec<PairingRequest>, Vec<Arc<DeviceRecord>>) {
        let now = self.parts.clock.now();
        let (mut requests, mut devices): (Vec<_>, Vec<_>) = self.read(|state| {
            let waiting = state.requests.values().filter(|r| is_fresh(r, now)).cloned().collect();
            (waiting, state.devices.values().cloned().collect())
        });
        requests.sort_by_key(|r| r.created);
        devices.sort_by_key(|d| d.created);
        (requests, devices)
    }

    /// When and from where a device was last seen.
    pub(crate) fn last_seen(&self, device: &DeviceRecord) -> (Option<UnixMillis>, Option<String>) {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        match seen.get(&device.id) {
            Some((at, from)) => (Some(*at), Some(from.clone())),
            None => (device.last_seen, device.last_from.clone()),
        }
    }

    /// Whether a session still rests on what the record says.
    pub(crate) fn stands(&self, grant: &Grant) -> bool {
        self.device(&grant.device).is_some_and(|device| {
            live_token(&device, grant.role)
                .is_some_and(|t| t.generation == grant.generation && grant.scopes.beyond(t.scopes).is_none())
        })
    }

    /// Writes down when devices were last seen. Called now and then, and at the end.
    pub(crate) fn keep_seen(&self) -> Result<(), StoreFault> {
        let _alone = self.alone();
        let seen = std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner));
        let records: Vec<_> = seen
            .into_iter()
            .filter_map(|(id, (at, from))| {
                let mut record = DeviceRecord::clone(&*self.device(&id)?);
                (record.last_seen, record.last_from) = (Some(at), Some(from));
                Some(record)
            })
            .collect();
        let changes = records.iter().fold(Changes::default(), |changes, record| changes.put(record));
        if changes.is_empty() {
            return Ok(());
        }
        self.parts.store.apply(&changes)?;
        self.write(|state| {
            for record in records {
                state.devices.insert(record.id.clone(), Arc::new(record));
            }
        });
        Ok(())
    }

    fn change(
        &self,
        device: &DeviceId,
        change: impl FnOnce(&mut DeviceRecord) -> Result<(), PairingFault>,
    ) -> Result<(), PairingFault> {
        let mut record = DeviceRecord::clone(&*self.device(device).ok_or(PairingFault::UnknownDevice)?);
        change(&mut record)?;
        self.parts.store.apply(&Changes::default().put(&record))?;
        self.write(|state| state.devices.insert(record.id.clone(), Arc::new(record)));
        Ok(())
    }

    /// The record of a device after it was granted a role with scopes, besides what it has.
    pub(in crate::auth) fn granted(
        &self,
        device: Option<&DeviceRecord>,
        facts: &Facts<'_>,
        role: Role,
        scopes: ScopeSet,
        agent: Option<&AgentId>,
        via: ApprovedVia,
    ) -> DeviceRecord {
        let now = self.parts.clock.now();
        let mut record = device.cloned().unwrap_or_else(|| DeviceRecord {
            id: facts.id.clone(),
            public_key: *facts.key,
            client: ClientFacts::default(),
            label: None,
            agent: agent.cloned(),
            tokens: Vec::new(),
            via,
            created: now,
            approved: now,
            last_seen: None,
            last_from: None,
        });
        // On another kind of machine only what is granted now holds: the rest was granted to the one before.
        let same_machine = device.is_none_or(|d| is_same_kind(&d.client, &facts.client));
        if !same_machine {
            for token in record.tokens.iter_mut().filter(|t| t.revoked.is_none()) {
                (token.revoked, token.previous) = (Some(now), None);
            }
        }
        (record.client, record.via, record.approved) = (facts.client.clone(), via, now);
        match record.tokens.iter_mut().find(|t| t.role == role) {
            // Approved before and approved now: both were an operator's word.
            Some(token) if token.revoked.is_none() => token.scopes = token.scopes.union(scopes),
            other => {
                let token = TokenRecord {
                    role,
                    scopes,
                    generation: (self.parts.random)(),
                    created: now,
                    rotated: None,
                    revoked: None,
                    previous: None,
                };
                match other {
                    Some(revoked) => *revoked = token,
                    None => record.tokens.push(token),
                }
            }
        }
        record
    }

    /// What else must go when a device turns out to be another kind of machine: what was enabled of it as a node.
    pub(in crate::auth) fn moved(&self, before: Option<&DeviceRecord>, after: &DeviceRecord) -> Changes {
        let same = before.is_none_or(|before| is_same_kind(&before.client, &after.client));
        if same {
            return Changes::default();
        }
        Changes::default().remove::<NodeRecord>(&after.id.0).remove::<NodeRequest>(&after.id.0)
    }

    /// The same in memory.
    pub(in crate::auth) fn forget_surface(&self, state: &mut State, moved: bool, device: &DeviceId) {
        if moved {
            state.nodes.forget(device);
        }
    }

    pub(in crate::auth) fn check_room(&self, device: Option<&DeviceRecord>) -> Result<(), PairingFault> {
        if device.is_none() && self.count() >= MOST_DEVICES { Err(PairingFault::Full) } else { Ok(()) }
    }

    pub(in crate::auth) fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(in crate::auth) fn write<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// One change at a time: of two approvers the second finds the request gone.
    pub(in crate::auth) fn alone(&self) -> MutexGuard<'_, ()> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(in crate::auth) fn tell(&self, notice: &Notice) {
        if let Some(follower) = self.follower.read().unwrap_or_else(PoisonError::into_inner).as_ref() {
            follower(notice);
        }
    }
}

impl State {
    pub(in crate::auth) fn insert_device(&mut self, record: Arc<DeviceRecord>) {
        self.devices.insert(record.id.clone(), record);
    }

    pub(in crate::auth) fn remove_requests(&mut self, ids: &[RequestId]) {
        ids.iter().for_each(|id| drop(self.requests.remove(id)));
    }
}

#[cfg(test)]
mod tests;
