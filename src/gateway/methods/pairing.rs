//! `device.*`: the shapes that clients read, and what a change means for connections that are open.

use super::Done;
use crate::auth::{Grant, Notice, PairingFault, Registry, Session};
use crate::crypto;
use crate::gateway::Gateway;
use crate::gateway::reply::{self, Answer};
use crate::journal::{Event, Receipt, Record};
use crate::model::{ConnId, DeviceId, Invitation, PairingAction, RequestId, Role};
use crate::store::{ClientFacts, DeviceRecord, PairingRequest};
use crate::wire::{Close, ErrorCode, ErrorShape, close};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::sync::{Arc, PoisonError};

/// `device.pair.list` and `device.pair.setupStatus`.
pub(super) fn tell(gateway: &Gateway, session: &Session, action: &PairingAction) -> Answer {
    let registry = gateway.registry();
    match action {
        PairingAction::InviteStatus { setup } => Ok(match registry.invite_status(setup) {
            Some(invite) if invite.used_by.is_some() => {
                let device = invite.used_by.map(|d| d.0);
                json!({"completion": {"setupId": setup.as_str(), "deviceId": device}})
            }
            _ => json!({}),
        }),
        _ => {
            let own = session.principal.manages_itself_alone().then(|| session.principal.device.clone()).flatten();
            let mine = |device: &DeviceId| own.as_ref().is_none_or(|own| own == device);
            let (requests, devices) = registry.list();
            let connected = gateway.hub.connected();
            let pending: Vec<Value> = requests.iter().filter(|r| mine(&r.device)).map(pending_json).collect();
            let paired: Vec<Value> =
                devices.iter().filter(|d| mine(&d.id)).map(|device| paired_json(gateway, device, &connected)).collect();
            Ok(json!({"pending": pending, "paired": paired}))
        }
    }
}

/// Every other `device.*` method. What is refused after it was recorded is recorded as refused.
pub(super) async fn change(gateway: &Gateway, session: &Session, action: PairingAction, _receipt: Receipt) -> Done {
    let registry = Arc::clone(gateway.registry());
    let principal = session.principal.clone();
    let wanted = action.clone();
    let changed = tokio::task::spawn_blocking(move || apply(&registry, &principal, wanted)).await;
    let outcome = match changed {
        Ok(outcome) => outcome,
        Err(_) => return Err(broken()).into(),
    };
    let outcome = outcome.and_then(|changed| shown(gateway, session, &action, changed));
    match outcome {
        Ok(answer) => Done { answer: Ok(answer), record: None },
        Err(fault) => {
            let record = Record::new(Event::ChangeRefused)
                .by(&session.principal, &session.peer.label())
                .about(&target(&action))
                .error(&fault.to_string());
            Done { answer: Err(reply::pairing_fault(&fault)), record: Some(record) }
        }
    }
}

/// What a change brought, before it is put into words.
enum Changed {
    Approved(Arc<DeviceRecord>),
    Rejected(DeviceId),
    Rotated(crate::model::ScopeSet, u64, crate::model::Secret<String>),
    Revoked(u64),
    Invited(crate::auth::Invite),
    Done,
}

fn apply(registry: &Registry, by: &crate::model::Principal, action: PairingAction) -> Result<Changed, PairingFault> {
    match action {
        PairingAction::Approve { request, scopes, agent } => {
            registry.approve(by, &request, scopes, agent.as_ref()).map(Changed::Approved)
        }
        PairingAction::Reject { request } => registry.reject(by, &request).map(Changed::Rejected),
        PairingAction::Remove { device } => registry.remove(by, &device).map(|()| Changed::Done),
        PairingAction::Rename { device, label } => registry.rename(by, &device, &label).map(|()| Changed::Done),
        PairingAction::Rotate { device, role, scopes } => {
            registry.rotate(by, &device, role, scopes).map(|(scopes, at, token)| Changed::Rotated(scopes, at, token))
        }
        PairingAction::Revoke { device, role } => registry.revoke(by, &device, role).map(Changed::Revoked),
        PairingAction::Invite(invitation) => registry.invite(by, &invitation).map(Changed::Invited),
        PairingAction::List | PairingAction::InviteStatus { .. } => Ok(Changed::Done),
    }
}

