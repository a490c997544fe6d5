//! The shared secret: a token compared by digest, or a password by bcrypt.
//!
//! bcrypt reads 72 bytes and stops at NUL, so a password is digested first, whole (TOK-06). It costs a
//! third of a second on purpose: it runs off the async threads, one at a time, and few may wait for it.

use crate::crypto::{self, SecretDigest};
use crate::model::Secret;
use std::sync::{PoisonError, RwLock};
use tokio::sync::Semaphore;

/// bcrypt's cost: 2^12 rounds.
const COST: u32 = 12;

/// Shortest and longest password, in bytes.
const SHORTEST: usize = 12;
const LONGEST: usize = 1024;

/// Passwords that wait to be verified; more are told to come back.
const MOST_WAITING: usize = 8;

/// What opens the door to whoever knows it.
pub(crate) enum Shared {
    Token(SecretDigest),
    /// The bcrypt hash, and the digest of the password it was last verified with.
    Password(String, Option<SecretDigest>),
}

/// Holds the secret and verifies what is presented.
pub(super) struct Keyhole {
    /// Random for this process: digests are made with it.
    key: [u8; 32],
    secret: RwLock<Option<Shared>>,
    verifying: Semaphore,
    waiting: Semaphore,
}

/// What came of presenting a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fit {
    Right,
    Wrong,
    /// Too many are being verified: neither right nor wrong.
    Busy,
}

impl Keyhole {
    pub(super) fn new(key: [u8; 32], secret: Option<Shared>) -> Self {
        let (verifying, waiting) = (Semaphore::new(1), Semaphore::new(MOST_WAITING));
        Keyhole { key, secret: RwLock::new(secret), verifying, waiting }
    }

    pub(super) fn digest(&self, secret: &str) -> SecretDigest {
        SecretDigest::of(&self.key, secret)
    }

    pub(super) fn replace(&self, secret: Shared) {
        *self.secret.write().unwrap_or_else(PoisonError::into_inner) = Some(secret);
    }

    /// Whether there is a token, a password, or nothing to know.
    pub(super) fn is_password(&self) -> Option<bool> {
        let secret = self.secret.read().unwrap_or_else(PoisonError::into_inner);
        secret.as_ref().map(|s| matches!(s, Shared::Password(..)))
    }

    /// Tries a secret.
    pub(super) async fn fits(&self, presented: &str) -> Fit {
        let digest = self.digest(presented);
        let hash = match self.secret.read().unwrap_or_else(PoisonError::into_inner).as_ref() {
            None => return Fit::Wrong,
            Some(Shared::Token(right)) => return if right.matches(&digest) { Fit::Right } else { Fit::Wrong },
            Some(Shared::Password(_, Some(known))) if known.matches(&digest) => return Fit::Right,
            Some(Shared::Password(hash, _)) => hash.clone(),
        };
        if presented.len() > LONGEST {
            return Fit::Wrong;
        }
        let Ok(_place) = self.waiting.try_acquire() else { return Fit::Busy };
        let Ok(_turn) = self.verifying.acquire().await else { return Fit::Busy };
        let (digested, expected) = (digested(presented), hash.clone());
        let verified = tokio::task::spawn_blocking(move || bcrypt::verify(digested.expose(), &expected)).await;
        if !matches!(verified, Ok(Ok(true))) {
            return Fit::Wrong;
        }
        // Known from now on, so that a right password costs its third of a second once.
        let mut secret = self.secret.write().unwrap_or_else(PoisonError::into_inner);
        match secret.as_mut() {
            Some(Shared::Password(now, known)) if *now == hash => {
                *known = Some(digest);
                Fit::Right
            }
            // It was replaced meanwhile.
            _ => Fit::Wrong,
        }
    }
}

/// What bcrypt is given: 44 characters that stand for every byte of the password.
fn digested(password: &str) -> Secret<String> {
    Secret::new(crypto::base64(&crypto::sha256(&[b"vambrace password\0", password.as_bytes()])))
}

/// The hash to keep of a password. Takes a third of a second.
///
/// # Errors
/// What is wrong with the password.
pub(crate) fn hash_password(password: &str) -> Result<String, &'static str> {
    if password.len() < SHORTEST {
        return Err("it has fewer than 12 bytes");
    }
    if password.len() > LONGEST {
        return Err("it has more than 1024 bytes");
    }
    if password.chars().any(char::is_control) {
        return Err("it holds a control character, which not every client can send");
    }
    if password.trim() != password {
        return Err("it begins or ends with a space, which clients cut off");
    }
    bcrypt::hash(digested(password).expose(), COST).map_err(|_| "bcrypt failed")
}

/// Whether a text is a bcrypt hash that is worth keeping.
pub(crate) fn is_sound_hash(hash: &str) -> bool {
    hash.len() == 60
        && hash.is_ascii()
        && hash.parse::<bcrypt::HashParts>().is_ok_and(|parts| (COST..=16).contains(&parts.get_cost()))
}

/// A fresh shared token: 256 random bits, base64url.
pub(crate) fn new_token(random: [u8; 32]) -> Secret<String> {
    Secret::new(crypto::base64url(&random))
}

/// Whether a token is one that nobody could guess or leave behind: `undefined`, `changeme` and the like are not.
pub(crate) fn is_sound_token(token: &str) -> bool {
    token.len() >= 16 && token.bytes().all(|b| b.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fits(keyhole: &Keyhole, presented: &str) -> Fit {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(keyhole.fits(presented))
    }

    #[test]
    fn every_byte_of_a_long_password_counts() {
        let (long, other) = (format!("{}X", "a".repeat(72)), format!("{}Y", "a".repeat(72)));
        let keyhole = Keyhole::new([1; 32], Some(Shared::Password(hash_password(&long).unwrap(), None)));
        assert_eq!(fits(&keyhole, &other), Fit::Wrong);
        assert_eq!(fits(&keyhole, &"a".repeat(72)), Fit::Wrong);
        assert_eq!(fits(&keyhole, &long), Fit::Right);
        // Known now; what is wrong stays wrong.
        assert_eq!(fits(&keyhole, &long), Fit::Right);
        assert_eq!(fits(&keyhole, &other), Fit::Wrong);
    }

    #[test]
    fn a_password_that_is_short_or_cannot_be_sent_is_not_taken() {
        for bad in ["", "short", "with\0nul in it", "trailing space ", &"x".repeat(1025)] {
            assert!(hash_password(bad).is_err(), "{bad:?}");
        }
        let good = hash_password("correct horse battery").unwrap();
        assert!(is_sound_hash(&good));
        let cheap = bcrypt::hash("x", 4).unwrap();
        for bad in ["", "x", cheap.as_str(), &good[..59]] {
            assert!(!is_sound_hash(bad), "{bad}");
        }
    }

    #[test]
    fn nothing_fits_where_there_is_nothing_to_know() {
        assert_eq!(fits(&Keyhole::new([1; 32], None), ""), Fit::Wrong);
    }
}
