//! How much an engine may say, and how long it may take for it: every connection to one has an allowance.
//!
//! An engine may be on another machine, broken, or not what it says it is. What it sends is held in memory and waited for
//! by others, so both have an end here, below whatever reads it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// Bytes of an answer that is held in memory: what an engine tells of one container is a hundredth of it, and what is read
/// out of it takes many times as much.
const ANSWER: u64 = 1 << 20;

/// Bytes of a file or folder out of a container, of which `loaders` takes less.
const FILE: u64 = 17 << 20;

/// Bytes of a whole image, which are looked through as they come.
const IMAGE: u64 = 64 << 30;

/// How long engines are waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Patience {
    /// Until it is reached.
    pub(super) connection: Duration,
    /// From a request to the end of its answer.
    pub(super) call: Duration,
    /// The same for images: one is built, or packed.
    pub(super) image: Duration,
    /// Everything that there is to do for an image before a container is made of it.
    pub(super) preparation: Duration,
}

impl Patience {
    pub(super) const USUAL: Patience = Patience {
        connection: Duration::from_secs(20),
        call: Duration::from_secs(120),
        image: Duration::from_secs(1800),
        preparation: Duration::from_secs(600),
    };

    /// What a request by this path is given, which begins with the API's version.
    pub(super) fn allowance(&self, path: &str) -> Allowance {
        let path = path.split('?').next().unwrap_or(path);
        let mut parts = path.trim_start_matches('/').split('/').filter(|part| !part.starts_with("v1."));
        match (parts.next(), parts.nth(1), parts.next()) {
            (Some("build"), None, None) => Allowance { bytes: ANSWER, time: self.image },
            (Some("containers"), Some("export"), None) => Allowance { bytes: IMAGE, time: self.image },
            (Some("containers"), Some("archive"), None) => Allowance { bytes: FILE, time: self.call },
            _ => Allowance { bytes: ANSWER, time: self.call },
        }
    }
}

/// What one request may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Allowance {
    bytes: u64,
    time: Duration,
}

impl Allowance {
    /// The connection of this request.
    pub(super) fn meter<S>(self, stream: S) -> Metered<S> {
        Metered { stream, allowance: self, left: self.bytes, end: Box::pin(sleep(self.time)) }
    }
}

/// A connection with an allowance, which fails when that is spent.
pub(super) struct Metered<S> {
    stream: S,
    allowance: Allowance,
    left: u64,
    end: Pin<Box<Sleep>>,
}

impl<S> Metered<S> {
    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match self.end.as_mut().poll(context) {
            Poll::Ready(()) => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("it did not come to the end of its answer in {} seconds", self.allowance.time.as_secs()),
            )),
            Poll::Pending => Ok(()),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check(context)?;
        if self.left == 0 {
            let most = self.allowance.bytes >> 20;
            return Poll::Ready(Err(io::Error::other(format!("its answer is longer than {most} MiB"))));
        }
        let before = into.filled().len();
        std::task::ready!(Pin::new(&mut self.stream).poll_read(context, into))?;
        let read = into.filled().len() - before;
        self.left = self.left.saturating_sub(read as u64);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    #[test]
    fn each_request_is_given_what_its_answer_may_need() {
        let of = |path: &str| Patience::USUAL.allowance(path);
        let (call, image) = (Patience::USUAL.call, Patience::USUAL.image);
        for (path, bytes, time) in [
            ("/version", ANSWER, call),
            ("/v1.41/containers/json?all=true", ANSWER, call),
            ("/v1.41/containers/abc/json", ANSWER, call),
            ("/v1.41/containers/create?name=export", ANSWER, call),
            ("/v1.41/containers/abc/archive?path=/lib", FILE, call),
            ("/v1.41/containers/abc/export", IMAGE, image),
            ("/v1.41/build?t=x", ANSWER, image),
            ("/v1.41/images/build/json", ANSWER, call),
            ("/v1.41/images/a/containers/x/export", ANSWER, call),
        ] {
            assert_eq!(of(path), Allowance { bytes, time }, "{path}");
        }
    }

    #[tokio::test]
    async fn what_is_within_the_allowance_passes_and_the_next_byte_does_not() {
        let allowance = Allowance { bytes: 4, time: Duration::from_secs(3600) };
        let mut text = Vec::new();
        let cause = allowance.meter(tokio::io::repeat(b'x')).take(1 << 20).read_to_end(&mut text).await.unwrap_err();
        assert!(cause.to_string().contains("longer than"), "{cause}");
        assert!(allowance.meter(&b"four"[..]).read_exact(&mut [0; 4]).await.is_ok());
    }

    #[tokio::test]
    async fn a_connection_ends_with_its_time_though_nothing_comes() {
        let (mut ours, _theirs) = tokio::io::duplex(8);
        let spent = Allowance { bytes: 4, time: Duration::ZERO };
        let mut metered = spent.meter(&mut ours);
        let ended = tokio::time::timeout(Duration::from_secs(20), metered.read_u8()).await;
        let cause = ended.expect("it ends").unwrap_err();
        assert_eq!(cause.kind(), io::ErrorKind::TimedOut);
    }
}
