//! What all tasks of one run share: the list, the pins, who was told of what.

use super::addresses;
use super::allow::Allowlist;
use super::order::{Order, Report};
use super::outbox::Outbox;
use super::pins::Pins;
use crate::os;
use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until};

/// Refused names that are told one by one.
const MOST_NAMES_TOLD: usize = 256;

/// Connections that may be dialled at once, and how often one more after them. Each leaves a record, so whoever dials in a
/// loop waits instead of filling the host's disk.
const BURST: u32 = 256;
const PACE: Duration = Duration::from_millis(100);

/// Questions to the host's resolver at once. Each takes a thread until the resolver gives up.
pub(super) const MOST_LOOKUPS: usize = 16;

#[derive(Debug)]
pub(super) struct Desk {
    pub(super) list: Allowlist,
    pub(super) pins: RefCell<Pins>,
    pub(super) outbox: Outbox,
    pub(super) lookups: Arc<Semaphore>,
    refused: Vec<IpAddr>,
    told: RefCell<HashSet<String>>,
    /// When the next connection would be due if none had been dialled early.
    due: Cell<Option<Instant>>,
}

impl Desk {
    pub(super) fn new(order: Order) -> Self {
        let (domains, refused) = order.into_parts();
        Desk {
            list: Allowlist::new(domains),
            pins: RefCell::default(),
            outbox: Outbox::default(),
            lookups: Arc::new(Semaphore::new(MOST_LOOKUPS)),
            refused,
            told: RefCell::default(),
            due: Cell::default(),
        }
    }

    /// Waits for the turn of one more connection.
    pub(super) async fn turn(&self) {
        let now = Instant::now();
        let earliest = now.checked_sub(BURST * PACE).unwrap_or(now);
        let due = self.due.get().unwrap_or(earliest).max(earliest) + PACE;
        self.due.set(Some(due));
        if due > now {
            sleep_until(due).await;
        }
    }

    /// Tells of a refused name, once.
    pub(super) fn tell_refused(&self, name: &str, why: &str) {
        let name = if name.is_empty() { "." } else { name };
        let mut told = self.told.borrow_mut();
        if told.contains(name) {
            return;
        }
        if told.len() >= MOST_NAMES_TOLD {
            self.outbox.drop_one();
            return;
        }
        told.insert(name.to_owned());
        self.outbox.say(Report::RefusedName { name: name.to_owned(), why: why.to_owned() });
    }

    /// Of the addresses found for a name those that may be reached.
    pub(super) fn sift(&self, found: &[IpAddr]) -> Result<Vec<IpAddr>, &'static str> {
        addresses::sift(found, &self.hosts())
    }

    /// Whether an address may be reached at this moment.
    pub(super) fn judge(&self, address: IpAddr) -> Result<(), &'static str> {
        addresses::judge(address, &self.hosts())
    }

    /// The host's own: those of the order, and those that it has by now (DHCP, a VPN that came up).
    fn hosts(&self) -> Vec<IpAddr> {
        let mut hosts = os::host::addresses();
        hosts.extend(&self.refused);
        hosts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_beyond_a_burst_wait_for_their_turn() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let desk = Desk::new(Order::new(Vec::new(), Vec::new()).unwrap());
        // Whether it is there at once; it is polled once before no time at all has passed.
        let is_ready = || runtime.block_on(async { tokio::time::timeout(Duration::ZERO, desk.turn()).await.is_ok() });
        assert!((0..BURST).all(|_| is_ready()));
        // A minute of turns ahead: no delay of this test makes them all due.
        assert!(!(0..600).all(|_| is_ready()));
    }
}
