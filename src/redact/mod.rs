//! Finds known secrets in what goes out, and covers them. Pure: no I/O, no clock; it knows no run and no journal.
//!
//! One automaton holds the secrets' bytes. Several readers go over a stream at once, each with a place of its own
//! in the automaton: one reads the bytes as they are, others resolve escapes or decode hexadecimal or base64 from
//! every place where it may begin. Whatever raw bytes a secret was read from become its marker, `[secret NAME]`.
//! Occurrences that overlap become one, named after the secret that begins first, of those after the longest.
//!
//! Bytes are held back only while they may become a secret. Read as they are, no byte of one slips. Decoded, its
//! first byte may stand at the end of a chunk that has gone, and digits of the second: waiting for them would delay
//! every other prompt. Read from one chunk, nothing slips. What is held is at most 16 bytes for each byte of the
//! longest secret, and 512 more, whatever stands between the digits of an encoding.

mod automaton;
mod cursor;
mod digits;
mod dump;
mod literal;
mod numbers;
mod redaction;
#[cfg(test)]
mod tests;

pub(crate) use redaction::Redaction;

use crate::model::Secret;
use automaton::Automaton;
use std::fmt;
use std::sync::Arc;

/// Bytes between two digits of an encoding: separators and line ends, with an indentation perhaps.
const LONGEST_GAP: usize = 16;

/// The secrets of one moment, ready to be found.
#[derive(Clone, Default)]
pub(crate) struct Redactor(Option<Arc<Automaton>>);

impl Redactor {
    /// Looks for these secrets, each a name and a value. Line ends behind a value are not looked for, because
    /// `$(cat …)` takes them away.
    ///
    /// Values shorter than `SHORTEST_SECRET` are left out, and of one longer than `LONGEST_SECRET` only so much is
    /// looked for: the store has neither. Takes 12 bytes of memory for each byte of a value.
    pub(crate) fn new(secrets: impl IntoIterator<Item = (String, Secret<Vec<u8>>)>) -> Self {
        Redactor(Automaton::new(secrets).map(Arc::new))
    }

    /// Looks for nothing; a stream goes through as it is.
    #[cfg(test)]
    pub(crate) fn none() -> Self {
        Self::default()
    }

    /// The state for one stream.
    pub(crate) fn stream(&self) -> Redaction {
        Redaction::new(self.0.clone())
    }

    /// The text with its secrets covered, or `None` where it has none.
    pub(crate) fn text(&self, text: &str) -> Option<String> {
        let (mut stream, mut out) = (self.stream(), Vec::with_capacity(text.len()));
        stream.push(text.as_bytes(), &mut out);
        stream.close(&mut out);
        // A secret may end within a character.
        stream.has_covered().then(|| String::from_utf8_lossy(&out).into_owned())
    }
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Redactor({} secrets)", self.0.as_ref().map_or(0, |automaton| automaton.count()))
    }
}
