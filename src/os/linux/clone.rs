//! clone(2) with namespaces and a pidfd, close_range(2), execve(2).
//!
//! Only a single-threaded process may fork here: the child goes on in ordinary Rust code
//! (it allocates), which is sound only when no other thread can have held a lock.

use nix::sched::CloneFlags;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// Which side of the fork this is.
pub(crate) enum Fork {
    Parent { pid: i32, pidfd: OwnedFd },
    Child,
}

/// Why the process may not fork here.
fn assert_single_threaded() -> io::Result<()> {
    let threads = std::fs::read_dir("/proc/self/task")?.count();
    if threads == 1 {
        return Ok(());
    }
    Err(io::Error::other(format!("the launcher has {threads} threads; it forks only while it has one")))
}

/// Forks with these new namespaces.
///
/// # Errors
/// EPERM where the namespaces need a privilege, ENOSPC or EUSERS where their number is limited.
pub(crate) fn fork(namespaces: CloneFlags) -> io::Result<Fork> {
    assert_single_threaded()?;
    clone_process(namespaces)
}

/// The same whatever threads there are: for a test's child, which uses nothing of theirs.
#[cfg(test)]
pub(crate) fn fork_unchecked() -> io::Result<Fork> {
    clone_process(CloneFlags::empty())
}

fn clone_process(namespaces: CloneFlags) -> io::Result<Fork> {
    let mut pidfd: RawFd = -1;
    // clone, not clone3: containers answer the latter with ENOSYS. The pidfd comes where the parent's tid would (kernel 5.2).
    let flags = libc::c_long::from(namespaces.bits() | libc::CLONE_PIDFD | libc::SIGCHLD);
    let null = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: no CLONE_VM and no stack, so this is fork(2): the child has its own copy of this memory and
    // returns here. The process has one thread (checked above), so no lock is held by another. The third argument is
    // where the pidfd goes on every architecture; the rest is not looked at without its flags.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, null, &raw mut pidfd, null, null) };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Fork::Child),
        // SAFETY: with CLONE_PIDFD the kernel stored a new descriptor in `pidfd`, owned by nobody else.
        pid => Ok(Fork::Parent { pid: pid as i32, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } }),
    }
}

/// Starts a child that borrows our memory until it executes something, as vfork(2) does: nothing is copied.
///
/// `child` runs on a stack of its own, in a process of its own, while we wait; it ends with
/// this function or its exec, and may leave nothing behind in memory. The call is one that a system-call filter lets pass, unlike clone3.
pub(crate) fn spawn_borrowing<F: FnMut()>(mut child: F) -> io::Result<i32> {
    extern "C" fn run<F: FnMut()>(argument: *mut libc::c_void) -> libc::c_int {
        // SAFETY: `argument` is the closure below, which the waiting parent keeps alive.
        let child = unsafe { &mut *argument.cast::<F>() };
        child();
        exit_now(127)
    }
    let mut stack = vec![0u128; 16 << 10 >> 4];
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    // SAFETY: the stack is 16 KiB, aligned, and outlives the child's use of it, because with CLONE_VFORK we go on only
    // when the child has executed something or ended. One thread, so nobody else looks at the shared memory meanwhile.
    let pid = unsafe {
        libc::clone(run::<F>, stack.as_mut_ptr_range().end.cast(), flags, (&raw mut child).cast::<libc::c_void>())
    };
    if pid == -1 { Err(io::Error::last_os_error()) } else { Ok(pid) }
}

/// Starts a child that is a copy of this process; `child` ends with its exec or this function.
pub(crate) fn spawn_copying<F: FnMut()>(mut child: F) -> io::Result<i32> {
    match fork(CloneFlags::empty())? {
        Fork::Child => {
            child();
            exit_now(127)
        }
        Fork::Parent { pid, .. } => Ok(pid),
    }
}

/// Closes every descriptor from `first` upwards (kernel 5.9).
pub(crate) fn close_from(first: RawFd) -> io::Result<()> {
    // SAFETY: the launcher's child calls this when every descriptor it still owns lies below `first`.
    let done = unsafe { libc::syscall(libc::SYS_close_range, first as libc::c_uint, libc::c_uint::MAX, 0) };
    if done == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Puts a copy of `from` at the fixed number `to`, without close-on-exec.
pub(crate) fn place_fd(from: RawFd, to: RawFd) -> io::Result<()> {
    // SAFETY: dup2 takes plain numbers; the launcher's child owns its whole descriptor table.
    let done = unsafe { libc::dup2(from, to) };
    if done == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Takes ownership of a descriptor that stands at a number agreed upon.
pub(crate) fn adopt_fd(number: RawFd) -> OwnedFd {
    // SAFETY: called once for each number, by the process that placed or inherited it there.
    unsafe { OwnedFd::from_raw_fd(number) }
}

/// Duplicates a descriptor to a number of at least `least`, close-on-exec.
pub(crate) fn lift_fd(fd: &impl AsRawFd, least: RawFd) -> io::Result<RawFd> {
    // SAFETY: F_DUPFD_CLOEXEC takes plain numbers and returns a new descriptor.
    let lifted = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, least) };
    if lifted == -1 { Err(io::Error::last_os_error()) } else { Ok(lifted) }
}

/// Gives every signal its default action and unblocks all, as a fresh program expects.
///
/// Ignored signals and the mask survive execve(2); Rust's runtime ignores SIGPIPE.
pub(crate) fn reset_signals() {
    for number in 1..=64 {
        // SAFETY: SIG_DFL is always a valid disposition; failures (SIGKILL, SIGSTOP, libc's own) do not matter.
        unsafe { libc::signal(number, libc::SIG_DFL) };
    }
    unblock_signals();
}

/// Unblocks all signals.
pub(crate) fn unblock_signals() {
    let _ = nix::sys::signal::SigSet::empty().thread_set_mask();
}

/// execve(2) on each candidate path in turn, as execvp does; returns the error that counts.
pub(crate) fn exec_first(candidates: &[CString], argv: &[CString], env: &[&CStr]) -> io::Error {
    let mut verdict = nix::errno::Errno::ENOENT;
    for path in candidates {
        let Err(errno) = nix::unistd::execve(path, argv, env);
        match errno {
            nix::errno::Errno::ENOENT | nix::errno::Errno::ENOTDIR => {}
            nix::errno::Errno::EACCES => verdict = errno,
            _ => return errno.into(),
        }
    }
    verdict.into()
}

/// Ends this process now, without running destructors or exit handlers of the process it was forked from.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: _exit takes a number and does not return.
    unsafe { libc::_exit(code) }
}
