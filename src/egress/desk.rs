//! What all tasks of one run share: the list, the pins, who was told of what.

use super::addresses;
use super::allow::Allowlist;
use super::order::{Order, Report};
use super::outbox::Outbox;
use super::pins::Pins;
use crate::os;
use std::cell::RefCell;
use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Refused names that are told one by one.
const MOST_NAMES_TOLD: usize = 256;

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
