//! Capabilities: emptied for good, in every set, and the doors back in locked (capabilities(7)).

use caps::CapSet;
use rustix::thread::CapabilitiesSecureBits as Bits;
use std::io;

/// Empties the bounding set and locks the secure bits. Needs CAP_SETPCAP, so it comes before the change of uid.
pub(crate) fn close_the_doors() -> io::Result<()> {
    for capability in caps::all() {
        // A capability the kernel does not know is not in the set: EINVAL is as good as dropped.
        match caps::drop(None, CapSet::Bounding, capability) {
            Ok(()) => {}
            Err(_) if !caps::has_cap(None, CapSet::Bounding, capability).unwrap_or(false) => {}
            Err(e) => return Err(io::Error::other(e.to_string())),
        }
    }
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
