//! One request without a connection: its events are collected and come with its answer.

use super::connection::Place;
use super::outbox::{Outgoing, outbox};
use super::{Gateway, pipeline, reply};
use crate::auth::{Refusal, Session};
use crate::model::ConnId;
use crate::wire::{ErrorCode, ErrorShape, Frame};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::sync::{Arc, PoisonError};

/// Bytes of events that one answer carries; a command that writes more is ended.
const MOST_EVENTS: usize = 32 << 20;

/// An answer in full.
pub(crate) struct Called {
    /// `{ok, payload, events}` or `{ok, error, events}`.
    pub(crate) body: Value,
    /// The error's top-level code, as the wire spells it.
    pub(crate) error_code: Option<&'static str>,
}

/// Whoever asked is gone, or has their answer: what was started for them ends.
struct Guard<'a>(&'a Gateway, ConnId);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.0.calls.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.1);
        self.0.cancel_runs_of(self.1);
    }
}

/// Answers one request of a session that has no connection. `params` is JSON, or nothing.
pub(crate) async fn call(gateway: &Arc<Gateway>, session: Session, method: &str, params: &str) -> Called {
    let params = match params.trim() {
        "" => None,
        text => match RawValue::from_string(text.to_owned()) {
            Ok(raw) => Some(raw),
            Err(_) => return failed(ErrorShape::new(ErrorCode::InvalidRequest, "the body is not JSON"), Vec::new()),
        },
    };
    let pending = Arc::default();
    let Some(_place) = Place::take(gateway, &pending, params.as_ref().map_or(0, |p| p.get().len())) else {
        return failed(ErrorShape::new(ErrorCode::Unavailable, "the gateway is stopping").retry(), Vec::new());
    };
    let frame = Frame { id: "http".into(), method: method.chars().take(128).collect(), params };
    let (outbox, mut outlet) = outbox();
    let session = Arc::new(session);
    let _guard = Guard(gateway, session.conn);
    gateway.calls.lock().unwrap_or_else(PoisonError::into_inner).insert(session.conn, Arc::clone(&session));
    // Registered first; the pipeline looks second whether it stands: what is taken away in between ends it by one of
    // the two.
    let mut events: Vec<Box<RawValue>> = Vec::new();
    let mut bytes = 0;
    let answering = pipeline::answer(gateway, &session, &frame, &outbox);
    tokio::pin!(answering);
    let answer = loop {
        tokio::select! {
            biased;
            outgoing = outlet.next() => match outgoing {
                Some(Outgoing::Text(text)) => {
                    outlet.written(text.len());
                    bytes += text.len();
                    match bytes > MOST_EVENTS {
                        // It goes on to its recorded end, which is near.
                        true => gateway.cancel_runs_of(session.conn),
                        false => events.extend(RawValue::from_string(text)),
                    }
                }
                Some(Outgoing::Close(_)) | None => {}
            },
            answer = &mut answering => break answer,
        }
    };
    while let Some(Outgoing::Text(text)) = outlet.try_next() {
        events.extend(RawValue::from_string(text));
    }
    let answer = match bytes > MOST_EVENTS {
        true => Err(ErrorShape::new(ErrorCode::InvalidRequest, "the answer is too large for HTTP")),
        false => answer,
    };
    match answer {
        Ok(payload) => Called { body: json!({"ok": true, "payload": payload, "events": events}), error_code: None },
        Err(shape) => failed(shape, events),
    }
}

fn failed(shape: ErrorShape, events: Vec<Box<RawValue>>) -> Called {
    let error_code = Some(shape.code.as_str());
    Called { body: json!({"ok": false, "error": shape, "events": events}), error_code }
}

/// A refusal in the words of the wire.
pub(crate) fn refusal_json(refusal: &Refusal) -> Value {
    serde_json::to_value(reply::refusal(refusal)).unwrap_or_default()
}
