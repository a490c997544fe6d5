//! One run in the runner: launches it, moves its bytes, bounds its time, output and disk, reports its end.

use super::disk::Disk;
use super::finished::Finished;
use super::order::{Order, Report, Start, WINDOW};
use super::serve::Around;
use super::streams::{self, Sink, Source};
use super::trees;
use super::way_out::{Helpers, Said, WayOut};
use crate::egress;
use crate::model::{
    Domain, Ending, LONGEST_SECRET, LaunchFault, Network, Outcome, RunFault, SandboxProfile, Stdin, WindowSize,
};
use crate::os;
use crate::os::Sealed;
use crate::sandbox::{Command, Descriptors, Handed, Launched, Launcher, Verdict};
use std::cell::RefCell;
use std::fs::File;
use std::future::pending;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

/// Bytes read from a stream at a time.
const CHUNK: usize = 16 << 10;

/// What ends the input of a program that reads a terminal: VEOF as terminals begin (termios(3)).
const END_OF_TERMINAL_INPUT: u8 = 4;

/// Where reports go: the connection's writer.
pub(super) type Reports = mpsc::Sender<(u64, Report)>;

/// Carries one run through, with the descriptors that came beside its start. `orders` ends when the gateway is gone,
/// which kills the run.
pub(super) async fn run(
    launcher: Rc<RefCell<Launcher>>,
    around: Around,
    number: u64,
    (start, beside): (Start, Vec<OwnedFd>),
    mut orders: mpsc::UnboundedReceiver<Order>,
    reports: Reports,
) {
    let mut remains = None;
    let result = match begin(&launcher, &around, start, beside) {
        Ok(mut pump) => {
            pump.turn(number, &launcher, &mut orders, &reports).await;
            let (result, left) = pump.end(number, &launcher, &reports).await;
            remains = Some(left);
            result
        }
        Err(fault) => Err(fault),
    };
    let _ = reports.send((number, Report::Finished(Box::new(Finished::new(&result))))).await;
    drop(reports);
    // After the answer, not beside the command: building and clearing walls takes locks of the kernel that it would wait
    // for.
    tokio::task::yield_now().await;
    drop(remains);
    launcher.borrow_mut().refill();
}

struct Pump {
    launched: Launched,
    status: Option<pipe::Receiver>,
    stdout: Option<Source>,
    stderr: Option<Source>,
    stdin: Option<Sink>,
    /// Where the init hands over a terminal or doors, until it has.
    handing: Option<AsyncFd<OwnedFd>>,
    terminal: Option<Rc<AsyncFd<OwnedFd>>>,
    size: Option<WindowSize>,
    domains: Vec<Domain>,
    helpers: Helpers,
    way_out: Option<(WayOut, Said)>,
    disk: Disk,
    /// Input taken from the gateway and not yet by the command.
    input: Vec<u8>,
    input_ends: bool,
    deadline: Instant,
    /// Since when everything is stopped. Time stands still meanwhile.
    held: Option<Instant>,
    /// Output that may still be sent before the gateway must answer.
    credit: u32,
    output_left: u64,
    output_bytes: u64,
    /// Set when it was ended by us.
    reason: Option<Ending>,
    /// Set when a helper of it could not be had.
    fault: Option<RunFault>,
}

