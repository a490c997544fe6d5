//! How many strangers wait at the door, in all and from each address.
//!
//! A stranger is a connection that has not authenticated. The table holds addresses with a stranger
//! now, so it is bounded by the number of strangers.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// Connections from one address that have not become a WebSocket yet, and in all.
const MOST_FROM_ONE: usize = 256;
const MOST_IN_ALL: usize = 4096;

/// WebSockets from one address that have not authenticated (protocol section 1.4).
const MOST_SOCKETS_FROM_ONE: usize = 32;

#[derive(Default)]
pub(super) struct Crowd(Mutex<Counts>);

#[derive(Default)]
struct Counts {
    all: usize,
    connections: HashMap<IpAddr, usize>,
    sockets: HashMap<IpAddr, usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Connection,
    Socket,
}

/// A stranger's place; it is free again when this is dropped.
pub(super) struct Place {
    crowd: Arc<Crowd>,
    address: Option<IpAddr>,
    kind: Kind,
}

impl Crowd {
    /// A new connection; `None` where there are too many.
    pub(super) fn arrive(self: &Arc<Self>, address: Option<IpAddr>) -> Option<Place> {
        self.take(address, Kind::Connection)
    }

    /// A new WebSocket that has not authenticated; `None` where there are too many.
    pub(super) fn upgrade(self: &Arc<Self>, address: Option<IpAddr>) -> Option<Place> {
        self.take(address, Kind::Socket)
    }

    fn take(self: &Arc<Self>, address: Option<IpAddr>, kind: Kind) -> Option<Place> {
        if let Some(ip) = address {
            let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if counts.all >= MOST_IN_ALL {
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

impl Counts {
    fn table(&mut self, kind: Kind) -> (&mut HashMap<IpAddr, usize>, usize) {
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
    fn one_address_fills_its_own_places_only_and_leaving_frees_them() {
        let crowd = Arc::new(Crowd::default());
        let (one, two) = ("127.0.0.1".parse().ok(), "127.0.0.2".parse().ok());
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
