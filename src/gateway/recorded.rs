//! The journal's place in the corridor: a permit goes in, and comes out only with its receipt.

use super::{Gateway, methods};
use crate::auth::Session;
use crate::journal::{Event, JournalFault, Receipt, Record};
use crate::model::{
    Action, ExecRequest, LockdownAction, NodeAction, PairingAction, RunId, Running, SandboxAction, SandboxProfile,
    SecretsAction,
};
use crate::policy::{Denial, MissingScope, Permit, Permitted, Why};

/// What may now be done. What changes or runs something carries the receipt of its record.
#[derive(Debug)]
pub(super) enum Recorded {
    Run {
        request: Box<ExecRequest>,
        profile: Box<SandboxProfile>,
        run: RunId,
        receipt: Receipt,
    },
    TokenShow(Receipt),
    TokenRotate(Receipt),
    PasswordSet(String, Receipt),
    Pairing(PairingAction, Receipt),
    Nodes(NodeAction, Receipt),
    Secrets(SecretsAction, Receipt),
    Lockdown(LockdownAction, Receipt),
    Sandboxes(SandboxAction, Receipt),
    /// Reading and the steering of runs that are recorded themselves.
    Plain(Action),
}

impl Recorded {
    /// Writes the record of a permit and spends it.
    ///
    /// # Errors
    /// Where the journal does not take the record: then nothing is done.
    pub(super) fn write(gateway: &Gateway, session: &Session, permit: Permit) -> Result<Self, JournalFault> {
        let rule = permit.rule().to_owned();
        let by = |event| Record::new(event).by(&session.principal, &session.peer.label());
        let journal = &gateway.parts.journal;
        match permit.spend() {
            Permitted::Run { request, profile } => {
                let run = RunId::from_random((gateway.parts.random)());
                let mut record = by(Event::ExecPermitted).asking(&request).decided("permit", &rule);
                record.run = Some(run.as_str().to_owned());
                record.setup = profile.setup.clone();
                let receipt = journal.append(record)?;
                Ok(Recorded::Run { request, profile, run, receipt })
            }
            Permitted::Plain(Action::TokenShow) => Ok(Recorded::TokenShow(journal.append(by(Event::TokenShown))?)),
            Permitted::Plain(Action::TokenRotate) => {
                Ok(Recorded::TokenRotate(journal.append(by(Event::TokenRotated))?))
            }
            Permitted::Plain(Action::PasswordSet { hash }) => {
                Ok(Recorded::PasswordSet(hash, journal.append(by(Event::PasswordSet))?))
            }
            Permitted::Plain(Action::Pairing(action)) if !action.reads() => {
                let mut record = by(methods::pairing_event(&action)).about(&methods::pairing_target(&action));
                record.scopes = match &action {
                    PairingAction::Invite(invitation) => Some(invitation.scopes.names().join(" ")),
                    PairingAction::Approve { scopes: Some(scopes), .. }
                    | PairingAction::Rotate { scopes: Some(scopes), .. } => Some(scopes.names().join(" ")),
                    _ => None,
                };
                if let PairingAction::Approve { agent: Some(agent), .. } = &action {
                    record.agent = Some(agent.to_string());
                }
                Ok(Recorded::Pairing(action, journal.append(record)?))
            }
            Permitted::Plain(Action::Nodes(action)) if !action.reads() => {
                let record = by(methods::node_event(&action)).about(&methods::node_target(&action));
                Ok(Recorded::Nodes(action, journal.append(record)?))
            }
            Permitted::Plain(Action::Secrets(action)) if let Some(event) = methods::secrets_event(&action) => {
                let mut record = by(event);
                record.target = action.target().map(ToOwned::to_owned);
                record.agents = match &action {
                    SecretsAction::Set { agents: Some(agents), .. } | SecretsAction::Grant { agents, .. } => {
                        Some(agents.iter().map(|agent| &**agent).collect::<Vec<_>>().join(" "))
                    }
                    _ => None,
                };
                Ok(Recorded::Secrets(action, journal.append(record)?))
            }
            Permitted::Plain(Action::Lockdown(action)) if let Some(event) = methods::lockdown_event(action) => {
                let mut record = by(event);
                if action == LockdownAction::On(Running::Killed) {
                    record = record.about("running commands are killed");
                }
                Ok(Recorded::Lockdown(action, journal.append(record)?))
            }
            Permitted::Plain(Action::Sandboxes(action)) if let Some(event) = methods::sandbox_event(&action) => {
                let record = by(event).about(&methods::sandbox_target(&action));
                Ok(Recorded::Sandboxes(action, journal.append(record)?))
            }
            Permitted::Plain(action) => Ok(Recorded::Plain(action)),
        }
    }
}

/// Records the end of an act that has one.
pub(super) fn finish(gateway: &Gateway, record: Option<Record>) -> Result<(), JournalFault> {
    let Some(record) = record else { return Ok(()) };
    gateway.parts.journal.append(record).map(|_receipt| ())
}

/// Records that a principal lacked the right to ask.
pub(super) fn refusal(gateway: &Gateway, session: &Session, method: &str, missing: &MissingScope) {
    let rule = match missing.why {
        Why::Scope(scope) => format!("scope.{}", scope.as_str()),
        Why::Role(role) => format!("role.{}", role.as_str()),
        Why::NotLocal => "unix-socket-only".to_owned(),
        Why::OtherAgent => "own-agent-only".to_owned(),
    };
    let mut record =
        Record::new(Event::RequestDenied).by(&session.principal, &session.peer.label()).decided("deny", &rule);
    record = record.error(&format!("{method} was refused"));
    write(gateway, session, record);
}

/// Records that the rules denied a request.
pub(super) fn denial(gateway: &Gateway, session: &Session, method: &str, denial: &Denial) {
    let event = if denial.request.is_some() { Event::ExecDenied } else { Event::RequestDenied };
    let mut record = Record::new(event).by(&session.principal, &session.peer.label()).decided("deny", &denial.rule);
    if let Some(request) = &denial.request {
        record = record.asking(request);
    }
    write(gateway, session, record.error(&format!("{method}: {}", denial.reason)));
}

/// A refusal stands whether or not it can be recorded; that it could not is logged.
fn write(gateway: &Gateway, session: &Session, mut record: Record) {
    let Some(unrecorded) = gateway.may_record_denial(&session.principal.label()) else { return };
    if unrecorded > 0 {
        let said = record.error.take().unwrap_or_default();
        record = record.error(&format!("{said}; {unrecorded} more denials before this one were not recorded"));
    }
    if let Err(error) = gateway.parts.journal.append(record) {
        tracing::error!(%error, "cannot record a refusal");
    }
}
