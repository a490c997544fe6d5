//! Files by what the kernel has for them.

use rustix::fs::{CWD, Mode, OFlags, openat};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

/// Opens a path for reading; no component of it may be a symbolic link (open(2), O_NOFOLLOW_ANY, macOS 11).
///
/// # Errors
/// ELOOP where a component is a link.
pub(crate) fn open_without_links(path: &Path) -> io::Result<OwnedFd> {
    let no_links = OFlags::from_bits_retain(libc::O_NOFOLLOW_ANY as _);
    // A pipe without another end would be waited for.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | no_links;
    Ok(openat(CWD, path, flags, Mode::empty())?)
}

/// A file without a name, in the file system of this folder: gone with its descriptor. For a moment it has a name that
/// nobody can guess.
pub(crate) fn nameless(folder: &Path) -> io::Result<File> {
    let name: String = crate::os::host::random::<16>().iter().map(|byte| format!("{byte:02x}")).collect();
    let place = folder.join(format!(".vambrace-{name}"));
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::RDWR | OFlags::CLOEXEC;
    let file = openat(CWD, &place, flags, Mode::RUSR | Mode::WUSR)?;
    std::fs::remove_file(&place)?;
    Ok(file.into())
}
