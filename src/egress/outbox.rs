//! Reports that wait for the runner to read them: bounded, so that a slow reader stops nothing. What finds no room is
//! counted, and the count is said as soon as there is room.

use super::order::Report;
use std::cell::{Cell, RefCell};
use std::io::{self, Write};
use tokio::net::unix::WriteHalf;
use tokio::sync::Notify;

/// Bytes that wait, about two hundred reports.
const MOST_WAITING: usize = 32 << 10;

/// The line of a count fits into this.
const ROOM_FOR_COUNT: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Outbox {
    waiting: RefCell<Vec<u8>>,
    dropped: Cell<u64>,
    filled: Notify,
}

impl Outbox {
    /// Puts a report in line, or counts it.
    pub(super) fn say(&self, report: Report) {
        let line = report.encode();
        self.own_up();
        let mut waiting = self.waiting.borrow_mut();
        if self.dropped.get() > 0 || waiting.len() + line.len() > MOST_WAITING - ROOM_FOR_COUNT {
            self.drop_one();
            return;
        }
        waiting.extend(line);
        self.filled.notify_one();
    }

    /// Counts a report that is not even made.
    pub(super) fn drop_one(&self) {
        self.dropped.set(self.dropped.get().saturating_add(1));
    }

    /// Writes what waits, for ever; ends when nobody can read any more.
    pub(super) async fn write_all(&self, socket: &WriteHalf<'_>) -> io::Result<()> {
        loop {
            let filled = self.filled.notified();
            while self.has_waiting() {
                socket.writable().await?;
                let written = socket.try_write(&self.waiting.borrow());
                match written {
                    Ok(length) => self.written(length),
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                    Err(e) => return Err(e),
                }
            }
            filled.await;
        }
    }

    /// Writes what the other side takes without being waited for; the rest is lost with us.
    pub(super) fn write_last(&self, mut socket: impl Write) {
        while self.has_waiting() {
            let written = socket.write(&self.waiting.borrow());
            match written {
                Ok(length) if length > 0 => self.written(length),
                _ => return,
            }
        }
    }

    fn has_waiting(&self) -> bool {
        self.own_up();
        !self.waiting.borrow().is_empty()
    }

    fn written(&self, length: usize) {
        self.waiting.borrow_mut().drain(..length);
    }

    /// Says how many were dropped, where there is room again for a while.
    fn own_up(&self) {
        let mut waiting = self.waiting.borrow_mut();
        if self.dropped.get() > 0 && waiting.len() <= MOST_WAITING / 2 {
            waiting.extend(Report::Dropped { count: self.dropped.take() }.encode());
            self.filled.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::order::Reports;
    use super::*;

    fn report(n: u64) -> Report {
        Report::RefusedName { name: format!("{n}.example"), why: "a reason".to_owned() }
    }

    #[test]
    fn what_finds_no_room_is_counted_and_said_later() {
        let outbox = Outbox::default();
        for n in 0..2000 {
            outbox.say(report(n));
        }
        assert!(outbox.waiting.borrow().len() <= MOST_WAITING);
        let mut read = Vec::new();
        outbox.write_last(&mut read);

        let said = Reports::default().take(&read).unwrap();
        let kept = said.len() as u64 - 1;
        assert_eq!(said[..3], [report(0), report(1), report(2)]);
        assert_eq!(said.last(), Some(&Report::Dropped { count: 2000 - kept }));
        outbox.say(report(7));
        assert_eq!(outbox.waiting.borrow().as_slice(), report(7).encode());
    }

    #[test]
    fn the_last_words_wait_for_nobody() {
        let outbox = Outbox::default();
        for n in 0..300 {
            outbox.say(report(n));
        }
        let (ours, _theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        for _ in 0..1000 {
            outbox.say(report(1));
            outbox.write_last(&ours);
        }
        drop(_theirs);
        outbox.write_last(&ours);
    }
}
