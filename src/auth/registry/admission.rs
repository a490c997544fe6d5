//! A device that has proved itself: let in, paired on the spot, or asked to wait for an operator.

use super::tokens::live_token;
use super::{Grant, Notice, PairingFault, Registry, State};
use crate::auth::ClientLabel;
use crate::auth::device::Proven;
use crate::journal::{Event, Record};
use crate::model::{AgentId, DeviceId, RequestId, Role, Scope, ScopeSet, Secret, UnixMillis};
use crate::store::{ApprovedVia, Changes, ClientFacts, DeviceRecord, PairingRequest, TokenRecord};
use std::sync::{Arc, PoisonError};

/// How long a request waits after it was last made.
pub(super) const REQUEST_LIFE_MS: u64 = 300_000;

/// Requests that wait, in all and from one source. A full room refuses newcomers; who was shown is not thrown out.
const MOST_REQUESTS: usize = 256;

pub(super) const MOST_REQUESTS_OF_ONE: usize = 8;

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

impl Registry {
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

    pub(in crate::auth) fn entered(&self, device: &DeviceRecord, token: &TokenRecord, wish: &Wish<'_>) -> Entered {
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
        // An agent is named by an operator, so who asks to be one waits for one.
        let wants_agent = [Scope::AgentExec, Scope::AgentFiles].iter().any(|scope| wish.scopes.covers(*scope));
        let silent = voucher == Voucher::Operator
            && !wants_agent
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
        let moved = self.moved(device.as_deref(), &record);
        let is_moved = !moved.is_empty();
        let changes = gone.iter().fold(moved.put(&record), |c, id| c.remove::<PairingRequest>(id.as_str()));
        self.parts.store.apply(&changes)?;
        let record = Arc::new(record);
        self.write(|state| {
            state.devices.insert(record.id.clone(), Arc::clone(&record));
            self.forget_surface(state, is_moved, &record.id);
            gone.iter().for_each(|id| drop(state.requests.remove(id)));
        });
        self.tell(&Notice::Changed);
        let token = live_token(&record, wish.role).ok_or(PairingFault::UnknownDevice)?;
        Ok(Answer::Entered(self.entered(&record, token, wish)))
    }

    /// Puts a wish into the waiting room, or finds it there.
    pub(super) fn wait(
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
}

/// A device to be recorded.
pub(in crate::auth) struct Facts<'a> {
    pub(in crate::auth) id: &'a DeviceId,
    pub(in crate::auth) key: &'a [u8; 32],
    pub(in crate::auth) client: ClientFacts,
}

pub(in crate::auth) fn facts_of<'a>(wish: &Wish<'a>) -> Facts<'a> {
    Facts { id: &wish.proven.id, key: &wish.proven.key, client: facts(wish.client) }
}

pub(in crate::auth) fn facts(client: &ClientLabel) -> ClientFacts {
    ClientFacts {
        id: client.id.clone(),
        mode: client.mode.clone(),
        version: client.version.clone(),
        platform: client.platform.clone(),
        display_name: client.display_name.clone(),
        device_family: client.device_family.clone(),
    }
}

pub(in crate::auth) fn requests_of(state: &State, device: &DeviceId, role: Role) -> Vec<RequestId> {
    let of = |r: &&PairingRequest| r.device == *device && r.role == role;
    state.requests.values().filter(of).map(|r| r.id.clone()).collect()
}

pub(super) fn approved_scopes(device: &DeviceRecord) -> ScopeSet {
    device.tokens.iter().filter(|t| t.revoked.is_none()).fold(ScopeSet::EMPTY, |all, t| all.union(t.scopes))
}

/// Why a device has to ask.
pub(super) fn reason(device: Option<&DeviceRecord>, wish: &Wish<'_>) -> &'static str {
    let Some(device) = device else { return "not-paired" };
    match device.tokens.iter().find(|t| t.role == wish.role) {
        None => "role-upgrade",
        Some(token) if token.revoked.is_some() => "not-paired",
        Some(token) if wish.scopes.beyond(token.scopes).is_some() => "scope-upgrade",
        Some(_) => "metadata-upgrade",
    }
}

/// Whether the platform and family are those that were approved; names and versions may change.
pub(super) fn is_same_machine(approved: &ClientFacts, client: &ClientLabel) -> bool {
    is_same_kind(approved, &facts(client))
}

pub(super) fn is_same_kind(a: &ClientFacts, b: &ClientFacts) -> bool {
    let same = |a: &str, b: &str| a.trim().eq_ignore_ascii_case(b.trim());
    same(&a.platform, &b.platform)
        && same(a.device_family.as_deref().unwrap_or(""), b.device_family.as_deref().unwrap_or(""))
}

/// Fresh on either side of the clock: one that was made in the future of a clock set back is not.
pub(super) fn is_fresh(request: &PairingRequest, now: UnixMillis) -> bool {
    now.abs_diff(request.refreshed) < REQUEST_LIFE_MS
}
