//! In the place of `confine` where there is no Linux kernel. A process without walls does not read what a sandbox sends.

/// A wall that does not stand.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfineFault {
    #[error("its walls are of the Linux kernel, and this system has another: use network = \"none\" or \"host\"")]
    OtherKernel,
}

/// Builds none.
///
/// # Errors
/// Always.
pub(super) fn confine(_uid: Option<u32>) -> Result<(), ConfineFault> {
    Err(ConfineFault::OtherKernel)
}
