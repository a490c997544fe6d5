//! `node.*`: which nodes there are, what they declare and what of it is enabled.

use super::Done;
use crate::auth::{PairingFault, Registry, Session};
use crate::gateway::Gateway;
use crate::gateway::reply::{self, Answer};
use crate::journal::{Event, Receipt, Record};
use crate::model::{DeviceId, NodeAction, Principal, RequestId, Role, Scope, needed_to_enable};
use crate::store::{DeviceRecord, NodeRecord, NodeRequest};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;

/// `node.pair.list`, `node.list`, `node.describe`.
pub(super) fn tell(gateway: &Gateway, session: &Session, action: &NodeAction) -> Answer {
    let registry = gateway.registry();
    let now = gateway.parts.clock.now();
    match action {
        NodeAction::PairList => {
            let (waiting, approved) = registry.surfaces();
            let own = session.principal.manages_itself_alone().then(|| session.principal.device.clone()).flatten();
            let mine = |node: &DeviceId| own.as_ref().is_none_or(|own| own == node);
            let pending: Vec<Value> = waiting.iter().filter(|r| mine(&r.node)).map(pending_json).collect();
            let paired: Vec<Value> = approved.iter().filter(|n| mine(&n.id)).map(approved_json).collect();
            Ok(json!({"pending": pending, "paired": paired}))
        }
        NodeAction::Describe { node } => {
            let device = registry.device(node).filter(|device| is_node(device));
            let device = device.ok_or_else(|| reply::pairing_fault(&PairingFault::UnknownNode))?;
            let mut value = node_json(gateway, session, &device, &gateway.hub.nodes());
            value["ts"] = json!(now);
            Ok(value)
        }
        _ => {
            let (_, devices) = registry.list();
            let live = gateway.hub.nodes();
            let nodes: Vec<Value> = devices
                .iter()
                .filter(|d| is_node(d))
                .map(|device| node_json(gateway, session, device, &live))
                .collect();
            Ok(json!({"ts": now, "nodes": nodes}))
        }
    }
}

/// Every other `node.*` method.
pub(super) async fn change(gateway: &Gateway, session: &Session, action: NodeAction, _receipt: Receipt) -> Done {
    let registry = Arc::clone(gateway.registry());
    let principal = session.principal.clone();
    let wanted = action.clone();
    match tokio::task::spawn_blocking(move || apply(&registry, &principal, &wanted)).await {
        Ok(Ok(answer)) => Done { answer: Ok(answer), record: None },
        Ok(Err(fault)) => {
            let record = Record::new(Event::ChangeRefused)
                .by(&session.principal, &session.peer.label())
                .about(&target(&action))
                .error(&fault.to_string());
            Done { answer: Err(reply::pairing_fault(&fault)), record: Some(record) }
        }
        Err(_) => Err(super::pairing::broken()).into(),
    }
}

fn apply(registry: &Registry, by: &Principal, action: &NodeAction) -> Result<Value, PairingFault> {
    Ok(match action {
        NodeAction::Approve { request } => {
            let node = registry.approve_node(by, request)?;
            json!({"requestId": request.as_str(), "node": approved_json(&node)})
        }
        NodeAction::Reject { request } => {
            let node = registry.reject_node(by, request)?;
            json!({"requestId": request.as_str(), "nodeId": node.0})
        }
        NodeAction::Remove { node } => {
            registry.remove_node(by, node)?;
            json!({"nodeId": node.0})
        }
        NodeAction::Rename { node, name } => {
            registry.rename_node(by, node, name)?;
            json!({"nodeId": node.0, "displayName": name})
        }
        NodeAction::PairList | NodeAction::List | NodeAction::Describe { .. } => json!({}),
    })
}

