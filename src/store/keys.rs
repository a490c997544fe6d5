//! Where the key comes from that opens the store: a systemd credential, a key file, or the machine itself.
//!
//! The header of the store says which one it was. Another is never tried in its place: a store that was sealed with a
//! credential does not open by the machine's key because the credential is gone.

use super::StoreFault;
use super::seal::Header;
use crate::crypto::{self, Cost};
use crate::model::Secret;
use crate::os;
use std::fmt;
use std::path::{Path, PathBuf};

/// A source of the key, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeySource {
    /// `LoadCredentialEncrypted` of systemd: bound to the TPM where there is one.
    Credential,
    /// A file of the operator's.
    KeyFile,
    /// scrypt of the host's id and a random salt file.
    Machine,
}

impl KeySource {
    /// The word in `status` and the configuration.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            KeySource::Credential => "systemd-credential",
            KeySource::KeyFile => "key-file",
            KeySource::Machine => "machine",
        }
    }

    /// The byte in the header. 4 is kept for the macOS keychain.
    pub(super) fn code(self) -> u8 {
        match self {
            KeySource::Machine => 1,
            KeySource::KeyFile => 2,
            KeySource::Credential => 3,
        }
    }

    pub(super) fn from_code(code: u8) -> Option<Self> {
        [KeySource::Machine, KeySource::KeyFile, KeySource::Credential].into_iter().find(|s| s.code() == code)
    }
}

impl fmt::Display for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What is configured about the key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct KeySettings {
    /// The source for new keys; without it the best there is.
    pub(crate) wanted: Option<KeySource>,
    pub(crate) key_file: Option<PathBuf>,
    /// The file before it, for as long as the store is sealed with that.
    pub(crate) previous_key_file: Option<PathBuf>,
    /// Where systemd puts credentials ($CREDENTIALS_DIRECTORY).
    pub(crate) credentials: Option<PathBuf>,
}

/// The credential's name in a unit, and that of the one before it.
const CREDENTIALS: [&str; 2] = ["vambrace.key", "vambrace.key-previous"];

/// The salt's file, and the one that a rotation writes before it is needed.
pub(super) const SALT: &str = "salt";
pub(super) const NEXT_SALT: &str = "next-salt";

/// Where the salt of a machine's key comes from.
#[derive(Debug, Clone, Copy)]
pub(super) enum Salt<'a> {
    New,
    /// The one of this folder, if it has one.
    OfFolder(&'a Path),
}

/// Which keys of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Which {
    InForce,
    /// Also the one before it.
    Any,
}

/// A key-encryption key with what the header says of it.
pub(super) struct Wrapping {
    pub(super) source: KeySource,
    pub(super) cost: Option<Cost>,
    pub(super) has_host_id: bool,
    pub(super) id: [u8; 8],
    pub(super) key: Secret<[u8; 32]>,
}

/// A new key, and the salt it was made with if it was.
type Fresh = (Wrapping, Option<Secret<[u8; 32]>>);

impl KeySettings {
    /// The source that a new key would come from.
    pub(crate) fn best(&self) -> KeySource {
        let has_credential =
            || self.credentials.as_ref().is_some_and(|folder| folder.join(CREDENTIALS[0]).symlink_metadata().is_ok());
        match self.wanted {
            Some(wanted) => wanted,
            None if has_credential() => KeySource::Credential,
            None if self.key_file.is_some() => KeySource::KeyFile,
            None => KeySource::Machine,
        }
    }

    /// The key for a store that is sealed anew, and its salt where it has one. Never the key before a rotation.
    pub(super) fn fresh(&self, salt: Salt<'_>) -> Result<Fresh, StoreFault> {
        let source = self.best();
        if source != KeySource::Machine {
            let found = self.own_keys(source, Which::InForce)?;
            let right = found.into_iter().next().ok_or_else(|| no_key(source, self.missing(source)))?;
            return Ok((right, None));
        }
        let salt = match salt {
            Salt::New => None,
            // One that lies there already may be another state's, which somebody has moved away for a while.
            Salt::OfFolder(folder) => read_salt(&folder.join(SALT)).unwrap_or_default(),
        };
        let salt = salt.unwrap_or_else(|| Secret::new(os::host::random()));
        let wrapping = machine(salt.expose(), os::host::machine_id().as_deref(), Cost::FLOOR)
            .ok_or_else(|| no_key(source, "scrypt did not take its own floor".into()))?;
        Ok((wrapping, Some(salt)))
    }

