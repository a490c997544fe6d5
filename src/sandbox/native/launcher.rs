//! Prepares a sandbox and forks its init; lives in the runner, or in `sandbox run`.
//!
//! Holds what is made once and serves many runs: the compiled filter, the control groups' place, the
//! numbers of free uids. Must be used by a single-threaded process.

use super::battery::{Facts, Proof};
use super::brief::Outgoing;
use super::filter::{Kind, compile_filter};
use super::inside::{self, Base};
use super::landlocked::{self, Private};
use super::launched::{Finished, Inmate, Launched};
use super::monitor::{Monitor, Verdict};
use super::probe;
use super::reserve::{Identity, Reserve, Spare, shown};
use super::slots::{self, Slot, Slots};
use super::tree::Owner;
use super::walls::Walls;
use crate::model::{
    ExecMode, LaunchFault, LimitKind, Limits, Means, Network, RunFault, SandboxProfile, SecretUse, Tier,
};
use crate::os;
use crate::os::Sealed;
use crate::os::linux::cgroup::{self, Bounds, Cgroups, Controller, Group};
use crate::os::linux::clone::{self, Fork};
use crate::os::linux::seccomp::Filter;
use crate::os::linux::title::Title;
use crate::os::linux::userns::{self, Watches};
use crate::os::linux::{capabilities, landlock};
use crate::sandbox::Protected;
use crate::sandbox::environment;
use crate::sandbox::plan::PROOF;
use crate::sandbox::plan::{self, Bind, Command, Plan};
use std::collections::HashMap;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::Instant;

/// The uids that a root launcher gives to its sandboxes begin here: far above people, services and
/// containers ("HOST UID unused", 0x70000000 to 0x7fffffff, in systemd's UIDS-GIDS).
const FIRST_SANDBOX_UID: u32 = 0x7000_0000;

/// Launchers of one host keep apart by their pids: limits on the processes of a uid would otherwise add up.
const LAUNCHERS: u32 = 0x1000_0000 / slots::MOST;

/// Names of our control groups: this, the launcher's pid, the slot.
const GROUP_PREFIX: &str = "vambrace-";

/// How many id maps are kept for the next run.
const MOST_MAPPINGS: usize = 256;

/// The least Landlock ABI whose rights a profile is promised: TRUNCATE (ABI 3) is held by the mounts below it.
const LEAST_LANDLOCK: u8 = 1;

/// What is handed to a sandbox: what the command gets as 0, 1 and 2, and the values of its secrets, one for each that
/// it names. They are never looked into here.
pub(crate) struct Descriptors<'a> {
    pub(crate) stdin: BorrowedFd<'a>,
    pub(crate) stdout: BorrowedFd<'a>,
    pub(crate) stderr: BorrowedFd<'a>,
    pub(crate) secrets: &'a [Sealed],
}

/// Starts sandboxes, one after the other.
pub(crate) struct Launcher {
    tier: Tier,
    facts: Facts,
    /// Stands on an abstract name that no sandbox may reach; nobody is ever accepted.
    _canary: UnixListener,
    /// For commands without a list of executables, and with one.
    filters: [Filter; 2],
    /// For the tier without namespaces, by whether it has the host's network.
    landlocked: [Filter; 2],
    /// Inside a container, as the first two.
    contained: [Filter; 2],
    title: Title,
    /// For each sandbox, where all are of one user.
    watches: Option<Watches>,
    cgroups: Cgroups,
    protected: Protected,
    slots: Slots,
    /// What every sandbox shows of the host.
    system: Vec<Bind>,
    /// This process, for its children to see whether it still lives.
    own: OwnedFd,
    reserve: Reserve,
    /// Namespaces for id-mapped mounts, by owner on disk and owner inside; one serves any number of mounts.
    mappings: HashMap<(u32, u32, u32), OwnedFd>,
}

/// A uid that is nobody else's until this is dropped.
#[derive(Debug)]
pub(crate) struct Lent {
    pub(crate) uid: u32,
    _slot: Option<Slot>,
}

