//! `secrets`: values come from a prompt or standard input, never from arguments, and never go back out.

use super::args::{GrantArgs, ImportFormat, PlaceArgs, SecretsCommand, SecretsImportArgs, SecretsSetArgs};
use super::password;
use super::render::{self, Fault, table};
use crate::model::{AgentId, LONGEST_SECRET, SHORTEST_SECRET, Secret, SecretName};
use crate::store::Store;
use crate::wire;
use serde_json::{Value, json};
use std::io::{IsTerminal, Read};
use std::process::ExitCode;

/// Bytes of the largest file that is imported.
const LARGEST_IMPORT: u64 = 1 << 20;

pub(super) fn run(place: &PlaceArgs, command: SecretsCommand) -> Result<ExitCode, Fault> {
    match command {
        SecretsCommand::Set(args) => set(place, &args),
        SecretsCommand::List(args) => list(place, args.json),
        SecretsCommand::Remove { name } => {
            let name = named(&name)?;
            place.call(&["operator.admin"], "secrets.store.delete", Some(json!({"name": &*name})))?;
            render::line(&format!("{name} is removed"));
            Ok(ExitCode::SUCCESS)
        }
        SecretsCommand::Import(args) => import(place, &args),
        SecretsCommand::RotateKey(args) => rotate_key(place, args.json),
    }
}

fn set(place: &PlaceArgs, args: &SecretsSetArgs) -> Result<ExitCode, Fault> {
    let name = named(&args.name)?;
    let agents = agents(&args.grant)?;
    if args.keep_value {
        let agents = agents.ok_or_else(|| {
            Fault::new("--keep-value changes nothing by itself").hint("say --agent or --no-agent with it").code(2)
        })?;
        place.call(&["operator.admin"], "secrets.store.grant", Some(json!({"name": &*name, "agents": agents})))?;
        say_grants(&name, Some(&agents));
        return Ok(ExitCode::SUCCESS);
    }
    let value = ask(&name, args.exact)?;
    keep(place, &name, &value, agents.as_deref())?;
    say_grants(&name, agents.as_deref());
    Ok(ExitCode::SUCCESS)
}

fn say_grants(name: &SecretName, agents: Option<&[String]>) {
    render::line(&match agents {
        None => format!("{name} is kept; `secrets list` shows who may use it"),
        Some([]) => format!("{name} is kept; no agent may use it"),
        Some(agents) => format!("{name} is kept; it may be used by {}", agents.join(", ")),
    });
}

fn keep(place: &PlaceArgs, name: &SecretName, value: &Secret<Vec<u8>>, agents: Option<&[String]>) -> Result<(), Fault> {
    let length = value.expose().len();
    if !(SHORTEST_SECRET..=LONGEST_SECRET).contains(&length) {
        return Err(Fault::new(format!("the value of {name} has {length} bytes")).hint(format!(
            "{SHORTEST_SECRET} to {LONGEST_SECRET} bytes: a shorter one could not be covered in output"
        )));
    }
    let mut params = json!({"name": &**name, "data": wire::bytes::encode(value.expose())});
    if let Some(agents) = agents {
        params["agents"] = json!(agents);
    }
    place.call(&["operator.admin"], "secrets.store.set", Some(params)).map(drop)
}

fn named(text: &str) -> Result<SecretName, Fault> {
    SecretName::parse(text).map_err(|e| Fault::new(e.to_string()).hint("for example API_KEY").code(2))
}

/// Whom it is granted to; `None` where nothing was said.
fn agents(args: &GrantArgs) -> Result<Option<Vec<String>>, Fault> {
    if args.agent.is_empty() && !args.no_agent {
        return Ok(None);
    }
    let bad = |e: crate::model::BadId| Fault::new(e.to_string()).hint("--agent takes the name of one agent").code(2);
    args.agent.iter().map(|a| AgentId::parse(a).map(|a| a.to_string()).map_err(bad)).collect::<Result<_, _>>().map(Some)
}

