//! Doors that the service manager opened: taken only where the configuration would have opened the same.

use super::DoorFault;
use crate::os::activation::{Inherited, Listening, NAME};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::Path;

/// The two doors among them, where they are.
///
/// # Errors
/// Where one is of another name, kind or address than ours, or is there twice.
pub(super) fn sort(
    inherited: Vec<Inherited>,
    address: SocketAddr,
    socket: &Path,
) -> Result<(Option<TcpListener>, Option<UnixListener>), DoorFault> {
    let (mut tcp, mut unix) = (None, None);
    let foreign = |what: String, expected: String| DoorFault::Foreign { what, expected };
    for Inherited { name, door } in inherited {
        if name != NAME {
            return Err(foreign(format!("a socket named {name:?}"), format!("ours are named {NAME:?}")));
        }
        match door {
            Listening::Other(what) => return Err(foreign(what.into(), "we listen on TCP and a unix socket".into())),
            Listening::Tcp(listener) => {
                let at = listener.local_addr().map_err(|cause| DoorFault::Tcp { address, cause })?;
                // Port 0 is any.
                let is_meant = at.ip() == address.ip() && (at.port() == address.port() || address.port() == 0);
                if !is_meant {
                    return Err(foreign(format!("a door at {at}"), format!("the configuration says {address}")));
                }
                if tcp.replace(listener).is_some() {
                    return Err(foreign(format!("two doors at {at}"), "one is served".into()));
                }
            }
            Listening::Unix(listener) => {
                let at = listener.local_addr().ok().and_then(|at| at.as_pathname().map(Path::to_owned));
                if at.as_deref() != Some(socket) {
                    let at = at.map_or_else(|| "a socket without a path".into(), |at| at.display().to_string());
                    return Err(foreign(format!("a door at {at}"), format!("ours is {}", socket.display())));
                }
                if unix.replace(listener).is_some() {
                    return Err(foreign(format!("{} twice", socket.display()), "one is served".into()));
                }
            }
        }
    }
    Ok((tcp, unix))
}
