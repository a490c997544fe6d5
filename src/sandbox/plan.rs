//! The plan of a sandbox: pure, closed, complete. What is not in it does not exist inside.

use super::boundary::{self, Protected};
use super::environment;
use crate::model::{
    Backend, Domain, ExecMode, ExecRequest, FileAct, Limits, Network, RunFault, SandboxProfile, SecretUse, Tier,
    WindowSize, WorkspaceAccess,
};
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

/// Where the workspace stands inside.
pub(crate) const WORKSPACE: &str = "/workspace";

/// Where secrets that are files stand inside.
pub(crate) const SECRETS: &str = "/run/secrets";

/// A folder that is writable as a mount and granted to nobody: what is refused there, Landlock refuses.
pub(crate) const PROOF: &str = "/run/proof";

/// Parts of a kept sandbox's folder on disk.
pub(crate) const KEPT_HOME: &str = "home";
pub(crate) const KEPT_TMP: &str = "tmp";
pub(crate) const KEPT_WORKSPACE: &str = "workspace";

/// One command as the launcher takes it: what the request says and the profile allows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Command {
    pub(crate) argv: Vec<String>,
    /// Relative to the workspace; empty for the workspace itself.
    pub(crate) cwd: PathBuf,
    pub(crate) env: BTreeMap<String, String>,
    /// Their values travel apart from it, in the same order.
    pub(crate) secrets: Vec<SecretUse>,
    /// A terminal of this size instead of what it would be handed as 0, 1 and 2.
    pub(crate) terminal: Option<WindowSize>,
    /// An act of a file tool, which the init carries out itself.
    pub(crate) file: Option<FileAct>,
}

impl Command {
    /// Takes the command out of a request, as it is.
    ///
    /// # Errors
    /// Where the working folder is not inside the workspace (CVE-2025-59532: a request widened its own root).
    pub(crate) fn of(request: &ExecRequest) -> Result<Self, RunFault> {
        let cwd = relative_cwd(request.cwd.as_deref().unwrap_or(""))?;
        Ok(Command {
            argv: request.argv.clone(),
            cwd,
            env: request.env.clone(),
            secrets: request.secrets.clone(),
            terminal: request.terminal,
            file: request.file.as_ref().map(|(act, _)| act.clone()),
        })
    }
}

/// How a file or folder of the host is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shown {
    /// Read-only, executable.
    ReadOnly,
    /// Writable and executable; id-mapped by a root launcher so that the host sees its own owner.
    Writable,
    /// The same, but nothing on it can be executed.
    WritableData,
    /// Read-only, and nothing on it can be executed.
    ReadOnlyData,
    /// A device node that works.
    Device,
}

impl Shown {
    /// The word for a person.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Shown::ReadOnly => "read-only",
            Shown::Writable => "writable",
            Shown::WritableData => "writable, not executable",
            Shown::ReadOnlyData => "read-only, not executable",
            Shown::Device => "device",
        }
    }
}

/// One thing of the host, shown inside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bind {
    pub(crate) source: PathBuf,
    pub(crate) target: PathBuf,
    pub(crate) shown: Shown,
    /// Whether the run is refused where the source is missing.
    pub(crate) required: bool,
    /// Whether links in the source path are refused: for all that an agent or operator names.
    pub(crate) named: bool,
}

/// The whole sandbox.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) command: Command,
    /// Complete environment but for secrets.
    pub(crate) env: BTreeMap<String, String>,
    /// What the profile adds to what every sandbox shows.
    pub(crate) binds: Vec<Bind>,
    pub(crate) network: Network,
    /// Ports on which something can be reached, with `Network::Allowlist`.
    pub(crate) ports: Vec<u16>,
    pub(crate) least_tier: Tier,
    /// The executables that may be executed; `None` for all that are shown.
    pub(crate) allowed: Option<Vec<String>>,
    pub(crate) limits: Limits,
}