fn ask(name: &SecretName, exact: bool) -> Result<Secret<Vec<u8>>, Fault> {
    let fault = |e: std::io::Error| Fault::new(format!("the value cannot be read: {e}")).hint(password::TEXT);
    if std::io::stdin().is_terminal() {
        let typed = password::prompt(&format!("value of {name}: ")).map_err(fault)?;
        return Ok(Secret::new(typed.expose().clone().into_bytes()));
    }
    let mut value = Secret::new(Vec::with_capacity(LONGEST_SECRET + 4));
    std::io::stdin().take(LONGEST_SECRET as u64 + 4).read_to_end(value.expose_mut()).map_err(fault)?;
    if !exact {
        // One line ending is the pipe's, not the secret's.
        let bytes = value.expose_mut();
        if bytes.last() == Some(&b'\n') {
            bytes.pop();
            if bytes.last() == Some(&b'\r') {
                bytes.pop();
            }
        }
    }
    Ok(value)
}

fn list(place: &PlaceArgs, as_json: bool) -> Result<ExitCode, Fault> {
    let answer = place.call(&["operator.admin"], "secrets.store.list", None)?;
    if as_json {
        render::json(&answer["entries"]);
        return Ok(ExitCode::SUCCESS);
    }
    let entries = answer["entries"].as_array().cloned().unwrap_or_default();
    if entries.is_empty() {
        render::line("no secrets are kept; `vambrace secrets set NAME` keeps one");
        return Ok(ExitCode::SUCCESS);
    }
    let text = |value: &Value| render::one_line(value.as_str().unwrap_or("-"));
    let mut rows = vec![["NAME", "AGENTS", "SET", "BY"].map(str::to_owned).to_vec()];
    rows.extend(entries.iter().map(|entry| {
        let agents: Vec<String> = entry["agents"].as_array().into_iter().flatten().map(&text).collect();
        let agents = if agents.is_empty() { "-".to_owned() } else { agents.join(", ") };
        let set = crate::journal::rfc3339(entry["updatedAtMs"].as_u64().unwrap_or(0));
        vec![text(&entry["name"]), agents, set, text(&entry["updatedBy"])]
    }));
    render::line(&table(&rows));
    Ok(ExitCode::SUCCESS)
}

fn import(place: &PlaceArgs, args: &SecretsImportArgs) -> Result<ExitCode, Fault> {
    let agents = agents(&args.grant)?;
    let text = read_import(args)?;
    let pairs = match args.format {
        ImportFormat::Env => parse_env(text.expose()),
        ImportFormat::Json => parse_json(text.expose()),
    }?;
    if pairs.is_empty() {
        return Err(Fault::new("there is nothing to import").hint("lines NAME=VALUE, or --format json with an object"));
    }
    // All names and lengths first: half an import would be hard to tell from a whole one.
    for (name, value) in &pairs {
        let length = value.expose().len();
        if !(SHORTEST_SECRET..=LONGEST_SECRET).contains(&length) {
            return Err(Fault::new(format!("the value of {name} has {length} bytes; nothing was imported"))
                .hint(format!("leave it out, or give it {SHORTEST_SECRET} to {LONGEST_SECRET} bytes")));
        }
    }
    for (name, value) in &pairs {
        keep(place, name, value, agents.as_deref())?;
        render::line(&format!("{name} is kept"));
    }
    if let Some(path) = args.file.as_ref().filter(|path| path.as_os_str() != "-") {
        let plain = format!("{} still holds them in plain text: remove it when you need it no more", path.display());
        render::note(&render::printable(&plain));
    }
    Ok(ExitCode::SUCCESS)
}

fn read_import(args: &SecretsImportArgs) -> Result<Secret<String>, Fault> {
    let mut text = Secret::new(String::with_capacity(64 << 10));
    let read = match args.file.as_ref().filter(|path| path.as_os_str() != "-") {
        Some(path) => {
            std::fs::File::open(path).and_then(|file| file.take(LARGEST_IMPORT).read_to_string(text.expose_mut()))
        }
        None => std::io::stdin().take(LARGEST_IMPORT).read_to_string(text.expose_mut()),
    };
    let read =
        read.map_err(|e| Fault::new(format!("the secrets cannot be read: {e}")).hint("a text of at most 1 MiB"))?;
    if read as u64 == LARGEST_IMPORT {
        return Err(Fault::new("there is more than 1 MiB").hint("import it in parts"));
    }
    Ok(text)
}

