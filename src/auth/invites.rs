//! Setup codes: a device that brings one is paired at once, once.
//!
//! A code has a public half, by which it is found, and 256 secret bits, of which only a keyed digest is kept.
//! It lives ten minutes by a clock that cannot be set back, and dies of a few wrong guesses or of its use
//! (attack classes PAI-11, PAI-16).

use super::registry::{Answer, Notice, PairingFault, Registry, Wish, facts_of, live_token, requests_of};
use crate::crypto;
use crate::journal::{Event, Record};
use crate::model::{Credential, Invitation, Principal, RequestId, Role, Scope, Secret, UnixMillis, needed_to_grant};
use crate::store::{ApprovedVia, Changes, InviteRecord, PairingRequest};
use std::collections::HashMap;
use std::sync::Arc;

/// How long a code can be used.
const LIFE_MS: u64 = 600_000;

/// Wrong secret halves after which a code is burnt.
const MOST_FAILURES: u32 = 5;

/// Codes that wait at once.
const MOST_INVITES: usize = 64;

/// The codes that wait, and those that were used or ran out a little while ago.
#[derive(Default)]
pub(super) struct Invites {
    records: HashMap<RequestId, InviteRecord>,
    /// Made by this process, at these ticks: a clock that is set back does not prolong them.
    born: HashMap<RequestId, u64>,
}

impl Invites {
    pub(super) fn of(records: Vec<InviteRecord>) -> Self {
        Invites { records: records.into_iter().map(|r| (r.id.clone(), r)).collect(), born: HashMap::new() }
    }

    fn is_usable(&self, invite: &InviteRecord, now: UnixMillis, ticks: u64) -> bool {
        let by_ticks = self.born.get(&invite.id).is_none_or(|born| ticks.saturating_sub(*born) < LIFE_MS);
        // Before its own birth the clock was set back: nobody knows how old it is.
        let by_clock = (invite.created..invite.expires).contains(&now);
        by_ticks && by_clock && invite.used_by.is_none() && invite.failures < MOST_FAILURES
    }
}

/// A code that was made: what the device is to present, and until when.
#[derive(Debug)]
pub(crate) struct Invite {
    pub(crate) id: RequestId,
    pub(crate) token: Secret<String>,
    pub(crate) expires: UnixMillis,
}

impl Registry {
    /// Makes a code. It grants nothing that its maker does not hold.
    pub(crate) fn invite(&self, by: &Principal, wanted: &Invitation) -> Result<Invite, PairingFault> {
        let _alone = self.alone();
        if let Some(missing) = needed_to_grant(wanted.scopes).beyond(by.scopes) {
            return Err(PairingFault::MissingScope(missing));
        }
        if wanted.role == Role::Node && !by.scopes.covers(Scope::Admin) {
            return Err(PairingFault::MissingScope(Scope::Admin));
        }
        let (now, ticks) = (self.parts.clock.now(), self.parts.clock.ticks());
        // What ran out an hour ago is of no interest to `setupStatus` any more.
        let old: Vec<_> = self.read(|state| {
            let invites = &state.invites;
            let gone = |i: &&InviteRecord| !invites.is_usable(i, now, ticks) && now.abs_diff(i.created) > 6 * LIFE_MS;
            invites.records.values().filter(gone).map(|i| i.id.clone()).collect()
        });
        if self.read(|state| state.invites.records.len()) - old.len() >= MOST_INVITES {
            return Err(PairingFault::Full);
        }
        let (a, b) = ((self.parts.random)(), (self.parts.random)());
        let secret = Secret::new(crypto::base64url(&[a, b].concat()));
        let record = InviteRecord {
            id: RequestId::from_random((self.parts.random)()),
            digest: self.digest(secret.expose()),
            role: wanted.role,
            scopes: wanted.scopes,
            agent: wanted.agent.clone(),
            created: now,
            expires: now + LIFE_MS,
            failures: 0,
            maker: by.device.clone().filter(|_| !matches!(by.credential, Credential::PeerUid(_))),
            used_by: None,
        };
        let changes = old.iter().fold(Changes::default().put(&record), |c, id| c.remove::<InviteRecord>(id.as_str()));
        self.parts.store.apply(&changes)?;
        let invite = Invite {
            id: record.id.clone(),
            token: Secret::new(format!("{}.{}", record.id.as_str(), secret.expose())),
            expires: record.expires,
        };
        self.write(|state| {
            for id in old {
                state.invites.records.remove(&id);
                state.invites.born.remove(&id);
            }
            state.invites.born.insert(record.id.clone(), ticks);
            state.invites.records.insert(record.id.clone(), record);
        });
        Ok(invite)
    }

