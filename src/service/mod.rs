//! The program as a service of this host: what its service manager is told, and what that tells.
//!
//! What is to be done is worked out first, as a list of steps that can be shown (`systemd`, `launchd`; pure), and then
//! done. Units and property lists are the files of `systemd/` and `launchd/`, so that package and `service install` give
//! the same. `doctor` says what this host lacks. Knows nothing of requests.

mod doctor;
mod launchd;
mod systemd;

pub(crate) use doctor::{Finding, State, examine};

use crate::os;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Whose service it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// The host's, under users of its own.
    System,
    /// The caller's own.
    User,
}

/// What can be done with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    Install,
    Uninstall,
    Start,
    Stop,
    Restart,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// A file of ours; another's of that name is left alone.
    Write {
        path: PathBuf,
        text: String,
    },
    Remove {
        path: PathBuf,
    },
    Run(Vec<String>),
}

impl Step {
    fn run(words: &[&str]) -> Self {
        Step::Run(words.iter().map(|word| (*word).to_owned()).collect())
    }
}

/// What a service manager tells of one unit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Unit {
    pub(crate) name: String,
    /// Whether the manager knows it.
    pub(crate) is_known: bool,
    /// Whether it starts by itself.
    pub(crate) is_enabled: bool,
    /// In the manager's own word, e.g. `active`.
    pub(crate) active: String,
    pub(crate) pid: Option<u32>,
    /// What the unit says of itself, or why it ended.
    pub(crate) said: String,
}

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServiceFault {
    #[error("this host is not run by systemd, so there is no service manager to tell")]
    NoSupervisor,
    #[error("a service of the whole host is installed and changed by root")]
    NotRoot,
    #[error("{path} would be run by a service of the whole host, but {why}")]
    BadProgram { path: PathBuf, why: &'static str },
    #[error("{0} is there and was not written by `vambrace service install`")]
    Foreign(PathBuf),
    #[error("{path}: {cause}")]
    File { path: PathBuf, cause: io::Error },
    #[error("`{command}` failed: {said}")]
    Failed { command: String, said: String },
    #[error("{program} cannot be started: {cause}")]
    Tool { program: String, cause: io::Error },
    #[error("there is no home folder: HOME is not set")]
    NoHome,
}

impl ServiceFault {
    /// What the reader can do about it.
    pub(crate) fn hint(&self) -> String {
        match self {
            ServiceFault::NoSupervisor => {
                "`vambrace gateway` runs in the foreground, under whatever supervisor there is; \
                 docs/service.md has a script for OpenRC and says how to run it in a container"
                    .into()
            }
            ServiceFault::NotRoot => "run it as root, or give --user for a service of your own".into(),
            ServiceFault::BadProgram { path, .. } => {
                format!("install -m 755 {} /usr/local/bin/vambrace, and call that one", path.display())
            }
            ServiceFault::Foreign(path) => format!("look at it, and move it away: mv {0} {0}.old", path.display()),
            ServiceFault::File { .. } => "does the folder belong to whoever runs this?".into(),
            ServiceFault::Failed { said, .. } if said.contains("connect to bus") => {
                "there is no session of this user: log in as it, or keep one with `loginctl enable-linger`".into()
            }
            ServiceFault::Failed { .. } => "`vambrace service logs` shows what the service said".into(),
            ServiceFault::Tool { .. } | ServiceFault::NoHome => "`vambrace doctor` says what is missing".into(),
        }
    }
}

/// What keeps services on this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Supervisor {
    Systemd,
    Launchd,
}

impl Supervisor {
    fn of_this_system() -> Self {
        if cfg!(target_os = "macos") { Supervisor::Launchd } else { Supervisor::Systemd }
    }
}

/// Everything that a plan depends on.
#[derive(Debug, Clone)]
pub(crate) struct Service {
    supervisor: Supervisor,
    reach: Reach,
    /// The program that is to run.
    program: PathBuf,
    uid: u32,
    home: PathBuf,
    /// Where the user's configuration is.
    config_home: PathBuf,
    /// Whether a package has brought the units.
    is_packaged: bool,
}

