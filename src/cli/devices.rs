//! `devices` and `node`: who is paired, who waits, what nodes may offer; and pairing ourselves with a gateway.

use super::args::{DevicesCommand, IdentityArgs, InviteArgs, NodeCommand, Output, PlaceArgs, RoleArg};
use super::gateway::runtime;
use super::render::{self, Fault, one_line, table};
use crate::auth;
use crate::client::{self, Shown, Target};
use crate::crypto;
use crate::model::Secret;
use serde_json::{Value, json};
use std::process::ExitCode;

const PAIRING: &[&str] = &["operator.pairing"];
/// For what may hand out any scope: the gateway judges each of them.
const ADMIN: &[&str] = &["operator.admin"];

pub(super) fn run(place: &PlaceArgs, command: DevicesCommand) -> Result<ExitCode, Fault> {
    match command {
        DevicesCommand::List(args) => list(place, &args),
        DevicesCommand::Approve(args) => {
            let request = request_id(place, "device.pair.list", &args.request)?;
            let mut params = json!({"requestId": request});
            if !args.scope.is_empty() {
                params["scopes"] = json!(args.scope);
            }
            if let Some(agent) = &args.agent {
                params["agent"] = json!(agent);
            }
            done(place, ADMIN, "device.pair.approve", params, args.json, |answer| {
                let device = &answer["device"];
                format!("approved {} for {}", short(&device["deviceId"]), holds(device))
            })
        }
        DevicesCommand::Reject(args) => {
            let request = request_id(place, "device.pair.list", &args.request)?;
            done(place, ADMIN, "device.pair.reject", json!({"requestId": request}), args.json, |answer| {
                format!("rejected {}", short(&answer["deviceId"]))
            })
        }
        DevicesCommand::Remove(args) => {
            let device = device_id(place, &args.device)?;
            done(place, ADMIN, "device.pair.remove", json!({"deviceId": device}), args.json, |answer| {
                format!("removed {}; its connections are closed", short(&answer["deviceId"]))
            })
        }
        DevicesCommand::Rename(args) => {
            let device = device_id(place, &args.device)?;
            let params = json!({"deviceId": device, "label": args.name});
            done(place, ADMIN, "device.pair.rename", params, args.json, |answer| {
                format!("{} is now {}", short(&answer["deviceId"]), text(&answer["label"]))
            })
        }
        DevicesCommand::Revoke(args) => {
            let params = json!({"deviceId": device_id(place, &args.device)?, "role": args.role.as_str()});
            done(place, ADMIN, "device.token.revoke", params, args.json, |answer| {
                format!(
                    "revoked {} as {}; its connections are closed",
                    short(&answer["deviceId"]),
                    text(&answer["role"])
                )
            })
        }
        DevicesCommand::Rotate(args) => {
            let mut params = json!({"deviceId": device_id(place, &args.device)?, "role": args.role.as_str()});
            if !args.scope.is_empty() {
                params["scopes"] = json!(args.scope);
            }
            done(place, ADMIN, "device.token.rotate", params, args.json, |answer| {
                format!(
                    "rotated {} as {}; it fetches its new token when it connects within five minutes",
                    short(&answer["deviceId"]),
                    text(&answer["role"])
                )
            })
        }
        DevicesCommand::Invite(args) => invite(place, &args),
        DevicesCommand::Join => join(place),
        DevicesCommand::Identity(args) => identity(place, &args),
    }
}

/// Asks for a change and says in a line what came of it.
fn done(
    place: &PlaceArgs,
    scopes: &[&str],
    method: &str,
    params: Value,
    as_json: bool,
    say: impl Fn(&Value) -> String,
) -> Result<ExitCode, Fault> {
    let answer = place.call(scopes, method, Some(params))?;
    if as_json {
        render::json(&answer);
    } else {
        render::line(&one_line(&say(&answer)));
    }
    Ok(ExitCode::SUCCESS)
}

