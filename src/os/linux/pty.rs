//! A pair of pseudo-terminal ends out of this mount namespace's own devpts (pts(4)).

use crate::model::WindowSize;
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// The master and its terminal, of this size.
pub(crate) fn open(size: WindowSize) -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = openpt(flags)?;
    unlockpt(&master)?;
    // By the master, not by a name: the very terminal of this pair (kernel 4.13).
    let terminal = ioctl_tiocgptpeer(&master, flags)?;
    resize(&master, size)?;
    Ok((master, terminal))
}

/// Changes the size; the terminal's foreground processes get SIGWINCH.
pub(crate) fn resize(master: &impl AsFd, size: WindowSize) -> io::Result<()> {
    let size = Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    Ok(tcsetwinsize(master, size)?)
}

/// Makes the terminal at standard input the controlling one of this session.
pub(crate) fn control_standard_input() -> io::Result<()> {
    Ok(rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?)
}
