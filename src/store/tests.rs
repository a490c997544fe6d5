//! The store as a whole, on a disk: what an intruder or an accident may do to the files, and what is noticed.

use super::*;
use crate::os::fs::{private_dir, write_private};
use proptest::prelude::*;
use std::fs;

/// A state folder that goes with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("vambrace-test-{}-store-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        private_dir(&path).unwrap();
        Scratch(path)
    }

    /// A key file, so that a test opens a store without scrypt.
    fn settings(&self) -> KeySettings {
        let path = self.0.join("key");
        if !path.exists() {
            write_private(&path, &os::host::random::<32>()).unwrap();
        }
        KeySettings { key_file: Some(path), ..Default::default() }
    }

    fn folder(&self) -> PathBuf {
        self.0.join("state")
    }

    fn open(&self) -> Result<Store, StoreFault> {
        Store::open(&self.folder(), &self.settings())
    }

    /// All files of the state, to be put back later.
    fn copy(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let files = fs::read_dir(self.folder()).unwrap().map(|e| e.unwrap().path());
        files.map(|path| (path.clone(), fs::read(path).unwrap())).collect()
    }

    fn sql(&self, sql: &str) {
        let file = rusqlite::Connection::open(self.folder().join(TABLES)).unwrap();
        file.execute_batch(sql).unwrap();
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn nonce(nonce: &str) -> NonceRecord {
    NonceRecord { key: "k".into(), nonce: nonce.into(), created: 1 }
}

fn put(store: &Store, names: &[&str]) {
    store.apply(&names.iter().fold(Changes::default(), |changes, name| changes.put(&nonce(name)))).unwrap();
}

#[test]
fn changes_are_read_back_and_removed_ones_are_gone() {
    let scratch = Scratch::new("changes");
    let store = scratch.open().unwrap();
    put(&store, &["a", "b", "a"]);
    store.apply(&Changes::default().remove::<NonceRecord>("k b").remove::<NonceRecord>("k zzz")).unwrap();
    store.save(Name::DeviceKey, b"key").unwrap();
    drop(store);
    let store = scratch.open().unwrap();
    assert_eq!(store.all::<NonceRecord>().unwrap(), [nonce("a")]);
    assert_eq!(store.load(Name::DeviceKey).unwrap().unwrap().expose(), b"key");
    assert!(store.load(Name::TlsKey).unwrap().is_none());
}

#[test]
fn a_second_gateway_is_kept_out() {
    let scratch = Scratch::new("second");
    let first = scratch.open().unwrap();
    assert!(matches!(scratch.open(), Err(StoreFault::Taken(_))));
    drop(first);
    scratch.open().unwrap();
}

#[test]
fn nothing_that_was_kept_is_readable_in_any_file() {
    let scratch = Scratch::new("canary");
    let store = scratch.open().unwrap();
    let canary = "canary-b1946ac92492d2347c6235b4d2611184";
    store.save(Name::GatewayToken, canary.as_bytes()).unwrap();
    store
        .apply(&Changes::default().put(&ReplayFloor { key: canary.into(), created: 1 }).remove::<ReplayFloor>("x"))
        .unwrap();
    for (path, bytes) in scratch.copy() {
        // A row's key is a name and stands open; its value does not.
        let at = bytes.windows(canary.len()).filter(|w| *w == canary.as_bytes()).count();
        let allowed = if path.to_string_lossy().contains(TABLES) { 8 } else { 0 };
        assert!(at <= allowed, "{} has it {at} times", path.display());
        assert!(!bytes.windows(6).any(|w| w == b"\"key\":"), "{}", path.display());
    }
}

#[test]
fn rows_that_were_swapped_moved_removed_or_put_back_are_noticed() {
    let scratch = Scratch::new("rows");
    let store = scratch.open().unwrap();
    put(&store, &["a", "b"]);
    store.save(Name::GatewayToken, b"older token").unwrap();
    drop(store);
    let swap = "UPDATE record SET value = CASE key WHEN 'k a' THEN (SELECT value FROM record WHERE key = 'k b')
                ELSE (SELECT value FROM record WHERE key = 'k a') END WHERE kind = 'nonce'";
    let undo = scratch.copy();
    for (sql, word) in [
        (swap, "nonce record"),
        ("UPDATE record SET key = 'k c' WHERE key = 'k a'", "nonce record k c"),
        ("UPDATE record SET kind = 'device' WHERE key = 'k a'", "device record k a"),
        ("UPDATE record SET value = zeroblob(60) WHERE key = 'k a'", "nonce record k a"),
        ("UPDATE record SET value = x'' WHERE key = 'k a'", "nonce record k a"),
        ("DELETE FROM record WHERE key = 'k a'", "its ledger"),
        ("DELETE FROM record", "its ledger"),
        ("UPDATE seal SET ledger = zeroblob(121)", "the ledger"),
        ("UPDATE seal SET header = zeroblob(111)", "the header"),
        ("DELETE FROM seal", "the header"),
        ("CREATE VIEW v AS SELECT 1", "other things"),
        ("CREATE TABLE extra (x)", "other things"),
        ("CREATE TRIGGER t AFTER DELETE ON record BEGIN SELECT 1; END", "other things"),
        ("ALTER TABLE record RENAME TO hidden; CREATE VIEW record AS SELECT * FROM hidden", "other things"),
    ] {
        scratch.sql(sql);
        let fault = scratch.open().map(drop).unwrap_err();
        assert!(fault.to_string().contains(word), "{sql}: {fault}");
        assert!(!fault.hint().is_empty());
        undo.iter().for_each(|(path, bytes)| fs::write(path, bytes).unwrap());
    }
    // One row alone, as it was before.
    let keep =
        "ATTACH '{}' AS old; INSERT OR REPLACE INTO main.record SELECT * FROM old.record WHERE key = 'gateway-token'";
    let old = scratch.0.join("old.sqlite");
    fs::copy(scratch.folder().join(TABLES), &old).unwrap();
    let store = scratch.open().unwrap();
    store.save(Name::GatewayToken, b"newer token").unwrap();
    drop(store);
    scratch.sql(&keep.replace("{}", old.to_str().unwrap()));
    let fault = scratch.open().map(drop).unwrap_err();
    assert!(fault.to_string().contains("put back"), "{fault}");
}

#[test]
fn an_older_file_is_noticed_by_its_counter() {
    let scratch = Scratch::new("rollback");
    let store = scratch.open().unwrap();
    put(&store, &["a"]);
    drop(store);
    let before = scratch.copy();
    let store = scratch.open().unwrap();
    store.apply(&Changes::default().remove::<NonceRecord>("k a")).unwrap();
    drop(store);
    let after = scratch.copy();
    let restore = |files: &[(PathBuf, Vec<u8>)]| {
        for (path, bytes) in files {
            fs::write(path, bytes).unwrap();
            fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        }
    };

    let tables: Vec<_> = before.iter().filter(|(path, _)| path.to_string_lossy().contains(TABLES)).cloned().collect();
    restore(&tables);
    assert!(matches!(scratch.open(), Err(StoreFault::RolledBack { .. })));
    restore(&after);
    scratch.open().unwrap();
    fs::remove_file(scratch.folder().join("counter")).unwrap();
    for _ in 0..2 {
        assert!(matches!(scratch.open(), Err(StoreFault::CounterMissing { .. })));
    }
    restore(&after);
    fs::remove_file(scratch.folder().join(TABLES)).unwrap();
    assert!(matches!(scratch.open(), Err(StoreFault::RecordsMissing { .. })));
    // Everything of one moment is one moment: nobody here can tell.
    restore(&before);
    scratch.open().unwrap();
}

#[test]
fn a_plain_file_in_the_place_of_a_sealed_one_is_not_read() {
    let scratch = Scratch::new("downgrade");
    drop(scratch.open().unwrap());
    scratch.sql("PRAGMA user_version = 1");
    let fault = scratch.open().map(drop).unwrap_err();
    assert!(fault.to_string().contains("unsealed"), "{fault}");
    fs::remove_file(scratch.folder().join(TABLES)).unwrap();
    scratch.sql(
        "PRAGMA application_id = 0x564d4252; PRAGMA user_version = 1;
         CREATE TABLE record (kind TEXT, key TEXT, value BLOB, PRIMARY KEY (kind, key)) STRICT, WITHOUT ROWID",
    );
    let fault = scratch.open().map(drop).unwrap_err();
    assert!(fault.to_string().contains("unsealed"), "{fault}");
}

#[test]
fn a_store_of_before_sealing_is_sealed_once_and_nothing_plain_is_left() {
    let scratch = Scratch::new("plain");
    private_dir(&scratch.folder()).unwrap();
    scratch.sql(
        r#"PRAGMA application_id = 0x564d4252; PRAGMA user_version = 1; PRAGMA journal_mode = WAL;
         CREATE TABLE record (kind TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL, PRIMARY KEY (kind, key))
         STRICT, WITHOUT ROWID;
         INSERT INTO record VALUES ('nonce', 'k a', CAST('{"key":"k","nonce":"a","created":1}' AS BLOB));
         INSERT INTO record VALUES ('nonce', 'k b', CAST('{"key":"k","nonce":"b","created":1}' AS BLOB));
         DELETE FROM record WHERE key = 'k b'"#,
    );
    fs::set_permissions(scratch.folder().join(TABLES), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    write_private(&scratch.folder().join("gateway-token"), b"plain token").unwrap();
    // As a kill leaves it that came right before the sealed file took its place.
    fs::hard_link(scratch.folder().join(TABLES), scratch.folder().join("state.plain")).unwrap();
    let store = scratch.open().unwrap();
    assert_eq!(store.all::<NonceRecord>().unwrap(), [nonce("a")]);
    assert_eq!(store.load(Name::GatewayToken).unwrap().unwrap().expose(), b"plain token");
    drop(store);
    for (path, bytes) in scratch.copy() {
        for plain in [&b"plain token"[..], b"\"created\""] {
            assert!(!bytes.windows(plain.len()).any(|w| w == plain), "{}", path.display());
        }
    }
    // A plain file that appears later is not read, whatever it holds.
    write_private(&scratch.folder().join("gateway-token"), b"another").unwrap();
    let store = scratch.open().unwrap();
    assert_eq!(store.load(Name::GatewayToken).unwrap().unwrap().expose(), b"plain token");
    assert!(!scratch.folder().join("gateway-token").exists());
}

#[test]
fn a_rotation_leaves_one_key_and_every_record() {
    let scratch = Scratch::new("rotate");
    let machine = KeySettings { wanted: Some(KeySource::Machine), ..scratch.settings() };
    let store = Store::open(&scratch.folder(), &machine).unwrap();
    put(&store, &["a", "b"]);
    let before = scratch.copy();
    let salt = fs::read(scratch.folder().join("salt")).unwrap();
    assert_eq!(store.rotate().unwrap().epoch, 2);
    put(&store, &["c"]);
    drop(store);
    assert!(scratch.copy().iter().all(|(_, bytes)| *bytes != salt), "the old salt is still there");
    assert!(!scratch.folder().join("next-salt").exists());
    let store = Store::open(&scratch.folder(), &machine).unwrap();
    assert_eq!(store.all::<NonceRecord>().unwrap().len(), 3);
    // No sealed byte of before is left, so the old key opens nothing.
    let header = |files: &[(PathBuf, Vec<u8>)]| {
        let found =
            files.iter().find_map(|(_, b)| b.windows(4).position(|w| w == b"VMBS").map(|at| b[at..at + 111].to_vec()));
        found.unwrap()
    };
    let old = header(&before);
    for (path, bytes) in scratch.copy() {
        assert!(!bytes.windows(40).any(|w| w == &old[71..111]), "{}", path.display());
    }
    drop(store);

    // From the machine to a key file, and to another key file.
    let first = scratch.settings();
    let store = Store::open(&scratch.folder(), &first).unwrap();
    assert_eq!((store.key_facts().source, store.key_facts().best), (KeySource::Machine, KeySource::KeyFile));
    assert_eq!(store.rotate().unwrap().source, KeySource::KeyFile);
    drop(store);
    assert!(!scratch.folder().join("salt").exists());
    let second = scratch.0.join("key2");
    write_private(&second, &os::host::random::<32>()).unwrap();
    let moved = KeySettings { key_file: Some(second), previous_key_file: first.key_file.clone(), ..Default::default() };
    Store::open(&scratch.folder(), &moved).unwrap().rotate().unwrap();
    let alone = KeySettings { previous_key_file: None, ..moved };
    assert_eq!(Store::open(&scratch.folder(), &alone).unwrap().all::<NonceRecord>().unwrap().len(), 3);
    assert!(matches!(Store::open(&scratch.folder(), &first), Err(StoreFault::WrongKey { .. })));
}

#[test]
fn a_rotation_that_was_killed_is_ended_or_undone_at_the_next_start() {
    let scratch = Scratch::new("half");
    let machine = KeySettings::default();
    let store = Store::open(&scratch.folder(), &machine).unwrap();
    put(&store, &["a"]);
    drop(store);
    let salt = scratch.folder().join("salt");
    // Before the commit: a salt that nothing was sealed with.
    write_private(&scratch.folder().join("next-salt"), &[7; 32]).unwrap();
    drop(Store::open(&scratch.folder(), &machine).unwrap());
    assert!(!scratch.folder().join("next-salt").exists());
    write_private(&scratch.folder().join("next-salt"), b"").unwrap();
    drop(Store::open(&scratch.folder(), &machine).unwrap());
    // After it: the salt in force still has its first name, beside the old one or alone.
    for old in [true, false] {
        fs::rename(&salt, scratch.folder().join("next-salt")).unwrap();
        if old {
            write_private(&salt, &[7; 32]).unwrap();
        }
        drop(Store::open(&scratch.folder(), &machine).unwrap());
        assert!(salt.exists() && !scratch.folder().join("next-salt").exists());
    }
    assert_eq!(Store::open(&scratch.folder(), &machine).unwrap().all::<NonceRecord>().unwrap().len(), 1);
}

#[test]
fn a_missing_or_wrong_key_is_named_and_no_other_source_is_tried() {
    let scratch = Scratch::new("keys");
    drop(Store::open(&scratch.folder(), &KeySettings::default()).unwrap());
    let salt = scratch.folder().join("salt");
    let bytes = fs::read(&salt).unwrap();
    fs::remove_file(&salt).unwrap();
    let fault = |settings: &KeySettings| Store::open(&scratch.folder(), settings).map(drop).unwrap_err().to_string();
    assert!(fault(&KeySettings::default()).contains("salt") && fault(&scratch.settings()).contains("source: machine"));
    write_private(&salt, &[5; 32]).unwrap();
    assert!(fault(&KeySettings::default()).contains("another"));
    write_private(&salt, &bytes[..31]).unwrap();
    assert!(fault(&KeySettings::default()).contains("31 bytes"));
    write_private(&salt, &bytes).unwrap();
    // A cheaper scrypt in the header is refused before it is tried.
    let undo = scratch.copy();
    scratch.sql("UPDATE seal SET header = CAST(substr(header, 1, 6) || x'01' || substr(header, 8) AS BLOB)");
    assert!(fault(&KeySettings::default()).contains("scrypt"));
    undo.iter().for_each(|(path, bytes)| fs::write(path, bytes).unwrap());
    drop(Store::open(&scratch.folder(), &KeySettings::default()).unwrap());
}

#[test]
fn a_key_file_that_others_could_have_written_or_read_is_refused() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let scratch = Scratch::new("keyfile");
    let settings = scratch.settings();
    let key = settings.key_file.clone().unwrap();
    drop(scratch.open().unwrap());
    let fault = || Store::open(&scratch.folder(), &settings).map(drop).unwrap_err().to_string();
    let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    mode(&key, 0o644);
    assert!(fault().contains("0644"));
    mode(&key, 0o600);
    let link = scratch.0.join("second-name");
    fs::hard_link(&key, &link).unwrap();
    assert!(fault().contains("hard link"));
    fs::remove_file(&link).unwrap();
    mode(&scratch.0, 0o770);
    assert!(fault().contains("others can write"));
    mode(&scratch.0, 0o700);
    fs::rename(&key, &link).unwrap();
    symlink(&link, &key).unwrap();
    assert!(fault().contains("symbolic links"), "{}", fault());
    fs::remove_file(&key).unwrap();
    assert!(fault().contains("there is no"));
    write_private(&key, &[0; 32]).unwrap();
    assert!(fault().contains("repeat"));
    fs::remove_file(&key).unwrap();
    fs::rename(&link, &key).unwrap();
    scratch.open().unwrap();
}

#[test]
fn a_file_that_is_replaced_under_an_open_store_is_not_written_to() {
    let scratch = Scratch::new("replaced");
    let store = scratch.open().unwrap();
    put(&store, &["a"]);
    let old = scratch.sealed_ledger();
    put(&store, &["b"]);
    scratch.sql(&format!("UPDATE seal SET ledger = x'{old}'"));
    assert!(matches!(store.apply(&Changes::default().put(&nonce("c"))), Err(StoreFault::Damaged { .. })));
}

impl Scratch {
    fn sealed_ledger(&self) -> String {
        let file = rusqlite::Connection::open(self.folder().join(TABLES)).unwrap();
        file.query_row("SELECT hex(ledger) FROM seal", [], |row| row.get(0)).unwrap()
    }
}

/// What an intruder with the file may do to rows.
#[derive(Debug, Clone)]
enum Meddling {
    Swap(usize, usize),
    Copy(usize, usize),
    Remove(usize),
    PutBack(usize),
    Flip(usize, usize),
}

fn meddling() -> impl Strategy<Value = Meddling> {
    let row = 0..6usize;
    prop_oneof![
        (row.clone(), row.clone()).prop_map(|(a, b)| Meddling::Swap(a, b)),
        (row.clone(), row.clone()).prop_map(|(a, b)| Meddling::Copy(a, b)),
        row.clone().prop_map(Meddling::Remove),
        row.clone().prop_map(Meddling::PutBack),
        (row, 0..2000usize).prop_map(|(a, bit)| Meddling::Flip(a, bit)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_done_to_rows_is_noticed(acts in proptest::collection::vec(meddling(), 1..4)) {
        let scratch = Scratch::new("meddling");
        let store = scratch.open().unwrap();
        let names = ["a", "b", "c", "d", "e", "f"];
        put(&store, &names);
        let values = |scratch: &Scratch| -> Vec<Vec<u8>> {
            let file = rusqlite::Connection::open(scratch.folder().join(TABLES)).unwrap();
            names.iter().map(|name| {
                file.query_row("SELECT value FROM record WHERE key = ?1", [format!("k {name}")], |row| row.get(0)).unwrap()
            }).collect()
        };
        let older = values(&scratch);
        put(&store, &names);
        drop(store);
        let intact = values(&scratch);
        let mut rows: Vec<Option<Vec<u8>>> = intact.iter().cloned().map(Some).collect();
        for act in &acts {
            match *act {
                Meddling::Swap(a, b) => rows.swap(a, b),
                Meddling::Copy(a, b) => rows[b] = rows[a].clone(),
                Meddling::Remove(a) => rows[a] = None,
                Meddling::PutBack(a) => rows[a] = Some(older[a].clone()),
                Meddling::Flip(a, bit) => if let Some(value) = &mut rows[a] {
                    let at = bit % (value.len() * 8);
                    value[at / 8] ^= 1 << (at % 8);
                }
            }
        }
        let file = rusqlite::Connection::open(scratch.folder().join(TABLES)).unwrap();
        for (name, value) in names.iter().zip(&rows) {
            let key = format!("k {name}");
            match value {
                Some(value) => file.execute("UPDATE record SET value = ?2 WHERE key = ?1", rusqlite::params![key, value]),
                None => file.execute("DELETE FROM record WHERE key = ?1", [key]),
            }.unwrap();
        }
        drop(file);
        let untouched = rows.iter().zip(&intact).all(|(now, then)| now.as_ref() == Some(then));
        prop_assert_eq!(scratch.open().is_ok(), untouched, "{:?}", acts);
    }
}

#[test]
fn a_rotation_that_cannot_clean_up_says_so_and_the_next_one_does_not_lose_the_salt() {
    let scratch = Scratch::new("left-behind");
    let machine = KeySettings::default();
    let store = Store::open(&scratch.folder(), &machine).unwrap();
    put(&store, &["a"]);
    // Somebody reads the file, so that its log cannot be emptied into it.
    let reader = rusqlite::Connection::open(scratch.folder().join(TABLES)).unwrap();
    reader.execute_batch("BEGIN; SELECT count(*) FROM record").unwrap();
    let fault = store.rotate().unwrap_err();
    assert!(matches!(fault, StoreFault::LeftBehind(_)), "{fault}");
    assert_eq!(store.key_facts().epoch, 2);
    let salt = fs::read(scratch.folder().join("next-salt")).unwrap();
    assert!(matches!(store.rotate(), Err(StoreFault::LeftBehind(_))));
    assert_eq!(fs::read(scratch.folder().join("next-salt")).unwrap(), salt, "the salt in force was overwritten");
    put(&store, &["b"]);
    drop(reader);
    drop(store);
    let store = Store::open(&scratch.folder(), &machine).unwrap();
    assert_eq!(store.all::<NonceRecord>().unwrap().len(), 2);
    assert_eq!(fs::read(scratch.folder().join("salt")).unwrap(), salt);
    assert_eq!(store.rotate().unwrap().epoch, 3);
}

#[test]
fn a_rotation_does_not_seal_what_was_changed_behind_our_back() {
    let scratch = Scratch::new("launder");
    let store = scratch.open().unwrap();
    put(&store, &["a", "b"]);
    let (old, rows) = (scratch.sealed_ledger(), scratch.copy());
    store.apply(&Changes::default().remove::<NonceRecord>("k a")).unwrap();
    let now = scratch.sealed_ledger();
    scratch.sql("DELETE FROM record WHERE key = 'k b'");
    assert!(matches!(store.rotate(), Err(StoreFault::Damaged { .. })));
    scratch.sql(&format!("UPDATE seal SET ledger = x'{old}'"));
    assert!(matches!(store.rotate(), Err(StoreFault::Damaged { .. })));
    scratch.sql(&format!("UPDATE seal SET ledger = x'{now}'"));
    assert!(matches!(store.rotate(), Err(StoreFault::Damaged { .. })));
    drop((store, rows));
}

#[test]
fn a_rotation_never_takes_the_key_before() {
    let scratch = Scratch::new("previous");
    let settings = scratch.settings();
    drop(scratch.open().unwrap());
    let moved = KeySettings {
        key_file: Some(scratch.0.join("not there")),
        previous_key_file: settings.key_file.clone(),
        ..Default::default()
    };
    let store = Store::open(&scratch.folder(), &moved).unwrap();
    assert!(matches!(store.rotate(), Err(StoreFault::NoKey { .. })));
}

#[test]
fn what_is_refused_is_left_as_it_is() {
    let scratch = Scratch::new("untouched");
    let store = scratch.open().unwrap();
    put(&store, &["a"]);
    drop(store);
    let before = scratch.copy();
    put(&scratch.open().unwrap(), &["b"]);
    let after = scratch.copy();
    // An older file with the counter of now; a log of somebody else's; a rollback journal; a fifo.
    for (path, bytes) in before.iter().filter(|(path, _)| path.ends_with(TABLES)) {
        fs::write(path, bytes).unwrap();
    }
    let planted = scratch.folder().join("state.sqlite-journal");
    for _ in 0..2 {
        let state = scratch.copy();
        assert!(scratch.open().is_err());
        for (path, bytes) in &state {
            assert!(
                path.to_string_lossy().ends_with("-shm") || fs::read(path).unwrap() == *bytes,
                "{}",
                path.display()
            );
        }
        write_private(&planted, b"journal").unwrap();
    }
    fs::remove_file(&planted).unwrap();
    nix::unistd::mkfifo(&planted, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    assert!(scratch.open().is_err());
    fs::remove_file(&planted).unwrap();
    after.iter().for_each(|(path, bytes)| fs::write(path, bytes).unwrap());
    assert_eq!(scratch.open().unwrap().all::<NonceRecord>().unwrap().len(), 2);
}

#[test]
fn a_new_store_takes_the_salt_that_is_there() {
    let scratch = Scratch::new("salt");
    drop(Store::open(&scratch.folder(), &KeySettings::default()).unwrap());
    let salt = fs::read(scratch.folder().join("salt")).unwrap();
    let moved = scratch.copy();
    moved.iter().filter(|(path, _)| !path.ends_with("salt")).for_each(|(path, _)| fs::remove_file(path).unwrap());
    drop(Store::open(&scratch.folder(), &KeySettings::default()).unwrap());
    assert_eq!(fs::read(scratch.folder().join("salt")).unwrap(), salt);
    moved.iter().for_each(|(path, bytes)| fs::write(path, bytes).unwrap());
    Store::open(&scratch.folder(), &KeySettings::default()).unwrap();
}

#[test]
fn a_restored_store_does_not_open_without_its_counter() {
    let scratch = Scratch::new("restored");
    let store = scratch.open().unwrap();
    put(&store, &["a"]);
    let content = store.export().unwrap();
    drop(store);
    fs::write(scratch.folder().join("counter"), [7; 200]).unwrap();
    let restored =
        Store::restore(&scratch.folder(), &scratch.settings(), &content, Over::WhatIsThere, || Ok::<(), ()>(()));
    put(&restored.unwrap().unwrap(), &["b"]);
    assert_eq!(scratch.open().unwrap().all::<NonceRecord>().unwrap().len(), 2);
    fs::remove_file(scratch.folder().join("counter")).unwrap();
    assert!(matches!(scratch.open(), Err(StoreFault::CounterMissing { .. })));
}

#[test]
fn a_backup_that_no_gateway_would_start_with_replaces_nothing() {
    let scratch = Scratch::new("bad-backup");
    let store = scratch.open().unwrap();
    put(&store, &["a"]);
    let good = store.export().unwrap();
    drop(store);
    let row = |kind: &str, key: &str, value: &[u8]| {
        let part = |bytes: &[u8]| [&(bytes.len() as u32).to_be_bytes(), bytes].concat();
        [part(kind.as_bytes()), part(key.as_bytes()), part(value)].concat()
    };
    let valid = row("nonce", "k b", br#"{"key":"k","nonce":"b","created":1}"#);
    for content in [
        vec![],
        b"VMBB\x01".to_vec(),
        b"VMBB\x02".to_vec(),
        good.expose()[..good.expose().len() - 1].to_vec(),
        [&b"VMBB\x01"[..], &valid, &valid].concat(),
        [&b"VMBB\x01"[..], &row("nonce", "k b", b"{}")].concat(),
        [&b"VMBB\x01"[..], &row("nonce", "k c", br#"{"key":"k","nonce":"b","created":1}"#)].concat(),
        [&b"VMBB\x01"[..], &row("own", "gateway-identity", b"abc")].concat(),
        [&b"VMBB\x01"[..], &row("own", "other", b"abc")].concat(),
        [&b"VMBB\x01"[..], &row("newer", "x", b"abc")].concat(),
        [&b"VMBB\x01"[..], &row("secret-value", "lower", b"12345678")].concat(),
    ] {
        let content = Secret::new(content);
        let restored =
            Store::restore(&scratch.folder(), &scratch.settings(), &content, Over::WhatIsThere, || Ok::<(), ()>(()));
        assert!(restored.is_err());
    }
    // Nor one that cannot be recorded.
    let restored = Store::restore(&scratch.folder(), &scratch.settings(), &good, Over::WhatIsThere, || Err(()));
    assert!(restored.unwrap().is_err());
    assert_eq!(scratch.open().unwrap().all::<NonceRecord>().unwrap(), [nonce("a")]);
}
