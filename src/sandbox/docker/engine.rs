//! The engine: asked for containers, one after the other for each sandbox.
//!
//! Where it is comes from the configuration, never from the environment. A container that is there is adopted if it is
//! what the plan says in every field; one of ours that is not is made anew; one that is not ours is left alone, and
//! nothing runs.

use super::answers::{fault, gone, is_id, missing, told};
use super::bundle::Bundle;
use super::enter::{self, Entered};
use super::plan::{self, Plan, SANDBOX};
use super::reach::{Kind, Reached, connect};
use super::{bridge, host, image, maker, memory, probe, shown};
use crate::crypto;
use crate::model::{
    Container, EngineHost, ExecMode, Network, RunFault, SandboxProfile, StandingContainer, WorkspaceAccess,
};
use crate::os;
use crate::os::sandboxed::NAME_SERVER;
use crate::sandbox::boundary::Protected;
use crate::sandbox::plan::{Bind, named};
use bollard::Docker;
use bollard::errors::Error;
use bollard::models::{ContainerInspectResponse, ContainerStateStatusEnum};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, InspectContainerOptions, RemoveContainerOptionsBuilder, StartContainerOptions,
};
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Instant;
use tokio::sync::{Mutex, RwLock};
use tokio::time::timeout;

/// Begins the names of sandboxes that are removed after their one command.
pub(super) const ONCE: &str = "once.";

/// Where the engine is and whose its containers are.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) host: EngineHost,
    /// Others that a profile may name. Whoever gives orders chooses among these: a way over ssh executes what its
    /// configuration says.
    pub(crate) others: Vec<EngineHost>,
    /// Tells this gateway's containers from another's, 16 hex digits.
    pub(crate) gateway: String,
    /// A folder of ours where mounts stand for the engine.
    pub(crate) scratch: PathBuf,
    pub(crate) protected: Protected,
}

/// The engine, and what is known of its containers.
pub(crate) struct Engine {
    settings: Settings,
    docker: RefCell<Option<Reached>>,
    bundle: RefCell<Option<Rc<Bundle>>>,
    /// Whether it gives containers other ids than this host's, once it was asked.
    is_remapped: Cell<Option<bool>>,
    /// Held while an image is looked for or built.
    building: Mutex<()>,
    /// Held while a sandbox's container is looked for or made.
    making: RefCell<HashMap<String, Rc<Mutex<()>>>>,
    used: RefCell<HashMap<String, Instant>>,
    /// What each sandbox's container was made or adopted for, until it is removed: the same is not looked for again.
    placed: RefCell<HashMap<String, Placed>>,
    /// Containers whose setup is done.
    set_up: RefCell<HashSet<String>>,
    /// Containers that are being removed.
    going: RefCell<HashSet<String>>,
    /// Held while a container is put on the bridge, and alone while that is removed.
    bridge: RwLock<()>,
}

/// A container that was compared with its plan, what it shows, and the profile that the plan was made of.
struct Placed {
    profile: SandboxProfile,
    identities: Vec<String>,
    place: Place,
}

/// A container that runs.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) container: Container,
    pub(crate) uid: u32,
    /// It is to be removed after its one command.
    pub(crate) is_once: bool,
    /// Where its engine is.
    pub(crate) host: EngineHost,
    sandbox: String,
    start: Vec<String>,
}

impl Engine {
    /// Takes down what an earlier runner has left on this host.
    pub(crate) fn sweep(settings: &Settings) {
        shown::sweep(&settings.scratch);
    }

    /// The engine is asked when there is something to ask.
    pub(crate) fn new(settings: Settings) -> Self {
        Engine {
            settings,
            docker: RefCell::default(),
            bundle: RefCell::default(),
            is_remapped: Cell::new(None),
            building: Mutex::default(),
            making: RefCell::default(),
            used: RefCell::default(),
            placed: RefCell::default(),
            set_up: RefCell::default(),
            going: RefCell::default(),
            bridge: RwLock::default(),
        }
    }

