//! Everything that is kept, as one file that opens on another machine: rows in plain, inside an age envelope.
//!
//! The envelope is the age format through its own library. What is inside stands in `docs/store-format.md`.

use super::table::{SECRET_VALUE, Tables, read_record};
use super::{
    Counter, DeviceRecord, InviteRecord, KeySettings, Name, NodeRecord, NodeRequest, NonceRecord, OWN, PairingRequest,
    PlainRow, Record, ReplayFloor, SecretRecord, Store, StoreFault, TABLES, found_aside, plain, take_place,
};
use crate::model::{LONGEST_SECRET, SHORTEST_SECRET, Secret, SecretName};
use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::path::Path;

/// First bytes of what is inside, with its version.
const MAGIC: &[u8; 5] = b"VMBB\x01";

/// Bytes of the largest backup that is read.
pub(crate) const LARGEST: u64 = 256 << 20;

/// Whom a backup is sealed for, as a public key or as a passphrase.
pub(crate) enum Lock {
    /// `age1…`
    Recipient(String),
    Passphrase(Secret<String>),
}

/// What opens a backup.
pub(crate) enum Opener {
    /// `AGE-SECRET-KEY-1…`, one or more, a line each; lines with `#` are comments.
    Identities(Secret<String>),
    Passphrase(Secret<String>),
}

/// Why a backup cannot be made or read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BackupFault {
    #[error("{0:?} is no age recipient")]
    Recipient(String),
    #[error("there is no age identity in what was given")]
    Identity,
    #[error("the backup does not open: {0}")]
    Locked(&'static str),
    #[error("what is inside is no backup of ours: {0}")]
    Content(&'static str),
    #[error("the backup cannot be sealed: {0}")]
    Seal(io::Error),
    #[error("there is a state in {0} already")]
    Occupied(std::path::PathBuf),
    #[error(transparent)]
    Store(#[from] StoreFault),
}

impl BackupFault {
    /// What the reader can do about it.
    pub(crate) fn hint(&self) -> &'static str {
        match self {
            BackupFault::Recipient(_) => "a recipient is what `age-keygen` calls the public key: age1 and 58 letters",
            BackupFault::Identity => "give the file that `age-keygen` wrote; it has a line AGE-SECRET-KEY-1…",
            BackupFault::Locked(_) => "is it the right file, with the right passphrase or identity, and whole?",
            BackupFault::Content(_) => "it was made by something else, or by a newer version",
            BackupFault::Seal(_) => "is there memory?",
            BackupFault::Occupied(_) => "choose an empty --state-dir, or say --replace to lose what is there",
            BackupFault::Store(fault) => fault.hint(),
        }
    }
}

/// Seals bytes for whoever is to open them.
pub(crate) fn lock(content: &Secret<Vec<u8>>, lock: &Lock) -> Result<Vec<u8>, BackupFault> {
    let encryptor = match lock {
        Lock::Recipient(text) => {
            let recipient: age::x25519::Recipient =
                text.trim().parse().map_err(|_| BackupFault::Recipient(text.chars().take(80).collect()))?;
            let only = std::iter::once(&recipient as &dyn age::Recipient);
            age::Encryptor::with_recipients(only).map_err(|_| BackupFault::Seal(io::Error::other("no recipient")))?
        }
        Lock::Passphrase(passphrase) => age::Encryptor::with_user_passphrase(passphrase.expose().clone().into()),
    };
    let mut sealed = Vec::with_capacity(content.expose().len() + 1024);
    let mut writer = encryptor.wrap_output(&mut sealed).map_err(BackupFault::Seal)?;
    writer.write_all(content.expose()).and_then(|()| writer.finish().map(drop)).map_err(BackupFault::Seal)?;
    Ok(sealed)
}

/// Opens what was sealed.
pub(crate) fn unlock(sealed: &[u8], opener: &Opener) -> Result<Secret<Vec<u8>>, BackupFault> {
    let locked = |e: age::DecryptError| BackupFault::Locked(refusal(&e));
    let decryptor = age::Decryptor::new(sealed).map_err(locked)?;
    let identities: Vec<Box<dyn age::Identity>> = match opener {
        Opener::Passphrase(passphrase) => {
            let mut identity = age::scrypt::Identity::new(passphrase.expose().clone().into());
            // A backup of a fast machine opens on a slow one: 2^22 takes 4 GiB and some seconds.
            identity.set_max_work_factor(22);
            vec![Box::new(identity)]
        }
        Opener::Identities(text) => {
            let lines = text.expose().lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
            let read = lines.map(|line| line.parse::<age::x25519::Identity>().map_err(|_| BackupFault::Identity));
            read.map(|identity| identity.map(|i| Box::new(i) as Box<dyn age::Identity>)).collect::<Result<_, _>>()?
        }
    };
    if identities.is_empty() {
        return Err(BackupFault::Identity);
    }
    let reader = decryptor.decrypt(identities.iter().map(AsRef::as_ref)).map_err(locked)?;
    // Room for all of it at once, so that no part of it is left behind by a buffer that grew.
    let mut content = Secret::new(Vec::with_capacity(sealed.len()));
    let read = reader.take(LARGEST).read_to_end(content.expose_mut());
    read.map_err(|_| BackupFault::Locked("it is cut off, or was changed"))?;
    Ok(content)
}

/// The library's own words are in many languages, for which it reads files; ours are enough.
fn refusal(error: &age::DecryptError) -> &'static str {
    match error {
        age::DecryptError::NoMatchingKeys => "none of the identities is the right one",
        age::DecryptError::DecryptionFailed | age::DecryptError::KeyDecryptionFailed => "the passphrase is wrong",
        age::DecryptError::ExcessiveWork { .. } => "its passphrase would take too long on this machine",
        age::DecryptError::InvalidHeader | age::DecryptError::UnknownFormat => "it is no age file",
        age::DecryptError::InvalidMac => "its header was changed",
        _ => "it is cut off",
    }
}