/// The answer; and connections that rest on what was taken away are closed before it is given.
fn shown(
    gateway: &Gateway,
    session: &Session,
    action: &PairingAction,
    changed: Changed,
) -> Result<Value, PairingFault> {
    Ok(match (action, changed) {
        (PairingAction::Approve { request, .. }, Changed::Approved(device)) => {
            json!({"requestId": request.as_str(), "device": paired_json(gateway, &device, &gateway.hub.connected())})
        }
        (PairingAction::Reject { request }, Changed::Rejected(device)) => {
            json!({"requestId": request.as_str(), "deviceId": device.0})
        }
        (PairingAction::Remove { device }, _) => {
            gateway.close_fallen();
            json!({"deviceId": device.0})
        }
        (PairingAction::Rename { device, label }, _) => json!({"deviceId": device.0, "label": label}),
        (PairingAction::Rotate { device, role, .. }, Changed::Rotated(scopes, at, token)) => {
            // A token travels to its own device alone; another's device fetches it when it connects again.
            let own = session.principal.device.as_ref() == Some(device) && session.principal.role == *role;
            gateway.close_fallen_but(session.conn);
            let mut answer = json!({
                "deviceId": device.0, "role": role.as_str(), "scopes": scopes.names(), "rotatedAtMs": at,
                "tokenDelivery": if own { "in-band" } else { "withheld-cross-device" },
            });
            if own {
                answer["token"] = json!(token.expose());
                // It reads this, and comes back with the new one.
                let removed = Close::new(close::AUTH_CHANGED, "device removed");
                gateway.hub.close_with_answer(session.conn, &removed, |_| true);
            }
            answer
        }
        (PairingAction::Revoke { device, role }, Changed::Revoked(at)) => {
            gateway.close_fallen();
            json!({"deviceId": device.0, "role": role.as_str(), "revokedAtMs": at})
        }
        (PairingAction::Invite(invitation), Changed::Invited(invite)) => invite_json(gateway, invitation, &invite)?,
        _ => json!({}),
    })
}

/// The setup code: base64url of JSON that the original's clients read.
fn invite_json(gateway: &Gateway, wanted: &Invitation, invite: &crate::auth::Invite) -> Result<Value, PairingFault> {
    let url = gateway.invite_url(wanted.url.as_deref()).ok_or(PairingFault::Invalid(PairingFault::UNREACHABLE))?;
    let mut code = json!({"url": url, "bootstrapToken": invite.token.expose(), "expiresAtMs": invite.expires});
    let fingerprint = gateway.fingerprint().filter(|_| url.starts_with("wss://"));
    if let Some(fingerprint) = &fingerprint {
        code["tlsFingerprint"] = json!(fingerprint);
    }
    let mut answer = json!({
        "setupId": invite.id.as_str(), "expiresAtMs": invite.expires, "gatewayUrl": url,
        "setupCode": crypto::base64url(code.to_string().as_bytes()),
        "auth": "bootstrap", "urlSource": if wanted.url.is_some() { "request" } else { "gateway" },
        "access": {"role": wanted.role.as_str(), "scopes": wanted.scopes.names()},
    });
    if let Some(fingerprint) = fingerprint {
        answer["fingerprint"] = json!(fingerprint);
    }
    Ok(answer)
}

