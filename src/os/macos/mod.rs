//! macOS: the counterparts of what differs from Linux. What has none is answered where it is asked for.

pub(super) mod activation;
pub(crate) mod child;
pub(crate) mod confined;
pub(super) mod handover;
pub(super) mod host;
pub(super) mod memory;
pub(super) mod paths;
pub(super) mod peer;
pub(super) mod process;
pub(crate) mod shared;
