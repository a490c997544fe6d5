//! The runner's side: takes orders from one gateway at a time and carries them out.
//!
//! One thread, always: it forks, and a fork of a process with threads is not safe.

use super::finished::Finished;
use super::framing;
use super::inbox::{Inbox, Way};
use super::order::{Hello, KeptOrder, Looked, Order, Report, VERSION};
use super::pump;
use super::relay::{self, Containers};
use super::trees;
use super::way_out::Helpers;
use crate::model::{LaunchFault, Network, RunFault, SandboxProfile};
use crate::os;
use crate::sandbox::{EngineSettings, Launcher, Protected};
use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream as StdStream;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;
use tokio::io::AsyncWrite;
use tokio::net::unix::pipe;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::timeout;

/// Reports waiting for the socket; beyond it the pumps wait.
const QUEUED_REPORTS: usize = 64;

/// What carries orders out.
#[derive(Clone)]
enum Hands {
    Native(Result<Rc<RefCell<Launcher>>, LaunchFault>, Around),
    Docker(Rc<Containers>),
}

impl Hands {
    fn native(launcher: Result<Launcher, LaunchFault>, around: Around) -> Self {
        Hands::Native(launcher.map(|launcher| Rc::new(RefCell::new(launcher))), around)
    }

    fn of(with: With, around: Around) -> Self {
        match with {
            With::Native(protected) => Hands::native(Launcher::new(protected), around),
            With::Docker(settings) => Hands::Docker(Rc::new(Containers::new(settings, around))),
        }
    }
}

/// Which backend a runner has; each has one of its own, with the rights of that one alone.
pub(crate) enum With {
    Native(Protected),
    Docker(EngineSettings),
}

/// What a runner has around it.
#[derive(Debug, Clone)]
pub(crate) struct Around {
    /// Who carries out connections that a sandbox may make.
    pub(crate) helpers: Helpers,
}

impl Around {
    /// A runner whose connections are another's to carry out has no network that could be shown to a command.
    pub(super) fn check_network(&self, profile: &SandboxProfile) -> Result<(), RunFault> {
        if profile.network != Network::Host || matches!(self.helpers, Helpers::Own) {
            return Ok(());
        }
        Err(RunFault::Refused {
            what: "network = \"host\" would be none: the runner's service has no network of its own".into(),
            hint: "name domains with network = \"allowlist\", or change the unit of the runner (vambrace(7))".into(),
        })
    }
}

impl With {
    /// Where sandboxes keep what they keep.
    fn kept(&self) -> Option<PathBuf> {
        match self {
            With::Native(protected) => protected.kept.clone(),
            With::Docker(settings) => settings.protected.kept.clone(),
        }
    }
}

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
pub(crate) fn serve_inherited(with: With) -> Result<(), RunnerFault> {
    let socket = io::stdin().as_fd().try_clone_to_owned().map_err(RunnerFault::Inherited)?;
    let stream = StdStream::from(socket);
    stream.set_nonblocking(true).map_err(RunnerFault::Inherited)?;
    os::process::make_undumpable().map_err(RunnerFault::Runtime)?;
    let kept = with.kept();
    let hands = Hands::of(with, Around { helpers: Helpers::Own });
    on_one_thread(async {
        // Ctrl-C reaches the whole terminal group; the gateway decides when we end.
        let _interrupt = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt());
        let _terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate());
        let stream = UnixStream::from_std(stream).map_err(RunnerFault::Inherited)?;
        let (from, to) = stream.into_split();
        serve(Way::Socket(from), to, hands, kept).await;
        Ok(())
    })
}

/// Serves inside a container, over the pipes that its engine has put at standard input and output; ends with them.
pub(crate) fn serve_in_container() -> Result<(), RunnerFault> {
    let pipe = |end: BorrowedFd<'_>| end.try_clone_to_owned().map_err(RunnerFault::Inherited);
    let (from, to) = (pipe(io::stdin().as_fd())?, pipe(io::stdout().as_fd())?);
    os::process::make_undumpable().map_err(RunnerFault::Runtime)?;
    let hands = Hands::native(Launcher::in_container(), Around { helpers: Helpers::Own });
    on_one_thread(async {
        let from = pipe::Receiver::from_owned_fd(from).map_err(RunnerFault::Inherited)?;
        let to = pipe::Sender::from_owned_fd(to).map_err(RunnerFault::Inherited)?;
        serve(Way::Pipe(from), to, hands, None).await;
        Ok(())
    })
}

