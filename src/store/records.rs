//! The records of the store as they lie on disk: JSON, one a row, unknown fields refused.
//!
//! Knows nothing of what they are for. A field that is added later gets a default, so that a record
//! written before is still read; a field that is not known means a newer program wrote it, and is an error.

use crate::model::{AgentId, DeviceId, RequestId, Role, Scope, ScopeSet, SecretName, UnixMillis};
use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeSet;

/// A kind of record: its table, and the key of each row.
pub(crate) trait Record: Serialize + DeserializeOwned {
    /// The kind's name in the file.
    const KIND: &'static str;

    /// The row's key, unique among its kind.
    fn key(&self) -> String;
}

/// How a pairing came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ApprovedVia {
    /// An operator said so.
    Owner,
    /// The kernel says that it is the operator's own process on this host.
    Silent,
    /// A setup code.
    Bootstrap,
}

impl ApprovedVia {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            ApprovedVia::Owner => "owner",
            ApprovedVia::Silent => "silent",
            ApprovedVia::Bootstrap => "bootstrap",
        }
    }
}

/// What a client said of itself when it was approved, or asks to be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClientFacts {
    pub(crate) id: String,
    pub(crate) mode: String,
    pub(crate) version: String,
    pub(crate) platform: String,
    pub(crate) display_name: Option<String>,
    pub(crate) device_family: Option<String>,
}

/// A token of one device for one role. The token itself is not kept: it is derived from the generation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TokenRecord {
    #[serde(with = "role")]
    pub(crate) role: Role,
    #[serde(with = "scopes")]
    pub(crate) scopes: ScopeSet,
    /// Random; a new one makes a new token.
    pub(crate) generation: [u8; 16],
    pub(crate) created: UnixMillis,
    pub(crate) rotated: Option<UnixMillis>,
    pub(crate) revoked: Option<UnixMillis>,
    /// The generation before, good until then or until the new one was used.
    pub(crate) previous: Option<([u8; 16], UnixMillis)>,
}

/// A paired device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DeviceRecord {
    #[serde(with = "device")]
    pub(crate) id: DeviceId,
    pub(crate) public_key: [u8; 32],
    pub(crate) client: ClientFacts,
    /// The operator's name for it.
    pub(crate) label: Option<String>,
    /// The one agent it is, if it is one.
    #[serde(with = "agent")]
    pub(crate) agent: Option<AgentId>,
    pub(crate) tokens: Vec<TokenRecord>,
    pub(crate) via: ApprovedVia,
    pub(crate) created: UnixMillis,
    pub(crate) approved: UnixMillis,
    pub(crate) last_seen: Option<UnixMillis>,
    pub(crate) last_from: Option<String>,
}

impl Record for DeviceRecord {
    const KIND: &'static str = "device";

    fn key(&self) -> String {
        self.id.0.clone()
    }
}

/// A device that waits for an operator's word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PairingRequest {
    #[serde(with = "request")]
    pub(crate) id: RequestId,
    #[serde(with = "device")]
    pub(crate) device: DeviceId,
    pub(crate) public_key: [u8; 32],
    pub(crate) client: ClientFacts,
    #[serde(with = "role")]
    pub(crate) role: Role,
    #[serde(with = "scopes")]
    pub(crate) scopes: ScopeSet,
    /// Where it asked from, for the approver's eyes.
    pub(crate) from: String,
    /// Which client's share of the waiting room it takes.
    pub(crate) source: String,
    /// Whether the device is paired already and asks for more.
    pub(crate) is_repair: bool,
    pub(crate) created: UnixMillis,
    pub(crate) refreshed: UnixMillis,
}

impl Record for PairingRequest {
    const KIND: &'static str = "pairing-request";

    fn key(&self) -> String {
        self.id.as_str().to_owned()
    }
}

/// A setup code: the digest of its secret half, and what it grants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct InviteRecord {
    #[serde(with = "request")]
    pub(crate) id: RequestId,
    pub(crate) digest: [u8; 32],
    #[serde(with = "role")]
    pub(crate) role: Role,
    #[serde(with = "scopes")]
    pub(crate) scopes: ScopeSet,
    #[serde(with = "agent")]
    pub(crate) agent: Option<AgentId>,
    pub(crate) created: UnixMillis,
    pub(crate) expires: UnixMillis,
    pub(crate) failures: u32,
    /// The device that made it; the code is worth no more than its maker.
    #[serde(default, with = "maybe_device")]
    pub(crate) maker: Option<DeviceId>,
    /// The device that used it.
    #[serde(with = "maybe_device")]
    pub(crate) used_by: Option<DeviceId>,
}

impl Record for InviteRecord {
    const KIND: &'static str = "invite";

    fn key(&self) -> String {
        self.id.as_str().to_owned()
    }
}

