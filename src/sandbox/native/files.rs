//! The file tools, carried out by the init inside its finished walls: what a command could not reach, they cannot either.
//!
//! No link is followed anywhere on the way, and nothing but regular files is opened: a FIFO would wait, a device would
//! never end. openat2 is not for a process behind the filter, so every part of a path is opened by itself.

use crate::model::{FileAct, LONGEST_LIST};
use crate::os;
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, fchmod, fstat, openat, renameat, seek, statat, unlinkat};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

const FOLDER: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const REGULAR: OFlags = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

/// Does it with the streams at 0, 1 and 2; gives the exit code.
pub(super) fn perform(workspace: &Path, act: &FileAct) -> u8 {
    match attempt(workspace, act) {
        Ok(()) => 0,
        Err(error) => {
            let _ = writeln!(io::stderr(), "{error}");
            1
        }
    }
}

fn attempt(workspace: &Path, act: &FileAct) -> io::Result<()> {
    // Looked at where it was asked for as well; whoever sends orders may be another.
    if let Some(why) = FileAct::refused_path(act.path()) {
        return Err(io::Error::other(format!("the path {why}")));
    }
    let top = openat(CWD, workspace, FOLDER, Mode::empty())?;
    match act {
        FileAct::Read { path, offset, length } => read(&top, path, *offset, *length),
        FileAct::Write { path, append: true } => add(&top, path),
        FileAct::Write { path, append: false } => replace(&top, path),
        FileAct::List { path } => list(&top, path),
    }
}

/// The folder that holds the last part of a path, and that part.
fn parent<'a>(top: &OwnedFd, path: &'a str) -> io::Result<(OwnedFd, &'a str)> {
    let (folders, name) = path.rsplit_once('/').unwrap_or(("", path));
    Ok((descend(top, folders)?, name))
}

fn descend(top: &OwnedFd, path: &str) -> io::Result<OwnedFd> {
    let mut folder = top.try_clone()?;
    for part in path.split('/').filter(|part| !part.is_empty()) {
        folder = openat(&folder, part, FOLDER, Mode::empty()).map_err(named(part))?;
    }
    Ok(folder)
}

fn named(what: &str) -> impl Fn(rustix::io::Errno) -> io::Error {
    move |errno| match errno {
        rustix::io::Errno::LOOP => io::Error::other(format!("{what}: it is a link, and links are not followed")),
        other => io::Error::other(format!("{what}: {}", io::Error::from(other))),
    }
}

fn regular(file: &OwnedFd, name: &str) -> io::Result<Mode> {
    let stat = fstat(file)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Ok(Mode::from_raw_mode(stat.st_mode) & Mode::from_raw_mode(0o777)),
        _ => Err(io::Error::other(format!("{name}: it is no regular file"))),
    }
}

fn read(top: &OwnedFd, path: &str, offset: u64, length: u64) -> io::Result<()> {
    let (folder, name) = parent(top, path)?;
    let file = openat(&folder, name, REGULAR | OFlags::RDONLY, Mode::empty()).map_err(named(name))?;
    regular(&file, name)?;
    seek(&file, rustix::fs::SeekFrom::Start(offset))?;
    io::copy(&mut File::from(file).take(length), &mut io::stdout().lock())?;
    io::stdout().flush()
}

fn add(top: &OwnedFd, path: &str) -> io::Result<()> {
    let (folder, name) = parent(top, path)?;
    let flags = REGULAR | OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE;
    let file = openat(&folder, name, flags, Mode::from_raw_mode(0o644)).map_err(named(name))?;
    regular(&file, name)?;
    io::copy(&mut io::stdin().lock(), &mut File::from(file)).map(|_| ())
}

/// Written aside and renamed: a reader sees the old content or the new one, and a failure changes nothing.
fn replace(top: &OwnedFd, path: &str) -> io::Result<()> {
    let (folder, name) = parent(top, path)?;
    let mode = match statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(rustix::io::Errno::NOENT) => Mode::from_raw_mode(0o644),
        Err(e) => return Err(named(name)(e)),
        Ok(stat) if FileType::from_raw_mode(stat.st_mode).is_file() => {
            Mode::from_raw_mode(stat.st_mode) & Mode::from_raw_mode(0o777)
        }
        Ok(_) => return Err(io::Error::other(format!("{name}: it is no regular file"))),
    };
    let aside = format!(".vambrace-{}", crate::crypto::hex(&os::host::random::<8>()));
    let flags = REGULAR | OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
    let file = openat(&folder, &aside, flags, Mode::from_raw_mode(0o600)).map_err(named(name))?;
    let written = fchmod(&file, mode)
        .map_err(io::Error::from)
        .and_then(|()| io::copy(&mut io::stdin().lock(), &mut File::from(file)))
        .and_then(|_| Ok(renameat(&folder, &aside, &folder, name)?));
    if written.is_err() {
        let _ = unlinkat(&folder, &aside, AtFlags::empty());
    }
    written
}

/// Each name as `kind size name` and a NUL, which no name holds.
fn list(top: &OwnedFd, path: &str) -> io::Result<()> {
    let folder = descend(top, path)?;
    let opened = openat(&folder, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    let mut count = 0;
    for item in Dir::new(opened)? {
        let item = item?;
        let name = item.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        count += 1;
        if count > LONGEST_LIST {
            break;
        }
        let Ok(stat) = statat(folder.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => 'f',
            FileType::Directory => 'd',
            FileType::Symlink => 'l',
            _ => 'o',
        };
        write!(out, "{kind} {} ", stat.st_size)?;
        out.write_all(name.to_bytes_with_nul())?;
    }
    out.flush()
}
