//! The handshake: `connect` parameters, the payload a device signs, `hello-ok`.

use crate::model::{DeviceId, Role, Scope, ScopeSet, Secret};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// Parameters of `connect`, protocol section 2.1. Unknown properties are errors.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct ConnectParams {
    pub(crate) min_protocol: u32,
    pub(crate) max_protocol: u32,
    pub(crate) client: ClientInfo,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) caps: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) commands: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "unique_keys")]
    pub(crate) permissions: Option<BTreeMap<String, bool>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) path_env: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) role: Option<String>,
    #[serde(default)]
    pub(crate) scopes: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) device: Option<DeviceParams>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) auth: Option<AuthParams>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) locale: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) user_agent: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) computer_use: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) worker_runs: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) model_catalog: Option<Value>,
}

/// What a client says of itself; claims, for display and signature only.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct ClientInfo {
    pub(crate) id: String,
    pub(crate) version: String,
    pub(crate) platform: String,
    pub(crate) mode: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) display_name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) build_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) device_family: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) model_identifier: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) time_zone: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) instance_id: Option<String>,
}

/// A device's proof; all five parts or none.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct DeviceParams {
    pub(crate) id: String,
    pub(crate) public_key: String,
    pub(crate) signature: String,
    pub(crate) signed_at: i64,
    pub(crate) nonce: String,
}

/// Credentials presented.
#[derive(Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct AuthParams {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) token: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) bootstrap_token: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) device_token: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) password: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) approval_runtime_token: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) agent_runtime_identity_token: Option<String>,
}

impl std::fmt::Debug for AuthParams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AuthParams(…)")
    }
}

impl AuthParams {
    /// The token that stands in the signed payload: the first that is there.
    fn signed_token(&self) -> &str {
        [&self.token, &self.device_token, &self.bootstrap_token].into_iter().flatten().next().map_or("", |t| t.as_str())
    }
}

/// Capabilities and commands that one client may declare, and the longest name of one.
const MOST_NAMES: usize = 128;
const LONGEST_NAME: usize = 128;

const CLIENT_IDS: &[&str] = &[
    "webchat-ui",
    "openclaw-control-ui",
    "openclaw-browser-copilot",
    "openclaw-tui",
    "webchat",
    "cli",
    "gateway-client",
    "openclaw-macos",
    "openclaw-linux",
    "openclaw-ios",
    "openclaw-watchos",
    "openclaw-android",
    "node-host",
    "openclaw-worker",
    "test",
    "fingerprint",
    "openclaw-probe",
    "vambrace-cli",
];
const CLIENT_MODES: &[&str] = &["webchat", "cli", "ui", "backend", "node", "worker", "probe", "test"];

impl ConnectParams {
    /// Reads and checks what serde does not: enumerations and lengths.
    ///
    /// # Errors
    /// `at <path>: <why>`, for the client to read.
    pub(crate) fn read(params: Option<&RawValue>) -> Result<Self, String> {
        let raw = params.ok_or_else(|| "at params: missing".to_owned())?;
        let params: ConnectParams =
            serde_json::from_str(raw.get()).map_err(|e| super::frame::strip_position(&e.to_string()))?;
        let lengths = [
            ("client.version", &Some(params.client.version.clone()), 128),
            ("client.platform", &Some(params.client.platform.clone()), 128),
            ("client.displayName", &params.client.display_name, 256),
            ("client.buildId", &params.client.build_id, 96),
            ("client.deviceFamily", &params.client.device_family, 128),
            ("client.modelIdentifier", &params.client.model_identifier, 128),
            ("client.timeZone", &params.client.time_zone, 64),
            ("client.instanceId", &params.client.instance_id, 128),
        ];
        for (path, text, most) in lengths {
            if text.as_ref().is_some_and(|t| t.len() > most) {
                return Err(format!("at {path}: must have at most {most} bytes"));
            }
        }
        for (path, names) in [("caps", Some(&params.caps)), ("commands", params.commands.as_ref())] {
            if names.is_some_and(|n| n.len() > MOST_NAMES || n.iter().any(|n| n.is_empty() || n.len() > LONGEST_NAME)) {
                return Err(format!("at {path}: at most {MOST_NAMES} names of 1 to {LONGEST_NAME} bytes"));
            }
        }
        if params.min_protocol == 0 || params.max_protocol == 0 {
            return Err("at minProtocol: must be at least 1".into());
        }
        if !CLIENT_IDS.contains(&params.client.id.as_str()) {
            return Err("at client.id: not a known client".into());
        }
        if !CLIENT_MODES.contains(&params.client.mode.as_str()) {
            return Err("at client.mode: not a known mode".into());
        }
        Ok(params)
    }

