//! What sandboxes keep between commands: a folder for each, with its home folder, its `/tmp` and a workspace of its own.
//!
//! The folder's name says whose it is. What lies inside was written by commands and is data: it is never read here, only
//! measured by time and removed. Nothing is remembered elsewhere, so a restart forgets nothing.

use super::plan::{KEPT_HOME, KEPT_TMP, KEPT_WORKSPACE};
use crate::model::{AgentId, SandboxScope, SessionId, UnixMillis};
use crate::os;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// The file whose time is that of the last command, and whose content says how many seconds it may lie unused.
const USED: &str = "used";

/// Begins the name of a folder that is being removed.
const GOING: &str = ".going-";

/// One kept sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) name: String,
    pub(crate) scope: SandboxScope,
    pub(crate) agent: Option<AgentId>,
    pub(crate) session: Option<SessionId>,
    /// When its last command began.
    pub(crate) used: UnixMillis,
    pub(crate) idle: Duration,
}

impl Kept {
    /// One of this name; `None` where it is none of ours.
    pub(crate) fn new(name: String, used: UnixMillis, idle: Duration) -> Option<Self> {
        let (scope, agent, session) = Kept::of(&name)?;
        Some(Kept { name, scope, agent, session, used, idle })
    }

    /// Reads a folder's name; `None` where it is none of ours.
    fn of(name: &str) -> Option<(SandboxScope, Option<AgentId>, Option<SessionId>)> {
        let parts: Vec<&str> = name.split('.').collect();
        match parts[..] {
            ["shared"] => Some((SandboxScope::Shared, None, None)),
            ["agent", agent] => Some((SandboxScope::Agent, Some(AgentId::parse(agent).ok()?), None)),
            ["session", agent, session] => {
                Some((SandboxScope::Session, Some(AgentId::parse(agent).ok()?), Some(SessionId::parse(session).ok()?)))
            }
            _ => None,
        }
    }
}

/// Makes the folders of a kept sandbox that are not there yet, and notes that it is used now.
///
/// # Errors
/// Where one is not ours alone, is a link, or cannot be made.
pub(crate) fn make(kept: &Path, idle: Duration) -> io::Result<()> {
    if let Some(root) = kept.parent() {
        os::fs::private_dir(root)?;
    }
    // As it is, without a slash at its end, which would follow a link.
    os::fs::private_dir(kept)?;
    for folder in [KEPT_HOME, KEPT_TMP, KEPT_WORKSPACE] {
        os::fs::private_dir(&kept.join(folder))?;
    }
    note_use(&kept.join(USED), format!("{}\n", idle.as_secs()).as_bytes())
}

/// The file's time alone, where it says the same already: nothing waits for the disk then.
fn note_use(path: &Path, says: &[u8]) -> io::Result<()> {
    // One that cannot be read is replaced.
    if os::fs::read_private(path, 64).is_ok_and(|said| said.as_deref() == Some(says)) {
        return os::fs::append_private(path)?.set_modified(SystemTime::now());
    }
    match os::fs::write_private(path, says) {
        // The other runner is at it this moment.
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        done => done,
    }
}

/// Every kept sandbox below this folder, by name.
///
/// # Errors
/// Where the folder cannot be read; one that is missing holds none.
pub(crate) fn list(root: &Path) -> io::Result<Vec<Kept>> {
    let Some(items) = items(root)? else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for item in items {
        let name = item?.file_name();
        let Some(name) = name.to_str() else { continue };
        if Kept::of(name).is_none() {
            continue;
        }
        let (used, idle) = noted(&root.join(name));
        found.extend(Kept::new(name.to_owned(), used, idle));
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// What lies in the folder of kept sandboxes; `None` where there is none. A link in its place is not followed: what it
/// leads to was not kept by us, and must not be removed.
fn items(root: &Path) -> io::Result<Option<fs::ReadDir>> {
    match fs::symlink_metadata(root) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
        Ok(meta) if !meta.is_dir() => Err(io::Error::other("it is a link, not a folder")),
        Ok(_) => fs::read_dir(root).map(Some),
    }
}

/// When it was used last and how long it may lie. A note that is missing or damaged makes it old, not eternal.
fn noted(folder: &Path) -> (UnixMillis, Duration) {
    let path = folder.join(USED);
    let time = fs::symlink_metadata(&path).and_then(|meta| meta.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
    let used = time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64);
    let text = os::fs::read_private(&path, 64).ok().flatten().unwrap_or_default();
    let seconds = std::str::from_utf8(&text).ok().and_then(|t| t.trim().parse().ok());
    (used, Duration::from_secs(seconds.unwrap_or(0)))
}

/// Takes a kept sandbox out of its place in one step, so that the next command gets a new one. What was taken out is
/// removed by `sweep`.
///
/// # Errors
/// NotFound where there is none of this name.
pub(crate) fn take_out(root: &Path, name: &str) -> io::Result<()> {
    if Kept::of(name).is_none() {
        return Err(io::Error::from(io::ErrorKind::NotFound));
    }
    if items(root)?.is_none() {
        return Err(io::Error::from(io::ErrorKind::NotFound));
    }
    let aside = format!("{GOING}{}", crate::crypto::hex(&os::host::random::<8>()));
    fs::rename(root.join(name), root.join(aside))
}

/// Removes what was taken out, now or by a process that did not come to its end.
///
/// # Errors
/// The first of them that cannot be removed.
pub(crate) fn sweep(root: &Path) -> io::Result<()> {
    let Some(items) = items(root)? else { return Ok(()) };
    let mut result = Ok(());
    for item in items {
        let path: PathBuf = item?.path();
        let is_going = path.file_name().and_then(|n| n.to_str()).is_some_and(|n| n.starts_with(GOING));
        if is_going {
            let is_folder = fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_dir());
            let removed = if is_folder { os::tree::remove(&path) } else { fs::remove_file(&path) };
            result = result.and(removed);
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_sandbox_is_made_listed_and_taken_out_whole() {
        let root = std::env::temp_dir().join(format!("vambrace-test-kept-{}", std::process::id()));
        let week = Duration::from_secs(604_800);
        for name in ["shared", "agent.a", "session.a.s-1"] {
            make(&root.join(name), week).unwrap();
            make(&root.join(name), week).unwrap();
        }
        fs::create_dir(root.join("foreign")).unwrap();
        let found = list(&root).unwrap();
        assert_eq!(found.iter().map(|k| k.name.as_str()).collect::<Vec<_>>(), ["agent.a", "session.a.s-1", "shared"]);
        assert_eq!((found[0].idle, found[1].session.as_deref()), (week, Some("s-1")));

        fs::write(root.join("agent.a/home/file"), "x").unwrap();
        take_out(&root, "agent.a").unwrap();
        assert!(take_out(&root, "agent.a").is_err() && take_out(&root, "foreign").is_err());
        assert!(take_out(&root, "../x").is_err());
        sweep(&root).unwrap();
        assert_eq!(fs::read_dir(&root).unwrap().count(), 3);
        os::tree::remove(&root).unwrap();
    }

    #[test]
    fn a_note_that_cannot_be_read_makes_it_old() {
        let root = std::env::temp_dir().join(format!("vambrace-test-noted-{}", std::process::id()));
        make(&root.join("shared"), Duration::from_secs(9)).unwrap();
        fs::write(root.join("shared/used"), "never").unwrap();
        assert_eq!(list(&root).unwrap()[0].idle, Duration::ZERO);
        fs::remove_file(root.join("shared/used")).unwrap();
        assert_eq!(list(&root).unwrap()[0].used, 0);
        os::tree::remove(&root).unwrap();
    }
}
