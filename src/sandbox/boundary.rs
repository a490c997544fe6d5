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
    /// Where sandboxes keep their trees: only the sandbox itself is shown its own.
    pub(crate) kept: Option<PathBuf>,
    /// Where agents without a workspace of their own get one.
    pub(crate) workspaces: Option<PathBuf>,
}

/// Trees of the system: no bind may lie in one or hold one.
const SYSTEM: &[&str] = &[
    "/proc",
    "/sys",
    "/dev",
    "/run",
    "/var/run",
    "/boot",
    "/etc",
    // Shown to every sandbox as it is; a writable part of it would be code of the host.
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib64",
    "/var/log",
    "/var/backups",
    // Jobs that others run: cron's, at's, mail's.
    "/var/spool",
    // Whole file systems and images of containers, and the secrets of their clusters.
    "/var/lib/containerd",
    "/var/lib/containers",
    "/var/lib/docker",
    "/var/lib/incus",
    "/var/lib/kubelet",
    "/var/lib/libvirt",
    "/var/lib/lxc",
    "/var/lib/lxd",
    "/var/lib/machines",
    "/var/lib/rancher",
    "/var/lib/dpkg",
    "/var/lib/systemd",
];

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
    // Images and containers of engines that a person runs.
    ".local/share/containers",
    ".local/share/docker",
    ".netrc",
    ".npmrc",
    ".cargo/credentials.toml",
    ".pypirc",
    ".git-credentials",
    ".bash_history",
    ".mozilla",
];

/// Checks a canonical host path that a profile names to be shown inside.
///
/// # Errors
/// Names the rule it breaks and what to choose instead.
pub(crate) fn check_named(path: &Path, protected: &Protected) -> Result<(), RunFault> {
    check(path, protected)?;
    match &protected.kept {
        Some(kept) if overlaps(path, kept) => refuse(path, "it is, holds or lies in what sandboxes keep"),
        _ => Ok(()),
    }
}

/// Checks a canonical host path that is to be shown inside.
///
/// # Errors
/// Names the rule it breaks and what to choose instead.
pub(crate) fn check(path: &Path, protected: &Protected) -> Result<(), RunFault> {
    let refuse = |why: String| refuse(path, &why);
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
    // Other people's: they did not choose this gateway.
    if let Some(part) = personal_of_anybody(path) {
        return refuse(format!("it lies in {part} of a home folder"));
    }
    Ok(())
}

fn refuse(path: &Path, why: &str) -> Result<(), RunFault> {
    Err(RunFault::Refused {
        what: format!("{} cannot be shown inside the sandbox: {why}", path.display()),
        hint: "choose a folder of its own for the agent, for example /srv/agents/NAME".into(),
    })
}

/// The personal part of root's home, or of one below /home, that this path lies in.
fn personal_of_anybody(path: &Path) -> Option<&'static str> {
    let in_home = path.strip_prefix("/root").ok().or_else(|| {
        let mut below = path.strip_prefix("/home").ok()?.components();
        below.next()?;
        Some(below.as_path())
    })?;
    PERSONAL.iter().copied().find(|part| in_home.starts_with(part))
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
            kept: Some("/var/lib/vambrace-sandboxes".into()),
            workspaces: None,
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
            ("/home/bob", true),
            ("/home/bob/.sshx", true),
            ("/home/bob/.ssh/id_ed25519", false),
            ("/root/.aws", false),
            ("/usr/local/bin", false),
            ("/var/lib/containerd/x", false),
            ("/var/lib/dockerx", true),
            ("/var/spool/cron/crontabs", false),
            ("/var/lib/vambrace-sandboxes/agent.b/home", false),
        ];
        for (path, allowed) in rows {
            assert_eq!(check_named(Path::new(path), &protected).is_ok(), *allowed, "{path}");
        }
        assert!(check(Path::new("/var/lib/vambrace-sandboxes/agent.b/home"), &protected).is_ok());
    }
}
