//! Who is at the other end of a connection, by the kernel's word.

use std::net::SocketAddr;

/// The uid that owns the other end of a loopback TCP connection; `None` where the kernel does not say.
///
/// On a kernel that cannot be asked nobody is taken for local, which is the safe side.
pub(crate) fn owner_of_peer(theirs: SocketAddr, ours: SocketAddr) -> Option<u32> {
    #[cfg(target_os = "linux")]
    return super::linux::sock_diag::owner_of_peer(theirs, ours).ok().flatten();
    #[cfg(not(target_os = "linux"))]
    return None;
}

/// Connects to a unix socket without waiting for whoever listens there to take others in first.
///
/// # Errors
/// WouldBlock where as many wait already as may (unix(7), EAGAIN).
pub(crate) fn connect_at_once(path: &std::path::Path) -> std::io::Result<std::os::unix::net::UnixStream> {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    let stream = std::os::unix::net::UnixStream::from(socket);
    stream.set_nonblocking(false)?;
    Ok(stream)
}
