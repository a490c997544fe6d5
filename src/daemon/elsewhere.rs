//! In the place of `confine` where there is no Linux kernel: the gateway starts nothing any more, and that is all of it.
//!
//! There are no capabilities to give up. What it reads and writes is not restricted, which the start says in the log.

use super::DaemonFault;
use crate::config::{Places, Settings};
use crate::os::macos::confined;

/// What stands around this process.
#[derive(Debug, Clone, Copy)]
pub(super) struct Confined {
    pub(super) landlock_abi: u8,
}

impl Confined {
    /// What these walls lack, in the words of a status line.
    pub(super) fn weaker(self) -> Option<String> {
        Some("what it reads and writes is not restricted on this system".into())
    }
}

/// Builds what there is.
///
/// # Errors
/// Where it cannot be built.
pub(super) fn confine(_settings: &Settings, _places: &Places) -> Result<Confined, DaemonFault> {
    confined::start_nothing().map_err(super::system("cannot keep the gateway from starting anything"))?;
    Ok(Confined { landlock_abi: 0 })
}
