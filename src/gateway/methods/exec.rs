//! Commands: ordered from the runner, their output passed on as fast as the client reads it.

use super::Done;
use crate::auth::Session;
use crate::gateway::Gateway;
use crate::gateway::outbox::Outbox;
use crate::gateway::reply::{self, Answer};
use crate::journal::{Event, Receipt, Record};
use crate::model::{ConnId, ExecRequest, Outcome, RunFault, RunId, RunSignal, SandboxProfile};
use crate::os;
use crate::runner::{RunEvent, RunHandle};
use crate::sandbox::Command;
use crate::wire::{self, ErrorCode, ErrorShape, ExecResult, OutputEvent};
use serde_json::json;
use std::sync::PoisonError;

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
    let result = match order(gateway, &request, &profile, receipt) {
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

/// Hands the command to the runner; spends the receipt.
fn order(
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
    gateway.parts.runner.start(&command, request.stdin, profile)
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
    loop {
        match handle.events.recv().await {
            Some(RunEvent::Output(stream, bytes)) => {
                outbox.room().await;
                outbox.send(wire::event("exec.output", &OutputEvent::new(run, stream, &bytes), None));
                handle.passed_on(bytes.len());
            }
            Some(RunEvent::Finished(result)) => return result,
            None => return Err(RunFault::RunnerGone),
        }
    }
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
