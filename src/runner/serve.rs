//! The runner's side: takes orders from one gateway at a time and carries them out.
//!
//! One thread, always: it forks, and a fork of a process with threads is not safe.

use super::framing;
use super::inbox::Inbox;
use super::order::{Finished, Hello, Order, Report, VERSION};
use super::pump;
use crate::model::{LaunchFault, RunFault};
use crate::os;
use crate::sandbox::{Launcher, Protected};
use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream as StdStream;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use tokio::net::unix::OwnedWriteHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::{JoinSet, LocalSet};

/// Reports waiting for the socket; beyond it the pumps wait.
const QUEUED_REPORTS: usize = 64;

/// Why the runner cannot serve.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunnerFault {
    #[error("cannot take orders from standard input: {0}")]
    Inherited(io::Error),
    #[error("cannot listen on {path}: {cause}")]
    Listen { path: PathBuf, cause: io::Error },
    #[error("cannot start the runner: {0}")]
    Runtime(io::Error),
}

/// Serves the gateway that started us, over the socket it put at standard input; ends when it does.
pub(crate) fn serve_inherited(protected: Protected) -> Result<(), RunnerFault> {
    let socket = io::stdin().as_fd().try_clone_to_owned().map_err(RunnerFault::Inherited)?;
    let stream = StdStream::from(socket);
    stream.set_nonblocking(true).map_err(RunnerFault::Inherited)?;
    os::process::make_undumpable().map_err(RunnerFault::Runtime)?;
    let launcher = Launcher::new(protected).map(|l| Rc::new(RefCell::new(l)));
    on_one_thread(async {
        // Ctrl-C reaches the whole terminal group; the gateway decides when we end.
        let _interrupt = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt());
        let _terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate());
        let stream = UnixStream::from_std(stream).map_err(RunnerFault::Inherited)?;
        serve(stream, launcher).await;
        Ok(())
    })
}

/// Listens on a socket of our own and serves peers of this uid, until SIGTERM.
pub(crate) fn serve_socket(
    path: &Path,
    gateway_uid: u32,
    protected: Protected,
    ready: impl FnOnce(),
) -> Result<(), RunnerFault> {
    os::process::make_undumpable().map_err(RunnerFault::Runtime)?;
    let launcher = Launcher::new(protected).map(|l| Rc::new(RefCell::new(l)));
    on_one_thread(async {
        let fault = |cause| RunnerFault::Listen { path: path.to_owned(), cause };
        let listener = listen(path).map_err(fault)?;
        let mut stop =
            tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).map_err(RunnerFault::Runtime)?;
        ready();
        loop {
            let stream = tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    Err(e) => {
                        // Out of descriptors, most likely: let running commands end before the next try.
                        tracing::warn!(error = %e, "cannot accept a gateway");
                        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                        continue;
                    }
                },
                _ = stop.recv() => break,
            };
            match stream.peer_cred() {
                Ok(peer) if peer.uid() == gateway_uid => {
                    tokio::task::spawn_local(serve(stream, launcher.clone()));
                }
                Ok(peer) => tracing::warn!(uid = peer.uid(), "refused a peer that is not the gateway"),
                Err(e) => tracing::warn!(error = %e, "refused a peer without credentials"),
            }
        }
        let _ = std::fs::remove_file(path);
        Ok(())
    })
}

fn on_one_thread<T>(work: impl Future<Output = Result<T, RunnerFault>>) -> Result<T, RunnerFault> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(RunnerFault::Runtime)?;
    LocalSet::new().block_on(&runtime, work)
}

/// Binds with mode 0600; a socket that nobody answers on is a leftover and goes first.
fn listen(path: &Path) -> io::Result<UnixListener> {
    os::fs::bind_private_socket(path).and_then(|socket| {
        socket.set_nonblocking(true)?;
        UnixListener::from_std(socket)
    })
}

/// One gateway's connection, to its end and that of every run it ordered.
async fn serve(stream: UnixStream, launcher: Result<Rc<RefCell<Launcher>>, LaunchFault>) {
    let (from, to) = stream.into_split();
    let mut from = Inbox::new(from);
    let (reports, queue) = mpsc::channel(QUEUED_REPORTS);
    let unable = launcher.as_ref().err().map(ToString::to_string);
    let hello = Hello { version: VERSION, pid: std::process::id(), unable };
    let writer = tokio::task::spawn_local(write_all(to, hello, queue));
    let keeper = tokio::task::spawn_local(keep_tidy(launcher.clone()));
    let mut runs: HashMap<u64, mpsc::UnboundedSender<Order>> = HashMap::new();
    let mut pumps = JoinSet::new();
    let mut is_held = false;
    loop {
        let (number, order, beside) = match from.next().await {
            Ok(Some(read)) => read,
            Ok(None) => break,
            Err(error) => {
                tracing::error!(%error, "the gateway sent what is no order; the connection ends");
                break;
            }
        };
        // These are for everybody.
        if let Order::Hold(held) = order {
            is_held = held;
            runs.values().for_each(|run| drop(run.send(Order::Hold(held))));
            continue;
        }
        if let Order::LockDown = order {
            runs.values().for_each(|run| drop(run.send(Order::LockDown)));
            continue;
        }
        let Order::Start(start) = order else {
            if let Some(run) = runs.get(&number) {
                let _ = run.send(order);
            }
            continue;
        };
        runs.retain(|_, run| !run.is_closed());
        match launcher.clone() {
            Ok(_) if is_held => {
                let finished = Finished::new(&Err(RunFault::LockedDown));
                let _ = reports.send((number, Report::Finished(Box::new(finished)))).await;
            }
            Ok(launcher) => {
                let (orders, inbox) = mpsc::unbounded_channel();
                runs.insert(number, orders);
                pumps.spawn_local(pump::run(launcher, number, (*start, beside), inbox, reports.clone()));
            }
            Err(fault) => {
                let finished = Finished::new(&Err(RunFault::WallMissing(fault)));
                let _ = reports.send((number, Report::Finished(Box::new(finished)))).await;
            }
        }
        while pumps.try_join_next().is_some() {}
    }
    // With their channels gone, every pump kills its tree and waits until it is cleared.
    drop(runs);
    drop(reports);
    while pumps.join_next().await.is_some() {}
    keeper.abort();
    writer.abort();
}

/// How often the child in reserve is looked at.
const TIDY_EVERY: std::time::Duration = std::time::Duration::from_secs(2);

async fn keep_tidy(launcher: Result<Rc<RefCell<Launcher>>, LaunchFault>) {
    let Ok(launcher) = launcher else { return };
    loop {
        tokio::time::sleep(TIDY_EVERY).await;
        launcher.borrow_mut().tidy();
    }
}

async fn write_all(mut to: OwnedWriteHalf, hello: Hello, mut queue: mpsc::Receiver<(u64, Report)>) {
    if framing::write(&mut to, 0, &Report::Hello(hello)).await.is_err() {
        return;
    }
    while let Some((number, report)) = queue.recv().await {
        if framing::write(&mut to, number, &report).await.is_err() {
            return;
        }
    }
}
