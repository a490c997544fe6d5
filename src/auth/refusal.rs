//! Why somebody is not let in, as a closed list; the corridor turns each into the protocol's words.

use crate::model::DeviceId;

/// A refusal of a `connect`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// No version in common.
    Protocol {
        least: u32,
        most: u32,
    },
    UnknownRole,
    UnknownScope(String),
    TokenMissing,
    /// One public reason for every wrong credential of any kind.
    TokenMismatch,
    DeviceIdentityRequired,
    /// The device is genuine, but no operator has approved it.
    PairingRequired {
        device: DeviceId,
    },
    DeviceIdMismatch,
    DeviceSignatureExpired,
    DeviceNonceRequired,
    DeviceNonceMismatch,
    DeviceSignatureInvalid,
    DeviceKeyInvalid,
}

impl Refusal {
    /// The stable code in `error.details.code` (protocol sections 2.3 and 3.2).
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Refusal::Protocol { .. } => "PROTOCOL_MISMATCH",
            Refusal::UnknownRole | Refusal::UnknownScope(_) => "AUTH_UNAUTHORIZED",
            Refusal::TokenMissing => "AUTH_TOKEN_MISSING",
            Refusal::TokenMismatch => "AUTH_TOKEN_MISMATCH",
            Refusal::DeviceIdentityRequired => "DEVICE_IDENTITY_REQUIRED",
            Refusal::PairingRequired { .. } => "PAIRING_REQUIRED",
            Refusal::DeviceIdMismatch => "DEVICE_AUTH_DEVICE_ID_MISMATCH",
            Refusal::DeviceSignatureExpired => "DEVICE_AUTH_SIGNATURE_EXPIRED",
            Refusal::DeviceNonceRequired => "DEVICE_AUTH_NONCE_REQUIRED",
            Refusal::DeviceNonceMismatch => "DEVICE_AUTH_NONCE_MISMATCH",
            Refusal::DeviceSignatureInvalid => "DEVICE_AUTH_SIGNATURE_INVALID",
            Refusal::DeviceKeyInvalid => "DEVICE_AUTH_PUBLIC_KEY_INVALID",
        }
    }

    /// The sentence the client is told.
    pub(crate) fn message(&self) -> String {
        match self {
            Refusal::Protocol { least, most } => format!("protocol mismatch: the client offers {least} to {most}"),
            Refusal::UnknownRole => "unauthorized: unknown role".into(),
            Refusal::UnknownScope(scope) => {
                let shown: String = scope.chars().filter(|c| c.is_ascii_graphic()).take(64).collect();
                format!("unauthorized: unknown scope {shown}")
            }
            Refusal::TokenMissing => "unauthorized: gateway token missing (`vambrace token show` prints it)".into(),
            Refusal::TokenMismatch => "unauthorized: gateway token mismatch".into(),
            Refusal::DeviceIdentityRequired => "device identity required".into(),
            Refusal::PairingRequired { .. } => "pairing required: device is not approved yet".into(),
            Refusal::DeviceIdMismatch => "device identity mismatch: the id is not the hash of the key".into(),
            Refusal::DeviceSignatureExpired => "device signature expired".into(),
            Refusal::DeviceNonceRequired => "device nonce required".into(),
            Refusal::DeviceNonceMismatch => "device nonce mismatch".into(),
            Refusal::DeviceSignatureInvalid => "device signature invalid".into(),
            Refusal::DeviceKeyInvalid => "device public key invalid".into(),
        }
    }
}
