//! Reading the journal over the wire: list, follow, verify.

use crate::auth::Session;
use crate::gateway::Gateway;
use crate::gateway::reply::Answer;
use crate::journal::{Entry, rfc3339};
use crate::model::JournalQuery;
use crate::wire::{ErrorCode, ErrorShape};
use serde_json::{Value, json};

/// `journal.list`: the latest entries, and with `follow` all new ones as events.
pub(super) async fn list(gateway: &Gateway, session: &Session, query: JournalQuery) -> Answer {
    // Followed before it is read: an entry written in between comes twice rather than never.
    if query.follow {
        gateway.hub.follow_journal(session.conn);
    }
    let journal = gateway.parts.journal.clone();
    let entries = tokio::task::spawn_blocking(move || journal.list(&query)).await;
    match entries {
        Ok(Ok(entries)) => Ok(json!({"entries": entries.iter().map(entry_json).collect::<Vec<_>>()})),
        Ok(Err(error)) => Err(unreadable(&error.to_string())),
        Err(error) => Err(unreadable(&error.to_string())),
    }
}

/// `journal.verify`: walks the whole chain.
pub(super) async fn verify(gateway: &Gateway) -> Answer {
    let journal = gateway.parts.journal.clone();
    match tokio::task::spawn_blocking(move || journal.verify()).await {
        Ok(Ok(count)) => Ok(json!({"ok": true, "entries": count})),
        Ok(Err(broken)) => Ok(json!({"ok": false, "place": broken.place, "why": broken.why})),
        Err(error) => Err(unreadable(&error.to_string())),
    }
}

fn unreadable(cause: &str) -> ErrorShape {
    tracing::error!(error = cause, "the journal cannot be read");
    ErrorShape::new(ErrorCode::Unavailable, "the journal cannot be read")
        .details(json!({"code": "JOURNAL_UNAVAILABLE"}))
}

/// An entry as clients see it.
pub(in crate::gateway) fn entry_json(entry: &Entry) -> Value {
    let mut value = serde_json::to_value(&entry.record).unwrap_or_default();
    value["seq"] = json!(entry.seq);
    value["ts"] = json!(entry.ts);
    value["time"] = json!(rfc3339(entry.ts));
    value["hash"] = json!(entry.hash);
    value
}
