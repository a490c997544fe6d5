//! Who we are to gateways beyond our unix socket: a key pair for each, and what each gave us.
//!
//! What a device signs does not name the gateway, so one key for two gateways would let the one be the device to the
//! other. The keys are derived from one seed and the gateway's address.
//! They lie in a sealed store of their own, a folder of the state. A token is kept under the very address it came from,
//! together with the certificate that was seen there, and is sent nowhere else (NET-16, TOK-08).

use crate::crypto::{self, KeyPair};
use crate::model::Secret;
use crate::os;
use crate::store::{Changes, KeySettings, KeySource, Name, Record, Store, StoreFault};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Our identity and what belongs to it. Opened when it is first needed, once: deriving its key takes a tenth of a second.
#[derive(Debug)]
pub(crate) struct Keyring {
    folder: PathBuf,
    held: OnceLock<Held>,
}

/// What was read.
struct Held {
    seed: Secret<[u8; 32]>,
    known: BTreeMap<String, Known>,
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Held(…)")
    }
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

/// The same as a row of the store.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KnownGateway {
    address: String,
    known: Known,
}

impl Record for KnownGateway {
    const KIND: &'static str = "known-gateway";

    fn key(&self) -> String {
        self.address.clone()
    }
}

/// The files that were here before there was a store: read once, to be sealed.
const PLAIN_SEED: &str = "identity";
const PLAIN_KNOWN: &str = "gateways.json";

impl Keyring {
    /// The keyring in this folder, which need not be there yet.
    pub(crate) fn at(folder: &Path) -> Self {
        Keyring { folder: folder.to_owned(), held: OnceLock::new() }
    }

    /// Our key pair for the gateway at this address.
    ///
    /// # Errors
    /// Where the keyring does not open.
    pub(crate) fn identity(&self, address: &str) -> io::Result<KeyPair> {
        let seed = &self.held()?.seed;
        let own = Secret::new(crypto::hmac_sha256(seed.expose(), &[b"vambrace device key\0", address.as_bytes()]));
        Ok(KeyPair::from_seed(own.expose()))
    }

    /// What we know of the gateway at this address.
    pub(crate) fn known(&self, address: &str) -> io::Result<Known> {
        Ok(self.held()?.known.get(address).cloned().unwrap_or_default())
    }

    /// Keeps what we know of a gateway.
    pub(crate) fn keep(&self, address: &str, known: &Known) -> io::Result<()> {
        let record = KnownGateway { address: address.to_owned(), known: known.clone() };
        self.open()?.apply(&Changes::default().put(&record)).map_err(fault)
    }

    /// Forgets what we know of a gateway: its certificate, and the token it gave us.
    pub(crate) fn forget(&self, address: &str) -> io::Result<()> {
        self.open()?.apply(&Changes::default().remove::<KnownGateway>(address)).map_err(fault)
    }

    fn held(&self) -> io::Result<&Held> {
        if let Some(held) = self.held.get() {
            return Ok(held);
        }
        let held = self.read(&self.open()?)?;
        Ok(self.held.get_or_init(|| held))
    }

    fn open(&self) -> io::Result<Store> {
        // Always the machine's own key: a command line is not started by a service manager.
        let settings = KeySettings { wanted: Some(KeySource::Machine), ..Default::default() };
        Store::open_waiting(&self.folder, &settings).map_err(fault)
    }

    fn read(&self, store: &Store) -> io::Result<Held> {
        self.seal_plain(store)?;
        let seed = match store.load(Name::ClientSeed).map_err(fault)? {
            Some(seed) => seed,
            None => {
                let seed = Secret::new(os::host::random::<32>().to_vec());
                store.save(Name::ClientSeed, seed.expose()).map_err(fault)?;
                seed
            }
        };
        let whole = <[u8; 32]>::try_from(seed.expose().as_slice()).map(Secret::new);
        let seed = whole.map_err(|_| io::Error::other("what is kept as our identity is no seed of 32 bytes"))?;
        let known = store.all::<KnownGateway>().map_err(fault)?;
        Ok(Held { seed, known: known.into_iter().map(|gateway| (gateway.address, gateway.known)).collect() })
    }

    /// Seals what lies here in plain from before. Where there is a sealed seed, plain files are not read any more.
    fn seal_plain(&self, store: &Store) -> io::Result<()> {
        let (seed_path, known_path) = (self.folder.join(PLAIN_SEED), self.folder.join(PLAIN_KNOWN));
        if store.load(Name::ClientSeed).map_err(fault)?.is_none()
            && let Some(seed) = os::fs::read_private(&seed_path, 64)?.map(Secret::new)
        {
            let known = os::fs::read_private(&known_path, 1 << 20)?.unwrap_or_else(|| b"{}".to_vec());
            let known: BTreeMap<String, Known> = serde_json::from_slice(&known)
                .map_err(|e| io::Error::other(format!("{}: {e}", known_path.display())))?;
            let records = known.into_iter().map(|(address, known)| KnownGateway { address, known });
            let changes = records.fold(Changes::default(), |changes, record| changes.put(&record));
            store.apply(&changes).and_then(|()| store.save(Name::ClientSeed, seed.expose())).map_err(fault)?;
        }
        [seed_path, known_path].iter().try_for_each(|path| os::fs::wipe(path))
    }
}

fn fault(fault: StoreFault) -> io::Error {
    io::Error::other(format!("{fault}; {}", fault.hint()))
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
        let keyring = Keyring::at(&folder);
        assert_eq!(keyring.known("wss://a:1").unwrap().device_token.as_deref(), Some("T"));
        assert!(keyring.known("wss://a:2").unwrap().device_token.is_none());
        let id = |address: &str| device_id(&keyring.identity(address).unwrap());
        assert_eq!(id("wss://a:1"), id("wss://a:1"));
        assert_ne!(id("wss://a:1"), id("wss://a:2"), "what is signed for one gateway is nothing to another");
        assert!(!format!("{known:?}{keyring:?}").contains("\"T\""));
        keyring.forget("wss://a:1").unwrap();
        assert!(Keyring::at(&folder).known("wss://a:1").unwrap().device_token.is_none());
        std::fs::remove_dir_all(folder).unwrap();
    }
}
