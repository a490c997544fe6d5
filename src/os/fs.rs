//! Files that are ours alone: private modes, no links followed, replaced whole or not at all.

use rustix::fs::{FlockOperation, OFlags};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

/// Bytes of a unix socket's path, without the zero that ends it.
const LONGEST_SOCKET: usize = size_of::<libc::sockaddr_un>() - std::mem::offset_of!(libc::sockaddr_un, sun_path) - 1;

/// Makes a folder of mode 0700 (and its parents), or checks that the one there is ours alone.
///
/// # Errors
/// Where it is a link, no folder, somebody else's, or open to others and not ours to tighten.
pub(crate) fn private_dir(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    let meta = fs::symlink_metadata(path)?;
    if !meta.is_dir() {
        return Err(io::Error::other("it is a link, not a folder"));
    }
    if meta.uid() != super::process::uid() {
        return Err(io::Error::other(format!(
            "it belongs to uid {}, we are uid {}",
            meta.uid(),
            super::process::uid()
        )));
    }
    if meta.mode() & 0o077 != 0 {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

/// The same for a folder that a person names: one that is open to others, and holds what is open too, was named by mistake.
/// Nothing on the host would work any more if others could not pass `/` or `/usr`.
///
/// # Errors
/// As `private_dir`; and where it is such a folder.
pub(crate) fn private_place(path: &Path) -> io::Result<()> {
    let is_open = |meta: &fs::Metadata| meta.mode() & 0o077 != 0;
    let is_ours = |meta: &fs::Metadata| meta.is_dir() && meta.uid() == super::process::uid();
    if fs::symlink_metadata(path).is_ok_and(|meta| is_ours(&meta) && is_open(&meta)) {
        for item in fs::read_dir(path)?.flatten() {
            // A socket is ours whatever its mode: who comes through it is judged.
            let others = item.metadata().is_ok_and(|meta| is_open(&meta) && !meta.file_type().is_socket());
            if others {
                let what = item.file_name();
                let why =
                    format!("it is open to others, and so is {} in it: give us a folder of our own", what.display());
                return Err(io::Error::other(why));
            }
        }
    }
    private_dir(path)
}

/// Makes a folder that others may pass through but not list: mode 0711.
pub(crate) fn passable_dir(path: &Path) -> io::Result<()> {
    private_dir(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o711))
}

/// Reads a private file; `None` where there is none.
///
/// # Errors
/// Where it is a link, not a regular file, somebody else's, readable by others, or larger than `at_most` bytes.
pub(crate) fn read_private(path: &Path, at_most: u64) -> io::Result<Option<Vec<u8>>> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32;
    let file = match fs::OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    if meta.uid() != super::process::uid() {
        return Err(io::Error::other(format!("it belongs to uid {}", meta.uid())));
    }
    if meta.mode() & 0o077 != 0 {
        return Err(io::Error::other(format!("its mode {:04o} lets others in; chmod 600 it", meta.mode() & 0o7777)));
    }
    if meta.len() > at_most {
        return Err(io::Error::other(format!("it has {} bytes, more than {at_most}", meta.len())));
    }
    let mut bytes = Vec::new();
    file.take(at_most).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

/// Reads a file that holds a key: private, with one name, and nobody but us or root can put another in its place.
///
/// # Errors
/// As `read_private`; and where it has a second name, or a folder above it can be written by others (sshd's StrictModes).
pub(crate) fn read_key(path: &Path, at_most: u64) -> io::Result<Option<Vec<u8>>> {
    let path = in_real_folder(path)?;
    let Some(file) = open_regular(&path)? else { return Ok(None) };
    let meta = file.metadata()?;
    if meta.uid() != super::process::uid() {
        return Err(io::Error::other(format!("it belongs to uid {}", meta.uid())));
    }
    if meta.mode() & 0o077 != 0 {
        return Err(io::Error::other(format!("its mode {:04o} lets others in; chmod 600 it", meta.mode() & 0o7777)));
    }
    if meta.nlink() != 1 {
        return Err(io::Error::other("it has more than one name (a hard link)"));
    }
    check_folders(&path)?;
    read_at_most(file, at_most).map(Some)
}

/// Reads a credential that the service manager put there: its owner is root or us, others cannot read it. Its mode may
/// show a group, which is the mask of an access list that names us (systemd.exec(5), credentials).
///
/// # Errors
/// Where it is a link, not a regular file, somebody else's, readable by all, or larger than `at_most` bytes; where a
/// folder above it can be written by others.
pub(crate) fn read_credential(path: &Path, at_most: u64) -> io::Result<Option<Vec<u8>>> {
    let path = in_real_folder(path)?;
    let Some(file) = open_regular(&path)? else { return Ok(None) };
    let meta = file.metadata()?;
    if (meta.uid() != 0 && meta.uid() != super::process::uid()) || meta.mode() & 0o027 != 0 {
        return Err(io::Error::other(
            "it is no credential of a service manager: a file of root's or ours, 0440 or less",
        ));
    }
    check_folders(&path)?;
    read_at_most(file, at_most).map(Some)
}

/// The same path with every link before its last part resolved: what is checked is then what is used.
fn in_real_folder(path: &Path) -> io::Result<PathBuf> {
    match (path.parent(), path.file_name()) {
        (Some(folder), Some(name)) => Ok(canonical(folder)?.join(name)),
        _ => Err(io::Error::other("it is no file")),
    }
}

/// Nobody but us or root may put something else in the place of this path.
fn check_folders(path: &Path) -> io::Result<()> {
    for folder in path.ancestors().skip(1) {
        let meta = fs::metadata(folder)?;
        if meta.uid() != 0 && meta.uid() != super::process::uid() {
            return Err(io::Error::other(format!("{} belongs to uid {}", folder.display(), meta.uid())));
        }
        if meta.mode() & 0o022 != 0 && meta.mode() & 0o1000 == 0 {
            return Err(io::Error::other(format!("others can write to {}", folder.display())));
        }
    }
    Ok(())
}

/// Opens a regular file for reading, never through a link and without waiting for a pipe's other end.
fn open_regular(path: &Path) -> io::Result<Option<File>> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32;
    let file = match fs::OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    if file.metadata()?.is_file() { Ok(Some(file)) } else { Err(io::Error::other("it is not a regular file")) }
}

