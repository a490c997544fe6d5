//! The tree inside: what of the host is shown, what is made, what is masked.
//!
//! Built below a tmpfs that is attached over the host's /dev, which no bind of a profile may lie in; from
//! then on every path of ours is relative to that root, where this process stands.

use super::secrets::{self, Held};
use super::step::{Step, Steps, at, at_path};
use super::walls::Walls;
use crate::model::{Network, Tier};
use crate::os;
use crate::os::linux::mounts::{self, Attributes, Reach};
use crate::os::linux::userns::Watches;
use crate::os::sandboxed::NAME_SERVER;
use crate::sandbox::environment::HOME;
use crate::sandbox::listed::FOLDER;
use crate::sandbox::plan::PROOF;
use crate::sandbox::plan::{Bind, MASKED_PROC, SECRETS, Shown, WORKSPACE};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// Whose tree it is.
pub(super) struct Owner {
    pub(super) tier: Tier,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// What of its user's watches a user namespace may have.
    pub(super) watches: Option<Watches>,
}

/// The root of a sandbox while it is built.
pub(super) struct Tree {
    root: OwnedFd,
}

const SYSTEM: Attributes = Attributes { read_only: true, no_exec: false, no_dev: true };
const WRITABLE: Attributes = Attributes { read_only: false, no_exec: false, no_dev: true };
const SCRATCH: Attributes = Attributes { read_only: false, no_exec: true, no_dev: true };
const DEVICE: Attributes = Attributes { read_only: false, no_exec: true, no_dev: false };
pub(super) const SEALED: Attributes = Attributes { read_only: true, no_exec: true, no_dev: true };

impl Tree {
    /// Builds what every sandbox has: the system, devices, /proc.
    pub(super) fn base(owner: &Owner, system: &[Bind], walls: &Walls) -> Steps<Self> {
        at(Step::Private, mounts::make_all_private())?;
        // All sources first: from the attaching of the root on, the host's /dev cannot be reached any more.
        let mut trees = Vec::with_capacity(system.len());
        let resolver = resolver();
        // With the host's network come its name servers.
        let also = (walls.network == Network::Host).then_some(&resolver);
        for bind in system.iter().chain(also) {
            if let Some(tree) = open_tree(bind, None)? {
                trees.push((bind, tree));
            }
        }
        let tree = Tree { root: at(Step::Root, empty_root(walls.scratch_bytes))? };
        let root = tree.root.as_fd();
        at(Step::Root, skeleton(owner, walls.network))?;
        for (bind, shown) in &trees {
            at_path(Step::Attach, &bind.target, attach(root, shown.as_fd(), &bind.target))?;
        }
        at(Step::Devices, devices(root))?;
        at(Step::Proc, proc(owner, root))?;
        mask(root)?;
        Ok(tree)
    }

    /// Adds what the profile names, each with its id map if it has one, and secrets that are to be files; then closes the
    /// tree: it becomes the root.
    pub(super) fn complete(self, owner: &Owner, walls: &Walls, mappings: &[Option<File>], files: &[Held]) -> Steps {
        let root = self.root.as_fd();
        // First: a folder of the profile may be shown below /tmp.
        for (path, mode) in [("tmp", 0o1777), ("dev/shm", 0o1777), (HOME, 0o700), (WORKSPACE, 0o700), (PROOF, 0o1777)] {
            if !walls.binds.iter().any(|bind| bind.target == Path::new("/").join(path)) {
                at(Step::Scratch, corner(owner, root, path.trim_start_matches('/'), mode))?;
            }
        }
        for (bind, mapping) in walls.binds.iter().zip(mappings) {
            let Some(shown) = open_tree(bind, mapping.as_ref().map(AsFd::as_fd))? else { continue };
            at_path(Step::Attach, &bind.target, attach(root, shown.as_fd(), &bind.target))?;
        }
        if walls.allowed.is_some() {
            // Filled after the change of the root, where what is listed can be looked up.
            at(Step::Guard, fs::create_dir_all(FOLDER.trim_start_matches('/')))?;
        }
        if !files.is_empty() {
            let folder = at(Step::SecretFiles, secrets::folder(owner, files))?;
            at(Step::SecretFiles, attach(root, folder.as_fd(), Path::new(SECRETS)))?;
        }
        at(Step::SealRoot, mounts::set_attributes(root, SEALED, Reach::ThisMount))?;
        at(Step::Pivot, mounts::pivot_into(root))
    }
}

