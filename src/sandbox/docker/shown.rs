//! Folders of the host, where the engine finds them while it makes a container.
//!
//! The engine looks a path up itself, later, as root. So as root ours it is given is a mount that we made from a
//! descriptor, with the flags and the id map of the plan: what a path leads to meanwhile is nobody's matter. The mounts
//! are taken down as soon as the container has its own copies. As an ordinary user we can give it the paths alone.

use super::host;
use super::plan::Shown;
use crate::model::{ExecMode, RunFault};
use crate::os;
use crate::sandbox::plan::{Bind, Shown as How, WORKSPACE};
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// Who a command in a container is where its workspace belongs to root: nobody's on the host, and none of those that
/// native sandboxes have (0x70000000 and on).
const UID_FOR_ROOTS: u32 = 0x6fff_0000;

/// Mounts that stand for the engine to copy. Dropping takes them down.
#[derive(Debug, Default)]
pub(super) struct Stand {
    places: Vec<PathBuf>,
    /// The lock on their folder: what is locked is no other runner's to take down.
    _held: Option<File>,
}

impl Stand {
    /// Makes the folder of a container's mounts, and holds it.
    fn at(folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        match os::fs::lock_folder(folder)? {
            Some(held) => Ok(Stand { places: Vec::new(), _held: Some(held) }),
            None => Err(io::Error::other("another runner shows it to this very container at the moment")),
        }
    }
}

/// One folder or file, opened and looked at.
struct Opened<'a> {
    bind: &'a Bind,
    handle: OwnedFd,
    /// Uid, gid, and whether it is a folder.
    owner: (u32, u32, bool),
}

/// Everything of these binds, for a container of this name.
pub(super) struct Ready {
    pub(super) shown: Vec<Shown>,
    pub(super) user: (u32, u32),
    pub(super) stand: Stand,
}

/// Opens what is to be shown and puts it where the engine finds it.
///
/// # Errors
/// Where a path is a link or missing, or belongs to somebody whom the command could not be.
pub(super) fn prepare(scratch: &Path, name: &str, binds: &[Bind], mode: ExecMode) -> Result<Ready, RunFault> {
    let opened = binds.iter().map(open).collect::<Result<Vec<_>, _>>()?;
    let mut ready = told(scratch, name, &opened, mode)?;
    if host::makes_mounts() && !opened.is_empty() {
        let folder = scratch.join(name);
        ready.stand = Stand::at(&folder).map_err(|error| refused(&folder, &error.to_string()))?;
        for (opened, shown) in opened.iter().zip(&ready.shown) {
            let fault = |error: io::Error| refused(&opened.bind.source, &error.to_string());
            let place = PathBuf::from(&shown.source);
            let (uid, gid, is_folder) = opened.owner;
            let tree = host::tree(&opened.handle, (uid, gid), ready.user, opened.bind.shown).map_err(fault)?;
            make_point(&place, is_folder).map_err(fault)?;
            tree.attach(&place).map_err(fault)?;
            ready.stand.places.push(place);
        }
    }
    Ok(ready)
}

/// What would be shown, with nothing put anywhere.
///
/// # Errors
/// As above.
pub(super) fn describe(scratch: &Path, name: &str, binds: &[Bind], mode: ExecMode) -> Result<Ready, RunFault> {
    told(scratch, name, &binds.iter().map(open).collect::<Result<Vec<_>, _>>()?, mode)
}

