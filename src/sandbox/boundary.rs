//! What may never be shown inside the walls, whatever a configuration says.
//!
//! Pure: compares canonical paths component by component (CVE-2025-54794: a string prefix is not
//! containment). The launcher then opens the same path without following links.

use crate::model::RunFault;
use std::path::{Path, PathBuf};

/// The gateway's own places; equal to, inside or above one of them is refused.
#[derive(Debug, Clone, Default)]
pub(crate) struct Protected {
    /// State, sockets and configuration of this gateway.
    pub(crate) own: Vec<PathBuf>,
    /// The home folder of the user we run as.
    pub(crate) home: Option<PathBuf>,
}

/// Trees of the system: no bind may lie in one or hold one.
const SYSTEM: &[&str] = &["/proc", "/sys", "/dev", "/run", "/var/run", "/boot", "/etc", "/var/lib/docker", "/var/log"];

/// Folders that hold what belongs to many; they may hold a workspace but not be one.
const COMMON: &[&str] = &[
    "/", "/home", "/root", "/usr", "/bin", "/sbin", "/lib", "/lib64", "/var", "/var/lib", "/opt", "/srv", "/mnt",
    "/tmp", "/var/tmp",
];

/// Below a home: what a person's credentials and start-up files live in.
const PERSONAL: &[&str] = &[
    ".ssh",
    ".gnupg",
    ".aws",
    ".azure",
    ".kube",
    ".docker",
    ".config",
    ".local/share/keyrings",
    ".netrc",
    ".npmrc",
    ".cargo/credentials.toml",
    ".pypirc",
    ".git-credentials",
    ".bash_history",
    ".mozilla",
];

/// Checks a canonical host path that is to be shown inside.
///
/// # Errors
/// Names the rule it breaks and what to choose instead.
pub(crate) fn check(path: &Path, protected: &Protected) -> Result<(), RunFault> {
    let refuse = |why: String| {
        Err(RunFault::Refused {
            what: format!("{} cannot be shown inside the sandbox: {why}", path.display()),
            hint: "choose a folder of its own for the agent, for example /srv/agents/NAME".into(),
        })
    };
    if !path.is_absolute() {
        return refuse("it is not an absolute path".into());
    }
    for own in &protected.own {
        if overlaps(path, own) {
            return refuse("it is, holds or lies in a place of the gateway itself".into());
        }
    }
    for tree in SYSTEM.iter().map(Path::new) {
        if overlaps(path, tree) && !COMMON.iter().any(|c| Path::new(c) == path) {
            return refuse(format!("it is, holds or lies in {}", tree.display()));
        }
    }
    if COMMON.iter().any(|common| Path::new(common) == path) {
        return refuse("it belongs to the whole system".into());
    }
    if let Some(home) = &protected.home {
        if home.starts_with(path) {
            return refuse("it is or holds a home folder".into());
        }
        if let Some(part) = PERSONAL.iter().find(|part| overlaps(path, &home.join(part))) {
            return refuse(format!("it is, holds or lies in ~/{part}"));
        }
    }
    Ok(())
}

fn overlaps(a: &Path, b: &Path) -> bool {
    a.starts_with(b) || b.starts_with(a)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_place_of_the_gateway_the_system_or_a_person_is_shown() {
        let protected = Protected {
            own: vec!["/var/lib/vambrace".into(), "/home/ada/.local/state/vambrace".into()],
            home: Some("/home/ada".into()),
        };
        let rows: &[(&str, bool)] = &[
            ("/srv/agents/builder", true),
            ("/home/ada/projects/x", true),
            ("/var/lib/vambrace-workspaces/main", true),
            ("/var/lib/vambrace", false),
            ("/var/lib/vambrace/ws", false),
            ("/var/lib", false),
            ("/", false),
            ("/home", false),
            ("/home/ada", false),
            ("/home/ada/.ssh", false),
            ("/home/ada/.ssh/deeper", false),
            ("/home/ada/.local", false),
            ("/home/ada/.sshx", true),
            ("/run/docker.sock", false),
            ("/var/run/docker.sock", false),
            ("/etc/ssl", false),
            ("/proc/1", false),
            ("/dev/shm/x", false),
            ("/tmp", false),
            ("/tmp/x", true),
            ("relative", false),
        ];
        for (path, allowed) in rows {
            assert_eq!(check(Path::new(path), &protected).is_ok(), *allowed, "{path}");
        }
    }
}
