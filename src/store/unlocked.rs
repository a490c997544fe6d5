//! The open file: every change of it, and everything that is looked at before it counts as open.

use super::keys::{self, Wrapping};
use super::ledger::{Counter, Ledger};
use super::seal::{Header, Seal};
use super::table::{self, Changes, Tables};
use super::{
    ASIDE, KeyFacts, KeySettings, KeySource, PlainRow, StoreFault, TABLES, header_of, private, remove_with_companions,
};
use crate::model::Secret;
use crate::os;
use std::io;
use std::path::Path;

/// A sealed file that is open, with its keys: the one writer of it.
pub(super) struct Unlocked {
    pub(super) tables: Tables,
    pub(super) seal: Seal,
    pub(super) source: KeySource,
    /// Tells the salt in force.
    pub(super) key_id: [u8; 8],
    /// The changes we know of. Whoever changes the file behind our back meets this number.
    pub(super) generation: u64,
    pub(super) counter: Option<Counter>,
}

impl Unlocked {
    /// Opens a sealed file: its key, its ledger, every row, its counter. Nothing is changed before all of them agree.
    pub(super) fn unlock(tables: Tables, folder: &Path, settings: &KeySettings) -> Result<Self, StoreFault> {
        let path = folder.join(TABLES);
        let read = |cause| StoreFault::Read { path: path.clone(), cause };
        let damaged = |what: &str| StoreFault::Damaged { what: format!("{what} of {}", path.display()) };
        tables.check().map_err(|why| damaged(&format!("the tables ({why})")))?;
        let bytes = tables.header().map_err(read)?.ok_or_else(|| damaged("the header"))?;
        let header = Header::decode(&bytes).ok_or_else(|| damaged("the header"))?;
        let wrapping = settings.find(&header, folder)?;
        let data = Header::unwrap(&bytes, &wrapping.key).ok_or(StoreFault::WrongKey {
            key: header.source,
            why: match header.source {
                KeySource::Machine => "this is not the machine it was sealed on, or the header was changed",
                _ => "the header was changed",
            },
        })?;
        let seal = Seal::new(header.store, header.epoch, data).map_err(read)?;
        let ledger = seal.open_ledger(&tables.ledger().map_err(read)?).and_then(|content| Ledger::decode(&content));
        let ledger = ledger.ok_or_else(|| damaged("the ledger"))?;
        verify(&seal, &ledger, &tables.rows(None).map_err(read)?)?;
        let counter = Counter::open(folder, &header.store, &ledger)?;
        let (source, key_id, generation) = (header.source, header.key_id, ledger.generation);
        let mut inner = Unlocked { tables, seal, source, key_id, generation, counter: Some(counter) };
        inner.tables.accept().map_err(read)?;
        inner.take_over(folder, &path)?;
        Ok(inner)
    }

    /// What there is to do once everything agrees.
    fn take_over(&mut self, folder: &Path, path: &Path) -> Result<(), StoreFault> {
        let write = |cause| StoreFault::Write { path: path.to_owned(), cause };
        // A rotation that was killed is brought to its end; if that cannot be now, the state is as good as before.
        if let Err(error) = self.tidy(folder) {
            tracing::warn!(%error, "what an older key opens could not be removed yet");
        }
        remove_with_companions(&folder.join(ASIDE)).map_err(write)?;
        let keep = |counter: &Counter, generation| {
            counter.write(generation).and_then(|()| counter.sync()).and_then(|()| private::sync_folder(folder))
        };
        if let Some(counter) = &self.counter {
            keep(counter, self.generation).map_err(write)?;
        }
        if self.generation == 0 {
            // From its first change on a store has a counter, and is not opened without it: so the counter comes first.
            self.apply(&Changes::default(), write)?;
        }
        Ok(())
    }

    pub(super) fn facts(&self, settings: &KeySettings) -> KeyFacts {
        KeyFacts {
            source: self.source,
            best: settings.best(),
            epoch: self.seal.epoch,
            is_locked: self.seal.is_locked(),
        }
    }

    pub(super) fn open_row(&self, kind: &str, key: &str, value: &[u8]) -> Result<Secret<Vec<u8>>, StoreFault> {
        open_row(&self.seal, kind, key, value)
    }

    /// The ledger as it is inside changes that have begun; the one we know, or nothing is written any more.
    fn ledger(&self, sealed: &[u8]) -> Result<Ledger, StoreFault> {
        let ledger = self.seal.open_ledger(sealed).and_then(|content| Ledger::decode(&content));
        ledger.filter(|ledger| ledger.generation == self.generation).ok_or_else(|| StoreFault::Damaged {
            what: "the file was replaced while it was in use; nothing is written to it any more".into(),
        })
    }

    pub(super) fn apply(
        &mut self,
        changes: &Changes,
        write: impl Fn(io::Error) -> StoreFault,
    ) -> Result<(), StoreFault> {
        // The ledger is looked at inside the changes; it is read twice because a borrow cannot be in two places.
        let known = self.tables.ledger().map_err(&write)?;
        let mut ledger = self.ledger(&known)?;
        let begun = self.tables.begin().map_err(&write)?;
        if begun.ledger().map_err(&write)? != known {
            return Err(StoreFault::Damaged { what: "somebody else writes to the file".into() });
        }
        begun.apply(&self.seal, &mut ledger, changes).map_err(&write)?;
        ledger.generation += 1;
        begun.keep_ledger(&self.seal.seal_ledger(ledger.encode().expose())).map_err(&write)?;
        if let Err(cause) = begun.commit() {
            // What was refused must not come back out of the log after a kill.
            let _ = self.tables.settle();
            return Err(write(cause));
        }
        self.count(&ledger);
        Ok(())
    }

