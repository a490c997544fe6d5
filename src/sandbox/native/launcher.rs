//! Prepares a sandbox and forks its init; lives in the runner, or in `sandbox run`.
//!
//! Holds what is made once and serves many runs: the compiled filter, the control groups' place, the
//! numbers of free uids. Must be used by a single-threaded process.

use super::filter::compile_filter;
use super::inside::{self, FIRST_FREE, Recipe};
use super::monitor::Monitor;
use crate::model::{Enforcement, LaunchFault, LimitKind, Limits, Means, Network, RunFault, SandboxProfile, Tier};
use crate::os;
use crate::os::linux::cgroup::{Bounds, Cgroups, Controller, Group};
use crate::os::linux::clone::{self, Fork};
use crate::os::linux::rlimits::Rlimits;
use crate::os::linux::seccomp::Filter;
use crate::os::linux::title::Title;
use crate::os::linux::{capabilities, landlock, mounts, userns};
use crate::sandbox::Protected;
use crate::sandbox::environment;
use crate::sandbox::plan::{self, Bind, Command, Plan};
use std::collections::{BTreeSet, HashMap};
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

/// The uids that a root launcher gives to its sandboxes begin here: far above people, services and
/// containers ("HOST UID unused", 0x70000000 to 0x7fffffff, in systemd's UIDS-GIDS).
const FIRST_SANDBOX_UID: u32 = 0x7000_0000;

/// Launchers of one host keep apart by their pids: limits on the processes of a uid would otherwise add up.
const LAUNCHERS: u32 = 0x1000_0000 / MOST_SLOTS;

/// How many sandboxes one launcher runs at a time.
const MOST_SLOTS: u32 = 1024;

/// How many id maps are kept for the next run.
const MOST_MAPPINGS: usize = 256;

/// The least Landlock ABI whose rights a profile is promised: TRUNCATE (ABI 3) is held by the mounts below it.
const LEAST_LANDLOCK: u8 = 1;

/// Descriptors the command gets as 0, 1 and 2.
pub(crate) struct Stdio<'a> {
    pub(crate) stdin: BorrowedFd<'a>,
    pub(crate) stdout: BorrowedFd<'a>,
    pub(crate) stderr: BorrowedFd<'a>,
}

/// Starts sandboxes, one after the other.
pub(crate) struct Launcher {
    tier: Tier,
    landlock_abi: u8,
    filter: Filter,
    title: Title,
    cgroups: Cgroups,
    protected: Protected,
    taken: BTreeSet<u32>,
    /// Namespaces for id-mapped mounts, by owner on disk and owner inside; one serves any number of mounts.
    mappings: HashMap<(u32, u32, u32), OwnedFd>,
}

/// A sandbox that has been started. Dropping it kills and reaps it.
pub(crate) struct Launched {
    pub(crate) pidfd: OwnedFd,
    /// The reading end of the status pipe; feed it to `monitor`.
    pub(crate) status: OwnedFd,
    pub(crate) monitor: Monitor,
    pub(crate) started: Instant,
    group: Option<Group>,
    slot: u32,
    wished: Wished,
}

/// What the launcher knows of the walls before the child has read them back.
struct Wished {
    tier: Tier,
    host_uid: u32,
    network: Network,
    landlock_abi: u8,
    limits: [(LimitKind, Means); 3],
}

impl Launcher {
    /// Looks at the host once and compiles the filters.
    ///
    /// # Errors
    /// Where the kernel lacks a wall that every run needs; nothing can be run then.
    pub(crate) fn new(protected: Protected) -> Result<Self, LaunchFault> {
        let fault = |step: &str, cause: String| LaunchFault { step: step.into(), cause };
        let landlock_abi = landlock::abi();
        if landlock_abi < LEAST_LANDLOCK {
            return Err(fault("look for Landlock", "this kernel has none, or it is not among its active LSMs".into()));
        }
        let tier = if os::process::uid() == 0 { Tier::Root } else { Tier::UserNamespace };
        if tier == Tier::Root {
            capabilities::shed_unneeded().map_err(|e| fault("shed capabilities", e.to_string()))?;
        }
        Ok(Launcher {
            tier,
            landlock_abi,
            filter: compile_filter(),
            title: Title::find().map_err(|e| fault("find the arguments of this process", e.to_string()))?,
            cgroups: Cgroups::discover(),
            protected,
            taken: BTreeSet::new(),
            mappings: HashMap::new(),
        })
    }

    /// Builds the walls and starts the command in them.
    ///
    /// # Errors
    /// What can be refused before the fork; later failures come through the status pipe.
    pub(crate) fn launch(
        &mut self,
        profile: &SandboxProfile,
        command: Command,
        stdio: Stdio<'_>,
    ) -> Result<Launched, RunFault> {
        let started = Instant::now();
        let plan = plan::plan(profile, command, &self.protected)?;
        let slot = self.take_slot()?;
        let launched = self.launch_in(slot, &plan, stdio, started);
        if launched.is_err() {
            self.taken.remove(&slot);
        }
        launched
    }

