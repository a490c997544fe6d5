//! Whole trees that somebody else has written: measured and removed without following a link, whatever they are like.
//!
//! A tree may be deeper than a stack or a table of descriptors, its folders may be closed to their owner, its names may
//! be any bytes. So nothing here recurses, and at most three descriptors are open at a time.

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, chmodat, openat, renameat, statat, unlinkat};
use std::collections::VecDeque;
use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

/// A folder, never through a link.
const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// What owner needs to change a folder.
const OPEN_TO_OWNER: Mode = Mode::RWXU;

/// Removes a folder and all below it. Nobody may be writing to it.
///
/// Folders below are moved up beside each other instead of being descended into.
///
/// # Errors
/// What cannot be removed; a folder that is missing is no error.
pub(crate) fn remove(folder: &Path) -> io::Result<()> {
    let opened = match openat(rustix::fs::CWD, folder, FOLDER, Mode::empty()) {
        Err(rustix::io::Errno::NOENT) => return Ok(()),
        opened => opened?,
    };
    let mut moved: u64 = 0;
    empty(opened.as_fd(), opened.as_fd(), &mut moved)?;
    // What is left now are folders that were moved up, and some of them hold more.
    while let Some(name) = some_folder(&opened)? {
        let below = openat(&opened, &name, FOLDER, Mode::empty())?;
        empty(below.as_fd(), opened.as_fd(), &mut moved)?;
        unlinkat(&opened, &name, AtFlags::REMOVEDIR)?;
    }
    drop(opened);
    std::fs::remove_dir(folder)
}

/// Removes every file of a folder, and moves every folder in it to `top`, under a name of ours.
fn empty(folder: impl AsFd, top: impl AsFd, moved: &mut u64) -> io::Result<()> {
    let mut names = Vec::new();
    for item in Dir::read_from(folder.as_fd())? {
        let item = item?;
        if !matches!(item.file_name().to_bytes(), b"." | b"..") {
            names.push((item.file_name().to_owned(), item.file_type()));
        }
    }
    for (name, kind) in names {
        let is_folder = match kind {
            FileType::Unknown => {
                FileType::from_raw_mode(statat(folder.as_fd(), &name, AtFlags::SYMLINK_NOFOLLOW)?.st_mode).is_dir()
            }
            kind => kind.is_dir(),
        };
        if !is_folder {
            unlinkat(folder.as_fd(), &name, AtFlags::empty())?;
            continue;
        }
        // A folder that is closed to us can neither be moved nor read.
        chmodat(folder.as_fd(), &name, OPEN_TO_OWNER, AtFlags::empty())?;
        loop {
            *moved += 1;
            let ours = CString::new(format!("going-{moved}")).map_err(io::Error::other)?;
            // Something of that name may stand there: a file would be lost, which is what is wanted; a folder with
            // something in it is not replaced.
            match renameat(folder.as_fd(), &name, top.as_fd(), &ours) {
                Err(rustix::io::Errno::NOTEMPTY | rustix::io::Errno::EXIST | rustix::io::Errno::NOTDIR) => {}
                done => break done?,
            }
        }
    }
    Ok(())
}

/// Any folder in this one.
fn some_folder(folder: &OwnedFd) -> io::Result<Option<CString>> {
    let again = openat(folder, ".", FOLDER, Mode::empty())?;
    for item in Dir::new(again)? {
        let item = item?;
        if !matches!(item.file_name().to_bytes(), b"." | b"..") {
            return Ok(Some(item.file_name().to_owned()));
        }
    }
    Ok(None)
}

/// Bytes that a file counts for, whatever is in it: there are only so many on a disk.
pub(crate) const A_FILE: u64 = 4096;

/// Bytes on disk of files below these folders that were changed at this moment or later, up to `at_most` of bytes and to
/// 200 000 entries: beyond either the answer is `at_most`. So it is where somebody keeps us from looking, by closing a
/// folder of our owner's or by a path that is longer than the kernel takes: else that were the place to hide.
///
/// The time is that of the last change of content or attributes (ctime), which nobody can set back.
pub(crate) fn changed_bytes(folders: &[&Path], since_seconds: i64, at_most: u64) -> io::Result<u64> {
    const MOST_ENTRIES: u64 = 200_000;
    let (mut bytes, mut entries) = (0u64, 0u64);
    for top in folders {
        let opened = match to_walk(rustix::fs::CWD, top.as_os_str().as_bytes()) {
            Walk::Into(opened) => opened,
            Walk::Past => continue,
            Walk::Barred => return Ok(at_most),
        };
        // Relative paths of folders still to be read.
        let mut waiting: VecDeque<OsString> = VecDeque::from([OsString::from(".")]);
        while let Some(relative) = waiting.pop_front() {
            let folder = match to_walk(opened.as_fd(), relative.as_bytes()) {
                Walk::Into(folder) => folder,
                Walk::Past => continue,
                Walk::Barred => return Ok(at_most),
            };
            for item in Dir::read_from(&folder)? {
                let Ok(item) = item else { break };
                if matches!(item.file_name().to_bytes(), b"." | b"..") {
                    continue;
                }
                entries += 1;
                let Ok(stat) = statat(&folder, item.file_name(), AtFlags::SYMLINK_NOFOLLOW) else { continue };
                if FileType::from_raw_mode(stat.st_mode).is_dir() {
                    let mut path = relative.clone().into_vec();
                    path.push(b'/');
                    path.extend(item.file_name().to_bytes());
                    waiting.push_back(OsString::from_vec(path));
                }
                if stat.st_ctime >= since_seconds {
                    bytes += (u64::try_from(stat.st_blocks).unwrap_or(0) * 512).max(A_FILE);
                }
                if bytes >= at_most || entries >= MOST_ENTRIES {
                    return Ok(at_most);
                }
            }
        }
    }
    Ok(bytes)
}