    /// What has become of a code.
    pub(crate) fn invite_status(&self, id: &RequestId) -> Option<InviteRecord> {
        self.read(|state| state.invites.records.get(id).cloned())
    }

    /// Pairs the device that brings a code; the code and the pairing change together. `None` where the code is
    /// unknown, used, burnt, too old, wrong, or for another role: all of them look alike.
    pub(crate) fn redeem(&self, wish: &Wish<'_>, presented: &str) -> Result<Option<Answer>, PairingFault> {
        let _alone = self.alone();
        let Some((id, secret)) = presented.split_once('.') else { return Ok(None) };
        let (now, ticks) = (self.parts.clock.now(), self.parts.clock.ticks());
        let found = self.read(|state| {
            let invites = &state.invites;
            let invite = invites.records.get(&RequestId::claimed(id));
            invite.filter(|i| invites.is_usable(i, now, ticks)).cloned()
        });
        let Some(invite) = found else { return Ok(None) };
        if !crypto::same(&invite.digest, &self.digest(secret)) || invite.role != wish.role {
            let failed = InviteRecord { failures: invite.failures + 1, ..invite };
            self.parts.store.apply(&Changes::default().put(&failed))?;
            self.write(|state| state.invites.records.insert(failed.id.clone(), failed));
            return Ok(None);
        }
        // Whoever made it must still be there and hold what it gives away.
        if !self.maker_stands(&invite) {
            return Ok(None);
        }
        let device = self.device(&wish.proven.id);
        self.check_room(device.as_deref())?;
        // A device that is paired already keeps what it is: a code does not turn an agent into an operator.
        if device.as_ref().is_some_and(|d| d.agent != invite.agent && !d.tokens.is_empty()) {
            return Ok(None);
        }
        let facts = facts_of(wish);
        let agent = invite.agent.as_ref();
        let record = self.granted(device.as_deref(), &facts, invite.role, invite.scopes, agent, ApprovedVia::Bootstrap);
        let mut written = Record::new(Event::DevicePaired).decided("permit", "setup-code").about(&record.id.0);
        written.scopes = Some(invite.scopes.names().join(" "));
        written.from = Some(wish.from.to_owned());
        let _receipt = self.parts.journal.append(written)?;
        let used = InviteRecord { used_by: Some(record.id.clone()), ..invite };
        let waiting = self.read(|state| requests_of(state, &record.id, wish.role));
        let moved = self.moved(device.as_deref(), &record);
        let is_moved = !moved.is_empty();
        let changes = moved.put(&record).put(&used);
        let changes = waiting.iter().fold(changes, |c, id| c.remove::<PairingRequest>(id.as_str()));
        self.parts.store.apply(&changes)?;
        let record = Arc::new(record);
        let setup = used.id.clone();
        self.write(|state| {
            self.forget_surface(state, is_moved, &record.id);
            state.insert_device(Arc::clone(&record));
            state.remove_requests(&waiting);
            state.invites.records.insert(used.id.clone(), used);
        });
        let name = record.client.display_name.clone();
        self.tell(&Notice::SetupCompleted { setup, device: record.id.clone(), name });
        self.tell(&Notice::Changed);
        let token = live_token(&record, wish.role).ok_or(PairingFault::UnknownDevice)?;
        // It gets in with what the code grants, whatever it asked for.
        Ok(Some(Answer::Entered(self.entered(&record, token, &Wish { scopes: token.scopes, ..*wish }))))
    }
}

impl Registry {
    /// What is kept of a code: keyed, so that the store alone does not even let one try.
    fn digest(&self, secret: &str) -> [u8; 32] {
        crypto::hmac_sha256(self.key.expose(), &[b"vambrace setup code\0", secret.as_bytes()])
    }

    fn maker_stands(&self, invite: &InviteRecord) -> bool {
        let Some(maker) = &invite.maker else { return true };
        let needed = match invite.role {
            Role::Node => [Scope::Admin].into_iter().collect(),
            Role::Operator => needed_to_grant(invite.scopes),
        };
        let device = self.device(maker);
        let held = device.as_deref().and_then(|d| live_token(d, Role::Operator)).map(|t| t.scopes);
        held.is_some_and(|held| needed.beyond(held).is_none())
    }
}
