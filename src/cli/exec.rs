//! `exec`: one command through the gateway, its three streams joined to ours.

use super::args::{ExecArgs, Host, PlaceArgs};
use super::gateway::runtime;
use super::render::{self, Fault};
use crate::client::{self, ClientFault, Ear, Incoming, Refusal, Voice};
use crate::config;
use crate::os;
use crate::wire::{self, ExecResult, OutputEvent};
use serde_json::{Map, Value, json};
use std::io::Write;
use std::process::ExitCode;
use tokio::io::AsyncReadExt;
use tokio::signal::unix::{SignalKind, signal};

/// Bytes of standard input sent at a time.
const CHUNK: usize = 16 << 10;

pub(super) fn run(place: &PlaceArgs, args: ExecArgs) -> Result<ExitCode, Fault> {
    let target = place.target().map_err(|f| f.code(125))?;
    let mut params = params(&args)?;
    let raw = args.tty.then(|| terminal(&mut params)).transpose()?;
    let runtime = runtime()?;
    let result = runtime.block_on(async {
        let (voice, ear) = client::connect(&target, &["operator.write"]).await?;
        follow(voice, ear, params, args.json).await
    });
    // The thread that reads our standard input may wait for ever: leave it behind.
    runtime.shutdown_background();
    // Before anything is said: a line would not begin at the left.
    drop(raw);
    match result {
        Ok((result, output)) => Ok(conclude(&result, output)),
        Err(ClientFault::Refused(refusal)) => Err(refused(refusal)),
        Err(fault) => Err(Fault::from(fault).code(125)),
    }
}

/// Asks for a terminal as large as ours, which passes on every key from here on.
fn terminal(params: &mut Value) -> Result<os::terminal::Raw, Fault> {
    let fault = |e: std::io::Error| {
        Fault::new(format!("--tty needs a terminal at standard input: {e}"))
            .hint("leave --tty out; input and output then pass through as they are")
            .code(125)
    };
    let size = os::terminal::size().map_err(fault)?;
    params["terminal"] = json!({"rows": size.rows, "columns": size.columns});
    os::terminal::Raw::enter().map_err(fault)
}

fn params(args: &ExecArgs) -> Result<Value, Fault> {
    let Host::Sandbox = args.host;
    let mut env = Map::new();
    for pair in &args.env {
        let (name, value) = pair
            .split_once('=')
            .ok_or_else(|| Fault::new(format!("--env {pair:?} has no '='")).hint("write --env NAME=VALUE").code(2))?;
        if env.insert(name.to_owned(), json!(value)).is_some() {
            return Err(Fault::new(format!("--env {name} is given twice")).hint("give each name once").code(2));
        }
    }
    let timeout = match &args.timeout {
        None => None,
        Some(text) => Some(config::duration(text).ok_or_else(|| {
            Fault::new(format!("--timeout {text:?} is no duration")).hint("write for example 500ms, 30s, 5m").code(2)
        })?),
    };
    let mut params = json!({"command": args.command, "agent": args.agent, "env": env, "stdin": true});
    let mut secrets: Vec<Value> = args.secret.iter().map(|name| json!({"name": name})).collect();
    secrets.extend(args.secret_env.iter().map(|text| {
        let (name, variable) = text.split_once('=').unwrap_or((text, text));
        json!({"name": name, "env": variable})
    }));
    // A gateway that knows of no secrets need not hear of none.
    if !secrets.is_empty() {
        params["secrets"] = json!(secrets);
    }
    for (key, value) in [("session", &args.session), ("profile", &args.profile), ("cwd", &args.cwd)] {
        if let Some(value) = value {
            params[key] = json!(value);
        }
    }
    if let Some(timeout) = timeout {
        params["timeoutMs"] = json!(timeout.as_millis() as u64);
    }
    Ok(params)
}

