//! `sandbox read`, `write` and `ls`: the file tools, in pieces as large as one call takes.

use super::args::{FileArgs, PlaceArgs};
use super::render::{self, Fault, one_line, table};
use crate::model::LONGEST_PIECE;
use crate::wire;
use serde_json::{Value, json};
use std::io::Read;
use std::process::ExitCode;

const SCOPES: &[&str] = &["operator.write"];

fn params(args: &FileArgs) -> Value {
    let mut params = json!({"agent": args.agent, "path": args.path});
    for (key, value) in [("session", &args.session), ("profile", &args.profile)] {
        if let Some(value) = value {
            params[key] = json!(value);
        }
    }
    params
}

/// Writes a file of the workspace to standard output.
pub(super) fn read(place: &PlaceArgs, args: &FileArgs) -> Result<ExitCode, Fault> {
    let mut offset = 0;
    loop {
        let mut params = params(args);
        params["offset"] = json!(offset);
        let answer = place.call(SCOPES, "sandbox.file.read", Some(params))?;
        let bytes = wire::bytes::decode(answer["data"].as_str().unwrap_or_default()).unwrap_or_default();
        render::bytes(&bytes);
        offset += bytes.len() as u64;
        if (bytes.len() as u64) < LONGEST_PIECE {
            return Ok(ExitCode::SUCCESS);
        }
    }
}

/// Makes standard input a file of the workspace: its first piece takes the file's place, the others are added.
pub(super) fn write(place: &PlaceArgs, args: &FileArgs) -> Result<ExitCode, Fault> {
    let mut input = std::io::stdin().lock();
    let mut append = false;
    loop {
        let mut piece = Vec::new();
        input
            .by_ref()
            .take(LONGEST_PIECE)
            .read_to_end(&mut piece)
            .map_err(|e| Fault::new(format!("cannot read standard input: {e}")).hint("it becomes the file"))?;
        if append && piece.is_empty() {
            return Ok(ExitCode::SUCCESS);
        }
        let mut params = params(args);
        params["data"] = json!(wire::bytes::encode(&piece));
        params["append"] = json!(append);
        place.call(SCOPES, "sandbox.file.write", Some(params))?;
        append = true;
    }
}

/// Shows the names in a folder of the workspace.
pub(super) fn list(place: &PlaceArgs, args: &FileArgs) -> Result<ExitCode, Fault> {
    let answer = place.call(SCOPES, "sandbox.file.list", Some(params(args)))?;
    if args.json {
        render::json(&answer);
        return Ok(ExitCode::SUCCESS);
    }
    let text = |value: &Value| one_line(value.as_str().unwrap_or_default());
    let entries = answer["entries"].as_array().into_iter().flatten();
    let rows: Vec<_> = entries.map(|e| vec![text(&e["kind"]), e["size"].to_string(), text(&e["name"])]).collect();
    if !rows.is_empty() {
        render::line(&table(&rows));
    }
    if answer["truncated"] == true {
        render::note("note: there are more names than are shown");
    }
    Ok(ExitCode::SUCCESS)
}
