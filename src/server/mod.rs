//! The doors: TCP and a unix socket, HTTP/1.1 and WebSocket on both, TLS on the first where it is asked for.
//!
//! Everything before authentication is bounded here: connections, their number from one address,
//! bytes, headers, time. What a door tells the corridor about a peer is what the kernel and the HTTP
//! head say; what the peer says of itself is the corridor's to judge.

mod adopt;
mod allowance;
mod crowd;
mod http;
mod origin;
mod rpc;
mod tls;
mod websocket;

pub(crate) use tls::{Pem, Tls};

use crate::auth::{Gatekeeper, PeerFacts};
use crate::gateway::Gateway;
use crate::os;
use crate::os::activation::Inherited;
use crowd::{Crowd, Place, Who};
use origin::Names;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

/// Time for a TLS handshake, for the HTTP head, and between two requests on one connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a stop waits for who was let in and has not asked yet.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// Largest HTTP head.
const MAX_HEAD: usize = 16 << 10;

/// Where and how to listen.
pub(crate) struct Listen {
    pub(crate) address: SocketAddr,
    pub(crate) socket: PathBuf,
    pub(crate) tls: Option<Tls>,
    /// Names besides our addresses that a Host header may carry, in lower case.
    pub(crate) hosts: Vec<String>,
    /// Origins that may connect, exactly as browsers write them.
    pub(crate) origins: Vec<String>,
    /// What makes a wider door than loopback safe besides TLS.
    pub(crate) wider: Wider,
    /// What the service manager has opened for us already.
    pub(crate) inherited: Vec<Inherited>,
}

/// Whether others than loopback may be served without TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wider {
    /// Nobody is asked for anything: loopback alone, whatever else is set.
    Never,
    /// With TLS.
    Encrypted,
    /// With TLS; or without it trusted proxies alone, whose connections are the operator's to protect.
    Proxies,
}

/// Names that we are called by and origins that may connect, as they are now.
pub(crate) struct ServedNames(RwLock<Arc<Names>>);

impl ServedNames {
    fn new(hosts: Vec<String>, origins: Vec<String>) -> Self {
        ServedNames(RwLock::new(Arc::new(Names { hosts, origins })))
    }

    fn now(&self) -> Arc<Names> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// From the next request on, these.
    pub(crate) fn replace(&self, hosts: Vec<String>, origins: Vec<String>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(Names { hosts, origins });
    }
}

/// Why a door cannot be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DoorFault {
    #[error("cannot listen on {address}: {cause}")]
    Tcp { address: SocketAddr, cause: io::Error },
    #[error("{0} is not a loopback address: beyond loopback it takes authentication, and TLS or a trusted proxy")]
    NotSafe(SocketAddr),
    #[error("cannot listen on {path}: {cause}")]
    Unix { path: PathBuf, cause: io::Error },
    #[error("the service manager gave us {what}, but {expected}")]
    Foreign { what: String, expected: String },
}

/// Where a connection came in.
#[derive(Debug, Clone, Copy)]
enum Door {
    Tcp { theirs: SocketAddr, ours: SocketAddr, has_certificate: bool },
    Unix { uid: u32 },
}

impl Door {
    /// Whom bounds count against; nobody for operators and proxies on the unix socket, who are never kept out of it.
    fn counted(&self, gatekeeper: &Gatekeeper) -> Option<Who> {
        match self {
            // All of 127.0.0.0/8 is this one host, whichever of its addresses a process picks.
            Door::Tcp { theirs, .. } if theirs.ip().to_canonical().is_loopback() => {
                Some(Who::At(Ipv4Addr::LOCALHOST.into()))
            }
            Door::Tcp { theirs, .. } => Some(Who::At(theirs.ip().to_canonical())),
            Door::Unix { uid } if gatekeeper.expects(*uid) => None,
            Door::Unix { uid } => Some(Who::Uid(*uid)),
        }
    }

    /// What is known of the other end besides what it says.
    fn facts(&self) -> PeerFacts {
        match *self {
            Door::Unix { uid } => PeerFacts { uid: Some(uid), is_local: true, ..Default::default() },
            Door::Tcp { theirs, ours, has_certificate } => {
                let address = theirs.ip().to_canonical();
                // Any address of the host's may be the source of any of its processes.
                let is_local = address.is_loopback()
                    || address == ours.ip().to_canonical()
                    || os::host::addresses().iter().any(|own| own.to_canonical() == address);
                let uid = if is_local { os::peer::owner_of_peer(theirs, ours) } else { None };
                PeerFacts { address: Some(address), is_local, uid, has_certificate }
            }
        }
    }
}

/// What every connection's task needs.
struct House {
    gateway: Arc<Gateway>,
    crowd: Arc<Crowd>,
    names: Arc<ServedNames>,
    /// Told when nobody is let in any more.
    stop: watch::Receiver<bool>,
}

/// Opened listeners, not yet served.
pub(crate) struct Doors {
    tcp: TcpListener,
    tls: Option<Tls>,
    unix: UnixListener,
    unix_path: PathBuf,
    /// Whether the socket's file is ours to remove.
    is_bound_by_us: bool,
    names: Arc<ServedNames>,
}

