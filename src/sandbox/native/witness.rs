//! Tells which executables the list refused, wherever in the process tree: the kernel refuses, this only sees it coming.
//!
//! The init looks at every exec before the kernel does and lets it go on in any case. A command that changes its path in
//! between can hide a refusal from the report; it cannot escape one.

use super::filter::compile_exec_notice;
use super::inside::Overseer;
use super::monitor::Report;
use crate::os::linux::notify::{self, Call};
use crate::os::linux::seccomp;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Different paths that are told; a command that tries more is known by these.
const MOST_TOLD: usize = 32;

/// Sees every exec of the command's tree.
pub(super) struct Witness<'a> {
    listener: OwnedFd,
    status: &'a File,
    files: BTreeSet<Identity>,
    folders: Vec<PathBuf>,
    told: BTreeSet<Identity>,
}

/// Device and inode.
type Identity = (u64, u64);

impl<'a> Witness<'a> {
    /// Begins to look, from here on and for all that this process starts, and to tell over `status`. `allowed` are listed
    /// files and folders as they really are.
    pub(super) fn begin(allowed: &[PathBuf], status: &'a File) -> io::Result<Self> {
        // There is one listener for a process (seccomp(2), EBUSY), and nobody else's filter is on this one.
        let listener = seccomp::install_with_listener(&compile_exec_notice())?;
        let identity = |path: &PathBuf| fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()));
        Ok(Witness {
            files: allowed.iter().filter_map(identity).collect(),
            folders: allowed.iter().filter(|path| path.is_dir()).cloned().collect(),
            listener: listener.ok_or(io::ErrorKind::ResourceBusy)?,
            status,
            told: BTreeSet::new(),
        })
    }

    /// Tells of a call if it will be refused.
    fn look(&mut self, call: &Call) {
        let refused = path_of(call).and_then(|path| self.refused(call.thread, &path));
        if let Some((place, identity)) = refused
            && self.told.len() < MOST_TOLD
            && self.told.insert(identity)
        {
            // Before the kernel's own word, so that it explains that one too.
            let _ = self.status.write_all(&Report::Refused(place.to_string_lossy().into_owned()).encode());
        }
    }

    /// Where a path leads, and to which file, if there is one that is not on the list.
    fn refused(&self, thread: u32, path: &[u8]) -> Option<(PathBuf, Identity)> {
        let path = Path::new(std::ffi::OsStr::from_bytes(path));
        let place = if path.is_absolute() {
            path.to_owned()
        } else {
            fs::read_link(format!("/proc/{thread}/cwd")).ok()?.join(path)
        };
        let meta = fs::metadata(&place).ok().filter(fs::Metadata::is_file)?;
        let identity = (meta.dev(), meta.ino());
        let real = crate::os::fs::canonical(&place).unwrap_or_else(|_| place.clone());
        let is_listed = self.files.contains(&identity) || self.folders.iter().any(|folder| real.starts_with(folder));
        (!is_listed).then_some((place, identity))
    }
}

impl Overseer for Witness<'_> {
    fn listener(&self) -> &OwnedFd {
        &self.listener
    }

    fn serve(&mut self) -> bool {
        match notify::receive(&self.listener) {
            Ok(Some(call)) => {
                self.look(&call);
                notify::let_go(&self.listener, &call);
                true
            }
            Ok(None) => true,
            Err(_) => false,
        }
    }
}

/// The path that a call names, out of the caller's memory.
fn path_of(call: &Call) -> Option<Vec<u8>> {
    let at = if call.number == libc::SYS_execveat { call.arguments[1] } else { call.arguments[0] };
    let memory = File::open(format!("/proc/{}/mem", call.thread)).ok()?;
    notify::text(&memory, at).ok().filter(|path| !path.is_empty())
}
