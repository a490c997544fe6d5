//! What holds of any secrets, any text and any cuts, against a search by hand.

use super::*;
use proptest::prelude::*;

/// What should come out where only the stream as it is can hold secrets: looked for at every place by hand.
fn by_hand(secrets: &[Vec<u8>], text: &[u8]) -> String {
    let (mut out, mut done, mut marked) = (String::new(), 0, 0);
    for at in 0..text.len() {
        let fits = |secret: &&Vec<u8>| text[at..].starts_with(secret);
        let Some(longest) = secrets.iter().filter(fits).map(Vec::len).max() else { continue };
        if at >= marked {
            out += std::str::from_utf8(&text[done..at]).unwrap();
            let name = secrets.iter().position(|s| s.len() == longest && fits(&s)).unwrap();
            write!(out, "[secret {name}]").unwrap();
        }
        marked = marked.max(at + longest);
        done = marked;
    }
    out + std::str::from_utf8(&text[done..]).unwrap()
}

/// A value in one of nine encodings.
fn spelt(value: &[u8], encoding: usize) -> Vec<u8> {
    match encoding {
        0 => value.to_vec(),
        1 => each(value, |b| format!("{b:02x}")),
        2 => each(value, |b| format!("{b:02X}:")),
        3 => each(value, |b| format!("0x{b:02x}, ")),
        4 => each(value, |b| format!("%{b:02x}")),
        5 => each(value, |b| format!("\\x{b:02x}")),
        6 => dump(value, ":").into_bytes(),
        7 => dump(value, "").into_bytes(),
        _ => STANDARD.encode(value).into_bytes(),
    }
}

/// Cuts at these places, each reduced to the length.
fn cut<'b>(bytes: &'b [u8], places: &[usize]) -> Vec<&'b [u8]> {
    let mut places: Vec<usize> = places.iter().map(|place| place % (bytes.len() + 1)).collect();
    places.extend([0, bytes.len()]);
    places.sort_unstable();
    places.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect()
}

proptest! {
    /// Of two letters, so that secrets overlap, contain and nearly become each other all the time.
    #[test]
    fn whatever_the_chunks_exactly_what_is_secret_is_covered(
        secrets in prop::collection::vec("[ab]{8,14}", 1..12),
        text in "[ab]{0,300}",
        places in prop::collection::vec(any::<usize>(), 0..12),
    ) {
        let secrets: Vec<Vec<u8>> = secrets.into_iter().map(String::into_bytes).collect();
        let named: Vec<_> = (0..secrets.len()).map(|n| n.to_string()).collect();
        let pairs: Vec<_> = named.iter().map(String::as_str).zip(secrets.iter().map(Vec::as_slice)).collect();
        let out = in_chunks(&redactor(&pairs), cut(text.as_bytes(), &places));
        prop_assert_eq!(String::from_utf8(out).unwrap(), by_hand(&secrets, text.as_bytes()));
    }

    /// Bytes of all kinds, and the beginnings of secrets in every encoding.
    #[test]
    fn whatever_is_no_secret_comes_out_as_it_came(
        pieces in prop::collection::vec((any::<Vec<u8>>(), 0..4_usize, 0..9_usize, any::<usize>()), 0..20),
        places in prop::collection::vec(any::<usize>(), 0..30),
    ) {
        let mut text = Vec::new();
        for (bytes, value, encoding, length) in pieces {
            let spelt = spelt(VALUES[value], encoding);
            text.extend_from_slice(&spelt[..length % (spelt.len() / 4)]);
            text.extend_from_slice(&bytes);
        }
        let out = in_chunks(&all(), cut(&text, &places));
        prop_assert_eq!(out, text);
    }

    /// The same with whole secrets: what came out is looked through once more.
    #[test]
    fn whatever_the_chunks_no_secret_is_left(
        pieces in prop::collection::vec((any::<Vec<u8>>(), 0..4_usize, 0..9_usize), 0..10),
        places in prop::collection::vec(any::<usize>(), 0..30),
    ) {
        let mut text = Vec::new();
        for (bytes, value, encoding) in &pieces {
            text.extend_from_slice(&spelt(VALUES[*value], *encoding));
            text.extend_from_slice(b"#\n");
            text.extend_from_slice(bytes);
            text.extend_from_slice(b"#\n");
        }
        let out = in_chunks(&all(), cut(&text, &places));
        let markers = out.windows(8).filter(|w| w == b"[secret ").count();
        prop_assert!(markers >= pieces.len());
        prop_assert_eq!(in_chunks(&all(), [&out[..]]), out);
    }
}