/// A detached copy of what is to be shown, with its flags; `None` where it is missing and may be.
fn open_tree(bind: &Bind, mapping: Option<BorrowedFd<'_>>) -> Steps<Option<OwnedFd>> {
    let (step, opened) = if bind.named {
        (Step::OpenNamed, mounts::open_without_links(&bind.source))
    } else {
        (Step::OpenSystem, mounts::open_path(&bind.source))
    };
    let source = match opened {
        Err(e) if !bind.required && e.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => at_path(step, &bind.source, opened)?,
    };
    let is_writable = matches!(bind.shown, Shown::Writable | Shown::WritableData);
    let must_be_folder = is_writable || bind.target == Path::new(WORKSPACE);
    if must_be_folder && bind.named && !at_path(step, &bind.source, os::fs::owner(&source))?.2 {
        at_path(step, &bind.source, Err(io::Error::other("it is not a folder")))?;
    }
    let reach = if mapping.is_some() { Reach::ThisMount } else { Reach::WholeTree };
    let tree = at_path(step, &bind.source, mounts::clone_tree(source.as_fd(), reach))?;
    if let Some(mapping) = mapping {
        at_path(Step::IdMap, &bind.source, mounts::set_id_map(tree.as_fd(), mapping))?;
    }
    let attributes = match bind.shown {
        Shown::ReadOnly => SYSTEM,
        Shown::ReadOnlyData => SEALED,
        Shown::Writable => WRITABLE,
        Shown::WritableData => SCRATCH,
        Shown::Device => DEVICE,
    };
    at_path(step, &bind.source, mounts::set_attributes(tree.as_fd(), attributes, Reach::WholeTree))?;
    Ok(Some(tree))
}

/// A tmpfs that holds mount points, links and the scratch folders, attached where /dev was.
fn empty_root(scratch_bytes: u64) -> io::Result<OwnedFd> {
    let size = scratch_bytes.to_string();
    let options = [(c"mode", "0755"), (c"size", size.as_str()), (c"nr_inodes", "65536")];
    let root = mounts::new_filesystem(c"tmpfs", &options, SCRATCH)?;
    mounts::attach(root.as_fd(), rustix::fs::CWD, Path::new("/dev"))?;
    rustix::process::fchdir(root.as_fd())?;
    Ok(root)
}

/// Makes a mount point of the right kind below the root we stand in, and attaches there.
fn attach(root: BorrowedFd<'_>, tree: BorrowedFd<'_>, target: &Path) -> io::Result<()> {
    let relative = target.strip_prefix("/").unwrap_or(target);
    let (_, _, is_dir) = os::fs::owner(&tree)?;
    if is_dir {
        fs::create_dir_all(relative)?;
    } else {
        if let Some(folder) = relative.parent() {
            fs::create_dir_all(folder)?;
        }
        // Never through something that is there: it would be somebody's file.
        File::create_new(relative)?;
    }
    mounts::attach(tree, root, relative)
}

/// What is made rather than shown: folders, a user database of our own, and /bin, /lib and so on as
/// links where the host is merged (hier(7)).
fn skeleton(owner: &Owner, network: Network) -> io::Result<()> {
    for name in ["bin", "sbin", "lib", "lib32", "lib64", "libx32"] {
        // The host's own root is still above us; the new one is only where we stand.
        if let Ok(target) = fs::read_link(Path::new("/").join(name)) {
            symlink(target, name)?;
        }
    }
    for folder in ["dev", "etc", "home", "root", "run", "srv", "opt", "var", "sys", "mnt", "media"] {
        fs::create_dir_all(folder)?;
    }
    // Relative: while it is built, an absolute link would lead to the host.
    symlink("../tmp", "var/tmp")?;
    let (uid, gid) = (owner.uid, owner.gid);
    fs::write(
        "etc/passwd",
        format!("root:x:0:0::/root:/bin/sh\nagent:x:{uid}:{gid}::{HOME}:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n"),
    )?;
    fs::write("etc/group", format!("root:x:0:\nagent:x:{gid}:\nnogroup:x:65534:\n"))?;
    fs::write("etc/hostname", "sandbox\n")?;
    // The command's own, so that the mount alone is between them: the battery tries to empty it.
    own(owner, Path::new("etc/hostname"))?;
    if network == Network::Allowlist {
        fs::write("etc/resolv.conf", format!("nameserver {}\n", NAME_SERVER.ip()))?;
    }
    fs::write("etc/hosts", "127.0.0.1 localhost sandbox\n::1 localhost sandbox\n")
}

