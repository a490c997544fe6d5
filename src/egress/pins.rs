//! Stand-in addresses: each name that was asked for gets one, and behind it lie the addresses it really has. Pure.
//!
//! Keeps true: a stand-in belongs to one name as long as the run lives, and leads only to what was found for it.

use crate::os::sandboxed::STAND_INS;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

/// Names of one run. A wildcard whose domain answers for everything would otherwise fill memory.
const MOST_NAMES: usize = 4096;

/// How long the addresses of a name are taken for true.
const FRESH: Duration = Duration::from_secs(30);

/// The first two of the range stay free: they look like a network and its router.
const FIRST: u32 = 2;

/// A name and what lies behind it.
#[derive(Debug)]
pub(super) struct Pin {
    pub(super) name: String,
    pub(super) real: Vec<IpAddr>,
    found_at: Instant,
}

/// No more names.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("this run has asked for too many names")]
pub(super) struct Full;

/// All of one run.
#[derive(Debug, Default)]
pub(super) struct Pins {
    pins: Vec<Pin>,
    by_name: HashMap<String, usize>,
}

impl Pins {
    /// The stand-in of a name, where what lies behind it was found lately.
    pub(super) fn fresh(&self, name: &str, now: Instant) -> Option<Ipv4Addr> {
        let at = *self.by_name.get(name)?;
        let pin = &self.pins[at];
        let is_fresh = !pin.real.is_empty() && now.saturating_duration_since(pin.found_at) < FRESH;
        is_fresh.then(|| stand_in(at))
    }

    /// Puts these addresses behind a name, in place of those that lay there, and says its stand-in.
    pub(super) fn pin(&mut self, name: &str, real: Vec<IpAddr>, now: Instant) -> Result<Ipv4Addr, Full> {
        if let Some(at) = self.by_name.get(name) {
            let pin = &mut self.pins[*at];
            (pin.real, pin.found_at) = (real, now);
            return Ok(stand_in(*at));
        }
        if self.pins.len() >= MOST_NAMES {
            return Err(Full);
        }
        let at = self.pins.len();
        self.pins.push(Pin { name: name.to_owned(), real, found_at: now });
        self.by_name.insert(name.to_owned(), at);
        Ok(stand_in(at))
    }

    /// Takes away what lies behind a name that now leads nowhere it may.
    pub(super) fn empty(&mut self, name: &str) {
        if let Some(at) = self.by_name.get(name) {
            self.pins[*at].real.clear();
        }
    }

    /// What lies behind a stand-in.
    pub(super) fn behind(&self, address: Ipv4Addr) -> Option<&Pin> {
        let at = address.to_bits().checked_sub(STAND_INS.to_bits() + FIRST)?;
        self.pins.get(usize::try_from(at).ok()?)
    }
}

fn stand_in(at: usize) -> Ipv4Addr {
    // At most MOST_NAMES, far within the range.
    Ipv4Addr::from_bits(STAND_INS.to_bits() + FIRST + at as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    const TWO: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));

    #[test]
    fn a_name_keeps_its_stand_in_and_what_lies_behind_is_replaced() {
        let (mut pins, now) = (Pins::default(), Instant::now());
        let first = pins.pin("a.example", vec![ONE], now).unwrap();
        let second = pins.pin("b.example", vec![TWO], now).unwrap();
        assert_eq!((first, second), (Ipv4Addr::new(198, 18, 0, 2), Ipv4Addr::new(198, 18, 0, 3)));
        assert_eq!(pins.pin("a.example", vec![TWO], now), Ok(first));
        let pin = pins.behind(first).unwrap();
        assert_eq!((pin.name.as_str(), pin.real.as_slice()), ("a.example", [TWO].as_slice()));
    }

    #[test]
    fn what_was_found_is_fresh_for_a_while() {
        let (mut pins, now) = (Pins::default(), Instant::now());
        let address = pins.pin("a.example", vec![ONE], now).unwrap();
        assert_eq!(pins.fresh("a.example", now + FRESH - Duration::from_millis(1)), Some(address));
        assert_eq!(pins.fresh("a.example", now + FRESH), None);
        assert_eq!(pins.fresh("b.example", now), None);
        pins.empty("a.example");
        assert_eq!(pins.fresh("a.example", now), None);
        assert!(pins.behind(address).unwrap().real.is_empty());
    }

    #[test]
    fn an_address_that_stands_for_nothing_leads_nowhere() {
        let mut pins = Pins::default();
        pins.pin("a.example", vec![ONE], Instant::now()).unwrap();
        for octets in [[198, 18, 0, 0], [198, 18, 0, 1], [198, 18, 0, 3], [198, 19, 255, 255], [127, 0, 0, 1], [0; 4]] {
            assert!(pins.behind(octets.into()).is_none(), "{octets:?}");
        }
    }

    #[test]
    fn names_are_bounded_and_those_known_go_on() {
        let (mut pins, now) = (Pins::default(), Instant::now());
        for n in 0..MOST_NAMES {
            let address = pins.pin(&format!("{n}.example"), vec![ONE], now).unwrap();
            assert!(crate::egress::addresses::is_public(address.into()).is_err(), "{address} lies outside the range");
        }
        assert_eq!(pins.pin("more.example", vec![ONE], now), Err(Full));
        assert!(pins.pin("7.example", vec![TWO], now).is_ok());
    }
}
