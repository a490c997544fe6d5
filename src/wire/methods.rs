//! Method names and parameters, and the closed action each becomes.

use super::bytes;
use super::connect::unique_keys;
use super::control::{file, lockdown, sandbox};
use super::frame::{Frame, strip_position};
use super::pairing::{nodes, pairing};
use super::secrets::secrets;
use crate::model::{
    Action, AgentId, Delivery, ExecRequest, JournalQuery, MOST_SECRETS_A_RUN, ProfileName, RunId, RunSignal,
    SecretName, SecretUse, SessionId, Stdin, WindowSize, is_variable_name,
};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::time::Duration;

/// Every method a client may call, besides `connect`.
pub(crate) const METHODS: &[&str] = &[
    "health",
    "status",
    "system-presence",
    "gateway.identity.get",
    "config.get",
    "config.reload",
    "exec.run",
    "exec.input",
    "exec.cancel",
    "exec.resize",
    "lockdown.status",
    "lockdown.on",
    "lockdown.off",
    "sandbox.list",
    "sandbox.recreate",
    "sandbox.prune",
    "sandbox.file.read",
    "sandbox.file.write",
    "sandbox.file.list",
    "journal.list",
    "journal.verify",
    "token.show",
    "token.rotate",
    "password.set",
    "device.pair.list",
    "device.pair.approve",
    "device.pair.reject",
    "device.pair.remove",
    "device.pair.rename",
    "device.pair.setupCode",
    "device.pair.setupStatus",
    "device.token.rotate",
    "device.token.revoke",
    "node.pair.list",
    "node.pair.approve",
    "node.pair.reject",
    "node.pair.remove",
    "node.rename",
    "node.list",
    "node.describe",
    "secrets.store.list",
    "secrets.store.set",
    "secrets.store.grant",
    "secrets.store.delete",
    "secrets.key.rotate",
    "state.backup",
];

/// Every event a client may be sent.
pub(crate) const EVENTS: &[&str] = &[
    "connect.challenge",
    "tick",
    "shutdown",
    "exec.started",
    "exec.output",
    "journal.entry",
    "lockdown.changed",
    "device.pair.requested",
    "device.pair.resolved",
    "device.pair.changed",
    "device.pair.setup.completed",
    "node.pair.requested",
    "node.pair.resolved",
];

