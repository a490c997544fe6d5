//! Brings a store of before sealing over, once and forwards: rows in plain text and secrets that were files.
//!
//! Nothing of it is read once the file is sealed. The plain files go last, so that a kill on the way leaves them for the
//! next start to remove; they are then not read any more.

use super::table::{Layout, Tables};
use super::{KeySettings, Name, OWN, PlainRow, StoreFault, TABLES, found, keys};
use crate::model::Secret;
use crate::os::fs as private;
use std::path::Path;

/// Seals what is there: nothing, or the rows and files of the version before.
pub(super) fn seal(
    tables: &mut Tables,
    layout: Layout,
    folder: &Path,
    settings: &KeySettings,
) -> Result<(), StoreFault> {
    let mut rows = Vec::new();
    if layout == Layout::Plain {
        let plain = tables.rows(None).map_err(|cause| StoreFault::Read { path: folder.join(TABLES), cause })?;
        rows.extend(plain.into_iter().map(|row| PlainRow {
            kind: row.kind,
            key: row.key,
            value: Secret::new(row.value),
        }));
    }
    for name in Name::WERE_FILES {
        let path = folder.join(name.as_str());
        let bytes = private::read_private(&path, 64 << 10).map_err(|cause| StoreFault::Read { path, cause })?;
        rows.extend(bytes.map(|bytes| PlainRow {
            kind: OWN.into(),
            key: name.as_str().into(),
            value: Secret::new(bytes),
        }));
    }
    if !rows.is_empty() {
        tracing::warn!(rows = rows.len(), folder = %folder.display(), "the state was plain and is sealed now");
    }
    found(tables, folder, settings, keys::SALT, &rows)
}

/// Removes the files that were sealed, and what a plain file has left in the gaps of the new one.
pub(super) fn clean(tables: &Tables, folder: &Path) -> Result<(), StoreFault> {
    // A certificate is public: its copy stays for whoever wants to trust it.
    let secret = Name::WERE_FILES.iter().filter(|name| **name != Name::TlsCertificate);
    let left: Vec<_> = secret.map(|name| folder.join(name.as_str())).filter(|path| path.exists()).collect();
    let write = |cause| StoreFault::Write { path: folder.join(TABLES), cause };
    if left.is_empty() {
        return Ok(());
    }
    tracing::warn!(folder = %folder.display(), "unsealed files of an older version are removed; they are not read");
    tables.rewrite().map_err(write)?;
    left.iter().try_for_each(|path| private::wipe(path)).map_err(write)?;
    private::sync_folder(folder).map_err(write)
}
