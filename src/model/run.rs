//! One command: what is asked, how it ended, and what could go wrong on the way.

use super::{AgentId, Enforcement, FileAct, ProfileName, SecretUse, SessionId};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// Whether the command gets a standard input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stdin {
    /// `/dev/null`.
    Closed,
    /// Bytes sent while it runs.
    Piped,
}

/// Rows and columns of a terminal, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WindowSize {
    pub(crate) rows: u16,
    pub(crate) columns: u16,
}

/// Which of the command's two outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        }
    }
}

/// A command as asked for. The same argv is judged, recorded and executed; there is no shell in between.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ExecRequest {
    pub(crate) agent: AgentId,
    pub(crate) session: Option<SessionId>,
    pub(crate) profile: Option<ProfileName>,
    /// Never empty; no NUL inside.
    pub(crate) argv: Vec<String>,
    /// Relative to the workspace, or absolute below `/workspace`.
    pub(crate) cwd: Option<String>,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) secrets: Vec<SecretUse>,
    pub(crate) stdin: Stdin,
    /// A terminal of this size instead of three pipes; both outputs then come as one.
    pub(crate) terminal: Option<WindowSize>,
    /// An act of a file tool instead of a command, with what is to be written; `argv` then only names it.
    pub(crate) file: Option<(FileAct, Vec<u8>)>,
    /// Asks for less time than the profile allows.
    pub(crate) timeout: Option<Duration>,
}

/// Whether an environment variable can have this name: `[A-Za-z_][A-Za-z0-9_]{0,127}`.
pub(crate) fn is_variable_name(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && !text.starts_with(|c: char| c.is_ascii_digit())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// How a command that was started came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It exited with this code.
    Exited(u8),
    /// A signal ended it.
    Signaled(u8),
    /// The deadline passed; the whole tree was killed.
    TimedOut,
    /// The output bound was reached; the whole tree was killed.
    OutputLimit,
    /// The kernel's out-of-memory killer ended it at the memory bound.
    OutOfMemory,
    /// It added more to the disk than it may; the whole tree was killed.
    DiskLimit,
    /// An operator's lockdown ended it.
    LockedDown,
    /// The client cancelled or went away; the whole tree was killed.
    Cancelled,
}

impl Ending {
    /// The word used on the wire and in the journal.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Ending::Exited(_) => "exited",
            Ending::Signaled(_) => "signaled",
            Ending::TimedOut => "timed-out",
            Ending::OutputLimit => "output-limit",
            Ending::OutOfMemory => "out-of-memory",
            Ending::DiskLimit => "disk-limit",
            Ending::LockedDown => "lockdown",
            Ending::Cancelled => "cancelled",
        }
    }

    /// The ending of this word; only those that carry no number.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let all = [
            Ending::TimedOut,
            Ending::OutputLimit,
            Ending::OutOfMemory,
            Ending::DiskLimit,
            Ending::LockedDown,
            Ending::Cancelled,
        ];
        all.into_iter().find(|e| e.as_str() == text)
    }

    /// The exit code `exec` and `sandbox run` pass on: the command's own, 124 for a deadline,
    /// 128+n for signal n (the bounds kill with SIGKILL).
    pub(crate) fn exit_code(self) -> u8 {
        match self {
            Ending::Exited(code) => code,
            Ending::Signaled(signal) => 128u8.saturating_add(signal),
            Ending::TimedOut => 124,
            Ending::OutputLimit | Ending::OutOfMemory | Ending::DiskLimit | Ending::LockedDown | Ending::Cancelled => {
                137
            }
        }
    }
}

/// What a finished run leaves: how it ended, what was enforced, how long it took.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    pub(crate) ending: Ending,
    pub(crate) enforcement: Enforcement,
    /// From the order's arrival at the launcher to the end of the whole tree.
    pub(crate) elapsed: Duration,
    /// Bytes of output that were passed on.
    pub(crate) output_bytes: u64,
    /// What something in the sandbox tried to execute that is not on its list, each path once, as it was named.
    pub(crate) refused: Vec<String>,
    /// It asked for a process more than it may have, and was refused it; the command may have gone on.
    pub(crate) out_of_processes: bool,
}

