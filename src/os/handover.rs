//! Descriptors handed to another process over a unix socket (SCM_RIGHTS, unix(7)).

use super::system::handover::{MOST, RECEIVE, SEND, arrived};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, recvmsg, sendmsg,
};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Sends these bytes, or as many of them as the socket takes, with these descriptors beside the first; says how many.
///
/// # Errors
/// QuotaExceeded, and nothing is sent, where more descriptors of this user are under way than it may have open
/// (ETOOMANYREFS of unix(7)): the other side has yet to take some.
pub(crate) fn send(socket: &impl AsFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    if !beside.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::other(format!("more than {MOST} descriptors at once")));
    }
    sendmsg(socket, &[IoSlice::new(bytes)], &mut beside, SEND).map_err(|e| match e {
        rustix::io::Errno::TOOMANYREFS => io::Error::from(io::ErrorKind::QuotaExceeded),
        other => other.into(),
    })
}

/// Receives exactly these many bytes and the descriptors beside them; `None` where the other end is closed.
pub(crate) fn receive(socket: &impl AsFd, bytes: &mut [u8]) -> io::Result<Option<Vec<OwnedFd>>> {
    match take(socket, bytes, RecvFlags::WAITALL)? {
        (0, _) => Ok(None),
        (received, descriptors) if received == bytes.len() => Ok(Some(descriptors)),
        _ => Err(io::Error::other("a message came in part")),
    }
}

/// Receives at most these many bytes, as they are there, and the descriptors beside them, as many as this process may
/// still open: the kernel closes the rest. No bytes are the end.
///
/// # Errors
/// WouldBlock where the socket does not block and nothing is there.
pub(crate) fn receive_some(socket: &impl AsFd, bytes: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    take(socket, bytes, RecvFlags::empty())
}

fn take(socket: &impl AsFd, bytes: &mut [u8], flags: RecvFlags) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut beside = RecvAncillaryBuffer::new(&mut space);
    let flags = flags | RECEIVE;
    let received =
        rustix::io::retry_on_intr(|| recvmsg(socket, &mut [IoSliceMut::new(bytes)], &mut beside, flags))?.bytes;
    let mut descriptors = Vec::new();
    for message in beside.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            for descriptor in rights {
                descriptors.push(arrived(descriptor)?);
            }
        }
    }
    Ok((received, descriptors))
}
