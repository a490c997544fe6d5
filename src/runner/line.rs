//! The way to the runner inside one container: its orders go in, what its runs say is handed to whoever waits for them.

use super::bounds::{Bounds, GRACE};
use super::framing;
use super::order::{Order, Report, Start, VERSION};
use super::relay::Containers;
use super::shared_way::{Way, Ways};
use crate::model::{Domain, Ending, LaunchFault, RunFault, SandboxProfile, Stdin};
use crate::sandbox::{Command, Entered, Place, left_inside};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::timeout;

/// Reports of one run that wait to be passed on; beyond it the container waits.
const QUEUED: usize = 64;

/// Bytes of a failed setup's output that are told.
const A_TAIL: usize = 400;

/// How often a runner inside is told something, whether there is something to tell or not; well within `serve::SILENCE`.
const SAYS_SOMETHING_EVERY: Duration = Duration::from_secs(5);

/// How long a runner inside may take to introduce itself.
const GREETING: Duration = Duration::from_secs(30);

/// The way to the runner inside one container.
pub(super) struct Line {
    orders: mpsc::UnboundedSender<(u64, Order)>,
    runs: RefCell<HashMap<u64, mpsc::Sender<Report>>>,
    next: Cell<u64>,
    is_open: Cell<bool>,
    /// Whether everything inside stands still.
    is_held: Cell<bool>,
    ways: Ways,
    place: Place,
    /// What reads and writes it.
    tasks: RefCell<Vec<AbortHandle>>,
}

impl Line {
    pub(super) async fn open(entered: Entered, containers: Rc<Containers>, place: Place) -> Result<Rc<Self>, RunFault> {
        let Entered { mut from, mut to, pump } = entered;
        // Dropped with the line, however far it came.
        let pump = Pump(pump);
        let greeting = timeout(GREETING, framing::read::<Report>(&mut from)).await;
        match greeting.map_err(io::Error::other).flatten() {
            Ok(Some((0, Report::Hello(hello)))) if hello.version == VERSION => match hello.unable {
                None => {}
                Some(why) => {
                    containers.remove(&place);
                    return Err(plain(not_inside(&why)));
                }
            },
            other => {
                containers.remove(&place);
                let why = other.err().map_or_else(|| "it did not introduce itself".to_owned(), |e| e.to_string());
                return Err(not_inside(&why));
            }
        }
        let (orders, mut queue) = mpsc::unbounded_channel::<(u64, Order)>();
        let (is_open, is_held) = (Cell::new(true), Cell::new(false));
        let line = Rc::new(Line {
            orders,
            runs: RefCell::default(),
            next: Cell::new(1),
            is_open,
            is_held,
            ways: Ways::default(),
            place: place.clone(),
            tasks: RefCell::default(),
        });
        containers.opened(&line);
        let told = Rc::clone(&line);
        let writes = tokio::task::spawn_local(async move {
            loop {
                let (number, order) = match timeout(SAYS_SOMETHING_EVERY, queue.recv()).await {
                    Ok(Some(order)) => order,
                    Ok(None) => return,
                    // What holds already, so that it is known inside that we are there.
                    Err(_) => (0, Order::Hold(told.is_held.get())),
                };
                if framing::write(&mut to, number, &order).await.is_err() {
                    return;
                }
            }
        });
        let read = Rc::clone(&line);
        let reads = tokio::task::spawn_local(async move {
            let _pump = pump;
            read.read_all(from).await;
            // Whoever waits for a report sees the end.
            read.close();
            containers.remove(&place);
        });
        line.tasks.borrow_mut().extend([writes.abort_handle(), reads.abort_handle()]);
        Ok(line)
    }

    /// Says the end to whoever waits, and lets go of the connection.
    pub(super) fn close(&self) {
        self.is_open.set(false);
        self.runs.borrow_mut().clear();
        self.tasks.borrow_mut().drain(..).for_each(|task| task.abort());
    }

    /// Whether what is sent still arrives somewhere.
    pub(super) fn is_open(&self) -> bool {
        self.is_open.get()
    }

    /// Whether nothing is known to run inside.
    pub(super) fn is_idle(&self) -> bool {
        self.runs.borrow().is_empty()
    }

    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// A run's number on this line, and what will be said of it.
    pub(super) fn begin(&self) -> (Run<'_>, mpsc::Receiver<Report>) {
        let (sender, said) = mpsc::channel(QUEUED);
        let number = self.next.replace(self.next.get() + 1);
        self.runs.borrow_mut().insert(number, sender);
        (Run { line: self, number, goes_on: Cell::new(true) }, said)
    }

    async fn read_all(&self, mut from: DuplexStream) {
        while let Ok(Some((number, report))) = framing::read::<Report>(&mut from).await {
            let Some(run) = self.runs.borrow().get(&number).cloned() else {
                // What a run that was given up still says.
                continue;
            };
            let _ = run.send(report).await;
        }
    }

