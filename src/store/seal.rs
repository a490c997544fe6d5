//! What a sealed record looks like, byte by byte, and the keys it is sealed with. `docs/store-format.md` says the same
//! for another implementation.
//!
//! Every message is bound to the store, the key epoch, its purpose and its place: moved anywhere else, it does not open.

use super::keys::KeySource;
use crate::crypto::{self, Cost, NONCE, SealingKey, TAG};
use crate::model::Secret;
use crate::os;
use crate::os::memory::Locked;
use std::io;

/// The format of rows, ledger and counter. There was no sealed one before it, and nothing else is read.
pub(super) const FORMAT: u8 = 1;

/// What a message is for: part of what it is bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Record,
    Ledger,
    Counter,
}

impl Purpose {
    fn as_bytes(self) -> &'static [u8] {
        match self {
            Purpose::Record => b"record",
            Purpose::Ledger => b"ledger",
            Purpose::Counter => b"counter",
        }
    }
}

/// What a message is bound to: its associated data.
pub(super) fn about(purpose: Purpose, store: &[u8; 16], epoch: u32, kind: &str, key: &str) -> Vec<u8> {
    let purpose = purpose.as_bytes();
    let mut about = Vec::with_capacity(48 + purpose.len() + kind.len() + key.len());
    about.extend(b"vambrace\0");
    about.push(FORMAT);
    about.extend(store);
    about.extend(epoch.to_be_bytes());
    for part in [purpose, kind.as_bytes(), key.as_bytes()] {
        // Lengths first, so that no two places read the same.
        about.extend((part.len() as u32).to_be_bytes());
        about.extend(part);
    }
    about
}

/// A message in its format: one byte of format, nonce, ciphertext, tag.
pub(super) fn seal_message(key: &SealingKey, about: &[u8], plain: &[u8]) -> Vec<u8> {
    with_nonce(key, &os::host::random(), about, plain)
}

fn with_nonce(key: &SealingKey, nonce: &[u8; NONCE], about: &[u8], plain: &[u8]) -> Vec<u8> {
    let mut message = key.seal(nonce, about, plain);
    message.insert(0, FORMAT);
    message
}

/// The content of a message; `None` where it is none, of another format, or not about this.
pub(super) fn open_message(key: &SealingKey, about: &[u8], message: &[u8]) -> Option<Secret<Vec<u8>>> {
    key.open(about, message.strip_prefix(&[FORMAT])?)
}

/// The keys of one epoch, in pages of their own.
pub(super) struct Seal {
    pub(super) store: [u8; 16],
    pub(super) epoch: u32,
    keys: Locked<Keys>,
}

struct Keys {
    data: Secret<[u8; 32]>,
    records: SealingKey,
    ledger: SealingKey,
    rows: Secret<[u8; 32]>,
}

impl Seal {
    /// The keys below this data key.
    pub(super) fn new(store: [u8; 16], epoch: u32, data: Secret<[u8; 32]>) -> io::Result<Self> {
        let keys = Locked::new(Keys {
            records: SealingKey::new(crypto::subkey(data.expose(), b"vambrace records").expose()),
            ledger: SealingKey::new(crypto::subkey(data.expose(), b"vambrace ledger").expose()),
            rows: crypto::subkey(data.expose(), b"vambrace rows"),
            data,
        })?;
        Ok(Seal { store, epoch, keys })
    }

    /// Seals one row's value.
    pub(super) fn seal_row(&self, kind: &str, key: &str, plain: &[u8]) -> Vec<u8> {
        let about = about(Purpose::Record, &self.store, self.epoch, kind, key);
        seal_message(&self.keys.records, &about, plain)
    }

    /// Opens one row's value.
    pub(super) fn open_row(&self, kind: &str, key: &str, value: &[u8]) -> Option<Secret<Vec<u8>>> {
        let about = about(Purpose::Record, &self.store, self.epoch, kind, key);
        open_message(&self.keys.records, &about, value)
    }

