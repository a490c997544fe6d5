//! What a sandbox is to be: a closed struct, so that no option can reach the kernel or an
//! engine that is not named here.

use super::{Domain, EngineHost, Tier};
use std::path::PathBuf;
use std::time::Duration;

/// Which commands share one sandbox: its home folder and `/tmp`, and its workspace where the agent has none.
///
/// What is shared is a tree, never processes: each command has walls of its own, and what it started ends with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SandboxScope {
    /// Those of one session of one agent; a command without a session shares with none.
    Session,
    /// All of one agent.
    Agent,
    /// All of every agent whose profile says so.
    Shared,
}

impl SandboxScope {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            SandboxScope::Session => "session",
            SandboxScope::Agent => "agent",
            SandboxScope::Shared => "shared",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        [Self::Session, Self::Agent, Self::Shared].into_iter().find(|s| s.as_str() == text)
    }
}

/// What builds the walls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backend {
    /// The Linux kernel, by our own hands.
    Native,
    /// A container engine.
    Docker,
}

impl Backend {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Backend::Native => "native",
            Backend::Docker => "docker",
        }
    }
}

/// Which executables of what is shown may be executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExecMode {
    /// Every one: the walls are the limit.
    Full,
    /// Those on the profile's list, in the whole process tree; nothing that can be written to.
    Allowlist,
}

impl ExecMode {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            ExecMode::Full => "full",
            ExecMode::Allowlist => "allowlist",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        [Self::Full, Self::Allowlist].into_iter().find(|m| m.as_str() == text)
    }
}

/// How the command sees the agent's workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WorkspaceAccess {
    /// Not at all: `/workspace` is an empty scratch folder that ends with the run.
    None,
    ReadOnly,
    ReadWrite,
}

impl WorkspaceAccess {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            WorkspaceAccess::None => "none",
            WorkspaceAccess::ReadOnly => "ro",
            WorkspaceAccess::ReadWrite => "rw",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        [Self::None, Self::ReadOnly, Self::ReadWrite].into_iter().find(|a| a.as_str() == text)
    }
}

/// What of the network the command sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Network {
    /// Its own network namespace with a loopback of its own.
    None,
    /// Its own as well; names that are allowed resolve, and connections to them are carried out for it.
    Allowlist,
    /// The host's network, as it is. Never the default.
    Host,
}

impl Network {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Network::None => "none",
            Network::Allowlist => "allowlist",
            Network::Host => "host",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        [Self::None, Self::Allowlist, Self::Host].into_iter().find(|n| n.as_str() == text)
    }
}

/// Bounds on one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Thousandths of a CPU.
    pub(crate) milli_cpus: u32,
    pub(crate) memory_bytes: u64,
    /// Processes and threads together.
    pub(crate) pids: u32,
    /// Wall time from launch to the end of the whole tree.
    pub(crate) timeout: Duration,
    /// Standard output and error together.
    pub(crate) output_bytes: u64,
    /// All of `/tmp`, the home folder and `/dev/shm` together; also bounded by memory.
    pub(crate) scratch_bytes: u64,
    /// What one run may add to the folders it can write to, on disk.
    pub(crate) disk_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            milli_cpus: 1000,
            memory_bytes: 512 << 20,
            pids: 256,
            timeout: Duration::from_secs(60),
            output_bytes: 8 << 20,
            scratch_bytes: 256 << 20,
            disk_bytes: 4 << 30,
        }
    }
}

/// The image of containers whose profile names none: what `sandbox build-image` builds.
const DEFAULT_IMAGE: &str = "vambrace-sandbox:latest";

/// The walls a command is to run in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SandboxProfile {
    pub(crate) backend: Backend,
    /// With `Backend::Docker`: the name or id of the image, as the engine knows it.
    pub(crate) image: String,
    /// With `Backend::Docker`: a shell line that is executed once in each container, before its first command.
    pub(crate) setup: Option<String>,
    /// With `Backend::Docker`: where the engine is; `None` for the runner's own.
    pub(crate) engine: Option<EngineHost>,
    /// The folder shown as `/workspace`; `None` shows an empty scratch folder.
    pub(crate) workspace: Option<PathBuf>,
    pub(crate) workspace_access: WorkspaceAccess,
    pub(crate) scope: SandboxScope,
    /// The folder that holds what the sandbox keeps between commands; `None` where it keeps nothing.
    pub(crate) kept: Option<PathBuf>,
    pub(crate) network: Network,
    /// What can be reached with `Network::Allowlist`.
    pub(crate) domains: Vec<Domain>,
    /// Further host folders or files, shown read-only at their own path.
    pub(crate) read_only: Vec<PathBuf>,
    /// Further host folders, shown writable at their own path.
    pub(crate) read_write: Vec<PathBuf>,
    /// Names of environment variables a request may set, beyond the built-in list; `X_*` matches a prefix.
    pub(crate) env_allow: Vec<String>,
    pub(crate) exec_mode: ExecMode,
    /// Executables by absolute path inside or glob of such, for `ExecMode::Allowlist`.
    pub(crate) exec_allow: Vec<String>,
    /// The weakest walls that are accepted.
    pub(crate) least_tier: Tier,
    /// How long what the sandbox keeps may lie unused before it is pruned.
    pub(crate) idle: Duration,
    /// With `Backend::Docker`: how old a container may become before another takes its place; `None` for any age.
    pub(crate) age: Option<Duration>,
    pub(crate) limits: Limits,
}

impl Default for SandboxProfile {
    fn default() -> Self {
        SandboxProfile {
            backend: Backend::Native,
            image: DEFAULT_IMAGE.into(),
            setup: None,
            engine: None,
            workspace: None,
            workspace_access: WorkspaceAccess::ReadWrite,
            scope: SandboxScope::Session,
            kept: None,
            network: Network::None,
            domains: Vec::new(),
            read_only: Vec::new(),
            read_write: Vec::new(),
            env_allow: Vec::new(),
            exec_mode: ExecMode::Full,
            exec_allow: Vec::new(),
            least_tier: Tier::UserNamespace,
            idle: Duration::from_secs(7 * 86_400),
            age: None,
            limits: Limits::default(),
        }
    }
}
