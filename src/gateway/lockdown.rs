//! Whether everything is locked down. Kept on the disk before it is true, so that a restart changes nothing.
//!
//! The rules refuse commands by it, and the runner is told: what was permitted a moment before is stopped or refused there.

use super::Gateway;
use crate::policy;
use crate::store::{Name, Store, StoreFault};
use std::sync::atomic::{AtomicBool, Ordering};

/// What stands in its row: text, for whoever looks into a backup.
const ON: &[u8] = b"on";
const OFF: &[u8] = b"off";

/// The switch.
#[derive(Debug)]
pub(super) struct Lockdown(AtomicBool);

impl Lockdown {
    /// Reads how it was left. What cannot be understood counts as on.
    pub(super) fn open(store: &Store) -> Result<Self, StoreFault> {
        let kept = store.load(Name::Lockdown)?;
        Ok(Lockdown(AtomicBool::new(kept.is_some_and(|kept| kept.expose().as_slice() != OFF))))
    }

    /// As the rules take it.
    pub(super) fn state(&self) -> policy::Lockdown {
        if self.is_on() { policy::Lockdown::On } else { policy::Lockdown::Off }
    }

    pub(super) fn is_on(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

impl Gateway {
    /// Sets the switch, on the disk first when it opens and last when it closes: a failure leaves everything locked.
    pub(super) fn set_lockdown(&self, on: bool) -> Result<(), StoreFault> {
        let store = self.parts.secrets.store();
        if on {
            self.lockdown.0.store(true, Ordering::Release);
            self.parts.runners.hold(true);
            return store.save(Name::Lockdown, ON);
        }
        store.save(Name::Lockdown, OFF)?;
        self.lockdown.0.store(false, Ordering::Release);
        self.parts.runners.hold(false);
        Ok(())
    }
}