    /// What a row adds to the ledger: HMAC-SHA256 of its place, nonce and tag.
    pub(super) fn row_digest(&self, kind: &str, key: &str, value: &[u8]) -> [u8; 32] {
        let about = about(Purpose::Record, &self.store, self.epoch, kind, key);
        let nonce = value.get(1..=NONCE).unwrap_or_default();
        let tag = value.len().checked_sub(TAG).and_then(|at| value.get(at..)).unwrap_or_default();
        crypto::hmac_sha256(self.keys.rows.expose(), &[&about, nonce, tag])
    }

    pub(super) fn seal_ledger(&self, plain: &[u8]) -> Vec<u8> {
        seal_message(&self.keys.ledger, &about(Purpose::Ledger, &self.store, self.epoch, "", ""), plain)
    }

    pub(super) fn open_ledger(&self, sealed: &[u8]) -> Option<Secret<Vec<u8>>> {
        open_message(&self.keys.ledger, &about(Purpose::Ledger, &self.store, self.epoch, "", ""), sealed)
    }

    /// The data key itself, to be wrapped.
    fn data(&self) -> &[u8; 32] {
        self.keys.data.expose()
    }

    /// Whether the kernel keeps the keys in memory.
    pub(super) fn is_locked(&self) -> bool {
        self.keys.is_locked()
    }
}

/// Bytes of a header, and of its part before the wrapped key.
const HEADER: usize = HEAD + 1 + NONCE + 32 + TAG;
const HEAD: usize = 38;

/// Where the store's key comes from, and the data key wrapped under it: all that is not sealed itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) source: KeySource,
    /// What scrypt cost; `None` where the source is a key of its own.
    pub(super) cost: Option<Cost>,
    /// Whether a host id was part of the machine's key.
    pub(super) has_host_id: bool,
    pub(super) store: [u8; 16],
    pub(super) epoch: u32,
    /// Tells which key it was, without telling the key.
    pub(super) key_id: [u8; 8],
}

impl Header {
    fn head(&self) -> Vec<u8> {
        let cost = self.cost.unwrap_or(Cost { log_n: 0, r: 0, p: 0 });
        let mut head = b"VMBS".to_vec();
        head.extend([FORMAT, self.source.code(), cost.log_n, cost.r, cost.p, u8::from(self.has_host_id)]);
        head.extend(self.store);
        head.extend(self.epoch.to_be_bytes());
        head.extend(self.key_id);
        head
    }

    /// The header's bytes, with the data key wrapped under this key-encryption key.
    pub(super) fn encode(&self, wrapping: &Secret<[u8; 32]>, seal: &Seal) -> Vec<u8> {
        let head = self.head();
        let wrapped = seal_message(&SealingKey::new(wrapping.expose()), &head, seal.data());
        [head, wrapped].concat()
    }