impl Lent {
    /// A uid that is nobody's because no sandbox of ours has it: for what serves a container. `None` where we are not root,
    /// and cannot give one away.
    pub(crate) fn apart() -> Option<Self> {
        (os::process::uid() == 0).then_some(Lent { uid: UID_APART, _slot: None })
    }
}

/// Below those of containers and of native sandboxes.
const UID_APART: u32 = 0x6ffe_0000;

impl Launcher {
    /// Looks at the host once and compiles the filters.
    ///
    /// # Errors
    /// Where the kernel lacks a wall that every run needs; nothing can be run then.
    pub(crate) fn new(protected: Protected) -> Result<Self, LaunchFault> {
        Self::of(probe::tier()?, protected)
    }

    /// The same inside a container, whose walls are the outer ones: only what can be added there is built.
    ///
    /// # Errors
    /// Where its kernel lacks a wall that every run needs.
    pub(crate) fn in_container() -> Result<Self, LaunchFault> {
        Self::of(Tier::Container, Protected::default())
    }

    fn of(tier: Tier, protected: Protected) -> Result<Self, LaunchFault> {
        let fault = |step: &str, cause: String| LaunchFault { step: step.into(), cause };
        let landlock_abi = landlock::abi();
        if landlock_abi < LEAST_LANDLOCK && tier != Tier::Container {
            return Err(fault("look for Landlock", "this kernel has none, or it is not among its active LSMs".into()));
        }
        if tier == Tier::Root {
            capabilities::shed_unneeded().map_err(|e| fault("shed capabilities", e.to_string()))?;
        }
        let cgroups = Cgroups::discover();
        cgroups.sweep(GROUP_PREFIX);
        let (canary, abstract_name) = canary().map_err(|e| fault("listen on an abstract socket", e.to_string()))?;
        let hidden = protected.own.iter().find(|path| path.exists()).cloned();
        let namespaces = Facts::own_namespaces();
        Ok(Launcher {
            tier,
            facts: Facts {
                hidden,
                abstract_name,
                namespaces,
                landlock_abi,
                launcher: std::process::id() as i32,
                proof: PathBuf::new(),
            },
            _canary: canary,
            filters: [ExecMode::Full, ExecMode::Allowlist].map(|mode| compile_filter(Kind::Walled(mode))),
            contained: [ExecMode::Full, ExecMode::Allowlist].map(|mode| compile_filter(Kind::Contained(mode))),
            landlocked: [Network::None, Network::Host].map(|network| compile_filter(Kind::Landlocked(network))),
            title: Title::find().map_err(|e| fault("find the arguments of this process", e.to_string()))?,
            watches: (tier == Tier::UserNamespace)
                .then(Watches::a_quarter)
                .transpose()
                .map_err(|e| fault("look how many files can be watched", e.to_string()))?,
            cgroups,
            protected,
            slots: Slots::default(),
            mappings: HashMap::new(),
            system: plan::system(),
            own: os::process::own_pidfd().map_err(|e| fault("open this process", e.to_string()))?,
            reserve: Reserve::begin().map_err(|e| fault("watch the mounts", e.to_string()))?,
        })
    }

    /// Builds the walls and starts the command in them.
    ///
    /// # Errors
    /// What can be refused before the child is told; later failures come through the status pipe.
    pub(crate) fn launch(
        &mut self,
        profile: &SandboxProfile,
        command: Command,
        handed: Descriptors<'_>,
    ) -> Result<Launched, RunFault> {
        let started = Instant::now();
        let plan = plan::plan(profile, command, &self.protected)?;
        if plan.command.secrets.len() != handed.secrets.len() {
            return Err(RunFault::Refused {
                what: "the values of the secrets are not one for each".into(),
                hint: "gateway and runner must be of one version".into(),
            });
        }
        let walls = self.walls(&plan)?;
        if !walls.has_namespaces() {
            return self.launch_landlocked(plan, walls, handed, started);
        }
        let words = Words::of(&plan)?;
        let bounds = bounds(&plan.limits);
        let secrets = plan.command.secrets.iter().zip(handed.secrets);
        let (variables, files): (Vec<_>, Vec<_>) = secrets.partition(|(wanted, _)| wanted.variable().is_some());
        // Files of secrets are part of the tree, which is closed before a spare waits.
        let spare = match self.reserve.take(&walls).filter(|_| files.is_empty()) {
            Some(spare) => spare,
            None => self.make_spare(walls, bounds, files)?,
        };
        self.brief(spare, &plan, &words, bounds, handed, variables, started)
    }

