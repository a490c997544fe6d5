//! Listening sockets that the service manager opened for us (sd_listen_fds(3)).

use rustix::net::{AddressFamily, SocketType, sockopt};
use std::io;
use std::net::TcpListener;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::net::UnixListener;

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
/// Where the service manager's variables say what cannot be.
pub(crate) fn take() -> io::Result<Vec<Inherited>> {
    let named = sd_notify::listen_fds_with_names()?;
    named.map(|(number, name)| Ok(Inherited { name, door: look(adopt(number))? })).collect()
}

fn adopt(number: i32) -> OwnedFd {
    // SAFETY: by its protocol the service manager has opened this descriptor for us, and `take` is called once.
    unsafe { OwnedFd::from_raw_fd(number) }
}

fn look(socket: OwnedFd) -> io::Result<Listening> {
    let Ok(kind) = sockopt::socket_type(&socket) else { return Ok(Listening::Other("no socket")) };
    if kind != SocketType::STREAM {
        return Ok(Listening::Other("no stream socket"));
    }
    if !sockopt::socket_acceptconn(&socket)? {
        return Ok(Listening::Other("a socket that does not listen"));
    }
    Ok(match sockopt::socket_domain(&socket)? {
        AddressFamily::INET | AddressFamily::INET6 => Listening::Tcp(socket.into()),
        AddressFamily::UNIX => Listening::Unix(socket.into()),
        _ => Listening::Other("a socket of another family"),
    })
}
