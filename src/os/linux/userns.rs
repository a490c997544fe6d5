//! User namespaces: identity maps for an ordinary user's sandbox, and the descriptor that an
//! id-mapped mount needs (kernel 5.12, mount_setattr(2)).

use super::clone::{Fork, exit_now, fork};
use nix::sched::CloneFlags;
use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;

/// Inside a new user namespace: maps our own ids to themselves and nothing else.
///
/// setgroups is denied first, as the kernel demands of an ordinary user (CVE-2014-8989).
pub(crate) fn map_self(uid: u32, gid: u32) -> io::Result<()> {
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("{uid} {uid} 1"))?;
    fs::write("/proc/self/gid_map", format!("{gid} {gid} 1"))
}

/// A user namespace whose only use is its map: on-disk owner `disk` appears as `seen`.
///
/// Made by a child that lives for the moment of it; root only.
pub(crate) fn mapping(disk: (u32, u32), seen: (u32, u32)) -> io::Result<OwnedFd> {
    let (mut waiting, done) = io::pipe()?;
    match fork(CloneFlags::CLONE_NEWUSER)? {
        Fork::Child => {
            drop(done);
            let _ = waiting.read(&mut [0]);
            exit_now(0)
        }
        Fork::Parent { pid, pidfd } => {
            let made = (|| {
                fs::write(format!("/proc/{pid}/uid_map"), format!("{} {} 1", disk.0, seen.0))?;
                fs::write(format!("/proc/{pid}/gid_map"), format!("{} {} 1", disk.1, seen.1))?;
                fs::File::open(format!("/proc/{pid}/ns/user")).map(OwnedFd::from)
            })();
            drop((&done).flush());
            drop(done);
            super::super::process::wait_pidfd(&pidfd)?;
            made
        }
    }
}
