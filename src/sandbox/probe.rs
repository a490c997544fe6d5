//! One line of a probe, of whatever backend: what a host or an engine can enforce, found by trying.

/// A wall, and whether it can be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Probe {
    pub(crate) wall: &'static str,
    /// Whether it can be enforced here.
    pub(crate) here: bool,
    /// Whether a command is refused without it.
    pub(crate) required: bool,
    pub(crate) detail: String,
}
