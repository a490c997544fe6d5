//! A device under the tests' control: its key, its signature, its way of connecting.

use crate::world::*;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signer, SigningKey};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

pub struct Device(SigningKey);

pub fn now() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64
}

impl Device {
    pub fn new(seed: u8) -> Self {
        Device(SigningKey::from_bytes(&[seed; 32]))
    }

    pub fn id(&self) -> String {
        Sha256::digest(self.0.verifying_key().to_bytes()).iter().map(|b| format!("{b:02x}")).collect()
    }

    /// The parameters of an operator's command line that asks to read, signed for this nonce.
    pub fn params(&self, nonce: &str, token: &str, at: i64) -> Value {
        let mut params = json!({"scopes": ["operator.read"], "auth": {"token": token}});
        self.sign(&mut params, nonce, at);
        params
    }

    /// Adds the device with its signature to parameters; what they lack is an operator's command line.
    pub fn sign(&self, params: &mut Value, nonce: &str, at: i64) {
        let text = |value: &Value, or: &str| value.as_str().unwrap_or(or).to_owned();
        let key = self.0.verifying_key().to_bytes();
        let (client, auth) = (&params["client"], &params["auth"]);
        let scopes: Vec<&str> = params["scopes"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let token =
            ["token", "deviceToken", "bootstrapToken"].iter().find_map(|name| auth[*name].as_str()).unwrap_or("");
        let payload = format!(
            "v3|{}|{}|{}|{}|{}|{at}|{token}|{nonce}|linux|",
            self.id(),
            text(&client["id"], "cli"),
            text(&client["mode"], "cli"),
            text(&params["role"], "operator"),
            scopes.join(","),
        );
        params["device"] = json!({
            "id": self.id(), "publicKey": URL_SAFE_NO_PAD.encode(key), "signedAt": at, "nonce": nonce,
            "signature": URL_SAFE_NO_PAD.encode(self.0.sign(payload.as_bytes()).to_bytes()),
        });
    }

    /// Connects with these scopes and this `auth`; gives the connection and the answer.
    pub fn connect(&self, world: &World, scopes: &[&str], auth: Value) -> (Ws, Value) {
        self.connect_as(world, json!({"scopes": scopes, "auth": auth}))
    }

    /// Connects as a node that declares these commands.
    pub fn connect_node(&self, world: &World, commands: &[&str], auth: Value) -> (Ws, Value) {
        self.connect_as(
            world,
            json!({
                "role": "node", "scopes": [], "auth": auth, "caps": ["system"], "commands": commands,
                "client": {"id": "node-host", "mode": "node", "version": "1", "platform": "linux", "displayName": "n"},
            }),
        )
    }

    pub fn connect_as(&self, world: &World, mut over: Value) -> (Ws, Value) {
        let mut ws = world.socket();
        let nonce = ws.challenge();
        self.sign(&mut over, &nonce, now());
        let answer = connect_with(&mut ws, "", over);
        (ws, answer)
    }
}

/// Sends `connect` after the challenge was read; `over` replaces parameters.
pub fn connect_with<S: std::io::Read + std::io::Write>(ws: &mut Ws<S>, token: &str, over: Value) -> Value {
    let mut params = json!({
        "minProtocol": 4, "maxProtocol": 4, "role": "operator", "scopes": [],
        "client": {"id": "cli", "mode": "cli", "version": "1", "platform": "linux"}, "auth": {"token": token},
    });
    for (key, value) in over.as_object().unwrap() {
        params[key] = value.clone();
    }
    ws.call("connect", params)
}

/// The stable code of a refusal; "let in" where there is none.
pub fn code(answer: &Value) -> &str {
    if answer["ok"] == true { "let in" } else { answer["error"]["details"]["code"].as_str().unwrap_or("none") }
}

/// The device token of a greeting.
pub fn device_token(answer: &Value) -> Value {
    assert!(answer["payload"]["auth"]["deviceToken"].is_string(), "{answer}");
    json!({"deviceToken": answer["payload"]["auth"]["deviceToken"]})
}
