//! Walls of the Linux kernel: namespaces, mounts, Landlock, seccomp, capabilities, limits.
//!
//! `launcher` prepares and forks, `inside` is the recipe the child follows, `monitor` reads what the
//! child reports, `filter` holds the system-call tables, `probe` asks the kernel what it can do.

mod filter;
mod inside;
mod launcher;
mod monitor;
mod probe;

pub(crate) use filter::allowed_system_calls;
pub(crate) use launcher::{Launched, Launcher, Stdio};
pub(crate) use monitor::Verdict;
pub(crate) use probe::probe_host;
