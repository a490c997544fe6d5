//! Landlock (landlock(7)): a second wall behind the mounts, at the highest ABI the kernel has.
//!
//! Every right the running ABI knows is handled, so that what no rule grants is refused. Without
//! ABI 3 truncate(2) would empty "read-only" files; the mounts hold that then.

use super::mounts;
use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, Scope,
};
use std::io;
use std::path::PathBuf;

/// What may be done below a path. Rules add up: a child never has less than its parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Grant {
    /// Names in folders.
    List,
    Read,
    ReadExecute,
    ReadWrite,
    ReadWriteExecute,
    /// Of a file: to be executed.
    Execute,
    /// Read, write and device ioctls, for the few nodes of /dev.
    Device,
}

/// The ABI of the running kernel; 0 where Landlock is missing or off.
pub(crate) fn abi() -> u8 {
    // SAFETY: a null attribute with size 0 and this flag only asks for the version.
    let version = unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u8>(), 0usize, CREATE_RULESET_VERSION)
    };
    u8::try_from(version).unwrap_or(0)
}

const CREATE_RULESET_VERSION: libc::c_uint = 1;

/// Restricts this process to these rules for good. Needs no_new_privs.
///
/// A path that is missing loses its own grant only (OpenShell fell to the reverse: one missing path, no ruleset).
pub(crate) fn restrict(abi_version: u8, rules: &[(PathBuf, Grant)]) -> io::Result<()> {
    restrict_with(abi_version, rules, &[], Net::LeftAlone)
}

/// What Landlock does about TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Net {
    /// Nothing: a network namespace is the wall.
    LeftAlone,
    /// Neither bind nor connect, from ABI 4 on.
    Refused,
}

/// The same with or without TCP, and with rules for `named` paths, which must be there and hold no link.
pub(crate) fn restrict_with(
    abi_version: u8,
    rules: &[(PathBuf, Grant)],
    named: &[(PathBuf, Grant)],
    net: Net,
) -> io::Result<()> {
    let fault = |e: landlock::RulesetError| io::Error::other(e.to_string());
    let abi = ABI::from(i32::from(abi_version));
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(abi))
        .map_err(fault)?;
    if abi >= ABI::V6 {
        ruleset = ruleset.scope(Scope::from_all(abi)).map_err(fault)?;
    }
    if abi >= ABI::V4 && net == Net::Refused {
        ruleset = ruleset.handle_access(AccessNet::from_all(abi)).map_err(fault)?;
    }
    let mut created = ruleset.create().map_err(fault)?;
    for (path, grant) in rules {
        let Ok(handle) = PathFd::new(path) else { continue };
        let mut access = rights(*grant, abi);
        if !std::fs::metadata(path)?.is_dir() {
            access &= AccessFs::from_file(abi);
        }
        created = created.add_rule(PathBeneath::new(handle, access)).map_err(fault)?;
    }
    for (path, grant) in named {
        let handle = mounts::open_without_links(path)
            .map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display())))?;
        let (_, _, is_folder) = crate::os::fs::owner(&handle)?;
        let access = if is_folder { rights(*grant, abi) } else { rights(*grant, abi) & AccessFs::from_file(abi) };
        created = created.add_rule(PathBeneath::new(handle, access)).map_err(fault)?;
    }
    // The caller's own step, which would otherwise be done here once more.
    let status = created.no_new_privs(false).restrict_self().map_err(fault)?;
    if status.ruleset != landlock::RulesetStatus::FullyEnforced {
        return Err(io::Error::other(format!("the kernel enforces the ruleset only in part: {:?}", status.ruleset)));
    }
    Ok(())
}

/// From here on this process and what descends from it can signal nobody else (ABI 6). Needs no_new_privs.
pub(crate) fn keep_signals() -> io::Result<()> {
    let fault = |e: landlock::RulesetError| io::Error::other(e.to_string());
    let ruleset =
        Ruleset::default().set_compatibility(CompatLevel::HardRequirement).scope(Scope::Signal).map_err(fault)?;
    let status = ruleset.create().and_then(|created| created.restrict_self()).map_err(fault)?;
    match status.ruleset {
        landlock::RulesetStatus::FullyEnforced => Ok(()),
        other => Err(io::Error::other(format!("the kernel keeps signals only in part: {other:?}"))),
    }
}

fn rights(grant: Grant, abi: ABI) -> BitFlags<AccessFs> {
    let read = AccessFs::from_read(abi);
    match grant {
        Grant::List => AccessFs::ReadDir.into(),
        Grant::Read => read & !AccessFs::Execute,
        Grant::ReadExecute => read,
        // Device nodes and block devices are never made by a command; ioctls on devices are for /dev alone.
        Grant::ReadWriteExecute => {
            AccessFs::from_all(abi) & !(AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::IoctlDev)
        }
        Grant::ReadWrite => rights(Grant::ReadWriteExecute, abi) & !AccessFs::Execute,
        Grant::Execute => AccessFs::Execute.into(),
        Grant::Device => {
            (rights(Grant::Read, abi) | AccessFs::WriteFile | AccessFs::IoctlDev | AccessFs::Truncate)
                & AccessFs::from_all(abi)
        }
    }
}