impl Doors {
    /// Binds both, or takes what was opened for us. Whether a door may be as wide as it is, is judged by the address that was really bound.
    pub(crate) async fn open(listen: Listen) -> Result<Self, DoorFault> {
        let address = listen.address;
        let tcp_fault = |cause| DoorFault::Tcp { address, cause };
        let is_safe = |bound: IpAddr| {
            bound.to_canonical().is_loopback()
                || match listen.wider {
                    Wider::Never => false,
                    Wider::Encrypted => listen.tls.is_some(),
                    Wider::Proxies => true,
                }
        };
        if !is_safe(address.ip()) {
            return Err(DoorFault::NotSafe(address));
        }
        let (given_tcp, given_unix) = adopt::sort(listen.inherited, address, &listen.socket)?;
        let tcp = match given_tcp {
            Some(given) => given.set_nonblocking(true).and_then(|()| TcpListener::from_std(given)),
            None => match TcpListener::bind(address).await {
                // A host without IPv6 has all its addresses in the other family.
                Err(_) if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) => {
                    TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await
                }
                bound => bound,
            },
        };
        let tcp = tcp.map_err(tcp_fault)?;
        let bound = tcp.local_addr().map_err(tcp_fault)?;
        if !is_safe(bound.ip()) {
            return Err(DoorFault::NotSafe(bound));
        }
        let socket = listen.socket;
        let unix_fault = |cause| DoorFault::Unix { path: socket.clone(), cause };
        let is_bound_by_us = given_unix.is_none();
        let unix = given_unix.map_or_else(|| os::fs::bind_shared_socket(&socket), Ok).map_err(unix_fault)?;
        unix.set_nonblocking(true).map_err(unix_fault)?;
        let unix = UnixListener::from_std(unix).map_err(unix_fault)?;
        let names = Arc::new(ServedNames::new(listen.hosts, listen.origins));
        Ok(Doors { tcp, tls: listen.tls, unix, unix_path: socket, is_bound_by_us, names })
    }

    /// The TCP address that was bound.
    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// The names that are served, to be replaced while they are.
    pub(crate) fn names(&self) -> Arc<ServedNames> {
        Arc::clone(&self.names)
    }

    /// The unix socket's path.
    pub(crate) fn socket(&self) -> &Path {
        &self.unix_path
    }

    /// Accepts until told to stop, then removes the socket. Who was let in before and has not asked yet, still gets an answer:
    /// where systemd holds the doors, the next gateway knows nothing of them. WebSockets go on until they end themselves.
    pub(crate) async fn serve(self, gateway: Arc<Gateway>, mut stop: watch::Receiver<bool>) {
        let house = Arc::new(House { gateway, crowd: Arc::default(), names: self.names, stop: stop.clone() });
        // Each connection holds one end until it has ended or become a WebSocket.
        let (open, mut all_ended) = mpsc::channel::<()>(1);
        loop {
            tokio::select! {
                accepted = self.tcp.accept() => match accepted {
                    Ok((stream, theirs)) => {
                        let Ok(ours) = stream.local_addr() else { continue };
                        let _ = stream.set_nodelay(true);
                        let door = Door::Tcp { theirs, ours, has_certificate: false };
                        let Some(place) = house.crowd.arrive(door.counted(house.gateway.gatekeeper())) else { continue };
                        let (tls, house, open) = (self.tls.clone(), Arc::clone(&house), open.clone());
                        tokio::spawn(async move {
                            welcome(door, stream, tls, house, place).await;
                            drop(open);
                        });
                    }
                    Err(error) => rest(&error).await,
                },
                accepted = self.unix.accept() => match accepted {
                    Ok((stream, _)) => match stream.peer_cred() {
                        Ok(peer) => {
                            let door = Door::Unix { uid: peer.uid() };
                            let Some(place) = house.crowd.arrive(door.counted(house.gateway.gatekeeper())) else { continue };
                            let (house, open) = (Arc::clone(&house), open.clone());
                            tokio::spawn(async move {
                                http::serve(door, stream, house, place).await;
                                drop(open);
                            });
                        }
                        Err(error) => tracing::warn!(%error, "a local peer without credentials was refused"),
                    },
                    Err(error) => rest(&error).await,
                },
                _ = stop.changed() => break,
            }
        }
        if self.is_bound_by_us {
            let _ = std::fs::remove_file(&self.unix_path);
        }
        drop((self.tcp, self.unix, open));
        let _ = timeout(LAST_ANSWERS, all_ended.recv()).await;
    }
}

/// Serves one TCP connection: TLS first where there is any; where there is none, beyond loopback proxies alone.
async fn welcome(door: Door, stream: TcpStream, tls: Option<Tls>, house: Arc<House>, place: Place) {
    let Some(tls) = tls else {
        let loopback = matches!(door, Door::Tcp { ours, .. } if ours.ip().to_canonical().is_loopback());
        let rules = house.gateway.gatekeeper().proxy_rules();
        if !loopback && !rules.is_some_and(|rules| rules.is_proxy(&door.facts())) {
            return;
        }
        return http::serve(door, stream, house, place).await;
    };
    match timeout(HEAD_TIMEOUT, tls.acceptor().accept(stream)).await {
        Ok(Ok(stream)) => {
            let shown = stream.get_ref().1.peer_certificates().is_some_and(|chain| !chain.is_empty());
            let Door::Tcp { theirs, ours, .. } = door else { return };
            http::serve(Door::Tcp { theirs, ours, has_certificate: shown }, stream, house, place).await;
        }
        Ok(Err(error)) => tracing::trace!(%error, "a TLS handshake failed"),
        Err(_) => {}
    }
}

/// Accept fails when descriptors run out: rest a little, so that the loop does not spin until some are free.
async fn rest(error: &io::Error) {
    tracing::warn!(%error, "cannot accept a connection");
    tokio::time::sleep(Duration::from_millis(50)).await;
}
