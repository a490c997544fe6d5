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
    let restore = |files: &[(PathBuf, Vec<u8>)]| files.iter().for_each(|(path, bytes)| fs::write(path, bytes).unwrap());

    let tables: Vec<_> = before.iter().filter(|(path, _)| path.to_string_lossy().contains(TABLES)).cloned().collect();
    restore(&tables);
    assert!(matches!(scratch.open(), Err(StoreFault::RolledBack { .. })));
    restore(&after);
    scratch.open().unwrap();
    fs::remove_file(scratch.folder().join("counter")).unwrap();
    assert!(matches!(scratch.open(), Err(StoreFault::CounterMissing { .. })));
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
         INSERT INTO record VALUES ('nonce', 'k a', CAST('{"key":"k","nonce":"a","created":1}' AS BLOB))"#,
    );
    write_private(&scratch.folder().join("gateway-token"), b"plain token").unwrap();
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
