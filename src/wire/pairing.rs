//! Parameters of `device.*` and `node.*`: what would widen a pairing by a slip is refused.

use super::frame::Frame;
use super::methods::{Invalid, Nothing, read};
use crate::model::{AgentId, DeviceId, Invitation, NodeAction, PairingAction, RequestId, Role, Scope, ScopeSet};
use serde::Deserialize;

/// `device.*`: who is paired, and with which token.
pub(super) fn pairing(method: &str, frame: &Frame) -> Result<Option<Result<PairingAction, String>>, Invalid> {
    Ok(Some(match method {
        "device.pair.list" => read::<Nothing>(frame).map(|Nothing {}| Ok(PairingAction::List))?,
        "device.pair.approve" => {
            let params: ApproveParams = read(frame)?;
            approve(params)
        }
        "device.pair.reject" => request_id(read(frame)?).map(|request| PairingAction::Reject { request }),
        "device.pair.remove" => device_id(&read::<DeviceParams>(frame)?.device_id, "deviceId")
            .map(|device| PairingAction::Remove { device }),
        "device.pair.rename" => {
            let params: RenameParams = read(frame)?;
            device_id(&params.device_id, "deviceId")
                .and_then(|device| Ok(PairingAction::Rename { device, label: name(&params.label, "label")? }))
        }
        "device.pair.setupCode" => invitation(read(frame)?).map(PairingAction::Invite),
        "device.pair.setupStatus" => {
            let setup = read::<SetupStatusParams>(frame)?.setup_id;
            short(&setup, "setupId").map(|()| PairingAction::InviteStatus { setup: RequestId::claimed(&setup) })
        }
        "device.token.rotate" => {
            let params: RotateParams = read(frame)?;
            role(&params.role).and_then(|role| {
                let device = device_id(&params.device_id, "deviceId")?;
                Ok(PairingAction::Rotate { device, role, scopes: params.scopes.map(|s| scopes(&s)).transpose()? })
            })
        }
        "device.token.revoke" => {
            let params: RevokeParams = read(frame)?;
            role(&params.role)
                .and_then(|role| Ok(PairingAction::Revoke { device: device_id(&params.device_id, "deviceId")?, role }))
        }
        _ => return Ok(None),
    }))
}

/// `node.*`: which nodes there are, and what they may offer.
pub(super) fn nodes(method: &str, frame: &Frame) -> Result<Option<Result<NodeAction, String>>, Invalid> {
    let node = |frame: &Frame| Ok::<_, Invalid>(device_id(&read::<NodeParams>(frame)?.node_id, "nodeId"));
    Ok(Some(match method {
        "node.pair.list" => read::<Nothing>(frame).map(|Nothing {}| Ok(NodeAction::PairList))?,
        "node.list" => read::<Nothing>(frame).map(|Nothing {}| Ok(NodeAction::List))?,
        "node.pair.approve" => request_id(read(frame)?).map(|request| NodeAction::Approve { request }),
        "node.pair.reject" => request_id(read(frame)?).map(|request| NodeAction::Reject { request }),
        "node.pair.remove" => node(frame)?.map(|node| NodeAction::Remove { node }),
        "node.describe" => node(frame)?.map(|node| NodeAction::Describe { node }),
        "node.rename" => {
            let params: NodeRenameParams = read(frame)?;
            device_id(&params.node_id, "nodeId")
                .and_then(|node| Ok(NodeAction::Rename { node, name: name(&params.display_name, "displayName")? }))
        }
        _ => return Ok(None),
    }))
}

fn approve(params: ApproveParams) -> Result<PairingAction, String> {
    short(&params.request_id, "requestId")?;
    Ok(PairingAction::Approve {
        request: RequestId::claimed(&params.request_id),
        scopes: params.scopes.map(|s| scopes(&s)).transpose()?,
        agent: params.agent.map(|a| AgentId::parse(&a)).transpose().map_err(|e| format!("at agent: {e}"))?,
    })
}

