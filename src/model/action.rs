//! Everything a client may ask for, as one closed enum. What is not here cannot be asked.

use super::{ExecRequest, LockdownAction, NodeAction, PairingAction, RunId, SandboxAction, SecretsAction, WindowSize};

/// What a running command is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RunSignal {
    /// Bytes for its standard input; `eof` closes it after them.
    Input { bytes: Vec<u8>, eof: bool },
    /// Its terminal has another size.
    Resize(WindowSize),
    /// End it and its whole tree.
    Cancel,
}

/// Which entries of the journal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct JournalQuery {
    /// Only entries after this sequence number.
    pub(crate) after: Option<u64>,
    /// At most this many: the first ones after `after`, or without it the latest.
    pub(crate) limit: Option<usize>,
    /// Only this event, e.g. `exec.finished`.
    pub(crate) event: Option<String>,
    /// Keep sending new entries as `journal.entry` events.
    pub(crate) follow: bool,
}

/// One thing asked of the gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    Health,
    Status,
    SystemPresence,
    GatewayIdentity,
    ConfigGet,
    /// Read the configuration again.
    ConfigReload,
    ExecRun(Box<ExecRequest>),
    ExecSignal {
        run: RunId,
        signal: RunSignal,
    },
    TokenShow,
    TokenRotate,
    /// Replaces the password by the one with this bcrypt hash.
    PasswordSet {
        hash: String,
    },
    Pairing(PairingAction),
    Nodes(NodeAction),
    Secrets(SecretsAction),
    Lockdown(LockdownAction),
    Sandboxes(SandboxAction),
    JournalList(JournalQuery),
    JournalVerify,
}

impl Action {
    /// The name of the method that asks for it.
    pub(crate) fn method(&self) -> &'static str {
        match self {
            Action::Health => "health",
            Action::Status => "status",
            Action::SystemPresence => "system-presence",
            Action::GatewayIdentity => "gateway.identity.get",
            Action::ConfigGet => "config.get",
            Action::ConfigReload => "config.reload",
            Action::ExecRun(request) => request.file.as_ref().map_or("exec.run", |(act, _)| act.method()),
            Action::ExecSignal { signal: RunSignal::Input { .. }, .. } => "exec.input",
            Action::ExecSignal { signal: RunSignal::Resize(_), .. } => "exec.resize",
            Action::ExecSignal { signal: RunSignal::Cancel, .. } => "exec.cancel",
            Action::TokenShow => "token.show",
            Action::TokenRotate => "token.rotate",
            Action::PasswordSet { .. } => "password.set",
            Action::Pairing(action) => action.method(),
            Action::Nodes(action) => action.method(),
            Action::Secrets(action) => action.method(),
            Action::Lockdown(action) => action.method(),
            Action::Sandboxes(action) => action.method(),
            Action::JournalList(_) => "journal.list",
            Action::JournalVerify => "journal.verify",
        }
    }
}
