//! DNS as far as a sandbox needs it (RFC 1035): one question is read, one answer written. Pure, and never panics: the
//! bytes are a stranger's.
//!
//! Written here because a question is forty lines, and the parsers of crates read everything else as well: compression,
//! records, extensions. What follows the question (EDNS) is not looked at; RFC 6891, 7 lets a server know nothing of it.

use std::net::Ipv4Addr;

const HEADER: usize = 12;

/// RFC 1035, 2.3.4, with the length bytes.
const LONGEST_NAME: usize = 255;
const LONGEST_LABEL: usize = 63;

const CLASS_IN: u16 = 1;
const TYPE_A: u16 = 1;

/// Seconds; short, so that a name that moved is asked for again.
const TTL: u32 = 10;

const IS_ANSWER: u8 = 0x80;
const OPCODE: u8 = 0x78;
const RECURSION_DESIRED: u8 = 0x01;
const RECURSION_AVAILABLE: u8 = 0x80;

/// Answer codes (RFC 1035, 4.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Code {
    Done = 0,
    Malformed = 1,
    Failed = 2,
    NoSuchName = 3,
    NotKnown = 4,
    Refused = 5,
}

/// What is asked of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Its IPv4 addresses.
    Address,
    /// Anything else; there is nothing else here.
    Other,
}

/// One question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Question {
    id: [u8; 2],
    flags: u8,
    /// As it was spelt: some resolvers mix the case and look whether it comes back.
    asked: Vec<u8>,
    /// In lower case, without the dot at its end. A byte that no host name has is `?` here, a dot inside a label too.
    pub(super) name: String,
    pub(super) wanted: Wanted,
}

/// What is no question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// Nobody to answer, or an answer itself: two servers would talk to each other for ever.
    Silence,
    /// These bytes say what is wrong.
    Answer(Vec<u8>),
}

/// What is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Address(Ipv4Addr),
    /// The name is there, what was asked of it is not.
    Nothing,
    NoSuchName,
    Failed,
}

impl Question {
    /// Reads a query: one question of class IN, in an ordinary query, its name without compression.
    pub(super) fn read(query: &[u8]) -> Result<Self, Unreadable> {
        let Some((header, body)) = query.split_first_chunk::<HEADER>() else { return Err(Unreadable::Silence) };
        let [id_high, id_low, flags, _, counts @ ..] = header;
        if flags & IS_ANSWER != 0 {
            return Err(Unreadable::Silence);
        }
        let id = [*id_high, *id_low];
        let wrong = |code| Unreadable::Answer(head(id, *flags, code, [0, 0]).to_vec());
        if flags & OPCODE != 0 {
            return Err(wrong(Code::NotKnown));
        }
        // One question, no answer, no authority; additional records are the asker's abilities.
        if counts[..6] != [0, 1, 0, 0, 0, 0] {
            return Err(wrong(Code::Malformed));
        }
        let (name, length) = name(body).ok_or_else(|| wrong(Code::Malformed))?;
        let rest = body.get(length..length + 4).ok_or_else(|| wrong(Code::Malformed))?;
        let (kind, class) = (u16::from_be_bytes([rest[0], rest[1]]), u16::from_be_bytes([rest[2], rest[3]]));
        if class != CLASS_IN {
            return Err(wrong(Code::Refused));
        }
        let wanted = if kind == TYPE_A { Wanted::Address } else { Wanted::Other };
        Ok(Question { id, flags: *flags, asked: body[..length + 4].to_vec(), name, wanted })
    }

    /// Whether it asks for the name of an address, which nobody's programs get along without trying.
    pub(super) fn is_reverse(&self) -> bool {
        self.name.ends_with(".in-addr.arpa") || self.name.ends_with(".ip6.arpa")
    }