    /// The key that this header was sealed with.
    pub(super) fn find(&self, header: &Header, folder: &Path) -> Result<Wrapping, StoreFault> {
        let source = header.source;
        if source != KeySource::Machine {
            let found = self.own_keys(source, Which::Any)?;
            if found.is_empty() {
                return Err(no_key(source, self.missing(source)));
            }
            let right = found.into_iter().find(|wrapping| wrapping.id == header.key_id);
            return right.ok_or_else(|| wrong_key(source, "it is another key than the one the state was sealed with"));
        }
        let Some(cost) = header.cost.filter(|cost| cost.is_sound()) else {
            return Err(StoreFault::Damaged { what: "the header: its scrypt parameters are none of ours".into() });
        };
        let mut salts = Vec::new();
        salts.extend(read_salt(&folder.join(NEXT_SALT)).unwrap_or_default());
        if !salts.iter().any(|salt| salt_id(salt) == header.key_id) {
            salts.extend(read_salt(&folder.join(SALT))?);
        }
        if salts.is_empty() {
            return Err(no_key(source, format!("the salt {} is missing", folder.join(SALT).display())));
        }
        let Some(salt) = salts.iter().find(|salt| salt_id(salt) == header.key_id) else {
            return Err(wrong_key(source, "the salt is another than the one the state was sealed with"));
        };
        let host_id = if header.has_host_id { os::host::machine_id() } else { None };
        if header.has_host_id && host_id.is_none() {
            return Err(no_key(source, format!("{} is missing or empty", os::host::MACHINE_ID)));
        }
        machine(salt.expose(), host_id.as_deref(), cost).ok_or_else(|| no_key(source, "scrypt did not run".into()))
    }

    /// The keys that a source other than the machine has at hand: the one in force, then the one before.
    fn own_keys(&self, source: KeySource, which: Which) -> Result<Vec<Wrapping>, StoreFault> {
        let most = if which == Which::InForce { 1 } else { 2 };
        let mut found = Vec::new();
        match source {
            KeySource::Credential => {
                for name in &CREDENTIALS[..most] {
                    let Some(path) = self.credentials.as_ref().map(|folder| folder.join(name)) else { continue };
                    let bytes = os::fs::read_credential(&path, MOST).map_err(|e| unusable(source, &path, &e))?;
                    found.extend(bytes.map(|bytes| own(source, &path, &Secret::new(bytes))).transpose()?);
                }
            }
            KeySource::KeyFile => {
                for path in [&self.key_file, &self.previous_key_file].into_iter().take(most).flatten() {
                    let bytes = os::fs::read_key(path, MOST).map_err(|e| unusable(source, path, &e))?;
                    found.extend(bytes.map(|bytes| own(source, path, &Secret::new(bytes))).transpose()?);
                }
            }
            KeySource::Machine => {}
        }
        Ok(found)
    }

    fn missing(&self, source: KeySource) -> String {
        match (source, &self.credentials, &self.key_file) {
            (KeySource::Credential, Some(folder), _) => format!("{} holds no {}", folder.display(), CREDENTIALS[0]),
            (KeySource::Credential, None, _) => "systemd gave this process no credentials".into(),
            (_, _, Some(path)) => format!("there is no {}", path.display()),
            (_, _, None) => "store.key_file is not set".into(),
        }
    }
}

/// Bytes of the largest key file: 64 hex digits and a line's end, with room to say what is wrong with a larger one.
const MOST: u64 = 4096;

fn read_salt(path: &Path) -> Result<Option<Secret<[u8; 32]>>, StoreFault> {
    let bytes = os::fs::read_private(path, MOST).map_err(|cause| StoreFault::Read { path: path.to_owned(), cause })?;
    let Some(bytes) = bytes.map(Secret::new) else { return Ok(None) };
    let salt = bytes.expose().as_slice().try_into();
    salt.map(|salt| Some(Secret::new(salt))).map_err(|_| StoreFault::Damaged {
        what: format!("the salt {}: it has {} bytes instead of 32", path.display(), bytes.expose().len()),
    })
}

/// Whether these bytes are the salt that a key was made with.
pub(super) fn is_salt_of(bytes: &[u8], id: [u8; 8]) -> bool {
    <[u8; 32]>::try_from(bytes).is_ok_and(|salt| salt_id(&Secret::new(salt)) == id)
}

