//! A process that does nothing but start runners when the gateway asks: so the gateway itself can give up starting
//! anything, and still get another runner when one is lost.
//!
//! It is forked off before there is a secret, a thread or a wall. What it starts was said then: the gateway names a
//! number, and is handed the socket to that runner. It ends with the gateway, and what it has started with it.

use super::client;
use crate::os::child::{self, Fork};
use crate::os::handover;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Child;
use std::sync::{Arc, Mutex, PoisonError};

/// A program and its arguments.
pub(crate) type Program = (PathBuf, Vec<String>);

/// The way to ask for one of its runners.
#[derive(Debug, Clone)]
pub(crate) struct Spawner {
    control: Arc<Mutex<UnixStream>>,
    which: u8,
}

impl Spawner {
    /// Forks it off; each of what is returned asks for the program of its place.
    ///
    /// # Errors
    /// Also where this process has threads already.
    pub(crate) fn begin(programs: Vec<Program>) -> io::Result<Vec<Spawner>> {
        let (ours, theirs) = UnixStream::pair()?;
        match child::fork()? {
            Fork::Child => {
                drop(ours);
                child::exit_now(i32::from(live(theirs, &programs).is_err()))
            }
            Fork::Parent { .. } => {
                drop(theirs);
                let control = Arc::new(Mutex::new(ours));
                let count = programs.len() as u8;
                Ok((0..count).map(|which| Spawner { control: Arc::clone(&control), which }).collect())
            }
        }
    }

    /// Has the runner started anew; one that was there before is ended.
    pub(super) fn ask(&self) -> io::Result<UnixStream> {
        let mut control = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        control.write_all(&[self.which])?;
        let mut errno = [0; 4];
        let gone = || io::Error::other("the process that starts runners is gone; restart the gateway");
        let descriptors = handover::receive(&*control, &mut errno)?.ok_or_else(gone)?;
        match (i32::from_le_bytes(errno), descriptors.into_iter().next()) {
            (0, Some(socket)) => Ok(socket.into()),
            (errno, _) => Err(io::Error::from_raw_os_error(errno)),
        }
    }
}

/// Its whole life. Nothing is logged here: the descriptors of the log are the gateway's.
fn live(control: UnixStream, programs: &[Program]) -> io::Result<()> {
    // Doors that were opened for the gateway must not stay open here.
    const CONTROL: i32 = 3;
    if control.as_raw_fd() != CONTROL {
        child::place_fd(control.as_raw_fd(), CONTROL)?;
    }
    std::mem::forget(control);
    let control = child::adopt_fd(CONTROL);
    rustix::io::fcntl_setfd(&control, rustix::io::FdFlags::CLOEXEC)?;
    child::close_from(CONTROL + 1)?;
    // Ctrl-C reaches the whole terminal group; we end when the gateway does. The mask is not for those we start.
    nix::sys::signal::SigSet::all().thread_set_mask()?;
    child::be_called(c"runner-starter");
    let mut control = UnixStream::from(control);
    let mut children: Vec<Option<Child>> = programs.iter().map(|_| None).collect();
    loop {
        let mut which = [0];
        if control.read(&mut which)? == 0 {
            break;
        }
        let place = usize::from(which[0]);
        let Some((program, arguments)) = programs.get(place) else { break };
        end(&mut children[place]);
        let (errno, socket) = match client::start(program, arguments) {
            Ok((socket, child)) => {
                children[place] = Some(child);
                (0, Some(socket))
            }
            Err(error) => (error.raw_os_error().unwrap_or(nix::libc::EIO), None),
        };
        let beside: Vec<_> = socket.iter().map(AsFd::as_fd).collect();
        handover::send(&control, &errno.to_le_bytes(), &beside)?;
    }
    children.iter_mut().for_each(end);
    Ok(())
}

fn end(child: &mut Option<Child>) {
    if let Some(mut child) = child.take() {
        let _ = child.kill();
        let _ = child.wait();
    }
}