fn read_at_most(file: File, at_most: u64) -> io::Result<Vec<u8>> {
    let length = file.metadata()?.len();
    if length > at_most {
        return Err(io::Error::other(format!("it has {length} bytes, more than {at_most}")));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or_default());
    file.take(at_most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Opens a private file to be overwritten in place, making it with mode 0600; never through a link.
pub(crate) fn open_for_overwriting(path: &Path) -> io::Result<File> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32;
    let mut options = fs::OpenOptions::new();
    let file = options.write(true).create(true).truncate(false).mode(0o600).custom_flags(flags).open(path)?;
    if is_ours_alone(&file.metadata()?) { Ok(file) } else { Err(io::Error::other("it is not a regular file of ours")) }
}

fn is_ours_alone(meta: &fs::Metadata) -> bool {
    meta.is_file() && meta.uid() == super::process::uid() && meta.nlink() == 1
}

/// Whether what stands at this path, if anything does, is a regular file of ours with no other name.
pub(crate) fn is_plain_or_missing(path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(meta) => Ok(is_ours_alone(&meta)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(e) => Err(e),
    }
}

/// Removes a file whose content was plain: overwritten first, which helps where the file system writes in place. What is
/// no regular file of ours alone loses this name, and nothing else happens to it.
pub(crate) fn wipe(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::FileExt;
    match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e),
        Ok(meta) if !is_ours_alone(&meta) => return fs::remove_file(path),
        Ok(_) => {}
    }
    let file = open_for_overwriting(path)?;
    let length = file.metadata()?.len();
    let zeros = [0; 64 << 10];
    let mut at = 0;
    while at < length {
        let part = zeros.len().min(usize::try_from(length - at).unwrap_or(zeros.len()));
        file.write_all_at(&zeros[..part], at)?;
        at += part as u64;
    }
    file.sync_all()?;
    fs::remove_file(path)
}

pub(crate) use super::system::paths::*;

/// Removes a file that may be missing.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// Brings a folder's list of names to the disk.
pub(crate) fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Replaces a private file whole: written aside with mode 0600, synced, renamed, folder synced.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().ok_or_else(|| io::Error::other("it has no folder"))?;
    let aside = path.with_extension("new");
    let _ = fs::remove_file(&aside);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&aside)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all()).and_then(|()| fs::rename(&aside, path));
    if written.is_err() {
        let _ = fs::remove_file(&aside);
        return written;
    }
    File::open(folder)?.sync_all()
}

/// Opens a private file for appending, making it with mode 0600; never through a link.
pub(crate) fn append_private(path: &Path) -> io::Result<File> {
    let file = fs::OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o600)
        .custom_flags(OFlags::NOFOLLOW.bits() as i32)
        .open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() || meta.uid() != super::process::uid() {
        return Err(io::Error::other("it is not a regular file of ours"));
    }
    if meta.mode() & 0o077 != 0 {
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
    }
    Ok(file)
}