/// A key pair for one backup: what opens it, and whom it is sealed for.
pub(crate) fn one_time_keys() -> (Opener, String) {
    use age::secrecy::ExposeSecret;
    let identity = age::x25519::Identity::generate();
    let text = Secret::new(identity.to_string().expose_secret().to_owned());
    (Opener::Identities(text), identity.to_public().to_string())
}

impl Store {
    /// Every row in plain, for `lock` and nothing else.
    pub(crate) fn export(&self) -> Result<Secret<Vec<u8>>, StoreFault> {
        let inner = self.inner();
        let rows = inner.tables.rows(None).map_err(|cause| self.unreadable(cause))?;
        let size: usize = rows.iter().map(|row| 12 + row.kind.len() + row.key.len() + row.value.len()).sum();
        let mut content = Secret::new(Vec::with_capacity(MAGIC.len() + size));
        content.expose_mut().extend(MAGIC);
        for row in rows {
            let value = inner.open_row(&row.kind, &row.key, &row.value)?;
            for part in [row.kind.as_bytes(), row.key.as_bytes(), value.expose()] {
                content.expose_mut().extend((part.len() as u32).to_be_bytes());
                content.expose_mut().extend(part);
            }
        }
        Ok(content)
    }

    /// Makes a state folder out of a backup's content, sealed under this machine's own key. Everything that can fail comes
    /// before the new state takes the old one's place in one step; `record` is the last of it, and its failure stops it.
    ///
    /// # Errors
    /// Occupied where there is a state and it is not to be replaced.
    pub(crate) fn restore<E>(
        folder: &Path,
        settings: &KeySettings,
        content: &Secret<Vec<u8>>,
        over: Over,
        record: impl FnOnce() -> Result<(), E>,
    ) -> Result<Result<Self, E>, BackupFault> {
        let rows = parse(content)?;
        let lock = Self::take(folder)?;
        let path = folder.join(TABLES);
        let is_there =
            path.symlink_metadata().is_ok_and(|meta| meta.len() > 0) || Counter::is_in(folder) || plain::is_in(folder);
        if is_there && over == Over::Nothing {
            return Err(BackupFault::Occupied(folder.to_owned()));
        }
        let aside = found_aside(folder, settings, &rows)?;
        // What the old file's log holds goes into the old file, as far as it is one: the log must not meet the new file.
        if let Ok((old, _)) = Tables::open(&path) {
            let _ = old.accept().and_then(|()| old.settle());
        }
        if let Err(fault) = record() {
            let _ = super::remove_with_companions(&aside);
            return Ok(Err(fault));
        }
        take_place(&aside, folder)?;
        Ok(Ok(Self::open_locked(folder, settings, lock)?))
    }
}

