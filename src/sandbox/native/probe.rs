//! What this kernel, this host and this user can enforce: asked by trying, not by version number.

use super::inside;
use crate::model::{LaunchFault, Network, Tier};
use crate::os;
use crate::os::linux::cgroup::Cgroups;
use crate::os::linux::clone::{self, Fork};
use crate::os::linux::{landlock, mounts, userns};
use crate::sandbox::probe::Probe;
use nix::sched::CloneFlags;
use std::io;

/// The strongest tier that this host gives this user, by trying.
///
/// # Errors
/// Where there is none: what is missing for each.
pub(super) fn tier() -> Result<Tier, LaunchFault> {
    let uid = os::process::uid();
    let wanted = if uid == 0 { Tier::Root } else { Tier::UserNamespace };
    let Err(missing) = can_build(wanted) else { return Ok(wanted) };
    let fault = |cause: String| Err(LaunchFault { step: "make namespaces".into(), cause });
    if uid == 0 {
        // Without namespaces a command would have our own uid, and that is root's.
        return fault(format!("{missing}; as root there is no weaker tier: run it as an ordinary user"));
    }
    match landlock::abi() {
        abi if abi < LEAST_WITHOUT_NAMESPACES => fault(format!(
            "{missing}; and Landlock alone needs ABI {LEAST_WITHOUT_NAMESPACES} (kernel 6.12), here it is {abi}"
        )),
        _ => Ok(Tier::Landlock),
    }
}

/// The ABI whose scopes keep a command's signals to itself.
const LEAST_WITHOUT_NAMESPACES: u8 = 6;

/// Makes all namespaces at once and a mount in them: some hosts allow the first and refuse the second (AppArmor).
fn can_build(tier: Tier) -> io::Result<()> {
    let (uid, gid) = (os::process::uid(), os::process::gid());
    match clone::fork(inside::outer_namespaces(tier))? {
        Fork::Child => {
            let built = || {
                if tier == Tier::UserNamespace {
                    os::process::make_dumpable()?;
                    userns::map_self(uid, gid)?;
                }
                nix::sched::unshare(inside::inner_namespaces(Network::None))?;
                mounts::make_all_private()
            };
            clone::exit_now(i32::from(built().is_err()))
        }
        Fork::Parent { pidfd, .. } => match os::process::ended_well(&pidfd)? {
            true => Ok(()),
            false => Err(io::Error::other("namespaces can be made, but nothing can be mounted in them")),
        },
    }
}

/// Asks for every wall in turn.
pub(crate) fn probe_host() -> Vec<Probe> {
    let found = tier();
    let detail = found.as_ref().map_or_else(ToString::to_string, |tier| tier.as_str().to_owned());
    let mut rows = vec![Probe { wall: "tier", here: found.is_ok(), required: true, detail }];
    let is_walled = found != Ok(Tier::Landlock);
    let tier = if os::process::uid() == 0 { Tier::Root } else { Tier::UserNamespace };
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
        rows.push(Probe { required: is_walled, ..namespace("user namespace", base) });
    }
    rows.extend(kinds.map(|(wall, flag)| Probe { required: is_walled, ..namespace(wall, base | flag) }));
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
