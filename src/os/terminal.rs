//! The terminal: a line typed without being shown, and every key passed on.

use crate::model::WindowSize;
use rustix::termios::{
    LocalModes, OptionalActions, Termios, Winsize, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize,
};
use std::io::{self, BufRead};
use std::os::fd::AsFd;

/// The terminal at standard input, passing on every key as it is; as it was before when dropped.
pub(crate) struct Raw(Termios);

impl Raw {
    /// Makes it so.
    ///
    /// # Errors
    /// ENOTTY where standard input is no terminal.
    pub(crate) fn enter() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        Ok(Raw(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), OptionalActions::Drain, &self.0);
    }
}

/// The size of the terminal at standard input.
pub(crate) fn size() -> io::Result<WindowSize> {
    let size = tcgetwinsize(io::stdin())?;
    // Some terminals do not know theirs.
    Ok(WindowSize { rows: size.ws_row.clamp(1, 4096), columns: size.ws_col.clamp(1, 4096) })
}

/// Changes the size of the terminal behind a master; its foreground processes get SIGWINCH.
pub(crate) fn resize(master: &impl AsFd, size: WindowSize) -> io::Result<()> {
    let size = Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    Ok(tcsetwinsize(master, size)?)
}

/// Reads one line of standard input, a terminal, without showing it.
pub(crate) fn read_hidden_line() -> io::Result<String> {
    let stdin = io::stdin();
    let before = tcgetattr(&stdin)?;
    let mut hidden = before.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    tcsetattr(&stdin, OptionalActions::Flush, &hidden)?;
    let mut line = String::new();
    let read = stdin.lock().read_line(&mut line);
    tcsetattr(&stdin, OptionalActions::Flush, &before)?;
    read?;
    Ok(line.trim_end_matches(['\n', '\r']).to_owned())
}