    /// A run's share of what carries connections out of the container.
    pub(super) async fn way(
        &self,
        containers: &Containers,
        place: &Place,
        profile: &SandboxProfile,
    ) -> Result<Way, RunFault> {
        let ports = Domain::ports_of(&profile.domains);
        let engine = containers.engine_of(place);
        let doors = engine.doors(place, &ports);
        self.ways.take(containers.helpers(), &profile.domains, doors).await
    }

    /// Executes what the profile wants done once, in the same walls as every command.
    pub(super) async fn set_up(&self, setup: &str, profile: &SandboxProfile) -> Result<(), RunFault> {
        let (run, mut said) = self.begin();
        let own = run.number;
        let command = Command { argv: ["sh", "-c", setup].map(Into::into).to_vec(), ..Command::default() };
        self.send(own, Order::Start(Box::new(Start::new(&command, Stdin::Closed, &left_inside(profile)))));
        let mut output = Vec::new();
        let mut bounds = Bounds::new(profile);
        let last = async {
            loop {
                match said.recv().await {
                    Some(Report::Finished(finished)) => break finished.read(),
                    Some(report) if !bounds.allow(&report) => break Err(not_inside("its setup says more than it may")),
                    Some(Report::Stdout(bytes) | Report::Stderr(bytes)) => {
                        let credit = Order::Credit(bytes.len() as u32);
                        bounds.pass_on(Some(credit), |order| self.send(own, order));
                        output.extend_from_slice(&bytes);
                        output.drain(..output.len().saturating_sub(A_TAIL));
                    }
                    Some(_) => {}
                    None => break Err(ended(&self.place)),
                }
            }
        };
        let ended = timeout(profile.limits.timeout.saturating_add(GRACE), last).await;
        let why = match ended.map_err(|_| RunFault::NeverStarted(Ending::TimedOut)).flatten() {
            Ok(outcome) => {
                run.ended();
                match outcome.ending {
                    Ending::Exited(0) => return Ok(()),
                    Ending::Exited(code) => format!("exit code {code}"),
                    other => other.as_str().to_owned(),
                }
            }
            Err(fault) => plain(fault).to_string(),
        };
        let said = short(String::from_utf8_lossy(&output).trim().to_owned());
        Err(RunFault::Engine {
            what: format!("the setup of the container failed ({why}): {said}"),
            hint: "it is `setup` of the profile; `vambrace sandbox explain` shows it".into(),
        })
    }

    /// Stops everything inside, or lets it go on: for all of its runs at once.
    pub(super) fn hold(&self, held: bool) {
        if self.is_held.replace(held) != held {
            self.send(0, Order::Hold(held));
        }
    }

    pub(super) fn send(&self, number: u64, order: Order) {
        let _ = self.orders.send((number, order));
    }
}

/// Ends what takes output out of the engine's hands.
struct Pump(AbortHandle);

impl Drop for Pump {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// One run in a container, for as long as it is waited for.
pub(super) struct Run<'a> {
    line: &'a Line,
    pub(super) number: u64,
    /// Whether it was told to begin and has not said yet that it ended.
    goes_on: Cell<bool>,
}

impl Run<'_> {
    /// It said that it ended.
    pub(super) fn ended(&self) {
        self.goes_on.set(false);
    }

    pub(super) fn goes_on(&self) -> bool {
        self.goes_on.get()
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        if self.goes_on.get() {
            self.line.send(self.number, Order::Cancel);
        }
        self.line.runs.borrow_mut().remove(&self.number);
    }
}

pub(super) fn short(text: String) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(512).collect()
}

/// A fault that is told from inside: its words are shown to people.
pub(super) fn plain(fault: RunFault) -> RunFault {
    match fault {
        RunFault::Refused { what, hint } => RunFault::Refused { what: short(what), hint: short(hint) },
        RunFault::Engine { what, hint } => RunFault::Engine { what: short(what), hint: short(hint) },
        RunFault::NotFound(command) => RunFault::NotFound(short(command)),
        RunFault::NotExecutable { command, cause } => {
            RunFault::NotExecutable { command: short(command), cause: short(cause) }
        }
        RunFault::WallMissing(LaunchFault { step, cause }) => {
            RunFault::WallMissing(LaunchFault { step: short(step), cause: short(cause) })
        }
        other @ (RunFault::NeverStarted(_) | RunFault::RunnerGone | RunFault::Busy | RunFault::LockedDown) => other,
    }
}

pub(super) fn not_inside(why: &str) -> RunFault {
    RunFault::Engine {
        what: format!("the runner inside the container cannot begin: {why}"),
        hint:
            "its image and the engine's kernel must let this program run: `docker logs` and the runner's log tell more"
                .into(),
    }
}

pub(super) fn ended(place: &Place) -> RunFault {
    RunFault::Engine {
        what: format!("the container {:.12} ended while the command was running", place.container.id),
        hint: "somebody has removed, killed or paused it, or the engine was stopped; send the command once more".into(),
    }
}
