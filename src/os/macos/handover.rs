//! How messages with descriptors are sent and received here.

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::net::{RecvFlags, SendFlags};
use std::io;
use std::os::fd::OwnedFd;

/// As many as on Linux, which is fewer than would be taken.
pub(in crate::os) const MOST: usize = 253;

/// A peer that is gone is an error, no signal: by SO_NOSIGPIPE, which the standard library sets, and by the services' own
/// disposition.
pub(in crate::os) const SEND: SendFlags = SendFlags::empty();

/// There is no flag by which descriptors that arrive are not inherited.
pub(in crate::os) const RECEIVE: RecvFlags = RecvFlags::empty();

/// So it is set on each. Who receives has one thread, or starts nothing: nobody forks in between.
pub(in crate::os) fn arrived(descriptor: OwnedFd) -> io::Result<OwnedFd> {
    fcntl_setfd(&descriptor, FdFlags::CLOEXEC)?;
    Ok(descriptor)
}