/// What an action is done to, for its record.
pub(in crate::gateway) fn target(action: &PairingAction) -> String {
    match action {
        PairingAction::Approve { request, .. } | PairingAction::Reject { request } => request.as_str().to_owned(),
        PairingAction::Remove { device } | PairingAction::Rename { device, .. } => device.0.clone(),
        PairingAction::Rotate { device, role, .. } | PairingAction::Revoke { device, role } => {
            format!("{} {}", device.0, role.as_str())
        }
        PairingAction::Invite(invitation) => invitation.role.as_str().to_owned(),
        PairingAction::InviteStatus { setup } => setup.as_str().to_owned(),
        PairingAction::List => String::new(),
    }
}

/// The event of an action's record.
pub(in crate::gateway) fn event(action: &PairingAction) -> Event {
    match action {
        PairingAction::Approve { .. } => Event::DeviceApproved,
        PairingAction::Reject { .. } => Event::DeviceRejected,
        PairingAction::Remove { .. } => Event::DeviceRemoved,
        PairingAction::Rename { .. } => Event::DeviceRenamed,
        PairingAction::Rotate { .. } => Event::DeviceTokenRotated,
        PairingAction::Revoke { .. } => Event::DeviceTokenRevoked,
        PairingAction::Invite(_) | PairingAction::InviteStatus { .. } | PairingAction::List => Event::DeviceInvited,
    }
}

fn put_client(value: &mut Value, client: &ClientFacts) {
    value["clientId"] = json!(client.id);
    value["clientMode"] = json!(client.mode);
    value["platform"] = json!(client.platform);
    if let Some(name) = &client.display_name {
        value["displayName"] = json!(name);
    }
    if let Some(family) = &client.device_family {
        value["deviceFamily"] = json!(family);
    }
}

/// A waiting request as clients see it.
pub(in crate::gateway) fn pending_json(request: &PairingRequest) -> Value {
    let mut value = json!({
        "requestId": request.id.as_str(), "deviceId": request.device.0,
        "publicKey": crypto::base64url(&request.public_key),
        "role": request.role.as_str(), "roles": [request.role.as_str()], "scopes": request.scopes.names(),
        "remoteIp": request.from, "silent": false, "isRepair": request.is_repair, "ts": request.refreshed,
    });
    put_client(&mut value, &request.client);
    value
}

fn paired_json(gateway: &Gateway, device: &DeviceRecord, connected: &HashSet<DeviceId>) -> Value {
    let live: Vec<_> = device.tokens.iter().filter(|t| t.revoked.is_none()).collect();
    let roles: Vec<&str> = live.iter().map(|t| t.role.as_str()).collect();
    let scopes = live.iter().fold(crate::model::ScopeSet::EMPTY, |all, t| all.union(t.scopes));
    let tokens: Vec<Value> = device
        .tokens
        .iter()
        .map(|t| {
            let mut token = json!({"role": t.role.as_str(), "scopes": t.scopes.names(), "createdAtMs": t.created});
            for (name, at) in [("rotatedAtMs", t.rotated), ("revokedAtMs", t.revoked)] {
                if let Some(at) = at {
                    token[name] = json!(at);
                }
            }
            token
        })
        .collect();
    let (last_seen, last_from) = gateway.registry().last_seen(device);
    let mut value = json!({
        "deviceId": device.id.0, "publicKey": crypto::base64url(&device.public_key),
        "role": roles.first().copied().unwrap_or(""), "roles": roles, "scopes": scopes.names(),
        "approvedScopes": scopes.names(),
        "approvedVia": device.via.as_str(), "createdAtMs": device.created, "approvedAtMs": device.approved,
        "connected": connected.contains(&device.id), "tokens": tokens,
    });
    put_client(&mut value, &device.client);
    if let Some(label) = &device.label {
        value["operatorLabel"] = json!(label);
    }
    if let Some(agent) = &device.agent {
        value["agent"] = json!(&**agent);
    }
    if let Some(at) = last_seen {
        value["lastSeenAtMs"] = json!(at);
    }
    if let Some(from) = last_from {
        value["remoteIp"] = json!(from);
    }
    let (surface, waiting) = gateway.registry().surface(&device.id);
    if let Some(waiting) = waiting {
        let name = waiting.client.display_name.clone();
        value["pendingNodeSurface"] = json!({"requestId": waiting.id.as_str(), "displayName": name});
    }
    if let Some(surface) = surface {
        value["nodeSurface"] = json!({"commands": surface.commands, "caps": surface.caps});
    }
    value
}

