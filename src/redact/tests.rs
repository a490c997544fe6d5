//! What is covered and what goes through: every encoding, cut at every byte.

mod properties;

use super::*;
use crate::model::{LONGEST_SECRET, SHORTEST_SECRET};
use ::base64::Engine;
use ::base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use std::fmt::Write;
use std::ops::Range;

const PRINTABLE: &[u8] = b"sk-live_4f9aQ2+zZ~0x7Y=30";
const ARBITRARY: &[u8] = b"\x00\xff\x01\x80~~~?\xfe\x0a\x25\x5c\x00\x00\xff\x30\x78";
const AWKWARD: &[u8] = b"two words, \"quoted\" \\ and/or\n100% + more\ttext";
const FOREIGN: &[u8] = "pässwörd-🔑-schlüssel".as_bytes();
const VALUES: [&[u8]; 4] = [PRINTABLE, ARBITRARY, AWKWARD, FOREIGN];

fn redactor(secrets: &[(&str, &[u8])]) -> Redactor {
    Redactor::new(secrets.iter().map(|(name, value)| ((*name).to_owned(), Secret::new(value.to_vec()))))
}

/// The redactor of every value, and of others with much in common.
fn all() -> Redactor {
    redactor(&[
        ("NEAR", b"sk-live_4f9aQ2+zZ~0x7Y=3!"),
        ("A", PRINTABLE),
        ("B", ARBITRARY),
        ("C", AWKWARD),
        ("D", FOREIGN),
        ("FAR", b"\x00\xff\x01\x80~~~?\xfe\x0a."),
    ])
}

fn in_chunks<'c>(redactor: &Redactor, chunks: impl IntoIterator<Item = &'c [u8]>) -> Vec<u8> {
    let (mut redaction, mut out) = (redactor.stream(), Vec::new());
    for chunk in chunks {
        redaction.push(chunk, &mut out);
    }
    redaction.finish(&mut out);
    out
}

fn covered(redactor: &Redactor, bytes: &[u8]) -> String {
    String::from_utf8(in_chunks(redactor, [bytes])).unwrap()
}

/// A text with a secret in it: what stands for the secret, and how much of that may slip at the end of a chunk.
struct Shown {
    how: String,
    text: Vec<u8>,
    secret: Range<usize>,
    slip: usize,
}

impl Shown {
    fn new(how: &str, parts: [&[u8]; 3], slip: usize) -> Self {
        let start = parts[0].len();
        Shown { how: how.into(), text: parts.concat(), secret: start..start + parts[1].len(), slip }
    }

    /// Puts `gap` behind each `width` bytes.
    fn wrapped(&self, width: usize, gap: &str) -> Self {
        let at = |at: usize| at + at.saturating_sub(1) / width * gap.len();
        let text = self.text.chunks(width).collect::<Vec<_>>().join(gap.as_bytes());
        let start = self.secret.start + self.secret.start / width * gap.len();
        let how = format!("{} wrapped at {width} by {gap:?}", self.how);
        Shown { how, text, secret: start..at(self.secret.end), slip: self.slip + 3 * gap.len() }
    }

    /// Covered whole when it comes in one chunk, and all but what may slip however it is cut.
    fn check(&self, redactor: &Redactor, name: &str) {
        let marker = format!("[secret {name}]");
        let (before, after) = (&self.text[..self.secret.start], &self.text[self.secret.end..]);
        let with = |slipped: usize| {
            let slipped = &self.text[self.secret.start..self.secret.start + slipped];
            [before, slipped, marker.as_bytes(), after].concat()
        };
        let shown = |out: &[u8]| String::from_utf8_lossy(out).into_owned();
        let whole = in_chunks(redactor, [&self.text[..]]);
        assert_eq!(shown(&whole), shown(&with(0)), "{}", self.how);
        for cut in 0..=self.text.len() {
            let (a, b) = self.text.split_at(cut);
            let out = in_chunks(redactor, [a, b]);
            assert!((0..=self.slip).any(|n| out == with(n)), "{} cut at {cut}: {:?}", self.how, shown(&out));
        }
        let out = in_chunks(redactor, self.text.chunks(1));
        assert!((0..=self.slip).any(|n| out == with(n)), "{} byte by byte: {:?}", self.how, shown(&out));
    }
}