    /// The container of a profile's sandbox, running; made where it is not there.
    ///
    /// # Errors
    /// Where the engine is not there or refuses, or something is in the way.
    ///
    /// Busy where it would have to be made anew while something runs in it, which `in_use` says of its id.
    pub(crate) async fn place(
        &self,
        profile: &SandboxProfile,
        in_use: impl Fn(&str) -> bool,
    ) -> Result<Place, RunFault> {
        host::check(profile)?;
        let sandbox = sandbox_of(profile).unwrap_or_else(|| format!("{ONCE}{}", crypto::hex(&os::host::random::<8>())));
        let binds = self.binds(profile)?;
        let turn = Rc::clone(self.making.borrow_mut().entry(sandbox.clone()).or_default());
        let _turn = turn.lock().await;
        let placed = match self.known(profile, &sandbox, &binds) {
            Ok(Some(place)) => Ok(place),
            Ok(None) => self.place_alone(profile, &sandbox, &binds, in_use).await,
            Err(fault) => Err(fault),
        };
        if sandbox.starts_with(ONCE) {
            self.making.borrow_mut().remove(&sandbox);
        } else {
            self.used.borrow_mut().insert(sandbox, Instant::now());
        }
        placed
    }

    /// The container of the last command, where it would be made in the same way again.
    fn known(&self, profile: &SandboxProfile, sandbox: &str, binds: &[Bind]) -> Result<Option<Place>, RunFault> {
        let placed = self.placed.borrow();
        let Some(placed) = placed.get(sandbox).filter(|placed| placed.profile == *profile) else { return Ok(None) };
        let is_same = shown::identities(binds)? == placed.identities;
        Ok(is_same.then(|| placed.place.clone()))
    }

    async fn place_alone(
        &self,
        profile: &SandboxProfile,
        sandbox: &str,
        binds: &[Bind],
        in_use: impl Fn(&str) -> bool,
    ) -> Result<Place, RunFault> {
        let Reached { api: docker, kind, way } = self.connect().await?;
        if kind == Kind::Podman && profile.exec_mode == ExecMode::Allowlist {
            return Err(RunFault::Refused {
                what: "Podman puts a folder of its own over the loaders, so lists of executables do not hold in it"
                    .into(),
                hint: "use Docker or backend = \"native\" for this agent, or sandbox_mode = \"full\"".into(),
            });
        }
        let bundle = self.bundle()?;
        let image = {
            let _turn = self.building.lock().await;
            let prepared = async {
                self.check(&docker, binds).await?;
                image::prepare(&docker, &profile.image, &self.settings.gateway, &bundle, profile.exec_mode).await
            };
            timeout(way.patience.preparation, prepared).await.map_err(|_| RunFault::Engine {
                what: format!(
                    "the container engine did not get the image {:?} ready in {} seconds",
                    profile.image,
                    way.patience.preparation.as_secs()
                ),
                hint: "is it busy, or its disk slow? `docker info` and the engine's log tell more".into(),
            })??
        };
        let on_bridge = match profile.network {
            Network::Host => {
                let held = self.bridge.read().await;
                let _turn = self.building.lock().await;
                bridge::prepare(&docker, kind, &self.settings.gateway).await?;
                Some(held)
            }
            Network::None | Network::Allowlist => None,
        };
        let (plan, stand) = {
            let name = self.name(sandbox);
            let ready = shown::prepare(&self.settings.scratch, &name, binds, profile.exec_mode)?;
            memory::check(&ready, &image.volumes)?;
            (self.plan(kind, profile, sandbox, &image, &bundle, &ready), ready.stand)
        };
        let id = match self.look(&docker, &plan.name).await? {
            Some(live) => match self.judge(&plan, &live)? {
                // Nobody knows whether the setup of one that another runner made came to its end.
                Fit::Same(id) if !self.is_going(&id) && (plan.setup.is_none() || self.is_set_up(&id)) => {
                    host::check_shown(&plan, &live)?;
                    id
                }
                Fit::Same(id) | Fit::Stale(id) if in_use(&id) => return Err(RunFault::Busy),
                Fit::Same(id) | Fit::Stale(id) => {
                    self.forget(&id);
                    remove(&docker, &id).await?;
                    self.going.borrow_mut().remove(&id);
                    self.make(&docker, &plan).await?
                }
            },
            None => self.make(&docker, &plan).await?,
        };
        drop((stand, on_bridge));
        let place = Place {
            container: Container { id, image: image.base, plan: plan.digest(), set_up: false },
            uid: plan.user.0,
            is_once: sandbox.starts_with(ONCE),
            host: self.settings.host.clone(),
            sandbox: sandbox.to_owned(),
            start: bundle.words(&image.folder, &["runner", "--in-container"]),
        };
        if !place.is_once {
            let identities = plan.shown.into_iter().map(|shown| shown.identity).collect();
            let placed = Placed { profile: profile.clone(), identities, place: place.clone() };
            self.placed.borrow_mut().insert(sandbox.to_owned(), placed);
        }
        Ok(place)
    }