fn list(place: &PlaceArgs, args: &Output) -> Result<ExitCode, Fault> {
    let answer = place.call(PAIRING, "device.pair.list", None)?;
    if args.json {
        render::json(&answer);
        return Ok(ExitCode::SUCCESS);
    }
    let pending = answer["pending"].as_array().map(Vec::as_slice).unwrap_or_default();
    let paired = answer["paired"].as_array().map(Vec::as_slice).unwrap_or_default();
    if !pending.is_empty() {
        render::line("waiting for approval");
        let heading = ["REQUEST", "DEVICE", "NAME", "ASKS FOR", "FROM"].map(str::to_owned).to_vec();
        let rows = pending
            .iter()
            .map(|r| vec![text(&r["requestId"]), short(&r["deviceId"]), name(r), holds(r), text(&r["remoteIp"])]);
        render::line(&table(&std::iter::once(heading).chain(rows).collect::<Vec<_>>()));
        render::line("approve one with: vambrace devices approve REQUEST\n");
    }
    if paired.is_empty() {
        render::line("no device is paired");
        return Ok(ExitCode::SUCCESS);
    }
    let heading = ["DEVICE", "NAME", "HOLDS", "BY", "CONNECTED"].map(str::to_owned).to_vec();
    let rows = paired.iter().map(|d| {
        let connected = if d["connected"] == true { "yes" } else { "no" };
        vec![short(&d["deviceId"]), name(d), holds(d), text(&d["approvedVia"]), connected.to_owned()]
    });
    render::line(&table(&std::iter::once(heading).chain(rows).collect::<Vec<_>>()));
    Ok(ExitCode::SUCCESS)
}

fn invite(place: &PlaceArgs, args: &InviteArgs) -> Result<ExitCode, Fault> {
    let mut params = json!({"role": args.role.as_str()});
    if !args.scope.is_empty() {
        params["scopes"] = json!(args.scope);
    }
    for (key, value) in [("agent", &args.agent), ("publicUrl", &args.public_url)] {
        if let Some(value) = value {
            params[key] = json!(value);
        }
    }
    let answer = place.call(ADMIN, "device.pair.setupCode", Some(params))?;
    if args.json {
        render::json(&answer);
        return Ok(ExitCode::SUCCESS);
    }
    let code = text(&answer["setupCode"]);
    if !args.no_qr {
        render::line(&qr(&code)?);
    }
    render::line(&code);
    render::line("");
    let mut rows = vec![
        vec!["gateway".to_owned(), text(&answer["gatewayUrl"])],
        vec!["grants".to_owned(), holds(&answer["access"])],
        vec!["valid".to_owned(), "once, for ten minutes".to_owned()],
    ];
    if let Some(fingerprint) = answer["fingerprint"].as_str() {
        rows.insert(1, vec!["certificate".to_owned(), fingerprint.to_owned()]);
    }
    render::line(&table(&rows));
    let used = if args.role == RoleArg::Node { "openclaw node run --pair CODE" } else { "vambrace devices join" };
    render::line(&format!("use it with: {used}"));
    Ok(ExitCode::SUCCESS)
}

/// The code as a picture, two rows of modules a line.
fn qr(code: &str) -> Result<String, Fault> {
    use qrcode::render::unicode::Dense1x2;
    let picture = qrcode::QrCode::with_error_correction_level(code, qrcode::EcLevel::L)
        .map_err(|e| Fault::new(format!("the code does not fit a QR code: {e}")).hint("use --no-qr"))?;
    Ok(picture.render::<Dense1x2>().dark_color(Dense1x2::Light).light_color(Dense1x2::Dark).build())
}

/// Pairs this command line with the gateway of a setup code.
fn join(place: &PlaceArgs) -> Result<ExitCode, Fault> {
    let code = super::password::ask_setup_code()?;
    let bad = || {
        Fault::new("this is no setup code").hint("copy the whole line that `vambrace devices invite` printed").code(2)
    };
    let code = code.expose().trim().trim_start_matches("oc-pair://");
    let decoded = crypto::from_base64url(code).and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
    let decoded = decoded.ok_or_else(bad)?;
    let (Some(url), Some(token)) = (decoded["url"].as_str(), decoded["bootstrapToken"].as_str()) else {
        return Err(bad());
    };
    let pin = match decoded["tlsFingerprint"].as_str() {
        None => None,
        Some(text) => Some(crypto::parse_fingerprint(text).ok_or_else(bad)?),
    };
    let auth = Shown { setup_code: Some(Secret::new(token.to_owned())), ..Default::default() };
    let target = Target::url(url, auth, pin, place.keyring())?;
    let hello = runtime()?.block_on(async {
        let (mut voice, _ear, hello) = client::greeted(&target, &[]).await?;
        voice.close().await;
        Ok::<_, client::ClientFault>(hello)
    })?;
    let auth = &hello["auth"];
    render::line(&one_line(&format!("paired with {url} for {}", holds(auth))));
    render::line(&one_line(&format!("use it with: vambrace --url {url} COMMAND")));
    Ok(ExitCode::SUCCESS)
}