fn told(scratch: &Path, name: &str, opened: &[Opened<'_>], mode: ExecMode) -> Result<Ready, RunFault> {
    let is_root = host::makes_mounts();
    let own = (os::process::uid(), os::process::gid());
    let workspace = opened.iter().find(|opened| opened.bind.target == Path::new(WORKSPACE)).map(|opened| opened.owner);
    let user = match workspace {
        _ if !is_root => own,
        Some((uid, gid, _)) if uid != 0 => (uid, gid),
        _ => (UID_FOR_ROOTS, UID_FOR_ROOTS),
    };
    let mut ready = Ready { shown: Vec::new(), user, stand: Stand::default() };
    for (number, opened) in opened.iter().enumerate() {
        let Opened { bind, handle, owner } = opened;
        let read_only = matches!(bind.shown, How::ReadOnly | How::ReadOnlyData);
        let no_exec = matches!(bind.shown, How::ReadOnlyData | How::WritableData);
        let source = if is_root {
            scratch.join(name).join(number.to_string())
        } else if !read_only && owner.0 != user.0 {
            return Err(refused(&bind.source, "it belongs to another user, and only root can show it to the command"));
        } else if (!read_only || no_exec) && mode == ExecMode::Allowlist {
            let why = "a list of executables asks for a mount without code, and only root can make one";
            return Err(refused(&bind.source, why));
        } else {
            bind.source.clone()
        };
        ready.shown.push(Shown {
            source: source.display().to_string(),
            target: bind.target.display().to_string(),
            read_only,
            no_exec,
            is_mounted: is_root,
            identity: identity(bind, handle).map_err(|error| refused(&bind.source, &error.to_string()))?,
        });
    }
    Ok(ready)
}

/// What stands at these places now.
///
/// # Errors
/// Where one is a link or missing.
pub(super) fn identities(binds: &[Bind]) -> Result<Vec<String>, RunFault> {
    let look = |bind: &Bind| {
        let opened = open(bind)?;
        identity(bind, &opened.handle).map_err(|error| refused(&bind.source, &error.to_string()))
    };
    binds.iter().map(look).collect()
}

/// Device and inode, then owner, group and how it is shown.
fn identity(bind: &Bind, handle: &OwnedFd) -> io::Result<String> {
    let (device, inode, uid, gid) = os::fs::identity(handle)?;
    Ok(format!("{device}:{inode} {uid}:{gid} {}", bind.shown.as_str()))
}

fn open(bind: &Bind) -> Result<Opened<'_>, RunFault> {
    let look = || {
        let handle = host::open(&bind.source)?;
        let owner = os::fs::owner(&handle)?;
        Ok(Opened { bind, handle, owner })
    };
    let opened: Opened<'_> = look().map_err(|error: io::Error| refused(&bind.source, &error.to_string()))?;
    let must_be_folder =
        !matches!(bind.shown, How::ReadOnly | How::ReadOnlyData) || bind.target == Path::new(WORKSPACE);
    if must_be_folder && !opened.owner.2 {
        return Err(refused(&bind.source, "it is not a folder"));
    }
    Ok(opened)
}

fn make_point(place: &Path, is_folder: bool) -> io::Result<()> {
    // Left by a runner that did not come to its end.
    let _ = host::detach(place);
    match (is_folder, fs::symlink_metadata(place)) {
        (true, Ok(meta)) if meta.is_dir() => Ok(()),
        (false, Ok(meta)) if meta.is_file() => Ok(()),
        (true, _) => fs::create_dir(place),
        (false, _) => File::create_new(place).map(drop),
    }
}

fn refused(path: &Path, why: &str) -> RunFault {
    RunFault::Refused {
        what: format!("{} cannot be shown inside the container: {why}", path.display()),
        hint: "choose a folder that is no link and belongs to the runner's user, or run the runner as root".into(),
    }
}

impl Drop for Stand {
    fn drop(&mut self) {
        for place in &self.places {
            if let Err(error) = host::detach(place) {
                tracing::warn!(place = %place.display(), %error, "a mount for the engine is left behind");
                continue;
            }
            let _ = fs::remove_dir(place).or_else(|_| fs::remove_file(place));
        }
        if let Some(folder) = self.places.first().and_then(|place| place.parent()) {
            let _ = fs::remove_dir(folder);
        }
    }
}

/// Takes down what earlier runners have left. `sandbox run` has a runner of its own beside the gateway's.
pub(super) fn sweep(scratch: &Path) {
    for folder in fs::read_dir(scratch).into_iter().flatten().flatten() {
        let Ok(Some(held)) = os::fs::lock_folder(&folder.path()) else { continue };
        let places = fs::read_dir(folder.path()).into_iter().flatten().flatten();
        drop(Stand { places: places.map(|place| place.path()).collect(), _held: Some(held) });
        let _ = fs::remove_dir(folder.path());
    }
}