fn begin(
    launcher: &Rc<RefCell<Launcher>>,
    around: &Around,
    start: Start,
    beside: Vec<OwnedFd>,
) -> Result<Pump, RunFault> {
    let (command, stdin, profile) = start.read().ok_or_else(|| refused("the order makes no sense".into()))?;
    let secrets = sealed(beside, command.secrets.len())?;
    let size = command.terminal;
    let pipes = Pipes::new(if size.is_some() { Stdin::Closed } else { stdin })
        .map_err(|e| wall("make the command's pipes", &e))?;
    around.check_network(&profile)?;
    trees::make(&profile, launcher.borrow().protected())?;
    let mut disk = Disk::watch(&profile);
    let launched = launch(launcher, &profile, command, &pipes, &secrets)?;
    if let Some(folder) = launched.private_folder() {
        disk.watch_also(folder);
    }
    // The init has them; here nothing is left of them.
    drop(secrets);
    match Pump::of(&launched, pipes, size.is_some() || profile.network == Network::Allowlist) {
        // A deadline beyond what the clock can hold is none that would ever be reached.
        Ok((status, [stdout, stderr], stdin, handing)) => Ok(Pump {
            deadline: Instant::now().checked_add(profile.limits.timeout).unwrap_or_else(far_future),
            launched,
            status: Some(status),
            // A terminal takes the place of all three, once it is there.
            stdout: Some(stdout).filter(|_| size.is_none()),
            stderr: Some(stderr).filter(|_| size.is_none()),
            stdin: stdin.filter(|_| size.is_none()),
            handing,
            terminal: None,
            size,
            domains: profile.domains,
            helpers: around.helpers.clone(),
            way_out: None,
            disk,
            input: Vec::new(),
            input_ends: false,
            held: None,
            credit: WINDOW,
            output_left: profile.limits.output_bytes,
            output_bytes: 0,
            reason: None,
            fault: None,
        }),
        Err(e) => {
            launcher.borrow_mut().finish(launched);
            Err(wall("watch the command's pipes", &e))
        }
    }
}

fn launch(
    launcher: &Rc<RefCell<Launcher>>,
    profile: &SandboxProfile,
    command: Command,
    pipes: &Pipes,
    secrets: &[Sealed],
) -> Result<Launched, RunFault> {
    let handed = Descriptors {
        stdin: pipes.stdin.1.as_fd(),
        stdout: pipes.stdout.1.as_fd(),
        stderr: pipes.stderr.1.as_fd(),
        secrets,
    };
    launcher.borrow_mut().launch(profile, command, handed)
}

pub(super) fn refused(what: String) -> RunFault {
    RunFault::Refused { what, hint: "gateway and runner must be of one version".into() }
}

/// The values of so many secrets. That they are sealed is looked at here, by their descriptors; what they say is not.
pub(super) fn sealed(beside: Vec<OwnedFd>, wanted: usize) -> Result<Vec<Sealed>, RunFault> {
    if beside.len() != wanted {
        return Err(RunFault::Refused {
            what: format!("of {wanted} secrets only {} arrived", beside.len()),
            hint: "the runner may have as many files open as it can; send the command once more".into(),
        });
    }
    let check =
        |fd| Sealed::check(fd, LONGEST_SECRET).map_err(|e| refused(format!("a secret is not as it must be: {e}")));
    beside.into_iter().map(check).collect()
}

fn far_future() -> Instant {
    Instant::now() + Duration::from_secs(10 * 365 * 86_400)
}

fn wall(step: &str, e: &io::Error) -> RunFault {
    RunFault::WallMissing(LaunchFault { step: step.into(), cause: e.to_string() })
}

struct Pipes {
    stdin: (Option<OwnedFd>, OwnedFd),
    stdout: (OwnedFd, OwnedFd),
    stderr: (OwnedFd, OwnedFd),
}

impl Pipes {
    fn new(stdin: Stdin) -> io::Result<Self> {
        let ours_theirs = || io::pipe().map(|(r, w)| (OwnedFd::from(r), OwnedFd::from(w)));
        let stdin = match stdin {
            Stdin::Closed => (None, File::open("/dev/null")?.into()),
            Stdin::Piped => ours_theirs().map(|(theirs, ours)| (Some(ours), theirs))?,
        };
        Ok(Pipes { stdin, stdout: ours_theirs()?, stderr: ours_theirs()? })
    }
}

/// What is ours of one run: status, both outputs, the input, and where the init hands over.
type Ends = (pipe::Receiver, [Source; 2], Option<Sink>, Option<AsyncFd<OwnedFd>>);

impl Pump {
    /// Watches what is ours. Our copies of the command's ends go with `pipes`, so that its end is seen.
    fn of(launched: &Launched, pipes: Pipes, hands_over: bool) -> io::Result<Ends> {
        let outputs = [
            Source::Pipe(pipe::Receiver::from_owned_fd(pipes.stdout.0)?),
            Source::Pipe(pipe::Receiver::from_owned_fd(pipes.stderr.0)?),
        ];
        let input = pipes.stdin.0.map(pipe::Sender::from_owned_fd).transpose()?.map(Sink::Pipe);
        let handing = hands_over.then(|| os::process::watched(launched.channel().try_clone()?)).transpose()?;
        Ok((pipe::Receiver::from_owned_fd(launched.status.try_clone()?)?, outputs, input, handing))
    }

