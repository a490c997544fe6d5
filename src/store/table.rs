//! One SQLite file: rows of (kind, key, sealed value), changed in whole transactions together with their ledger.
//!
//! WAL with `synchronous=FULL`: a change that was answered is on the disk, one that was cut off never was.
//! `secure_delete` overwrites what is replaced, so that nothing sealed with an older key stays behind.

use super::StoreFault;
use super::ledger::Ledger;
use super::records::Record;
use super::seal::Seal;
use crate::model::{Secret, SecretName};
use rusqlite::config::DbConfig;
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

/// Our tables, as SQLite keeps their text.
const RECORD: &str = "CREATE TABLE record (kind TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL, \
                      PRIMARY KEY (kind, key)) STRICT, WITHOUT ROWID";
const SEAL: &str =
    "CREATE TABLE seal (id INTEGER PRIMARY KEY CHECK (id = 1), header BLOB NOT NULL, ledger BLOB NOT NULL) STRICT";

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
        // Nothing in the file may act by itself: a trigger or a view would show one thing now and another thing later.
        for (switch, on) in [
            (DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false),
            (DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW, false),
            (DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true),
            // A log that somebody planted must not become part of a file that is then refused.
            (DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true),
        ] {
            connection.set_db_config(switch, on).map_err(plain)?;
        }
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
        connection.busy_timeout(Duration::from_secs(1)).map_err(plain)?;
        connection
            .execute_batch(
                "PRAGMA journal_mode = WAL;
                 PRAGMA synchronous = FULL;
                 PRAGMA secure_delete = ON;
                 PRAGMA trusted_schema = OFF;
                 PRAGMA temp_store = MEMORY;",
            )
            .map_err(plain)?;
        Ok((Tables(connection), layout))
    }

    /// Whether the file holds our two tables as we make them, nothing besides, and no page of it is bent.
    pub(super) fn check(&self) -> io::Result<()> {
        let mut query = self.0.prepare("SELECT type, name, sql FROM sqlite_master ORDER BY name").map_err(plain)?;
        let rows = query
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .map_err(plain)?
            .collect::<Result<Vec<(String, String, Option<String>)>, _>>()
            .map_err(plain)?;
        let ours = [("record", RECORD), ("seal", SEAL)];
        let same = rows.len() == ours.len()
            && rows.iter().zip(ours).all(|((kind, name, sql), (ours, made))| {
                kind == "table" && name == ours && sql.as_deref() == Some(made)
            });
        if !same {
            return Err(io::Error::other("there are other things in it than our tables"));
        }
        let said: String = self.0.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(plain)?;
        if said == "ok" { Ok(()) } else { Err(io::Error::other(said)) }
    }

    /// What was read is what is to be kept: from here on the log may be emptied when the file is closed.
    pub(super) fn accept(&self) -> io::Result<()> {
        self.0.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false).map(drop).map_err(plain)
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

    /// Every row of a kind, or every row there is, in order.
    pub(super) fn rows(&self, kind: Option<&str>) -> io::Result<Vec<Row>> {
        rows(&self.0, kind)
    }

    /// One row's value.
    pub(super) fn value(&self, kind: &str, key: &str) -> io::Result<Option<Vec<u8>>> {
        value(&self.0, kind, key)
    }

    /// Moves everything from the log into the file and empties the log.
    pub(super) fn settle(&self) -> io::Result<()> {
        let busy: i64 = self.0.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0)).map_err(plain)?;
        if busy == 0 { Ok(()) } else { Err(io::Error::other("another process is reading it")) }
    }
}

fn rows(connection: &Connection, kind: Option<&str>) -> io::Result<Vec<Row>> {
    let sql = match kind {
        Some(_) => "SELECT kind, key, value FROM record WHERE kind = ?1 ORDER BY kind, key",
        None => "SELECT kind, key, value FROM record WHERE ?1 IS NULL ORDER BY kind, key",
    };
    let mut query = connection.prepare(sql).map_err(plain)?;
    let rows = query
        .query_map([kind], |row| Ok(Row { kind: row.get(0)?, key: row.get(1)?, value: row.get(2)? }))
        .map_err(plain)?;
    rows.collect::<Result<_, _>>().map_err(plain)
}

fn value(connection: &Connection, kind: &str, key: &str) -> io::Result<Option<Vec<u8>>> {
    let mut query = connection.prepare("SELECT value FROM record WHERE kind = ?1 AND key = ?2").map_err(plain)?;
    query.query_row([kind, key], |row| row.get(0)).optional().map_err(plain)
}

/// A change that touched other rows than it names was bent by something in the file.
fn exactly(wanted: usize, changed: rusqlite::Result<usize>) -> io::Result<()> {
    match changed.map_err(plain)? {
        changed if changed == wanted => Ok(()),
        changed => Err(io::Error::other(format!("a change of {wanted} row(s) changed {changed}"))),
    }
}

/// Changes that have begun.
pub(super) struct Open<'a>(Transaction<'a>);

impl Open<'_> {
    /// Makes the tables of a new file.
    pub(super) fn lay_out(&self) -> io::Result<()> {
        self.0
            .execute_batch(&format!(
                "PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {VERSION}; {RECORD}; {SEAL};"
            ))
            .map_err(plain)
    }

    /// The sealed ledger's bytes, as they are inside these changes.
    pub(super) fn ledger(&self) -> io::Result<Vec<u8>> {
        self.0.query_row("SELECT ledger FROM seal", [], |row| row.get(0)).map_err(plain)
    }

    /// Every row, as it is inside these changes.
    pub(super) fn rows(&self) -> io::Result<Vec<Row>> {
        rows(&self.0, None)
    }

    /// Seals and makes the changes, and counts them in the ledger.
    pub(super) fn apply(&self, seal: &Seal, ledger: &mut Ledger, changes: &Changes) -> io::Result<()> {
        for change in &changes.0 {
            match change {
                Change::Put { kind, key, value } => self.put(seal, ledger, kind, key, value)?,
                Change::Remove { kind, key } => {
                    let old = value(&self.0, kind, key)?;
                    if let Some(old) = &old {
                        ledger.take(&seal.row_digest(kind, key, old));
                    }
                    let sql = "DELETE FROM record WHERE kind = ?1 AND key = ?2";
                    exactly(usize::from(old.is_some()), self.0.execute(sql, [*kind, key]))?;
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
        exactly(1, self.0.execute(sql, params![kind, key, sealed]))
    }

    /// Takes every row out of the file.
    pub(super) fn clear(&self) -> io::Result<()> {
        self.0.execute("DELETE FROM record", []).map(drop).map_err(plain)
    }

    /// Writes header and ledger.
    pub(super) fn keep_seal(&self, header: &[u8], ledger: &[u8]) -> io::Result<()> {
        let sql = "INSERT OR REPLACE INTO seal (id, header, ledger) VALUES (1, ?1, ?2)";
        exactly(1, self.0.execute(sql, params![header, ledger]))
    }

    /// Writes the ledger.
    pub(super) fn keep_ledger(&self, ledger: &[u8]) -> io::Result<()> {
        exactly(1, self.0.execute("UPDATE seal SET ledger = ?1", [ledger]))
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
