//! Why somebody is not let in, as a closed list; the corridor turns each into the protocol's words.

use super::registry::Waiting;

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
    /// Nothing was presented where something is needed.
    Missing(Needed),
    /// One public reason for every wrong credential of a kind, unknown or revoked ones among them.
    Mismatch(Needed),
    /// It was presented, but this gateway does not take such a thing.
    NotConfigured(Needed),
    /// A device's token is right, but the device holds less than it asks for; the rest waits for an operator.
    ScopeMismatch(Box<Waiting>),
    /// A trusted proxy names no user.
    IdentityHeaderRequired,
    /// A user was named who is not let in.
    UserRefused,
    /// tailscaled knows nobody at this address, or cannot be asked.
    TailnetIdentityMissing,
    TailnetWhoisFailed,
    /// Too many wrong guesses, or too much waits; come back after so many milliseconds.
    RateLimited {
        retry_after_ms: u64,
    },
    DeviceIdentityRequired,
    /// A user interface that shows secrets must be a device.
    UiDeviceRequired,
    /// The device is genuine, but no operator has approved what it asks for.
    PairingRequired(Box<Waiting>),
    DeviceIdMismatch,
    DeviceSignatureExpired,
    DeviceNonceRequired,
    DeviceNonceMismatch,
    DeviceSignatureInvalid,
    DeviceKeyInvalid,
    /// It has as many connections already as one client may have.
    TooManyConnections,
    /// What must be kept could not be kept.
    Unavailable,
}

/// A kind of credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Needed {
    Anything,
    Token,
    Password,
    SetupCode,
    DeviceToken,
}

