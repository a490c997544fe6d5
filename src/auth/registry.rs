//! Who is paired: devices, their tokens, and the requests that wait for an operator's word.
//!
//! Every change is on the disk before it is true in memory, and true in memory before anybody is told.
//! A request is never merged with another and never grows: an approver grants what was shown under its
//! id (attack classes PAI-01, PAI-02, PAI-13; protocol section 8.1). Knows no frames.

use super::ClientLabel;
use super::device::Proven;
use super::invites::Invites;
use super::nodes::Nodes;
use super::signed::Replay;
use crate::crypto;
use crate::journal::{Event, Journal, JournalFault, Record};
use crate::model::{
    AgentId, Clock, DeviceId, Principal, RequestId, Role, Scope, ScopeSet, Secret, UnixMillis, needed_to_grant,
};
use crate::store::{
    ApprovedVia, Changes, ClientFacts, DeviceRecord, InviteRecord, NodeRecord, NodeRequest, PairingRequest, Store,
    StoreFault, TokenRecord,
};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

/// How long a request waits after it was last made.
const REQUEST_LIFE_MS: u64 = 300_000;

/// Requests that wait, in all and from one source. A full room refuses newcomers; who was shown is not thrown out.
const MOST_REQUESTS: usize = 256;
const MOST_REQUESTS_OF_ONE: usize = 8;

/// Paired devices.
const MOST_DEVICES: usize = 100_000;

/// After a rotation the old token opens for so long, unless the new one is used first.
const OVERLAP_MS: u64 = 300_000;

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

/// What a device that connects gets.
#[derive(Debug)]
pub(crate) struct Entered {
    /// What its record holds for this role.
    pub(crate) scopes: ScopeSet,
    pub(crate) agent: Option<AgentId>,
    pub(crate) grant: Grant,
    pub(crate) token: Secret<String>,
    pub(crate) issued: UnixMillis,
}

/// What a device's session rests on; it stands as long as the record says the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Grant {
    pub(crate) device: DeviceId,
    pub(crate) role: Role,
    generation: [u8; 16],
    scopes: ScopeSet,
}

/// Why a device that proved itself does not get in yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) request: RequestId,
    pub(crate) reason: &'static str,
    pub(crate) device: DeviceId,
    pub(crate) role: Role,
    pub(crate) scopes: ScopeSet,
    pub(crate) approved: Option<(Vec<Role>, ScopeSet)>,
    /// Whether it was not there before.
    pub(crate) is_new: bool,
}

/// What decides about a device that is not paired for all it asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Voucher {
    /// The kernel says that it is the operator's own process.
    Operator,
    /// Nobody: an operator must say so.
    Nobody,
}

/// One device's wish to come in.
pub(crate) struct Wish<'a> {
    pub(crate) proven: &'a Proven,
    pub(crate) role: Role,
    pub(crate) scopes: ScopeSet,
    pub(crate) client: &'a ClientLabel,
    pub(crate) from: &'a str,
    pub(crate) source: &'a str,
}

/// The outcome of a wish.
pub(crate) enum Answer {
    Entered(Entered),
    Waiting(Waiting),
}

type Follower = Box<dyn Fn(&Notice) + Send + Sync>;

/// The registry of one gateway.
pub(crate) struct Registry {
    pub(super) parts: RegistryParts,
    key: Secret<[u8; 32]>,
    writing: Mutex<()>,
    state: RwLock<State>,
    seen: Mutex<HashMap<DeviceId, (UnixMillis, String)>>,
    follower: RwLock<Option<Follower>>,
    pub(super) replay: Replay,
}

/// What it is made of.
pub(crate) struct RegistryParts {
    pub(crate) store: Arc<Store>,
    pub(crate) journal: Journal,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) random: fn() -> [u8; 16],
}

#[derive(Default)]
pub(super) struct State {
    devices: HashMap<DeviceId, Arc<DeviceRecord>>,
    requests: BTreeMap<RequestId, PairingRequest>,
    pub(super) invites: Invites,
    pub(super) nodes: Nodes,
}

