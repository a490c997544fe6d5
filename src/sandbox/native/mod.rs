//! Walls of the Linux kernel: namespaces, mounts, Landlock, seccomp, capabilities, limits.
//!
//! `launcher` forks children and keeps one in reserve, `inside` is the recipe a child follows, with its
//! `step`s by name, its `tree` and its `secrets`; `brief` is what the child is told, `monitor` reads what it reports.
//! `loader` keeps the ELF loader from running what is not listed, by a `shim` that is a program of its own.
//! `filter` holds the system-call table, `probe` asks the kernel what it can do.

mod brief;
mod filter;
mod inside;
mod launcher;
#[cfg_attr(not(test), expect(dead_code, reason = "the mode that uses it follows"))]
mod loader;
mod monitor;
mod probe;
mod secrets;
mod step;
mod tree;

pub(crate) use filter::allowed_system_calls;
pub(crate) use launcher::{Descriptors, Launched, Launcher};
pub(crate) use monitor::Verdict;
pub(crate) use probe::probe_host;
