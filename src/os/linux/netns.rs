//! Inside a fresh network namespace: its own loopback is brought up, nothing else exists.
//!
//! Where a sandbox may reach domains, a range of addresses is delivered to it itself, and sockets are opened that an
//! egress process outside answers. There is no way out by that either.

use super::clone;
use crate::os::handover;
use crate::os::sandboxed::{NAME_SERVER, STAND_INS};
use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, bind, listen, recv, send, socket,
};
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

/// Of the range of stand-ins.
const STAND_INS_PREFIX: u8 = 15;

/// Connections that wait for the egress process, which takes them at once.
const WAITING: i32 = 128;

/// Sets `lo` up (netdevice(7)). The namespace has no other interface and no way out.
pub(crate) fn bring_up_loopback() -> io::Result<()> {
    let control = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // SAFETY: ifreq is plain data for which all zeroes is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads an ifreq, which outlives the call.
    let done = unsafe { libc::ioctl(control.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) };
    if done == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Delivers every address of the range to this namespace itself (ip-route(8): `local 198.18.0.0/15 dev lo`), and gives it
/// the first one for its own. Needs CAP_NET_ADMIN here.
///
/// Without an address besides 127.0.0.1 getaddrinfo(3) finds none of a family that is asked for with AI_ADDRCONFIG.
pub(crate) fn route_locally() -> io::Result<()> {
    let netlink = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?;
    let loopback = nix::net::if_::if_nametoindex("lo")?;
    for message in [local_route(loopback), own_address(loopback)] {
        send(netlink.as_raw_fd(), &message, MsgFlags::empty())?;
        let mut answer = [0u8; 1024];
        let length = recv(netlink.as_raw_fd(), &mut answer, MsgFlags::empty())?;
        // nlmsghdr, then nlmsgerr: an error of 0 is the acknowledgement (netlink(7)).
        let word = |at: usize| answer[..length].get(at..at + 4)?.try_into().ok().map(i32::from_ne_bytes);
        let kind = answer[..length].get(4..6).map(|kind| i32::from(u16::from_ne_bytes([kind[0], kind[1]])));
        match word(16) {
            Some(0) if kind == Some(libc::NLMSG_ERROR) => {}
            Some(error) if kind == Some(libc::NLMSG_ERROR) => return Err(io::Error::from_raw_os_error(-error)),
            _ => return Err(io::Error::other("the kernel did not acknowledge a route or address")),
        }
    }
    Ok(())
}

/// RTM_NEWROUTE of the range, as a local one (rtnetlink(7)).
fn local_route(loopback: u32) -> Vec<u8> {
    let mut body = vec![libc::AF_INET as u8, STAND_INS_PREFIX, 0, 0];
    body.extend([libc::RT_TABLE_LOCAL, libc::RTPROT_BOOT, libc::RT_SCOPE_HOST, libc::RTN_LOCAL]);
    body.extend(0u32.to_ne_bytes());
    let values = [(libc::RTA_DST, STAND_INS.octets()), (libc::RTA_OIF, loopback.to_ne_bytes())];
    request(libc::RTM_NEWROUTE, body, values)
}

/// RTM_NEWADDR of the first address of the range that no name gets.
fn own_address(loopback: u32) -> Vec<u8> {
    let own = Ipv4Addr::from_bits(STAND_INS.to_bits() + 1).octets();
    let mut body = vec![libc::AF_INET as u8, 32, 0, libc::RT_SCOPE_UNIVERSE];
    body.extend(loopback.to_ne_bytes());
    request(libc::RTM_NEWADDR, body, [(libc::IFA_LOCAL, own), (libc::IFA_ADDRESS, own)])
}

/// A message that makes something and is to be acknowledged.
fn request(kind: u16, mut body: Vec<u8>, values: [(u16, [u8; 4]); 2]) -> Vec<u8> {
    for (kind, value) in values {
        body.extend(8u16.to_ne_bytes());
        body.extend(kind.to_ne_bytes());
        body.extend(value);
    }
    let flags = libc::NLM_F_REQUEST | libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_EXCL;
    let mut message = (16 + body.len() as u32).to_ne_bytes().to_vec();
    message.extend(kind.to_ne_bytes());
    message.extend((flags as u16).to_ne_bytes());
    message.extend([0; 8]); // sequence and port
    message.extend(body);
    message
}

/// The sockets that an egress process answers: the name server's over UDP and TCP, then a listener for each port at
/// every address. Needs CAP_NET_BIND_SERVICE here for ports below 1024, the name server's own among them.
pub(crate) fn open_doors(ports: &[u16]) -> io::Result<Vec<OwnedFd>> {
    let mut doors = vec![open(SockType::Datagram, NAME_SERVER)?, open(SockType::Stream, NAME_SERVER)?];
    for port in ports {
        doors.push(open(SockType::Stream, SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, *port))?);
    }
    Ok(doors)
}

