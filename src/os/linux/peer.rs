//! Who owns a connection, asked of the kernel; sockets of one call.

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

/// The uid that owns the other end of a loopback TCP connection; `None` where the kernel does not say.
///
/// On a kernel that cannot be asked nobody is taken for local, which is the safe side.
pub(crate) fn owner_of_peer(theirs: SocketAddr, ours: SocketAddr) -> Option<u32> {
    super::sock_diag::owner_of_peer(theirs, ours).ok().flatten()
}

/// A socket that is not inherited and does not block.
pub(in crate::os) fn unix_socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?)
}
