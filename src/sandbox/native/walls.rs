//! What is to be built, as far as it is known before there is a command. Two commands whose walls are equal can be
//! served by children that were built alike; each child serves one.

use super::landlocked::{self, Private};
use crate::model::{ExecMode, LaunchFault, LimitKind, Means, Network, RunFault, Tier};
use crate::os::linux::landlock::Grant;
use crate::os::linux::rlimits::Rlimits;
use crate::sandbox::environment::HOME;
use crate::sandbox::listed::FOLDER;
use crate::sandbox::plan::{self, Bind, Plan, Shown, WORKSPACE};
use std::path::{Path, PathBuf};

/// Walls around one command, whichever it will be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Walls {
    pub(super) tier: Tier,
    pub(super) network: Network,
    /// Doors to the process that carries connections out, with `Network::Allowlist`.
    pub(super) ports: Vec<u16>,
    /// What the profile shows of the host, beyond the system.
    pub(super) binds: Vec<Bind>,
    pub(super) scratch_bytes: u64,
    /// The executables that may be executed; `None` for all that are shown.
    pub(super) allowed: Option<Vec<String>>,
    pub(super) rlimits: Rlimits,
}

impl Walls {
    /// Those of a plan. `means` says what bounds the whole tree: a control group, or limits of each process.
    ///
    /// # Errors
    /// Where this tier is weaker than what the profile accepts.
    pub(super) fn of(plan: &Plan, tier: Tier, means: &[(LimitKind, Means)]) -> Result<Self, RunFault> {
        let limits = &plan.limits;
        let is_in_group = |kind| means.contains(&(kind, Means::Cgroup));
        if tier != Tier::Container && tier < plan.least_tier {
            return Err(RunFault::WallMissing(LaunchFault {
                step: "look for walls that are strong enough".into(),
                cause: format!(
                    "this host gives the tier {:?}, and `least_tier` of the profile is {:?}",
                    tier.as_str(),
                    plan.least_tier.as_str()
                ),
            }));
        }
        Ok(Walls {
            tier,
            network: plan.network,
            ports: plan.ports.clone(),
            binds: plan.binds.clone(),
            scratch_bytes: limits.scratch_bytes,
            allowed: plan.allowed.clone(),
            rlimits: Rlimits {
                // One more for the init; and one for the group to be the first that refuses, which tells of it.
                pids: limits.pids.saturating_add(1 + u32::from(is_in_group(LimitKind::Pids))),
                data_bytes: (!is_in_group(LimitKind::Memory)).then_some(limits.memory_bytes),
                file_bytes: limits.disk_bytes.max(limits.scratch_bytes),
            },
        })
    }

    /// Where the workspace stands for the command: at its own path of the host in the tier without namespaces.
    pub(super) fn workspace(&self) -> &Path {
        let of = |place: &str| self.binds.iter().find(|bind| bind.target == Path::new(place)).map(|bind| &*bind.source);
        of(WORKSPACE).unwrap_or(Path::new(WORKSPACE))
    }

    /// What Landlock grants in the tier without namespaces, on the host's own paths.
    pub(super) fn host_grants(&self) -> Vec<(PathBuf, Grant)> {
        if self.tier == Tier::Container {
            return container_grants(self.allowed.is_some());
        }
        let plain = |paths: &[&str], grant| paths.iter().map(|p| (PathBuf::from(p), grant)).collect::<Vec<_>>();
        let mut rules = plain(landlocked::SYSTEM, Grant::ReadExecute);
        rules.extend(plain(landlocked::PROC, Grant::Read));
        rules.extend(landlocked::own_proc().into_iter().map(|own| (own, Grant::Read)));
        for bind in plan::system().into_iter().filter(|bind| bind.target != Path::new("/usr")) {
            rules.push((bind.source, if bind.shown == Shown::Device { Grant::Device } else { Grant::Read }));
        }
        rules
    }

    /// The same for what the profile names.
    pub(super) fn named_grants(&self) -> Vec<(PathBuf, Grant)> {
        let lists = self.allowed.is_some();
        let grant = |shown| match shown {
            Shown::ReadOnly if !lists => Grant::ReadExecute,
            Shown::ReadOnly | Shown::ReadOnlyData => Grant::Read,
            Shown::Writable => Grant::ReadWriteExecute,
            Shown::WritableData => Grant::ReadWrite,
            Shown::Device => Grant::Device,
        };
        self.binds.iter().map(|bind| (bind.source.clone(), grant(bind.shown))).collect()
    }

    /// What this tier cannot give is refused, not left out.
    ///
    /// # Errors
    /// Names it.
    pub(super) fn check_without_namespaces(&self, plan: &Plan) -> Result<(), RunFault> {
        let missing = if self.network == Network::Allowlist {
            "a network that is an allowlist needs a network namespace"
        } else if self.allowed.is_some() && self.tier != Tier::Container {
            "a list of executables needs a mount namespace"
        } else if plan.command.secrets.iter().any(|secret| secret.variable().is_none()) {
            "secrets that are files need a mount namespace"
        } else {
            return Ok(());
        };
        Err(RunFault::WallMissing(LaunchFault { step: "build walls without namespaces".into(), cause: missing.into() }))
    }

