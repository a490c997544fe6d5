//! setrlimit(2): bounds that every host has, whatever its control groups.

use nix::sys::resource::{Resource, setrlimit};
use std::io;

/// The limits of one sandbox. Soft and hard are the same, so none can be raised again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rlimits {
    /// Processes and threads of the command's uid in its user namespace.
    pub(crate) pids: u32,
    /// Private writable memory of one process, where no cgroup bounds the tree.
    pub(crate) data_bytes: Option<u64>,
    /// Bytes of one file.
    pub(crate) file_bytes: u64,
}

/// Applies them to this process and all it will start.
pub(crate) fn apply(limits: Rlimits) -> io::Result<()> {
    set(Resource::RLIMIT_NPROC, limits.pids.into())?;
    if let Some(bytes) = limits.data_bytes {
        set(Resource::RLIMIT_DATA, bytes)?;
    }
    set(Resource::RLIMIT_FSIZE, limits.file_bytes)?;
    // A core file would carry the command's memory into the workspace or to the host's core_pattern.
    // 1, not 0: only 1 also keeps the kernel from piping it to a program (core(5), do_coredump).
    set(Resource::RLIMIT_CORE, 1)?;
    // All there may be, until `bound_files`.
    set(Resource::RLIMIT_NOFILE, u64::MAX)?;
    set(Resource::RLIMIT_MEMLOCK, 64 << 10)?;
    set(Resource::RLIMIT_MSGQUEUE, 0)?;
    set(Resource::RLIMIT_NICE, 0)?;
    set(Resource::RLIMIT_RTPRIO, 0)?;
    set(Resource::RLIMIT_SIGPENDING, 4096)
}

/// Files that each process of the command may have open: to be set when nothing has to be handed over any more.
///
/// Descriptors under way in unix sockets count for the user in all namespaces, and whoever may have fewer open than there
/// are under way hands over none (ETOOMANYREFS, unix(7)). So a command may have fewer than the init of another, by more
/// than one message takes.
pub(crate) fn bound_files() -> io::Result<()> {
    const MOST: u64 = 4096;
    const MORE_THAN_A_MESSAGE: u64 = 512;
    let (_, hard) = nix::sys::resource::getrlimit(Resource::RLIMIT_NOFILE)?;
    set(Resource::RLIMIT_NOFILE, MOST.min(hard.saturating_sub(MORE_THAN_A_MESSAGE)))
}

/// A backstop behind the deadline, in case the launcher itself is stopped: seconds of CPU for each process.
pub(crate) fn bound_cpu(seconds: u64) -> io::Result<()> {
    set(Resource::RLIMIT_CPU, seconds)
}

/// Lowers a limit, never raises it: an ordinary user may not, and root need not.
fn set(resource: Resource, value: u64) -> io::Result<()> {
    let (_, hard) = nix::sys::resource::getrlimit(resource)?;
    let value = value.min(hard);
    Ok(setrlimit(resource, value, value)?)
}