    /// Moves bytes until the whole tree is gone and its output is passed on, or nobody wants it any more.
    async fn turn(
        &mut self,
        number: u64,
        launcher: &Rc<RefCell<Launcher>>,
        orders: &mut mpsc::UnboundedReceiver<Order>,
        reports: &Reports,
    ) {
        let (mut said, mut out, mut err) = ([0; 1024], vec![0; CHUNK], vec![0; CHUNK]);
        while self.status.is_some() || self.stdout.is_some() || self.stderr.is_some() {
            // After a kill of ours nobody waits for a reader that has stopped reading.
            if self.reason.is_some() && self.status.is_none() && self.credit == 0 {
                return;
            }
            let room = self.credit as usize;
            let is_timed = self.reason.is_none() && self.held.is_none();
            tokio::select! {
                read = status(&mut self.status, &mut said) => match read {
                    0 => {
                        self.status = None;
                        // The init is gone, and what it handed over may lie there still: all ends may be seen at once, in
                        // any order, and the terminal holds what the command has written.
                        if self.awaits_terminal() {
                            self.take_over(launcher);
                        }
                    }
                    n => self.launched.monitor.feed(&said[..n]),
                },
                n = read(&mut self.stdout, &mut out[..room.min(CHUNK)], room > 0) => {
                    if n == 0 { self.stdout = None } else { self.send(number, Report::Stdout, &out[..n], reports).await }
                }
                n = read(&mut self.stderr, &mut err[..room.min(CHUNK)], room > 0) => {
                    if n == 0 { self.stderr = None } else { self.send(number, Report::Stderr, &err[..n], reports).await }
                }
                taken = write(&mut self.stdin, &self.input) => self.taken(number, taken, reports).await,
                order = orders.recv() => self.obey(number, order, reports).await,
                () = readable(&self.handing) => self.take_over(launcher),
                said = next(&mut self.way_out) => self.tell(number, said, reports).await,
                exceeded = self.disk.exceeded(), if is_timed => if exceeded { self.kill(Ending::DiskLimit) },
                () = sleep_until(self.deadline), if is_timed => self.kill(Ending::TimedOut),
            }
        }
    }

    /// Takes all that the init has handed over: doors first, then a terminal.
    fn take_over(&mut self, launcher: &Rc<RefCell<Launcher>>) {
        while self.handing.is_some()
            && os::process::wait_readable(self.launched.channel(), Some(Duration::ZERO)).unwrap_or(false)
        {
            let done = match self.launched.receive() {
                Ok(Handed::Doors(doors)) if doors.is_empty() => Ok(()),
                Ok(Handed::Doors(doors)) => self.open_way_out(launcher, &doors),
                Ok(Handed::Terminal(master)) => self.use_terminal(master).map_err(|e| wall("use the terminal", &e)),
                // The init is gone; its status says why.
                Err(_) => {
                    self.handing = None;
                    return;
                }
            };
            let wants_doors = !self.domains.is_empty() && self.way_out.is_none();
            let wants_terminal = self.size.is_some() && self.terminal.is_none();
            if !wants_terminal && !wants_doors {
                self.handing = None;
            }
            if let Err(fault) = done {
                self.fault = Some(fault);
                self.kill(Ending::Cancelled);
            }
        }
    }

    fn open_way_out(&mut self, launcher: &Rc<RefCell<Launcher>>, doors: &[OwnedFd]) -> Result<(), RunFault> {
        let lent = launcher.borrow_mut().lend_uid()?;
        let open = || -> io::Result<_> {
            let out = WayOut::open(&self.helpers, &self.domains, doors, lent)?;
            let said = Said::by(&out)?;
            Ok((out, said))
        };
        self.way_out = Some(open().map_err(|e| wall("open the way out for allowed connections", &e))?);
        Ok(())
    }