/// A launch that failed in one named step, before or at exec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LaunchFault {
    /// What was being done, in a few words.
    pub(crate) step: String,
    /// What the kernel said, or what did not hold.
    pub(crate) cause: String,
}

impl fmt::Display for LaunchFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.step, self.cause)
    }
}

/// Why there is no outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RunFault {
    /// The request or profile cannot be turned into walls: a path, a name, a size.
    Refused { what: String, hint: String },
    /// A required wall could not be built; the command did not run.
    WallMissing(LaunchFault),
    /// No such command inside the sandbox.
    NotFound(String),
    /// The command is there but cannot be executed.
    NotExecutable { command: String, cause: String },
    /// It was ended before its command had started.
    NeverStarted(Ending),
    /// The container engine is not there, or refuses.
    Engine { what: String, hint: String },
    /// The runner went away; its sandboxes ended with it.
    RunnerGone,
    /// The runner has as many runs as it takes.
    Busy,
    /// An operator has locked everything down.
    LockedDown,
}

impl RunFault {
    /// The stable code of this fault on the wire and in the journal.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            RunFault::Refused { .. } => "SANDBOX_REFUSED",
            RunFault::WallMissing(_) => "WALL_UNAVAILABLE",
            RunFault::NotFound(_) => "COMMAND_NOT_FOUND",
            RunFault::NotExecutable { .. } => "COMMAND_NOT_EXECUTABLE",
            RunFault::NeverStarted(_) => "NEVER_STARTED",
            RunFault::Engine { .. } => "ENGINE_UNAVAILABLE",
            RunFault::RunnerGone => "RUNNER_GONE",
            RunFault::Busy => "RUNNER_BUSY",
            RunFault::LockedDown => "LOCKED_DOWN",
        }
    }

    /// The exit code of `exec` and `sandbox run`.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            RunFault::NotFound(_) => 127,
            RunFault::NotExecutable { .. } | RunFault::Refused { .. } | RunFault::LockedDown => 126,
            RunFault::NeverStarted(ending) => ending.exit_code(),
            RunFault::WallMissing(_) | RunFault::Engine { .. } | RunFault::RunnerGone | RunFault::Busy => 125,
        }
    }

    /// What the reader can do about it.
    pub(crate) fn hint(&self) -> String {
        match self {
            RunFault::Refused { hint, .. } | RunFault::Engine { hint, .. } => hint.clone(),
            RunFault::WallMissing(_) => "`vambrace sandbox probe` shows what this host can enforce".into(),
            RunFault::NotFound(_) => {
                "only /usr, /workspace and the profile's own folders are visible inside the walls".into()
            }
            RunFault::NotExecutable { .. } => {
                "check its mode bits, its interpreter and its architecture, and with a list of executables the list: \
                 `vambrace sandbox explain` shows it"
                    .into()
            }
            RunFault::NeverStarted(_) => "nothing was run; send the command once more if it is still wanted".into(),
            RunFault::RunnerGone => "the runner has been started again; send the command once more".into(),
            RunFault::Busy => "wait for a run to finish, or cancel one".into(),
            RunFault::LockedDown => "an operator ends it with `vambrace lockdown off`".into(),
        }
    }
}

impl fmt::Display for RunFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RunFault::Refused { what, .. } | RunFault::Engine { what, .. } => f.write_str(what),
            RunFault::WallMissing(fault) => write!(f, "a wall could not be built, so nothing was run: {fault}"),
            RunFault::NotFound(command) => write!(f, "{command:?}: command not found inside the sandbox"),
            RunFault::NotExecutable { command, cause } => write!(f, "{command:?} cannot be executed: {cause}"),
            RunFault::NeverStarted(ending) => {
                write!(f, "the run was ended before its command started: {}", ending.as_str())
            }
            RunFault::RunnerGone => {
                f.write_str("the runner ended while the command was running; the command was killed")
            }
            RunFault::Busy => f.write_str("the runner has as many runs as it takes"),
            RunFault::LockedDown => f.write_str("everything is locked down: no command runs"),
        }
    }
}

impl std::error::Error for RunFault {}