/// Files of /etc that programs need; the rest of the host's /etc is not there.
const ETC: &[&str] = &[
    "alternatives",
    "ca-certificates",
    "ssl/certs",
    "ssl/openssl.cnf",
    "pki",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "timezone",
    "mime.types",
    "magic",
    "protocols",
    "services",
    "nsswitch.conf",
    "bash.bashrc",
    "profile",
    "inputrc",
    "terminfo",
    "gitconfig",
    "java-17-openjdk",
    "perl",
    "python3",
    "fonts",
    "os-release",
    "debian_version",
];

/// Device nodes that a program may expect.
const DEVICES: &[&str] = &["null", "zero", "full", "random", "urandom", "tty"];

/// Of a fresh /proc: what tells about the host or its kernel and no tool of a developer needs.
pub(crate) const MASKED_PROC: &[&str] = &[
    "acpi",
    "asound",
    "bus",
    "cmdline",
    "consoles",
    "diskstats",
    "partitions",
    "pressure",
    "softirqs",
    "zoneinfo",
    "config.gz",
    "driver",
    "fs",
    "interrupts",
    "iomem",
    "ioports",
    "irq",
    "kallsyms",
    "kcore",
    "key-users",
    "keys",
    "kmsg",
    "latency_stats",
    "locks",
    "modules",
    "sched_debug",
    "scsi",
    "sysrq-trigger",
    "timer_list",
];

/// Makes the plan of one command in one profile.
///
/// # Errors
/// Where the profile names a place that may not be shown, or the command could not be one.
pub(crate) fn plan(profile: &SandboxProfile, command: Command, protected: &Protected) -> Result<Plan, RunFault> {
    check_argv(&command.argv)?;
    check_secrets(&command.secrets)?;
    let mut env = environment::compose(&command.env);
    // A secret in the place of one of our own variables, which the init adds.
    env.retain(|name, _| !command.secrets.iter().any(|s| s.variable() == Some(name)));
    Ok(Plan {
        env,
        binds: named(profile, protected)?,
        network: profile.network,
        ports: if profile.network == Network::Allowlist { Domain::ports_of(&profile.domains) } else { Vec::new() },
        least_tier: profile.least_tier,
        allowed: (profile.exec_mode == ExecMode::Allowlist).then(|| profile.exec_allow.clone()),
        limits: profile.limits.clone(),
        command,
    })
}

/// What a command under this profile sees of the host, in order.
///
/// # Errors
/// Where the profile names a place that may not be shown.
pub(crate) fn view(profile: &SandboxProfile, protected: &Protected) -> Result<Vec<Bind>, RunFault> {
    // A container has the system of its image.
    let mut binds = if profile.backend == Backend::Native { system() } else { Vec::new() };
    binds.extend(named(profile, protected)?);
    Ok(binds)
}

/// What every sandbox shows of the host, in order.
pub(crate) fn system() -> Vec<Bind> {
    let shown = |path: String, required, shown| Bind {
        source: path.clone().into(),
        target: path.into(),
        shown,
        required,
        named: false,
    };
    let mut binds = vec![shown("/usr".into(), true, Shown::ReadOnly)];
    binds.extend(ETC.iter().map(|name| shown(format!("/etc/{name}"), false, Shown::ReadOnly)));
    binds.extend(DEVICES.iter().map(|name| shown(format!("/dev/{name}"), true, Shown::Device)));
    binds
}

