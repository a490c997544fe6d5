//! The ends of a command's streams that are ours: pipes, or the master of its terminal.

use crate::os;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;

/// Where output comes from.
pub(super) enum Source {
    Pipe(pipe::Receiver),
    Terminal(Rc<AsyncFd<OwnedFd>>),
}

/// Where input goes.
pub(super) enum Sink {
    Pipe(pipe::Sender),
    Terminal(Rc<AsyncFd<OwnedFd>>),
}

/// Both ends of a terminal, out of its master.
pub(super) fn terminal(master: OwnedFd) -> io::Result<(Source, Sink, Rc<AsyncFd<OwnedFd>>)> {
    rustix::io::ioctl_fionbio(&master, true)?;
    let master = Rc::new(os::process::watched(master)?);
    Ok((Source::Terminal(Rc::clone(&master)), Sink::Terminal(Rc::clone(&master)), master))
}

impl Source {
    /// Reads what is there; 0 is the end, and so is an error: EIO says that nobody holds the terminal any more.
    pub(super) async fn read(&mut self, buffer: &mut [u8]) -> usize {
        match self {
            Source::Pipe(pipe) => pipe.read(buffer).await.unwrap_or(0),
            Source::Terminal(master) => loop {
                let Ok(mut ready) = master.readable().await else { return 0 };
                if let Ok(read) = ready.try_io(|fd| Ok(rustix::io::read(fd.as_fd(), &mut *buffer)?)) {
                    return read.unwrap_or(0);
                }
            },
        }
    }
}

impl Sink {
    /// Writes what fits; `None` where nobody reads it any more.
    pub(super) async fn write(&mut self, bytes: &[u8]) -> Option<usize> {
        match self {
            Sink::Pipe(pipe) => pipe.write(bytes).await.ok(),
            Sink::Terminal(master) => loop {
                let mut ready = master.writable().await.ok()?;
                if let Ok(written) = ready.try_io(|fd| Ok(rustix::io::write(fd.as_fd(), bytes)?)) {
                    return written.ok();
                }
            },
        }
    }
}
