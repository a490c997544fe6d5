//! Memory that is this process's alone.

use rustix::mm::{Advice, madvise};
use std::ffi::c_void;

/// Neither in a core dump nor in a child that is forked; both are refinements an old kernel may lack.
///
/// # Safety
/// The range must be a mapping of the caller's own.
// SAFETY: the caller's promise about the range is all that is needed.
pub(in crate::os) unsafe fn keep_to_this_process(mapped: *mut c_void, length: usize) {
    for advice in [Advice::LinuxDontDump, Advice::LinuxWipeOnFork] {
        // SAFETY: the range is the caller's mapping, and neither advice touches its content in this process.
        let _ = unsafe { madvise(mapped, length, advice) };
    }
}