    fn use_terminal(&mut self, master: OwnedFd) -> io::Result<()> {
        let (source, sink, terminal) = streams::terminal(master)?;
        // The size may have changed before there was a terminal.
        if let Some(size) = self.size {
            os::terminal::resize(terminal.get_ref(), size)?;
        }
        self.stdout = Some(source);
        self.stdin = Some(sink);
        self.terminal = Some(terminal);
        self.close_input_when_done();
        Ok(())
    }

    async fn tell(&mut self, number: u64, said: Option<Vec<egress::Report>>, reports: &Reports) {
        let Some(said) = said else {
            // It ended by itself: without it nothing is carried out any more, which is the safe side.
            if self.reason.is_none() && self.status.is_some() {
                tracing::warn!("the way out of a run has ended before it");
            }
            self.way_out = None;
            return;
        };
        for report in said {
            let _ = reports.send((number, Report::Network(Box::new(report)))).await;
        }
    }

    async fn send(&mut self, number: u64, kind: fn(Vec<u8>) -> Report, bytes: &[u8], reports: &Reports) {
        if self.reason == Some(Ending::OutputLimit) {
            return;
        }
        let most = usize::try_from(self.output_left).unwrap_or(usize::MAX);
        let passed = &bytes[..bytes.len().min(most)];
        self.output_left -= passed.len() as u64;
        self.output_bytes += passed.len() as u64;
        self.credit = self.credit.saturating_sub(passed.len() as u32);
        if !passed.is_empty() {
            let _ = reports.send((number, kind(passed.to_vec()))).await;
        }
        if passed.len() < bytes.len() {
            self.kill(Ending::OutputLimit);
        }
    }

    async fn taken(&mut self, number: u64, taken: Option<usize>, reports: &Reports) {
        let Some(taken) = taken else {
            // The command has closed its input: what is left has no reader, and its sender need not wait.
            self.stdin = None;
            let left = std::mem::take(&mut self.input).len();
            let _ = reports.send((number, Report::InputTaken(left as u32))).await;
            return;
        };
        self.input.drain(..taken);
        self.close_input_when_done();
        let _ = reports.send((number, Report::InputTaken(taken as u32))).await;
    }

    fn close_input_when_done(&mut self) {
        if !self.input_ends || !self.input.is_empty() {
            return;
        }
        if let Some(terminal) = &self.terminal {
            // A terminal has no end; its reader is told as by a person, behind all that came before.
            self.input_ends = false;
            if rustix::io::write(terminal.get_ref(), &[END_OF_TERMINAL_INPUT]).is_err() {
                self.input.push(END_OF_TERMINAL_INPUT);
            }
        } else if self.size.is_none() {
            self.stdin = None;
        }
    }

    async fn obey(&mut self, number: u64, order: Option<Order>, reports: &Reports) {
        match order {
            None | Some(Order::Cancel) => self.kill(Ending::Cancelled),
            Some(Order::LockDown) => self.kill(Ending::LockedDown),
            Some(Order::Hold(held)) => self.hold(held),
            Some(Order::Resize(size)) => {
                self.size = self.size.map(|_| size);
                if let Some(terminal) = &self.terminal {
                    let _ = os::terminal::resize(terminal.get_ref(), size);
                }
            }
            // What comes before the terminal is there waits for it.
            Some(Order::Input(bytes)) if self.stdin.is_some() || self.awaits_terminal() => self.input.extend(bytes),
            Some(Order::InputEnd) => {
                self.input_ends = true;
                self.close_input_when_done();
            }
            Some(Order::Credit(bytes)) => self.credit = self.credit.saturating_add(bytes).min(WINDOW),
            Some(Order::Input(bytes)) => {
                let _ = reports.send((number, Report::InputTaken(bytes.len() as u32))).await;
            }
            Some(Order::Start(_) | Order::Secret(_) | Order::Discard(_) | Order::Kept(_) | Order::Look(_)) => {}
        }
    }

    fn awaits_terminal(&self) -> bool {
        self.size.is_some() && self.terminal.is_none() && self.handing.is_some()
    }

