//! Walls of the Linux kernel: namespaces, mounts, Landlock, seccomp, capabilities, limits.
//!
//! `walls` is what is to be built, `launcher` forks children and keeps some in reserve, `inside` is the recipe a child
//! follows, with its `step`s by name, its `tree` and its `secrets`; `battery` proves the walls, `brief` is what the
//! child is told, `monitor` reads what it reports.
//! `landlocked` is the recipe of the tier without namespaces, `deputy` does for its command what a filter cannot judge.
//! `guard` lets only listed executables be executed, `loader` keeps the ELF loader from running what is not listed, by a `shim` that is a program of its own.
//! `filter` holds the system-call table, `probe` asks the kernel what it can do.

mod battery;
mod brief;
mod deputy;
mod files;
mod filter;
mod guard;
mod inside;
mod landlocked;
mod launched;
mod launcher;
mod loader;
mod monitor;
mod probe;
mod reserve;
mod secrets;
mod slots;
mod step;
mod tree;
mod walls;
mod witness;

/// Nothing keeps this backend from being used on this system.
pub(super) const MISSING: Option<&str> = None;

pub(crate) use filter::allowed_system_calls;
pub(crate) use launched::{Finished, Handed, Launched};
pub(crate) use launcher::{Descriptors, Launcher, Lent};
pub(crate) use monitor::Verdict;
pub(crate) use probe::probe_host;
