//! From what happened to what the client is told: stable codes, plain sentences, no inner causes.

use crate::auth::{PairingFault, Refusal, Session, Waiting};
use crate::journal::JournalFault;
use crate::model::{Role, RunFault, Scope};
use crate::policy::{Denial, MissingScope, Why};
use crate::wire::{ErrorCode, ErrorShape, Invalid, PROTOCOL};
use serde_json::{Value, json};

/// The payload of a response, or its error.
pub(super) type Answer = Result<Value, ErrorShape>;

/// A request that is no action of ours.
pub(super) fn invalid(session: &Session, invalid: &Invalid) -> Answer {
    let shape = match invalid {
        // Who is not an admin is not told which methods exist; a node's own methods are no secret.
        Invalid::UnknownMethod(_)
            if session.principal.role == Role::Operator && !session.principal.scopes.covers(Scope::Admin) =>
        {
            scope_error(Scope::Admin)
        }
        Invalid::UnknownMethod(method) => {
            let shown: String = method.chars().filter(char::is_ascii_graphic).take(64).collect();
            ErrorShape::new(ErrorCode::InvalidRequest, format!("unknown method: {shown}"))
        }
        Invalid::Params { method, why } => {
            ErrorShape::new(ErrorCode::InvalidRequest, format!("invalid {method} params: {why}"))
        }
    };
    Err(shape)
}

/// What the session rests on was taken away.
pub(super) fn fallen() -> Answer {
    Err(ErrorShape::new(ErrorCode::Forbidden, "what this connection rests on was taken away")
        .details(json!({"code": "AUTH_CHANGED"})))
}

/// A principal that may not ask.
pub(super) fn missing_scope(missing: &MissingScope) -> Answer {
    Err(match missing.why {
        Why::Scope(scope) => scope_error(scope),
        Why::Role(role) => ErrorShape::another_role(role.as_str()),
        Why::NotLocal => ErrorShape::new(ErrorCode::Forbidden, "only answered on the gateway's unix socket").details(
            json!({"code": "LOCAL_SOCKET_REQUIRED", "hint": "use the command line on the gateway's own host"}),
        ),
        Why::OtherAgent => ErrorShape::new(ErrorCode::Forbidden, "an agent runs commands for itself alone")
            .details(json!({"code": "AGENT_MISMATCH"})),
    })
}

fn scope_error(scope: Scope) -> ErrorShape {
    let name = scope.as_str();
    ErrorShape::new(ErrorCode::Forbidden, format!("missing scope: {name}"))
        .details(json!({"code": "MISSING_SCOPE", "missingScope": name, "requiredScopes": [name]}))
}

/// A request the rules deny.
pub(super) fn denied(denial: &Denial) -> Answer {
    Err(ErrorShape::new(ErrorCode::Forbidden, denial.reason.clone())
        .details(json!({"code": "EXEC_DENIED", "rule": denial.rule, "hint": denial.hint})))
}

/// The journal did not take a record.
pub(super) fn journal_fault(fault: &JournalFault) -> Answer {
    tracing::error!(error = %fault, "an act was refused because it could not be recorded");
    Err(ErrorShape::new(ErrorCode::Unavailable, "the journal does not take records, so nothing is done")
        .details(json!({"code": "JOURNAL_UNAVAILABLE", "hint": "look at the disk and the rights of the state folder"}))
        .retry())
}

/// The act was done, but its end could not be recorded.
pub(super) fn unrecorded_end(fault: &JournalFault) -> Answer {
    tracing::error!(error = %fault, "the end of an act could not be recorded");
    Err(ErrorShape::new(ErrorCode::Unavailable, "the command ran, but its end could not be recorded")
        .details(json!({"code": "JOURNAL_UNAVAILABLE", "hint": "look at the disk and the rights of the state folder"})))
}

/// A run without an outcome.
pub(super) fn run_fault(fault: &RunFault) -> Answer {
    let code = match fault {
        RunFault::RunnerGone | RunFault::Busy | RunFault::Engine { .. } | RunFault::WallMissing(_) => {
            ErrorCode::Unavailable
        }
        _ => ErrorCode::InvalidRequest,
    };
    let shape = ErrorShape::new(code, fault.to_string())
        .details(json!({"code": fault.code(), "hint": fault.hint(), "exitCode": fault.exit_code()}));
    Err(if matches!(fault, RunFault::RunnerGone | RunFault::Busy) { shape.retry() } else { shape })
}

