//! What systemd has opened for us: LISTEN_FDS and its like (sd_listen_fds(3)).

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

/// Each with its name.
pub(in crate::os) fn given() -> io::Result<Vec<(String, OwnedFd)>> {
    let named = sd_notify::listen_fds_with_names()?;
    Ok(named.map(|(number, name)| (name, adopt(number))).collect())
}

fn adopt(number: i32) -> OwnedFd {
    // SAFETY: by its protocol the service manager has opened this descriptor for us, and `take` is called once.
    unsafe { OwnedFd::from_raw_fd(number) }
}

/// Whether others can connect to it.
pub(in crate::os) fn listens(socket: &OwnedFd) -> io::Result<bool> {
    Ok(rustix::net::sockopt::socket_acceptconn(socket)?)
}
