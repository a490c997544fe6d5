//! Parameters of `secrets.*` and `state.backup`. A value is read into memory of its own that is zeroed, and nothing of it
//! stands in an error.

use super::bytes;
use super::frame::Frame;
use super::methods::{Invalid, Nothing, read};
use crate::model::{AgentId, Secret, SecretName, SecretsAction};
use serde::Deserialize;
use std::collections::BTreeSet;
use zeroize::Zeroize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct SetParams {
    name: String,
    /// The value as text.
    #[serde(default)]
    value: Option<String>,
    /// The value as base64, where it is no text.
    #[serde(default)]
    data: Option<String>,
    #[serde(default)]
    kind: Option<String>,
    #[serde(default)]
    agents: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GrantParams {
    name: String,
    agents: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NameParams {
    name: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BackupParams {
    recipient: String,
}

/// `secrets.*` and `state.*`.
pub(super) fn secrets(method: &str, frame: &Frame) -> Result<Option<Result<SecretsAction, String>>, Invalid> {
    Ok(Some(match method {
        "secrets.store.list" => read::<Nothing>(frame).map(|Nothing {}| Ok(SecretsAction::List))?,
        "secrets.store.set" => set(read(frame).map_err(unspoken)?),
        "secrets.store.grant" => {
            let params: GrantParams = read(frame)?;
            name(&params.name).and_then(|name| Ok(SecretsAction::Grant { name, agents: agents(&params.agents)? }))
        }
        "secrets.store.delete" => name(&read::<NameParams>(frame)?.name).map(|name| SecretsAction::Remove { name }),
        "secrets.key.rotate" => read::<Nothing>(frame).map(|Nothing {}| Ok(SecretsAction::RotateKey))?,
        "state.backup" => {
            let recipient = read::<BackupParams>(frame)?.recipient;
            if recipient.len() <= 128 {
                Ok(SecretsAction::Backup { recipient })
            } else {
                Err("at recipient: at most 128 bytes".into())
            }
        }
        _ => return Ok(None),
    }))
}

/// What a parser says of a wrong value may quote the value.
fn unspoken(invalid: Invalid) -> Invalid {
    match invalid {
        Invalid::Params { method, .. } => {
            let why = "takes name, value or data, and maybe agents, a list of names; kind is \"secret\"".to_owned();
            Invalid::Params { method, why }
        }
        other => other,
    }
}

fn set(mut params: SetParams) -> Result<SecretsAction, String> {
    let value = match (params.value.take(), params.data.take()) {
        (Some(text), None) => Secret::new(text.into_bytes()),
        (None, Some(mut data)) => {
            let value = bytes::decode(&data).map(Secret::new);
            data.zeroize();
            value.ok_or("at data: not base64")?
        }
        _ => return Err("must have either value or data".into()),
    };
    if params.kind.is_some_and(|kind| kind != "secret") {
        return Err("at kind: only \"secret\" is kept; a variable that is no secret goes with the command".into());
    }
    let agents = params.agents.map(|names| agents(&names)).transpose()?;
    Ok(SecretsAction::Set { name: name(&params.name)?, value, agents })
}

fn name(text: &str) -> Result<SecretName, String> {
    SecretName::parse(text).map_err(|e| format!("at name: {e}"))
}

fn agents(names: &[String]) -> Result<BTreeSet<AgentId>, String> {
    names.iter().map(|name| AgentId::parse(name).map_err(|e| format!("at agents: {e}"))).collect()
}
