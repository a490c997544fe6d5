//! The stream read as a row of digits, hexadecimal or base64, with gaps anywhere between them.

use super::LONGEST_GAP;
use super::automaton::Automaton;
use super::cursor::{Cursor, Search};

/// What a byte is that is no digit: it may stand between digits, or it may not.
pub(super) const GAP: u8 = 64;
const OTHER: u8 = 65;

/// What the digits are, and how bytes lie in them.
pub(super) trait Alphabet {
    /// The digit that each byte is, or `GAP` or `OTHER`.
    const KINDS: [u8; 256];
    /// What is a gap too, behind a backslash: in JSON a line end is `\n`.
    const ESCAPED: &'static [u8];
    /// Bits of a digit.
    const WIDTH: u32;
    /// Digits of the shortest group that holds whole bytes; one may begin at each of as many places.
    const PERIOD: usize;
    /// With each digit these pairs of bytes may become whole.
    const PAIRS: &'static [Pair];
}

/// Two bytes in a row of digits. The second begins in the digit before the last.
pub(super) struct Pair {
    /// Which cursor they are for; with each digit it is the next one's turn.
    turn: usize,
    /// How many digits ago the first byte begins, the last being one.
    first: usize,
    /// Bits of the last digit that belong to the byte behind them.
    shift: u32,
}

/// Hexadecimal in either case: `7365`, `73 65`, `73:65`, `\x73\x65`.
#[derive(Default)]
pub(super) struct Hex;

/// Base64 in the standard alphabet and the one for URLs at once (RFC 4648, sections 4 and 5).
#[derive(Default)]
pub(super) struct Base64;

impl Alphabet for Hex {
    const KINDS: [u8; 256] = {
        let mut kinds = [OTHER; 256];
        let mut byte = 0;
        while byte < 256 {
            kinds[byte] = match byte as u8 {
                digit @ b'0'..=b'9' => digit - b'0',
                digit @ b'a'..=b'f' => digit - b'a' + 10,
                digit @ b'A'..=b'F' => digit - b'A' + 10,
                b'\t'..=b'\r' | b' ' | b':' | b',' | b';' | b'-' | b'.' | b'_' | b'"' | b'\'' | b'\\' => GAP,
                _ => OTHER,
            };
            byte += 1;
        }
        kinds
    };
    const ESCAPED: &'static [u8] = b"xXnrt";
    const WIDTH: u32 = 4;
    const PERIOD: usize = 2;
    const PAIRS: &'static [Pair] = &[Pair { turn: 0, first: 4, shift: 0 }];
}

impl Alphabet for Base64 {
    const KINDS: [u8; 256] = {
        let mut kinds = [OTHER; 256];
        let mut byte = 0;
        while byte < 256 {
            kinds[byte] = match byte as u8 {
                digit @ b'A'..=b'Z' => digit - b'A',
                digit @ b'a'..=b'z' => digit - b'a' + 26,
                digit @ b'0'..=b'9' => digit - b'0' + 52,
                b'+' | b'-' => 62,
                b'/' | b'_' => 63,
                b'\t'..=b'\r' | b' ' | b'\\' => GAP,
                _ => OTHER,
            };
            byte += 1;
        }
        kinds
    };
    const ESCAPED: &'static [u8] = b"nrt";
    const WIDTH: u32 = 6;
    const PERIOD: usize = 4;
    const PAIRS: &'static [Pair] = &[
        Pair { turn: 2, first: 3, shift: 2 },
        Pair { turn: 1, first: 3, shift: 0 },
        Pair { turn: 3, first: 4, shift: 4 },
    ];
}

/// A reader of digits.
#[derive(Default)]
pub(super) struct Digits<A: Alphabet> {
    _alphabet: std::marker::PhantomData<A>,
    /// One for each place where groups may begin. Those at the root are not kept up to date.
    cursors: [Cursor; 4],
    is_inside: bool,
    /// The last digits, where the last four of them stand, and how many there were in this row.
    bits: u32,
    places: [u64; 4],
    count: usize,
    /// How many other bytes there were since.
    gap: usize,
    before: u8,
}

impl<A: Alphabet> Digits<A> {
    pub(super) fn read(&mut self, search: &mut Search<'_>, bytes: &[u8], at: u64) {
        for (byte, at) in bytes.iter().zip(at..) {
            let is_escaped = self.before == b'\\' && A::ESCAPED.contains(byte);
            let kind = if is_escaped { GAP } else { A::KINDS[usize::from(*byte)] };
            self.before = *byte;
            // Sums instead of branches: what is a digit and what is not alternates at random, in base64 read as
            // hexadecimal above all, and branches that cannot be foreseen took half of the time.
            let digits = usize::from(kind < GAP);
            self.gap = (self.gap + 1) * (1 - digits);
            let goes_on = usize::from(kind != OTHER) * usize::from(self.gap <= LONGEST_GAP);
            self.bits = (self.bits << (A::WIDTH * digits as u32)) | (u32::from(kind) * digits as u32);
            self.places[self.count & 3] = at;
            self.count = (self.count + digits) * goes_on;
            if self.is_inside || self.opens(search.automaton) {
                self.step(search, digits == 1);
            }
        }
    }

    /// Whether two bytes that may be whole now begin a secret.
    #[inline]
    fn opens(&self, automaton: &Automaton) -> bool {
        A::PAIRS.iter().fold(false, |opens, pair| {
            let [first, second] = self.pair(pair);
            opens | automaton.opens(first, second)
        })
    }

    #[inline]
    fn pair(&self, pair: &Pair) -> [u8; 2] {
        ((self.bits >> pair.shift) as u16).to_be_bytes()
    }

    #[cold]
    #[inline(never)]
    fn step(&mut self, search: &mut Search<'_>, is_digit: bool) {
        if self.count == 0 {
            self.cursors.iter_mut().for_each(Cursor::reset);
            self.is_inside = false;
        }
        if self.count < 2 || !is_digit {
            return;
        }
        let place = |ago: usize| self.places[(self.count - ago) & 3];
        for pair in A::PAIRS {
            let [first, second] = self.pair(pair);
            let cursor = &mut self.cursors[(self.count + pair.turn) % A::PERIOD];
            if cursor.start().is_none() {
                if self.count < pair.first {
                    continue;
                }
                cursor.begin(first, place(pair.first));
            }
            cursor.step(search, second, place(2)..place(1) + 1);
        }
        self.is_inside = self.start().is_some();
    }

    /// From where on bytes may become a secret.
    pub(super) fn start(&self) -> Option<u64> {
        self.cursors.iter().filter_map(Cursor::start).min()
    }
}
