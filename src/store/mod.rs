//! What the gateway keeps, in a state folder that is its own alone: one SQLite file whose every value is sealed.
//!
//! `seal` is the format, `keys` says where the key comes from, `ledger` notices what was put back, `table` is the file,
//! `plain` brings a store of before sealing over. What is read was sealed by us, for this place, and is the newest there
//! was; anything else is a fault with its reason. There is no reader of plain values.

mod backup;
mod keys;
mod ledger;
mod plain;
mod records;
mod seal;
mod table;
#[cfg(test)]
mod tests;
mod unlocked;

pub(crate) use backup::{BackupFault, LARGEST, Lock, Opener, Over, lock, one_time_keys, unlock};
pub(crate) use keys::{KeySettings, KeySource};
pub(crate) use records::{
    ApprovedVia, ClientFacts, DeviceRecord, InviteRecord, NodeRecord, NodeRequest, NonceRecord, PairingRequest, Record,
    ReplayFloor, SecretRecord, TokenRecord,
};
pub(crate) use table::Changes;

use crate::model::{Secret, SecretName};
use crate::os;
use crate::os::fs as private;
use ledger::{Counter, Ledger};
use seal::{Header, Seal};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use table::{Layout, Tables};
use unlocked::Unlocked;

/// The secrets there is one of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Name {
    /// The shared token.
    GatewayToken,
    /// The seed of the gateway's Ed25519 key.
    GatewayIdentity,
    /// The bcrypt hash of the password.
    GatewayPassword,
    /// The key that device tokens are derived with.
    DeviceKey,
    /// Our own certificate and its key, PEM.
    TlsCertificate,
    TlsKey,
    /// The seed of the command line's own keys.
    ClientSeed,
    /// Whether everything is locked down.
    Lockdown,
}

impl Name {
    /// All there are: what is not here is in no backup that can be restored.
    const ALL: [Name; 8] = [
        Name::GatewayToken,
        Name::GatewayIdentity,
        Name::GatewayPassword,
        Name::DeviceKey,
        Name::TlsCertificate,
        Name::TlsKey,
        Name::ClientSeed,
        Name::Lockdown,
    ];

    /// Those that were files before there was a sealed store.
    fn that_were_files() -> impl Iterator<Item = Name> {
        Self::ALL.into_iter().filter(|name| !matches!(name, Name::ClientSeed | Name::Lockdown))
    }

    /// The key of its row.
    fn as_str(self) -> &'static str {
        match self {
            Name::GatewayToken => "gateway-token",
            Name::GatewayIdentity => "gateway-identity",
            Name::GatewayPassword => "gateway-password",
            Name::DeviceKey => "device-key",
            Name::TlsCertificate => "tls-certificate.pem",
            Name::TlsKey => "tls-key.pem",
            Name::ClientSeed => "client-seed",
            Name::Lockdown => "lockdown",
        }
    }
}

/// The kind of their rows.
const OWN: &str = "own";

/// The file.
const TABLES: &str = "state.sqlite";

/// How long a command line waits for another one to let go of a store that they share.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why the state cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreFault {
    #[error("cannot use the state folder {path}: {cause}")]
    Folder { path: PathBuf, cause: io::Error },
    #[error("another gateway uses the state folder {0}")]
    Taken(PathBuf),
    #[error("cannot read {path}: {cause}")]
    Read { path: PathBuf, cause: io::Error },
    #[error("cannot write {path}: {cause}")]
    Write { path: PathBuf, cause: io::Error },
    #[error("there is no key to open the state with (source: {key}): {why}")]
    NoKey { key: KeySource, why: String },
    #[error("the state does not open with its key (source: {key}): {why}")]
    WrongKey { key: KeySource, why: &'static str },
    #[error("the state is damaged, or was changed by somebody else: {what}")]
    Damaged { what: String },
    #[error("the state is an older copy: it stands at change {found}, but change {seen} was made")]
    RolledBack { found: u64, seen: u64 },
    #[error("the counter {path} is missing, so nobody can say whether the state is the newest")]
    CounterMissing { path: PathBuf },
    #[error("the records {path} are missing, but their counter is there")]
    RecordsMissing { path: PathBuf },
    #[error("everything is sealed anew, but what the old key opens could not be removed yet: {0}")]
    LeftBehind(io::Error),
}

