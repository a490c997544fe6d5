//! The stream as it is, and with its escapes resolved: percent-encoding, forms, backslashes, a terminal's line ends.
//!
//! A reading that resolves escapes goes on like the plain one until the first escape, and soon after the last one
//! again. It is asleep meanwhile.

use super::automaton::Automaton;
use super::cursor::{Cursor, Search};
use zeroize::Zeroizing;

/// Bytes of the longest escape: two of `\uXXXX`, for a character beyond the first plane.
const LONGEST_ESCAPE: usize = 12;

/// A way to write some bytes by others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spelling {
    /// `%XX`.
    Percent,
    /// `%XX`, and `+` for a space.
    Form,
    /// JSON's, and `\xXX` and `\ ` of programming languages and shells.
    Backslash,
    /// CR LF for LF, as a terminal has it.
    Terminal,
}

/// What the beginning of an escape is.
enum Escape {
    /// Still one.
    Open,
    /// None after all.
    Not,
    /// That many of these bytes.
    Is([u8; 4], usize),
}

/// The plain reading and those that resolve escapes.
pub(super) struct Literal {
    plain: Cursor,
    readings: [Reading; 4],
    /// Whether any reading is awake.
    is_awake: bool,
}

struct Reading {
    spelling: Spelling,
    cursor: Cursor,
    is_awake: bool,
    /// The escape that has begun, how long it is by now, and where it began.
    escape: Zeroizing<[u8; LONGEST_ESCAPE]>,
    length: usize,
    began: u64,
}

impl Default for Literal {
    fn default() -> Self {
        let reading = |spelling| Reading {
            spelling,
            cursor: Cursor::default(),
            is_awake: false,
            escape: Zeroizing::default(),
            length: 0,
            began: 0,
        };
        let readings = [Spelling::Percent, Spelling::Form, Spelling::Backslash, Spelling::Terminal].map(reading);
        Literal { plain: Cursor::default(), readings, is_awake: false }
    }
}

impl Literal {
    /// Reads the bytes that stand at `at` in the stream.
    pub(super) fn read(&mut self, search: &mut Search<'_>, bytes: &[u8], at: u64) {
        for (byte, at) in bytes.iter().zip(at..) {
            // What an escape of any kind begins with.
            if self.is_awake || matches!(byte, b'%' | b'+' | b'\\' | b'\r') {
                self.step_all(search, *byte, at);
            } else {
                self.plain.step(search, *byte, at..at + 1);
            }
        }
    }

    fn step_all(&mut self, search: &mut Search<'_>, byte: u8, at: u64) {
        for reading in &mut self.readings {
            if !reading.is_awake && reading.spelling.may_matter(byte, search.automaton) {
                reading.cursor.follow(&self.plain);
                reading.is_awake = true;
            }
        }
        self.plain.step(search, byte, at..at + 1);
        self.is_awake = false;
        for reading in self.readings.iter_mut().filter(|reading| reading.is_awake) {
            reading.take(search, byte, at);
            reading.is_awake = reading.length > 0 || !reading.cursor.is_with(&self.plain);
            self.is_awake |= reading.is_awake;
        }
    }

    /// The stream ends: an escape that has begun is none.
    pub(super) fn end(&mut self, search: &mut Search<'_>) {
        for reading in self.readings.iter_mut().filter(|reading| reading.is_awake) {
            while reading.length > 0 {
                reading.give_up(search);
            }
        }
    }

    /// From where on bytes may become a secret.
    pub(super) fn start(&self, automaton: &Automaton) -> Option<u64> {
        let awake = self.readings.iter().filter(|reading| reading.is_awake);
        awake.filter_map(|reading| reading.cursor.start()).chain(self.plain.first_start(automaton)).min()
    }
}

impl Reading {
    fn take(&mut self, search: &mut Search<'_>, byte: u8, at: u64) {
        if self.length == 0 {
            if !self.spelling.begins(byte) {
                return self.cursor.step(search, byte, at..at + 1);
            }
            self.began = at;
        }
        self.escape[self.length] = byte;
        self.length += 1;
        match self.spelling.resolve(&self.escape[..self.length]) {
            Escape::Open => {}
            Escape::Not => self.give_up(search),
            Escape::Is(bytes, count) => {
                self.length = 0;
                for byte in &bytes[..count] {
                    self.cursor.step(search, *byte, self.began..at + 1);
                }
            }
        }
    }

