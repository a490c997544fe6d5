//! Who asks: a role, the credential that proved it, and the scopes recorded for it.

use super::{AgentId, DeviceId};
use std::fmt;

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Role {
    Operator,
    Node,
}

impl Role {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Role::Operator => "operator",
            Role::Node => "node",
        }
    }

    /// The role of this name.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        [Role::Operator, Role::Node].into_iter().find(|role| role.as_str() == text)
    }
}

/// One right. The set is closed: a scope that is not listed here does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub(crate) enum Scope {
    Admin,
    Read,
    Write,
    Approvals,
    Questions,
    Pairing,
    TalkSecrets,
    AgentExec,
    AgentFiles,
}

impl Scope {
    /// Every scope, in the order of its bit.
    pub(crate) const ALL: [Scope; 9] = [
        Scope::Admin,
        Scope::Read,
        Scope::Write,
        Scope::Approvals,
        Scope::Questions,
        Scope::Pairing,
        Scope::TalkSecrets,
        Scope::AgentExec,
        Scope::AgentFiles,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Scope::Admin => "operator.admin",
            Scope::Read => "operator.read",
            Scope::Write => "operator.write",
            Scope::Approvals => "operator.approvals",
            Scope::Questions => "operator.questions",
            Scope::Pairing => "operator.pairing",
            Scope::TalkSecrets => "operator.talk.secrets",
            Scope::AgentExec => "agent.exec",
            Scope::AgentFiles => "agent.files",
        }
    }

    /// The scope of this name, if there is one.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == text)
    }
}

/// A set of scopes; delegation is intersection, so it can only shrink.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct ScopeSet(u16);

impl ScopeSet {
    /// No right at all.
    pub(crate) const EMPTY: ScopeSet = ScopeSet(0);

    /// Every `operator.*` scope: what the record of the gateway's own token holds.
    pub(crate) fn operator() -> Self {
        Scope::ALL.into_iter().filter(|s| s.as_str().starts_with("operator.")).collect()
    }

    /// An agent's scopes.
    pub(crate) fn agent() -> Self {
        [Scope::AgentExec, Scope::AgentFiles].into_iter().collect()
    }

    /// Every scope there is: a bound that bounds nothing.
    pub(crate) fn all() -> Self {
        Scope::ALL.into_iter().collect()
    }

    pub(crate) fn has(self, scope: Scope) -> bool {
        self.0 & (1 << scope as u8) != 0
    }

    /// Whether this set covers `scope`: admin covers every operator scope, write covers read.
    pub(crate) fn covers(self, scope: Scope) -> bool {
        self.has(scope)
            || (self.has(Scope::Admin) && scope.as_str().starts_with("operator."))
            || (scope == Scope::Read && self.has(Scope::Write))
    }

    /// Those of this set that `other` covers.
    pub(crate) fn within(self, other: ScopeSet) -> ScopeSet {
        self.iter().filter(|scope| other.covers(*scope)).collect()
    }

    /// The first of this set that `other` does not cover.
    pub(crate) fn beyond(self, other: ScopeSet) -> Option<Scope> {
        self.iter().find(|scope| !other.covers(*scope))
    }

    /// The rights of either.
    pub(crate) fn union(self, other: ScopeSet) -> ScopeSet {
        ScopeSet(self.0 | other.0)
    }

    /// Their names.
    pub(crate) fn names(self) -> Vec<&'static str> {
        self.iter().map(Scope::as_str).collect()
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = Scope> {
        Scope::ALL.into_iter().filter(move |scope| self.has(*scope))
    }
}

impl FromIterator<Scope> for ScopeSet {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        ScopeSet(scopes.into_iter().fold(0, |bits, scope| bits | (1 << scope as u8)))
    }
}

impl fmt::Debug for ScopeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(Scope::as_str)).finish()
    }
}

/// What proved the principal. The list is closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Credential {
    /// The unix socket, by SO_PEERCRED: this uid.
    PeerUid(u32),
    /// A direct loopback connection, by the operator's setting `local_trust`; the uid where the kernel names it.
    Local(Option<u32>),
    /// The gateway's shared token.
    SharedToken,
    /// The gateway's password.
    Password,
    /// A paired device's own token, with its signature.
    DeviceToken,
    /// A setup code, with the signature of the device it paired.
    SetupCode,
    /// A user vouched for by a trusted proxy.
    Proxy(String),
    /// A user vouched for by the tailnet.
    Tailnet(String),
    /// `auth.mode = "none"`.
    Nobody,
}

impl Credential {
    /// The word for hello-ok and the journal.
    pub(crate) fn as_str(&self) -> &'static str {
        match self {
            Credential::PeerUid(_) => "peer-uid",
            Credential::Local(_) => "local",
            Credential::SharedToken => "token",
            Credential::Password => "password",
            Credential::DeviceToken => "device-token",
            Credential::SetupCode => "bootstrap-token",
            Credential::Proxy(_) => "trusted-proxy",
            Credential::Tailnet(_) => "tailscale",
            Credential::Nobody => "none",
        }
    }
}

/// Somebody who has proved who they are. Scopes come from the record of the credential.
#[derive(Debug, Clone)]
pub(crate) struct Principal {
    pub(crate) role: Role,
    pub(crate) credential: Credential,
    pub(crate) device: Option<DeviceId>,
    pub(crate) scopes: ScopeSet,
    /// The one agent this principal is bound to, if it is an agent itself.
    pub(crate) agent: Option<AgentId>,
}

impl Principal {
    /// A short name for records: the device if there is one, else how it came in.
    pub(crate) fn label(&self) -> String {
        match (&self.device, &self.credential) {
            (Some(device), _) => format!("device:{device}"),
            (None, Credential::PeerUid(uid) | Credential::Local(Some(uid))) => format!("uid:{uid}"),
            (None, Credential::Proxy(user)) => format!("proxy:{user}"),
            (None, Credential::Tailnet(user)) => format!("tailnet:{user}"),
            (None, other) => other.as_str().to_owned(),
        }
    }

    /// Whether it is a paired device that manages itself and no other: it came by its own token and is no admin.
    pub(crate) fn manages_itself_alone(&self) -> bool {
        matches!(self.credential, Credential::DeviceToken | Credential::SetupCode) && !self.scopes.covers(Scope::Admin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn admin_covers_operator_scopes_but_never_an_agents() {
        let admin: ScopeSet = [Scope::Admin].into_iter().collect();
        assert!(admin.covers(Scope::Pairing));
        assert!(!admin.covers(Scope::AgentExec));
        let write: ScopeSet = [Scope::Write].into_iter().collect();
        assert!(write.covers(Scope::Read) && !write.covers(Scope::Admin));
        assert!(!ScopeSet::EMPTY.covers(Scope::Read));
    }

    #[test]
    fn delegation_only_shrinks() {
        let write: ScopeSet = [Scope::Write].into_iter().collect();
        let asked: ScopeSet = [Scope::Admin, Scope::Read, Scope::Write].into_iter().collect();
        assert_eq!(asked.within(write), [Scope::Read, Scope::Write].into_iter().collect());
        assert_eq!(asked.beyond(write), Some(Scope::Admin));
        assert_eq!(asked.within(ScopeSet::operator()), asked);
    }

    #[test]
    fn every_scope_is_read_back_from_its_name() {
        for scope in Scope::ALL {
            assert_eq!(Scope::parse(scope.as_str()), Some(scope));
        }
        assert_eq!(Scope::parse("operator.zzz"), None);
    }
}