fn check_all(spell: impl Fn(&[u8]) -> Vec<Shown>) {
    let redactor = all();
    for (value, name) in VALUES.iter().zip(["A", "B", "C", "D"]) {
        for shown in spell(value) {
            shown.check(&redactor, name);
        }
    }
}

fn each(value: &[u8], spell: impl Fn(u8) -> String) -> Vec<u8> {
    value.iter().map(|byte| spell(*byte)).collect::<String>().into_bytes()
}

#[test]
fn a_secret_as_it_is_never_slips() {
    check_all(|value| {
        let around: [[&[u8]; 2]; 4] = [[b"", b""], [b"key=", b"\n"], [b"sk-live", b"sk"], [b"\x00\xff", b"\x00"]];
        around.map(|[before, after]| Shown::new("as it is", [before, value, after], 0)).into()
    });
}

#[test]
fn a_secret_is_covered_in_base64_of_both_alphabets_at_every_alignment() {
    check_all(|value| {
        let mut shown = Vec::new();
        for (before, after) in [(0, 0), (1, 0), (2, 0), (3, 1), (4, 2), (58, 60)] {
            let bytes = [&vec![b'#'; before], value, &vec![b'!'; after]].concat();
            let (from, to) = (before * 8 / 6, ((before + value.len()) * 8).div_ceil(6));
            for engine in [STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD] {
                let text = engine.encode(&bytes).into_bytes();
                let parts = [&text[..from], &text[from..to], &text[to..]];
                let plain = Shown::new(&format!("base64 behind {before}"), parts, 3);
                shown.extend([plain.wrapped(76, "\n"), plain.wrapped(64, "\r\n"), plain.wrapped(10, "\\n    ")]);
                shown.push(plain);
            }
        }
        shown
    });
}

#[test]
fn a_secret_is_covered_in_hexadecimal_with_what_tools_print_between() {
    check_all(|value| {
        let mut shown = Vec::new();
        for gap in ["", " ", ":", ", ", "\n", "-", "\\x", ",\\n  "] {
            let slip = 3 + gap.len();
            let (lower, upper) = (each(value, |b| format!("{b:02x}{gap}")), each(value, |b| format!("{b:02X}{gap}")));
            let mixed =
                lower.iter().zip(&upper).enumerate().map(|(n, (a, b))| *if n % 3 == 0 { a } else { b }).collect();
            for digits in [lower, upper, mixed] {
                let digits = &digits[..digits.len() - gap.len()];
                for before in [&b"key: "[..], b"7", b"73 65 ", b"h'"] {
                    shown.push(Shown::new(&format!("hexadecimal with {gap:?}"), [before, digits, b"z"], slip));
                }
                // No line ends within `\x`.
                if !gap.contains('\\') {
                    let plain = Shown::new("hexadecimal", [b"", digits, b""], slip);
                    shown.extend([plain.wrapped(60, "\n"), plain.wrapped(7, "\r\n")]);
                }
            }
        }
        let quoted = each(value, |b| format!("\"{b:02x}\", "));
        shown.push(Shown::new("quoted", [b"[\"", &quoted[1..quoted.len() - 3], b"\"]"], 8));
        shown
    });
}

