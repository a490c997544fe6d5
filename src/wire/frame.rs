//! Requests, responses, events, errors and close codes.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};

/// A request as it came, its parameters still unread.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RequestFrame {
    r#type: String,
    id: String,
    method: String,
    #[serde(default)]
    params: Option<Box<RawValue>>,
    #[serde(default)]
    traceparent: Option<String>,
    #[serde(default)]
    expected_profile_id: Option<String>,
}

/// A well-formed request.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) id: String,
    pub(crate) method: String,
    pub(crate) params: Option<Box<RawValue>>,
}

/// What a text message turned out to be.
#[derive(Debug)]
pub(crate) enum Incoming {
    Request(Frame),
    /// JSON, but no request of ours; `id` is the frame's own, if it has one.
    Invalid {
        id: Option<String>,
        why: String,
    },
    /// Not JSON at all.
    Malformed,
}

/// Longest id we echo; an id is opaque to us.
const MAX_ID: usize = 256;

impl Incoming {
    /// Reads one text message.
    pub(crate) fn read(text: &str) -> Incoming {
        let why = match serde_json::from_str::<RequestFrame>(text) {
            Ok(frame) => match check(frame) {
                Ok(frame) => return Incoming::Request(frame),
                Err((id, why)) => return Incoming::Invalid { id: Some(id), why: why.to_owned() },
            },
            Err(e) if matches!(e.classify(), serde_json::error::Category::Data) => e.to_string(),
            Err(_) => return Incoming::Malformed,
        };
        Incoming::Invalid { id: own_id(text), why: strip_position(&why) }
    }
}

fn check(frame: RequestFrame) -> Result<Frame, (String, &'static str)> {
    let too_long = |text: &Option<String>| text.as_ref().is_some_and(|t| t.len() > 128);
    let wrong = if frame.r#type != "req" {
        Some("at type: must be \"req\"")
    } else if frame.id.is_empty() || frame.id.len() > MAX_ID {
        Some("at id: must have 1 to 256 bytes")
    } else if frame.method.is_empty() || frame.method.len() > 128 {
        Some("at method: must have 1 to 128 bytes")
    } else if too_long(&frame.traceparent) || too_long(&frame.expected_profile_id) {
        Some("at traceparent: must have at most 128 bytes")
    } else {
        None
    };
    match wrong {
        None => Ok(Frame { id: frame.id, method: frame.method, params: frame.params }),
        Some(why) => Err((frame.id.chars().take(MAX_ID).collect(), why)),
    }
}

/// The id of a frame that is not a request otherwise, so that its sender can tell which one failed.
fn own_id(text: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct OnlyId {
        id: String,
    }
    serde_json::from_str::<OnlyId>(text).ok().map(|found| found.id).filter(|id| !id.is_empty() && id.len() <= MAX_ID)
}

/// serde_json ends its messages with a position that means nothing inside a frame.
pub(super) fn strip_position(message: &str) -> String {
    message.rsplit_once(" at line ").map_or(message, |(head, _)| head).to_owned()
}

/// Top-level error codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum ErrorCode {
    InvalidRequest,
    NotPaired,
    Forbidden,
    Unavailable,
}

impl ErrorCode {
    /// As it stands on the wire.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            ErrorCode::InvalidRequest => "INVALID_REQUEST",
            ErrorCode::NotPaired => "NOT_PAIRED",
            ErrorCode::Forbidden => "FORBIDDEN",
            ErrorCode::Unavailable => "UNAVAILABLE",
        }
    }
}

/// An error as clients read it: a stable code, a plain sentence, details for machines.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ErrorShape {
    pub(crate) code: ErrorCode,
    pub(crate) message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) details: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) retryable: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) retry_after_ms: Option<u64>,
}

impl ErrorShape {
    pub(crate) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        ErrorShape { code, message: message.into(), details: None, retryable: None, retry_after_ms: None }
    }

    /// With details for machines; `details.code` is the stable name of the failure.
    pub(crate) fn details(mut self, details: Value) -> Self {
        self.details = Some(details);
        self
    }

    /// A method that is not for this role (protocol section 1.3).
    pub(crate) fn another_role(role: &str) -> Self {
        Self::new(ErrorCode::InvalidRequest, format!("{ANOTHER_ROLE}{role}"))
    }

    /// Whether it is such a one.
    pub(crate) fn is_for_another_role(&self) -> bool {
        self.message.starts_with(ANOTHER_ROLE)
    }

    /// Says that the same request may succeed later.
    pub(crate) fn retry(mut self) -> Self {
        self.retryable = Some(true);
        self
    }
}

/// How the answer to a method of another role begins.
const ANOTHER_ROLE: &str = "unauthorized role: ";

/// Why and how a connection is closed by us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Close {
    pub(crate) code: u16,
    pub(crate) reason: String,
}

/// Close codes (RFC 6455, section 7.4, and the protocol's own from 4000).
pub(crate) mod close {
    pub(crate) const NORMAL: u16 = 1000;
    pub(crate) const PROTOCOL_MISMATCH: u16 = 1002;
    pub(crate) const NOT_TEXT: u16 = 1003;
    pub(crate) const POLICY: u16 = 1008;
    pub(crate) const TOO_BIG: u16 = 1009;
    pub(crate) const RESTART: u16 = 1012;
    pub(crate) const AUTH_CHANGED: u16 = 4001;
}