    fn launch_in(&mut self, slot: u32, plan: &Plan, stdio: Stdio<'_>, started: Instant) -> Result<Launched, RunFault> {
        let wall = |step: &'static str| {
            move |e: io::Error| RunFault::WallMissing(LaunchFault { step: step.into(), cause: e.to_string() })
        };
        let own = FIRST_SANDBOX_UID + (std::process::id() % LAUNCHERS) * MOST_SLOTS + slot;
        let (uid, gid) = match self.tier {
            Tier::Root => (own, own),
            Tier::UserNamespace => (os::process::uid(), os::process::gid()),
        };
        self.prepare_mappings(plan, uid)?;
        let limits = self.means();

        let (status, status_out) = io::pipe().map_err(wall("make a pipe"))?;
        let (gate_in, gate) = io::pipe().map_err(wall("make a pipe"))?;
        let recipe = self.recipe(plan, uid, gid, stdio, limits)?;
        let flags = inside::namespaces(self.tier, plan.network);
        match clone::fork(flags, None).map_err(wall("make the namespaces"))? {
            Fork::Child => {
                // Our copies of the launcher's ends would keep both pipes from ever ending.
                drop((status, gate));
                inside::live(recipe, File::from(OwnedFd::from(gate_in)), File::from(OwnedFd::from(status_out)))
            }
            Fork::Parent { pid, pidfd } => {
                drop((gate_in, status_out));
                let mut launched = Launched {
                    pidfd,
                    status: status.into(),
                    monitor: Monitor::new(&plan.command.argv[0]),
                    started,
                    group: None,
                    slot,
                    wished: Wished {
                        tier: self.tier,
                        host_uid: uid,
                        network: plan.network,
                        landlock_abi: self.landlock_abi,
                        limits,
                    },
                };
                // While the child builds its walls; it starts nothing before our word.
                launched.group = self.group(slot, &plan.limits).map_err(wall("make a control group"))?;
                if let Some(group) = &launched.group {
                    group.admit(pid).map_err(wall("move the sandbox into its control group"))?;
                }
                // A child that died already reports so itself.
                let _ = (&gate).write_all(&[1]);
                Ok(launched)
            }
        }
    }

    fn recipe<'a>(
        &'a self,
        plan: &'a Plan,
        uid: u32,
        gid: u32,
        stdio: Stdio<'a>,
        limits: [(LimitKind, Means); 3],
    ) -> Result<Recipe<'a>, RunFault> {
        let c_string = |text: &str| {
            CString::new(text).map_err(|_| RunFault::Refused {
                what: "an argument or variable holds a NUL byte".into(),
                hint: "the kernel cannot pass one on".into(),
            })
        };
        let memory_in_cgroup = limits.contains(&(LimitKind::Memory, Means::Cgroup));
        Ok(Recipe {
            tier: self.tier,
            uid,
            gid,
            binds: &plan.binds,
            mappings: plan.binds.iter().map(|bind| self.mapping_of(bind, uid)).collect(),
            network: plan.network,
            scratch_bytes: plan.limits.scratch_bytes,
            rlimits: Rlimits {
                pids: plan.limits.pids.saturating_add(1),
                data_bytes: (!memory_in_cgroup).then_some(plan.limits.memory_bytes),
                // Every CPU busy until well past the deadline is more than a run can use.
                cpu_seconds: (plan.limits.timeout.as_secs() + 5).saturating_mul(256),
            },
            landlock_abi: self.landlock_abi,
            filter: &self.filter,
            title: self.title,
            cwd: &plan.command.cwd,
            candidates: candidates(&plan.command.argv[0]).iter().map(|p| c_string(p)).collect::<Result<_, _>>()?,
            argv: plan.command.argv.iter().map(|a| c_string(a)).collect::<Result<_, _>>()?,
            env: plan.env.iter().map(|(k, v)| c_string(&format!("{k}={v}"))).collect::<Result<_, _>>()?,
            stdio: [stdio.stdin, stdio.stdout, stdio.stderr],
        })
    }

    fn take_slot(&mut self) -> Result<u32, RunFault> {
        let free = (0..MOST_SLOTS).find(|slot| !self.taken.contains(slot)).ok_or(RunFault::Busy)?;
        self.taken.insert(free);
        Ok(free)
    }

    fn group(&self, slot: u32, limits: &Limits) -> io::Result<Option<Group>> {
        if self.cgroups.controllers().is_empty() {
            return Ok(None);
        }
        let bounds = Bounds { milli_cpus: limits.milli_cpus, memory_bytes: limits.memory_bytes, pids: limits.pids };
        self.cgroups.create(&format!("vambrace-{}-{slot}", std::process::id()), bounds).map(Some)
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

    /// Makes the id maps this plan needs and that are not here yet.
    fn prepare_mappings(&mut self, plan: &Plan, uid: u32) -> Result<(), RunFault> {
        if self.tier != Tier::Root {
            return Ok(());
        }
        for bind in plan.binds.iter().filter(|bind| bind.named) {
            // What cannot be opened is reported by the child, which opens it for real.
            let Some((disk_uid, disk_gid)) = owner_on_disk(bind) else { continue };
            let key = (disk_uid, disk_gid, uid);
            if self.mappings.contains_key(&key) {
                continue;
            }
            // Each is a descriptor. Mounts made with one keep it alive by themselves.
            if self.mappings.len() >= MOST_MAPPINGS {
                self.mappings.clear();
            }
            let fault = |e: io::Error| LaunchFault { step: "make an id map".into(), cause: e.to_string() };
            let made = userns::mapping((disk_uid, disk_gid), (uid, uid)).and_then(out_of_the_way);
            self.mappings.insert(key, made.map_err(|e| RunFault::WallMissing(fault(e)))?);
        }
        Ok(())
    }

    fn mapping_of(&self, bind: &Bind, uid: u32) -> Option<BorrowedFd<'_>> {
        if self.tier != Tier::Root || !bind.named {
            return None;
        }
        let (disk_uid, disk_gid) = owner_on_disk(bind)?;
        self.mappings.get(&(disk_uid, disk_gid, uid)).map(AsFd::as_fd)
    }

    /// Reaps an ended sandbox, frees what it held and says what was enforced.
    pub(crate) fn finish(&mut self, launched: Launched) -> Finished {
        os::process::kill_pidfd(&launched.pidfd);
        let _ = os::process::wait_pidfd(&launched.pidfd);
        let elapsed = launched.started.elapsed();
        let out_of_memory = launched.group.as_ref().is_some_and(Group::ran_out_of_memory);
        self.taken.remove(&launched.slot);
        let enforcement = launched.enforcement();
        Finished { out_of_memory, enforcement, elapsed }
    }
}

