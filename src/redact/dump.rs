//! The stream read as what xxd, `hexdump -C` and `od -t x1` print: lines of an offset, hexadecimal digits, and in
//! most of them the same bytes as text.

use super::cursor::{Cursor, Search};

/// Digits of an offset.
const OFFSET: std::ops::RangeInclusive<usize> = 6..=16;

/// Bytes between one number and the next: the rest of a short line, its text, the next line's offset.
const LONGEST_DUMP_GAP: usize = 96;

/// Where in a line the reader is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Column {
    /// Behind so many digits of the offset.
    Offset(usize),
    /// Among the numbers. xxd, which has a colon behind its offsets, sets the text off by two spaces alone.
    Numbers { has_colon: bool },
    /// In the text, which began there.
    Text(u64),
    /// In a line of another kind.
    Elsewhere,
}

/// Lines of a dump.
pub(super) struct Dump {
    cursor: Cursor,
    column: Column,
    /// The digit before, if it is the first of two, and where it stands.
    high: Option<(u8, u64)>,
    before: u8,
    gap: usize,
    /// The secret that ends in this line: the line's text has its last bytes once more.
    ended: Option<u32>,
}

impl Default for Dump {
    fn default() -> Self {
        let column = Column::Offset(0);
        Dump { cursor: Cursor::default(), column, high: None, before: 0, gap: 0, ended: None }
    }
}

impl Dump {
    pub(super) fn read(&mut self, search: &mut Search<'_>, bytes: &[u8], at: u64) {
        for (byte, at) in bytes.iter().zip(at..) {
            if self.column != Column::Elsewhere || *byte == b'\n' {
                self.take(search, *byte, at);
                self.before = *byte;
            }
        }
    }

    fn take(&mut self, search: &mut Search<'_>, byte: u8, at: u64) {
        self.gap += 1;
        match (self.column, char::from(byte).to_digit(16)) {
            _ if self.gap > LONGEST_DUMP_GAP => self.leave(search, at),
            _ if byte == b'\r' => {}
            _ if byte == b'\n' && self.high.is_none() => {
                self.end(search, at);
                self.column = Column::Offset(0);
            }
            (Column::Offset(digits), Some(_)) if digits < *OFFSET.end() => self.column = Column::Offset(digits + 1),
            (Column::Offset(digits), _) if OFFSET.contains(&digits) && matches!(byte, b' ' | b':') => {
                self.column = Column::Numbers { has_colon: byte == b':' };
            }
            (Column::Numbers { .. }, Some(digit)) => self.take_digit(search, digit as u8, at),
            (Column::Numbers { has_colon }, None) if self.high.is_none() => match (byte, self.before) {
                (b' ', b' ') if has_colon => self.column = Column::Text(at + 1),
                (b' ', _) => {}
                _ => self.column = Column::Text(at),
            },
            (Column::Text(_), _) => {}
            _ => self.leave(search, at),
        }
    }

    fn take_digit(&mut self, search: &mut Search<'_>, digit: u8, at: u64) {
        let Some((high, from)) = self.high.take() else {
            self.high = Some((digit, at));
            return;
        };
        self.cursor.step(search, high << 4 | digit, from..at + 1);
        self.gap = 0;
        if let Some(found) = search.found.last().filter(|found| found.end == at + 1) {
            self.ended = Some(found.secret);
        }
    }

    /// The line ends here, or the stream.
    pub(super) fn end(&mut self, search: &mut Search<'_>, at: u64) {
        if let (Column::Text(from), Some(secret)) = (self.column, self.ended.take()) {
            search.add(secret, from..at);
        }
    }

    /// This is no dump, or no longer.
    fn leave(&mut self, search: &mut Search<'_>, at: u64) {
        self.end(search, at);
        self.column = Column::Elsewhere;
        (self.high, self.gap) = (None, 0);
        self.cursor.reset();
    }

    /// From where on bytes may become a secret.
    pub(super) fn start(&self) -> Option<u64> {
        let text = match (self.column, self.ended) {
            (Column::Text(from), Some(_)) => Some(from),
            _ => None,
        };
        self.cursor.start().into_iter().chain(text).min()
    }
}