impl Service {
    /// Finds out how services are kept here.
    ///
    /// # Errors
    /// Where nothing keeps any.
    pub(crate) fn find(reach: Reach) -> Result<Self, ServiceFault> {
        let supervisor = Supervisor::of_this_system();
        if supervisor == Supervisor::Systemd && !is_run_by_systemd() {
            return Err(ServiceFault::NoSupervisor);
        }
        Self::of(supervisor, reach)
    }

    /// What `install` would do on this system, also where nothing keeps services: to look at.
    pub(crate) fn imagine(reach: Reach) -> Result<Self, ServiceFault> {
        Self::of(Supervisor::of_this_system(), reach)
    }

    fn of(supervisor: Supervisor, reach: Reach) -> Result<Self, ServiceFault> {
        let cause = |cause| ServiceFault::Tool { program: "this program".into(), cause };
        let program = std::env::current_exe().and_then(|path| os::fs::canonical(&path)).map_err(cause)?;
        let folder = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let home = folder("HOME").ok_or(ServiceFault::NoHome)?;
        let config_home = folder("XDG_CONFIG_HOME").unwrap_or_else(|| home.join(".config"));
        let is_packaged = program == Path::new("/usr/bin/vambrace") && systemd::packaged(reach).exists();
        Ok(Service { supervisor, reach, program, uid: os::process::uid(), home, config_home, is_packaged })
    }

    /// What is done, in this order.
    ///
    /// # Errors
    /// Where it may not be done.
    pub(crate) fn plan(&self, act: Act) -> Result<Vec<Step>, ServiceFault> {
        if self.reach == Reach::System {
            if self.uid != 0 {
                return Err(ServiceFault::NotRoot);
            }
            if act == Act::Install {
                is_fit_for_the_host(&self.program)?;
            }
        }
        Ok(match self.supervisor {
            Supervisor::Systemd => systemd::plan(self, act),
            Supervisor::Launchd => launchd::plan(self, act),
        })
    }

    /// What the manager tells, of each unit.
    pub(crate) fn status(&self) -> Result<Vec<Unit>, ServiceFault> {
        match self.supervisor {
            Supervisor::Systemd => Ok(systemd::read_units(&output(&systemd::show(self.reach))?)),
            Supervisor::Launchd => Ok(vec![launchd::read_unit(self, output(&launchd::print(self)).ok().as_deref())]),
        }
    }

    /// Shows what the service said, here and now; returns when that ends.
    pub(crate) fn logs(&self, lines: u32, follow: Follow) -> Result<bool, ServiceFault> {
        let words = match self.supervisor {
            Supervisor::Systemd => systemd::logs(self.reach, lines, follow),
            Supervisor::Launchd => launchd::logs(self, lines, follow),
        };
        let ran = command(&words).status().map_err(|cause| tool(&words, cause))?;
        Ok(ran.success())
    }

    /// Whether a package brought the service and takes it away.
    pub(crate) fn is_packaged(&self) -> bool {
        self.is_packaged
    }
}

/// Whether new lines are waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Follow {
    Yes,
    No,
}

/// Does one thing.
pub(crate) fn carry_out(step: &Step) -> Result<(), ServiceFault> {
    let file = |path: &Path| {
        let path = path.to_owned();
        move |cause| ServiceFault::File { path, cause }
    };
    match step {
        Step::Write { path, text } => {
            refuse_foreign(path)?;
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent).map_err(file(parent))?;
            }
            std::fs::write(path, text).map_err(file(path))
        }
        Step::Remove { path } => {
            refuse_foreign(path)?;
            os::fs::remove(path).map_err(file(path))
        }
        Step::Run(words) => output(words).map(|_| ()),
    }
}

/// What stands in every file that is written, and tells it from others'.
const MARK: &str = "Written by `vambrace service install`";

