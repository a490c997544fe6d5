//! Addresses in the network of a sandbox that may reach domains.

use std::net::{Ipv4Addr, SocketAddrV4};

/// Where stand-in addresses come from: the range for measurements between networks (RFC 2544), a /15, which no host has and
/// no network forwards. The sandbox is given it whole (`linux/netns.rs`); the egress process gives its addresses to names.
pub(crate) const STAND_INS: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 0);

/// The name server of such a sandbox.
pub(crate) const NAME_SERVER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 53);
