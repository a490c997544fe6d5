//! One table: which scope an action needs. A principal without it does not get as far as a rule.

use crate::model::{Action, Principal, Role, Scope, SecretsAction};

/// An action whose principal may ask for it. Made by `scope` alone.
#[derive(Debug)]
pub(crate) struct Scoped {
    action: Action,
    by_agent: bool,
}

impl Scoped {
    /// Whether an agent asks for itself.
    pub(super) fn is_agents_own(&self) -> bool {
        self.by_agent
    }

    pub(super) fn action(&self) -> &Action {
        &self.action
    }

    pub(super) fn into_action(self) -> Action {
        self.action
    }
}

/// Why a principal may not ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// It lacks this scope.
    Scope(Scope),
    /// The method is not for its role.
    Role(Role),
    /// Only for the unix socket: never over the network, whatever the scopes.
    NotLocal,
    /// An agent may ask for itself alone.
    OtherAgent,
}

/// A refusal before any rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MissingScope {
    pub(crate) why: Why,
}

/// What somebody must be to come through one door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// Anybody, also before authentication.
    Nothing,
    /// Anybody who was let in.
    Admission,
    /// A principal whose scopes cover this one.
    Scope(Scope),
    /// Goes to the connection that it is about, and to no other.
    Own,
}

use Need::{Admission, Nothing, Own};

const ADMIN: Need = Need::Scope(Scope::Admin);
const READ: Need = Need::Scope(Scope::Read);
const WRITE: Need = Need::Scope(Scope::Write);
const PAIRING: Need = Need::Scope(Scope::Pairing);

/// Every method, route and event there is, with what it needs. What is not here is refused: a method is unknown, a
/// route is 404, an event goes to nobody.
const TABLE: &[(&str, Need)] = &[
    // methods
    ("health", Admission),
    ("status", READ),
    ("system-presence", READ),
    ("gateway.identity.get", READ),
    ("config.get", READ),
    ("config.reload", ADMIN),
    ("exec.run", WRITE),
    ("exec.input", WRITE),
    ("exec.cancel", WRITE),
    ("exec.resize", WRITE),
    ("lockdown.status", READ),
    // Whoever may run may stop everything; only an admin lets it go on.
    ("lockdown.on", WRITE),
    ("lockdown.off", ADMIN),
    ("sandbox.list", READ),
    ("sandbox.recreate", ADMIN),
    ("sandbox.prune", ADMIN),
    ("sandbox.file.read", WRITE),
    ("sandbox.file.write", WRITE),
    ("sandbox.file.list", WRITE),
    ("journal.list", ADMIN),
    ("journal.verify", ADMIN),
    ("token.show", ADMIN),
    ("token.rotate", ADMIN),
    ("password.set", ADMIN),
    ("device.pair.list", PAIRING),
    ("device.pair.approve", PAIRING),
    ("device.pair.reject", PAIRING),
    ("device.pair.remove", PAIRING),
    ("device.pair.rename", PAIRING),
    ("device.pair.setupCode", ADMIN),
    ("device.pair.setupStatus", ADMIN),
    ("device.token.rotate", PAIRING),
    ("device.token.revoke", PAIRING),
    ("node.pair.list", PAIRING),
    ("node.pair.approve", PAIRING),
    ("node.pair.reject", PAIRING),
    ("node.pair.remove", PAIRING),
    ("node.rename", PAIRING),
    ("node.list", READ),
    ("node.describe", READ),
    ("secrets.store.list", ADMIN),
    ("secrets.store.set", ADMIN),
    ("secrets.store.grant", ADMIN),
    ("secrets.store.delete", ADMIN),
    ("secrets.key.rotate", ADMIN),
    ("state.backup", ADMIN),
    // routes; what /rpc/METHOD needs is what METHOD needs, judged where every request is
    ("/health", Nothing),
    ("/healthz", Nothing),
    ("/ready", Nothing),
    ("/readyz", Nothing),
    ("/startup", Nothing),
    ("/startupz", Nothing),
    ("/rpc/", Admission),
    // events
    ("connect.challenge", Nothing),
    ("tick", Admission),
    ("shutdown", Admission),
    ("exec.started", Own),
    ("exec.output", Own),
    ("journal.entry", ADMIN),
    ("lockdown.changed", READ),
    ("device.pair.requested", PAIRING),
    ("device.pair.resolved", PAIRING),
    ("device.pair.changed", PAIRING),
    ("device.pair.setup.completed", ADMIN),
    ("node.pair.requested", PAIRING),
    ("node.pair.resolved", PAIRING),
];