/// What is left of a sandbox after `finish`.
pub(crate) struct Finished {
    /// The kernel killed something in it at the memory bound.
    pub(crate) out_of_memory: bool,
    /// `None` where the walls were never complete.
    pub(crate) enforcement: Option<Enforcement>,
    pub(crate) elapsed: std::time::Duration,
}

impl Drop for Launched {
    fn drop(&mut self) {
        // A launch that failed half-way, too: no child is left to itself, and its group can go only after it.
        os::process::kill_pidfd(&self.pidfd);
        let _ = os::process::wait_pidfd(&self.pidfd);
    }
}

impl Launched {
    /// Ends the command and its whole tree at once.
    pub(crate) fn kill(&self) {
        os::process::kill_pidfd(&self.pidfd);
    }

    /// What the child read back from the kernel, with what the launcher chose; `None` before the walls stand.
    fn enforcement(&self) -> Option<Enforcement> {
        let evidence = self.monitor.evidence()?;
        let mut namespaces: Vec<String> = ["mnt", "pid", "ipc", "uts", "cgroup"].map(str::to_owned).to_vec();
        if self.wished.network == Network::None {
            namespaces.push("net".into());
        }
        if self.wished.tier == Tier::UserNamespace {
            namespaces.push("user".into());
        }
        Some(Enforcement {
            tier: self.wished.tier,
            namespaces,
            host_uid: self.wished.host_uid,
            landlock_abi: self.wished.landlock_abi,
            seccomp_filters: evidence.seccomp_filters,
            no_new_privs: evidence.no_new_privs,
            no_capabilities: evidence.no_capabilities,
            limits: self.wished.limits,
        })
    }
}

/// Who owns a named folder on disk, as the id map needs it.
fn owner_on_disk(bind: &Bind) -> Option<(u32, u32)> {
    let handle = mounts::open_without_links(&bind.source).ok()?;
    os::fs::owner(&handle).ok().map(|(uid, gid, _)| (uid, gid))
}

/// Moves a descriptor above the numbers that the child uses for itself.
fn out_of_the_way(fd: OwnedFd) -> io::Result<OwnedFd> {
    let lifted = clone::lift_fd(&fd, FIRST_FREE)?;
    Ok(clone::adopt_fd(lifted))
}

/// Where to look for a command, as execvp(3) does with our own PATH.
fn candidates(name: &str) -> Vec<String> {
    if name.contains('/') {
        return vec![name.to_owned()];
    }
    environment::PATH.split(':').map(|folder| format!("{folder}/{name}")).collect()
}
