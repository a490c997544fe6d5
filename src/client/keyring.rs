//! Who we are to gateways beyond our unix socket: a key pair for each, and what each gave us.
//!
//! What a device signs does not name the gateway, so one key for two gateways would let the one be the device to the
//! other. The keys are derived from one seed and the gateway's address.
//! Files of mode 0600 in a folder of the state. A token is kept under the very address it came from, together with
//! the certificate that was seen there, and is sent nowhere else (NET-16, TOK-08).

use crate::crypto::{self, KeyPair};
use crate::model::Secret;
use crate::os;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// The folder of our identity and what belongs to it.
#[derive(Debug)]
pub(crate) struct Keyring {
    folder: PathBuf,
}

/// What we know of one gateway.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub(crate) struct Known {
    /// The certificate it must show, as `sha256:` and hex.
    pub(crate) fingerprint: Option<String>,
    pub(crate) device_token: Option<String>,
}

impl std::fmt::Debug for Known {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Known({:?}, …)", self.fingerprint)
    }
}

const MOST: u64 = 1 << 20;

impl Keyring {
    /// The keyring in this folder, which need not be there yet.
    pub(crate) fn at(folder: &Path) -> Self {
        Keyring { folder: folder.to_owned() }
    }

    /// Our key pair for the gateway at this address.
    ///
    /// # Errors
    /// Where the seed cannot be read or made, or others can read it.
    pub(crate) fn identity(&self, address: &str) -> io::Result<KeyPair> {
        let seed = self.seed()?;
        let own = Secret::new(crypto::hmac_sha256(seed.expose(), &[b"vambrace device key\0", address.as_bytes()]));
        Ok(KeyPair::from_seed(own.expose()))
    }

    fn seed(&self) -> io::Result<Secret<[u8; 32]>> {
        let path = self.folder.join("identity");
        if let Some(seed) = os::fs::read_private(&path, 64)? {
            let seed = Secret::new(seed);
            let whole = <[u8; 32]>::try_from(seed.expose().as_slice()).map(Secret::new);
            return whole.map_err(|_| io::Error::other(format!("{} is no seed of ours", path.display())));
        }
        os::fs::private_dir(&self.folder)?;
        let seed: [u8; 32] = os::host::random();
        os::fs::write_private(&path, &seed)?;
        Ok(Secret::new(seed))
    }

    /// What we know of the gateway at this address.
    pub(crate) fn known(&self, address: &str) -> io::Result<Known> {
        Ok(self.all()?.remove(address).unwrap_or_default())
    }

    /// Keeps what we know of a gateway.
    pub(crate) fn keep(&self, address: &str, known: &Known) -> io::Result<()> {
        os::fs::private_dir(&self.folder)?;
        let _alone = os::fs::lock_waiting(&self.folder.join("lock"))?;
        let mut all = self.all()?;
        all.insert(address.to_owned(), known.clone());
        os::fs::write_private(&self.path(), &serde_json::to_vec_pretty(&all)?)
    }

    fn path(&self) -> PathBuf {
        self.folder.join("gateways.json")
    }

    fn all(&self) -> io::Result<BTreeMap<String, Known>> {
        let Some(bytes) = os::fs::read_private(&self.path(), MOST)? else { return Ok(BTreeMap::new()) };
        serde_json::from_slice(&bytes).map_err(|e| io::Error::other(format!("{}: {e}", self.path().display())))
    }
}

/// The id of the device with this key.
pub(crate) fn device_id(key: &KeyPair) -> String {
    crypto::hex(&crypto::sha256(&[&key.public()]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_of_a_gateway_is_kept_under_its_address_alone() {
        let folder = std::env::temp_dir().join(format!("vambrace-keyring-{}", std::process::id()));
        let keyring = Keyring::at(&folder);
        let known = Known { fingerprint: None, device_token: Some("T".into()) };
        keyring.keep("wss://a:1", &known).unwrap();
        assert_eq!(keyring.known("wss://a:1").unwrap().device_token.as_deref(), Some("T"));
        assert!(keyring.known("wss://a:2").unwrap().device_token.is_none());
        let id = |address: &str| device_id(&keyring.identity(address).unwrap());
        assert_eq!(id("wss://a:1"), id("wss://a:1"));
        assert_ne!(id("wss://a:1"), id("wss://a:2"), "what is signed for one gateway is nothing to another");
        assert!(!format!("{known:?}").contains('T'));
        std::fs::remove_dir_all(folder).unwrap();
    }
}
