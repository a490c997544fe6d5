//! What an operator may ask about devices and nodes, and the limits of what they may be given.

use super::{AgentId, DeviceId, RequestId, Role, Scope, ScopeSet};

/// Something asked about paired devices, their requests and their tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PairingAction {
    List,
    /// Grants a request: all of it, or of its scopes only these; for one agent alone where one is named.
    Approve {
        request: RequestId,
        scopes: Option<ScopeSet>,
        agent: Option<AgentId>,
    },
    Reject {
        request: RequestId,
    },
    Remove {
        device: DeviceId,
    },
    Rename {
        device: DeviceId,
        label: String,
    },
    /// A new token for a role; the scopes may shrink with it.
    Rotate {
        device: DeviceId,
        role: Role,
        scopes: Option<ScopeSet>,
    },
    Revoke {
        device: DeviceId,
        role: Role,
    },
    Invite(Invitation),
    InviteStatus {
        setup: RequestId,
    },
}

/// What a setup code is to grant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Invitation {
    /// Where the device reaches us; without it the address we are bound to.
    pub(crate) url: Option<String>,
    pub(crate) role: Role,
    pub(crate) scopes: ScopeSet,
    pub(crate) agent: Option<AgentId>,
}

/// Something asked about nodes and what they offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NodeAction {
    PairList,
    Approve { request: RequestId },
    Reject { request: RequestId },
    Remove { node: DeviceId },
    Rename { node: DeviceId, name: String },
    List,
    Describe { node: DeviceId },
}

impl PairingAction {
    /// The name of the method that asks for it.
    pub(super) fn method(&self) -> &'static str {
        match self {
            PairingAction::List => "device.pair.list",
            PairingAction::Approve { .. } => "device.pair.approve",
            PairingAction::Reject { .. } => "device.pair.reject",
            PairingAction::Remove { .. } => "device.pair.remove",
            PairingAction::Rename { .. } => "device.pair.rename",
            PairingAction::Rotate { .. } => "device.token.rotate",
            PairingAction::Revoke { .. } => "device.token.revoke",
            PairingAction::Invite(_) => "device.pair.setupCode",
            PairingAction::InviteStatus { .. } => "device.pair.setupStatus",
        }
    }

    /// Whether it only tells.
    pub(crate) fn reads(&self) -> bool {
        matches!(self, PairingAction::List | PairingAction::InviteStatus { .. })
    }
}

impl NodeAction {
    /// The name of the method that asks for it.
    pub(super) fn method(&self) -> &'static str {
        match self {
            NodeAction::PairList => "node.pair.list",
            NodeAction::Approve { .. } => "node.pair.approve",
            NodeAction::Reject { .. } => "node.pair.reject",
            NodeAction::Remove { .. } => "node.pair.remove",
            NodeAction::Rename { .. } => "node.rename",
            NodeAction::List => "node.list",
            NodeAction::Describe { .. } => "node.describe",
        }
    }

    /// Whether it only tells.
    pub(crate) fn reads(&self) -> bool {
        matches!(self, NodeAction::PairList | NodeAction::List | NodeAction::Describe { .. })
    }
}

/// What an approver must hold to grant these scopes; an agent's are an operator's to give who may run for any agent.
pub(crate) fn needed_to_grant(scopes: ScopeSet) -> ScopeSet {
    scopes
        .iter()
        .map(|scope| if matches!(scope, Scope::AgentExec | Scope::AgentFiles) { Scope::Write } else { scope })
        .collect()
}

/// What an approver must hold besides `operator.pairing` to let a node offer these commands (protocol section 4.2).
pub(crate) fn needed_to_enable(commands: &[String]) -> ScopeSet {
    let powerful = |command: &String| {
        ["system.run", "system.which", "fs.listDir", "browser.proxy", "system.execApprovals", "terminal."]
            .iter()
            .any(|prefix| command.starts_with(prefix))
    };
    let mut needed = vec![Scope::Pairing];
    if commands.iter().any(|command| !powerful(command)) {
        needed.push(Scope::Write);
    }
    if commands.iter().any(powerful) {
        needed.push(Scope::Admin);
    }
    needed.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_runs_commands_needs_an_admin() {
        let needed =
            |commands: &[&str]| needed_to_enable(&commands.iter().map(|c| (*c).to_owned()).collect::<Vec<_>>()).names();
        assert_eq!(needed(&[]), ["operator.pairing"]);
        assert_eq!(needed(&["dir.list"]), ["operator.write", "operator.pairing"]);
        assert_eq!(needed(&["system.run.prepare"]), ["operator.admin", "operator.pairing"]);
    }
}
