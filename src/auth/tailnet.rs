//! Who a tailnet peer is, by the word of the tailscaled of this host (its local API, `whois`).
//!
//! Asked of the connection's own address, never of a header: a header can be written by any process that
//! reaches the port, the address of a connection over the tailnet cannot.

use super::proxy::AllowedUsers;
use crate::model::ScopeSet;
use crate::wire;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

/// How long tailscaled may take, and how much it may say.
const PATIENCE: Duration = Duration::from_secs(3);
const MOST: u64 = 256 << 10;

/// What the operator says of tailnet users.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TailnetRules {
    /// tailscaled's socket.
    pub(crate) socket: PathBuf,
    pub(crate) users: AllowedUsers,
    /// What such a user may hold without a device, and at most with one.
    pub(crate) scopes: ScopeSet,
}

/// Whether an address is one that a tailnet gives: 100.64.0.0/10 or fd7a:115c:a1e0::/48.
pub(crate) fn is_tailnet(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.octets()[0] == 100 && v4.octets()[1] & 0xc0 == 64,
        IpAddr::V6(v6) => v6.segments()[..3] == [0xfd7a, 0x115c, 0xa1e0],
    }
}

impl TailnetRules {
    /// The login of the user at this address, as tailscaled knows it; `None` where it knows nobody there.
    ///
    /// # Errors
    /// Where it cannot be asked.
    pub(super) async fn whois(&self, peer: SocketAddr) -> io::Result<Option<String>> {
        timeout(PATIENCE, self.ask(peer)).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }

    async fn ask(&self, peer: SocketAddr) -> io::Result<Option<String>> {
        let mut stream = UnixStream::connect(&self.socket).await?;
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        // HTTP/1.0: the answer is not chunked and ends with the connection.
        let request = format!(
            "GET /localapi/v0/whois?addr={} HTTP/1.0\r\nHost: local-tailscaled.sock\r\n\r\n",
            peer.to_string().replace('[', "%5B").replace(']', "%5D")
        );
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(MOST).read_to_end(&mut answer).await?;
        let odd = || io::Error::other("tailscaled gave an answer that is not understood");
        let split = answer.windows(4).position(|w| w == b"\r\n\r\n").ok_or_else(odd)?;
        let status = answer.get(9..12).ok_or_else(odd)?;
        match status {
            b"200" => wire::tailnet_login(&answer[split + 4..]).map(Some).ok_or_else(odd),
            b"404" => Ok(None),
            _ => Err(odd()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tailnet_address_is_one_of_two_networks() {
        for (ip, is) in [
            ("100.64.0.1", true),
            ("100.127.255.255", true),
            ("::ffff:100.100.1.1", true),
            ("fd7a:115c:a1e0::1", true),
            ("100.63.0.1", false),
            ("100.128.0.1", false),
            ("127.0.0.1", false),
            ("fd7a:115c:a1e1::1", false),
        ] {
            assert_eq!(is_tailnet(ip.parse().unwrap()), is, "{ip}");
        }
    }
}