    /// Stops everything, or lets it go on with as much time as it had.
    fn hold(&mut self, held: bool) {
        match (held, self.held) {
            (true, None) => self.held = Some(Instant::now()),
            (false, Some(since)) => {
                self.held = None;
                self.deadline = self.deadline.checked_add(since.elapsed()).unwrap_or_else(far_future);
            }
            _ => return,
        }
        self.launched.hold(held);
    }

    /// Ends the tree; the first reason counts.
    fn kill(&mut self, reason: Ending) {
        if self.reason.is_none() {
            self.reason = Some(reason);
            self.launched.kill();
        }
        if reason == Ending::Cancelled {
            // Nobody listens any more: an order channel that is closed must not spin, nor output be waited for.
            self.stdout = None;
            self.stderr = None;
            self.stdin = None;
        }
        self.handing = None;
    }

    /// Waits for the kernel to have cleared the tree, then frees what it held.
    async fn end(
        self,
        number: u64,
        launcher: &Rc<RefCell<Launcher>>,
        reports: &Reports,
    ) -> (Result<Outcome, RunFault>, crate::sandbox::Finished) {
        os::process::ended(self.launched.pidfd()).await;
        if let Some((out, mut said)) = self.way_out {
            for report in said.rest(&out).await {
                let _ = reports.send((number, Report::Network(Box::new(report)))).await;
            }
        }
        let (verdict, refused) = (self.launched.monitor.verdict(), self.launched.monitor.refused().to_vec());
        if matches!(verdict, Verdict::Killed) && self.reason.is_none() && launcher.borrow().is_contained() {
            // Whoever kept it was killed, so what the command has started is kept by nobody. It ends with the container,
            // and that with us.
            tracing::error!("the keeper of a command was killed");
            #[allow(
                clippy::disallowed_methods,
                reason = "all of this process is to end at once, whatever else it runs"
            )]
            std::process::exit(1);
        }
        let finished = launcher.borrow_mut().finish(self.launched);
        let ending = match (self.reason, verdict) {
            (None, Verdict::Fault(fault)) => return (Err(fault), finished),
            (Some(reason), _) => reason,
            (None, Verdict::Ended(Ending::Signaled(9)) | Verdict::Killed) if finished.out_of_memory => {
                Ending::OutOfMemory
            }
            (None, Verdict::Ended(ending)) => ending,
            (None, _) => Ending::Signaled(9),
        };
        let result = match (self.fault, finished.enforcement.clone()) {
            (Some(fault), _) => Err(fault),
            (None, None) => Err(RunFault::NeverStarted(ending)),
            (None, Some(enforcement)) => {
                let (elapsed, output_bytes) = (finished.elapsed, self.output_bytes);
                let out_of_processes = finished.out_of_processes;
                Ok(Outcome { ending, enforcement, elapsed, output_bytes, refused, out_of_processes })
            }
        };
        (result, finished)
    }
}

/// Reads the status pipe while it is there; waits for ever otherwise. 0 is the end, an error as well.
async fn status(pipe: &mut Option<pipe::Receiver>, buffer: &mut [u8]) -> usize {
    match pipe {
        Some(pipe) => pipe.read(buffer).await.unwrap_or(0),
        None => pending().await,
    }
}

/// Reads from a stream that is there and wanted; waits for ever otherwise.
async fn read(source: &mut Option<Source>, buffer: &mut [u8], wanted: bool) -> usize {
    match source {
        Some(source) if wanted => source.read(buffer).await,
        _ => pending().await,
    }
}

/// Writes what there is to a stream that is there; `None` where nobody reads it any more.
async fn write(sink: &mut Option<Sink>, bytes: &[u8]) -> Option<usize> {
    match sink {
        Some(sink) if !bytes.is_empty() => sink.write(bytes).await,
        _ => pending().await,
    }
}

/// Waits until the init hands something over, if it is to.
async fn readable(handing: &Option<AsyncFd<OwnedFd>>) {
    match handing {
        Some(channel) => match channel.readable().await {
            Ok(mut ready) => ready.clear_ready(),
            Err(_) => pending().await,
        },
        None => pending().await,
    }
}

/// What the way out says next, if there is one.
async fn next(way_out: &mut Option<(WayOut, Said)>) -> Option<Vec<egress::Report>> {
    match way_out {
        Some((_, said)) => said.next().await,
        None => pending().await,
    }
}