#[test]
fn a_secret_is_covered_in_numbers_with_0x() {
    check_all(|value| {
        let mut shown = Vec::new();
        for gap in [", ", ",", " ", ",\n    ", ""] {
            let (full, short) = (each(value, |b| format!("0x{b:02x}{gap}")), each(value, |b| format!("0X{b:X}{gap}")));
            for numbers in [full, short] {
                // A number of one digit has its end where something else begins.
                if gap.is_empty() && numbers.contains(&b'X') {
                    continue;
                }
                let numbers = &numbers[2..numbers.len() - gap.len()];
                for (before, after) in [(&b"{ 0x"[..], &b" }"[..]), (b"0x7, 0x", b"}"), (b"0x", b"")] {
                    shown.push(Shown::new(&format!("numbers with {gap:?}"), [before, numbers, after], 5 + gap.len()));
                }
            }
        }
        shown
    });
}

/// As xxd prints it (with a colon), or `hexdump -C`.
fn dump(bytes: &[u8], colon: &str) -> String {
    let mut lines = String::new();
    for (number, row) in bytes.chunks(16).enumerate() {
        let text: String = row.iter().map(|b| if (32..127).contains(b) { char::from(*b) } else { '.' }).collect();
        let digits: Vec<String> = row.iter().map(|b| format!("{b:02x}")).collect();
        if colon.is_empty() {
            let halves: Vec<_> = digits.chunks(8).map(|half| half.join(" ")).collect();
            writeln!(lines, "{:08x}  {:<49} |{text}|", number * 16, halves.join("  ")).unwrap();
        } else {
            let words: Vec<_> = digits.chunks(2).map(|word| word.concat()).collect();
            writeln!(lines, "{:08x}{colon} {:<39}  {text}", number * 16, words.join(" ")).unwrap();
        }
    }
    lines
}

#[test]
fn a_secret_is_covered_in_a_dump_with_the_text_beside_it() {
    let redactor = all();
    for (before, after) in [(0, 0), (5, 0), (15, 20), (16, 3), (40, 40)] {
        for (value, name) in VALUES.iter().zip(["A", "B", "C", "D"]) {
            for colon in [":", ""] {
                let bytes = [&vec![b'#'; before], *value, &vec![b'!'; after]].concat();
                let text = dump(&bytes, colon);
                for size in (1..40).chain([1000]) {
                    let out = String::from_utf8(in_chunks(&redactor, text.as_bytes().chunks(size))).unwrap();
                    assert!(out.contains(&format!("[secret {name}]")), "{text}{out}");
                    // The first byte may slip, and the text of a line whose only byte of the secret it is.
                    let digits = each(&value[2..value.len().min(4)], |b| format!("{b:02x}"));
                    let left = out.replace(' ', "");
                    assert!(!left.contains(std::str::from_utf8(&digits).unwrap()), "{size}: {text}{out}");
                    let end = &text[text.len() - 1 - (after + value.len().min(4)) % 16..][..3.min(value.len())];
                    assert!(after > 0 || !out.contains(end), "{size}: {end:?}: {text}{out}");
                }
            }
        }
    }
    let od = format!("0000000 {}\r\n0000031\r\n", each(PRINTABLE, |b| format!(" {b:02x}")).escape_ascii());
    assert_eq!(covered(&redactor, od.as_bytes()), "0000000  [secret A]\r\n0000031\r\n");
    let other = format!("{}{}", dump(&[7; 50], ":"), dump(b"nothing that is secret, in four lines of a dump", ""));
    assert_eq!(covered(&redactor, other.as_bytes()), other);
}

#[test]
fn a_secret_is_covered_in_any_mixture_of_percent_and_plain() {
    check_all(|value| {
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.~".contains(&b);
        let upper = each(value, |b| format!("%{b:02X}"));
        let lower = each(value, |b| format!("%{b:02x}"));
        let url = each(value, |b| if is_plain(b) { char::from(b).into() } else { format!("%{b:02X}") });
        let form = each(value, |b| match b {
            b' ' => "+".into(),
            _ if is_plain(b) => char::from(b).into(),
            _ => format!("%{b:02x}"),
        });
        let third = value.iter().enumerate().flat_map(|(n, b)| match n % 3 {
            // A percent sign that stands for itself must not seem an escape.
            0 if *b != b'%' => vec![*b],
            _ => format!("%{b:02x}").into_bytes(),
        });
        let spelt = [upper, lower, url, form, third.collect()];
        let around: [[&[u8]; 2]; 3] = [[b"?key=", b"&a=%20b"], [b"%", b"%"], [b"%2", b""]];
        spelt.iter().flat_map(|s| around.map(|[before, after]| Shown::new("percent", [before, s, after], 5))).collect()
    });
}

