//! Secrets of agents: their names, who may use them, and how a run gets them. Values are not here.

use super::{AgentId, Secret};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Bytes of the longest value.
pub(crate) const LONGEST_SECRET: usize = 64 << 10;

/// Bytes of the shortest value: a shorter one could not be found in output without finding it everywhere.
pub(crate) const SHORTEST_SECRET: usize = 8;

/// Secrets that one run may use.
pub(crate) const MOST_SECRETS_A_RUN: usize = 32;

/// A secret's name: `[A-Z][A-Z0-9_]{0,127}`, so that it can be a file and an environment variable.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SecretName(String);

impl SecretName {
    /// Parses the text of one such name.
    ///
    /// # Errors
    /// Where it is none.
    pub(crate) fn parse(text: &str) -> Result<Self, BadSecretName> {
        let good = (1..=128).contains(&text.len())
            && text.starts_with(|c: char| c.is_ascii_uppercase())
            && text.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_');
        if good { Ok(SecretName(text.to_owned())) } else { Err(BadSecretName(text.chars().take(64).collect())) }
    }
}

impl std::ops::Deref for SecretName {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SecretName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a text is no secret's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BadSecretName(String);

impl fmt::Display for BadSecretName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not a secret's name: use 1 to 128 of A-Z, 0-9 and '_', beginning with a letter", self.0)
    }
}

/// How a run gets a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// As the file `/run/secrets/NAME`.
    File,
    /// As the environment variable of this name, which everything in the sandbox inherits.
    Variable(String),
}

/// A secret that a run asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SecretUse {
    pub(crate) name: SecretName,
    pub(crate) delivery: Delivery,
}

impl SecretUse {
    /// The variable it is to be in; `None` for a file.
    pub(crate) fn variable(&self) -> Option<&str> {
        match &self.delivery {
            Delivery::File => None,
            Delivery::Variable(variable) => Some(variable),
        }
    }
}

impl fmt::Display for SecretUse {
    /// `NAME`, or `NAME as VARIABLE`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.variable() {
            None => write!(f, "{}", self.name),
            Some(variable) => write!(f, "{} as {variable}", self.name),
        }
    }
}

/// Which agents may use which secrets, at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Grants(BTreeMap<SecretName, BTreeSet<AgentId>>);

impl Grants {
    /// Whether this agent may use the secret of this name. A secret that is not there is granted to nobody.
    pub(crate) fn has(&self, agent: &AgentId, name: &SecretName) -> bool {
        self.0.get(name).is_some_and(|agents| agents.contains(agent))
    }
}

impl FromIterator<(SecretName, BTreeSet<AgentId>)> for Grants {
    fn from_iter<T: IntoIterator<Item = (SecretName, BTreeSet<AgentId>)>>(grants: T) -> Self {
        Grants(grants.into_iter().collect())
    }
}

/// Something asked about secrets, or about the key that everything is sealed with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SecretsAction {
    List,
    /// A new secret, or a new value for one; who may use it stays as it is where no agents are named.
    Set {
        name: SecretName,
        value: Secret<Vec<u8>>,
        agents: Option<BTreeSet<AgentId>>,
    },
    /// Who may use it from now on.
    Grant {
        name: SecretName,
        agents: BTreeSet<AgentId>,
    },
    Remove {
        name: SecretName,
    },
    RotateKey,
    /// Everything that is kept, sealed to this recipient.
    Backup {
        recipient: String,
    },
}

impl SecretsAction {
    /// The name of the method that asks for it.
    pub(crate) fn method(&self) -> &'static str {
        match self {
            SecretsAction::List => "secrets.store.list",
            SecretsAction::Set { .. } => "secrets.store.set",
            SecretsAction::Grant { .. } => "secrets.store.grant",
            SecretsAction::Remove { .. } => "secrets.store.delete",
            SecretsAction::RotateKey => "secrets.key.rotate",
            SecretsAction::Backup { .. } => "state.backup",
        }
    }

    /// What it is about, for the record.
    pub(crate) fn target(&self) -> Option<&str> {
        match self {
            SecretsAction::Set { name, .. } | SecretsAction::Grant { name, .. } | SecretsAction::Remove { name } => {
                Some(name)
            }
            SecretsAction::List | SecretsAction::RotateKey | SecretsAction::Backup { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secrets_name_can_stand_in_a_path_and_an_environment() {
        for text in ["", "a", "1A", "_A", "A-B", "A/B", "..", "A B", "Ä", "A\n", &"A".repeat(129)] {
            assert!(SecretName::parse(text).is_err(), "{text:?}");
        }
        assert_eq!(&*SecretName::parse("API_KEY_2").unwrap(), "API_KEY_2");
    }

    #[test]
    fn a_grant_is_for_its_agent_and_its_secret_alone() {
        let (agent, name) = (|a: &str| AgentId::parse(a).unwrap(), |n: &str| SecretName::parse(n).unwrap());
        let grants: Grants = [(name("A"), [agent("x")].into()), (name("B"), BTreeSet::new())].into_iter().collect();
        assert!(grants.has(&agent("x"), &name("A")));
        assert!(!grants.has(&agent("y"), &name("A")) && !grants.has(&agent("x"), &name("B")));
        assert!(!grants.has(&agent("x"), &name("C")));
    }
}
