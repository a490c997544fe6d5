//! The numbers of sandboxes that are there at a time: of each come a uid and the name of a control group.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

/// How many there are.
pub(super) const MOST: u32 = 1024;

/// Those that are taken.
#[derive(Debug, Default)]
pub(super) struct Slots(Rc<RefCell<BTreeSet<u32>>>);

/// One number, nobody else's until it is dropped: not before everything that goes by it is gone.
#[derive(Debug)]
pub(super) struct Slot {
    number: u32,
    taken: Rc<RefCell<BTreeSet<u32>>>,
}

impl Slots {
    /// The lowest that is free.
    pub(super) fn take(&self) -> Option<Slot> {
        let free = (0..MOST).find(|number| !self.0.borrow().contains(number))?;
        self.0.borrow_mut().insert(free);
        Some(Slot { number: free, taken: Rc::clone(&self.0) })
    }
}

impl Slot {
    pub(super) fn number(&self) -> u32 {
        self.number
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.taken.borrow_mut().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_one_sandboxes_until_it_is_dropped() {
        let slots = Slots::default();
        let held: Vec<Slot> = (0..MOST).map_while(|_| slots.take()).collect();
        assert_eq!(held.iter().map(Slot::number).collect::<Vec<_>>(), (0..MOST).collect::<Vec<_>>());
        assert!(slots.take().is_none());
        drop(held);
        assert_eq!(slots.take().map(|slot| slot.number()), Some(0));
    }
}