#[test]
fn a_secret_is_covered_in_json_strings_and_byte_literals() {
    check_all(|value| {
        let mut spelt = vec![each(value, |b| match b {
            b'\\' | b'\'' => format!("\\{}", char::from(b)),
            b'\n' => "\\n".into(),
            b'\t' => "\\t".into(),
            0x20..0x7f => char::from(b).into(),
            _ => format!("\\x{b:02x}"),
        })];
        if let Ok(text) = std::str::from_utf8(value) {
            let json = serde_json::to_string(text).unwrap();
            let units = || text.encode_utf16();
            let ascii = |all: bool| {
                units().map(move |u| match u8::try_from(u) {
                    Ok(b @ (b'"' | b'\\')) if !all => format!("\\{}", char::from(b)),
                    Ok(b @ 0x20..0x7f) if !all => char::from(b).into(),
                    _ => format!("\\u{u:04X}"),
                })
            };
            spelt.push(json[1..json.len() - 1].replace('/', "\\/").into_bytes());
            spelt.push(json[1..json.len() - 1].into());
            spelt.push(ascii(false).collect::<String>().into_bytes());
            spelt.push(ascii(true).collect::<String>().into_bytes());
        }
        let around: [[&[u8]; 2]; 3] = [[b"\"", b"\\n\""], [b"b'\\x01", b"'"], [b"\\ud83d", b"\\"]];
        spelt.iter().flat_map(|s| around.map(|[before, after]| Shown::new("escapes", [before, s, after], 11))).collect()
    });
}

#[test]
fn a_terminals_line_ends_do_not_hide_a_secret() {
    let key = b"-----BEGIN KEY-----\nQUJD\nREVG\n-----END KEY-----\n";
    let redactor = redactor(&[("KEY", key)]);
    let shown = String::from_utf8_lossy(key).replace('\n', "\r\n");
    let secret = shown.trim_end();
    Shown::new("on a terminal", [b"$ cat key\r\n", secret.as_bytes(), b"\r\n$ "], 0).check(&redactor, "KEY");
}

#[test]
fn a_line_end_behind_a_value_is_not_needed() {
    let redactor = redactor(&[("A", b"hunter22hunter22\r\n"), ("B", b"\n\n\n\n\n\n\n\n\n\n")]);
    assert_eq!(covered(&redactor, b"(hunter22hunter22)"), "([secret A])");
    assert_eq!(covered(&redactor, b"hunter22hunter22\r\n"), "[secret A]\r\n");
    assert_eq!(covered(&redactor, b"a\n\n\nb"), "a\n\n\nb");
}

#[test]
fn a_prompt_does_not_wait() {
    let redactor = all();
    for prompt in ["$ ", "# ", ">>> ", "Password: ", "user@host:~/src% ", "C:\\> ", "[y/N] ", "a+b: 0x", "0000: ", "\r"]
    {
        let (mut redaction, mut out) = (redactor.stream(), Vec::new());
        redaction.push(prompt.as_bytes(), &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), prompt);
    }
}

#[test]
fn a_secret_at_the_end_of_a_chunk_is_covered_at_once() {
    let redactor = redactor(&[("A", b"hunter22hunter22")]);
    let base64 = STANDARD.encode(b"hunter22hunter22").replace('=', "");
    for shown in ["hunter22hunter22", &base64, "68756e7465723232 68756e7465723232", "hunter22hunter%32%32"] {
        let (mut redaction, mut out) = (redactor.stream(), Vec::new());
        redaction.push(shown.as_bytes(), &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), "[secret A]");
    }
}

