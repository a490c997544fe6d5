//! The stream read as numbers, each with its `0x`.

use super::LONGEST_GAP;
use super::cursor::{Cursor, Search};
use super::digits::{Alphabet, GAP, Hex};

/// What a byte is to a reader of numbers.
enum Kind {
    Digit(u8),
    /// May stand between numbers.
    Gap,
    /// Makes the zero before it the beginning of a number.
    X,
    Other,
}

fn kind(byte: u8) -> Kind {
    match Hex::KINDS[usize::from(byte)] {
        GAP => Kind::Gap,
        digit if digit < GAP => Kind::Digit(digit),
        _ if matches!(byte, b'x' | b'X') => Kind::X,
        _ => Kind::Other,
    }
}

/// Where a reader of `0x` numbers is.
#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Where there are none.
    #[default]
    Outside,
    Gap,
    /// Behind the zero of what may be a number.
    Zero,
    /// In a number, behind an even number of digits.
    Even,
    /// Behind the first of two digits, which stands there.
    Odd(u8, u64),
}

/// Numbers such as `0x73, 0x65`, of one digit (a byte below 16), of two, or of more.
#[derive(Default)]
pub(super) struct Numbers {
    cursor: Cursor,
    place: Place,
    gap: usize,
    before: u8,
}

impl Numbers {
    pub(super) fn read(&mut self, search: &mut Search<'_>, bytes: &[u8], at: u64) {
        for (byte, at) in bytes.iter().zip(at..) {
            if self.place != Place::Outside || matches!(byte, b'x' | b'X') {
                self.take(search, *byte, at);
            }
            self.before = *byte;
        }
    }

    fn take(&mut self, search: &mut Search<'_>, byte: u8, at: u64) {
        match (self.place, kind(byte)) {
            // A zero that was taken for a digit of the number before is none: `0x730x65`.
            (Place::Zero | Place::Odd(0, _), Kind::X) => self.widen(Place::Even),
            (_, Kind::X) if self.before == b'0' => {
                self.reset();
                self.place = Place::Even;
            }
            (Place::Even, Kind::Digit(high)) => {
                self.place = Place::Odd(high, at);
                self.gap = 0;
            }
            (Place::Odd(high, from), Kind::Digit(low)) => {
                self.cursor.step(search, high << 4 | low, from..at + 1);
                self.place = Place::Even;
            }
            (Place::Gap, Kind::Digit(0)) => self.widen(Place::Zero),
            (Place::Gap | Place::Even | Place::Odd(..), Kind::Gap) => {
                self.end(search);
                self.widen(Place::Gap);
            }
            _ => {
                self.end(search);
                self.reset();
            }
        }
    }

    /// The number is over, or the stream: a digit alone is a byte.
    pub(super) fn end(&mut self, search: &mut Search<'_>) {
        if let Place::Odd(digit, at) = self.place {
            self.cursor.step(search, digit, at..at + 1);
        }
    }

    fn widen(&mut self, place: Place) {
        self.place = place;
        self.gap += 1;
        if self.gap > LONGEST_GAP {
            self.reset();
        }
    }

    fn reset(&mut self) {
        self.place = Place::Outside;
        self.gap = 0;
        self.cursor.reset();
    }

    /// From where on bytes may become a secret.
    pub(super) fn start(&self) -> Option<u64> {
        self.cursor.start()
    }
}
