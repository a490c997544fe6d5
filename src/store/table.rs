//! One SQLite file: rows of (kind, key, sealed value), changed in whole transactions together with their ledger.
//!
//! WAL with `synchronous=FULL`: a change that was answered is on the disk, one that was cut off never was.
//! `secure_delete` overwrites what is replaced, so that nothing sealed with an older key stays behind.

use super::StoreFault;
use super::ledger::Ledger;
use super::records::Record;
use super::seal::Seal;
use crate::model::{Secret, SecretName};
use rusqlite::{Connection, OpenFlags, OptionalExtension, Transaction, TransactionBehavior, params};
use std::io;
use std::path::Path;
use std::time::Duration;

/// "VMBR": tells our file from any other SQLite file.
const APPLICATION_ID: i32 = 0x564d_4252;

/// The layout of the file. A newer one is refused.
const VERSION: i32 = 2;

/// The layout before it, whose values were plain. It is read once, to be sealed.
const PLAIN: i32 = 1;

/// The kind of the rows that hold secrets' values.
pub(super) const SECRET_VALUE: &str = "secret-value";

/// Changes that happen together or not at all.
#[derive(Default)]
pub(crate) struct Changes(Vec<Change>);

pub(super) enum Change {
    Put { kind: &'static str, key: String, value: Secret<Vec<u8>> },
    Remove { kind: &'static str, key: String },
}

impl Changes {
    /// With this record, new or in place of the one with its key.
    pub(crate) fn put<R: Record>(self, record: &R) -> Self {
        let value = serde_json::to_vec(record).expect("records are plain data");
        self.put_bytes(R::KIND, record.key(), Secret::new(value))
    }

    /// With these bytes in a row of their own.
    pub(super) fn put_bytes(mut self, kind: &'static str, key: String, value: Secret<Vec<u8>>) -> Self {
        self.0.push(Change::Put { kind, key, value });
        self
    }

    /// Without the record of this key.
    pub(crate) fn remove<R: Record>(self, key: &str) -> Self {
        self.remove_bytes(R::KIND, key)
    }

    /// Without the row of this key.
    pub(super) fn remove_bytes(mut self, kind: &'static str, key: &str) -> Self {
        self.0.push(Change::Remove { kind, key: key.to_owned() });
        self
    }

    /// With this value of a secret.
    pub(crate) fn put_secret(self, name: &SecretName, value: Secret<Vec<u8>>) -> Self {
        self.put_bytes(SECRET_VALUE, name.to_string(), value)
    }

    /// Without the value of this secret.
    pub(crate) fn remove_secret(self, name: &SecretName) -> Self {
        self.remove_bytes(SECRET_VALUE, name)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A row as it lies in the file.
pub(super) struct Row {
    pub(super) kind: String,
    pub(super) key: String,
    pub(super) value: Vec<u8>,
}

/// What kind of file it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    Empty,
    /// Rows in plain text, of a version before sealing.
    Plain,
    Sealed,
}

/// The file, whatever it holds.
pub(super) struct Tables(Connection);

pub(super) fn plain(error: rusqlite::Error) -> io::Error {
    io::Error::other(error.to_string())
}

impl Tables {
    /// Opens the file, which must be there, and looks what it is.
    pub(super) fn open(path: &Path) -> io::Result<(Self, Layout)> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        Self::prepare(Connection::open_with_flags(path, flags).map_err(plain)?)
    }

    /// A file that is gone when it is dropped.
    #[cfg(test)]
    pub(super) fn in_memory() -> Self {
        Self::prepare(Connection::open_in_memory().unwrap()).unwrap().0
    }

    fn prepare(connection: Connection) -> io::Result<(Self, Layout)> {
        let number = |pragma: &str| connection.query_row(&format!("PRAGMA {pragma}"), [], |row| row.get::<_, i32>(0));
        let (owner, version) = (number("application_id").map_err(plain)?, number("user_version").map_err(plain)?);
        let rows: i64 =
            connection.query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get(0)).map_err(plain)?;
        let layout = match (owner, version, rows) {
            (0, 0, 0) => Layout::Empty,
            (APPLICATION_ID, VERSION, _) => Layout::Sealed,
            (APPLICATION_ID, PLAIN, _) => Layout::Plain,
            (APPLICATION_ID, newer, _) => {
                return Err(io::Error::other(format!("its version is {newer}, this program knows {VERSION}")));
            }
            _ => return Err(io::Error::other("it is not a state file of ours")),
        };
        connection.busy_timeout(Duration::from_secs(5)).map_err(plain)?;
        connection
            .execute_batch(
                "PRAGMA journal_mode = WAL;
                 PRAGMA synchronous = FULL;
                 PRAGMA secure_delete = ON;
                 PRAGMA trusted_schema = OFF;",
            )
            .map_err(plain)?;
        Ok((Tables(connection), layout))
    }

    /// Begins changes that happen together or, where the transaction is dropped, not at all.
    pub(super) fn begin(&mut self) -> io::Result<Open<'_>> {
        self.0.transaction_with_behavior(TransactionBehavior::Immediate).map(Open).map_err(plain)
    }

