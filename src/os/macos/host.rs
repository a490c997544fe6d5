//! What tells this host from every other, and its time.

/// The clock that times of files are of.
pub(in crate::os) const CLOCK_OF_FILES: rustix::time::ClockId = rustix::time::ClockId::Realtime;

/// Where that is which tells this host from every other.
pub(crate) const MACHINE_ID: &str = "the hardware's id (IOPlatformUUID)";

/// The hardware's id (IOPlatformUUID), 32 hex digits; `None` where it has none. gethostuuid(3).
pub(crate) fn machine_id() -> Option<String> {
    let mut id = [0u8; 16];
    // The call may ask another process, which gets a second.
    let patience = libc::timespec { tv_sec: 1, tv_nsec: 0 };
    // SAFETY: writes 16 bytes to where it is told, and reads a structure that outlives the call.
    let done = unsafe { libc::gethostuuid(id.as_mut_ptr(), &raw const patience) };
    (done == 0 && id != [0; 16]).then(|| id.iter().map(|byte| format!("{byte:02x}")).collect())
}
