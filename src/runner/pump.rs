//! One run in the runner: launches it, moves its bytes, bounds its time and output, reports its end.

use super::order::{Finished, Order, Report, Start, WINDOW};
use crate::model::{Ending, LONGEST_SECRET, LaunchFault, Outcome, RunFault, Stdin};
use crate::os;
use crate::os::linux::memfd::Sealed;
use crate::sandbox::{Descriptors, Launched, Launcher, Verdict};
use std::cell::RefCell;
use std::fs::File;
use std::future::pending;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

/// Bytes read from a pipe at a time.
const CHUNK: usize = 16 << 10;

/// Where reports go: the connection's writer.
pub(super) type Reports = mpsc::Sender<(u64, Report)>;

/// Carries one run through, with the descriptors that came beside its start. `orders` ends when the gateway is gone,
/// which kills the run.
pub(super) async fn run(
    launcher: Rc<RefCell<Launcher>>,
    number: u64,
    (start, beside): (Start, Vec<OwnedFd>),
    mut orders: mpsc::UnboundedReceiver<Order>,
    reports: Reports,
) {
    let result = match begin(&launcher, start, beside) {
        Ok(mut pump) => {
            pump.turn(number, &mut orders, &reports).await;
            pump.end(&launcher).await
        }
        Err(fault) => Err(fault),
    };
    let _ = reports.send((number, Report::Finished(Box::new(Finished::new(&result))))).await;
    drop(reports);
    // After the answer, not beside the command: building walls takes locks of the kernel that it would wait for.
    tokio::task::yield_now().await;
    launcher.borrow_mut().refill();
}

struct Pump {
    launched: Launched,
    status: Option<pipe::Receiver>,
    stdout: Option<pipe::Receiver>,
    stderr: Option<pipe::Receiver>,
    stdin: Option<pipe::Sender>,
    /// Input taken from the gateway and not yet by the command.
    input: Vec<u8>,
    input_ends: bool,
    deadline: Instant,
    /// Output that may still be sent before the gateway must answer.
    credit: u32,
    output_left: u64,
    output_bytes: u64,
    /// Set when it was ended by us.
    reason: Option<Ending>,
}

fn begin(launcher: &Rc<RefCell<Launcher>>, start: Start, beside: Vec<OwnedFd>) -> Result<Pump, RunFault> {
    let (command, stdin, profile) = start.read().ok_or_else(|| refused("the order makes no sense".into()))?;
    let secrets = sealed(beside, command.secrets.len())?;
    let limits = profile.limits.clone();
    let pipes = Pipes::new(stdin).map_err(|e| wall("make the command's pipes", &e))?;
    let handed = Descriptors {
        stdin: pipes.stdin.1.as_fd(),
        stdout: pipes.stdout.1.as_fd(),
        stderr: pipes.stderr.1.as_fd(),
        secrets: &secrets,
    };
    let launched = launcher.borrow_mut().launch(&profile, command, handed)?;
    // The init has them; here nothing is left of them.
    drop(secrets);
    // Our copies of the command's ends go with `pipes`, so that its end is seen.
    let attach = || -> io::Result<_> {
        Ok((
            pipe::Receiver::from_owned_fd(launched.status.try_clone()?)?,
            pipe::Receiver::from_owned_fd(pipes.stdout.0)?,
            pipe::Receiver::from_owned_fd(pipes.stderr.0)?,
            pipes.stdin.0.map(pipe::Sender::from_owned_fd).transpose()?,
        ))
    };
    let (status, stdout, stderr, stdin) = match attach() {
        Ok(attached) => attached,
        Err(e) => {
            launcher.borrow_mut().finish(launched);
            return Err(wall("watch the command's pipes", &e));
        }
    };
    Ok(Pump {
        // A deadline beyond what the clock can hold is none that would ever be reached.
        deadline: Instant::now().checked_add(limits.timeout).unwrap_or_else(far_future),
        launched,
        status: Some(status),
        stdout: Some(stdout),
        stderr: Some(stderr),
        stdin,
        input: Vec::new(),
        input_ends: false,
        credit: WINDOW,
        output_left: limits.output_bytes,
        output_bytes: 0,
        reason: None,
    })
}

