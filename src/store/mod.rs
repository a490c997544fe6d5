//! What the gateway keeps, in a state folder that is its own alone.
//!
//! A few secrets are files of mode 0600 replaced whole; everything there are many of is a row in one
//! SQLite file. Both are readable by the gateway's own user; sealing them is the next thing built in
//! this room, behind these same functions.

mod records;
mod table;

pub(crate) use records::{
    ApprovedVia, ClientFacts, DeviceRecord, InviteRecord, NodeRecord, NodeRequest, NonceRecord, PairingRequest, Record,
    ReplayFloor, TokenRecord,
};
pub(crate) use table::Changes;

use crate::model::Secret;
use crate::os::fs as private;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use table::Tables;

/// The secrets that are files.
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
}

impl Name {
    fn file(self) -> &'static str {
        match self {
            Name::GatewayToken => "gateway-token",
            Name::GatewayIdentity => "gateway-identity",
            Name::GatewayPassword => "gateway-password",
            Name::DeviceKey => "device-key",
            Name::TlsCertificate => "tls-certificate.pem",
            Name::TlsKey => "tls-key.pem",
        }
    }
}

/// The file of everything there are many of.
const TABLES: &str = "state.sqlite";

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
}

/// An open state folder, ours until it is dropped.
pub(crate) struct Store {
    folder: PathBuf,
    tables: Tables,
    _lock: Option<File>,
}

impl Store {
    /// Opens the folder, making it if need be, and keeps every other gateway out of it.
    pub(crate) fn open(folder: &Path) -> Result<Self, StoreFault> {
        let fault = |cause| StoreFault::Folder { path: folder.to_owned(), cause };
        private::private_dir(folder).map_err(fault)?;
        let lock = private::lock(&folder.join("lock")).map_err(fault)?;
        let lock = lock.ok_or_else(|| StoreFault::Taken(folder.to_owned()))?;
        let path = folder.join(TABLES);
        // Made by us before SQLite sees it, so that it and its companions are ours alone from their first byte.
        private::append_private(&path).map_err(|cause| StoreFault::Read { path: path.clone(), cause })?;
        let tables = Tables::open(&path).map_err(|cause| StoreFault::Read { path, cause })?;
        Ok(Store { folder: folder.to_owned(), tables, _lock: Some(lock) })
    }

    /// A store for tests of other rooms, without files.
    #[cfg(test)]
    pub(crate) fn in_memory() -> Self {
        Store { folder: "/nonexistent".into(), tables: Tables::in_memory(), _lock: None }
    }

    /// Every record of a kind.
    pub(crate) fn all<R: Record>(&self) -> Result<Vec<R>, StoreFault> {
        self.tables.all().map_err(|cause| StoreFault::Read { path: self.folder.join(TABLES), cause })
    }

    /// Makes changes durable, all or none. Waits for the disk: not for an async thread.
    pub(crate) fn apply(&self, changes: &Changes) -> Result<(), StoreFault> {
        self.tables.apply(changes).map_err(|cause| StoreFault::Write { path: self.folder.join(TABLES), cause })
    }

    /// Reads a record; `None` where there is none.
    pub(crate) fn load(&self, name: Name) -> Result<Option<Secret<Vec<u8>>>, StoreFault> {
        let path = self.folder.join(name.file());
        let read = private::read_private(&path, 64 << 10);
        read.map(|bytes| bytes.map(Secret::new)).map_err(|cause| StoreFault::Read { path, cause })
    }

    /// Replaces a record: afterwards it is the new one, or, on an error or a crash, still the old.
    pub(crate) fn save(&self, name: Name, bytes: &[u8]) -> Result<(), StoreFault> {
        let path = self.folder.join(name.file());
        private::write_private(&path, bytes).map_err(|cause| StoreFault::Write { path, cause })
    }
}
