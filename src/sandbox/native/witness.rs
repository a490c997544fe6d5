//! Tells which executables the list refused, wherever in the process tree: the kernel refuses, this only sees it coming.
//!
//! The init looks at every exec before the kernel does and lets it go on in any case. A command that changes its path in
//! between can hide a refusal from the report; it cannot escape one.

use super::filter::compile_exec_notice;
use super::monitor::Report;
use crate::os::linux::notify::{Listener, Waiting};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Different paths that are told; a command that tries more is known by these.
const MOST_TOLD: usize = 32;

/// Bytes of a path that are looked at.
const LONGEST: usize = 400;

/// Sees every exec of the command's tree.
pub(super) struct Witness {
    listener: Listener,
    files: BTreeSet<Identity>,
    folders: Vec<PathBuf>,
    told: BTreeSet<Identity>,
}

/// Device and inode.
type Identity = (u64, u64);

impl Witness {
    /// Begins to look, from here on and for all that this process starts. `allowed` are listed files and folders as they
    /// really are.
    pub(super) fn begin(allowed: &[PathBuf]) -> io::Result<Self> {
        let identity = |path: &PathBuf| fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()));
        Ok(Witness {
            files: allowed.iter().filter_map(identity).collect(),
            folders: allowed.iter().filter(|path| path.is_dir()).cloned().collect(),
            listener: Listener::install(&compile_exec_notice())?,
            told: BTreeSet::new(),
        })
    }

    /// Looks at the call that waits, tells of it if it will be refused, and lets it go on.
    pub(super) fn look(&mut self, mut status: &File) {
        let Ok(Some(call)) = self.listener.next() else { return };
        let refused = path_of(&call).and_then(|path| self.refused(call.pid, &path));
        if let Some((place, identity)) = refused
            && self.told.len() < MOST_TOLD
            && self.told.insert(identity)
        {
            // Before the kernel's own word, so that it explains that one too.
            let _ = status.write_all(&Report::Refused(place.to_string_lossy().into_owned()).encode());
        }
        self.listener.let_go(call);
    }

    /// Where a path leads, and to which file, if there is one that is not on the list.
    fn refused(&self, pid: u32, path: &[u8]) -> Option<(PathBuf, Identity)> {
        let path = Path::new(std::ffi::OsStr::from_bytes(path));
        let place = if path.is_absolute() {
            path.to_owned()
        } else {
            fs::read_link(format!("/proc/{pid}/cwd")).ok()?.join(path)
        };
        let meta = fs::metadata(&place).ok().filter(fs::Metadata::is_file)?;
        let identity = (meta.dev(), meta.ino());
        let real = crate::os::fs::canonical(&place).unwrap_or_else(|_| place.clone());
        let is_listed = self.files.contains(&identity) || self.folders.iter().any(|folder| real.starts_with(folder));
        (!is_listed).then_some((place, identity))
    }
}

impl AsFd for Witness {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

/// The path that a call names, out of the caller's memory.
fn path_of(call: &Waiting) -> Option<Vec<u8>> {
    let at = if call.number == libc::SYS_execveat { call.arguments[1] } else { call.arguments[0] };
    let memory = File::open(format!("/proc/{}/mem", call.pid)).ok()?;
    let mut bytes = [0; LONGEST];
    let mut read = memory.read_at(&mut bytes, at).unwrap_or(0);
    if read == 0 {
        // The page after the path's own may not be there.
        let left = 4096 - (at % 4096) as usize;
        read = memory.read_at(&mut bytes[..left.min(LONGEST)], at).unwrap_or(0);
    }
    let end = bytes[..read].iter().position(|byte| *byte == 0)?;
    (end > 0).then(|| bytes[..end].to_vec())
}
