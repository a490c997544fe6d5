//! The activity log: evidence, not a debug log. Append-only, hash-chained, kept before the act.
//!
//! Each record goes to a file of ours and, where there is one, to journald. A record that cannot be
//! written means the act it speaks of does not happen. `chain` is the format, `file` the segments on
//! disk, `journald` the native protocol of systemd's journal, `catalog` what it says beside a record.

mod catalog;
mod chain;
mod file;
mod journald;
mod record;

pub(crate) use catalog::{catalog, events};
pub(crate) use chain::{Broken, Entry};
pub(crate) use file::verify_folder;
pub(crate) use record::{Event, Record};

use crate::model::{Clock, JournalQuery, UnixMillis};
use crate::redact::Redactor;
use file::Segments;
use journald::Journald;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

/// Whether records also go to journald.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum JournaldUse {
    /// Where its socket is there; a failure is logged and counted.
    #[default]
    Auto,
    /// Always; a failure refuses the act.
    Required,
    Off,
}

/// Proof that a record stands; there is no other way to come by one.
#[derive(Debug)]
#[must_use = "an act needs the receipt of its record"]
pub(crate) struct Receipt {
    seq: u64,
}

impl Receipt {
    /// The sequence number of the record.
    pub(crate) fn seq(&self) -> u64 {
        self.seq
    }
}

/// Why a record does not stand.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JournalFault {
    #[error("cannot open the journal {path}: {cause}")]
    Open { path: PathBuf, cause: io::Error },
    #[error("cannot write the journal: {0}")]
    Write(io::Error),
    #[error("journald is required and did not take the record: {0}")]
    Journald(io::Error),
    #[error("cannot read the journal: {0}")]
    Read(io::Error),
}

type Follower = Box<dyn Fn(&Entry) + Send>;

/// The journal of one gateway. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Journal {
    inner: Arc<Inner>,
}

struct Inner {
    clock: Arc<dyn Clock>,
    segments: Mutex<Segments>,
    journald: Option<Journald>,
    required: bool,
    /// Set when something was written since the last sync.
    unsynced: AtomicBool,
    /// Covers the secrets that a record would show.
    cover: RwLock<Redactor>,
    follower: Mutex<Option<Follower>>,
}

impl Journal {
    /// Opens the journal in its folder, mending a last line that a crash tore.
    ///
    /// # Errors
    /// Where the folder or its newest segment cannot be used, or journald is required and absent.
    pub(crate) fn open(folder: &Path, clock: Arc<dyn Clock>, journald: JournaldUse) -> Result<Self, JournalFault> {
        let open = |cause| JournalFault::Open { path: folder.to_owned(), cause };
        let segments = Segments::open(folder).map_err(open)?;
        let sink = match journald {
            JournaldUse::Off => None,
            JournaldUse::Auto => Journald::connect().ok(),
            JournaldUse::Required => Some(Journald::connect().map_err(JournalFault::Journald)?),
        };
        let inner = Inner {
            clock,
            segments: Mutex::new(segments),
            journald: sink,
            required: journald == JournaldUse::Required,
            unsynced: AtomicBool::new(false),
            cover: RwLock::default(),
            follower: Mutex::new(None),
        };
        Ok(Journal { inner: Arc::new(inner) })
    }

    /// Appends a record. It has reached the kernel when this returns, so it survives the death of this process;
    /// `sync` makes it survive the death of the host.
    ///
    /// # Errors
    /// Where the file, or a required journald, did not take it.
    pub(crate) fn append(&self, record: Record) -> Result<Receipt, JournalFault> {
        let inner = &self.inner;
        let mut segments = inner.segments.lock().unwrap_or_else(PoisonError::into_inner);
        let record = record.covered(&inner.cover.read().unwrap_or_else(PoisonError::into_inner));
        let entry = segments.next(inner.clock.now(), record);
        // journald first where it is required: a record must not stand in the file for an act that is refused.
        if let Some(journald) = &inner.journald {
            match journald.send(&entry) {
                Err(e) if inner.required => return Err(JournalFault::Journald(e)),
                Err(error) => tracing::warn!(%error, seq = entry.seq, "journald did not take a record"),
                Ok(()) => {}
            }
        }
        segments.append(&entry).map_err(JournalFault::Write)?;
        inner.unsynced.store(true, Ordering::Release);
        // Still under the lock: followers see entries in their order.
        if let Some(follower) = inner.follower.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            follower(&entry);
        }
        drop(segments);
        Ok(Receipt { seq: entry.seq })
    }

    /// Covers these secrets in every record from now on.
    pub(crate) fn cover(&self, redactor: Redactor) {
        *self.inner.cover.write().unwrap_or_else(PoisonError::into_inner) = redactor;
    }

    /// Calls this with every record from now on.
    pub(crate) fn follow(&self, follower: Follower) {
        *self.inner.follower.lock().unwrap_or_else(PoisonError::into_inner) = Some(follower);
    }

    /// Brings what was written to the disk. Called about once a second, off the async threads.
    pub(crate) fn sync(&self) -> io::Result<()> {
        if !self.inner.unsynced.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        let file = self.inner.segments.lock().unwrap_or_else(PoisonError::into_inner).handle()?;
        file.sync_data()
    }

    /// The latest entries that the query wants, oldest first.
    pub(crate) fn list(&self, query: &JournalQuery) -> Result<Vec<Entry>, JournalFault> {
        let folder = self.folder();
        file::list_folder(&folder, query).map_err(JournalFault::Read)
    }

    /// Walks the whole chain.
    ///
    /// # Errors
    /// The first place where it does not hold.
    pub(crate) fn verify(&self) -> Result<u64, Broken> {
        verify_folder(&self.folder())
    }

    /// Whether records go to journald as well.
    pub(crate) fn has_journald(&self) -> bool {
        self.inner.journald.is_some()
    }

    fn folder(&self) -> PathBuf {
        self.inner.segments.lock().unwrap_or_else(PoisonError::into_inner).folder().to_owned()
    }
}

/// Reads entries without a gateway, for the command line.
pub(crate) fn list_folder(folder: &Path, query: &JournalQuery) -> io::Result<Vec<Entry>> {
    file::list_folder(folder, query)
}

/// A point in time as RFC 3339 in UTC, to the millisecond.
pub(crate) fn rfc3339(at: UnixMillis) -> String {
    chain::rfc3339(at)
}
