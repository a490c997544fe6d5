//! Sealing: XAES-256-GCM, which is AES-256-GCM under a key of each message's own.
//!
//! The first half of a 192-bit nonce derives the message's key, the second half is the nonce of AES-GCM (C2SP
//! XAES-256-GCM). The nonce is random, so no counter can be lost, set back or cloned with a folder: after 2^80 messages
//! under one key the chance that two nonces were the same is 2^-32.

use crate::model::Secret;
use xaes_256_gcm::Xaes256Gcm;
use xaes_256_gcm::aead::inout::InOutBuf;
use xaes_256_gcm::aead::{AeadInOut, KeyInit};

/// Bytes of a nonce.
pub(crate) const NONCE: usize = 24;

/// Bytes of a tag.
pub(crate) const TAG: usize = 16;

/// A key that seals and opens. It holds no memory elsewhere, so it can lie in a locked page as a whole.
pub(crate) struct SealingKey(Xaes256Gcm);

impl SealingKey {
    pub(crate) fn new(key: &[u8; 32]) -> Self {
        SealingKey(Xaes256Gcm::new(key.into()))
    }

    /// Seals: nonce ‖ ciphertext ‖ tag. The nonce must be random.
    ///
    /// `about` is what the message belongs to; it opens with the same bytes alone.
    pub(crate) fn seal(&self, nonce: &[u8; NONCE], about: &[u8], plain: &[u8]) -> Vec<u8> {
        let mut sealed = Vec::with_capacity(NONCE + plain.len() + TAG);
        sealed.extend_from_slice(nonce);
        sealed.extend_from_slice(plain);
        let tag = self.0.encrypt_inout_detached(nonce.into(), about, InOutBuf::from(&mut sealed[NONCE..]));
        // The bounds of AES-GCM are 64 GiB.
        sealed.extend_from_slice(&tag.expect("a record is far below what AES-GCM takes"));
        sealed
    }

    /// Opens what was sealed about the same; `None` where a bit of either is another, or the key is.
    pub(crate) fn open(&self, about: &[u8], sealed: &[u8]) -> Option<Secret<Vec<u8>>> {
        let (nonce, rest) = sealed.split_first_chunk::<NONCE>()?;
        let (ciphertext, tag) = rest.split_last_chunk::<TAG>()?;
        let mut plain = Secret::new(ciphertext.to_vec());
        let buffer = InOutBuf::from(plain.expose_mut().as_mut_slice());
        self.0.decrypt_inout_detached(nonce.into(), about, buffer, tag.into()).ok()?;
        Some(plain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn sealing_is_the_one_of_c2sp() {
        // The two vectors of the C2SP specification of XAES-256-GCM.
        let nonce = b"ABCDEFGHIJKLMNOPQRSTUVWX";
        let sealed = SealingKey::new(&[1; 32]).seal(nonce, b"", b"XAES-256-GCM");
        assert_eq!(hex(&sealed[NONCE..]), "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271");
        let sealed = SealingKey::new(&[3; 32]).seal(nonce, b"c2sp.org/XAES-256-GCM", b"XAES-256-GCM");
        assert_eq!(hex(&sealed[NONCE..]), "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d");
    }

    #[test]
    fn what_was_sealed_opens_with_its_key_and_subject_alone_and_whole() {
        let key = SealingKey::new(&[7; 32]);
        let sealed = key.seal(&[9; NONCE], b"about", b"plain");
        assert_eq!(key.open(b"about", &sealed).unwrap().expose(), b"plain");
        assert!(key.open(b"abouT", &sealed).is_none());
        assert!(SealingKey::new(&[8; 32]).open(b"about", &sealed).is_none());
        for at in 0..sealed.len() * 8 {
            let mut bent = sealed.clone();
            bent[at / 8] ^= 1 << (at % 8);
            assert!(key.open(b"about", &bent).is_none(), "bit {at}");
        }
        for length in 0..sealed.len() {
            assert!(key.open(b"about", &sealed[..length]).is_none(), "{length} bytes");
        }
    }
}
