//! Sessions of single HTTP requests: signed by a device, or from this host with what a peer shows there.

use super::Gatekeeper;
use super::shown::Shown;
use crate::auth::registry::Grant;
use crate::auth::{ClientLabel, LocalTrust, Needed, Peer, Refusal, Session};
use crate::model::{AgentId, ConnId, Credential, Principal, Role, ScopeSet};
use crate::wire::AuthParams;
use std::sync::atomic::Ordering;

impl Gatekeeper {
    /// A session for one signed HTTP request of a paired device.
    pub(in crate::auth) fn session_of(
        &self,
        conn: ConnId,
        peer: &Peer,
        grant: Grant,
        scopes: ScopeSet,
        agent: Option<AgentId>,
    ) -> Session {
        let principal = Principal {
            role: grant.role,
            credential: Credential::DeviceToken,
            device: Some(grant.device.clone()),
            scopes,
            agent,
        };
        self.http_session(conn, peer, principal, Some(grant))
    }

    pub(in crate::auth) fn http_session(
        &self,
        conn: ConnId,
        peer: &Peer,
        principal: Principal,
        grant: Option<Grant>,
    ) -> Session {
        let client = ClientLabel { id: "http".into(), mode: "http".into(), ..Default::default() };
        let epoch = self.epoch.load(Ordering::Acquire);
        let since = self.clock.now();
        Session { conn, principal, peer: peer.clone(), client, since, grant, surface: None, epoch }
    }

    /// A session for what the gateway asks itself, with no scope.
    pub(crate) fn own_session(&self, conn: ConnId, uid: u32) -> Session {
        let principal = Principal {
            role: Role::Operator,
            credential: Credential::Nobody,
            device: None,
            scopes: ScopeSet::EMPTY,
            agent: None,
        };
        self.http_session(conn, &Peer::Unix { uid, via: None }, principal, None)
    }

    /// A session for one HTTP request that is not signed: from this host alone, with what such a peer shows there.
    ///
    /// # Errors
    /// Why not. From beyond the host only a signature opens.
    pub(crate) async fn admit_bearer(
        &self,
        conn: ConnId,
        peer: &Peer,
        bearer: Option<&str>,
    ) -> Result<Session, Refusal> {
        let from_here = matches!(peer, Peer::Unix { via: None, .. }) || self.is_operators_own(peer);
        let trusted =
            matches!(peer, Peer::Tcp { is_direct: true, .. }) && self.rules().local_trust == LocalTrust::Loopback;
        if !from_here && !trusted {
            return Err(Refusal::Mismatch(Needed::Anything));
        }
        let auth = AuthParams { token: bearer.map(ToOwned::to_owned), ..Default::default() };
        let Shown::Credential(credential) = self.shown(peer, Some(&auth), None).await? else {
            return Err(Refusal::Mismatch(Needed::Anything));
        };
        let full =
            matches!(credential, Credential::PeerUid(_) | Credential::Local(_)) || self.is_own(peer, &credential);
        let scopes = if full { ScopeSet::operator() } else { ScopeSet::EMPTY };
        let principal = Principal { role: Role::Operator, credential, device: None, scopes, agent: None };
        Ok(self.http_session(conn, peer, principal, None))
    }
}