impl Gateway {
    /// Who is paired.
    pub(in crate::gateway) fn registry(&self) -> &Arc<Registry> {
        self.parts.gatekeeper.registry()
    }

    /// Closes every connection whose pairing does not stand any more.
    pub(in crate::gateway) fn close_fallen(&self) {
        self.close_fallen_where(|_| true);
    }

    fn close_fallen_but(&self, conn: ConnId) {
        self.close_fallen_where(|session| session.conn != conn);
    }

    fn close_fallen_where(&self, which: impl Fn(&Session) -> bool) {
        let removed = Close::new(close::AUTH_CHANGED, "device removed");
        self.close_where(&removed, |session| {
            which(session) && session.grant.as_ref().is_some_and(|grant: &Grant| !self.registry().stands(grant))
        });
    }

    /// Ends these sessions: connections are closed, and what they and requests without a connection run is cancelled
    /// now, not when the last that was written for them has been read.
    pub(in crate::gateway) fn close_where(&self, close: &Close, which: impl Fn(&Session) -> bool) {
        for conn in self.hub.close_all(close, &which) {
            self.cancel_runs_of(conn);
        }
        let calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        let fallen: Vec<ConnId> = calls.values().filter(|session| which(session)).map(|session| session.conn).collect();
        drop(calls);
        fallen.into_iter().for_each(|conn| self.cancel_runs_of(conn));
    }

    /// Tells operators, and the device itself, what has changed.
    pub(in crate::gateway) fn spread(&self, notice: &Notice) {
        let now = self.parts.clock.now();
        match notice {
            Notice::Requested(request) => {
                self.hub.tell("device.pair.requested", Some(&request.device), &pending_json(request));
            }
            Notice::Resolved { request, device, approved } => {
                let decision = if *approved { "approved" } else { "rejected" };
                let payload =
                    json!({"requestId": request.as_str(), "deviceId": device.0, "decision": decision, "ts": now});
                self.hub.tell("device.pair.resolved", Some(device), &payload);
            }
            Notice::Changed => self.hub.tell("device.pair.changed", None, &json!({})),
            Notice::SetupCompleted { setup, device, name } => {
                let payload = json!({"setupId": setup.as_str(), "deviceId": device.0, "deviceName": name, "ts": now});
                self.hub.tell("device.pair.setup.completed", Some(device), &payload);
            }
            Notice::NodeRequested(request) => {
                let payload = super::nodes::pending_json(request);
                self.hub.tell("node.pair.requested", Some(&request.node), &payload);
            }
            Notice::NodeResolved { request, node, decision } => {
                let request = request.as_ref().map_or("", RequestId::as_str);
                let payload = json!({"requestId": request, "nodeId": node.0, "decision": decision, "ts": now});
                self.hub.tell("node.pair.resolved", Some(node), &payload);
                self.hub.tell_device(node, Role::Node, "node.pair.resolved", &payload);
                if *decision == "removed" {
                    self.close_fallen();
                }
            }
        }
    }

    /// Where a device that was invited reaches us: as told, or the address we are bound to where others reach it.
    fn invite_url(&self, told: Option<&str>) -> Option<String> {
        told.map(|url| url.trim_end_matches('/').to_owned()).or_else(|| self.parts.facts.url.clone())
    }

    /// The fingerprint of our certificate, where there is TLS.
    pub(in crate::gateway) fn fingerprint(&self) -> Option<String> {
        (self.parts.fingerprint)()
    }
}

/// A broken-off change is no refusal of ours.
pub(super) fn broken() -> ErrorShape {
    ErrorShape::new(ErrorCode::Unavailable, "the change was broken off").retry()
}
