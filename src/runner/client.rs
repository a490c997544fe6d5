//! The gateway's side: keeps a runner at hand, sends orders, hands out what comes back.
//!
//! When the runner goes, every run of it fails at once with `RunnerGone`, and another is started or
//! connected to.

use super::finished::Finished;
use super::framing;
use super::order::{Hello, INPUT_WINDOW, KeptOrder, KeptReport, Order, Report, Start, VERSION};
use super::spawner::Spawner;
use crate::egress;
use crate::model::{Outcome, RunFault, SandboxProfile, StandingContainer, Stdin, Stream, WindowSize};
use crate::os::Sealed;
use crate::sandbox::Command;
use crate::sandbox::kept::Kept;
use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

/// Where the runner comes from.
#[derive(Debug, Clone)]
pub(crate) enum Supply {
    /// Started by us as a child, from this program with these arguments.
    Child { program: PathBuf, arguments: Vec<String> },
    /// Its own service, listening here.
    Socket(PathBuf),
    /// A child of a process that was forked off to start it: we cannot start anything ourselves.
    Spawner(Spawner),
}

/// What is known of the runner.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RunnerState {
    pub(crate) connected: bool,
    pub(crate) pid: Option<u32>,
    /// The wall that cannot be built on this host: nothing can be run.
    pub(crate) unable: Option<String>,
    /// How often it was lost since we started.
    pub(crate) losses: u64,
}

/// What a run sends.
#[derive(Debug)]
pub(crate) enum RunEvent {
    Output(Stream, Vec<u8>),
    Network(egress::Report),
    Finished(Result<Outcome, RunFault>),
}

/// A run that was ordered. Dropping it cancels the run.
pub(crate) struct RunHandle {
    number: u64,
    pub(crate) events: mpsc::UnboundedReceiver<RunEvent>,
    remote: Remote,
}

/// The part of a run that others may hold: to send input, to cancel.
#[derive(Clone)]
pub(crate) struct Remote {
    number: u64,
    orders: mpsc::UnboundedSender<Sent>,
    /// Bytes of input the runner takes before it must answer.
    input_room: Arc<Semaphore>,
}

/// An order on its way, with the values that travel beside it. They are let go of once it is written.
struct Sent {
    number: u64,
    order: Order,
    secrets: Vec<Sealed>,
}

/// The gateway's hold on a runner.
#[derive(Clone)]
pub(crate) struct Client {
    shared: Arc<Shared>,
}

struct Shared {
    line: Mutex<Line>,
    state: watch::Sender<RunnerState>,
}

#[derive(Default)]
struct Line {
    /// Whether everything is locked down; what a new runner is told first.
    is_held: bool,
    /// Orders go here while a runner is connected.
    orders: Option<mpsc::UnboundedSender<Sent>>,
    runs: HashMap<u64, Run>,
    /// Questions about what sandboxes keep, until their end.
    questions: HashMap<u64, mpsc::UnboundedSender<KeptReport>>,
    /// Questions about what stands for a sandbox.
    looks: HashMap<u64, oneshot::Sender<Option<StandingContainer>>>,
    next: u64,
}

impl Line {
    /// An order that is for every run there is; without a runner there is none.
    fn to_all(&self, order: Order) {
        if let Some(orders) = &self.orders {
            let _ = orders.send(Sent { number: 0, order, secrets: Vec::new() });
        }
    }
}

struct Run {
    events: mpsc::UnboundedSender<RunEvent>,
    input_room: Arc<Semaphore>,
}

impl Client {
    /// Begins to supply a runner and goes on for as long as the runtime lives.
    pub(crate) fn supply(supply: Supply) -> Self {
        let (state, _) = watch::channel(RunnerState::default());
        let client = Client { shared: Arc::new(Shared { line: Mutex::default(), state }) };
        tokio::spawn(client.clone().keep(supply));
        client
    }

    /// The runner's state, and how to wait for a change of it.
    pub(crate) fn state(&self) -> watch::Receiver<RunnerState> {
        self.shared.state.subscribe()
    }

