//! What the gateway keeps: its token and its identity, in a state folder that is its own alone.
//!
//! Records are files of mode 0600 replaced whole. They are readable by the gateway's own user; sealing
//! them is the next thing built in this room, behind these same functions.

use crate::model::Secret;
use crate::os::fs as private;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// The records there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Name {
    /// The shared token.
    GatewayToken,
    /// The seed of the gateway's Ed25519 key.
    GatewayIdentity,
}

impl Name {
    fn file(self) -> &'static str {
        match self {
            Name::GatewayToken => "gateway-token",
            Name::GatewayIdentity => "gateway-identity",
        }
    }
}

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
    _lock: File,
}

impl Store {
    /// Opens the folder, making it if need be, and keeps every other gateway out of it.
    pub(crate) fn open(folder: &Path) -> Result<Self, StoreFault> {
        let fault = |cause| StoreFault::Folder { path: folder.to_owned(), cause };
        private::private_dir(folder).map_err(fault)?;
        let lock = private::lock(&folder.join("lock")).map_err(fault)?;
        let lock = lock.ok_or_else(|| StoreFault::Taken(folder.to_owned()))?;
        Ok(Store { folder: folder.to_owned(), _lock: lock })
    }

    /// Reads a record; `None` where there is none.
    pub(crate) fn load(&self, name: Name) -> Result<Option<Secret<Vec<u8>>>, StoreFault> {
        let path = self.folder.join(name.file());
        let read = private::read_private(&path, 4096);
        read.map(|bytes| bytes.map(Secret::new)).map_err(|cause| StoreFault::Read { path, cause })
    }

    /// Replaces a record: afterwards it is the new one, or, on an error or a crash, still the old.
    pub(crate) fn save(&self, name: Name, bytes: &[u8]) -> Result<(), StoreFault> {
        let path = self.folder.join(name.file());
        private::write_private(&path, bytes).map_err(|cause| StoreFault::Write { path, cause })
    }
}