    /// The tier without namespaces: nothing is built ahead, and private folders take the place of a tree.
    fn launch_landlocked(
        &mut self,
        mut plan: Plan,
        mut walls: Walls,
        handed: Descriptors<'_>,
        started: Instant,
    ) -> Result<Launched, RunFault> {
        walls.check_without_namespaces(&plan)?;
        let private = match walls.tier {
            // The container has its own.
            Tier::Container => None,
            _ => Some(Private::make().map_err(wall("make private folders"))?),
        };
        for (variable, path) in private.iter().flat_map(|private| walls.settle(private)) {
            plan.env.insert(variable.into(), path.display().to_string());
        }
        // This limit counts every process of the user on the host.
        walls.rlimits.pids = match private {
            None => u32::MAX,
            Some(_) => walls.rlimits.pids.saturating_add(os::process::threads_of(os::process::uid())),
        };
        let words = Words::of(&plan)?;
        let bounds = bounds(&plan.limits);
        let spare = self.fork_keeper(walls, private, bounds)?;
        let variables = plan.command.secrets.iter().zip(handed.secrets).collect();
        self.brief(spare, &plan, &words, bounds, handed, variables, started)
    }

    fn fork_keeper(&mut self, walls: Walls, private: Option<Private>, bounds: Bounds) -> Result<Spare, RunFault> {
        let slot = self.take_slot()?;
        let (status, status_out) = io::pipe().map_err(wall("make a pipe"))?;
        let (channel, theirs) = UnixStream::pair().map_err(wall("make a channel"))?;
        let proof = private.as_ref().map_or_else(|| PROOF.into(), Private::proof);
        let facts = Facts { proof, ..self.facts.clone() };
        let filter = match walls.tier {
            Tier::Container => &self.contained[usize::from(walls.allowed.is_some())],
            _ => &self.landlocked[usize::from(walls.network == Network::Host)],
        };
        match clone::fork(nix::sched::CloneFlags::empty()).map_err(wall("fork"))? {
            Fork::Child => {
                let private = private.as_ref();
                let base = landlocked::Base { walls: &walls, filter, facts: &facts, launcher: &self.own, private };
                landlocked::live(&base, theirs.into(), status_out.into())
            }
            Fork::Parent { pid, pidfd } => {
                drop((theirs, status_out));
                let mut inmate = Inmate { pidfd, group: None, slot, is_keeper: true, private };
                inmate.group = self.group(&inmate.slot, bounds).map_err(wall("make a control group"))?;
                if let Some(group) = &inmate.group {
                    group.admit(pid).map_err(wall("move the sandbox into its control group"))?;
                }
                let _ = (&channel).write_all(&[inside::ADMITTED]);
                let (status, channel) = (status.into(), channel.into());
                Ok(Spare { inmate, status, channel, walls, shown: Vec::new(), bounds, made: Instant::now() })
            }
        }
    }

    fn walls(&self, plan: &Plan) -> Result<Walls, RunFault> {
        Walls::of(plan, self.tier, &self.means())
    }