/// What the profile adds to that.
pub(super) fn named(profile: &SandboxProfile, protected: &Protected) -> Result<Vec<Bind>, RunFault> {
    let mut binds = Vec::new();
    // What an agent writes, now or at another time, is no code where only listed executables may be executed.
    let (writable, read_only) = match profile.exec_mode {
        ExecMode::Full => (Shown::Writable, Shown::ReadOnly),
        ExecMode::Allowlist => (Shown::WritableData, Shown::ReadOnlyData),
    };
    let bind = |source: PathBuf, target: PathBuf, shown| -> Result<Bind, RunFault> {
        boundary::check(&source, protected)?;
        Ok(Bind { source, target, shown, required: true, named: true })
    };
    let extra = profile.read_only.iter().map(|p| (p, Shown::ReadOnly));
    for (path, shown) in extra.chain(profile.read_write.iter().map(|p| (p, writable))) {
        boundary::check_named(path, protected)?;
        binds.push(bind(path.clone(), inside(path), shown)?);
    }
    let workspace = match profile.workspace_access {
        WorkspaceAccess::None => None,
        WorkspaceAccess::ReadOnly => profile.workspace.clone().map(|path| (path, read_only)),
        WorkspaceAccess::ReadWrite => profile.workspace.clone().map(|path| (path, writable)),
    };
    if let Some((path, shown)) = workspace {
        boundary::check_named(&path, protected)?;
        binds.push(bind(path, WORKSPACE.into(), shown)?);
    } else if let Some(kept) = &profile.kept {
        binds.push(bind(kept.join(KEPT_WORKSPACE), WORKSPACE.into(), writable)?);
    }
    if let Some(kept) = &profile.kept {
        for (part, target) in [(KEPT_HOME, environment::HOME), (KEPT_TMP, "/tmp")] {
            binds.push(bind(kept.join(part), target.into(), Shown::WritableData)?);
        }
    }
    check_overlap(&binds)?;
    Ok(binds)
}

/// Where a path of the host stands inside: at its own place, but `/var/tmp` is `/tmp` there.
pub(super) fn inside(path: &Path) -> PathBuf {
    path.strip_prefix("/var/tmp").map_or_else(|_| path.to_owned(), |rest| Path::new("/tmp").join(rest))
}

/// Refuses folders of a profile that hold each other, on the host or inside.
///
/// A read-only part of a writable folder would be void: the folders between them can be renamed away. And its mount
/// point would be looked up through a folder that another run of the agent may be changing at that moment, by a
/// process that is still root. Every mount point therefore lies in a tree of our own.
fn check_overlap(binds: &[Bind]) -> Result<(), RunFault> {
    let overlap = |a: &Path, b: &Path| a.starts_with(b) || b.starts_with(a);
    for (at, one) in binds.iter().enumerate() {
        for other in &binds[at + 1..] {
            if overlap(&one.source, &other.source) || overlap(&one.target, &other.target) {
                return Err(RunFault::Refused {
                    what: format!("{} and {} lie in each other", one.source.display(), other.source.display()),
                    hint: "show folders that stand beside each other: a part of a shown folder cannot be shown \
                           otherwise than the whole"
                        .into(),
                });
            }
        }
        // The places that are ours inside the walls. What is shown below /tmp stands in a scratch folder.
        let ours = [WORKSPACE, environment::HOME];
        if one.target == inside(&one.source) && ours.iter().any(|own| overlap(&one.target, Path::new(own))) {
            return Err(RunFault::Refused {
                what: format!("{} would cover the workspace or the home folder", one.source.display()),
                hint: "choose a folder at another path".into(),
            });
        }
    }
    Ok(())
}

fn check_argv(argv: &[String]) -> Result<(), RunFault> {
    let wrong = match argv.first() {
        None => Some("the command is empty"),
        Some(name) if name.is_empty() => Some("the name of the command is empty"),
        Some(_) if argv.iter().any(|a| a.contains('\0')) => Some("an argument holds a NUL byte"),
        Some(_) => None,
    };
    match wrong {
        None => Ok(()),
        Some(what) => {
            Err(RunFault::Refused { what: what.into(), hint: "give the command after --, one word an argument".into() })
        }
    }
}

/// Two of one name in one place would mean that one of them is not there.
fn check_secrets(secrets: &[SecretUse]) -> Result<(), RunFault> {
    let place = |s: &SecretUse| s.variable().map_or_else(|| format!("{SECRETS}/{}", s.name), ToOwned::to_owned);
    for (at, one) in secrets.iter().enumerate() {
        if secrets[at + 1..].iter().any(|other| place(one) == place(other)) {
            return Err(RunFault::Refused {
                what: format!("two secrets are to be {}", place(one)),
                hint: "ask for each once".into(),
            });
        }
    }
    Ok(())
}