/// A change of a pairing that was not made. The words are those that the original's clients look for.
pub(super) fn pairing_fault(fault: &PairingFault) -> ErrorShape {
    let message = fault.to_string();
    match fault {
        PairingFault::MissingScope(scope) => ErrorShape::new(ErrorCode::InvalidRequest, message).details(json!({
            "code": "MISSING_SCOPE", "missingScope": scope.as_str(), "requiredScopes": [scope.as_str()],
        })),
        PairingFault::NotItself => {
            ErrorShape::new(ErrorCode::Forbidden, message).details(json!({"code": "OTHER_DEVICE"}))
        }
        PairingFault::Full => ErrorShape::new(ErrorCode::Unavailable, message).retry(),
        PairingFault::Store(_) | PairingFault::Journal(_) => {
            tracing::error!(error = %fault, "a change of a pairing could not be kept");
            ErrorShape::new(ErrorCode::Unavailable, "the change could not be kept, so it was not made").details(
                json!({"code": "STORE_UNAVAILABLE", "hint": "look at the gateway's log and the disk of its state folder"}),
            )
        }
        _ => {
            let hint = match fault {
                PairingFault::UnknownRequest => "it was answered, replaced or ran out; list shows those that wait",
                PairingFault::UnknownDevice | PairingFault::UnknownNode => "list shows those there are",
                PairingFault::ApprovalDenied | PairingFault::RotationDenied => {
                    "an operator with operator.admin on the gateway's host can do it, and only to take away, never to add"
                }
                PairingFault::Invalid(PairingFault::UNREACHABLE) => "--public-url, or gateway.public_url, says how",
                _ => "--agent NAME approves an agent; remove the device first to make it something else",
            };
            ErrorShape::new(ErrorCode::InvalidRequest, message).details(json!({"code": "PAIRING", "hint": hint}))
        }
    }
}

/// A `connect` that was refused.
pub(crate) fn refusal(refusal: &Refusal) -> ErrorShape {
    let code = refusal.code();
    let message = refusal.message();
    match refusal {
        Refusal::Protocol { least, most } => ErrorShape::new(ErrorCode::InvalidRequest, message).details(json!({
            "code": code, "clientMinProtocol": least, "clientMaxProtocol": most,
            "expectedProtocol": PROTOCOL, "minimumProbeProtocol": crate::wire::LEAST_PROBE_PROTOCOL,
        })),
        Refusal::PairingRequired(waiting) => pairing_required(ErrorCode::NotPaired, code, message, waiting),
        Refusal::ScopeMismatch(waiting) => pairing_required(ErrorCode::InvalidRequest, code, message, waiting),
        Refusal::DeviceIdentityRequired | Refusal::UiDeviceRequired => {
            ErrorShape::new(ErrorCode::NotPaired, message).details(json!({"code": code}))
        }
        Refusal::RateLimited { retry_after_ms } => {
            let mut shape = ErrorShape::new(ErrorCode::Unavailable, message)
                .details(json!({
                    "code": code, "authReason": "rate_limited", "canRetryWithDeviceToken": false,
                    "recommendedNextStep": "wait_then_retry",
                }))
                .retry();
            shape.retry_after_ms = Some(*retry_after_ms);
            shape
        }
        Refusal::Unavailable | Refusal::TooManyConnections => {
            ErrorShape::new(ErrorCode::Unavailable, message).details(json!({"code": code})).retry()
        }
        _ if code.starts_with("AUTH_") => {
            let reason = code.trim_start_matches("AUTH_").to_ascii_lowercase();
            let step = match refusal {
                Refusal::NotConfigured(_) | Refusal::IdentityHeaderRequired | Refusal::TailnetWhoisFailed => {
                    "review_auth_configuration"
                }
                _ => "update_auth_credentials",
            };
            ErrorShape::new(ErrorCode::InvalidRequest, message).details(json!({
                "code": code, "authReason": reason, "canRetryWithDeviceToken": false, "recommendedNextStep": step,
            }))
        }
        _ => ErrorShape::new(ErrorCode::InvalidRequest, message).details(json!({"code": code, "reason": code})),
    }
}

fn pairing_required(top: ErrorCode, code: &str, message: String, waiting: &Waiting) -> ErrorShape {
    let mut details = json!({
        "code": code, "reason": waiting.reason, "requestId": waiting.request.as_str(), "deviceId": waiting.device.0,
        "requestedRole": waiting.role.as_str(), "requestedScopes": waiting.scopes.names(),
        "remediationHint": format!("an operator approves it: vambrace devices approve {}", waiting.request.as_str()),
    });
    if let Some((roles, scopes)) = &waiting.approved {
        details["approvedRoles"] = json!(roles.iter().map(|role| role.as_str()).collect::<Vec<_>>());
        details["approvedScopes"] = json!(scopes.names());
    }
    ErrorShape::new(top, message).details(details)
}