    /// The header's bytes.
    pub(super) fn header(&self) -> io::Result<Option<Vec<u8>>> {
        self.0.query_row("SELECT header FROM seal", [], |row| row.get(0)).optional().map_err(plain)
    }

    /// The sealed ledger's bytes.
    pub(super) fn ledger(&self) -> io::Result<Vec<u8>> {
        self.0.query_row("SELECT ledger FROM seal", [], |row| row.get(0)).map_err(plain)
    }

    /// Every row of a kind, or every row there is.
    pub(super) fn rows(&self, kind: Option<&str>) -> io::Result<Vec<Row>> {
        let sql = "SELECT kind, key, value FROM record WHERE ?1 IS NULL OR kind = ?1 ORDER BY kind, key";
        let mut query = self.0.prepare(sql).map_err(plain)?;
        let rows = query
            .query_map([kind], |row| Ok(Row { kind: row.get(0)?, key: row.get(1)?, value: row.get(2)? }))
            .map_err(plain)?;
        rows.collect::<Result<_, _>>().map_err(plain)
    }

    /// One row's value.
    pub(super) fn value(&self, kind: &str, key: &str) -> io::Result<Option<Vec<u8>>> {
        value(&self.0, kind, key)
    }

    /// Moves everything from the log into the file and empties the log.
    pub(super) fn settle(&self) -> io::Result<()> {
        self.0.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).map_err(plain)
    }

    /// Writes the file anew, so that nothing is left in its gaps.
    pub(super) fn rewrite(&self) -> io::Result<()> {
        self.0.execute_batch("VACUUM").map_err(plain)?;
        self.settle()
    }
}

fn value(connection: &Connection, kind: &str, key: &str) -> io::Result<Option<Vec<u8>>> {
    let mut query = connection.prepare("SELECT value FROM record WHERE kind = ?1 AND key = ?2").map_err(plain)?;
    query.query_row([kind, key], |row| row.get(0)).optional().map_err(plain)
}

/// Changes that have begun.
pub(super) struct Open<'a>(Transaction<'a>);