fn relative_cwd(cwd: &str) -> Result<PathBuf, RunFault> {
    let path = Path::new(cwd);
    let inside = if path.is_absolute() { path.strip_prefix(WORKSPACE).ok() } else { Some(path) };
    let plain = inside.filter(|p| {
        !cwd.contains('\0') && p.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir))
    });
    plain.map(Path::to_owned).ok_or_else(|| RunFault::Refused {
        what: format!("the working folder {cwd:?} is not inside the workspace"),
        hint: format!("give it relative to the workspace, or below {WORKSPACE}; '..' is not followed"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Delivery, SecretName};

    #[test]
    fn a_working_folder_never_leaves_the_workspace() {
        for good in ["", ".", "src", "/workspace", "/workspace/src/x", "a b"] {
            assert!(relative_cwd(good).is_ok(), "{good}");
        }
        for bad in ["/", "/home/u", "..", "src/../..", "/workspace/../etc", "/workspaces", "a\0b", "~"]
            .iter()
            .filter(|b| **b != "~")
        {
            assert!(relative_cwd(bad).is_err(), "{bad}");
        }
    }

    fn command(secrets: &[(&str, Delivery)]) -> Command {
        let wanted = |(name, delivery): &(&str, Delivery)| SecretUse {
            name: SecretName::parse(name).unwrap(),
            delivery: delivery.clone(),
        };
        let secrets = secrets.iter().map(wanted).collect();
        Command {
            argv: vec!["true".into()],
            cwd: PathBuf::new(),
            env: BTreeMap::new(),
            secrets,
            terminal: None,
            file: None,
        }
    }

    #[test]
    fn a_secret_takes_the_place_of_a_variable_of_ours_and_none_that_of_another() {
        let plan =
            |secrets: &[(&str, Delivery)]| plan(&SandboxProfile::default(), command(secrets), &Protected::default());
        let variable = |name: &str| Delivery::Variable(name.into());
        let env = plan(&[("A", variable("LANG")), ("A", Delivery::File)]).unwrap().env;
        assert!(!env.contains_key("LANG") && env.contains_key("PATH"));
        assert!(plan(&[("A", variable("V")), ("B", variable("V"))]).is_err());
        assert!(plan(&[("A", Delivery::File), ("A", Delivery::File)]).is_err());
    }

    #[test]
    fn nothing_of_home_var_run_or_sys_is_in_a_plan() {
        let plan = plan(&SandboxProfile::default(), command(&[]), &Protected::default()).unwrap();
        assert!(plan.binds.is_empty());
        for bind in &system() {
            for hidden in
                ["/home", "/root", "/var", "/run", "/sys", "/boot", "/opt", "/srv", "/etc/shadow", "/etc/passwd"]
            {
                assert!(!bind.target.starts_with(hidden), "{bind:?}");
            }
        }
    }

    #[test]
    fn folders_of_a_profile_do_not_hold_each_other() {
        let allowed = |workspace: &str, ro: &str, rw: &str| {
            let profile = SandboxProfile {
                workspace: Some(workspace.into()),
                read_only: vec![ro.into()],
                read_write: vec![rw.into()],
                ..Default::default()
            };
            named(&profile, &Protected::default()).is_ok()
        };
        assert!(allowed("/srv/w", "/srv/tt", "/srv/t"));
        assert!(!allowed("/srv/w", "/srv/t/secret", "/srv/t"));
        assert!(!allowed("/srv/w", "/srv/t", "/srv/t/part"));
        assert!(!allowed("/srv/w", "/srv/t", "/srv/t"));
        assert!(!allowed("/srv/w", "/srv/w/.git", "/srv/t"));
        assert!(!allowed("/srv/w", "/workspace/data", "/srv/t"));
        assert!(!allowed("/srv/w", "/srv/x", "/workspace"));
    }

    #[test]
    fn an_empty_list_means_nothing_and_no_access_means_no_workspace() {
        let mut profile = SandboxProfile { workspace: Some("/srv/ws".into()), ..Default::default() };
        let shown = |p: &SandboxProfile| {
            view(p, &Protected::default()).unwrap().iter().any(|b| b.target == Path::new(WORKSPACE))
        };
        assert!(shown(&profile));
        profile.workspace_access = WorkspaceAccess::None;
        assert!(!shown(&profile));
    }
}
