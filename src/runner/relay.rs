//! The docker runner's hands: a container for each sandbox, and in it a second runner, to which the orders are passed on.
//!
//! What comes out of a container is a stranger's word. It is bounded here once more: no output without credit, none
//! beyond the limit, no run that outlives its deadline by much. Whoever breaks that loses the container.

use super::bounds::{Bounds, GRACE};
use super::disk::Disk;
use super::finished::Finished;
use super::framing;
use super::order::{Order, Report, Start, VERSION};
use super::pump::{Reports, refused, sealed};
use super::serve::Around;
use super::shared_way::{Way, Ways};
use super::trees;
use crate::egress;
use crate::model::{
    Domain, Ending, EngineHost, ExecMode, LaunchFault, LimitKind, Means, Network, Outcome, RunFault, SandboxProfile,
    StandingContainer, Stdin, Tier,
};
use crate::os;
use crate::os::Sealed;
use crate::sandbox::{Command, Engine, EngineSettings, Entered, Place, left_inside};
use futures_util::future::join_all;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::{Rc, Weak};
use std::time::Duration;
use tokio::io::DuplexStream;
use tokio::sync::{OnceCell, mpsc};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};

/// Reports of one run that wait to be passed on; beyond it the container waits.
const QUEUED: usize = 64;

/// How long one engine may take to be looked through, or to remove what is to go.
const A_PRUNE: Duration = Duration::from_secs(120);

/// How long the engine may take to say what stands for a sandbox.
const A_LOOK: Duration = Duration::from_secs(5);

/// Bytes of a failed setup's output that are told.
const A_TAIL: usize = 400;

/// How long a runner inside may take to introduce itself.
const GREETING: Duration = Duration::from_secs(30);

/// The containers of one runner.
pub(super) struct Containers {
    settings: EngineSettings,
    /// By where they are; the runner's own is there from the start.
    engines: RefCell<HashMap<EngineHost, Rc<Engine>>>,
    around: Around,
    lines: RefCell<HashMap<Key, Rc<OnceCell<Rc<Line>>>>>,
    /// Every line there is, also one whose container is being set up.
    open: RefCell<Vec<Weak<Line>>>,
    /// Containers on their way out.
    removing: RefCell<JoinSet<()>>,
    /// Whether everything stands still, by the gateway's word.
    is_held: Cell<bool>,
}

/// A container: engines do not know of each other's ids.
type Key = (EngineHost, String);

/// The way to the runner inside one container.
struct Line {
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

impl Containers {
    pub(super) fn new(settings: EngineSettings, around: Around) -> Self {
        Engine::sweep(&settings);
        let engines = RefCell::default();
        let containers = Containers {
            settings,
            engines,
            around,
            lines: RefCell::default(),
            open: RefCell::default(),
            removing: RefCell::default(),
            is_held: Cell::new(false),
        };
        // Known from the start, so that what an earlier runner has left in it is looked for.
        let _ = containers.engine(None);
        containers
    }

    /// The engine that a profile names, or the runner's own.
    fn engine(&self, named: Option<&EngineHost>) -> Result<Rc<Engine>, RunFault> {
        // One engine by two names would be two that do not know of each other's commands.
        let real = |host: &EngineHost| match host {
            EngineHost::Unix(path) => EngineHost::Unix(os::fs::canonical(path).unwrap_or_else(|_| path.clone())),
            remote => remote.clone(),
        };
        let own = &self.settings.host;
        let host = named.unwrap_or(own);
        if host != own && !self.settings.others.contains(host) {
            return Err(RunFault::Refused {
                what: format!("the docker runner was not told of the engine {host}"),
                hint: "restart the gateway; a runner that is a service is told by --elsewhere (docs/service.md)".into(),
            });
        }
        let host = real(host);
        let new = || Rc::new(Engine::new(EngineSettings { host: host.clone(), ..self.settings.clone() }));
        Ok(Rc::clone(self.engines.borrow_mut().entry(host.clone()).or_insert_with(new)))
    }