/// Why a request is no action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Invalid {
    UnknownMethod(String),
    /// `invalid <method> params: <why>`.
    Params {
        method: String,
        why: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HealthParams {
    #[serde(default)]
    probe: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct StatusParams {
    #[serde(default)]
    include_channel_summary: Option<bool>,
    #[serde(default)]
    include_cli_projection: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct ExecRunParams {
    command: Vec<String>,
    #[serde(default)]
    agent: Option<String>,
    #[serde(default)]
    session: Option<String>,
    #[serde(default)]
    profile: Option<String>,
    #[serde(default)]
    cwd: Option<String>,
    #[serde(default, deserialize_with = "unique_keys")]
    env: Option<BTreeMap<String, String>>,
    #[serde(default)]
    secrets: Option<Vec<SecretParams>>,
    #[serde(default)]
    stdin: bool,
    /// A terminal of this size instead of three streams.
    #[serde(default)]
    terminal: Option<SizeParams>,
    #[serde(default)]
    timeout_ms: Option<u64>,
    /// Where it runs; only the sandbox of this gateway so far.
    #[serde(default)]
    host: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SizeParams {
    rows: u16,
    columns: u16,
}

impl SizeParams {
    fn read(&self) -> Result<WindowSize, String> {
        let bounds = 1..=4096;
        if bounds.contains(&self.rows) && bounds.contains(&self.columns) {
            return Ok(WindowSize { rows: self.rows, columns: self.columns });
        }
        Err("rows and columns of a terminal lie between 1 and 4096".into())
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct ExecResizeParams {
    run_id: String,
    rows: u16,
    columns: u16,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SecretParams {
    name: String,
    /// The variable it is to be in; without it, it is a file.
    #[serde(default)]
    env: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct ExecInputParams {
    run_id: String,
    #[serde(default)]
    data: String,
    #[serde(default)]
    eof: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct ExecCancelParams {
    run_id: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JournalListParams {
    #[serde(default)]
    after: Option<u64>,
    #[serde(default)]
    limit: Option<usize>,
    #[serde(default)]
    event: Option<String>,
    #[serde(default)]
    follow: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PasswordSetParams {
    hash: String,
}

/// Most words of one command, and most bytes of all of them with the environment: well below execve's own bound.
const MAX_WORDS: usize = 4096;
const MAX_COMMAND_BYTES: usize = 128 << 10;

/// Most bytes of standard input in one `exec.input`.
const MAX_INPUT: usize = 128 << 10;

/// Turns a request into the action it asks for.
///
/// # Errors
/// Names the method and the parameter that is wrong.
pub(crate) fn action(frame: &Frame) -> Result<Action, Invalid> {
    let wrong = |why: String| Invalid::Params { method: frame.method.clone(), why };
    match frame.method.as_str() {
        "health" => read::<HealthParams>(frame).map(|p| {
            let _ = p.probe;
            Action::Health
        }),
        "status" => read::<StatusParams>(frame).map(|p| {
            let _ = (p.include_channel_summary, p.include_cli_projection);
            Action::Status
        }),
        "system-presence" => read::<Nothing>(frame).map(|Nothing {}| Action::SystemPresence),
        "gateway.identity.get" => read::<Nothing>(frame).map(|Nothing {}| Action::GatewayIdentity),
        "config.get" => read::<Nothing>(frame).map(|Nothing {}| Action::ConfigGet),
        "config.reload" => read::<Nothing>(frame).map(|Nothing {}| Action::ConfigReload),
        "exec.run" => exec_run(read(frame)?).map(|r| Action::ExecRun(Box::new(r))).map_err(wrong),
        "exec.input" => {
            let params: ExecInputParams = read(frame)?;
            if params.data.len() > MAX_INPUT * 4 / 3 + 4 {
                return Err(wrong(format!("at data: at most {MAX_INPUT} bytes at once")));
            }
            let data = bytes::decode(&params.data).ok_or_else(|| wrong("at data: not base64".into()))?;
            let run = run_id(&params.run_id).map_err(wrong)?;
            Ok(Action::ExecSignal { run, signal: RunSignal::Input { bytes: data, eof: params.eof } })
        }
        "exec.cancel" => {
            let run = run_id(&read::<ExecCancelParams>(frame)?.run_id).map_err(wrong)?;
            Ok(Action::ExecSignal { run, signal: RunSignal::Cancel })
        }
        "exec.resize" => {
            let params: ExecResizeParams = read(frame)?;
            let size = SizeParams { rows: params.rows, columns: params.columns }.read().map_err(wrong)?;
            let run = run_id(&params.run_id).map_err(wrong)?;
            Ok(Action::ExecSignal { run, signal: RunSignal::Resize(size) })
        }
        "journal.list" => read::<JournalListParams>(frame).map(|p| {
            Action::JournalList(JournalQuery { after: p.after, limit: p.limit, event: p.event, follow: p.follow })
        }),
        "journal.verify" => read::<Nothing>(frame).map(|Nothing {}| Action::JournalVerify),
        "token.show" => read::<Nothing>(frame).map(|Nothing {}| Action::TokenShow),
        "token.rotate" => read::<Nothing>(frame).map(|Nothing {}| Action::TokenRotate),
        "password.set" => read::<PasswordSetParams>(frame).map(|p| Action::PasswordSet { hash: p.hash }),
        method if method.starts_with("device.") => match pairing(method, frame)? {
            Some(action) => action.map(Action::Pairing).map_err(wrong),
            None => Err(Invalid::UnknownMethod(method.to_owned())),
        },
        method if method.starts_with("node.") => match nodes(method, frame)? {
            Some(action) => action.map(Action::Nodes).map_err(wrong),
            None => Err(Invalid::UnknownMethod(method.to_owned())),
        },
        method if method.starts_with("secrets.") || method.starts_with("state.") => match secrets(method, frame)? {
            Some(action) => action.map(Action::Secrets).map_err(wrong),
            None => Err(Invalid::UnknownMethod(method.to_owned())),
        },
        method if method.starts_with("lockdown.") => match lockdown(method, frame)? {
            Some(action) => Ok(Action::Lockdown(action)),
            None => Err(Invalid::UnknownMethod(method.to_owned())),
        },
        method if method.starts_with("sandbox.file.") => match file(method, frame)? {
            Some(request) => Ok(Action::ExecRun(Box::new(request))),
            None => Err(Invalid::UnknownMethod(method.to_owned())),
        },
        method if method.starts_with("sandbox.") => match sandbox(method, frame)? {
            Some(action) => Ok(Action::Sandboxes(action)),
            None => Err(Invalid::UnknownMethod(method.to_owned())),
        },
        other => Err(Invalid::UnknownMethod(other.to_owned())),
    }
}

pub(super) fn read<P: DeserializeOwned>(frame: &Frame) -> Result<P, Invalid> {
    let text = frame.params.as_ref().map_or("{}", |raw| raw.get());
    serde_json::from_str(text)
        .map_err(|e| Invalid::Params { method: frame.method.clone(), why: strip_position(&e.to_string()) })
}

fn run_id(text: &str) -> Result<RunId, String> {
    RunId::parse(text).ok_or_else(|| "at runId: not a run id".to_owned())
}

fn exec_run(params: ExecRunParams) -> Result<ExecRequest, String> {
    if params.command.is_empty() || params.command[0].is_empty() {
        return Err("at command: must name a command".into());
    }
    let env = params.env.unwrap_or_default();
    let words = params.command.len() + env.len();
    let bytes = params.command.iter().map(String::len).sum::<usize>()
        + env.iter().map(|(k, v)| k.len() + v.len()).sum::<usize>();
    if words > MAX_WORDS || bytes > MAX_COMMAND_BYTES {
        return Err(format!(
            "at command: at most {MAX_WORDS} words and {MAX_COMMAND_BYTES} bytes with the environment"
        ));
    }
    if params.command.iter().chain(env.values()).any(|text| text.contains('\0')) {
        return Err("at command: a NUL byte cannot be passed on".into());
    }
    if params.cwd.as_ref().is_some_and(|cwd| cwd.len() > 4096 || cwd.contains('\0')) {
        return Err("at cwd: at most 4096 bytes, none of them NUL".into());
    }
    if params.host.as_deref().is_some_and(|host| host != "sandbox") {
        return Err("at host: only \"sandbox\" is known to this gateway".into());
    }
    let timeout = params.timeout_ms.map(Duration::from_millis);
    if timeout == Some(Duration::ZERO) {
        return Err("at timeoutMs: must be at least 1".into());
    }
    let terminal = params.terminal.map(|size| size.read()).transpose().map_err(|why| format!("at terminal: {why}"))?;
    let secrets = secret_uses(params.secrets.unwrap_or_default(), &env)?;
    let bad = |path: &'static str| move |e: crate::model::BadId| format!("at {path}: {e}");
    Ok(ExecRequest {
        agent: AgentId::parse(params.agent.as_deref().unwrap_or("main")).map_err(bad("agent"))?,
        session: params.session.as_deref().map(SessionId::parse).transpose().map_err(bad("session"))?,
        profile: params.profile.as_deref().map(ProfileName::parse).transpose().map_err(bad("profile"))?,
        argv: params.command,
        cwd: params.cwd,
        env,
        secrets,
        stdin: if params.stdin { Stdin::Piped } else { Stdin::Closed },
        terminal,
        file: None,
        timeout,
    })
}

/// What a request says of secrets: each one way, no variable set by two.
fn secret_uses(asked: Vec<SecretParams>, env: &BTreeMap<String, String>) -> Result<Vec<SecretUse>, String> {
    if asked.len() > MOST_SECRETS_A_RUN {
        return Err(format!("at secrets: at most {MOST_SECRETS_A_RUN}"));
    }
    let mut uses: Vec<SecretUse> = Vec::with_capacity(asked.len());
    for SecretParams { name, env: variable } in asked {
        let name = SecretName::parse(&name).map_err(|e| format!("at secrets: {e}"))?;
        let delivery = match variable {
            None => Delivery::File,
            Some(variable) if is_variable_name(&variable) => Delivery::Variable(variable),
            // Not repeated: a value may have slipped in here.
            Some(_) => return Err(format!("at secrets: the env of {name} is not a name of an environment variable")),
        };
        match &delivery {
            Delivery::File if uses.iter().any(|used| used.name == name && used.delivery == Delivery::File) => {
                return Err(format!("at secrets: {name} is asked for twice as a file"));
            }
            Delivery::Variable(variable) if uses.iter().any(|used| used.delivery == delivery) => {
                return Err(format!("at secrets: the variable {variable} is asked for twice"));
            }
            Delivery::Variable(variable) if env.contains_key(variable) => {
                return Err(format!("at secrets: the variable {variable} is set by env as well"));
            }
            _ => uses.push(SecretUse { name, delivery }),
        }
    }
    Ok(uses)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Incoming;

    fn read_action(method: &str, params: &str) -> Result<Action, Invalid> {
        let text = format!(r#"{{"type":"req","id":"1","method":"{method}","params":{params}}}"#);
        let Incoming::Request(frame) = Incoming::read(&text) else { panic!("{text}") };
        action(&frame)
    }

    #[test]
    fn every_method_becomes_the_action_of_its_name() {
        let run = "0".repeat(32);
        for method in METHODS {
            let params = match *method {
                "exec.run" => r#"{"command":["true"]}"#.to_owned(),
                "exec.input" => format!(r#"{{"runId":"{run}","data":"","eof":true}}"#),
                "exec.cancel" => format!(r#"{{"runId":"{run}"}}"#),
                "exec.resize" => format!(r#"{{"runId":"{run}","rows":24,"columns":80}}"#),
                "sandbox.file.read" | "sandbox.file.list" => r#"{"path":"a"}"#.to_owned(),
                "sandbox.file.write" => r#"{"path":"a","data":""}"#.to_owned(),
                "sandbox.recreate" => r#"{"name":"shared"}"#.to_owned(),
                "password.set" => r#"{"hash":"x"}"#.to_owned(),
                "device.pair.approve" | "device.pair.reject" | "node.pair.approve" | "node.pair.reject" => {
                    r#"{"requestId":"r"}"#.to_owned()
                }
                "device.pair.remove" => r#"{"deviceId":"d"}"#.to_owned(),
                "device.pair.rename" => r#"{"deviceId":"d","label":" x "}"#.to_owned(),
                "device.pair.setupStatus" => r#"{"setupId":"s"}"#.to_owned(),
                "device.token.rotate" | "device.token.revoke" => r#"{"deviceId":"d","role":"node"}"#.to_owned(),
                "node.pair.remove" | "node.describe" => r#"{"nodeId":"d"}"#.to_owned(),
                "secrets.store.set" => r#"{"name":"A","value":"12345678"}"#.to_owned(),
                "secrets.store.grant" => r#"{"name":"A","agents":["a"]}"#.to_owned(),
                "secrets.store.delete" => r#"{"name":"A"}"#.to_owned(),
                "state.backup" => r#"{"recipient":"age1x"}"#.to_owned(),
                "node.rename" => r#"{"nodeId":"d","displayName":"x"}"#.to_owned(),
                _ => "{}".to_owned(),
            };
            assert_eq!(read_action(method, &params).map(|a| a.method()), Ok(*method));
        }
        assert!(matches!(read_action("config.apply", "{}"), Err(Invalid::UnknownMethod(_))));
    }

    #[test]
    fn what_would_widen_a_pairing_by_a_slip_is_refused() {
        for (method, params) in [
            ("device.pair.approve", r#"{"requestId":"r","scopes":["operator.zzz"]}"#),
            ("device.pair.approve", r#"{"requestId":"r","role":"node"}"#),
            ("device.pair.approve", r#"{"requestId":""}"#),
            ("device.pair.rename", r#"{"deviceId":"d","label":"  "}"#),
            ("device.pair.rename", "{\"deviceId\":\"d\",\"label\":\"a\\u001b[2J\"}"),
            ("device.token.rotate", r#"{"deviceId":"d","role":"admin"}"#),
            ("device.pair.setupCode", r#"{"bootstrapProfile":"voice-node"}"#),
            ("device.pair.setupCode", r#"{"role":"node","scopes":["operator.read"]}"#),
            ("device.pair.setupCode", r#"{"agent":"a","scopes":["operator.admin"]}"#),
            ("device.pair.setupCode", r#"{"scopes":["agent.exec"]}"#),
            ("device.pair.setupCode", r#"{"publicUrl":"http://x"}"#),
            ("device.pair.setupCode", r#"{"publicUrl":"wss://u:p@x"}"#),
            ("device.pair.setupCode", r#"{"publicUrl":"wss://x?token=t"}"#),
        ] {
            assert!(matches!(read_action(method, params), Err(Invalid::Params { .. })), "{method} {params}");
        }
        for method in ["device.pair.grant", "node.invoke", "device."] {
            assert!(matches!(read_action(method, "{}"), Err(Invalid::UnknownMethod(_))), "{method}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_secret_is_said_without_it() {
        for params in [
            r#"{"name":"A","value":["hunter2"]}"#,
            r#"{"name":"A","value":"hunter2","data":"aHVudGVyMg=="}"#,
            r#"{"name":"a","value":"hunter2"}"#,
            r#"{"name":"A","value":"hunter2","kind":"env"}"#,
            r#"{"name":"A","value":"hunter2","agents":["../x"]}"#,
            r#"{"name":"A","value":"hunter2","allowedHosts":["x"]}"#,
            r#"{"name":"A","data":"hunter2!"}"#,
            r#"{"name":"A","hunter2":1}"#,
            r#"{"name":"A"}"#,
        ] {
            match read_action("secrets.store.set", params) {
                Err(Invalid::Params { why, .. }) => assert!(!why.contains("hunter2"), "{why}"),
                other => panic!("{params}: {other:?}"),
            }
        }
    }

    #[test]
    fn secrets_are_asked_for_by_name_and_each_variable_has_one_source() {
        let read = |secrets: &str| {
            read_action("exec.run", &format!(r#"{{"command":["x"],"env":{{"TAKEN":"1"}},"secrets":{secrets}}}"#))
        };
        let Ok(Action::ExecRun(request)) = read(r#"[{"name":"A"},{"name":"A","env":"A"},{"name":"A","env":"b_2"}]"#)
        else {
            panic!("not a run")
        };
        let uses: Vec<String> = request.secrets.iter().map(ToString::to_string).collect();
        assert_eq!(uses, ["A", "A as A", "A as b_2"]);

        let many = format!("[{}]", vec![r#"{"name":"A","env":"B"}"#; MOST_SECRETS_A_RUN + 1].join(","));
        for bad in [
            r#"[{"name":"a"}]"#,
            r#"[{"name":"../A"}]"#,
            r#"[{"name":"A","env":""}]"#,
            r#"[{"name":"A","env":"B=C"}]"#,
            r#"[{"name":"A","env":"1B"}]"#,
            r#"[{"name":"A"},{"name":"A"}]"#,
            r#"[{"name":"A","env":"X"},{"name":"B","env":"X"}]"#,
            r#"[{"name":"A","env":"TAKEN"}]"#,
            &many,
        ] {
            let why = match read(bad) {
                Err(Invalid::Params { why, .. }) => why,
                other => panic!("{bad}: {other:?}"),
            };
            assert!(why.starts_with("at secrets: "), "{bad}: {why}");
        }
        for bad in
            [r#"["A"]"#, r#"[{}]"#, r#"{"A":"B"}"#, r#"[{"name":"A","value":"x"}]"#, r#"[{"name":"A","name":"B"}]"#]
        {
            assert!(matches!(read(bad), Err(Invalid::Params { .. })), "{bad}");
        }
    }

    #[test]
    fn a_command_that_could_not_be_run_as_written_is_refused() {
        for params in [
            r#"{}"#,
            r#"{"command":[]}"#,
            r#"{"command":[""]}"#,
            r#"{"command":"ls"}"#,
            r#"{"command":["a\u0000b"]}"#,
            r#"{"command":["ls"],"env":{"A":"1","A":"2"}}"#,
            r#"{"command":["ls"],"shell":true}"#,
            r#"{"command":["ls"],"agent":"../x"}"#,
            r#"{"command":["ls"],"host":"gateway"}"#,
            r#"{"command":["ls"],"timeoutMs":0}"#,
            r#"{"command":["ls"],"timeoutMs":-1}"#,
            r#"{"command":["ls"],"timeoutMs":1e999}"#,
        ] {
            assert!(matches!(read_action("exec.run", params), Err(Invalid::Params { .. })), "{params}");
        }
        let deep = format!(r#"{{"command":{}{}}}"#, "[".repeat(50_000), "]".repeat(50_000));
        assert!(matches!(read_action("exec.run", &deep), Err(Invalid::Params { .. })));
    }
}
