//! Digests, signatures, text encodings of bytes: pure functions, no keys kept, no I/O.

mod certificate;
mod kdf;
mod seal;

pub(crate) use certificate::{fingerprint, parse_fingerprint, self_signed};
pub(crate) use kdf::{Cost, degenerate, scrypt_key, subkey};
pub(crate) use seal::{NONCE, SealingKey, TAG};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ed25519_dalek::{Signature, SigningKey, VerifyingKey};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// SHA-256 of the parts, one after the other.
pub(crate) fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update(part);
    }
    digest.finalize().into()
}

/// HMAC-SHA256 (RFC 2104) of the parts, one after the other.
pub(crate) fn hmac_sha256(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

/// Whether two digests are the same, in constant time.
pub(crate) fn same(a: &[u8; 32], b: &[u8]) -> bool {
    b.len() == a.len() && bool::from(a[..].ct_eq(b))
}

/// Reads hex of exactly so many bytes, in either case.
pub(crate) fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    let digit = |at: usize| char::from(digits[at]).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let mut bytes = [0; N];
    if digits.len() != 2 * N {
        return None;
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = digit(2 * at)? << 4 | digit(2 * at + 1)?;
    }
    Some(bytes)
}

/// Lowercase hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Base64 with padding (RFC 4648, section 4).
pub(crate) fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// Base64url without padding (RFC 4648, section 5).
pub(crate) fn base64url(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Reads base64url without padding.
pub(crate) fn from_base64url(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

/// Reads base64 with padding.
pub(crate) fn from_base64(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}

/// The keyed digest of a shared secret, compared instead of the secret itself.
///
/// Fixed length whatever was presented, so that neither the length nor a common prefix shows in the time taken.
#[derive(Clone)]
pub(crate) struct SecretDigest([u8; 32]);

impl SecretDigest {
    /// `key` is random for each process: digests of two processes cannot be compared.
    pub(crate) fn of(key: &[u8; 32], secret: &str) -> Self {
        SecretDigest(sha256(&[b"vambrace shared secret\0", key, secret.as_bytes()]))
    }

    /// Whether both are digests of the same secret, in constant time.
    pub(crate) fn matches(&self, other: &SecretDigest) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

/// An Ed25519 public key that is safe to verify with.
pub(crate) struct PublicKey(VerifyingKey);

impl PublicKey {
    /// Reads the raw 32 bytes; a key of small order verifies anything and is refused.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let key = VerifyingKey::from_bytes(bytes.try_into().ok()?).ok()?;
        (!key.is_weak()).then_some(PublicKey(key))
    }

    /// Verifies strictly (RFC 8032 with the cofactor-less equation and canonical encodings).
    pub(crate) fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        Signature::from_slice(signature).is_ok_and(|s| self.0.verify_strict(message, &s).is_ok())
    }
}

/// An Ed25519 key pair from its 32 secret bytes.
pub(crate) struct KeyPair(SigningKey);

impl KeyPair {
    pub(crate) fn from_seed(seed: &[u8; 32]) -> Self {
        KeyPair(SigningKey::from_bytes(seed))
    }

    /// The raw public key.
    pub(crate) fn public(&self) -> [u8; 32] {
        self.0.verifying_key().to_bytes()
    }

    /// Signs a message.
    pub(crate) fn sign(&self, message: &[u8]) -> [u8; 64] {
        use ed25519_dalek::Signer;
        self.0.sign(message).to_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_the_one_of_the_standard() {
        // FIPS 180-4, example "abc".
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hex(&sha256(&[b"a", b"bc"])), expected);
    }

    #[test]
    fn secrets_of_any_length_compare_by_digest() {
        let key = [7; 32];
        let right = SecretDigest::of(&key, "a secret");
        assert!(right.matches(&SecretDigest::of(&key, "a secret")));
        for wrong in ["", "a", "a secre", "a secret ", &"a".repeat(4096)] {
            assert!(!right.matches(&SecretDigest::of(&key, wrong)), "{wrong:?}");
        }
        assert!(!right.matches(&SecretDigest::of(&[8; 32], "a secret")));
    }

    #[test]
    fn hmac_is_the_one_of_rfc_4231() {
        let tag = hmac_sha256(b"Jefe", &[b"what do ya want ", b"for nothing?"]);
        assert_eq!(hex(&tag), "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
        assert!(same(&tag, &tag) && !same(&tag, &tag[..31]) && !same(&tag, &[0; 32]));
    }

    #[test]
    fn a_signature_holds_for_its_message_and_key_alone() {
        let pair = KeyPair::from_seed(&[1; 32]);
        let key = PublicKey::parse(&pair.public()).unwrap();
        let signature = pair.sign(b"message");
        assert!(key.verify(b"message", &signature));
        assert!(!key.verify(b"massage", &signature));
        assert!(!key.verify(b"message", &signature[..63]));
        assert!(!PublicKey::parse(&KeyPair::from_seed(&[2; 32]).public()).unwrap().verify(b"message", &signature));
    }

    #[test]
    fn a_key_of_small_order_is_no_key() {
        let mut identity = [0; 32];
        identity[0] = 1;
        for weak in [[0; 32], identity] {
            assert!(PublicKey::parse(&weak).is_none());
        }
        assert!(PublicKey::parse(&[1; 31]).is_none());
    }
}