    /// Writes the answer. It is never longer than 512 bytes, so it is never cut off.
    pub(super) fn answer(&self, answer: Answer) -> Vec<u8> {
        let (code, records) = match answer {
            Answer::Address(_) => (Code::Done, 1),
            Answer::Nothing => (Code::Done, 0),
            Answer::NoSuchName => (Code::NoSuchName, 0),
            Answer::Failed => (Code::Failed, 0),
        };
        let mut bytes = head(self.id, self.flags, code, [1, records]).to_vec();
        bytes.extend(&self.asked);
        if let Answer::Address(address) = answer {
            // The name is the one at byte 12, of which this is the compressed form.
            bytes.extend([0xc0, HEADER as u8]);
            bytes.extend(TYPE_A.to_be_bytes());
            bytes.extend(CLASS_IN.to_be_bytes());
            bytes.extend(TTL.to_be_bytes());
            bytes.extend(4u16.to_be_bytes());
            bytes.extend(address.octets());
        }
        bytes
    }
}

/// A header with this many questions and answers.
fn head(id: [u8; 2], flags: u8, code: Code, [questions, answers]: [u8; 2]) -> [u8; HEADER] {
    let first = IS_ANSWER | flags & (OPCODE | RECURSION_DESIRED);
    [id[0], id[1], first, RECURSION_AVAILABLE | code as u8, 0, questions, 0, answers, 0, 0, 0, 0]
}

/// The name at the beginning, and how many bytes it takes.
fn name(bytes: &[u8]) -> Option<(String, usize)> {
    let mut name = String::new();
    let mut at = 0;
    loop {
        let length = usize::from(*bytes.get(at)?);
        at += 1;
        if length == 0 {
            return (at <= LONGEST_NAME).then_some((name, at));
        }
        // The two high bits are compression, which a question has no use for: it could only point into itself.
        if length > LONGEST_LABEL || at + length > LONGEST_NAME {
            return None;
        }
        if !name.is_empty() {
            name.push('.');
        }
        name.extend(bytes.get(at..at + length)?.iter().map(|byte| letter(*byte)));
        at += length;
    }
}

