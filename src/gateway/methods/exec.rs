//! Commands: ordered from the runner, their output passed on as fast as the client reads it.

use super::Done;
use crate::auth::Session;
use crate::gateway::Gateway;
use crate::gateway::outbox::Outbox;
use crate::gateway::reply::{self, Answer};
use crate::journal::{Event, Receipt, Record};
use crate::model::{ConnId, ExecRequest, Outcome, RunFault, RunId, RunSignal, SandboxProfile, SecretUse, Stream};
use crate::os;
use crate::os::linux::memfd::Sealed;
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
    let result = match order(gateway, &request, &profile, receipt).await {
        Ok(handle) => {
            let started = json!({"requestId": request_id, "runId": run.as_str()});
            outbox.send(wire::event("exec.started", &started, None));
            follow(gateway, session.conn, &run, handle, outbox).await
        }
        Err(fault) => Err(fault),
    };
    let mut record = ended(&result).by(&session.principal, &session.peer.label()).asking(&request);
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
) -> Result<RunHandle, RunFault> {
    let command = Command::of(request)?;
    // An agent without a workspace of its own gets one the first time it needs it.
    if let Some(workspace) =
        profile.workspace.as_deref().filter(|w| w.parent() == Some(&gateway.parts.policy.workspaces))
    {
        os::fs::private_dir(workspace).map_err(|e| RunFault::Refused {
            what: format!("the workspace {} cannot be made: {e}", workspace.display()),
            hint: "look at the rights of its parent folder".into(),
        })?;
    }
    let secrets = open_secrets(&gateway.parts.secrets, &request.secrets).await?;
    gateway.parts.runner.start(&command, request.stdin, profile, secrets)
}

/// Opens what the permit allows, off the async threads.
async fn open_secrets(keeper: &Arc<Secrets>, uses: &[SecretUse]) -> Result<Vec<Sealed>, RunFault> {
    if uses.is_empty() {
        return Ok(Vec::new());
    }
    let (keeper, uses) = (Arc::clone(keeper), uses.to_vec());
    let opened = tokio::task::spawn_blocking(move || uses.iter().map(|wanted| seal(&keeper, wanted)).collect());
    opened.await.unwrap_or_else(|error| {
        tracing::error!(%error, "secrets could not be opened");
        Err(unopened("a secret could not be opened".into()))
    })
}

/// Puts one value where only its descriptor leads to; in this memory it is zeroed at once.
fn seal(keeper: &Secrets, wanted: &SecretUse) -> Result<Sealed, RunFault> {
    let name = &wanted.name;
    let value = keeper.value(name).map_err(|error| {
        tracing::error!(secret = %name, %error, "a secret could not be opened");
        unopened(format!("the secret {name} could not be opened"))
    })?;
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
    outbox: &Outbox,
) -> Result<Outcome, RunFault> {
    let _registered = Registered::new(gateway, conn, run, &handle);
    // Registered first, looked at second: a client that goes in between has its runs cancelled by one of the two.
    if outbox.is_closed() {
        handle.remote().cancel();
    }
    let redactor = gateway.parts.secrets.redactor();
    let mut covers = [(Stream::Stdout, redactor.stream()), (Stream::Stderr, redactor.stream())];
    let pass_on = |stream: Stream, bytes: &[u8]| {
        if !bytes.is_empty() {
            outbox.send(wire::event("exec.output", &OutputEvent::new(run, stream, bytes), None));
        }
    };
    let mut covered = Vec::new();
    let ended = loop {
        match handle.events.recv().await {
            Some(RunEvent::Output(stream, bytes)) => {
                outbox.room().await;
                covered.clear();
                let (_, cover) = &mut covers[usize::from(stream == Stream::Stderr)];
                cover.push(&bytes, &mut covered);
                pass_on(stream, &covered);
                // What is held back is taken from the runner too: it is bounded, and more must come to decide on it.
                handle.passed_on(bytes.len());
            }
            Some(RunEvent::Finished(result)) => break result,
            None => break Err(RunFault::RunnerGone),
        }
    };
    for (stream, cover) in &mut covers {
        covered.clear();
        cover.finish(&mut covered);
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
    use crate::model::{Delivery, Secret, SecretName, SystemClock};
    use crate::store::Store;

    fn opened(value: &'static [u8], name: &str, delivery: Delivery) -> Result<Vec<u8>, String> {
        let folder = std::env::temp_dir().join(format!("vambrace-test-{}-opened", std::process::id()));
        let journal = Journal::open(&folder, Arc::new(SystemClock), JournaldUse::Off).unwrap();
        let secrets = Secrets::open(Arc::new(Store::in_memory()), Arc::new(SystemClock), journal).unwrap();
        let key = SecretName::parse("KEY").unwrap();
        secrets.set(&key, Secret::new(value.to_vec()), None, "test").unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let wanted = SecretUse { name: SecretName::parse(name).unwrap(), delivery };
        let sealed =
            runtime.block_on(open_secrets(&Arc::new(secrets), &[wanted])).map_err(|fault| fault.to_string())?;
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