    /// Builds the walls of a profile around nothing and tells what was proved of them.
    ///
    /// # Errors
    /// The first wall that does not hold.
    pub(crate) fn prove(&mut self, profile: &SandboxProfile) -> Result<Vec<Proof>, RunFault> {
        let command = Command {
            argv: vec!["true".into()],
            cwd: "".into(),
            env: Default::default(),
            secrets: vec![],
            terminal: None,
            file: None,
        };
        let plan = plan::plan(profile, command, &self.protected)?;
        let walls = self.walls(&plan)?;
        if !walls.has_namespaces() {
            return self.prove_landlocked(plan, walls);
        }
        let spare = self.make_spare(walls, bounds(&plan.limits), Vec::new())?;
        let Spare { inmate, status, channel, .. } = spare;
        let mut monitor = Monitor::new("true");
        let mut bytes = [0; 1024];
        let mut status = std::fs::File::from(status);
        while monitor.evidence().is_none() {
            match status.read(&mut bytes) {
                Ok(n) if n > 0 => monitor.feed(&bytes[..n]),
                _ => break,
            }
        }
        drop((channel, inmate));
        match (monitor.evidence(), monitor.verdict()) {
            (Some(evidence), _) => Ok(evidence.proved.rows(self.tier)),
            (None, Verdict::Fault(fault)) => Err(fault),
            (None, _) => Err(RunFault::RunnerGone),
        }
    }

    /// There the walls stand around a command or not at all.
    fn prove_landlocked(&mut self, plan: Plan, walls: Walls) -> Result<Vec<Proof>, RunFault> {
        let null = File::options().read(true).write(true).open("/dev/null").map_err(wall("open /dev/null"))?;
        let handed = Descriptors { stdin: null.as_fd(), stdout: null.as_fd(), stderr: null.as_fd(), secrets: &[] };
        let mut launched = self.launch_landlocked(plan, walls, handed, Instant::now())?;
        let mut status = File::from(launched.status.try_clone().map_err(wall("read the status"))?);
        let mut bytes = [0; 1024];
        while let Ok(n @ 1..) = status.read(&mut bytes) {
            launched.monitor.feed(&bytes[..n]);
        }
        let proofs = match (launched.monitor.evidence(), launched.monitor.verdict()) {
            (Some(evidence), _) => Ok(evidence.proved.rows(self.tier)),
            (None, Verdict::Fault(fault)) => Err(fault),
            (None, _) => Err(RunFault::RunnerGone),
        };
        self.finish(launched);
        proofs
    }

    /// Prepares children for the next commands, so that they need not wait for their walls.
    pub(crate) fn refill(&mut self) {
        for (walls, bounds) in self.reserve.wanted() {
            if let Ok(spare) = self.make_spare(walls, bounds, Vec::new()) {
                self.reserve.add(spare);
            }
        }
    }

    /// Lets go of waiting children that no command may have any more: to be called every few seconds, so that no file
    /// system stays busy for one after the host has unmounted it.
    pub(crate) fn tidy(&mut self) {
        self.reserve.tidy();
    }

    /// Forks a child that builds these walls and waits.
    fn make_spare(
        &mut self,
        walls: Walls,
        bounds: Bounds,
        files: Vec<(&SecretUse, &Sealed)>,
    ) -> Result<Spare, RunFault> {
        let slot = self.take_slot()?;
        let (status, status_out) = io::pipe().map_err(wall("make a pipe"))?;
        let (channel, theirs) = UnixStream::pair().map_err(wall("make a channel"))?;
        let owner = self.owner(&slot);
        let shown = shown(&walls);
        self.prepare_mappings(&shown, owner.uid)?;
        match clone::fork(inside::outer_namespaces(self.tier)).map_err(wall("make the namespaces"))? {
            Fork::Child => inside::live(
                Base {
                    mappings: shown.iter().map(|folder| self.mapping_of(*folder, owner.uid)).collect(),
                    owner,
                    walls: &walls,
                    files,
                    system: &self.system,
                    filter: &self.filters[usize::from(walls.allowed.is_some())],
                    facts: &self.facts,
                    title: self.title,
                },
                &self.own,
                theirs.into(),
                status_out.into(),
            ),
            Fork::Parent { pid, pidfd } => {
                drop((theirs, status_out));
                let mut inmate = Inmate { pidfd, group: None, slot, is_keeper: false, private: None };
                // While the child builds. It starts nothing before its brief, and that comes after this.
                inmate.group = self.group(&inmate.slot, bounds).map_err(wall("make a control group"))?;
                if let Some(group) = &inmate.group {
                    group.admit(pid).map_err(wall("move the sandbox into its control group"))?;
                }
                // A child that is gone has said why on its status pipe, and that is the better message.
                let _ = (&channel).write_all(&[inside::ADMITTED]);
                let (status, channel) = (status.into(), channel.into());
                Ok(Spare { inmate, status, channel, walls, shown, bounds, made: Instant::now() })
            }
        }
    }