impl Close {
    /// A close whose reason fits a control frame: at most 123 bytes of UTF-8.
    pub(crate) fn new(code: u16, reason: &str) -> Self {
        let mut end = reason.len().min(123);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        Close { code, reason: reason[..end].to_owned() }
    }
}

/// The text of a request.
pub(crate) fn request(id: &str, method: &str, params: Option<Value>) -> String {
    match params {
        Some(params) => json!({"type": "req", "id": id, "method": method, "params": params}).to_string(),
        None => json!({"type": "req", "id": id, "method": method}).to_string(),
    }
}

/// The text of a response.
pub(crate) fn response(id: &str, result: &Result<Value, ErrorShape>) -> String {
    match result {
        Ok(payload) => json!({"type": "res", "id": id, "ok": true, "payload": payload}).to_string(),
        Err(error) => json!({"type": "res", "id": id, "ok": false, "error": error}).to_string(),
    }
}

/// The text of an event; broadcast ones carry the connection's own counter.
pub(crate) fn event(name: &str, payload: &impl Serialize, seq: Option<u64>) -> String {
    #[derive(Serialize)]
    struct EventFrame<'a, P> {
        r#type: &'static str,
        event: &'a str,
        payload: &'a P,
        #[serde(skip_serializing_if = "Option::is_none")]
        seq: Option<u64>,
    }
    let frame = EventFrame { r#type: "event", event: name, payload, seq };
    serde_json::to_string(&frame).unwrap_or_else(|_| "{}".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invalid(text: &str) -> (Option<String>, String) {
        match Incoming::read(text) {
            Incoming::Invalid { id, why } => (id, why),
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn a_request_is_read_with_its_parameters_untouched() {
        let Incoming::Request(frame) = Incoming::read(r#"{"type":"req","id":"1","method":"health","params":{"a":1}}"#)
        else {
            panic!("not a request")
        };
        assert_eq!((frame.id.as_str(), frame.method.as_str()), ("1", "health"));
        assert_eq!(frame.params.unwrap().get(), r#"{"a":1}"#);
    }

    #[test]
    fn an_unknown_field_a_duplicate_key_or_a_wrong_type_is_invalid_and_keeps_its_id() {
        for (text, part) in [
            (r#"{"type":"req","id":"7","method":"health","extra":1}"#, "unknown field"),
            (r#"{"type":"req","id":"7","method":"health","method":"exec.run"}"#, "duplicate field"),
            (r#"{"type":"req","id":"7","method":5}"#, "invalid type"),
            (r#"{"type":"req","id":"7"}"#, "missing field"),
            (r#"{"type":"event","id":"7","method":"health"}"#, "at type"),
        ] {
            let (id, why) = invalid(text);
            assert_eq!(id.as_deref(), Some("7"), "{text}");
            assert!(why.contains(part), "{text}: {why}");
        }
        assert_eq!(invalid(r#"{"type":"req","id":"","method":"x"}"#).1, "at id: must have 1 to 256 bytes");
        assert_eq!(invalid("[1]").0, None);
        assert_eq!(invalid("5").0, None);
    }

    #[test]
    fn what_is_not_json_is_malformed_however_deep() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        let deep_params = format!(r#"{{"type":"req","id":"1","method":"x","params":{deep}}}"#);
        for text in ["", "{", "nope", "{\"type\":\"req\"", "\u{0}"] {
            assert!(matches!(Incoming::read(text), Incoming::Malformed), "{text:?}");
        }
        assert!(!matches!(Incoming::read(&deep), Incoming::Request(_)));
        // Deep parameters stay raw here; their own type refuses them later without recursion.
        let _ = Incoming::read(&deep_params);
    }

    proptest::proptest! {
        /// Whatever comes, a frame is read or refused; and one that is read was a request, with its id.
        #[test]
        fn no_text_panics_the_frame_decoder(text in "\\PC{0,200}") {
            let _ = Incoming::read(&text);
        }

        #[test]
        fn a_frame_with_anything_beside_what_it_may_hold_is_not_read(key in "[a-zA-Z_]{1,12}", value in "[a-z0-9]{0,6}") {
            let known = ["type", "id", "method", "params", "traceparent", "expectedProfileId"];
            proptest::prop_assume!(!known.contains(&key.as_str()));
            let text = format!(r#"{{"type":"req","id":"1","method":"health","{key}":"{value}"}}"#);
            let refused = matches!(Incoming::read(&text), Incoming::Invalid { .. });
            proptest::prop_assert!(refused);
        }

        #[test]
        fn params_of_any_shape_become_an_action_or_a_refusal(
            method in proptest::sample::select(crate::wire::METHODS),
            params in "[\\[\\]{}:,\"a-z0-9 .-]{0,60}",
        ) {
            let text = format!(r#"{{"type":"req","id":"1","method":"{method}","params":{params}}}"#);
            if let Incoming::Request(frame) = Incoming::read(&text) {
                let _ = crate::wire::action(&frame);
                let _ = crate::wire::ConnectParams::read(frame.params.as_deref());
            }
        }
    }

    #[test]
    fn a_close_reason_fits_a_control_frame() {
        assert_eq!(Close::new(1008, &"é".repeat(100)).reason.len(), 122);
    }
}
