//! Capabilities: emptied for good, in every set, and the doors back in locked (capabilities(7)).

use caps::{CapSet, Capability};
use rustix::thread::CapabilitiesSecureBits as Bits;
use std::io;

/// Empties the bounding set and locks the secure bits. Needs CAP_SETPCAP, so it comes before the change of uid.
pub(crate) fn close_the_doors() -> io::Result<()> {
    narrow_bounds(&[])?;
    let locked = Bits::NO_ROOT
        | Bits::NO_ROOT_LOCKED
        | Bits::NO_SETUID_FIXUP
        | Bits::NO_SETUID_FIXUP_LOCKED
        | Bits::KEEP_CAPS_LOCKED
        | Bits::NO_CAP_AMBIENT_RAISE
        | Bits::NO_CAP_AMBIENT_RAISE_LOCKED;
    Ok(rustix::thread::set_capabilities_secure_bits(locked)?)
}

/// Empties the ambient, inheritable, permitted and effective sets.
pub(crate) fn drop_all() -> io::Result<()> {
    let fault = |e: caps::errors::CapsError| io::Error::other(e.to_string());
    rustix::thread::clear_ambient_capability_set()?;
    caps::clear(None, CapSet::Effective).map_err(fault)?;
    caps::clear(None, CapSet::Permitted).map_err(fault)?;
    caps::clear(None, CapSet::Inheritable).map_err(fault)
}

/// What a root launcher needs to build walls, and nothing else.
const LAUNCHER: &[Capability] = &[
    Capability::CAP_SYS_ADMIN,        // namespaces and mounts
    Capability::CAP_SETUID,           // the sandbox's own uid
    Capability::CAP_SETGID,           // and gid
    Capability::CAP_SETPCAP,          // emptying the bounding set
    Capability::CAP_CHOWN,            // scratch folders of that uid
    Capability::CAP_DAC_OVERRIDE,     // workspaces of any owner
    Capability::CAP_FOWNER,           // modes of scratch folders
    Capability::CAP_NET_ADMIN,        // loopback up in the sandbox's own network namespace
    Capability::CAP_NET_BIND_SERVICE, // doors on ports below 1024 there
    Capability::CAP_KILL,             // ending what runs under the sandbox's uid
    Capability::CAP_SYS_RESOURCE,     // lowering oom scores and raising what was lowered for us
];

/// Takes from the bounding set what a launcher never needs: its children have less to drop at every start.
pub(crate) fn shed_unneeded() -> io::Result<()> {
    narrow_bounds(LAUNCHER)
}

/// What a gateway of root's needs, and nothing else.
const GATEWAY: &[Capability] = &[
    Capability::CAP_NET_BIND_SERVICE, // a port below 1024
    Capability::CAP_DAC_READ_SEARCH,  // certificates and keys of another owner
    Capability::CAP_IPC_LOCK,         // keys in memory that is not swapped, beyond the limit
];

/// Gives up for good all but what a gateway needs. Of an ordinary user's process nothing is left to give up.
pub(crate) fn keep_what_serves() -> io::Result<()> {
    let fault = |e: caps::errors::CapsError| io::Error::other(e.to_string());
    if are_none_held()? {
        return Ok(());
    }
    // In a container root may lack it; what is executed could get no more anyway, and nothing is.
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP).map_err(fault)? {
        narrow_bounds(GATEWAY)?;
    }
    rustix::thread::clear_ambient_capability_set()?;
    let held = caps::read(None, CapSet::Permitted).map_err(fault)?;
    let kept = held.into_iter().filter(|held| GATEWAY.contains(held)).collect();
    // In this order: what is effective must be permitted.
    caps::set(None, CapSet::Inheritable, &Default::default()).map_err(fault)?;
    caps::set(None, CapSet::Effective, &kept).map_err(fault)?;
    caps::set(None, CapSet::Permitted, &kept).map_err(fault)
}

/// Removes everything from the bounding set but these.
fn narrow_bounds(kept: &[Capability]) -> io::Result<()> {
    for capability in caps::all() {
        // Asking is a fraction of the cost of dropping, which copies the credentials each time. A capability that
        // the kernel does not know is not in the set.
        let present = caps::has_cap(None, CapSet::Bounding, capability).unwrap_or(false);
        if present && !kept.contains(&capability) {
            caps::drop(None, CapSet::Bounding, capability).map_err(|e| io::Error::other(e.to_string()))?;
        }
    }
    Ok(())
}

/// Whether this process has no capability and, without a change of privileges, can have none: all sets but the bounding
/// one are empty, which an ordinary user cannot empty.
pub(crate) fn are_none_held() -> io::Result<bool> {
    let fault = |e: caps::errors::CapsError| io::Error::other(e.to_string());
    for set in [CapSet::Effective, CapSet::Permitted, CapSet::Inheritable, CapSet::Ambient] {
        if !caps::read(None, set).map_err(fault)?.is_empty() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether all five sets of this process are empty, by the kernel's word.
pub(crate) fn are_all_empty() -> io::Result<bool> {
    let fault = |e: caps::errors::CapsError| io::Error::other(e.to_string());
    for set in [CapSet::Effective, CapSet::Permitted, CapSet::Inheritable] {
        if !caps::read(None, set).map_err(fault)?.is_empty() {
            return Ok(false);
        }
    }
    // The ambient set has nothing that the permitted one lacks (capabilities(7)). The bounding set is asked one by one
    // (prctl(2)); a capability that the kernel does not know is not in it.
    Ok(!caps::all().into_iter().any(|c| caps::has_cap(None, CapSet::Bounding, c).unwrap_or(false)))
}