impl StoreFault {
    /// What the reader can do about it.
    pub(crate) fn hint(&self) -> &'static str {
        match self {
            StoreFault::Taken(_) => "stop the other gateway, or the command that hangs, or choose another --state-dir",
            StoreFault::Folder { .. } | StoreFault::Read { .. } | StoreFault::Write { .. } => {
                "the state folder and all in it must belong to the user the gateway runs as, on a disk with room that can \
                 be written"
            }
            StoreFault::NoKey { key: KeySource::Machine, .. } => {
                "put the file back if you have it; otherwise `vambrace restore` a backup into a new state folder"
            }
            StoreFault::NoKey { .. } => {
                "give the key it was sealed with; it is 32 random bytes or 64 hex digits, in a file of mode 0600 with one \
                 name that belongs to the gateway's user, in a folder that only this user or root can write to"
            }
            StoreFault::WrongKey { .. } => {
                "a state folder opens only on its own machine, with its own salt or key; `vambrace restore` brings a \
                 backup to another machine, and `previous_key_file` names the key before a rotation"
            }
            StoreFault::Damaged { .. } => "`vambrace restore --replace` a backup; nothing was changed now",
            StoreFault::LeftBehind(_) => {
                "make room on the disk and end whatever reads the file, then rotate once more, or start the gateway again"
            }
            StoreFault::RolledBack { .. } | StoreFault::CounterMissing { .. } | StoreFault::RecordsMissing { .. } => {
                "put all files of the state folder back from the same moment, or `vambrace restore --replace` a backup, \
                 which says that the older state is meant"
            }
        }
    }
}

/// An open state folder, ours until it is dropped.
pub(crate) struct Store {
    folder: PathBuf,
    settings: KeySettings,
    inner: Mutex<Unlocked>,
    /// What `status` tells: not behind the lock that a rotation holds for a while.
    facts: Mutex<KeyFacts>,
    /// One rotation at a time.
    rotating: Mutex<()>,
    _lock: Option<File>,
}

/// What `status` tells of the keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KeyFacts {
    pub(crate) source: KeySource,
    /// The source a rotation would take.
    pub(crate) best: KeySource,
    /// Rotations, counted from 1.
    pub(crate) epoch: u32,
    /// Whether the kernel keeps the keys out of swap.
    pub(crate) is_locked: bool,
}

impl Store {
    /// Opens the folder, making it if need be, and keeps every other gateway out of it. Takes about 0.1 s where the key
    /// is the machine's.
    ///
    /// # Errors
    /// Where the folder cannot be used, or is in use; where the key is missing or wrong; where a row was changed, moved,
    /// removed, added or put back.
    pub(crate) fn open(folder: &Path, settings: &KeySettings) -> Result<Self, StoreFault> {
        let lock = Self::take(folder)?;
        Self::open_locked(folder, settings, lock)
    }

    fn open_locked(folder: &Path, settings: &KeySettings, lock: File) -> Result<Self, StoreFault> {
        let path = folder.join(TABLES);
        let read = |cause| StoreFault::Read { path: path.clone(), cause };
        let has_counter = Counter::is_in(folder);
        let is_there = path.symlink_metadata().is_ok_and(|meta| meta.len() > 0);
        if !is_there && has_counter {
            return Err(StoreFault::RecordsMissing { path });
        }
        plain::forget_second_name(folder)?;
        check_companions(&path, has_counter)?;
        // Made by us before SQLite sees it, so that it and its companions are ours alone from their first byte.
        private::append_private(&path).map_err(read)?;
        let (mut tables, layout) = Tables::open(&path).map_err(read)?;
        if layout != Layout::Sealed && has_counter {
            // A counter is made with the first sealed row: what stands here now is not what it counted.
            let what = format!("{} is an unsealed file where a sealed one was", path.display());
            return Err(StoreFault::Damaged { what });
        }
        match layout {
            Layout::Sealed => {}
            Layout::Empty => found(&mut tables, folder, settings, &plain::files(folder)?)?,
            Layout::Plain => tables = plain::seal(tables, folder, settings)?,
        }
        let inner = Unlocked::unlock(tables, folder, settings)?;
        plain::clean(folder)?;
        let facts = inner.facts(settings);
        Ok(Store {
            folder: folder.to_owned(),
            settings: settings.clone(),
            inner: Mutex::new(inner),
            facts: Mutex::new(facts),
            rotating: Mutex::default(),
            _lock: Some(lock),
        })
    }

    /// The same for a store that many short-lived processes share: waits until the one before has let go of it.
    pub(crate) fn open_waiting(folder: &Path, settings: &KeySettings) -> Result<Self, StoreFault> {
        let fault = |cause| StoreFault::Folder { path: folder.to_owned(), cause };
        private::private_place(folder).map_err(fault)?;
        let lock = private::lock_waiting(&folder.join("lock"), PATIENCE).map_err(fault)?;
        Self::open_locked(folder, settings, lock.ok_or_else(|| StoreFault::Taken(folder.to_owned()))?)
    }

