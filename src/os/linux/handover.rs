//! How messages with descriptors are sent and received here.

use rustix::net::{RecvFlags, SendFlags};
use std::io;
use std::os::fd::OwnedFd;

/// SCM_MAX_FD: the kernel takes no more in one message.
pub(in crate::os) const MOST: usize = 253;

/// A peer that is gone is an error, no signal.
pub(in crate::os) const SEND: SendFlags = SendFlags::NOSIGNAL;

/// Descriptors that arrive are not inherited.
pub(in crate::os) const RECEIVE: RecvFlags = RecvFlags::CMSG_CLOEXEC;

/// Nothing is left to be done with them.
pub(in crate::os) fn arrived(descriptor: OwnedFd) -> io::Result<OwnedFd> {
    Ok(descriptor)
}
