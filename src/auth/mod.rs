//! Who are you: from a connection's peer and its `connect` parameters to a session, or a refusal.
//!
//! Knows no sockets and no frames. The order of the checks is the protocol's (sections 2.3 and 3);
//! where it is weak, the stricter reading is taken: scopes come from the credential's record, and
//! local convenience needs the kernel's word about who owns the other end.

mod device;
mod refusal;

pub(crate) use refusal::Refusal;

use crate::crypto::{self, SecretDigest};
use crate::model::{ConnId, Credential, DeviceId, Principal, Role, ScopeSet, Secret, UnixMillis};
use crate::wire::{AuthParams, ConnectParams, LEAST_PROBE_PROTOCOL, PROTOCOL};
use std::sync::{PoisonError, RwLock};

/// The other end of a connection, as the kernel and the HTTP head tell it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Peer {
    /// The unix socket; the uid by SO_PEERCRED.
    Unix { uid: u32 },
    /// A TCP connection.
    Tcp {
        /// The socket address, for records.
        address: String,
        /// The uid that owns the other end, where it is a process of this host and the connection is direct:
        /// loopback, no forwarding header, a loopback Host, no Origin.
        local_uid: Option<u32>,
        /// Whether a browser's Origin header came with it.
        has_origin: bool,
    },
}

impl Peer {
    /// Where from, for records.
    pub(crate) fn label(&self) -> String {
        match self {
            Peer::Unix { uid } => format!("unix:uid={uid}"),
            Peer::Tcp { address, .. } => address.clone(),
        }
    }
}

/// What a local peer gets without a credential (`gateway.auth.local_trust`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum LocalTrust {
    /// The unix socket admits operators; loopback TCP always needs a credential.
    #[default]
    Socket,
    /// The unix socket admits root alone, and a local connection with the token gains no scopes.
    Off,
}

/// Somebody who has been let in.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    pub(crate) conn: ConnId,
    pub(crate) principal: Principal,
    pub(crate) peer: Peer,
    /// What the client says of itself, for display only.
    pub(crate) client: ClientLabel,
    pub(crate) since: UnixMillis,
}

/// A client's own words about itself, cut to a bounded length.
#[derive(Debug, Clone, Default)]
pub(crate) struct ClientLabel {
    pub(crate) id: String,
    pub(crate) mode: String,
    pub(crate) version: String,
    pub(crate) platform: String,
    pub(crate) display_name: Option<String>,
    pub(crate) device_family: Option<String>,
}

/// Decides who gets in. Shared by all connections.
pub(crate) struct Gatekeeper {
    key: [u8; 32],
    token: RwLock<SecretDigest>,
    local_trust: LocalTrust,
    /// Root, our own uid, and those the operator named.
    operators: Vec<u32>,
}

impl Gatekeeper {
    /// `key` is random for this process; digests of secrets are made with it.
    pub(crate) fn new(key: [u8; 32], token: &Secret<String>, local_trust: LocalTrust, operators: Vec<u32>) -> Self {
        let digest = SecretDigest::of(&key, token.expose());
        Gatekeeper { key, token: RwLock::new(digest), local_trust, operators }
    }

    /// From now on this is the token; the old one opens nothing any more.
    pub(crate) fn replace_token(&self, token: &Secret<String>) {
        *self.token.write().unwrap_or_else(PoisonError::into_inner) = SecretDigest::of(&self.key, token.expose());
    }

    /// Judges a `connect`.
    ///
    /// # Errors
    /// Why not; the connection ends with it.
    pub(crate) fn admit(
        &self,
        conn: ConnId,
        peer: &Peer,
        nonce: &str,
        params: &ConnectParams,
        now: UnixMillis,
    ) -> Result<Session, Refusal> {
        let role = params.role().ok_or(Refusal::UnknownRole)?;
        check_protocol(params, role)?;
        let asked = params.scopes().map_err(|unknown| Refusal::UnknownScope(unknown.to_owned()))?;
        let device = params.device.as_ref().map(|d| device::verify(d, params, nonce, now)).transpose()?;
        let credential = self.credential(peer, params.auth.as_ref())?;
        if role == Role::Node {
            return Err(node_refusal(device));
        }
        let granted = self.granted(peer, &credential, params, device.as_ref())?;
        let principal = Principal { role, credential, device, scopes: asked.intersect(granted), agent: None };
        Ok(Session { conn, principal, peer: peer.clone(), client: label(params), since: now })
    }