    /// The folder and the lock on it.
    fn take(folder: &Path) -> Result<File, StoreFault> {
        let fault = |cause| StoreFault::Folder { path: folder.to_owned(), cause };
        private::private_place(folder).map_err(fault)?;
        let lock = private::lock(&folder.join("lock")).map_err(fault)?;
        lock.ok_or_else(|| StoreFault::Taken(folder.to_owned()))
    }

    /// A store for tests of other rooms, without files.
    #[cfg(test)]
    pub(crate) fn in_memory() -> Self {
        let mut tables = Tables::in_memory();
        let seal = Seal::new(os::host::random(), 1, Secret::new(os::host::random())).unwrap();
        let begun = tables.begin().unwrap();
        begun.lay_out().unwrap();
        begun.keep_seal(b"", &seal.seal_ledger(Ledger::new().encode().expose())).unwrap();
        begun.commit().unwrap();
        let (source, key_id) = (KeySource::Machine, [0; 8]);
        let inner = Unlocked { tables, seal, source, key_id, generation: 0, counter: None };
        Store {
            folder: "/nonexistent".into(),
            settings: KeySettings::default(),
            facts: Mutex::new(inner.facts(&KeySettings::default())),
            inner: Mutex::new(inner),
            rotating: Mutex::default(),
            _lock: None,
        }
    }

    /// Every record of a kind.
    pub(crate) fn all<R: Record>(&self) -> Result<Vec<R>, StoreFault> {
        let inner = self.inner();
        let rows = inner.tables.rows(Some(R::KIND)).map_err(|cause| self.unreadable(cause))?;
        rows.iter().map(|row| table::read_record(&row.key, &inner.open_row(&row.kind, &row.key, &row.value)?)).collect()
    }

    /// Makes changes durable, all or none. Waits for the disk: not for an async thread.
    pub(crate) fn apply(&self, changes: &Changes) -> Result<(), StoreFault> {
        self.inner().apply(changes, |cause| StoreFault::Write { path: self.folder.join(TABLES), cause })
    }

    /// Reads a secret; `None` where there is none.
    pub(crate) fn load(&self, name: Name) -> Result<Option<Secret<Vec<u8>>>, StoreFault> {
        self.value(OWN, name.as_str())
    }

    /// Replaces a secret: afterwards it is the new one, or, on an error or a crash, still the old.
    pub(crate) fn save(&self, name: Name, bytes: &[u8]) -> Result<(), StoreFault> {
        self.apply(&Changes::default().put_bytes(OWN, name.as_str().to_owned(), Secret::new(bytes.to_vec())))
    }

    /// A secret's value; `None` where there is no such secret.
    pub(crate) fn secret(&self, name: &SecretName) -> Result<Option<Secret<Vec<u8>>>, StoreFault> {
        self.value(table::SECRET_VALUE, name)
    }

    fn value(&self, kind: &str, key: &str) -> Result<Option<Secret<Vec<u8>>>, StoreFault> {
        let inner = self.inner();
        let value = inner.tables.value(kind, key).map_err(|cause| self.unreadable(cause))?;
        value.map(|value| inner.open_row(kind, key, &value)).transpose()
    }

    /// Where the key comes from, and how it is kept.
    pub(crate) fn key_facts(&self) -> KeyFacts {
        *self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Seals everything anew under a new key, from the best source there is now. Whatever happens on the way, the state
    /// opens afterwards, with the old key or with the new one, and not with both.
    ///
    /// # Errors
    /// LeftBehind where the new key is in force and only the removal of what the old one opens is still to be done.
    pub(crate) fn rotate(&self) -> Result<KeyFacts, StoreFault> {
        let _alone = self.rotating.lock().unwrap_or_else(PoisonError::into_inner);
        // A rotation that left something behind comes to its end first: its salt may be the only one there is.
        if self.folder.join(keys::NEXT_SALT).symlink_metadata().is_ok() {
            self.inner().tidy(&self.folder).map_err(StoreFault::LeftBehind)?;
        }
        // A tenth of a second, during which everybody else goes on.
        let (wrapping, salt) = self.settings.fresh(keys::Salt::New)?;
        let done = self.inner().rotate(&self.folder, wrapping, salt.as_ref());
        let facts = self.inner().facts(&self.settings);
        *self.facts.lock().unwrap_or_else(PoisonError::into_inner) = facts;
        done.map(|()| facts)
    }

    /// Brings the counter to the disk, which `apply` does not wait for.
    pub(crate) fn sync(&self) -> Result<(), StoreFault> {
        let inner = self.inner();
        let Some(counter) = &inner.counter else { return Ok(()) };
        counter.sync().map_err(|cause| StoreFault::Write { path: counter.path().to_owned(), cause })
    }

    fn inner(&self) -> MutexGuard<'_, Unlocked> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unreadable(&self, cause: io::Error) -> StoreFault {
        StoreFault::Read { path: self.folder.join(TABLES), cause }
    }
}

