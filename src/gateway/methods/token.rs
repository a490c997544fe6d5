//! The shared token: shown to operators on the unix socket, replaced on their word.

use crate::auth::Session;
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
    gateway.parts.gatekeeper.replace_token(&token);
    let changed = Close::new(close::AUTH_CHANGED, "gateway auth changed");
    gateway.hub.close_all(&changed, |other| {
        other.principal.credential == Credential::SharedToken && other.conn != session.conn
    });
    Ok(json!({"token": token.expose()}))
}

fn fault(cause: String) -> ErrorShape {
    tracing::error!(error = %cause, "the token cannot be read or written");
    ErrorShape::new(ErrorCode::Unavailable, "the token cannot be read or written").details(
        json!({"code": "STORE_UNAVAILABLE", "hint": "look at the gateway's log and the rights of its state folder"}),
    )
}
