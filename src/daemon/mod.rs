//! The composition root and the gateway process's own life: start, walls, signals, reload, stop.
//!
//! The only place where every room meets. Decides nothing about requests.

#[cfg(target_os = "linux")]
mod confine;
#[cfg(not(target_os = "linux"))]
#[path = "elsewhere.rs"]
mod confine;
mod log;
mod notify;
mod reload;
mod tls;
mod token;
mod watchdog;

pub(crate) use log::start as start_log;
pub(crate) use notify::tell_failure;
pub(crate) use token::keep_password;

use crate::auth::{Gatekeeper, Mode, Registry, RegistryParts, Rules, Shared};
use crate::config::{DockerFile, Flags, Places, Settings};
use crate::crypto::KeyPair;
use crate::gateway::{Facts, Gateway, OpenFault, Parts, Reload};
use crate::journal::{Journal, JournalFault};
use crate::model::{EngineHost, Secret, SystemClock};
use crate::os;
use crate::os::activation::{Inherited, Listening};
use crate::runner::{Client, Runners, Spawner, Supply};
use crate::secrets::Secrets;
use crate::server::{DoorFault, Doors, Listen, Tls, Wider};
use crate::store::{Name, Store, StoreFault};
use confine::Confined;
use reload::Reloader;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use token::StoredToken;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::{interval, timeout};

