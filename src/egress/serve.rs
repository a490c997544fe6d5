//! The process `vambrace egress`: takes one order and its sockets from standard input, serves until the other side
//! closes it, and says there what happened.

use super::confine::{ConfineFault, confine};
use super::desk::{Desk, MOST_LOOKUPS};
use super::order::{BadOrder, LONGEST_ORDER, Order};
use super::{names, relay};
use crate::os::handover;
use std::io::{self, Read};
use std::net::{TcpListener as StdListener, UdpSocket as StdUdp};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream as StdStream;
use std::rc::Rc;
use std::sync::Arc;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, UdpSocket, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::{LocalSet, spawn_local};

/// The environment it is to be started with, and nothing else.
///
/// Without it a name that does not exist would be tried below the host's search domains (resolv.conf(5)), and lead to
/// a host there: `crates.io` to `crates.io.corp.example`. The resolver reads it from the environment alone.
pub(crate) const ENVIRONMENT: (&str, &str) = ("LOCALDOMAIN", ".");

/// Why it cannot serve.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EgressFault {
    #[error("cannot confine itself: {0}")]
    Confine(#[from] ConfineFault),
    #[error("the environment lacks {}={}", ENVIRONMENT.0, ENVIRONMENT.1)]
    Environment,
    #[error("cannot take an order from standard input: {0}")]
    Inherited(io::Error),
    #[error("the order is refused: {0}")]
    Order(#[from] BadOrder),
    #[error("the sockets are not those of the order")]
    Doors,
    #[error("cannot start: {0}")]
    Runtime(io::Error),
    #[error("the other side said more than an order")]
    More,
}

/// Serves one run, over the socket at standard input, as this user where we are root.
pub(crate) fn serve_inherited(uid: Option<u32>) -> Result<(), EgressFault> {
    if std::env::var(ENVIRONMENT.0).as_deref() != Ok(ENVIRONMENT.1) {
        return Err(EgressFault::Environment);
    }
    // The host's as they are here: who orders may be in a network of its own.
    let own = crate::os::host::addresses();
    confine(uid)?;
    let mut stream = StdStream::from(io::stdin().as_fd().try_clone_to_owned().map_err(EgressFault::Inherited)?);
    let Some((mut order, descriptors)) = take_order(&mut stream)? else { return Ok(()) };
    order.refuse(own);
    let ports = order.ports().to_vec();
    let desk = Rc::new(Desk::new(order));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(MOST_LOOKUPS)
        .build()
        .map_err(EgressFault::Runtime)?;
    stream.set_nonblocking(true).map_err(EgressFault::Inherited)?;
    let last = stream.try_clone().map_err(EgressFault::Inherited)?;
    let tasks = LocalSet::new();
    let served = tasks.block_on(&runtime, serve(Rc::clone(&desk), Doors::new(descriptors, &ports)?, stream));
    // With their tasks, connections in the making say that they came to nothing.
    drop(tasks);
    desk.outbox.write_last(last);
    // A resolver that does not answer must not keep us.
    runtime.shutdown_background();
    served
}

/// Reads the order; `None` where the other side has gone before it gave one.
fn take_order(stream: &mut StdStream) -> Result<Option<(Order, Vec<OwnedFd>)>, EgressFault> {
    let mut length = [0; 4];
    let Some(descriptors) = handover::receive(stream, &mut length).map_err(EgressFault::Inherited)? else {
        return Ok(None);
    };
    let length = u32::from_le_bytes(length) as usize;
    if length > LONGEST_ORDER {
        return Err(BadOrder::TooLong.into());
    }
    let mut json = vec![0; length];
    stream.read_exact(&mut json).map_err(EgressFault::Inherited)?;
    Ok(Some((Order::decode(&json)?, descriptors)))
}

/// The sockets of the sandbox.
struct Doors {
    udp: StdUdp,
    tcp: StdListener,
    relayed: Vec<(u16, StdListener)>,
}

impl Doors {
    /// Takes them in the order of `netns::open_doors`, and looks whether each is at its port.
    fn new(descriptors: Vec<OwnedFd>, ports: &[u16]) -> Result<Self, EgressFault> {
        let is_complete = descriptors.len() == ports.len() + 2;
        let mut descriptors = descriptors.into_iter();
        let (Some(udp), Some(tcp), true) = (descriptors.next(), descriptors.next(), is_complete) else {
            return Err(EgressFault::Doors);
        };
        let relayed: Vec<_> = ports.iter().copied().zip(descriptors.map(StdListener::from)).collect();
        let is_there = |(port, listener): &(u16, StdListener)| listener.local_addr().is_ok_and(|a| a.port() == *port);
        if !relayed.iter().all(is_there) {
            return Err(EgressFault::Doors);
        }
        Ok(Doors { udp: udp.into(), tcp: tcp.into(), relayed })
    }
}

/// Serves to the end of the stream.
async fn serve(desk: Rc<Desk>, doors: Doors, stream: StdStream) -> Result<(), EgressFault> {
    // Ctrl-C reaches the whole terminal group; who started us decides when we end.
    let _interrupt = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt());
    let _terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate());
    // Halves that are borrowed: an owned one closes its direction when it goes, and the last reports come after.
    let mut stream = UnixStream::from_std(stream).map_err(EgressFault::Inherited)?;
    let (mut from, to) = stream.split();
    let listener = |listener: StdListener| {
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener)
    };
    doors.udp.set_nonblocking(true).map_err(EgressFault::Runtime)?;
    let udp = UdpSocket::from_std(doors.udp).map_err(EgressFault::Runtime)?;
    spawn_local(names::serve_udp(Rc::clone(&desk), udp));
    spawn_local(names::serve_tcp(Rc::clone(&desk), listener(doors.tcp).map_err(EgressFault::Runtime)?));
    let places = Arc::new(Semaphore::new(relay::MOST_CONNECTIONS));
    for (port, socket) in doors.relayed {
        let socket = listener(socket).map_err(EgressFault::Runtime)?;
        spawn_local(relay::serve(Rc::clone(&desk), socket, port, Arc::clone(&places)));
    }
    tokio::select! {
        read = from.read_u8() => match read {
            Ok(_) => Err(EgressFault::More),
            // Closed, or gone with what we had said unread.
            Err(_) => Ok(()),
        },
        // Nobody can read any more, so nobody is there.
        _ = desk.outbox.write_all(&to) => Ok(()),
    }
}
