//! `sandbox run` in a container: a docker runner for one command, without a gateway.

use super::gateway::runtime;
use super::render::{self, Fault};
use super::sandbox::fault;
use crate::config::{Places, Settings};
use crate::daemon;
use crate::model::{Outcome, RunFault, SandboxProfile, Stdin, Stream};
use crate::os;
use crate::runner::{Client, RunEvent};
use crate::sandbox::Command;
use std::io::Write;
use std::path::Path;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

/// Bytes of input sent at a time.
const CHUNK: usize = 32 << 10;

/// How long the runner may take to be there.
const PATIENCE: Duration = Duration::from_secs(10);

/// Runs the command to its end; its streams are ours.
pub(super) fn run(
    settings: &Settings,
    places: &Places,
    profile: &SandboxProfile,
    command: &Command,
) -> Result<Outcome, Fault> {
    let cannot = |folder: &Path| {
        let what = format!("{} cannot be used", folder.display());
        move |e: std::io::Error| {
            Fault::new(format!("{what}: {e}")).hint("--state-dir names a folder that is yours alone")
        }
    };
    os::fs::private_place(&places.state).map_err(cannot(&places.state))?;
    os::fs::private_dir(&places.runtime).map_err(cannot(&places.runtime))?;
    let supply = daemon::docker_supply(settings, places).map_err(|e| Fault::new(e.to_string()).hint(e.hint()))?;
    let runtime = runtime()?;
    let result = runtime.block_on(async {
        let runner = Client::supply(supply);
        let _ = timeout(PATIENCE, runner.state().wait_for(|state| state.connected)).await;
        let handle = runner.start(command, Stdin::Piped, profile, Vec::new()).map_err(|e| fault(&e))?;
        follow(handle).await.map_err(|e| fault(&e))
    });
    // A read of standard input may still wait, and nothing ends it but our end.
    runtime.shutdown_background();
    result
}

async fn follow(mut handle: crate::runner::RunHandle) -> Result<Outcome, RunFault> {
    let remote = handle.remote();
    // A task of its own, which a terminal that nobody types into keeps waiting for ever.
    tokio::spawn(async move {
        let (mut stdin, mut bytes) = (tokio::io::stdin(), vec![0; CHUNK]);
        loop {
            let read = stdin.read(&mut bytes).await.unwrap_or(0);
            if !remote.input(&bytes[..read], read == 0).await || read == 0 {
                return;
            }
        }
    });
    loop {
        match handle.events.recv().await {
            Some(RunEvent::Output(stream, bytes)) => {
                match stream {
                    Stream::Stdout => render::bytes(&bytes),
                    Stream::Stderr => drop(std::io::stderr().write_all(&bytes)),
                }
                handle.passed_on(bytes.len());
            }
            Some(RunEvent::Network(_)) => {}
            Some(RunEvent::Finished(result)) => return result,
            None => return Err(RunFault::RunnerGone),
        }
    }
}