    /// The role asked for.
    pub(crate) fn role(&self) -> Option<Role> {
        match self.role.as_deref() {
            None | Some("operator") => Some(Role::Operator),
            Some("node") => Some(Role::Node),
            Some(_) => None,
        }
    }

    /// The scopes asked for.
    ///
    /// # Errors
    /// The first one that does not exist.
    pub(crate) fn scopes(&self) -> Result<ScopeSet, &str> {
        self.scopes.iter().map(|text| Scope::parse(text).ok_or(text.as_str())).collect()
    }
}

/// What a device signs: version 3, or version 2 without the last two fields (protocol section 2.3).
pub(crate) fn signed_payload(
    version: u8,
    params: &ConnectParams,
    device: &DeviceId,
    signed_at: i64,
    nonce: &str,
) -> String {
    let lower = |text: Option<&str>| text.unwrap_or("").trim().to_ascii_lowercase();
    let token = params.auth.as_ref().map_or("", AuthParams::signed_token);
    let mut fields = vec![
        format!("v{version}"),
        device.0.clone(),
        params.client.id.clone(),
        params.client.mode.clone(),
        params.role.clone().unwrap_or_else(|| "operator".into()),
        params.scopes.join(","),
        signed_at.to_string(),
        token.to_owned(),
        nonce.to_owned(),
    ];
    if version >= 3 {
        fields.push(lower(Some(&params.client.platform)));
        fields.push(lower(params.client.device_family.as_deref()));
    }
    fields.join("|")
}

/// The parts of `hello-ok` that differ from connection to connection.
pub(crate) struct HelloParts {
    pub(crate) conn_id: String,
    pub(crate) boot_id: String,
    pub(crate) role: Role,
    pub(crate) scopes: ScopeSet,
    pub(crate) method: &'static str,
    /// A paired device's own token, and when it was made.
    pub(crate) device_token: Option<(Secret<String>, u64)>,
    pub(crate) presence: Value,
    pub(crate) health: Value,
    pub(crate) uptime_ms: u64,
}

/// The answer to a `connect` that succeeded.
pub(crate) struct HelloOk;

impl HelloOk {
    /// The whole response to `connect` as text, protocol section 2.4.
    pub(crate) fn response(id: &str, parts: &HelloParts) -> String {
        // What is the same for everybody is rendered once.
        static FEATURES: LazyLock<Box<RawValue>> = LazyLock::new(|| {
            let features = json!({"methods": super::METHODS, "events": super::EVENTS, "capabilities": []});
            serde_json::value::to_raw_value(&features).unwrap_or_default()
        });
        let payload = Payload {
            r#type: "hello-ok",
            protocol: super::PROTOCOL,
            server: Server { version: env!("CARGO_PKG_VERSION"), conn_id: &parts.conn_id, boot_id: &parts.boot_id },
            features: &FEATURES,
            snapshot: Snapshot {
                presence: &parts.presence,
                health: &parts.health,
                state_version: StateVersion { presence: 0, health: 0 },
                uptime_ms: parts.uptime_ms,
            },
            auth: Auth {
                role: parts.role.as_str(),
                scopes: parts.scopes.names(),
                method: parts.method,
                device_token: parts.device_token.as_ref().map(|(token, _)| token.expose().as_str()),
                issued_at_ms: parts.device_token.as_ref().map(|(_, issued)| *issued),
            },
            policy: Policy {
                max_payload: super::MAX_FRAME,
                max_buffered_bytes: super::MAX_BUFFERED,
                tick_interval_ms: super::TICK_MS,
            },
        };
        serde_json::to_string(&Response { r#type: "res", id, ok: true, payload }).unwrap_or_default()
    }
}

#[derive(Serialize)]
struct Response<'a> {
    r#type: &'static str,
    id: &'a str,
    ok: bool,
    payload: Payload<'a>,
}

#[derive(Serialize)]
struct Payload<'a> {
    r#type: &'static str,
    protocol: u32,
    server: Server<'a>,
    features: &'a RawValue,
    snapshot: Snapshot<'a>,
    auth: Auth<'a>,
    policy: Policy,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Server<'a> {
    version: &'static str,
    conn_id: &'a str,
    boot_id: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Snapshot<'a> {
    presence: &'a Value,
    health: &'a Value,
    state_version: StateVersion,
    uptime_ms: u64,
}

