//! The shared token and the password: shown to operators on the unix socket, replaced on their word.

use crate::auth::{Session, is_sound_hash};
use crate::gateway::reply::Answer;
use crate::gateway::{Gateway, TokenKeeper};
use crate::journal::Receipt;
use crate::model::Credential;
use crate::wire::{Close, ErrorCode, ErrorShape, close};
use serde_json::json;
use std::sync::Arc;

/// `token.show`.
pub(super) async fn show(gateway: &Gateway, _receipt: Receipt) -> Answer {
    let token = off_thread(gateway, |keeper| keeper.show()).await?;
    Ok(json!({"token": token.expose()}))
}

/// `token.rotate`: the old token opens nothing from here on, and whoever came in by it is sent out.
pub(super) async fn rotate(gateway: &Gateway, session: &Session, _receipt: Receipt) -> Answer {
    let _alone = gateway.credentials.lock().await;
    let token = off_thread(gateway, |keeper| keeper.rotate()).await?;
    gateway.parts.gatekeeper.replace_token(&token);
    close_shared(gateway, session, &Credential::SharedToken);
    let secrets = Arc::clone(&gateway.parts.secrets);
    let _ = tokio::task::spawn_blocking(move || secrets.token_was_replaced()).await;
    Ok(json!({"token": token.expose()}))
}

/// `password.set`: the old password opens nothing from here on, and whoever came in by it is sent out.
pub(super) async fn set_password(gateway: &Gateway, session: &Session, hash: String, _receipt: Receipt) -> Answer {
    if !is_sound_hash(&hash) {
        return Err(ErrorShape::new(ErrorCode::InvalidRequest, "this is no bcrypt hash of cost 12 to 16"));
    }
    let _alone = gateway.credentials.lock().await;
    let kept = hash.clone();
    off_thread(gateway, move |keeper| keeper.set_password(&kept)).await?;
    gateway.parts.gatekeeper.replace_password(hash);
    close_shared(gateway, session, &Credential::Password);
    Ok(json!({"ok": true}))
}

/// Asks the keeper where waiting for the disk holds up nobody.
async fn off_thread<T: Send + 'static>(
    gateway: &Gateway,
    ask: impl FnOnce(&dyn TokenKeeper) -> Result<T, String> + Send + 'static,
) -> Result<T, ErrorShape> {
    let keeper = Arc::clone(&gateway.parts.token);
    let asked = tokio::task::spawn_blocking(move || ask(&*keeper)).await;
    asked.unwrap_or_else(|error| Err(error.to_string())).map_err(fault)
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
