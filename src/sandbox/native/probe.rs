//! What this kernel, this host and this user can enforce: asked by trying, not by version number.

use crate::model::Tier;
use crate::os;
use crate::os::linux::cgroup::Cgroups;
use crate::os::linux::clone::{self, Fork};
use crate::os::linux::landlock;
use nix::sched::CloneFlags;
use std::io;

/// One line of the probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Probe {
    pub(crate) wall: &'static str,
    /// Whether it can be enforced here.
    pub(crate) here: bool,
    /// Whether a command is refused without it.
    pub(crate) required: bool,
    pub(crate) detail: String,
}

/// Asks for every wall in turn.
pub(crate) fn probe_host() -> Vec<Probe> {
    let tier = if os::process::uid() == 0 { Tier::Root } else { Tier::UserNamespace };
    let mut rows = vec![Probe { wall: "tier", here: true, required: true, detail: tier.as_str().into() }];
    let base = if tier == Tier::Root { CloneFlags::empty() } else { CloneFlags::CLONE_NEWUSER };
    let kinds = [
        ("mount namespace", CloneFlags::CLONE_NEWNS),
        ("pid namespace", CloneFlags::CLONE_NEWPID),
        ("network namespace", CloneFlags::CLONE_NEWNET),
        ("ipc namespace", CloneFlags::CLONE_NEWIPC),
        ("uts namespace", CloneFlags::CLONE_NEWUTS),
        ("cgroup namespace", CloneFlags::CLONE_NEWCGROUP),
    ];
    if tier == Tier::UserNamespace {
        rows.push(namespace("user namespace", base));
    }
    rows.extend(kinds.map(|(wall, flag)| namespace(wall, base | flag)));
    let abi = landlock::abi();
    let missing = "not in this kernel, or not among its active LSMs".to_owned();
    let detail = if abi > 0 { format!("ABI {abi}") } else { missing };
    rows.push(Probe { wall: "landlock", here: abi > 0, required: true, detail });
    rows.push(seccomp());
    let controllers = Cgroups::discover().controllers();
    for (wall, controller) in [("cpu limit", "cpu"), ("memory limit", "memory"), ("pids limit", "pids")] {
        let group = controllers.iter().any(|c| c.name() == controller);
        let detail = match (group, controller) {
            (true, _) => "control group",
            (false, "cpu") => "none; the deadline remains",
            (false, _) => "resource limit",
        };
        rows.push(Probe { wall, here: group || controller != "cpu", required: false, detail: detail.into() });
    }
    rows
}

fn namespace(wall: &'static str, flags: CloneFlags) -> Probe {
    let tried = try_fork(flags);
    let detail = match &tried {
        Ok(()) => "can be made".to_owned(),
        Err(e) => e.to_string(),
    };
    Probe { wall, here: tried.is_ok(), required: true, detail }
}

fn try_fork(flags: CloneFlags) -> io::Result<()> {
    match clone::fork(flags)? {
        Fork::Child => clone::exit_now(0),
        Fork::Parent { pidfd, .. } => os::process::wait_pidfd(&pidfd),
    }
}

fn seccomp() -> Probe {
    let actions = std::fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail").unwrap_or_default();
    let here = ["kill_process", "errno", "allow"].iter().all(|a| actions.split_whitespace().any(|w| w == *a));
    let detail = if here { "filter mode".into() } else { "the kernel offers no filter mode".to_owned() };
    Probe { wall: "seccomp", here, required: true, detail }
}
