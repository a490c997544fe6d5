//! Commands: ordered from the runner, their output passed on as fast as the client reads it.

use super::sandboxes::Use;
use super::{Done, connections, files};
use crate::auth::Session;
use crate::gateway::Gateway;
use crate::gateway::outbox::Outbox;
use crate::gateway::reply::{self, Answer};
use crate::journal::{Event, Receipt, Record};
use crate::model::{
    AgentId, ConnId, ExecRequest, LimitKind, Outcome, RunFault, RunId, RunSignal, SandboxProfile, Secret, SecretUse,
    Stream,
};
use crate::os::Sealed;
use crate::redact::Redactor;
use crate::runner::{RunEvent, RunHandle};
use crate::sandbox::Command;
use crate::secrets::Secrets;
use crate::wire::{self, ErrorCode, ErrorShape, ExecResult, OutputEvent};
use serde_json::json;
use std::sync::{Arc, PoisonError};

/// Runs a command to its end. The receipt is what allows it.
#[allow(clippy::too_many_arguments)]
pub(super) async fn run(
    gateway: &Gateway,
    session: &Session,
    request: ExecRequest,
    profile: SandboxProfile,
    run: RunId,
    receipt: Receipt,
    request_id: &str,
    outbox: &Outbox,
) -> Done {
    let seq = receipt.seq();
    // What covers the command in the record of the permit covers it in that of the end, whatever is kept by then.
    let redactor = gateway.parts.secrets.redactor();
    let result = match order(gateway, &request, &profile, receipt).await {
        Ok((handle, cover, _kept)) => {
            if let Some((act, data)) = &request.file {
                let _registered = Registered::new(gateway, session.conn, &run, &handle);
                if outbox.is_closed() {
                    handle.remote().cancel();
                }
                let (result, said) = files::follow(handle, data, &cover).await;
                let answer = match &result {
                    Ok(outcome) => files::answer(act, outcome, &said),
                    Err(fault) => reply::run_fault(fault),
                };
                let mut record = ended(&result).by(&session.principal, &session.peer.label()).asking(&request);
                record.run = Some(run.as_str().to_owned());
                return Done { answer, record: Some(record.covered(&redactor)) };
            }
            let started = json!({"requestId": request_id, "runId": run.as_str()});
            outbox.send(wire::event("exec.started", &started, None));
            let note = |record: Record| {
                let mut record = record.by(&session.principal, &session.peer.label());
                record.agent = Some(request.agent.to_string());
                record.session = request.session.as_ref().map(ToString::to_string);
                record.run = Some(run.as_str().to_owned());
                gateway.parts.journal.append(record).is_ok()
            };
            follow(gateway, session.conn, &run, handle, &cover, outbox, &note).await
        }
        Err(fault) => Err(fault),
    };
    let record = ended(&result).by(&session.principal, &session.peer.label()).asking(&request);
    let mut record = record.covered(&redactor);
    record.run = Some(run.as_str().to_owned());
    let answer = match &result {
        Ok(outcome) => Ok(serde_json::to_value(ExecResult::new(&run, outcome, seq)).unwrap_or_default()),
        Err(fault) => reply::run_fault(fault),
    };
    Done { answer, record: Some(record) }
}

/// Hands the command and the values of its secrets to the runner; spends the receipt.
async fn order(
    gateway: &Gateway,
    request: &ExecRequest,
    profile: &SandboxProfile,
    _receipt: Receipt,
) -> Result<(RunHandle, Redactor, Option<Use>), RunFault> {
    let command = Command::of(request)?;
    let kept = match &profile.kept {
        None => None,
        Some(path) => Some(Arc::clone(&gateway.in_use).begin(path).await),
    };
    let (secrets, cover) = open_secrets(&gateway.parts.secrets, &request.agent, &request.secrets).await?;
    let handle = gateway.parts.runners.start(&command, request.stdin, profile, secrets)?;
    Ok((handle, cover, kept))
}

/// Bytes of all variables together: execve takes 2 MiB with everything else (execve(2), ARG_MAX).
const MOST_IN_VARIABLES: usize = 1 << 20;

