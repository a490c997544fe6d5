//! The acts themselves, one file a family. What is done here was permitted and recorded before.

mod connections;
mod exec;
mod facts;
mod files;
mod journal;
mod lockdown;
mod nodes;
mod pairing;
mod reload;
mod sandboxes;
mod secrets;
mod token;

pub(super) use journal::entry_json;

pub(super) use lockdown::event as lockdown_event;
pub(super) use nodes::{event as node_event, target as node_target};
pub(super) use pairing::{event as pairing_event, target as pairing_target};
pub(super) use sandboxes::{InUse, event as sandbox_event, target as sandbox_target};
pub(super) use secrets::event as secrets_event;

use super::Gateway;
use super::outbox::Outbox;
use super::recorded::Recorded;
use super::reply::Answer;
use crate::auth::Session;
use crate::journal::Record;
use crate::model::Action;
use std::sync::Arc;

/// What came of an act: the answer, and the record of its end if it has one.
pub(super) struct Done {
    pub(super) answer: Answer,
    pub(super) record: Option<Record>,
}

impl From<Answer> for Done {
    fn from(answer: Answer) -> Self {
        Done { answer, record: None }
    }
}

/// Does what was permitted and recorded.
pub(super) async fn perform(
    gateway: &Arc<Gateway>,
    session: &Session,
    recorded: Recorded,
    request_id: &str,
    outbox: &Outbox,
) -> Done {
    match recorded {
        Recorded::Run { request, profile, run, receipt } => {
            exec::run(gateway, session, *request, *profile, run, receipt, request_id, outbox).await
        }
        Recorded::TokenShow(receipt) => token::show(gateway, receipt).await.into(),
        Recorded::TokenRotate(receipt) => token::rotate(gateway, session, receipt).await.into(),
        Recorded::PasswordSet(hash, receipt) => token::set_password(gateway, session, hash, receipt).await.into(),
        Recorded::Pairing(action, receipt) => pairing::change(gateway, session, action, receipt).await,
        Recorded::Nodes(action, receipt) => nodes::change(gateway, session, action, receipt).await,
        Recorded::Secrets(action, receipt) => secrets::change(gateway, session, action, receipt).await,
        Recorded::Lockdown(action, receipt) => lockdown::change(gateway, session, action, receipt).await,
        Recorded::Sandboxes(action, receipt) => sandboxes::change(gateway, session, action, receipt).await,
        Recorded::Plain(action) => plain(gateway, session, action).await.into(),
    }
}

async fn plain(gateway: &Gateway, session: &Session, action: Action) -> Answer {
    match action {
        Action::Health => Ok(facts::health(gateway)),
        Action::Status => Ok(facts::status(gateway)),
        Action::SystemPresence => Ok(gateway.hub.presence(1000)),
        Action::GatewayIdentity => Ok(facts::identity(gateway)),
        Action::ConfigGet => Ok(facts::config(gateway)),
        Action::ConfigReload => reload::reload(gateway, session).await,
        Action::ExecSignal { run, signal } => exec::signal(gateway, session, &run, signal).await,
        Action::JournalList(query) => journal::list(gateway, session, query).await,
        Action::JournalVerify => journal::verify(gateway).await,
        Action::Pairing(action) => pairing::tell(gateway, session, &action),
        Action::Secrets(_) => secrets::list(gateway),
        Action::Lockdown(_) => lockdown::status(gateway),
        Action::Sandboxes(_) => sandboxes::list(gateway).await,
        Action::Nodes(action) => nodes::tell(gateway, session, &action),
        Action::ExecRun(_) | Action::TokenShow | Action::TokenRotate | Action::PasswordSet { .. } => {
            unreachable!("recorded acts have their own variants")
        }
    }
}
