//! The engine's host, where that is this one: what of it is asked of the kernel itself, not of the engine.

use super::plan::{Plan, Shown};
use crate::model::{RunFault, SandboxProfile};
use crate::os;
use crate::os::linux::mounts::{self, Attributes, Reach};
use crate::os::linux::{netns, userns};
use crate::sandbox::plan::Shown as How;
use crate::sandbox::probe::Probe;
use bollard::models::ContainerInspectResponse;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Where an engine listens that was installed in the usual way.
pub(crate) fn usual_engines(_home: Option<&Path>) -> Vec<PathBuf> {
    vec!["/var/run/docker.sock".into()]
}

/// What to do where no engine is at its socket.
pub(super) const ABSENT: &str =
    "start it (`systemctl start docker`), give the runner's user access to its socket, or choose backend = \"native\"";

/// What it means that the program cannot be read, and what to do.
pub(super) const NO_PROGRAM: (&str, &str) =
    ("this program cannot read itself", "it was upgraded while it ran? restart the gateway");

/// What of a profile an engine here cannot be asked for: nothing.
pub(super) fn check(_profile: &SandboxProfile) -> Result<(), RunFault> {
    Ok(())
}

/// What this process runs, and the files that it has mapped to be executed: so it is what runs, not what a package says.
pub(super) fn program() -> io::Result<(Vec<u8>, Vec<PathBuf>)> {
    let map = fs::read_to_string("/proc/self/maps")?;
    let own = fs::read_link("/proc/self/exe")?;
    Ok((fs::read("/proc/self/exe")?, libraries(&map, &own)))
}

/// The files that are mapped to be executed, but for the program (proc_pid_maps(5)).
fn libraries(map: &str, own: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = Vec::new();
    for line in map.lines() {
        let mut fields = line.split_ascii_whitespace();
        let (Some(rights), Some(path)) = (fields.nth(1), fields.nth(3)) else { continue };
        let path = Path::new(path);
        if rights.contains('x') && path.is_absolute() && path != own && !found.iter().any(|known| known == path) {
            found.push(path.to_owned());
        }
    }
    found
}

/// What else containers need: nothing that is not here.
pub(super) fn probe() -> Vec<Probe> {
    Vec::new()
}

/// What leads out of a container, opened in the network namespace of its first process.
pub(super) fn open_doors(pid: i32, ports: &[u16]) -> io::Result<Vec<OwnedFd>> {
    netns::open_doors_of(pid, ports)
}

/// Opens what is to be shown, never through a link.
pub(super) fn open(path: &Path) -> io::Result<OwnedFd> {
    mounts::open_without_links(path)
}

/// Whether what is shown is a mount of ours: only root can make one.
pub(super) fn makes_mounts() -> bool {
    os::process::uid() == 0
}

/// A detached mount.
pub(super) struct Tree(OwnedFd);

impl Tree {
    /// Puts it where the engine finds it.
    pub(super) fn attach(&self, place: &Path) -> io::Result<()> {
        mounts::attach(self.0.as_fd(), rustix::fs::CWD.as_fd(), place)
    }
}

/// A detached copy of it with the flags of the plan, under the command's ids where it belongs to somebody else.
pub(super) fn tree(handle: &OwnedFd, owner: (u32, u32), user: (u32, u32), shown: How) -> io::Result<Tree> {
    let is_mapped = owner != user;
    let reach = if is_mapped { Reach::ThisMount } else { Reach::WholeTree };
    let tree = mounts::clone_tree(handle.as_fd(), reach)?;
    if is_mapped {
        let mapping = userns::mapping(owner, user)?;
        mounts::set_id_map(tree.as_fd(), mapping.as_fd())?;
    }
    let attributes = match shown {
        How::ReadOnly => Attributes { read_only: true, no_exec: false, no_dev: true },
        How::ReadOnlyData => Attributes { read_only: true, no_exec: true, no_dev: true },
        How::Writable => Attributes { read_only: false, no_exec: false, no_dev: true },
        How::WritableData | How::Device => Attributes { read_only: false, no_exec: true, no_dev: true },
    };
    mounts::set_attributes(tree.as_fd(), attributes, Reach::WholeTree)?;
    Ok(Tree(tree))
}

/// Takes down what is mounted there, if anything is.
pub(super) fn detach(place: &Path) -> io::Result<()> {
    match mounts::detach(place) {
        // EINVAL: nothing is mounted there.
        Err(error) if error.raw_os_error() != Some(libc::EINVAL) => Err(error),
        _ => Ok(()),
    }
}

/// Looks whether the container shows what we meant, as far as this host can tell: an engine on another machine, or in
/// another view of this one's mounts, would show an empty folder instead; and one that mounts a folder once more takes the
/// flags away that it does not know of.
pub(super) fn check_shown(plan: &Plan, live: &ContainerInspectResponse) -> Result<(), RunFault> {
    let Some(pid) = live.state.as_ref().and_then(|state| state.pid).filter(|pid| *pid > 0) else { return Ok(()) };
    if os::process::uid() != 0 || plan.shown.is_empty() {
        return Ok(());
    }
    let wrong = |shown: &Shown, why: &str| RunFault::Engine {
        what: format!("the container does not show what it should at {}: {why}", shown.target),
        hint: "the engine must see this host's mounts: is it on another machine, or in a sandbox itself?".into(),
    };
    let mounts = std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_what_is_mapped_to_be_executed() {
        let map = "\
55d0-55d1 r-xp 00000000 fe:00 10 /usr/bin/vambrace
7f00-7f01 r--p 00000000 fe:00 11 /usr/lib/x86_64-linux-gnu/libc.so.6
7f01-7f02 r-xp 00001000 fe:00 11 /usr/lib/x86_64-linux-gnu/libc.so.6
7f02-7f03 r-xp 00001000 fe:00 11 /usr/lib/x86_64-linux-gnu/libc.so.6
7f03-7f04 r--p 00001000 fe:00 12 /usr/lib/locale/C.utf8/LC_CTYPE
7ffd-7ffe r-xp 00000000 00:00 0 [vdso]
7fff-8000 rw-p 00000000 00:00 0
";
        let found = libraries(map, Path::new("/usr/bin/vambrace"));
        assert_eq!(found, [Path::new("/usr/lib/x86_64-linux-gnu/libc.so.6")]);
    }
}
