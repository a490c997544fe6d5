//! What the store as a whole is at one moment, so that a row put back, taken out or slipped in is noticed, and a whole
//! file put back as well.
//!
//! The ledger stands sealed beside the rows and changes with them: how many changes there were, how many rows there
//! are, and the sum of their digests. The counter is a file of its own that holds the number of changes; it is written
//! after each of them, so it is never ahead of the rows, and rows that are behind it were put back.

use super::StoreFault;
use super::seal::{Purpose, about, open_message, seal_message};
use crate::crypto::SealingKey;
use crate::model::Secret;
use crate::os;
use crate::os::memory::Locked;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// Bytes of a ledger's content.
const LEDGER: usize = 8 + 8 + 32 + 32;

/// The whole of the rows, in a few numbers.
#[derive(Clone)]
pub(super) struct Ledger {
    /// Changes since the store was made.
    pub(super) generation: u64,
    pub(super) rows: u64,
    /// The digests of all rows, added up bit by bit (XOR). They are keyed and this is sealed: nobody else can choose rows
    /// that cancel out.
    pub(super) sum: [u8; 32],
    /// Seals the counter; stays for the store's life, so that a rotation cannot part the two.
    counter_key: Secret<[u8; 32]>,
}

impl Ledger {
    /// The ledger of a store without rows.
    pub(super) fn new() -> Self {
        Ledger { generation: 0, rows: 0, sum: [0; 32], counter_key: Secret::new(os::host::random()) }
    }

    pub(super) fn encode(&self) -> Secret<Vec<u8>> {
        let mut bytes = Secret::new(Vec::with_capacity(LEDGER));
        let content = bytes.expose_mut();
        content.extend(self.generation.to_be_bytes());
        content.extend(self.rows.to_be_bytes());
        content.extend(self.sum);
        content.extend(self.counter_key.expose());
        bytes
    }

    pub(super) fn decode(content: &Secret<Vec<u8>>) -> Option<Self> {
        let (generation, rest) = content.expose().split_first_chunk::<8>()?;
        let (rows, rest) = rest.split_first_chunk::<8>()?;
        let (sum, rest) = rest.split_first_chunk::<32>()?;
        Some(Ledger {
            generation: u64::from_be_bytes(*generation),
            rows: u64::from_be_bytes(*rows),
            sum: *sum,
            counter_key: Secret::new(rest.try_into().ok()?),
        })
    }

    /// With one row more.
    pub(super) fn add(&mut self, digest: &[u8; 32]) {
        self.rows += 1;
        self.flip(digest);
    }

    /// With one row less.
    pub(super) fn take(&mut self, digest: &[u8; 32]) {
        self.rows = self.rows.saturating_sub(1);
        self.flip(digest);
    }

    fn flip(&mut self, digest: &[u8; 32]) {
        self.sum.iter_mut().zip(digest).for_each(|(sum, byte)| *sum ^= byte);
    }

    /// Whether it speaks of the same rows as the other.
    pub(super) fn has_rows_of(&self, other: &Ledger) -> bool {
        (self.rows, self.sum) == (other.rows, other.sum)
    }
}

/// The file of the counter.
const COUNTER: &str = "counter";

/// Its first bytes: what it is, then the sealed number.
const MAGIC: &[u8; 4] = b"VMBC";

/// The counter's file, open for as long as the store is.
pub(super) struct Counter {
    path: PathBuf,
    file: File,
    key: Locked<SealingKey>,
    about: Vec<u8>,
    /// Set when it was written since the last sync.
    unsynced: AtomicBool,
}

impl Counter {
    /// Whether there is one in this folder.
    pub(super) fn is_in(folder: &Path) -> bool {
        folder.join(COUNTER).symlink_metadata().is_ok()
    }

    /// Opens the counter and compares it with the ledger that was read.
    ///
    /// # Errors
    /// RolledBack where the ledger is behind it; Damaged where it is no counter of this store, or is missing though there
    /// were changes.
    /// Nothing is written: what is refused stays as it is.
    pub(super) fn open(folder: &Path, store: &[u8; 16], ledger: &Ledger) -> Result<Self, StoreFault> {
        let path = folder.join(COUNTER);
        let read = |cause| StoreFault::Read { path: path.clone(), cause };
        let bytes = match os::fs::read_private(&path, 4096) {
            // What lies there is of the store that this one took the place of, and says nothing about it.
            Err(_) if ledger.generation == 0 => None,
            bytes => bytes.map_err(read)?,
        };
        // Made only for a store that has never had one, once everything else agrees.
        let file = match bytes {
            None if ledger.generation > 0 => return Err(StoreFault::CounterMissing { path }),
            _ => os::fs::open_for_overwriting(&path).map_err(read)?,
        };
        let key = Locked::new(SealingKey::new(ledger.counter_key.expose())).map_err(read)?;
        let counter = Counter {
            file,
            key,
            about: about(Purpose::Counter, store, 0, "", ""),
            path: path.clone(),
            unsynced: AtomicBool::new(false),
        };
        match bytes {
            None => {}
            Some(bytes) => match counter.read(&bytes) {
                Some(seen) if ledger.generation < seen => {
                    return Err(StoreFault::RolledBack { found: ledger.generation, seen });
                }
                Some(_) => {}
                // The counter of the store that this one was restored in place of.
                None if ledger.generation == 0 => {}
                None => {
                    let what = format!("the counter {}: it is none of this store", path.display());
                    return Err(StoreFault::Damaged { what });
                }
            },
        }
        Ok(counter)
    }

    fn read(&self, bytes: &[u8]) -> Option<u64> {
        let content = open_message(&self.key, &self.about, bytes.strip_prefix(MAGIC)?)?;
        content.expose().as_slice().try_into().ok().map(u64::from_be_bytes)
    }

    /// Writes the number in place, less than a sector of it: a kill leaves the old one or the new one. It is not waited
    /// for: after a power loss the number may be an older one, which hides nothing but the last moments.
    pub(super) fn write(&self, generation: u64) -> io::Result<()> {
        let sealed = seal_message(&self.key, &self.about, &generation.to_be_bytes());
        let bytes = [MAGIC.as_slice(), &sealed].concat();
        self.file.write_all_at(&bytes, 0)?;
        self.file.set_len(bytes.len() as u64)?;
        self.unsynced.store(true, Ordering::Release);
        Ok(())
    }

    /// Brings the number to the disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        if self.unsynced.swap(false, Ordering::AcqRel) { self.file.sync_data() } else { Ok(()) }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}