/// Who we are to the gateway of `--url`, and the key that signs HTTP requests to it.
fn identity(place: &PlaceArgs, args: &IdentityArgs) -> Result<ExitCode, Fault> {
    let Target::Remote(remote) = place.target()? else {
        return Err(Fault::new("this command line is another device to every gateway")
            .hint("say which with --url")
            .code(2));
    };
    let keyring = place.keyring();
    let fault = |e: std::io::Error| {
        Fault::new(format!("our own identity cannot be used: {e}"))
            .hint("it lies in `client` of the state folder, and must be yours alone")
    };
    if args.forget {
        keyring.forget(&remote.name()).map_err(fault)?;
    }
    let key = keyring.identity(&remote.name()).map_err(fault)?;
    let mut facts = json!({
        "gateway": remote.name(), "deviceId": client::device_id(&key), "publicKey": crypto::base64url(&key.public()),
    });
    if args.signing_key {
        let token = keyring.known(&remote.name()).map_err(fault)?.device_token.map(Secret::new).ok_or_else(|| {
            Fault::new(format!("this command line is not paired with {}", remote.name()))
                .hint("pair it: `vambrace devices join`, or any command with --url and an operator's approval")
        })?;
        facts["signingKey"] = json!(crypto::hex(auth::signing_key(token.expose()).expose()));
    }
    if args.json {
        render::json(&facts);
    } else {
        let rows = ["gateway", "deviceId", "publicKey", "signingKey"]
            .into_iter()
            .filter_map(|key| facts[key].as_str().map(|value| vec![key.to_owned(), value.to_owned()]));
        render::line(&table(&rows.collect::<Vec<_>>()));
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn node(place: &PlaceArgs, command: NodeCommand) -> Result<ExitCode, Fault> {
    let node = |args: &super::args::NodeArgs| node_id(place, &args.node);
    match command {
        NodeCommand::List(args) => nodes(place, &args),
        NodeCommand::Pending(args) => pending_nodes(place, &args),
        NodeCommand::Describe(args) => {
            let node = node(&args)?;
            let answer =
                place.call(&["operator.read", "operator.pairing"], "node.describe", Some(json!({"nodeId": node})))?;
            if args.json {
                render::json(&answer);
            } else {
                let fields = answer.as_object().into_iter().flatten();
                let show = |value: &Value| value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
                let rows = fields.map(|(key, value)| vec![key.clone(), one_line(&show(value))]);
                render::line(&table(&rows.collect::<Vec<_>>()));
            }
            Ok(ExitCode::SUCCESS)
        }
        NodeCommand::Approve(args) => {
            let request = request_id(place, "node.pair.list", &args.request)?;
            done(place, ADMIN, "node.pair.approve", json!({"requestId": request}), args.json, |answer| {
                let count = answer["node"]["commands"].as_array().map_or(0, Vec::len);
                format!("enabled {count} commands of {}", short(&answer["node"]["nodeId"]))
            })
        }
        NodeCommand::Reject(args) => {
            let request = request_id(place, "node.pair.list", &args.request)?;
            done(place, ADMIN, "node.pair.reject", json!({"requestId": request}), args.json, |answer| {
                format!("rejected what {} declares", short(&answer["nodeId"]))
            })
        }
        NodeCommand::Rename(args) => {
            let params = json!({"nodeId": node_id(place, &args.device)?, "displayName": args.name});
            done(place, ADMIN, "node.rename", params, args.json, |answer| {
                format!("{} is now {}", short(&answer["nodeId"]), text(&answer["displayName"]))
            })
        }
        NodeCommand::Remove(args) => {
            let params = json!({"nodeId": node(&args)?});
            done(place, ADMIN, "node.pair.remove", params, args.json, |answer| {
                format!("removed {}; its connections are closed", short(&answer["nodeId"]))
            })
        }
    }
}

fn nodes(place: &PlaceArgs, args: &Output) -> Result<ExitCode, Fault> {
    let answer = place.call(&["operator.read", "operator.pairing"], "node.list", None)?;
    if args.json {
        render::json(&answer);
        return Ok(ExitCode::SUCCESS);
    }
    let nodes = answer["nodes"].as_array().map(Vec::as_slice).unwrap_or_default();
    if nodes.is_empty() {
        render::line("there is no node");
        return Ok(ExitCode::SUCCESS);
    }
    let heading = ["NODE", "NAME", "STATE", "COMMANDS", "CONNECTED"].map(str::to_owned).to_vec();
    let rows = nodes.iter().map(|n| {
        let commands = n["commands"].as_array().map_or(0, Vec::len).to_string();
        let connected = if n["connected"] == true { "yes" } else { "no" };
        vec![short(&n["nodeId"]), name(n), text(&n["approvalState"]), commands, connected.to_owned()]
    });
    render::line(&table(&std::iter::once(heading).chain(rows).collect::<Vec<_>>()));
    Ok(ExitCode::SUCCESS)
}

fn pending_nodes(place: &PlaceArgs, args: &Output) -> Result<ExitCode, Fault> {
    let answer = place.call(PAIRING, "node.pair.list", None)?;
    if args.json {
        render::json(&answer["pending"]);
        return Ok(ExitCode::SUCCESS);
    }
    let pending = answer["pending"].as_array().map(Vec::as_slice).unwrap_or_default();
    for request in pending {
        let commands: Vec<&str> =
            request["commands"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        render::line(&one_line(&format!(
            "{}  {}  {}",
            text(&request["requestId"]),
            short(&request["nodeId"]),
            name(request)
        )));
        render::line(&one_line(&format!("  declares: {}", commands.join(", "))));
    }
    render::line(match pending.is_empty() {
        true => "no node waits for approval",
        false => "enable one with: vambrace node approve REQUEST",
    });
    Ok(ExitCode::SUCCESS)
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| if value.is_null() { "-".to_owned() } else { value.to_string() }, one_line)
}

/// The first twelve digits of an id: enough to tell devices apart, and taken wherever an id is.
fn short(id: &Value) -> String {
    text(id).chars().take(12).collect()
}

fn name(entry: &Value) -> String {
    text(if entry["operatorLabel"].is_string() { &entry["operatorLabel"] } else { &entry["displayName"] })
}

/// Roles, scopes and agent in a few words.
fn holds(entry: &Value) -> String {
    let words = |key: &str| -> Vec<String> {
        entry[key].as_array().into_iter().flatten().filter_map(Value::as_str).map(one_line).collect()
    };
    let roles = if entry["roles"].is_array() { words("roles") } else { vec![text(&entry["role"])] };
    let mut said = roles.join("+");
    let scopes = words("scopes");
    if !scopes.is_empty() {
        said = format!("{said}: {}", scopes.join(" "));
    }
    if let Some(agent) = entry["agent"].as_str() {
        said = format!("agent {}", one_line(agent)) + &format!(" ({said})");
    }
    said
}

/// The one id of a list that begins with these digits.
fn whole(ids: Vec<String>, given: &str, what: &str) -> Result<String, Fault> {
    if ids.iter().any(|id| id == given) {
        return Ok(given.to_owned());
    }
    let mut fitting = ids.into_iter().filter(|id| given.len() >= 4 && id.starts_with(given));
    match (fitting.next(), fitting.next()) {
        (Some(id), None) => Ok(id),
        (Some(_), Some(_)) => {
            Err(Fault::new(format!("{given:?} begins more than one {what}")).hint("give more digits").code(2))
        }
        (None, _) => Err(Fault::new(format!("there is no {what} {given:?}")).hint("`list` shows those there are")),
    }
}

fn ids(answer: &Value, list: &str, key: &str) -> Vec<String> {
    answer[list].as_array().into_iter().flatten().filter_map(|e| e[key].as_str()).map(ToOwned::to_owned).collect()
}

fn request_id(place: &PlaceArgs, method: &str, given: &str) -> Result<String, Fault> {
    let answer = place.call(PAIRING, method, None)?;
    whole(ids(&answer, "pending", "requestId"), given, "request")
}

fn device_id(place: &PlaceArgs, given: &str) -> Result<String, Fault> {
    let answer = place.call(PAIRING, "device.pair.list", None)?;
    whole(ids(&answer, "paired", "deviceId"), given, "device")
}

fn node_id(place: &PlaceArgs, given: &str) -> Result<String, Fault> {
    let answer = place.call(&["operator.read"], "node.list", None)?;
    whole(ids(&answer, "nodes", "nodeId"), given, "node")
}