    /// What proves the principal: the kernel's word on the unix socket, else the shared token.
    fn credential(&self, peer: &Peer, auth: Option<&AuthParams>) -> Result<Credential, Refusal> {
        if let Peer::Unix { uid } = peer
            && self.admits_uid(*uid)
        {
            return Ok(Credential::PeerUid(*uid));
        }
        // The shared secret is taken from either field, as the original does.
        let presented = auth.and_then(|a| a.token.as_ref().or(a.password.as_ref())).map(|t| t.trim());
        let presented = match presented {
            None | Some("") => {
                let other = auth.is_some_and(|a| a.device_token.is_some() || a.bootstrap_token.is_some());
                return Err(if other { Refusal::TokenMismatch } else { Refusal::TokenMissing });
            }
            Some(token) => token,
        };
        let right = self.token.read().unwrap_or_else(PoisonError::into_inner).clone();
        if right.matches(&SecretDigest::of(&self.key, presented)) {
            Ok(Credential::SharedToken)
        } else {
            Err(Refusal::TokenMismatch)
        }
    }

    fn admits_uid(&self, uid: u32) -> bool {
        uid == 0 || (self.local_trust == LocalTrust::Socket && self.operators.contains(&uid))
    }

    /// The scopes on record for this credential, from this place.
    ///
    /// The token is the operator's, but on its own it opens nothing: whoever holds it must also be the operator's
    /// process on this host, by the kernel's word, or a device that an operator has paired (not built yet).
    fn granted(
        &self,
        peer: &Peer,
        credential: &Credential,
        params: &ConnectParams,
        device: Option<&DeviceId>,
    ) -> Result<ScopeSet, Refusal> {
        if let Credential::PeerUid(_) = credential {
            return Ok(ScopeSet::operator());
        }
        let Peer::Tcp { local_uid, has_origin, .. } = peer else { return Ok(ScopeSet::EMPTY) };
        let operators_own = self.local_trust != LocalTrust::Off
            && local_uid.is_some_and(|uid| self.operators.contains(&uid))
            && !has_origin;
        match device {
            Some(_) if operators_own => Ok(ScopeSet::operator()),
            Some(device) => Err(Refusal::PairingRequired { device: device.clone() }),
            // Without a device only the original's own command line keeps its scopes (protocol 3.4).
            None if operators_own && is_command_line(params) => Ok(ScopeSet::operator()),
            None => Ok(ScopeSet::EMPTY),
        }
    }
}

fn is_command_line(params: &ConnectParams) -> bool {
    matches!((params.client.id.as_str(), params.client.mode.as_str()), ("cli", "cli") | ("gateway-client", "backend"))
}

fn check_protocol(params: &ConnectParams, role: Role) -> Result<(), Refusal> {
    let (least, most) = (params.min_protocol, params.max_protocol);
    let offered = |version| (least..=most).contains(&version);
    let lenient = params.client.mode == "probe" || (role == Role::Node && params.client.mode == "node");
    if offered(PROTOCOL) || (lenient && offered(LEAST_PROBE_PROTOCOL)) {
        return Ok(());
    }
    Err(Refusal::Protocol { least, most })
}

fn node_refusal(device: Option<DeviceId>) -> Refusal {
    match device {
        Some(device) => Refusal::PairingRequired { device },
        None => Refusal::DeviceIdentityRequired,
    }
}

fn label(params: &ConnectParams) -> ClientLabel {
    let client = &params.client;
    ClientLabel {
        id: client.id.clone(),
        mode: client.mode.clone(),
        version: client.version.clone(),
        platform: client.platform.clone(),
        display_name: client.display_name.clone(),
        device_family: client.device_family.clone(),
    }
}

/// A fresh shared token: 256 random bits, base64url.
pub(crate) fn new_token(random: [u8; 32]) -> Secret<String> {
    Secret::new(crypto::base64url(&random))
}

