//! Children that wait in finished walls, so that the next commands need not wait for theirs. Each serves one command, or none.

use super::launched::Inmate;
use super::walls::Walls;
use crate::os;
use crate::os::linux::cgroup::Bounds;
use crate::os::linux::mounts::{self, Watch};
use crate::sandbox::plan::Bind;
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// A child that has waited longer sees the host's files as they were and is not used.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// For how many different walls a child is kept waiting.
const MOST_SPARES: usize = 2;

/// An init inside finished walls that waits for its brief.
pub(super) struct Spare {
    pub(super) inmate: Inmate,
    pub(super) status: OwnedFd,
    pub(super) channel: OwnedFd,
    pub(super) walls: Walls,
    /// Device and inode of each folder of the profile when it was opened.
    pub(super) shown: Vec<Option<Identity>>,
    pub(super) bounds: Bounds,
    pub(super) made: Instant,
}

/// What a folder is, whatever its name: device, inode, owner, group.
pub(super) type Identity = (u64, u64, u32, u32);

/// The waiting children, what the last commands' walls were like, and an eye on the host's mounts.
pub(super) struct Reserve {
    waiting: Vec<Spare>,
    last: Vec<(Walls, Bounds)>,
    mounts: Watch,
}

impl Reserve {
    /// # Errors
    /// Where the host's mounts cannot be watched.
    pub(super) fn begin() -> io::Result<Self> {
        Ok(Reserve { waiting: Vec::new(), last: Vec::new(), mounts: Watch::begin()? })
    }

    /// Walls of the last commands for which no child waits.
    pub(super) fn wanted(&self) -> Vec<(Walls, Bounds)> {
        let waits = |walls: &Walls| self.waiting.iter().any(|spare| spare.walls == *walls);
        self.last.iter().filter(|(walls, _)| !waits(walls)).cloned().collect()
    }

    pub(super) fn add(&mut self, spare: Spare) {
        self.waiting.push(spare);
    }

    /// A waiting child in these walls that sees the host as it is now.
    pub(super) fn take(&mut self, walls: &Walls) -> Option<Spare> {
        self.tidy();
        let at = self.waiting.iter().position(|spare| spare.walls == *walls)?;
        let spare = self.waiting.swap_remove(at);
        // A folder may have been replaced by another of its name since.
        if spare.shown == shown(walls) {
            return Some(spare);
        }
        None
    }

    /// Lets go of children that are too old, have died, or hold mounts that the host has changed since.
    pub(super) fn tidy(&mut self) {
        let changed = self.mounts.has_changed();
        self.waiting.retain(|spare| {
            let dead = os::process::wait_readable(&spare.inmate.pidfd, Some(Duration::ZERO)).unwrap_or(true);
            !changed && !dead && spare.made.elapsed() < LONGEST_WAIT
        });
    }

    /// These walls are the likeliest to be wanted next.
    pub(super) fn remember(&mut self, walls: &Walls, bounds: Bounds) {
        self.last.retain(|(known, _)| known != walls);
        self.last.truncate(MOST_SPARES - 1);
        self.last.insert(0, (walls.clone(), bounds));
    }
}

/// What stands at the folders of the profile now; `None` for one that cannot be opened.
pub(super) fn shown(walls: &Walls) -> Vec<Option<Identity>> {
    let identity = |bind: &Bind| os::fs::identity(&mounts::open_without_links(&bind.source).ok()?).ok();
    // What may be executed is known by its inode as well, and an upgrade of the host replaces that. Patterns wait for
    // the spare's end.
    let listed = |path: &String| os::fs::identity(&mounts::open_path(path.as_ref()).ok()?).ok();
    walls.binds.iter().map(identity).chain(walls.allowed.iter().flatten().map(listed)).collect()
}
