//! Memory that is this process's alone.

use std::ffi::c_void;

// SAFETY: as minherit(2) declares it.
unsafe extern "C" {
    fn minherit(address: *mut c_void, length: libc::size_t, inherit: libc::c_int) -> libc::c_int;
}

/// A child has no such memory at all (mach/vm_inherit.h).
const VM_INHERIT_NONE: libc::c_int = 2;

/// Not in a child that is forked. Core dumps are left out as a whole (`make_undumpable`): no mapping can be alone.
///
/// # Safety
/// The range must be a mapping of the caller's own.
// SAFETY: the caller's promise about the range is all that is needed.
pub(in crate::os) unsafe fn keep_to_this_process(mapped: *mut c_void, length: usize) {
    // SAFETY: the range is the caller's mapping, and its content in this process is not touched.
    let _ = unsafe { minherit(mapped, length, VM_INHERIT_NONE) };
}
