//! Exec allowlist: finds the listed executables inside the finished tree, and lays the shim over their loaders.
//!
//! What is executable is decided by the kernel on inodes, for the whole process tree: Landlock's EXECUTE on the listed
//! files and on the shim, and nothing else. Names, arguments, shells and wrappers are not looked at.

use super::loader;
use super::step::{Step, Steps, at, at_path};
use super::walls::Walls;
use crate::os;
use crate::os::linux::mounts::{self, Attributes, Reach};
use crate::sandbox::listed::{FOLDER, LOADERS, SHIM};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

/// A file that is executable but for the list: the battery tries to execute it.
pub(super) const UNLISTED: &str = "unlisted";

/// Matches of all patterns together.
const MOST_LISTED: usize = 4096;

/// Everything in here is read-only in the end; the shim and the loaders must be executable or mapped as code.
const LOADER_FOLDER: Attributes = Attributes { read_only: false, no_exec: false, no_dev: true };
const SEALED: Attributes = Attributes { read_only: true, no_exec: false, no_dev: true };

/// Links on one path, as the kernel's MAXSYMLINKS.
const MOST_LINKS: usize = 40;

/// Lays the shim over every loader and gives what may be executed: the listed files and folders, and the shims.
///
/// Stands in the new root, before privileges are dropped. A listed path that is missing loses its own grant only.
pub(super) fn raise(listed: &[String], walls: &Walls) -> Steps<Vec<PathBuf>> {
    let mut allowed = at(Step::Guard, matches(listed, walls))?;
    let loaders = loaders(&allowed)?;
    at(Step::Guard, cover(&loaders))?;
    allowed.extend(loaders.into_values());
    Ok(allowed)
}

/// The same where the tree is finished and was made with the shim over its loaders, as a container's is: looks whether
/// it lies over each of them, and gives what may be executed.
pub(super) fn find(listed: &[String], walls: &Walls) -> Steps<Vec<PathBuf>> {
    let mut allowed = at(Step::Guard, matches(listed, walls))?;
    for (name, place) in loaders(&allowed)? {
        let is_covered = fs::read(&place).is_ok_and(|bytes| bytes == SHIM) && Path::new(FOLDER).join(name).is_file();
        if !is_covered {
            at_path(Step::Guard, &place, Err(io::Error::other("it is a loader that the shim does not cover")))?;
        }
        allowed.push(place);
    }
    Ok(allowed)
}

/// The loaders that there are by their names, each where it really is.
fn loaders(allowed: &[PathBuf]) -> Steps<BTreeMap<OsString, PathBuf>> {
    if SHIM.is_empty() {
        at(Step::Guard, Err(io::Error::other("there is no guarded loader for this kind of machine")))?;
    }
    let mut loaders = BTreeMap::new();
    let named = allowed.iter().filter_map(|path| loader::interpreter(File::open(path).ok()?).ok().flatten());
    for path in named.chain(LOADERS.iter().map(PathBuf::from)) {
        let (Some(name), Ok(place)) = (path.file_name(), os::fs::canonical(&path)) else { continue };
        if !place.is_file() {
            continue;
        }
        if let Some(other) = loaders.insert(name.to_owned(), place.clone()).filter(|other| *other != place) {
            let why = format!("it and {} have one name, and the shim finds a loader by its name", other.display());
            at_path(Step::Guard, &place, Err(io::Error::other(why)))?;
        }
    }
    Ok(loaders)
}

/// The files and folders that the list names, as they really are.
fn matches(listed: &[String], walls: &Walls) -> io::Result<Vec<PathBuf>> {
    let options =
        glob::MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: true };
    let mut found = Vec::new();
    for pattern in listed {
        let paths = glob::glob_with(pattern, options)
            .map_err(|e| io::Error::other(format!("{pattern:?} is no pattern: {}", e.msg)))?;
        for path in paths.filter_map(Result::ok) {
            found.extend(real(&path, walls, MOST_LINKS).filter(|place| !walls.is_written(place)));
            if found.len() > MOST_LISTED {
                return Err(io::Error::other(format!("the list names more than {MOST_LISTED} files")));
            }
        }
    }
    Ok(found)
}

/// What a path leads to; `None` where that is missing, or where a link on the way lies in a place that commands write to:
/// it would have any other file executed in its stead.
fn real(path: &Path, walls: &Walls, links: usize) -> Option<PathBuf> {
    let name = path.components().next_back()?;
    let folder = match (name, path.parent()) {
        (Component::RootDir, _) => return Some(path.to_owned()),
        (_, Some(parent)) => real(parent, walls, links)?,
        _ => return None,
    };
    let place = match name {
        Component::ParentDir => folder.parent()?.to_owned(),
        name => folder.join(name),
    };
    match fs::symlink_metadata(&place).ok()?.is_symlink() {
        true if walls.is_written(&place) => None,
        true => real(&folder.join(fs::read_link(&place).ok()?), walls, links.checked_sub(1)?),
        false => Some(place),
    }
}

/// Shows each loader in a folder of ours and lays the shim over its own place.
fn cover(loaders: &BTreeMap<OsString, PathBuf>) -> io::Result<()> {
    let folder = mounts::new_filesystem(c"tmpfs", &[(c"mode", "0755"), (c"size", "1M")], LOADER_FOLDER)?;
    mounts::attach(folder.as_fd(), rustix::fs::CWD, Path::new(FOLDER))?;
    let folder_path = Path::new(FOLDER);
    let shim = folder_path.join("shim");
    fs::write(&shim, SHIM)?;
    fs::write(folder_path.join(UNLISTED), "")?;
    for name in ["shim", UNLISTED] {
        fs::set_permissions(folder_path.join(name), fs::Permissions::from_mode(0o755))?;
    }
    for name in loaders.keys() {
        File::create_new(folder_path.join(name))?;
    }
    mounts::set_attributes(folder.as_fd(), SEALED, Reach::ThisMount)?;
    for (name, place) in loaders {
        let real = mounts::clone_tree(mounts::open_path(place)?.as_fd(), Reach::ThisMount)?;
        mounts::attach(real.as_fd(), rustix::fs::CWD, &folder_path.join(name))?;
        let cover = mounts::clone_tree(mounts::open_path(&shim)?.as_fd(), Reach::ThisMount)?;
        mounts::attach(cover.as_fd(), rustix::fs::CWD, place)?;
    }
    Ok(())
}