    fn owner(&self, slot: &Slot) -> Owner {
        let own = FIRST_SANDBOX_UID + (std::process::id() % LAUNCHERS) * slots::MOST + slot.number();
        let (uid, gid) = match self.tier {
            Tier::Root => (own, own),
            Tier::UserNamespace | Tier::Landlock | Tier::Container => (os::process::uid(), os::process::gid()),
        };
        Owner { tier: self.tier, uid, gid, watches: self.watches }
    }

    /// Tells a waiting child what it is for.
    #[allow(clippy::too_many_arguments)]
    fn brief(
        &mut self,
        spare: Spare,
        plan: &Plan,
        words: &Words,
        bounds: Bounds,
        handed: Descriptors<'_>,
        variables: Vec<(&SecretUse, &Sealed)>,
        started: Instant,
    ) -> Result<Launched, RunFault> {
        let Spare { inmate, status, channel, walls, bounds: bounded, .. } = spare;
        if let Some(group) = inmate.group.as_ref().filter(|_| bounds != bounded) {
            self.cgroups.bound(group, bounds).map_err(wall("bound the control group"))?;
        }
        let brief = Outgoing {
            cwd: &plan.command.cwd,
            candidates: &words.candidates,
            argv: &words.argv,
            env: &words.env,
            // Every CPU busy until well past the deadline is more than a run can use.
            cpu_seconds: (plan.limits.timeout.as_secs() + 5).saturating_mul(256),
            terminal: plan.command.terminal,
            file: plan.command.file.as_ref(),
            stdio: [handed.stdin, handed.stdout, handed.stderr],
            secrets: variables,
        };
        // A child that is gone has said why on its status pipe, and that is the better message.
        let _ = brief.send(&channel);
        if walls.has_namespaces() {
            self.reserve.remember(&walls, bounds);
        }
        Ok(Launched {
            status,
            monitor: Monitor::new(&plan.command.argv[0]),
            started,
            host_uid: self.owner(&inmate.slot).uid,
            inmate,
            channel,
            mounts: None,
            walls,
            landlock_abi: self.facts.landlock_abi,
            oom_kills_before: (self.tier == Tier::Container).then(cgroup::oom_kills_of_container),
            refused_before: (self.tier == Tier::Container).then(cgroup::refused_processes_of_container),
            limits: self.means(),
        })
    }

    /// A uid of the sandboxes' range for a helper of one run; none where every process has the launcher's own.
    ///
    /// # Errors
    /// Busy where all are taken.
    pub(crate) fn lend_uid(&mut self) -> Result<Option<Lent>, RunFault> {
        if self.tier != Tier::Root {
            return Ok(None);
        }
        let slot = self.take_slot()?;
        Ok(Some(Lent { uid: self.owner(&slot).uid, _slot: Some(slot) }))
    }

    fn take_slot(&self) -> Result<Slot, RunFault> {
        self.slots.take().ok_or(RunFault::Busy)
    }

    fn group(&self, slot: &Slot, bounds: Bounds) -> io::Result<Option<Group>> {
        if self.cgroups.controllers().is_empty() {
            return Ok(None);
        }
        self.cgroups.create(&format!("{GROUP_PREFIX}{}-{}", std::process::id(), slot.number()), bounds).map(Some)
    }

    /// What is never shown, and what is ours to make.
    pub(crate) fn protected(&self) -> &Protected {
        &self.protected
    }

    /// Whether this is a runner inside a container.
    pub(crate) fn is_contained(&self) -> bool {
        self.tier == Tier::Container
    }

    fn means(&self) -> [(LimitKind, Means); 3] {
        let here = self.cgroups.controllers();
        let by = |controller, otherwise| if here.contains(&controller) { Means::Cgroup } else { otherwise };
        [
            (LimitKind::Cpu, by(Controller::Cpu, Means::Unbounded)),
            (LimitKind::Memory, by(Controller::Memory, Means::Rlimit)),
            (LimitKind::Pids, by(Controller::Pids, Means::Rlimit)),
        ]
    }

