//! Parameters of `lockdown.*`, `sandbox.*` and the file tools.

use super::bytes;
use super::frame::Frame;
use super::methods::{Invalid, Nothing, read};
use crate::model::{
    AgentId, ExecRequest, FileAct, LONGEST_PIECE, LockdownAction, ProfileName, Running, SandboxAction, SessionId, Stdin,
};
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

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileParams {
    #[serde(default)]
    agent: Option<String>,
    #[serde(default)]
    session: Option<String>,
    #[serde(default)]
    profile: Option<String>,
    path: String,
    #[serde(default)]
    offset: Option<u64>,
    #[serde(default)]
    length: Option<u64>,
    /// Base64.
    #[serde(default)]
    data: Option<String>,
    #[serde(default)]
    append: Option<bool>,
}

/// The request of a `sandbox.file.*` method; `None` where there is no such method.
pub(super) fn file(method: &str, frame: &Frame) -> Result<Option<ExecRequest>, Invalid> {
    if !matches!(method, "sandbox.file.read" | "sandbox.file.write" | "sandbox.file.list") {
        return Ok(None);
    }
    let wrong = |why: String| Invalid::Params { method: method.to_owned(), why };
    file_request(method, read(frame)?).map(Some).map_err(wrong)
}

fn file_request(method: &str, params: FileParams) -> Result<ExecRequest, String> {
    let FileParams { agent, session, profile, path, offset, length, data, append } = params;
    if let Some(why) = FileAct::refused_path(&path) {
        return Err(format!("at path: it {why}"));
    }
    if path.is_empty() && method != "sandbox.file.list" {
        return Err("at path: must name a file".into());
    }
    let (reads, writes) = (offset.is_some() || length.is_some(), data.is_some() || append.is_some());
    let mut input = Vec::new();
    let act = match method {
        "sandbox.file.read" if !writes => {
            let length = length.unwrap_or(LONGEST_PIECE);
            if !(1..=LONGEST_PIECE).contains(&length) {
                return Err(format!("at length: between 1 and {LONGEST_PIECE}"));
            }
            FileAct::Read { path, offset: offset.unwrap_or(0), length }
        }
        "sandbox.file.write" if !reads => {
            let data = data.ok_or("at data: missing")?;
            if data.len() as u64 > LONGEST_PIECE * 4 / 3 + 4 {
                return Err(format!("at data: at most {LONGEST_PIECE} bytes at once; append the rest"));
            }
            input = bytes::decode(&data).ok_or("at data: not base64")?;
            FileAct::Write { path, append: append.unwrap_or(false) }
        }
        "sandbox.file.list" if !reads && !writes => FileAct::List { path },
        _ => return Err("a parameter of another method".into()),
    };
    let bad = |path: &'static str| move |e: crate::model::BadId| format!("at {path}: {e}");
    Ok(ExecRequest {
        agent: AgentId::parse(agent.as_deref().unwrap_or("main")).map_err(bad("agent"))?,
        session: session.as_deref().map(SessionId::parse).transpose().map_err(bad("session"))?,
        profile: profile.as_deref().map(ProfileName::parse).transpose().map_err(bad("profile"))?,
        // What stands in the record.
        argv: vec![act.method().to_owned(), act.path().to_owned()],
        cwd: None,
        env: Default::default(),
        secrets: Vec::new(),
        stdin: Stdin::Piped,
        terminal: None,
        file: Some((act, input)),
        timeout: None,
    })
}