/// What was collected for `--json`.
#[derive(Default)]
struct Collected {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

async fn follow(
    mut voice: Voice,
    mut ear: Ear,
    params: Value,
    collect: bool,
) -> Result<(ExecResult, Option<Collected>), ClientFault> {
    let run = voice.ask("exec.run", Some(params.clone())).await?;
    let mut stdin = tokio::io::stdin();
    let mut input = vec![0; CHUNK];
    let mut run_id: Option<String> = None;
    let mut sending: Option<String> = None;
    let mut input_open = true;
    let mut collected = collect.then(Collected::default);
    let has_terminal = !params["terminal"].is_null();
    let mut resized = signal(SignalKind::window_change()).map_err(|e| ClientFault::Protocol(e.to_string()))?;
    loop {
        tokio::select! {
            incoming = ear.next() => match incoming? {
                Incoming::Event { name, payload } if name == "exec.started" => {
                    run_id = payload["runId"].as_str().map(ToOwned::to_owned);
                }
                Incoming::Event { name, payload } if name == "exec.output" => {
                    if let Ok(output) = serde_json::from_value::<OutputEvent>(payload) {
                        pass_on(&output, collected.as_mut());
                    }
                }
                Incoming::Event { .. } => {}
                Incoming::Response { id, result } if id == run => {
                    voice.close().await;
                    let result = serde_json::from_value(result.map_err(ClientFault::Refused)?);
                    return result.map(|r| (r, collected)).map_err(|e| ClientFault::Protocol(e.to_string()));
                }
                // The next piece of input is sent when the last one was taken.
                Incoming::Response { id, .. } if Some(&id) == sending.as_ref() => sending = None,
                Incoming::Response { .. } => {}
            },
            _ = resized.recv(), if has_terminal && run_id.is_some() => {
                if let Ok(size) = os::terminal::size() {
                    let params = json!({"runId": run_id, "rows": size.rows, "columns": size.columns});
                    voice.ask("exec.resize", Some(params)).await?;
                }
            }
            read = stdin.read(&mut input), if input_open && run_id.is_some() && sending.is_none() => {
                let read = read.unwrap_or(0);
                input_open = read > 0;
                let params = json!({"runId": run_id, "data": wire::bytes::encode(&input[..read]), "eof": read == 0});
                sending = Some(voice.ask("exec.input", Some(params)).await?);
            }
        }
    }
}

fn pass_on(output: &OutputEvent, collected: Option<&mut Collected>) {
    let bytes = wire::bytes::decode(&output.data).unwrap_or_default();
    let stderr = output.stream == "stderr";
    match collected {
        Some(collected) if stderr => collected.stderr.extend(bytes),
        Some(collected) => collected.stdout.extend(bytes),
        // A reader of ours that is gone ends us by SIGPIPE; of standard error there is nobody to tell.
        None if stderr => drop(std::io::stderr().lock().write_all(&bytes)),
        None => render::bytes(&bytes),
    }
}

fn conclude(result: &ExecResult, collected: Option<Collected>) -> ExitCode {
    if let Some(collected) = collected {
        let mut value = serde_json::to_value(result).unwrap_or_default();
        value["stdout"] = json!(String::from_utf8_lossy(&collected.stdout));
        value["stderr"] = json!(String::from_utf8_lossy(&collected.stderr));
        render::json(&value);
    } else {
        explain(&result.ending);
        for path in &result.refused_executables {
            let path = render::one_line(path);
            render::note(&format!("note: {path} is not on the list of executables and was not executed"));
        }
        for limit in &result.limits_reached {
            let limit = render::one_line(limit);
            render::note(&format!(
                "note: the command met its bound `limits.{limit}`, and was refused what went beyond it"
            ));
        }
    }
    ExitCode::from(result.exit_code)
}

/// Says on standard error why a command that did not end by itself ended.
pub(super) fn explain(ending: &str) {
    let (what, hint) = match ending {
        "timed-out" => ("the command ran out of time and was killed", "--timeout, or `limits.timeout` of its profile"),
        "output-limit" => ("the command wrote more than it may and was killed", "`limits.output` of its profile"),
        "out-of-memory" => ("the command needed more memory than it may have", "`limits.memory` of its profile"),
        "disk-limit" => ("the command added more to the disk than it may", "`limits.disk` of its profile"),
        "lockdown" => ("an operator's lockdown ended the command", "`vambrace lockdown status`"),
        "cancelled" => ("the command was cancelled", "somebody, or the gateway's stop, ended it"),
        _ => return,
    };
    render::note(&format!("error: {what}\nhint: {hint}"));
}

fn refused(refusal: Refusal) -> Fault {
    let named = refusal.details["exitCode"].as_u64().and_then(|c| u8::try_from(c).ok());
    let code = named.unwrap_or(if refusal.code == "UNAVAILABLE" { 125 } else { 126 });
    let mut fault = Fault::from(ClientFault::Refused(refusal.clone())).code(code);
    if let Some(rule) = refusal.details["rule"].as_str() {
        fault.message = format!("{} (rule {rule})", fault.message);
    }
    fault
}
