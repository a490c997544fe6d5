//! Children that go on in this program, without an exec: fork(2), and kqueue(2) where Linux has pidfds and death signals.

use nix::sys::event::{EvFlags, EventFilter, FilterFlag, KEvent, Kqueue};
use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Which side of the fork this is.
pub(crate) enum Fork {
    Parent { pidfd: Handle },
    Child,
}

/// What a child is known by, in the place of a pidfd.
pub(crate) struct Handle {
    pub(super) pid: libc::pid_t,
    /// Until then its number is nobody else's, and we alone can do it.
    pub(super) is_reaped: Cell<bool>,
    /// Readable when it has ended; nothing where it had ended before it could be watched.
    queue: Option<Kqueue>,
}

impl Handle {
    /// What becomes readable at its end.
    pub(super) fn end(&self) -> Option<BorrowedFd<'_>> {
        self.queue.as_ref().map(AsFd::as_fd)
    }
}

/// Forks. Only a process with one thread of ours may: the child goes on in ordinary Rust code, which is sound only when no
/// other thread can have held a lock.
///
/// Threads are not counted as on Linux, where the same callers are: the system's libraries keep some of their own here.
///
/// # Errors
/// Where no process can be had.
pub(crate) fn fork() -> io::Result<Fork> {
    // SAFETY: a second thread of ours is not there yet (the gateway forks before its runtime) or never (the runner). Those
    // of the system's libraries hold no lock of Rust's, and libSystem prepares its own for a fork (pthread_atfork(3)).
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Fork::Child),
        pid => Ok(Fork::Parent { pidfd: Handle { pid, is_reaped: Cell::new(false), queue: watch(pid)? } }),
    }
}

/// What becomes readable when this process has ended; nothing where it has already.
fn watch(pid: libc::pid_t) -> io::Result<Option<Kqueue>> {
    let queue = Kqueue::new()?;
    let flags = EvFlags::EV_ADD | EvFlags::EV_ONESHOT;
    let end = KEvent::new(pid as usize, EventFilter::EVFILT_PROC, flags, FilterFlag::NOTE_EXIT, 0, 0);
    match queue.kevent(&[end], &mut [], None) {
        Ok(_) => Ok(Some(queue)),
        Err(nix::errno::Errno::ESRCH) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// This child ends when its parent does. A thread waits for that: there is no death signal, so it has to come after
/// whatever needs to be alone.
pub(crate) fn die_with_parent() -> io::Result<()> {
    let parent = rustix::process::getppid().map_or(1, |pid| pid.as_raw_nonzero().get());
    let Some(queue) = (if parent == 1 { None } else { watch(parent)? }) else { exit_now(1) };
    let wait = move || {
        let mut events = [KEvent::new(0, EventFilter::EVFILT_PROC, EvFlags::empty(), FilterFlag::empty(), 0, 0)];
        while queue.kevent(&[], &mut events, None) == Err(nix::errno::Errno::EINTR) {}
        exit_now(1)
    };
    std::thread::Builder::new().name("parent".into()).spawn(wait).map(drop)
}

/// What tools show of this process's thread.
pub(crate) fn be_called(name: &std::ffi::CStr) {
    // SAFETY: a string that ends with 0 and is only read.
    unsafe { libc::pthread_setname_np(name.as_ptr()) };
}

/// Closes every descriptor from `first` upwards.
pub(crate) fn close_from(first: RawFd) -> io::Result<()> {
    let open = std::fs::read_dir("/dev/fd")?.flatten().filter_map(|item| item.file_name().to_str()?.parse().ok());
    // All of them before the first is closed: the folder's own is among them.
    let open: Vec<RawFd> = open.filter(|number| *number >= first).collect();
    for number in open {
        // SAFETY: called by a child when every descriptor it still owns lies below `first`.
        unsafe { libc::close(number) };
    }
    Ok(())
}

/// Puts a copy of `from` at the fixed number `to`, without close-on-exec.
pub(crate) fn place_fd(from: RawFd, to: RawFd) -> io::Result<()> {
    // SAFETY: dup2 takes plain numbers; the child owns its whole descriptor table.
    let done = unsafe { libc::dup2(from, to) };
    if done == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Takes ownership of a descriptor that stands at a number agreed upon.
pub(crate) fn adopt_fd(number: RawFd) -> OwnedFd {
    // SAFETY: called once for each number, by the process that placed or inherited it there.
    unsafe { OwnedFd::from_raw_fd(number) }
}

/// Ends this process now, without running destructors or exit handlers of the process it was forked from.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: _exit takes a number and does not return.
    unsafe { libc::_exit(code) }
}
