//! Who is at the other end of a connection, by the kernel's word.

pub(crate) use super::system::peer::owner_of_peer;

/// Connects to a unix socket without waiting for whoever listens there to take others in first.
///
/// # Errors
/// WouldBlock where as many wait already as may (unix(7), EAGAIN).
pub(crate) fn connect_at_once(path: &std::path::Path) -> std::io::Result<std::os::unix::net::UnixStream> {
    let socket = super::system::peer::unix_socket()?;
    rustix::net::connect(&socket, &rustix::net::SocketAddrUnix::new(path)?)?;
    let stream = std::os::unix::net::UnixStream::from(socket);
    stream.set_nonblocking(false)?;
    Ok(stream)
}
