//! The doors: TCP on loopback and a unix socket, HTTP/1.1 and WebSocket on both.
//!
//! Everything before authentication is bounded here: connections, their number from one address,
//! bytes, headers, time. What a door tells the corridor about a peer is what the kernel and the HTTP
//! head say; what the peer says of itself is the corridor's to judge.

mod allowance;
mod crowd;
mod http;
mod websocket;

use crate::gateway::Gateway;
use crate::os;
use crowd::Crowd;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;

/// Time for the HTTP head, and between two requests on one connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Largest HTTP head.
const MAX_HEAD: usize = 16 << 10;

/// Why a door cannot be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DoorFault {
    #[error("cannot listen on {address}: {cause}")]
    Tcp { address: SocketAddr, cause: io::Error },
    #[error("{0} is not a loopback address, and nothing wider is offered without TLS")]
    NotLoopback(SocketAddr),
    #[error("cannot listen on {path}: {cause}")]
    Unix { path: PathBuf, cause: io::Error },
}

/// Where a connection came in.
#[derive(Debug, Clone, Copy)]
enum Door {
    Tcp { theirs: SocketAddr, ours: SocketAddr },
    Unix { uid: u32 },
}

impl Door {
    /// The address that bounds count against; everybody on the unix socket is known by uid and not counted.
    fn counted(&self) -> Option<IpAddr> {
        match self {
            // All of 127.0.0.0/8 is this one host, whichever of its addresses a process picks.
            Door::Tcp { theirs, .. } if theirs.ip().to_canonical().is_loopback() => Some(Ipv4Addr::LOCALHOST.into()),
            Door::Tcp { theirs, .. } => Some(theirs.ip().to_canonical()),
            Door::Unix { .. } => None,
        }
    }
}

/// Opened listeners, not yet served.
pub(crate) struct Doors {
    tcp: TcpListener,
    unix: UnixListener,
    unix_path: PathBuf,
}

impl Doors {
    /// Binds both. The check for loopback is made on the address that was really bound.
    pub(crate) async fn open(address: SocketAddr, socket: &Path) -> Result<Self, DoorFault> {
        let tcp_fault = |cause| DoorFault::Tcp { address, cause };
        if !address.ip().is_loopback() {
            return Err(DoorFault::NotLoopback(address));
        }
        let tcp = TcpListener::bind(address).await.map_err(tcp_fault)?;
        let bound = tcp.local_addr().map_err(tcp_fault)?;
        if !bound.ip().is_loopback() {
            return Err(DoorFault::NotLoopback(bound));
        }
        let unix_fault = |cause| DoorFault::Unix { path: socket.to_owned(), cause };
        let unix = os::fs::bind_shared_socket(socket).map_err(unix_fault)?;
        unix.set_nonblocking(true).map_err(unix_fault)?;
        let unix = UnixListener::from_std(unix).map_err(unix_fault)?;
        Ok(Doors { tcp, unix, unix_path: socket.to_owned() })
    }

    /// The TCP address that was bound.
    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// Accepts until told to stop, then removes the socket. Connections go on until they end themselves.
    pub(crate) async fn serve(self, gateway: Arc<Gateway>, mut stop: watch::Receiver<bool>) {
        let crowd = Arc::new(Crowd::default());
        loop {
            tokio::select! {
                accepted = self.tcp.accept() => match accepted {
                    Ok((stream, theirs)) => {
                        let Ok(ours) = stream.local_addr() else { continue };
                        let _ = stream.set_nodelay(true);
                        admit(Door::Tcp { theirs, ours }, stream, &gateway, &crowd);
                    }
                    Err(error) => rest(&error).await,
                },
                accepted = self.unix.accept() => match accepted {
                    Ok((stream, _)) => match stream.peer_cred() {
                        Ok(peer) => admit(Door::Unix { uid: peer.uid() }, stream, &gateway, &crowd),
                        Err(error) => tracing::warn!(%error, "a local peer without credentials was refused"),
                    },
                    Err(error) => rest(&error).await,
                },
                _ = stop.changed() => break,
            }
        }
        let _ = std::fs::remove_file(&self.unix_path);
    }
}

/// Starts a connection's own task, unless its address has too many that have said nothing yet.
fn admit<S: websocket::Stream>(door: Door, stream: S, gateway: &Arc<Gateway>, crowd: &Arc<Crowd>) {
    let Some(place) = crowd.arrive(door.counted()) else { return };
    let gateway = Arc::clone(gateway);
    let crowd = Arc::clone(crowd);
    tokio::spawn(async move { http::serve(door, stream, gateway, crowd, place).await });
}

/// Accept fails when descriptors run out: rest a little, so that the loop does not spin until some are free.
async fn rest(error: &io::Error) {
    tracing::warn!(%error, "cannot accept a connection");
    tokio::time::sleep(Duration::from_millis(50)).await;
}