fn letter(byte: u8) -> char {
    match byte {
        b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => char::from(byte),
        b'A'..=b'Z' => char::from(byte.to_ascii_lowercase()),
        _ => '?',
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn query(name: &str, kind: u16, class: u16) -> Vec<u8> {
        let mut bytes = vec![0xab, 0xcd, 0x01, 0x20, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.').filter(|label| !label.is_empty()) {
            bytes.push(label.len() as u8);
            bytes.extend(label.as_bytes());
        }
        bytes.push(0);
        bytes.extend(kind.to_be_bytes());
        bytes.extend(class.to_be_bytes());
        bytes
    }

    #[test]
    fn a_question_is_read_in_lower_case_and_answered_as_it_was_spelt() {
        let asked = query("Crates.IO", 1, 1);
        let question = Question::read(&asked).unwrap();
        assert_eq!((question.name.as_str(), question.wanted), ("crates.io", Wanted::Address));
        let answer = question.answer(Answer::Address(Ipv4Addr::new(198, 18, 0, 2)));
        let mut expected = vec![0xab, 0xcd, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0];
        expected.extend(&asked[12..]);
        expected.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 10, 0, 4, 198, 18, 0, 2]);
        assert_eq!(answer, expected);
    }

    #[test]
    fn answers_without_an_address_say_why() {
        let question = Question::read(&query("crates.io", 28, 1)).unwrap();
        assert_eq!(question.wanted, Wanted::Other);
        for (answer, code) in [(Answer::Nothing, 0), (Answer::NoSuchName, 3), (Answer::Failed, 2)] {
            let bytes = question.answer(answer);
            assert_eq!(bytes[..12], [0xab, 0xcd, 0x81, 0x80 | code, 0, 1, 0, 0, 0, 0, 0, 0], "{answer:?}");
            assert_eq!(bytes[12..], query("crates.io", 28, 1)[12..]);
        }
    }

    #[test]
    fn what_follows_the_question_is_not_looked_at() {
        let mut asked = query("crates.io", 1, 1);
        asked[11] = 1;
        asked.extend([0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
        assert_eq!(Question::read(&asked).unwrap().name, "crates.io");
    }

    #[test]
    fn a_dot_or_another_byte_inside_a_label_is_never_taken_for_a_name() {
        let mut asked = query("axexample.org", 1, 1);
        asked[14] = b'.';
        assert_eq!(Question::read(&asked).unwrap().name, "a?example.org");
        asked[14] = 0;
        assert_eq!(Question::read(&asked).unwrap().name, "a?example.org");
        assert_eq!(Question::read(&query("", 1, 1)).unwrap().name, "");
    }

    #[test]
    fn a_reverse_question_is_known_as_one() {
        assert!(Question::read(&query("1.2.0.192.in-addr.arpa", 12, 1)).unwrap().is_reverse());
        assert!(!Question::read(&query("in-addr.arpa.example.org", 12, 1)).unwrap().is_reverse());
    }

    #[test]
    fn what_is_no_question_is_told_so_or_nothing() {
        let changed = |at: usize, to: u8| {
            let mut bytes = query("crates.io", 1, 1);
            bytes[at] = to;
            bytes
        };
        let says = |bytes: &[u8]| match Question::read(bytes) {
            Err(Unreadable::Answer(answer)) => {
                assert_eq!(
                    (answer.len(), &answer[..2], &answer[4..]),
                    (12, [0xab, 0xcd].as_slice(), [0; 8].as_slice())
                );
                Some(answer[3] & 15)
            }
            Err(Unreadable::Silence) => None,
            Ok(question) => panic!("{question:?}"),
        };
        assert_eq!(says(&query("crates.io", 1, 1)[..11]), None);
        assert_eq!(says(&changed(2, 0x80)), None, "an answer");
        assert_eq!(says(&changed(2, 0x10)), Some(4), "a status query");
        for (at, to) in [(5, 0), (5, 2), (4, 1), (7, 1), (9, 1), (12, 0xc0), (12, 64), (12, 60)] {
            assert_eq!(says(&changed(at, to)), Some(1), "{at} {to}");
        }
        let whole = query("crates.io", 1, 1);
        for end in 12..whole.len() {
            assert_eq!(says(&whole[..end]), Some(1), "{end}");
        }
        assert_eq!(says(&query("crates.io", 1, 3)), Some(5));
        let fits = format!("{0}.{0}.{0}.{1}", "a".repeat(63), "a".repeat(61));
        assert_eq!(Question::read(&query(&fits, 1, 1)).unwrap().name, fits);
        assert_eq!(says(&query(&format!("{fits}a"), 1, 1)), Some(1));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_and_every_answer_is_well_formed(
            bytes in prop::collection::vec(any::<u8>(), 0..400),
            is_query in any::<bool>(),
        ) {
            let mut bytes = bytes;
            if is_query && bytes.len() >= 12 {
                bytes[2] &= 1;
                bytes[4..10].copy_from_slice(&[0, 1, 0, 0, 0, 0]);
            }
            match Question::read(&bytes) {
                Ok(question) => {
                    prop_assert!(question.name.len() <= 253);
                    prop_assert!(question.name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.?".contains(&b)));
                    for answer in [Answer::Address(Ipv4Addr::LOCALHOST), Answer::Nothing, Answer::NoSuchName, Answer::Failed] {
                        let said = question.answer(answer);
                        let record = if matches!(answer, Answer::Address(_)) { 16 } else { 0 };
                        prop_assert_eq!(said.len(), 12 + question.asked.len() + record);
                        prop_assert!(said.len() <= 512);
                        prop_assert_eq!(&said[..2], &bytes[..2]);
                        prop_assert_eq!(&said[12..12 + question.asked.len()], &bytes[12..12 + question.asked.len()]);
                        // An answer is no question: it is never answered itself.
                        prop_assert_eq!(Question::read(&said), Err(Unreadable::Silence));
                    }
                }
                Err(Unreadable::Answer(said)) => {
                    prop_assert_eq!(said.len(), 12);
                    prop_assert_eq!(Question::read(&said), Err(Unreadable::Silence));
                }
                Err(Unreadable::Silence) => prop_assert!(bytes.len() < 12 || bytes[2] & 0x80 != 0),
            }
        }

        #[test]
        fn every_host_name_is_read_as_it_was_asked(name in "[A-Za-z0-9_-]{1,63}(\\.[A-Za-z0-9_-]{1,40}){0,4}") {
            let question = Question::read(&query(&name, 1, 1)).unwrap();
            prop_assert_eq!(question.name, name.to_ascii_lowercase());
        }
    }
}
