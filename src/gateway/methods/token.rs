//! The shared token and the password: shown to operators on the unix socket, replaced on their word.

use crate::auth::{Session, is_sound_hash};
use crate::gateway::Gateway;
use crate::gateway::reply::Answer;
use crate::journal::Receipt;
use crate::model::Credential;
use crate::wire::{Close, ErrorCode, ErrorShape, close};
use serde_json::json;

/// `token.show`.
pub(super) fn show(gateway: &Gateway, _receipt: Receipt) -> Answer {
    let token = gateway.parts.token.show().map_err(fault)?;
    Ok(json!({"token": token.expose()}))
}

/// `token.rotate`: the old token opens nothing from here on, and whoever came in by it is sent out.
pub(super) fn rotate(gateway: &Gateway, session: &Session, _receipt: Receipt) -> Answer {
    let token = gateway.parts.token.rotate().map_err(fault)?;
    gateway.parts.secrets.refresh().map_err(|e| fault(e.to_string()))?;
    gateway.parts.gatekeeper.replace_token(&token);
    close_shared(gateway, session, &Credential::SharedToken);
    Ok(json!({"token": token.expose()}))
}

/// `password.set`: the old password opens nothing from here on, and whoever came in by it is sent out.
pub(super) async fn set_password(gateway: &Gateway, session: &Session, hash: String, _receipt: Receipt) -> Answer {
    if !is_sound_hash(&hash) {
        return Err(ErrorShape::new(ErrorCode::InvalidRequest, "this is no bcrypt hash of cost 12 to 16"));
    }
    gateway.parts.token.set_password(&hash).map_err(fault)?;
    gateway.parts.gatekeeper.replace_password(hash);
    close_shared(gateway, session, &Credential::Password);
    Ok(json!({"ok": true}))
}

fn close_shared(gateway: &Gateway, session: &Session, credential: &Credential) {
    let changed = Close::new(close::AUTH_CHANGED, "gateway auth changed");
    gateway.close_where(&changed, |other| other.principal.credential == *credential && other.conn != session.conn);
}

fn fault(cause: String) -> ErrorShape {
    tracing::error!(error = %cause, "the secret cannot be read or written");
    ErrorShape::new(ErrorCode::Unavailable, "the secret cannot be read or written").details(
        json!({"code": "STORE_UNAVAILABLE", "hint": "look at the gateway's log and the rights of its state folder"}),
    )
}
