//! Parameters of `lockdown.*` and `sandbox.*`.

use super::frame::Frame;
use super::methods::{Invalid, Nothing, read};
use crate::model::{LockdownAction, Running, SandboxAction};
use serde::Deserialize;
use std::time::Duration;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OnParams {
    /// End running commands instead of stopping them.
    #[serde(default)]
    kill: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RecreateParams {
    name: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct PruneParams {
    #[serde(default)]
    idle_ms: Option<u64>,
}

/// The action of a `lockdown.*` method; `None` where there is no such method.
pub(super) fn lockdown(method: &str, frame: &Frame) -> Result<Option<LockdownAction>, Invalid> {
    Ok(Some(match method {
        "lockdown.status" => read::<Nothing>(frame).map(|Nothing {}| LockdownAction::Status)?,
        "lockdown.on" => {
            let kill = read::<OnParams>(frame)?.kill;
            LockdownAction::On(if kill { Running::Killed } else { Running::Stopped })
        }
        "lockdown.off" => read::<Nothing>(frame).map(|Nothing {}| LockdownAction::Off)?,
        _ => return Ok(None),
    }))
}

/// The action of a `sandbox.*` method; `None` where there is no such method.
pub(super) fn sandbox(method: &str, frame: &Frame) -> Result<Option<SandboxAction>, Invalid> {
    Ok(Some(match method {
        "sandbox.list" => read::<Nothing>(frame).map(|Nothing {}| SandboxAction::List)?,
        "sandbox.recreate" => SandboxAction::Recreate { name: read::<RecreateParams>(frame)?.name },
        "sandbox.prune" => {
            SandboxAction::Prune { idle: read::<PruneParams>(frame)?.idle_ms.map(Duration::from_millis) }
        }
        _ => return Ok(None),
    }))
}