/// Whether a token is one that nobody could guess or leave behind: `undefined`, `changeme` and the like are not.
pub(crate) fn is_sound_token(token: &str) -> bool {
    token.len() >= 16 && token.bytes().all(|b| b.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const OPERATOR: u32 = 1000;

    fn keeper(trust: LocalTrust) -> Gatekeeper {
        Gatekeeper::new([1; 32], &Secret::new("right token of this test".into()), trust, vec![0, OPERATOR])
    }

    fn params(client: (&str, &str), scopes: &[&str], token: Option<&str>) -> ConnectParams {
        serde_json::from_value(json!({
            "minProtocol": 4, "maxProtocol": 4,
            "client": {"id": client.0, "mode": client.1, "version": "1", "platform": "linux"},
            "scopes": scopes, "auth": {"token": token},
        }))
        .unwrap()
    }

    fn tcp(local_uid: Option<u32>, has_origin: bool) -> Peer {
        Peer::Tcp { address: "127.0.0.1:5".into(), local_uid, has_origin }
    }

    fn admit(peer: &Peer, params: &ConnectParams) -> Result<Session, Refusal> {
        keeper(LocalTrust::Socket).admit(ConnId(1), peer, "nonce", params, 0)
    }

    const RIGHT: Option<&str> = Some("right token of this test");
    const CLI: (&str, &str) = ("cli", "cli");

    #[test]
    fn a_right_token_opens_and_every_other_answers_alike() {
        assert!(admit(&tcp(None, false), &params(CLI, &[], RIGHT)).is_ok());
        for wrong in ["x", "right token of this tes", "right token of this test2", "undefined"] {
            let refusal = admit(&tcp(None, false), &params(CLI, &[], Some(wrong))).unwrap_err();
            assert_eq!(refusal, Refusal::TokenMismatch, "{wrong}");
        }
        for blank in [None, Some(""), Some("   ")] {
            assert_eq!(admit(&tcp(None, false), &params(CLI, &[], blank)).unwrap_err(), Refusal::TokenMissing);
        }
    }

    #[test]
    fn scopes_in_the_frame_are_claims_and_the_kernel_decides_who_is_local() {
        let asks = |client| params(client, &["operator.admin"], RIGHT);
        let scopes = |peer: &Peer, client| admit(peer, &asks(client)).unwrap().principal.scopes;
        assert_eq!(scopes(&tcp(Some(OPERATOR), false), CLI).iter().count(), 1);
        for (peer, client) in [
            (tcp(None, false), CLI),                        // remote, or forwarded
            (tcp(Some(4711), false), CLI),                  // another user of this host
            (tcp(Some(OPERATOR), true), CLI),               // a browser
            (tcp(Some(OPERATOR), false), ("test", "test")), // not the original's command line
        ] {
            assert_eq!(scopes(&peer, client), ScopeSet::EMPTY, "{peer:?} {client:?}");
        }
    }

    #[test]
    fn a_scope_that_does_not_exist_is_refused() {
        let refusal = admit(&tcp(Some(OPERATOR), false), &params(CLI, &["operator.zzz"], RIGHT)).unwrap_err();
        assert_eq!(refusal, Refusal::UnknownScope("operator.zzz".into()));
    }

    #[test]
    fn the_unix_socket_admits_operators_without_a_token_and_nobody_else() {
        let no_token = params(CLI, &["operator.admin"], None);
        for uid in [0, OPERATOR] {
            let session = admit(&Peer::Unix { uid }, &no_token).unwrap();
            assert_eq!(session.principal.credential, Credential::PeerUid(uid));
        }
        assert_eq!(admit(&Peer::Unix { uid: 4711 }, &no_token).unwrap_err(), Refusal::TokenMissing);
        let off = keeper(LocalTrust::Off);
        assert!(off.admit(ConnId(1), &Peer::Unix { uid: OPERATOR }, "", &no_token, 0).is_err());
        assert!(off.admit(ConnId(1), &Peer::Unix { uid: 0 }, "", &no_token, 0).is_ok());
        let by_token =
            off.admit(ConnId(1), &tcp(Some(OPERATOR), false), "", &params(CLI, &["operator.admin"], RIGHT), 0);
        assert_eq!(by_token.unwrap().principal.scopes, ScopeSet::EMPTY);
    }

    #[test]
    fn a_rotated_token_is_refused_at_once() {
        let keeper = keeper(LocalTrust::Socket);
        keeper.replace_token(&Secret::new("another token of this test".into()));
        let old = keeper.admit(ConnId(1), &tcp(None, false), "", &params(CLI, &[], RIGHT), 0);
        assert_eq!(old.unwrap_err(), Refusal::TokenMismatch);
    }

    #[test]
    fn only_protocol_four_is_spoken_but_a_probe_may_offer_three() {
        let with = |least: u32, most: u32, mode: &str| {
            let mut p = params(("cli", mode), &[], RIGHT);
            (p.min_protocol, p.max_protocol) = (least, most);
            admit(&tcp(None, false), &p)
        };
        assert!(with(3, 4, "cli").is_ok() && with(4, 9, "cli").is_ok() && with(3, 3, "probe").is_ok());
        assert_eq!(with(3, 3, "cli").unwrap_err(), Refusal::Protocol { least: 3, most: 3 });
        assert_eq!(with(5, 6, "probe").unwrap_err(), Refusal::Protocol { least: 5, most: 6 });
    }
}