    /// That of a container.
    fn engine_of(&self, place: &Place) -> Rc<Engine> {
        let known = self.engines.borrow().get(&place.host).cloned();
        // It was placed there.
        known.unwrap_or_else(|| {
            Rc::new(Engine::new(EngineSettings { host: place.host.clone(), ..self.settings.clone() }))
        })
    }

    /// In every engine that was ever spoken to; one that does not answer holds up no other.
    async fn prune(&self, at_once: Option<&str>) {
        let engines: Vec<_> =
            self.engines.borrow().iter().map(|(host, engine)| (host.clone(), engine.clone())).collect();
        let prune = async |(host, engine): &(EngineHost, Rc<Engine>)| {
            let _ = timeout(A_PRUNE, engine.prune(at_once, |id| self.is_used(host, id))).await;
        };
        join_all(engines.iter().map(prune)).await;
    }

    /// Removes containers that nobody uses any more.
    pub(super) async fn tidy(&self) {
        self.prune(None).await;
        self.lines.borrow_mut().retain(|_, line| line.get().is_none_or(|line| line.is_open.get()));
    }

    fn open_lines(&self) -> Vec<Rc<Line>> {
        let mut open = self.open.borrow_mut();
        open.retain(|line| line.upgrade().is_some_and(|line| line.is_open.get()));
        open.iter().filter_map(Weak::upgrade).collect()
    }

    /// Stops everything in every container, or lets it go on; what comes meanwhile is refused.
    pub(super) fn hold(&self, held: bool) {
        self.is_held.set(held);
        self.open_lines().iter().for_each(|line| line.hold(held));
    }

    /// Ends everything in every container. One in which nothing is known to run goes itself: nothing may live on there.
    pub(super) fn lock_down(self: &Rc<Self>) {
        for line in self.open_lines() {
            line.send(0, Order::LockDown);
            if line.runs.borrow().is_empty() {
                self.remove(&line.place);
            }
        }
    }

    /// Whether something runs in this container, or is about to.
    fn is_used(&self, host: &EngineHost, id: &str) -> bool {
        self.lines.borrow().get(&(host.clone(), id.to_owned())).is_some_and(in_use)
    }

    /// What stands for the sandbox of a profile. An engine that does not answer is no reason to wait.
    pub(super) async fn look(&self, profile: &SandboxProfile) -> Option<StandingContainer> {
        timeout(A_LOOK, self.engine(profile.engine.as_ref()).ok()?.standing(profile)).await.ok()?.ok()?
    }

    /// Removes the container of a sandbox that keeps nothing any more.
    pub(super) async fn discard(&self, sandbox: &str) {
        self.prune(Some(sandbox)).await;
    }

    /// The line into a container, which is entered the first time.
    async fn line(self: &Rc<Self>, place: &Place, profile: &SandboxProfile) -> Result<Rc<Line>, RunFault> {
        let key = (place.host.clone(), place.container.id.clone());
        let cell = Rc::clone(self.lines.borrow_mut().entry(key.clone()).or_default());
        let enter = || async {
            let engine = self.engine_of(place);
            let entered = engine.enter(place).await?;
            let line = Line::open(entered, Rc::clone(self), place.clone()).await?;
            if let Some(setup) = profile.setup.as_deref().filter(|_| !engine.is_set_up(&place.container.id)) {
                tracing::info!(container = place.container.id, "a container is set up");
                if let Err(fault) = line.set_up(setup, profile).await {
                    tracing::warn!(container = place.container.id, error = %fault, "the setup failed");
                    self.remove(place);
                    return Err(fault);
                }
                engine.note_set_up(&place.container.id);
            }
            Ok(line)
        };
        let entered = cell.get_or_try_init(enter).await.map(Rc::clone);
        if entered.is_err() && cell.get().is_none() {
            self.lines.borrow_mut().remove(&key);
        }
        entered
    }