/// What an action is done to, for its record.
pub(in crate::gateway) fn target(action: &NodeAction) -> String {
    match action {
        NodeAction::Approve { request } | NodeAction::Reject { request } => RequestId::as_str(request).to_owned(),
        NodeAction::Remove { node } | NodeAction::Rename { node, .. } | NodeAction::Describe { node } => {
            DeviceId::clone(node).0
        }
        NodeAction::PairList | NodeAction::List => String::new(),
    }
}

/// The event of an action's record.
pub(in crate::gateway) fn event(action: &NodeAction) -> Event {
    match action {
        NodeAction::Approve { .. } => Event::NodeApproved,
        NodeAction::Reject { .. } => Event::NodeRejected,
        NodeAction::Remove { .. } => Event::NodeRemoved,
        _ => Event::NodeRenamed,
    }
}

fn is_node(device: &DeviceRecord) -> bool {
    device.tokens.iter().any(|t| t.role == Role::Node && t.revoked.is_none())
}

/// A declared surface that waits, as clients see it.
pub(in crate::gateway) fn pending_json(request: &NodeRequest) -> Value {
    let client = &request.client;
    json!({
        "requestId": request.id.as_str(), "nodeId": request.node.0, "clientId": client.id, "clientMode": client.mode,
        "displayName": client.display_name, "platform": client.platform, "version": client.version,
        "deviceFamily": client.device_family, "caps": request.caps, "commands": request.commands,
        "requiredApproveScopes": needed_to_enable(&request.commands).names(), "ts": request.created,
    })
}

fn approved_json(node: &NodeRecord) -> Value {
    let client = &node.client;
    json!({
        "nodeId": node.id.0, "displayName": node.name.as_ref().or(client.display_name.as_ref()),
        "platform": client.platform, "version": client.version, "deviceFamily": client.device_family,
        "caps": node.caps, "commands": node.commands, "approvedAtMs": node.approved,
    })
}

fn node_json(
    gateway: &Gateway,
    session: &Session,
    device: &DeviceRecord,
    live: &HashMap<DeviceId, Arc<Session>>,
) -> Value {
    let registry = gateway.registry();
    let (approved, waiting) = registry.surface(&device.id);
    let live = live.get(&device.id);
    let (last_seen, _) = registry.last_seen(device);
    let client = &device.client;
    // What is enabled and, while it is connected, declared as well.
    let enabled = |names: &[String], declared: Option<&Vec<String>>| -> Vec<String> {
        names.iter().filter(|name| declared.is_none_or(|declared| declared.contains(name))).cloned().collect()
    };
    let declared = live.and_then(|session| session.surface.as_ref());
    let commands = approved.as_ref().map_or_else(Vec::new, |a| enabled(&a.commands, declared.map(|d| &d.commands)));
    let caps = approved.as_ref().map_or_else(Vec::new, |a| enabled(&a.caps, declared.map(|d| &d.caps)));
    let state = match (&approved, &waiting) {
        (Some(_), None) => "approved",
        (Some(_), Some(_)) => "pending-reapproval",
        (None, Some(_)) => "pending-approval",
        (None, None) => "unapproved",
    };
    let name = approved.as_ref().and_then(|a| a.name.clone()).or_else(|| device.label.clone());
    let mut value = json!({
        "nodeId": device.id.0, "displayName": name.or_else(|| client.display_name.clone()),
        "platform": client.platform, "version": client.version, "clientId": client.id, "clientMode": client.mode,
        "deviceFamily": client.device_family, "caps": caps, "commands": commands, "nodePluginTools": [],
        "approvalState": state, "paired": true, "connected": live.is_some(), "approvedAtMs": device.approved,
    });
    if let Some(session) = live {
        value["connectedAtMs"] = json!(session.since);
    }
    if let Some(at) = last_seen {
        (value["lastSeenAtMs"], value["lastConnectedAtMs"]) = (json!(at), json!(at));
    }
    if session.principal.scopes.covers(Scope::Pairing)
        && let Some(waiting) = waiting
    {
        value["pendingRequestId"] = json!(waiting.id.as_str());
    }
    value
}