/// How a walk goes on at a folder.
enum Walk {
    Into(OwnedFd),
    /// It went meanwhile, or it is somebody else's, who lets neither us nor a command of ours in.
    Past,
    /// It is our owner's, and cannot be read.
    Barred,
}

fn to_walk(at: BorrowedFd<'_>, path: &[u8]) -> Walk {
    use rustix::io::Errno;
    match openat(at, path, FOLDER, Mode::empty()) {
        Ok(folder) => Walk::Into(folder),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Walk::Past,
        Err(Errno::ACCESS) => match statat(at, path, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if stat.st_uid != super::process::uid() => Walk::Past,
            _ => Walk::Barred,
        },
        Err(_) => Walk::Barred,
    }
}

/// Now, as the time of a file would say it.
pub(crate) fn now_seconds() -> i64 {
    rustix::time::clock_gettime(super::system::host::CLOCK_OF_FILES).tv_sec
}

/// How full the file system of a folder is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Space {
    pub(crate) bytes: Share,
    /// Files of any kind, empty ones too; nothing where the file system does not count them.
    pub(crate) files: Share,
}

/// One of the things that a file system has so many of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Share {
    pub(crate) taken: u64,
    /// What an ordinary user may still take.
    pub(crate) free: u64,
    whole: u64,
    few: u64,
}

impl Share {
    /// Less than a twentieth is left, and little: what else the host writes there soon finds no room.
    pub(crate) fn is_nearly_gone(&self) -> bool {
        self.free < self.whole / 20 && self.free < self.few
    }
}

impl Space {
    pub(crate) fn is_nearly_full(&self) -> bool {
        self.bytes.is_nearly_gone() || self.files.is_nearly_gone()
    }
}

/// Looks at the file system of a folder.
pub(crate) fn space(folder: &Path) -> io::Result<Space> {
    let facts = rustix::fs::statvfs(folder)?;
    Ok(Space {
        bytes: Share {
            taken: facts.f_blocks.saturating_sub(facts.f_bfree) * facts.f_frsize,
            free: facts.f_bavail * facts.f_frsize,
            whole: facts.f_blocks * facts.f_frsize,
            few: 1 << 30,
        },
        files: Share {
            taken: facts.f_files.saturating_sub(facts.f_ffree),
            free: facts.f_favail,
            whole: facts.f_files,
            few: 1 << 17,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::PathBuf;

    fn scratch(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("vambrace-test-tree-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        path
    }

    #[test]
    fn a_tree_that_is_deeper_than_any_stack_goes_and_what_it_links_to_stays() {
        let top = scratch("deep");
        let kept = scratch("kept");
        fs::write(kept.join("file"), "precious").unwrap();
        let tree = top.join("tree");
        fs::create_dir(&tree).unwrap();
        symlink(&kept, tree.join("link")).unwrap();
        fs::hard_link(kept.join("file"), tree.join("hard")).unwrap();
        fs::write(tree.join(OsString::from_vec(b"\n\x1b\xff going-1".to_vec())), "").unwrap();
        fs::write(tree.join("going-1"), "").unwrap();
        fs::create_dir_all(tree.join("going-2/inner")).unwrap();
        fs::create_dir(tree.join("closed")).unwrap();
        fs::write(tree.join("closed/file"), "").unwrap();
        fs::set_permissions(tree.join("closed"), fs::Permissions::from_mode(0o000)).unwrap();
        let mut folder = openat(rustix::fs::CWD, &tree, FOLDER, Mode::empty()).unwrap();
        for _ in 0..5000 {
            rustix::fs::mkdirat(&folder, "d", Mode::RWXU).unwrap();
            folder = openat(&folder, "d", FOLDER, Mode::empty()).unwrap();
        }

        remove(&tree).unwrap();
        remove(&tree).unwrap();

        assert!(!tree.exists());
        assert_eq!(fs::read_to_string(kept.join("file")).unwrap(), "precious");
        remove(&top).unwrap();
        remove(&kept).unwrap();
    }

    #[test]
    fn a_link_in_the_place_of_the_tree_is_not_followed() {
        let top = scratch("link");
        fs::create_dir(top.join("real")).unwrap();
        symlink(top.join("real"), top.join("tree")).unwrap();
        assert!(remove(&top.join("tree")).is_err());
        assert!(top.join("real").exists());
        remove(&top).unwrap();
    }

    #[test]
    fn what_changed_is_counted_and_what_is_behind_links_is_not() {
        let top = scratch("count");
        fs::create_dir_all(top.join("a/b")).unwrap();
        fs::write(top.join("a/b/file"), vec![1; 1 << 20]).unwrap();
        symlink("/usr", top.join("usr")).unwrap();
        let count = |since, most| changed_bytes(&[&top], since, most).unwrap();
        let now = now_seconds();
        assert!((1 << 20..3 << 20).contains(&count(now - 3600, 1 << 30)));
        assert_eq!(count(now + 3600, 1 << 30), 0);
        assert_eq!(count(now - 3600, 4096), 4096);
        assert!(space(&top).unwrap().bytes.taken > 1 << 20);
        remove(&top).unwrap();
    }
}
