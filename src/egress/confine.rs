//! This process behind walls of its own, before it reads a byte: it will parse what a sandbox sends.
//!
//! Keeps true: afterwards it has no right, no uid of anybody else, and reads what a resolver reads. All of it is done by
//! the only thread there is; threads inherit it.

use crate::os;
use crate::os::linux::capabilities;
use crate::os::linux::landlock::{self, Grant};
use std::io;
use std::path::PathBuf;

/// What getaddrinfo(3) opens: its settings, its plugins and what they load, the resolvers' own folders.
const READABLE: &[&str] = &[
    "/etc",
    "/usr",
    "/lib",
    "/lib32",
    "/lib64",
    "/run/NetworkManager",
    "/run/connman",
    "/run/nscd",
    "/run/resolvconf",
    "/run/systemd/resolve",
];

/// A wall that does not stand.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfineFault {
    #[error("cannot close the doors to capabilities: {0}")]
    Doors(io::Error),
    #[error("cannot become uid {0}: {1}")]
    Identity(u32, io::Error),
    #[error("root was given no uid to become")]
    NoUid,
    #[error("cannot drop capabilities: {0}")]
    Capabilities(io::Error),
    #[error("cannot hide from debuggers: {0}")]
    Undumpable(io::Error),
    #[error("cannot set no_new_privs: {0}")]
    NoNewPrivs(io::Error),
    #[error("cannot restrict what is read: {0}")]
    Landlock(io::Error),
}

/// Builds them all. Root becomes this uid, whose gid is the same; another user stays who it is.
pub(super) fn confine(uid: Option<u32>) -> Result<(), ConfineFault> {
    os::process::raise_descriptor_limit();
    match (os::process::uid(), uid) {
        (0, None | Some(0)) => return Err(ConfineFault::NoUid),
        (0, Some(uid)) => {
            // The bounding set before the uid: dropping it needs a capability.
            capabilities::close_the_doors().map_err(ConfineFault::Doors)?;
            become_user(uid).map_err(|e| ConfineFault::Identity(uid, e))?;
        }
        (own, Some(uid)) if own != uid => {
            return Err(ConfineFault::Identity(uid, io::ErrorKind::PermissionDenied.into()));
        }
        _ => {}
    }
    // Not asked for where there is nothing to drop: a service's filter may refuse the call altogether.
    if !capabilities::are_none_held().map_err(ConfineFault::Capabilities)? {
        capabilities::drop_all().map_err(ConfineFault::Capabilities)?;
    }
    if uid.is_some() && !capabilities::are_all_empty().map_err(ConfineFault::Capabilities)? {
        return Err(ConfineFault::Capabilities(io::Error::other("some remain")));
    }
    // After the change of ids, which resets it.
    os::process::make_undumpable().map_err(ConfineFault::Undumpable)?;
    rustix::thread::set_no_new_privs(true).map_err(|e| ConfineFault::NoNewPrivs(e.into()))?;
    let rules: Vec<_> = READABLE.iter().map(|path| (PathBuf::from(path), Grant::Read)).collect();
    // Version 0 is a kernel without Landlock, which builds no other wall of ours either.
    match landlock::abi() {
        0 => Err(ConfineFault::Landlock(io::ErrorKind::Unsupported.into())),
        abi => landlock::restrict(abi, &rules).map_err(ConfineFault::Landlock),
    }
}

/// Takes the ids and looks whether they were given (setuid(2) may fail at RLIMIT_NPROC).
fn become_user(uid: u32) -> io::Result<()> {
    use nix::unistd::{Gid, Uid, getgroups, getresgid, getresuid, setgroups, setresgid, setresuid};
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(uid));
    setgroups(&[])?;
    setresgid(gid, gid, gid)?;
    setresuid(uid, uid, uid)?;
    let (uids, gids) = (getresuid()?, getresgid()?);
    let is_given = [uids.real, uids.effective, uids.saved] == [uid; 3]
        && [gids.real, gids.effective, gids.saved] == [gid; 3]
        && getgroups()?.is_empty();
    if is_given { Ok(()) } else { Err(io::Error::other("the ids are not the ones asked for")) }
}
