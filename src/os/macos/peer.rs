//! Who owns a connection: not known here. Peers of unix sockets are (getpeereid(3)).

use rustix::net::{AddressFamily, SocketType, socket};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

/// The kernel tells nobody who owns the other end of a TCP connection, so nobody is taken for local by TCP.
pub(crate) fn owner_of_peer(_theirs: SocketAddr, _ours: SocketAddr) -> Option<u32> {
    None
}

/// A socket that is not inherited and does not block.
pub(in crate::os) fn unix_socket() -> io::Result<OwnedFd> {
    let socket = socket(AddressFamily::UNIX, SocketType::STREAM, None)?;
    rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&socket, true)?;
    Ok(socket)
}