type Pairs = Vec<(SecretName, Secret<Vec<u8>>)>;

/// Lines NAME=VALUE; `export` before and quotes around are taken off, nothing is expanded.
fn parse_env(text: &str) -> Result<Pairs, Fault> {
    let mut pairs = Pairs::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let wrong = |what: &str| {
            Fault::new(format!("line {}: {what}; nothing was imported", at + 1)).hint("each line is NAME=VALUE")
        };
        let (name, value) = line.split_once('=').ok_or_else(|| wrong("there is no '='"))?;
        let name = name.trim().strip_prefix("export ").unwrap_or(name).trim();
        let name = SecretName::parse(name).map_err(|_| wrong("the name is not of A-Z, 0-9 and '_'"))?;
        let value = value.trim();
        let quoted = ['"', '\''].iter().find_map(|quote| value.strip_prefix(*quote)?.strip_suffix(*quote));
        pairs.push((name, Secret::new(quoted.unwrap_or(value).as_bytes().to_vec())));
    }
    unique(pairs)
}

fn parse_json(text: &str) -> Result<Pairs, Fault> {
    let wrong = |what: &str| Fault::new(format!("{what}; nothing was imported")).hint("an object of names and texts");
    let object: std::collections::BTreeMap<String, String> =
        serde_json::from_str(text).map_err(|_| wrong("this is no JSON object of texts"))?;
    let mut pairs = Pairs::new();
    for (name, value) in object {
        let name = SecretName::parse(&name).map_err(|e| wrong(&e.to_string()))?;
        pairs.push((name, Secret::new(value.into_bytes())));
    }
    Ok(pairs)
}

fn unique(pairs: Pairs) -> Result<Pairs, Fault> {
    for (at, (name, _)) in pairs.iter().enumerate() {
        if pairs[..at].iter().any(|(other, _)| other == name) {
            return Err(Fault::new(format!("{name} stands twice; nothing was imported")).hint("keep one of them"));
        }
    }
    Ok(pairs)
}

fn rotate_key(place: &PlaceArgs, as_json: bool) -> Result<ExitCode, Fault> {
    let answer = if place.has_gateway()? {
        place.call(&["operator.admin"], "secrets.key.rotate", None)?
    } else {
        let (settings, places) = place.settings()?;
        let facts = Store::open(&places.state, &settings.keys).and_then(|store| store.rotate());
        let facts = facts.map_err(|e| Fault::new(e.to_string()).hint(e.hint()))?;
        json!({"source": facts.source.as_str(), "epoch": facts.epoch})
    };
    if as_json {
        render::json(&answer);
    } else {
        let source = answer["source"].as_str().unwrap_or_default();
        render::line(&format!("everything is sealed anew; the key comes from: {source}; rotation {}", answer["epoch"]));
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(pairs: &Pairs) -> Vec<(String, String)> {
        let text = |value: &Secret<Vec<u8>>| String::from_utf8(value.expose().clone()).unwrap();
        pairs.iter().map(|(name, value)| (name.to_string(), text(value))).collect()
    }

    #[test]
    fn an_env_file_is_read_as_it_stands() {
        let text = "# a comment\n\nA=one two\nexport B='$HOME'\nC=\"x=y\"\nD=\n";
        let read = pairs(&parse_env(text).unwrap());
        let expected = [("A", "one two"), ("B", "$HOME"), ("C", "x=y"), ("D", "")];
        assert_eq!(read, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        for wrong in ["A", "a=1", "A=1\nA=2", "=x"] {
            let fault = parse_env(wrong).unwrap_err();
            assert!(fault.message.contains("nothing was imported"), "{wrong}");
        }
    }

    #[test]
    fn json_is_an_object_of_texts() {
        assert_eq!(pairs(&parse_json(r#"{"A":"x\ny"}"#).unwrap()), [("A".to_owned(), "x\ny".to_owned())]);
        for wrong in ["[]", r#"{"A":1}"#, r#"{"a":"x"}"#, "hunter2"] {
            assert!(!parse_json(wrong).unwrap_err().message.contains("hunter2"));
        }
    }
}