    /// Takes over what was committed. The change stands: a counter that could not follow is said and made good by the next.
    fn count(&mut self, ledger: &Ledger) {
        self.generation = ledger.generation;
        if let Some(counter) = &self.counter
            && let Err(error) = counter.write(ledger.generation)
        {
            tracing::error!(%error, path = %counter.path().display(), "the counter did not follow a change");
        }
    }

    /// Seals every row anew under this key, if the rows are still those of the ledger.
    pub(super) fn rotate(
        &mut self,
        folder: &Path,
        wrapping: Wrapping,
        salt: Option<&Secret<[u8; 32]>>,
    ) -> Result<(), StoreFault> {
        let write = |cause| StoreFault::Write { path: folder.join(TABLES), cause };
        let epoch = self.seal.epoch + 1;
        let seal = Seal::new(self.seal.store, epoch, Secret::new(os::host::random())).map_err(write)?;
        let known = self.tables.ledger().map_err(write)?;
        let mut ledger = self.ledger(&known)?;
        let begun = self.tables.begin().map_err(write)?;
        let rows = begun.rows().map_err(write)?;
        if begun.ledger().map_err(write)? != known {
            return Err(StoreFault::Damaged { what: "somebody else writes to the file".into() });
        }
        let rows = verify(&self.seal, &ledger, &rows)?;
        // Nothing stands there: `tidy` came first. Needed from the commit on, and not before.
        let next = folder.join(keys::NEXT_SALT);
        if let Some(salt) = salt {
            private::write_private(&next, salt.expose()).map_err(write)?;
        }
        if let Err(cause) = reseal(&begun, &seal, &mut ledger, &rows, &wrapping) {
            drop(begun);
            let _ = private::wipe(&next);
            return Err(write(cause));
        }
        if let Err(cause) = begun.commit() {
            // It may be in the log all the same, and then the next salt is the one in force. Emptying the log decides, and
            // as long as that cannot be done both salts stay.
            let _ = self.tidy(folder);
            return Err(write(cause));
        }
        (self.seal, self.source, self.key_id) = (seal, wrapping.source, wrapping.id);
        self.count(&ledger);
        self.tidy(folder).map_err(StoreFault::LeftBehind)
    }

    /// Removes what an older key opens: the log is emptied into the file, and one salt stays.
    pub(super) fn tidy(&self, folder: &Path) -> io::Result<()> {
        self.tables.settle()?;
        let (salt, next) = (folder.join(keys::SALT), folder.join(keys::NEXT_SALT));
        if self.source != KeySource::Machine {
            return [&salt, &next].into_iter().try_for_each(|path| private::wipe(path));
        }
        let Some(bytes) = private::read_private(&next, 64)? else { return Ok(()) };
        if !keys::is_salt_of(&bytes, self.key_id) {
            return private::wipe(&next);
        }
        private::wipe(&salt)?;
        std::fs::rename(&next, &salt).and_then(|()| private::sync_folder(folder))
    }
}

fn reseal(
    begun: &table::Open<'_>,
    seal: &Seal,
    ledger: &mut Ledger,
    rows: &[PlainRow],
    wrapping: &Wrapping,
) -> io::Result<()> {
    begun.clear()?;
    (ledger.rows, ledger.sum) = (0, [0; 32]);
    for row in rows {
        begun.put(seal, ledger, &row.kind, &row.key, &row.value)?;
    }
    ledger.generation += 1;
    begun.keep_seal(&header_of(wrapping, seal).encode(&wrapping.key, seal), &seal.seal_ledger(ledger.encode().expose()))
}

/// Opens every row, in order and none twice, and compares them all with the ledger.
fn verify(seal: &Seal, ledger: &Ledger, rows: &[table::Row]) -> Result<Vec<PlainRow>, StoreFault> {
    let mut found = Ledger::new();
    let mut opened: Vec<PlainRow> = Vec::with_capacity(rows.len());
    for row in rows {
        let value = open_row(seal, &row.kind, &row.key, &row.value)?;
        if opened.last().is_some_and(|last| (&last.kind, &last.key) >= (&row.kind, &row.key)) {
            return Err(StoreFault::Damaged { what: "the rows are out of order".into() });
        }
        found.add(&seal.row_digest(&row.kind, &row.key, &row.value));
        opened.push(PlainRow { kind: row.kind.clone(), key: row.key.clone(), value });
    }
    if ledger.has_rows_of(&found) {
        return Ok(opened);
    }
    let (there, counted) = (found.rows, ledger.rows);
    let what = format!(
        "the rows are not those of its ledger: one was put back, removed or added ({there} rows, {counted} counted)"
    );
    Err(StoreFault::Damaged { what })
}

fn open_row(seal: &Seal, kind: &str, key: &str, value: &[u8]) -> Result<Secret<Vec<u8>>, StoreFault> {
    seal.open_row(kind, key, value).ok_or_else(|| {
        let short = |text: &str| text.chars().take(80).collect::<String>();
        let what =
            format!("the {} record {} does not open: it was changed, or belongs elsewhere", short(kind), short(key));
        StoreFault::Damaged { what }
    })
}