    /// Orders a run, with the value of each secret that the command names.
    ///
    /// # Errors
    /// RunnerGone while there is no runner.
    pub(crate) fn start(
        &self,
        command: &Command,
        stdin: Stdin,
        profile: &SandboxProfile,
        secrets: Vec<Sealed>,
    ) -> Result<RunHandle, RunFault> {
        let start = Order::Start(Box::new(Start::new(command, stdin, profile)));
        // Refused here, alone: a frame that the runner does not take would end the connection and every run on it.
        if !framing::fits(&start) {
            return Err(RunFault::Refused {
                what: "the command and its profile are too large to be ordered".into(),
                hint: "put long data into a file of the workspace".into(),
            });
        }
        let mut line = self.line();
        let orders = line.orders.clone().ok_or(RunFault::RunnerGone)?;
        line.next += 1;
        let number = line.next;
        let (events, inbox) = mpsc::unbounded_channel();
        let input_room = Arc::new(Semaphore::new(INPUT_WINDOW as usize));
        line.runs.insert(number, Run { events, input_room: Arc::clone(&input_room) });
        drop(line);
        let remote = Remote { number, orders, input_room };
        // A runner that went just now has failed this run already: its event waits in the inbox.
        let _ = remote.orders.send(Sent { number, order: start, secrets });
        Ok(RunHandle { number, events: inbox, remote })
    }

    /// Stops every run at once and has new ones refused, or lets them go on; holds for every runner to come as well.
    pub(crate) fn hold(&self, held: bool) {
        let mut line = self.line();
        line.is_held = held;
        line.to_all(Order::Hold(held));
    }

    /// Ends every run for an operator's lockdown, those too that nobody else knows of yet.
    pub(crate) fn lock_down(&self) {
        self.line().to_all(Order::LockDown);
    }

    /// Says that a sandbox keeps nothing any more.
    pub(crate) fn discard(&self, sandbox: &str) {
        self.line().to_all(Order::Discard(sandbox.to_owned()));
    }

    /// Every kept sandbox, by name.
    ///
    /// # Errors
    /// Where there is no runner, or it cannot read them.
    pub(crate) async fn list_kept(&self) -> io::Result<Vec<Kept>> {
        let listed = self.ask(KeptOrder::List).await?.into_iter();
        Ok(listed.filter_map(|(name, used, idle)| Kept::new(name, used, Duration::from_secs(idle))).collect())
    }

    /// Takes a kept sandbox out of its place: no command that is ordered later finds it there.
    ///
    /// # Errors
    /// NotFound where there is none of this name.
    pub(crate) async fn take_out(&self, name: &str) -> io::Result<()> {
        self.ask(KeptOrder::TakeOut(name.to_owned())).await.map(drop)
    }

    /// Removes what was taken out.
    ///
    /// # Errors
    /// Where something cannot be removed.
    pub(crate) async fn sweep(&self) -> io::Result<()> {
        self.ask(KeptOrder::Sweep).await.map(drop)
    }

    /// The container that stands for the sandbox of a profile; `None` where there is none, or nobody who could say.
    pub(crate) async fn look(&self, profile: &SandboxProfile) -> Option<StandingContainer> {
        let order = Order::Look(Box::new(Start::new(&Command::default(), Stdin::Closed, profile)));
        let answer = {
            let mut line = self.line();
            let orders = line.orders.clone().filter(|_| framing::fits(&order))?;
            line.next += 1;
            let number = line.next;
            let (sender, answer) = oneshot::channel();
            line.looks.insert(number, sender);
            let _ = orders.send(Sent { number, order, secrets: Vec::new() });
            answer
        };
        answer.await.ok().flatten()
    }

