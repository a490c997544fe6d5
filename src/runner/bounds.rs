//! What a run inside a container may still say, and until when: its runner is there, and not believed.

use super::order::{Order, Report, WINDOW};
use crate::model::SandboxProfile;
use std::time::Duration;
use tokio::time::Instant;

/// How long after its deadline a run may take to be reported as ended.
pub(super) const GRACE: Duration = Duration::from_secs(15);

pub(super) struct Bounds {
    credit: u64,
    pub(super) output_left: u64,
    pub(super) deadline: Instant,
    pub(super) held: Option<Instant>,
    /// It was told to end.
    pub(super) is_hurried: bool,
    /// Input that was sent and not said to be taken.
    input: u64,
}

impl Bounds {
    pub(super) fn new(profile: &SandboxProfile) -> Self {
        let patience = profile.limits.timeout.saturating_add(GRACE).min(Duration::from_secs(10 * 365 * 86_400));
        Bounds {
            credit: WINDOW.into(),
            output_left: profile.limits.output_bytes,
            deadline: Instant::now() + patience,
            held: None,
            is_hurried: false,
            input: 0,
        }
    }

    /// The command begins now, whatever it took to get here.
    pub(super) fn begin(&mut self, profile: &SandboxProfile) {
        if !self.is_hurried {
            self.deadline = Bounds::new(profile).deadline;
        }
    }

    /// It was told to end, and has little time to say that it has.
    pub(super) fn hurry(&mut self) {
        self.is_hurried = true;
        self.deadline = self.deadline.min(Instant::now() + GRACE);
    }

    /// Notes what an order allows, and passes it on where it is for this run alone. None is the end of all orders.
    pub(super) fn pass_on(&mut self, order: Option<Order>, send: impl FnOnce(Order)) {
        match order {
            None | Some(Order::Cancel) => {
                self.hurry();
                send(Order::Cancel);
            }
            // These are for all containers, and were told to each.
            Some(Order::Hold(true)) => self.held = self.held.or_else(|| Some(Instant::now())),
            Some(Order::Hold(false)) => {
                if let Some(since) = self.held.take() {
                    self.deadline += since.elapsed();
                }
            }
            Some(Order::LockDown) => self.hurry(),
            Some(Order::Credit(bytes)) => {
                self.credit = (self.credit + u64::from(bytes)).min(WINDOW.into());
                send(Order::Credit(bytes));
            }
            Some(Order::Input(bytes)) => {
                self.input += bytes.len() as u64;
                send(Order::Input(bytes));
            }
            Some(order @ (Order::InputEnd | Order::Resize(_))) => send(order),
            // Nothing of a run that goes on.
            Some(Order::Start(_) | Order::Secret(_) | Order::Discard(_) | Order::Kept(_) | Order::Look(_)) => {}
        }
    }

    /// Whether what was said may be said.
    pub(super) fn allow(&mut self, report: &Report) -> bool {
        match report {
            Report::Stdout(bytes) | Report::Stderr(bytes) => {
                let length = bytes.len() as u64;
                let is_allowed = length > 0 && length <= self.credit && length <= self.output_left;
                self.credit = self.credit.saturating_sub(length);
                self.output_left = self.output_left.saturating_sub(length);
                is_allowed
            }
            Report::InputTaken(bytes) => {
                let bytes = u64::from(*bytes);
                let is_allowed = bytes <= self.input;
                self.input = self.input.saturating_sub(bytes);
                is_allowed
            }
            Report::Hello(_) | Report::Network(_) | Report::Kept(_) | Report::Looked(_) | Report::Finished(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_says_no_more_than_it_was_allowed_and_takes_no_input_that_was_not_sent() {
        let mut bounds = Bounds::new(&SandboxProfile::default());
        let window = WINDOW as usize;
        assert!(!bounds.allow(&Report::Stdout(vec![])), "an empty piece is no output");
        assert!(bounds.allow(&Report::Stdout(vec![0; window])));
        assert!(!bounds.allow(&Report::Stderr(vec![0])), "beyond its credit");
        let mut sent = Vec::new();
        bounds.pass_on(Some(Order::Credit(10)), |order| sent.push(order));
        assert!(bounds.allow(&Report::Stderr(vec![0; 10])) && !bounds.allow(&Report::Stdout(vec![0])));
        bounds.pass_on(Some(Order::Input(vec![0; 5])), |order| sent.push(order));
        assert!(bounds.allow(&Report::InputTaken(5)) && !bounds.allow(&Report::InputTaken(1)));
        bounds.pass_on(Some(Order::Discard("x".into())), |order| sent.push(order));
        assert_eq!(sent, [Order::Credit(10), Order::Input(vec![0; 5])]);
        let before = bounds.deadline;
        bounds.pass_on(None, |order| sent.push(order));
        assert!(bounds.is_hurried && bounds.deadline < before && sent.last() == Some(&Order::Cancel));
    }
}
