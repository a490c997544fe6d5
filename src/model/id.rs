//! Identifiers as types of their own, so that an agent's name is never taken for a session's.
//!
//! Names that come from outside match `[a-z0-9-]{1,64}` and so can stand in a path, a log line
//! or a container name without escaping (attack class: identifier used as a file name,
//! CVE-2026-28482).

use std::fmt;

/// Why a text is not an identifier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BadId {
    pub(crate) kind: &'static str,
    pub(crate) text: String,
}

impl fmt::Display for BadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown: String = self.text.chars().take(64).collect();
        write!(f, "{shown:?} is not {} name: use 1 to 64 of a-z, 0-9 and '-', not starting with '-'", self.kind)
    }
}

impl std::error::Error for BadId {}

fn check(kind: &'static str, text: &str) -> Result<(), BadId> {
    let good = (1..=64).contains(&text.len())
        && !text.starts_with('-')
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if good { Ok(()) } else { Err(BadId { kind, text: text.to_owned() }) }
}

macro_rules! named {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub(crate) struct $name(String);

        impl $name {
            /// Parses the text of one such name.
            pub(crate) fn parse(text: &str) -> Result<Self, BadId> {
                check($kind, text).map(|()| Self(text.to_owned()))
            }

        }

        impl std::ops::Deref for $name {
            type Target = str;

            fn deref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

named!(
    /// The agent for whom a command runs.
    AgentId,
    "an agent"
);
named!(
    /// A conversation of an agent; a label in the records.
    SessionId,
    "a session"
);
named!(
    /// A named set of sandbox settings in the configuration.
    ProfileName,
    "a profile"
);

/// One WebSocket connection, for as long as this gateway lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ConnId(pub(crate) u64);

impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "c{}", self.0)
    }
}

/// One command run, unique in the journal: 128 random bits as lowercase hex.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct RunId(String);

impl RunId {
    /// The id made of these random bytes.
    pub(crate) fn from_random(bytes: [u8; 16]) -> Self {
        Self(bytes.iter().map(|b| format!("{b:02x}")).collect())
    }

    /// Parses an id as we print it.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        (text.len() == 32 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)))
            .then(|| Self(text.to_owned()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// A pairing request or a setup code's public half: 128 random bits as lowercase hex.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct RequestId(String);

impl RequestId {
    /// The id made of these random bytes.
    pub(crate) fn from_random(bytes: [u8; 16]) -> Self {
        Self(RunId::from_random(bytes).0)
    }

    /// What somebody says is one. If it is not, no request is found by it.
    pub(crate) fn claimed(text: &str) -> Self {
        Self(text.to_owned())
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// A device: lowercase hex SHA-256 of its raw Ed25519 public key. Derived, never accepted.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct DeviceId(pub(crate) String);

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_could_be_a_path_or_an_option_is_no_name() {
        for text in ["", "..", "a/b", "-x", "A", "a b", "a\nb", "é", "a.b", &"a".repeat(65)] {
            assert!(AgentId::parse(text).is_err(), "{text:?}");
        }
        for text in ["a", "main", "builder-2", &"a".repeat(64)] {
            assert!(AgentId::parse(text).is_ok(), "{text:?}");
        }
    }

    #[test]
    fn a_run_id_is_read_back_as_printed() {
        let id = RunId::from_random([0xab; 16]);
        assert_eq!(RunId::parse(id.as_str()), Some(id));
        assert_eq!(RunId::parse("ABAB"), None);
    }
}