#[derive(Serialize)]
struct StateVersion {
    presence: u64,
    health: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Auth<'a> {
    role: &'static str,
    scopes: Vec<&'static str>,
    method: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    device_token: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    issued_at_ms: Option<u64>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Policy {
    max_payload: usize,
    max_buffered_bytes: usize,
    tick_interval_ms: u64,
}

/// Reads a map and refuses a key that comes twice; serde_json alone would keep the last.
pub(super) fn unique_keys<'de, D, V>(deserializer: D) -> Result<Option<BTreeMap<String, V>>, D::Error>
where
    D: serde::Deserializer<'de>,
    V: Deserialize<'de>,
{
    struct Visitor<V>(std::marker::PhantomData<V>);
    impl<'de, V: Deserialize<'de>> serde::de::Visitor<'de> for Visitor<V> {
        type Value = BTreeMap<String, V>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a map")
        }

        fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut found = BTreeMap::new();
            while let Some((key, value)) = map.next_entry::<String, V>()? {
                if found.insert(key, value).is_some() {
                    return Err(serde::de::Error::custom("duplicate key in a map"));
                }
            }
            Ok(found)
        }
    }
    deserializer.deserialize_map(Visitor(std::marker::PhantomData)).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(text: &str) -> ConnectParams {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn the_signed_payload_is_the_one_of_the_original_client() {
        let connect = params(
            r#"{"minProtocol":4,"maxProtocol":4,"role":"operator","scopes":["operator.read","operator.admin"],
                "client":{"id":"cli","version":"1","platform":" Linux ","mode":"cli","deviceFamily":"Linux"},
                "auth":{"token":"T","password":"never"}}"#,
        );
        let device = DeviceId("ab".into());
        assert_eq!(
            signed_payload(3, &connect, &device, 17, "N"),
            "v3|ab|cli|cli|operator|operator.read,operator.admin|17|T|N|linux|linux"
        );
        assert_eq!(
            signed_payload(2, &connect, &device, 17, "N"),
            "v2|ab|cli|cli|operator|operator.read,operator.admin|17|T|N"
        );
    }

    #[test]
    fn an_unknown_client_field_or_duplicate_permission_is_refused() {
        let read = |text: &str| {
            let raw = serde_json::value::RawValue::from_string(text.to_owned()).unwrap();
            ConnectParams::read(Some(&raw))
        };
        let client = r#""client":{"id":"cli","version":"1","platform":"linux","mode":"cli"}"#;
        assert!(read(&format!(r#"{{"minProtocol":4,"maxProtocol":4,{client}}}"#)).is_ok());
        for bad in [
            format!(r#"{{"minProtocol":4,"maxProtocol":4,{client},"x":1}}"#),
            format!(r#"{{"minProtocol":4,"maxProtocol":4,{client},"permissions":{{"a":true,"a":false}}}}"#),
            format!(r#"{{"minProtocol":0,"maxProtocol":4,{client}}}"#),
            format!(r#"{{"minProtocol":4,"minProtocol":4,"maxProtocol":4,{client}}}"#),
            r#"{"minProtocol":4,"maxProtocol":4,"client":{"id":"zzz","version":"1","platform":"l","mode":"cli"}}"#
                .into(),
            r#"{"minProtocol":4,"maxProtocol":4}"#.into(),
        ] {
            assert!(read(&bad).is_err(), "{bad}");
        }
    }
}