/// The host's choice of name servers, wherever the link leads.
fn resolver() -> Bind {
    let path = PathBuf::from("/etc/resolv.conf");
    Bind { source: path.clone(), target: path, shown: Shown::ReadOnly, required: false, named: false }
}

fn devices(root: BorrowedFd<'_>) -> io::Result<()> {
    for (name, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("ptmx", "pts/ptmx"),
    ] {
        symlink(target, Path::new("dev").join(name))?;
    }
    fs::create_dir("dev/pts")?;
    // An instance of its own: no terminal of the host is in it.
    // Of the few thousand there are on a host it gives a command no more than this.
    let options = [(c"ptmxmode", "0666"), (c"mode", "0600"), (c"max", "64")];
    let pts = mounts::new_filesystem(c"devpts", &options, DEVICE)?;
    mounts::attach(pts.as_fd(), root, Path::new("dev/pts"))
}

fn proc(owner: &Owner, root: BorrowedFd<'_>) -> io::Result<()> {
    fs::create_dir("proc")?;
    let proc = mounts::new_filesystem(c"proc", &[], if owner.watches.is_some() { SCRATCH } else { SEALED })?;
    if let Some(watches) = owner.watches {
        watches.bound(proc.as_fd())?;
        mounts::set_attributes(proc.as_fd(), SEALED, Reach::ThisMount)?;
    }
    mounts::attach(proc.as_fd(), root, Path::new("proc"))
}

fn mask(root: BorrowedFd<'_>) -> Steps {
    let (mut folder, mut file) = (Cover::of("mnt"), Cover::of("dev/null"));
    for name in MASKED_PROC {
        let target = Path::new("proc").join(name);
        let cover = match fs::symlink_metadata(&target) {
            Ok(kind) if kind.is_dir() => &mut folder,
            Ok(_) => &mut file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => return at_path(Step::Mask, &target, Err(e)),
        };
        at_path(Step::Mask, &target, cover.lay(root, &target))?;
    }
    Ok(())
}

/// What lies over a part of /proc.
struct Cover {
    source: &'static str,
    /// The first of its mounts: the others are copies of it, flags and all.
    first: Option<OwnedFd>,
}

impl Cover {
    fn of(source: &'static str) -> Self {
        Cover { source, first: None }
    }

    fn lay(&mut self, root: BorrowedFd<'_>, target: &Path) -> io::Result<()> {
        if let Some(first) = &self.first {
            return mounts::attach(mounts::clone_tree(first.as_fd(), Reach::ThisMount)?.as_fd(), root, target);
        }
        let cover = mounts::clone_tree(mounts::open_path(Path::new(self.source))?.as_fd(), Reach::ThisMount)?;
        mounts::set_attributes(cover.as_fd(), SEALED, Reach::ThisMount)?;
        mounts::attach(cover.as_fd(), root, target)?;
        self.first = Some(cover);
        Ok(())
    }
}

/// Makes it the command's; in a user namespace it is already.
fn own(owner: &Owner, path: &Path) -> io::Result<()> {
    if owner.tier == Tier::Root {
        std::os::unix::fs::chown(path, Some(owner.uid), Some(owner.gid))?;
    }
    Ok(())
}

/// A writable folder of the root's own tmpfs, as a mount of its own that stays writable when the root does not.
fn corner(owner: &Owner, root: BorrowedFd<'_>, path: &str, mode: u32) -> io::Result<()> {
    fs::create_dir_all(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    own(owner, Path::new(path))?;
    let corner = mounts::clone_tree(mounts::open_path(Path::new(path))?.as_fd(), Reach::ThisMount)?;
    mounts::attach(corner.as_fd(), root, Path::new(path))
}
