//! Every system call and every `unsafe` block of the house.
//!
//! Rooms above call functions with names and types; which call that is, and why it is sound,
//! stands here. Each `unsafe` block says why it holds.

pub(crate) mod activation;
pub(crate) mod fs;
pub(crate) mod host;
pub(crate) mod memory;
pub(crate) mod peer;
pub(crate) mod process;
pub(crate) mod terminal;
pub(crate) mod tree;

#[cfg(target_os = "linux")]
pub(crate) mod linux;