/// What a restore may take the place of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Over {
    Nothing,
    WhatIsThere,
}

fn parse(content: &Secret<Vec<u8>>) -> Result<Vec<PlainRow>, BackupFault> {
    const CUT: BackupFault = BackupFault::Content("it is cut off");
    let mut rest = content.expose().strip_prefix(MAGIC).ok_or(BackupFault::Content("it begins otherwise"))?;
    let mut part = || -> Result<Option<&[u8]>, BackupFault> {
        if rest.is_empty() {
            return Ok(None);
        }
        let (length, after) = rest.split_first_chunk::<4>().ok_or(CUT)?;
        let (part, after) = after.split_at_checked(u32::from_be_bytes(*length) as usize).ok_or(CUT)?;
        rest = after;
        Ok(Some(part))
    };
    let mut rows = Vec::new();
    let mut seen = HashSet::new();
    while let Some(kind) = part()? {
        let (key, value) = (part()?.ok_or(CUT)?, part()?.ok_or(CUT)?);
        let text =
            |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(|_| BackupFault::Content("a name is no text"));
        let row = PlainRow { kind: text(kind)?, key: text(key)?, value: Secret::new(value.to_vec()) };
        if !seen.insert((row.kind.clone(), row.key.clone())) {
            return Err(BackupFault::Content("a record stands in it twice"));
        }
        if !is_record(&row) {
            return Err(BackupFault::Content("it holds a record that this version does not know or cannot read"));
        }
        rows.push(row);
    }
    if rows.is_empty() { Err(BackupFault::Content("it is empty")) } else { Ok(rows) }
}

/// Whether a gateway would start with this row.
fn is_record(row: &PlainRow) -> bool {
    fn reads<R: Record>(row: &PlainRow) -> bool {
        read_record::<R>(&row.key, &row.value).is_ok()
    }
    let length = row.value.expose().len();
    match row.kind.as_str() {
        OWN => match Name::ALL.iter().find(|name| name.as_str() == row.key) {
            Some(Name::GatewayIdentity | Name::DeviceKey | Name::ClientSeed) => length == 32,
            Some(_) => (1..=64 << 10).contains(&length),
            None => false,
        },
        SECRET_VALUE => {
            let is_length = (SHORTEST_SECRET..=LONGEST_SECRET).contains(&length);
            is_length && SecretName::parse(&row.key).is_ok()
        }
        DeviceRecord::KIND => reads::<DeviceRecord>(row),
        PairingRequest::KIND => reads::<PairingRequest>(row),
        InviteRecord::KIND => reads::<InviteRecord>(row),
        NodeRecord::KIND => reads::<NodeRecord>(row),
        NodeRequest::KIND => reads::<NodeRequest>(row),
        NonceRecord::KIND => reads::<NonceRecord>(row),
        ReplayFloor::KIND => reads::<ReplayFloor>(row),
        SecretRecord::KIND => reads::<SecretRecord>(row),
        _ => false,
    }
}
