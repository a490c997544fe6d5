//! `config.reload`: has the configuration read again. What is read, and whether it is taken, is the composition root's to say.

use crate::auth::Session;
use crate::gateway::reply::Answer;
use crate::gateway::{Gateway, Reload};
use crate::wire::{ErrorCode, ErrorShape};
use serde_json::json;
use tokio::sync::oneshot;

/// Answers once the new configuration is in force, or the old one stays.
pub(super) async fn reload(gateway: &Gateway, session: &Session) -> Answer {
    let (answer, answered) = oneshot::channel();
    let asked = gateway.parts.reloads.send(Reload { asker: session.conn, answer }).await;
    match (asked, answered.await) {
        (Ok(()), Ok(Ok(waiting))) => Ok(json!({"ok": true, "needsRestart": waiting})),
        (Ok(()), Ok(Err(why))) => {
            let message = format!("the new configuration was not taken: {why}");
            Err(ErrorShape::new(ErrorCode::InvalidRequest, message).details(json!({
                "code": "CONFIG_REFUSED",
                "hint": "what was in force stays; `vambrace config check` shows a mistake in its place",
            })))
        }
        _ => Err(ErrorShape::new(ErrorCode::Unavailable, "the gateway is stopping").retry()),
    }
}
