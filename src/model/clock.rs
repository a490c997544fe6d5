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