/// Why the gateway does not run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DaemonFault {
    #[error(transparent)]
    Store(#[from] StoreFault),
    #[error(transparent)]
    Journal(#[from] JournalFault),
    #[error(transparent)]
    Gateway(#[from] OpenFault),
    #[error(transparent)]
    Door(#[from] DoorFault),
    #[error("gateway.auth.mode is \"password\", but there is no password")]
    NoPassword,
    #[error("the state folder {path} cannot be used: {cause}")]
    State { path: PathBuf, cause: io::Error },
    #[error("TLS cannot be offered: {0}")]
    Tls(String),
    #[error("{what}: {cause}")]
    System { what: &'static str, cause: io::Error },
}

impl DaemonFault {
    /// What the reader can do about it.
    pub(crate) fn hint(&self) -> &'static str {
        match self {
            DaemonFault::Store(fault) => fault.hint(),
            DaemonFault::Gateway(OpenFault::Store(fault)) => fault.hint(),
            DaemonFault::State { .. } | DaemonFault::Journal(_) | DaemonFault::Gateway(OpenFault::Journal(_)) => {
                "the state folder and all in it must belong to the user the gateway runs as"
            }
            DaemonFault::Door(DoorFault::Tcp { .. }) => "choose another --port, or stop what listens there",
            DaemonFault::Door(DoorFault::Foreign { .. }) => {
                "change gateway.bind and gateway.port, or the doors: `systemctl edit vambrace.socket`, or with launchd Sockets in the \
                 property list"
            }
            DaemonFault::Door(DoorFault::NotSafe(_)) => {
                "see gateway.bind, gateway.auth.mode and gateway.tls of the configuration"
            }
            DaemonFault::Tls(_) => "look at gateway.tls and gateway.auth.trusted_proxy of the configuration",
            DaemonFault::NoPassword => "`vambrace password set` sets one; the gateway need not run for it",
            DaemonFault::Door(_) => "another gateway may be running; `vambrace status` asks it",
            DaemonFault::System { .. } => "the system said so; its log may tell more",
        }
    }
}

fn system(what: &'static str) -> impl Fn(io::Error) -> DaemonFault {
    move |cause| DaemonFault::System { what, cause }
}

/// Time that running commands get to be cleared away at a stop.
const GRACE: Duration = Duration::from_secs(5);

/// How long what lies unused waits for the runner of its containers before it is removed without it.
const SECOND_RUNNER: Duration = Duration::from_secs(30);

/// Threads that requests are answered by.
const WORKERS: usize = 2;

/// Runs the gateway until SIGTERM or SIGINT, on doors that were opened for it where there are some.
pub(crate) fn run(
    settings: Settings,
    places: &Places,
    flags: &Flags,
    inherited: Vec<Inherited>,
) -> Result<(), DaemonFault> {
    os::process::make_undumpable().map_err(system("cannot hide from debuggers"))?;
    os::process::raise_descriptor_limit();
    // The folders are there before the walls that let us into them.
    os::fs::private_place(&places.state).map_err(|cause| DaemonFault::State { path: places.state.clone(), cause })?;
    // A configuration may be written later; a folder that is not there now could not be read then.
    if let Some(folder) = places.config.parent().filter(|folder| !places.config_is_named && !folder.exists()) {
        let _ = os::fs::private_dir(folder);
    }
    if !inherited.iter().any(is_unix) {
        make_runtime_folder(&settings, places).map_err(system("cannot make the folder for sockets"))?;
    }
    let supplies = with_a_spawner(supplies(&settings, places)?).map_err(system("cannot start what starts runners"))?;
    let confined = confine::confine(&settings, places)?;
    if let Some(weaker) = confined.weaker() {
        tracing::warn!(weaker, "the walls around the gateway itself are weaker than they could be");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .max_blocking_threads(4)
        .enable_all()
        .build()
        .map_err(system("cannot start the runtime"))?;
    runtime.block_on(serve(settings, places, flags, supplies, inherited, confined))
}

fn is_unix(given: &Inherited) -> bool {
    matches!(given.door, Listening::Unix(_))
}

/// Where the runners come from.
struct Supplies {
    native: Supply,
    docker: Option<Supply>,
}

fn supplies(settings: &Settings, places: &Places) -> Result<Supplies, DaemonFault> {
    let docker = match &settings.docker_runner_socket {
        _ if !settings.docker.is_used => None,
        Some(socket) => Some(Supply::Socket(socket.clone())),
        None => Some(docker_supply(settings, places)?),
    };
    Ok(Supplies { native: supply(settings, places)?, docker })
}

/// Children are started by a process of its own: from here on this one starts nothing.
fn with_a_spawner(Supplies { native, docker }: Supplies) -> io::Result<Supplies> {
    let supplies = [Some(native), docker];
    let programs = supplies.iter().flatten().filter_map(|supply| match supply {
        Supply::Child { program, arguments } => Some((program.clone(), arguments.clone())),
        _ => None,
    });
    let programs: Vec<_> = programs.collect();
    let mut spawners = if programs.is_empty() { Vec::new() } else { Spawner::begin(programs)? }.into_iter();
    let [native, docker] = supplies.map(|supply| match supply {
        Some(Supply::Child { .. }) => spawners.next().map(Supply::Spawner),
        other => other,
    });
    let native = native.ok_or_else(|| io::Error::other("there is no native runner"))?;
    Ok(Supplies { native, docker })
}

async fn serve(
    settings: Settings,
    places: &Places,
    flags: &Flags,
    supplies: Supplies,
    inherited: Vec<Inherited>,
    confined: Confined,
) -> Result<(), DaemonFault> {
    // Signals first: one that comes during the start must not be lost.
    let mut terminate = signal(SignalKind::terminate()).map_err(system("cannot listen for signals"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(system("cannot listen for signals"))?;
    let mut hangup = signal(SignalKind::hangup()).map_err(system("cannot listen for signals"))?;
    let store = Arc::new(Store::open(&places.state, &settings.keys)?);
    let stored = Arc::clone(&store);
    let tls = tls::open(&settings, places, &store)?;
    let runners = Runners { native: Client::supply(supplies.native), docker: supplies.docker.map(Client::supply) };
    let has_own_socket = !inherited.iter().any(is_unix);
    let doors = Doors::open(listen(&settings, places, tls.clone(), inherited)).await?;
    let names = doors.names();
    let address = doors.address().map_err(system("cannot read the bound address"))?;
    let socket = doors.socket().to_owned();
    let addresses = vec![address.to_string(), socket.display().to_string()];
    let (reloads, mut wanted) = mpsc::channel(4);
    let parts = Around { store: Arc::clone(&store), runners: runners.clone(), tls: tls.clone(), confined, reloads };
    let (gateway, journal) = open_gateway(&settings, places, parts, addresses)?;

    let (stop, stopping) = watch::channel(false);
    let serving = tokio::spawn(doors.serve(Arc::clone(&gateway), stopping));
    tokio::spawn(tick(Arc::clone(&gateway)));
    tokio::spawn(sync(journal.clone(), Arc::clone(&store)));
    tokio::spawn(keep_seen(Arc::clone(&gateway)));
    tokio::spawn(prune(Arc::clone(&gateway), runners.clone()));
    for (_, runner) in runners.all() {
        tokio::spawn(watch_runner(Arc::clone(&gateway), runner.clone()));
    }
    // Ready means that commands run; without a runner the gateway still answers, and says so.
    for (_, runner) in runners.all() {
        let _ = timeout(GRACE, runner.state().wait_for(|s| s.connected)).await;
    }
    watchdog::start(Arc::clone(&gateway), socket, WORKERS).map_err(system("cannot start the watchdog's thread"))?;
    let fingerprint = tls.as_ref().map(Tls::fingerprint);
    tracing::info!(%address, fingerprint, socket = %places.socket().display(), state = %places.state.display(), "listening");
    let status = match confined.weaker() {
        None => format!("listening on {address}"),
        Some(weaker) => format!("listening on {address}; {weaker}"),
    };
    notify::ready(&status);
    let mut reloader = Reloader {
        places,
        flags,
        settings,
        tls,
        store,
        gateway: Arc::clone(&gateway),
        names,
        has_docker_runner: runners.docker.is_some(),
        had_file: places.config.exists(),
        has_own_socket,
        status,
    };

    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => drop(reloader.reload(None)),
            Some(Reload { asker, answer }) = wanted.recv() => drop(answer.send(reloader.reload(Some(asker)))),
        }
    }
    tracing::info!("stopping");
    notify::stopping();
    let _ = stop.send(true);
    gateway.close();
    let _ = timeout(GRACE, serving).await;
    let _ = timeout(GRACE, idle(&gateway)).await;
    gateway.keep_seen();
    gateway.write_farewell();
    let _ = stored.sync();
    journal.sync().map_err(system("cannot sync the journal"))
}

/// Where to listen, as the settings say.
fn listen(settings: &Settings, places: &Places, tls: Option<Tls>, inherited: Vec<Inherited>) -> Listen {
    let doors = &settings.doors;
    Listen {
        address: doors.address,
        socket: places.socket(),
        tls,
        hosts: hosts(settings),
        origins: doors.origins.clone(),
        inherited,
        wider: match &doors.mode {
            Mode::None => Wider::Never,
            Mode::TrustedProxy(rules) if !rules.networks.is_empty() => Wider::Proxies,
            _ => Wider::Encrypted,
        },
    }
}

/// The names we are called by.
fn hosts(settings: &Settings) -> Vec<String> {
    let doors = &settings.doors;
    let mut hosts = doors.hosts.clone();
    // The name in the public address is one of ours.
    let public = doors.public_url.as_deref().and_then(|url| url.split("://").nth(1)).unwrap_or_default();
    let authority = public.split('/').next().unwrap_or_default();
    let name = authority.rsplit_once(':').filter(|(_, port)| !port.ends_with(']')).map_or(authority, |(name, _)| name);
    hosts.extend((!name.is_empty()).then(|| name.trim_matches(['[', ']']).to_ascii_lowercase()));
    hosts
}

/// The folder of the sockets: ours alone, or passable where operators or users of proxies are named, who are judged at
/// the socket.
fn make_runtime_folder(settings: &Settings, places: &Places) -> io::Result<()> {
    let doors = &settings.doors;
    let has_named_proxies = matches!(&doors.mode, Mode::TrustedProxy(rules) if !rules.uids.is_empty());
    if !doors.has_named_operators && !has_named_proxies {
        return os::fs::private_dir(&places.runtime);
    }
    // A proxy may as well come by TCP.
    if doors.has_named_operators && places.runtime.starts_with(&places.state) {
        tracing::warn!(
            socket = %places.socket().display(),
            "operators are named, but the socket lies in the private state folder where they cannot reach it; \
             set RUNTIME_DIRECTORY or XDG_RUNTIME_DIR"
        );
    }
    os::fs::passable_dir(&places.runtime)
}

/// What a gateway is opened with that is there before it.
struct Around {
    store: Arc<Store>,
    runners: Runners,
    tls: Option<Tls>,
    confined: Confined,
    reloads: mpsc::Sender<Reload>,
}

fn open_gateway(
    settings: &Settings,
    places: &Places,
    around: Around,
    addresses: Vec<String>,
) -> Result<(Arc<Gateway>, Journal), DaemonFault> {
    let Around { store, runners, tls, confined, reloads } = around;
    let clock = Arc::new(SystemClock);
    let journal = Journal::open(&places.journal(), clock.clone(), settings.journald)?;
    let identity = identity(&store)?;
    let token = StoredToken::open(Arc::clone(&store))?;
    let registry = Registry::open(
        RegistryParts {
            store: Arc::clone(&store),
            journal: journal.clone(),
            clock: clock.clone(),
            random: os::host::random,
        },
        os::memory::Locked::new(tls::device_key(&store)?).map_err(system("cannot get memory for a key"))?,
    )?;
    let doors = &settings.doors;
    let key = os::host::random();
    let secret = match &doors.mode {
        Mode::Token => Some(Gatekeeper::token_digest(&key, &token.load()?)),
        Mode::Password => Some(Shared::Password(token.password()?.ok_or(DaemonFault::NoPassword)?, None)),
        _ => None,
    };
    let rules = Rules { mode: doors.mode.clone(), local_trust: doors.local_trust, operators: doors.operators.clone() };
    let gatekeeper = Gatekeeper::new(key, rules, secret, Arc::new(registry), clock.clone());
    let fingerprint = tls.clone();
    let gateway = Gateway::open(Parts {
        clock: clock.clone(),
        random: os::host::random,
        gatekeeper,
        token: Arc::new(token),
        secrets: Arc::new(Secrets::open(store, clock, journal.clone())?),
        identity: os::memory::Locked::new(identity).map_err(system("cannot get memory for a key"))?,
        policy: settings.profiles.policy(),
        journal: journal.clone(),
        runners,
        reloads,
        facts: Facts {
            host: os::host::name(),
            state_dir: places.state.clone(),
            config_path: places.config.exists().then(|| places.config.clone()),
            pid: std::process::id(),
            landlock_abi: confined.landlock_abi,
            weaker: confined.weaker(),
            url: url_of(settings, tls.is_some(), addresses_port(&addresses)),
            auth_mode: match &doors.mode {
                Mode::Token => "token",
                Mode::Password => "password",
                Mode::TrustedProxy(_) => "trusted-proxy",
                Mode::Tailnet(_) => "tailnet",
                Mode::None => "none",
            },
            addresses,
        },
        resident_bytes: os::process::resident_bytes,
        fingerprint: Box::new(move || fingerprint.as_ref().map(Tls::fingerprint)),
    })?;
    Ok((gateway, journal))
}

/// How others reach us: as told, or the address we are bound to where it is one.
fn url_of(settings: &Settings, has_tls: bool, port: u16) -> Option<String> {
    let doors = &settings.doors;
    let ip = doors.address.ip();
    let own = !ip.is_loopback() && !ip.is_unspecified();
    let scheme = if has_tls { "wss" } else { "ws" };
    doors.public_url.clone().or_else(|| own.then(|| format!("{scheme}://{}", SocketAddr::new(ip, port))))
}

fn addresses_port(addresses: &[String]) -> u16 {
    addresses.first().and_then(|a| a.parse::<SocketAddr>().ok()).map_or(0, |a| a.port())
}

/// The gateway's own key pair, made at the first start.
fn identity(store: &Store) -> Result<KeyPair, StoreFault> {
    if let Some(seed) = store.load(Name::GatewayIdentity)? {
        let seed = <&[u8; 32]>::try_from(seed.expose().as_slice());
        return seed.map(KeyPair::from_seed).map_err(|_| torn("gateway-identity"));
    }
    let seed: Secret<[u8; 32]> = Secret::new(os::host::random());
    store.save(Name::GatewayIdentity, seed.expose())?;
    Ok(KeyPair::from_seed(seed.expose()))
}

/// A key of another length is damaged: a new one in its place would undo every pairing in silence.
fn torn(name: &str) -> StoreFault {
    StoreFault::Read { path: name.into(), cause: io::Error::other("it is no key of 32 bytes") }
}

/// A runner of our own unless one is configured as a service.
fn supply(settings: &Settings, places: &Places) -> Result<Supply, DaemonFault> {
    if let Some(socket) = &settings.runner_socket {
        return Ok(Supply::Socket(socket.clone()));
    }
    own_runner(settings, places, Vec::new())
}

/// The runner that speaks to the container engine.
pub(crate) fn docker_supply(settings: &Settings, places: &Places) -> Result<Supply, DaemonFault> {
    let mut more = vec!["--backend".to_owned(), "docker".to_owned()];
    if let EngineHost::Unix(socket) = &settings.docker.host {
        more.extend(["--engine".to_owned(), socket.display().to_string()]);
    }
    for engine in &settings.docker.others {
        more.extend(["--elsewhere".to_owned(), DockerFile::told(engine)]);
    }
    more.extend(["--scratch".to_owned(), places.runtime.join("containers").display().to_string()]);
    let whose = whose(&places.state).map_err(system("cannot tell whose containers are ours"))?;
    more.extend(["--gateway".to_owned(), whose]);
    own_runner(settings, places, more)
}

/// Whose containers they are: this folder's on this host. Hosts may share an engine, have no id or each other's, and call
/// their folders alike, so a word is drawn for each folder.
///
/// # Errors
/// Where it cannot be kept in the folder.
pub(crate) fn whose(folder: &Path) -> io::Result<String> {
    let (host, drawn) = (os::host::machine_id().unwrap_or_default(), drawn(folder)?);
    let whose = crate::crypto::sha256(&[host.as_bytes(), b"\0", folder.as_os_str().as_encoded_bytes(), b"\0", &drawn]);
    Ok(crate::crypto::hex(&whose[..8]))
}

/// The word of a folder. Several may be the first who ask: whoever is, keeps it for all.
fn drawn(folder: &Path) -> io::Result<Vec<u8>> {
    let path = folder.join("whose-containers");
    os::fs::private_dir(folder)?;
    if let Some(drawn) = os::fs::read_private(&path, 64)? {
        return Ok(drawn);
    }
    let random = || crate::crypto::hex(&os::host::random::<16>());
    let aside = folder.join(format!("whose-{}", random()));
    os::fs::write_private(&aside, random().as_bytes())?;
    let kept = std::fs::hard_link(&aside, &path);
    let _ = std::fs::remove_file(&aside);
    kept.or_else(|e| if e.kind() == io::ErrorKind::AlreadyExists { Ok(()) } else { Err(e) })?;
    os::fs::read_private(&path, 64)?.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
}

fn own_runner(settings: &Settings, places: &Places, more: Vec<String>) -> Result<Supply, DaemonFault> {
    let program = std::env::current_exe().map_err(system("cannot find this program"))?;
    let mut arguments = vec!["runner".to_owned(), "--inherited".to_owned()];
    arguments.extend(more);
    let state: PathBuf = places.state.clone();
    for path in settings.protected.own.iter().chain([&state]) {
        arguments.extend(["--protect".to_owned(), path.display().to_string()]);
    }
    if let Some(kept) = &settings.protected.kept {
        arguments.extend(["--kept".to_owned(), kept.display().to_string()]);
    }
    if let Some(workspaces) = &settings.protected.workspaces {
        arguments.extend(["--workspaces".to_owned(), workspaces.display().to_string()]);
    }
    if let Some(home) = &settings.protected.home {
        arguments.extend(["--home".to_owned(), home.display().to_string()]);
    }
    Ok(Supply::Child { program, arguments })
}

async fn tick(gateway: Arc<Gateway>) {
    let mut every = interval(Duration::from_millis(crate::wire::TICK_MS));
    every.tick().await; // the first one is immediate, and nobody is there yet
    loop {
        every.tick().await;
        gateway.tick();
    }
}

/// Writes down now and then when devices were last seen.
async fn keep_seen(gateway: Arc<Gateway>) {
    let mut every = interval(Duration::from_secs(60));
    loop {
        every.tick().await;
        let gateway = Arc::clone(&gateway);
        let _ = tokio::task::spawn_blocking(move || gateway.keep_seen()).await;
    }
}

/// Removes what sandboxes keep and nobody has used for long, at the start and every ten minutes.
async fn prune(gateway: Arc<Gateway>, runners: Runners) {
    let mut native = runners.native.state();
    let mut every = interval(Duration::from_secs(600));
    loop {
        every.tick().await;
        // Whose trees they are.
        if native.wait_for(|state| state.connected).await.is_err() {
            return;
        }
        // It has the containers of them removed, if it is there.
        if let Some(docker) = &runners.docker {
            let _ = timeout(SECOND_RUNNER, docker.state().wait_for(|state| state.connected)).await;
        }
        gateway.prune_idle().await;
    }
}

/// Brings the journal and the store's counter to the disk about once a second, off the async threads.
async fn sync(journal: Journal, store: Arc<Store>) {
    let mut every = interval(Duration::from_secs(1));
    loop {
        every.tick().await;
        let (journal, store) = (journal.clone(), Arc::clone(&store));
        let _ = tokio::task::spawn_blocking(move || {
            if let Err(error) = journal.sync() {
                tracing::error!(%error, "the journal did not reach the disk");
            }
            if let Err(error) = store.sync() {
                tracing::error!(%error, "the counter of the state did not reach the disk");
            }
        })
        .await;
    }
}

async fn watch_runner(gateway: Arc<Gateway>, runner: Client) {
    let mut state = runner.state();
    let mut losses = state.borrow().losses;
    while state.changed().await.is_ok() {
        let now = state.borrow_and_update().losses;
        if now > losses {
            gateway.record_runner_loss();
        }
        losses = now;
    }
}

/// Waits until every request has its answer and its last record.
async fn idle(gateway: &Gateway) {
    while gateway.in_progress() > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