fn refuse_foreign(path: &Path) -> Result<(), ServiceFault> {
    match std::fs::read_to_string(path) {
        Ok(text) if !text.contains(MARK) => Err(ServiceFault::Foreign(path.to_owned())),
        _ => Ok(()),
    }
}

/// A service of the whole host must not run what an ordinary user can replace, or what its own walls hide from it.
fn is_fit_for_the_host(program: &Path) -> Result<(), ServiceFault> {
    let bad = |why| Err(ServiceFault::BadProgram { path: program.to_owned(), why });
    if ["/home", "/root", "/tmp", "/var/tmp", "/run/user", "/dev/shm"].iter().any(|folder| program.starts_with(folder))
    {
        return bad("it lies where services do not look");
    }
    use std::os::unix::fs::MetadataExt;
    for path in program.ancestors() {
        match std::fs::symlink_metadata(path) {
            Ok(meta) if meta.uid() == 0 && meta.mode() & 0o022 == 0 => {}
            _ => return bad("somebody else than root can replace it"),
        }
    }
    Ok(())
}

/// Whether systemd is process 1 (sd_booted(3)).
fn is_run_by_systemd() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

fn command(words: &[String]) -> Command {
    let (program, arguments) = words.split_first().map_or(("", &[][..]), |(first, rest)| (first.as_str(), rest));
    #[expect(clippy::disallowed_methods, reason = "the host's own service manager, asked for by the operator")]
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    command
}

fn tool(words: &[String], cause: io::Error) -> ServiceFault {
    ServiceFault::Tool { program: words.first().cloned().unwrap_or_default(), cause }
}

/// Runs a command and gives what it printed.
fn output(words: &[String]) -> Result<String, ServiceFault> {
    let ran = command(words).output().map_err(|cause| tool(words, cause))?;
    if ran.status.success() {
        return Ok(String::from_utf8_lossy(&ran.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&ran.stderr).trim().replace('\n', "; ");
    let said = if said.is_empty() { ran.status.to_string() } else { said };
    Err(ServiceFault::Failed { command: words.join(" "), said })
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn service(supervisor: Supervisor, reach: Reach) -> Service {
        Service {
            supervisor,
            reach,
            program: "/usr/local/bin/vambrace".into(),
            uid: if reach == Reach::System { 0 } else { 1000 },
            home: "/home/ada".into(),
            config_home: "/home/ada/.config".into(),
            is_packaged: false,
        }
    }

    #[test]
    fn a_file_of_somebody_else_is_neither_replaced_nor_removed() {
        let folder = std::env::temp_dir().join(format!("vambrace-test-service-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (path, text) = (folder.join("vambrace.service"), "# an administrator's own\n");
        std::fs::write(&path, text).unwrap();
        for step in [Step::Write { path: path.clone(), text: MARK.into() }, Step::Remove { path: path.clone() }] {
            assert!(matches!(carry_out(&step), Err(ServiceFault::Foreign(_))));
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        std::fs::remove_file(&path).unwrap();

        carry_out(&Step::Write { path: path.clone(), text: MARK.into() }).unwrap();
        carry_out(&Step::Write { path: path.clone(), text: format!("{MARK} again") }).unwrap();
        carry_out(&Step::Remove { path: path.clone() }).unwrap();
        assert!(!path.exists());
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn the_host_runs_no_program_that_others_can_replace() {
        assert!(is_fit_for_the_host(Path::new("/usr/bin/env")).is_ok());
        for path in ["/home/ada/vambrace", "/tmp/vambrace", "/nonexistent"] {
            assert!(matches!(is_fit_for_the_host(Path::new(path)), Err(ServiceFault::BadProgram { .. })), "{path}");
        }
        let stranger = Service { uid: 1000, ..service(Supervisor::Systemd, Reach::System) };
        assert!(matches!(stranger.plan(Act::Install), Err(ServiceFault::NotRoot)));
    }
}
