//! Children that go on in this program, without an exec.

use super::clone;
use std::io;
use std::os::fd::OwnedFd;

pub(crate) use clone::{Fork, adopt_fd, close_from, exit_now, place_fd};

/// What a child is known by: a pidfd.
pub(crate) type Handle = OwnedFd;

/// Forks. Only a process with one thread may.
pub(crate) fn fork() -> io::Result<Fork> {
    clone::fork(nix::sched::CloneFlags::empty())
}

/// This child is killed when its parent ends (PR_SET_PDEATHSIG).
pub(crate) fn die_with_parent() -> io::Result<()> {
    Ok(rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?)
}

/// What tools show of this process (PR_SET_NAME).
pub(crate) fn be_called(name: &std::ffi::CStr) {
    let _ = rustix::thread::set_name(name);
}