fn salt_id(salt: &Secret<[u8; 32]>) -> [u8; 8] {
    first_eight(&crypto::sha256(&[b"vambrace salt id\0", salt.expose()]))
}

fn first_eight(bytes: &[u8; 32]) -> [u8; 8] {
    std::array::from_fn(|at| bytes[at])
}

/// The machine's key. Public and secret parts are what they are: see SECURITY.md.
pub(super) fn machine(salt: &[u8; 32], host_id: Option<&str>, cost: Cost) -> Option<Wrapping> {
    let password = format!("vambrace machine key\0{}", host_id.unwrap_or_default());
    let key = crypto::scrypt_key(password.as_bytes(), salt, cost)?;
    Some(Wrapping {
        source: KeySource::Machine,
        cost: Some(cost),
        has_host_id: host_id.is_some(),
        id: salt_id(&Secret::new(*salt)),
        key,
    })
}

/// A key of its own: 32 random bytes, raw or as 64 hex digits.
fn own(source: KeySource, path: &Path, bytes: &Secret<Vec<u8>>) -> Result<Wrapping, StoreFault> {
    let refuse = |why: &str| no_key(source, format!("{} holds no key: {why}", path.display()));
    let raw = bytes.expose().as_slice();
    let text = std::str::from_utf8(raw).map(|text| text.trim_end_matches(['\n', '\r'])).unwrap_or_default();
    let key = match <[u8; 32]>::try_from(raw) {
        Ok(key) => Secret::new(key),
        Err(_) => Secret::new(
            crypto::from_hex::<32>(text).ok_or_else(|| refuse("it has to be 32 random bytes, or 64 hex digits"))?,
        ),
    };
    if let Some(why) = crypto::degenerate(key.expose()) {
        return Err(refuse(why));
    }
    let wrapping = crypto::subkey(key.expose(), b"vambrace key-encryption key");
    let id = first_eight(crypto::subkey(key.expose(), b"vambrace key id").expose());
    Ok(Wrapping { source, cost: None, has_host_id: false, id, key: wrapping })
}

fn unusable(source: KeySource, path: &Path, cause: &std::io::Error) -> StoreFault {
    no_key(source, format!("{}: {cause}", path.display()))
}

fn no_key(source: KeySource, why: String) -> StoreFault {
    StoreFault::NoKey { key: source, why }
}

fn wrong_key(source: KeySource, why: &'static str) -> StoreFault {
    StoreFault::WrongKey { key: source, why }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Wrapping, StoreFault> {
        own(KeySource::KeyFile, Path::new("key"), &Secret::new(bytes.to_vec()))
    }

    #[test]
    fn a_key_is_the_same_raw_and_in_hex_and_nothing_else_is_one() {
        let key = crypto::sha256(&[b"random"]);
        let hex = crypto::hex(&key);
        let raw = read(&key).unwrap();
        for same in [hex.clone(), format!("{hex}\n"), hex.to_uppercase()] {
            let other = read(same.as_bytes()).unwrap();
            assert_eq!((other.key.expose(), other.id), (raw.key.expose(), raw.id));
        }
        assert_ne!(raw.key.expose(), &key, "the key itself never seals");
        for wrong in [&b""[..], &key[..31], &hex.as_bytes()[..63], format!("{hex}00").as_bytes(), &[0; 32], &[b'A'; 32]]
        {
            assert!(read(wrong).is_err(), "{wrong:?}");
        }
        assert!(read("0".repeat(64).as_bytes()).is_err());
    }

    #[test]
    fn the_machines_key_depends_on_its_salt_and_its_id() {
        let key = |salt: u8, id: Option<&str>| machine(&[salt; 32], id, Cost::FLOOR).unwrap().key.expose().to_vec();
        let one = key(1, Some("a"));
        assert_eq!(one, key(1, Some("a")));
        assert!(one != key(2, Some("a")) && one != key(1, Some("b")) && one != key(1, None));
    }

    #[test]
    fn the_best_source_is_the_first_there_is() {
        let mut settings = KeySettings::default();
        assert_eq!(settings.best(), KeySource::Machine);
        settings.credentials = Some("/nonexistent".into());
        assert_eq!(settings.best(), KeySource::Machine);
        settings.key_file = Some("/nonexistent".into());
        assert_eq!(settings.best(), KeySource::KeyFile);
        settings.wanted = Some(KeySource::Machine);
        assert_eq!(settings.best(), KeySource::Machine);
    }
}