/// What a method, a route or an event needs; `None` where there is no such thing.
pub(crate) fn need(name: &str) -> Option<Need> {
    TABLE.iter().find(|(known, _)| *known == name).map(|(_, need)| *need)
}

/// Whether a principal may see an event of this name that is not about itself.
pub(crate) fn may_see(principal: &Principal, event: &str) -> bool {
    match need(event) {
        Some(Nothing | Admission) => true,
        Some(Need::Scope(scope)) => principal.scopes.covers(scope),
        Some(Own) | None => false,
    }
}

/// Whether this principal may ask for this action.
///
/// # Errors
/// What is missing.
pub(crate) fn scope(principal: &Principal, action: Action) -> Result<Scoped, MissingScope> {
    let refuse = |why| Err(MissingScope { why });
    if principal.role == Role::Node && action != Action::Health {
        return refuse(Why::Role(Role::Node));
    }
    let missing = match need(action.method()) {
        Some(Admission) => None,
        Some(Need::Scope(scope)) => (!principal.scopes.covers(scope)).then_some(scope),
        // A method that the table does not know is nobody's.
        _ => Some(Scope::Admin),
    };
    if let Some(scope) = missing
        && !agent_may(principal, &action)
    {
        return refuse(Why::Scope(scope));
    }
    if let (Some(own), Action::ExecRun(request)) = (&principal.agent, &action)
        && *own != request.agent
    {
        return refuse(Why::OtherAgent);
    }
    let is_for_this_host = matches!(
        action,
        Action::ConfigReload
            | Action::TokenShow
            | Action::TokenRotate
            | Action::PasswordSet { .. }
            | Action::Secrets(SecretsAction::RotateKey | SecretsAction::Backup { .. })
    );
    if is_for_this_host && !matches!(principal.credential, crate::model::Credential::PeerUid(_)) {
        return refuse(Why::NotLocal);
    }
    Ok(Scoped { action, by_agent: principal.agent.is_some() })
}