    /// Whether the engine can do what profiles ask for; asked once.
    async fn check(&self, docker: &Docker, binds: &[Bind]) -> Result<(), RunFault> {
        let is_remapped = match self.is_remapped.get() {
            Some(known) => known,
            None => probe::is_remapped(docker).await?,
        };
        self.is_remapped.set(Some(is_remapped));
        if !is_remapped || binds.is_empty() {
            return Ok(());
        }
        Err(RunFault::Refused {
            what: "the engine gives containers other ids than this host's (rootless, or userns-remap), so a folder of \
                   this host would be nobody's inside"
                .into(),
            hint:
                "set workspace_access = \"none\", with neither a scope nor folders, or use an engine that maps no ids"
                    .into(),
        })
    }

    /// What is shown of this host: nothing by an engine on another one, where what a sandbox keeps is in memory.
    fn binds(&self, profile: &SandboxProfile) -> Result<Vec<Bind>, RunFault> {
        if !self.settings.host.is_remote() {
            return named(profile, &self.settings.protected);
        }
        let what = if profile.workspace_access != WorkspaceAccess::None {
            "workspace_access other than \"none\""
        } else if !profile.read_only.is_empty() || !profile.read_write.is_empty() {
            "folders of this host"
        } else if profile.network == Network::Allowlist {
            "a network that is an allowlist"
        } else {
            return Ok(Vec::new());
        };
        Err(RunFault::Refused {
            what: format!(
                "the engine is on another machine ({}), and {what} would have to be this one's",
                self.settings.host
            ),
            hint: "set workspace_access = \"none\" and network = \"none\" for it, or use an engine of this host".into(),
        })
    }

    /// Whether the setup of a container came to its end, of those that this runner has made.
    pub(crate) fn is_set_up(&self, id: &str) -> bool {
        self.set_up.borrow().contains(id)
    }

    pub(crate) fn note_set_up(&self, id: &str) {
        self.set_up.borrow_mut().insert(id.to_owned());
    }

    fn name(&self, sandbox: &str) -> String {
        format!("vambrace-{:.8}-{sandbox}", self.settings.gateway)
    }

    fn plan(
        &self,
        kind: Kind,
        profile: &SandboxProfile,
        sandbox: &str,
        image: &image::Ready,
        bundle: &Bundle,
        ready: &shown::Ready,
    ) -> Plan {
        Plan {
            name: self.name(sandbox),
            gateway: self.settings.gateway.clone(),
            sandbox: sandbox.to_owned(),
            image: image.id.clone(),
            variables: image.variables.clone(),
            rest: bundle.words(&image.folder, &["runner", "--rest"]),
            user: ready.user,
            scratch: memory::folders(profile, ready, &image.volumes),
            kind,
            shown: ready.shown.clone(),
            dns: (profile.network == Network::Allowlist).then(|| NAME_SERVER.ip().to_string()),
            domains: domains(profile),
            bridge: (profile.network == Network::Host).then(|| bridge::name(&self.settings.gateway)),
            setup: profile.setup.clone(),
            limits: profile.limits.clone(),
            idle_seconds: profile.idle.as_secs(),
            age_seconds: profile.age.map(|age| age.as_secs()),
            maker: sandbox.starts_with(ONCE).then(maker::mark),
        }
    }

    /// What stands for the sandbox of a profile, and how it differs from what would be made now. Makes nothing.
    ///
    /// # Errors
    /// Where the engine is not there.
    pub(crate) async fn standing(
        &self,
        profile: &SandboxProfile,
        in_use: impl Fn(&str) -> bool,
    ) -> Result<Option<StandingContainer>, RunFault> {
        let Some(sandbox) = sandbox_of(profile) else { return Ok(None) };
        let Reached { api: docker, kind, .. } = self.connect().await?;
        let name = self.name(&sandbox);
        let Some(live) = self.look(&docker, &name).await? else { return Ok(None) };
        let labels = live.config.as_ref().and_then(|config| config.labels.as_ref());
        if labels.and_then(|labels| labels.get(plan::GATEWAY)) != Some(&self.settings.gateway) {
            return Ok(None);
        }
        let bundle = self.bundle()?;
        let image = image::find(&docker, &profile.image, &self.settings.gateway, &bundle, profile.exec_mode).await;
        let differences = match image.map(|wanted| wanted.ready) {
            Ok(Some(image)) => match self
                .binds(profile)
                .and_then(|binds| shown::describe(&self.settings.scratch, &name, &binds, profile.exec_mode))
            {
                Ok(ready) => self.plan(kind, profile, &sandbox, &image, &bundle, &ready).differences(&live),
                Err(_) => vec!["Mounts".into()],
            },
            Ok(None) | Err(_) => vec!["Image".into()],
        };
        if !differences.is_empty() && !live.id.as_deref().is_some_and(in_use) {
            // What was told is what the next command finds.
            self.placed.borrow_mut().remove(&sandbox);
        }
        let state = live.state.as_ref().and_then(|state| state.status).map(|status| status.to_string());
        Ok(Some(StandingContainer {
            id: live.id.unwrap_or_default().chars().take(64).collect(),
            created: live.created.unwrap_or_default().chars().take(64).collect(),
            state: state.unwrap_or_default(),
            differences: told(differences),
        }))
    }

