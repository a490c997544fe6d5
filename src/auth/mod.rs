//! Who are you: from a connection's peer and its `connect` parameters to a session, or a refusal.
//!
//! Knows no sockets and no frames. The order of the checks is the protocol's (sections 2.3 and 3);
//! where it is weak, the stricter reading is taken: scopes come from the credential's record, and
//! local convenience needs the kernel's word about who owns the other end.

mod device;
mod gatekeeper;
mod invites;
mod nodes;
mod proxy;
mod refusal;
mod registry;
mod secret;
mod signed;
mod tailnet;
#[cfg(test)]
mod testing;
mod throttle;

pub(crate) use gatekeeper::{Admitted, Gatekeeper, Mode, Rules};
pub(crate) use invites::Invite;
pub(crate) use nodes::Surface;
pub(crate) use proxy::{AllowedUsers, PeerFacts, Proxied, ProxyFault, ProxyRules};
pub(crate) use refusal::{Needed, Refusal};
pub(crate) use registry::{Grant, Notice, PairingFault, Registry, RegistryParts, Waiting};
pub(crate) use secret::{Shared, hash_password, is_sound_hash, is_sound_token, new_token};
pub(crate) use signed::{SignedHead, is_signed, signing_key};
pub(crate) use tailnet::{TailnetRules, is_tailnet};

#[cfg(fuzzing)]
pub(crate) use {proxy::fuzz as fuzz_proxy, signed::fuzz as fuzz_signature};

use crate::model::{ConnId, Credential, Principal, Role, UnixMillis};
use crate::wire::ConnectParams;
use std::net::{IpAddr, SocketAddr};
use throttle::Client;

/// The other end of a connection, as the kernel and the HTTP head tell it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Peer {
    /// The unix socket; the uid by SO_PEERCRED.
    Unix { uid: u32, via: Option<Proxied> },
    /// A TCP connection.
    Tcp {
        address: SocketAddr,
        /// Whether it is a process of this host that speaks for itself: loopback, no forwarding header, a loopback
        /// Host, no Origin.
        is_direct: bool,
        /// Whether it comes from an address of this host: any process here may have made it.
        is_local: bool,
        /// The uid that owns the other end of a direct connection, where the kernel names it.
        local_uid: Option<u32>,
        /// Whether a browser's Origin header came with it.
        has_origin: bool,
        /// What a trusted proxy says of whom it speaks for.
        via: Option<Proxied>,
    },
}

impl Peer {
    /// Where from, for records.
    pub(crate) fn label(&self) -> String {
        let own = match self {
            Peer::Unix { uid, .. } => format!("unix:uid={uid}"),
            Peer::Tcp { address, .. } => address.to_string(),
        };
        match self.via() {
            Some(via) => format!("{} via {own}", via.client),
            None => own,
        }
    }

    /// The address of the client itself, where there is one.
    pub(crate) fn client_ip(&self) -> Option<IpAddr> {
        match (self.via(), self) {
            (Some(via), _) => Some(via.client),
            (None, Peer::Tcp { address, .. }) => Some(address.ip().to_canonical()),
            (None, Peer::Unix { .. }) => None,
        }
    }

    fn via(&self) -> Option<&Proxied> {
        match self {
            Peer::Unix { via, .. } | Peer::Tcp { via, .. } => via.as_ref(),
        }
    }

    /// The uid of a local process that speaks for itself.
    fn own_uid(&self) -> Option<u32> {
        match self {
            Peer::Unix { uid, via: None } => Some(*uid),
            Peer::Tcp { local_uid, has_origin: false, via: None, .. } => *local_uid,
            _ => None,
        }
    }

    /// Who it is to the throttle.
    fn client(&self) -> Client {
        match (self.own_uid(), self.client_ip()) {
            (Some(uid), _) => Client::Uid(uid),
            (None, Some(ip)) => Client::at(ip),
            (None, None) => Client::at(IpAddr::from([127, 0, 0, 1])),
        }
    }
}

/// What a local peer gets without a credential (`gateway.auth.local_trust`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum LocalTrust {
    /// The unix socket admits operators; loopback TCP always needs a credential.
    #[default]
    Socket,
    /// A direct loopback connection of an operator's uid other than root needs none either.
    SameUser,
    /// Nor does any direct loopback connection, whoever's it is.
    Loopback,
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
    /// The pairing it rests on, if it is a device's.
    pub(crate) grant: Option<Grant>,
    /// What a node declares.
    pub(crate) surface: Option<Surface>,
    /// Which shared secret was in force.
    epoch: u64,
}

/// Whose connections are counted together: a device, a user whom others name, or else whoever comes from one place by one
/// credential.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Holder(String, Option<Client>);

impl Session {
    /// Whom a bound on connections counts this one for; nobody for who is root or our own user by the kernel's word, who could
    /// end us as well. An agent is counted wherever it runs.
    pub(crate) fn holder(&self, ours: u32) -> Option<Holder> {
        let principal = &self.principal;
        let is_operator = principal.role == Role::Operator && principal.agent.is_none();
        if is_operator && self.peer.own_uid().is_some_and(|uid| uid == 0 || uid == ours) {
            return None;
        }
        let is_named =
            principal.device.is_some() || matches!(principal.credential, Credential::Proxy(_) | Credential::Tailnet(_));
        Some(Holder(principal.label(), (!is_named).then(|| self.peer.client())))
    }
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