/// Waits for SIGTERM.
pub(crate) fn rest() -> Result<(), RunnerFault> {
    on_one_thread(async {
        let mut stop =
            tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).map_err(RunnerFault::Runtime)?;
        stop.recv().await;
        Ok(())
    })
}

/// Listens on a socket of our own and serves peers of this uid, until SIGTERM.
pub(crate) fn serve_socket(
    path: &Path,
    gateway_uid: u32,
    with: With,
    around: Around,
    ready: impl FnOnce(),
) -> Result<(), RunnerFault> {
    os::process::make_undumpable().map_err(RunnerFault::Runtime)?;
    let kept = with.kept();
    let hands = Hands::of(with, around);
    on_one_thread(async {
        let fault = |cause| RunnerFault::Listen { path: path.to_owned(), cause };
        let listener = listen(path, gateway_uid).map_err(fault)?;
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
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        continue;
                    }
                },
                _ = stop.recv() => break,
            };
            match stream.peer_cred() {
                Ok(peer) if peer.uid() == gateway_uid => {
                    let (from, to) = stream.into_split();
                    tokio::task::spawn_local(serve(Way::Socket(from), to, hands.clone(), kept.clone()));
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

/// Binds with mode 0600, or where the gateway is another user's so that it can connect, and who connects is judged by the
/// kernel's word. A socket that nobody answers on is a leftover and goes first.
fn listen(path: &Path, gateway_uid: u32) -> io::Result<UnixListener> {
    let bind = if gateway_uid == os::process::uid() { os::fs::bind_private_socket } else { os::fs::bind_shared_socket };
    bind(path).and_then(|socket| {
        socket.set_nonblocking(true)?;
        UnixListener::from_std(socket)
    })
}

/// How long a runner inside a container goes on without a word from outside. Its engine may be killed, or be on another
/// machine that is cut off: then its pipes stay open, and nobody could end what runs.
const SILENCE: Duration = Duration::from_secs(30);

/// One gateway's connection, to its end and that of every run it ordered.
async fn serve(from: Way, to: impl AsyncWrite + Unpin + 'static, hands: Hands, kept: Option<PathBuf>) {
    let silence = matches!(from, Way::Pipe(_)).then_some(SILENCE);
    let mut from = Inbox::new(from);
    let (reports, queue) = mpsc::channel(QUEUED_REPORTS);
    let unable = match &hands {
        Hands::Native(launcher, _) => launcher.as_ref().err().map(ToString::to_string),
        Hands::Docker(_) => None,
    };
    let hello = Hello { version: VERSION, pid: std::process::id(), unable };
    let writer = tokio::task::spawn_local(write_all(to, hello, queue));
    let keeper = tokio::task::spawn_local(keep_tidy(hands.clone()));
    // What another connection was told ended with it; a gateway that is locked down says so first.
    if let Hands::Docker(containers) = &hands {
        containers.hold(false);
    }
    let mut runs: HashMap<u64, mpsc::UnboundedSender<Order>> = HashMap::new();
    let mut pumps = JoinSet::new();
    let mut is_held = false;
    loop {
        let next = match silence {
            Some(most) => timeout(most, from.next()).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())),
            None => from.next().await,
        };
        let (number, order, beside) = match next {
            Ok(Some(read)) => read,
            Ok(None) => break,
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                tracing::error!("nothing was heard from outside; the connection ends");
                break;
            }
            Err(error) => {
                tracing::error!(%error, "the gateway sent what is no order; the connection ends");
                break;
            }
        };
        // These are for everybody.
        if let Order::Hold(held) = order {
            is_held = held;
            if let Hands::Docker(containers) = &hands {
                containers.hold(held);
            }
            runs.values().for_each(|run| drop(run.send(Order::Hold(held))));
            continue;
        }
        if let Order::LockDown = order {
            if let Hands::Docker(containers) = &hands {
                containers.lock_down();
            }
            runs.values().for_each(|run| drop(run.send(Order::LockDown)));
            continue;
        }
        if let (Order::Discard(sandbox), Hands::Docker(containers)) = (&order, &hands) {
            let (containers, sandbox) = (Rc::clone(containers), sandbox.clone());
            tokio::task::spawn_local(async move { containers.discard(&sandbox).await });
            continue;
        }
        if let Order::Look(start) = order {
            let (hands, reports) = (hands.clone(), reports.clone());
            tokio::task::spawn_local(async move {
                let standing = match (hands, start.read()) {
                    (Hands::Docker(containers), Some((_, _, profile))) => containers.look(&profile).await,
                    _ => None,
                };
                let looked = standing.map(|standing| Box::new(Looked::new(standing)));
                let _ = reports.send((number, Report::Looked(looked))).await;
            });
            continue;
        }
        if let Order::Kept(order) = order {
            answer_kept(number, order, kept.clone(), reports.clone());
            continue;
        }
        let Order::Start(start) = order else {
            if let Some(run) = runs.get(&number) {
                let _ = run.send(order);
            }
            continue;
        };
        runs.retain(|_, run| !run.is_closed());
        let refused = match &hands {
            Hands::Native(Err(fault), _) => Some(RunFault::WallMissing(fault.clone())),
            _ => Some(RunFault::LockedDown).filter(|_| is_held),
        };
        if let Some(fault) = refused {
            let finished = Finished::new(&Err(fault));
            let _ = reports.send((number, Report::Finished(Box::new(finished)))).await;
            continue;
        }
        let (orders, inbox) = mpsc::unbounded_channel();
        runs.insert(number, orders);
        let (ordered, reports) = ((*start, beside), reports.clone());
        match hands.clone() {
            Hands::Native(Ok(launcher), around) => {
                drop(pumps.spawn_local(pump::run(launcher, around, number, ordered, inbox, reports)))
            }
            Hands::Docker(containers) => {
                drop(pumps.spawn_local(relay::run(containers, number, ordered, inbox, reports)))
            }
            Hands::Native(Err(_), _) => {}
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

/// Answers one question about what sandboxes keep.
fn answer_kept(number: u64, order: KeptOrder, root: Option<PathBuf>, reports: pump::Reports) {
    let taken = match (&root, &order) {
        (None, _) => Some(trees::ended(Err(io::Error::other("this runner was not told where sandboxes keep things")))),
        (Some(root), KeptOrder::TakeOut(name)) => Some(trees::take_out(root, name)),
        _ => None,
    };
    tokio::task::spawn_local(async move {
        let answers = match (taken, root) {
            (None, Some(root)) => trees::aside(&root, &order).await,
            (taken, _) => taken.into_iter().collect(),
        };
        for answer in answers {
            let _ = reports.send((number, Report::Kept(answer))).await;
        }
    });
}

/// How often the child in reserve is looked at.
const TIDY_EVERY: Duration = Duration::from_secs(2);

/// How often containers are looked for that nobody uses any more.
const PRUNE_EVERY: Duration = Duration::from_secs(60);

async fn keep_tidy(hands: Hands) {
    loop {
        match &hands {
            Hands::Native(Ok(launcher), _) => {
                tokio::time::sleep(TIDY_EVERY).await;
                launcher.borrow_mut().tidy();
            }
            Hands::Native(Err(_), _) => return,
            Hands::Docker(containers) => {
                containers.tidy().await;
                tokio::time::sleep(PRUNE_EVERY).await;
            }
        }
    }
}

async fn write_all(mut to: impl AsyncWrite + Unpin, hello: Hello, mut queue: mpsc::Receiver<(u64, Report)>) {
    if framing::write(&mut to, 0, &Report::Hello(hello)).await.is_err() {
        return;
    }
    while let Some((number, report)) = queue.recv().await {
        // Nothing of ours is as long; what an engine says might be, and ends neither this connection nor its runs.
        if !framing::fits(&report) {
            tracing::error!(number, "a report is longer than the gateway takes, and is not sent");
            continue;
        }
        if framing::write(&mut to, number, &report).await.is_err() {
            return;
        }
    }
}
