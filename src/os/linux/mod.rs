//! Linux: what walls are made of. Kernel things keep their kernel names.

pub(crate) mod acts;
pub(crate) mod capabilities;
pub(crate) mod cgroup;
pub(crate) mod clone;
pub(crate) mod confined;
pub(crate) mod handover;
pub(crate) mod landlock;
pub(crate) mod memfd;
pub(crate) mod mounts;
pub(crate) mod netns;
pub(crate) mod notify;
pub(crate) mod pty;
pub(crate) mod rlimits;
pub(crate) mod seccomp;
pub(crate) mod sock_diag;
pub(crate) mod title;
pub(crate) mod userns;