/// By hand, because the standard library sets SO_REUSEADDR on every listener; here nobody may share the address.
fn open(kind: SockType, address: SocketAddrV4) -> io::Result<OwnedFd> {
    let made = socket(AddressFamily::Inet, kind, SockFlag::SOCK_CLOEXEC, None)?;
    bind(made.as_raw_fd(), &SockaddrIn::from(address))?;
    if kind == SockType::Stream {
        listen(&made, Backlog::new(WAITING)?)?;
    }
    Ok(made)
}

/// The same in the network namespace of another process, which may have been prepared before: the route and the address
/// are made where they are not there. Forks, since a namespace is entered for good.
///
/// # Errors
/// EPERM without CAP_SYS_ADMIN, EADDRINUSE where somebody listens there already.
pub(crate) fn open_doors_of(pid: i32, ports: &[u16]) -> io::Result<Vec<OwnedFd>> {
    let namespace = std::fs::File::open(format!("/proc/{pid}/ns/net"))?;
    let (ours, theirs) = UnixStream::pair()?;
    match clone::fork(nix::sched::CloneFlags::empty())? {
        clone::Fork::Child => {
            drop(ours);
            let open = || -> io::Result<()> {
                nix::sched::setns(&namespace, nix::sched::CloneFlags::CLONE_NEWNET)?;
                match route_locally() {
                    Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {}
                    done => done?,
                }
                let doors = open_doors(ports)?;
                let beside: Vec<_> = doors.iter().map(AsFd::as_fd).collect();
                handover::send(&theirs, &[0; 4], &beside).map(drop)
            };
            if let Err(error) = open() {
                let errno = error.raw_os_error().unwrap_or(libc::EIO);
                let _ = handover::send(&theirs, &errno.to_ne_bytes(), &[]);
            }
            clone::exit_now(0)
        }
        clone::Fork::Parent { pidfd, .. } => {
            drop(theirs);
            let mut errno = [0; 4];
            let doors = handover::receive(&ours, &mut errno);
            super::super::process::wait_pidfd(&pidfd)?;
            match (doors?, i32::from_ne_bytes(errno)) {
                (Some(doors), 0) if doors.len() == ports.len() + 2 => Ok(doors),
                (_, errno) if errno != 0 => Err(io::Error::from_raw_os_error(errno)),
                _ => Err(io::Error::other("the doors did not arrive")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream, UdpSocket};

    /// In a network namespace of its own, which goes with its thread.
    #[allow(clippy::disallowed_methods, reason = "a namespace needs a thread that is used for nothing else")]
    fn inside<T: Send + 'static>(act: fn() -> T) -> T {
        let thread = std::thread::spawn(move || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)
                .expect("this test needs root: run `make test` as root");
            bring_up_loopback().unwrap();
            act()
        });
        thread.join().unwrap()
    }

    #[test]
    fn a_listener_is_reached_by_every_address_of_the_range_and_knows_which() {
        inside(|| {
            route_locally().unwrap();
            let mut doors = open_doors(&[80, 443]).unwrap();
            let listener = TcpListener::from(doors.pop().unwrap());
            for address in [Ipv4Addr::new(198, 18, 0, 2), Ipv4Addr::new(198, 19, 255, 255)] {
                let _client = TcpStream::connect((address, 443)).unwrap();
                let (accepted, _) = listener.accept().unwrap();
                assert_eq!(accepted.local_addr().unwrap().ip(), address);
            }
            // Of nothing else: the next range has no route.
            let beyond = TcpStream::connect("198.20.0.1:443").unwrap_err();
            assert_eq!(beyond.raw_os_error(), Some(libc::ENETUNREACH));
            assert_eq!(route_locally().unwrap_err().raw_os_error(), Some(libc::EEXIST));
        });
    }

    #[test]
    fn the_doors_come_in_their_order_and_nobody_shares_them() {
        inside(|| {
            let doors = open_doors(&[443, 80]).unwrap();
            let mut doors = doors.into_iter();
            let udp = UdpSocket::from(doors.next().unwrap());
            assert_eq!(udp.local_addr().unwrap(), NAME_SERVER.into());
            let ports: Vec<_> = doors.map(|door| TcpListener::from(door).local_addr().unwrap().to_string()).collect();
            assert_eq!(ports, ["127.0.0.1:53", "0.0.0.0:443", "0.0.0.0:80"]);
            let _doors = open_doors(&[443]).unwrap_err();
        });
    }
}
