//! One SQLite file: rows of (kind, key, value), changed in whole transactions.
//!
//! WAL with `synchronous=FULL`: a change that was answered is on the disk, one that was cut off never was.
//! Sealing the values is the next thing built in this room.

use super::records::Record;
use rusqlite::{Connection, OpenFlags, params};
use std::io;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// "VMBR": tells our file from any other SQLite file.
const APPLICATION_ID: i32 = 0x564d_4252;

/// The layout of the file. A newer one is refused, an older one will be migrated.
const VERSION: i32 = 1;

/// The open file.
pub(super) struct Tables(Mutex<Connection>);

/// Changes that happen together or not at all.
#[derive(Default)]
pub(crate) struct Changes(Vec<Change>);

enum Change {
    Put { kind: &'static str, key: String, value: Vec<u8> },
    Remove { kind: &'static str, key: String },
}

impl Changes {
    /// With this record, new or in place of the one with its key.
    pub(crate) fn put<R: Record>(mut self, record: &R) -> Self {
        let value = serde_json::to_vec(record).expect("records are plain data");
        self.0.push(Change::Put { kind: R::KIND, key: record.key(), value });
        self
    }

    /// Without the record of this key.
    pub(crate) fn remove<R: Record>(mut self, key: &str) -> Self {
        self.0.push(Change::Remove { kind: R::KIND, key: key.to_owned() });
        self
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn plain(error: rusqlite::Error) -> io::Error {
    io::Error::other(error.to_string())
}

impl Tables {
    /// Opens the file, making it where there is none.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        Self::prepare(Connection::open_with_flags(path, flags).map_err(plain)?)
    }

    /// A file that is gone when it is dropped.
    #[cfg(test)]
    pub(super) fn in_memory() -> Self {
        Self::prepare(Connection::open_in_memory().unwrap()).unwrap()
    }

    fn prepare(connection: Connection) -> io::Result<Self> {
        let number = |pragma: &str| connection.query_row(&format!("PRAGMA {pragma}"), [], |row| row.get::<_, i32>(0));
        let (owner, version) = (number("application_id").map_err(plain)?, number("user_version").map_err(plain)?);
        let rows: i64 =
            connection.query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get(0)).map_err(plain)?;
        match (owner, version, rows) {
            (0, 0, 0) | (APPLICATION_ID, VERSION, _) => {}
            (APPLICATION_ID, newer, _) => {
                return Err(io::Error::other(format!("its version is {newer}, this program knows {VERSION}")));
            }
            _ => return Err(io::Error::other("it is not a state file of ours")),
        }
        connection.busy_timeout(Duration::from_secs(5)).map_err(plain)?;
        connection
            .execute_batch(&format!(
                "PRAGMA journal_mode = WAL;
                 PRAGMA synchronous = FULL;
                 PRAGMA trusted_schema = OFF;
                 BEGIN IMMEDIATE;
                 PRAGMA application_id = {APPLICATION_ID};
                 PRAGMA user_version = {VERSION};
                 CREATE TABLE IF NOT EXISTS record (
                     kind TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL, PRIMARY KEY (kind, key)
                 ) STRICT, WITHOUT ROWID;
                 COMMIT;"
            ))
            .map_err(plain)?;
        Ok(Tables(Mutex::new(connection)))
    }

    /// Every record of a kind.
    pub(super) fn all<R: Record>(&self) -> io::Result<Vec<R>> {
        let connection = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut query = connection.prepare("SELECT key, value FROM record WHERE kind = ?1").map_err(plain)?;
        let rows = query
            .query_map([R::KIND], |row| Ok((row.get::<_, String>(0)?, row.get::<_, Vec<u8>>(1)?)))
            .map_err(plain)?;
        rows.map(|row| {
            let (key, value) = row.map_err(plain)?;
            let wrong = |why: String| io::Error::other(format!("the {} record {key} is damaged: {why}", R::KIND));
            let record: R = serde_json::from_slice(&value).map_err(|e| wrong(e.to_string()))?;
            // A row under another's key is no slip of ours.
            if record.key() == key { Ok(record) } else { Err(wrong("it stands under another key".into())) }
        })
        .collect()
    }

    /// Makes changes durable, all or none.
    pub(super) fn apply(&self, changes: &Changes) -> io::Result<()> {
        let mut connection = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let transaction = connection.transaction().map_err(plain)?;
        for change in &changes.0 {
            match change {
                Change::Put { kind, key, value } => transaction
                    .prepare("INSERT OR REPLACE INTO record (kind, key, value) VALUES (?1, ?2, ?3)")
                    .and_then(|mut put| put.execute(params![kind, key, value])),
                Change::Remove { kind, key } => transaction
                    .prepare("DELETE FROM record WHERE kind = ?1 AND key = ?2")
                    .and_then(|mut remove| remove.execute(params![kind, key])),
            }
            .map_err(plain)?;
        }
        transaction.commit().map_err(plain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::NonceRecord;

    fn nonce(nonce: &str) -> NonceRecord {
        NonceRecord { key: "k".into(), nonce: nonce.into(), created: 1 }
    }

    #[test]
    fn changes_are_read_back_and_removed_ones_are_gone() {
        let tables = Tables::in_memory();
        tables.apply(&Changes::default().put(&nonce("a")).put(&nonce("b")).put(&nonce("a"))).unwrap();
        tables.apply(&Changes::default().remove::<NonceRecord>("k b")).unwrap();
        assert_eq!(tables.all::<NonceRecord>().unwrap(), [nonce("a")]);
    }

    #[test]
    fn a_record_that_is_damaged_or_under_another_key_is_an_error_and_not_skipped() {
        for (key, value) in [("k x", r#"{"key":"k","nonce":"a","created":1}"#), ("k a", "{}"), ("k a", "\u{1}")] {
            let tables = Tables::in_memory();
            let insert = "INSERT INTO record VALUES ('nonce', ?1, ?2)";
            tables.0.lock().unwrap().execute(insert, params![key, value.as_bytes()]).unwrap();
            assert!(tables.all::<NonceRecord>().is_err(), "{key}: {value}");
        }
    }

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
