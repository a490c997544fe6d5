//! Time, handed in by the composition root so that tests can hold it still.

use std::sync::LazyLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970-01-01 UTC.
pub(crate) type UnixMillis = u64;

/// Where the time comes from.
pub(crate) trait Clock: Send + Sync {
    /// Now, in Unix milliseconds.
    fn now(&self) -> UnixMillis;

    /// Milliseconds since some point of this process's life; never set back, not even by the operator.
    fn ticks(&self) -> u64;
}

/// The host's clock.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> UnixMillis {
        // A clock before 1970 reads as 0: signatures are then stale and refused, which is the safe side.
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
    }

    fn ticks(&self) -> u64 {
        static BEGINNING: LazyLock<Instant> = LazyLock::new(Instant::now);
        BEGINNING.elapsed().as_millis() as u64
    }
}

/// A clock that is not carried along when the host's is set forth: what is removed for its age is not removed because somebody
/// has set the clock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Steady {
    began: UnixMillis,
    ticks: u64,
}

impl Steady {
    /// Begins at what the clock says.
    pub(crate) fn begin(clock: &dyn Clock) -> Self {
        Steady { began: clock.now(), ticks: clock.ticks() }
    }

    /// Milliseconds since the beginning.
    pub(crate) fn elapsed(self, clock: &dyn Clock) -> u64 {
        clock.ticks().saturating_sub(self.ticks)
    }

    /// Now, but never later than at the beginning and what has gone by since. One that is set back is followed: then less is
    /// old.
    pub(crate) fn now(self, clock: &dyn Clock) -> UnixMillis {
        clock.now().min(self.began.saturating_add(self.elapsed(clock)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Set(UnixMillis, u64);

    impl Clock for Set {
        fn now(&self) -> UnixMillis {
            self.0
        }

        fn ticks(&self) -> u64 {
            self.1
        }
    }

    #[test]
    fn a_steady_clock_goes_with_the_time_that_has_gone_by_and_not_with_what_the_host_is_set_to() {
        let steady = Steady::begin(&Set(1_000_000, 50));
        assert_eq!(steady.now(&Set(1_000_300, 350)), 1_000_300);
        assert_eq!(steady.now(&Set(9_000_000_000, 350)), 1_000_300);
        assert_eq!(steady.now(&Set(10, 350)), 10);
        assert_eq!(steady.elapsed(&Set(9_000_000_000, 350)), 300);
    }
}
