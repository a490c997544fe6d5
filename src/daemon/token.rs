//! The shared secrets in the store: a token made at the first start, a password when one is set.

use crate::auth::{is_sound_hash, is_sound_token, new_token};
use crate::gateway::TokenKeeper;
use crate::model::Secret;
use crate::os;
use crate::store::{KeySettings, Name, Store, StoreFault};
use std::io;
use std::path::Path;
use std::sync::Arc;

pub(super) struct StoredToken {
    store: Arc<Store>,
}

impl StoredToken {
    /// Opens the token, making one where there is none.
    pub(super) fn open(store: Arc<Store>) -> Result<Self, StoreFault> {
        let token = StoredToken { store };
        if token.store.load(Name::GatewayToken)?.is_none() {
            token.replace()?;
        }
        Ok(token)
    }

    /// The token.
    ///
    /// # Errors
    /// Also where what is stored could be guessed: a blank or a placeholder never opens a door.
    pub(super) fn load(&self) -> Result<Secret<String>, StoreFault> {
        let bytes = self.store.load(Name::GatewayToken)?;
        let text = bytes.and_then(|b| String::from_utf8(b.expose().clone()).ok()).unwrap_or_default();
        let token = Secret::new(text.trim().to_owned());
        if is_sound_token(token.expose()) {
            return Ok(token);
        }
        let cause =
            io::Error::other("it holds no token of at least 16 visible ASCII characters; remove it to have one made");
        Err(StoreFault::Read { path: "gateway-token".into(), cause })
    }

    /// The bcrypt hash of the password, where there is one.
    ///
    /// # Errors
    /// Also where what is stored is no such hash, or too cheap a one.
    pub(super) fn password(&self) -> Result<Option<String>, StoreFault> {
        let Some(bytes) = self.store.load(Name::GatewayPassword)? else { return Ok(None) };
        let hash = String::from_utf8(bytes.expose().clone()).unwrap_or_default().trim().to_owned();
        if is_sound_hash(&hash) {
            return Ok(Some(hash));
        }
        let cause = io::Error::other("it holds no bcrypt hash of cost 12 to 16; `vambrace password set` writes one");
        Err(StoreFault::Read { path: "gateway-password".into(), cause })
    }

    fn replace(&self) -> Result<Secret<String>, StoreFault> {
        let token = new_token(os::host::random());
        self.store.save(Name::GatewayToken, token.expose().as_bytes())?;
        Ok(token)
    }
}

impl TokenKeeper for StoredToken {
    fn show(&self) -> Result<Secret<String>, String> {
        self.load().map_err(|e| e.to_string())
    }

    fn rotate(&self) -> Result<Secret<String>, String> {
        self.replace().map_err(|e| e.to_string())
    }

    fn set_password(&self, hash: &str) -> Result<(), String> {
        self.store.save(Name::GatewayPassword, hash.as_bytes()).map_err(|e| e.to_string())
    }
}

/// Keeps the hash of a password where no gateway runs that could be asked to.
pub(crate) fn keep_password(state: &Path, keys: &KeySettings, hash: &str) -> Result<(), StoreFault> {
    Store::open(state, keys)?.save(Name::GatewayPassword, hash.as_bytes())
}
