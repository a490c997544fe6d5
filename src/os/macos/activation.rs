//! What launchd has opened for us: the entry of `Sockets` in our property list (launchd.plist(5)).

use crate::os::activation::NAME;
use rustix::io::{FdFlags, fcntl_setfd};
use std::ffi::CString;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

// In libSystem, which every program is linked to (launch.h).
// SAFETY: as Apple declares it, since OS X 10.10.
unsafe extern "C" {
    fn launch_activate_socket(
        name: *const libc::c_char,
        descriptors: *mut *mut libc::c_int,
        count: *mut libc::size_t,
    ) -> libc::c_int;
}

/// Each with its name; none where launchd did not start us, or its list has no sockets.
pub(in crate::os) fn given() -> io::Result<Vec<(String, OwnedFd)>> {
    let name = CString::new(NAME)?;
    let (mut numbers, mut count) = (std::ptr::null_mut(), 0);
    // SAFETY: all three outlive the call, which sets the last two where it returns 0.
    match unsafe { launch_activate_socket(name.as_ptr(), &raw mut numbers, &raw mut count) } {
        0 => {}
        // Not by launchd, or no such entry.
        libc::ESRCH | libc::ENOENT => return Ok(Vec::new()),
        errno => return Err(io::Error::from_raw_os_error(errno)),
    }
    // SAFETY: `count` numbers stand there, and each is a descriptor that was opened for us and is given once.
    let given = (0..count).map(|at| unsafe { OwnedFd::from_raw_fd(*numbers.add(at)) }).collect::<Vec<_>>();
    // SAFETY: made by malloc(3) for the caller to free, and not used after this.
    unsafe { libc::free(numbers.cast()) };
    for socket in &given {
        fcntl_setfd(socket, FdFlags::CLOEXEC)?;
    }
    Ok(given.into_iter().map(|socket| (NAME.to_owned(), socket)).collect())
}

/// Whether others can connect to it. launchd listens on every stream socket that is not said to be otherwise (SockPassive),
/// and the kernel cannot be asked: it has SO_ACCEPTCONN in name alone.
pub(in crate::os) fn listens(_: &OwnedFd) -> io::Result<bool> {
    Ok(true)
}