    fn judge(&self, plan: &Plan, live: &ContainerInspectResponse) -> Result<Fit, RunFault> {
        let id = live.id.clone().filter(|id| is_id(id)).ok_or_else(|| gone(&plan.name))?;
        let label = |name: &str| live.config.as_ref()?.labels.as_ref()?.get(name).map(String::as_str);
        if label(plan::GATEWAY) != Some(&plan.gateway) || label(SANDBOX) != Some(&plan.sandbox) {
            return Err(RunFault::Engine {
                what: format!("a container that is not of this gateway has the name {}", plan.name),
                hint: format!("look at it with `docker inspect {}`; it is never used, nor removed by us", plan.name),
            });
        }
        let state = live.state.as_ref();
        let runs = state.and_then(|state| state.status) == Some(ContainerStateStatusEnum::RUNNING);
        let differences = plan.differences(live);
        if runs && differences.is_empty() {
            return Ok(Fit::Same(id));
        }
        tracing::info!(name = plan.name, ?differences, runs, "the container is not as planned, and is made anew");
        Ok(Fit::Stale(id))
    }

    /// Makes and starts it, and looks whether it became what was asked for.
    async fn make(&self, docker: &Docker, plan: &Plan) -> Result<String, RunFault> {
        let options = CreateContainerOptionsBuilder::new().name(&plan.name).build();
        let made = docker.create_container(Some(options), plan.body()).await;
        let id = made.map_err(|e| fault("make the container", &e))?.id;
        if !is_id(&id) {
            return Err(RunFault::Engine {
                what: "the engine gives a container an id that is none".into(),
                hint: "an engine that is not known here? `docker version` says what it is".into(),
            });
        }
        let begin = async {
            docker
                .start_container(&id, None::<StartContainerOptions>)
                .await
                .map_err(|e| fault("start the container", &e))?;
            let live = self.look(docker, &id).await?;
            let live = live.ok_or_else(|| gone(&plan.name))?;
            match plan.differences(&live) {
                found if found.is_empty() => host::check_shown(plan, &live),
                found => Err(RunFault::Engine {
                    what: format!("the engine made something else than it was asked for: {}", told(found).join(", ")),
                    hint: "`docker inspect` shows it; an engine that is not known here, or a plugin of it?".into(),
                }),
            }
        };
        match begin.await {
            Ok(()) => Ok(id),
            Err(fault) => {
                let _ = remove(docker, &id).await;
                Err(fault)
            }
        }
    }

    async fn look(&self, docker: &Docker, name: &str) -> Result<Option<ContainerInspectResponse>, RunFault> {
        match docker.inspect_container(name, None::<InspectContainerOptions>).await {
            Ok(live) => Ok(Some(live)),
            Err(error) if missing(&error) => Ok(None),
            Err(error) => Err(fault("look for the container", &error)),
        }
    }

    /// Starts a runner inside a container and gives both ways of it.
    ///
    /// # Errors
    /// Where the container is gone, or the engine.
    pub(crate) async fn enter(&self, place: &Place) -> Result<Entered, RunFault> {
        enter::enter(&self.connect().await?, &place.container.id, &place.start).await
    }

