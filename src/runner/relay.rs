//! The docker runner's hands: a container for each sandbox, and in it a second runner, to which the orders are passed on.
//!
//! What comes out of a container is a stranger's word. It is bounded here once more: no output without credit, none
//! beyond the limit, no run that outlives its deadline by much. Whoever breaks that loses the container.

use super::bounds::{Bounds, GRACE};
use super::disk::Disk;
use super::finished::Finished;
use super::line::{Line, ended, not_inside, plain, short};
use super::order::{Order, Report, Start};
use super::pump::{Reports, refused, sealed};
use super::serve::Around;
use super::shared_way::Way;
use super::trees;
use super::way_out::Helpers;
use crate::egress;
use crate::model::{
    Ending, EngineHost, ExecMode, LimitKind, Means, Network, Outcome, RunFault, SandboxProfile, StandingContainer, Tier,
};
use crate::os;
use crate::os::Sealed;
use crate::sandbox::{Engine, EngineSettings, Place, left_inside};
use futures_util::future::join_all;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::rc::{Rc, Weak};
use std::time::Duration;
use tokio::sync::{OnceCell, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

/// How long one engine may take to be looked through, or to remove what is to go.
const A_PRUNE: Duration = Duration::from_secs(120);

/// How long the engine may take to say what stands for a sandbox.
const A_LOOK: Duration = Duration::from_secs(5);

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
    pub(super) fn engine_of(&self, place: &Place) -> Rc<Engine> {
        let known = self.engines.borrow().get(&place.host).cloned();
        // It was placed there.
        known.unwrap_or_else(|| {
            Rc::new(Engine::new(EngineSettings { host: place.host.clone(), ..self.settings.clone() }))
        })
    }

    /// Notes a line that was opened, and says what was said to every line before there was this one.
    pub(super) fn opened(&self, line: &Rc<Line>) {
        self.open.borrow_mut().push(Rc::downgrade(line));
        line.hold(self.is_held.get());
    }

    /// A container's share of what carries connections out.
    pub(super) fn helpers(&self) -> &Helpers {
        &self.around.helpers
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
        self.lines.borrow_mut().retain(|_, line| line.get().is_none_or(|line| line.is_open()));
    }

    fn open_lines(&self) -> Vec<Rc<Line>> {
        let mut open = self.open.borrow_mut();
        open.retain(|line| line.upgrade().is_some_and(|line| line.is_open()));
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
            if line.is_idle() {
                self.remove(line.place());
            }
        }
    }

    /// Whether something runs in this container, or is about to.
    fn is_used(&self, host: &EngineHost, id: &str) -> bool {
        self.lines.borrow().get(&(host.clone(), id.to_owned())).is_some_and(in_use)
    }

    /// What stands for the sandbox of a profile. An engine that does not answer is no reason to wait.
    pub(super) async fn look(&self, profile: &SandboxProfile) -> Option<StandingContainer> {
        let engine = self.engine(profile.engine.as_ref()).ok()?;
        timeout(A_LOOK, engine.standing(profile, |id| self.is_used(engine.host(), id))).await.ok()?.ok()?
    }

    /// Removes the container of a sandbox that keeps nothing any more.
    pub(super) async fn discard(&self, sandbox: &str) {
        self.prune(Some(sandbox)).await;
    }

    /// The line into a container, which is entered the first time; noted in the place is whether it was set up then.
    async fn line(self: &Rc<Self>, place: &mut Place, profile: &SandboxProfile) -> Result<Rc<Line>, RunFault> {
        let key = (place.host.clone(), place.container.id.clone());
        let cell = Rc::clone(self.lines.borrow_mut().entry(key.clone()).or_default());
        let set_up = Cell::new(false);
        let own = &*place;
        let enter = || async {
            let place = own;
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
                set_up.set(true);
            }
            Ok(line)
        };
        let entered = cell.get_or_try_init(enter).await.map(Rc::clone);
        place.container.set_up = set_up.get();
        if entered.is_err() && cell.get().is_none() {
            self.lines.borrow_mut().remove(&key);
        }
        entered
    }

    /// Lets go of a container and has it removed; nobody waits for the engine.
    pub(super) fn remove(self: &Rc<Self>, place: &Place) {
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
    cell.get().is_none_or(|line| !line.is_idle())
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
    let (run, mut said) = line.begin();
    let own = run.number;
    if !line.is_open() {
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
                            run.ended();
                            result
                        }
                        None => Err(RunFault::RunnerGone),
                    };
                }
            }
            report = said.recv() => match report {
                None => break Err(ended(&place)),
                Some(Report::Finished(finished)) => {
                    run.ended();
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
    if run.goes_on() {
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
        let mut place = engine.place(&wanted, |id| of.is_used(engine.host(), id)).await?;
        match of.line(&mut place, &wanted).await {
            Ok(line) if line.is_open() => return Ok((place, line)),
            // It ended since the last command, and that was not seen yet.
            Ok(_) => of.remove(&place),
            Err(fault) => return Err(fault),
        }
        let mut place = engine.place(&wanted, |id| of.is_used(engine.host(), id)).await?;
        let line = of.line(&mut place, &wanted).await?;
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
            () = sleep_until(deadline) => {
                return Err(RunFault::Engine {
                    what: "the container engine had no container ready before the run's time was over".into(),
                    hint: "is it busy, or stuck? `docker info` and the engine's log tell more; `limits.timeout` gives a run more time"
                        .into(),
                });
            }
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
