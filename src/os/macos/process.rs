//! Children by what stands for their pidfds, and what this process is and may.

use super::child::Handle;
use std::io;
use std::mem::MaybeUninit;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Waits for a child to end and reaps it.
pub(crate) fn wait_pidfd(child: &Handle) -> io::Result<()> {
    reap(child).map(drop)
}

/// What a child that has ended exited with, and reaps it; `None` where a signal ended it.
pub(crate) fn exit_code(child: &Handle) -> Option<i32> {
    let status = reap(child).ok()?;
    libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status))
}

fn reap(child: &Handle) -> io::Result<libc::c_int> {
    if child.is_reaped.get() {
        return Err(io::Error::from_raw_os_error(libc::ECHILD));
    }
    let mut status = 0;
    loop {
        // SAFETY: writes one number to where it is told.
        match unsafe { libc::waitpid(child.pid, &raw mut status, 0) } {
            -1 => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => {}
                error => return Err(error),
            },
            _ => {
                child.is_reaped.set(true);
                return Ok(status);
            }
        }
    }
}

/// Waits until a child has ended, without blocking the thread and without reaping it.
pub(crate) async fn ended(child: &Handle) {
    let Some(end) = child.end() else { return };
    // For reading alone: a kqueue cannot be watched for anything else.
    // SAFETY: the borrowed descriptor outlives its registration, which ends with this function.
    let registered = unsafe { AsyncFd::register_with_interest(end, Interest::READABLE) };
    if let Ok(end) = registered {
        let _ = end.readable().await;
    }
}

/// Kills a child, whatever it is doing. A child that has ended already is left alone.
pub(crate) fn kill_pidfd(child: &Handle) {
    if !child.is_reaped.get() {
        // SAFETY: takes numbers; this pid is not given to another before it is reaped.
        unsafe { libc::kill(child.pid, libc::SIGKILL) };
    }
}

/// Nothing has to be learned here before it is too late.
pub(crate) fn learn_of_the_kernel() {}

/// No debugger may attach (ptrace(2), PT_DENY_ATTACH), and no core is dumped. Root is not kept out by either.
pub(crate) fn make_undumpable() -> io::Result<()> {
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: reads a structure that outlives the call.
    if unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const none) } == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: this request looks at none of its other arguments.
    let done = unsafe { libc::ptrace(libc::PT_DENY_ATTACH, 0, std::ptr::null_mut(), 0) };
    if done == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Resident memory of this process in bytes (proc_pidinfo, libproc.h).
pub(crate) fn resident_bytes() -> u64 {
    let mut facts = MaybeUninit::<libc::proc_taskinfo>::zeroed();
    let size = size_of::<libc::proc_taskinfo>() as libc::c_int;
    let own = std::process::id() as libc::c_int;
    // SAFETY: at most `size` bytes are written, and the structure is so long.
    let written = unsafe { libc::proc_pidinfo(own, libc::PROC_PIDTASKINFO, 0, facts.as_mut_ptr().cast(), size) };
    // SAFETY: written whole, and plain numbers, for which all zeroes is valid as well.
    if written == size { unsafe { facts.assume_init() }.pti_resident_size } else { 0 }
}

/// Raises the soft limit of open descriptors as far as the kernel takes it (OPEN_MAX): each connection needs one.
pub(crate) fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    const OPEN_MAX: u64 = 10_240;
    let limit = getrlimit(Resource::Nofile);
    let current = Some(limit.maximum.map_or(OPEN_MAX, |maximum| maximum.min(OPEN_MAX)));
    let _ = setrlimit(Resource::Nofile, Rlimit { current, maximum: limit.maximum });
}
