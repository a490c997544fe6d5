//! What a sandbox is to be: a closed struct, so that no option can reach the kernel or an
//! engine that is not named here.

use std::path::PathBuf;
use std::time::Duration;

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
    /// The host's network, as it is. Never the default.
    Host,
}

impl Network {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Network::None => "none",
            Network::Host => "host",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        [Self::None, Self::Host].into_iter().find(|n| n.as_str() == text)
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
        }
    }
}

/// The walls a command is to run in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SandboxProfile {
    /// The folder shown as `/workspace`; `None` shows an empty scratch folder.
    pub(crate) workspace: Option<PathBuf>,
    pub(crate) workspace_access: WorkspaceAccess,
    pub(crate) network: Network,
    /// Further host folders or files, shown read-only at their own path.
    pub(crate) read_only: Vec<PathBuf>,
    /// Further host folders, shown writable at their own path.
    pub(crate) read_write: Vec<PathBuf>,
    /// Names of environment variables a request may set, beyond the built-in list; `X_*` matches a prefix.
    pub(crate) env_allow: Vec<String>,
    pub(crate) limits: Limits,
}

impl Default for SandboxProfile {
    fn default() -> Self {
        SandboxProfile {
            workspace: None,
            workspace_access: WorkspaceAccess::ReadWrite,
            network: Network::None,
            read_only: Vec::new(),
            read_write: Vec::new(),
            env_allow: Vec::new(),
            limits: Limits::default(),
        }
    }
}
