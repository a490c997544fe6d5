//! In the place of `host` where engines are in a Linux machine of their own: Docker Desktop and its like on macOS.
//!
//! What is asked of the kernel elsewhere cannot be asked here: there are no mounts of ours, and no way into a container's
//! network. Folders are given by their paths, which the engine shares with its machine. The program that runs in containers
//! is a Linux one, which has to be there beside ours.

use super::plan::Plan;
use crate::model::{ExecMode, Network, RunFault, SandboxProfile};
use crate::os;
use crate::sandbox::plan::Shown as How;
use crate::sandbox::probe::Probe;
use bollard::models::ContainerInspectResponse;
use std::convert::Infallible;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// Where engines listen: Docker Desktop's own socket, and the link that it makes where it is allowed to.
pub(crate) fn usual_engines(home: Option<&Path>) -> Vec<PathBuf> {
    home.map(|home| home.join(".docker/run/docker.sock")).into_iter().chain(["/var/run/docker.sock".into()]).collect()
}

/// What to do where no engine is at its socket.
pub(super) const ABSENT: &str = "start it (`open -a Docker`), or name the engine's socket in `docker.host`";

/// What it means that the program cannot be read, and what to do.
pub(super) const NO_PROGRAM: (&str, &str) = (
    "the Linux program that runs in containers is not there",
    "put a Linux build of this very version for this machine's processor into libexec/vambrace-linux beside bin/ \
     (docs/service.md, macOS)",
);

/// What of a profile an engine here cannot be asked for.
///
/// # Errors
/// What needs a hand in the engine's own kernel.
pub(super) fn check(profile: &SandboxProfile) -> Result<(), RunFault> {
    let refused = |what: &str, hint: &str| Err(RunFault::Refused { what: what.into(), hint: hint.into() });
    if profile.network == Network::Allowlist {
        return refused(
            "network = \"allowlist\" needs the container's network from outside, and its kernel is in another machine",
            "set network = \"none\" or \"host\" for it, or run the gateway on Linux",
        );
    }
    if profile.exec_mode == ExecMode::Allowlist {
        return refused(
            "lists of executables need mounts without code, and the engine's kernel is in another machine",
            "set sandbox_mode = \"full\" for this agent, or run the gateway on Linux",
        );
    }
    Ok(())
}

/// The Linux program and what it loads: `../libexec/vambrace-linux` of ours, with its loader and libraries in `lib` below it
/// where it is not static.
pub(super) fn program() -> io::Result<(Vec<u8>, Vec<PathBuf>)> {
    let own = os::fs::canonical(&std::env::current_exe()?)?;
    let prefix =
        own.parent().and_then(Path::parent).ok_or_else(|| io::Error::other("this program lies in no folder"))?;
    let folder = prefix.join("libexec/vambrace-linux");
    let named = |path: &Path| {
        let place = path.display().to_string();
        move |error: io::Error| io::Error::new(error.kind(), format!("{place}: {error}"))
    };
    let program = folder.join("vambrace");
    let bytes = fs::read(&program).map_err(named(&program))?;
    if !bytes.starts_with(b"\x7fELF") {
        return Err(io::Error::other(format!("{} is no Linux program", program.display())));
    }
    let libraries = match fs::read_dir(folder.join("lib")) {
        Ok(items) => items.map(|item| Ok(item?.path())).collect::<io::Result<Vec<_>>>()?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(named(&folder.join("lib"))(error)),
    };
    Ok((bytes, libraries))
}

/// What else containers need.
pub(super) fn probe() -> Vec<Probe> {
    let (here, detail) = match program() {
        Ok((_, libraries)) => (true, format!("runs in containers; {} libraries", libraries.len())),
        Err(error) => (false, format!("{error}; {}", NO_PROGRAM.1)),
    };
    vec![Probe { wall: "linux program", here, required: true, detail }]
}

/// What leads out of a container.
///
/// # Errors
/// Always.
pub(super) fn open_doors(_pid: i32, _ports: &[u16]) -> io::Result<Vec<OwnedFd>> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Opens what is to be shown, never through a link.
pub(super) fn open(path: &Path) -> io::Result<OwnedFd> {
    os::fs::open_without_links(path)
}

/// What is shown is the engine's to mount.
pub(super) fn makes_mounts() -> bool {
    false
}

/// A detached mount, which nobody can have.
pub(super) struct Tree(Infallible);

impl Tree {
    pub(super) fn attach(&self, _place: &Path) -> io::Result<()> {
        match self.0 {}
    }
}

/// # Errors
/// Always.
pub(super) fn tree(_handle: &OwnedFd, _owner: (u32, u32), _user: (u32, u32), _shown: How) -> io::Result<Tree> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Nothing is mounted anywhere.
pub(super) fn detach(_place: &Path) -> io::Result<()> {
    Ok(())
}

/// What a container shows cannot be looked at from outside of its machine: the engine's word is all there is.
pub(super) fn check_shown(_plan: &Plan, _live: &ContainerInspectResponse) -> Result<(), RunFault> {
    Ok(())
}