impl Refusal {
    /// The stable code in `error.details.code` (protocol sections 2.3 and 3.2).
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Refusal::Protocol { .. } => "PROTOCOL_MISMATCH",
            Refusal::UnknownRole | Refusal::UnknownScope(_) => "AUTH_UNAUTHORIZED",
            Refusal::Missing(Needed::Anything) => "AUTH_REQUIRED",
            Refusal::Missing(Needed::Password) => "AUTH_PASSWORD_MISSING",
            Refusal::Missing(_) => "AUTH_TOKEN_MISSING",
            Refusal::Mismatch(Needed::Anything) => "AUTH_UNAUTHORIZED",
            Refusal::Mismatch(Needed::Token) => "AUTH_TOKEN_MISMATCH",
            Refusal::Mismatch(Needed::Password) => "AUTH_PASSWORD_MISMATCH",
            Refusal::Mismatch(Needed::SetupCode) => "AUTH_BOOTSTRAP_TOKEN_INVALID",
            Refusal::Mismatch(Needed::DeviceToken) => "AUTH_DEVICE_TOKEN_MISMATCH",
            Refusal::NotConfigured(Needed::Password) => "AUTH_PASSWORD_NOT_CONFIGURED",
            Refusal::NotConfigured(_) => "AUTH_TOKEN_NOT_CONFIGURED",
            Refusal::ScopeMismatch(_) => "AUTH_SCOPE_MISMATCH",
            Refusal::IdentityHeaderRequired => "AUTH_IDENTITY_HEADER_REQUIRED",
            Refusal::UserRefused => "AUTH_VERIFIED_USER_REQUIRED",
            Refusal::TailnetIdentityMissing => "AUTH_TAILSCALE_IDENTITY_MISSING",
            Refusal::TailnetWhoisFailed => "AUTH_TAILSCALE_WHOIS_FAILED",
            Refusal::RateLimited { .. } => "AUTH_RATE_LIMITED",
            Refusal::TooManyConnections => "TOO_MANY_CONNECTIONS",
            Refusal::DeviceIdentityRequired => "DEVICE_IDENTITY_REQUIRED",
            Refusal::UiDeviceRequired => "CONTROL_UI_DEVICE_IDENTITY_REQUIRED",
            Refusal::PairingRequired(_) => "PAIRING_REQUIRED",
            Refusal::DeviceIdMismatch => "DEVICE_AUTH_DEVICE_ID_MISMATCH",
            Refusal::DeviceSignatureExpired => "DEVICE_AUTH_SIGNATURE_EXPIRED",
            Refusal::DeviceNonceRequired => "DEVICE_AUTH_NONCE_REQUIRED",
            Refusal::DeviceNonceMismatch => "DEVICE_AUTH_NONCE_MISMATCH",
            Refusal::DeviceSignatureInvalid => "DEVICE_AUTH_SIGNATURE_INVALID",
            Refusal::DeviceKeyInvalid => "DEVICE_AUTH_PUBLIC_KEY_INVALID",
            Refusal::Unavailable => "STATE_UNAVAILABLE",
        }
    }

    /// The sentence the client is told.
    pub(crate) fn message(&self) -> String {
        let plain = match self {
            Refusal::Protocol { least, most } => {
                return format!("protocol mismatch: the client offers {least} to {most}");
            }
            Refusal::UnknownScope(scope) => {
                let shown: String = scope.chars().filter(|c| c.is_ascii_graphic()).take(64).collect();
                return format!("unauthorized: unknown scope {shown}");
            }
            Refusal::PairingRequired(waiting) => match waiting.reason {
                "scope-upgrade" => "pairing required: device is asking for more scopes than currently approved",
                "role-upgrade" => "pairing required: device is asking for a role that is not approved",
                "metadata-upgrade" => "pairing required: device is not the kind of machine that was approved",
                _ => "pairing required: device is not approved yet",
            },
            Refusal::UnknownRole => "unauthorized: unknown role",
            Refusal::Missing(Needed::Anything) => "unauthorized: authentication required",
            Refusal::Missing(Needed::Password) => "unauthorized: gateway password missing",
            Refusal::Missing(_) => "unauthorized: gateway token missing (`vambrace token show` prints it)",
            Refusal::Mismatch(Needed::Anything) => "unauthorized: the request's signature is not right",
            Refusal::Mismatch(Needed::Token) => "unauthorized: gateway token mismatch",
            Refusal::Mismatch(Needed::Password) => "unauthorized: gateway password mismatch",
            Refusal::Mismatch(Needed::SetupCode) => "unauthorized: setup code invalid or expired",
            Refusal::Mismatch(Needed::DeviceToken) => "unauthorized: device token mismatch",
            Refusal::NotConfigured(Needed::Password) => "unauthorized: this gateway has no password",
            Refusal::NotConfigured(_) => "unauthorized: this gateway has no shared token",
            Refusal::ScopeMismatch(_) => "unauthorized: device token scope mismatch",
            Refusal::IdentityHeaderRequired => "unauthorized: the proxy names no user",
            Refusal::UserRefused => "unauthorized: this user is not let in",
            Refusal::TailnetIdentityMissing => "unauthorized: the tailnet names no user",
            Refusal::TailnetWhoisFailed => "unauthorized: tailscaled cannot be asked",
            Refusal::RateLimited { .. } => "unauthorized: too many failed authentication attempts (retry later)",
            Refusal::TooManyConnections => "too many connections of this client",
            Refusal::DeviceIdentityRequired => "device identity required",
            Refusal::UiDeviceRequired => "control ui requires device identity",
            Refusal::DeviceIdMismatch => "device identity mismatch: the id is not the hash of the key",
            Refusal::DeviceSignatureExpired => "device signature expired",
            Refusal::DeviceNonceRequired => "device nonce required",
            Refusal::DeviceNonceMismatch => "device nonce mismatch",
            Refusal::DeviceSignatureInvalid => "device signature invalid",
            Refusal::DeviceKeyInvalid => "device public key invalid",
            Refusal::Unavailable => "the gateway cannot keep what it must keep; its log tells why",
        };
        plain.to_owned()
    }
}