/// Takes the only lock on a file for as long as the returned handle lives; `None` where another holds it.
pub(crate) fn lock(path: &Path) -> io::Result<Option<File>> {
    let file = append_private(path)?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// The same of a folder, which has to be there.
pub(crate) fn lock_folder(path: &Path) -> io::Result<Option<File>> {
    let folder = File::open(path)?;
    match rustix::fs::flock(&folder, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(folder)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// Takes the lock on a file, waiting so long for whoever holds it.
pub(crate) fn lock_waiting(path: &Path, at_most: Duration) -> io::Result<Option<File>> {
    let begun = Instant::now();
    loop {
        match lock(path)? {
            None if begun.elapsed() < at_most => std::thread::sleep(Duration::from_millis(10)),
            locked => return Ok(locked),
        }
    }
}

/// Listens on a unix socket that only we can reach. A socket left over from a process that died goes first;
/// one that somebody answers on is kept.
///
/// # Errors
/// AddrInUse where somebody listens there already.
pub(crate) fn bind_private_socket(path: &Path) -> io::Result<UnixListener> {
    if path.as_os_str().len() > LONGEST_SOCKET {
        return Err(io::Error::other(format!(
            "the path has more than the {LONGEST_SOCKET} bytes a unix socket may have (unix(7))"
        )));
    }
    if let Ok(meta) = fs::symlink_metadata(path) {
        use std::os::unix::fs::FileTypeExt;
        if !meta.file_type().is_socket() {
            return Err(io::Error::other("something that is no socket is in its place"));
        }
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(io::Error::from(io::ErrorKind::AddrInUse));
        }
        fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// The same, but any user may connect: who is admitted is decided by SO_PEERCRED, not by the file's mode.
/// Whether a user can reach it at all is up to the folder it lies in.
pub(crate) fn bind_shared_socket(path: &Path) -> io::Result<UnixListener> {
    let listener = bind_private_socket(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o666))?;
    Ok(listener)
}

/// Owner of the file behind a handle, and whether it is a folder.
pub(crate) fn owner(handle: &impl AsFd) -> io::Result<(u32, u32, bool)> {
    let stat = rustix::fs::fstat(handle)?;
    Ok((stat.st_uid, stat.st_gid, rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir()))
}

/// Device, inode, owner and group of the file behind a handle.
pub(crate) fn identity(handle: &impl AsFd) -> io::Result<(u64, u64, u32, u32)> {
    let stat = rustix::fs::fstat(handle)?;
    #[allow(clippy::unnecessary_cast, reason = "macOS has i32")]
    Ok((stat.st_dev as u64, stat.st_ino, stat.st_uid, stat.st_gid))
}

/// The absolute path without `.`, `..` or links in any part that exists; missing tails are kept as they are.
pub(crate) fn canonical(path: &Path) -> io::Result<PathBuf> {
    let absolute = std::path::absolute(path)?;
    let mut missing = Vec::new();
    let mut present = absolute.as_path();
    loop {
        #[allow(clippy::disallowed_methods, reason = "this is the function that is used instead")]
        match fs::canonicalize(present) {
            Ok(mut found) => {
                found.extend(missing.iter().rev());
                return Ok(found);
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let (Some(parent), Some(Component::Normal(name))) =
                    (present.parent(), present.components().next_back())
                else {
                    return Err(e);
                };
                missing.push(name.to_owned());
                present = parent;
            }
            Err(e) => return Err(e),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("vambrace-fs-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        private_dir(&path).unwrap();
        path
    }

    #[test]
    fn a_private_file_is_never_read_through_a_link_or_with_loose_modes() {
        let dir = scratch("link");
        write_private(&dir.join("a"), b"x").unwrap();
        std::os::unix::fs::symlink(dir.join("a"), dir.join("l")).unwrap();
        fs::write(dir.join("loose"), b"x").unwrap();
        fs::set_permissions(dir.join("loose"), fs::Permissions::from_mode(0o644)).unwrap();

        assert_eq!(read_private(&dir.join("a"), 10).unwrap(), Some(b"x".to_vec()));
        assert_eq!(read_private(&dir.join("none"), 10).unwrap(), None);
        assert!(read_private(&dir.join("l"), 10).is_err());
        assert!(read_private(&dir.join("loose"), 10).is_err());
        assert!(read_private(&dir.join("a"), 0).is_err());
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_lock_is_held_by_one_at_a_time() {
        let dir = scratch("lock");
        let first = lock(&dir.join("lock")).unwrap();
        assert!(first.is_some());
        assert!(lock(&dir.join("lock")).unwrap().is_none());
        drop(first);
        assert!(lock(&dir.join("lock")).unwrap().is_some());
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_missing_tail_is_kept_while_links_before_it_are_resolved() {
        let dir = scratch("canonical");
        std::os::unix::fs::symlink(&dir, dir.join("self")).unwrap();
        let found = canonical(&dir.join("self/self/none/yet")).unwrap();
        assert_eq!(found, canonical(&dir).unwrap().join("none/yet"));
        fs::remove_dir_all(dir).unwrap();
    }
}
