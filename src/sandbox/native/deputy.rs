//! Modes and times of files in the tier without namespaces. Landlock leaves them to a file's owner, and that is the
//! command, whose uid is ours: it could change those of every file of this user. So the filter puts these calls to the
//! keeper, which does them itself, and only to what the profile lets the command write to.
//!
//! Whatever is named is opened first, without being followed through /proc, and where it lies is asked of the kernel for
//! what was opened. The command can change names and memory meanwhile, but not what an open descriptor leads to.

use super::inside::Overseer;
use crate::os::linux::notify::{self, Call};
use crate::sandbox::plan::{Bind, Shown};
use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, Timespec, Timestamps};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

/// Does what the command may do and cannot do itself.
pub(super) struct Deputy {
    listener: OwnedFd,
    /// What the command may write to.
    writable: Vec<OwnedFd>,
}

impl Deputy {
    /// Looks up what may be written to.
    pub(super) fn new(listener: OwnedFd, binds: &[Bind]) -> io::Result<Self> {
        let writable = binds.iter().filter(|bind| matches!(bind.shown, Shown::Writable | Shown::WritableData));
        let writable = writable.map(|bind| crate::os::linux::mounts::open_without_links(&bind.source));
        Ok(Deputy { listener, writable: writable.collect::<io::Result<_>>()? })
    }

    fn act(&self, call: &Call) -> io::Result<()> {
        let [first, second, third, fourth, ..] = call.arguments;
        let mode = |word: u64| Mode::from_raw_mode(word as u32 & 0o1777);
        match call.number {
            #[cfg(target_arch = "x86_64")]
            libc::SYS_chmod => set_mode(&self.named(call, HERE, first, 0)?, mode(second)),
            libc::SYS_fchmod => set_mode(&self.open(call, first)?, mode(second)),
            libc::SYS_fchmodat => set_mode(&self.named(call, first, second, 0)?, mode(third)),
            libc::SYS_fchmodat2 => set_mode(&self.named(call, first, second, fourth)?, mode(third)),
            libc::SYS_utimensat => {
                let target =
                    if second == 0 { self.open(call, first)? } else { self.named(call, first, second, fourth)? };
                let times = times(&memory_of(call)?, third)?;
                self.checked(call, ())?;
                Ok(rustix::fs::utimensat(rustix::fs::CWD, link_to(&target), &times, AtFlags::empty())?)
            }
            _ => Err(refused()),
        }
    }

    /// What a descriptor of the caller leads to, if the caller may write there.
    fn open(&self, call: &Call, number: u64) -> io::Result<OwnedFd> {
        let found = open_path(&format!("/proc/{}/fd/{}", call.thread, number as i32))
            .map_err(|_| io::Error::from_raw_os_error(libc::EBADF))?;
        self.may_write(self.checked(call, found)?)
    }

    /// What a path of the caller leads to, if the caller may write there.
    fn named(&self, call: &Call, folder: u64, path: u64, flags: u64) -> io::Result<OwnedFd> {
        const KNOWN: u64 = (libc::AT_SYMLINK_NOFOLLOW | libc::AT_EMPTY_PATH) as u64;
        if flags & !KNOWN != 0 {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let path = notify::text(&memory_of(call)?, path)?;
        let is_here = folder as i32 == libc::AT_FDCWD;
        if path.is_empty() {
            return match flags & libc::AT_EMPTY_PATH as u64 {
                0 => Err(io::Error::from_raw_os_error(libc::ENOENT)),
                _ if is_here => Err(refused()),
                _ => self.open(call, folder),
            };
        }
        let from = match is_here {
            true => format!("/proc/{}/cwd", call.thread),
            false => format!("/proc/{}/fd/{}", call.thread, folder as i32),
        };
        // An absolute path needs none, and what stands there may be anything.
        let from = match path.first() {
            Some(b'/') => open_path("/")?,
            _ => open_path(&from).map_err(|_| io::Error::from_raw_os_error(libc::EBADF))?,
        };
        let from = self.checked(call, from)?;
        let follow = if flags & libc::AT_SYMLINK_NOFOLLOW as u64 == 0 { OFlags::empty() } else { OFlags::NOFOLLOW };
        // /proc/self would be the keeper's.
        let found = rustix::fs::openat2(
            &from,
            OsStr::from_bytes(&path),
            OFlags::PATH | OFlags::CLOEXEC | follow,
            Mode::empty(),
            ResolveFlags::NO_MAGICLINKS,
        );
        self.may_write(found?)
    }

    /// What was read of the caller is the caller's only if it still waits.
    fn checked<T>(&self, call: &Call, found: T) -> io::Result<T> {
        if notify::still_waits(&self.listener, call) { Ok(found) } else { Err(refused()) }
    }

    fn may_write(&self, found: OwnedFd) -> io::Result<OwnedFd> {
        let place = fs::read_link(link_to(&found))?;
        let lies_below = |folder: &OwnedFd| fs::read_link(link_to(folder)).is_ok_and(|top| place.starts_with(top));
        if self.writable.iter().any(lies_below) { Ok(found) } else { Err(refused()) }
    }
}

impl Overseer for Deputy {
    fn listener(&self) -> &OwnedFd {
        &self.listener
    }

    fn serve(&mut self) -> bool {
        match notify::receive(&self.listener) {
            Ok(Some(call)) => {
                let errno = self.act(&call).map_or_else(|e| e.raw_os_error().unwrap_or(libc::EPERM), |()| 0);
                notify::answer(&self.listener, &call, errno);
                true
            }
            Ok(None) => true,
            Err(_) => false,
        }
    }
}

/// AT_FDCWD as an argument.
const HERE: u64 = libc::AT_FDCWD as u32 as u64;

fn refused() -> io::Error {
    io::Error::from_raw_os_error(libc::EPERM)
}

fn memory_of(call: &Call) -> io::Result<File> {
    File::open(format!("/proc/{}/mem", call.thread)).map_err(|_| refused())
}

/// Follows what /proc shows to the very file.
fn open_path(path: &str) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?)
}

/// Names what is open.
fn link_to(open: &impl AsFd) -> PathBuf {
    format!("/proc/self/fd/{}", open.as_fd().as_raw_fd()).into()
}

fn set_mode(target: &OwnedFd, mode: Mode) -> io::Result<()> {
    Ok(rustix::fs::chmodat(rustix::fs::CWD, link_to(target), mode, AtFlags::empty())?)
}

/// Two of struct timespec; now, where there is no address.
fn times(memory: &File, address: u64) -> io::Result<Timestamps> {
    let now = Timespec { tv_sec: 0, tv_nsec: libc::UTIME_NOW };
    if address == 0 {
        return Ok(Timestamps { last_access: now, last_modification: now });
    }
    let mut bytes = [0; 32];
    memory.read_exact_at(&mut bytes, address).map_err(|_| io::Error::from_raw_os_error(libc::EFAULT))?;
    let word = |at: usize| i64::from_ne_bytes(std::array::from_fn(|index| bytes[at + index]));
    let time = |at: usize| Timespec { tv_sec: word(at), tv_nsec: word(at + 8) };
    Ok(Timestamps { last_access: time(0), last_modification: time(16) })
}