    /// What seemed an escape begins with a byte that means itself. Another escape may begin in the rest.
    fn give_up(&mut self, search: &mut Search<'_>) {
        let (bytes, length, began) = (self.escape.clone(), self.length, self.began);
        self.length = 0;
        self.cursor.step(search, bytes[0], began..began + 1);
        for (byte, at) in bytes[1..length].iter().zip(began + 1..) {
            self.take(search, *byte, at);
        }
    }
}

impl Spelling {
    fn begins(self, byte: u8) -> bool {
        match self {
            Spelling::Percent => byte == b'%',
            Spelling::Form => byte == b'%' || byte == b'+',
            Spelling::Backslash => byte == b'\\',
            Spelling::Terminal => byte == b'\r',
        }
    }

    /// Whether an escape may begin here that resolves to a byte of a secret.
    fn may_matter(self, byte: u8, automaton: &Automaton) -> bool {
        self.begins(byte)
            && match self {
                Spelling::Percent | Spelling::Backslash => true,
                Spelling::Form => automaton.has(b' '),
                Spelling::Terminal => automaton.has(b'\n'),
            }
    }

    fn resolve(self, escape: &[u8]) -> Escape {
        match (self, escape) {
            (Spelling::Form, b"+") => one(b' '),
            (Spelling::Percent | Spelling::Form, [b'%', digits @ ..]) => number(digits, 2),
            (Spelling::Terminal, b"\r") => Escape::Open,
            (Spelling::Terminal, b"\r\n") => one(b'\n'),
            (Spelling::Backslash, [b'\\', rest @ ..]) => backslash(rest),
            _ => Escape::Not,
        }
    }
}

fn one(byte: u8) -> Escape {
    Escape::Is([byte, 0, 0, 0], 1)
}

/// A byte in so many hexadecimal digits.
fn number(digits: &[u8], count: usize) -> Escape {
    match hexadecimal(digits) {
        Some(byte) if digits.len() == count => one(byte as u8),
        Some(_) => Escape::Open,
        None => Escape::Not,
    }
}

fn hexadecimal(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |value, digit| Some(value << 4 | char::from(*digit).to_digit(16)?))
}

/// What stands behind a backslash (RFC 8259, section 7, and more).
fn backslash(rest: &[u8]) -> Escape {
    match rest {
        [] => Escape::Open,
        [b'n'] => one(b'\n'),
        [b'r'] => one(b'\r'),
        [b't'] => one(b'\t'),
        [b'b'] => one(8),
        [b'f'] => one(12),
        [byte] if byte.is_ascii_punctuation() || *byte == b' ' => one(*byte),
        [b'x', digits @ ..] => number(digits, 2),
        [b'u', digits @ ..] if digits.len() < 4 => hexadecimal(digits).map_or(Escape::Not, |_| Escape::Open),
        [b'u', rest @ ..] => match (hexadecimal(&rest[..4]), &rest[4..]) {
            (Some(high @ 0xd800..0xdc00), low) => surrogates(high, low),
            (Some(unit), []) => character(unit),
            _ => Escape::Not,
        },
        _ => Escape::Not,
    }
}

/// The second half of a character beyond the first plane.
fn surrogates(high: u32, low: &[u8]) -> Escape {
    match low {
        [] | [b'\\'] => Escape::Open,
        [b'\\', b'u', digits @ ..] => match hexadecimal(digits) {
            Some(low @ 0xdc00..0xe000) if digits.len() == 4 => {
                character(0x1_0000 + ((high - 0xd800) << 10) + (low - 0xdc00))
            }
            Some(_) if digits.len() < 4 => Escape::Open,
            _ => Escape::Not,
        },
        _ => Escape::Not,
    }
}

fn character(code: u32) -> Escape {
    let mut bytes = [0; 4];
    match char::from_u32(code).map(|character| character.encode_utf8(&mut bytes).len()) {
        Some(length) => Escape::Is(bytes, length),
        None => Escape::Not,
    }
}