#[test]
fn what_does_not_become_a_secret_goes_out_as_it_came() {
    let redactor = redactor(&[("A", b"hunter22hunter22")]);
    let (mut redaction, mut out) = (redactor.stream(), Vec::new());
    redaction.push(b"hunter22hunter2", &mut out);
    assert_eq!(out, b"");
    redaction.push(b"3hunter2", &mut out);
    assert_eq!(out, b"hunter22hunter23");
    redaction.finish(&mut out);
    assert_eq!(out, b"hunter22hunter23hunter2");
}

#[test]
fn what_comes_after_the_end_is_another_stream() {
    let redactor = redactor(&[("A", b"hunter22hunter22")]);
    for half in ["hunter22hunter2", "68756e7465723232", "00000000  68756e7465723232\n"] {
        let (mut redaction, mut out) = (redactor.stream(), Vec::new());
        redaction.push(half.as_bytes(), &mut out);
        redaction.finish(&mut out);
        redaction.push(b"2!", &mut out);
        redaction.push(half.as_bytes(), &mut out);
        redaction.finish(&mut out);
        assert_eq!(String::from_utf8(out).unwrap(), format!("{half}2!{half}"));
    }
}

#[test]
fn what_is_still_open_when_the_stream_ends_counts() {
    let redactor = redactor(&[("A", b"it is 100 %"), ("B", b"\x01\x02\x03\x04\x05\x06\x07\x08")]);
    let dump = "000000 01 02 03 04 05 06 07 08  >........";
    for (text, expected) in [
        ("it%20is%20100%20%", "[secret A]"),
        ("0x1,0x2,0x3,0x4,0x5,0x6,0x7,0x8", "0x[secret B]"),
        (dump, "000000 [secret B]  [secret B]"),
    ] {
        assert_eq!(covered(&redactor, text.as_bytes()), expected);
    }
}

#[test]
fn what_is_no_digit_ends_a_row_of_them() {
    let redactor = redactor(&[("A", b"hunter22hunter22")]);
    for half in ["68756e7465723232", "0x68, 0x75, 0x6e", "aHVudGVyMjJo", "000000 68 75 6e 74  >"] {
        let (mut redaction, mut out) = (redactor.stream(), Vec::new());
        redaction.push(format!("{half}#").as_bytes(), &mut out);
        if !half.ends_with('>') {
            assert_eq!(String::from_utf8(out.clone()).unwrap(), format!("{half}#"));
        }
        redaction.push(b" #\n#\n$ ", &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), format!("{half}# #\n#\n$ "));
    }
    for text in ["68756e7465723232#68756e7465723232", "aHVudGVyMjJo#dW50ZXIyMg"] {
        assert_eq!(covered(&redactor, text.as_bytes()), text);
    }
}

#[test]
fn the_first_byte_of_a_secret_is_covered_with_its_escape() {
    // The escape's own digit begins the secret as well.
    let redactor = redactor(&[("A", b"8-hunter22")]);
    assert_eq!(covered(&redactor, b"%38-hunter22 \\x38-hunter22"), "[secret A] [secret A]");
}