    async fn ask(&self, order: KeptOrder) -> io::Result<Vec<(String, u64, u64)>> {
        let gone = || io::Error::new(io::ErrorKind::NotConnected, "there is no runner that could be asked");
        let order = Order::Kept(order);
        if !framing::fits(&order) {
            // No name of ours is as long.
            return Err(io::ErrorKind::NotFound.into());
        }
        let mut inbox = {
            let mut line = self.line();
            let orders = line.orders.clone().ok_or_else(gone)?;
            line.next += 1;
            let number = line.next;
            let (answers, inbox) = mpsc::unbounded_channel();
            line.questions.insert(number, answers);
            let _ = orders.send(Sent { number, order, secrets: Vec::new() });
            inbox
        };
        let mut listed = Vec::new();
        loop {
            match inbox.recv().await {
                Some(KeptReport::Listed(part)) => listed.extend(part),
                Some(KeptReport::Done) => return Ok(listed),
                Some(KeptReport::Missing) => return Err(io::ErrorKind::NotFound.into()),
                Some(KeptReport::Failed(why)) => return Err(io::Error::other(why)),
                None => return Err(gone()),
            }
        }
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.shared.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connects, serves until the runner goes, and begins again.
    async fn keep(self, supply: Supply) {
        let mut pause = Duration::from_millis(50);
        loop {
            match connect(&supply) {
                Ok((stream, child)) => {
                    let served = self.serve(stream).await;
                    if let Some(child) = child {
                        reap(child);
                    }
                    if served.was_greeted {
                        pause = Duration::from_millis(50);
                    }
                    tracing::warn!(error = %served.why, "the runner is gone");
                }
                Err(error) => tracing::warn!(%error, "no runner"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(5));
        }
    }

    async fn serve(&self, stream: UnixStream) -> Served {
        let (mut from, to) = stream.into_split();
        let (orders, queue) = mpsc::unbounded_channel();
        let writer = tokio::spawn(self.clone().write_all(to, queue));
        // Read frame by frame: what a buffer of our own read ahead would lie there until something else comes.
        let served = match greeting(&mut from).await {
            Ok(hello) => {
                // First: who is told that a runner is there may give it an order at once.
                self.open_line(orders);
                self.shared.state.send_modify(|state| {
                    *state = RunnerState {
                        connected: true,
                        pid: Some(hello.pid),
                        unable: hello.unable,
                        losses: state.losses,
                    };
                });
                let why = self.read_all(from).await;
                Served { was_greeted: true, why }
            }
            Err(why) => Served { was_greeted: false, why },
        };
        self.fail_all();
        writer.abort();
        served
    }

    fn open_line(&self, orders: mpsc::UnboundedSender<Sent>) {
        let mut line = self.line();
        if line.is_held {
            let _ = orders.send(Sent { number: 0, order: Order::Hold(true), secrets: Vec::new() });
        }
        line.orders = Some(orders);
    }

    async fn read_all(&self, mut from: OwnedReadHalf) -> io::Error {
        loop {
            match framing::read::<Report>(&mut from).await {
                Ok(Some((number, report))) => self.deliver(number, report),
                Ok(None) => return io::Error::from(io::ErrorKind::UnexpectedEof),
                Err(e) => return e,
            }
        }
    }

    async fn write_all(self, mut to: OwnedWriteHalf, mut queue: mpsc::UnboundedReceiver<Sent>) {
        while let Some(Sent { number, order, secrets }) = queue.recv().await {
            match framing::write_beside(&mut to, number, &order, &secrets).await {
                Ok(()) => {}
                // Not a byte of it was sent. Its secrets would be more than may be under way; those of others go on.
                Err(e) if e.kind() == io::ErrorKind::QuotaExceeded => {
                    self.deliver(number, Report::Finished(Box::new(Finished::new(&Err(RunFault::Busy)))));
                }
                Err(_) => return,
            }
        }
    }

    fn deliver(&self, number: u64, report: Report) {
        let mut line = self.line();
        let event = match report {
            Report::Stdout(bytes) => RunEvent::Output(Stream::Stdout, bytes),
            Report::Stderr(bytes) => RunEvent::Output(Stream::Stderr, bytes),
            Report::Network(report) => RunEvent::Network(*report),
            Report::Finished(finished) => {
                if let Some(run) = line.runs.remove(&number) {
                    run.input_room.close();
                    let _ = run.events.send(RunEvent::Finished(finished.read()));
                }
                return;
            }
            Report::InputTaken(bytes) => {
                if let Some(run) = line.runs.get(&number) {
                    run.input_room.add_permits(bytes as usize);
                }
                return;
            }
            Report::Kept(report) => {
                let is_list = matches!(report, KeptReport::Listed(_));
                let asked = line.questions.remove(&number);
                if let Some(asked) = asked.filter(|asked| asked.send(report).is_ok() && is_list) {
                    line.questions.insert(number, asked);
                }
                return;
            }
            Report::Looked(looked) => {
                if let Some(asked) = line.looks.remove(&number) {
                    let _ = asked.send(looked.map(|looked| looked.read()));
                }
                return;
            }
            Report::Hello(_) => return,
        };
        if let Some(run) = line.runs.get(&number) {
            let _ = run.events.send(event);
        }
    }

    /// The runner is gone: so are its sandboxes, by their own tie to it.
    fn fail_all(&self) {
        let mut line = self.line();
        line.orders = None;
        line.questions.clear();
        line.looks.clear();
        for (_, run) in line.runs.drain() {
            run.input_room.close();
            let _ = run.events.send(RunEvent::Finished(Err(RunFault::RunnerGone)));
        }
        drop(line);
        self.shared.state.send_modify(|state| {
            *state = RunnerState { connected: false, pid: None, unable: None, losses: state.losses + 1 };
        });
    }
}

struct Served {
    was_greeted: bool,
    why: io::Error,
}

impl RunHandle {
    /// What others may hold of this run.
    pub(crate) fn remote(&self) -> Remote {
        self.remote.clone()
    }

    /// Says that so many bytes of output were passed on.
    pub(crate) fn passed_on(&self, bytes: usize) {
        self.remote.send(Order::Credit(bytes as u32));
    }
}

impl Drop for RunHandle {
    fn drop(&mut self) {
        debug_assert_eq!(self.number, self.remote.number);
        self.remote.cancel();
    }
}

impl Remote {
    /// Tells the command that its terminal has another size.
    pub(crate) fn resize(&self, size: WindowSize) {
        self.send(Order::Resize(size));
    }

    /// Ends the run. One that has ended already is left alone.
    pub(crate) fn cancel(&self) {
        self.send(Order::Cancel);
    }

    /// Sends input, at most half of `INPUT_WINDOW`, as soon as the command has taken what came before; says whether the run was still there to take it.
    pub(crate) async fn input(&self, bytes: &[u8], eof: bool) -> bool {
        // All of it at once: the semaphore is fair, so inputs that wait go on in the order they came.
        let Ok(room) = self.input_room.acquire_many(bytes.len() as u32).await else { return false };
        room.forget();
        if !bytes.is_empty() {
            self.send(Order::Input(bytes.to_vec()));
        }
        if eof {
            self.send(Order::InputEnd);
        }
        !self.input_room.is_closed()
    }

    fn send(&self, order: Order) {
        let _ = self.orders.send(Sent { number: self.number, order, secrets: Vec::new() });
    }
}

fn connect(supply: &Supply) -> io::Result<(UnixStream, Option<process::Child>)> {
    let (program, arguments) = match supply {
        Supply::Socket(path) => {
            let stream = std::os::unix::net::UnixStream::connect(path)?;
            stream.set_nonblocking(true)?;
            return Ok((UnixStream::from_std(stream)?, None));
        }
        Supply::Spawner(spawner) => {
            let stream = spawner.ask()?;
            stream.set_nonblocking(true)?;
            return Ok((UnixStream::from_std(stream)?, None));
        }
        Supply::Child { program, arguments } => (program, arguments),
    };
    let (stream, child) = start(program, arguments)?;
    stream.set_nonblocking(true)?;
    Ok((UnixStream::from_std(stream)?, Some(child)))
}

/// Starts a runner with one end of a socketpair at standard input, and gives the other.
pub(super) fn start(
    program: &Path,
    arguments: &[String],
) -> io::Result<(std::os::unix::net::UnixStream, process::Child)> {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    #[allow(clippy::disallowed_methods, reason = "this is the one process the gateway starts: its runner")]
    let child = process::Command::new(program)
        .args(arguments)
        .env_clear()
        // Where runs without namespaces have their scratch folders.
        .envs(std::env::var_os("TMPDIR").map(|folder| ("TMPDIR", folder)))
        .stdin(OwnedFd::from(theirs))
        .stdout(process::Stdio::null())
        .spawn()?;
    Ok((ours, child))
}

/// Reaps a child that has let go of its socket, and makes sure that it ends.
fn reap(mut child: process::Child) {
    let _ = child.kill();
    // A killed child is reaped in no time; still not on the runtime's own threads.
    tokio::task::spawn_blocking(move || child.wait());
}

async fn greeting(from: &mut OwnedReadHalf) -> io::Result<Hello> {
    match framing::read::<Report>(from).await? {
        Some((0, Report::Hello(hello))) if hello.version == VERSION => Ok(hello),
        Some((0, Report::Hello(hello))) => Err(io::Error::other(format!(
            "it speaks version {} of the orders, we speak {VERSION}: upgrade both together",
            hello.version
        ))),
        _ => Err(io::Error::other("it did not introduce itself")),
    }
}
