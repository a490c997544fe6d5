//! This process and its children: waiting, killing, hiding from debuggers, who we are. What differs is in `system`.

use rustix::event::{PollFd, PollFlags, poll};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

pub(crate) use super::system::process::*;

/// A descriptor of our own, watched by this thread's runtime.
pub(crate) fn watched(fd: OwnedFd) -> io::Result<tokio::io::unix::AsyncFd<OwnedFd>> {
    // SAFETY: the descriptor is owned by what is returned, so it stays open until it is no longer registered.
    unsafe { tokio::io::unix::AsyncFd::register(fd) }.map_err(io::Error::from)
}

/// Waits until a descriptor is readable or the time is over; says whether it is readable.
pub(crate) fn wait_readable(fd: &impl AsFd, at_most: Option<Duration>) -> io::Result<bool> {
    let mut fds = [PollFd::new(fd, PollFlags::IN)];
    let timeout =
        at_most.map(|d| rustix::event::Timespec { tv_sec: d.as_secs() as i64, tv_nsec: d.subsec_nanos().into() });
    let ready = rustix::io::retry_on_intr(|| poll(&mut fds, timeout.as_ref()))?;
    Ok(ready > 0)
}

/// The effective uid of this process.
pub(crate) fn uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// The effective gid of this process.
pub(crate) fn gid() -> u32 {
    rustix::process::getegid().as_raw()
}

/// Ends this process without a word when the reader of its output is gone, as every other tool does.
pub(crate) fn end_quietly_on_broken_pipe() {
    // SAFETY: at the start, with one thread, and SIG_DFL is always a valid disposition.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}