    /// Lets go of a container and has it removed; nobody waits for the engine.
    fn remove(self: &Rc<Self>, place: &Place) {
        let gone = self.lines.borrow_mut().remove(&(place.host.clone(), place.container.id.clone()));
        if let Some(line) = gone.as_ref().and_then(|cell| cell.get()) {
            line.close();
        }
        let (engine, place) = (self.engine_of(place), place.clone());
        engine.let_go(&place.container.id);
        self.removing.borrow_mut().spawn_local(async move { engine.remove(&place).await });
    }

    /// Waits until what is to be removed is.
    pub(super) async fn rest(&self) {
        let removing = std::mem::take(&mut *self.removing.borrow_mut());
        let _ = timeout(A_PRUNE, removing.join_all()).await;
    }
}

/// Whether a line has runs, or is being opened for one.
fn in_use(cell: &Rc<OnceCell<Rc<Line>>>) -> bool {
    cell.get().is_none_or(|line| !line.runs.borrow().is_empty())
}

impl Line {
    async fn open(entered: Entered, containers: Rc<Containers>, place: Place) -> Result<Rc<Self>, RunFault> {
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
        containers.open.borrow_mut().push(Rc::downgrade(&line));
        // What was said to every line before there was this one.
        line.hold(containers.is_held.get());
        let writes = tokio::task::spawn_local(async move {
            while let Some((number, order)) = queue.recv().await {
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
    fn close(&self) {
        self.is_open.set(false);
        self.runs.borrow_mut().clear();
        self.tasks.borrow_mut().drain(..).for_each(|task| task.abort());
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
    async fn way(&self, containers: &Containers, place: &Place, profile: &SandboxProfile) -> Result<Way, RunFault> {
        let ports = Domain::ports_of(&profile.domains);
        let engine = containers.engine_of(place);
        let doors = engine.doors(place, &ports);
        self.ways.take(&containers.around.helpers, &profile.domains, doors).await
    }

    /// Executes what the profile wants done once, in the same walls as every command.
    async fn set_up(&self, setup: &str, profile: &SandboxProfile) -> Result<(), RunFault> {
        let (sender, mut said) = mpsc::channel(QUEUED);
        let own = self.next.replace(self.next.get() + 1);
        self.runs.borrow_mut().insert(own, sender);
        let run = Run { line: self, number: own, goes_on: Cell::new(true) };
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
                run.goes_on.set(false);
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
    fn hold(&self, held: bool) {
        if self.is_held.replace(held) != held {
            self.send(0, Order::Hold(held));
        }
    }

    fn send(&self, number: u64, order: Order) {
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
struct Run<'a> {
    line: &'a Line,
    number: u64,
    /// Whether it was told to begin and has not said yet that it ended.
    goes_on: Cell<bool>,
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        if self.goes_on.get() {
            self.line.send(self.number, Order::Cancel);
        }
        self.line.runs.borrow_mut().remove(&self.number);
    }
}

/// Carries one run through. `orders` ends when the gateway is gone, which kills the run.
pub(super) async fn run(
    containers: Rc<Containers>,
    number: u64,
    (start, beside): (Start, Vec<OwnedFd>),
    mut orders: mpsc::UnboundedReceiver<Order>,
    reports: Reports,
) {
    let mut placed = None;
    let result = carry(&containers, number, (start, beside), &mut orders, &reports, &mut placed).await;
    let _ = reports.send((number, Report::Finished(Box::new(Finished::new(&result))))).await;
    drop(reports);
    if let Some(place) = placed.filter(|place| place.is_once) {
        containers.remove(&place);
    }
    containers.rest().await;
}

async fn carry(
    containers: &Rc<Containers>,
    number: u64,
    (start, beside): (Start, Vec<OwnedFd>),
    orders: &mut mpsc::UnboundedReceiver<Order>,
    reports: &Reports,
    placed: &mut Option<Place>,
) -> Result<Outcome, RunFault> {
    let (command, stdin, profile) = start.read().ok_or_else(|| refused("the order makes no sense".into()))?;
    let secrets = sealed(beside, command.secrets.len())?;
    trees::make(&profile, &containers.settings.protected)?;
    let mut disk = Disk::watch(&profile);
    let mut early = Vec::new();
    let mut bounds = Bounds::new(&profile);
    let (place, line) = get_in(containers, &profile, orders, &mut early, bounds.deadline).await?;
    *placed = Some(place.clone());
    // Getting in was bounded as well; the command has all of its time.
    bounds.begin(&profile);
    // Everything that can fail comes before the command is told to begin.
    let values = secrets.iter().map(opened).collect::<Result<Vec<_>, _>>()?;
    let mut way = match profile.network {
        Network::Allowlist => Some(line.way(containers, &place, &profile).await?),
        Network::None | Network::Host => None,
    };
    if containers.is_held.get() {
        return Err(RunFault::LockedDown);
    }
    let (sender, mut said) = mpsc::channel(QUEUED);
    let own = line.next.replace(line.next.get() + 1);
    line.runs.borrow_mut().insert(own, sender);
    let run = Run { line: &line, number: own, goes_on: Cell::new(true) };
    if !line.is_open.get() {
        return Err(ended(&place));
    }
    values.into_iter().for_each(|value| line.send(own, Order::Secret(value)));
    line.send(own, Order::Start(Box::new(Start::new(&command, stdin, &left_inside(&profile)))));
    let begun = Instant::now();
    let mut reason = None;
    for order in early {
        bounds.pass_on(Some(order), |order| line.send(own, order));
    }
    let result = loop {
        let is_timed = reason.is_none() && bounds.held.is_none();
        tokio::select! {
            order = orders.recv() => {
                if order.is_none() {
                    reason = reason.or(Some(Ending::Cancelled));
                }
                bounds.pass_on(order, |order| line.send(own, order));
                if orders.is_closed() && orders.is_empty() {
                    // Nobody listens any more; what is left is to see it end.
                    break match rest(&mut said).await {
                        Some(result) => {
                            run.goes_on.set(false);
                            result
                        }
                        None => Err(RunFault::RunnerGone),
                    };
                }
            }
            report = said.recv() => match report {
                None => break Err(ended(&place)),
                Some(Report::Finished(finished)) => {
                    run.goes_on.set(false);
                    break finished.read();
                }
                Some(report) if bounds.allow(&report) => drop(reports.send((number, report)).await),
                Some(_) => {
                    tracing::warn!(container = place.container.id, "what is inside says more than it may");
                    containers.remove(&place);
                    break Err(ended(&place));
                }
            },
            report = carried(&mut way) => drop(reports.send((number, Report::Network(Box::new(report)))).await),
            exceeded = disk.exceeded(), if is_timed => if exceeded {
                reason = Some(Ending::DiskLimit);
                bounds.hurry();
                line.send(own, Order::Cancel);
            },
            () = sleep_until(bounds.deadline), if bounds.held.is_none() || bounds.is_hurried => {
                containers.remove(&place);
                break Err(ended(&place));
            }
        }
    };
    if run.goes_on.get() {
        // It was told to end and does not say that it has: it ends with its container.
        containers.remove(&place);
    }
    if let Some(mut way) = way {
        for report in way.end().await {
            let _ = reports.send((number, Report::Network(Box::new(report)))).await;
        }
    }
    let mut outcome = result.map_err(plain)?;
    if let (Some(reason), Ending::Cancelled) = (reason, outcome.ending) {
        outcome.ending = reason;
    }
    outcome.elapsed = begun.elapsed();
    outcome.output_bytes = profile.limits.output_bytes - bounds.output_left;
    // Told from inside, and only where there is a list.
    outcome.refused.truncate(if profile.exec_mode == ExecMode::Allowlist { MOST_REFUSED } else { 0 });
    outcome.refused.iter_mut().for_each(|path| *path = short(std::mem::take(path)));
    let walls = &mut outcome.enforcement;
    let is_as_ordered = walls.tier == Tier::Container
        && (walls.network, walls.exec_mode) == (left_inside(&profile).network, profile.exec_mode)
        && walls.proof.len() == 64
        && walls.proof.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_as_ordered {
        return Err(not_inside("it reports other walls than it was told to build"));
    }
    walls.network = profile.network;
    walls.container = Some(place.container.clone());
    walls.host_uid = place.uid;
    walls.namespaces = ["mnt", "pid", "ipc", "uts", "net"].map(ToOwned::to_owned).to_vec();
    walls.limits = LimitKind::ALL.map(|kind| (kind, Means::Cgroup));
    Ok(outcome)
}

/// Refused executables of a run that are passed on.
const MOST_REFUSED: usize = 32;

fn short(text: String) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(512).collect()
}

/// A fault that is told from inside: its words are shown to people.
fn plain(fault: RunFault) -> RunFault {
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

/// What was carried, if anything is.
async fn carried(way: &mut Option<Way>) -> egress::Report {
    match way {
        Some(way) => way.next().await,
        None => std::future::pending().await,
    }
}

/// The container of a profile and the line into it; meanwhile what comes for the run is kept for it.
async fn get_in(
    containers: &Rc<Containers>,
    profile: &SandboxProfile,
    orders: &mut mpsc::UnboundedReceiver<Order>,
    early: &mut Vec<Order>,
    deadline: Instant,
) -> Result<(Place, Rc<Line>), RunFault> {
    // A task of its own: a container that is half made is made to its end, and found by the next or removed.
    let (of, wanted) = (Rc::clone(containers), profile.clone());
    let mut making = tokio::task::spawn_local(async move {
        let engine = of.engine(wanted.engine.as_ref())?;
        let place = engine.place(&wanted, |id| of.is_used(engine.host(), id)).await?;
        match of.line(&place, &wanted).await {
            Ok(line) if line.is_open.get() => return Ok((place, line)),
            // It ended since the last command, and that was not seen yet.
            Ok(_) => of.remove(&place),
            Err(fault) => return Err(fault),
        }
        let place = engine.place(&wanted, |id| of.is_used(engine.host(), id)).await?;
        let line = of.line(&place, &wanted).await?;
        Ok((place, line))
    });
    loop {
        tokio::select! {
            made = &mut making => return made.unwrap_or_else(|_| Err(RunFault::RunnerGone)),
            order = orders.recv() => match order {
                None | Some(Order::Cancel) => return Err(RunFault::NeverStarted(Ending::Cancelled)),
                Some(Order::LockDown) => return Err(RunFault::NeverStarted(Ending::LockedDown)),
                Some(order) => early.push(order),
            },
            () = sleep_until(deadline) => return Err(RunFault::NeverStarted(Ending::TimedOut)),
        }
    }
}

/// Waits for the end of a run that was cancelled because nobody listens any more; `None` where it does not come.
async fn rest(said: &mut mpsc::Receiver<Report>) -> Option<Result<Outcome, RunFault>> {
    let last = async {
        loop {
            if let Report::Finished(finished) = said.recv().await? {
                return Some(finished.read());
            }
        }
    };
    timeout(GRACE, last).await.ok().flatten()
}

/// The value of a secret, which has no other way into a container.
fn opened(secret: &Sealed) -> Result<Vec<u8>, RunFault> {
    let mut value = vec![0; secret.length()];
    secret.read(&mut value).map_err(|e| refused(format!("a secret cannot be read: {e}")))?;
    Ok(value)
}

fn not_inside(why: &str) -> RunFault {
    RunFault::Engine {
        what: format!("the runner inside the container cannot begin: {why}"),
        hint:
            "its image and the engine's kernel must let this program run: `docker logs` and the runner's log tell more"
                .into(),
    }
}

fn ended(place: &Place) -> RunFault {
    RunFault::Engine {
        what: format!("the container {:.12} ended while the command was running", place.container.id),
        hint: "somebody has removed, killed or paused it, or the engine was stopped; send the command once more".into(),
    }
}