/// Opens what the permit allows, off the async threads.
async fn open_secrets(
    secrets: &Arc<Secrets>,
    agent: &AgentId,
    uses: &[SecretUse],
) -> Result<(Vec<Sealed>, Redactor), RunFault> {
    if let Some(cover) = secrets.cover(agent).filter(|_| uses.is_empty()) {
        return Ok((Vec::new(), cover));
    }
    let (secrets, agent, uses) = (Arc::clone(secrets), agent.clone(), uses.to_vec());
    let opened = tokio::task::spawn_blocking(move || {
        let names: Vec<_> = uses.iter().map(|wanted| wanted.name.clone()).collect();
        let (values, cover) = secrets.hand_out(&agent, &names).map_err(|error| {
            tracing::error!(%agent, %error, "a secret could not be opened");
            unopened(match names.as_slice() {
                [] => "what is to be covered in the output could not be read".to_owned(),
                [name] => format!("the secret {name} could not be opened"),
                _ => "a secret could not be opened".to_owned(),
            })
        })?;
        let in_variables: usize = uses
            .iter()
            .zip(&values)
            .filter_map(|(wanted, value)| wanted.variable().map(|_| value.expose().len()))
            .sum();
        if in_variables > MOST_IN_VARIABLES {
            return Err(RunFault::Refused {
                what: "the secrets are too long for variables: more than 1 MiB together".into(),
                hint: "ask for some of them as files".into(),
            });
        }
        let sealed = uses.iter().zip(&values).map(|(wanted, value)| seal(wanted, value)).collect::<Result<_, _>>()?;
        Ok((sealed, cover))
    });
    opened.await.unwrap_or_else(|error| {
        tracing::error!(%error, "secrets could not be opened");
        Err(unopened("a secret could not be opened".into()))
    })
}

/// Puts one value where only its descriptor leads to.
fn seal(wanted: &SecretUse, value: &Secret<Vec<u8>>) -> Result<Sealed, RunFault> {
    let name = &wanted.name;
    if wanted.variable().is_some() && value.expose().contains(&0) {
        return Err(RunFault::Refused {
            what: format!("the secret {name} holds a NUL byte, which no environment variable can"),
            hint: "ask for it as a file: --secret, or `secrets` without `env`".into(),
        });
    }
    Sealed::new(value.expose()).map_err(|error| {
        tracing::error!(secret = %name, %error, "a secret could not be sealed");
        unopened(format!("the secret {name} could not be put into memory of its own"))
    })
}

/// What the store says stays in the log: it is the operator's affair, not the agent's.
fn unopened(what: String) -> RunFault {
    RunFault::Refused { what, hint: "nothing was run; the gateway's log says why".into() }
}

/// Passes output on until the end. The runner is given credit only for what the client has room for.
async fn follow(
    gateway: &Gateway,
    conn: ConnId,
    run: &RunId,
    mut handle: RunHandle,
    cover: &Redactor,
    outbox: &Outbox,
    note: &(dyn Fn(Record) -> bool + Sync),
) -> Result<Outcome, RunFault> {
    let _registered = Registered::new(gateway, conn, run, &handle);
    // Registered first, looked at second: a client that goes in between has its runs cancelled by one of the two.
    if outbox.is_closed() {
        handle.remote().cancel();
    }
    let mut outputs = [(Stream::Stdout, cover.stream()), (Stream::Stderr, cover.stream())];
    let mut covered = Vec::new();
    let pass_on = |stream: Stream, bytes: &[u8]| {
        if !bytes.is_empty() {
            outbox.send(wire::event("exec.output", &OutputEvent::new(run, stream, bytes), None));
        }
    };
    let ended = loop {
        match handle.events.recv().await {
            Some(RunEvent::Output(stream, bytes)) => {
                outbox.room().await;
                covered.clear();
                outputs[usize::from(stream == Stream::Stderr)].1.push(&bytes, &mut covered);
                pass_on(stream, &covered);
                // What is held back is taken from the runner too: it is bounded, and more must come to decide on it.
                handle.passed_on(bytes.len());
                // Looking for secrets is work, and others wait for this thread.
                tokio::task::yield_now().await;
            }
            Some(RunEvent::Network(report)) => {
                // What cannot be recorded is not done: the connection was made, so the run ends here.
                if !connections::record(&report).is_none_or(note) {
                    handle.remote().cancel();
                }
            }
            Some(RunEvent::Finished(result)) => break result,
            None => break Err(RunFault::RunnerGone),
        }
    };
    for (stream, output) in &mut outputs {
        covered.clear();
        output.finish(&mut covered);
        pass_on(*stream, &covered);
    }
    ended
}

/// A run that can be sent input and cancelled, for as long as this lives.
struct Registered<'a> {
    gateway: &'a Gateway,
    run: &'a RunId,
}

