//! Folders of the host, where the engine finds them while it makes a container.
//!
//! The engine looks a path up itself, later, as root. So as root ours it is given is a mount that we made from a
//! descriptor, with the flags and the id map of the plan: what a path leads to meanwhile is nobody's matter. The mounts
//! are taken down as soon as the container has its own copies. As an ordinary user we can give it the paths alone.

use super::plan::{Plan, Shown};
use crate::model::{ExecMode, RunFault};
use crate::os;
use crate::os::linux::mounts::{self, Attributes, Reach};
use crate::os::linux::userns;
use crate::sandbox::plan::{Bind, Shown as How, WORKSPACE};
use bollard::models::ContainerInspectResponse;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Who a command in a container is where its workspace belongs to root: nobody's on the host, and none of those that
/// native sandboxes have (0x70000000 and on).
const UID_FOR_ROOTS: u32 = 0x6fff_0000;

/// Mounts that stand for the engine to copy. Dropping takes them down.
#[derive(Debug, Default)]
pub(super) struct Stand(Vec<PathBuf>);

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
    if os::process::uid() == 0 {
        for (opened, shown) in opened.iter().zip(&ready.shown) {
            let fault = |error: io::Error| refused(&opened.bind.source, &error.to_string());
            let place = PathBuf::from(&shown.source);
            let tree = tree(opened, ready.user).map_err(fault)?;
            make_point(&place, opened.owner.2).map_err(fault)?;
            mounts::attach(tree.as_fd(), rustix::fs::CWD.as_fd(), &place).map_err(fault)?;
            ready.stand.0.push(place);
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
    let is_root = os::process::uid() == 0;
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
        let handle = mounts::open_without_links(&bind.source)?;
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

/// A detached copy of it with the flags of the plan, under the command's ids where it belongs to somebody else.
fn tree(opened: &Opened<'_>, user: (u32, u32)) -> io::Result<OwnedFd> {
    let (uid, gid, _) = opened.owner;
    let is_mapped = (uid, gid) != user;
    let reach = if is_mapped { Reach::ThisMount } else { Reach::WholeTree };
    let tree = mounts::clone_tree(opened.handle.as_fd(), reach)?;
    if is_mapped {
        let mapping = userns::mapping((uid, gid), user)?;
        mounts::set_id_map(tree.as_fd(), mapping.as_fd())?;
    }
    let attributes = match opened.bind.shown {
        How::ReadOnly => Attributes { read_only: true, no_exec: false, no_dev: true },
        How::ReadOnlyData => Attributes { read_only: true, no_exec: true, no_dev: true },
        How::Writable => Attributes { read_only: false, no_exec: false, no_dev: true },
        How::WritableData | How::Device => Attributes { read_only: false, no_exec: true, no_dev: true },
    };
    mounts::set_attributes(tree.as_fd(), attributes, Reach::WholeTree)?;
    Ok(tree)
}

fn make_point(place: &Path, is_folder: bool) -> io::Result<()> {
    let folder = place.parent().unwrap_or(place);
    fs::create_dir_all(folder)?;
    // Left by a runner that did not come to its end.
    let _ = mounts::detach(place);
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
        for place in &self.0 {
            // EINVAL: nothing is mounted there.
            if let Err(error) = mounts::detach(place)
                && error.raw_os_error() != Some(libc::EINVAL)
            {
                tracing::warn!(place = %place.display(), %error, "a mount for the engine is left behind");
                continue;
            }
            let _ = fs::remove_dir(place).or_else(|_| fs::remove_file(place));
        }
        if let Some(folder) = self.0.first().and_then(|place| place.parent()) {
            let _ = fs::remove_dir(folder);
        }
    }
}

/// Looks whether the container shows what we meant, as far as this host can tell: an engine on another machine, or in
/// another view of this one's mounts, would show an empty folder instead; and one that mounts a folder once more takes the
/// flags away that it does not know of.
pub(super) fn check(plan: &Plan, live: &ContainerInspectResponse) -> Result<(), RunFault> {
    let Some(pid) = live.state.as_ref().and_then(|state| state.pid).filter(|pid| *pid > 0) else { return Ok(()) };
    if os::process::uid() != 0 || plan.shown.is_empty() {
        return Ok(());
    }
    let wrong = |shown: &Shown, why: &str| RunFault::Engine {
        what: format!("the container does not show what it should at {}: {why}", shown.target),
        hint: "the engine must see this host's mounts: is it on another machine, or in a sandbox itself?".into(),
    };
    let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
    for shown in &plan.shown {
        let place = format!("/proc/{pid}/root{}", shown.target);
        let seen = mounts::open_path(Path::new(&place)).and_then(|handle| os::fs::identity(&handle));
        let is_it = seen.is_ok_and(|(device, inode, ..)| shown.identity.starts_with(&format!("{device}:{inode} ")));
        if !is_it {
            return Err(wrong(shown, "it is something else"));
        }
        // Fields 5 and 6 of proc_pid_mountinfo(5); the last mount of a place is the one that is seen.
        let fields = |line: &str| -> Option<(String, String)> {
            let mut fields = line.split(' ').skip(4);
            Some((fields.next()?.to_owned(), fields.next()?.to_owned()))
        };
        let target =
            shown.target.replace('\\', "\\134").replace(' ', "\\040").replace('\t', "\\011").replace('\n', "\\012");
        let flags = mounts.lines().rev().filter_map(fields).find(|(at, _)| *at == target).map(|(_, flags)| flags);
        let has = |flag: &str| flags.as_deref().is_some_and(|flags| flags.split(',').any(|one| one == flag));
        let missing = [("ro", shown.read_only), ("noexec", shown.no_exec), ("nosuid", true), ("nodev", true)];
        if let Some((flag, _)) = missing.iter().find(|(flag, wanted)| *wanted && !has(flag)) {
            return Err(wrong(shown, &format!("it is mounted without {flag}")));
        }
    }
    Ok(())
}

/// Takes down what earlier runners have left.
pub(super) fn sweep(scratch: &Path) {
    for folder in fs::read_dir(scratch).into_iter().flatten().flatten() {
        let places = fs::read_dir(folder.path()).into_iter().flatten().flatten();
        drop(Stand(places.map(|place| place.path()).collect()));
        let _ = fs::remove_dir(folder.path());
    }
}