#[test]
fn secrets_that_overlap_are_one_and_neighbours_are_two() {
    let redactor = redactor(&[
        ("SHORT", b"abcdefgh"),
        ("LONG", b"abcdefghijkl"),
        ("INNER", b"cdefghij"),
        ("TAIL", b"ijklmnop"),
        ("ENDS", b"xxxxklmnop"),
        ("TWICE", b"abcdefgh"),
    ]);
    for (text, expected) in [
        ("abcdefgh", "[secret SHORT]"),
        ("abcdefghij", "[secret SHORT]"),
        ("abcdefghijkl", "[secret LONG]"),
        ("abcdefghijk!", "[secret SHORT]k!"),
        ("bcdefghijkl", "b[secret INNER]kl"),
        ("abcdefghijklmnop", "[secret LONG]"),
        ("abcdefghabcdefgh", "[secret SHORT][secret SHORT]"),
        ("xxxxklmnopijklmnop", "[secret ENDS][secret TAIL]"),
        ("xxxxijklmnop", "xxxx[secret TAIL]"),
    ] {
        for size in 1..=text.len() {
            let out = in_chunks(&redactor, text.as_bytes().chunks(size));
            assert_eq!(String::from_utf8(out).unwrap(), expected, "{text} by {size}");
        }
    }
}

#[test]
fn secrets_that_overlap_in_different_encodings_are_told_apart_by_what_stands_between() {
    let redactor = redactor(&[("DIGITS", b"68756e74"), ("A", b"hunter22"), ("B", b"abcdefg6")]);
    assert_eq!(covered(&redactor, b"68756e7465723232"), "[secret A]");
    assert_eq!(covered(&redactor, b"68756e7465723232 abcdefg6"), "[secret A] [secret B]");
    assert_eq!(covered(&redactor, b"abcdefg68-75-6e-74-65-72-32-32"), "[secret B]");
    let out = in_chunks(&redactor, b"abcdefg68-75-6e-74-65-72-32-32".chunks(1));
    assert_eq!(String::from_utf8(out).unwrap(), "[secret B]8-7[secret A]");
}

#[test]
fn repetitions_stay_linear_and_bounded() {
    let (short, long, far) = ([b'a'; 8], [b'a'; 30_000], [&[b'a'; 60_000][..], b"b"].concat());
    let redactor = redactor(&[("SHORT", &short), ("LONG", &long), ("FAR", &far)]);
    for (unit, rest) in [("a", ""), ("61 ", " "), ("%61", ""), ("\\u0061", ""), ("0x61,", ",")] {
        let text = unit.repeat(1 << 18);
        let (mut redaction, mut out) = (redactor.stream(), Vec::new());
        for chunk in text.as_bytes().chunks(1000) {
            redaction.push(chunk, &mut out);
            assert!(out.len() < 100, "{unit}");
        }
        redaction.finish(&mut out);
        let before = if unit.starts_with('0') { "0x" } else { "" };
        assert_eq!(String::from_utf8(out).unwrap(), format!("{before}[secret LONG]{rest}"));
    }
    assert_eq!(covered(&redactor, &far), "[secret FAR]");
}

#[test]
fn what_is_held_has_a_bound_whatever_stands_between_digits() {
    let value: Vec<u8> = (0..100).map(|n| b'!' + n % 90).collect();
    let redactor = redactor(&[("A", &value)]);
    let wide = |gap: usize| value.iter().map(move |b| format!("{b:02x}{}", " ".repeat(gap))).collect::<String>();
    let nibbles = wide(0).replace("", &" ".repeat(LONGEST_GAP));
    let numbers = each(&value, |b| format!("0x{b:02x}{}", " ".repeat(LONGEST_GAP - 2)));
    let base64 = STANDARD.encode(&value).replace("", &"\n".repeat(LONGEST_GAP));
    let numbers = String::from_utf8(numbers).unwrap();
    let lines: String = value.iter().map(|b| format!("00000000: {b:02x}  {}\n", "#".repeat(80))).collect();
    let waiting = |text: &str, gap: &str| text[..text.len() / 2].to_owned() + &gap.repeat(5000);
    let waits = [
        waiting(&wide(0), " "),
        waiting(&numbers, " "),
        waiting(&STANDARD.encode(&value), "\n"),
        waiting(&dump(&value, ":"), "\n"),
        dump(&value[..50], "").trim_end().to_owned() + &"x".repeat(5000),
    ];
    for text in [wide(LONGEST_GAP), wide(LONGEST_GAP + 1), nibbles, base64, lines, numbers].iter().chain(&waits) {
        let (mut redaction, mut out) = (redactor.stream(), Vec::new());
        for (taken, byte) in text.bytes().enumerate() {
            redaction.push(&[byte], &mut out);
            let is_bounded = taken + 1 - out.len().min(taken) <= 16 * value.len() + 512;
            assert!(is_bounded || out.windows(10).any(|w| w == b"[secret A]"), "{text:.80}");
        }
    }
    let covered = |gap| covered(&redactor, wide(gap).as_bytes()).contains("[secret A]");
    assert!(covered(0) && covered(13) && !covered(LONGEST_GAP + 1));
}

