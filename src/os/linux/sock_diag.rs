//! sock_diag(7): asks the kernel which uid owns the other end of a loopback TCP connection.
//!
//! A forwarder or proxy run by another user is thereby never mistaken for the operator, whatever
//! it writes into headers.

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
const HEADER: usize = 16; // struct nlmsghdr

// inet_diag_msg: family, state, timer, retrans; inet_diag_sockid; expires, rqueue, wqueue; uid; inode.
const STATE_AT: usize = HEADER + 1;
const SOCKET_AT: usize = HEADER + 4;
const UID_AT: usize = HEADER + 4 + 48 + 4 + 4 + 4;
const INODE_AT: usize = UID_AT + 4;

/// Ports and addresses of inet_diag_sockid; interface and cookie follow.
const SOCKET_LENGTH: usize = 36;

/// TCP_ESTABLISHED (linux/tcp_states.h).
const ESTABLISHED: u8 = 1;

/// The uid owning the socket whose local address is `theirs` and whose peer is `ours`.
///
/// `None` where the kernel knows no such socket (it is gone, or lies in another network namespace), and where nobody
/// holds it any more: of a socket that was closed the kernel keeps the addresses and says uid 0, whoever it was.
pub(crate) fn owner_of_peer(theirs: SocketAddr, ours: SocketAddr) -> io::Result<Option<u32>> {
    // IPv4 that came in by an IPv6 listener: the other end is an IPv4 socket.
    let canonical = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    let (theirs, ours) = (canonical(theirs), canonical(ours));
    // One socket for all questions: making one is most of what a question costs.
    static LINE: Mutex<Option<OwnedFd>> = Mutex::new(None);
    let mut line = LINE.lock().unwrap_or_else(PoisonError::into_inner);
    let netlink = match line.take() {
        Some(netlink) => netlink,
        None => {
            socket(AddressFamily::Netlink, SockType::Datagram, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkSockDiag)?
        }
    };
    let owner = ask(&netlink, theirs, ours)?;
    // Kept only after a whole answer: what is left unread would be taken for the next one.
    *line = Some(netlink);
    Ok(owner)
}

fn ask(netlink: &OwnedFd, theirs: SocketAddr, ours: SocketAddr) -> io::Result<Option<u32>> {
    send(netlink.as_raw_fd(), &request(theirs, ours), MsgFlags::empty())?;
    let mut answer = [0u8; 1024];
    let length = recv(netlink.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    Ok(uid_in(&answer[..length], &socket_id(theirs, ours)))
}

/// inet_diag_req_v2 for exactly one socket (linux/inet_diag.h).
fn request(theirs: SocketAddr, ours: SocketAddr) -> Vec<u8> {
    let mut body = Vec::with_capacity(72);
    let family = if theirs.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    body.extend([family as u8, libc::IPPROTO_TCP as u8, 0, 0]);
    body.extend(u32::MAX.to_ne_bytes()); // every state
    body.extend(socket_id(theirs, ours));
    body.extend(0u32.to_ne_bytes()); // any interface
    body.extend([0xff; 8]); // no cookie
    let mut message = Vec::with_capacity(HEADER + body.len());
    message.extend(((HEADER + body.len()) as u32).to_ne_bytes());
    message.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    message.extend(NLM_F_REQUEST.to_ne_bytes());
    message.extend([0; 8]); // sequence and port
    message.extend(body);
    message
}

/// The four parts by which a connection is known, as inet_diag_sockid begins.
fn socket_id(theirs: SocketAddr, ours: SocketAddr) -> Vec<u8> {
    let mut id = Vec::with_capacity(SOCKET_LENGTH);
    id.extend(theirs.port().to_be_bytes());
    id.extend(ours.port().to_be_bytes());
    id.extend(address(theirs.ip()));
    id.extend(address(ours.ip()));
    id
}

fn address(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(v4) => {
            let mut padded = [0; 16];
            padded[..4].copy_from_slice(&v4.octets());
            padded
        }
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// The parts of an answer as they would be asked for: an IPv6 socket that speaks IPv4 tells its addresses mapped.
fn in_one_family(family: u8, socket: &[u8]) -> Vec<u8> {
    let (ports, addresses) = socket.split_at(4);
    let mut parts = ports.to_vec();
    for bytes in addresses.chunks(16) {
        let whole: [u8; 16] = bytes.try_into().unwrap_or_default();
        let v6 = std::net::Ipv6Addr::from(whole);
        parts.extend(if i32::from(family) == libc::AF_INET6 { address(IpAddr::V6(v6).to_canonical()) } else { whole });
    }
    parts
}

fn uid_in(answer: &[u8], asked: &[u8]) -> Option<u32> {
    let number = |at: usize| Some(u32::from_ne_bytes(answer.get(at..at + 4)?.try_into().ok()?));
    let kind = u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?);
    let socket = answer.get(SOCKET_AT..SOCKET_AT + SOCKET_LENGTH)?;
    let is_answer = kind == SOCK_DIAG_BY_FAMILY && in_one_family(*answer.get(HEADER)?, socket) == asked;
    // Open and in somebody's hands: an inode is what a closed socket has no more.
    let is_held = *answer.get(STATE_AT)? == ESTABLISHED && number(INODE_AT)? != 0;
    (is_answer && is_held).then_some(())?;
    number(UID_AT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn the_kernel_names_the_owner_of_the_other_end() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (_server, theirs) = listener.accept().unwrap();
        let ours = listener.local_addr().unwrap();

        let owner = owner_of_peer(theirs, ours).unwrap();
        drop(client);
        let nobody = owner_of_peer("127.0.0.1:1".parse().unwrap(), ours).unwrap();

        assert_eq!(owner, Some(nix::unistd::getuid().as_raw()));
        assert_eq!(nobody, None);
    }

    #[test]
    fn ipv4_at_a_listener_for_both_families_is_found_as_well() {
        let listener = TcpListener::bind("[::]:0").unwrap();
        let client = TcpStream::connect(("127.0.0.1", listener.local_addr().unwrap().port())).unwrap();
        let (server, theirs) = listener.accept().unwrap();
        let owner = owner_of_peer(theirs, server.local_addr().unwrap()).unwrap();
        drop(client);
        assert_eq!(owner, Some(nix::unistd::getuid().as_raw()));
    }

    #[test]
    fn an_ipv6_socket_that_speaks_ipv4_is_found_as_well() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let ours = listener.local_addr().unwrap();
        let client = TcpStream::connect(("::ffff:127.0.0.1", ours.port())).unwrap();
        let (_server, theirs) = listener.accept().unwrap();
        let owner = owner_of_peer(theirs, ours).unwrap();
        drop(client);
        assert_eq!(owner, Some(nix::unistd::getuid().as_raw()));
    }

    #[test]
    fn a_socket_that_was_closed_belongs_to_nobody_and_not_to_root() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, theirs) = listener.accept().unwrap();
        let ours = listener.local_addr().unwrap();
        drop(client);
        // Its end has come here, so the kernel has let go of it there.
        assert_eq!(std::io::Read::read(&mut server, &mut [0]).unwrap(), 0);
        assert_eq!(owner_of_peer(theirs, ours).unwrap(), None);
    }
}
