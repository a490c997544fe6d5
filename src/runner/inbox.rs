//! Where the runner reads: orders, and the descriptors that came beside the first bytes of one.
//!
//! A plain read(2) throws descriptors away, so every read is a recvmsg(2). Nothing is read ahead: a frame is read to its
//! last byte and no further, so that what came with these bytes is this frame's and no other's.

use super::framing;
use super::order::Order;
use crate::model::MOST_SECRETS_A_RUN;
use crate::os::Sealed;
use crate::os::handover;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, Interest, ReadBuf};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, pipe};

/// What orders come by.
pub(super) enum Way {
    /// The reading half of a gateway's connection.
    Socket(OwnedReadHalf),
    /// Standard input inside a container, by which no descriptor can come: secrets are frames of their own there.
    Pipe(pipe::Receiver),
}

/// Where the runner reads.
pub(super) struct Inbox {
    from: Way,
    /// Came with the frame that is being read; at most as many as one may have.
    beside: Vec<OwnedFd>,
}

impl Inbox {
    pub(super) fn new(from: Way) -> Self {
        Inbox { from, beside: Vec::new() }
    }

    /// The next order and the descriptors beside it, at most as many as it names; `None` at the end of the stream.
    ///
    /// # Errors
    /// InvalidData where it is no order, or more came beside it.
    pub(super) async fn next(&mut self) -> io::Result<Option<(u64, Order, Vec<OwnedFd>)>> {
        let (number, order) = loop {
            match framing::read::<Order>(self).await? {
                Some((_, Order::Secret(value))) => self.keep(&value)?,
                Some(read) => break read,
                None => return Ok(None),
            }
        };
        let beside = std::mem::take(&mut self.beside);
        let named = match &order {
            Order::Start(start) => start.secrets(),
            _ => 0,
        };
        if beside.len() > named { Err(too_many()) } else { Ok(Some((number, order, beside))) }
    }

    /// Puts a secret that came as a frame where the others come from.
    fn keep(&mut self, value: &[u8]) -> io::Result<()> {
        if matches!(self.from, Way::Socket(_)) || self.beside.len() == MOST_SECRETS_A_RUN {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a secret that is not where secrets come"));
        }
        self.beside.push(Sealed::new(value)?.into());
        Ok(())
    }
}

impl AsyncRead for Inbox {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let inbox = self.get_mut();
        let half = match &mut inbox.from {
            Way::Socket(half) => half,
            Way::Pipe(pipe) => return Pin::new(pipe).poll_read(context, buffer),
        };
        let socket: &UnixStream = (*half).as_ref();
        loop {
            ready!(socket.poll_read_ready(context))?;
            let bytes = buffer.initialize_unfilled();
            let (read, came) = match socket.try_io(Interest::READABLE, || handover::receive_some(socket, bytes)) {
                // Its readiness was of yesterday; the next look at it waits for a new one.
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => continue,
                received => received?,
            };
            inbox.beside.extend(came);
            if inbox.beside.len() > MOST_SECRETS_A_RUN {
                return Poll::Ready(Err(too_many()));
            }
            buffer.advance(read);
            return Poll::Ready(Ok(()));
        }
    }
}

fn too_many() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "more descriptors than the frame names")
}

#[cfg(test)]
mod tests {
    use super::super::order::Start;
    use super::*;
    use crate::model::{Delivery, SandboxProfile, SecretName, SecretUse, Stdin};
    use crate::sandbox::Command;
    use tokio::io::AsyncWriteExt;

    fn start(secrets: usize) -> Order {
        let wanted = |n| SecretUse { name: SecretName::parse(&format!("S{n}")).unwrap(), delivery: Delivery::File };
        let secrets = (0..secrets).map(wanted).collect();
        let command = Command {
            argv: vec!["x".into()],
            cwd: "".into(),
            env: Default::default(),
            secrets,
            terminal: None,
            file: None,
        };
        Order::Start(Box::new(Start::new(&command, Stdin::Closed, &SandboxProfile::default())))
    }

    fn values(texts: &[&str]) -> Vec<Sealed> {
        texts.iter().map(|text| Sealed::new(text.as_bytes()).unwrap()).collect()
    }

    /// Sends these frames at once and reads them one by one; gives for each the lengths of what came beside it.
    fn pass(frames: Vec<(Order, Vec<Sealed>)>) -> io::Result<Vec<(Order, Vec<usize>)>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (ours, theirs) = UnixStream::pair().unwrap();
            let (_keep, mut to) = ours.into_split();
            let mut inbox = Inbox::new(Way::Socket(theirs.into_split().0));
            let sender = async move {
                for (order, beside) in frames {
                    framing::write_beside(&mut to, 7, &order, &beside).await.unwrap();
                }
                to.shutdown().await.unwrap();
            };
            let receiver = async {
                let mut read = Vec::new();
                while let Some((_, order, beside)) = inbox.next().await? {
                    let lengths = beside.into_iter().map(|fd| Sealed::check(fd, 100).unwrap().length());
                    read.push((order, lengths.collect()));
                }
                Ok(read)
            };
            tokio::join!(sender, receiver).1
        })
    }

    #[test]
    fn descriptors_come_with_the_frame_they_were_sent_with_and_in_order() {
        // Larger than the socket takes at once, between and before those that have some.
        let long = || (Order::Input(vec![1; 600 << 10]), Vec::new());
        let frames = || {
            vec![
                (start(0), Vec::new()),
                long(),
                (start(3), values(&["a", "bb", "ccc"])),
                (start(1), values(&["dddd"])),
                (Order::Cancel, Vec::new()),
                (Order::Cancel, Vec::new()),
                (start(1), values(&["eeeee"])),
                long(),
            ]
        };
        let expected: Vec<(Order, Vec<usize>)> =
            frames().into_iter().map(|(order, beside)| (order, beside.iter().map(Sealed::length).collect())).collect();
        assert_eq!(pass(frames()).unwrap(), expected);
    }

    #[test]
    fn more_descriptors_than_a_frame_names_are_no_order_and_fewer_are_seen() {
        let invalid = |frames| pass(frames).unwrap_err().kind() == io::ErrorKind::InvalidData;
        assert!(invalid(vec![(start(1), values(&["a", "b"]))]));
        assert!(invalid(vec![(start(0), values(&["a"]))]));
        assert!(invalid(vec![(Order::Cancel, values(&["a"])), (start(1), Vec::new())]));
        assert!(invalid(vec![(start(2), values(&["a"; MOST_SECRETS_A_RUN + 1]))]));
        assert_eq!(pass(vec![(start(2), values(&["a"]))]).unwrap()[0].1, [1]);
    }
}
