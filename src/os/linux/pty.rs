//! A pair of pseudo-terminal ends out of this mount namespace's own devpts (pts(4)).

use crate::model::WindowSize;
use crate::os::terminal;
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use std::io;
use std::os::fd::OwnedFd;

/// The master and its terminal, of this size.
pub(crate) fn open(size: WindowSize) -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = openpt(flags)?;
    unlockpt(&master)?;
    // By the master, not by a name: the very terminal of this pair (kernel 4.13).
    let terminal = ioctl_tiocgptpeer(&master, flags)?;
    terminal::resize(&master, size)?;
    Ok((master, terminal))
}

/// Makes the terminal at standard input the controlling one of this session.
pub(crate) fn control_standard_input() -> io::Result<()> {
    Ok(rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?)
}
