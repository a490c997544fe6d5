//! What tells this host from every other, and its time.

/// The clock that times of files are of: at most a tick behind the other.
pub(in crate::os) const CLOCK_OF_FILES: rustix::time::ClockId = rustix::time::ClockId::RealtimeCoarse;

/// Where that is which tells this host from every other.
pub(crate) const MACHINE_ID: &str = "/etc/machine-id";

/// The host's id, 32 hex digits made at its installation (machine-id(5)); `None` where it has none.
pub(crate) fn machine_id() -> Option<String> {
    [MACHINE_ID, "/var/lib/dbus/machine-id"].iter().find_map(|path| {
        let text = std::fs::read_to_string(path).ok()?;
        let id = text.trim();
        (id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit())).then(|| id.to_ascii_lowercase())
    })
}
