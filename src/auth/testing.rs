//! For the tests of this room: a clock that stands still, a journal in a folder that goes with the test.

use crate::journal::{Journal, JournaldUse};
use crate::model::{Clock, SystemClock, UnixMillis};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A clock that moves when it is told to; time and ticks can be told apart.
#[derive(Default)]
pub(super) struct Held {
    now: AtomicU64,
    ticks: AtomicU64,
}

impl Held {
    /// Both move on.
    pub(super) fn advance(&self, ms: u64) {
        self.now.fetch_add(ms, Ordering::SeqCst);
        self.ticks.fetch_add(ms, Ordering::SeqCst);
    }

    /// Somebody sets the clock; ticks go on.
    pub(super) fn set(&self, now: UnixMillis) {
        self.now.store(now, Ordering::SeqCst);
    }
}

impl Clock for Held {
    fn now(&self) -> UnixMillis {
        self.now.load(Ordering::SeqCst)
    }

    fn ticks(&self) -> u64 {
        self.ticks.load(Ordering::SeqCst)
    }
}

/// A folder that is gone when it is dropped.
pub(super) struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A journal of its own.
pub(super) fn journal() -> (Journal, Folder) {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let name = format!("vambrace-auth-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::SeqCst));
    let folder = std::env::temp_dir().join(name);
    let journal = Journal::open(&folder, Arc::new(SystemClock), JournaldUse::Off).unwrap();
    (journal, Folder(folder))
}
