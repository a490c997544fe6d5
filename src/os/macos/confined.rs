//! What a process of ours gives up for good. There are neither capabilities nor Landlock nor filters of system calls here.

use std::io;

/// This process starts nothing any more: its user may not have as many processes as there are already (setrlimit(2),
/// RLIMIT_NPROC, which counts no threads here). Root is not held by that.
pub(crate) fn start_nothing() -> io::Result<()> {
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: reads a structure that outlives the call.
    let done = unsafe { libc::setrlimit(libc::RLIMIT_NPROC, &raw const none) };
    if done == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
