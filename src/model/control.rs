//! What operators ask about sandboxes as such: what is kept, and lockdown.

use std::time::Duration;

/// Something asked about lockdown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LockdownAction {
    Status,
    /// Stops every sandbox and refuses new commands.
    On(Running),
    /// Lets everything go on.
    Off,
}

/// What becomes of commands that run when everything is locked down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Running {
    Stopped,
    Killed,
}

/// Something asked about kept sandboxes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SandboxAction {
    List,
    /// Removes what it keeps: its next command begins anew.
    Recreate {
        name: String,
    },
    /// Removes those that lie unused for so long, or for as long as their own profile says.
    Prune {
        idle: Option<Duration>,
    },
}

impl LockdownAction {
    /// The name of the method that asks for it.
    pub(crate) fn method(self) -> &'static str {
        match self {
            LockdownAction::Status => "lockdown.status",
            LockdownAction::On(_) => "lockdown.on",
            LockdownAction::Off => "lockdown.off",
        }
    }
}

impl SandboxAction {
    /// The name of the method that asks for it.
    pub(crate) fn method(&self) -> &'static str {
        match self {
            SandboxAction::List => "sandbox.list",
            SandboxAction::Recreate { .. } => "sandbox.recreate",
            SandboxAction::Prune { .. } => "sandbox.prune",
        }
    }
}
