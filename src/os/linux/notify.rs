//! seccomp user notification (seccomp_unotify(2), kernel 5.5): a system call waits until somebody has looked at it.
//!
//! Here it is always let go on: what its arguments point to can change after they were looked at, so nothing is decided by
//! them, only told.

use rustix::io::Errno;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use super::seccomp::Filter;

/// One call that waits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Waiting {
    id: u64,
    /// The caller, as this pid namespace knows it.
    pub(crate) pid: u32,
    pub(crate) number: libc::c_long,
    pub(crate) arguments: [u64; 6],
}

/// Where calls that a filter answers with `Answer::Notify` wait.
#[derive(Debug)]
pub(crate) struct Listener(OwnedFd);

impl Listener {
    /// Installs a filter on this process for good and listens to it. Needs no_new_privs.
    pub(crate) fn install(filter: &Filter) -> io::Result<Self> {
        let program = filter.program();
        let (mode, flags) = (libc::SECCOMP_SET_MODE_FILTER, libc::SECCOMP_FILTER_FLAG_NEW_LISTENER);
        // SAFETY: the kernel reads the instructions, which are alive for the call, and returns a new descriptor.
        let fd = unsafe { libc::syscall(libc::SYS_seccomp, mode, flags, &raw const program) };
        if fd == -1 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a descriptor that the kernel has just made for us, close-on-exec.
        Ok(Listener(unsafe { OwnedFd::from_raw_fd(fd as i32) }))
    }

    /// The next call that waits; `None` where it has gone meanwhile.
    pub(crate) fn next(&self) -> io::Result<Option<Waiting>> {
        // The kernel demands zeroes.
        let mut told = MaybeUninit::<libc::seccomp_notif>::zeroed();
        // SAFETY: the kernel writes a seccomp_notif, for which there is room.
        let done = unsafe { libc::ioctl(self.0.as_raw_fd(), RECEIVE, told.as_mut_ptr()) };
        if done == -1 {
            return match Errno::from_io_error(&io::Error::last_os_error()) {
                Some(Errno::NOENT | Errno::INTR | Errno::AGAIN) => Ok(None),
                _ => Err(io::Error::last_os_error()),
            };
        }
        // SAFETY: written by the kernel, and any bytes are one.
        let told = unsafe { told.assume_init() };
        Ok(Some(Waiting { id: told.id, pid: told.pid, number: told.data.nr.into(), arguments: told.data.args }))
    }

    /// Lets a call go on as if nobody had looked. One that has gone is left alone.
    pub(crate) fn let_go(&self, call: Waiting) {
        const CONTINUE: u32 = 1; // SECCOMP_USER_NOTIF_FLAG_CONTINUE
        let mut answer = libc::seccomp_notif_resp { id: call.id, val: 0, error: 0, flags: CONTINUE };
        // SAFETY: the kernel reads a seccomp_notif_resp, which outlives the call.
        unsafe { libc::ioctl(self.0.as_raw_fd(), SEND, &raw mut answer) };
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// _IOWR('!', 0, struct seccomp_notif) and _IOWR('!', 1, struct seccomp_notif_resp) of linux/seccomp.h.
const RECEIVE: libc::Ioctl = request(0, size_of::<libc::seccomp_notif>());
const SEND: libc::Ioctl = request(1, size_of::<libc::seccomp_notif_resp>());

const fn request(number: u64, size: usize) -> libc::Ioctl {
    const READ_WRITE: u64 = 3 << 30;
    (READ_WRITE | (size as u64) << 16 | (b'!' as u64) << 8 | number) as libc::Ioctl
}
