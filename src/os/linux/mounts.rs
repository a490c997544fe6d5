//! The mount API of kernel 5.2 and mount_setattr(2) of 5.12: trees are built from descriptors,
//! so that no path is looked up twice and flags reach a whole subtree in one call.

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
};
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// Flags of a mount. `nosuid` is not among them because every mount here has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Attributes {
    pub(crate) read_only: bool,
    pub(crate) no_exec: bool,
    /// Device nodes on it are dead. Off only for the handful bound into /dev.
    pub(crate) no_dev: bool,
}

impl Attributes {
    fn flags(self) -> MountAttrFlags {
        let mut flags = MountAttrFlags::MOUNT_ATTR_NOSUID;
        flags.set(MountAttrFlags::MOUNT_ATTR_RDONLY, self.read_only);
        flags.set(MountAttrFlags::MOUNT_ATTR_NOEXEC, self.no_exec);
        flags.set(MountAttrFlags::MOUNT_ATTR_NODEV, self.no_dev);
        flags
    }
}

/// Whether a change of flags reaches the mounts below as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    ThisMount,
    WholeTree,
}

/// Nothing mounted from here on is seen outside this mount namespace, and the reverse.
pub(crate) fn make_all_private() -> io::Result<()> {
    Ok(rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?)
}

/// Tells whether anything was mounted or unmounted in our mount namespace.
#[derive(Debug)]
pub(crate) struct Watch(std::fs::File);

impl Watch {
    /// Begins to watch.
    pub(crate) fn begin() -> io::Result<Self> {
        std::fs::File::open("/proc/self/mountinfo").map(Watch)
    }

    /// Whether something changed since the last time this was asked (poll on proc_pid_mountinfo(5), kernel 2.6.30).
    pub(crate) fn has_changed(&self) -> bool {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let mut fds = [PollFd::new(&self.0, PollFlags::PRI)];
        !matches!(poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })), Ok(0))
    }
}

/// Opens a path as a handle; no component of it may be a symbolic or magic link.
///
/// # Errors
/// ELOOP where a component is a link.
pub(crate) fn open_without_links(path: &Path) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    match rustix::fs::openat2(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve) {
        // systemd's RestrictSUIDSGID= answers so: the mode of what could be made lies in memory.
        Err(rustix::io::Errno::NOSYS) => walk_without_links(path),
        opened => Ok(opened?),
    }
}

/// The same, each component from a handle on the one before.
fn walk_without_links(path: &Path) -> io::Result<OwnedFd> {
    let step = |from: BorrowedFd<'_>, name: &Path| -> io::Result<OwnedFd> {
        let handle = rustix::fs::openat(from, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        match rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(&handle)?.st_mode) {
            rustix::fs::FileType::Symlink => Err(rustix::io::Errno::LOOP.into()),
            _ => Ok(handle),
        }
    };
    let mut components = path.components();
    let first = components.next().ok_or(rustix::io::Errno::NOENT)?;
    let mut handle = step(CWD, first.as_ref())?;
    for component in components {
        handle = step(handle.as_fd(), component.as_ref())?;
    }
    Ok(handle)
}

/// Opens a path as a handle, following links.
pub(crate) fn open_path(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?)
}

/// A detached copy of the tree at `source`, alone or with all that is mounted below it.
///
/// In a user namespace only whole trees can be copied where something is mounted below: the parts hide each other.
pub(crate) fn clone_tree(source: BorrowedFd<'_>, reach: Reach) -> io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    flags.set(OpenTreeFlags::AT_RECURSIVE, reach == Reach::WholeTree);
    Ok(rustix::mount::open_tree(source, "", flags)?)
}

/// A new file system with these options, mounted nowhere yet.
pub(crate) fn new_filesystem(kind: &CStr, options: &[(&CStr, &str)], attributes: Attributes) -> io::Result<OwnedFd> {
    let context = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        rustix::mount::fsconfig_set_string(context.as_fd(), *key, *value)?;
    }
    rustix::mount::fsconfig_create(context.as_fd())?;
    Ok(rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes.flags())?)
}

/// Sets the flags of a mount, or of it and all below it, in one call.
pub(crate) fn set_attributes(mount: BorrowedFd<'_>, attributes: Attributes, reach: Reach) -> io::Result<()> {
    setattr(mount, attributes.flags().bits() as u64, 0, None, reach)
}

/// Makes a detached mount show its files under other owners (see `userns::mapping`).
///
/// # Errors
/// EINVAL where the file system does not know id-mapped mounts.
pub(crate) fn set_id_map(mount: BorrowedFd<'_>, mapping: BorrowedFd<'_>) -> io::Result<()> {
    setattr(mount, libc::MOUNT_ATTR_IDMAP, 0, Some(mapping), Reach::ThisMount)
}

fn setattr(
    mount: BorrowedFd<'_>,
    set: u64,
    clear: u64,
    userns: Option<BorrowedFd<'_>>,
    reach: Reach,
) -> io::Result<()> {
    let attr = libc::mount_attr {
        attr_set: set,
        attr_clr: clear,
        propagation: 0,
        userns_fd: userns.map_or(0, |fd| fd.as_raw_fd() as u64),
    };
    let recursive = if reach == Reach::WholeTree { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is an empty C string, `attr` outlives the call and its size is passed with it.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | recursive,
            &raw const attr,
            size_of::<libc::mount_attr>(),
        )
    };
    if done == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Attaches a detached mount at a path below `root`.
pub(crate) fn attach(mount: BorrowedFd<'_>, root: BorrowedFd<'_>, target: &Path) -> io::Result<()> {
    Ok(rustix::mount::move_mount(mount, "", root, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}

/// Takes a mount down, now or when nobody uses it any more; links in the path are not followed.
///
/// # Errors
/// EINVAL where nothing is mounted there.
pub(crate) fn detach(place: &Path) -> io::Result<()> {
    Ok(rustix::mount::unmount(place, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)?)
}

/// Makes `root`, a mount point of this namespace, the root of everything and lets go of the old one.
pub(crate) fn pivot_into(root: BorrowedFd<'_>) -> io::Result<()> {
    rustix::process::fchdir(root)?;
    // pivot_root(2), "pivot_root(".", ".")": the old root lands on top and is detached at once.
    rustix::process::pivot_root(".", ".")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    Ok(rustix::process::chdir("/")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_openat2_a_path_with_a_link_is_refused_all_the_same() {
        let root = std::env::temp_dir().join(format!("vambrace-walk-{}", std::process::id()));
        std::fs::create_dir_all(root.join("a/b")).unwrap();
        std::os::unix::fs::symlink("a", root.join("l")).unwrap();
        std::os::unix::fs::symlink("b", root.join("a/l")).unwrap();
        let root = crate::os::fs::canonical(&root).unwrap();
        for open in [open_without_links, walk_without_links] {
            assert!(open(&root.join("a/b")).is_ok());
            for (path, errno) in [
                ("l/b", rustix::io::Errno::LOOP),
                ("a/l", rustix::io::Errno::LOOP),
                ("a/none", rustix::io::Errno::NOENT),
            ] {
                assert_eq!(open(&root.join(path)).unwrap_err().raw_os_error(), Some(errno.raw_os_error()), "{path}");
            }
            assert!(open(Path::new("/proc/self/exe")).is_err());
        }
        std::fs::remove_dir_all(root).unwrap();
    }
}
