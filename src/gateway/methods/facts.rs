//! What the gateway tells of itself: health, status, identity. Shapes as the original's clients read them.

use crate::crypto;
use crate::gateway::Gateway;
use crate::model::Backend;
use serde_json::{Value, json};

/// `health`: anybody who is let in may ask, so it says nothing about the host.
pub(super) fn health(gateway: &Gateway) -> Value {
    json!({
        "ok": gateway.failing().is_empty(),
        "ts": gateway.parts.clock.now(),
        "durationMs": 0,
        "channels": {}, "channelOrder": [], "channelLabels": {},
        "heartbeatSeconds": 0,
        "defaultAgentId": "main",
        "agents": [],
        "sessions": {"path": "", "count": 0, "recent": []},
        "failing": gateway.failing(),
    })
}

/// `status`: for readers.
pub(super) fn status(gateway: &Gateway) -> Value {
    let runner = |of: Backend| {
        let states = gateway.parts.runners.states();
        let state = states.into_iter().find_map(|(backend, state)| (backend == of).then_some(state))?;
        Some(json!({
            "connected": state.connected, "pid": state.pid, "unable": state.unable, "losses": state.losses,
        }))
    };
    let facts = &gateway.parts.facts;
    json!({
        "runtimeVersion": env!("CARGO_PKG_VERSION"),
        "pid": facts.pid,
        "confinement": {"landlockAbi": facts.landlock_abi, "weaker": facts.weaker},
        "uptimeMs": gateway.uptime_ms(),
        "host": facts.host,
        "addresses": facts.addresses,
        "stateDir": facts.state_dir,
        "configPath": facts.config_path,
        "authMode": facts.auth_mode,
        "tls": gateway.fingerprint().map(|fingerprint| json!({"fingerprint": fingerprint})),
        "devices": gateway.registry().count(),
        "connections": gateway.hub.count(),
        "runs": gateway.running(),
        "runner": runner(Backend::Native),
        "dockerRunner": runner(Backend::Docker),
        "state": {"key": super::secrets::key_json(&gateway.parts.secrets.store().key_facts())},
        "journal": {"journald": gateway.parts.journal.has_journald()},
        "processMemory": {"rss": (gateway.parts.resident_bytes)()},
        "channelSummary": [], "queuedSystemEvents": [],
        "heartbeat": {"defaultAgentId": "main", "agents": []},
        "sessions": {"paths": [], "count": 0, "defaults": {}, "recent": [], "byAgent": []},
    })
}

/// `gateway.identity.get`.
pub(super) fn identity(gateway: &Gateway) -> Value {
    let key = gateway.parts.identity.public();
    json!({"deviceId": crypto::hex(&crypto::sha256(&[&key])), "publicKey": crypto::base64url(&key)})
}

/// `config.get`: where the configuration is. Its content is the operator's, who has the file.
pub(super) fn config(gateway: &Gateway) -> Value {
    let path = &gateway.parts.facts.config_path;
    json!({
        "path": path, "exists": path.is_some(), "valid": true, "config": {}, "parsed": {}, "resolved": {},
        "includedPaths": [], "issues": [], "warnings": [], "legacyIssues": [],
    })
}
