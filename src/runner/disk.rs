//! The bound on what one run adds to the disk.
//!
//! Nobody measures a workspace before each command: that would cost more than the command. What is cheap is how much of
//! the file system is taken, in bytes and in files, so that is looked at every tenth of a second. Only when more was taken
//! since the start than the run may add, the folders are walked for what was changed since, and the run is ended if that is
//! too much as well. Somebody who frees space meanwhile hides as much of it. One file is bounded by the kernel
//! (RLIMIT_FSIZE); one that is empty counts as well, for a disk has room for so many.
//!
//! A walk goes where commands have put whatever they liked, so it is a process of its own, with little time and memory,
//! and one that does not come to its end counts against the run. What no walk finds, files that are removed and still
//! open, is bounded by what the disk has left: when that is nearly nothing, those go since whose start much was taken.

use crate::model::{SandboxProfile, WorkspaceAccess};
use crate::os;
use crate::os::child::{self, Fork};
use crate::os::tree::{Share, Space};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::{Instant, Interval, interval, timeout_at};

/// How often it is looked at.
const EVERY: Duration = Duration::from_millis(100);

/// How long a walk may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Bytes of address space of a walk.
const WALK_MEMORY: u64 = 512 << 20;

/// What one run may add, and where.
pub(super) struct Disk {
    folders: Vec<Folder>,
    since_seconds: i64,
    at_most: u64,
    look: Interval,
    walk: Option<Walk>,
}

struct Folder {
    path: PathBuf,
    bytes: Watched,
    files: Watched,
}

/// What is taken of one thing that a file system has so many of.
struct Watched {
    at_most: u64,
    /// At the start; beyond which the folder is walked; beyond which the run goes when there is hardly any left.
    begun: u64,
    suspicious: u64,
    greedy: u64,
}

impl Watched {
    fn new(share: Share, at_most: u64) -> Self {
        let begun = share.taken;
        let greedy = begun.saturating_add(at_most.min(share.free / 2));
        Watched { at_most, begun, suspicious: begun.saturating_add(at_most), greedy }
    }

    fn is_greedy(&self, now: Share) -> bool {
        now.is_nearly_gone() && now.taken > self.greedy
    }

    fn is_suspicious(&mut self, now: Share) -> bool {
        let is_suspicious = now.taken > self.suspicious;
        if is_suspicious {
            // If it was somebody else, it is looked at again after as much more, not at each tick.
            self.suspicious = now.taken.saturating_add((self.at_most / 8).max(1));
        }
        is_suspicious
    }
}

impl Folder {
    fn new(path: &Path, at_most: u64) -> Option<Self> {
        let Space { bytes, files } = os::tree::space(path).ok()?;
        let files = Watched::new(files, (at_most / os::tree::A_FILE).max(1));
        Some(Folder { path: path.to_owned(), bytes: Watched::new(bytes, at_most), files })
    }
}

/// A process that walks the folders. Dropping it kills and reaps it.
struct Walk {
    pidfd: child::Handle,
    until: Instant,
}

impl Disk {
    /// Looks at the folders that a command of this profile can write to. To be called before it starts.
    pub(super) fn watch(profile: &SandboxProfile) -> Self {
        let at_most = profile.limits.disk_bytes;
        let workspace = profile.workspace.iter().filter(|_| profile.workspace_access == WorkspaceAccess::ReadWrite);
        let folders = workspace.chain(&profile.kept).chain(&profile.read_write);
        Disk {
            folders: folders.filter_map(|path| Folder::new(path, at_most)).collect(),
            since_seconds: os::tree::now_seconds(),
            at_most,
            look: interval(EVERY),
            walk: None,
        }
    }

    /// One more folder, from now on.
    pub(super) fn watch_also(&mut self, path: &Path) {
        self.folders.extend(Folder::new(path, self.at_most));
    }

    /// Looks once, when it is time; says whether the run has added more than it may. May be given up and called again.
    pub(super) async fn exceeded(&mut self) -> bool {
        let Some(walk) = &self.walk else {
            self.look.tick().await;
            return self.look();
        };
        let is_over = timeout_at(walk.until, os::process::ended(&walk.pidfd)).await.is_ok();
        let code = self.walk.take().filter(|_| is_over).and_then(|walk| os::process::exit_code(&walk.pidfd));
        code != Some(WITHIN)
    }

    fn look(&mut self) -> bool {
        let mut is_suspicious = false;
        for folder in &mut self.folders {
            let Ok(space) = os::tree::space(&folder.path) else { continue };
            let (of_bytes, of_files) = (&mut folder.bytes, &mut folder.files);
            if of_bytes.is_greedy(space.bytes) || of_files.is_greedy(space.files) {
                let bytes = space.bytes.taken.saturating_sub(of_bytes.begun);
                let files = space.files.taken.saturating_sub(of_files.begun);
                tracing::warn!(folder = %folder.path.display(), bytes, files, "the disk is nearly full");
                return true;
            }
            is_suspicious |= of_bytes.is_suspicious(space.bytes) | of_files.is_suspicious(space.files);
        }
        if is_suspicious {
            match self.begin_walk() {
                Ok(walk) => self.walk = Some(walk),
                Err(error) => {
                    tracing::warn!(%error, "what a run has added cannot be looked at, so it ends");
                    return true;
                }
            }
        }
        false
    }

    fn begin_walk(&self) -> io::Result<Walk> {
        match child::fork()? {
            Fork::Child => {
                let walked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.walk_folders()));
                child::exit_now(if matches!(walked, Ok(Ok(true))) { WITHIN } else { 1 })
            }
            Fork::Parent { pidfd, .. } => Ok(Walk { pidfd, until: Instant::now() + PATIENCE }),
        }
    }

    /// The walk's whole life; whether the run is within its bound.
    fn walk_folders(&self) -> io::Result<bool> {
        // Other runs' pipes would stay open for as long.
        child::close_from(0)?;
        child::die_with_parent()?;
        let memory = rustix::process::Rlimit { current: Some(WALK_MEMORY), maximum: Some(WALK_MEMORY) };
        rustix::process::setrlimit(rustix::process::Resource::As, memory)?;
        let paths: Vec<_> = self.folders.iter().map(|folder| folder.path.as_path()).collect();
        Ok(os::tree::changed_bytes(&paths, self.since_seconds, self.at_most)? < self.at_most)
    }
}

impl Drop for Walk {
    fn drop(&mut self) {
        os::process::kill_pidfd(&self.pidfd);
        let _ = os::process::wait_pidfd(&self.pidfd);
    }
}

/// What a walk exits with where it has found no more than may be.
const WITHIN: i32 = 0;
