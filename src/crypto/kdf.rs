//! Keys from other keys, and from what a machine knows of itself.

use super::hmac_sha256;
use crate::model::Secret;

/// What scrypt (RFC 7914) is to cost: memory is 128 · N · r bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cost {
    /// log₂ of N.
    pub(crate) log_n: u8,
    pub(crate) r: u8,
    pub(crate) p: u8,
}

impl Cost {
    /// What new keys cost, and the least that any key may: 32 MiB and about 0.1 s.
    pub(crate) const FLOOR: Cost = Cost { log_n: 15, r: 8, p: 1 };

    /// 128 MiB and half a second. A file that asks for more would keep the host busy.
    const CEILING: Cost = Cost { log_n: 17, r: 8, p: 1 };

    /// Whether a key of this cost is one of ours.
    pub(crate) fn is_sound(self) -> bool {
        let within = |least: u8, value: u8, most: u8| (least..=most).contains(&value);
        within(Self::FLOOR.log_n, self.log_n, Self::CEILING.log_n)
            && within(Self::FLOOR.r, self.r, Self::CEILING.r)
            && within(Self::FLOOR.p, self.p, Self::CEILING.p)
    }
}

/// scrypt. Takes about 0.1 s and is not for an async thread; `None` for a cost that is not sound.
pub(crate) fn scrypt_key(password: &[u8], salt: &[u8], cost: Cost) -> Option<Secret<[u8; 32]>> {
    let params = cost.is_sound().then(|| scrypt::Params::new(cost.log_n, cost.r.into(), cost.p.into()).ok())??;
    let mut key = Secret::new([0; 32]);
    scrypt::scrypt(password, salt, &params, key.expose_mut()).ok()?;
    Some(key)
}

/// A key for one purpose: one block of HKDF-Expand with SHA-256 (RFC 5869), the label as its info.
pub(crate) fn subkey(key: &[u8; 32], label: &[u8]) -> Secret<[u8; 32]> {
    Secret::new(hmac_sha256(key, &[label, &[1]]))
}

/// Why 32 bytes are no key, or `None`.
///
/// Random bytes pass but for one in far more than 2^40; a password, a pattern or a run of one byte does not.
pub(crate) fn degenerate(key: &[u8; 32]) -> Option<&'static str> {
    let mut seen = [false; 256];
    key.iter().for_each(|byte| seen[usize::from(*byte)] = true);
    let step = key[1].wrapping_sub(key[0]);
    if seen.iter().filter(|seen| **seen).count() < 16 {
        Some("its bytes repeat themselves")
    } else if key.windows(2).all(|pair| pair[1].wrapping_sub(pair[0]) == step) {
        Some("its bytes follow a pattern")
    } else if key.iter().all(|byte| (b' '..=b'~').contains(byte)) {
        Some("it is text, like a password")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::hex;

    #[test]
    fn scrypt_is_the_one_of_the_rfc_and_never_below_its_floor() {
        // RFC 7914, section 12, has N = 2^14 and 64 bytes; this one is of Python's hashlib, N = 2^15.
        let key = scrypt_key(b"pleaseletmein", b"SodiumChloride", Cost::FLOOR).unwrap();
        assert_eq!(hex(key.expose()), "f72cbc204bdcfc3ff5b115d8508aec1566ff0ef3f658388601a3933078ef7ac8");
        for (log_n, r, p) in
            [(14, 8, 1), (0, 8, 1), (15, 7, 1), (15, 8, 0), (18, 8, 1), (15, 9, 1), (15, 8, 2), (63, 255, 255)]
        {
            assert!(scrypt_key(b"x", b"y", Cost { log_n, r, p }).is_none());
        }
    }

    #[test]
    fn a_subkey_is_hkdf_expand_and_another_for_each_label() {
        // RFC 5869, test case 3: its PRK, no info, the first 32 bytes of its OKM.
        let prk: [u8; 32] = [
            0x19, 0xef, 0x24, 0xa3, 0x2c, 0x71, 0x7b, 0x16, 0x7f, 0x33, 0xa9, 0x1d, 0x6f, 0x64, 0x8b, 0xdf, 0x96, 0x59,
            0x67, 0x76, 0xaf, 0xdb, 0x63, 0x77, 0xac, 0x43, 0x4c, 0x1c, 0x29, 0x3c, 0xcb, 0x04,
        ];
        let okm = "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d";
        assert_eq!(hex(subkey(&prk, b"").expose()), okm);
        assert_ne!(subkey(&prk, b"a").expose(), subkey(&prk, b"b").expose());
    }

    #[test]
    fn a_pattern_or_a_password_is_no_key() {
        let counting = std::array::from_fn(|at| at as u8);
        let steps = std::array::from_fn(|at| (at * 7) as u8);
        let two = std::array::from_fn(|at| [1, 2][at % 2]);
        for key in [[0; 32], [b'A'; 32], [0xff; 32], counting, steps, two, *b"correct horse battery staple no!"] {
            assert!(degenerate(&key).is_some(), "{key:?}");
        }
        assert_eq!(degenerate(&crate::crypto::sha256(&[b"anything"])), None);
    }
}
