//! Listening sockets that the service manager opened for us: systemd (sd_listen_fds(3)) or launchd.

use rustix::net::{AddressFamily, SocketType, getsockname, sockopt};
use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;

/// What vambrace.socket (FileDescriptorName=) and the property lists for launchd (Sockets) call our doors.
pub(crate) const NAME: &str = "vambrace";

/// One of them, with the name its unit gave it.
#[derive(Debug)]
pub(crate) struct Inherited {
    pub(crate) name: String,
    pub(crate) door: Listening,
}

/// What it is, by the kernel's word.
#[derive(Debug)]
pub(crate) enum Listening {
    Tcp(TcpListener),
    Unix(UnixListener),
    /// None that could be served: what it is instead.
    Other(&'static str),
}

/// Takes them. To be called once, before this process opens a descriptor of its own; later calls find the same numbers.
///
/// # Errors
/// Where the service manager says what cannot be.
pub(crate) fn take() -> io::Result<Vec<Inherited>> {
    let given = super::system::activation::given()?;
    given.into_iter().map(|(name, socket)| Ok(Inherited { name, door: look(socket)? })).collect()
}

fn look(socket: OwnedFd) -> io::Result<Listening> {
    let Ok(kind) = sockopt::socket_type(&socket) else { return Ok(Listening::Other("no socket")) };
    if kind != SocketType::STREAM {
        return Ok(Listening::Other("no stream socket"));
    }
    if !super::system::activation::listens(&socket)? {
        return Ok(Listening::Other("a socket that does not listen"));
    }
    Ok(match getsockname(&socket)?.address_family() {
        AddressFamily::INET | AddressFamily::INET6 => Listening::Tcp(socket.into()),
        AddressFamily::UNIX => Listening::Unix(socket.into()),
        _ => Listening::Other("a socket of another family"),
    })
}
