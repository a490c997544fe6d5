//! Linux: what walls are made of, and what other systems do otherwise. Kernel things keep their kernel names.

pub(super) mod activation;
pub(crate) mod acts;
pub(crate) mod capabilities;
pub(crate) mod cgroup;
pub(crate) mod child;
pub(crate) mod clone;
pub(crate) mod confined;
pub(super) mod handover;
pub(super) mod host;
pub(crate) mod landlock;
pub(crate) mod memfd;
pub(super) mod memory;
pub(crate) mod mounts;
pub(crate) mod netns;
pub(crate) mod notify;
pub(super) mod paths;
pub(super) mod peer;
pub(super) mod process;
pub(crate) mod pty;
pub(crate) mod rlimits;
pub(crate) mod seccomp;
pub(crate) mod sock_diag;
pub(crate) mod title;
pub(crate) mod userns;
