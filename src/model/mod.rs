//! The nouns of the house: plain values that every room speaks of.
//!
//! Knows no I/O, no async and no serde: a value here means the same in a unit test as in the
//! running gateway. What comes from outside becomes one of these at the door or not at all.

mod action;
mod clock;
mod control;
mod domain;
mod enforcement;
mod engine;
mod file;
mod grant;
mod id;
mod pairing;
mod principal;
mod profile;
mod run;
mod secret;

pub(crate) use action::{Action, JournalQuery, RunSignal};
pub(crate) use clock::{Clock, Steady, SystemClock, UnixMillis};
pub(crate) use control::{LockdownAction, Running, SandboxAction};
pub(crate) use domain::{BadDomain, Domain, Reach};
pub(crate) use enforcement::{Container, Enforcement, LimitKind, Means, StandingContainer, Tier};
pub(crate) use engine::EngineHost;
pub(crate) use file::{FileAct, LONGEST_LIST, LONGEST_PIECE};
pub(crate) use grant::{
    Delivery, Grants, LONGEST_SECRET, MOST_SECRETS_A_RUN, SHORTEST_SECRET, SecretName, SecretUse, SecretsAction,
};
pub(crate) use id::{AgentId, BadId, ConnId, DeviceId, ProfileName, RequestId, RunId, SessionId};
pub(crate) use pairing::{Invitation, NodeAction, PairingAction, needed_to_enable, needed_to_grant};
pub(crate) use principal::{Credential, Principal, Role, Scope, ScopeSet};
pub(crate) use profile::{Backend, ExecMode, Limits, Network, SandboxProfile, SandboxScope, WorkspaceAccess};
pub(crate) use run::{
    Ending, ExecRequest, LaunchFault, Outcome, RunFault, Stdin, Stream, WindowSize, is_variable_name,
};
pub(crate) use secret::Secret;
