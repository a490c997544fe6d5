//! Files by what the kernel has for them.

use rustix::fs::{CWD, Mode, OFlags, openat};
use std::fs::File;
use std::io;
use std::path::Path;

/// A file without a name, in the file system of this folder: gone with its descriptor.
pub(crate) fn nameless(folder: &Path) -> io::Result<File> {
    Ok(openat(CWD, folder, OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR)?.into())
}
