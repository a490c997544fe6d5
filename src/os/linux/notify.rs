//! System calls that a filter puts to another process before the kernel (seccomp_unotify(2), kernel 5.5).
//!
//! Whoever would decide must do the act itself and answer: what a pointer shows can change after it was looked at, so to let
//! the caller go on decides nothing, and is for those who only look.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;

/// A system call that waits for its answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call {
    id: u64,
    /// The thread that waits.
    pub(crate) thread: u32,
    pub(crate) number: i64,
    pub(crate) arguments: [u64; 6],
}

const RECEIVE: libc::c_ulong = 0xc050_2100; // SECCOMP_IOCTL_NOTIF_RECV
const SEND: libc::c_ulong = 0xc018_2101; // SECCOMP_IOCTL_NOTIF_SEND
const ID_VALID: libc::c_ulong = 0x4008_2102; // SECCOMP_IOCTL_NOTIF_ID_VALID

/// The next call; `None` where the caller is gone meanwhile. Does not wait when the descriptor is readable.
pub(crate) fn receive(listener: &OwnedFd) -> io::Result<Option<Call>> {
    // SAFETY: plain numbers, of which all zero is a value; the kernel demands it.
    let mut asked: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes one such structure, which outlives the call.
    if unsafe { libc::ioctl(listener.as_raw_fd(), RECEIVE, &raw mut asked) } == -1 {
        let error = io::Error::last_os_error();
        return if error.raw_os_error() == Some(libc::ENOENT) { Ok(None) } else { Err(error) };
    }
    Ok(Some(Call { id: asked.id, thread: asked.pid, number: asked.data.nr.into(), arguments: asked.data.args }))
}

/// Answers a call: 0, or an errno.
pub(crate) fn answer(listener: &OwnedFd, call: &Call, errno: i32) {
    send(listener, libc::seccomp_notif_resp { id: call.id, val: 0, error: -errno, flags: 0 });
}

/// Lets a call go on to the kernel as if nobody had looked.
pub(crate) fn let_go(listener: &OwnedFd, call: &Call) {
    const CONTINUE: u32 = 1; // SECCOMP_USER_NOTIF_FLAG_CONTINUE
    send(listener, libc::seccomp_notif_resp { id: call.id, val: 0, error: 0, flags: CONTINUE });
}

fn send(listener: &OwnedFd, said: libc::seccomp_notif_resp) {
    // SAFETY: the kernel reads one such structure, which outlives the call. A caller that is gone needs no answer.
    unsafe { libc::ioctl(listener.as_raw_fd(), SEND, &raw const said) };
}

/// Whether the caller still waits: what was opened of its thread before is its own, not that of another of this number.
pub(crate) fn still_waits(listener: &OwnedFd, call: &Call) -> bool {
    // SAFETY: the kernel reads a number, which outlives the call.
    unsafe { libc::ioctl(listener.as_raw_fd(), ID_VALID, &raw const call.id) == 0 }
}

/// A NUL-terminated text in this memory; at most PATH_MAX with its end.
pub(crate) fn text(memory: &File, address: u64) -> io::Result<Vec<u8>> {
    const PAGE: u64 = 4096;
    let mut found = Vec::new();
    while found.len() < libc::PATH_MAX as usize {
        let at = address.checked_add(found.len() as u64).ok_or(io::ErrorKind::InvalidInput)?;
        // To the end of the page: the next one may not be there.
        let mut piece = vec![0; (PAGE - at % PAGE) as usize];
        let read = memory.read_at(&mut piece, at).map_err(|_| io::Error::from_raw_os_error(libc::EFAULT))?;
        match piece[..read].iter().position(|byte| *byte == 0) {
            Some(end) => {
                found.extend(&piece[..end]);
                return Ok(found);
            }
            None if read == 0 => return Err(io::Error::from_raw_os_error(libc::EFAULT)),
            None => found.extend(&piece[..read]),
        }
    }
    Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG))
}
