//! Every system call and every `unsafe` block of the house.
//!
//! Rooms above call functions with names and types; which call that is, and why it is sound,
//! stands here. Each `unsafe` block says why it holds.
//!
//! What differs between systems has a file of the same name in `linux` and in `macos`, with the same functions. `linux`
//! has what walls are made of besides, and whoever names it is for Linux alone.

pub(crate) mod activation;
pub(crate) mod fs;
pub(crate) mod handover;
pub(crate) mod host;
pub(crate) mod memory;
pub(crate) mod peer;
pub(crate) mod process;
pub(crate) mod sandboxed;
pub(crate) mod terminal;
pub(crate) mod tree;

#[cfg(target_os = "linux")]
pub(crate) mod linux;
#[cfg(target_os = "macos")]
pub(crate) mod macos;

#[cfg(target_os = "linux")]
pub(crate) use linux::{child, memfd::Sealed};
#[cfg(target_os = "macos")]
pub(crate) use macos::{child, shared::Sealed};

/// What has a file for each system: the parts below use it by this name.
#[cfg(target_os = "linux")]
use linux as system;
#[cfg(target_os = "macos")]
use macos as system;

#[cfg(not(any(target_os = "linux", target_os = "macos")))]
compile_error!("Vambrace is for Linux and macOS: os/ has no counterpart for this system");