fn refused(what: String) -> RunFault {
    RunFault::Refused { what, hint: "gateway and runner must be of one version".into() }
}

/// The values of so many secrets. That they are sealed is looked at here, by their descriptors; what they say is not.
fn sealed(beside: Vec<OwnedFd>, wanted: usize) -> Result<Vec<Sealed>, RunFault> {
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

impl Pump {
    /// Moves bytes until the whole tree is gone and its output is passed on, or nobody wants it any more.
    async fn turn(&mut self, number: u64, orders: &mut mpsc::UnboundedReceiver<Order>, reports: &Reports) {
        let (mut said, mut out, mut err) = ([0; 512], vec![0; CHUNK], vec![0; CHUNK]);
        while self.status.is_some() || self.stdout.is_some() || self.stderr.is_some() {
            // After a kill of ours nobody waits for a reader that has stopped reading.
            if self.reason.is_some() && self.status.is_none() && self.credit == 0 {
                return;
            }
            let room = self.credit as usize;
            tokio::select! {
                read = read(&mut self.status, &mut said, true) => match read {
                    0 => self.status = None,
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
                () = sleep_until(self.deadline), if self.reason.is_none() => self.kill(Ending::TimedOut),
            }
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
        if self.input_ends && self.input.is_empty() {
            self.stdin = None;
        }
    }

    async fn obey(&mut self, number: u64, order: Option<Order>, reports: &Reports) {
        match order {
            None | Some(Order::Cancel) => self.kill(Ending::Cancelled),
            Some(Order::Input(bytes)) if self.stdin.is_some() => self.input.extend(bytes),
            Some(Order::InputEnd) => {
                self.input_ends = true;
                self.close_input_when_done();
            }
            Some(Order::Credit(bytes)) => self.credit = self.credit.saturating_add(bytes).min(WINDOW),
            Some(Order::Input(bytes)) => {
                let _ = reports.send((number, Report::InputTaken(bytes.len() as u32))).await;
            }
            Some(Order::Start(_)) => {}
        }
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
    }

    /// Waits for the kernel to have cleared the tree, then frees what it held.
    async fn end(self, launcher: &Rc<RefCell<Launcher>>) -> Result<Outcome, RunFault> {
        os::process::ended(self.launched.pidfd()).await;
        let verdict = self.launched.monitor.verdict();
        let finished = launcher.borrow_mut().finish(self.launched);
        let ending = match (self.reason, verdict) {
            (_, Verdict::Fault(fault)) if self.reason.is_none() => return Err(fault),
            (Some(reason), _) => reason,
            (None, Verdict::Ended(Ending::Signaled(9)) | Verdict::Killed) if finished.out_of_memory => {
                Ending::OutOfMemory
            }
            (None, Verdict::Ended(ending)) => ending,
            (None, _) => Ending::Signaled(9),
        };
        let enforcement = finished.enforcement.ok_or(RunFault::NeverStarted(ending))?;
        Ok(Outcome { ending, enforcement, elapsed: finished.elapsed, output_bytes: self.output_bytes })
    }
}

/// Reads from a pipe that is there and wanted; waits for ever otherwise. 0 is the end, an error as well.
async fn read(pipe: &mut Option<pipe::Receiver>, buffer: &mut [u8], wanted: bool) -> usize {
    match pipe {
        Some(pipe) if wanted => pipe.read(buffer).await.unwrap_or(0),
        _ => pending().await,
    }
}

/// Writes what there is to a pipe that is there; `None` where nobody reads it any more.
async fn write(pipe: &mut Option<pipe::Sender>, bytes: &[u8]) -> Option<usize> {
    match pipe {
        Some(pipe) if !bytes.is_empty() => pipe.write(bytes).await.ok(),
        _ => pending().await,
    }
}
