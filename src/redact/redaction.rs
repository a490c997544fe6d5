//! One stream on its way out: what is still held back, and what has gone.

use super::automaton::Automaton;
use super::cursor::{Found, Search};
use super::digits::{Base64, Digits, Hex};
use super::dump::Dump;
use super::literal::Literal;
use super::numbers::Numbers;
use std::cmp::Reverse;
use std::sync::Arc;
use zeroize::Zeroize;

/// The state of one stream. Positions count its bytes from its first.
#[derive(Default)]
pub(crate) struct Redaction {
    automaton: Option<Arc<Automaton>>,
    readers: Readers,
    /// What was found and has not gone out, and how much of it is in order.
    found: Vec<Found>,
    ordered: usize,
    held: Held,
    /// Where the next byte to go out stands: what is before went out or was covered.
    done: u64,
    /// Where the last covered bytes end.
    covered: u64,
    /// How many bytes there were.
    taken: u64,
}

/// All ways in which a stream is read at once.
#[derive(Default)]
struct Readers {
    literal: Literal,
    hex: Digits<Hex>,
    numbers: Numbers,
    dump: Dump,
    base64: Digits<Base64>,
}

impl Redaction {
    pub(super) fn new(automaton: Option<Arc<Automaton>>) -> Self {
        Redaction { automaton, ..Redaction::default() }
    }

    /// Takes the next bytes, and appends to `out` what may go out by now.
    pub(crate) fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let Some(automaton) = self.automaton.clone() else { return out.extend_from_slice(bytes) };
        let mut search = Search { automaton: &automaton, found: &mut self.found };
        self.readers.read(&mut search, bytes, self.taken);
        self.taken += bytes.len() as u64;
        let safe = self.readers.start(&automaton).unwrap_or(self.taken);
        self.release(&automaton, safe, bytes, out);
    }

    /// The stream ends: appends what was held back. What is pushed next is a new stream.
    pub(crate) fn finish(&mut self, out: &mut Vec<u8>) {
        self.close(out);
        *self = Redaction::new(self.automaton.take());
    }

    /// The end, with what happened still known.
    pub(super) fn close(&mut self, out: &mut Vec<u8>) {
        let Some(automaton) = self.automaton.clone() else { return };
        self.readers.end(&mut Search { automaton: &automaton, found: &mut self.found }, self.taken);
        self.release(&automaton, self.taken, &[], out);
    }

    /// Whether anything was covered.
    pub(super) fn has_covered(&self) -> bool {
        self.covered > 0
    }

    /// Lets everything before `safe` out, covered where it must be. `bytes` are the last that were taken, and not
    /// held yet.
    fn release(&mut self, automaton: &Automaton, safe: u64, bytes: &[u8], out: &mut Vec<u8>) {
        if self.ordered < self.found.len() {
            self.found.sort_by_key(|found| (found.start, Reverse(found.named)));
        }
        let ready = self.found.partition_point(|found| found.start < safe);
        let source = Source { held: self.held.bytes(), bytes, end: self.taken };
        for found in self.found.drain(..ready) {
            if found.end <= self.done {
                continue;
            }
            source.copy(self.done, found.start, out);
            self.done = self.done.max(found.start);
            // Overlaps what was covered, and nothing went out since: one marker stands for both.
            let is_same = found.start < self.covered && self.done == self.covered;
            if !is_same {
                out.extend_from_slice(automaton.marker(found.secret).as_bytes());
            }
            (self.done, self.covered) = (found.end, found.end);
        }
        self.ordered = self.found.len();
        source.copy(self.done, safe, out);
        self.done = self.done.max(safe);
        self.held.keep((self.taken - self.done) as usize, bytes);
    }
}

impl Readers {
    fn read(&mut self, search: &mut Search<'_>, bytes: &[u8], at: u64) {
        self.literal.read(search, bytes, at);
        self.hex.read(search, bytes, at);
        self.numbers.read(search, bytes, at);
        self.dump.read(search, bytes, at);
        self.base64.read(search, bytes, at);
    }

    fn end(&mut self, search: &mut Search<'_>, at: u64) {
        self.literal.end(search);
        self.numbers.end(search);
        self.dump.end(search, at);
    }

    /// From where on bytes may become a secret.
    fn start(&self, automaton: &Automaton) -> Option<u64> {
        let starts = [
            self.literal.start(automaton),
            self.hex.start(),
            self.numbers.start(),
            self.dump.start(),
            self.base64.start(),
        ];
        starts.into_iter().flatten().min()
    }
}

/// Bytes that were held, and those behind them; the last one ends at `end`.
struct Source<'b> {
    held: &'b [u8],
    bytes: &'b [u8],
    end: u64,
}

impl Source<'_> {
    fn copy(&self, from: u64, to: u64, out: &mut Vec<u8>) {
        if from < to {
            let (middle, total) = (self.held.len(), self.held.len() + self.bytes.len());
            let (from, to) = (total - (self.end - from) as usize, total - (self.end - to) as usize);
            out.extend_from_slice(&self.held[from.min(middle)..to.min(middle)]);
            out.extend_from_slice(&self.bytes[from.max(middle) - middle..to.max(middle) - middle]);
        }
    }
}

/// Bytes that wait, zeroed as soon as they do not.
#[derive(Default)]
struct Held {
    bytes: Vec<u8>,
    /// How many of them, at the front, wait no more.
    gone: usize,
}

impl Held {
    fn bytes(&self) -> &[u8] {
        &self.bytes[self.gone..]
    }

    /// Keeps the last so many of what waits and of `more` behind it.
    fn keep(&mut self, count: usize, more: &[u8]) {
        let old = count.saturating_sub(more.len());
        let gone = self.bytes.len() - old;
        self.bytes[self.gone..gone].zeroize();
        self.gone = gone;
        let more = &more[more.len().saturating_sub(count)..];
        if old == 0 {
            self.bytes.clear();
            self.gone = 0;
        }
        if self.bytes.len() + more.len() > self.bytes.capacity() {
            self.shift(old + more.len());
        }
        self.bytes.extend_from_slice(more);
    }

    /// Moves to a place with room for twice the bytes that there will be, and leaves nothing in the old one.
    fn shift(&mut self, count: usize) {
        let mut bytes = Vec::with_capacity(2 * count);
        bytes.extend_from_slice(self.bytes());
        self.bytes.zeroize();
        *self = Held { bytes, gone: 0 };
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.bytes.zeroize();
    }
}