impl Registry {
    /// Reads what is kept. `key` derives the tokens and must be the same for ever.
    ///
    /// # Errors
    /// Where a record cannot be read: nobody is let in on half a list.
    pub(crate) fn open(parts: RegistryParts, key: Secret<[u8; 32]>) -> Result<Self, StoreFault> {
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

    /// Lets a device in that is paired for all it asks; `None` where something would have to change first.
    /// Never waits for the disk.
    pub(crate) fn enter(&self, wish: &Wish<'_>) -> Option<Entered> {
        let device = self.device(&wish.proven.id)?;
        let token = live_token(&device, wish.role)?;
        if wish.scopes.beyond(token.scopes).is_some() || !is_same_machine(&device.client, wish.client) {
            return None;
        }
        Some(self.entered(&device, token, wish))
    }

    /// Whether a device is paired for this role, but not for all the scopes it asks.
    pub(crate) fn asks_for_more(&self, wish: &Wish<'_>) -> bool {
        self.device(&wish.proven.id)
            .is_some_and(|d| live_token(&d, wish.role).is_some_and(|t| wish.scopes.beyond(t.scopes).is_some()))
    }

    pub(super) fn entered(&self, device: &DeviceRecord, token: &TokenRecord, wish: &Wish<'_>) -> Entered {
        let now = self.parts.clock.now();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.insert(device.id.clone(), (now, wish.from.to_owned()));
        drop(seen);
        Entered {
            scopes: token.scopes,
            agent: device.agent.clone(),
            grant: Grant {
                device: device.id.clone(),
                role: token.role,
                generation: token.generation,
                scopes: wish.scopes,
            },
            token: self.token(&device.id, token.role, &token.generation),
            issued: token.rotated.unwrap_or(token.created),
        }
    }

    /// Does what it takes to let a device in, or puts its wish into the waiting room. Waits for the disk.
    ///
    /// # Errors
    /// Where nothing can be kept, or the room is full.
    pub(crate) fn admit(&self, wish: &Wish<'_>, voucher: Voucher) -> Result<Answer, PairingFault> {
        let _alone = self.alone();
        if let Some(entered) = self.enter(wish) {
            return Ok(Answer::Entered(entered));
        }
        let device = self.device(&wish.proven.id);
        let reason = reason(device.as_deref(), wish);
        // What was taken away, a further role, and an agent's bounds are never given back or widened silently.
        let silent = voucher == Voucher::Operator
            && match &device {
                None => true,
                Some(device) => device.agent.is_none() && live_token(device, wish.role).is_some(),
            };
        if !silent {
            return self.wait(wish, device.as_deref(), reason).map(Answer::Waiting);
        }
        self.check_room(device.as_deref())?;
        let record =
            self.granted(device.as_deref(), &facts_of(wish), wish.role, wish.scopes, None, ApprovedVia::Silent);
        let mut written = Record::new(Event::DevicePaired).decided("permit", "local").about(&record.id.0);
        written.scopes = Some(wish.scopes.names().join(" "));
        written.from = Some(wish.from.to_owned());
        let _receipt = self.parts.journal.append(written)?;
        let gone = self.read(|state| requests_of(state, &record.id, wish.role));
        let changes =
            gone.iter().fold(Changes::default().put(&record), |c, id| c.remove::<PairingRequest>(id.as_str()));
        self.parts.store.apply(&changes)?;
        let record = Arc::new(record);
        self.write(|state| {
            state.devices.insert(record.id.clone(), Arc::clone(&record));
            gone.iter().for_each(|id| drop(state.requests.remove(id)));
        });
        self.tell(&Notice::Changed);
        let token = live_token(&record, wish.role).ok_or(PairingFault::UnknownDevice)?;
        Ok(Answer::Entered(self.entered(&record, token, wish)))
    }

    /// Puts a wish into the waiting room, or finds it there.
    fn wait(
        &self,
        wish: &Wish<'_>,
        device: Option<&DeviceRecord>,
        reason: &'static str,
    ) -> Result<Waiting, PairingFault> {
        let now = self.parts.clock.now();
        let client = facts(wish.client);
        let waiting = |request: &RequestId, is_new: bool| Waiting {
            is_new,
            request: request.clone(),
            reason,
            device: wish.proven.id.clone(),
            role: wish.role,
            scopes: wish.scopes,
            approved: device.map(|d| {
                (d.tokens.iter().filter(|t| t.revoked.is_none()).map(|t| t.role).collect(), approved_scopes(d))
            }),
        };
        let (stale, same, of_all, of_source) = self.read(|state| {
            let stale: Vec<_> = state.requests.values().filter(|r| !is_fresh(r, now)).map(|r| r.id.clone()).collect();
            let fresh = || state.requests.values().filter(|r| is_fresh(r, now));
            let same = fresh().find(|r| r.device == wish.proven.id && r.role == wish.role).cloned();
            (stale, same, fresh().count(), fresh().filter(|r| r.source == wish.source).count())
        });
        let cleared = stale.iter().fold(Changes::default(), |c, id| c.remove::<PairingRequest>(id.as_str()));
        // The same or less under the same words: the request that is there already, as it was shown.
        if let Some(found) = &same
            && wish.scopes.beyond(found.scopes).is_none()
            && found.client == client
        {
            let refreshed = PairingRequest { refreshed: now, ..found.clone() };
            self.parts.store.apply(&cleared.put(&refreshed))?;
            self.write(|state| {
                stale.iter().for_each(|id| drop(state.requests.remove(id)));
                state.requests.insert(refreshed.id.clone(), refreshed.clone());
            });
            return Ok(waiting(&refreshed.id, false));
        }
        if same.is_none() && (of_all >= MOST_REQUESTS || of_source >= MOST_REQUESTS_OF_ONE) {
            return Err(PairingFault::Full);
        }
        let request = PairingRequest {
            id: RequestId::from_random((self.parts.random)()),
            device: wish.proven.id.clone(),
            public_key: wish.proven.key,
            client,
            role: wish.role,
            scopes: wish.scopes,
            from: wish.from.to_owned(),
            source: wish.source.to_owned(),
            is_repair: device.is_some(),
            created: now,
            refreshed: now,
        };
        let mut written = Record::new(Event::DeviceRequested).decided("ask", reason).about(&request.device.0);
        written.scopes = Some(request.scopes.names().join(" "));
        written.from = Some(request.from.clone());
        let _receipt = self.parts.journal.append(written)?;
        let mut changes = cleared.put(&request);
        if let Some(old) = &same {
            changes = changes.remove::<PairingRequest>(old.id.as_str());
        }
        self.parts.store.apply(&changes)?;
        self.write(|state| {
            stale.iter().for_each(|id| drop(state.requests.remove(id)));
            same.iter().for_each(|old| drop(state.requests.remove(&old.id)));
            state.requests.insert(request.id.clone(), request.clone());
        });
        if let Some(old) = same {
            self.tell(&Notice::Resolved { request: old.id, device: old.device, approved: false });
        }
        let answer = waiting(&request.id, true);
        self.tell(&Notice::Requested(request));
        Ok(answer)
    }

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
        self.parts.store.apply(&Changes::default().put(&*record).remove::<PairingRequest>(request.id.as_str()))?;
        self.write(|state| {
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

    /// Makes a new token; scopes may only shrink. The old token opens a little longer, so that the device can
    /// fetch the new one, until it has.
    pub(crate) fn rotate(
        &self,
        by: &Principal,
        device: &DeviceId,
        role: Role,
        scopes: Option<ScopeSet>,
    ) -> Result<(ScopeSet, UnixMillis, Secret<String>), PairingFault> {
        let _alone = self.alone();
        check_itself(by, device)?;
        let now = self.parts.clock.now();
        let generation = (self.parts.random)();
        let mut kept = ScopeSet::EMPTY;
        self.change(device, |record| {
            let token = record.tokens.iter_mut().find(|t| t.role == role && t.revoked.is_none());
            let token = token.ok_or(PairingFault::RotationDenied)?;
            kept = scopes.unwrap_or(token.scopes);
            // Neither more than it has, nor more than who asks could give.
            if kept.beyond(token.scopes).is_some() || needed_to_grant(kept).beyond(by.scopes).is_some() {
                return Err(PairingFault::RotationDenied);
            }
            token.previous = Some((token.generation, now + OVERLAP_MS));
            (token.generation, token.scopes, token.rotated) = (generation, kept, Some(now));
            Ok(())
        })?;
        self.tell(&Notice::Changed);
        Ok((kept, now, self.token(device, role, &generation)))
    }

    /// Takes a role's token away; the device must ask an operator again.
    pub(crate) fn revoke(&self, by: &Principal, device: &DeviceId, role: Role) -> Result<UnixMillis, PairingFault> {
        let _alone = self.alone();
        check_itself(by, device)?;
        let now = self.parts.clock.now();
        let mut record = DeviceRecord::clone(&*self.device(device).ok_or(PairingFault::UnknownDevice)?);
        let token = record.tokens.iter_mut().find(|t| t.role == role && t.revoked.is_none());
        let token = token.ok_or(PairingFault::UnknownDevice)?;
        (token.revoked, token.previous) = (Some(now), None);
        let mut changes = Changes::default().put(&record);
        if role == Role::Node {
            // What it may offer was enabled for a node that was trusted: it is asked about anew.
            changes = changes.remove::<NodeRecord>(&device.0).remove::<NodeRequest>(&device.0);
        }
        self.parts.store.apply(&changes)?;
        self.write(|state| {
            state.devices.insert(record.id.clone(), Arc::new(record));
            if role == Role::Node {
                state.nodes.forget(device);
            }
        });
        self.tell(&Notice::Changed);
        Ok(now)
    }

    /// Whether this is the device's token for this role: the present one, or the one before within its overlap.
    /// Constant time in what was presented; an unknown, revoked or wrong one looks the same.
    pub(crate) fn is_token(&self, device: &DeviceId, role: Role, presented: &str) -> bool {
        let now = self.parts.clock.now();
        let Some(record) = self.device(device) else { return false };
        let Some(token) = live_token(&record, role) else { return false };
        let presented = crypto::sha256(&[presented.as_bytes()]);
        let is = |generation: &[u8; 16]| {
            let own = self.token(device, role, generation);
            crypto::same(&crypto::sha256(&[own.expose().as_bytes()]), &presented)
        };
        let overlap = |until: u64| now < until && until - now <= OVERLAP_MS;
        is(&token.generation) || token.previous.is_some_and(|(old, until)| overlap(until) && is(&old))
    }

    /// The new token has been used: the one before it opens nothing any more. Waits for the disk.
    pub(crate) fn end_overlap(&self, device: &DeviceId, role: Role, presented: &str) -> Result<(), PairingFault> {
        let _alone = self.alone();
        // It may have been rotated again meanwhile: then this one is the old token, and its overlap has begun.
        if !self.ends_overlap(device, role, presented) {
            return Ok(());
        }
        self.change(device, |record| {
            if let Some(token) = record.tokens.iter_mut().find(|t| t.role == role) {
                token.previous = None;
            }
            Ok(())
        })
        .map(|_| ())
    }

    /// Whether this token is the present one while one before it still opens.
    pub(crate) fn ends_overlap(&self, device: &DeviceId, role: Role, presented: &str) -> bool {
        let Some(record) = self.device(device) else { return false };
        let token = live_token(&record, role).filter(|t| t.previous.is_some());
        token.is_some_and(|t| {
            let own = self.token(device, role, &t.generation);
            crypto::same(&crypto::sha256(&[own.expose().as_bytes()]), &crypto::sha256(&[presented.as_bytes()]))
        })
    }

    /// The key with which a device signs HTTP requests as this role: derived from its token, and not the token.
    /// Named by device and generation, so that a new token begins a new window of nonces.
    pub(crate) fn signing_key(&self, device: &DeviceId, role: Role) -> Option<(String, Secret<[u8; 32]>, Grant)> {
        let record = self.device(device)?;
        let token = live_token(&record, role)?;
        let key = super::signing_key(self.token(device, role, &token.generation).expose());
        let name = key_name(device, token);
        let grant = Grant { device: device.clone(), role, generation: token.generation, scopes: token.scopes };
        Some((name, key, grant))
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
    pub(super) fn granted(
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

    pub(super) fn token(&self, device: &DeviceId, role: Role, generation: &[u8; 16]) -> Secret<String> {
        let parts: [&[u8]; 6] =
            [b"vambrace device token\0", device.0.as_bytes(), b"\0", role.as_str().as_bytes(), b"\0", generation];
        Secret::new(crypto::base64url(&crypto::hmac_sha256(self.key.expose(), &parts)))
    }

    fn waiting(&self, request: &RequestId) -> Result<PairingRequest, PairingFault> {
        let now = self.parts.clock.now();
        let found = self.read(|state| state.requests.get(request).cloned());
        found.filter(|r| is_fresh(r, now)).ok_or(PairingFault::UnknownRequest)
    }

    pub(super) fn check_room(&self, device: Option<&DeviceRecord>) -> Result<(), PairingFault> {
        if device.is_none() && self.count() >= MOST_DEVICES { Err(PairingFault::Full) } else { Ok(()) }
    }

    pub(super) fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn write<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// One change at a time: of two approvers the second finds the request gone.
    pub(super) fn alone(&self) -> MutexGuard<'_, ()> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn tell(&self, notice: &Notice) {
        if let Some(follower) = self.follower.read().unwrap_or_else(PoisonError::into_inner).as_ref() {
            follower(notice);
        }
    }
}

impl State {
    pub(super) fn insert_device(&mut self, record: Arc<DeviceRecord>) {
        self.devices.insert(record.id.clone(), record);
    }

    pub(super) fn remove_requests(&mut self, ids: &[RequestId]) {
        ids.iter().for_each(|id| drop(self.requests.remove(id)));
    }
}

/// A device to be recorded.
pub(super) struct Facts<'a> {
    pub(super) id: &'a DeviceId,
    pub(super) key: &'a [u8; 32],
    pub(super) client: ClientFacts,
}

pub(super) fn facts_of<'a>(wish: &Wish<'a>) -> Facts<'a> {
    Facts { id: &wish.proven.id, key: &wish.proven.key, client: facts(wish.client) }
}

pub(super) fn facts(client: &ClientLabel) -> ClientFacts {
    ClientFacts {
        id: client.id.clone(),
        mode: client.mode.clone(),
        version: client.version.clone(),
        platform: client.platform.clone(),
        display_name: client.display_name.clone(),
        device_family: client.device_family.clone(),
    }
}

/// What a signing key is called: a new token has a new one.
fn key_name(device: &DeviceId, token: &TokenRecord) -> String {
    format!("{device} {} {}", token.role.as_str(), crypto::hex(&token.generation))
}

/// The token of a role that is not revoked.
pub(super) fn live_token(device: &DeviceRecord, role: Role) -> Option<&TokenRecord> {
    device.tokens.iter().find(|t| t.role == role && t.revoked.is_none())
}

pub(super) fn requests_of(state: &State, device: &DeviceId, role: Role) -> Vec<RequestId> {
    let of = |r: &&PairingRequest| r.device == *device && r.role == role;
    state.requests.values().filter(of).map(|r| r.id.clone()).collect()
}

fn approved_scopes(device: &DeviceRecord) -> ScopeSet {
    device.tokens.iter().filter(|t| t.revoked.is_none()).fold(ScopeSet::EMPTY, |all, t| all.union(t.scopes))
}

/// Why a device has to ask.
fn reason(device: Option<&DeviceRecord>, wish: &Wish<'_>) -> &'static str {
    let Some(device) = device else { return "not-paired" };
    match device.tokens.iter().find(|t| t.role == wish.role) {
        None => "role-upgrade",
        Some(token) if token.revoked.is_some() => "not-paired",
        Some(token) if wish.scopes.beyond(token.scopes).is_some() => "scope-upgrade",
        Some(_) => "metadata-upgrade",
    }
}

/// Whether the platform and family are those that were approved; names and versions may change.
fn is_same_machine(approved: &ClientFacts, client: &ClientLabel) -> bool {
    is_same_kind(approved, &facts(client))
}

fn is_same_kind(a: &ClientFacts, b: &ClientFacts) -> bool {
    let same = |a: &str, b: &str| a.trim().eq_ignore_ascii_case(b.trim());
    same(&a.platform, &b.platform)
        && same(a.device_family.as_deref().unwrap_or(""), b.device_family.as_deref().unwrap_or(""))
}

/// Fresh on either side of the clock: one that was made in the future of a clock set back is not.
fn is_fresh(request: &PairingRequest, now: UnixMillis) -> bool {
    now.abs_diff(request.refreshed) < REQUEST_LIFE_MS
}

fn granted_scopes(
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

pub(super) fn check_itself(by: &Principal, device: &DeviceId) -> Result<(), PairingFault> {
    if by.manages_itself_alone() && by.device.as_ref() != Some(device) {
        return Err(PairingFault::NotItself);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Folder, Held, journal};
    use super::*;
    use crate::model::{Credential, Invitation};

    struct Stage {
        registry: Registry,
        clock: Arc<Held>,
        store: Arc<Store>,
        journal: Journal,
        _folder: Folder,
    }

    const T0: u64 = 1_000_000_000_000;

    fn stage() -> Stage {
        let (journal, folder) = journal();
        let (clock, store) = (Arc::new(Held::default()), Arc::new(Store::in_memory()));
        clock.set(T0);
        let registry = open(&store, &journal, &clock);
        Stage { registry, clock, store, journal, _folder: folder }
    }

    fn open(store: &Arc<Store>, journal: &Journal, clock: &Arc<Held>) -> Registry {
        let parts = RegistryParts {
            store: Arc::clone(store),
            journal: journal.clone(),
            clock: clock.clone(),
            random: crate::os::host::random,
        };
        Registry::open(parts, Secret::new([7; 32])).unwrap()
    }

    fn scopes(list: &[Scope]) -> ScopeSet {
        list.iter().copied().collect()
    }

    fn proven(n: u8) -> Proven {
        Proven { id: DeviceId(format!("{n:064x}")), key: [n; 32] }
    }

    fn client(name: &str) -> ClientLabel {
        ClientLabel {
            id: "cli".into(),
            platform: "linux".into(),
            display_name: Some(name.into()),
            ..Default::default()
        }
    }

    fn by(list: &[Scope]) -> Principal {
        Principal {
            role: Role::Operator,
            credential: Credential::PeerUid(0),
            device: None,
            scopes: scopes(list),
            agent: None,
        }
    }

    const ADMIN: &[Scope] = &[Scope::Admin];

    impl Stage {
        fn wish(&self, n: u8, role: Role, asked: &[Scope], name: &str, voucher: Voucher) -> Answer {
            self.try_wish(n, role, asked, name, voucher, "v4").unwrap()
        }

        fn try_wish(
            &self,
            n: u8,
            role: Role,
            asked: &[Scope],
            name: &str,
            voucher: Voucher,
            source: &str,
        ) -> Result<Answer, PairingFault> {
            let (proven, client) = (proven(n), client(name));
            let wish =
                Wish { proven: &proven, role, scopes: scopes(asked), client: &client, from: "192.0.2.1:5", source };
            self.registry.admit(&wish, voucher)
        }

        fn waits(&self, n: u8, asked: &[Scope], name: &str) -> Waiting {
            match self.wish(n, Role::Operator, asked, name, Voucher::Nobody) {
                Answer::Waiting(waiting) => waiting,
                Answer::Entered(_) => panic!("it was let in"),
            }
        }

        fn enters(&self, n: u8, role: Role, asked: &[Scope]) -> Entered {
            match self.wish(n, role, asked, "a", Voucher::Nobody) {
                Answer::Entered(entered) => entered,
                Answer::Waiting(waiting) => panic!("{waiting:?}"),
            }
        }

        fn approve(&self, waiting: &Waiting, by: &Principal) -> Result<Arc<DeviceRecord>, PairingFault> {
            self.registry.approve(by, &waiting.request, None, None)
        }
    }

    #[test]
    fn a_request_is_never_merged_and_never_grows_under_its_id() {
        let stage = stage();
        let large = stage.waits(1, &[Scope::Admin], "a");
        // The same or less: the same request, as it was shown.
        assert_eq!(stage.waits(1, &[Scope::Admin], "a").request, large.request);
        let small = stage.waits(1, &[Scope::Read], "a");
        assert_eq!(small.request, large.request);
        // More, or another name: a new one, and the old one is gone.
        let renamed = stage.waits(1, &[Scope::Read], "the boss");
        assert_ne!(renamed.request, large.request);
        assert!(matches!(stage.approve(&large, &by(ADMIN)), Err(PairingFault::UnknownRequest)));
        let wider = stage.waits(1, &[Scope::Read, Scope::Write], "the boss");
        assert_ne!(wider.request, renamed.request);
        let record = stage.approve(&wider, &by(ADMIN)).unwrap();
        assert_eq!(record.tokens[0].scopes, scopes(&[Scope::Read, Scope::Write]));
        assert!(stage.registry.list().0.is_empty());
    }

    #[test]
    fn an_approver_grants_what_it_holds_and_less_if_it_says_so() {
        let stage = stage();
        let waiting = stage.waits(1, &[Scope::Admin], "a");
        let fault = stage.approve(&waiting, &by(&[Scope::Pairing])).unwrap_err();
        assert!(matches!(fault, PairingFault::MissingScope(Scope::Admin)), "{fault}");
        assert_eq!(fault.to_string(), "missing scope: operator.admin");
        let more = Some(scopes(&[Scope::Admin, Scope::AgentExec]));
        assert!(stage.registry.approve(&by(ADMIN), &waiting.request, more, None).is_err());
        let less = Some(scopes(&[Scope::Read]));
        let record = stage.registry.approve(&by(&[Scope::Pairing, Scope::Read]), &waiting.request, less, None).unwrap();
        assert_eq!(record.tokens[0].scopes, scopes(&[Scope::Read]));
        // A paired device that is no admin approves nobody, not even itself.
        let again = stage.waits(1, &[Scope::Write], "a");
        let own = Principal {
            credential: Credential::DeviceToken,
            device: Some(proven(1).id),
            ..by(&[Scope::Pairing, Scope::Write])
        };
        assert!(matches!(stage.approve(&again, &own), Err(PairingFault::ApprovalDenied)));
    }

    #[test]
    fn a_node_is_an_admins_to_let_in() {
        let stage = stage();
        let Answer::Waiting(waiting) = stage.wish(1, Role::Node, &[], "n", Voucher::Nobody) else { panic!() };
        let fault = stage.approve(&waiting, &by(&[Scope::Pairing])).unwrap_err();
        assert_eq!(fault.to_string(), "device pairing approval denied");
        assert!(stage.approve(&waiting, &by(&[Scope::Pairing, Scope::Admin])).is_ok());
    }

    #[test]
    fn of_two_approvers_one_is_told_that_there_is_no_such_request() {
        let stage = stage();
        let waiting = stage.waits(1, &[Scope::Read], "a");
        let approved = std::thread::scope(|threads| {
            let tries: Vec<_> = (0..8).map(|_| threads.spawn(|| stage.approve(&waiting, &by(ADMIN)).is_ok())).collect();
            tries.into_iter().map(|t| t.join().unwrap()).filter(|approved| *approved).count()
        });
        assert_eq!(approved, 1);
        assert_eq!(stage.registry.device(&proven(1).id).unwrap().tokens.len(), 1);
    }

    #[test]
    fn an_agent_is_bound_to_its_name_and_gets_an_agents_scopes_whatever_it_asked() {
        let stage = stage();
        let asks = stage.waits(1, &[Scope::Admin], "a");
        let agent = AgentId::parse("builder").unwrap();
        let record = stage.registry.approve(&by(&[Scope::Write]), &asks.request, None, Some(&agent)).unwrap();
        assert_eq!(record.tokens[0].scopes, scopes(&[Scope::AgentExec, Scope::AgentFiles]));
        // It never becomes more, neither by the operator's own process nor by an approval without its name.
        let Answer::Waiting(more) = stage.wish(1, Role::Operator, &[Scope::Read], "a", Voucher::Operator) else {
            panic!("an agent was widened silently")
        };
        assert!(stage.approve(&more, &by(ADMIN)).is_err());
        let unnamed = stage.waits(2, &[Scope::AgentExec], "b");
        assert!(stage.approve(&unnamed, &by(ADMIN)).is_err());
    }

    #[test]
    fn a_flood_fills_its_own_share_and_nobody_is_thrown_out() {
        let stage = stage();
        let shown = stage.waits(200, &[Scope::Read], "the real one");
        let full = |n: u8, source: &str| {
            matches!(
                stage.try_wish(n, Role::Operator, &[Scope::Read], "x", Voucher::Nobody, source),
                Err(PairingFault::Full)
            )
        };
        for n in 0..MOST_REQUESTS_OF_ONE as u8 {
            assert!(!full(n, "flood"));
        }
        assert!(full(100, "flood") && !full(100, "another"));
        assert!(stage.approve(&shown, &by(ADMIN)).is_ok());
    }

    #[test]
    fn a_request_runs_out_on_either_side_of_the_clock() {
        let stage = stage();
        let waiting = stage.waits(1, &[Scope::Read], "a");
        for now in [T0 + REQUEST_LIFE_MS, T0 - REQUEST_LIFE_MS] {
            stage.clock.set(now);
            assert!(matches!(stage.approve(&waiting, &by(ADMIN)), Err(PairingFault::UnknownRequest)));
        }
        stage.clock.set(T0 + REQUEST_LIFE_MS - 1);
        assert!(stage.approve(&waiting, &by(ADMIN)).is_ok());
    }

    #[test]
    fn a_restart_in_the_middle_of_a_pairing_loses_nothing_and_leaves_nothing_half() {
        let stage = stage();
        let waiting = stage.waits(1, &[Scope::Read], "a");
        let again = open(&stage.store, &stage.journal, &stage.clock);
        assert!(again.device(&proven(1).id).is_none());
        let record = again.approve(&by(ADMIN), &waiting.request, None, None).unwrap();
        let token = again.token(&record.id, Role::Operator, &record.tokens[0].generation);
        let once_more = open(&stage.store, &stage.journal, &stage.clock);
        assert!(once_more.is_token(&record.id, Role::Operator, token.expose()));
        assert!(once_more.list().0.is_empty());
    }

    #[test]
    fn a_rotated_token_overlaps_until_the_new_one_is_used_and_scopes_only_shrink() {
        let stage = stage();
        stage.approve(&stage.waits(1, &[Scope::Read, Scope::Write], "a"), &by(ADMIN)).unwrap();
        let id = proven(1).id;
        let old = stage.enters(1, Role::Operator, &[Scope::Write]);
        let rotate = |by: &Principal, kept: Option<ScopeSet>| stage.registry.rotate(by, &id, Role::Operator, kept);
        // PAI-02: neither more than the token holds nor more than who asks.
        assert!(matches!(rotate(&by(ADMIN), Some(scopes(&[Scope::Admin]))), Err(PairingFault::RotationDenied)));
        assert!(matches!(rotate(&by(&[Scope::Pairing]), None), Err(PairingFault::RotationDenied)));
        let other = Principal {
            credential: Credential::DeviceToken,
            device: Some(proven(9).id),
            ..by(&[Scope::Pairing, Scope::Write])
        };
        assert!(matches!(rotate(&other, None), Err(PairingFault::NotItself)));

        let (kept, _, new) = rotate(&by(ADMIN), Some(scopes(&[Scope::Read]))).unwrap();
        assert_eq!(kept, scopes(&[Scope::Read]));
        assert!(!stage.registry.stands(&old.grant), "its open connections fall");
        let opens = |token: &Secret<String>| stage.registry.is_token(&id, Role::Operator, token.expose());
        assert!(opens(&old.token) && opens(&new));
        assert!(!stage.registry.ends_overlap(&id, Role::Operator, old.token.expose()));
        assert!(stage.registry.ends_overlap(&id, Role::Operator, new.expose()));
        stage.registry.end_overlap(&id, Role::Operator, old.token.expose()).unwrap();
        assert!(opens(&old.token), "the old one does not end itself");
        stage.registry.end_overlap(&id, Role::Operator, new.expose()).unwrap();
        assert!(!opens(&old.token) && opens(&new));
        // Without a use it ends by itself, and a clock set back does not prolong it.
        rotate(&by(ADMIN), None).unwrap();
        assert!(opens(&new));
        stage.clock.set(T0 + OVERLAP_MS);
        assert!(!opens(&new));
        stage.clock.set(T0 - 1);
        assert!(!opens(&new));
    }

    #[test]
    fn what_was_revoked_is_not_given_back_silently() {
        let stage = stage();
        let Answer::Entered(entered) = stage.wish(1, Role::Operator, &[Scope::Read], "a", Voucher::Operator) else {
            panic!("the operator's own device was not paired")
        };
        let id = proven(1).id;
        stage.registry.revoke(&by(ADMIN), &id, Role::Operator).unwrap();
        assert!(!stage.registry.stands(&entered.grant));
        assert!(!stage.registry.is_token(&id, Role::Operator, entered.token.expose()));
        let Answer::Waiting(waiting) = stage.wish(1, Role::Operator, &[Scope::Read], "a", Voucher::Operator) else {
            panic!("a revoked device came back by itself")
        };
        stage.approve(&waiting, &by(ADMIN)).unwrap();
        assert!(!stage.registry.is_token(&id, Role::Operator, entered.token.expose()), "the old token stays dead");
        stage.registry.remove(&by(ADMIN), &id).unwrap();
        assert!(stage.registry.device(&id).is_none());
        assert!(matches!(stage.registry.remove(&by(ADMIN), &id), Err(PairingFault::UnknownDevice)));
    }

    #[test]
    fn another_machine_with_the_same_key_must_ask() {
        let stage = stage();
        stage.approve(&stage.waits(1, &[Scope::Read], "a"), &by(ADMIN)).unwrap();
        let (proven, client) = (proven(1), ClientLabel { platform: "win32".into(), ..client("a") });
        let wish = Wish {
            proven: &proven,
            role: Role::Operator,
            scopes: scopes(&[Scope::Read]),
            client: &client,
            from: "x",
            source: "x",
        };
        assert!(stage.registry.enter(&wish).is_none());
        let Ok(Answer::Waiting(waiting)) = stage.registry.admit(&wish, Voucher::Nobody) else { panic!() };
        assert_eq!(waiting.reason, "metadata-upgrade");
        // What was granted to the other machine does not come along.
        let before = stage.registry.device(&proven.id).unwrap().tokens[0].clone();
        stage.approve(&stage.waits(1, &[Scope::Read, Scope::Write], "a"), &by(ADMIN)).unwrap();
        let Ok(Answer::Waiting(waiting)) = stage.registry.admit(&wish, Voucher::Nobody) else { panic!() };
        let moved = stage.approve(&waiting, &by(&[Scope::Pairing, Scope::Read])).unwrap();
        assert_eq!(moved.tokens[0].scopes, scopes(&[Scope::Read]));
        assert_ne!(moved.tokens[0].generation, before.generation);
    }

    fn invitation(agent: Option<&str>) -> Invitation {
        let agent = agent.map(|a| AgentId::parse(a).unwrap());
        let granted = if agent.is_some() { scopes(&[Scope::AgentExec]) } else { scopes(&[Scope::Read]) };
        Invitation { url: None, role: Role::Operator, scopes: granted, agent }
    }

    impl Stage {
        fn redeem(&self, n: u8, code: &str) -> Option<Entered> {
            let (proven, client) = (proven(n), client("a"));
            let wish = Wish {
                proven: &proven,
                role: Role::Operator,
                scopes: scopes(ADMIN),
                client: &client,
                from: "x",
                source: "x",
            };
            match self.registry.redeem(&wish, code).unwrap() {
                Some(Answer::Entered(entered)) => Some(entered),
                _ => None,
            }
        }
    }

    #[test]
    fn a_setup_code_pairs_one_device_once_for_what_it_grants() {
        let stage = stage();
        assert!(stage.registry.invite(&by(&[Scope::Pairing]), &invitation(None)).is_err());
        let code = stage.registry.invite(&by(ADMIN), &invitation(Some("builder"))).unwrap();
        let entered = stage.redeem(1, code.token.expose()).unwrap();
        assert_eq!((entered.scopes, entered.agent.as_deref()), (scopes(&[Scope::AgentExec]), Some("builder")));
        assert!(stage.redeem(1, code.token.expose()).is_none());
        assert!(stage.redeem(2, code.token.expose()).is_none());
        assert_eq!(stage.registry.invite_status(&code.id).unwrap().used_by, Some(proven(1).id));
        // An agent does not become an operator by a code for one.
        let second = stage.registry.invite(&by(ADMIN), &invitation(None)).unwrap();
        assert!(stage.redeem(1, second.token.expose()).is_none());
        assert!(stage.redeem(3, second.token.expose()).is_some());
    }

    #[test]
    fn a_setup_code_dies_of_wrong_guesses_of_time_and_of_a_clock_set_back() {
        let stage = stage();
        let invite = || stage.registry.invite(&by(ADMIN), &invitation(None)).unwrap();
        let guessed = invite();
        for _ in 0..5 {
            assert!(stage.redeem(1, &format!("{}.wrong", guessed.id.as_str())).is_none());
        }
        assert!(stage.redeem(1, guessed.token.expose()).is_none(), "burnt");
        let old = invite();
        stage.clock.set(T0 - 1);
        assert!(stage.redeem(1, old.token.expose()).is_none(), "made in the future");
        stage.clock.set(T0);
        stage.clock.advance(599_999);
        stage.clock.set(T0 + 5);
        assert!(stage.redeem(1, old.token.expose()).is_some(), "ten minutes are not over");
        let late = invite();
        stage.clock.advance(600_000);
        stage.clock.set(T0 + 10);
        assert!(stage.redeem(2, late.token.expose()).is_none(), "the clock was set back, the ticks were not");
        let restarted = open(&stage.store, &stage.journal, &stage.clock);
        stage.clock.set(T0 + 2_000_000);
        let (proven, client) = (proven(4), client("a"));
        let wish = Wish {
            proven: &proven,
            role: Role::Operator,
            scopes: scopes(&[]),
            client: &client,
            from: "x",
            source: "x",
        };
        assert!(restarted.redeem(&wish, late.token.expose()).unwrap().is_none());
    }

    #[test]
    fn a_nodes_surface_is_enabled_as_it_was_shown_and_replaced_when_it_grows() {
        use super::super::Surface;
        let stage = stage();
        let Answer::Waiting(waiting) = stage.wish(1, Role::Node, &[], "n", Voucher::Nobody) else { panic!() };
        stage.approve(&waiting, &by(ADMIN)).unwrap();
        let id = proven(1).id;
        let declare = |commands: &[&str]| {
            let commands: Vec<String> = commands.iter().map(|c| (*c).to_owned()).collect();
            stage.registry.declare(&id, &client("n"), &Surface::of(&[], &commands)).unwrap();
            stage.registry.surface(&id).1
        };
        let first = declare(&["dir.list"]).unwrap();
        assert_eq!(declare(&["dir.list"]).unwrap().id, first.id, "the same is the same");
        let grown = declare(&["dir.list", "system.run"]).unwrap();
        assert_ne!(grown.id, first.id);
        assert!(matches!(stage.registry.approve_node(&by(ADMIN), &first.id), Err(PairingFault::UnknownRequest)));
        let fault = stage.registry.approve_node(&by(&[Scope::Pairing, Scope::Write]), &grown.id).unwrap_err();
        assert!(matches!(fault, PairingFault::MissingScope(Scope::Admin)));
        stage.registry.approve_node(&by(ADMIN), &grown.id).unwrap();
        assert!(declare(&["system.run"]).is_none(), "less needs no new word");
        assert!(declare(&["system.run", "browser.proxy"]).is_some());
        stage.registry.revoke(&by(ADMIN), &id, Role::Node).unwrap();
        assert_eq!(stage.registry.surface(&id), (None, None), "a revoked node is asked about anew");
        assert!(stage.registry.remove_node(&by(ADMIN), &id).is_err());
        let Answer::Waiting(waiting) = stage.wish(1, Role::Node, &[], "n", Voucher::Nobody) else { panic!() };
        stage.approve(&waiting, &by(ADMIN)).unwrap();
        declare(&["system.run"]).unwrap();
        stage.registry.remove_node(&by(ADMIN), &id).unwrap();
        assert!(live_token(&stage.registry.device(&id).unwrap(), Role::Node).is_none());
        assert_eq!(stage.registry.surface(&id), (None, None));
    }
}
