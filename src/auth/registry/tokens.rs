//! The tokens of paired devices: derived and not kept, rotated with an overlap, revoked.

use super::approval::check_itself;
use super::{Grant, Notice, PairingFault, Registry};
use crate::crypto;
use crate::model::{DeviceId, Principal, Role, ScopeSet, Secret, UnixMillis, needed_to_grant};
use crate::store::{Changes, DeviceRecord, NodeRecord, NodeRequest, TokenRecord};
use std::sync::Arc;

/// After a rotation the old token opens for so long, unless the new one is used first.
pub(super) const OVERLAP_MS: u64 = 300_000;

impl Registry {
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
        let key = crate::auth::signing_key(self.token(device, role, &token.generation).expose());
        let name = key_name(device, token);
        let grant = Grant { device: device.clone(), role, generation: token.generation, scopes: token.scopes };
        Some((name, key, grant))
    }

    pub(in crate::auth) fn token(&self, device: &DeviceId, role: Role, generation: &[u8; 16]) -> Secret<String> {
        let parts: [&[u8]; 6] =
            [b"vambrace device token\0", device.0.as_bytes(), b"\0", role.as_str().as_bytes(), b"\0", generation];
        Secret::new(crypto::base64url(&crypto::hmac_sha256(self.key.expose(), &parts)))
    }
}

/// What a signing key is called: a new token has a new one.
pub(super) fn key_name(device: &DeviceId, token: &TokenRecord) -> String {
    format!("{device} {} {}", token.role.as_str(), crypto::hex(&token.generation))
}

/// The token of a role that is not revoked.
pub(in crate::auth) fn live_token(device: &DeviceRecord, role: Role) -> Option<&TokenRecord> {
    device.tokens.iter().find(|t| t.role == role && t.revoked.is_none())
}