    /// What leads out of a container whose network is an allowlist: its name server's sockets and a listener for each
    /// port, in its network namespace.
    ///
    /// # Errors
    /// Where the container is gone, or this process may not enter its namespace.
    pub(crate) async fn doors(&self, place: &Place, ports: &[u16]) -> Result<Vec<OwnedFd>, RunFault> {
        let Reached { api: docker, .. } = self.connect().await?;
        let id = &place.container.id;
        let pid = async || -> Result<i32, RunFault> {
            let live = self.look(&docker, id).await?.ok_or_else(|| gone(id))?;
            let pid = live.state.and_then(|state| state.pid).and_then(|pid| i32::try_from(pid).ok());
            pid.filter(|pid| *pid > 0).ok_or_else(|| gone(id))
        };
        let before = pid().await?;
        let doors = host::open_doors(before, ports).map_err(|e| RunFault::Engine {
            what: format!("what leads out of the container cannot be opened: {e}"),
            hint: "a network that is an allowlist needs a docker runner that is root on the engine's own host".into(),
        })?;
        // A number that was given to another process meanwhile would be another's namespace.
        if pid().await? == before { Ok(doors) } else { Err(gone(id)) }
    }

    /// Ends a container with everything in it.
    pub(crate) async fn remove(&self, place: &Place) {
        let id = &place.container.id;
        let turn = Rc::clone(self.making.borrow_mut().entry(place.sandbox.clone()).or_default());
        let is_gone = {
            let _turn = turn.lock().await;
            self.remove_now(place).await
        };
        // What an engine that is gone could not remove is not adopted when that is back: something may still run in it.
        if is_gone {
            self.going.borrow_mut().remove(id);
        }
        if place.is_once {
            self.making.borrow_mut().remove(&place.sandbox);
        }
    }

    fn is_going(&self, id: &str) -> bool {
        self.going.borrow().contains(id)
    }

    /// Whether it is gone.
    async fn remove_now(&self, place: &Place) -> bool {
        self.forget(&place.container.id);
        let Ok(Reached { api: docker, .. }) = self.connect().await else { return false };
        let removed = remove(&docker, &place.container.id).await;
        if let Err(error) = &removed {
            tracing::warn!(%error, "a container could not be removed");
        }
        if place.is_once {
            self.tidy_bridge(&docker).await;
        }
        removed.is_ok()
    }

    /// Where it is.
    pub(crate) fn host(&self) -> &EngineHost {
        &self.settings.host
    }

    /// A container is to go: from here on no command finds it.
    pub(crate) fn let_go(&self, id: &str) {
        self.forget(id);
        self.going.borrow_mut().insert(id.to_owned());
    }

    fn forget(&self, id: &str) {
        self.placed.borrow_mut().retain(|_, placed| placed.place.container.id != id);
        self.set_up.borrow_mut().remove(id);
    }

    /// The engine, which is asked what it is the first time.
    async fn connect(&self) -> Result<Reached, RunFault> {
        if let Some(docker) = self.docker.borrow().clone() {
            return Ok(docker);
        }
        let docker = connect(&self.settings.host).await?;
        *self.docker.borrow_mut() = Some(docker.clone());
        Ok(docker)
    }

    fn bundle(&self) -> Result<Rc<Bundle>, RunFault> {
        if let Some(bundle) = self.bundle.borrow().clone() {
            return Ok(bundle);
        }
        let read = Bundle::read().map(Rc::new).map_err(|e| RunFault::Engine {
            what: format!("{}: {e}", host::NO_PROGRAM.0),
            hint: host::NO_PROGRAM.1.into(),
        })?;
        *self.bundle.borrow_mut() = Some(Rc::clone(&read));
        Ok(read)
    }
}

/// What a container of this name is.
enum Fit {
    /// As planned: its id.
    Same(String),
    /// Ours, and otherwise.
    Stale(String),
}

/// The name of a sandbox that outlives its command.
fn sandbox_of(profile: &SandboxProfile) -> Option<String> {
    profile.kept.as_deref()?.file_name()?.to_str().map(ToOwned::to_owned)
}

fn domains(profile: &SandboxProfile) -> Vec<String> {
    let mut domains: Vec<String> = profile.domains.iter().map(ToString::to_string).collect();
    domains.sort();
    domains
}

async fn remove(docker: &Docker, id: &str) -> Result<(), RunFault> {
    let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
    match docker.remove_container(id, Some(options)).await {
        Ok(()) => Ok(()),
        // Somebody else is at it already.
        Err(Error::DockerResponseServerError { status_code: 404 | 409, .. }) => Ok(()),
        Err(error) => Err(fault("remove a container", &error)),
    }
}

mod prune;
#[cfg(test)]
mod tests;
