//! Who is at the other end of a connection, by the kernel's word.

use std::net::SocketAddr;

/// The uid that owns the other end of a loopback TCP connection; `None` where the kernel does not say.
///
/// On a kernel that cannot be asked nobody is taken for local, which is the safe side.
pub(crate) fn owner_of_peer(theirs: SocketAddr, ours: SocketAddr) -> Option<u32> {
    #[cfg(target_os = "linux")]
    return super::linux::sock_diag::owner_of_peer(theirs, ours).ok().flatten();
    #[cfg(not(target_os = "linux"))]
    return None;
}
