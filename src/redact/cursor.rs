//! A place in the automaton, and where in the stream the bytes stand that led to it.
//!
//! Each reading of a stream has a cursor and feeds it bytes, each with the raw range that it was decoded from. A
//! cursor knows nothing of encodings.

use super::automaton::{Automaton, ROOT, State};
use std::collections::VecDeque;
use std::ops::Range;

/// How far a secret's encoding may be drawn out: raw bytes for each byte of it, and `SLACK` more in all. Whatever
/// is drawn out further is not followed, so that what is held back has a bound.
const SPREAD: usize = 16;
const SLACK: usize = 256;

/// Raw bytes that show one or several secrets which overlap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) start: u64,
    pub(super) end: u64,
    /// The one that begins first, of those the longest, and where it ends.
    pub(super) secret: u32,
    pub(super) named: u64,
}

/// The automaton, and what was found with it.
pub(super) struct Search<'s> {
    pub(super) automaton: &'s Automaton,
    pub(super) found: &'s mut Vec<Found>,
}

impl Search<'_> {
    /// Adds what was found; a run of a thousand overlapping occurrences is one.
    pub(super) fn add(&mut self, secret: u32, range: Range<u64>) {
        let Range { start, end } = range;
        match self.found.last_mut() {
            Some(last) if last.start <= start && start < last.end => {
                if last.start == start && last.named < end {
                    (last.secret, last.named) = (secret, end);
                }
                last.end = last.end.max(end);
            }
            _ => self.found.push(Found { start, end, secret, named: end }),
        }
    }
}

/// Follows one reading of a stream. Most bytes of most streams begin no secret, and neither do most pairs of them,
/// so a cursor leaves the root only at the second byte and remembers the first.
pub(super) struct Cursor {
    /// The root, or a state of two bytes and more.
    state: State,
    last: Option<u8>,
    last_at: u64,
    /// Of the bytes of `state`.
    starts: Starts,
}

impl Default for Cursor {
    fn default() -> Self {
        Cursor { state: ROOT, last: None, last_at: 0, starts: Starts::default() }
    }
}

impl Cursor {
    /// Takes a byte that was decoded from this raw range.
    #[inline]
    pub(super) fn step(&mut self, search: &mut Search<'_>, byte: u8, raw: Range<u64>) {
        if self.state == ROOT && !self.last.is_some_and(|last| search.automaton.opens(last, byte)) {
            self.last = Some(byte);
            self.last_at = raw.start;
        } else {
            self.step_inside(search, byte, raw);
        }
    }

    #[cold]
    #[inline(never)]
    fn step_inside(&mut self, search: &mut Search<'_>, byte: u8, raw: Range<u64>) {
        let automaton = search.automaton;
        if let (ROOT, Some(last)) = (self.state, self.last) {
            self.starts.push(self.last_at);
            self.state = automaton.next(ROOT, last);
        }
        self.starts.push(raw.start);
        self.state = automaton.next(self.state, byte);
        self.starts.keep(automaton.depth(self.state));
        if let Some((secret, length)) = automaton.found(self.state) {
            search.add(secret, self.starts.start_of_last(length)..raw.end);
        }
        (self.last, self.last_at) = (Some(byte), raw.start);
        self.state = automaton.hopeful(self.state);
        let mut depth = automaton.depth(self.state);
        while depth >= 2 && (raw.end - self.starts.start_of_last(depth)) as usize > SPREAD * depth + SLACK {
            self.state = automaton.hopeful(automaton.shorter(self.state));
            depth = automaton.depth(self.state);
        }
        if depth < 2 {
            (self.state, depth) = (ROOT, 0);
        }
        self.starts.keep(depth);
    }

    /// Takes a byte that begins there as the first.
    pub(super) fn begin(&mut self, byte: u8, at: u64) {
        self.reset();
        (self.last, self.last_at) = (Some(byte), at);
    }

    /// Starts anew: what comes does not continue what was.
    #[inline]
    pub(super) fn reset(&mut self) {
        self.last = None;
        if self.state != ROOT {
            self.state = ROOT;
            self.starts.keep(0);
        }
    }

    /// Goes where another cursor is.
    pub(super) fn follow(&mut self, other: &Cursor) {
        (self.state, self.last, self.last_at) = (other.state, other.last, other.last_at);
        self.starts.follow(&other.starts);
    }

    /// Whether this one and another, which reads the stream as it is, go on alike.
    pub(super) fn is_with(&self, plain: &Cursor) -> bool {
        (self.state, self.last, self.last_at) == (plain.state, plain.last, plain.last_at)
            && self.start() == plain.start()
    }

    /// Where the secret would have begun that these bytes may become, if they are two or more.
    pub(super) fn start(&self) -> Option<u64> {
        (self.state != ROOT).then(|| self.starts.start_of_last(self.starts.count()))
    }

    /// The same for one byte and more: where the stream is read as it is, no byte may slip.
    pub(super) fn first_start(&self, automaton: &Automaton) -> Option<u64> {
        let begins = self.last.is_some_and(|last| automaton.begins(last));
        self.start().or_else(|| begins.then_some(self.last_at))
    }
}

/// Where in the stream each of a row of decoded bytes begins. Bytes that stand side by side are one entry.
#[derive(Clone, Default)]
struct Starts {
    runs: VecDeque<Run>,
    /// The numbers of the bytes that are kept.
    kept: Range<u64>,
}

#[derive(Clone, Copy)]
struct Run {
    /// The number of its first byte, and where that stands.
    number: u64,
    at: u64,
}

impl Run {
    fn at(self, number: u64) -> u64 {
        self.at + (number - self.number)
    }
}

impl Starts {
    fn count(&self) -> usize {
        (self.kept.end - self.kept.start) as usize
    }

    fn push(&mut self, at: u64) {
        let number = self.kept.end;
        if self.runs.back().is_none_or(|run| run.at(number) != at) {
            self.runs.push_back(Run { number, at });
        }
        self.kept.end += 1;
    }

    /// Keeps the last so many.
    fn keep(&mut self, count: usize) {
        self.kept.start = self.kept.end - count as u64;
        if count == 0 {
            self.runs.clear();
        }
        while self.runs.get(1).is_some_and(|run| run.number <= self.kept.start) {
            self.runs.pop_front();
        }
    }

    /// Where the last so many begin.
    fn start_of_last(&self, count: usize) -> u64 {
        let number = self.kept.end - count as u64;
        let run = self.runs.partition_point(|run| run.number <= number) - 1;
        self.runs[run].at(number)
    }

    fn follow(&mut self, other: &Starts) {
        self.runs.clear();
        self.runs.extend(&other.runs);
        self.kept = other.kept.clone();
    }
}