impl<'a> Registered<'a> {
    fn new(gateway: &'a Gateway, conn: ConnId, run: &'a RunId, handle: &RunHandle) -> Self {
        gateway.runs.lock().unwrap_or_else(PoisonError::into_inner).insert(run.clone(), (conn, handle.remote()));
        Registered { gateway, run }
    }
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        self.gateway.runs.lock().unwrap_or_else(PoisonError::into_inner).remove(self.run);
    }
}

fn ended(result: &Result<Outcome, RunFault>) -> Record {
    match result {
        Ok(outcome) => {
            let mut record = Record::new(Event::ExecFinished).walls(&outcome.enforcement);
            record.exit = Some(outcome.ending.exit_code());
            record.ending = Some(outcome.ending.as_str().to_owned());
            record.elapsed_us = Some(outcome.elapsed.as_micros() as u64);
            record.output_bytes = Some(outcome.output_bytes);
            record.refused = outcome.refused.clone();
            record.limits_reached.extend(outcome.out_of_processes.then(|| LimitKind::Pids.as_str().to_owned()));
            record
        }
        Err(fault) => {
            let mut record = Record::new(Event::ExecFailed);
            record.exit = Some(fault.exit_code());
            record.error(&format!("{}: {fault}", fault.code()))
        }
    }
}

/// `exec.input` and `exec.cancel`: only on the connection that started the run.
pub(super) async fn signal(gateway: &Gateway, session: &Session, run: &RunId, signal: RunSignal) -> Answer {
    let remote = {
        let runs = gateway.runs.lock().unwrap_or_else(PoisonError::into_inner);
        runs.get(run).filter(|(conn, _)| *conn == session.conn).map(|(_, remote)| remote.clone())
    };
    let Some(remote) = remote else {
        return Err(ErrorShape::new(ErrorCode::InvalidRequest, "unknown runId").details(json!({"code": "UNKNOWN_RUN"})));
    };
    match signal {
        RunSignal::Cancel => remote.cancel(),
        RunSignal::Resize(size) => remote.resize(size),
        RunSignal::Input { bytes, eof } => {
            remote.input(&bytes, eof).await;
        }
    }
    Ok(json!({"ok": true}))
}

impl Gateway {
    /// Cancels what a connection that is gone has started.
    pub(crate) fn cancel_runs_of(&self, conn: ConnId) {
        for (owner, remote) in self.runs.lock().unwrap_or_else(PoisonError::into_inner).values() {
            if *owner == conn {
                remote.cancel();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::{Journal, JournaldUse};
    use crate::model::{Delivery, SecretName, SystemClock};
    use crate::store::Store;

    fn opened(value: &'static [u8], name: &str, delivery: Delivery) -> Result<Vec<u8>, String> {
        let folder = std::env::temp_dir().join(format!("vambrace-test-{}-opened", std::process::id()));
        let journal = Journal::open(&folder, Arc::new(SystemClock), JournaldUse::Off).unwrap();
        let secrets = Secrets::open(Arc::new(Store::in_memory()), Arc::new(SystemClock), journal).unwrap();
        let key = SecretName::parse("KEY").unwrap();
        let agents = Some([AgentId::parse("main").unwrap()].into());
        secrets.set(&key, Secret::new(value.to_vec()), agents, "test").unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let wanted = SecretUse { name: SecretName::parse(name).unwrap(), delivery };
        let agent = AgentId::parse("main").unwrap();
        let opened = runtime.block_on(open_secrets(&Arc::new(secrets), &agent, &[wanted]));
        let (sealed, _) = opened.map_err(|fault| fault.to_string())?;
        let mut bytes = vec![0; sealed[0].length()];
        sealed[0].read(&mut bytes).unwrap();
        Ok(bytes)
    }

    #[test]
    fn a_value_is_sealed_as_it_is_and_one_with_a_nul_is_no_variable() {
        let variable = || Delivery::Variable("V".into());
        for (value, delivery) in [(&b"a\0b 5678"[..], Delivery::File), (b"a\n\xff 5678", variable())] {
            assert_eq!(opened(value, "KEY", delivery).unwrap(), value);
        }
        assert!(opened(b"a\0b 5678", "KEY", variable()).unwrap_err().contains("NUL"));
    }

    #[test]
    fn what_the_store_says_of_a_secret_it_cannot_open_stays_here() {
        assert_eq!(opened(b"12345678", "OTHER", Delivery::File).unwrap_err(), "the secret OTHER could not be opened");
    }
}