/// What SQLite would take for its own beside the file: only regular files of ours, and no rollback journal, which a file
/// with a write-ahead log has not.
fn check_companions(path: &Path, is_sealed: bool) -> Result<(), StoreFault> {
    for end in ["", "-wal", "-shm", "-journal"] {
        let mut name = path.as_os_str().to_owned();
        name.push(end);
        let companion = PathBuf::from(name);
        let read = |cause| StoreFault::Read { path: companion.clone(), cause };
        let is_fine = private::is_plain_or_missing(&companion).map_err(read)?;
        if !is_fine || (end == "-journal" && is_sealed && companion.exists()) {
            return Err(StoreFault::Damaged { what: format!("{} is none of ours", companion.display()) });
        }
    }
    Ok(())
}

/// Makes a new store of these rows in an empty file. Its salt is the one that lies in the folder, if one does.
fn found(tables: &mut Tables, folder: &Path, settings: &KeySettings, rows: &[PlainRow]) -> Result<(), StoreFault> {
    let (wrapping, salt) = settings.fresh(keys::Salt::OfFolder(folder))?;
    let write = |cause| StoreFault::Write { path: folder.join(TABLES), cause };
    let salt_path = folder.join(keys::SALT);
    if let Some(salt) = salt.filter(|salt| !std::fs::read(&salt_path).is_ok_and(|there| there == salt.expose())) {
        private::write_private(&salt_path, salt.expose()).map_err(write)?;
    }
    let seal = Seal::new(os::host::random(), 1, Secret::new(os::host::random())).map_err(write)?;
    let mut ledger = Ledger::new();
    let begun = tables.begin().map_err(write)?;
    begun.lay_out().map_err(write)?;
    for row in rows {
        begun.put(&seal, &mut ledger, &row.kind, &row.key, &row.value).map_err(write)?;
    }
    let header = header_of(&wrapping, &seal).encode(&wrapping.key, &seal);
    begun.keep_seal(&header, &seal.seal_ledger(ledger.encode().expose())).map_err(write)?;
    begun.commit().map_err(write)
}

/// The file in which a new store is made beside the old one.
const ASIDE: &str = "state.aside";

/// Makes a new store of these rows beside the one that is there, whole and closed.
fn found_aside(folder: &Path, settings: &KeySettings, rows: &[PlainRow]) -> Result<PathBuf, StoreFault> {
    let aside = folder.join(ASIDE);
    let write = |cause| StoreFault::Write { path: aside.clone(), cause };
    remove_with_companions(&aside).map_err(write)?;
    private::append_private(&aside).map_err(write)?;
    let (mut tables, _) = Tables::open(&aside).map_err(write)?;
    found(&mut tables, folder, settings, rows)?;
    tables.settle().and_then(|()| tables.accept()).map_err(write)?;
    drop(tables);
    Ok(aside)
}

/// Removes a file of SQLite with everything that SQLite keeps beside it.
fn remove_with_companions(path: &Path) -> io::Result<()> {
    for end in ["", "-wal", "-shm", "-journal"] {
        let mut name = path.as_os_str().to_owned();
        name.push(end);
        private::remove(Path::new(&name))?;
    }
    Ok(())
}

/// Puts a store that was made aside in the place of the one that is there. What stood in that one's log must be in its file by
/// now: the log goes first, so that it can never be taken for the new file's.
fn take_place(aside: &Path, folder: &Path) -> Result<(), StoreFault> {
    let path = folder.join(TABLES);
    let write = |cause| StoreFault::Write { path: path.clone(), cause };
    for end in ["-wal", "-shm", "-journal"] {
        let mut name = path.as_os_str().to_owned();
        name.push(end);
        private::remove(Path::new(&name)).map_err(write)?;
    }
    private::sync_folder(folder).map_err(write)?;
    std::fs::rename(aside, &path).and_then(|()| private::sync_folder(folder)).map_err(write)
}

/// A row before it is sealed.
struct PlainRow {
    kind: String,
    key: String,
    value: Secret<Vec<u8>>,
}

fn header_of(wrapping: &keys::Wrapping, seal: &Seal) -> Header {
    Header {
        source: wrapping.source,
        cost: wrapping.cost,
        has_host_id: wrapping.has_host_id,
        store: seal.store,
        epoch: seal.epoch,
        key_id: wrapping.id,
    }
}
