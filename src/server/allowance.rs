//! A stream that delivers only so many bytes until it is set free.
//!
//! The WebSocket library takes its size limit once, at the start; before authentication the limit is
//! this one, on everything the peer sends, frames and fragments alike.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that may still be read; `FREE` is no limit.
#[derive(Clone)]
pub(super) struct Allowance(Arc<AtomicUsize>);

const FREE: usize = usize::MAX;

impl Allowance {
    pub(super) fn of(bytes: usize) -> Self {
        Allowance(Arc::new(AtomicUsize::new(bytes)))
    }

    /// Lifts the limit for good.
    pub(super) fn lift(&self) {
        self.0.store(FREE, Ordering::Release);
    }

    /// Whether the peer has used it up.
    pub(super) fn is_spent(&self) -> bool {
        self.0.load(Ordering::Acquire) == 0
    }
}

/// The stream under an allowance.
pub(super) struct Limited<S> {
    stream: S,
    allowance: Allowance,
}

impl<S> Limited<S> {
    pub(super) fn new(stream: S, allowance: Allowance) -> Self {
        Limited { stream, allowance }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Limited<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let left = self.allowance.0.load(Ordering::Acquire);
        if left == FREE {
            return Pin::new(&mut self.stream).poll_read(cx, buffer);
        }
        if left == 0 {
            return Poll::Ready(Err(io::Error::other("more bytes than allowed before authentication")));
        }
        // Bounded reads happen once a connection, so the copy is cheaper than it is to reason about shared buffers.
        let mut bytes = [0; 4096];
        let most = left.min(bytes.len()).min(buffer.remaining());
        let mut part = ReadBuf::new(&mut bytes[..most]);
        let polled = Pin::new(&mut self.stream).poll_read(cx, &mut part);
        let read = part.filled();
        buffer.put_slice(read);
        self.allowance.0.store(left - read.len(), Ordering::Release);
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Limited<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    #[test]
    fn no_byte_more_than_allowed_is_delivered_until_it_is_lifted() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let allowance = Allowance::of(5);
        let mut stream = Limited::new(&b"hello world"[..], allowance.clone());
        let mut bytes = [0; 11];
        assert_eq!(runtime.block_on(stream.read(&mut bytes)).unwrap(), 5);
        assert!(allowance.is_spent());
        assert!(runtime.block_on(stream.read(&mut bytes)).is_err());
        allowance.lift();
        assert_eq!(runtime.block_on(stream.read(&mut bytes)).unwrap(), 6);
    }
}
