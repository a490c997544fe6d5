//! Results and events of our own methods.

use super::bytes;
use crate::model::{Backend, Ending, Enforcement, LimitKind, Outcome, RunId, Stream};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// A piece of a command's output.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct OutputEvent {
    pub(crate) run_id: String,
    pub(crate) stream: String,
    /// Base64.
    pub(crate) data: String,
}

impl OutputEvent {
    pub(crate) fn new(run: &RunId, stream: Stream, output: &[u8]) -> Self {
        OutputEvent { run_id: run.as_str().into(), stream: stream.as_str().into(), data: bytes::encode(output) }
    }
}

/// The result of `exec.run`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ExecResult {
    pub(crate) run_id: String,
    /// `exited`, `signaled`, `timed-out`, `output-limit`, `out-of-memory`, `cancelled`.
    pub(crate) ending: String,
    /// What `vambrace exec` exits with.
    pub(crate) exit_code: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) signal: Option<u8>,
    pub(crate) output_bytes: u64,
    /// What something in the sandbox tried to execute and was not on the list of executables.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) refused_executables: Vec<String>,
    /// Bounds that the command met without being ended for it: `pids`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) limits_reached: Vec<String>,
    /// Microseconds from the order's arrival at the launcher to the end of the whole tree.
    pub(crate) elapsed_us: u64,
    pub(crate) enforcement: Value,
    /// The journal's sequence number of the record that allowed this run.
    pub(crate) journal_seq: u64,
}

impl ExecResult {
    pub(crate) fn new(run: &RunId, outcome: &Outcome, journal_seq: u64) -> Self {
        ExecResult {
            run_id: run.as_str().into(),
            ending: outcome.ending.as_str().into(),
            exit_code: outcome.ending.exit_code(),
            signal: match outcome.ending {
                Ending::Signaled(signal) => Some(signal),
                _ => None,
            },
            output_bytes: outcome.output_bytes,
            refused_executables: outcome.refused.clone(),
            limits_reached: outcome.out_of_processes.then(|| LimitKind::Pids.as_str().to_owned()).into_iter().collect(),
            elapsed_us: outcome.elapsed.as_micros() as u64,
            enforcement: enforcement_json(&outcome.enforcement),
            journal_seq,
        }
    }
}

/// What was enforced, for machines.
pub(crate) fn enforcement_json(e: &Enforcement) -> Value {
    let limits: serde_json::Map<String, Value> =
        e.limits.iter().map(|(kind, means)| (kind.as_str().into(), means.as_str().into())).collect();
    let backend = if e.container.is_some() { Backend::Docker } else { Backend::Native };
    let container = e.container.as_ref();
    json!({
        "backend": backend.as_str(),
        "container": container.map(|c| json!({"id": c.id, "image": c.image, "plan": c.plan, "setUp": c.set_up})),
        "tier": e.tier.as_str(),
        "namespaces": e.namespaces,
        "hostUid": e.host_uid,
        "landlockAbi": e.landlock_abi,
        "seccompFilters": e.seccomp_filters,
        "noNewPrivs": e.no_new_privs,
        "noCapabilities": e.no_capabilities,
        "network": e.network.as_str(),
        "exec": e.exec_mode.as_str(),
        "proofs": e.proofs,
        "proof": e.proof,
        "limits": limits,
    })
}
