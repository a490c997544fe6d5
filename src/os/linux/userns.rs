//! User namespaces: identity maps for an ordinary user's sandbox, and the descriptor that an
//! id-mapped mount needs (kernel 5.12, mount_setattr(2)).

use super::clone::{Fork, exit_now, fork};
use nix::sched::CloneFlags;
use rustix::fs::{Mode, OFlags, openat};
use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

/// Inside a new user namespace: maps our own ids to themselves and nothing else.
///
/// setgroups is denied first, as the kernel demands of an ordinary user (CVE-2014-8989).
pub(crate) fn map_self(uid: u32, gid: u32) -> io::Result<()> {
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("{uid} {uid} 1"))?;
    fs::write("/proc/self/gid_map", format!("{gid} {gid} 1"))
}

/// How much of what inotify(7) gives a user one user namespace may have: the kernel counts it for the namespace and for the
/// user who made it, in all its namespaces together.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Watches {
    instances: u64,
    watches: u64,
}

impl Watches {
    /// A quarter of what a user may have on this host.
    ///
    /// # Errors
    /// Where the host does not say.
    pub(crate) fn a_quarter() -> io::Result<Self> {
        let quarter_of = |name: &str| -> io::Result<u64> {
            let text = fs::read_to_string(Path::new("/proc/sys/fs/inotify").join(name))?;
            Ok(text.trim().parse::<u64>().map_err(io::Error::other)? / 4)
        };
        Ok(Watches { instances: quarter_of("max_user_instances")?, watches: quarter_of("max_user_watches")? })
    }

    /// Bounds this process's user namespace, by a /proc that can be written to (namespaces(7), /proc/sys/user). Needs
    /// CAP_SYS_RESOURCE there.
    pub(crate) fn bound(self, proc: BorrowedFd<'_>) -> io::Result<()> {
        for (name, most) in [("max_inotify_instances", self.instances), ("max_inotify_watches", self.watches)] {
            let flags = OFlags::WRONLY | OFlags::CLOEXEC;
            let file = openat(proc, Path::new("sys/user").join(name), flags, Mode::empty())?;
            fs::File::from(file).write_all(most.to_string().as_bytes())?;
        }
        Ok(())
    }
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