    /// Gives what would be a tree of its own elsewhere a place on the host: workspace, home and `/tmp` of this run, unless
    /// the profile has some. Says which variables name them.
    pub(super) fn settle(&mut self, private: &Private) -> [(&'static str, PathBuf); 3] {
        let mut place = |target: &str, part| {
            if let Some(bind) = self.binds.iter().find(|bind| bind.target == Path::new(target)) {
                return bind.source.clone();
            }
            let source = private.folder(part);
            let (shown, target) = (Shown::WritableData, PathBuf::from(target));
            self.binds.push(Bind { source: source.clone(), target, shown, required: true, named: true });
            source
        };
        [("PWD", place(WORKSPACE, "workspace")), ("HOME", place(HOME, "home")), ("TMPDIR", place("/tmp", "tmp"))]
    }

    pub(super) fn exec_mode(&self) -> ExecMode {
        if self.allowed.is_some() { ExecMode::Allowlist } else { ExecMode::Full }
    }

    /// Whether we make namespaces for each command.
    pub(super) fn has_namespaces(&self) -> bool {
        matches!(self.tier, Tier::UserNamespace | Tier::Root)
    }

    /// Whether the command has a network namespace of its own.
    pub(super) fn has_own_network(&self) -> bool {
        self.network != Network::Host
    }

    /// Places that a command can write to, each with whether code may be executed from there.
    pub(super) fn writable(&self) -> Vec<(&Path, bool)> {
        let mut places: Vec<(&Path, bool)> =
            [WORKSPACE, "/tmp", HOME, "/dev/shm"].map(|place| (Path::new(place), false)).to_vec();
        for bind in &self.binds {
            places.retain(|(place, _)| *place != bind.target);
            match bind.shown {
                Shown::Writable => places.push((&bind.target, true)),
                Shown::WritableData => places.push((&bind.target, false)),
                Shown::ReadOnly | Shown::ReadOnlyData | Shown::Device => {}
            }
        }
        places
    }

    /// Whether commands can write to a place: it lies in such a folder, and nothing nearer shows it read-only.
    pub(super) fn is_written(&self, place: &Path) -> bool {
        let holding = self.binds.iter().filter(|bind| place.starts_with(&bind.target));
        let nearest = holding.max_by_key(|bind| bind.target.as_os_str().len());
        let is_read_only = nearest.is_some_and(|bind| matches!(bind.shown, Shown::ReadOnly | Shown::ReadOnlyData));
        !is_read_only && self.writable().iter().any(|(folder, _)| place.starts_with(folder))
    }

    /// What Landlock grants; everything else it refuses. `executables` are those of the list, where there is one.
    pub(super) fn grants(&self, executables: Option<&[PathBuf]>) -> Vec<(PathBuf, Grant)> {
        let lists = self.allowed.is_some();
        let mut rules = vec![
            (PathBuf::from("/"), if lists { Grant::Read } else { Grant::ReadExecute }),
            (PathBuf::from("/dev"), Grant::Device),
        ];
        // Without a list the mounts alone say what is executable, so that a refusal is the same for every program.
        let write = if lists { Grant::ReadWrite } else { Grant::ReadWriteExecute };
        rules.extend(self.writable().into_iter().map(|(place, _)| (place.to_owned(), write)));
        rules.extend(executables.into_iter().flatten().map(|path| (path.clone(), Grant::Execute)));
        rules
    }
}

/// What Landlock grants inside a container, beside what the profile names: all of the image can be executed unless there
/// is a list, what is the container's alone can be written to, and /proc can be read, where Landlock keeps other
/// commands' memory and environment apart by itself (ptrace rules of landlock(7)).
fn container_grants(lists: bool) -> Vec<(PathBuf, Grant)> {
    const OURS: &[&str] = &["proc", "sys", "dev", "run", "tmp", "home", "workspace"];
    let items = std::fs::read_dir("/").into_iter().flatten().flatten();
    // A link of the image's is judged by where it leads: one to /sys would grant that.
    let is_ours = |path: &Path| {
        let leads_to = crate::os::fs::canonical(path).unwrap_or_default();
        let top = leads_to.components().nth(1).map(|part| part.as_os_str().to_owned());
        top.is_none_or(|top| OURS.iter().any(|name| top == *name))
    };
    let of_image = items.filter(|item| !is_ours(&item.path()));
    let mut rules: Vec<_> =
        of_image.map(|item| (item.path(), if lists { Grant::Read } else { Grant::ReadExecute })).collect();
    let ours = [
        ("/", Grant::List),
        ("/proc", Grant::Read),
        ("/sys/fs/cgroup", Grant::Read),
        ("/sys/devices/system/cpu", Grant::Read),
        ("/dev", Grant::Device),
        ("/dev/shm", Grant::ReadWrite),
        ("/tmp", Grant::ReadWrite),
        (HOME, Grant::ReadWrite),
        (WORKSPACE, if lists { Grant::ReadWrite } else { Grant::ReadWriteExecute }),
    ];
    // The loaders, for the shim.
    rules.extend(lists.then(|| (PathBuf::from(FOLDER), Grant::Read)));
    rules.extend(ours.map(|(path, grant)| (PathBuf::from(path), grant)));
    rules
}
