//! `sandbox.file.*`: the file tools. Each is a run like a command's, in the same walls, whose output is the answer.

use crate::gateway::reply::Answer;
use crate::model::{Ending, FileAct, LONGEST_LIST, Outcome, RunFault, Stream};
use crate::redact::Redactor;
use crate::runner::{RunEvent, RunHandle};
use crate::wire::{self, ErrorCode, ErrorShape};
use serde_json::{Value, json};

/// Bytes sent to the init at a time.
const CHUNK: usize = 64 << 10;

/// Bytes of output that an answer is made of: a list of the longest names.
const MOST_OUTPUT: usize = 4 << 20;

/// What an act has said.
#[derive(Default)]
pub(super) struct Said {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

/// Carries one act through: what is to be written goes in, what is said comes out, with secrets covered.
pub(super) async fn follow(mut handle: RunHandle, data: &[u8], cover: &Redactor) -> (Result<Outcome, RunFault>, Said) {
    let remote = handle.remote();
    let write = async {
        for piece in data.chunks(CHUNK) {
            remote.input(piece, false).await;
        }
        remote.input(&[], true).await;
    };
    let read = async {
        let mut said = Said::default();
        let mut outputs = [cover.stream(), cover.stream()];
        let result = loop {
            match handle.events.recv().await {
                Some(RunEvent::Output(stream, bytes)) => {
                    let is_error = stream == Stream::Stderr;
                    let to = if is_error { &mut said.stderr } else { &mut said.stdout };
                    if to.len() < MOST_OUTPUT {
                        outputs[usize::from(is_error)].push(&bytes, to);
                    }
                    handle.passed_on(bytes.len());
                }
                Some(RunEvent::Network(_)) => {}
                Some(RunEvent::Finished(result)) => break result,
                None => break Err(RunFault::RunnerGone),
            }
        };
        let [mut out, mut err] = outputs;
        out.finish(&mut said.stdout);
        err.finish(&mut said.stderr);
        (result, said)
    };
    tokio::join!(write, read).1
}

/// The answer of an act that was carried out.
pub(super) fn answer(act: &FileAct, outcome: &Outcome, said: &Said) -> Answer {
    if outcome.ending != Ending::Exited(0) {
        let why = String::from_utf8_lossy(&said.stderr);
        let why: String = why.trim_end().chars().filter(|c| !c.is_control()).take(512).collect();
        let message = if why.is_empty() { format!("it ended: {}", outcome.ending.as_str()) } else { why };
        let hint = "paths are relative to the workspace, and links are not followed";
        return Err(
            ErrorShape::new(ErrorCode::InvalidRequest, message).details(json!({"code": "FILE_REFUSED", "hint": hint}))
        );
    }
    Ok(match act {
        FileAct::Read { .. } => json!({"data": wire::bytes::encode(&said.stdout)}),
        FileAct::Write { .. } => json!({"ok": true}),
        FileAct::List { .. } => list(&said.stdout),
    })
}

fn list(output: &[u8]) -> Value {
    let mut entries: Vec<Value> = output.split(|byte| *byte == 0).filter_map(entry).collect();
    entries.sort_by(|a, b| a["name"].as_str().cmp(&b["name"].as_str()));
    let is_cut = entries.len() >= LONGEST_LIST;
    json!({"entries": entries, "truncated": is_cut})
}

fn entry(record: &[u8]) -> Option<Value> {
    let mut parts = record.splitn(3, |byte| *byte == b' ');
    let (kind, size, name) = (parts.next()?, parts.next()?, parts.next()?);
    let kind = match kind {
        b"f" => "file",
        b"d" => "folder",
        b"l" => "link",
        _ => "other",
    };
    let size: u64 = std::str::from_utf8(size).ok()?.parse().ok()?;
    // A name that is no text cannot be asked for either; it is shown, so that it is not overlooked.
    Some(match std::str::from_utf8(name) {
        Ok(name) => json!({"name": name, "kind": kind, "size": size}),
        Err(_) => json!({"name": String::from_utf8_lossy(name), "kind": kind, "size": size, "isText": false}),
    })
}