    /// Makes the id maps that these folders need and that are not here yet.
    fn prepare_mappings(&mut self, shown: &[Option<Identity>], uid: u32) -> Result<(), RunFault> {
        if self.tier != Tier::Root {
            return Ok(());
        }
        // Each is a descriptor. Mounts made with one keep it alive by themselves.
        if self.mappings.len() + shown.len() > MOST_MAPPINGS {
            self.mappings.clear();
        }
        // What cannot be opened is reported by the child, which opens it for real.
        for (_, _, disk_uid, disk_gid) in shown.iter().flatten() {
            let key = (*disk_uid, *disk_gid, uid);
            if self.mappings.contains_key(&key) {
                continue;
            }
            let made = userns::mapping((*disk_uid, *disk_gid), (uid, uid)).map_err(wall("make an id map"))?;
            self.mappings.insert(key, made);
        }
        Ok(())
    }

    fn mapping_of(&self, shown: Option<Identity>, uid: u32) -> Option<BorrowedFd<'_>> {
        let (_, _, disk_uid, disk_gid) = shown.filter(|_| self.tier == Tier::Root)?;
        self.mappings.get(&(disk_uid, disk_gid, uid)).map(AsFd::as_fd)
    }

    /// Reaps an ended sandbox, frees what it held and says what was enforced.
    pub(crate) fn finish(&mut self, launched: Launched) -> Finished {
        launched.inmate.end();
        let elapsed = launched.started.elapsed();
        let out_of_memory = launched.inmate.group.as_ref().is_some_and(Group::ran_out_of_memory)
            || launched.oom_kills_before.is_some_and(|before| cgroup::oom_kills_of_container() > before);
        let out_of_processes = launched.inmate.group.as_ref().is_some_and(|group| group.refused_processes() > 0)
            || launched.refused_before.is_some_and(|before| cgroup::refused_processes_of_container() > before);
        let enforcement = launched.enforcement();
        Finished { out_of_memory, out_of_processes, enforcement, elapsed, _remains: launched }
    }
}

/// A socket on an abstract name that nobody guesses.
fn canary() -> io::Result<(UnixListener, Vec<u8>)> {
    use std::os::linux::net::SocketAddrExt;
    let name = format!("vambrace-canary-{}", crate::crypto::hex(&os::host::random::<16>())).into_bytes();
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name)?;
    Ok((UnixListener::bind_addr(&address)?, name))
}

/// The words of a command as the kernel takes them.
struct Words {
    candidates: Vec<CString>,
    argv: Vec<CString>,
    env: Vec<CString>,
}

impl Words {
    fn of(plan: &Plan) -> Result<Self, RunFault> {
        let c_string = |text: &str| {
            CString::new(text).map_err(|_| RunFault::Refused {
                what: "an argument or variable holds a NUL byte".into(),
                hint: "the kernel cannot pass one on".into(),
            })
        };
        Ok(Words {
            candidates: candidates(&plan.command.argv[0]).iter().map(|p| c_string(p)).collect::<Result<_, _>>()?,
            argv: plan.command.argv.iter().map(|a| c_string(a)).collect::<Result<_, _>>()?,
            env: plan.env.iter().map(|(k, v)| c_string(&format!("{k}={v}"))).collect::<Result<_, _>>()?,
        })
    }
}

fn bounds(limits: &Limits) -> Bounds {
    Bounds { milli_cpus: limits.milli_cpus, memory_bytes: limits.memory_bytes, pids: limits.pids }
}

fn wall(step: &'static str) -> impl Fn(io::Error) -> RunFault {
    move |e| RunFault::WallMissing(LaunchFault { step: step.into(), cause: e.to_string() })
}

/// Where to look for a command, as execvp(3) does with our own PATH.
fn candidates(name: &str) -> Vec<String> {
    if name.contains('/') {
        return vec![name.to_owned()];
    }
    environment::PATH.split(':').map(|folder| format!("{folder}/{name}")).collect()
}
