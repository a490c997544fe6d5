//! The bound on what one run adds to the disk.
//!
//! Nobody measures a workspace before each command: that would cost more than the command. What is cheap is how much of
//! the file system is taken, so that is looked at every tenth of a second. Only when more was taken since the start than
//! the run may add, the folders are walked for what was changed since, and the run is ended if that is too much as well.
//! Somebody who frees space meanwhile hides as much of it. One file is bounded by the kernel (RLIMIT_FSIZE).

use crate::model::{SandboxProfile, WorkspaceAccess};
use crate::os;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often it is looked at.
pub(super) const EVERY: Duration = Duration::from_millis(100);

/// What one run may add, and where.
pub(super) struct Disk {
    folders: Vec<Folder>,
    since_seconds: i64,
    at_most: u64,
}

struct Folder {
    path: PathBuf,
    /// Bytes taken on its file system beyond which the folder is walked.
    suspicious: u64,
}

impl Disk {
    /// Looks at a folder more.
    pub(super) fn watch_also(&mut self, path: &Path) {
        if let Ok(taken) = os::tree::taken_bytes(path) {
            self.folders.push(Folder { path: path.to_owned(), suspicious: taken.saturating_add(self.at_most) });
        }
    }

    /// Looks at the folders that a command of this profile can write to. To be called before it starts.
    pub(super) fn watch(profile: &SandboxProfile) -> Self {
        let at_most = profile.limits.disk_bytes;
        let workspace = profile.workspace.iter().filter(|_| profile.workspace_access == WorkspaceAccess::ReadWrite);
        let folders = workspace.chain(&profile.kept).chain(&profile.read_write).filter_map(|path| {
            let taken = os::tree::taken_bytes(path).ok()?;
            Some(Folder { path: path.clone(), suspicious: taken.saturating_add(at_most) })
        });
        Disk { folders: folders.collect(), since_seconds: os::tree::now_seconds(), at_most }
    }

    /// Whether the run has added more than it may.
    pub(super) fn is_exceeded(&mut self) -> bool {
        let mut walk = false;
        for folder in &mut self.folders {
            let taken = os::tree::taken_bytes(&folder.path).unwrap_or(0);
            if taken > folder.suspicious {
                walk = true;
                // If it was somebody else, it is looked at again after as much more, not at each tick.
                folder.suspicious = taken.saturating_add(self.at_most / 8);
            }
        }
        let paths: Vec<_> = self.folders.iter().map(|folder| folder.path.as_path()).collect();
        walk && os::tree::changed_bytes(&paths, self.since_seconds, self.at_most).is_ok_and(|n| n >= self.at_most)
    }
}
