//! What was really enforced on a run, as read back from the kernel; never what was wished.

use super::{ExecMode, Network};
use std::fmt;

/// What the walls are made of, weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Tier {
    /// Landlock and seccomp alone, where no namespace can be made; the command has the runner's own uid.
    Landlock,
    /// The same inside a container that an engine has made.
    Container,
    /// Namespaces in a user namespace of an ordinary user.
    UserNamespace,
    /// Namespaces made by root, without a user namespace; the command has a uid of its own.
    Root,
}

impl Tier {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Tier::Landlock => "landlock",
            Tier::Container => "container",
            Tier::UserNamespace => "user-namespace",
            Tier::Root => "root",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        [Self::Landlock, Self::Container, Self::UserNamespace, Self::Root].into_iter().find(|t| t.as_str() == text)
    }
}

/// A bounded resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LimitKind {
    Cpu,
    Memory,
    Pids,
}

impl LimitKind {
    pub(crate) const ALL: [LimitKind; 3] = [LimitKind::Cpu, LimitKind::Memory, LimitKind::Pids];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            LimitKind::Cpu => "cpu",
            LimitKind::Memory => "memory",
            LimitKind::Pids => "pids",
        }
    }
}

/// By what a resource is bounded on this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Means {
    /// A control group: the whole tree together.
    Cgroup,
    /// A resource limit: each process, or each user of the namespace, for itself.
    Rlimit,
    /// Not at all; the deadline remains.
    Unbounded,
}

impl Means {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Means::Cgroup => "cgroup",
            Means::Rlimit => "rlimit",
            Means::Unbounded => "unbounded",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        [Self::Cgroup, Self::Rlimit, Self::Unbounded].into_iter().find(|m| m.as_str() == text)
    }
}

/// The container around a run, as the engine describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Container {
    /// The engine's id, 64 digits in hex.
    pub(crate) id: String,
    /// The image it was made of by its digest, as `sha256:` and 64 digits.
    pub(crate) image: String,
    /// SHA-256 in hex over the plan that the live container was compared with, field by field.
    pub(crate) plan: String,
    /// The setup of its profile was executed in it for this run, before the command.
    pub(crate) set_up: bool,
}

/// What stands in the engine for a sandbox that keeps something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StandingContainer {
    /// The engine's id, 64 digits in hex.
    pub(crate) id: String,
    /// When it was made, as the engine says it (RFC 3339).
    pub(crate) created: String,
    /// The engine's word: `running`, `paused`, `exited`.
    pub(crate) state: String,
    /// What of it is not as its profile says now; where it is empty, the next command finds it as it is.
    pub(crate) differences: Vec<String>,
}

/// The walls around one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Enforcement {
    pub(crate) tier: Tier,
    /// With the backend `docker`.
    pub(crate) container: Option<Container>,
    /// Kernel names of the namespaces the command has for itself, e.g. `mnt`, `pid`, `net`.
    pub(crate) namespaces: Vec<String>,
    /// The uid of the command, as the host sees it.
    pub(crate) host_uid: u32,
    /// The Landlock ABI whose every right is handled.
    pub(crate) landlock_abi: u8,
    /// The kernel said that this process is filtered; so many filters were installed.
    pub(crate) seccomp_filters: u8,
    pub(crate) no_new_privs: bool,
    /// Effective, permitted, inheritable, bounding and ambient sets were all empty.
    pub(crate) no_capabilities: bool,
    pub(crate) network: Network,
    pub(crate) exec_mode: ExecMode,
    /// How many forbidden acts were tried inside the finished walls, all of them refused.
    pub(crate) proofs: u8,
    /// SHA-256 in hex over those acts with what the kernel answered to each.
    pub(crate) proof: String,
    /// cpu, memory, pids: by what each is bounded.
    pub(crate) limits: [(LimitKind, Means); 3],
}

impl fmt::Display for Enforcement {
    /// One line, for the journal's VAMBRACE_ENFORCEMENT.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.container {
            None => f.write_str("native ")?,
            Some(c) => {
                let set_up = if c.set_up { "setup=done " } else { "" };
                write!(f, "docker image={:.19} container={:.12} plan={:.16} {set_up}", c.image, c.id, c.plan)?;
            }
        }
        write!(
            f,
            "tier={} ns={} uid={} landlock={} seccomp={} nnp={} caps={} net={} exec={} proofs={} proof={:.16}",
            self.tier.as_str(),
            self.namespaces.join("+"),
            self.host_uid,
            self.landlock_abi,
            self.seccomp_filters,
            u8::from(self.no_new_privs),
            if self.no_capabilities { "none" } else { "SOME" },
            self.network.as_str(),
            self.exec_mode.as_str(),
            self.proofs,
            self.proof,
        )?;
        for (kind, means) in self.limits {
            write!(f, " {}={}", kind.as_str(), means.as_str())?;
        }
        Ok(())
    }
}