#[test]
fn a_secret_drawn_out_too_far_does_not_take_another_with_it() {
    let value: Vec<u8> = (b'!'..b'z').collect();
    let redactor = redactor(&[("A", &value), ("B", &value[10..18])]);
    let digits: String = value[..30].iter().map(|b| format!("{b:02x}")).collect();
    let out = covered(&redactor, digits.replace("", &" ".repeat(LONGEST_GAP)).as_bytes());
    assert_eq!(out.trim().replace(' ', ""), "2122232425262728292a[secretB]333435363738393a3b3c3d3e");
}

#[test]
fn hundreds_of_secrets_are_each_found_by_their_name() {
    let value = |n: usize| -> Vec<u8> {
        let length = if n.is_multiple_of(60) { LONGEST_SECRET } else { SHORTEST_SECRET + 8 + n % 50 };
        let mut state = n as u32 + 1;
        let next = |_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        (0..length).map(next).chain([1]).take(LONGEST_SECRET).collect()
    };
    let secrets = (0..300).map(|n| (format!("S{n}"), Secret::new(value(n))));
    let redactor = Redactor::new(secrets);
    for n in 0..300 {
        let (value, marker) = (value(n), format!("[secret S{n}]"));
        assert_eq!(covered(&redactor, &value), marker);
        assert_eq!(covered(&redactor, &each(&value, |b| format!("{b:02x}"))), marker);
        let base64 = STANDARD_NO_PAD.encode(&value);
        assert_eq!(String::from_utf8(in_chunks(&redactor, [base64.as_bytes()])).unwrap(), marker);
    }
}

#[test]
fn a_redactor_of_nothing_lets_everything_through() {
    for redactor in [Redactor::none(), redactor(&[]), redactor(&[("EMPTY", b""), ("SHORT", b"1234567")])] {
        let (mut redaction, mut out) = (redactor.stream(), Vec::new());
        redaction.push(b"1234567 \xff", &mut out);
        assert_eq!(out, b"1234567 \xff");
        redaction.finish(&mut out);
        assert_eq!(out, b"1234567 \xff");
        assert_eq!(redactor.text("1234567"), None);
    }
}

#[test]
fn a_text_is_given_back_only_where_something_was_covered() {
    let redactor = redactor(&[("A", b"hunter22hunter22"), ("CUT", b"\xa4sswort-\xc3")]);
    assert_eq!(redactor.text("hunter22hunter2"), None);
    assert_eq!(redactor.text(""), None);
    assert_eq!(redactor.text("a hunter22hunter22, äöü").unwrap(), "a [secret A], äöü");
    assert_eq!(redactor.text("0x68756e746572323268756e7465723232").unwrap(), "0x[secret A]");
    assert_eq!(redactor.text("ässwort-ä").unwrap(), "\u{fffd}[secret CUT]\u{fffd}");
}

#[test]
fn a_redactor_prints_how_many_it_knows_and_nothing_of_them() {
    assert_eq!(format!("{:?}", all()), "Redactor(6 secrets)");
    assert_eq!(format!("{:?}", Redactor::none()), "Redactor(0 secrets)");
}
