//! How many strangers wait at the door, in all and from each address.
//!
//! A stranger is a connection that has not authenticated. The table holds addresses with a stranger
//! now, so it is bounded by the number of strangers.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

/// Whose connection it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Who {
    At(IpAddr),
    /// On the unix socket.
    Uid(u32),
}
use std::sync::{Arc, Mutex, PoisonError};

/// Connections from one address that have not become a WebSocket yet, and in all.
const MOST_FROM_ONE: usize = 256;
const MOST_IN_ALL: usize = 4096;

/// Of those, places that only this host takes: strangers from elsewhere do not shut out the operator.
const KEPT_FOR_LOOPBACK: usize = 512;

/// WebSockets from one address that have not authenticated (protocol section 1.4).
const MOST_SOCKETS_FROM_ONE: usize = 32;

#[derive(Default)]
pub(super) struct Crowd(Mutex<Counts>);

#[derive(Default)]
struct Counts {
    all: usize,
    connections: HashMap<Who, usize>,
    sockets: HashMap<Who, usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Connection,
    Socket,
}

/// A stranger's place; it is free again when this is dropped.
pub(super) struct Place {
    crowd: Arc<Crowd>,
    address: Option<Who>,
    kind: Kind,
}

impl Crowd {
    /// A new connection; `None` where there are too many.
    pub(super) fn arrive(self: &Arc<Self>, address: Option<Who>) -> Option<Place> {
        self.take(address, Kind::Connection)
    }

    /// A new WebSocket that has not authenticated; `None` where there are too many.
    pub(super) fn upgrade(self: &Arc<Self>, address: Option<Who>) -> Option<Place> {
        self.take(address, Kind::Socket)
    }

    fn take(self: &Arc<Self>, address: Option<Who>, kind: Kind) -> Option<Place> {
        let address = address.map(network);
        if let Some(ip) = address {
            let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let most = if ip.is_of_this_host() { MOST_IN_ALL } else { MOST_IN_ALL - KEPT_FOR_LOOPBACK };
            if counts.all >= most {
                return None;
            }
            let (table, most) = counts.table(kind);
            let count = table.entry(ip).or_default();
            if *count >= most {
                return None;
            }
            *count += 1;
            counts.all += 1;
        }
        Some(Place { crowd: Arc::clone(self), address, kind })
    }
}

impl Who {
    fn is_of_this_host(self) -> bool {
        match self {
            Who::At(ip) => ip.is_loopback(),
            Who::Uid(_) => true,
        }
    }
}

/// Who has one IPv6 address has the whole /64.
fn network(who: Who) -> Who {
    match who {
        Who::Uid(uid) => Who::Uid(uid),
        Who::At(ip) => Who::At(match ip.to_canonical() {
            IpAddr::V6(v6) if !v6.is_loopback() => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
            other => other,
        }),
    }
}

impl Counts {
    fn table(&mut self, kind: Kind) -> (&mut HashMap<Who, usize>, usize) {
        match kind {
            Kind::Connection => (&mut self.connections, MOST_FROM_ONE),
            Kind::Socket => (&mut self.sockets, MOST_SOCKETS_FROM_ONE),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(ip) = self.address else { return };
        let mut counts = self.crowd.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.all -= 1;
        let (table, _) = counts.table(self.kind);
        if let Some(count) = table.get_mut(&ip) {
            *count -= 1;
            if *count == 0 {
                table.remove(&ip);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_network_of_many_addresses_is_one_and_this_host_keeps_its_places() {
        let crowd = Arc::new(Crowd::default());
        let arrive = |text: String| crowd.arrive(text.parse().ok().map(Who::At));
        let same: Vec<_> = (0..400).filter_map(|n| arrive(format!("2001:db8::{n:x}"))).collect();
        assert_eq!(same.len(), MOST_FROM_ONE);
        let many: Vec<_> =
            (0..400_000).filter_map(|n| arrive(format!("2001:db8:{:x}:{:x}::1", n >> 16, n & 0xffff))).collect();
        assert_eq!(same.len() + many.len(), MOST_IN_ALL - KEPT_FOR_LOOPBACK);
        assert!(arrive("127.0.0.1".into()).is_some());
        let one_user: Vec<_> = (0..1000).filter_map(|_| crowd.arrive(Some(Who::Uid(7)))).collect();
        assert!(one_user.len() == MOST_FROM_ONE && crowd.arrive(None).is_some());
    }

    #[test]
    fn one_address_fills_its_own_places_only_and_leaving_frees_them() {
        let crowd = Arc::new(Crowd::default());
        let at = |text: &str| text.parse().ok().map(Who::At);
        let (one, two) = (at("127.0.0.1"), at("127.0.0.2"));
        let mut places: Vec<_> = std::iter::from_fn(|| crowd.upgrade(one)).collect();
        assert_eq!(places.len(), MOST_SOCKETS_FROM_ONE);
        assert!(crowd.upgrade(two).is_some());
        assert!(crowd.upgrade(None).is_some());
        places.pop();
        assert!(crowd.upgrade(one).is_some());
        drop(places);
        let counts = crowd.0.lock().unwrap();
        assert!(counts.sockets.is_empty() && counts.all == 0);
    }
}