/// What a setup code is to grant: the original's profiles, or our own words for it.
fn invitation(params: SetupCodeParams) -> Result<Invitation, String> {
    let _ = (params.prefer_remote_url, params.include_qr, params.join_url);
    let agent = params.agent.map(|a| AgentId::parse(&a)).transpose().map_err(|e| format!("at agent: {e}"))?;
    let role = match (params.role.as_deref(), params.bootstrap_profile.as_deref()) {
        (Some(text), None) => role(text)?,
        (None, Some("node")) => Role::Node,
        (None, Some("limited") | None) => Role::Operator,
        (None, Some(_)) => return Err("at bootstrapProfile: only \"limited\" and \"node\" are known".into()),
        (Some(_), Some(_)) => return Err("at role: either role or bootstrapProfile".into()),
    };
    let granted = match (params.scopes, &agent, role) {
        (Some(_), _, Role::Node) => return Err("at scopes: a node has none".into()),
        (Some(names), None, _) => scopes(&names)?,
        (Some(_), Some(_), _) => return Err("at scopes: an agent's are its own".into()),
        (None, Some(_), Role::Operator) => [Scope::AgentExec, Scope::AgentFiles].into_iter().collect(),
        (None, Some(_), Role::Node) => return Err("at agent: a node is no agent".into()),
        (None, None, Role::Operator) => [Scope::Read].into_iter().collect(),
        (None, None, Role::Node) => ScopeSet::EMPTY,
    };
    if agent.is_none() && granted.iter().any(|s| matches!(s, Scope::AgentExec | Scope::AgentFiles)) {
        return Err("at scopes: an agent's scopes go with the agent's name".into());
    }
    if params.public_url.as_ref().is_some_and(|url| url.len() > 512 || !is_ws_url(url)) {
        return Err("at publicUrl: must be ws:// or wss:// with a host, and nothing secret in it".into());
    }
    Ok(Invitation { url: params.public_url, role, scopes: granted, agent })
}

fn is_ws_url(url: &str) -> bool {
    let rest = url.strip_prefix("wss://").or_else(|| url.strip_prefix("ws://"));
    rest.is_some_and(|rest| {
        let host = rest.split('/').next().unwrap_or("");
        !host.is_empty()
            && !rest.contains(['@', '?', '#'])
            && rest.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'"' | b'<' | b'>' | b'\\'))
    })
}

fn request_id(params: RequestParams) -> Result<RequestId, String> {
    short(&params.request_id, "requestId").map(|()| RequestId::claimed(&params.request_id))
}

fn device_id(text: &str, path: &str) -> Result<DeviceId, String> {
    short(text, path).map(|()| DeviceId(text.to_owned()))
}

fn short(text: &str, path: &str) -> Result<(), String> {
    if (1..=128).contains(&text.len()) { Ok(()) } else { Err(format!("at {path}: must have 1 to 128 bytes")) }
}

fn role(text: &str) -> Result<Role, String> {
    Role::parse(text).ok_or_else(|| "at role: must be \"operator\" or \"node\"".into())
}

fn scopes(names: &[String]) -> Result<ScopeSet, String> {
    let known = |name: &String| Scope::parse(name).ok_or_else(|| "at scopes: there is no such scope".to_owned());
    names.iter().map(known).collect()
}

/// A name that a person gave: trimmed, 1 to 64 characters, none that steers a terminal.
fn name(text: &str, path: &str) -> Result<String, String> {
    let name = text.trim();
    if name.is_empty() || name.chars().count() > 64 || name.chars().any(char::is_control) {
        return Err(format!("at {path}: must have 1 to 64 characters, none of them a control character"));
    }
    Ok(name.to_owned())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RequestParams {
    request_id: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct ApproveParams {
    request_id: String,
    /// Ours: grant only these of the scopes asked for.
    #[serde(default)]
    scopes: Option<Vec<String>>,
    /// Ours: the one agent that the device is.
    #[serde(default)]
    agent: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct DeviceParams {
    device_id: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RenameParams {
    device_id: String,
    label: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RotateParams {
    device_id: String,
    role: String,
    #[serde(default)]
    scopes: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RevokeParams {
    device_id: String,
    role: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct SetupCodeParams {
    #[serde(default)]
    public_url: Option<String>,
    #[serde(default)]
    prefer_remote_url: Option<bool>,
    #[serde(default)]
    include_qr: Option<bool>,
    #[serde(default)]
    join_url: Option<String>,
    #[serde(default)]
    bootstrap_profile: Option<String>,
    /// Ours: role, scopes and agent in so many words.
    #[serde(default)]
    role: Option<String>,
    #[serde(default)]
    scopes: Option<Vec<String>>,
    #[serde(default)]
    agent: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct SetupStatusParams {
    setup_id: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct NodeParams {
    node_id: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct NodeRenameParams {
    node_id: String,
    display_name: String,
}
