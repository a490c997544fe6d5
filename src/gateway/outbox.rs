//! What waits to be written to one client: counted in bytes, bounded, with room to wait for.

use crate::wire::{Close, MAX_BUFFERED, close};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use tokio::sync::{Notify, mpsc};

/// Below this many waiting bytes a command's output is queued without waiting.
const COMFORTABLE: usize = 256 << 10;

/// Something to write.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outgoing {
    Text(String),
    /// The last thing written.
    Close(Close),
}

struct Shared {
    queue: mpsc::UnboundedSender<Outgoing>,
    waiting: AtomicUsize,
    closed: AtomicBool,
    /// How it ends with the next answer, if it does.
    last: OnceLock<Close>,
    room: Notify,
}

/// The end that the corridor writes to. Cheap to clone.
#[derive(Clone)]
pub(super) struct Outbox(Arc<Shared>);

/// The end that the door reads from.
pub(crate) struct Outlet {
    queue: mpsc::UnboundedReceiver<Outgoing>,
    shared: Arc<Shared>,
}

/// An empty outbox and its outlet.
pub(super) fn outbox() -> (Outbox, Outlet) {
    let (sender, queue) = mpsc::unbounded_channel();
    let shared = Arc::new(Shared {
        queue: sender,
        waiting: AtomicUsize::new(0),
        closed: AtomicBool::new(false),
        last: OnceLock::new(),
        room: Notify::new(),
    });
    (Outbox(Arc::clone(&shared)), Outlet { queue, shared })
}

impl Outbox {
    /// Queues a text. A client that lets too much wait is closed as a slow consumer.
    pub(super) fn send(&self, text: String) {
        if self.0.closed.load(Ordering::Acquire) {
            return;
        }
        let waiting = self.0.waiting.fetch_add(text.len(), Ordering::AcqRel) + text.len();
        if waiting > MAX_BUFFERED {
            self.close(Close::new(close::POLICY, "slow consumer"));
        } else {
            let _ = self.0.queue.send(Outgoing::Text(text));
        }
    }

    /// Queues a text unless much is waiting already; says whether it did.
    pub(super) fn send_droppable(&self, text: String) -> bool {
        let fits = self.0.waiting.load(Ordering::Acquire) < COMFORTABLE;
        if fits {
            self.send(text);
        }
        fits
    }

    /// Waits until little is waiting, or nobody will ever write it.
    pub(super) async fn room(&self) {
        loop {
            let notified = self.0.room.notified();
            let little = self.0.waiting.load(Ordering::Acquire) < COMFORTABLE;
            if little || self.0.closed.load(Ordering::Acquire) {
                return;
            }
            notified.await;
        }
    }

    /// Whether nothing will be written any more.
    pub(super) fn is_closed(&self) -> bool {
        self.0.closed.load(Ordering::Acquire)
    }

    /// The answer that is being made is the last one: `answer` closes behind it.
    pub(super) fn end_with_answer(&self, close: Close) {
        let _ = self.0.last.set(close);
    }

    /// Queues the answer to a request.
    pub(super) fn answer(&self, text: String) {
        self.send(text);
        if let Some(last) = self.0.last.get() {
            self.close(last.clone());
        }
    }

    /// Queues the end of the connection; nothing is queued after it.
    pub(super) fn close(&self, close: Close) {
        if !self.0.closed.swap(true, Ordering::AcqRel) {
            let _ = self.0.queue.send(Outgoing::Close(close));
            self.0.room.notify_waiters();
        }
    }
}

impl Outlet {
    /// The next thing to write.
    pub(crate) async fn next(&mut self) -> Option<Outgoing> {
        self.queue.recv().await
    }

    /// The next thing to write, if it is there already.
    pub(crate) fn try_next(&mut self) -> Option<Outgoing> {
        self.queue.try_recv().ok()
    }

    /// Says that so many bytes of text were written.
    pub(crate) fn written(&self, bytes: usize) {
        self.shared.waiting.fetch_sub(bytes, Ordering::AcqRel);
        self.shared.room.notify_waiters();
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::Release);
        self.shared.room.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_lets_too_much_wait_is_closed_and_no_more_is_queued() {
        let (outbox, mut outlet) = outbox();
        let megabyte = "x".repeat(1 << 20);
        for _ in 0..60 {
            outbox.send(megabyte.clone());
        }
        let queued: Vec<Outgoing> = std::iter::from_fn(|| outlet.try_next()).collect();
        assert_eq!(queued.len(), MAX_BUFFERED / (1 << 20) + 1);
        assert_eq!(queued.last(), Some(&Outgoing::Close(Close::new(1008, "slow consumer"))));
        assert!(!outbox.send_droppable("late".into()) || outlet.try_next().is_none());
    }
}