/// What a node may offer: the commands an operator has enabled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NodeRecord {
    #[serde(with = "device")]
    pub(crate) id: DeviceId,
    pub(crate) name: Option<String>,
    pub(crate) client: ClientFacts,
    pub(crate) caps: Vec<String>,
    pub(crate) commands: Vec<String>,
    pub(crate) approved: UnixMillis,
}

impl Record for NodeRecord {
    const KIND: &'static str = "node";

    fn key(&self) -> String {
        self.id.0.clone()
    }
}

/// What a node declares and no operator has enabled yet; one for each node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NodeRequest {
    #[serde(with = "request")]
    pub(crate) id: RequestId,
    #[serde(with = "device")]
    pub(crate) node: DeviceId,
    pub(crate) client: ClientFacts,
    pub(crate) caps: Vec<String>,
    pub(crate) commands: Vec<String>,
    pub(crate) created: UnixMillis,
}

impl Record for NodeRequest {
    const KIND: &'static str = "node-request";

    fn key(&self) -> String {
        self.node.0.clone()
    }
}

/// A nonce that a signed HTTP request has used up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NonceRecord {
    /// The key it was used with.
    pub(crate) key: String,
    pub(crate) nonce: String,
    /// When the request says it was made, in Unix seconds.
    pub(crate) created: u64,
}

impl Record for NonceRecord {
    const KIND: &'static str = "nonce";

    fn key(&self) -> String {
        format!("{} {}", self.key, self.nonce)
    }
}

/// Requests of one key made at or before this second are too old, whatever the clock says by now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReplayFloor {
    pub(crate) key: String,
    pub(crate) created: u64,
}

impl Record for ReplayFloor {
    const KIND: &'static str = "replay-floor";

    fn key(&self) -> String {
        self.key.clone()
    }
}

/// A secret of agents; its value is a row of its own, which no parser ever sees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SecretRecord {
    #[serde(with = "secret_name")]
    pub(crate) name: SecretName,
    /// Who may use it.
    #[serde(with = "agents")]
    pub(crate) agents: BTreeSet<AgentId>,
    /// Who might have used this value and may not any more.
    #[serde(with = "agents")]
    pub(crate) former: BTreeSet<AgentId>,
    pub(crate) created: UnixMillis,
    pub(crate) updated: UnixMillis,
    /// Who set it last: `device:…`, `uid:…`.
    pub(crate) updated_by: String,
}

impl SecretRecord {
    /// Whether an agent may have seen the value.
    pub(crate) fn is_known_to(&self, agent: &AgentId) -> bool {
        self.agents.contains(agent) || self.former.contains(agent)
    }
}

impl Record for SecretRecord {
    const KIND: &'static str = "secret";

    fn key(&self) -> String {
        self.name.to_string()
    }
}

/// Nouns of the house as text, and nothing else as one of them.
macro_rules! as_text {
    ($name:ident, $noun:ty, $show:expr, $read:expr) => {
        mod $name {
            use super::*;

            pub(super) fn serialize<S: Serializer>(noun: &$noun, serializer: S) -> Result<S::Ok, S::Error> {
                #[allow(clippy::redundant_closure_call)]
                ($show)(noun).serialize(serializer)
            }

            pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<$noun, D::Error> {
                let text = Deserialize::deserialize(deserializer)?;
                #[allow(clippy::redundant_closure_call)]
                ($read)(text).ok_or_else(|| D::Error::custom(concat!("not a ", stringify!($name))))
            }
        }
    };
}

as_text!(role, Role, |role: &Role| role.as_str(), |text: String| Role::parse(&text));
as_text!(device, DeviceId, |id: &DeviceId| id.0.clone(), |text: String| Some(DeviceId(text)));
as_text!(request, RequestId, |id: &RequestId| id.as_str().to_owned(), |text: String| Some(RequestId::claimed(&text)));
as_text!(maybe_device, Option<DeviceId>, |id: &Option<DeviceId>| id.as_ref().map(|id| id.0.clone()), |text: Option<
    String,
>| Some(
    text.map(DeviceId)
));
as_text!(scopes, ScopeSet, |set: &ScopeSet| set.names(), |names: Vec<String>| -> Option<ScopeSet> {
    names.iter().map(|name| Scope::parse(name)).collect()
});
as_text!(agent, Option<AgentId>, |agent: &Option<AgentId>| agent.as_ref().map(ToString::to_string), |text: Option<
    String,
>| match text {
    None => Some(None),
    Some(text) => AgentId::parse(&text).ok().map(Some),
});
as_text!(secret_name, SecretName, |name: &SecretName| name.to_string(), |text: String| SecretName::parse(&text).ok());
as_text!(
    agents,
    BTreeSet<AgentId>,
    |agents: &BTreeSet<AgentId>| agents.iter().map(ToString::to_string).collect::<Vec<_>>(),
    |names: Vec<String>| -> Option<BTreeSet<AgentId>> { names.iter().map(|name| AgentId::parse(name).ok()).collect() }
);