/// What an agent's own scope allows.
fn agent_may(principal: &Principal, action: &Action) -> bool {
    // The scope belongs to one agent; whoever holds it without being one holds nothing.
    let needed = match action {
        Action::ExecRun(request) if request.file.is_some() => Scope::AgentFiles,
        Action::ExecRun(_) | Action::ExecSignal { .. } => Scope::AgentExec,
        _ => return false,
    };
    principal.agent.is_some() && principal.scopes.covers(needed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{AgentId, Credential, ExecRequest, JournalQuery, PairingAction, RequestId, ScopeSet, Stdin};

    fn principal(scopes: &[Scope], credential: Credential) -> Principal {
        Principal {
            role: Role::Operator,
            credential,
            device: None,
            scopes: scopes.iter().copied().collect(),
            agent: None,
        }
    }

    fn run_for(agent: &str) -> Action {
        Action::ExecRun(Box::new(ExecRequest {
            agent: AgentId::parse(agent).unwrap(),
            session: None,
            profile: None,
            argv: vec!["true".into()],
            cwd: None,
            env: Default::default(),
            secrets: Vec::new(),
            stdin: Stdin::Closed,
            terminal: None,
            file: None,
            timeout: None,
        }))
    }

    #[test]
    fn without_a_scope_only_health_answers() {
        let nobody = principal(&[], Credential::SharedToken);
        assert!(scope(&nobody, Action::Health).is_ok());
        for action in [
            Action::Status,
            Action::SystemPresence,
            Action::GatewayIdentity,
            Action::ConfigGet,
            Action::ConfigReload,
            Action::TokenShow,
            Action::JournalVerify,
            Action::JournalList(JournalQuery::default()),
            run_for("main"),
        ] {
            assert!(scope(&nobody, action.clone()).is_err(), "{action:?}");
        }
    }

    #[test]
    fn a_reader_does_not_run_and_a_writer_does_not_see_the_token() {
        assert!(scope(&principal(&[Scope::Read], Credential::SharedToken), run_for("main")).is_err());
        let writer = principal(&[Scope::Write], Credential::SharedToken);
        assert!(scope(&writer, run_for("main")).is_ok());
        assert!(scope(&writer, Action::JournalVerify).is_err());
    }

    #[test]
    fn the_token_is_shown_and_the_configuration_reloaded_on_the_unix_socket_alone() {
        let remote = Principal { scopes: ScopeSet::operator(), ..principal(&[], Credential::SharedToken) };
        assert_eq!(scope(&remote, Action::TokenShow).unwrap_err().why, Why::NotLocal);
        assert_eq!(scope(&remote, Action::ConfigReload).unwrap_err().why, Why::NotLocal);
        let local = Principal { scopes: ScopeSet::operator(), ..principal(&[], Credential::PeerUid(0)) };
        assert!(scope(&local, Action::TokenShow).is_ok() && scope(&local, Action::ConfigReload).is_ok());
    }

    #[test]
    fn an_agent_runs_for_itself_and_sees_nothing_else() {
        let agent = Principal {
            agent: Some(AgentId::parse("builder").unwrap()),
            ..principal(&[Scope::AgentExec, Scope::AgentFiles], Credential::SharedToken)
        };
        assert!(scope(&agent, run_for("builder")).is_ok());
        let nobody = Principal { agent: None, ..agent.clone() };
        assert!(scope(&nobody, run_for("builder")).is_err(), "an agent without a name is not every agent");
        assert_eq!(scope(&agent, run_for("main")).unwrap_err().why, Why::OtherAgent);
        assert!(scope(&agent, Action::Status).is_err());
        assert!(scope(&agent, Action::JournalVerify).is_err());
    }

    #[test]
    fn every_method_and_event_has_its_line_in_the_table_and_no_line_stands_twice() {
        for name in crate::wire::METHODS.iter().chain(crate::wire::EVENTS) {
            assert!(need(name).is_some(), "{name} has no scope");
        }
        for method in crate::wire::METHODS {
            assert!(matches!(need(method), Some(Admission | Need::Scope(_))), "{method} is open to strangers");
        }
        for (at, (name, _)) in TABLE.iter().enumerate() {
            assert!(!TABLE[..at].iter().any(|(other, _)| other == name), "{name} stands twice");
            let known = crate::wire::METHODS.contains(name) || crate::wire::EVENTS.contains(name);
            assert!(known || name.starts_with('/'), "{name} is nothing there is");
        }
        assert_eq!(need("config.apply"), None);
    }

    #[test]
    fn pairing_is_neither_read_nor_written_without_its_scope() {
        let reader = principal(&[Scope::Read, Scope::Write], Credential::SharedToken);
        assert!(scope(&reader, Action::Pairing(PairingAction::List)).is_err());
        assert!(!may_see(&reader, "device.pair.requested") && may_see(&reader, "tick"));
        let pairing = principal(&[Scope::Pairing], Credential::SharedToken);
        assert!(scope(&pairing, Action::Pairing(PairingAction::List)).is_ok());
        let setup = RequestId::claimed("x");
        assert!(scope(&pairing, Action::Pairing(PairingAction::InviteStatus { setup })).is_err());
        assert!(!may_see(&pairing, "exec.output") && !may_see(&pairing, "no.such.event"));
    }

    #[test]
    fn a_node_asks_for_nothing_yet() {
        let node =
            Principal { role: Role::Node, scopes: ScopeSet::operator(), ..principal(&[], Credential::SharedToken) };
        assert_eq!(scope(&node, Action::Status).unwrap_err().why, Why::Role(Role::Node));
    }
}
