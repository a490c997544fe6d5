//! One table: which scope an action needs. A principal without it does not get as far as a rule.

use crate::model::{Action, Principal, Role, Scope};

/// An action whose principal may ask for it. Made by `scope` alone.
#[derive(Debug)]
pub(crate) struct Scoped {
    action: Action,
}

impl Scoped {
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

/// What an action needs; `None` means that any authenticated principal may ask.
pub(crate) fn required(action: &Action) -> Option<Scope> {
    match action {
        Action::Health => None,
        Action::Status | Action::SystemPresence | Action::GatewayIdentity | Action::ConfigGet => Some(Scope::Read),
        Action::ExecRun(_) | Action::ExecSignal { .. } => Some(Scope::Write),
        Action::JournalList(_) | Action::JournalVerify => Some(Scope::Admin),
        Action::TokenShow | Action::TokenRotate => Some(Scope::Admin),
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
    if let Some(scope) = required(&action)
        && !principal.scopes.covers(scope)
        && !agent_may(principal, &action)
    {
        return refuse(Why::Scope(scope));
    }
    if let (Some(own), Action::ExecRun(request)) = (&principal.agent, &action)
        && *own != request.agent
    {
        return refuse(Why::OtherAgent);
    }
    let secret = matches!(action, Action::TokenShow | Action::TokenRotate);
    if secret && !matches!(principal.credential, crate::model::Credential::PeerUid(_)) {
        return refuse(Why::NotLocal);
    }
    Ok(Scoped { action })
}

/// What an agent's own scope allows.
fn agent_may(principal: &Principal, action: &Action) -> bool {
    matches!(action, Action::ExecRun(_) | Action::ExecSignal { .. }) && principal.scopes.covers(Scope::AgentExec)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{AgentId, Credential, ExecRequest, JournalQuery, ScopeSet, Stdin};

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
            stdin: Stdin::Closed,
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
    fn the_token_is_shown_on_the_unix_socket_alone() {
        let remote = Principal { scopes: ScopeSet::operator(), ..principal(&[], Credential::SharedToken) };
        assert_eq!(scope(&remote, Action::TokenShow).unwrap_err().why, Why::NotLocal);
        let local = Principal { scopes: ScopeSet::operator(), ..principal(&[], Credential::PeerUid(0)) };
        assert!(scope(&local, Action::TokenShow).is_ok());
    }

    #[test]
    fn an_agent_runs_for_itself_and_sees_nothing_else() {
        let agent = Principal {
            agent: Some(AgentId::parse("builder").unwrap()),
            ..principal(&[Scope::AgentExec, Scope::AgentFiles], Credential::SharedToken)
        };
        assert!(scope(&agent, run_for("builder")).is_ok());
        assert_eq!(scope(&agent, run_for("main")).unwrap_err().why, Why::OtherAgent);
        assert!(scope(&agent, Action::Status).is_err());
        assert!(scope(&agent, Action::JournalVerify).is_err());
    }

    #[test]
    fn a_node_asks_for_nothing_yet() {
        let node =
            Principal { role: Role::Node, scopes: ScopeSet::operator(), ..principal(&[], Credential::SharedToken) };
        assert_eq!(scope(&node, Action::Status).unwrap_err().why, Why::Role(Role::Node));
    }
}
