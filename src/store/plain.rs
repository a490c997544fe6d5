//! Brings a store of before sealing over, once and forwards: rows in plain text and secrets that were files.
//!
//! The sealed file is made beside the plain one and takes its place, so that no page of the plain one stays in use. What
//! was plain goes last: a kill on the way leaves it for the next start to remove, which does not read it any more.

use super::table::Tables;
use super::{KeySettings, Name, OWN, PlainRow, StoreFault, TABLES, found_aside, take_place};
use crate::model::Secret;
use crate::os::fs as private;
use std::path::{Path, PathBuf};

/// A second name of the plain file, so that it can be overwritten when the sealed one has its place.
const PLAIN: &str = "state.plain";

/// The secrets that lie in the folder as files.
pub(super) fn files(folder: &Path) -> Result<Vec<PlainRow>, StoreFault> {
    let mut rows = Vec::new();
    for name in Name::that_were_files() {
        let path = folder.join(name.as_str());
        let bytes = private::read_private(&path, 64 << 10).map_err(|cause| StoreFault::Read { path, cause })?;
        rows.extend(bytes.map(|bytes| PlainRow {
            kind: OWN.into(),
            key: name.as_str().into(),
            value: Secret::new(bytes),
        }));
    }
    Ok(rows)
}

/// Seals a plain file and the files beside it; gives the sealed one.
pub(super) fn seal(tables: Tables, folder: &Path, settings: &KeySettings) -> Result<Tables, StoreFault> {
    let path = folder.join(TABLES);
    let read = |cause| StoreFault::Read { path: path.clone(), cause };
    let plain = tables.rows(None).map_err(read)?;
    let mut rows: Vec<PlainRow> =
        plain.into_iter().map(|row| PlainRow { kind: row.kind, key: row.key, value: Secret::new(row.value) }).collect();
    let files = files(folder)?;
    rows.retain(|row| !files.iter().any(|file| (&file.kind, &file.key) == (&row.kind, &row.key)));
    rows.extend(files);
    tracing::warn!(rows = rows.len(), folder = %folder.display(), "the state was plain and is sealed now");
    tables.settle().and_then(|()| tables.accept()).map_err(read)?;
    drop(tables);
    let aside = found_aside(folder, settings, &rows)?;
    let second = folder.join(PLAIN);
    private::remove(&second).and_then(|()| std::fs::hard_link(&path, &second)).map_err(read)?;
    take_place(&aside, folder)?;
    Tables::open(&path).map(|(tables, _)| tables).map_err(read)
}

/// A kill between the second name and the sealed file's taking the place leaves the plain file with two names: one is enough.
pub(super) fn forget_second_name(folder: &Path) -> Result<(), StoreFault> {
    use std::os::unix::fs::MetadataExt;
    let (path, second) = (folder.join(TABLES), folder.join(PLAIN));
    let inode = |path: &Path| path.symlink_metadata().map(|meta| (meta.dev(), meta.ino())).ok();
    if inode(&second).is_none() || inode(&second) != inode(&path) {
        return Ok(());
    }
    let removed = private::remove(&second).and_then(|()| private::sync_folder(folder));
    removed.map_err(|cause| StoreFault::Write { path: second, cause })
}

/// Where what was plain and secret lay. A certificate is public: its copy stays for whoever wants to trust it.
fn of_before(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let secret = Name::that_were_files().filter(|name| *name != Name::TlsCertificate).map(Name::as_str);
    secret.chain([PLAIN]).map(|name| folder.join(name))
}

/// Whether there is something here of before sealing.
pub(super) fn is_in(folder: &Path) -> bool {
    of_before(folder).any(|path| path.symlink_metadata().is_ok())
}

/// Removes what was plain; called with a sealed file in its place.
pub(super) fn clean(folder: &Path) -> Result<(), StoreFault> {
    let left: Vec<_> = of_before(folder).filter(|path| path.exists()).collect();
    if left.is_empty() {
        return Ok(());
    }
    tracing::warn!(folder = %folder.display(), "unsealed files of an older version are removed; they are not read");
    let write = |cause| StoreFault::Write { path: folder.join(TABLES), cause };
    left.iter().try_for_each(|path| private::wipe(path)).map_err(write)?;
    private::sync_folder(folder).map_err(write)
}
