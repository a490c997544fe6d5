//! What is to be built, as far as it is known before there is a command. Two commands whose walls are equal can be
//! served by children that were built alike; each child serves one.

use crate::model::{ExecMode, LaunchFault, Network, RunFault, Tier};
use crate::os::linux::landlock::Grant;
use crate::os::linux::rlimits::Rlimits;
use crate::sandbox::environment::HOME;
use crate::sandbox::plan::{Bind, Plan, Shown, WORKSPACE};
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

/// A folder that is writable as a mount and granted to nobody: what is refused there, Landlock refuses.
pub(super) const PROOF: &str = "/run/proof";

impl Walls {
    /// Those of a plan. `memory_in_group` says that a control group bounds the memory of the whole tree.
    ///
    /// # Errors
    /// Where this tier is weaker than what the profile accepts.
    pub(super) fn of(plan: &Plan, tier: Tier, memory_in_group: bool) -> Result<Self, RunFault> {
        let limits = &plan.limits;
        if tier < plan.least_tier {
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
                // One more for the init.
                pids: limits.pids.saturating_add(1),
                data_bytes: (!memory_in_group).then_some(limits.memory_bytes),
                file_bytes: limits.disk_bytes.max(limits.scratch_bytes),
            },
        })
    }

    pub(super) fn exec_mode(&self) -> ExecMode {
        if self.allowed.is_some() { ExecMode::Allowlist } else { ExecMode::Full }
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
    pub(super) fn grants(&self, executables: Option<Vec<PathBuf>>) -> Vec<(PathBuf, Grant)> {
        let lists = self.allowed.is_some();
        let mut rules = vec![
            (PathBuf::from("/"), if lists { Grant::Read } else { Grant::ReadExecute }),
            (PathBuf::from("/dev"), Grant::Device),
        ];
        // Without a list the mounts alone say what is executable, so that a refusal is the same for every program.
        let write = if lists { Grant::ReadWrite } else { Grant::ReadWriteExecute };
        rules.extend(self.writable().into_iter().map(|(place, _)| (place.to_owned(), write)));
        rules.extend(executables.into_iter().flatten().map(|path| (path, Grant::Execute)));
        rules
    }
}