impl Open<'_> {
    /// Makes the tables of a new file.
    pub(super) fn lay_out(&self) -> io::Result<()> {
        self.0
            .execute_batch(&format!(
                "PRAGMA application_id = {APPLICATION_ID};
                 PRAGMA user_version = {VERSION};
                 CREATE TABLE IF NOT EXISTS record (
                     kind TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL, PRIMARY KEY (kind, key)
                 ) STRICT, WITHOUT ROWID;
                 CREATE TABLE seal (
                     id INTEGER PRIMARY KEY CHECK (id = 1), header BLOB NOT NULL, ledger BLOB NOT NULL
                 ) STRICT;"
            ))
            .map_err(plain)
    }

    /// The sealed ledger's bytes, as they are inside these changes.
    pub(super) fn ledger(&self) -> io::Result<Vec<u8>> {
        self.0.query_row("SELECT ledger FROM seal", [], |row| row.get(0)).map_err(plain)
    }

    /// Seals and makes the changes, and counts them in the ledger.
    pub(super) fn apply(&self, seal: &Seal, ledger: &mut Ledger, changes: &Changes) -> io::Result<()> {
        for change in &changes.0 {
            match change {
                Change::Put { kind, key, value } => self.put(seal, ledger, kind, key, value)?,
                Change::Remove { kind, key } => {
                    if let Some(old) = value(&self.0, kind, key)? {
                        ledger.take(&seal.row_digest(kind, key, &old));
                    }
                    let sql = "DELETE FROM record WHERE kind = ?1 AND key = ?2";
                    self.0.prepare(sql).and_then(|mut q| q.execute([*kind, key])).map_err(plain)?;
                }
            }
        }
        Ok(())
    }

    /// Seals one value into its row.
    pub(super) fn put(
        &self,
        seal: &Seal,
        ledger: &mut Ledger,
        kind: &str,
        key: &str,
        plain_value: &Secret<Vec<u8>>,
    ) -> io::Result<()> {
        if let Some(old) = value(&self.0, kind, key)? {
            ledger.take(&seal.row_digest(kind, key, &old));
        }
        let sealed = seal.seal_row(kind, key, plain_value.expose());
        ledger.add(&seal.row_digest(kind, key, &sealed));
        let sql = "INSERT OR REPLACE INTO record (kind, key, value) VALUES (?1, ?2, ?3)";
        self.0.prepare(sql).and_then(|mut q| q.execute(params![kind, key, sealed])).map_err(plain)?;
        Ok(())
    }

    /// Takes every row out of the file.
    pub(super) fn clear(&self) -> io::Result<()> {
        self.0.execute("DELETE FROM record", []).map(drop).map_err(plain)
    }

    /// Writes header and ledger.
    pub(super) fn keep_seal(&self, header: &[u8], ledger: &[u8]) -> io::Result<()> {
        let sql = "INSERT OR REPLACE INTO seal (id, header, ledger) VALUES (1, ?1, ?2)";
        self.0.execute(sql, params![header, ledger]).map(drop).map_err(plain)
    }

    /// Writes the ledger.
    pub(super) fn keep_ledger(&self, ledger: &[u8]) -> io::Result<()> {
        self.0.prepare("UPDATE seal SET ledger = ?1").and_then(|mut q| q.execute([ledger])).map(drop).map_err(plain)
    }

    /// Makes it durable.
    pub(super) fn commit(self) -> io::Result<()> {
        self.0.commit().map_err(plain)
    }
}

/// A record out of its row.
pub(super) fn read_record<R: Record>(key: &str, value: &Secret<Vec<u8>>) -> Result<R, StoreFault> {
    let wrong = |why: String| StoreFault::Damaged { what: format!("the {} record {key}: {why}", R::KIND) };
    let record: R = serde_json::from_slice(value.expose()).map_err(|e| wrong(e.to_string()))?;
    // A row under another's key is no slip of ours.
    if record.key() == key { Ok(record) } else { Err(wrong("it stands under another key".into())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn somebody_elses_file_or_a_newer_one_is_left_alone() {
        for sql in [
            "CREATE TABLE other (x)",
            "PRAGMA application_id = 7",
            "PRAGMA application_id = 0x564d4252; PRAGMA user_version = 9",
        ] {
            let connection = Connection::open_in_memory().unwrap();
            connection.execute_batch(sql).unwrap();
            assert!(Tables::prepare(connection).is_err(), "{sql}");
        }
    }
}