    /// Reads a header; `None` where it is none of this format.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let head: &[u8; HEAD] = bytes.first_chunk()?;
        if bytes.len() != HEADER || !head.starts_with(b"VMBS") || head[4] != FORMAT || head[9] > 1 {
            return None;
        }
        let source = KeySource::from_code(head[5])?;
        let cost = Cost { log_n: head[6], r: head[7], p: head[8] };
        let is_derived = source == KeySource::Machine;
        if !is_derived && (cost != Cost { log_n: 0, r: 0, p: 0 } || head[9] != 0) {
            return None;
        }
        Some(Header {
            source,
            cost: is_derived.then_some(cost),
            has_host_id: head[9] == 1,
            store: head[10..26].try_into().ok()?,
            epoch: u32::from_be_bytes(head[26..30].try_into().ok()?),
            key_id: head[30..38].try_into().ok()?,
        })
    }

    /// Takes the data key out of the header's bytes; `None` where this is not the key, or a bit was changed.
    pub(super) fn unwrap(bytes: &[u8], wrapping: &Secret<[u8; 32]>) -> Option<Secret<[u8; 32]>> {
        let (head, wrapped) = bytes.split_at_checked(HEAD)?;
        let opened = open_message(&SealingKey::new(wrapping.expose()), head, wrapped)?;
        opened.expose().as_slice().try_into().ok().map(Secret::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seal() -> Seal {
        Seal::new([1; 16], 1, Secret::new([2; 32])).unwrap()
    }

    fn header() -> Header {
        Header {
            source: KeySource::Machine,
            cost: Some(Cost::FLOOR),
            has_host_id: true,
            store: [1; 16],
            epoch: 1,
            key_id: [4; 8],
        }
    }

    #[test]
    fn a_value_opens_in_its_own_place_alone() {
        let seal = seal();
        let value = seal.seal_row("kind", "key", b"value");
        assert_eq!(seal.open_row("kind", "key", &value).unwrap().expose(), b"value");
        for (kind, key) in [("kin", "dkey"), ("kindk", "ey"), ("key", "kind"), ("kind", "other"), ("", "kindkey")] {
            assert!(seal.open_row(kind, key, &value).is_none(), "{kind} {key}");
        }
        let elsewhere = Seal::new([9; 16], 1, Secret::new([2; 32])).unwrap();
        let later = Seal::new([1; 16], 2, Secret::new([2; 32])).unwrap();
        assert!(elsewhere.open_row("kind", "key", &value).is_none());
        assert!(later.open_row("kind", "key", &value).is_none());
        assert!(seal.open_ledger(&value).is_none());
        assert!(seal.open_row("kind", "key", &value[1..]).is_none(), "another format");
    }

    #[test]
    fn a_header_is_read_as_written_and_not_at_all_with_a_bit_changed() {
        let wrapping = Secret::new([3; 32]);
        let bytes = header().encode(&wrapping, &seal());
        assert_eq!(bytes.len(), HEADER);
        assert_eq!(Header::decode(&bytes), Some(header()));
        assert_eq!(Header::unwrap(&bytes, &wrapping).unwrap().expose(), &[2; 32]);
        assert!(Header::unwrap(&bytes, &Secret::new([4; 32])).is_none());
        for at in 0..bytes.len() * 8 {
            let mut bent = bytes.clone();
            bent[at / 8] ^= 1 << (at % 8);
            assert!(Header::decode(&bent).is_none() || Header::unwrap(&bent, &wrapping).is_none(), "bit {at}");
        }
    }

    /// The answers stand in `docs/store-format.md`; `tests/read_store.py` reads the same format on its own.
    #[test]
    fn the_format_gives_the_answers_that_are_written_down() {
        let nonce = b"ABCDEFGHIJKLMNOPQRSTUVWX";
        let salt = std::array::from_fn(|at| at as u8);
        let machine =
            super::super::keys::machine(&salt, Some("0123456789abcdef0123456789abcdef"), Cost::FLOOR).unwrap();
        let header = Header { store: [0x11; 16], key_id: machine.id, ..header() };
        let wrapped = with_nonce(&SealingKey::new(machine.key.expose()), nonce, &header.head(), &[0x22; 32]);
        let data = Secret::new([0x22; 32]);
        let key = |label: &[u8]| SealingKey::new(crypto::subkey(data.expose(), label).expose());
        let place = about(Purpose::Record, &[0x11; 16], 1, "nonce", "k a");
        let row = with_nonce(&key(b"vambrace records"), nonce, &place, b"value");
        let ledger = about(Purpose::Ledger, &[0x11; 16], 1, "", "");
        let ledger = with_nonce(&key(b"vambrace ledger"), nonce, &ledger, &[0x33; 80]);
        let digest = Seal::new([0x11; 16], 1, Secret::new([0x22; 32])).unwrap().row_digest("nonce", "k a", &row);
        let document = include_str!("../../docs/store-format.md");
        for (name, answer) in [
            ("key-encryption key", machine.key.expose().to_vec()),
            ("header", [header.head(), wrapped].concat()),
            ("row", row),
            ("digest of the row", digest.to_vec()),
            ("ledger", ledger),
        ] {
            let hex = crypto::hex(&answer);
            assert!(document.contains(&format!("    {hex}\n")), "{name} is {hex}");
        }
    }

    #[test]
    fn no_nonce_comes_twice_in_two_to_the_seventeenth_messages() {
        let seal = seal();
        let nonces: std::collections::HashSet<Vec<u8>> =
            (0..1 << 17).map(|_| seal.seal_row("k", "k", b"")[1..=NONCE].to_vec()).collect();
        assert_eq!(nonces.len(), 1 << 17);
    }
}
